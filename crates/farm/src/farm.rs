mod loans;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use config::Config;
use ids::{
    AttemptId, BuildId, BuilderName, GitHash, HostType, LoanId, MachineId, Now, RepoName, StepId, Timestamp,
};
use runner::{InfraCause, Outcome, Record, Runner, StepPlan};
use schedule::{Class, Request, Scheduler, Waiting};

use crate::{Loan, MachineFacts, NewBuild, Restored, RestoredBuild, Write, plan};

use loans::Asked;
pub use loans::{IDLE_LIMIT, MOST_LOANS, Ticket, WaitingLoan};

/// How often an infra attempt is tried again by itself before the build ends as infra.
pub const RETRIES: u32 = 3;

/// How long before each of those. Source: the limits of spec coordinator 2.9.
pub const BACK_OFF: [Duration; RETRIES as usize] = [
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1500),
];

/// A cell that should have a build and has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    pub repo: RepoName,
    pub commit: GitHash,
    pub commit_time: Timestamp,
    pub builder: BuilderName,
}

#[derive(Debug, Clone)]
pub enum Input {
    /// Another configuration holds from here on. Attempts that run keep theirs.
    Configured(Arc<Config>),
    Wanted(Vec<Want>),
    /// How long a builder usually takes on a repository.
    Usual(BTreeMap<(RepoName, BuilderName), Duration>),
    /// A machine is connected. It is free unless one of the attempts here says otherwise.
    MachineUp {
        machine: MachineId,
        host_type: HostType,
        facts: MachineFacts,
    },
    MachineDown {
        machine: MachineId,
        why: String,
        may_return: bool,
    },
    /// A released machine has been cleaned.
    MachineFree {
        machine: MachineId,
    },
    Attempt {
        attempt: AttemptId,
        event: runner::Input,
    },
    /// A person wants another attempt. `finished` is the build as stored, for one that had ended.
    Retry {
        intent: i64,
        build: BuildId,
        by: String,
        finished: Option<RestoredBuild>,
    },
    /// A person wants no attempt. Answered when none runs any more; to be told again after a restart before
    /// that, and harmless to tell twice.
    Cancel {
        intent: i64,
        build: BuildId,
        by: String,
    },
    /// Somebody wants a machine such as `builder` has, for themselves. Answered by [`Effect::Lent`] or
    /// [`Effect::NotLent`], once.
    Borrow {
        ticket: Ticket,
        owner: String,
        builder: BuilderName,
    },
    /// Whoever asked so is gone.
    Unask {
        ticket: Ticket,
    },
    /// Its owner does something with the machine.
    LoanUsed {
        loan: LoanId,
    },
    LoanReturned {
        loan: LoanId,
        by: String,
    },
    Paused {
        why: String,
    },
    Resumed,
    /// Time has passed.
    Tick,
}

/// What people asked for and nobody has answered, oldest first in and out: of each build the first, to be handed in
/// together, and the rest. What an answer to the first makes of its build, the second must be looked up after.
pub fn first_of_each<W>(
    open: impl IntoIterator<Item = W>,
    build: impl Fn(&W) -> BuildId,
) -> (Vec<W>, Vec<W>) {
    let mut seen = BTreeSet::new();
    open.into_iter().partition(|wish| seen.insert(build(wish)))
}

/// What to do, once everything in `writes` of the same [`Step`] is durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Clean the machine and bring the source.
    Prepare {
        attempt: AttemptId,
        machine: MachineId,
        repo: RepoName,
        commit: GitHash,
        source_dir: String,
    },
    StartStep {
        step: StepId,
        machine: MachineId,
        spec: StepPlan,
    },
    /// Take up the output of a step that another process started. Never starts it.
    FollowStep {
        step: StepId,
        machine: MachineId,
    },
    KillStep {
        step: StepId,
        machine: MachineId,
    },
    /// The machine is the asker's; nothing of ours runs on it.
    Lent {
        ticket: Ticket,
        loan: Loan,
    },
    NotLent {
        ticket: Ticket,
        why: String,
    },
    /// Its owner reaches the machine no more, whatever is under way.
    CutLoan {
        loan: LoanId,
    },
    /// Nobody holds the machine: clean it and answer [`Input::MachineFree`].
    Release {
        machine: MachineId,
    },
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Step {
    pub writes: Vec<Write>,
    pub effects: Vec<Effect>,
}

