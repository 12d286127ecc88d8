//! One connection after another: reads a request, answers it, keeps the connection if both want.

use std::io::{self, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http1::{BodyDecoder, RequestHead};
use subtle::ConstantTimeEq;

use crate::exec::{Exec, Execs, Refusal, Spec};
use crate::files::{self, FileError};
use crate::form;
use crate::stream::{Body, Buffered, Stream, notice_death};

/// Most connections at once; more are closed at once.
const CONNECTIONS_MAX: usize = 256;

/// Longest body of a form. Source: spec buildlet 1.2.
const FORM_MAX: usize = 10 << 20;

/// What this buildlet says it speaks. Source: spec buildlet 1.12.
pub const PROTOCOL: u32 = 27;

pub struct Server {
    workdir: PathBuf,
    password: Option<String>,
    instance: String,
    execs: Execs,
    /// When somebody who may last asked.
    asked: Mutex<Instant>,
    halting: AtomicBool,
    connections: AtomicUsize,
    names: AtomicUsize,
}

/// Accepts for ever.
pub fn serve(server: &Arc<Server>, listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors, as a rule: let some go.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        // Source: golang/build `cmd/buildlet/buildlet.go`.
        notice_death(&stream, Duration::from_secs(180));
        let server = server.clone();
        std::thread::spawn(move || server.serve(Buffered::new(Stream::Plain(stream))));
    }
}

impl Server {
    pub fn new(workdir: PathBuf, password: Option<String>, instance: String, execs: Execs) -> Server {
        Server {
            workdir,
            password,
            instance,
            execs,
            asked: Mutex::new(Instant::now()),
            halting: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            names: AtomicUsize::new(0),
        }
    }

    /// Serves one connection to its end.
    pub fn serve(&self, stream: Buffered) {
        if self.connections.fetch_add(1, Ordering::SeqCst) < CONNECTIONS_MAX {
            // A connection that broke is closed, and that is all.
            let _ = Connection(stream).run(self);
        }
        self.connections.fetch_sub(1, Ordering::SeqCst);
    }

    /// Ends the process when nobody has asked for `limit`: its coordinator is not coming back.
    pub fn end_when_orphaned(&self, limit: Duration, code: i32) {
        loop {
            let idle = self.asked.lock().expect("no holder panics").elapsed();
            if idle >= limit {
                eprintln!("buildlet: nobody has asked for {} s, ending", limit.as_secs());
                self.end();
                std::process::exit(code);
            }
            std::thread::sleep(limit - idle);
        }
    }

    /// Takes no new work and ends what runs.
    pub fn end(&self) {
        self.halting.store(true, Ordering::SeqCst);
        self.execs.kill_all();
    }

    fn may(&self, head: &RequestHead) -> bool {
        let Some(password) = &self.password else {
            return true;
        };
        let given = head
            .header("authorization")
            .and_then(|value| value.strip_prefix("Basic "))
            .and_then(base64);
        let given = given
            .and_then(|text| Some(text.split_once(':')?.1.to_owned()))
            .unwrap_or_default();
        given.as_bytes().ct_eq(password.as_bytes()).into()
    }
}

struct Connection(Buffered);

/// A whole answer.
struct Answer {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
}

impl Answer {
    fn ok(text: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status: 200,
            kind: "text/plain; charset=utf-8",
            body: text.into(),
        }
    }

    fn json(text: String) -> Answer {
        Answer {
            status: 200,
            kind: "application/json; charset=utf-8",
            body: text.into_bytes(),
        }
    }

    /// As Go's error helper sends it: the text and one line end.
    fn error(status: u16, text: impl std::fmt::Display) -> Answer {
        Answer {
            status,
            kind: "text/plain; charset=utf-8",
            body: format!("{text}\n").into_bytes(),
        }
    }
}

impl From<FileError> for Answer {
    fn from(FileError(status, text): FileError) -> Answer {
        Answer::error(status, text)
    }
}

impl From<Refusal> for Answer {
    fn from(Refusal(status, text): Refusal) -> Answer {
        Answer::error(status, text)
    }
}

