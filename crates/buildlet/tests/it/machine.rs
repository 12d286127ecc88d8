//! A buildlet in a folder of its own, and requests to it as bytes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Machine {
    pub child: Child,
    pub folder: tempfile::TempDir,
    pub address: String,
}

/// An answer taken apart. Header names are in lower case.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// It ended as its framing says it should, and was not cut.
    pub whole: bool,
}

impl Machine {
    pub fn start() -> Machine {
        Machine::with(&[], &[])
    }

    pub fn with(flags: &[&str], env: &[(&str, &str)]) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("outside")).unwrap();
        let report = folder.path().join("report");
        let child = Command::new(env!("CARGO_BIN_EXE_buildlet"))
            .arg("-listen=127.0.0.1:0")
            .arg(format!("-workdir={}", folder.path().join("work").display()))
            .arg(format!("-state-dir={}", folder.path().join("state").display()))
            .arg(format!("-report-file={}", report.display()))
            .args(flags)
            .envs(env.iter().copied())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut machine = Machine {
            child,
            folder,
            address: String::new(),
        };
        machine.until("it listens", |_| report.exists());
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
        machine.address = report["address"].as_str().unwrap().to_owned();
        machine
    }

    pub fn work(&self, path: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("work").join(path)
    }

    pub fn outside(&self, path: &str) -> PathBuf {
        self.folder.path().join("outside").join(path)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn get(&self, target: &str) -> Answer {
        self.request("GET", target, "", b"")
    }

    pub fn post(&self, target: &str, form: &[(&str, &str)]) -> Answer {
        self.request("POST", target, "", self::form(form).as_bytes())
    }

    pub fn put(&self, target: &str, body: &[u8]) -> Answer {
        self.request("PUT", target, "", body)
    }

    /// `headers` are whole lines.
    pub fn request(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> Answer {
        request(self.connect(), method, target, headers, body)
    }

    /// Runs a shell command in the working directory.
    pub fn sh(&self, script: &str) -> Answer {
        self.post(
            "/exec",
            &[
                ("cmd", "/bin/sh"),
                ("mode", "sys"),
                ("cmdArg", "-c"),
                ("cmdArg", script),
            ],
        )
    }

    /// Waits until `happened`.
    pub fn until(&mut self, what: &str, mut happened: impl FnMut(&mut Child) -> bool) {
        let began = Instant::now();
        while !happened(&mut self.child) {
            assert!(began.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end of the process; its exit code.
    pub fn code(&mut self) -> Option<i32> {
        self.until("it ends", |child| child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn trailer(&self, name: &str) -> Option<&str> {
        let found = self.trailers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn state(&self) -> &str {
        assert_eq!(self.status, 200, "{}", self.text());
        self.trailer("process-state").unwrap_or("none")
    }

    /// Status and text, for comparing refusals.
    pub fn shown(&self) -> String {
        format!("{} {}", self.status, self.text().trim_end())
    }
}

/// One request on a connection that the answer ends.
pub fn request(
    mut stream: impl Read + Write,
    method: &str,
    target: &str,
    headers: &str,
    body: &[u8],
) -> Answer {
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: \r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // It may refuse before it has read everything.
    let _ = stream.write_all(body);
    read(&mut stream)
}

/// Reads an answer to the end of its connection.
pub fn read(stream: &mut impl Read) -> Answer {
    let mut bytes = Vec::new();
    // A connection that is cut leaves what came before.
    let ended = stream.read_to_end(&mut bytes).is_ok();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(&bytes)));
    let (head, mut rest) = (
        String::from_utf8_lossy(&bytes[..end]).into_owned(),
        &bytes[end + 4..],
    );
    let mut answer = Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        headers: head.split("\r\n").skip(1).map(pair).collect(),
        body: Vec::new(),
        trailers: Vec::new(),
        whole: false,
    };
    if answer.header("transfer-encoding").is_none() {
        answer.whole = ended && answer.header("content-length") == Some(&rest.len().to_string());
        answer.body = rest.to_vec();
        return answer;
    }
    while let Some(line) = take_line(&mut rest) {
        let size = usize::from_str_radix(&line, 16).unwrap();
        if size == 0 {
            while let Some(line) = take_line(&mut rest) {
                if line.is_empty() {
                    answer.whole = rest.is_empty();
                    break;
                }
                answer.trailers.push(pair(&line));
            }
            break;
        }
        let take = size.min(rest.len());
        answer.body.extend_from_slice(&rest[..take]);
        rest = rest.get(size + 2..).unwrap_or_default();
    }
    answer
}

fn take_line(rest: &mut &[u8]) -> Option<String> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let line = String::from_utf8_lossy(&rest[..end]).into_owned();
    *rest = &rest[end + 2..];
    Some(line)
}

fn pair(line: &str) -> (String, String) {
    let (key, value) = line.split_once(": ").unwrap_or((line, ""));
    (key.to_lowercase(), value.to_owned())
}

/// Urlencoded, every byte that is no letter or digit.
pub fn form(pairs: &[(&str, &str)]) -> String {
    let coded = |text: &str| {
        let one = |b: u8| match b {
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        };
        text.bytes().map(one).collect::<String>()
    };
    let pair = |(key, value): &(&str, &str)| format!("{}={}", coded(key), coded(value));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}
