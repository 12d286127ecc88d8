use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use buildlet_api::{BoxedStream, CallError, Client, Connect, PoolEvent, Status};
use ids::{HostType, MachineId};
use revdial::v2::{Action, Dialer, DialerId, DialerLimits, Nonce, OpenError, PickupError};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::admit::{
    Admission, Credential, KeyCheck, KeyVerdict, Refusal, RegisterHead, WRITE_LIMIT, admit, refuse, switch,
};
use crate::bad_keys::BadKeys;
use crate::multiplexed::{self, Multiplexed, MultiplexedConnect};
use crate::names::{machine_name, without_port};
use crate::tied::Tied;

/// Under which name the pool's events go.
const POOL: &str = "reverse";
/// The first version with revdial v2, and the first at all. Source: golang/build
/// `internal/coordinator/pool/reverse.go`, `cmd/coordinator/reverse.go` (2018).
const VERSION_MIN: u32 = 23;
const VERSION_MIN_V1: u32 = 1;
/// For the older of two machines of one name to prove that it lives.
const PING_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection to a machine that sends keep-alives is kept for more work.
const UNUSED: Duration = Duration::from_secs(20);
/// Control lines waiting to be written; 64 dials make 128.
const LINES_MAX: usize = 256;
/// Machines of one host name that are told apart by number.
const NAMESAKES_MAX: usize = 32;

/// What can be set about the pool. The defaults are those of a farm in service.
#[derive(Debug, Clone)]
pub struct ReverseConfig {
    /// Wrong keys an address may show in a minute before it gets 429 alone.
    pub bad_keys_per_minute: usize,
    /// Between two looks at a machine's health.
    pub heartbeat: Duration,
    /// Looks in a row that may fail before a machine is given up. Each has 20 s.
    pub heartbeat_failures: u32,
    /// The same two for machines that send keep-alives: how long they may be silent, and between two looks at their health.
    pub silence: Duration,
    pub quiet_heartbeat: Duration,
    /// Between two looks at whether a machine's key still opens.
    pub key_check: Duration,
    pub dialer: DialerLimits,
}

impl Default for ReverseConfig {
    fn default() -> ReverseConfig {
        ReverseConfig {
            bad_keys_per_minute: 10,
            heartbeat: Duration::from_secs(10),
            heartbeat_failures: 3,
            // Three of theirs, and as long as theirs for us.
            silence: Duration::from_secs(100),
            // A connection is made for each, which costs more than all else that an idle machine does.
            quiet_heartbeat: Duration::from_secs(300),
            key_check: Duration::from_secs(15),
            dialer: DialerLimits::default(),
        }
    }
}

/// All reverse machines. Cheap to clone; clones are the same pool.
#[derive(Clone)]
pub struct ReversePool(Arc<Shared>);

struct Shared {
    config: ReverseConfig,
    /// When full, sessions wait to report; their control connections go on being served.
    events: mpsc::Sender<PoolEvent>,
    keys: Arc<dyn KeyCheck>,
    random: SystemRandom,
    began: Instant,
    stop: CancellationToken,
    state: Mutex<State>,
}

struct State {
    dialer: Dialer,
    waiting: BTreeMap<Nonce, oneshot::Sender<io::Result<BoxedStream>>>,
    sessions: BTreeMap<DialerId, SessionHandle>,
    machines: BTreeMap<MachineId, Machine>,
    /// Which of them have a key of their own, by the name that it gives them.
    own: BTreeMap<String, MachineId>,
    bad_keys: BadKeys,
    generation: u64,
}

struct SessionHandle {
    lines: mpsc::Sender<Vec<u8>>,
    /// Asks the session to end; its connections fail from then on.
    stop: CancellationToken,
    /// What is up through it.
    machine: Option<MachineId>,
}

/// A machine that is up.
struct Machine {
    session: DialerId,
    release: Option<u64>,
    own_name: Option<String>,
    generation: u64,
    host_type: HostType,
    hostname: String,
    instance: Option<String>,
    client: Client,
    resumable: bool,
}

