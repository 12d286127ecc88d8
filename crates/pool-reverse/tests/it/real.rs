//! The real buildlet, dialling in over TLS through the accept loop of the coordinator.

use std::future::{Future, ready};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buildlet_api::{Client, ExecSpec, PoolEvent, ProcessState, Upload};
use ids::HostType;
use pool_reverse::{
    Credential, IdentityVerdict, KeyCheck, KeyVerdict, RegisterHead, ReverseConfig, ReversePool,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use web::{Door, RawHandler, RawHead, RawStream};

const PATIENCE: Duration = Duration::from_secs(60);

/// The binary, or nothing and a word about it.
fn binary() -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    let built = tests.parent().unwrap().parent().unwrap().join("buildlet");
    let binary = std::env::var_os("BUILDLET_BINARY").map_or(built, PathBuf::from);
    if binary.exists() {
        return Some(binary);
    }
    let why = format!(
        "no buildlet at {}; run `cargo build -p buildlet` first",
        binary.display()
    );
    assert!(std::env::var_os("BURROW_TEST_REQUIRE").is_none(), "{why}");
    eprintln!("skipped: {why}");
    None
}

/// Takes the one key that is good at the moment.
struct Keys(Arc<Mutex<String>>);

impl KeyCheck for Keys {
    fn check<'a>(
        &'a self,
        _: &'a HostType,
        key: &'a str,
    ) -> Pin<Box<dyn Future<Output = KeyVerdict> + Send + 'a>> {
        let good = *self.0.lock().unwrap() == key;
        Box::pin(ready(if good { KeyVerdict::Good } else { KeyVerdict::Bad }))
    }

    fn identity<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = IdentityVerdict> + Send + 'a>> {
        Box::pin(ready(IdentityVerdict::Unknown))
    }

    fn still<'a>(
        &'a self,
        host_type: &'a HostType,
        shown: &'a Credential,
    ) -> Pin<Box<dyn Future<Output = KeyVerdict> + Send + 'a>> {
        match shown {
            Credential::Key(key) => self.check(host_type, key),
            Credential::Identity(_) => Box::pin(ready(KeyVerdict::Bad)),
        }
    }
}

/// What the coordinator does with connections, but that they can be cut.
struct Raw {
    pool: ReversePool,
    cut: Arc<Notify>,
}

impl RawHandler for Raw {
    fn handle(&self, head: RawHead, stream: RawStream) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            assert!(head.tls);
            if head.path() == "/revdial" {
                return self.pool.pickup(&head.target, Box::new(stream)).await;
            }
            let instance = head.header("x-burrow-instance");
            let register = RegisterHead {
                host_type: head.header("x-go-host-type").to_owned(),
                key: head.header("x-go-builder-key").to_owned(),
                hostname: head.header("x-go-builder-hostname").to_owned(),
                version: head.header("x-go-builder-version").to_owned(),
                revdial_version: head.header("x-revdial-version").to_owned(),
                instance: (!instance.is_empty()).then(|| instance.to_owned()),
                identity: None,
                keeps_alive: !head.header("x-burrow-keep-alive").is_empty(),
                release: None,
                peer: head.peer.to_string(),
            };
            tokio::select! {
                () = self.pool.register(register, Box::new(stream)) => {}
                () = self.cut.notified() => {}
            }
        })
    }
}

pub struct Farm {
    folder: tempfile::TempDir,
    address: SocketAddr,
    events: mpsc::Receiver<PoolEvent>,
    pub good_key: Arc<Mutex<String>>,
    cut: Arc<Notify>,
    stop: CancellationToken,
}

