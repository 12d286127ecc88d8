//! Performs the farm core's effects on machines: one task for what an attempt does, one for a kill,
//! one for a cleaning. Decides nothing; how it went goes back to the core as an input.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blobs::{LogError, LogStore, LogWriter};
use buildlet_api::{CallError, Client, PoolEvent, ProcessState, Upload};
use farm::{Effect, Input};
use gitmirror::MirrorService;
use ids::{AttemptId, GitHash, HostType, MachineId, RepoName, StepId};
use runner::{InfraCause, StepPlan};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use crate::answer::{
    Next, after_exec, after_follow, after_start, exec_spec, prepare_failed, source_failed, unlimited,
};
use crate::gomote::Desk;
use crate::mask::Mask;
use crate::secrets;

/// How often a step that prints is reported as alive; its silence limit is counted in minutes.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// How long room for a log is waited for before its step counts as lost. As long as for a machine out of reach.
const UNWRITTEN_LIMIT: Duration = Duration::from_secs(300);

/// The buildlet's own limit for a command, past the core's: only for a coordinator that never returns.
const WALL_SLACK: Duration = Duration::from_secs(600);

/// The hands of the core.
pub struct Drivers {
    shared: Shared,
    machines: BTreeMap<MachineId, Machine>,
    tasks: JoinSet<()>,
}

/// What every task needs.
#[derive(Clone)]
pub struct Shared {
    pub inputs: mpsc::Sender<Input>,
    pub logs: LogStore,
    pub max_log: u64,
    pub mirror: Arc<MirrorService>,
    /// Why the log that was written last could not be, until one can.
    pub log_trouble: LogTrouble,
    pub machines: Links,
    pub connected: Connected,
    pub desk: Desk,
    pub secrets: secrets::Folder,
}

pub type LogTrouble = Arc<std::sync::Mutex<Option<String>>>;

/// Links of machines that came up and of which the core has not been told yet, oldest first.
pub type Links = Arc<std::sync::Mutex<BTreeMap<MachineId, VecDeque<Link>>>>;

/// The machines that are connected by what the core knows; the drivers fill it, and who passes requests on looks.
pub type Connected = Arc<std::sync::Mutex<BTreeMap<MachineId, Link>>>;

/// What the core wants done, with the link it knew of when it decided. A machine that has come back since is
/// another one: what was to be done may make no sense on it, or be done twice.
pub struct Aimed {
    /// `None`: it concerns no machine.
    link: Option<Link>,
    effect: Effect,
}

#[derive(Clone)]
pub struct Link {
    pub client: Client,
    pub resumable: bool,
    /// It keeps commands within limits, or refuses them.
    pub limits: bool,
    pub generation: u64,
    /// Cancelled when this link is gone.
    pub gone: CancellationToken,
}

struct Machine {
    link: Link,
    /// An attempt has been on it since it came up.
    used: bool,
    /// Nothing has been on it since it was cleaned.
    clean: Arc<AtomicBool>,
    /// The command that runs over its own connection, on machines that keep none.
    attached: Option<(StepId, CancellationToken)>,
    /// One task at a time touches the machine's working directory.
    turn: Arc<Mutex<()>>,
}

impl Aimed {
    pub fn effect(&self) -> &Effect {
        &self.effect
    }
}

impl Machine {
    fn new(link: Link) -> Machine {
        Machine {
            link,
            used: false,
            clean: Arc::default(),
            attached: None,
            turn: Arc::default(),
        }
    }
}

/// On which machine something is done.
fn machine_of(effect: &Effect) -> Option<&MachineId> {
    match effect {
        Effect::Prepare { machine, .. }
        | Effect::StartStep { machine, .. }
        | Effect::FollowStep { machine, .. }
        | Effect::KillStep { machine, .. }
        | Effect::Release { machine } => Some(machine),
        Effect::Lent { .. } | Effect::NotLent { .. } | Effect::CutLoan { .. } => None,
    }
}

