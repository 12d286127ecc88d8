//! Random writes, good and bad, to the store and to a model of it.

use std::collections::{BTreeMap, BTreeSet};

use farm::{Loan, Restored, RestoredAttempt, RestoredBuild, RestoredStep, Write};
use ids::{AttemptId, BuildId, BuilderName, GitHash, LoanId, MachineId};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use runner::{InfraCause, Outcome};
use store::read::Status;
use store::{Store, StoreError};

use crate::world::*;

#[derive(Clone, Default)]
struct Model {
    builds: BTreeMap<BuildId, Build>,
    cells: BTreeSet<(GitHash, BuilderName)>,
    leases: BTreeMap<MachineId, Holder>,
    loans: BTreeMap<LoanId, Loan>,
    /// Ended ones too.
    used_loans: BTreeSet<LoanId>,
    /// By name: whether it is connected.
    machines: BTreeMap<MachineId, bool>,
}

#[derive(Clone, Copy, PartialEq)]
enum Holder {
    Attempt(AttemptId),
    Loan(LoanId),
}

#[derive(Clone)]
struct Build {
    restored: RestoredBuild,
    status: Status,
}

/// Applies 600 transactions of one to three random writes; both sides must agree after each.
pub async fn run(store: &Store, seed: u8) {
    with_history(store, 4).await;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut random = TestRunner::new_with_rng(
        Config {
            failure_persistence: None,
            ..Config::default()
        },
        rng,
    );
    let transactions = prop::collection::vec(prop::collection::vec(write(), 1..4), 600);
    let mut model = Model::default();
    let mut accepted = 0;
    for writes in transactions.new_tree(&mut random).unwrap().current() {
        let mut next = model.clone();
        let good = writes.iter().all(|write| next.apply(write));
        match store.apply(&writes).await {
            Ok(()) => assert!(good, "the store took {writes:?}"),
            Err(StoreError::Conflict(why)) => assert!(!good, "the store refused {writes:?}: {why}"),
            Err(error) => panic!("{writes:?}: {error:?}"),
        }
        if good {
            accepted += 1;
            model = next;
            assert_eq!(
                store.unfinished().await.unwrap(),
                model.unfinished(),
                "after {writes:?}"
            );
        }
    }
    assert!(accepted > 40, "only {accepted} transactions said anything");
    let mut counts = BTreeMap::from(Status::ALL.map(|status| (status, 0)));
    model
        .builds
        .values()
        .for_each(|build| *counts.get_mut(&build.status).unwrap() += 1);
    assert_eq!(store.counts().await.unwrap(), counts);
    let machines = store.machines().await.unwrap();
    let found: BTreeMap<_, _> = machines
        .iter()
        .map(|row| (row.machine.clone(), row.connected))
        .collect();
    assert_eq!(found, model.machines);
    for row in machines {
        let attempt = model
            .leases
            .get(&row.machine)
            .copied()
            .and_then(|holder| match holder {
                Holder::Attempt(attempt) => Some(attempt),
                Holder::Loan(_) => None,
            });
        assert_eq!(row.running, attempt);
    }
}

fn write() -> impl Strategy<Value = Write> {
    let outcome = prop_oneof![
        Just(Outcome::Passed),
        Just(failed()),
        Just(Outcome::Infra {
            cause: InfraCause::MachineLost,
            detail: "x".to_owned()
        }),
        Just(Outcome::Infra {
            cause: InfraCause::CoordinatorRestart,
            detail: "x".to_owned()
        }),
        Just(Outcome::Cancelled { by: "ada".to_owned() }),
    ];
    (
        0..14,
        1..4_u64,
        0..5_u64,
        1..4_u32,
        0..2_u32,
        0..3,
        0..100_i64,
        any::<bool>(),
        outcome,
    )
        .prop_map(|(kind, build, depth, n, index, machine, secs, ok, outcome)| {
            let on = format!("m{machine}");
            match kind {
                0 => created(build, depth, if ok { "linux" } else { "mac" }),
                1 | 2 => started(build, n, &on, secs),
                3 => step_started(step(build, n, index), secs),
                4 => step_ended(step(build, n, index), secs, ok),
                5 => ended(build, n, secs, outcome),
                6 => waiting(build, secs, n),
                7 => done(build, secs, outcome),
                8 => up(&on, secs),
                9 => down(&on, secs),
                10 | 11 => lent(100 + secs as u64 % 6, &on, secs),
                12 => renewed(100 + secs as u64 % 6, secs),
                _ => given_back(100 + secs as u64 % 6, secs),
            }
        })
}

