use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ids::{BuildId, BuilderName, HostType, MachineId, Now, Timestamp};

use crate::order::{Late, Rank, Turn};
use crate::queue::Queue;
use crate::{Action, Class, Input, Request};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What holds for every host type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A build that has waited this long is given up.
    ///
    /// Counted from when the request was handed in, by the clock that does not jump, and to it is
    /// added the age that the request had then by the wall clock: a build keeps what it waited
    /// before a restart. That age counts for at most half of the limit, so that a wall clock that is
    /// wrong, or a farm that was off for days, gives up nothing before its machines could come back.
    pub wait_limit: Duration,
    /// A build that has waited this long, counted the same way, goes before those of its class that
    /// have not. Also the longest back-off.
    pub max_wait: Duration,
    /// Every so many post-submit grants of a host type, one goes to the oldest request; 0 is never.
    pub oldest_every: u32,
    /// How long a build that could start waits for a machine that has not lost it before.
    pub avoid_for: Duration,
}

impl Default for Limits {
    /// What the configuration says of `wait_limit` goes before this.
    fn default() -> Limits {
        Limits {
            wait_limit: 24 * HOUR,
            max_wait: 6 * HOUR,
            oldest_every: 4,
            avoid_for: 2 * MINUTE,
        }
    }
}

/// Who waits, which machines there are, and who got which.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) limits: Limits,
    pub(crate) items: BTreeMap<BuildId, Item>,
    pub(crate) machines: BTreeMap<MachineId, Machine>,
    pub(crate) types: BTreeMap<HostType, Type>,
    pub(crate) builders: BTreeMap<BuilderName, Builder>,
    pub(crate) paused: Option<String>,
    /// Where each build at work is: the second way to read `machines`.
    runs: BTreeMap<BuildId, BTreeSet<MachineId>>,
    /// By the clock that does not jump.
    alarms: BTreeSet<(Duration, BuildId, Alarm)>,
    /// By the same clock: when each waiting build is given up.
    ends: BTreeSet<(Duration, BuildId)>,
    /// By the wall clock: when each back-off ends, should the clock get there before the alarm.
    back_offs: BTreeSet<(Timestamp, BuildId)>,
    /// How often a machine has come free.
    turns: u64,
}

/// A build that waits.
#[derive(Debug)]
pub(crate) struct Item {
    pub request: Request,
    place: Timestamp,
    late: Late,
    /// When it was handed in, and how much waiting was credited to it then.
    handed_in: Duration,
    credit: Duration,
    /// When its back-off ends or ended; when it was handed in, if it had none.
    pub ready: Duration,
    pub stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In back-off.
    Asleep,
    /// Waits for a machine that it does not avoid.
    Choosy,
    /// Takes any machine of its type.
    Queued,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    BackOffEnds,
    ChoiceEnds,
    Overdue,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub host_type: HostType,
    pub state: MachineState,
}

#[derive(Debug)]
pub(crate) enum MachineState {
    /// `turn` is its place in [`Type::idle`].
    Idle {
        turn: u64,
    },
    Busy(Work),
}

#[derive(Debug)]
pub(crate) struct Work {
    /// `None` when the attempt is over and the machine has not come free yet.
    pub run: Option<(BuildId, BuilderName)>,
    /// When it was taken note of, and how long it had been going on then.
    noted: Duration,
    age: Duration,
    pub usual: Option<Duration>,
}

/// A host type of which there are machines, or for which builds wait.
#[derive(Debug, Default)]
pub(crate) struct Type {
    pub machines: usize,
    /// The one that has been free longest first: a machine that fails every build it gets goes to
    /// the end each time, and the others get their share.
    pub idle: BTreeSet<(u64, MachineId)>,
    /// Builds in [`Stage::Queued`].
    pub queue: Queue,
    /// Builds in [`Stage::Choosy`]: few, none for long.
    choosy: BTreeSet<Rank>,
    asleep: usize,
    /// Post-submit grants so far.
    pub grants: u32,
}