impl Drivers {
    pub fn new(shared: Shared) -> Drivers {
        Drivers {
            shared,
            machines: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// What the core is about to be told: a machine that comes up has a new link from here on.
    pub fn heed(&mut self, input: &Input) {
        match input {
            Input::MachineUp { machine, .. } => {
                let mut links = self.shared.machines.lock().expect("no holder panics");
                let link = links.get_mut(machine).and_then(VecDeque::pop_front);
                links.retain(|_, links| !links.is_empty());
                drop(links);
                if let Some(link) = link {
                    let mut connected = self.shared.connected.lock().expect("no holder panics");
                    connected.insert(machine.clone(), link.clone());
                    self.machines.insert(machine.clone(), Machine::new(link));
                }
            }
            Input::MachineDown { machine, .. } => {
                self.machines.remove(machine);
                self.shared
                    .connected
                    .lock()
                    .expect("no holder panics")
                    .remove(machine);
            }
            _ => {}
        }
    }

    /// Those of the effects whose machine has a link by what the core knows.
    pub fn aim(&self, effects: Vec<Effect>) -> Vec<Aimed> {
        let aim = |effect: Effect| {
            let link = match machine_of(&effect) {
                Some(machine) => Some(self.machines.get(machine)?.link.clone()),
                None => None,
            };
            Some(Aimed { link, effect })
        };
        effects.into_iter().filter_map(aim).collect()
    }

    /// Starts each; returns at once. The tasks end by themselves and are ended with this value.
    pub fn perform(&mut self, effects: Vec<Aimed>) {
        while self.tasks.try_join_next().is_some() {}
        for Aimed { link, effect } in effects {
            match link {
                Some(link) => self.perform_on(link, effect),
                None => self.perform_at_desk(effect),
            }
        }
    }

    fn perform_on(&mut self, link: Link, effect: Effect) {
        let Some(machine) = machine_of(&effect).cloned() else {
            return;
        };
        // Gone since the core decided: the pool's `Down` tells the core.
        let state = self.machines.get_mut(&machine);
        let Some(state) = state.filter(|state| state.link.generation == link.generation) else {
            return;
        };
        let (shared, turn) = (self.shared.clone(), state.turn.clone());
        let gone = link.gone.clone();
        match effect {
            Effect::Lent { .. } | Effect::NotLent { .. } | Effect::CutLoan { .. } => {}
            Effect::Prepare {
                attempt,
                repo,
                commit,
                source_dir,
                ..
            } => {
                state.used = true;
                let clean = state.clean.clone();
                let span = info_span!("prepare", build.id = %attempt.build, machine.id = %machine);
                let work = async move {
                    let _turn = turn.lock().await;
                    let clean = clean.swap(false, Ordering::AcqRel);
                    prepare(&shared, &link, attempt, &repo, &commit, &source_dir, clean).await;
                };
                self.spawn(gone, work.instrument(span));
            }
            Effect::StartStep { step, spec, .. } if unlimited(&spec, link.limits).is_some() => {
                let why = unlimited(&spec, link.limits).unwrap_or_default();
                self.spawn(gone, async move { lost(&shared, step, why).await });
            }
            Effect::StartStep { step, spec, .. } if link.resumable => {
                let span = info_span!("step", build.id = %step.attempt.build, machine.id = %machine);
                self.spawn(
                    gone,
                    async move { start(&shared, &link, step, &spec).await }.instrument(span),
                );
            }
            Effect::StartStep { step, spec, .. } => {
                let kill = gone.child_token();
                state.attached = Some((step, kill.clone()));
                let span = info_span!("step", build.id = %step.attempt.build, machine.id = %machine);
                let work = async move { attached(&shared, &link, step, &spec, kill).await };
                self.spawn(gone, work.instrument(span));
            }
            Effect::FollowStep { step, .. } => {
                let span = info_span!("step", build.id = %step.attempt.build, machine.id = %machine);
                self.spawn(
                    gone,
                    async move { follow(&shared, &link, step).await }.instrument(span),
                );
            }
            Effect::KillStep { step, .. } if link.resumable => {
                self.spawn(gone, async move {
                    // Its follower reports the end; a kill that fails runs into the core's grace.
                    if let Err(why) = link.client.kill_exec(&step.to_string()).await {
                        warn!("cannot kill step {step}: {:#}", anyhow::Error::from(why));
                    }
                });
            }
            Effect::KillStep { step, .. } => {
                if let Some((running, kill)) = &state.attached
                    && *running == step
                {
                    kill.cancel();
                }
            }
            Effect::Release { .. } => {
                let halt = state.used && !link.resumable;
                state.used = false;
                let clean = state.clean.clone();
                let span = info_span!("release", machine.id = %machine);
                let work = async move {
                    let _turn = turn.lock().await;
                    release(&shared, &link, machine, halt, &clean).await;
                };
                self.spawn(gone, work.instrument(span));
            }
        }
    }

    /// What concerns no machine, but those who borrow.
    fn perform_at_desk(&mut self, effect: Effect) {
        let desk = &self.shared.desk;
        match effect {
            Effect::Lent { ticket, loan } => {
                if let Some(state) = self.machines.get_mut(&loan.machine) {
                    state.used = true;
                    state.clean.store(false, Ordering::Release);
                }
                if !desk.answer(ticket, Ok(loan)) {
                    let inputs = self.shared.inputs.clone();
                    self.tasks.spawn(async move {
                        let _ = inputs.send(Input::Unask { ticket }).await;
                    });
                }
            }
            Effect::NotLent { ticket, why } => {
                desk.answer(ticket, Err(why));
            }
            Effect::CutLoan { loan } => desk.cut(loan),
            Effect::Prepare { .. }
            | Effect::StartStep { .. }
            | Effect::FollowStep { .. }
            | Effect::KillStep { .. }
            | Effect::Release { .. } => {}
        }
    }

    fn spawn(&mut self, gone: CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            tokio::select! {
                () = gone.cancelled() => {}
                () = work => {}
            }
        });
    }
}

