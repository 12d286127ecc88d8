use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use ids::{BuildId, BuilderName, HostType, Now};

use crate::order::Turn;
use crate::queue::Queue;
use crate::scheduler::{Builder, Item, MachineState, Scheduler, Stage, Type, Work};
use crate::{Reason, Waiting};

impl Scheduler {
    /// Every waiting build once: host type after host type by name, and in each in the order in
    /// which they should start, those of which nothing can be said last.
    ///
    /// `starts` plays on from `now` with the machines there are: what runs ends when it usually does,
    /// or at once if it should have ended; then each machine takes what is next. A build whose usual
    /// time is unknown counts for the median of those of its host type that are known. What is to
    /// come, a new request or a build that becomes overdue, is not foreseen.
    pub fn explain(&self, now: Now) -> Vec<Waiting> {
        let mut items: BTreeMap<&HostType, Vec<&Item>> = BTreeMap::new();
        for item in self.items.values() {
            items.entry(&item.request.host_type).or_default().push(item);
        }
        let mut works = Works::default();
        for machine in self.machines.values() {
            if let MachineState::Busy(work) = &machine.state {
                works.by_type.entry(&machine.host_type).or_default().push(work);
                if let Some((_, builder)) = &work.run {
                    works.by_builder.entry(builder).or_default().push(work);
                }
            }
        }

        let mut all = Vec::with_capacity(self.items.len());
        for (host_type, items) in items {
            let Some(of_type) = self.types.get(host_type) else {
                continue;
            };
            let order = Forecast::new(self, now, of_type, &items, &works).play();
            for (ahead, (build, after)) in order.into_iter().enumerate() {
                let Some(item) = self.items.get(&build) else {
                    continue;
                };
                let request = &item.request;
                all.push(Waiting {
                    build,
                    builder: request.builder.clone(),
                    repo: request.repo.clone(),
                    host_type: host_type.clone(),
                    class: request.class,
                    requested: request.requested,
                    ahead,
                    reason: self.reason(now, item, of_type),
                    starts: after.map(|after| now.wall + after),
                });
            }
        }
        all
    }

    fn reason(&self, now: Now, item: &Item, of_type: &Type) -> Reason {
        let at_wall = |at: Duration| now.wall + at.saturating_sub(now.mono);
        if let Some(why) = &self.paused {
            return Reason::Paused { why: why.clone() };
        }
        if of_type.machines == 0 {
            return Reason::NoMachine;
        }
        if item.stage == Stage::Asleep {
            let until = at_wall(item.ready);
            return Reason::BackOff {
                until: item.request.not_before.map_or(until, |at| at.min(until)),
            };
        }
        if let Some(Builder {
            running,
            max: Some(max),
            ..
        }) = self.builders.get(&item.request.builder)
            && running >= max
        {
            return Reason::BuilderLimit {
                running: *running,
                max: *max,
            };
        }
        if item.stage == Stage::Choosy && !of_type.idle.is_empty() {
            return Reason::Avoiding {
                machines: of_type.idle.len(),
            };
        }
        Reason::AllBusy {
            machines: of_type.machines,
        }
    }
}

/// What the machines are at.
#[derive(Default)]
struct Works<'a> {
    by_type: BTreeMap<&'a HostType, Vec<&'a Work>>,
    by_builder: BTreeMap<&'a BuilderName, Vec<&'a Work>>,
}

