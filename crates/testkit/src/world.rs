use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use config::{Builder, Config, Policy, Pool, Recipe, Repo, Run, StoreUrl};
use farm::{Want, Write};
use ids::{BuildId, BuilderName, GitHash, HostType, LoanId, MachineId, Now, RepoName, StepId, Timestamp};
use runner::Outcome;

use crate::coordinator::{Coordinator, Reply, Request};
use crate::fault::Fault;
use crate::host::{Host, Kind, ORPHAN};
use crate::model::{Model, Violation, broken};
use crate::script::{BUILDERS, Happening, Script, TROUBLE};
use crate::{Account, Random};

/// How often what should be built is compared with what is.
const LOOK: Duration = Duration::from_secs(15);

/// By then everything has come to rest, or never will.
const END: Duration = Duration::from_secs(14 * 60 * 60);

/// A machine that does not answer is given up after three heartbeats of 10 s and 20 s at most.
const GIVE_UP: Duration = Duration::from_secs(75);

pub(crate) enum Event {
    Happens(usize),
    CoordinatorStarts,
    StoreBack,
    DiskBack,
    Look,
    /// A person asks for something.
    Asked(Wish),
    /// The coordinator reads what people asked for.
    Wishes,
    Wanted {
        life: u32,
        wants: Vec<Want>,
    },
    Engine {
        life: u32,
    },
    HostReturns(usize),
    LinkReturns(usize),
    /// The local pool has seen that its child is gone, or has started it.
    LocalGone {
        n: usize,
        life: u32,
    },
    LocalUp {
        n: usize,
        life: u32,
    },
    Registers(usize),
    /// The pool has had no answer from it for long.
    GivenUp {
        n: usize,
        life: u32,
        generation: u32,
    },
    Orphan {
        n: usize,
        boot: u32,
    },
    /// Bytes of a control connection, to the machine and from it.
    ControlIn {
        n: usize,
        session: u64,
        bytes: Vec<u8>,
    },
    ControlOut {
        n: usize,
        session: u64,
        bytes: Vec<u8>,
    },
    Pickup {
        n: usize,
        net: u32,
        path: String,
    },
    Request {
        n: usize,
        net: u32,
        life: u32,
        call: u64,
        request: Request,
    },
    Reply {
        n: usize,
        net: u32,
        life: u32,
        call: u64,
        reply: Reply,
    },
    /// The machine looks whether a command has more to tell.
    Pump {
        n: usize,
        net: u32,
        life: u32,
        call: u64,
        step: StepId,
        at: u64,
    },
    Deadline {
        life: u32,
        call: u64,
    },
    Again {
        n: usize,
        life: u32,
        generation: u32,
        request: Request,
    },
}

pub(crate) struct Log {
    pub bytes: Vec<u8>,
    pub synced: usize,
}

#[derive(Clone, Copy)]
pub(crate) enum Wish {
    Retry(BuildId),
    Cancel(BuildId),
}

pub(crate) struct World<'a> {
    pub script: &'a Script,
    pub fault: Option<Fault>,
    /// Lines of what happened, if wanted.
    pub trace: Option<Vec<String>>,
    pub mono: Duration,
    /// What the wall clock is off by, in seconds.
    skew: i64,
    queue: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    settings: [(bool, Option<u32>); BUILDERS],
    pub config: Arc<Config>,
    /// The commits of the branch, oldest first.
    line: Vec<u64>,
    pub store: Model,
    pub store_away_until: Duration,
    /// The next write is taken though it is told that it was not.
    pub store_takes: bool,
    pub disk_low_until: Duration,
    pub logs: BTreeMap<StepId, Log>,
    /// Every command ever started.
    pub started: BTreeSet<StepId>,
    /// How each command ended by its machine's word: well or not, and how many bytes it printed.
    pub ended: BTreeMap<StepId, (bool, u64)>,
    /// Steps whose end is written as their machine told it.
    told: BTreeSet<StepId>,
    pub coordinator: Option<Coordinator>,
    /// Counts coordinators.
    pub life: u32,
    pub hosts: Vec<Host>,
    pub wishes: BTreeMap<i64, Wish>,
    wishes_made: i64,
    pub account: Account,
}