async fn tell(shared: &Shared, attempt: AttemptId, event: runner::Input) {
    // The receiver is gone only when the coordinator stops.
    let _ = shared.inputs.send(Input::Attempt { attempt, event }).await;
}

async fn prepare(
    shared: &Shared,
    link: &Link,
    attempt: AttemptId,
    repo: &RepoName,
    commit: &GitHash,
    source_dir: &str,
    clean: bool,
) {
    let event = match prepared(shared, link, attempt, repo, commit, source_dir, clean).await {
        Ok(()) => runner::Input::Prepared,
        Err(event) => event,
    };
    tell(shared, attempt, event).await;
}

async fn prepared(
    shared: &Shared,
    link: &Link,
    attempt: AttemptId,
    repo: &RepoName,
    commit: &GitHash,
    source_dir: &str,
    clean: bool,
) -> Result<(), runner::Input> {
    let archive = shared.mirror.archive(repo, commit).await;
    let archive = archive.map_err(|why| runner::Input::PrepareFailed {
        cause: InfraCause::SourceUnavailable,
        detail: format!("{:#}", anyhow::Error::from(why)),
    })?;
    if !archive.notes.is_empty()
        && let Err(why) = shared.logs.note(attempt, &archive.notes.join("\n")).await
    {
        // They are told again by the next attempt, and the build does not depend on them.
        warn!("the notes on the source of {attempt}: {why}");
    }
    if !clean {
        link.client.remove_all(&["."]).await.map_err(prepare_failed)?;
    }
    link.client
        .put_tgz(source_dir, Upload::File(archive.path))
        .await
        .map_err(source_failed)
}

async fn start(shared: &Shared, link: &Link, step: StepId, plan: &StepPlan) {
    let (id, limit) = (step.to_string(), plan.timeout + WALL_SLACK);
    let plan = match with_secrets(shared, plan).await {
        Ok(plan) => plan,
        Err(why) => return lost(shared, step, why).await,
    };
    let answer = link.client.start_exec(&id, &exec_spec(&plan), Some(limit)).await;
    match after_start(answer.map(|_| ())) {
        Next::Follow | Next::FollowLater => follow(shared, link, step).await,
        // It was not even started; its log is there all the same, so that a log that is not there was lost.
        Next::Ended(state) => match Sink::open(shared, step).await {
            Ok(sink) => ended(shared, step, &sink, state).await,
            Err(why) => unwritable(shared, step, &why).await,
        },
        Next::Lost(why) => lost(shared, step, why).await,
    }
}

/// The step with the values of the secrets that its environment refers to; they are in no plan and no store.
async fn with_secrets(shared: &Shared, plan: &StepPlan) -> Result<StepPlan, String> {
    let env = shared.secrets.resolve(&plan.env).await?;
    Ok(StepPlan { env, ..plan.clone() })
}

