//! A buildlet for the tests of the pool: takes the same flags, writes its report, answers `/status`
//! and `/halt`, checks the password, and does nothing else.
//!
//! `STAND_IN=refuse` ends at once with a message, `STAND_IN=mute` never writes a report.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

fn main() -> std::io::Result<()> {
    match std::env::var("STAND_IN").as_deref() {
        Ok("refuse") => {
            eprintln!("starting\ncannot open the moon\n");
            std::process::exit(3);
        }
        Ok("mute") => loop {
            std::thread::park();
        },
        _ => {}
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let flags: BTreeMap<&str, &str> = args
        .windows(2)
        .map(|pair| (pair[0].as_str(), pair[1].as_str()))
        .collect();
    let password = std::fs::read_to_string(flags["-password-file"])?;
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    let (pid, instance) = (std::process::id(), format!("{nanos:x}"));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let report = format!(r#"{{"address":"{address}","pid":{pid},"instance":"{instance}"}}"#);
    let temporary = format!("{}.new", flags["-report-file"]);
    std::fs::write(&temporary, report)?;
    std::fs::rename(&temporary, flags["-report-file"])?;
    let secret = std::env::var("BURROW_SECRET").unwrap_or_default();
    let status = format!(r#"{{"Version":27,"Burrow":"stand-in{secret}","Instance":"{instance}"}}"#);
    for stream in listener.incoming() {
        let (stream, status, password) = (stream?, status.clone(), password.clone());
        std::thread::spawn(move || serve(stream, &status, &password));
    }
    Ok(())
}

fn serve(mut stream: TcpStream, status: &str, password: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        // The password itself is the client's concern; that one came is enough here.
        let (code, body) = match (
            head.to_ascii_lowercase().contains("\r\nauthorization: basic "),
            password,
        ) {
            (false, _) | (_, "") => (401, "no password"),
            _ => (200, status),
        };
        write!(
            stream,
            "HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        if head.starts_with("POST /halt ") {
            std::process::exit(0);
        }
    }
}
