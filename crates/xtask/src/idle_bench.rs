//! Many machines that have dialled in and have nothing to do: real revdial over TLS to a coordinator in a process of its own.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use buildlet::trust::Trust;
use buildlet_api::MasterKey;
use revdial::v2::{Listener, ListenerEvent, keep_alive_line};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const HOST_TYPE: &str = "rack";
/// Handshakes under way at once.
const AT_ONCE: usize = 32;
/// For what a start leaves to settle: tickets, first looks at health.
const SETTLE: Duration = Duration::from_secs(60);

pub struct Options {
    pub machines: usize,
    pub go: bool,
    pub seconds: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            machines: 10_000,
            go: false,
            seconds: 60,
        }
    }
}

pub fn run(options: &Options) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(measure(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(options: &Options) -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let door = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = folder.path().join("burrow.toml");
    let text = format!(
        "[farm]\nlisten = \"127.0.0.1:0\"\nlisten_https = \"{door}\"\n\
         [host.{HOST_TYPE}]\npool = \"reverse\"\nexpect = {}\naccept_development_keys = true\n",
        options.machines
    );
    fs::write(&config, text)?;
    let state = folder.path().join("state");
    let burrow = std::env::current_exe()?.with_file_name("burrow");
    let child = Command::new(&burrow)
        .arg("serve")
        .arg("--config")
        .arg(&config)
        .arg("--state-dir")
        .arg(&state)
        .stdout(Stdio::null())
        .stderr(fs::File::create(folder.path().join("log"))?)
        .spawn()
        .map_err(|why| io::Error::new(why.kind(), format!("cannot start `{}`: {why}", burrow.display())))?;
    let farm = Farm(child);
    while !state.join("server.json").exists() {
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(2)).await;
    let empty = farm.memory()?;

    let mut tls = Trust::Anybody.client_config().map_err(io::Error::other)?;
    tls.resumption = rustls::client::Resumption::disabled();
    let key = MasterKey::parse(b"gophers rule")
        .map_err(io::Error::other)?
        .builder_key(HOST_TYPE);
    let shared = Arc::new(Shared {
        door: door.to_string(),
        tls: Arc::new(tls),
        key,
        go: options.go,
        at_once: Semaphore::new(AT_ONCE),
        up: AtomicUsize::new(0),
        asked: AtomicUsize::new(0),
    });
    let began = Instant::now();
    let mut machines = tokio::task::JoinSet::new();
    for n in 0..options.machines {
        machines.spawn(machine(shared.clone(), n));
    }
    while shared.up.load(Ordering::Relaxed) < options.machines {
        if let Some(ended) = machines.try_join_next() {
            return Err(io::Error::other(format!(
                "a machine ended: {ended:?}\n{}",
                tail(folder.path())?
            )));
        }
        sleep(Duration::from_millis(100)).await;
    }
    println!(
        "{} machines up after {:.1} s",
        options.machines,
        began.elapsed().as_secs_f64()
    );
    sleep(SETTLE).await;
    let full = farm.memory()?;
    let (busy, asked) = (farm.busy()?, shared.asked.load(Ordering::Relaxed));
    sleep(Duration::from_secs(options.seconds)).await;
    let busy = farm.busy()? - busy;
    let asked = shared.asked.load(Ordering::Relaxed) - asked;
    if let Some(ended) = machines.try_join_next() {
        return Err(io::Error::other(format!(
            "a machine ended: {ended:?}\n{}",
            tail(folder.path())?
        )));
    }
    let each = (full.saturating_sub(empty)) as f64 / options.machines as f64;
    println!("memory: {empty} KB empty, {full} KB full, {each:.1} KB each");
    println!(
        "processor: {:.2} s in {} s, {:.1} % of a core; {asked} requests",
        busy.as_secs_f64(),
        options.seconds,
        100.0 * busy.as_secs_f64() / options.seconds as f64,
    );
    Ok(())
}

fn tail(folder: &Path) -> io::Result<String> {
    let log = fs::read_to_string(folder.join("log"))?;
    let from = log.len().saturating_sub(2000);
    Ok(log.get(from..).unwrap_or_default().to_owned())
}

/// The coordinator; does not outlive this program.
struct Farm(Child);

impl Drop for Farm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Farm {
    /// Resident, in KB.
    fn memory(&self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| io::Error::other("no VmRSS"))
    }

    /// Time that its threads have had a processor.
    fn busy(&self) -> io::Result<Duration> {
        let mut nanos = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanos += text
                .split(' ')
                .next()
                .and_then(|word| word.parse::<u64>().ok())
                .unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }
}

