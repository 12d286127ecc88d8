//! The agent beside Go's of the latest era, in the same run: the same client, the same requests, in turn.
//!
//! The tree is a part of the Go toolchain's own sources: 8,600 files, 75 MB.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http1::{AnswerHead, BodyDecoder, Decoded};
use testkit::peer::{Era, go_program};

const FILES: usize = 8_600;
const BYTES: u64 = 75_000_000;
/// How often each request is made, but for the quick ones.
const ROUNDS: usize = 3;
const EXECS: usize = 600;
/// What the command prints whose output is timed, in MiB.
const PRINTED_MIB: usize = 1024;

/// One buildlet, killed when it goes out of sight.
struct Agent {
    name: &'static str,
    child: Child,
    address: String,
    /// Kept alive over all requests.
    connection: Option<Connection>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What is in `buffer` and not used yet.
    at: usize,
    end: usize,
}

/// What came of a request.
struct Done {
    took: Duration,
    body: u64,
    /// The first of it, for messages.
    text: String,
}

pub fn run() -> io::Result<()> {
    let Some(original) = go_program("buildlet", Era::Latest) else {
        return Err(io::Error::other("Go's buildlet is not there to compare with"));
    };
    let ours = std::env::current_exe()?.with_file_name("buildlet");
    let folder = tempfile::tempdir()?;
    let archive = tree()?;
    eprintln!("{} bytes of tar.gz", archive.len());
    let mut agents = [
        start("Go", &original, &folder.path().join("go"), &["-halt=false"])?,
        start("burrow", &ours, &folder.path().join("burrow"), &[])?,
    ];
    println!("| | Go | burrow | |\n|---|---|---|---|");

    let noop = "cmd=%2Fbin%2Ftrue&debug=false&dir=&mode=sys";
    let mut times: [Vec<Duration>; 2] = Default::default();
    for round in 0..EXECS {
        for (agent, times) in agents.iter_mut().zip(&mut times) {
            let done = agent.form("/exec", noop)?;
            if round >= EXECS / 10 {
                times.push(done.took);
            }
        }
    }
    row(
        "exec of a no-op, p50",
        &times.each_ref().map(|times| quantile(times, 0.5)),
    );
    row(
        "exec of a no-op, p99",
        &times.each_ref().map(|times| quantile(times, 0.99)),
    );

    let mut each = |what: &str, rounds: usize, ask: &mut dyn FnMut(&mut Agent, usize) -> io::Result<Done>| {
        let mut times: [Vec<Duration>; 2] = Default::default();
        for round in 0..rounds {
            for (agent, times) in agents.iter_mut().zip(&mut times) {
                times.push(ask(agent, round)?.took);
            }
        }
        row(what, &times.each_ref().map(|times| quantile(times, 0.5)));
        io::Result::Ok(())
    };
    each(
        "PUT /writetgz, 8,600 files, 75 MB",
        ROUNDS,
        &mut |agent, round| agent.request("PUT", &format!("/writetgz?dir=tree{round}"), "", &archive),
    )?;
    each("GET /tgz of it", ROUNDS, &mut |agent, round| {
        agent.request("GET", &format!("/tgz?dir=tree{round}"), "", b"")
    })?;
    each("GET /ls?recursive&digest of it", ROUNDS, &mut |agent, round| {
        let target = format!("/ls?dir=tree{round}&recursive=true&digest=true");
        agent.request("GET", &target, "", b"")
    })?;
    each("POST /removeall of three", 1, &mut |agent, _| {
        agent.form("/removeall", "path=tree0&path=tree1&path=tree2")
    })?;
    let print = format!(
        "cmd=%2Fbin%2Fdd&cmdArg=if%3D%2Fdev%2Fzero&cmdArg=bs%3D1M&cmdArg=count%3D{PRINTED_MIB}&cmdArg=status%3Dnone&mode=sys"
    );
    let mut speeds = [0.0; 2];
    for _ in 0..ROUNDS {
        for (agent, speed) in agents.iter_mut().zip(&mut speeds) {
            let done = agent.form("/exec", &print)?;
            if done.body != (PRINTED_MIB << 20) as u64 {
                return Err(io::Error::other(format!(
                    "{}: {} bytes, {}",
                    agent.name, done.body, done.text
                )));
            }
            *speed = f64::max(*speed, done.body as f64 / 1e6 / done.took.as_secs_f64());
        }
    }
    let [theirs, ours] = speeds;
    println!(
        "| output of a command, best of {ROUNDS} | {theirs:.0} MB/s | {ours:.0} MB/s | {:.1}x |",
        ours / theirs
    );
    for agent in &agents {
        let status = fs::read_to_string(format!("/proc/{}/status", agent.child.id()))?;
        let peak = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap_or_default();
        eprintln!(
            "{}: peak resident{}",
            agent.name,
            peak.trim_start_matches("VmHWM:")
        );
    }
    Ok(())
}

