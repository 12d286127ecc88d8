use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ids::{BuildId, BuilderName, HostType, MachineId, Now, Timestamp};

use crate::{Action, Class, Input, Reason, Request, Waiting};

/// What holds for every host type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A build that waited this long for a machine is given up.
    pub wait_limit: Duration,
    /// A post-submit build that waited this long goes before newer commits.
    pub max_wait: Duration,
    /// Of the post-submit builds of a host type every so manieth is the oldest request and not the newest commit.
    pub oldest_every: u32,
    /// How long a build waits for a machine that has not lost it before.
    pub avoid_for: Duration,
}

impl Default for Limits {
    /// Source: spec coordinator 4.3; the wait limit is that of the configuration.
    fn default() -> Limits {
        Limits {
            wait_limit: Duration::from_secs(24 * 3600),
            max_wait: Duration::from_secs(6 * 3600),
            oldest_every: 4,
            avoid_for: Duration::from_secs(120),
        }
    }
}

/// No back-off is longer: a clock that jumped back cannot hold a build for days.
const LONGEST_HOLD: Duration = Duration::from_secs(30 * 60);

/// Who waits, and which machines are there.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    waiting: BTreeMap<BuildId, Item>,
    lines: BTreeMap<HostType, Line>,
    machines: BTreeMap<MachineId, Machine>,
    /// Builds at work, by builder.
    running: BTreeMap<BuilderName, u32>,
    /// Moments (mono) at which a waiting build may fit that did not before.
    wakes: BTreeSet<(Duration, BuildId)>,
    /// When each waiting build is given up (mono).
    ends: BTreeSet<(Duration, BuildId)>,
    paused: Option<String>,
}

#[derive(Debug)]
struct Item {
    request: Request,
    /// Not before (mono).
    hold: Option<Duration>,
    /// Avoided machines are taken from here on (mono).
    any_machine: Duration,
    /// When it was handed in (mono), less what it had waited before as far as that is believed.
    entered: Duration,
    age: Duration,
    gives_up: Duration,
}

/// The order of service within a host type. Smaller is sooner; total, for the build number ends it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Not post-submit: the oldest request.
    Asked(Class, Timestamp, BuildId),
    /// Post-submit: the newest commit.
    Commit(Reverse<Timestamp>, Timestamp, BuildId),
}

#[derive(Debug, Default)]
struct Line {
    places: BTreeSet<Place>,
    /// Post-submit builds by age.
    oldest: BTreeSet<(Timestamp, BuildId)>,
    idle: BTreeSet<MachineId>,
    connected: u32,
    /// Post-submit builds assigned so far.
    grants: u32,
}

#[derive(Debug)]
struct Machine {
    host_type: HostType,
    work: Option<Work>,
}

#[derive(Debug)]
struct Work {
    builder: BuilderName,
    since: Timestamp,
    usual: Option<Duration>,
}

impl Scheduler {
    pub fn new(limits: Limits) -> Scheduler {
        Scheduler {
            limits,
            waiting: BTreeMap::new(),
            lines: BTreeMap::new(),
            machines: BTreeMap::new(),
            running: BTreeMap::new(),
            wakes: BTreeSet::new(),
            ends: BTreeSet::new(),
            paused: None,
        }
    }

