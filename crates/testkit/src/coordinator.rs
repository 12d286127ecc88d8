//! The coordinator of a simulated farm: the real cores, with shells that do in virtual time what
//! `coordinator` and the pools do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use farm::{Effect, Farm, Input, MachineFacts, Write, first_of_each};
use ids::{AttemptId, MachineId, StepId};
use revdial::v2::{self, Dialer, DialerId, DialerLimits, Listener, ListenerEvent, Nonce};
use runner::{InfraCause, place};

use crate::decided::{Decided, Told};
use crate::fault::Fault;
use crate::host::{Kind, ORPHAN, byte};
use crate::model::{Violation, broken};
use crate::script::Moment;
use crate::world::{Event, Log, Wish, World};

/// For the head of an answer of a machine.
const HEAD_LIMIT: u64 = 20_000;

/// A machine that hears nothing for so long gives up its session.
const LISTENER_PATIENCE: Duration = Duration::from_secs(100);

pub(crate) struct Coordinator {
    farm: Farm,
    born: Duration,
    inbox: Vec<Input>,
    /// The engine is about to take the inbox.
    due: bool,
    wishes_due: bool,
    /// What the store does not take; whether it took it without saying so.
    stuck: Option<(Vec<Write>, Vec<Aimed>, bool)>,
    /// Links that came up and of which the core has not been told, and those it knows, by generation.
    links_new: BTreeMap<usize, VecDeque<u32>>,
    links: BTreeMap<usize, u32>,
    dialer: Dialer,
    sessions: BTreeMap<usize, Session>,
    calls: BTreeMap<u64, Call>,
    /// Machines on which an attempt has been since they came up.
    used: BTreeSet<usize>,
    /// What it has decided so far, written or not.
    decided: Decided,
    /// It is killed around its next write.
    pub dies: Option<(Moment, Duration)>,
}

/// An effect with the link of its machine that the core knew of when it decided.
#[derive(Clone)]
struct Aimed {
    n: usize,
    generation: u32,
    effect: Effect,
}

struct Session {
    number: u64,
    net: u32,
    /// The machine's side.
    listener: Listener,
    heard: Duration,
}

struct Call {
    n: usize,
    request: Request,
    /// A connection is there for it.
    sent: bool,
    answered: bool,
    /// Of a follower: how far it has written the log.
    have: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Status,
    Prepare(AttemptId),
    Start(StepId),
    /// Start it, and stay: all that Go's buildlets can do.
    Exec(StepId),
    Follow {
        step: StepId,
        offset: u64,
    },
    Kill(StepId),
    Clean,
    Halt,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Status,
    Prepared(Option<InfraCause>),
    Started,
    Refused,
    Unknown,
    Piece {
        at: u64,
        bytes: Vec<u8>,
    },
    End {
        ok: bool,
    },
    /// The connection ends before the answer does.
    Gone,
    Cleaned,
}

fn dialer_id(number: u64, n: usize) -> DialerId {
    DialerId(((u128::from(number) << 64) + n as u128).to_be_bytes())
}

fn nonce(call: u64) -> Nonce {
    Nonce(u128::from(call).to_be_bytes())
}

fn call_of(nonce: Nonce) -> u64 {
    u128::from_be_bytes(nonce.0) as u64
}