/// A registration that was let in.
struct Admitted {
    session: DialerId,
    link: Link,
    head: RegisterHead,
    host_type: HostType,
    own_name: Option<String>,
    /// When bytes came on its control connection, in milliseconds since the pool began.
    heard: AtomicU64,
}

/// Whether a machine may be up.
enum Claim {
    Up(Client, Box<PoolEvent>),
    No(String),
}

/// How connections to a buildlet are had.
enum Link {
    /// It dials each back.
    Dialled,
    /// All are within the registered one.
    Multiplexed(Arc<Multiplexed>),
}

/// What is to be written to the registered connection.
enum Outgoing {
    Lines(mpsc::Receiver<Vec<u8>>),
    Frames(Arc<Multiplexed>, multiplexed::Outgoing),
}

impl ReversePool {
    /// `events` gets an `Up` and later a `Down` for each machine.
    pub fn new(
        config: ReverseConfig,
        keys: Arc<dyn KeyCheck>,
        events: mpsc::Sender<PoolEvent>,
    ) -> ReversePool {
        let state = State {
            dialer: Dialer::new(buildlet_api::wire::REVDIAL, config.dialer),
            waiting: BTreeMap::new(),
            sessions: BTreeMap::new(),
            machines: BTreeMap::new(),
            own: BTreeMap::new(),
            bad_keys: BadKeys::new(config.bad_keys_per_minute),
            generation: 0,
        };
        ReversePool(Arc::new(Shared {
            config,
            events,
            keys,
            random: SystemRandom::new(),
            began: Instant::now(),
            stop: CancellationToken::new(),
            state: Mutex::new(state),
        }))
    }

    /// Serves one registered connection from its request head to its end. `stream` begins after the
    /// head and has not been answered; that it came over TLS, or from a proxy trusted to have ended
    /// TLS, the caller has made sure of.
    ///
    /// May be dropped: the session ends, and so do its connections.
    pub async fn register(&self, head: RegisterHead, mut stream: BoxedStream) {
        let (peer, hostname, host_type) = (head.peer.clone(), head.hostname.clone(), head.host_type.clone());
        let refusal = match Box::pin(self.open(head, &mut stream)).await {
            Ok((admitted, outgoing, stop)) => return self.serve(admitted, stream, outgoing, stop).await,
            Err(refusal) => refusal,
        };
        let (status, text) = (refusal.status, &refusal.text);
        warn!(
            peer,
            hostname,
            host_type,
            status,
            "refused reverse buildlet `{hostname}` ({host_type}) from {peer}: {text}"
        );
        if let Err(error) = refuse(stream, status, text).await {
            debug!(peer, "could not tell {peer} that it is refused: {error}");
        }
    }

    /// Hands a connection that a buildlet brings to whoever asked for it. `path_and_query` is that of
    /// the `GET` request; `stream` begins after its head and has not been answered.
    pub async fn pickup(&self, path_and_query: &str, mut stream: BoxedStream) {
        let found = {
            let mut state = self.0.lock();
            let nonce = state.dialer.pickup(path_and_query);
            nonce.and_then(|nonce| state.waiting.remove(&nonce).ok_or(PickupError::UnknownDial))
        };
        match found {
            Ok(waiting) => {
                let switched = switch(&mut stream).await;
                // Nobody waits any more if the dial was given up meanwhile: the stream is closed then.
                let _ = waiting.send(switched.map(|()| stream));
            }
            Err(error) => {
                debug!("closed a reverse connection nobody waits for: {error}");
                let _ = refuse(stream, 400, &error.to_string()).await;
            }
        }
    }

    /// The machines that stage0 runs, by host type, with the serial of what it runs there.
    pub fn releases(&self) -> Vec<(HostType, MachineId, u64)> {
        let state = self.0.lock();
        let of = |(id, machine): (&MachineId, &Machine)| {
            Some((machine.host_type.clone(), id.clone(), machine.release?))
        };
        state.machines.iter().filter_map(of).collect()
    }