    /// Takes in what happened at `now`; says who gets which machine and who is given up.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Requested(request) => {
                let host_type = request.host_type.clone();
                self.enter(now, request);
                self.dispatch(now, &host_type, &mut actions);
            }
            Input::Withdrawn { build } => {
                self.leave(build);
            }
            Input::Idle { machine, host_type } => {
                self.forget_machine(&machine);
                self.connect(machine, host_type.clone(), None);
                self.dispatch(now, &host_type, &mut actions);
            }
            Input::Busy {
                machine,
                host_type,
                builder,
                build,
                since,
                usual,
            } => {
                self.leave(build);
                self.forget_machine(&machine);
                self.connect(
                    machine,
                    host_type,
                    Some(Work {
                        builder,
                        since,
                        usual,
                    }),
                );
            }
            Input::Gone { machine } => {
                if let Some(host_type) = self.forget_machine(&machine) {
                    self.dispatch(now, &host_type, &mut actions);
                }
            }
            Input::Paused { why } => self.paused = Some(why),
            Input::Resumed => {
                self.paused = None;
                for host_type in self.lines.keys().cloned().collect::<Vec<_>>() {
                    self.dispatch(now, &host_type, &mut actions);
                }
            }
            Input::Tick => self.tick(now, &mut actions),
        }
        actions
    }

    /// When to send [`Input::Tick`] if nothing else happens before (mono).
    pub fn next_deadline(&self, _now: Now) -> Option<Duration> {
        let first = |set: &BTreeSet<(Duration, BuildId)>| set.first().map(|(at, _)| *at);
        first(&self.wakes).into_iter().chain(first(&self.ends)).min()
    }

    /// How many builds wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Every waiting build once: host type by host type, within each in the order of service.
    pub fn explain(&self, now: Now) -> Vec<Waiting> {
        let mut all = Vec::with_capacity(self.waiting.len());
        for (host_type, line) in &self.lines {
            let mut free = self.free_times(now, host_type);
            let usual = self.typical(line);
            for (ahead, place) in line.places.iter().enumerate() {
                let Some(item) = self.waiting.get(&place.build()) else {
                    continue;
                };
                let request = &item.request;
                let reason = self.reason(now, line, item);
                let held = item
                    .hold
                    .map_or(now.wall, |until| now.wall + until.saturating_sub(now.mono));
                let mut starts = None;
                if self.paused.is_none()
                    && let Some((at, n)) = free.pop_first()
                {
                    let start = at.max(held);
                    starts = Some(start);
                    if let Some(takes) = request.usual.or(usual) {
                        free.insert((start + takes, n));
                    }
                }
                all.push(Waiting {
                    build: request.build,
                    builder: request.builder.clone(),
                    repo: request.repo.clone(),
                    host_type: host_type.clone(),
                    class: request.class,
                    requested: request.requested,
                    ahead,
                    reason,
                    starts,
                });
            }
        }
        all
    }

    /// When each machine of the type should be free, with a number that tells equal times apart.
    fn free_times(&self, now: Now, host_type: &HostType) -> BTreeSet<(Timestamp, usize)> {
        let of_type = self
            .machines
            .values()
            .filter(|machine| &machine.host_type == host_type);
        let free = of_type
            .enumerate()
            .filter_map(|(n, machine)| match &machine.work {
                None => Some((now.wall, n)),
                Some(work) => Some(((work.since + work.usual?).max(now.wall), n)),
            });
        free.collect()
    }

    /// The median of what is known of how long builds in this line take.
    fn typical(&self, line: &Line) -> Option<Duration> {
        let ids = line.places.iter().map(Place::build);
        let mut known: Vec<Duration> = ids
            .filter_map(|id| self.waiting.get(&id)?.request.usual)
            .collect();
        known.sort_unstable();
        known.get(known.len() / 2).copied()
    }

    fn reason(&self, now: Now, line: &Line, item: &Item) -> Reason {
        let request = &item.request;
        let running = self.running.get(&request.builder).copied().unwrap_or(0);
        if let Some(why) = &self.paused {
            return Reason::Paused { why: why.clone() };
        }
        if let Some(until) = item.hold.filter(|until| *until > now.mono) {
            return Reason::BackOff {
                until: now.wall + (until - now.mono),
            };
        }
        if line.connected == 0 {
            return Reason::NoMachine;
        }
        if let Some(max) = request.max_at_once.filter(|max| running >= *max) {
            return Reason::BuilderLimit { running, max };
        }
        if !line.idle.is_empty() {
            return Reason::Avoiding {
                machines: line.idle.len(),
            };
        }
        Reason::AllBusy {
            machines: line.connected as usize,
        }
    }

    fn enter(&mut self, now: Now, request: Request) {
        // The same build again keeps what it has waited.
        let (entered, age) = match self.leave(request.build) {
            Some(old) => (old.entered, old.age),
            // A clock that jumped may make it look old: half of the limit is believed.
            None => (
                now.mono,
                now.wall.since(request.requested).min(self.limits.wait_limit / 2),
            ),
        };
        let hold = request
            .not_before
            .map(|at| now.mono + at.since(now.wall).min(LONGEST_HOLD));
        let hold = hold.filter(|until| *until > now.mono);
        let any_machine = hold.unwrap_or(now.mono) + self.limits.avoid_for;
        let gives_up = entered + self.limits.wait_limit.saturating_sub(age);
        let build = request.build;
        let line = self.lines.entry(request.host_type.clone()).or_default();
        line.places.insert(Place::of(&request));
        if request.class == Class::PostSubmit {
            line.oldest.insert((request.requested, build));
        }
        self.wakes.extend(hold.map(|until| (until, build)));
        if !request.avoid.is_empty() {
            self.wakes.insert((any_machine, build));
        }
        self.ends.insert((gives_up, build));
        self.waiting.insert(
            build,
            Item {
                request,
                hold,
                any_machine,
                entered,
                age,
                gives_up,
            },
        );
    }

    fn leave(&mut self, build: BuildId) -> Option<Item> {
        let item = self.waiting.remove(&build)?;
        if let Some(line) = self.lines.get_mut(&item.request.host_type) {
            line.places.remove(&Place::of(&item.request));
            line.oldest.remove(&(item.request.requested, build));
        }
        self.wakes.remove(&(item.any_machine, build));
        if let Some(hold) = item.hold {
            self.wakes.remove(&(hold, build));
        }
        self.ends.remove(&(item.gives_up, build));
        Some(item)
    }

    fn connect(&mut self, machine: MachineId, host_type: HostType, work: Option<Work>) {
        let line = self.lines.entry(host_type.clone()).or_default();
        line.connected += 1;
        match &work {
            None => {
                line.idle.insert(machine.clone());
            }
            Some(work) => *self.running.entry(work.builder.clone()).or_default() += 1,
        }
        self.machines.insert(machine, Machine { host_type, work });
    }

    fn forget_machine(&mut self, machine: &MachineId) -> Option<HostType> {
        let Machine { host_type, work } = self.machines.remove(machine)?;
        if let Some(line) = self.lines.get_mut(&host_type) {
            line.connected -= 1;
            line.idle.remove(machine);
        }
        if let Some(work) = work
            && let Some(count) = self.running.get_mut(&work.builder)
        {
            *count -= 1;
            if *count == 0 {
                self.running.remove(&work.builder);
            }
        }
        Some(host_type)
    }

    /// Gives idle machines of the type away until no waiting build fits one.
    fn dispatch(&mut self, now: Now, host_type: &HostType, actions: &mut Vec<Action>) {
        while self.paused.is_none()
            && let Some((build, machine)) = self.choose(now, host_type)
        {
            let Some(item) = self.leave(build) else { return };
            let Some(line) = self.lines.get_mut(host_type) else {
                return;
            };
            line.idle.remove(&machine);
            line.grants = line
                .grants
                .wrapping_add(u32::from(item.request.class == Class::PostSubmit));
            let (builder, usual) = (item.request.builder, item.request.usual);
            *self.running.entry(builder.clone()).or_default() += 1;
            if let Some(machine) = self.machines.get_mut(&machine) {
                machine.work = Some(Work {
                    builder,
                    since: now.wall,
                    usual,
                });
            }
            actions.push(Action::Assign { build, machine });
        }
    }

    fn choose(&self, now: Now, host_type: &HostType) -> Option<(BuildId, MachineId)> {
        let line = self.lines.get(host_type)?;
        if line.idle.is_empty() {
            return None;
        }
        let fit = |build: BuildId| Some((build, self.fits(now, line, self.waiting.get(&build)?)?));
        let asked = line
            .places
            .iter()
            .filter(|place| matches!(place, Place::Asked(..)));
        if let Some(found) = asked.map(Place::build).find_map(fit) {
            return Some(found);
        }
        let overdue = line
            .oldest
            .first()
            .and_then(|(_, build)| self.waiting.get(build))
            .is_some_and(|item| now.mono.saturating_sub(item.entered) + item.age >= self.limits.max_wait);
        if overdue || (line.grants + 1).is_multiple_of(self.limits.oldest_every) {
            line.oldest.iter().map(|(_, build)| *build).find_map(fit)
        } else {
            line.places.iter().map(Place::build).find_map(fit)
        }
    }

    /// The machine on which the build may start now.
    fn fits(&self, now: Now, line: &Line, item: &Item) -> Option<MachineId> {
        let request = &item.request;
        let running = self.running.get(&request.builder).copied().unwrap_or(0);
        let held = item.hold.is_some_and(|until| until > now.mono);
        if held || request.max_at_once.is_some_and(|max| running >= max) {
            return None;
        }
        let liked = line.idle.iter().find(|machine| !request.avoid.contains(*machine));
        if liked.is_some() {
            return liked.cloned();
        }
        let others = self
            .machines
            .iter()
            .any(|(machine, state)| state.host_type == request.host_type && !request.avoid.contains(machine));
        if others && now.mono < item.any_machine {
            None
        } else {
            line.idle.first().cloned()
        }
    }

    fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some((at, build)) = self.ends.first().copied()
            && at <= now.mono
        {
            if let Some(item) = self.leave(build) {
                let waited = now.mono.saturating_sub(item.entered) + item.age;
                actions.push(Action::GiveUp { build, waited });
            }
        }
        let mut woken = BTreeSet::new();
        while let Some((at, build)) = self.wakes.first().copied()
            && at <= now.mono
        {
            self.wakes.remove(&(at, build));
            woken.extend(
                self.waiting
                    .get(&build)
                    .map(|item| item.request.host_type.clone()),
            );
        }
        for host_type in woken {
            self.dispatch(now, &host_type, actions);
        }
    }
}

impl Place {
    fn of(request: &Request) -> Place {
        match request.class {
            Class::PostSubmit => {
                Place::Commit(Reverse(request.commit_time), request.requested, request.build)
            }
            class => Place::Asked(class, request.requested, request.build),
        }
    }

    fn build(&self) -> BuildId {
        match self {
            Place::Asked(_, _, build) | Place::Commit(_, _, build) => *build,
        }
    }
}