impl Connection {
    fn run(mut self, server: &Server) -> io::Result<()> {
        loop {
            let head = loop {
                match RequestHead::parse(&self.0.have) {
                    Ok(Some((head, used))) => {
                        self.0.have.drain(..used);
                        break head;
                    }
                    Ok(None) => {
                        if self.0.fill()? == 0 {
                            return Ok(());
                        }
                    }
                    Err(why) => return send(&mut self.0, &Answer::error(400, why), false),
                }
            };
            let body = match BodyDecoder::new(&head) {
                Ok(body) => body,
                Err(why) => return send(&mut self.0, &Answer::error(400, why), false),
            };
            if head.expects_continue() {
                self.0.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let keep = head.keeps_alive();
            let mut request = Request {
                body: self.0.body(body),
            };
            let answered = request.handle(server, &head)?;
            // What the handler left of the body must go before the next head; a little, then no more.
            let drained = request.body.drain(256 * 1024)?;
            if let Some(answer) = answered {
                send(&mut self.0, &answer, keep && drained)?;
            }
            if !keep || !drained {
                return Ok(());
            }
        }
    }
}

fn send(to: &mut Buffered, answer: &Answer, keep: bool) -> io::Result<()> {
    let mut out = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nX-Content-Type-Options: nosniff\r\nContent-Length: {}\r\n{}\r\n",
        answer.status,
        phrase(answer.status),
        answer.kind,
        answer.body.len(),
        if keep { "" } else { "Connection: close\r\n" },
    )
    .into_bytes();
    out.extend_from_slice(&answer.body);
    to.send(&out)
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        413 => "Payload Too Large",
        422 => "Unprocessable Entity",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

/// A request whose body is read as it comes.
struct Request<'a> {
    body: Body<'a>,
}