    /// Asks a machine to run the published buildlet. `false`: it is at work, or gone.
    pub async fn update(&self, machine: &MachineId) -> Result<bool, CallError> {
        let client = self
            .0
            .lock()
            .machines
            .get(machine)
            .map(|machine| machine.client.clone());
        match client {
            Some(client) => client.update().await,
            None => Ok(false),
        }
    }

    /// Ends all sessions and admits no more. Buildlets dial again on their own.
    pub fn close(&self) {
        self.0.stop.cancel();
    }

    /// Checks a registration and makes its session, whose first line is queued already.
    async fn open(
        &self,
        head: RegisterHead,
        stream: &mut BoxedStream,
    ) -> Result<(Admitted, Outgoing, CancellationToken), Refusal> {
        if self.0.stop.is_cancelled() {
            return Err(Refusal::new(503, "the coordinator is stopping"));
        }
        let address = without_port(&head.peer).to_owned();
        if self.0.lock().bad_keys.exhausted(self.0.now(), &address) {
            return Err(Refusal::new(
                429,
                "too many invalid build keys from this address; wait a minute",
            ));
        }
        let admitted = admit(&head, &*self.0.keys, stream).await;
        if matches!(&admitted, Err(refusal) if refusal.bad_key) {
            self.0.lock().bad_keys.note(self.0.now(), &address);
        }
        let Admission { host_type, own_name } = admitted?;
        let session = self.0.random_bytes().map(DialerId);
        let session = session.ok_or_else(|| Refusal::new(500, "no random numbers to be had"))?;

        let (sender, lines) = mpsc::channel(LINES_MAX);
        let stop = self.0.stop.child_token();
        let mut state = self.0.lock();
        let limit = self.0.config.dialer.sessions;
        if state.sessions.len() >= limit {
            return Err(Refusal::new(503, OpenError::TooMany { limit }.to_string()));
        }
        let (link, outgoing, actions) = if head.revdial_version.is_empty() {
            let (all, outgoing) = Multiplexed::new(stop.clone());
            (
                Link::Multiplexed(all.clone()),
                Outgoing::Frames(all, outgoing),
                Vec::new(),
            )
        } else {
            let actions = state.dialer.open(self.0.now(), session);
            let actions = actions.map_err(|error| Refusal::new(503, error.to_string()))?;
            (Link::Dialled, Outgoing::Lines(lines), actions)
        };
        state.sessions.insert(
            session,
            SessionHandle {
                lines: sender,
                stop: stop.clone(),
                machine: None,
            },
        );
        state.perform(actions);
        drop(state);
        Ok((
            Admitted {
                session,
                link,
                head,
                host_type,
                own_name,
                heard: AtomicU64::new(self.0.now_ms()),
            },
            outgoing,
            stop,
        ))
    }