/// The future of one host type. All times are from `now` on.
struct Forecast<'a> {
    scheduler: &'a Scheduler,
    queue: Queue,
    grants: u32,
    clock: Duration,
    /// When each machine comes free, as far as that is known.
    free: BinaryHeap<Reverse<Duration>>,
    wakes: BTreeSet<(Duration, Wake<'a>)>,
    /// How many run, of those builders that have a limit.
    running: BTreeMap<&'a BuilderName, u32>,
    /// What a build takes of which that is not known.
    median: Option<Duration>,
    order: Vec<(BuildId, Option<Duration>)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wake<'a> {
    /// One of the builder's builds ends; the number tells apart those that end together.
    Slot(&'a BuilderName, usize),
    Build(BuildId),
}

impl<'a> Forecast<'a> {
    fn new(
        scheduler: &'a Scheduler,
        now: Now,
        of_type: &Type,
        items: &[&'a Item],
        works: &Works<'a>,
    ) -> Forecast<'a> {
        let host_type = items.first().map(|item| &item.request.host_type);
        let busy = host_type
            .and_then(|name| works.by_type.get(name))
            .map_or(&[][..], Vec::as_slice);
        let known = items
            .iter()
            .map(|item| item.request.usual)
            .chain(busy.iter().map(|work| work.usual));
        let median = median(known.flatten().collect());
        let left = |work: &Work| Some(work.left(now, work.usual.or(median)?));

        let first_end = busy.iter().filter_map(|work| left(work)).min();
        let mut free: BinaryHeap<Reverse<Duration>> = BinaryHeap::new();
        if scheduler.paused.is_none() {
            free.extend(of_type.idle.iter().map(|_| Reverse(Duration::ZERO)));
            free.extend(busy.iter().filter_map(|work| left(work)).map(Reverse));
        }

        let queue = of_type.queue.clone();
        let mut wakes = BTreeSet::new();
        let mut running = BTreeMap::new();
        for &item in items {
            let request = &item.request;
            let wake = match item.stage {
                Stage::Queued => None,
                Stage::Asleep => {
                    let wall = request.not_before.map_or(Duration::MAX, |at| at.since(now.wall));
                    Some(item.ready.saturating_sub(now.mono).min(wall))
                }
                Stage::Choosy if of_type.idle.is_empty() => Some(Duration::ZERO),
                Stage::Choosy => {
                    let choice = item.choice_ends(&scheduler.limits).saturating_sub(now.mono);
                    Some(first_end.map_or(choice, |end| end.min(choice)))
                }
            };
            wakes.extend(wake.map(|at| (at, Wake::Build(request.build))));

            let Some(builder) = scheduler.builders.get(&request.builder) else {
                continue;
            };
            if builder.max.is_some() && running.insert(&request.builder, builder.running).is_none() {
                let runs = works
                    .by_builder
                    .get(&request.builder)
                    .map_or(&[][..], Vec::as_slice);
                let ends = runs.iter().filter_map(|work| left(work)).enumerate();
                wakes.extend(ends.map(|(n, end)| (end, Wake::Slot(&request.builder, n))));
            }
        }
        let (grants, order) = (of_type.grants, Vec::with_capacity(items.len()));
        Forecast {
            scheduler,
            queue,
            grants,
            clock: Duration::ZERO,
            free,
            wakes,
            running,
            median,
            order,
        }
    }

    fn play(mut self) -> Vec<(BuildId, Option<Duration>)> {
        while let Some(Reverse(free)) = self.free.peek() {
            self.clock = self.clock.max(*free);
            self.wake(self.clock);
            if self.start_next(Some(self.clock)) {
                continue;
            }
            let Some((at, _)) = self.wakes.first() else { break };
            self.clock = *at;
        }
        self.wake(Duration::MAX);
        self.queue.open_all();
        self.running.clear();
        while self.start_next(None) {}
        self.order
    }

    fn wake(&mut self, clock: Duration) {
        while let Some((at, wake)) = self.wakes.pop_first() {
            if at > clock {
                self.wakes.insert((at, wake));
                return;
            }
            match wake {
                Wake::Build(build) => {
                    let Some(item) = self.scheduler.items.get(&build) else {
                        continue;
                    };
                    let builder = &item.request.builder;
                    self.queue.insert(builder, self.is_open(builder), item.rank());
                }
                Wake::Slot(builder, _) => {
                    if let Some(running) = self.running.get_mut(builder) {
                        *running = running.saturating_sub(1);
                    }
                    self.queue.set_open(builder, self.is_open(builder));
                }
            }
        }
    }

    /// Takes the next build off the queue; whether there was one. It takes a machine if it has a
    /// time to start at.
    fn start_next(&mut self, starts: Option<Duration>) -> bool {
        let turn = Turn::after(self.grants, self.scheduler.limits.oldest_every);
        let Some(rank) = self.queue.first(turn) else {
            return false;
        };
        let Some(item) = self.scheduler.items.get(&rank.build) else {
            return false;
        };
        let builder = &item.request.builder;
        self.queue.remove(builder, &rank);
        if rank.age().is_some() {
            self.grants = self.grants.wrapping_add(1);
        }
        self.order.push((rank.build, starts));
        let Some(starts) = starts else { return true };

        self.free.pop();
        let ends = item
            .request
            .usual
            .or(self.median)
            .map(|usual| starts.saturating_add(usual));
        self.free.extend(ends.map(Reverse));
        if let Some(running) = self.running.get_mut(builder) {
            *running += 1;
            let n = self.order.len() + self.scheduler.machines.len();
            self.wakes.extend(ends.map(|ends| (ends, Wake::Slot(builder, n))));
            self.queue.set_open(builder, self.is_open(builder));
        }
        true
    }

    fn is_open(&self, builder: &BuilderName) -> bool {
        let max = self
            .scheduler
            .builders
            .get(builder)
            .and_then(|builder| builder.max);
        match (self.running.get(builder), max) {
            (Some(running), Some(max)) => *running < max,
            (None, _) | (_, None) => true,
        }
    }
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}
