//! One connection after another: reads a request, answers it, keeps the connection if both want.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use http1::{BodyDecoder, HeadError, RequestHead};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::answer::{Answer, Outgoing, send};
use crate::base64;
use crate::beneath::{Root, relative};
use crate::command::{Refusal, Spec};
use crate::contain::{AsBuilder, Containment, Limits, as_builder};
use crate::exec::{Exec, Execs};
use crate::facts::{self, Facts};
use crate::fetch::Fetcher;
use crate::files::{self, FileError, bad, failed};
use crate::form;
use crate::list::{self, Listing};
use crate::output::{exec_end, exec_head, pass_on};
use crate::ssh::{Guest, Ssh, SshRefusal};
use crate::stream::{Body, Buffered, Stream, notice_death};

/// What this buildlet has beyond the original. Source: spec buildlet 8.
const FEATURES: [&str; 3] = ["exec2", "facts", "limits"];

/// The head before what is no longer HTTP.
const UPGRADE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: ssh\r\nConnection: Upgrade\r\n\r\n";

/// Most connections at once; more are closed at once.
const CONNECTIONS_MAX: usize = 256;

/// Longest body of a form. Source: spec buildlet 1.2.
const FORM_MAX: usize = 10 << 20;

/// What is read of a body that is not wanted, so that its sender sees the answer.
const DRAIN_MAX: u64 = 4 << 20;

/// For a head from its first byte on; and, for a peer that has not yet shown that it may ask, for its request to
/// begin. One that may keeps its connection as long as it likes.
const HEAD_LIMIT: Duration = Duration::from_secs(60);

/// How long requests under way get to end in when the process is told to.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Longest answer of `/debug/x`.
const DEBUG_MAX: usize = 1 << 20;

/// Bytes of kept output that are sent as one chunk.
const FOLLOWED: u64 = 1 << 20;

/// What this buildlet says it speaks. Source: spec buildlet 1.12.
pub const PROTOCOL: u32 = 27;

pub struct Server {
    setup: Setup,
    /// When somebody who may last asked.
    asked: Mutex<Instant>,
    halting: AtomicBool,
    connections: AtomicUsize,
    /// Requests under way.
    busy: AtomicUsize,
    names: AtomicUsize,
    /// Why the working directory is not clean although that was asked for: nothing is run or written in it until it
    /// is.
    unclean: Mutex<Option<String>>,
}

pub struct Setup {
    pub workdir: PathBuf,
    pub password: Option<String>,
    /// Differs at every start.
    pub instance: String,
    pub execs: Execs,
    pub containment: Arc<Containment>,
    pub facts: Facts,
    pub ssh: Ssh,
    pub fetcher: Fetcher,
    pub at_halt: AtHalt,
    /// A folder that goes with the process.
    pub temporary: Option<PathBuf>,
}

/// What to do a second after `/halt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtHalt {
    EndProcess,
    PowerOff,
    Reboot,
}

impl AtHalt {
    /// The command that does it. Source: golang/build `cmd/buildlet/buildlet.go`.
    fn command(self, os: &str) -> Option<&'static [&'static str]> {
        match (self, os) {
            (AtHalt::EndProcess, _) => None,
            (AtHalt::Reboot, _) => Some(&["reboot"]),
            (AtHalt::PowerOff, "linux") => Some(&["/bin/halt", "-n", "-f", "-p"]),
            (AtHalt::PowerOff, "openbsd") => Some(&["halt", "-q", "-n", "-p"]),
            (AtHalt::PowerOff, "freebsd") => Some(&["shutdown", "-p", "-o", "now"]),
            (AtHalt::PowerOff, "macos") => Some(&["sudo", "/sbin/halt", "-n", "-q", "-l"]),
            (AtHalt::PowerOff, _) => None,
        }
    }

    fn perform(self) {
        let Some([program, args @ ..]) = self.command(std::env::consts::OS) else {
            return;
        };
        if let Err(why) = std::process::Command::new(program).args(args).spawn() {
            eprintln!("buildlet: cannot run `{program}`: {why}");
            return;
        }
        // The machine ends before this, or not at all.
        thread::sleep(Duration::from_secs(5));
    }
}