impl<'a> World<'a> {
    pub fn new(script: &'a Script, fault: Option<Fault>, traced: bool) -> World<'a> {
        let mut hosts = Vec::new();
        let kinds = [
            ("alpha", Kind::Local),
            ("beta", Kind::Reverse),
            ("gamma", Kind::Go),
        ];
        for ((host_type, kind), count) in kinds.into_iter().zip(script.machines) {
            hosts.extend((0..count).map(|n| Host {
                id: MachineId::parse(&format!("{host_type}-{n}")).expect("a machine name"),
                host_type: HostType::parse(host_type).expect("a host type"),
                kind,
                alive: true,
                boot: 0,
                commands: BTreeMap::new(),
                source: None,
                cut: false,
                net: 0,
                stalled_until: Duration::ZERO,
                up: false,
                generation: 0,
                orphan_since: Duration::ZERO,
                dialling: false,
                last_in: Duration::ZERO,
                last_out: Duration::ZERO,
            }));
        }
        let settings = [(true, None); BUILDERS];
        let mut world = World {
            script,
            fault,
            trace: traced.then(Vec::new),
            mono: Duration::ZERO,
            skew: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            settings,
            config: Arc::new(config(script.seed, &settings)),
            line: Vec::new(),
            store: Model::default(),
            store_away_until: Duration::ZERO,
            store_takes: false,
            disk_low_until: Duration::ZERO,
            logs: BTreeMap::new(),
            started: BTreeSet::new(),
            ended: BTreeMap::new(),
            told: BTreeSet::new(),
            coordinator: None,
            life: 0,
            hosts,
            wishes: BTreeMap::new(),
            wishes_made: 0,
            account: Account::default(),
        };
        world.push(Duration::ZERO, Event::CoordinatorStarts);
        world.push(LOOK, Event::Look);
        for n in 0..world.hosts.len() {
            if world.hosts[n].kind != Kind::Local {
                let after = world.random(1, n).within(100, 5_000);
                world.later(after, Event::Registers(n));
            }
        }
        for (n, (at, _)) in script.events.iter().enumerate() {
            world.push(*at, Event::Happens(n));
        }
        world
    }

    /// Randomness for what happens at present to `what`.
    pub fn random(&self, tag: u64, what: usize) -> Random {
        let now = self.mono.as_micros() as u64;
        Random::keyed(self.script.seed, &[tag, what as u64, now])
    }

    pub fn push(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    pub fn later(&mut self, millis: u64, event: Event) {
        self.push(self.mono + Duration::from_millis(millis), event);
    }

    pub fn number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    pub fn wall(&self) -> Timestamp {
        Timestamp::from_secs(1_700_000_000 + self.skew) + self.mono
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let text: String = text().chars().take(200).collect();
            trace.push(format!("{:>10.3}s  {text}", self.mono.as_secs_f64()));
        }
    }

    pub fn run(&mut self) -> Result<Account, Violation> {
        while self.mono < END {
            let next = self.queue.keys().next().map(|(at, _)| *at);
            let next = next.expect("the next look is planned");
            match self.deadline() {
                Some(due) if due < next => {
                    self.mono = due.max(self.mono);
                    self.tick()?;
                }
                _ => {
                    let ((at, _), event) = self.queue.pop_first().expect("there is a next one");
                    self.mono = self.mono.max(at);
                    let looked = matches!(event, Event::Look);
                    self.event(event)?;
                    if looked && self.mono > TROUBLE && self.at_rest() {
                        break;
                    }
                }
            }
        }
        self.final_account()
    }

    fn at_rest(&self) -> bool {
        self.coordinator.is_some()
            && self.wishes.is_empty()
            && self.store.loans.is_empty()
            && self.hosts.iter().all(|host| host.up)
            && self.wanted().iter().all(|want| self.is_built(want))
            && self.store.builds.values().all(|build| build.done.is_some())
    }

    fn is_built(&self, want: &Want) -> bool {
        self.store.build_of(&want.commit, &want.builder).is_some()
    }

    /// Every cell that should have a build.
    fn wanted(&self) -> Vec<Want> {
        let cell = |n: &u64, builder: &BuilderName| Want {
            repo: repo(),
            commit: commit(*n),
            commit_time: Timestamp::from_secs(1_700_000_000 + *n as i64),
            builder: builder.clone(),
        };
        let builders = || self.config.builders.keys();
        self.line
            .iter()
            .flat_map(|n| builders().map(move |builder| cell(n, builder)))
            .collect()
    }

    fn final_account(&mut self) -> Result<Account, Violation> {
        if let Some(want) = self.wanted().iter().find(|want| !self.is_built(want)) {
            return broken(format!(
                "commit {} on {} was never built",
                number(&want.commit),
                want.builder
            ));
        }
        if let Some((id, _)) = self.store.builds.iter().find(|(_, build)| build.done.is_none()) {
            return broken(format!("build {id} never ended"));
        }
        if let Some((machine, holder)) = self.store.leases.first_key_value() {
            return broken(format!("{holder:?} holds {machine} for ever"));
        }
        if let Some(wish) = self.wishes.keys().next() {
            return broken(format!("what a person asked for, {wish}, was never answered"));
        }
        for step in &self.told {
            let (printed, kept) = (self.ended[step].1, self.logs[step].bytes.len() as u64);
            if kept != printed {
                return broken(format!(
                    "step {step} printed {printed} bytes, of which {kept} are left"
                ));
            }
        }
        let mut account = self.account.clone();
        for (id, build) in &self.store.builds {
            account.builds += 1;
            account.attempts += build.attempts.len();
            match build.done {
                Some(Outcome::Passed) => account.passed += 1,
                Some(Outcome::Failed { .. }) => account.failed += 1,
                Some(Outcome::Infra { .. }) => account.infra += 1,
                Some(Outcome::Cancelled { .. }) => account.cancelled += 1,
                None => {}
            }
            if matches!(build.done, Some(Outcome::Passed)) && number(&build.commit) % 4 == 3 {
                return broken(format!("build {id} is shown as passed and failed"));
            }
        }
        account.log_bytes = self.logs.values().map(|log| log.bytes.len()).sum();
        Ok(account)
    }

    fn event(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Happens(n) => self.happens(self.script.events[n].1)?,
            Event::CoordinatorStarts => self.start()?,
            Event::StoreBack => self.store_back()?,
            Event::DiskBack => {
                if self.mono >= self.disk_low_until {
                    self.input(farm::Input::Resumed);
                }
            }
            Event::Look => {
                self.push(self.mono + LOOK, Event::Look);
                self.compare();
                if !self.wishes.is_empty() {
                    self.read_wishes();
                }
            }
            Event::Asked(wish) => self.ask(wish),
            Event::Wishes => self.read_wishes(),
            Event::Wanted { life, wants } => {
                if life == self.life {
                    self.input(farm::Input::Wanted(wants));
                }
            }
            Event::Engine { life } => {
                if life == self.life {
                    self.engine()?;
                }
            }
            Event::HostReturns(n) => {
                if !self.hosts[n].alive {
                    self.note(|| format!("machine {n} is back"));
                    self.hosts[n].alive = true;
                    self.event(Event::Registers(n))?;
                }
            }
            Event::LinkReturns(n) => {
                self.hosts[n].cut = false;
                self.event(Event::Registers(n))?;
            }
            Event::LocalGone { n, life } => {
                if life == self.life && self.coordinator.is_some() {
                    self.down(n, "its process is gone", false);
                    let after = self.random(2, n).within(1_000, 10_000);
                    self.later(after, Event::LocalUp { n, life });
                }
            }
            Event::LocalUp { n, life } => {
                let stalled = self.hosts[n].stalled_until;
                if life == self.life && self.coordinator.is_some() && !self.hosts[n].up {
                    if stalled > self.mono {
                        self.push(stalled, Event::LocalUp { n, life });
                    } else {
                        self.hosts[n].alive = true;
                        self.up(n);
                    }
                }
            }
            Event::Registers(n) => self.registers(n),
            Event::GivenUp { n, life, generation } => {
                if life == self.life
                    && self.hosts[n].generation == generation
                    && self.hosts[n].stalled_until > self.mono
                {
                    self.given_up(n)?;
                }
            }
            Event::Orphan { n, boot } => {
                let host = &self.hosts[n];
                if host.alive && host.boot == boot && !host.up && self.mono >= host.orphan_since + ORPHAN {
                    self.note(|| format!("machine {n} ends, an orphan"));
                    self.hosts[n].end();
                    if self.hosts[n].kind != Kind::Local {
                        self.later(10_000, Event::HostReturns(n));
                    }
                }
            }
            Event::ControlIn { n, session, bytes } => self.control_in(n, session, bytes)?,
            Event::ControlOut { n, session, bytes } => self.control_out(n, session, bytes)?,
            Event::Pickup { n, net, path } => self.pickup(n, net, path),
            Event::Request {
                n,
                net,
                life,
                call,
                request,
            } => {
                let stalled = self.hosts[n].stalled_until;
                if stalled > self.mono {
                    self.push(
                        stalled,
                        Event::Request {
                            n,
                            net,
                            life,
                            call,
                            request,
                        },
                    );
                } else if self.hosts[n].alive && self.hosts[n].net == net {
                    self.serve(n, life, call, request)?;
                }
            }
            Event::Reply {
                n,
                net,
                life,
                call,
                reply,
            } => {
                let stalled = self.hosts[n].stalled_until;
                if stalled > self.mono {
                    self.push(
                        stalled,
                        Event::Reply {
                            n,
                            net,
                            life,
                            call,
                            reply,
                        },
                    );
                } else if life == self.life && self.on_net(n, net) {
                    self.reply(n, call, reply)?;
                }
            }
            Event::Pump {
                n,
                net,
                life,
                call,
                step,
                at,
            } => {
                if life == self.life && self.on_net(n, net) {
                    self.pump(n, life, call, step, at);
                }
            }
            Event::Deadline { life, call } => {
                if life == self.life {
                    self.deadline_of(call);
                }
            }
            Event::Again {
                n,
                life,
                generation,
                request,
            } => {
                if life == self.life && self.hosts[n].up && self.hosts[n].generation == generation {
                    self.call(n, request);
                }
            }
        }
        Ok(())
    }

