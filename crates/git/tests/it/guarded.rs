//! A server of plain files that wants a login, and looks for passwords in the process list meanwhile.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Base64 of `amy:s3cr@t`.
const GOOD: &str = "Basic YW15OnMzY3JAdA==";

pub struct Guarded {
    pub address: String,
    saw: Arc<Mutex<Saw>>,
}

#[derive(Default)]
struct Saw {
    login: String,
    command_lines: Vec<String>,
}

impl Guarded {
    /// Serves `dir` as `/w`.
    pub fn start(dir: PathBuf) -> Guarded {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let saw = Arc::new(Mutex::new(Saw::default()));
        let shared = saw.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that left is no matter.
                let _ = answer(stream, &dir, &shared);
            }
        });
        Guarded { address, saw }
    }

    pub fn login(&self) -> String {
        self.saw.lock().expect("no holder panics").login.clone()
    }

    pub fn seen(&self) -> Vec<String> {
        self.saw.lock().expect("no holder panics").command_lines.clone()
    }
}

fn answer(mut stream: TcpStream, dir: &Path, saw: &Mutex<Saw>) -> std::io::Result<()> {
    let (mut path, mut login) = (String::new(), String::new());
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("GET /w/") {
            path = rest.split([' ', '?']).next().unwrap_or_default().to_owned();
        }
        if let Some(rest) = line.strip_prefix("Authorization: ") {
            login = rest.to_owned();
        }
    }
    let mut saw = saw.lock().expect("no holder panics");
    saw.command_lines.extend(command_lines());
    if login == GOOD {
        saw.login.clone_from(&login);
        let (status, body) = match std::fs::read(dir.join(path)) {
            Ok(body) => ("200 OK", body),
            Err(_) => ("404 Not Found", Vec::new()),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        return stream.write_all(&body);
    }
    let ask = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"w\"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(ask.as_bytes())
}

/// Those on this machine in which one of the passwords stands.
fn command_lines() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines
        .filter(|line| {
            line.contains("git")
                && ["s3cr%40t", "s3cr@t", "wr0ng"]
                    .iter()
                    .any(|word| line.contains(word))
        })
        .collect()
}