/// A builder of which builds wait or run.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    waiting: usize,
    pub running: u32,
    /// As its latest request said.
    pub max: Option<u32>,
}

impl Scheduler {
    pub fn new(limits: Limits) -> Scheduler {
        Scheduler {
            limits,
            items: BTreeMap::new(),
            machines: BTreeMap::new(),
            types: BTreeMap::new(),
            builders: BTreeMap::new(),
            paused: None,
            runs: BTreeMap::new(),
            alarms: BTreeSet::new(),
            ends: BTreeSet::new(),
            back_offs: BTreeSet::new(),
            turns: 0,
        }
    }

    /// Takes in what happened at `now`; says what to do about it, in the order to do it.
    ///
    /// After it no build waits that could have a free machine. A build whose limit has come is
    /// assigned if it can be, and only otherwise given up.
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Action> {
        self.take_in(now, input);
        self.ring(now);
        let mut actions = Vec::new();
        self.grant(now, &mut actions);
        self.give_up(now, &mut actions);
        self.types.retain(|_, of_type| !of_type.is_unused());
        actions
    }

    /// How long any build may wait from here on, those that wait already included. One that has waited longer is given
    /// up by the next input, if it cannot start.
    pub fn set_wait_limit(&mut self, limit: Duration) {
        self.limits.wait_limit = limit;
        let items = self.items.iter();
        self.ends = items
            .map(|(build, item)| (item.waited_at(limit), *build))
            .collect();
    }

    /// When, in [`Now::mono`], to send [`Input::Tick`] if nothing else happens before. Not after
    /// `now.mono` if that is due.
    pub fn next_deadline(&self, now: Now) -> Option<Duration> {
        let alarm = self.alarms.first().map(|(at, ..)| *at);
        let end = self.ends.first().map(|(at, _)| *at);
        let back_off = self
            .back_offs
            .first()
            .map(|(at, _)| now.mono.saturating_add(at.since(now.wall)));
        [alarm, end, back_off].into_iter().flatten().min()
    }

    /// How many builds wait.
    pub fn waiting(&self) -> usize {
        self.items.len()
    }

    fn take_in(&mut self, now: Now, input: Input) {
        match input {
            Input::Requested(request) => self.requested(now, request),
            Input::Withdrawn { build } => {
                self.take_out(build);
            }
            Input::Idle { machine, host_type } => self.idle(machine, host_type),
            Input::Busy {
                machine,
                host_type,
                builder,
                build,
                since,
                usual,
            } => {
                self.take_out(build);
                self.disconnect(&machine);
                let age = now.wall.since(since);
                let work = Work {
                    run: Some((build, builder)),
                    noted: now.mono,
                    age,
                    usual,
                };
                self.connect(machine, host_type, work);
            }
            Input::Gone { machine } => self.disconnect(&machine),
            Input::Paused { why } => self.paused = Some(why),
            Input::Resumed => self.paused = None,
            Input::Tick => {}
        }
    }

    fn requested(&mut self, now: Now, mut request: Request) {
        self.end_runs(request.build);
        let (builder, max) = (request.builder.clone(), request.max_at_once);
        let item = match self.take_out(request.build) {
            Some(old) => {
                let new_back_off = old.request.not_before != request.not_before;
                request.requested = old.request.requested;
                let item = Item { request, ..old };
                if new_back_off {
                    self.with_back_off(now, item)
                } else {
                    item
                }
            }
            None => {
                let item = Item {
                    place: request.requested.min(now.wall),
                    late: Late::InTime,
                    handed_in: now.mono,
                    credit: now.wall.since(request.requested).min(self.limits.wait_limit / 2),
                    ready: now.mono,
                    stage: Stage::Queued,
                    request,
                };
                self.with_back_off(now, item)
            }
        };
        self.change_builder(&builder, |builder| {
            builder.waiting += 1;
            builder.max = max;
        });
        self.file(now, item);
    }

