use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use stage0::manifest::Target;
use tempfile::TempDir;

/// Longer than anything here takes, on the slowest machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What the server does when a path is asked for.
#[derive(Clone)]
pub enum Answer {
    Whole(Vec<u8>),
    Status(u16, &'static str),
    /// Promises all, sends so many bytes, closes.
    Cut(Vec<u8>, usize),
    /// Promises all, sends so many bytes, then nothing until the client is gone.
    Held(Vec<u8>, usize),
}

/// A machine with stage0, a server that has buildlets, and who signs them.
pub struct World {
    pub dir: TempDir,
    pub answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    /// Paths, each after what there is to send was sent.
    pub asked: mpsc::Receiver<String>,
    pub address: String,
    pub public_key: String,
    /// Lines of the settings besides those that every test has.
    pub more: String,
}

impl World {
    pub fn new() -> World {
        World::with_tls(None)
    }

    pub fn with_tls(tls: Option<Arc<ServerConfig>>) -> World {
        let dir = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let answers = Arc::new(Mutex::new(BTreeMap::new()));
        let (tell, asked) = mpsc::channel();
        let shared = answers.clone();
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (answers, tell, tls) = (shared.clone(), tell.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(tcp, &answers, &tell),
                    Some(tls) => {
                        let tls = ServerConnection::new(tls).expect("set up");
                        serve(StreamOwned::new(tls, tcp), &answers, &tell);
                    }
                });
            }
        });
        let mut world = World {
            dir,
            answers,
            asked,
            address,
            public_key: String::new(),
            more: String::new(),
        };
        world.public_key = world.new_key("key");
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn new_key(&self, name: &str) -> String {
        let out = stage0()
            .arg("new-key")
            .arg(self.path(name))
            .output()
            .expect("it runs");
        assert!(out.status.success(), "{}", text(&out.stderr));
        text(&out.stdout).trim().to_owned()
    }

    /// Signs a buildlet that notes `VERSION ARGUMENTS` and then does as `rest` says, and puts it on the server.
    pub fn publish(&self, version: &str, serial: u64, minimum: &str, rest: &str) {
        self.publish_by("key", version, serial, minimum, rest);
    }

    pub fn publish_by(&self, key: &str, version: &str, serial: u64, minimum: &str, rest: &str) {
        let script = format!(
            "#!/bin/sh\necho {version} \"$@\" >> {}\n{rest}\n",
            self.path("ran").display()
        );
        self.publish_bytes(key, version, serial, minimum, script.into_bytes());
    }

    /// A real one.
    pub fn publish_program(&self, version: &str, program: &Path) {
        let bytes = fs::read(program).expect("it is there");
        self.publish_bytes("key", version, 1, version, bytes);
    }

    fn publish_bytes(&self, key: &str, version: &str, serial: u64, minimum: &str, bytes: Vec<u8>) {
        let folder = self.path("published");
        fs::create_dir_all(&folder).expect("a folder");
        let file = self.binary_name();
        fs::write(folder.join(&file), &bytes).expect("written");
        let out = stage0()
            .args(["sign", "--version", version, "--serial", &serial.to_string()])
            .args(["--minimum", minimum, "--key"])
            .arg(self.path(key))
            .arg(&folder)
            .output()
            .expect("it runs");
        assert!(out.status.success(), "{}", text(&out.stderr));
        self.answer(&file, Answer::Whole(bytes));
        let manifest = fs::read(folder.join("manifest")).expect("signed");
        self.answer("manifest", Answer::Whole(manifest));
    }

    /// Replaces what the server says for `/b/NAME`.
    pub fn answer(&self, name: &str, answer: Answer) {
        let mut answers = self.answers.lock().expect("no panic");
        answers.insert(format!("/b/{name}"), answer);
    }

    pub fn binary_name(&self) -> String {
        format!("buildlet.{}", Target::ours())
    }

    /// The buildlet's bytes as they were published last.
    pub fn binary(&self) -> Vec<u8> {
        fs::read(self.path("published").join(self.binary_name())).expect("published")
    }

    /// stage0 on its machine, with its settings in a file.
    pub fn machine(&self) -> Command {
        let settings = format!(
            "manifest = http://{}/b/manifest\npublic-keys = {}\nstate-dir = {}\nnetwork-wait-s = 0\n{}",
            self.address,
            self.public_key,
            self.path("state").display(),
            self.more
        );
        fs::write(self.path("stage0.conf"), settings).expect("written");
        let mut command = stage0();
        command.arg("--config").arg(self.path("stage0.conf"));
        command
    }

    /// Runs to the end, which `exit 0` of the buildlet brings: what stage0 told, and which buildlets ran.
    pub fn run(&self) -> (String, Vec<String>) {
        let out = finish(self.machine());
        let told = text(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{told}");
        (told, self.ran())
    }

    /// The lines that buildlets have noted since last asked.
    pub fn ran(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("ran")).unwrap_or_default();
        let _ = fs::remove_file(self.path("ran"));
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    /// Waits until `/b/NAME` was asked for.
    pub fn until_asked(&self, name: &str) {
        let wanted = format!("/b/{name}");
        while self.asked.recv_timeout(LIMIT).expect("it is asked for in time") != wanted {}
    }
}

pub fn stage0() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stage0"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("BURROW_") || text.starts_with("META_") || text.to_lowercase().ends_with("_proxy")
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs it to its end.
pub fn finish(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let (tell, ended) = mpsc::channel();
    let child = child.expect("it runs");
    let pid = child.id();
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    match ended.recv_timeout(LIMIT) {
        Ok(out) => out.expect("waited for"),
        Err(_) => {
            kill_pid(pid);
            let out = ended.recv().expect("told").expect("waited for");
            panic!("it did not end: {}", text(&out.stderr));
        }
    }
}

/// As a power cut would.
pub fn kill(mut child: Child) {
    child.kill().expect("killed");
    child.wait().expect("waited for");
}

fn kill_pid(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn serve(
    mut stream: impl Read + Write,
    answers: &Mutex<BTreeMap<String, Answer>>,
    tell: &mpsc::Sender<String>,
) {
    let mut head = Vec::new();
    let request = loop {
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => head.extend_from_slice(&piece[..n]),
            _ => return,
        }
        if let Some((request, _)) = http1::RequestHead::parse(&head).expect("a request") {
            break request;
        }
    };
    let path = request.path().to_owned();
    let answer = answers.lock().expect("no panic").get(&path).cloned();
    let (status, body, sent) = match answer.clone() {
        Some(Answer::Whole(body)) => (200, body.clone(), body.len()),
        Some(Answer::Status(status, body)) => (status, body.as_bytes().to_vec(), body.len()),
        Some(Answer::Cut(body, sent) | Answer::Held(body, sent)) => (200, body, sent),
        None => (404, b"404 page not found\n".to_vec(), 19),
    };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
    let whole = [head.as_bytes(), &body[..sent]].concat();
    // A client that was killed may be gone already.
    let _ = stream.write_all(&whole).and_then(|()| stream.flush());
    let _ = tell.send(path);
    if matches!(answer, Some(Answer::Held(..))) {
        let _ = stream.read(&mut [0]);
    }
}

/// A server certificate made for the occasion, and its SHA-256.
pub fn certificate() -> (Arc<ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let leaf = made.cert.der().clone();
    let digest = ring::digest::digest(&ring::digest::SHA256, &leaf);
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key)
        .expect("a certificate");
    (Arc::new(config), stage0::manifest::hex(digest.as_ref()))
}

/// An address where nobody listens.
pub fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").to_string()
}