/// Everything unfinished, and what is known of the machines.
pub struct Farm {
    config: Arc<Config>,
    scheduler: Scheduler,
    builds: BTreeMap<BuildId, Build>,
    /// Those of them that run, by when each has to be looked at (mono); and the same by build.
    due: BTreeSet<(Duration, BuildId)>,
    due_of: BTreeMap<BuildId, Duration>,
    /// Unfinished builds by cell, so that no cell gets two.
    cells: BTreeSet<(RepoName, GitHash, BuilderName)>,
    machines: BTreeMap<MachineId, Machine>,
    loans: BTreeMap<LoanId, Asked>,
    usual: BTreeMap<(RepoName, BuilderName), Duration>,
    /// The number last given to a build or a loan.
    last_build: u64,
}

struct Build {
    repo: RepoName,
    commit: GitHash,
    commit_time: Timestamp,
    builder: BuilderName,
    requested: Timestamp,
    tries_left: u32,
    attempts: u32,
    avoid: BTreeSet<MachineId>,
    /// Back-off; only while it waits.
    not_before: Option<Timestamp>,
    /// `None` while it waits.
    running: Option<Running>,
}

struct Running {
    attempt: AttemptId,
    machine: MachineId,
    started: Timestamp,
    runner: Runner,
    /// Wishes of people to cancel it. Answered when it has ended: until then a restart must find them open.
    cancels: BTreeSet<i64>,
}

struct Machine {
    host_type: HostType,
    connected: bool,
    held: Option<Holder>,
}

/// Whose a machine is.
#[derive(Clone, Copy)]
enum Holder {
    /// Its running attempt's.
    Build(BuildId),
    Loan(LoanId),
}