    async fn serve(
        &self,
        admitted: Admitted,
        mut stream: BoxedStream,
        outgoing: Outgoing,
        stop: CancellationToken,
    ) {
        let mut guard = SessionGuard {
            shared: self.0.clone(),
            session: admitted.session,
        };
        let (peer, hostname) = (&admitted.head.peer, &admitted.head.hostname);
        let mut unwelcome = false;
        let why = match switch(&mut stream).await {
            Err(error) => format!("the answer to its registration could not be written: {error}"),
            Ok(()) => {
                let (read, write) = tokio::io::split(stream);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => "a newer connection took its place, or the pool is closed".to_owned(),
                    why = async { match &admitted.link {
                        Link::Dialled => self.read(&admitted, read).await,
                        Link::Multiplexed(all) => all.read(read).await,
                    } } => why,
                    why = async { match outgoing {
                        Outgoing::Lines(lines) => self.write(admitted.session, lines, write).await,
                        Outgoing::Frames(all, frames) => all.write(frames, write).await,
                    } } => why,
                    why = self.care(&admitted) => why,
                    why = self.unwelcome(&admitted) => {
                        unwelcome = true;
                        why
                    }
                }
            }
        };
        match guard.end() {
            Some((machine, mut down)) => {
                down.may_return &= !unwelcome;
                info!(machine.id = %machine, peer, "reverse machine {machine} is down: {why}");
                // Fails only if nobody listens any more.
                let _ = self.0.events.send(down.event(machine, why)).await;
            }
            None => {
                warn!(
                    peer,
                    hostname,
                    "session of reverse buildlet `{hostname}` from {peer} ended without a machine: {why}"
                );
            }
        }
    }

    /// Reads the control connection to its end; returns why it ended.
    async fn read(&self, admitted: &Admitted, mut read: ReadHalf<BoxedStream>) -> String {
        // Lines are short and seldom, and this is kept for as long as the machine stays.
        let mut buffer = [0; 512];
        loop {
            let length = match read.read(&mut buffer).await {
                Ok(0) => return "its control connection was closed".to_owned(),
                Ok(length) => length,
                Err(error) => return format!("its control connection broke: {error}"),
            };
            admitted.heard.store(self.0.now_ms(), Ordering::Relaxed);
            let mut state = self.0.lock();
            match state.dialer.receive(admitted.session, &buffer[..length]) {
                Ok(actions) => state.perform(actions),
                Err(error) => return format!("it broke the control protocol: {error}"),
            }
        }
    }

    /// Writes control lines as they come and keep-alives as they are due; returns why it cannot.
    async fn write(
        &self,
        session: DialerId,
        mut lines: mpsc::Receiver<Vec<u8>>,
        mut write: WriteHalf<BoxedStream>,
    ) -> String {
        loop {
            let deadline = self.0.lock().dialer.next_deadline_of(session);
            let Some(deadline) = deadline else {
                return "its session was closed".to_owned();
            };
            let line = tokio::select! {
                line = lines.recv() => line,
                () = sleep_until(self.0.began + deadline) => {
                    let mut state = self.0.lock();
                    let actions = state.dialer.tick_of(self.0.now(), session);
                    state.perform(actions);
                    continue;
                }
            };
            let Some(line) = line else {
                return "its session was closed".to_owned();
            };
            let writing = async {
                write.write_all(&line).await?;
                write.flush().await
            };
            match timeout(WRITE_LIMIT, writing).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return format!("its control connection broke: {error}"),
                Err(_) => return format!("its control connection took no line for {WRITE_LIMIT:?}"),
            }
        }
    }

    /// Returns when the machine may not stay: its key was revoked, or its host type is gone.
    async fn unwelcome(&self, admitted: &Admitted) -> String {
        let shown = match &admitted.head.identity {
            Some(public_key) => Credential::Identity(public_key.clone()),
            None => Credential::Key(admitted.head.key.trim().to_owned()),
        };
        loop {
            sleep(self.0.config.key_check).await;
            match self.0.keys.still(&admitted.host_type, &shown).await {
                KeyVerdict::Good | KeyVerdict::CannotTell => {}
                KeyVerdict::Bad => return "its key was revoked".to_owned(),
                KeyVerdict::UnknownHostType => {
                    return format!(
                        "the farm's configuration has no host type `{}` any more",
                        admitted.host_type
                    );
                }
            }
        }
    }

    /// Brings the machine up and looks after its health; returns why it has to go.
    async fn care(&self, admitted: &Admitted) -> String {
        let provisional = self.client(admitted, machine_name(&admitted.head.hostname, None, 1));
        let status = match Box::pin(provisional.status()).await {
            Err(error) => return format!("it did not answer `/status`: {}", chain(&error)),
            Ok(status) if status.version < admitted.version_min() => {
                let (found, wanted) = (status.version, admitted.version_min());
                return format!("its version is {found}; wanted {wanted} or later");
            }
            Ok(status) => status,
        };
        // And its connection.
        drop(provisional);
        let (client, up) = match Box::pin(self.claim(admitted, status)).await {
            Claim::Up(client, up) => (client, *up),
            Claim::No(why) => return why,
        };
        info!(machine.id = %client.host(), peer = admitted.head.peer, "{up:?}");
        if self.0.events.send(up).await.is_err() {
            return "nobody listens to the pool".to_owned();
        }
        let quiet = admitted.head.keeps_alive && matches!(admitted.link, Link::Dialled);
        let mut failures = 0;
        loop {
            match quiet && failures == 0 {
                true => {
                    if let Some(why) = self.silent(admitted, &client).await {
                        return why;
                    }
                }
                false => sleep(self.0.config.heartbeat).await,
            }
            let alive = Box::pin(client.status()).await;
            if quiet {
                client.forget_idle(Duration::ZERO);
            }
            match alive {
                Ok(_) => failures = 0,
                Err(error) => {
                    failures += 1;
                    debug!(machine.id = %client.host(), failures, "heartbeat of {} failed: {}", client.host(), chain(&error));
                    if failures >= self.0.config.heartbeat_failures {
                        return format!("{failures} heartbeats in a row failed: {}", chain(&error));
                    }
                }
            }
        }
    }

    /// Waits for the next look at a machine that sends keep-alives; why it has to go if they stay away. Connections that
    /// were made for work that is done are closed meanwhile.
    async fn silent(&self, admitted: &Admitted, client: &Client) -> Option<String> {
        let limit = self.0.config.silence;
        let look = Instant::now() + self.0.config.quiet_heartbeat;
        loop {
            let heard = Duration::from_millis(admitted.heard.load(Ordering::Relaxed));
            let due = self.0.began + heard + limit;
            let now = Instant::now();
            if due <= now {
                return Some(format!("it said nothing for {} s", limit.as_secs()));
            }
            if look <= now {
                return None;
            }
            sleep_until(due.min(look).min(now + UNUSED)).await;
            client.forget_idle(UNUSED);
        }
    }

    /// Finds the name for a machine that answers, ends the registration it replaces, and notes it
    /// as up.
    ///
    /// One of ours is known by its instance and replaces itself. Of Go's, an older one of the same
    /// host name and type is replaced if it does not answer at once; otherwise the two are numbered.
    async fn claim(&self, admitted: &Admitted, status: Status) -> Claim {
        let head = &admitted.head;
        if let Some(own_name) = &admitted.own_name {
            return self.claim_own(admitted, own_name, &status).await;
        }
        let instance = head.instance.as_deref();
        let mut n = 1;
        while n <= NAMESAKES_MAX {
            let name = machine_name(&head.hostname, instance, n);
            let older = self.0.lock().machines.get(&name).map(|older| {
                // One with a key of its own gives way to nobody who has not shown that key.
                let alike = older.own_name.is_none()
                    && older.host_type == admitted.host_type
                    && older.hostname == head.hostname
                    && older.instance == head.instance;
                (older.generation, alike.then(|| older.client.clone()))
            });
            let replaces = match older {
                None => None,
                Some((_, None)) => {
                    n += 1;
                    continue;
                }
                Some((generation, Some(_))) if instance.is_some() => Some(generation),
                Some((generation, Some(older))) => match timeout(PING_LIMIT, older.status()).await {
                    Ok(Ok(_)) => {
                        n += 1;
                        continue;
                    }
                    _ => Some(generation),
                },
            };
            if let Some((client, up)) = self.put(admitted, &status, name, replaces) {
                return Claim::Up(client, Box::new(up));
            }
            // Somebody else took the name meanwhile: look at it again.
        }
        Claim::No(format!("{NAMESAKES_MAX} live machines have its host name"))
    }

    /// As [`ReversePool::claim`], for a machine with a key of its own, which there can be only one of: an earlier
    /// buildlet of it has to be gone. One that still answers has a copy of the key.
    async fn claim_own(&self, admitted: &Admitted, own_name: &str, status: &Status) -> Claim {
        let name = machine_name(own_name, admitted.head.instance.as_deref(), 1);
        loop {
            let older = {
                let state = self.0.lock();
                let older = state
                    .own
                    .get(own_name)
                    .and_then(|id| state.machines.get_key_value(id));
                older.map(|(id, older)| (id.clone(), older.generation, older.session, older.client.clone()))
            };
            let replaces = match older {
                None => None,
                Some((id, generation, _, _)) if id == name => Some(generation),
                Some((id, _, session, client)) => {
                    if let Ok(Ok(_)) = timeout(PING_LIMIT, client.status()).await {
                        return Claim::No(format!(
                            "{id}, {}, has the same key and answers; a copied key is to be revoked",
                            client.address()
                        ));
                    }
                    let ended = self.0.lock().end(session);
                    if let Some((machine, down)) = ended {
                        let why = "its machine has another buildlet by now".to_owned();
                        let _ = self.0.events.send(down.event(machine, why)).await;
                    }
                    None
                }
            };
            if let Some((client, up)) = self.put(admitted, status, name.clone(), replaces) {
                return Claim::Up(client, Box::new(up));
            }
            let state = self.0.lock();
            let holder = state.machines.get(&name).map(|holder| holder.own_name.as_deref());
            if holder.is_some_and(|holder| holder != Some(own_name)) {
                return Claim::No(format!(
                    "another machine is called {name}; enrol this one by another name"
                ));
            }
            // Somebody else took the name meanwhile: look at it again.
        }
    }

    /// Notes the machine as up, unless another than generation `replaces` has the name.
    fn put(
        &self,
        admitted: &Admitted,
        status: &Status,
        name: MachineId,
        replaces: Option<u64>,
    ) -> Option<(Client, PoolEvent)> {
        let client = self.client(admitted, name.clone());
        let mut state = self.0.lock();
        if let Some(own) = &admitted.own_name
            && state.own.get(own).is_some_and(|id| *id != name)
        {
            return None;
        }
        if let Some(older) = state.machines.get(&name) {
            if replaces != Some(older.generation) {
                return None;
            }
            if let Some(session) = state.sessions.get(&older.session) {
                session.stop.cancel();
            }
            // Its session ends on its own; it has to say itself that this generation is down.
        }
        state.generation += 1;
        let generation = state.generation;
        let machine = Machine {
            session: admitted.session,
            own_name: admitted.own_name.clone(),
            release: admitted.head.release,
            generation,
            host_type: admitted.host_type.clone(),
            hostname: admitted.head.hostname.clone(),
            instance: admitted.head.instance.clone(),
            client: client.clone(),
            resumable: status.resumable(),
        };
        if let Some(own) = &admitted.own_name {
            state.own.insert(own.clone(), name.clone());
        }
        if let Some(session) = state.sessions.get_mut(&admitted.session) {
            session.machine = Some(name.clone());
        }
        if let Some(older) = state.machines.insert(name.clone(), machine) {
            let down = Down {
                generation: older.generation,
                may_return: older.resumable,
            };
            let why = "a newer connection of the same machine took its place".to_owned();
            // If the queue is full the `Up` that follows says the same.
            let _ = self.0.events.try_send(down.event(name.clone(), why));
        }
        let up = PoolEvent::Up {
            machine: name,
            host_type: admitted.host_type.clone(),
            client: client.clone(),
            status: status.clone(),
            pool: POOL,
            address: client.address(),
            resumable: status.resumable(),
            generation,
        };
        Some((client, up))
    }

    fn client(&self, admitted: &Admitted, name: MachineId) -> Client {
        let address = format!("reverse from {}", admitted.head.peer);
        let connect: Arc<dyn Connect> = match &admitted.link {
            Link::Dialled => Arc::new(ReverseConnect {
                shared: Arc::downgrade(&self.0),
                session: admitted.session,
                address,
            }),
            Link::Multiplexed(all) => Arc::new(MultiplexedConnect {
                all: Arc::downgrade(all),
                address,
            }),
        };
        Client::new(connect, name, None)
    }
}

