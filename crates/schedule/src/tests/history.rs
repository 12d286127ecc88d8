//! Random histories: machines come and go, clocks jump, and after every input what the scheduler
//! said is held against a second, plain reckoning of who may start where.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ids::{BuildId, BuilderName, HostType, MachineId, Now, Timestamp};

use crate::{Action, Class, Input, Limits, Reason, Request, Scheduler, Waiting};

const STEPS: u64 = 300;

/// How many histories are played; more by `SCHEDULE_SEEDS=100000`.
fn seeds() -> u64 {
    std::env::var("SCHEDULE_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(50)
}

#[test]
fn whatever_happens_every_promise_is_kept() {
    let mut all = Seen::default();
    for seed in 0..seeds() {
        match play(seed, Fault::None) {
            Ok(seen) => all.add(&seen),
            Err(broken) => panic!("seed {seed}: {broken}"),
        }
    }
    // What never happened was not tried.
    let Seen {
        assigned,
        given_up,
        reasons,
        oldest,
        overdue,
        avoided_taken,
    } = &all;
    let rare = [assigned, given_up, oldest, overdue, avoided_taken]
        .into_iter()
        .chain(reasons);
    assert!(rare.clone().all(|n| *n > 0), "some of it never happens: {all:?}");
}

/// Each fault is planted between the world and the scheduler, and must be found by the promise that
/// it breaks.
#[test]
fn every_planted_fault_is_found() {
    let faults = [
        (Fault::DropsGone, "is not connected"),
        (Fault::DropsIdle, "fits"),
        (Fault::AssignsTwice, "does not wait"),
        (Fault::IgnoresLimit, "over the limit of its builder"),
        (Fault::NewestOnly, "passed over"),
        (Fault::OldestOnly, "too soon"),
        (Fault::MixesClasses, "goes before it"),
        (Fault::SkipsBackOff, "in back-off"),
        (Fault::TrustsTheClock, "given up"),
        (Fault::IgnoresAvoid, "lost it before"),
        (Fault::IgnoresPause, "while paused"),
        (Fault::LosesPlaces, "goes before it"),
        (Fault::ForgetsToExplain, "explains"),
        (Fault::AlwaysBusy, "not true"),
    ];
    for (fault, word) in faults {
        let mut broken = (0..200).filter_map(|seed| play(seed, fault).err());
        let found = broken.any(|broken| broken.contains(word));
        assert!(found, "no history finds {fault:?} by `{word}`");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    DropsGone,
    DropsIdle,
    AssignsTwice,
    IgnoresLimit,
    NewestOnly,
    OldestOnly,
    MixesClasses,
    SkipsBackOff,
    TrustsTheClock,
    IgnoresAvoid,
    IgnoresPause,
    LosesPlaces,
    ForgetsToExplain,
    AlwaysBusy,
}

impl Fault {
    /// Whether it hands in something else than what was asked for, so that it is explained wrongly
    /// too: an order that is wrong should be found by itself.
    fn changes_the_request(self) -> bool {
        matches!(self, Fault::MixesClasses | Fault::LosesPlaces)
    }
}

/// The scheduler, with a fault between it and the world.
struct Subject {
    scheduler: Scheduler,
    fault: Fault,
}

impl Subject {
    fn new(limits: &Limits, fault: Fault) -> Subject {
        let mut limits = limits.clone();
        match fault {
            Fault::NewestOnly => limits.oldest_every = 0,
            Fault::OldestOnly => limits.oldest_every = 1,
            _ => {}
        }
        Subject {
            scheduler: Scheduler::new(limits),
            fault,
        }
    }

    fn handle(&mut self, mut now: Now, mut input: Input) -> Vec<Action> {
        match (self.fault, &mut input) {
            (Fault::DropsGone, Input::Gone { .. })
            | (Fault::DropsIdle, Input::Idle { .. })
            | (Fault::IgnoresPause, Input::Paused { .. }) => input = Input::Tick,
            (Fault::IgnoresLimit, Input::Requested(request)) => request.max_at_once = None,
            (Fault::MixesClasses, Input::Requested(request)) => request.class = Class::Try,
            (Fault::SkipsBackOff, Input::Requested(request)) => request.not_before = None,
            (Fault::IgnoresAvoid, Input::Requested(request)) => request.avoid.clear(),
            (Fault::LosesPlaces, Input::Requested(request)) => {
                self.scheduler
                    .handle(now, Input::Withdrawn { build: request.build });
                request.requested = now.wall;
            }
            // All waits are counted by the wall clock.
            (Fault::TrustsTheClock, _) => {
                now.mono = Duration::from_micros(u64::try_from(now.wall.0).unwrap_or(0));
            }
            _ => {}
        }
        let mut actions = self.scheduler.handle(now, input);
        if self.fault == Fault::AssignsTwice {
            actions.extend(actions.clone());
        }
        actions
    }

    fn explain(&self, now: Now) -> Vec<Waiting> {
        let mut all = self.scheduler.explain(now);
        match self.fault {
            Fault::ForgetsToExplain => drop(all.pop()),
            Fault::AlwaysBusy => all
                .iter_mut()
                .for_each(|one| one.reason = Reason::AllBusy { machines: 1 }),
            _ => {}
        }
        all
    }
}

/// How often what happened in a history.
#[derive(Debug, Default)]
struct Seen {
    assigned: u64,
    given_up: u64,
    /// In the order of [`Reason`]'s variants.
    reasons: [u64; 6],
    /// Grants to a post-submit build that was the oldest and not the newest.
    oldest: u64,
    overdue: u64,
    avoided_taken: u64,
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        self.assigned += other.assigned;
        self.given_up += other.given_up;
        for (mine, its) in self.reasons.iter_mut().zip(other.reasons) {
            *mine += its;
        }
        self.oldest += other.oldest;
        self.overdue += other.overdue;
        self.avoided_taken += other.avoided_taken;
    }
}

/// What is wrong with what the scheduler said.
type Broken = String;

/// Plays one history; then lets all machines come and all builds end, so that nothing may be left.
fn play(seed: u64, fault: Fault) -> Result<Seen, Broken> {
    let mut random = Random(seed);
    let mut world = World::new(fault);
    for _ in 0..STEPS {
        let input = world.invent(&mut random);
        world.advance(&mut random)?;
        world.step(input)?;
    }
    world.step(Input::Resumed)?;
    for _ in 0..1_000 {
        if world.waiting.is_empty() {
            return Ok(world.seen);
        }
        for (n, host_type) in host_types().into_iter().enumerate() {
            world.step(Input::Idle {
                machine: machine(90 + n as u64),
                host_type,
            })?;
        }
        for (machine, host_type) in world
            .machines
            .iter()
            .map(|(id, it)| (id.clone(), it.host_type.clone()))
            .collect::<Vec<_>>()
        {
            world.step(Input::Idle { machine, host_type })?;
        }
        if let Some(at) = world.subject.scheduler.next_deadline(world.now()) {
            world.mono = world.mono.max(at);
        }
        world.step(Input::Tick)?;
    }
    Err(format!("waiting for ever: {:?}", world.waiting.keys()))
}

/// What is true, reckoned by going through everything each time.
struct World {
    subject: Subject,
    limits: Limits,
    mono: Duration,
    /// What the wall clock shows beyond `mono`, in microseconds.
    shift: i64,
    waiting: BTreeMap<BuildId, Wait>,
    machines: BTreeMap<MachineId, Host>,
    max: BTreeMap<BuilderName, Option<u32>>,
    /// Post-submit grants in a row that passed over the oldest.
    passed: BTreeMap<HostType, u32>,
    /// Post-submit grants since one went to the oldest though another was the newest.
    since_oldest: BTreeMap<HostType, u32>,
    paused: Option<String>,
    builds: u64,
    seen: Seen,
}

struct Wait {
    request: Request,
    place: Timestamp,
    handed_in: Duration,
    credit: Duration,
    ready: Duration,
    asleep: bool,
}

struct Host {
    host_type: HostType,
    busy: bool,
    run: Option<(BuildId, BuilderName)>,
}

impl World {
    fn new(fault: Fault) -> World {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let limits = Limits {
            wait_limit: hours(12),
            max_wait: hours(3),
            ..Limits::default()
        };
        World {
            subject: Subject::new(&limits, fault),
            limits,
            mono: Duration::ZERO,
            shift: 1_000_000_000_000,
            waiting: BTreeMap::new(),
            machines: BTreeMap::new(),
            max: BTreeMap::new(),
            passed: BTreeMap::new(),
            since_oldest: BTreeMap::new(),
            paused: None,
            builds: 0,
            seen: Seen::default(),
        }
    }

    fn now(&self) -> Now {
        Now {
            mono: self.mono,
            wall: Timestamp(self.shift) + self.mono,
        }
    }

    /// Some time passes, with a tick at each deadline in it; or the wall clock jumps.
    fn advance(&mut self, random: &mut Random) -> Result<(), Broken> {
        if random.one_in(40) {
            let days = i64::try_from(random.below(7)).expect("small") - 3;
            self.shift += days * 24 * 3600 * 1_000_000;
            return Ok(());
        }
        let seconds = match random.below(20) {
            0 => random.below(2 * 3600),
            1..4 => random.below(300),
            4..9 => random.below(20),
            _ => 0,
        };
        let until = self.mono + Duration::from_secs(seconds);
        while let Some(at) = self
            .subject
            .scheduler
            .next_deadline(self.now())
            .filter(|at| *at <= until)
        {
            self.mono = self.mono.max(at);
            self.step(Input::Tick)?;
            let next = self.subject.scheduler.next_deadline(self.now());
            if next.is_some_and(|next| next <= self.mono) {
                return Err(format!(
                    "a deadline at {next:?} is left after the tick at {:?}",
                    self.mono
                ));
            }
        }
        self.mono = until;
        Ok(())
    }

    fn invent(&mut self, random: &mut Random) -> Input {
        let any_waiting = random.pick(self.waiting.keys().copied().collect());
        let running = self
            .machines
            .values()
            .filter_map(|host| Some(host.run.as_ref()?.0))
            .collect();
        let any_running = random.pick(running);
        let id = machine(random.below(7));
        let host_type = self.machines.get(&id).map(|host| host.host_type.clone());
        let other_type = random.pick(host_types()).expect("there are two");
        let host_type = host_type.filter(|_| !random.one_in(20)).unwrap_or(other_type);
        self.builds += 1;
        let fresh = BuildId(self.builds);
        match random.below(100) {
            0..38 => Input::Requested(self.invent_request(random, fresh)),
            38..42 => Input::Requested(self.invent_request(random, any_waiting.unwrap_or(fresh))),
            42..47 => Input::Requested(self.invent_request(random, any_running.unwrap_or(fresh))),
            47..51 => Input::Withdrawn {
                build: any_waiting.unwrap_or(fresh),
            },
            51..85 => Input::Idle {
                machine: id,
                host_type,
            },
            85..92 => Input::Gone { machine: id },
            92..95 => Input::Busy {
                machine: id,
                host_type,
                builder: builder(random.below(4)),
                build: any_waiting.filter(|_| random.one_in(2)).unwrap_or(fresh),
                since: self.now().wall,
                usual: Some(Duration::from_secs(random.below(1000))).filter(|_| !random.one_in(4)),
            },
            95 => Input::Paused {
                why: format!("reason {fresh}"),
            },
            96..99 => Input::Resumed,
            _ => Input::Tick,
        }
    }

    fn invent_request(&self, random: &mut Random, build: BuildId) -> Request {
        let wall = self.now().wall;
        let ago = if random.one_in(6) {
            random.below(10 * 3600) as i64
        } else {
            random.below(60) as i64
        };
        let ago = if random.one_in(30) { -ago } else { ago };
        let number = random.below(4);
        let classes = [Class::Urgent, Class::Interactive, Class::Try];
        let max = match number {
            0 => Some(1),
            1 => Some(2),
            _ => None,
        };
        let back_off = Duration::from_secs(if random.one_in(20) {
            90_000
        } else {
            random.below(200)
        });
        let avoid = (0..7)
            .map(machine)
            .filter(|_| random.one_in(3))
            .collect::<BTreeSet<_>>();
        Request {
            build,
            builder: builder(number),
            repo: "widget".parse().expect("a repository name"),
            host_type: random.pick(host_types()).expect("there are two"),
            class: random
                .pick(classes.into())
                .filter(|_| random.one_in(3))
                .unwrap_or(Class::PostSubmit),
            commit_time: Timestamp::from_secs(random.below(1000) as i64),
            requested: Timestamp(wall.0 - ago * 1_000_000),
            not_before: Some(wall + back_off).filter(|_| random.one_in(4)),
            avoid: if random.one_in(3) { avoid } else { BTreeSet::new() },
            max_at_once: if random.one_in(20) {
                Some(random.below(4) as u32)
            } else {
                max
            },
            usual: Some(Duration::from_secs(random.below(1000))).filter(|_| !random.one_in(4)),
        }
    }

    /// Hands `input` to the scheduler and judges all that it says after.
    fn step(&mut self, input: Input) -> Result<(), Broken> {
        let now = self.now();
        let told = format!("at {now:?} after {input:?}");
        self.take_in(now, &input);
        let actions = self.subject.handle(now, input);
        let judged = actions.iter().try_for_each(|action| match action {
            Action::Assign { build, machine } => self.assigned(*build, machine),
            Action::GiveUp { build, waited } => self.given_up(*build, *waited),
        });
        judged
            .and_then(|()| self.nothing_left_undone())
            .and_then(|()| self.explained())
            .map_err(|broken| format!("{broken}, {told}, with {actions:?}"))
    }

    fn take_in(&mut self, now: Now, input: &Input) {
        match input.clone() {
            Input::Requested(request) => {
                for host in self.machines.values_mut() {
                    host.run.take_if(|(build, _)| *build == request.build);
                }
                self.max.insert(request.builder.clone(), request.max_at_once);
                self.hand_in(now, request);
            }
            Input::Withdrawn { build } => drop(self.waiting.remove(&build)),
            Input::Idle { machine, host_type } => {
                self.machines.insert(
                    machine,
                    Host {
                        host_type,
                        busy: false,
                        run: None,
                    },
                );
            }
            Input::Busy {
                machine,
                host_type,
                builder,
                build,
                ..
            } => {
                self.waiting.remove(&build);
                let run = Some((build, builder));
                self.machines.insert(
                    machine,
                    Host {
                        host_type,
                        busy: true,
                        run,
                    },
                );
            }
            Input::Gone { machine } => drop(self.machines.remove(&machine)),
            Input::Paused { why } => self.paused = Some(why),
            Input::Resumed => self.paused = None,
            Input::Tick => {}
        }
        for wait in self.waiting.values_mut().filter(|wait| wait.asleep) {
            let by_wall = wait.request.not_before.is_some_and(|at| at <= now.wall);
            if by_wall || wait.ready <= now.mono {
                wait.asleep = false;
                wait.ready = wait.ready.min(now.mono);
            }
        }
        // A builder of which nothing waits or runs is forgotten, and its limit with it.
        let runs = self
            .machines
            .values()
            .filter_map(|host| Some(&host.run.as_ref()?.1));
        let waits = self.waiting.values().map(|wait| &wait.request.builder);
        let known: BTreeSet<BuilderName> = runs.chain(waits).cloned().collect();
        self.max.retain(|builder, _| known.contains(builder));
    }

    fn hand_in(&mut self, now: Now, request: Request) {
        let not_before = request.not_before;
        let old = self.waiting.remove(&request.build);
        let same_back_off = old
            .as_ref()
            .is_some_and(|old| old.request.not_before == not_before);
        let mut wait = match old {
            Some(old) => Wait {
                request: Request {
                    requested: old.request.requested,
                    ..request
                },
                ..old
            },
            None => Wait {
                place: request.requested.min(now.wall),
                handed_in: now.mono,
                credit: now.wall.since(request.requested).min(self.limits.wait_limit / 2),
                ready: now.mono,
                asleep: false,
                request,
            },
        };
        if !same_back_off {
            let missing = not_before.map_or(Duration::ZERO, |at| at.since(now.wall));
            wait.ready = now.mono + missing.min(self.limits.max_wait);
            wait.asleep = !missing.is_zero();
        }
        self.waiting.insert(wait.request.build, wait);
    }

    fn assigned(&mut self, build: BuildId, id: &MachineId) -> Result<(), Broken> {
        let wait = self
            .waiting
            .get(&build)
            .ok_or(format!("{build} is assigned and does not wait"))?;
        let host = self
            .machines
            .get(id)
            .ok_or(format!("{build} is assigned to {id}, which is not connected"))?;
        let Request {
            host_type,
            builder,
            class,
            avoid,
            ..
        } = &wait.request;
        let told = format!("{build} is assigned to {id}");
        if host.busy {
            return Err(format!("{told}, which is busy"));
        }
        if host.host_type != *host_type {
            return Err(format!("{told}, which is no {host_type}"));
        }
        if self.paused.is_some() {
            return Err(format!("{told} while paused"));
        }
        if wait.asleep {
            return Err(format!("{told} in back-off"));
        }
        if !self.builder_may(builder) {
            return Err(format!("{told}, over the limit of its builder"));
        }
        let better = self.idle(host_type).any(|other| !avoid.contains(other));
        if !self.accepts(wait, id) || (avoid.contains(id) && better) {
            return Err(format!("{told}, which lost it before"));
        }

        let rivals = || self.waiting.values().filter(|other| self.fits(other, id));
        if let Some(first) = rivals().find(|other| other.request.class < *class) {
            return Err(format!("{told}, but {} goes before it", first.request.build));
        }
        let same_class = || rivals().filter(|other| other.request.class == *class);
        let oldest = same_class()
            .min_by_key(|other| self.by_age(other))
            .map(|other| other.request.build);
        let newest = same_class()
            .min_by_key(|other| self.by_commit(other))
            .map(|other| other.request.build);
        if *class != Class::PostSubmit {
            if let Some(oldest) = oldest.filter(|oldest| *oldest != build) {
                return Err(format!("{told}, but {oldest} goes before it"));
            }
        } else if oldest == Some(build) {
            self.passed.remove(host_type);
            let since = self.since_oldest.entry(host_type.clone()).or_insert(u32::MAX);
            *since = since.saturating_add(1);
            if newest != Some(build) {
                if *since < self.limits.oldest_every {
                    return Err(format!("{told}, the oldest, too soon"));
                }
                *since = 0;
                self.seen.oldest += 1;
            }
        } else if newest == Some(build) {
            let since = self.since_oldest.entry(host_type.clone()).or_insert(u32::MAX);
            *since = since.saturating_add(1);
            let passed = self.passed.entry(host_type.clone()).or_default();
            *passed += 1;
            if *passed >= self.limits.oldest_every {
                return Err(format!(
                    "{told}, and {oldest:?} is passed over for the {passed}th time"
                ));
            }
        } else {
            return Err(format!("{told}, which is neither the newest nor the oldest"));
        }

        self.seen.assigned += 1;
        self.seen.overdue += u64::from(self.waited(wait) >= self.limits.max_wait);
        self.seen.avoided_taken += u64::from(avoid.contains(id));
        let run = Some((build, builder.clone()));
        let host = Host {
            host_type: host_type.clone(),
            busy: true,
            run,
        };
        self.machines.insert(id.clone(), host);
        self.waiting.remove(&build);
        Ok(())
    }

    fn given_up(&mut self, build: BuildId, told: Duration) -> Result<(), Broken> {
        let wait = self
            .waiting
            .remove(&build)
            .ok_or(format!("{build} is given up and does not wait"))?;
        self.seen.given_up += 1;
        let waited = self.waited(&wait);
        if waited < self.limits.wait_limit || waited != told {
            return Err(format!(
                "{build} is given up after {waited:?}, and {told:?} is told"
            ));
        }
        Ok(())
    }

    fn nothing_left_undone(&mut self) -> Result<(), Broken> {
        for wait in self.waiting.values() {
            let build = wait.request.build;
            if let Some(id) = self.machines.keys().find(|id| self.fits(wait, id)) {
                return Err(format!("{build} waits though {id} is free and fits"));
            }
            if self.waited(wait) >= self.limits.wait_limit {
                return Err(format!("{build} should have been given up"));
            }
        }
        let waits: BTreeSet<&HostType> = self
            .waiting
            .values()
            .map(|wait| &wait.request.host_type)
            .collect();
        self.passed.retain(|host_type, _| waits.contains(host_type));
        Ok(())
    }

    fn explained(&mut self) -> Result<(), Broken> {
        let now = self.now();
        let all = self.subject.explain(now);
        let told: Vec<BuildId> = all.iter().map(|waiting| waiting.build).collect();
        let distinct: BTreeSet<BuildId> = told.iter().copied().collect();
        if told.len() != distinct.len() || !distinct.iter().eq(self.waiting.keys()) {
            return Err(format!("it explains {told:?} and {:?} wait", self.waiting.keys()));
        }
        if self.subject.scheduler.waiting() != self.waiting.len() {
            return Err("it explains more or fewer than it counts".into());
        }
        let mut before: BTreeMap<&HostType, usize> = BTreeMap::new();
        for waiting in &all {
            let ahead = before.entry(&waiting.host_type).or_default();
            let wait = &self.waiting[&waiting.build];
            let as_asked = waiting.requested == wait.request.requested && waiting.class == wait.request.class;
            let true_so_far = *ahead == waiting.ahead
                && waiting.host_type == wait.request.host_type
                && (as_asked || self.subject.fault.changes_the_request());
            *ahead += 1;
            if !true_so_far || !self.is_true(now, wait, waiting) {
                return Err(format!("what is said of {waiting:?} is not true"));
            }
            self.seen.reasons[match waiting.reason {
                Reason::NoMachine => 0,
                Reason::AllBusy { .. } => 1,
                Reason::BackOff { .. } => 2,
                Reason::BuilderLimit { .. } => 3,
                Reason::Avoiding { .. } => 4,
                Reason::Paused { .. } => 5,
            }] += 1;
        }
        Ok(())
    }

    fn is_true(&self, now: Now, wait: &Wait, told: &Waiting) -> bool {
        let Request {
            host_type,
            builder,
            avoid,
            not_before,
            ..
        } = &wait.request;
        let idle = self.idle(host_type).count();
        let connected = self
            .machines
            .values()
            .filter(|host| host.host_type == *host_type)
            .count();
        let starts_ok = match told.starts {
            Some(starts) => starts >= now.wall && self.paused.is_none() && connected > 0,
            None => true,
        };
        let reason_ok = match &told.reason {
            Reason::Paused { why } => self.paused.as_ref() == Some(why),
            Reason::NoMachine => connected == 0,
            Reason::AllBusy { machines } => idle == 0 && *machines == connected && connected > 0,
            Reason::BackOff { until } => {
                let early = told.starts.is_some_and(|starts| starts < *until);
                wait.asleep && *until > now.wall && not_before.is_some_and(|at| *until <= at) && !early
            }
            Reason::BuilderLimit { running, max } => {
                self.running(builder) == *running
                    && self.max.get(builder) == Some(&Some(*max))
                    && running >= max
            }
            Reason::Avoiding { machines } => {
                idle == *machines && idle > 0 && self.idle(host_type).all(|id| avoid.contains(id))
            }
        };
        starts_ok && reason_ok
    }

    fn fits(&self, wait: &Wait, id: &MachineId) -> bool {
        let host = &self.machines[id];
        let right = !host.busy && host.host_type == wait.request.host_type;
        let may = self.paused.is_none() && !wait.asleep && self.builder_may(&wait.request.builder);
        right && may && self.accepts(wait, id)
    }

    fn accepts(&self, wait: &Wait, id: &MachineId) -> bool {
        let Request { host_type, avoid, .. } = &wait.request;
        let mut others = self
            .machines
            .iter()
            .filter(|(_, host)| host.host_type == *host_type);
        let choice_over = self.mono >= wait.ready + self.limits.avoid_for;
        !avoid.contains(id) || choice_over || others.all(|(other, _)| avoid.contains(other))
    }

    fn idle(&self, host_type: &HostType) -> impl Iterator<Item = &MachineId> {
        let of_type = self
            .machines
            .iter()
            .filter(move |(_, host)| host.host_type == *host_type);
        of_type.filter(|(_, host)| !host.busy).map(|(id, _)| id)
    }

    fn running(&self, builder: &BuilderName) -> u32 {
        let runs = self.machines.values().filter_map(|host| host.run.as_ref());
        u32::try_from(runs.filter(|(_, of)| of == builder).count()).expect("few machines")
    }

    fn builder_may(&self, builder: &BuilderName) -> bool {
        let max = self.max.get(builder).copied().flatten();
        max.is_none_or(|max| self.running(builder) < max)
    }

    fn waited(&self, wait: &Wait) -> Duration {
        wait.credit + (self.mono - wait.handed_in)
    }

    fn by_age(&self, wait: &Wait) -> (bool, Timestamp, BuildId) {
        let in_time = self.waited(wait) < self.limits.max_wait;
        (in_time, wait.place, wait.request.build)
    }

    fn by_commit(&self, wait: &Wait) -> (bool, Reverse<Timestamp>, Timestamp, BuildId) {
        let (in_time, place, build) = self.by_age(wait);
        let commit = if in_time {
            wait.request.commit_time
        } else {
            Timestamp(0)
        };
        (in_time, Reverse(commit), place, build)
    }
}

fn host_types() -> Vec<HostType> {
    ["linux", "windows"]
        .map(|name| name.parse().expect("a host type"))
        .into()
}

fn machine(n: u64) -> MachineId {
    format!("m{n}").parse().expect("a machine name")
}

fn builder(n: u64) -> BuilderName {
    format!("builder-{n}").parse().expect("a builder name")
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T>(&mut self, mut from: Vec<T>) -> Option<T> {
        let n = u64::try_from(from.len()).expect("few");
        (n > 0).then(|| from.swap_remove(usize::try_from(self.below(n)).expect("few")))
    }
}