/// Accepts for ever.
pub fn serve(server: &Arc<Server>, listener: &TcpListener, tls: Option<&Arc<ServerConfig>>) {
    accept(listener, |stream| {
        let (server, tls) = (server.clone(), tls.cloned());
        thread::spawn(move || {
            let stream = match tls {
                None => Ok(Stream::Plain(stream)),
                Some(tls) => handshake(stream, tls),
            };
            if let Ok(stream) = stream {
                server.serve(Buffered::new(stream));
            }
        });
    });
}

/// Answers `/healthz` and nothing else, for ever; one connection at a time.
pub fn serve_health(listener: &TcpListener) {
    accept(listener, |stream| {
        let mut to = Buffered::new(Stream::Plain(stream));
        let answered = (|| {
            to.stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let path = loop {
                match RequestHead::parse(&to.have) {
                    Ok(Some((head, _))) => break head.path().to_owned(),
                    Ok(None) if to.fill()? > 0 => {}
                    _ => return Ok(()),
                }
            };
            let answer = match path.as_str() {
                "/healthz" => Answer::ok("ok\n"),
                _ => Answer::error(404, "404 page not found"),
            };
            send(&mut to, &answer, false)
        })();
        // Whoever asks and leaves does not need the answer.
        let _: io::Result<()> = answered;
    });
}

fn accept(listener: &TcpListener, mut take: impl FnMut(TcpStream)) {
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => {
                // Source: golang/build `cmd/buildlet/buildlet.go`.
                notice_death(&stream, Duration::from_secs(180));
                take(stream);
            }
            // Out of descriptors, as a rule: let some go.
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn handshake(mut tcp: TcpStream, tls: Arc<ServerConfig>) -> io::Result<Stream> {
    let mut connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    tcp.set_read_timeout(Some(Duration::from_secs(30)))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp)?;
    }
    tcp.set_read_timeout(None)?;
    Ok(Stream::Accepted(Box::new(StreamOwned::new(connection, tcp))))
}

impl Server {
    pub fn new(setup: Setup) -> Server {
        Server {
            setup,
            asked: Mutex::new(Instant::now()),
            halting: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            names: AtomicUsize::new(0),
            unclean: Mutex::new(None),
        }
    }

    /// Finds out which tools are here; takes seconds.
    pub fn look_for_tools(&self) {
        self.setup.facts.look_for_tools(&self.setup.execs);
    }

    pub fn instance(&self) -> &str {
        &self.setup.instance
    }

    pub fn has_password(&self) -> bool {
        self.setup.password.is_some()
    }

    fn quarantined(&self) -> Option<String> {
        self.unclean.lock().expect("no holder panics").clone()
    }

    pub fn is_ending(&self) -> bool {
        self.halting.load(Ordering::SeqCst)
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
            thread::sleep(limit - idle);
        }
    }

    /// Whether stage0 runs it and nothing is done but the request that asks. Nothing new is begun then.
    fn may_be_replaced(&self) -> bool {
        if std::env::var_os("BURROW_RELEASE").is_none() || self.halting.swap(true, Ordering::SeqCst) {
            return false;
        }
        let runs = |(_, running, _): &(String, bool, u64)| *running;
        let idle = self.busy.load(Ordering::SeqCst) == 1 && !self.setup.execs.list().iter().any(runs);
        self.halting.store(idle, Ordering::SeqCst);
        idle
    }

    /// Takes no new work, ends what runs, and removes what goes with the process.
    pub fn end(&self) {
        self.halting.store(true, Ordering::SeqCst);
        self.setup.execs.kill_all();
        self.setup.containment.close();
        if let Some(folder) = &self.setup.temporary {
            // What stays is in the system's folder for such.
            let _ = std::fs::remove_dir_all(folder);
        }
    }

    /// Ends what runs, lets requests under way end, and then the process: with 0 if all did.
    pub fn stop(&self) {
        self.end();
        let deadline = Instant::now() + STOP_GRACE;
        while self.busy.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        std::process::exit(i32::from(self.busy.load(Ordering::SeqCst) > 0));
    }

    fn may(&self, head: &RequestHead) -> bool {
        let Some(password) = &self.setup.password else {
            return true;
        };
        let given = head
            .header("authorization")
            .and_then(|value| value.strip_prefix("Basic "))
            .and_then(base64::decode);
        let given = given
            .and_then(|text| Some(text.split_once(':')?.1.to_owned()))
            .unwrap_or_default();
        given.as_bytes().ct_eq(password.as_bytes()).into()
    }
}