impl Farm {
    /// Takes up what the store holds. Nothing is done on a machine before it is [`Input::MachineUp`].
    pub fn restore(now: Now, config: Arc<Config>, restored: Restored) -> (Farm, Step) {
        let limits = schedule::Limits {
            wait_limit: config.farm.wait_limit,
            ..schedule::Limits::default()
        };
        let mut farm = Farm {
            config,
            scheduler: Scheduler::new(limits),
            builds: BTreeMap::new(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            cells: BTreeSet::new(),
            machines: BTreeMap::new(),
            loans: BTreeMap::new(),
            usual: BTreeMap::new(),
            last_build: restored.last_build,
        };
        let mut step = Step::default();
        for stored in restored.builds {
            let id = stored.build;
            farm.take_up(now, stored, &mut step);
            if farm.builds.get(&id).is_some_and(|build| build.running.is_none()) {
                farm.enqueue(now, id, &mut step);
            }
        }
        for loan in restored.loans {
            farm.restore_loan(now, loan, &mut step);
        }
        (farm, step)
    }

    /// Takes in what happened at `now`; says what to write, and what to do when that is durable.
    pub fn handle(&mut self, now: Now, input: Input) -> Step {
        let mut step = Step::default();
        match input {
            Input::Configured(config) => self.configured(now, config, &mut step),
            Input::Wanted(wants) => wants.into_iter().for_each(|want| self.want(now, want, &mut step)),
            Input::Usual(usual) => self.usual = usual,
            Input::MachineUp {
                machine,
                host_type,
                facts,
            } => self.machine_up(now, machine, host_type, facts, &mut step),
            Input::MachineDown {
                machine,
                why,
                may_return,
            } => self.machine_down(now, machine, why, may_return, &mut step),
            Input::MachineFree { machine } => self.machine_free(now, machine, &mut step),
            Input::Attempt { attempt, event } => self.attempt(now, attempt, event, &mut step),
            Input::Retry {
                intent,
                build,
                by,
                finished,
            } => self.retry(now, intent, build, by, finished, &mut step),
            Input::Cancel { intent, build, by } => self.cancel(now, intent, build, by, &mut step),
            Input::Borrow {
                ticket,
                owner,
                builder,
            } => self.borrow(now, ticket, owner, builder, &mut step),
            Input::Unask { ticket } => self.unask(now, ticket, &mut step),
            Input::LoanUsed { loan } => self.loan_used(now, loan, &mut step),
            Input::LoanReturned { loan, by } => self.loan_returned(now, loan, &by, &mut step),
            Input::Paused { why } => self.schedule(now, schedule::Input::Paused { why }, &mut step),
            Input::Resumed => self.schedule(now, schedule::Input::Resumed, &mut step),
            Input::Tick => self.tick(now, &mut step),
        }
        step
    }

    /// When to send [`Input::Tick`] at the latest (mono).
    pub fn next_deadline(&self, now: Now) -> Option<Duration> {
        let runners = self.due.first().map(|(at, _)| *at);
        let loans = self.loans.values().filter_map(Asked::ends);
        runners
            .into_iter()
            .chain(loans)
            .chain(self.scheduler.next_deadline(now))
            .min()
    }

    /// Whether an effect makes sense still. What one input wants done, another of the same transaction may have made
    /// pointless: an attempt that has begun and ended in it was never there for its machine.
    pub fn stands(&self, effect: &Effect) -> bool {
        match effect {
            Effect::Prepare { attempt, .. } => self.runs(*attempt),
            Effect::StartStep { step, .. }
            | Effect::FollowStep { step, .. }
            | Effect::KillStep { step, .. } => self.runs(step.attempt),
            // Whoever asked is answered, whatever came of it since.
            Effect::Lent { .. } | Effect::NotLent { .. } | Effect::CutLoan { .. } => true,
            Effect::Release { machine } => self.machines.get(machine).is_some_and(|host| host.held.is_none()),
        }
    }

    /// All that waits, in order, each with its reason: builds, and loans apart.
    pub fn explain(&self, now: Now) -> (Vec<Waiting>, Vec<WaitingLoan>) {
        let mut waiting = self.scheduler.explain(now);
        let loans = self.take_loans(&mut waiting);
        (waiting, loans)
    }

    /// Whether the build is unfinished, and so this core's to decide about.
    pub fn has(&self, build: BuildId) -> bool {
        self.builds.contains_key(&build)
    }

    /// `(waiting, running)`
    pub fn counts(&self) -> (usize, usize) {
        let running = self.due_of.len();
        (self.builds.len() - running, running)
    }

    /// Keeps [`Farm::due`] true of a build that may have begun, gone on or ended.
    fn note_due(&mut self, id: BuildId) {
        let running = self.builds.get(&id).and_then(|build| build.running.as_ref());
        let at = running.map(|running| running.runner.next_deadline().unwrap_or(Duration::MAX));
        let was = match at {
            Some(at) => self.due_of.insert(id, at),
            None => self.due_of.remove(&id),
        };
        if was == at {
            return;
        }
        if let Some(was) = was {
            self.due.remove(&(was, id));
        }
        self.due.extend(at.map(|at| (at, id)));
    }

    fn runs(&self, attempt: AttemptId) -> bool {
        let running = self
            .builds
            .get(&attempt.build)
            .and_then(|build| build.running.as_ref());
        running.is_some_and(|running| running.attempt == attempt)
    }

    fn take_up(&mut self, now: Now, stored: RestoredBuild, step: &mut Step) {
        // A wall clock that was set back would make a minute of back-off a day.
        let longest = now.wall + BACK_OFF[BACK_OFF.len() - 1];
        let mut build = Build {
            repo: stored.repo,
            commit: stored.commit,
            commit_time: stored.commit_time,
            builder: stored.builder,
            requested: stored.requested,
            tries_left: stored.tries_left,
            attempts: stored.attempts,
            avoid: stored.avoid.into_iter().collect(),
            not_before: stored.not_before.map(|at| at.min(longest)),
            running: None,
        };
        let (mut actions, mut busy) = (Vec::new(), None);
        if let Some(held) = stored.running {
            let steps: Vec<Option<bool>> = held
                .steps
                .iter()
                .map(|step| step.ended.map(|(_, ok)| ok))
                .collect();
            let age = now.wall.since(held.started);
            let (runner, first) = Runner::restore(held.plan, now, age, &steps);
            actions = first;
            let machine = Machine {
                host_type: held.host_type.clone(),
                connected: false,
                held: Some(Holder::Build(stored.build)),
            };
            self.machines.insert(held.machine.clone(), machine);
            busy = Some((held.machine.clone(), held.host_type, held.started));
            build.running = Some(Running {
                attempt: held.attempt,
                machine: held.machine,
                started: held.started,
                runner,
                cancels: BTreeSet::new(),
            });
        }
        self.cells
            .insert((build.repo.clone(), build.commit.clone(), build.builder.clone()));
        let builder = build.builder.clone();
        self.builds.insert(stored.build, build);
        if let Some((machine, host_type, since)) = busy {
            // Out of reach or not, it runs and counts: for its builder's limit, and for who waits for its machine.
            self.busy(now, machine, host_type, builder, stored.build, since, step);
        }
        self.note_due(stored.build);
        self.perform(now, stored.build, actions, step);
    }

    fn configured(&mut self, now: Now, config: Arc<Config>, step: &mut Step) {
        self.scheduler.set_wait_limit(config.farm.wait_limit);
        self.config = config;
        let waiting: Vec<BuildId> = self
            .builds
            .iter()
            .filter(|(_, build)| build.running.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.enqueue(now, id, step);
        }
        self.configure_loans(now, step);
    }

    fn want(&mut self, now: Now, want: Want, step: &mut Step) {
        let cell = (want.repo, want.commit, want.builder);
        if self.cells.contains(&cell) || plan(&self.config, &cell.0, &cell.2, &cell.1).is_none() {
            return;
        }
        self.last_build += 1;
        let id = BuildId(self.last_build);
        let (repo, commit, builder) = cell.clone();
        self.cells.insert(cell);
        let (tries_left, requested) = (RETRIES, now.wall);
        step.writes.push(Write::BuildCreated(NewBuild {
            build: id,
            repo: repo.clone(),
            commit: commit.clone(),
            builder: builder.clone(),
            requested,
            tries_left,
        }));
        let build = Build {
            repo,
            commit,
            commit_time: want.commit_time,
            builder,
            requested,
            tries_left,
            attempts: 0,
            avoid: BTreeSet::new(),
            not_before: None,
            running: None,
        };
        self.builds.insert(id, build);
        self.enqueue(now, id, step);
    }

    /// Hands a waiting build to the scheduler, or ends it when the configuration has no place for it.
    /// One that has got a machine by then, as another was handed in, is left alone.
    fn enqueue(&mut self, now: Now, id: BuildId, step: &mut Step) {
        let Some(build) = self.builds.get(&id).filter(|build| build.running.is_none()) else {
            return;
        };
        let conf = self.config.builders.get(&build.builder);
        let planned = plan(&self.config, &build.repo, &build.builder, &build.commit);
        let (Some(conf), Some(_)) = (conf, planned) else {
            let by = "the configuration: its repository or builder is gone".to_owned();
            self.schedule(now, schedule::Input::Withdrawn { build: id }, step);
            self.done(now, id, Outcome::Cancelled { by }, step);
            return;
        };
        let request = Request {
            build: id,
            builder: build.builder.clone(),
            repo: build.repo.clone(),
            host_type: conf.host.clone(),
            class: Class::PostSubmit,
            commit_time: build.commit_time,
            requested: build.requested,
            not_before: build.not_before,
            avoid: build.avoid.clone(),
            max_at_once: conf.max_at_once,
            usual: self
                .usual
                .get(&(build.repo.clone(), build.builder.clone()))
                .copied(),
        };
        self.schedule(now, schedule::Input::Requested(request), step);
    }

    fn schedule(&mut self, now: Now, input: schedule::Input, step: &mut Step) {
        for action in self.scheduler.handle(now, input) {
            match action {
                schedule::Action::Assign { build, machine } => match self.as_loan(build) {
                    Some(loan) => self.lend(now, loan, machine, step),
                    None => self.assign(now, build, machine, step),
                },
                schedule::Action::GiveUp { build, waited } => {
                    let detail = format!("no machine took it in {} min", waited.as_secs() / 60);
                    if let Some(loan) = self.as_loan(build) {
                        self.refuse_loan(loan, detail, step);
                        continue;
                    }
                    self.done(
                        now,
                        build,
                        Outcome::Infra {
                            cause: InfraCause::NoMachine,
                            detail,
                        },
                        step,
                    );
                }
            }
        }
    }

    fn assign(&mut self, now: Now, id: BuildId, machine: MachineId, step: &mut Step) {
        let (Some(build), Some(host)) = (self.builds.get_mut(&id), self.machines.get_mut(&machine)) else {
            return;
        };
        // The plan is there: `enqueue` withdraws every build that has none.
        let Some(plan) = plan(&self.config, &build.repo, &build.builder, &build.commit) else {
            return;
        };
        build.attempts += 1;
        build.not_before = None;
        let attempt = AttemptId {
            build: id,
            n: build.attempts,
        };
        host.held = Some(Holder::Build(id));
        let host_type = host.host_type.clone();
        step.writes.push(Write::AttemptStarted {
            attempt,
            machine: machine.clone(),
            host_type: host_type.clone(),
            at: now.wall,
            plan: plan.clone(),
        });
        let (runner, actions) = Runner::new(plan, now);
        build.running = Some(Running {
            attempt,
            machine,
            started: now.wall,
            runner,
            cancels: BTreeSet::new(),
        });
        self.note_due(id);
        self.perform(now, id, actions, step);
    }

    fn attempt(&mut self, now: Now, attempt: AttemptId, event: runner::Input, step: &mut Step) {
        let Some(running) = self
            .builds
            .get_mut(&attempt.build)
            .and_then(|build| build.running.as_mut())
        else {
            return;
        };
        if running.attempt == attempt {
            let actions = running.runner.handle(now, event);
            self.note_due(attempt.build);
            self.perform(now, attempt.build, actions, step);
        }
    }

    /// Turns what a runner wants into writes and effects.
    fn perform(&mut self, now: Now, id: BuildId, actions: Vec<runner::Action>, step: &mut Step) {
        for action in actions {
            let Some(build) = self.builds.get(&id) else { return };
            let Some(running) = &build.running else { return };
            let (attempt, machine) = (running.attempt, running.machine.clone());
            let step_id = |index| StepId { attempt, index };
            match action {
                runner::Action::Prepare => step.effects.push(Effect::Prepare {
                    attempt,
                    machine,
                    repo: build.repo.clone(),
                    commit: build.commit.clone(),
                    source_dir: running.runner.plan().source_dir.clone(),
                }),
                runner::Action::StartStep { index } => {
                    let spec = running.runner.plan().steps[index as usize].clone();
                    step.effects.push(Effect::StartStep {
                        step: step_id(index),
                        machine,
                        spec,
                    });
                }
                runner::Action::FollowStep { index } => {
                    step.effects.push(Effect::FollowStep {
                        step: step_id(index),
                        machine,
                    });
                }
                runner::Action::KillStep { index } => {
                    step.effects.push(Effect::KillStep {
                        step: step_id(index),
                        machine,
                    });
                }
                runner::Action::Record(Record::StepStarted { index }) => {
                    step.writes.push(Write::StepStarted {
                        step: step_id(index),
                        at: now.wall,
                    });
                }
                runner::Action::Record(Record::StepEnded { index, ok, state }) => {
                    step.writes.push(Write::StepEnded {
                        step: step_id(index),
                        at: now.wall,
                        ok,
                        state,
                    });
                }
                runner::Action::Record(Record::Ended(outcome)) => self.attempt_ended(now, id, outcome, step),
            }
        }
    }

    fn attempt_ended(&mut self, now: Now, id: BuildId, outcome: Outcome, step: &mut Step) {
        let Some(build) = self.builds.get_mut(&id) else {
            return;
        };
        let Some(running) = build.running.take() else {
            return;
        };
        self.note_due(id);
        let at = now.wall;
        step.writes.push(Write::AttemptEnded {
            attempt: running.attempt,
            at,
            outcome: outcome.clone(),
        });
        let cancelled = matches!(outcome, Outcome::Cancelled { .. });
        for intent in running.cancels {
            let answer = if cancelled {
                "cancelled"
            } else {
                "it was about to end, and has"
            };
            self.answer(now, intent, answer, step);
        }
        if let Some(host) = self.machines.get_mut(&running.machine) {
            host.held = None;
            if host.connected {
                step.effects.push(Effect::Release {
                    machine: running.machine.clone(),
                });
            } else {
                self.forget(now, running.machine.clone(), step);
            }
        }
        let Some(build) = self.builds.get_mut(&id) else {
            return;
        };
        let Outcome::Infra { cause, detail } = &outcome else {
            return self.done(now, id, outcome, step);
        };
        let counted = *cause != InfraCause::CoordinatorRestart;
        if counted && build.tries_left == 0 {
            return self.done(now, id, outcome, step);
        }
        if counted {
            build.avoid.insert(running.machine);
            build.not_before = Some(at + BACK_OFF[(RETRIES - build.tries_left.min(RETRIES)) as usize]);
            build.tries_left -= 1;
        }
        step.writes.push(Write::BuildWaiting {
            build: id,
            since: build.requested,
            not_before: build.not_before,
            tries_left: build.tries_left,
            why: format!("attempt {} was lost: {detail}", running.attempt.n),
        });
        self.enqueue(now, id, step);
    }

    /// The build is over; it is the scheduler's and this core's business no more.
    fn done(&mut self, now: Now, id: BuildId, outcome: Outcome, step: &mut Step) {
        if let Some(build) = self.builds.remove(&id) {
            self.cells.remove(&(build.repo, build.commit, build.builder));
            step.writes.push(Write::BuildDone {
                build: id,
                at: now.wall,
                outcome,
            });
        }
    }

    fn machine_up(
        &mut self,
        now: Now,
        machine: MachineId,
        host_type: HostType,
        facts: MachineFacts,
        step: &mut Step,
    ) {
        let (at, resumable) = (now.wall, facts.resumable);
        step.writes.push(Write::MachineUp {
            machine: machine.clone(),
            host_type: host_type.clone(),
            at,
            facts,
        });
        let held = self.machines.get(&machine).and_then(|known| known.held);
        let fresh = Machine {
            host_type: host_type.clone(),
            connected: true,
            held,
        };
        self.machines.insert(machine.clone(), fresh);
        if let Some(Holder::Loan(loan)) = held {
            return self.lent_machine_up(now, loan, machine, host_type, resumable, step);
        }
        let Some((id, running)) = held.and_then(|held| match held {
            Holder::Build(id) => Some((id, self.builds.get_mut(&id)?.running.as_mut()?)),
            Holder::Loan(_) => None,
        }) else {
            // Whatever an earlier attempt left there is cleaned before anything is assigned.
            step.effects.push(Effect::Release { machine });
            return;
        };
        let attempt = running.attempt;
        let (since, builder) = (running.started, self.builds[&id].builder.clone());
        self.busy(now, machine, host_type, builder, id, since, step);
        let event = if resumable {
            runner::Input::LinkBack
        } else {
            runner::Input::MachineGone {
                why: "the machine came back without the running command".to_owned(),
            }
        };
        self.attempt(now, attempt, event, step);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one input")]
    fn busy(
        &mut self,
        now: Now,
        machine: MachineId,
        host_type: HostType,
        builder: BuilderName,
        build: BuildId,
        since: Timestamp,
        step: &mut Step,
    ) {
        let repo = self.builds.get(&build).map(|build| build.repo.clone());
        let usual = repo.and_then(|repo| self.usual.get(&(repo, builder.clone())).copied());
        let busy = schedule::Input::Busy {
            machine,
            host_type,
            builder,
            build,
            since,
            usual,
        };
        self.schedule(now, busy, step);
    }

    /// The machine is neither connected nor held any more.
    fn forget(&mut self, now: Now, machine: MachineId, step: &mut Step) {
        self.machines.remove(&machine);
        self.schedule(now, schedule::Input::Gone { machine }, step);
    }

    fn machine_down(&mut self, now: Now, machine: MachineId, why: String, may_return: bool, step: &mut Step) {
        let Some(host) = self.machines.get_mut(&machine) else {
            return;
        };
        host.connected = false;
        let held = host.held;
        step.writes.push(Write::MachineDown {
            machine: machine.clone(),
            at: now.wall,
            why: why.clone(),
        });
        // What is held stays in the scheduler's count until it is given up: the command may well run on.
        match held {
            None => self.forget(now, machine, step),
            Some(Holder::Build(id)) => {
                let running = self.builds.get(&id).and_then(|build| build.running.as_ref());
                if let Some(attempt) = running.map(|running| running.attempt) {
                    let event = if may_return {
                        runner::Input::LinkLost
                    } else {
                        runner::Input::MachineGone { why }
                    };
                    self.attempt(now, attempt, event, step);
                }
            }
            // One that may return stays lent: until it does, or the loan's time is up.
            Some(Holder::Loan(loan)) if !may_return => {
                self.end_loan(now, loan, format!("its machine was lost: {why}"), step);
            }
            Some(Holder::Loan(_)) => {}
        }
    }

    fn machine_free(&mut self, now: Now, machine: MachineId, step: &mut Step) {
        if let Some(host) = self.machines.get(&machine)
            && host.connected
            && host.held.is_none()
        {
            let host_type = host.host_type.clone();
            self.schedule(now, schedule::Input::Idle { machine, host_type }, step);
        }
    }

    fn retry(
        &mut self,
        now: Now,
        intent: i64,
        id: BuildId,
        by: String,
        finished: Option<RestoredBuild>,
        step: &mut Step,
    ) {
        let answer = match (self.builds.get_mut(&id), finished) {
            (Some(build), _) if build.running.is_some() => "it is running already",
            (Some(build), _) => {
                build.not_before = None;
                build.tries_left = RETRIES;
                "it waits already; any back-off is over"
            }
            (None, Some(mut stored)) => {
                stored.running = None;
                stored.not_before = None;
                stored.requested = now.wall;
                stored.tries_left = RETRIES;
                stored.avoid.clear();
                self.take_up(now, stored, step);
                "waiting for a machine"
            }
            // It ended since the look that found it here: the next look brings it along.
            (None, None) if id.0 <= self.last_build => return,
            (None, None) => "there is no such build",
        };
        if let Some(build) = self.builds.get(&id).filter(|build| build.running.is_none()) {
            step.writes.push(Write::BuildWaiting {
                build: id,
                since: build.requested,
                not_before: None,
                tries_left: build.tries_left,
                why: format!("asked for by {by}"),
            });
            self.enqueue(now, id, step);
        }
        self.answer(now, intent, answer, step);
    }

    fn cancel(&mut self, now: Now, intent: i64, id: BuildId, by: String, step: &mut Step) {
        let Some(build) = self.builds.get_mut(&id) else {
            return self.answer(now, intent, "it has ended already", step);
        };
        if let Some(running) = &mut build.running {
            if running.cancels.insert(intent) {
                let attempt = running.attempt;
                self.attempt(now, attempt, runner::Input::Cancel { by }, step);
            }
            return;
        }
        self.schedule(now, schedule::Input::Withdrawn { build: id }, step);
        self.done(now, id, Outcome::Cancelled { by }, step);
        self.answer(now, intent, "cancelled", step);
    }

    fn answer(&mut self, now: Now, intent: i64, answer: &str, step: &mut Step) {
        step.writes.push(Write::IntentDone {
            intent,
            at: now.wall,
            answer: answer.to_owned(),
        });
    }

    fn tick(&mut self, now: Now, step: &mut Step) {
        let due = self.due.iter().take_while(|(at, _)| *at <= now.mono);
        let mut due: Vec<AttemptId> = due
            .filter_map(|(_, id)| Some(self.builds.get(id)?.running.as_ref()?.attempt))
            .collect();
        due.sort_unstable();
        for attempt in due {
            self.attempt(now, attempt, runner::Input::Tick, step);
        }
        self.end_idle_loans(now, step);
        self.schedule(now, schedule::Input::Tick, step);
    }
}