impl Admitted {
    fn version_min(&self) -> u32 {
        match self.link {
            Link::Dialled => VERSION_MIN,
            Link::Multiplexed(_) => VERSION_MIN_V1,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn random_bytes(&self) -> Option<[u8; 16]> {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes).ok()?;
        Some(bytes)
    }
}

impl State {
    /// Forgets the session, fails its dials; returns the machine that was up through it.
    fn end(&mut self, id: DialerId) -> Option<(MachineId, Down)> {
        let actions = self.dialer.close(id);
        self.perform(actions);
        let session = self.sessions.remove(&id)?;
        session.stop.cancel();
        let name = session.machine?;
        // It may be another session's by now.
        if self.machines.get(&name)?.session != id {
            return None;
        }
        let machine = self.machines.remove(&name)?;
        if let Some(own) = machine.own_name
            && self.own.get(&own) == Some(&name)
        {
            self.own.remove(&own);
        }
        let down = Down {
            generation: machine.generation,
            may_return: machine.resumable,
        };
        Some((name, down))
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { session, line } => {
                    let Some(handle) = self.sessions.get(&session) else {
                        continue;
                    };
                    // 256 lines that nobody takes: the connection is as good as dead.
                    if handle.lines.try_send(line).is_err() {
                        handle.stop.cancel();
                    }
                }
                Action::Failed { dial, why } => {
                    if let Some(waiting) = self.waiting.remove(&dial) {
                        let _ = waiting.send(Err(io::Error::new(io::ErrorKind::ConnectionRefused, why)));
                    }
                }
            }
        }
    }
}