struct Connection(Buffered);

impl Connection {
    fn run(mut self, server: &Server) -> io::Result<()> {
        // Whoever was dialled has proved who it is.
        let mut known = self.0.stream.is_dialled();
        loop {
            let head = match self.head(known)? {
                Ok(Some(head)) => head,
                Ok(None) => return Ok(()),
                Err(why) => return send(&mut self.0, &Answer::error(400, why), false),
            };
            known |= server.may(&head) && head.path() != "/" && head.path() != "/healthz";
            let decoder = match BodyDecoder::new(&head) {
                Ok(decoder) => decoder,
                Err(why) => return send(&mut self.0, &Answer::error(400, why), false),
            };
            server.busy.fetch_add(1, Ordering::SeqCst);
            let kept = answer(&mut self.0, decoder, server, &head);
            server.busy.fetch_sub(1, Ordering::SeqCst);
            if !kept? {
                return Ok(());
            }
        }
    }
}

impl Connection {
    /// The next request's head; nothing if no more comes, or not in time.
    fn head(&mut self, known: bool) -> io::Result<Result<Option<RequestHead>, HeadError>> {
        let mut deadline = (!known).then(|| Instant::now() + HEAD_LIMIT);
        let head = loop {
            match RequestHead::parse(&self.0.have) {
                Ok(Some((head, used))) => {
                    self.0.have.drain(..used);
                    break Ok(Some(head));
                }
                Ok(None) => {}
                Err(why) => break Err(why),
            }
            if !self.0.have.is_empty() {
                deadline.get_or_insert_with(|| Instant::now() + HEAD_LIMIT);
            }
            if let Some(deadline) = deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Ok(None));
                }
                self.0.stream.set_read_timeout(Some(left))?;
            }
            match self.0.fill() {
                Ok(0) => return Ok(Ok(None)),
                Ok(_) => {}
                Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(Ok(None));
                }
                Err(why) => return Err(why),
            }
        };
        if deadline.is_some() {
            self.0.stream.set_read_timeout(None)?;
        }
        Ok(head)
    }
}

/// Answers one request; whether the connection can take another.
fn answer(to: &mut Buffered, decoder: BodyDecoder, server: &Server, head: &RequestHead) -> io::Result<bool> {
    let keep = head.keeps_alive();
    let mut request = Request {
        query: form::parse(head.query().as_bytes()),
        kind: head.header("content-type").unwrap_or_default().to_owned(),
        body: to.body(decoder, head.expects_continue()),
    };
    let answered = request.handle(server, head)?;
    let whole = request.body.is_done();
    if let Some(answer) = answered {
        send(request.body.connection, &answer, keep && whole)?;
    }
    if whole {
        return Ok(keep);
    }
    // The sender is told, and gets to read it: a connection closed with bytes unread may take the answer along.
    let stream = &request.body.connection.stream;
    stream.end_sending();
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    request.body.drain(DRAIN_MAX)?;
    Ok(false)
}

/// A request whose body is read as it comes.
struct Request<'a> {
    query: Vec<(String, String)>,
    /// What its body is said to be.
    kind: String,
    body: Body<'a>,
}

/// The fields of a request: those of its body before those of its query.
struct Form<'a> {
    body: Vec<(String, String)>,
    query: &'a [(String, String)],
}

impl Form<'_> {
    fn get(&self, key: &str) -> &str {
        let value = form::get(&self.body, key).or_else(|| form::get(self.query, key));
        value.unwrap_or_default()
    }

    fn all(&self, key: &str) -> Vec<&str> {
        form::all(&self.body, key)
            .chain(form::all(self.query, key))
            .collect()
    }
}