    /// The wall clock is asked once, here, how long the back-off is: a clock that is set back later
    /// cannot make it longer.
    fn with_back_off(&self, now: Now, item: Item) -> Item {
        let missing = item
            .request
            .not_before
            .map_or(Duration::ZERO, |at| at.since(now.wall));
        let stage = if missing.is_zero() {
            Stage::Queued
        } else {
            Stage::Asleep
        };
        Item {
            ready: now.mono.saturating_add(missing.min(self.limits.max_wait)),
            stage,
            ..item
        }
    }

    fn idle(&mut self, machine: MachineId, host_type: HostType) {
        let free = self.machines.get(&machine).is_some_and(|known| {
            known.host_type == host_type && matches!(known.state, MachineState::Idle { .. })
        });
        if free {
            return;
        }
        self.disconnect(&machine);
        self.turns += 1;
        let of_type = self.types.entry(host_type.clone()).or_default();
        of_type.machines += 1;
        of_type.idle.insert((self.turns, machine.clone()));
        let state = MachineState::Idle { turn: self.turns };
        self.machines.insert(machine, Machine { host_type, state });
    }

    /// Puts in a machine at work that is not known.
    fn connect(&mut self, machine: MachineId, host_type: HostType, work: Work) {
        self.types.entry(host_type.clone()).or_default().machines += 1;
        if let Some((build, builder)) = &work.run {
            self.runs.entry(*build).or_default().insert(machine.clone());
            self.change_builder(builder, |builder| builder.running += 1);
        }
        self.machines.insert(
            machine,
            Machine {
                host_type,
                state: MachineState::Busy(work),
            },
        );
    }

    fn disconnect(&mut self, id: &MachineId) {
        let Some(machine) = self.machines.remove(id) else {
            return;
        };
        if let Some(of_type) = self.types.get_mut(&machine.host_type) {
            of_type.machines -= 1;
            if let MachineState::Idle { turn } = machine.state {
                of_type.idle.remove(&(turn, id.clone()));
            }
        }
        if let MachineState::Busy(Work {
            run: Some((build, builder)),
            ..
        }) = machine.state
        {
            if let Some(places) = self.runs.get_mut(&build) {
                places.remove(id);
                if places.is_empty() {
                    self.runs.remove(&build);
                }
            }
            self.change_builder(&builder, |builder| builder.running -= 1);
        }
    }

    /// Its machines, of which there is one unless two claimed the build at start, stay busy.
    fn end_runs(&mut self, build: BuildId) {
        for machine in self.runs.remove(&build).unwrap_or_default() {
            let Some(Machine {
                state: MachineState::Busy(work),
                ..
            }) = self.machines.get_mut(&machine)
            else {
                continue;
            };
            if let Some((_, builder)) = work.run.take() {
                self.change_builder(&builder, |builder| builder.running -= 1);
            }
        }
    }

    /// Takes a build out of the line, for good or to hand it in anew.
    fn take_out(&mut self, build: BuildId) -> Option<Item> {
        let item = self.unfile(build)?;
        self.change_builder(&item.request.builder, |builder| builder.waiting -= 1);
        Some(item)
    }

    /// Puts a build that is counted with its builder where it belongs at `now`.
    fn file(&mut self, now: Now, mut item: Item) {
        let build = item.request.build;
        if item.waited(now) >= self.limits.max_wait {
            item.late = Late::Overdue;
        }
        if item.stage != Stage::Asleep {
            let choosy = !item.request.avoid.is_empty() && now.mono < item.choice_ends(&self.limits);
            item.stage = if choosy { Stage::Choosy } else { Stage::Queued };
        }
        let rank = item.rank();
        let request = &item.request;
        let of_type = self.types.entry(request.host_type.clone()).or_default();
        match item.stage {
            Stage::Asleep => of_type.asleep += 1,
            Stage::Choosy => {
                of_type.choosy.insert(rank);
            }
            Stage::Queued => {
                let open = self.builders.get(&request.builder).is_none_or(Builder::is_open);
                of_type.queue.insert(&request.builder, open, rank);
            }
        }
        if let (Stage::Asleep, Some(at)) = (item.stage, request.not_before) {
            self.back_offs.insert((at, build));
        }
        self.alarms.extend(self.alarm(&item));
        if item.late == Late::InTime {
            self.alarms
                .insert((item.waited_at(self.limits.max_wait), build, Alarm::Overdue));
        }
        self.ends.insert((item.waited_at(self.limits.wait_limit), build));
        self.items.insert(build, item);
    }