/// Takes up the step's output where its stored log ends, and stays with it over lost connections, and over a disk
/// that takes no more: the machine keeps what could not be written.
async fn follow(shared: &Shared, link: &Link, step: StepId) {
    let mut unwritten: Option<Instant> = None;
    let mut pause = Duration::from_millis(100);
    // One for all tries: it holds back what may be the beginning of a secret.
    let mut sink = None;
    loop {
        match follow_once(shared, link, step, &mut sink).await {
            Followed::Done => return,
            Followed::Later { grown } => {
                (unwritten, pause) = (None, if grown { Duration::from_millis(100) } else { pause });
            }
            Followed::Unwritten { why, grown } => {
                warn!("log of step {step}: {why}");
                *shared.log_trouble.lock().expect("no holder panics") = Some(why.clone());
                let since = *unwritten.get_or_insert_with(Instant::now);
                if since.elapsed() >= UNWRITTEN_LIMIT {
                    let limit = UNWRITTEN_LIMIT.as_secs();
                    return lost(
                        shared,
                        step,
                        format!("its log could not be written for {limit} s: {why}"),
                    )
                    .await;
                }
                // Room came and went again.
                if grown {
                    (unwritten, pause) = (None, Duration::from_millis(100));
                }
                // Not the command is silent, we are deaf.
                let event = runner::Input::Output;
                tell(shared, step.attempt, event).await;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

enum Followed {
    /// What became of the step is told.
    Done,
    /// The machine cannot be reached.
    Later { grown: bool },
    /// The log takes no more, or is not to be opened. `grown`: it did take some.
    Unwritten { why: String, grown: bool },
}

async fn follow_once(shared: &Shared, link: &Link, step: StepId, kept: &mut Option<Sink>) -> Followed {
    let sink = match kept {
        Some(sink) => &*sink,
        None => match Sink::open(shared, step).await {
            Ok(sink) => kept.insert(sink),
            Err(why) => return Followed::Unwritten { why, grown: false },
        },
    };
    *sink.why.lock().expect("no holder panics") = None;
    let id = step.to_string();
    let mut offset = sink.offset().await;
    let before = sink.on_disk().await;
    loop {
        let following = link
            .client
            .follow_exec(&id, offset, |at, piece| sink.take(Some(at), piece));
        let answer = tokio::select! {
            answer = following => answer,
            why = sink.fault() => {
                let grown = sink.on_disk().await > before;
                return Followed::Unwritten { why, grown };
            }
        };
        match after_follow(answer.map(|end| end.state)) {
            Next::Ended(state) => {
                // Told again when it is asked for again: the machine remembers it.
                if let Err(why) = sink.finish().await {
                    let (why, grown) = (chain(&why), sink.on_disk().await > before);
                    return Followed::Unwritten { why, grown };
                }
                told(shared, step, state).await;
                return Followed::Done;
            }
            Next::Lost(why) => {
                lost(shared, step, why).await;
                return Followed::Done;
            }
            Next::Follow => offset = sink.offset().await,
            Next::FollowLater => {
                let grown = sink.on_disk().await > before;
                return Followed::Later { grown };
            }
        }
    }
}

/// Runs the step over one connection: all that Go's buildlets can do.
async fn attached(shared: &Shared, link: &Link, step: StepId, plan: &StepPlan, kill: CancellationToken) {
    let sink = match Sink::open(shared, step).await {
        Ok(sink) => sink,
        Err(why) => return unwritable(shared, step, &why).await,
    };
    let spec = match with_secrets(shared, plan).await {
        Ok(plan) => exec_spec(&plan),
        Err(why) => return lost(shared, step, why).await,
    };
    let run = link.client.exec(&spec, |piece| sink.take(None, piece));
    let answer = tokio::select! {
        answer = run => answer,
        // What it prints from here on is kept nowhere; with its connection it ends.
        why = sink.fault() => {
            *shared.log_trouble.lock().expect("no holder panics") = Some(why.clone());
            return lost(shared, step, format!("its log cannot be written: {why}")).await;
        }
        () = kill.cancelled() => Ok(ProcessState::Failed("killed with its connection".to_owned())),
    };
    match after_exec(answer) {
        Ok(state) => ended(shared, step, &sink, state).await,
        Err(why) => lost(shared, step, why).await,
    }
}

/// The end of a step is told only once all it printed is on disk.
async fn ended(shared: &Shared, step: StepId, sink: &Sink, state: ProcessState) {
    match sink.finish().await {
        Ok(()) => {
            *shared.log_trouble.lock().expect("no holder panics") = None;
            told(shared, step, state).await;
        }
        Err(why) => unwritable(shared, step, &chain(&why)).await,
    }
}

async fn unwritable(shared: &Shared, step: StepId, why: &str) {
    *shared.log_trouble.lock().expect("no holder panics") = Some(why.to_owned());
    lost(shared, step, format!("its log cannot be written: {why}")).await;
}

async fn told(shared: &Shared, step: StepId, state: ProcessState) {
    let event = runner::Input::StepEnded {
        index: step.index,
        ok: state.is_ok(),
        state: state.to_string(),
    };
    tell(shared, step.attempt, event).await;
}

async fn lost(shared: &Shared, step: StepId, detail: String) {
    tell(
        shared,
        step.attempt,
        runner::Input::StepLost {
            index: step.index,
            detail,
        },
    )
    .await;
}

async fn release(shared: &Shared, link: &Link, machine: MachineId, halt: bool, clean: &AtomicBool) {
    let mut pause = Duration::from_secs(1);
    // Halted, it ends itself and comes back clean, one build for one registration: the pool says so.
    while let Err(why) = cleaned(link, halt).await {
        warn!(
            "machine {machine} cannot be cleaned, trying again: {:#}",
            anyhow::Error::from(why)
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
    }
    if !halt {
        clean.store(true, Ordering::Release);
        let _ = shared.inputs.send(Input::MachineFree { machine }).await;
    }
}

async fn cleaned(link: &Link, halt: bool) -> Result<(), CallError> {
    if halt {
        link.client.halt().await
    } else {
        clean(link).await
    }
}

/// Ends what runs on the machine, lets it forget what has ended, then removes what is there.
async fn clean(link: &Link) -> Result<(), CallError> {
    if link.resumable {
        for exec in link.client.list_execs().await? {
            link.client.kill_exec(&exec.id).await?;
        }
    }
    link.client.remove_all(&["."]).await
}

/// Where a step's output goes: its log, and a sign of life to the core.
struct Sink {
    log: Mutex<Written>,
    alive: std::sync::Mutex<Option<Instant>>,
    inputs: mpsc::Sender<Input>,
    step: StepId,
    fault: Notify,
    /// Why a piece could not be written. None is taken after it: a log has no hole that nobody knows of.
    why: std::sync::Mutex<Option<String>>,
}

/// A log, and what is kept out of it.
struct Written {
    log: LogWriter,
    /// `None`: the farm has no secrets.
    mask: Option<Mask>,
    /// Came out of the mask and could not be written yet.
    pending: Vec<u8>,
}

impl Written {
    /// Where the stream goes on, for who brings it.
    fn offset(&self) -> u64 {
        let held = self.mask.as_ref().map_or(0, Mask::held);
        self.log.stream_offset() + self.pending.len() as u64 + held
    }

    async fn append(&mut self, piece: &[u8]) -> Result<(), LogError> {
        if self.mask.is_none() {
            return self.log.append(piece).await;
        }
        // A piece that comes on top of what cannot be written is not taken: it is asked for again, or is a gap.
        self.write_pending().await?;
        if let Some(mask) = &mut self.mask {
            self.pending = mask.feed(piece);
        }
        self.write_pending().await
    }

    /// Writes what the mask holds back: nothing more comes, or not what would follow.
    async fn release(&mut self) -> Result<(), LogError> {
        if let Some(mask) = &mut self.mask {
            self.pending.extend(mask.finish());
        }
        self.write_pending().await
    }

    async fn write_pending(&mut self) -> Result<(), LogError> {
        let before = self.log.stream_offset();
        let done = self.log.append(&self.pending).await;
        let taken = usize::try_from(self.log.stream_offset() - before).unwrap_or(usize::MAX);
        self.pending.drain(..taken.min(self.pending.len()));
        done
    }
}

impl Sink {
    async fn open(shared: &Shared, step: StepId) -> Result<Sink, String> {
        let secrets = shared.secrets.to_hide().await?;
        let log = shared.logs.writer(step, shared.max_log).await;
        let log = log.map_err(|why| chain(&why))?;
        let mask = (!secrets.is_empty()).then(|| Mask::new(secrets));
        let log = Written {
            log,
            mask,
            pending: Vec::new(),
        };
        let (alive, inputs) = (std::sync::Mutex::new(None), shared.inputs.clone());
        Ok(Sink {
            log: Mutex::new(log),
            alive,
            inputs,
            step,
            fault: Notify::new(),
            why: std::sync::Mutex::default(),
        })
    }

    /// Waits until a piece could not be written.
    async fn fault(&self) -> String {
        loop {
            let waiting = self.fault.notified();
            if let Some(why) = self.why.lock().expect("no holder panics").clone() {
                return why;
            }
            waiting.await;
        }
    }

    async fn offset(&self) -> u64 {
        self.log.lock().await.offset()
    }

    async fn on_disk(&self) -> u64 {
        self.log.lock().await.log.stream_offset()
    }

    async fn finish(&self) -> Result<(), LogError> {
        let mut written = self.log.lock().await;
        written.release().await?;
        written.log.finish().await
    }

    /// Does not return when the piece could not be written: whoever reads on would make a hole.
    async fn take(&self, at: Option<u64>, piece: bytes::Bytes) {
        let written = {
            let mut log = self.log.lock().await;
            let have = log.offset();
            let place = runner::place(have, at.unwrap_or(have), piece.len());
            let written = match place.gap_to {
                Some(to) => match log.release().await {
                    Ok(()) => log.log.gap(to).await,
                    Err(why) => Err(why),
                },
                None => Ok(()),
            };
            match written {
                Ok(()) => log.append(&piece[place.skip..]).await,
                Err(why) => Err(why),
            }
        };
        if let Err(why) = written {
            *self.why.lock().expect("no holder panics") = Some(chain(&why));
            self.fault.notify_waiters();
            return std::future::pending().await;
        }
        let now = Instant::now();
        let due = {
            let mut last = self.alive.lock().expect("no holder panics");
            let due = last.is_none_or(|last| now >= last + ALIVE_EVERY);
            if due {
                *last = Some(now);
            }
            due
        };
        if due {
            let event = runner::Input::Output;
            let _ = self
                .inputs
                .send(Input::Attempt {
                    attempt: self.step.attempt,
                    event,
                })
                .await;
        }
    }
}

/// Machines that dial in, are cut off and may return, with their commands. What waits for one waits in vain once its
/// buildlet was started anew: the new process has another name, and does not know the commands.
#[derive(Default)]
struct Away(BTreeMap<MachineId, (tokio::time::Instant, HostType)>);

impl Away {
    fn left(&mut self, now: tokio::time::Instant, machine: &MachineId, host_type: HostType) {
        self.0.insert(machine.clone(), (now, host_type));
    }

    /// The machine that is no more since this one came: the only one away of its host name, unless this one was known
    /// before. Of several nobody can tell which it was.
    fn replaced_by(
        &mut self,
        now: tokio::time::Instant,
        machine: &MachineId,
        host_type: &HostType,
        known: bool,
    ) -> Option<MachineId> {
        self.0.retain(|_, (since, _)| now < *since + runner::REATTACH);
        if self.0.remove(machine).is_some() || known {
            return None;
        }
        let host = host_name(machine)?;
        let alike =
            |away: &(&MachineId, &(_, HostType))| host_name(away.0) == Some(host) && away.1.1 == *host_type;
        let mut of_it = self.0.iter().filter(alike).map(|(machine, _)| machine);
        let (Some(only), None) = (of_it.next().cloned(), of_it.next()) else {
            return None;
        };
        self.0.remove(&only);
        Some(only)
    }
}

/// `mac7` of `mac7.4f2a91c0` and `mac7.4f2a91c0.2`, as the reverse pool names one of ours.
fn host_name(machine: &MachineId) -> Option<&str> {
    let name = machine.as_str();
    let is_number = |text: &str| text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = match name.rsplit_once('.') {
        Some((name, number)) if is_number(number) => name,
        _ => name,
    };
    let (host, instance) = name.rsplit_once('.')?;
    let is_instance = instance.len() == 8 && instance.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_instance.then_some(host)
}

/// An error with its cause.
fn chain(why: &LogError) -> String {
    format!("{why}: {}", why.source)
}

/// Turns what pools say into the core's inputs and the drivers' links. Ends when every pool has.
pub async fn take_pool_events(
    mut events: mpsc::Receiver<PoolEvent>,
    links: Links,
    inputs: mpsc::Sender<Input>,
) {
    let mut open: BTreeMap<MachineId, (Link, HostType)> = BTreeMap::new();
    let mut away = Away::default();
    while let Some(event) = events.recv().await {
        let input = match event {
            PoolEvent::Up {
                machine,
                host_type,
                client,
                status,
                pool,
                address,
                resumable,
                generation,
            } => {
                let link = Link {
                    client,
                    resumable,
                    limits: status.limits(),
                    generation,
                    gone: CancellationToken::new(),
                };
                links
                    .lock()
                    .expect("no holder panics")
                    .entry(machine.clone())
                    .or_default()
                    .push_back(link.clone());
                let now = tokio::time::Instant::now();
                let again = open.insert(machine.clone(), (link, host_type.clone()));
                if let Some(old) = away.replaced_by(now, &machine, &host_type, again.is_some()) {
                    let why = format!("its buildlet ended; another process of it came as {machine}");
                    let down = Input::MachineDown {
                        machine: old,
                        why,
                        may_return: false,
                    };
                    let _ = inputs.send(down).await;
                }
                if let Some((old, _)) = again {
                    old.gone.cancel();
                    let why = "it registered anew".to_owned();
                    let down = Input::MachineDown {
                        machine: machine.clone(),
                        why,
                        may_return: resumable,
                    };
                    let _ = inputs.send(down).await;
                }
                let cannot = status.cannot();
                if !cannot.is_empty() {
                    info!(machine.id = %machine, "machine {machine} cannot keep commands within limits of: {cannot}");
                }
                let facts = farm::MachineFacts {
                    pool: pool.to_owned(),
                    version: status.version,
                    software: status
                        .burrow
                        .map(|version| format!("burrow {version}"))
                        .unwrap_or_default(),
                    address,
                    resumable,
                };
                Input::MachineUp {
                    machine,
                    host_type,
                    facts,
                }
            }
            PoolEvent::Down {
                machine,
                why,
                may_return,
                generation,
            } => {
                match open.get(&machine) {
                    Some((link, host_type)) if link.generation == generation => {
                        link.gone.cancel();
                        if may_return {
                            away.left(tokio::time::Instant::now(), &machine, host_type.clone());
                        }
                        open.remove(&machine);
                    }
                    // Known from an earlier coordinator alone, and gone for good.
                    None if !may_return => {}
                    _ => continue,
                }
                Input::MachineDown {
                    machine,
                    why,
                    may_return,
                }
            }
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buildlet_that_was_started_anew_is_known_by_its_host_if_one_of_it_is_away() {
        let id = |name: &str| MachineId::parse(name).expect("a name");
        let now = tokio::time::Instant::now();
        let came = |left: &[&str], machine: &str, known: bool, secs: u64| {
            let mut away = Away::default();
            let kind = |name: &str| HostType::parse(name).expect("a host type");
            left.iter()
                .for_each(|name| away.left(now, &id(name), kind("mac")));
            let at = now + Duration::from_secs(secs);
            assert_eq!(
                away.replaced_by(at, &id("mac7.0000beef"), &kind("ios"), false),
                None
            );
            let old = away.replaced_by(at, &id(machine), &kind("mac"), known);
            old.map(|old| old.to_string())
        };
        let old = Some("mac7.4f2a91c0".to_owned());
        assert_eq!(came(&["mac7.4f2a91c0"], "mac7.00000001", false, 9), old);
        assert_eq!(
            came(&["mac7.4f2a91c0", "mac8.4f2a91c1"], "mac7.00000001.2", false, 9),
            old
        );
        // It is the same one, or was there all the time, or another host, or two are away, or it was given up.
        assert_eq!(came(&["mac7.4f2a91c0"], "mac7.4f2a91c0", false, 9), None);
        assert_eq!(came(&["mac7.4f2a91c0"], "mac7.00000001", true, 9), None);
        assert_eq!(came(&["mac7.4f2a91c0"], "mac8.00000001", false, 9), None);
        assert_eq!(
            came(&["mac7.4f2a91c0", "mac7.4f2a91c1"], "mac7.00000001", false, 9),
            None
        );
        assert_eq!(came(&["mac7.4f2a91c0"], "mac7.00000001", false, 301), None);
        // Go's have no instance, and machines of our own pools no host name.
        assert_eq!(came(&["mac7"], "mac7.2", false, 9), None);
        assert_eq!(came(&["local-1"], "local-2", false, 9), None);
    }
}
