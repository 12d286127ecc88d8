//! A pool, its events, and fake buildlets that register with it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buildlet_api::{Client, PoolEvent};
use ids::HostType;
use pool_reverse::{
    Credential, IdentityVerdict, KeyCheck, KeyVerdict, RegisterHead, ReverseConfig, ReversePool,
};
use revdial::v2::{Listener, ListenerEvent, keep_alive_line, pickup_failed_line};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Takes the key `good` for the types `linux` and `gone`; the farm has no type `gone`. `instead` answers for all.
struct Keys {
    asked: Arc<AtomicUsize>,
    instead: Arc<Mutex<Option<KeyVerdict>>>,
    enrolled: Arc<Mutex<BTreeMap<String, IdentityVerdict>>>,
}

impl KeyCheck for Keys {
    fn check<'a>(
        &'a self,
        host_type: &'a HostType,
        key: &'a str,
    ) -> Pin<Box<dyn Future<Output = KeyVerdict> + Send + 'a>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let verdict = match (host_type.as_str(), key) {
            ("linux" | "mac", "good") => KeyVerdict::Good,
            ("gone", "good") => KeyVerdict::UnknownHostType,
            _ => KeyVerdict::Bad,
        };
        let verdict = self.instead.lock().unwrap().unwrap_or(verdict);
        Box::pin(std::future::ready(verdict))
    }

    fn identity<'a>(
        &'a self,
        public_key: &'a str,
    ) -> Pin<Box<dyn Future<Output = IdentityVerdict> + Send + 'a>> {
        let known = self.enrolled.lock().unwrap().get(public_key).cloned();
        Box::pin(std::future::ready(known.unwrap_or(IdentityVerdict::Unknown)))
    }

    fn still<'a>(
        &'a self,
        host_type: &'a HostType,
        shown: &'a Credential,
    ) -> Pin<Box<dyn Future<Output = KeyVerdict> + Send + 'a>> {
        let public_key = match shown {
            Credential::Key(key) => return self.check(host_type, key),
            Credential::Identity(public_key) => public_key,
        };
        let verdict = match self.enrolled.lock().unwrap().get(public_key) {
            Some(IdentityVerdict::Known { .. }) => KeyVerdict::Good,
            _ => KeyVerdict::Bad,
        };
        Box::pin(std::future::ready(verdict))
    }
}

pub struct Farm {
    pub pool: ReversePool,
    pub events: mpsc::Receiver<PoolEvent>,
    pub keys_asked: Arc<AtomicUsize>,
    pub verdict: Arc<Mutex<Option<KeyVerdict>>>,
    /// Machines with keys of their own.
    pub enrolled: Arc<Mutex<BTreeMap<String, IdentityVerdict>>>,
}

impl Farm {
    pub fn new() -> Farm {
        Farm::with(ReverseConfig::default())
    }

    pub fn with(config: ReverseConfig) -> Farm {
        let (sender, events) = mpsc::channel(16);
        let (keys_asked, verdict) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let enrolled: Arc<Mutex<BTreeMap<_, _>>> = Arc::default();
        let keys = Arc::new(Keys {
            asked: keys_asked.clone(),
            instead: Arc::clone(&verdict),
            enrolled: enrolled.clone(),
        });
        Farm {
            pool: ReversePool::new(config, keys, sender),
            events,
            keys_asked,
            verdict,
            enrolled,
        }
    }

    /// The next event in words: `up NAME`, `down NAME`, `down NAME, may return`; with its generation.
    pub async fn event(&mut self) -> (String, u64) {
        match self.raw_event().await {
            PoolEvent::Up {
                machine, generation, ..
            } => (format!("up {machine}"), generation),
            PoolEvent::Down {
                machine,
                may_return,
                generation,
                ..
            } => {
                let more = if may_return { ", may return" } else { "" };
                (format!("down {machine}{more}"), generation)
            }
        }
    }

    pub async fn raw_event(&mut self) -> PoolEvent {
        let event = timeout(Duration::from_secs(600), self.events.recv()).await;
        event.expect("an event comes").expect("the pool lives")
    }

    /// The client of the next event, which has to be an `Up`.
    pub async fn up(&mut self) -> Client {
        match self.raw_event().await {
            PoolEvent::Up { client, .. } => client,
            other => panic!("{other:?}"),
        }
    }

    /// What a registration that is turned down reads.
    pub async fn refused(&self, head: RegisterHead) -> String {
        let (ours, theirs) = duplex(4096);
        let pool = self.pool.clone();
        let registering = tokio::spawn(async move { pool.register(head, Box::new(ours)).await });
        let mut theirs = theirs;
        let mut text = String::new();
        theirs.read_to_string(&mut text).await.unwrap();
        registering.await.unwrap();
        text
    }
}

pub fn head() -> RegisterHead {
    RegisterHead {
        host_type: "linux".into(),
        key: "good".into(),
        hostname: "mac7".into(),
        version: "27".into(),
        revdial_version: "2".into(),
        instance: None,
        identity: None,
        keeps_alive: false,
        release: None,
        peer: "10.0.0.7:1234".into(),
    }
}

/// How a fake buildlet behaves; can be changed while it runs.
pub struct Manners {
    /// The body of `/status`.
    pub status: Mutex<String>,
    /// It does not answer requests.
    pub deaf: AtomicBool,
    /// It reports dials as failed.
    pub no_route: AtomicBool,
    /// It ignores dials.
    pub idle: AtomicBool,
    /// It sends keep-alives itself.
    pub keep_alives: AtomicBool,
    /// Paths it was told to dial.
    pub dialed: Mutex<Vec<String>>,
    pub requests: Mutex<Vec<String>>,
}