    /// Whether what was sent on connections of that time is on its way still.
    fn on_net(&self, n: usize, net: u32) -> bool {
        self.hosts[n].net == net || self.fault == Some(Fault::TwoFollowers)
    }

    fn happens(&mut self, what: Happening) -> Result<(), Violation> {
        self.note(|| format!("-- {what:?}"));
        match what {
            Happening::Commit(n) => {
                self.line.push(n);
                self.compare();
            }
            Happening::Rewind { off, commit } => {
                let keep = self.line.len().saturating_sub(off);
                self.line.truncate(keep);
                self.line.push(commit);
                self.compare();
            }
            Happening::Retry(which) => self.wish(which, Wish::Retry),
            Happening::Cancel(which) => self.wish(which, Wish::Cancel),
            Happening::Borrow(what) => self.borrow(what),
            Happening::Again { which, after, times } => self.again(which, after, times),
            Happening::Configure {
                builder,
                there,
                at_once,
            } => {
                self.settings[builder] = (there, at_once);
                self.config = Arc::new(config(self.script.seed, &self.settings));
                self.input(farm::Input::Configured(self.config.clone()));
                self.account.configurations += 1;
            }
            Happening::CoordinatorDies { at, away } => {
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.dies = Some((at, away));
                }
            }
            Happening::PowerFails { away } => {
                self.account.power_failures += 1;
                let seed = self.script.seed;
                for (step, log) in &mut self.logs {
                    let lost = log.bytes.len() - log.synced;
                    let mut random = Random::keyed(seed, &[3, step.attempt.build.0, u64::from(step.index)]);
                    let kept = log.synced + random.below(lost as u64 + 1) as usize;
                    log.bytes.truncate(kept);
                }
                for host in self.hosts.iter_mut().filter(|host| host.kind == Kind::Local) {
                    host.end();
                }
                self.kill(away);
            }
            Happening::MachineDies { machine: n, away } => {
                if !self.hosts[n].alive {
                    return Ok(());
                }
                self.account.machine_deaths += 1;
                let noticed = self.hosts[n].stalled_until <= self.mono;
                self.hosts[n].end();
                if self.hosts[n].kind == Kind::Local {
                    self.hosts[n].stalled_until = self.mono;
                    let after = self.random(4, n).below(1_000);
                    self.later(after, Event::LocalGone { n, life: self.life });
                } else {
                    if noticed {
                        self.session_ends(n, "its control connection was closed");
                    }
                    self.push(self.mono + away, Event::HostReturns(n));
                }
            }
            Happening::LinkCut { machine: n, away } => {
                if self.hosts[n].kind == Kind::Local || self.hosts[n].cut {
                    return Ok(());
                }
                self.account.link_cuts += 1;
                self.hosts[n].cut = true;
                self.hosts[n].net += 1;
                self.go_ends(n);
                self.session_ends(n, "its control connection broke");
                self.push(self.mono + away, Event::LinkReturns(n));
            }
            Happening::LinkStalls { machine: n, stalls } => {
                self.account.link_stalls += 1;
                let host = &mut self.hosts[n];
                host.stalled_until = host.stalled_until.max(self.mono + stalls);
                let (life, generation) = (self.life, host.generation);
                if stalls > GIVE_UP {
                    self.push(self.mono + GIVE_UP, Event::GivenUp { n, life, generation });
                }
            }
            Happening::ConnectionsBreak { machine: n } => {
                self.account.broken_connections += 1;
                self.connections_break(n);
            }
            Happening::ClockJumps { secs } => {
                self.skew += secs;
                self.account.clock_jumps += 1;
            }
            Happening::StoreAway { away, taken } => {
                self.account.store_refusals += 1;
                self.store_away_until = self.store_away_until.max(self.mono + away);
                self.store_takes = taken;
                self.push(self.store_away_until, Event::StoreBack);
            }
            Happening::DiskLow { low } => {
                self.disk_low_until = self.disk_low_until.max(self.mono + low);
                self.push(self.disk_low_until, Event::DiskBack);
                self.input(farm::Input::Paused {
                    why: "the disk is nearly full".to_owned(),
                });
            }
        }
        Ok(())
    }

    fn borrow(&mut self, what: u64) {
        let mut random = Random::keyed(what, &[7]);
        let loans: Vec<LoanId> = self.store.loans.keys().copied().collect();
        for loan in loans {
            match random.below(3) {
                0 => self.input(farm::Input::LoanUsed { loan }),
                1 => self.input(farm::Input::LoanReturned {
                    loan,
                    by: "ann".to_owned(),
                }),
                _ => {}
            }
        }
        let Some(builder) = self
            .config
            .builders
            .keys()
            .nth(random.below(BUILDERS as u64) as usize)
            .cloned()
        else {
            return;
        };
        let (ticket, owner) = (farm::Ticket(self.number()), format!("user-{}", random.below(2)));
        self.input(farm::Input::Borrow {
            ticket,
            owner,
            builder,
        });
        if random.chance(20) {
            self.input(farm::Input::Unask { ticket });
        }
    }

    fn again(&mut self, which: u64, after: Duration, times: u32) {
        let builds = &self.store.builds;
        let of: Vec<BuildId> = if which.is_multiple_of(2) {
            builds.keys().copied().collect()
        } else {
            let running = builds.iter().filter(|(_, build)| build.runs());
            running.map(|(id, _)| *id).collect()
        };
        let Some(&build) = which
            .checked_rem(of.len() as u64)
            .and_then(|nth| of.get(nth as usize))
        else {
            return;
        };
        for n in 0..times {
            self.push(self.mono + after * (2 * n), Event::Asked(Wish::Cancel(build)));
            self.push(self.mono + after * (2 * n + 1), Event::Asked(Wish::Retry(build)));
        }
    }

    fn wish(&mut self, which: u64, wish: impl FnOnce(BuildId) -> Wish) {
        let count = self.store.builds.len() as u64;
        let build = which
            .checked_rem(count)
            .and_then(|nth| self.store.builds.keys().nth(nth as usize));
        if let Some(&build) = build {
            self.ask(wish(build));
        }
    }

    fn ask(&mut self, wish: Wish) {
        self.wishes_made += 1;
        self.wishes.insert(self.wishes_made, wish);
        let after = self.random(5, 0).below(500);
        self.later(after, Event::Wishes);
    }

    /// What the coordinator's watch does again and again; now and then it takes long.
    fn compare(&mut self) {
        if self.coordinator.is_none() || self.mono < self.store_away_until {
            return;
        }
        let mut wants = self.wanted();
        wants.retain(|want| !self.is_built(want));
        if wants.is_empty() {
            return;
        }
        let mut random = self.random(6, 0);
        let after = if random.chance(5) {
            random.below(900_000)
        } else {
            random.below(20)
        };
        self.later(
            after,
            Event::Wanted {
                life: self.life,
                wants,
            },
        );
    }

    pub fn now(&self, born: Duration) -> Now {
        Now {
            mono: self.mono - born,
            wall: self.wall(),
        }
    }

    /// Commits what the coordinator wants written, and holds it against what the machines know.
    pub fn apply(&mut self, writes: &[Write]) -> Result<(), Violation> {
        let drop = |write: &Write| match self.fault {
            Some(Fault::DropBuildDone) => matches!(write, Write::BuildDone { .. }),
            Some(Fault::DropAttemptEnded) => matches!(write, Write::AttemptEnded { .. }),
            Some(Fault::DropStepStarted) => matches!(write, Write::StepStarted { .. }),
            Some(Fault::DropIntentDone) => matches!(write, Write::IntentDone { .. }),
            _ => false,
        };
        let mut kept: Vec<Write> = writes.iter().filter(|write| !drop(write)).cloned().collect();
        if self.fault == Some(Fault::CountNoTry) {
            for write in &mut kept {
                if let Write::BuildWaiting { tries_left, .. } = write {
                    *tries_left = farm::RETRIES;
                }
            }
        }
        self.store.apply(&kept)?;
        for write in &kept {
            match write {
                Write::StepEnded { step, ok, state, .. } => self.check_end(*step, *ok, state)?,
                Write::IntentDone { intent, answer, .. } => self.check_answer(*intent, answer, &kept)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A step's end is written: it is what the machine said, and the log holds all that the step printed.
    fn check_end(&mut self, step: StepId, ok: bool, state: &str) -> Result<(), Violation> {
        if state.starts_with("did not end") || state.starts_with("could not be started") {
            return Ok(());
        }
        let Some((truly, printed)) = self.ended.get(&step) else {
            return broken(format!("step {step} ended before its command did"));
        };
        if ok != *truly {
            return broken(format!(
                "step {step} ended with `{state}`, and its command did not"
            ));
        }
        let log = self.logs.get(&step).map_or(&[][..], |log| &log.bytes);
        if log.len() as u64 != *printed {
            return broken(format!(
                "step {step} printed {printed} bytes, and its log holds {} when its end is written",
                log.len()
            ));
        }
        if *printed > 0 {
            self.told.insert(step);
        }
        Ok(())
    }

    fn check_answer(&mut self, wish: i64, answer: &str, writes: &[Write]) -> Result<(), Violation> {
        match self.wishes.remove(&wish) {
            Some(Wish::Retry(_)) if answer.contains("no such build") => broken(format!(
                "a person was told that a build they see is not there (wish {wish})"
            )),
            Some(Wish::Cancel(build)) => {
                let again = |write: &Write| matches!(write, Write::BuildWaiting { build: other, .. } if *other == build);
                let ended = self.store.builds[&build].done.is_some();
                if ended || writes.iter().any(again) {
                    return Ok(());
                }
                broken(format!(
                    "build {build} goes on though it was told that it is cancelled"
                ))
            }
            Some(Wish::Retry(_)) | None => Ok(()),
        }
    }
}

pub(crate) fn repo() -> RepoName {
    RepoName::parse("widget").expect("a repository name")
}

fn commit(n: u64) -> GitHash {
    GitHash::parse(&format!("{n:040x}")).expect("a hash")
}

/// The number of a commit: each fourth one fails.
pub(crate) fn number(commit: &GitHash) -> u64 {
    u64::from_str_radix(&commit.as_str()[24..], 16).expect("made by `commit`")
}

fn config(seed: u64, settings: &[(bool, Option<u32>); BUILDERS]) -> Config {
    let minute = Duration::from_secs(60);
    let recipe = ids::RecipeName::parse("widget").expect("a recipe name");
    let step = |n: u64| config::Step {
        name: format!("step{n}"),
        run: Run::Shell("true".to_owned()),
        dir: "src".to_owned(),
        env: Vec::new(),
        timeout: 40 * minute,
        silence: 20 * minute,
    };
    let steps = 1 + Random::keyed(seed, &[7]).below(3);
    let hosts = ["alpha", "beta", "gamma"].map(|name| HostType::parse(name).expect("a host type"));
    let host = config::Host {
        pool: Pool::Local { slots: 1 },
        env: Vec::new(),
        limits: ids::Limits::default(),
        owners: Vec::new(),
        notes: String::new(),
        ssh_user: config::SSH_USER.to_owned(),
    };
    let builder = |n: usize, max_at_once: Option<u32>| Builder {
        host: hosts[n % 3].clone(),
        builds: Policy::default(),
        recipe: None,
        env: Vec::new(),
        max_at_once,
        time_scale: 1,
        group: String::new(),
        order: 0,
        notes: String::new(),
        known_issues: Vec::new(),
    };
    let there = settings.iter().enumerate().filter(|(_, (there, _))| *there);
    Config {
        maintner: config::Maintner::default(),
        farm: config::Farm {
            name: "simulated".to_owned(),
            public_url: None,
            state_dir: "state".into(),
            listen_http: ([127, 0, 0, 1], 0).into(),
            listen_https: None,
            listen_ssh: None,
            tls: None,
            names: Vec::new(),
            closed: false,
            secrets: None,
            store: StoreUrl::Embedded,
            disk_floor: 0,
            keep_logs: Duration::MAX,
            max_log: 0,
            wait_limit: Duration::from_secs(86_400),
        },
        repos: BTreeMap::from([(
            repo(),
            Repo {
                url: "/nowhere".to_owned(),
                branches: Vec::new(),
                recipe: recipe.clone(),
                poll: minute,
                backfill: 10,
            },
        )]),
        hosts: hosts.iter().map(|name| (name.clone(), host.clone())).collect(),
        builders: there
            .map(|(n, (_, at_once))| {
                let name = BuilderName::parse(&format!("b{n}")).expect("a builder name");
                (name, builder(n, *at_once))
            })
            .collect(),
        recipes: BTreeMap::from([(
            recipe,
            Recipe {
                source: "src".to_owned(),
                steps: (0..steps).map(step).collect(),
            },
        )]),
    }
}