/// What a `Down` needs to know of the machine that was up.
struct Down {
    generation: u64,
    may_return: bool,
}

impl Down {
    fn event(self, machine: MachineId, why: String) -> PoolEvent {
        PoolEvent::Down {
            machine,
            why,
            may_return: self.may_return,
            generation: self.generation,
        }
    }
}

/// Ends the session when it goes out of sight, however that comes.
struct SessionGuard {
    shared: Arc<Shared>,
    session: DialerId,
}

impl SessionGuard {
    /// Forgets the session, fails its dials; returns the machine that was up through it.
    fn end(&mut self) -> Option<(MachineId, Down)> {
        self.shared.lock().end(self.session)
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        if let Some((machine, down)) = self.end() {
            let event = down.event(machine, "the pool was stopped".to_owned());
            let _ = self.shared.events.try_send(event);
        }
    }
}

/// Gets connections to a reverse machine: asks for one on its control connection and waits for it.
struct ReverseConnect {
    shared: Weak<Shared>,
    session: DialerId,
    address: String,
}

impl Connect for ReverseConnect {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<BoxedStream>> + Send + '_>> {
        Box::pin(async {
            let closed = || io::Error::new(io::ErrorKind::NotConnected, "the reverse pool is closed");
            let shared = self.shared.upgrade().ok_or_else(closed)?;
            let nonce = shared.random_bytes().map(Nonce).ok_or_else(closed)?;
            let (sender, picked_up) = oneshot::channel();
            let (_guard, session) = {
                let mut state = shared.lock();
                let actions = state.dialer.dial(shared.now(), self.session, nonce);
                let actions = actions.map_err(|error| io::Error::new(io::ErrorKind::NotConnected, error))?;
                state.waiting.insert(nonce, sender);
                state.perform(actions);
                let session = state
                    .sessions
                    .get(&self.session)
                    .map(|session| session.stop.clone());
                let guard = DialGuard {
                    shared: shared.clone(),
                    nonce,
                };
                (guard, session.ok_or_else(closed)?)
            };
            // The session fails the dial after 30 s, or when it ends itself.
            let stream = picked_up.await.map_err(|_| closed())??;
            Ok(Box::new(Tied::new(stream, session)) as BoxedStream)
        })
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

/// Gives a dial up when nobody waits for it any more.
struct DialGuard {
    shared: Arc<Shared>,
    nonce: Nonce,
}

impl Drop for DialGuard {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.dialer.forget(self.nonce);
        state.waiting.remove(&self.nonce);
    }
}

/// An error and its causes, on one line.
fn chain(error: &CallError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
