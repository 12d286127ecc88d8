//! A buildlet in another place, asked over the network.

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;

use crate::world::LIMIT;

/// Reads what a machine tells until its buildlet has said where it listens.
pub fn listening_at(told: impl BufRead) -> String {
    let mut before = String::new();
    for line in told.lines().map_while(Result::ok) {
        if let Some((_, address)) = line.split_once("buildlet: listening at ") {
            return address.trim().to_owned();
        }
        before += &format!("{line}\n");
    }
    panic!("no buildlet listens; the machine told:\n{before}");
}

/// `/status` is a buildlet's, and `program -version`, a buildlet too, runs to a good end.
pub fn answers_and_runs(address: &str, password: Option<&str>, program: &str) {
    let status = ask(address, password, "GET", "/status", "");
    assert!(status.contains("\"Version\":27"), "{status}");
    let out = ask(
        address,
        password,
        "POST",
        "/exec",
        &format!("mode=sys&cmd={program}&cmdArg=-version"),
    );
    assert!(
        out.contains("buildlet ") && out.contains("Process-State: ok"),
        "{out}"
    );
}

/// The whole answer, head and framing and all.
pub fn ask(address: &str, password: Option<&str>, method: &str, path: &str, form: &str) -> String {
    let mut tcp = TcpStream::connect(address).expect("it listens");
    tcp.set_read_timeout(Some(LIMIT)).expect("set");
    let authorization = password.map_or(String::new(), |password| {
        format!("Authorization: Basic {}\r\n", base64(&format!(":{password}")))
    });
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    tcp.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).expect("answered");
    String::from_utf8_lossy(&answer).into_owned()
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |bytes: &[u8]| -> String {
        let all = (0..3).fold(0u32, |all, at| all << 8 | u32::from(*bytes.get(at).unwrap_or(&0)));
        let digit = |at: usize| char::from(DIGITS[(all >> (18 - 6 * at) & 63) as usize]);
        (0..4)
            .map(|at| if at <= bytes.len() { digit(at) } else { '=' })
            .collect()
    };
    text.as_bytes().chunks(3).map(group).collect()
}