// Life and death of the coordinator, its engine and its store.
impl World<'_> {
    pub fn start(&mut self) -> Result<(), Violation> {
        if self.coordinator.is_some() {
            return Ok(());
        }
        if self.mono < self.store_away_until {
            self.push(
                self.store_away_until + Duration::from_secs(1),
                Event::CoordinatorStarts,
            );
            return Ok(());
        }
        self.note(|| "the coordinator starts".to_owned());
        let mut restored = self.store.restored();
        match self.fault {
            Some(Fault::ForgetNumbers) => restored.last_build = 0,
            Some(Fault::ForgetWaiting) => restored.builds.retain(|build| build.running.is_some()),
            Some(Fault::ForgetLoans) => restored.loans.clear(),
            Some(Fault::ForgetLeases) => restored.builds.iter_mut().for_each(|build| build.running = None),
            _ => {}
        }
        let decided = Decided::restored(&restored, self.config.clone());
        let (farm, step) = Farm::restore(self.now(self.mono), self.config.clone(), restored);
        self.coordinator = Some(Coordinator {
            farm,
            born: self.mono,
            inbox: Vec::new(),
            due: false,
            wishes_due: false,
            stuck: None,
            links_new: BTreeMap::new(),
            links: BTreeMap::new(),
            dialer: Dialer::new("/revdial", DialerLimits::default()),
            sessions: BTreeMap::new(),
            calls: BTreeMap::new(),
            used: BTreeSet::new(),
            decided,
            dies: None,
        });
        self.commit(step.writes, Vec::new())?;
        self.read_wishes();
        if self.mono < self.disk_low_until {
            let why = "the disk is nearly full".to_owned();
            self.input(Input::Paused { why });
        }
        for n in 0..self.hosts.len() {
            if self.hosts[n].kind == Kind::Local {
                let mut random = self.random(20, n);
                let after = if self.hosts[n].alive {
                    random.within(50, 500)
                } else {
                    random.within(500, 3_000)
                };
                self.later(after, Event::LocalUp { n, life: self.life });
            }
        }
        Ok(())
    }

    pub fn kill(&mut self, away: Duration) {
        if self.coordinator.take().is_none() {
            return;
        }
        self.note(|| "the coordinator is killed".to_owned());
        self.account.coordinator_kills += 1;
        self.life += 1;
        for n in 0..self.hosts.len() {
            self.out_of_reach(n);
            match self.hosts[n].kind {
                Kind::Local => {}
                Kind::Reverse => self.plan_registers(n),
                Kind::Go => self.go_ends(n),
            }
        }
        self.push(self.mono + away, Event::CoordinatorStarts);
    }

    pub fn input(&mut self, input: Input) {
        let after = self.random(21, 0).below(4);
        let life = self.life;
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        coordinator.inbox.push(input);
        if !std::mem::replace(&mut coordinator.due, true) {
            self.later(after, Event::Engine { life });
        }
    }

    pub fn read_wishes(&mut self) {
        if self.mono < self.store_away_until {
            return;
        }
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.wishes_due = true;
            self.input(Input::Tick);
        }
    }

    /// When a core of the coordinator wants to be asked.
    pub fn deadline(&self) -> Option<Duration> {
        let coordinator = self.coordinator.as_ref()?;
        let farm = if coordinator.stuck.is_none() {
            let due = coordinator.farm.next_deadline(self.now(coordinator.born));
            due.map(|at| at + coordinator.born)
        } else {
            None
        };
        let due = [farm, coordinator.dialer.next_deadline()]
            .into_iter()
            .flatten()
            .min();
        due.map(|at| at.max(self.mono + Duration::from_millis(1)))
    }

    pub fn tick(&mut self) -> Result<(), Violation> {
        let Some(coordinator) = &mut self.coordinator else {
            return Ok(());
        };
        let actions = coordinator.dialer.tick(self.mono);
        self.dialer_does(actions);
        self.input(Input::Tick);
        self.engine()
    }

    /// One turn of the loop: what has come in is decided, written and then done.
    pub fn engine(&mut self) -> Result<(), Violation> {
        let Some(coordinator) = &mut self.coordinator else {
            return Ok(());
        };
        coordinator.due = false;
        if coordinator.stuck.is_some() {
            return Ok(());
        }
        let (batch, look) = (
            std::mem::take(&mut coordinator.inbox),
            std::mem::take(&mut coordinator.wishes_due),
        );
        let mut open: Vec<(i64, Wish)> = Vec::new();
        if look {
            open.extend(self.wishes.iter().map(|(intent, wish)| (*intent, *wish)));
        }
        let about = |(_, wish): &(i64, Wish)| match wish {
            Wish::Cancel(build) | Wish::Retry(build) => *build,
        };
        while !open.is_empty() {
            let (first, rest) = match self.fault {
                Some(Fault::EveryWish) => (open, Vec::new()),
                _ => first_of_each(open, about),
            };
            let told = self.looked_up(first);
            self.turn(told)?;
            // Killed, or waiting for the store: what is open then is read again.
            let on = self.coordinator.as_ref();
            open = rest;
            open.retain(|_| on.is_some_and(|coordinator| coordinator.stuck.is_none()));
        }
        match &mut self.coordinator {
            Some(coordinator) if coordinator.stuck.is_some() => coordinator.inbox = batch,
            Some(_) => self.turn(batch)?,
            None => {}
        }
        Ok(())
    }

    fn turn(&mut self, batch: Vec<Input>) -> Result<(), Violation> {
        let (mut writes, mut effects) = (Vec::new(), Vec::new());
        for mut input in batch {
            if let Input::Wanted(wants) = &mut input
                && self.fault != Some(Fault::StaleWants)
            {
                wants.retain(|want| self.store.build_of(&want.commit, &want.builder).is_none());
            }
            if !matches!(
                &input,
                Input::Tick
                    | Input::Attempt {
                        event: runner::Input::Output,
                        ..
                    }
            ) {
                self.note(|| format!("{input:?}"));
            }
            let early = match &input {
                Input::Cancel { intent, .. } if self.fault == Some(Fault::AnswerCancelEarly) => Some(*intent),
                _ => None,
            };
            self.heed(&input);
            let now = self
                .coordinator
                .as_ref()
                .map(|coordinator| self.now(coordinator.born));
            let (Some(coordinator), Some(now)) = (&mut self.coordinator, now) else {
                return Ok(());
            };
            let input = match (self.fault, input) {
                (Some(Fault::AnyAttempt), Input::Attempt { attempt, event }) => {
                    let known = self
                        .store
                        .builds
                        .get(&attempt.build)
                        .map(|build| build.attempts.len());
                    let n = known.map_or(attempt.n, |known| known as u32);
                    Input::Attempt {
                        attempt: AttemptId { n, ..attempt },
                        event,
                    }
                }
                (_, input) => input,
            };
            let told = Told::of(&input);
            let step = coordinator.farm.handle(now, input);
            coordinator.decided.take(told, &step.writes)?;
            writes.extend(step.writes);
            effects.extend(self.aim(step.effects));
            let answers =
                |write: &Write, to| matches!(write, Write::IntentDone { intent, .. } if *intent == to);
            if let Some(intent) = early.filter(|intent| !writes.iter().any(|write| answers(write, *intent))) {
                let (at, answer) = (now.wall, "cancelling".to_owned());
                writes.push(Write::IntentDone { intent, at, answer });
            }
        }
        if let Some(coordinator) = &self.coordinator {
            effects.retain(|aimed| coordinator.farm.stands(&aimed.effect));
        }
        self.commit(writes, effects)
    }

    /// A machine that comes up has a new link from here on.
    fn heed(&mut self, input: &Input) {
        let (Input::MachineUp { machine, .. } | Input::MachineDown { machine, .. }) = input else {
            return;
        };
        let n = self.index(machine);
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.links.remove(&n);
            coordinator.used.remove(&n);
            if matches!(input, Input::MachineUp { .. }) {
                let link = coordinator.links_new.get_mut(&n).and_then(VecDeque::pop_front);
                coordinator.links.extend(link.map(|link| (n, link)));
            }
        }
    }

    fn aim(&self, effects: Vec<Effect>) -> Vec<Aimed> {
        let aim = |effect: Effect| {
            let machine = match &effect {
                Effect::Prepare { machine, .. }
                | Effect::StartStep { machine, .. }
                | Effect::FollowStep { machine, .. }
                | Effect::KillStep { machine, .. }
                | Effect::Release { machine } => machine,
                Effect::Lent { loan, .. } => &loan.machine,
                // Between the coordinator and whoever asked.
                Effect::NotLent { .. } | Effect::CutLoan { .. } => return None,
            };
            let n = self.index(machine);
            let generation = *self.coordinator.as_ref()?.links.get(&n)?;
            Some(Aimed {
                n,
                generation,
                effect,
            })
        };
        effects.into_iter().filter_map(aim).collect()
    }

    fn looked_up(&self, wishes: Vec<(i64, Wish)>) -> Vec<Input> {
        let Some(coordinator) = &self.coordinator else {
            return Vec::new();
        };
        let by = || "ann".to_owned();
        let one = |(intent, wish): (i64, Wish)| match wish {
            Wish::Cancel(build) => Input::Cancel {
                intent,
                build,
                by: by(),
            },
            Wish::Retry(build) => {
                let known = coordinator.farm.has(build);
                let finished = if known {
                    None
                } else {
                    self.store.restored_build(build)
                };
                Input::Retry {
                    intent,
                    build,
                    by: by(),
                    finished,
                }
            }
        };
        wishes.into_iter().map(one).collect()
    }

    /// Commits, then acts; or is killed before, between or after, or waits for the store.
    fn commit(&mut self, writes: Vec<Write>, mut effects: Vec<Aimed>) -> Result<(), Violation> {
        let Some(coordinator) = &mut self.coordinator else {
            return Ok(());
        };
        let dies = coordinator.dies.take_if(|_| !writes.is_empty());
        let dies_at = |moment| dies.filter(|(at, _)| *at == moment).map(|(_, away)| away);
        if self.fault == Some(Fault::EffectsFirst) {
            self.perform(std::mem::take(&mut effects))?;
        }
        if let Some(away) = dies_at(Moment::BeforeCommit) {
            self.kill(away);
            return Ok(());
        }
        if !writes.is_empty() && self.mono < self.store_away_until {
            let taken = std::mem::take(&mut self.store_takes);
            if taken {
                self.apply(&writes)?;
            }
            self.note(|| format!("the store does not answer; the write is taken: {taken}"));
            if let Some(coordinator) = &mut self.coordinator {
                coordinator.stuck = Some((writes, effects, taken));
            }
            return Ok(());
        }
        self.apply(&writes)?;
        if let Some(away) = dies_at(Moment::AfterCommit) {
            self.kill(away);
            return Ok(());
        }
        self.perform(effects)?;
        if let Some(away) = dies_at(Moment::AfterEffects) {
            self.kill(away);
        }
        Ok(())
    }

    pub fn store_back(&mut self) -> Result<(), Violation> {
        if self.mono < self.store_away_until {
            return Ok(());
        }
        let Some((writes, effects, taken)) = self
            .coordinator
            .as_mut()
            .and_then(|coordinator| coordinator.stuck.take())
        else {
            return Ok(());
        };
        let repeats = |write: &Write| matches!(write, Write::MachineUp { .. } | Write::MachineDown { .. });
        if taken && !writes.iter().all(repeats) {
            // Tried again, the store refuses what it has taken: the coordinator ends and is started anew.
            self.kill(Duration::from_secs(2));
            return Ok(());
        }
        if !taken {
            self.apply(&writes)?;
        }
        self.perform(effects)?;
        self.read_wishes();
        self.engine()
    }
}