impl Request<'_> {
    /// `None`: the answer has been sent already.
    fn handle(&mut self, server: &Server, head: &RequestHead) -> io::Result<Option<Answer>> {
        let path = head.path().to_owned();
        match path.as_str() {
            "/" => {
                return Ok(Some(Answer::ok(format!(
                    "buildlet running on {}-{}\n",
                    os(),
                    arch()
                ))));
            }
            "/healthz" => return Ok(Some(Answer::ok("ok\n"))),
            _ => {}
        }
        if !server.may(head) {
            return Ok(Some(Answer::error(403, "invalid password")));
        }
        *server.asked.lock().expect("no holder panics") = Instant::now();
        let wanted: &[&str] = match path.as_str() {
            "/status" | "/workdir" => &["GET"],
            "/writetgz" | "/write" => &["PUT"],
            "/exec" | "/removeall" | "/halt" => &["POST"],
            "/burrow/exec" => &["POST", "GET"],
            other if other.starts_with("/burrow/exec/") => &["GET", "DELETE"],
            _ => return Ok(Some(Answer::error(404, "404 page not found"))),
        };
        let method = head.method.as_str();
        if !wanted.contains(&method) {
            return Ok(Some(Answer::error(
                400,
                format!("requires {} method", wanted.join(" or ")),
            )));
        }
        if server.halting.load(Ordering::SeqCst) && path != "/status" {
            return Ok(Some(Answer::error(503, "this buildlet is ending")));
        }
        if let Err(why) = std::fs::create_dir_all(&server.workdir) {
            return Ok(Some(Answer::error(
                500,
                format!("cannot make the working directory: {why}"),
            )));
        }
        let query = form::parse(head.query().as_bytes());
        let answer = match (path.as_str(), method) {
            ("/status", _) => Answer::json(format!(
                "{{\"Version\":{PROTOCOL},\"Burrow\":\"{}\",\"Features\":[\"exec2\"],\"Instance\":\"{}\"}}\n",
                env!("CARGO_PKG_VERSION"),
                server.instance
            )),
            ("/workdir", _) => Answer::ok(server.workdir.display().to_string()),
            ("/writetgz", _) => {
                let dir = form::get(&query, "dir").unwrap_or_default().to_owned();
                files::unpack(&server.workdir, &dir, &mut self.body)
                    .map_or_else(Answer::from, |()| Answer::ok("OK"))
            }
            ("/write", _) => {
                let (path, mode) = (form::get(&query, "path"), form::get(&query, "mode"));
                let (path, mode) = (
                    path.unwrap_or_default().to_owned(),
                    mode.unwrap_or_default().to_owned(),
                );
                let put = files::put(&server.workdir, &path, &mode, &mut self.body);
                put.map_or_else(Answer::from, |()| Answer::ok("OK"))
            }
            ("/removeall", _) => match self.form()? {
                Err(answer) => answer,
                Ok(body) => {
                    let paths: Vec<&str> = form::all(&body, "path")
                        .chain(form::all(&query, "path"))
                        .collect();
                    if paths.contains(&".") {
                        server.execs.kill_all();
                    }
                    files::remove(&server.workdir, &paths).map_or_else(Answer::from, |()| Answer::ok(""))
                }
            },
            ("/halt", _) => {
                server.halting.store(true, Ordering::SeqCst);
                send(self.body.connection, &Answer::ok(""), false)?;
                server.end();
                std::thread::sleep(Duration::from_secs(1));
                std::process::exit(0);
            }
            ("/exec", _) => return self.exec(server),
            ("/burrow/exec", "POST") => match self.form()? {
                Err(answer) => answer,
                Ok(body) => {
                    let id = form::get(&query, "id").unwrap_or_default();
                    match server.execs.start(id, &spec(&body)) {
                        Ok(started) => Answer::json(format!("{{\"id\":\"{id}\",\"started\":{started}}}\n")),
                        Err(refusal) => refusal.into(),
                    }
                }
            },
            ("/burrow/exec", _) => {
                let one = |(id, running, bytes)| {
                    format!("{{\"id\":\"{id}\",\"running\":{running},\"bytes\":{bytes}}}")
                };
                let all: Vec<String> = server.execs.list().into_iter().map(one).collect();
                Answer::json(format!("[{}]\n", all.join(",")))
            }
            (path, method) => {
                let id = path.trim_start_matches("/burrow/exec/");
                let exec = server.execs.get(id);
                match (method, exec) {
                    (_, None) => Answer::error(404, format!("there is no command `{id}`")),
                    ("DELETE", Some(_)) => {
                        server.execs.delete(id);
                        Answer::ok("")
                    }
                    (_, Some(exec)) => {
                        let offset = form::get(&query, "offset").unwrap_or("0").parse::<u64>();
                        match offset {
                            Err(_) => Answer::error(400, "bad offset; wanted a number of bytes"),
                            Ok(offset) => return self.follow(&exec, offset).map(|()| None),
                        }
                    }
                }
            }
        };
        Ok(Some(answer))
    }

    /// The whole body as a form; the `Err` is an answer to a body too large.
    fn form(&mut self) -> io::Result<Result<Vec<(String, String)>, Answer>> {
        let mut body = Vec::new();
        (&mut self.body)
            .take(FORM_MAX as u64 + 1)
            .read_to_end(&mut body)?;
        if body.len() > FORM_MAX {
            return Ok(Err(Answer::error(
                413,
                format!("the form is longer than {FORM_MAX} bytes"),
            )));
        }
        Ok(Ok(form::parse(&body)))
    }

    /// The original's exec: the command lives and dies with this connection.
    fn exec(&mut self, server: &Server) -> io::Result<Option<Answer>> {
        let body = match self.form()? {
            Ok(body) => body,
            Err(answer) => return Ok(Some(answer)),
        };
        let id = format!("connection.{}", server.names.fetch_add(1, Ordering::SeqCst));
        if let Err(refusal) = server.execs.start(&id, &spec(&body)) {
            return Ok(Some(refusal.into()));
        }
        let Some(exec) = server.execs.get(&id) else {
            return Ok(Some(Answer::error(500, "the command is gone")));
        };
        let done = self.follow(&exec, 0);
        exec.kill();
        server.execs.delete(&id);
        done.map(|()| None)
    }

    /// Sends output from `offset` on until the command has ended, then how it ended as trailers.
    fn follow(&mut self, exec: &Exec, offset: u64) -> io::Result<()> {
        let connection = &mut *self.body.connection;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
             Trailer: Process-State, Burrow-Exec\r\nBurrow-Offset: {offset}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        connection.send(head.as_bytes())?;
        let mut file = exec.reader()?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
        let (mut at, mut piece) = (offset, vec![0; 256 * 1024]);
        loop {
            let state = exec.wait_past(at, Duration::from_secs(1));
            while at < state.bytes {
                let want = piece.len().min((state.bytes - at) as usize);
                let n = file.read(&mut piece[..want])?;
                if n == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                connection.send(&http1::chunk(&piece[..n]))?;
                at += n as u64;
            }
            if let Some(end) = state.end {
                let exit = end.exit.map_or("null".to_owned(), |code| code.to_string());
                let detail = format!(
                    "{{\"exit\":{exit},\"wall_ms\":{},\"bytes\":{}}}",
                    end.wall.as_millis(),
                    state.bytes
                );
                let trailers = [("Process-State", end.state.as_str()), ("Burrow-Exec", &detail)];
                return connection.send(&http1::last_chunk(&trailers));
            }
            if connection.is_gone() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    }
}

fn spec(body: &[(String, String)]) -> Spec {
    let list = |key| form::all(body, key).map(str::to_owned).collect();
    let one = |key| form::get(body, key).unwrap_or_default();
    Spec {
        cmd: one("cmd").to_owned(),
        args: list("cmdArg"),
        dir: one("dir").to_owned(),
        env: list("env"),
        path: list("path"),
        system: one("mode") == "sys",
        debug: form::is_true(form::get(body, "debug")),
        wall: one("wall_s").parse().ok().map(Duration::from_secs),
    }
}

fn os() -> &'static str {
    if std::env::consts::OS == "macos" {
        "darwin"
    } else {
        std::env::consts::OS
    }
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// Standard base64 with padding; `None` for anything else.
fn base64(text: &str) -> Option<String> {
    let value = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut out, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for b in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | u32::from(value(b)?);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_read() {
        assert_eq!(super::base64("dTpwdw==").as_deref(), Some("u:pw"));
        assert_eq!(super::base64("?").as_deref(), None);
    }
}