    /// Undoes [`Scheduler::file`].
    fn unfile(&mut self, build: BuildId) -> Option<Item> {
        let item = self.items.remove(&build)?;
        let request = &item.request;
        let rank = item.rank();
        if let Some(of_type) = self.types.get_mut(&request.host_type) {
            match item.stage {
                Stage::Asleep => of_type.asleep -= 1,
                Stage::Choosy => {
                    of_type.choosy.remove(&rank);
                }
                Stage::Queued => of_type.queue.remove(&request.builder, &rank),
            }
        }
        if let Some(at) = request.not_before {
            self.back_offs.remove(&(at, build));
        }
        if let Some(alarm) = self.alarm(&item) {
            self.alarms.remove(&alarm);
        }
        self.alarms
            .remove(&(item.waited_at(self.limits.max_wait), build, Alarm::Overdue));
        self.ends.remove(&(item.waited_at(self.limits.wait_limit), build));
        Some(item)
    }

    /// What ends the stage that `item` is in.
    fn alarm(&self, item: &Item) -> Option<(Duration, BuildId, Alarm)> {
        let build = item.request.build;
        match item.stage {
            Stage::Asleep => Some((item.ready, build, Alarm::BackOffEnds)),
            Stage::Choosy => Some((item.choice_ends(&self.limits), build, Alarm::ChoiceEnds)),
            Stage::Queued => None,
        }
    }

    /// Moves on every build for which the time has come.
    fn ring(&mut self, now: Now) {
        while let Some(build) = self.next_ring(now) {
            let Some(mut item) = self.unfile(build) else {
                return;
            };
            let woken = item.ready <= now.mono || item.request.not_before.is_some_and(|at| at <= now.wall);
            if item.stage == Stage::Asleep && woken {
                item.ready = item.ready.min(now.mono);
                item.stage = Stage::Queued;
            }
            self.file(now, item);
        }
    }

    fn next_ring(&self, now: Now) -> Option<BuildId> {
        let alarm = self
            .alarms
            .first()
            .filter(|(at, ..)| *at <= now.mono)
            .map(|(_, build, _)| *build);
        let woken = || {
            self.back_offs
                .first()
                .filter(|(at, _)| *at <= now.wall)
                .map(|(_, build)| *build)
        };
        alarm.or_else(woken)
    }

    fn grant(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.paused.is_some() {
            return;
        }
        let hopeful = self.types.iter().filter(|(_, of_type)| of_type.may_grant());
        let hopeful: Vec<HostType> = hopeful.map(|(name, _)| name.clone()).collect();
        for host_type in hopeful {
            while let Some((build, machine)) = self.next_grant(&host_type) {
                self.assign(now, build, &machine);
                actions.push(Action::Assign { build, machine });
            }
        }
    }

    fn next_grant(&self, host_type: &HostType) -> Option<(BuildId, MachineId)> {
        let of_type = self.types.get(host_type)?;
        let turn = Turn::after(of_type.grants, self.limits.oldest_every);
        let candidates = of_type.choosy.iter().copied().chain(of_type.queue.first(turn));
        candidates
            .filter_map(|rank| {
                let item = self.items.get(&rank.build)?;
                Some((rank, self.machine_for(item, of_type)?))
            })
            .min_by(|(a, _), (b, _)| turn.compare(a, b))
            .map(|(rank, machine)| (rank.build, machine.clone()))
    }