impl Model {
    /// Whether the store must take it.
    fn apply(&mut self, write: &Write) -> bool {
        match write {
            Write::BuildCreated(new) => {
                if self.builds.contains_key(&new.build)
                    || !self.cells.insert((new.commit.clone(), new.builder.clone()))
                {
                    return false;
                }
                let restored = RestoredBuild {
                    build: new.build,
                    repo: new.repo.clone(),
                    commit: new.commit.clone(),
                    commit_time: (0..5)
                        .find(|n| hash(*n, 0) == new.commit)
                        .map(|n| at(n as i64))
                        .unwrap(),
                    builder: new.builder.clone(),
                    requested: new.requested,
                    not_before: None,
                    tries_left: new.tries_left,
                    attempts: 0,
                    avoid: Vec::new(),
                    running: None,
                };
                self.builds.insert(
                    new.build,
                    Build {
                        restored,
                        status: Status::Waiting,
                    },
                );
                true
            }
            Write::AttemptStarted {
                attempt,
                machine,
                host_type,
                at,
                plan,
            } => {
                let Some(build) = self.builds.get_mut(&attempt.build) else {
                    return false;
                };
                let free = !self.leases.contains_key(machine);
                if build.status != Status::Waiting || build.restored.attempts + 1 != attempt.n || !free {
                    return false;
                }
                self.leases.insert(machine.clone(), Holder::Attempt(*attempt));
                build.status = Status::Running;
                build.restored.attempts += 1;
                build.restored.not_before = None;
                build.restored.running = Some(RestoredAttempt {
                    attempt: *attempt,
                    machine: machine.clone(),
                    host_type: host_type.clone(),
                    started: *at,
                    plan: plan.clone(),
                    steps: Vec::new(),
                });
                true
            }
            Write::StepStarted { step, at } => {
                let Some(running) = self.running(step.attempt) else {
                    return false;
                };
                let next = running.steps.len() == step.index as usize;
                if !next || running.steps.last().is_some_and(|step| step.ended.is_none()) {
                    return false;
                }
                running.steps.push(RestoredStep {
                    started: *at,
                    ended: None,
                });
                true
            }
            Write::StepEnded { step, at, ok, .. } => {
                let Some(running) = self.running(step.attempt) else {
                    return false;
                };
                match running.steps.get_mut(step.index as usize) {
                    Some(RestoredStep {
                        ended: ended @ None, ..
                    }) => {
                        *ended = Some((*at, *ok));
                        true
                    }
                    _ => false,
                }
            }
            Write::AttemptEnded { attempt, outcome, .. } => {
                let Some(running) = self.running(*attempt) else {
                    return false;
                };
                let machine = running.machine.clone();
                self.leases.remove(&machine);
                let build = self.builds.get_mut(&attempt.build).unwrap();
                build.status = Status::Waiting;
                build.restored.running = None;
                let counts = |cause: &InfraCause| *cause != InfraCause::CoordinatorRestart;
                if matches!(outcome, Outcome::Infra { cause, .. } if counts(cause)) {
                    let avoid: BTreeSet<_> = build.restored.avoid.drain(..).chain([machine]).collect();
                    build.restored.avoid = avoid.into_iter().collect();
                }
                true
            }
            Write::BuildWaiting {
                build,
                since,
                not_before,
                tries_left,
                ..
            } => {
                let Some(build) = self.builds.get_mut(build) else {
                    return false;
                };
                if build.status == Status::Running {
                    return false;
                }
                if build.status != Status::Waiting {
                    build.restored.avoid.clear();
                }
                build.status = Status::Waiting;
                build.restored.requested = *since;
                build.restored.not_before = *not_before;
                build.restored.tries_left = *tries_left;
                true
            }
            Write::BuildDone { build, outcome, .. } => {
                let Some(build) = self.builds.get_mut(build) else {
                    return false;
                };
                if build.status != Status::Waiting {
                    return false;
                }
                build.restored.not_before = None;
                build.status = match outcome {
                    Outcome::Passed => Status::Passed,
                    Outcome::Failed { .. } => Status::Failed,
                    Outcome::Infra { .. } => Status::Infra,
                    Outcome::Cancelled { .. } => Status::Cancelled,
                };
                true
            }
            Write::MachineUp { machine, .. } => {
                self.machines.insert(machine.clone(), true);
                true
            }
            Write::MachineDown { machine, .. } => self
                .machines
                .get_mut(machine)
                .map(|connected| *connected = false)
                .is_some(),
            Write::LoanStarted(loan) => {
                let double = self.loans.values().any(|other| other.name == loan.name);
                let used = self.used_loans.contains(&loan.loan);
                if double || used || self.leases.contains_key(&loan.machine) {
                    return false;
                }
                self.leases.insert(loan.machine.clone(), Holder::Loan(loan.loan));
                self.used_loans.insert(loan.loan);
                self.loans.insert(loan.loan, loan.clone());
                true
            }
            Write::LoanRenewed { loan, expires } => {
                let loan = self.loans.get_mut(loan);
                loan.map(|loan| loan.expires = *expires).is_some()
            }
            Write::LoanEnded { loan, .. } => match self.loans.remove(loan) {
                Some(loan) => self.leases.remove(&loan.machine).is_some(),
                None => false,
            },
            Write::IntentDone { .. } => false,
        }
    }

    fn running(&mut self, attempt: AttemptId) -> Option<&mut RestoredAttempt> {
        let running = self.builds.get_mut(&attempt.build)?.restored.running.as_mut()?;
        (running.attempt == attempt).then_some(running)
    }

    fn unfinished(&self) -> Restored {
        let open = self
            .builds
            .values()
            .filter(|build| matches!(build.status, Status::Waiting | Status::Running));
        Restored {
            last_build: self
                .used_loans
                .last()
                .map(|loan| loan.0)
                .into_iter()
                .chain(self.builds.keys().last().map(|build| build.0))
                .max()
                .unwrap_or(0),
            builds: open.map(|build| build.restored.clone()).collect(),
            loans: self.loans.values().cloned().collect(),
        }
    }
}