// What the core wants done, and what the machines answer.
impl World<'_> {
    fn perform(&mut self, effects: Vec<Aimed>) -> Result<(), Violation> {
        for aimed in effects {
            self.note(|| format!("  {:?}", aimed.effect));
            self.perform_one(aimed)?;
        }
        Ok(())
    }

    fn perform_one(
        &mut self,
        Aimed {
            n,
            generation,
            effect,
        }: Aimed,
    ) -> Result<(), Violation> {
        let same = self.hosts[n].generation == generation || self.fault == Some(Fault::AnyLink);
        if !self.hosts[n].up || !same {
            return Ok(());
        }
        match effect {
            Effect::Prepare { attempt, .. } => {
                if self.store.running(attempt).is_none() {
                    return broken(format!(
                        "attempt {attempt} is prepared before its start is written"
                    ));
                }
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.used.insert(n);
                }
                self.call(n, Request::Prepare(attempt));
            }
            Effect::StartStep { step, .. } => {
                let attempt = self.store.running(step.attempt);
                if attempt.is_none_or(|attempt| attempt.steps.len() != step.index as usize + 1) {
                    return broken(format!("step {step} is started before its start is written"));
                }
                let resumable = self.hosts[n].resumable();
                self.call(
                    n,
                    if resumable {
                        Request::Start(step)
                    } else {
                        Request::Exec(step)
                    },
                );
            }
            Effect::FollowStep { step, .. } if self.fault == Some(Fault::StartForFollow) => {
                self.call(n, Request::Start(step));
            }
            Effect::FollowStep { step, .. } => self.call(n, Request::Follow { step, offset: 0 }),
            Effect::KillStep { step, .. } if self.hosts[n].resumable() => self.call(n, Request::Kill(step)),
            Effect::KillStep { step, .. } => self.kill_attached(n, step),
            Effect::Lent { loan, .. } => {
                if !self.store.all_loans.contains(&loan.loan) {
                    return broken(format!("{} was lent before it was written", loan.name));
                }
                self.account.loans += 1;
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.used.insert(n);
                }
            }
            Effect::NotLent { .. } | Effect::CutLoan { .. } => {}
            Effect::Release { .. } => {
                let used = self
                    .coordinator
                    .as_mut()
                    .is_some_and(|coordinator| coordinator.used.remove(&n));
                let halt = used && !self.hosts[n].resumable();
                if self.fault != Some(Fault::ForgetFree) || self.random(22, n).chance(50) {
                    self.call(n, if halt { Request::Halt } else { Request::Clean });
                }
            }
        }
        Ok(())
    }

    fn index(&self, machine: &MachineId) -> usize {
        let place = self.hosts.iter().position(|host| &host.id == machine);
        place.expect("the cores know only machines of this world")
    }

    /// Its connection is closed, which ends it; what it had printed by then is all there is.
    fn kill_attached(&mut self, n: usize, step: StepId) {
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        let before = coordinator.calls.len();
        coordinator
            .calls
            .retain(|_, call| call.request != Request::Exec(step));
        if coordinator.calls.len() == before {
            return;
        }
        self.hosts[n].commands.remove(&step);
        let log = self.log(step);
        log.synced = log.bytes.len();
        let printed = log.bytes.len() as u64;
        self.ended.insert(step, (false, printed));
        self.step_ended(step, false, "killed with its connection");
    }

    fn step_ended(&mut self, step: StepId, ok: bool, state: &str) {
        let (index, state) = (step.index, state.to_owned());
        let event = runner::Input::StepEnded { index, ok, state };
        self.attempt(step.attempt, event);
    }

    fn step_lost(&mut self, step: StepId, detail: &str) {
        let (index, detail) = (step.index, detail.to_owned());
        self.attempt(step.attempt, runner::Input::StepLost { index, detail });
    }

    fn attempt(&mut self, attempt: AttemptId, event: runner::Input) {
        self.input(Input::Attempt { attempt, event });
    }

    /// Asks a machine for something, over a connection of its own.
    pub fn call(&mut self, n: usize, mut request: Request) {
        let mut have = 0;
        if let Request::Follow { step, offset } = &mut request {
            have = self.logs.get(step).map_or(0, |log| log.bytes.len() as u64);
            *offset = match self.fault {
                Some(Fault::OffsetOneLess) => have.saturating_sub(1),
                Some(Fault::OffsetOneMore) if have > 0 => have + 1,
                _ => have,
            };
        }
        let id = self.number();
        let (life, now) = (self.life, self.mono);
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        let call = Call {
            n,
            request,
            sent: false,
            answered: false,
            have,
        };
        coordinator.calls.insert(id, call);
        if self.hosts[n].kind == Kind::Local {
            self.send(n, id);
        } else {
            let session = coordinator
                .sessions
                .get(&n)
                .map(|session| dialer_id(session.number, n));
            match session.map(|session| coordinator.dialer.dial(now, session, nonce(id))) {
                Some(Ok(actions)) => self.dialer_does(actions),
                Some(Err(_)) | None => return self.call_failed(id),
            }
        }
        let answers_soon = matches!(
            request,
            Request::Status | Request::Start(_) | Request::Follow { .. } | Request::Kill(_)
        );
        if answers_soon {
            self.later(HEAD_LIMIT, Event::Deadline { life, call: id });
        }
    }

    /// A connection is there: the request goes out on it.
    fn send(&mut self, n: usize, id: u64) {
        let (life, net) = (self.life, self.hosts[n].net);
        let at = self.arrives(n, true);
        let Some(call) = self
            .coordinator
            .as_mut()
            .and_then(|coordinator| coordinator.calls.get_mut(&id))
        else {
            return;
        };
        call.sent = true;
        let request = call.request;
        self.push(
            at,
            Event::Request {
                n,
                net,
                life,
                call: id,
                request,
            },
        );
    }

    /// When bytes sent now to a machine, or by it, arrive: none overtakes another.
    fn arrives(&mut self, n: usize, inwards: bool) -> Duration {
        let late = Duration::from_micros(self.random(23, n).within(300, 40_000));
        let host = &mut self.hosts[n];
        let last = if inwards {
            &mut host.last_in
        } else {
            &mut host.last_out
        };
        *last = (self.mono + late).max(*last);
        *last
    }

    pub fn deadline_of(&mut self, id: u64) {
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        if coordinator.calls.get(&id).is_some_and(|call| !call.answered) {
            coordinator.dialer.forget(nonce(id));
            self.call_failed(id);
        }
    }

    fn call_failed(&mut self, id: u64) {
        let Some(call) = self
            .coordinator
            .as_mut()
            .and_then(|coordinator| coordinator.calls.remove(&id))
        else {
            return;
        };
        let n = call.n;
        let mut random = self.random(24, n);
        let (life, generation, request) = (self.life, self.hosts[n].generation, call.request);
        let again = Event::Again {
            n,
            life,
            generation,
            request,
        };
        match call.request {
            Request::Status => self.session_ends(n, "it did not answer `/status`"),
            Request::Prepare(attempt) => {
                let (cause, detail) = (InfraCause::MachineLost, "the connection broke".to_owned());
                self.attempt(attempt, runner::Input::PrepareFailed { cause, detail });
            }
            // Whether it started is not known; following tells.
            Request::Start(step) => self.call(n, Request::Follow { step, offset: 0 }),
            Request::Exec(step) => self.step_lost(step, "the connection broke"),
            Request::Follow { .. } => self.later(random.within(100, 5_000), again),
            Request::Clean | Request::Halt => self.later(random.within(1_000, 60_000), again),
            Request::Kill(_) => {}
        }
    }

    pub fn reply(&mut self, n: usize, id: u64, reply: Reply) -> Result<(), Violation> {
        let Some(coordinator) = &mut self.coordinator else {
            return Ok(());
        };
        let Some(call) = coordinator.calls.get_mut(&id) else {
            return Ok(());
        };
        call.answered = true;
        let request = call.request;
        match reply {
            Reply::Piece { at, bytes } => return self.piece(id, at, &bytes),
            Reply::Gone => {
                self.call_failed(id);
                return Ok(());
            }
            _ => coordinator.calls.remove(&id),
        };
        match (request, reply) {
            (Request::Status, _) => self.up(n),
            (Request::Prepare(attempt), Reply::Prepared(failed)) => {
                let event = match failed {
                    None => runner::Input::Prepared,
                    Some(cause) => runner::Input::PrepareFailed {
                        cause,
                        detail: "it could not be prepared".to_owned(),
                    },
                };
                self.attempt(attempt, event);
            }
            (Request::Start(step) | Request::Exec(step), Reply::Refused) => {
                self.step_ended(step, false, "could not be started: no such command");
            }
            (Request::Start(step), _) => self.call(n, Request::Follow { step, offset: 0 }),
            (Request::Follow { step, .. }, Reply::Unknown) => {
                self.step_lost(step, "the machine does not know the command any more");
            }
            (Request::Follow { step, .. } | Request::Exec(step), Reply::End { ok }) => {
                if self.fault != Some(Fault::EndBeforeSync) {
                    let log = self.log(step);
                    log.synced = log.bytes.len();
                }
                let ok = ok || self.fault == Some(Fault::AlwaysOk);
                self.step_ended(step, ok, if ok { "ok" } else { "exit status 1" });
            }
            (Request::Clean, _) => {
                let machine = self.hosts[n].id.clone();
                self.input(Input::MachineFree { machine });
            }
            (
                Request::Kill(_)
                | Request::Halt
                | Request::Prepare(_)
                | Request::Follow { .. }
                | Request::Exec(_),
                _,
            ) => {}
        }
        Ok(())
    }

    fn log(&mut self, step: StepId) -> &mut Log {
        self.logs.entry(step).or_insert(Log {
            bytes: Vec::new(),
            synced: 0,
        })
    }

    /// Output of a step comes in; it goes where the follower thinks that the log ends.
    fn piece(&mut self, id: u64, at: u64, bytes: &[u8]) -> Result<(), Violation> {
        let careless = self.fault == Some(Fault::OffsetOneLess);
        let Some(call) = self
            .coordinator
            .as_mut()
            .and_then(|coordinator| coordinator.calls.get_mut(&id))
        else {
            return Ok(());
        };
        let (Request::Follow { step, .. } | Request::Exec(step)) = call.request else {
            return Ok(());
        };
        let place = place(call.have, at, bytes.len());
        let fresh = &bytes[if careless { 0 } else { place.skip }..];
        call.have = place.gap_to.unwrap_or(call.have) + fresh.len() as u64;
        let log = self.log(step);
        for fresh in fresh {
            let end = log.bytes.len() as u64;
            if *fresh != byte(step, end) {
                return broken(format!(
                    "byte {end} of the log of step {step} is not what the step printed there"
                ));
            }
            log.bytes.push(*fresh);
        }
        self.attempt(step.attempt, runner::Input::Output);
        Ok(())
    }
}