impl Request<'_> {
    /// `None`: the answer has been sent already.
    fn handle(&mut self, server: &Server, head: &RequestHead) -> io::Result<Option<Answer>> {
        let (path, method) = (head.path(), head.method.as_str());
        let wanted: &[&str] = match path {
            "/" => {
                return Ok(Some(Answer::ok(format!(
                    "buildlet running on {}-{}\n",
                    os(),
                    arch()
                ))));
            }
            "/healthz" => return Ok(Some(Answer::ok("ok\n"))),
            "/debug/x" => return Ok(Some(self.debug_x())),
            "/debug/goroutines" => &["GET", "POST"],
            "/status" | "/workdir" | "/ls" | "/tgz" => &["GET"],
            "/writetgz" => &["PUT", "POST"],
            "/write" => &["PUT"],
            "/exec" | "/removeall" | "/halt" | "/burrow/update" | "/connect-ssh" => &["POST"],
            "/burrow/exec" => &["POST", "GET"],
            other if other.starts_with("/burrow/exec/") => &["GET", "DELETE"],
            _ => return Ok(Some(Answer::error(404, "404 page not found"))),
        };
        if !server.may(head) {
            return Ok(Some(Answer::error(403, "invalid password")));
        }
        *server.asked.lock().expect("no holder panics") = Instant::now();
        if !wanted.contains(&method) {
            return Ok(Some(Answer::error(
                400,
                format!("requires {} method", wanted.join(" or ")),
            )));
        }
        if server.is_ending() && path != "/status" {
            return Ok(Some(Answer::error(503, "this buildlet is ending")));
        }
        let works =
            matches!(path, "/exec" | "/writetgz" | "/write") || (path, method) == ("/burrow/exec", "POST");
        if works && let Some(why) = server.quarantined() {
            let text = format!(
                "this machine is in quarantine, for its working directory could not be cleaned: {why}; \
                 /removeall of `.` ends it once that succeeds"
            );
            return Ok(Some(Answer::error(503, text)));
        }
        if head.minor == 0 && matches!(path, "/exec" | "/ls" | "/tgz") {
            return Ok(Some(Answer::error(400, "HTTP/1.1 or higher required")));
        }
        let answered = match (path, method) {
            ("/status", _) => {
                let mut status = json!({
                    "Version": PROTOCOL,
                    "Burrow": env!("CARGO_PKG_VERSION"),
                    "Features": FEATURES,
                    "Instance": server.setup.instance,
                    "Facts": server.setup.facts.json(&server.setup.workdir),
                    "Containment": facts::containment(server.setup.containment.abilities()),
                });
                if let Some(why) = server.quarantined() {
                    status["Quarantined"] = why.into();
                }
                Ok(Some(Answer::json(status)))
            }
            ("/workdir", _) => Ok(Some(Answer::ok(server.setup.workdir.display().to_string()))),
            ("/debug/goroutines", _) => Ok(Some(dump(server))),
            ("/ls", _) => return self.ls(server),
            ("/tgz", _) => return self.tgz(server),
            ("/writetgz", _) => self.write_tgz(server, method)?,
            ("/write", _) => self.write(server),
            ("/removeall", _) => self.remove_all(server)?,
            ("/halt", _) => {
                server.halting.store(true, Ordering::SeqCst);
                send(self.body.connection, &Answer::ok(""), false)?;
                self.body.connection.stream.close();
                server.end();
                thread::sleep(Duration::from_secs(1));
                server.setup.at_halt.perform();
                std::process::exit(0);
            }
            ("/burrow/update", _) => {
                if !server.may_be_replaced() {
                    return Ok(Some(Answer::error(
                        409,
                        "this buildlet is at work, or not run by stage0",
                    )));
                }
                send(self.body.connection, &Answer::ok(""), false)?;
                self.body.connection.stream.close();
                server.end();
                // As if it had lost its coordinator: stage0 asks what to run.
                std::process::exit(75);
            }
            ("/connect-ssh", _) => return self.connect_ssh(server, head),
            ("/exec", _) => return self.exec(server),
            ("/burrow/exec", "POST") => self.start(server)?,
            ("/burrow/exec", _) => {
                let one = |(id, running, bytes)| json!({"id": id, "running": running, "bytes": bytes});
                Ok(Some(Answer::json(
                    server.setup.execs.list().into_iter().map(one).collect(),
                )))
            }
            (path, method) => {
                let id = path.trim_start_matches("/burrow/exec/");
                let offset = form::get(&self.query, "offset").unwrap_or("0").parse::<u64>();
                match (method, server.setup.execs.get(id), offset) {
                    (_, None, _) => Err(Answer::error(404, format!("there is no command `{id}`"))),
                    ("DELETE", Some(_), _) => {
                        server.setup.execs.delete(id);
                        Ok(Some(Answer::ok("")))
                    }
                    (_, Some(_), Err(_)) => Err(Answer::error(400, "bad offset; wanted a number of bytes")),
                    (_, Some(exec), Ok(offset)) => match exec.reader(offset) {
                        Ok(spool) => return self.follow(&exec, spool, offset).map(|()| None),
                        Err(why) => Err(Answer::error(
                            500,
                            format!("cannot read the output of `{id}`: {why}"),
                        )),
                    },
                }
            }
        };
        Ok(answered.unwrap_or_else(Some))
    }

    /// As many bytes as are asked for: whether a path takes big packets.
    fn debug_x(&self) -> Answer {
        match form::get(&self.query, "n").unwrap_or("0").parse::<usize>() {
            Ok(n) => Answer::ok(vec![b'X'; n.min(DEBUG_MAX)]),
            Err(_) => Answer::error(400, "bad n; wanted a number of bytes"),
        }
    }

    fn ls(&mut self, server: &Server) -> io::Result<Option<Answer>> {
        let get = |key| form::get(&self.query, key);
        let (root, dir, _theirs) = match folder(server, get("dir").unwrap_or_default(), "dir") {
            Ok(found) => found,
            Err(answer) => return Ok(Some(answer)),
        };
        let listing = Listing {
            recursive: form::is_true(get("recursive")),
            digest: form::is_true(get("digest")),
            skip: form::all(&self.query, "skip").collect(),
        };
        let kind = "text/plain; charset=utf-8";
        let mut out = Outgoing::new(self.body.connection, kind, "Burrow-Omitted, Burrow-Error");
        match list::list(&root, &dir, &listing, &mut out) {
            Ok(0) => out.finish(&[]),
            Ok(omitted) => out.finish(&[("Burrow-Omitted", &omitted.to_string())]),
            Err(why) => out.fail(500, &format!("Walk error: {why}")),
        }
    }

    fn tgz(&mut self, server: &Server) -> io::Result<Option<Answer>> {
        let get = |key| form::get(&self.query, key);
        let found = folder(server, get("dir").unwrap_or_default(), "dir").and_then(|(root, dir, theirs)| {
            let folder = root.folder(&dir).map_err(|why| match why.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    Answer::error(404, format!("there is no folder `{}`", dir.display()))
                }
                _ => failed("read", &dir, why).into(),
            });
            Ok((folder?, theirs))
        });
        let (folder, _theirs) = match found {
            Ok(found) => found,
            Err(answer) => return Ok(Some(answer)),
        };
        let one_member = get("pargzip").is_some_and(|value| !form::is_true(Some(value)));
        let mut out = Outgoing::new(self.body.connection, "application/x-gzip", "Burrow-Error");
        match list::archive(&folder, one_member, &mut out) {
            Ok(()) => out.finish(&[]),
            Err(why) => out.fail(500, &why.to_string()),
        }
    }

    fn write_tgz(&mut self, server: &Server, method: &str) -> io::Result<Handled> {
        let dir = form::get(&self.query, "dir").unwrap_or_default().to_owned();
        let (root, dir, _theirs) = match folder(server, &dir, "dir") {
            Ok(found) => found,
            Err(answer) => return Ok(Err(answer)),
        };
        let unpacked = if method == "PUT" {
            files::unpack(&root, &dir, &mut self.body)
        } else {
            let form = match self.form()? {
                Ok(form) => form,
                Err(answer) => return Ok(Err(answer)),
            };
            if dir == Path::new("go1.4") && root.folder(&dir).is_ok() {
                return Ok(Ok(Some(Answer::ok("SKIP"))));
            }
            match form.get("url") {
                "" => Err(bad("missing url POST param")),
                url => match server.setup.fetcher.get(url) {
                    Ok((mut fetched, decoder)) => files::unpack(&root, &dir, fetched.body(decoder, false)),
                    Err(why) => Err(FileError(500, why)),
                },
            }
        };
        Ok(unpacked.map(|()| Some(Answer::ok("OK"))).map_err(Answer::from))
    }

    fn write(&mut self, server: &Server) -> Handled {
        let (root, _, _theirs) = folder(server, "", "dir")?;
        let get = |key| form::get(&self.query, key).unwrap_or_default();
        files::put(&root, get("path"), get("mode"), &mut self.body)?;
        Ok(Some(Answer::ok("OK")))
    }

    fn remove_all(&mut self, server: &Server) -> io::Result<Handled> {
        let form = match self.form()? {
            Ok(form) => form,
            Err(answer) => return Ok(Err(answer)),
        };
        let paths = form.all("path");
        if paths.contains(&".") {
            server.setup.execs.kill_all();
        }
        let removed =
            folder(server, "", "dir").and_then(|(root, _, _theirs)| Ok(files::remove_all(&root, &paths)?));
        if paths.contains(&".") {
            let unclean = removed.as_ref().err().map(|answer| answer.reason());
            if let Some(why) = &unclean {
                eprintln!("buildlet: in quarantine, for it cannot be cleaned: {why}");
            }
            *server.unclean.lock().expect("no holder panics") = unclean;
        }
        Ok(removed.map(|()| Some(Answer::ok(""))))
    }

    /// The whole body as a form; the `Err` is an answer to a body too large.
    fn form(&mut self) -> io::Result<Result<Form<'_>, Answer>> {
        let mut body = Vec::new();
        (&mut self.body)
            .take(FORM_MAX as u64 + 1)
            .read_to_end(&mut body)?;
        if body.len() > FORM_MAX {
            let text = format!("the form is longer than {FORM_MAX} bytes");
            return Ok(Err(Answer::error(413, text)));
        }
        Ok(Ok(Form {
            body: form::parse_body(&self.kind, &body),
            query: &self.query,
        }))
    }

    /// Becomes a connection to an ssh server. Source: spec buildlet 6.
    fn connect_ssh(&mut self, server: &Server, head: &RequestHead) -> io::Result<Option<Answer>> {
        if !self.body.is_done() && self.body.read(&mut [0])? > 0 {
            return Ok(Some(Answer::error(400, "a request for ssh has no body")));
        }
        let guest = Guest::parse(head.header("x-go-ssh-user"), head.header("x-go-authorized-key"));
        let guest = match guest {
            Ok(guest) => guest,
            Err(why) => return Ok(Some(Answer::error(400, why))),
        };
        let Setup {
            execs,
            containment,
            workdir,
            ssh,
            ..
        } = &server.setup;
        let client = &mut *self.body.connection;
        match ssh.serve(&guest, client, UPGRADE, (execs, containment, workdir))? {
            Err(SshRefusal(status, why)) => Ok(Some(Answer::error(status, why))),
            // Nothing comes after it.
            Ok(()) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Starts a command that goes on whatever becomes of this connection.
    fn start(&mut self, server: &Server) -> io::Result<Handled> {
        let form = match self.form()? {
            Ok(form) => form,
            Err(answer) => return Ok(Err(answer)),
        };
        let id = form::get(form.query, "id").unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if id.is_empty() || id.len() > 100 || !id.chars().all(plain) || id.starts_with('.') {
            let text =
                format!("`{id}` is no name of a command; wanted 1 to 100 of letters, digits, `.`, `_`, `-`");
            return Ok(Err(Answer::error(400, text)));
        }
        let started = spec(&form).and_then(|spec| server.setup.execs.start(id, &spec));
        let answer = started.map(|started| Some(Answer::json(json!({"id": id, "started": started}))));
        Ok(answer.map_err(Answer::from))
    }

    /// The original's exec: the command lives and dies with this connection.
    fn exec(&mut self, server: &Server) -> io::Result<Option<Answer>> {
        // No caller can give a command a name with a colon.
        let id = format!("connection:{}", server.names.fetch_add(1, Ordering::SeqCst));
        let started = match self.form()? {
            Ok(form) => spec(&form).and_then(|spec| server.setup.execs.start_tied(&id, &spec)),
            Err(answer) => return Ok(Some(answer)),
        };
        let (exec, mut output) = match started {
            Ok(started) => started,
            Err(refusal) => return Ok(Some(refusal.into())),
        };
        let done = self.hand_over(&exec, &mut output);
        if let (Err(_), Some(output)) = (&done, output) {
            // It is told to end, which it may have something to say to; without a reader it would die of that.
            let exec = exec.clone();
            thread::spawn(move || exec.discard(output));
        }
        exec.kill();
        server.setup.execs.delete(&id);
        done.map(|()| None)
    }

    /// Passes output on as it comes, then how the command ended.
    fn hand_over(&mut self, exec: &Arc<Exec>, output: &mut Option<PipeReader>) -> io::Result<()> {
        let connection = &mut *self.body.connection;
        connection.send(exec_head(0).as_bytes())?;
        let say = |connection: &mut Buffered| match exec.notes() {
            notes if notes.is_empty() => Ok(()),
            notes => connection.send(&http1::chunk(&notes)),
        };
        say(connection)?;
        let mut reaped = None;
        let passed = pass_on(connection, exec, output, &mut reaped);
        if passed.is_ok() {
            exec.drained();
        }
        if let Some(reaped) = reaped {
            exec.conclude(reaped, &[], output.is_none());
        }
        passed?;
        let progress = loop {
            let progress = exec.wait_end(Duration::from_secs(1));
            if progress.end.is_some() {
                break progress;
            }
            if connection.is_gone() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        };
        say(connection)?;
        match progress.end {
            Some(end) => connection.send(&exec_end(&end, progress.bytes)),
            None => Ok(()),
        }
    }

    /// Sends output from `offset` on until the command has ended, then how it ended.
    fn follow(&mut self, exec: &Exec, mut spool: File, offset: u64) -> io::Result<()> {
        let connection = &mut *self.body.connection;
        connection.send(exec_head(offset).as_bytes())?;
        let mut at = offset;
        loop {
            let progress = exec.wait_past(at, Duration::from_secs(1));
            while at < progress.bytes {
                let n = FOLLOWED.min(progress.bytes - at);
                connection.send_file(&mut spool, n as usize)?;
                at += n;
            }
            if let Some(end) = progress.end {
                return connection.send(&exec_end(&end, progress.bytes));
            }
            if connection.is_gone() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    }
}

/// An answer that is still to be sent, or an error to be sent instead.
type Handled = Result<Option<Answer>, Answer>;

/// The working directory, made if it is missing, and a path below it; empty is the directory itself. What is done
/// there is done by the user of commands, for as long as the third is kept.
fn folder(
    server: &Server,
    path: &str,
    parameter: &str,
) -> Result<(Root, PathBuf, Option<AsBuilder>), Answer> {
    let path = match path {
        "" => PathBuf::new(),
        path => relative(path)
            .map_err(|why| Answer::error(400, format!("invalid '{parameter}' parameter: {why}")))?,
    };
    let containment = &server.setup.containment;
    let opened = containment.make_workdir().and_then(|()| {
        let theirs = as_builder(containment)?;
        Ok((Root::open(&server.setup.workdir)?, theirs))
    });
    let (root, theirs) =
        opened.map_err(|why| Answer::error(500, format!("cannot make the working directory: {why}")))?;
    Ok((root, path, theirs))
}

/// What goes on, for people.
fn dump(server: &Server) -> Answer {
    let mut text = format!(
        "{} connections, {} requests under way\n",
        server.connections.load(Ordering::SeqCst),
        server.busy.load(Ordering::SeqCst)
    );
    for (id, running, bytes) in server.setup.execs.list() {
        let state = if running { "runs" } else { "has ended" };
        text.push_str(&format!("command {id} {state}, {bytes} bytes of output\n"));
    }
    Answer::ok(text)
}

fn spec(form: &Form) -> Result<Spec, Refusal> {
    let list = |key| form::all(&form.body, key).map(str::to_owned).collect();
    let limits = Limits::parse(&form.body).map_err(|why| Refusal(400, why))?;
    Ok(Spec {
        cmd: form.get("cmd").to_owned(),
        args: list("cmdArg"),
        dir: form.get("dir").to_owned(),
        env: list("env"),
        path: list("path"),
        system: form.get("mode") == "sys",
        debug: form::is_true(Some(form.get("debug"))),
        limits,
    })
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

#[cfg(test)]
mod tests {
    #[test]
    fn a_machine_is_ended_only_where_that_was_asked_for() {
        use super::AtHalt::{EndProcess, PowerOff, Reboot};
        assert_eq!(EndProcess.command("linux"), None);
        assert_eq!(Reboot.command("netbsd"), Some(&["reboot"][..]));
        assert_eq!(
            PowerOff.command("linux"),
            Some(&["/bin/halt", "-n", "-f", "-p"][..])
        );
        assert_eq!(PowerOff.command("netbsd"), None);
    }
}