    /// A free machine that the build may have at present.
    fn machine_for<'a>(&self, item: &Item, of_type: &'a Type) -> Option<&'a MachineId> {
        let Request {
            builder,
            host_type,
            avoid,
            ..
        } = &item.request;
        if !self.builders.get(builder).is_none_or(Builder::is_open) {
            return None;
        }
        let mut free = of_type.idle.iter().map(|(_, machine)| machine);
        let any = free.clone().next();
        if let Some(other) = free.find(|machine| !avoid.contains(machine)) {
            return Some(other);
        }
        match item.stage {
            Stage::Asleep => None,
            Stage::Queued => any,
            Stage::Choosy => {
                let connected = |id: &&MachineId| {
                    self.machines
                        .get(id)
                        .is_some_and(|machine| machine.host_type == *host_type)
                };
                let no_other = avoid.iter().filter(connected).count() == of_type.machines;
                any.filter(|_| no_other)
            }
        }
    }

    fn assign(&mut self, now: Now, build: BuildId, machine: &MachineId) {
        let Some(item) = self.take_out(build) else { return };
        let Request {
            builder,
            host_type,
            class,
            usual,
            ..
        } = item.request;
        self.disconnect(machine);
        let work = Work {
            run: Some((build, builder)),
            noted: now.mono,
            age: Duration::ZERO,
            usual,
        };
        self.connect(machine.clone(), host_type.clone(), work);
        if let (Class::PostSubmit, Some(of_type)) = (class, self.types.get_mut(&host_type)) {
            of_type.grants = of_type.grants.wrapping_add(1);
        }
    }

    fn give_up(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some((at, build)) = self.ends.first().copied() {
            if at > now.mono {
                return;
            }
            let Some(item) = self.take_out(build) else { return };
            actions.push(Action::GiveUp {
                build,
                waited: item.waited(now),
            });
        }
    }

    /// Changes a builder's numbers; opens or closes its lines to match, and forgets it when it has
    /// nothing that waits or runs.
    fn change_builder(&mut self, name: &BuilderName, change: impl FnOnce(&mut Builder)) {
        let builder = self.builders.entry(name.clone()).or_default();
        let was_open = builder.is_open();
        change(builder);
        let open = builder.is_open();
        if builder.waiting == 0 && builder.running == 0 {
            self.builders.remove(name);
        }
        if open != was_open {
            for of_type in self.types.values_mut() {
                of_type.queue.set_open(name, open);
            }
        }
    }
}

impl Item {
    pub fn rank(&self) -> Rank {
        let Request {
            class,
            commit_time,
            build,
            ..
        } = self.request;
        Rank::new(class, self.late, commit_time, self.place, build)
    }

    /// When it takes any machine, if it has not started before.
    pub fn choice_ends(&self, limits: &Limits) -> Duration {
        self.ready.saturating_add(limits.avoid_for)
    }

    fn waited(&self, now: Now) -> Duration {
        self.credit + now.mono.saturating_sub(self.handed_in)
    }

    /// When it will have waited for `limit`; the start of the process if that is before it.
    fn waited_at(&self, limit: Duration) -> Duration {
        self.handed_in.saturating_add(limit).saturating_sub(self.credit)
    }
}

impl Work {
    /// How much is left of it at `now` if it takes `usual`; zero if it should be over.
    pub fn left(&self, now: Now, usual: Duration) -> Duration {
        usual.saturating_sub(self.age + now.mono.saturating_sub(self.noted))
    }
}

impl Type {
    fn may_grant(&self) -> bool {
        !self.idle.is_empty() && self.is_wanted()
    }

    /// Whether a build could be there that takes a machine.
    fn is_wanted(&self) -> bool {
        !self.queue.is_empty() || !self.choosy.is_empty()
    }

    fn is_unused(&self) -> bool {
        self.machines == 0 && self.asleep == 0 && !self.is_wanted()
    }
}

impl Builder {
    fn is_open(&self) -> bool {
        self.max.is_none_or(|max| self.running < max)
    }
}