fn row(what: &str, [theirs, ours]: &[Duration; 2]) {
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    println!("| {what} | {} | {} | {ratio:.1}x |", shown(*theirs), shown(*ours));
}

fn shown(time: Duration) -> String {
    match time.as_secs_f64() * 1e3 {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1e3),
    }
}

fn quantile(times: &[Duration], part: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

fn start(name: &'static str, program: &Path, folder: &Path, flags: &[&str]) -> io::Result<Agent> {
    let work = folder.join("work");
    fs::create_dir_all(&work)?;
    // Go's takes no port 0, so one that is free as far as anybody can tell.
    let address = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .to_string();
    let child = Command::new(program)
        .arg(format!("-listen={address}"))
        .arg(format!("-workdir={}", work.display()))
        .args(flags)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|why| io::Error::other(format!("cannot start `{}`: {why}", program.display())))?;
    let agent = Agent {
        name,
        child,
        address,
        connection: None,
    };
    let began = Instant::now();
    while TcpStream::connect(&agent.address).is_err() {
        if began.elapsed() > Duration::from_secs(20) {
            return Err(io::Error::other(format!("{name}: it does not listen")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(agent)
}

impl Agent {
    fn form(&mut self, target: &str, form: &str) -> io::Result<Done> {
        let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
        self.request("POST", target, kind, form.as_bytes())
    }

    fn request(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> io::Result<Done> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&self.address)?,
        };
        let done = connection.request(method, target, headers, body)?;
        self.connection = Some(connection);
        Ok(done)
    }
}

impl Connection {
    fn open(address: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream,
            buffer: vec![0; 1 << 20],
            at: 0,
            end: 0,
        })
    }

    fn request(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> io::Result<Done> {
        let length = body.len();
        let mut sent =
            format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n");
        let began = Instant::now();
        if length < 4096 {
            sent.push_str(std::str::from_utf8(body).map_err(io::Error::other)?);
            self.stream.write_all(sent.as_bytes())?;
        } else {
            self.stream.write_all(sent.as_bytes())?;
            self.stream.write_all(body)?;
        }
        let head = loop {
            match AnswerHead::parse(&self.buffer[self.at..self.end]).map_err(io::Error::other)? {
                Some((head, used)) => {
                    self.at += used;
                    break head;
                }
                None => self.fill()?,
            }
        };
        let mut decoder = BodyDecoder::of_answer(&head).map_err(io::Error::other)?;
        let (mut body, mut text) = (0, String::new());
        loop {
            let have = &self.buffer[self.at..self.end];
            match decoder.decode(have).map_err(io::Error::other)? {
                Decoded::Data { skip, take } => {
                    if text.len() < 200 {
                        text.push_str(&String::from_utf8_lossy(&have[skip..skip + take.min(200)]));
                    }
                    body += take as u64;
                    self.at += skip + take;
                }
                Decoded::More { used } => {
                    self.at += used;
                    self.fill()?;
                }
                Decoded::End { used } => {
                    self.at += used;
                    break;
                }
            }
        }
        if head.status != 200 {
            return Err(io::Error::other(format!(
                "{method} {target}: {} {text}",
                head.status
            )));
        }
        Ok(Done {
            took: began.elapsed(),
            body,
            text,
        })
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.at..self.end, 0);
        (self.at, self.end) = (0, self.end - self.at);
        match self.stream.read(&mut self.buffer[self.end..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.end += n;
                Ok(())
            }
        }
    }
}

/// A tar.gz of the first sources of the Go toolchain, by name, that keep to the average size.
fn tree() -> io::Result<Vec<u8>> {
    let root = Command::new("go").args(["env", "GOROOT"]).output()?;
    let root = PathBuf::from(String::from_utf8_lossy(&root.stdout).trim()).join("src");
    let mut files = Vec::new();
    gather(&root, &mut files)?;
    files.sort();
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut tar = tar::Builder::new(gzip);
    let (mut count, mut bytes) = (0, 0);
    for path in &files {
        let size = fs::metadata(path)?.len();
        let budget = BYTES * (count as u64 + 1) / FILES as u64 + 500_000;
        if bytes + size > budget.min(BYTES) {
            continue;
        }
        let name = path.strip_prefix(&root).map_err(io::Error::other)?;
        tar.append_path_with_name(path, name)?;
        (count, bytes) = (count + 1, bytes + size);
        if count == FILES {
            break;
        }
    }
    eprintln!("{count} files, {bytes} bytes");
    tar.into_inner()?.finish()
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            gather(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}