impl Farm {
    async fn start() -> Farm {
        Farm::at(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub fn at(listener: tokio::net::TcpListener) -> Farm {
        let folder = tempfile::tempdir().unwrap();
        let tls = web::tls_of_our_own(folder.path(), &[]).unwrap();
        let address = listener.local_addr().unwrap();
        let good_key = Arc::new(Mutex::new("good".to_owned()));
        let (sender, events) = mpsc::channel(64);
        let keys = Arc::new(Keys(good_key.clone()));
        let cut = Arc::new(Notify::new());
        let server = web::Server {
            router: axum::Router::new(),
            raw_paths: vec!["/reverse".to_owned(), "/revdial".to_owned()],
            raw_header: None,
            raw: Arc::new(Raw {
                pool: ReversePool::new(ReverseConfig::default(), keys, sender),
                cut: cut.clone(),
            }),
            limits: web::Limits::default(),
        };
        let stop = CancellationToken::new();
        tokio::spawn(web::serve(vec![Door::Tls(listener, tls)], server, stop.clone()));
        let key = folder.path().join("key");
        std::fs::write(key, "good\n").unwrap();
        Farm {
            folder,
            address,
            events,
            good_key,
            cut,
            stop,
        }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// SHA-256 of the certificate, in hex.
    fn fingerprint(&self) -> String {
        let certificate = CertificateDer::from_pem_file(self.path("cert.pem")).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, &certificate);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn buildlet(&self, binary: &Path) -> Command {
        let mut command = Command::new(binary);
        command
            .args(["-reverse-type=linux", "-hostname=mac7", "-halt=false"])
            .arg(format!("-state-dir={}", self.path("state")))
            .env("GO_BUILD_KEY_PATH", self.path("key"))
            .env_remove("HTTPS_PROXY")
            .stderr(Stdio::piped());
        command
    }

    /// One that finds the coordinator and believes it.
    fn started(&self, binary: &Path) -> Buildlet {
        let mut command = self.buildlet(binary);
        command
            .arg(format!("-coordinator=localhost:{}", self.address.port()))
            .arg(format!("-ca-file={}", self.path("cert.pem")));
        Buildlet(command.spawn().unwrap())
    }

    async fn event(&mut self) -> PoolEvent {
        let event = timeout(PATIENCE, self.events.recv()).await;
        event.expect("an event comes").expect("the pool lives")
    }

    async fn up(&mut self) -> (String, Client, u64) {
        self.up_of(true).await
    }

    /// One of ours, whose commands can be resumed, or of Go's.
    pub async fn up_of(&mut self, ours: bool) -> (String, Client, u64) {
        match self.event().await {
            PoolEvent::Up {
                machine,
                client,
                resumable,
                generation,
                ..
            } if resumable == ours => (machine.to_string(), client, generation),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Killed when it goes out of sight.
pub struct Buildlet(pub Child);

impl Buildlet {
    /// Waits for its end: the code and what it said.
    async fn ended(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        let mut stderr = self.0.stderr.take().unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            stderr.read_to_string(&mut said).unwrap();
            said
        });
        let said = timeout(PATIENCE, reading).await.expect("it ends").unwrap();
        (self.0.wait().unwrap().code(), said)
    }

    /// Waits until it says a line with `words` in it.
    async fn says(&mut self, words: &'static str) -> String {
        let mut stderr = self.0.stderr.take().unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            let (mut said, mut byte) = (Vec::new(), [0]);
            while stderr.read(&mut byte).unwrap() == 1 {
                said.push(byte[0]);
                let text = String::from_utf8_lossy(&said);
                if byte[0] == b'\n' && text.contains(words) {
                    return text.into_owned();
                }
            }
            panic!(
                "it ended and never said `{words}`: {}",
                String::from_utf8_lossy(&said)
            );
        });
        timeout(PATIENCE, reading).await.expect("it says so").unwrap()
    }
}

impl Drop for Buildlet {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sh(script: &str) -> ExecSpec {
    ExecSpec {
        cmd: "sh".into(),
        args: vec!["-c".into(), script.into()],
        system: true,
        ..ExecSpec::default()
    }
}

#[tokio::test]
async fn a_command_outlives_the_control_connection_and_ends_on_the_same_machine() {
    let Some(binary) = binary() else { return };
    let mut farm = Farm::start().await;
    let buildlet = farm.started(&binary);
    let (name, client, first) = farm.up().await;
    assert!(name.starts_with("mac7."), "{name}");
    let script = "printf one; while [ ! -e gate ]; do sleep 0.02; done; printf two; exit 3";
    assert!(
        client
            .start_exec("17.1.0", &sh(script), Some(PATIENCE))
            .await
            .unwrap()
    );

    farm.cut.notify_one();
    let PoolEvent::Down {
        may_return: true,
        generation,
        ..
    } = farm.event().await
    else {
        panic!("it goes down")
    };
    assert_eq!(generation, first);
    let (again, client, second) = farm.up().await;
    assert_eq!(again, name);
    assert!(second > first);
    let gate = Upload::Bytes(Default::default());
    client.put_file("gate", 0o644, gate).await.unwrap();
    let mut output = Vec::new();
    let end = client
        .follow_exec("17.1.0", 0, |_, piece| {
            output.extend_from_slice(&piece);
            ready(())
        })
        .await
        .unwrap();
    assert_eq!(output, b"onetwo");
    assert_eq!(end.state, ProcessState::Failed("exit status 3".to_owned()));

    client.halt().await.unwrap();
    let (code, said) = buildlet.ended().await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn a_key_that_is_wrong_or_revoked_ends_the_buildlet_with_78() {
    let Some(binary) = binary() else { return };
    let mut farm = Farm::start().await;
    let revoked = farm.started(&binary);
    let (_, client, _) = farm.up().await;
    client
        .start_exec("1.1.0", &sh("exec sleep 1000"), None)
        .await
        .unwrap();
    *farm.good_key.lock().unwrap() = "another".to_owned();
    farm.cut.notify_one();
    let wrong = farm.started(&binary);
    for buildlet in [revoked, wrong] {
        let (code, said) = buildlet.ended().await;
        assert_eq!(code, Some(78), "{said}");
        let wanted = "buildlet: the coordinator refused this machine (412): invalid build key\n";
        assert!(said.ends_with(wanted), "{said}");
    }
}

#[tokio::test]
async fn each_refusal_in_a_row_is_waited_for_longer() {
    let Some(binary) = binary() else { return };
    let mut farm = Farm::start().await;
    let refusals = || std::fs::read_to_string(farm.path("state/refusals")).ok();
    *farm.good_key.lock().unwrap() = "another".to_owned();
    for wanted in ["1", "2"] {
        let began = std::time::Instant::now();
        let (code, said) = farm.started(&binary).ended().await;
        assert_eq!(code, Some(78), "{said}");
        assert_eq!(refusals().as_deref(), Some(wanted));
        let least = Duration::from_millis(if wanted == "1" { 500 } else { 1000 });
        assert!(began.elapsed() >= least, "{:?}", began.elapsed());
    }
    *farm.good_key.lock().unwrap() = "good".to_owned();
    let _buildlet = farm.started(&binary);
    farm.up().await;
    assert!(!std::path::Path::new(&farm.path("state/refusals")).exists());
}

#[tokio::test]
async fn one_that_finds_no_coordinator_for_long_asks_to_be_started_again() {
    let Some(binary) = binary() else { return };
    let farm = Farm::start().await;
    let mut command = farm.buildlet(&binary);
    command.args(["-coordinator=localhost:1", "-orphan-timeout=1s"]);
    let (code, said) = Buildlet(command.spawn().unwrap()).ended().await;
    assert_eq!(code, Some(75), "{said}");
    assert!(
        said.contains("not connected to localhost: Connection refused"),
        "{said}"
    );
    assert!(said.ends_with("nobody has asked for 1 s, ending\n"), "{said}");
}

#[tokio::test]
async fn a_missing_key_is_named_and_nothing_is_dialled() {
    let Some(binary) = binary() else { return };
    let farm = Farm::start().await;
    std::fs::remove_file(farm.path("key")).unwrap();
    let (code, said) = farm.started(&binary).ended().await;
    assert_eq!(code, Some(78), "{said}");
    assert!(
        said.contains(&farm.path("key")) && said.contains("GO_BUILD_KEY_PATH"),
        "{said}"
    );
}

#[tokio::test]
async fn a_coordinator_is_believed_by_its_fingerprint_and_not_without() {
    let Some(binary) = binary() else { return };
    let mut farm = Farm::start().await;
    let at = format!("-coordinator={}", farm.address);
    for (flag, wanted) in [
        (format!("-fingerprint={}", "ab".repeat(32)), "fingerprint"),
        ("-fingerprint=ab".to_owned(), "64 hex digits"),
        (String::from("-halt=false"), "UnknownIssuer"),
    ] {
        let mut command = farm.buildlet(&binary);
        let mut buildlet = Buildlet(command.args([&at, &flag]).spawn().unwrap());
        buildlet.says(wanted).await;
    }
    assert!(farm.events.try_recv().is_err());
    let mut command = farm.buildlet(&binary);
    command.args([&at, &format!("-fingerprint={}", farm.fingerprint())]);
    let _buildlet = Buildlet(command.spawn().unwrap());
    farm.up().await;
}

#[tokio::test]
async fn development_mode_believes_anybody_and_shows_the_public_key() {
    let Some(binary) = binary() else { return };
    let mut farm = Farm::start().await;
    let master = buildlet_api::MasterKey::parse(b"gophers rule").unwrap();
    *farm.good_key.lock().unwrap() = master.builder_key("linux");
    let mut command = farm.buildlet(&binary);
    command.args([&format!("-coordinator={}", farm.address), "-insecure-dev"]);
    let _buildlet = Buildlet(command.spawn().unwrap());
    farm.up().await;
}

#[tokio::test]
async fn a_proxy_is_used_where_the_coordinator_cannot_be_reached() {
    let Some(binary) = binary() else { return };
    let mut farm = Farm::start().await;
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let through = proxy.local_addr().unwrap();
    let coordinator = farm.address;
    // Ends with the test program.
    std::thread::spawn(move || {
        for client in proxy.incoming() {
            let client = client.unwrap();
            std::thread::spawn(move || tunnel(client, coordinator));
        }
    });
    let mut command = farm.buildlet(&binary);
    command
        .args([
            "-coordinator=localhost:1",
            &format!("-ca-file={}", farm.path("cert.pem")),
        ])
        .env("HTTPS_PROXY", format!("http://{through}"))
        .env_remove("NO_PROXY");
    let _buildlet = Buildlet(command.spawn().unwrap());
    let (_, client, _) = farm.up().await;
    assert_eq!(client.status().await.unwrap().version, 27);
}

/// A proxy for one connection, wherever it is to go.
fn tunnel(mut client: TcpStream, to: SocketAddr) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    assert!(request.starts_with(b"CONNECT localhost:1 HTTP/1.1\r\nHost: 127.0.0.1\r\n"));
    let mut server = TcpStream::connect(to).unwrap();
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .unwrap();
    let (mut from, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || drop(std::io::copy(&mut from, &mut back)));
    drop(std::io::copy(&mut client, &mut server));
}