pub struct Buildlet {
    pub manners: Arc<Manners>,
    /// The coordinator's side of its registration.
    pub registration: JoinHandle<()>,
    pub task: JoinHandle<()>,
}

pub const GO: &str = r#"{"Version":27}"#;
pub const OURS: &str = r#"{"Version":27,"Burrow":"0.1.0","Features":["exec2"]}"#;

impl Buildlet {
    /// Registers and serves until its control connection ends or it is halted.
    pub fn start(pool: &ReversePool, head: RegisterHead, status: &str) -> Buildlet {
        Buildlet::start_proving(pool, head, status, |_| String::new())
    }

    /// The same for a machine with a key of its own: `prove` makes its second request of the challenge.
    pub fn start_proving(
        pool: &ReversePool,
        head: RegisterHead,
        status: &str,
        prove: impl Fn(&str) -> String + Send + 'static,
    ) -> Buildlet {
        let own = head.identity.is_some();
        let manners = Arc::new(Manners {
            status: Mutex::new(status.to_owned()),
            deaf: AtomicBool::new(false),
            no_route: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            keep_alives: AtomicBool::new(false),
            dialed: Mutex::default(),
            requests: Mutex::default(),
        });
        let (ours, mut theirs) = duplex(4096);
        let registering = pool.clone();
        let registration = tokio::spawn(async move { registering.register(head, Box::new(ours)).await });
        let (pool, seen) = (pool.clone(), manners.clone());
        let task = tokio::spawn(async move {
            if own {
                let challenge = read_challenge(&mut theirs).await;
                theirs.write_all(prove(&challenge).as_bytes()).await.unwrap();
            }
            let halted = tokio_util::sync::CancellationToken::new();
            tokio::select! {
                () = control(pool, theirs, seen, halted.clone()) => {}
                () = halted.cancelled() => {}
            }
        });
        Buildlet {
            manners,
            registration,
            task,
        }
    }

    /// Waits until its control connection has ended.
    pub async fn ended(self) {
        timeout(Duration::from_secs(600), self.task)
            .await
            .expect("it ends")
            .unwrap();
    }
}

pub async fn read_challenge(stream: &mut DuplexStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.expect("the answer is whole"));
    }
    let text = String::from_utf8(text).unwrap();
    let challenge = text
        .strip_prefix("HTTP/1.1 401 Unauthorized\r\nburrow-challenge: ")
        .and_then(|rest| rest.strip_suffix("\r\nContent-Length: 0\r\n\r\n"));
    challenge.expect("a challenge and nothing else").to_owned()
}

/// Reads the 101 and gives back nothing that came after it: there must be nothing in the same read.
async fn read_101(stream: &mut DuplexStream) {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.expect("the answer is whole");
        text.push(byte);
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!(
        text,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: revdial\r\n\r\n"
    );
}

async fn control(
    pool: ReversePool,
    mut stream: DuplexStream,
    manners: Arc<Manners>,
    halted: tokio_util::sync::CancellationToken,
) {
    read_101(&mut stream).await;
    let mut listener = Listener::new();
    let mut buffer = [0; 512];
    let mut keep_alive = tokio::time::interval(Duration::from_secs(30));
    loop {
        let read = tokio::select! {
            read = stream.read(&mut buffer) => read,
            _ = keep_alive.tick() => {
                if manners.keep_alives.load(Ordering::SeqCst) {
                    // Its end is seen where it is read.
                    let _ = stream.write_all(&keep_alive_line()).await;
                }
                continue;
            }
        };
        let Ok(length @ 1..) = read else {
            return;
        };
        for event in listener.receive(&buffer[..length]).unwrap() {
            let ListenerEvent::Dial { path } = event else {
                continue;
            };
            manners.dialed.lock().unwrap().push(path.clone());
            if manners.idle.load(Ordering::SeqCst) {
                continue;
            }
            if manners.no_route.load(Ordering::SeqCst) {
                let line = pickup_failed_line(&path, "no route to host");
                stream.write_all(&line).await.unwrap();
                continue;
            }
            let (ours, theirs) = duplex(4096);
            let (pool, manners, halted) = (pool.clone(), manners.clone(), halted.clone());
            tokio::spawn(async move {
                let ended = halted.clone();
                tokio::select! {
                    ((), ()) = async { tokio::join!(pool.pickup(&path, Box::new(ours)), serve(theirs, manners, halted)) } => {}
                    () = ended.cancelled() => {}
                }
            });
        }
    }
}

async fn serve(mut stream: DuplexStream, manners: Arc<Manners>, halted: tokio_util::sync::CancellationToken) {
    read_101(&mut stream).await;
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            request.push(byte);
        }
        let request = String::from_utf8(request).unwrap();
        manners.requests.lock().unwrap().push(request.clone());
        if manners.deaf.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let body = match request.split(' ').nth(1) {
            Some("/status") => manners.status.lock().unwrap().clone(),
            Some("/halt") => String::new(),
            other => panic!("{other:?}"),
        };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        if request.starts_with("POST /halt") {
            // A real one acts a second after its answer.
            tokio::time::sleep(Duration::from_secs(1)).await;
            halted.cancel();
        }
    }
}