struct Shared {
    door: String,
    tls: Arc<ClientConfig>,
    key: String,
    go: bool,
    at_once: Semaphore,
    up: AtomicUsize,
    asked: AtomicUsize,
}

/// One machine, until its connection ends.
async fn machine(shared: Arc<Shared>, n: usize) -> io::Result<()> {
    let ours = match shared.go {
        true => String::new(),
        false => format!("X-Burrow-Instance: {n:032x}\r\nX-Burrow-Keep-Alive: 1\r\n"),
    };
    let head = format!(
        "X-Go-Builder-Hostname: rack-{n}\r\nX-Go-Builder-Key: {}\r\nX-Go-Builder-Version: 27\r\n\
         X-Go-Host-Type: {HOST_TYPE}\r\nX-Revdial-Version: 2\r\n{ours}",
        shared.key
    );
    let mut control = shared.upgraded("/reverse", &head).await?;
    let mut listener = Listener::new();
    let mut keep_alive = interval(Duration::from_secs(30));
    keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut piece, mut dials) = ([0; 512], tokio::task::JoinSet::new());
    let mut is_up = false;
    loop {
        tokio::select! {
            read = control.read(&mut piece) => {
                let events = match read? {
                    0 => return Err(io::Error::other(format!("rack-{n} was closed"))),
                    read => listener.receive(&piece[..read]).map_err(io::Error::other)?,
                };
                for event in events {
                    if let ListenerEvent::Dial { path } = event {
                        dials.spawn(answer(shared.clone(), path));
                    }
                }
            }
            Some(_) = dials.join_next() => {}
            _ = keep_alive.tick(), if !shared.go => {
                control.write_all(&keep_alive_line()).await?;
                control.flush().await?;
            }
        }
        if !is_up && !dials.is_empty() {
            is_up = true;
            shared.up.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Serves one connection that the coordinator has asked for.
async fn answer(shared: Arc<Shared>, path: String) -> io::Result<()> {
    let mut stream = shared.upgraded(&path, "").await?;
    let status = match shared.go {
        true => r#"{"Version":27}"#,
        false => r#"{"Version":27,"Burrow":"0.1.0","Features":["exec2"]}"#,
    };
    while let Some(head) = head(&mut stream).await? {
        let body = match head.split(' ').nth(1) {
            Some("/status") => status,
            Some("/burrow/exec") => "[]",
            Some("/removeall") => {
                let form = head
                    .lines()
                    .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                let mut form = vec![0; form.unwrap_or(0)];
                stream.read_exact(&mut form).await?;
                ""
            }
            other => return Err(io::Error::other(format!("asked for {other:?}"))),
        };
        shared.asked.fetch_add(1, Ordering::Relaxed);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
    Ok(())
}

impl Shared {
    async fn upgraded(&self, path: &str, headers: &str) -> io::Result<TlsStream<TcpStream>> {
        let _permit = self.at_once.acquire().await.map_err(io::Error::other)?;
        let tcp = TcpStream::connect(&self.door).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut stream = TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: \r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        match head(&mut stream).await? {
            Some(head) if head.starts_with("HTTP/1.1 101 ") => Ok(stream),
            other => Err(io::Error::other(format!("{path} was answered {other:?}"))),
        }
    }
}

/// The next head; `None` when there is none any more.
async fn head(stream: &mut TlsStream<TcpStream>) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(why) if why.kind() == io::ErrorKind::UnexpectedEof && bytes.is_empty() => return Ok(None),
            Err(why) => return Err(why),
        }
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