// Sessions and the links of machines.
impl World<'_> {
    pub fn up(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        host.up = true;
        host.generation += 1;
        let facts = MachineFacts {
            resumable: host.resumable(),
            ..MachineFacts::default()
        };
        let (machine, host_type, generation) = (host.id.clone(), host.host_type.clone(), host.generation);
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.links_new.entry(n).or_default().push_back(generation);
        }
        self.input(Input::MachineUp {
            machine,
            host_type,
            facts,
        });
    }

    pub fn down(&mut self, n: usize, why: &str, may_return: bool) {
        let keep = self.fault == Some(Fault::TwoFollowers);
        if let Some(coordinator) = &mut self.coordinator {
            let stays = |call: &Call| call.n != n || (keep && matches!(call.request, Request::Follow { .. }));
            coordinator.calls.retain(|_, call| stays(call));
        }
        if self.hosts[n].up {
            self.out_of_reach(n);
            let (machine, why) = (self.hosts[n].id.clone(), why.to_owned());
            self.input(Input::MachineDown {
                machine,
                why,
                may_return,
            });
        }
    }

    fn out_of_reach(&mut self, n: usize) {
        if std::mem::take(&mut self.hosts[n].up) {
            self.hosts[n].orphan_since = self.mono;
            let boot = self.hosts[n].boot;
            self.push(self.mono + ORPHAN, Event::Orphan { n, boot });
        }
    }

    /// The coordinator has lost a machine that dialled in; the machine dials again.
    pub fn session_ends(&mut self, n: usize, why: &str) {
        if let Some(coordinator) = &mut self.coordinator
            && let Some(session) = coordinator.sessions.remove(&n)
        {
            let may_return = self.hosts[n].resumable();
            self.down(n, why, may_return);
            if let Some(coordinator) = &mut self.coordinator {
                // Nobody waits for its dials any more.
                coordinator.dialer.close(dialer_id(session.number, n));
            }
        }
        self.go_ends(n);
        self.plan_registers(n);
    }

    /// Go's buildlets end with their connection; whoever keeps them starts them anew.
    pub fn go_ends(&mut self, n: usize) {
        if self.hosts[n].kind == Kind::Go && self.hosts[n].alive {
            let mut random = self.random(25, n);
            let since = self.hosts[n].stalled_until.max(self.mono);
            self.hosts[n].end();
            let after = Duration::from_millis(random.within(5_000, 30_000));
            self.push(since + after, Event::HostReturns(n));
        }
    }

    fn plan_registers(&mut self, n: usize) {
        if self.hosts[n].kind != Kind::Local && !std::mem::replace(&mut self.hosts[n].dialling, true) {
            let after = self.random(26, n).within(200, 10_000);
            let at = self.hosts[n].stalled_until.max(self.mono) + Duration::from_millis(after);
            self.push(at, Event::Registers(n));
        }
    }

    pub fn registers(&mut self, n: usize) {
        self.hosts[n].dialling = false;
        if self.hosts[n].kind == Kind::Local || !self.hosts[n].reachable() {
            return;
        }
        let Some(coordinator) = &mut self.coordinator else {
            return self.plan_registers(n);
        };
        if self.hosts[n].stalled_until > self.mono {
            return self.plan_registers(n);
        }
        if let Some(session) = coordinator.sessions.get(&n) {
            if session.net == self.hosts[n].net {
                return;
            }
            let session = coordinator.sessions.remove(&n).expect("seen above");
            coordinator.dialer.close(dialer_id(session.number, n));
            let may_return = self.hosts[n].resumable();
            self.down(n, "it registered anew", may_return);
        }
        self.hosts[n].net += 1;
        let (number, heard) = (self.number(), self.mono);
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        let session = Session {
            number,
            net: self.hosts[n].net,
            listener: Listener::new(),
            heard,
        };
        coordinator.sessions.insert(n, session);
        let opened = coordinator.dialer.open(self.mono, dialer_id(number, n));
        let actions = opened.expect("few sessions, each with a number of its own");
        self.dialer_does(actions);
        self.call(n, Request::Status);
    }

    /// The pool has heard nothing from a machine for too long.
    pub fn given_up(&mut self, n: usize) -> Result<(), Violation> {
        let life = self.life;
        if self.coordinator.is_none() || !self.hosts[n].up {
            return Ok(());
        }
        self.note(|| format!("machine {n} does not answer and is given up"));
        if self.hosts[n].kind == Kind::Local {
            self.hosts[n].end();
            self.hosts[n].stalled_until = self.mono;
            self.down(n, "it does not answer", false);
            let after = self.random(27, n).within(1_000, 10_000);
            self.later(after, Event::LocalUp { n, life });
        } else {
            self.session_ends(n, "it does not answer");
        }
        Ok(())
    }

    /// The data connections of a machine are reset.
    pub fn connections_break(&mut self, n: usize) {
        self.hosts[n].net += 1;
        let net = self.hosts[n].net;
        if self.hosts[n].kind == Kind::Go {
            self.hosts[n].commands.clear();
        }
        let keep = self.fault == Some(Fault::TwoFollowers);
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        if let Some(session) = coordinator.sessions.get_mut(&n) {
            session.net = net;
        }
        let broken: Vec<u64> = coordinator
            .calls
            .iter()
            .filter(|(_, call)| call.n == n && call.sent)
            .map(|(id, _)| *id)
            .collect();
        for id in broken {
            let follows = |call: &Call| matches!(call.request, Request::Follow { .. });
            let call = self
                .coordinator
                .as_ref()
                .and_then(|coordinator| coordinator.calls.get(&id));
            match call.map(|call| (follows(call), call.request)) {
                Some((true, request)) if keep => self.call(n, request),
                _ => self.call_failed(id),
            }
        }
    }

    fn dialer_does(&mut self, actions: Vec<v2::Action>) {
        for action in actions {
            match action {
                v2::Action::Send { session, line } => {
                    let id = u128::from_be_bytes(session.0);
                    let (number, n) = ((id >> 64) as u64, id as u64 as usize);
                    let (first, second) = line.split_at(self.random(28, n).below(line.len() as u64) as usize);
                    for bytes in [first, second] {
                        let at = self.arrives(n, true);
                        let (session, bytes) = (number, bytes.to_vec());
                        self.push(at, Event::ControlIn { n, session, bytes });
                    }
                }
                v2::Action::Failed { dial, .. } => self.call_failed(call_of(dial)),
            }
        }
    }

    pub fn control_in(&mut self, n: usize, number: u64, bytes: Vec<u8>) -> Result<(), Violation> {
        let (mono, stalled) = (self.mono, self.hosts[n].stalled_until);
        let session = self
            .coordinator
            .as_mut()
            .and_then(|coordinator| coordinator.sessions.get_mut(&n));
        let Some(session) = session.filter(|session| session.number == number) else {
            return Ok(());
        };
        if stalled > mono {
            self.push(
                stalled,
                Event::ControlIn {
                    n,
                    session: number,
                    bytes,
                },
            );
            return Ok(());
        }
        let events = match session.listener.receive(&bytes) {
            Ok(events) => events,
            Err(why) => return broken(format!("a machine did not understand its coordinator: {why}")),
        };
        let net = session.net;
        for event in events {
            match event {
                ListenerEvent::KeepAlive => {
                    let session = self
                        .coordinator
                        .as_mut()
                        .and_then(|coordinator| coordinator.sessions.get_mut(&n));
                    let Some(session) = session else { continue };
                    let quiet = mono - session.heard.max(stalled);
                    session.heard = mono;
                    if quiet > LISTENER_PATIENCE {
                        return broken(format!(
                            "a machine heard nothing for {} s on a link that was whole",
                            quiet.as_secs()
                        ));
                    }
                }
                ListenerEvent::Dial { path } if self.random(29, n).chance(self.script.failed_dials) => {
                    let bytes = v2::pickup_failed_line(&path, "no route to host");
                    let at = self.arrives(n, false);
                    self.push(
                        at,
                        Event::ControlOut {
                            n,
                            session: number,
                            bytes,
                        },
                    );
                }
                ListenerEvent::Dial { path } => {
                    let after = self.random(30, n).within(1, 80);
                    self.later(after, Event::Pickup { n, net, path });
                }
            }
        }
        Ok(())
    }

    pub fn control_out(&mut self, n: usize, number: u64, bytes: Vec<u8>) -> Result<(), Violation> {
        let stalled = self.hosts[n].stalled_until;
        let Some(coordinator) = &mut self.coordinator else {
            return Ok(());
        };
        if coordinator
            .sessions
            .get(&n)
            .is_none_or(|session| session.number != number)
        {
            return Ok(());
        }
        if stalled > self.mono {
            self.push(
                stalled,
                Event::ControlOut {
                    n,
                    session: number,
                    bytes,
                },
            );
            return Ok(());
        }
        match coordinator.dialer.receive(dialer_id(number, n), &bytes) {
            Ok(actions) => self.dialer_does(actions),
            Err(why) => return broken(format!("the coordinator did not understand a machine: {why}")),
        }
        Ok(())
    }

    /// A connection that a machine has made comes in.
    pub fn pickup(&mut self, n: usize, net: u32, path: String) {
        let stalled = self.hosts[n].stalled_until;
        if stalled > self.mono {
            return self.push(stalled, Event::Pickup { n, net, path });
        }
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        if !self.hosts[n].reachable() || self.hosts[n].net != net {
            return;
        }
        let waits = coordinator
            .calls
            .iter()
            .find(|(_, call)| !call.sent)
            .map(|(id, _)| *id);
        // One that nobody waits for is closed.
        if let Ok(dial) = coordinator.dialer.pickup(&path) {
            let call = waits.filter(|_| self.fault == Some(Fault::AnyPickup));
            self.send(n, call.unwrap_or(call_of(dial)));
        }
    }
}

impl World<'_> {
    /// Sends an answer to the coordinator of `life`.
    pub fn answer(&mut self, n: usize, life: u32, call: u64, reply: Reply) {
        let (at, net) = (self.arrives(n, false), self.hosts[n].net);
        self.push(
            at,
            Event::Reply {
                n,
                net,
                life,
                call,
                reply,
            },
        );
    }
}
