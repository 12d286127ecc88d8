use std::collections::{BTreeMap, BTreeSet};

use farm::{Loan, Restored, RestoredAttempt, RestoredBuild, RestoredStep, Write};
use ids::{AttemptId, BuildId, BuilderName, GitHash, HostType, LoanId, MachineId, RepoName, Timestamp};
use runner::{InfraCause, Outcome, Plan};

/// What must never happen, in words, with where it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

pub(crate) fn broken<T>(what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation(what.into()))
}

/// The farm store as it should behave: small, in memory, and strict about every transition.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Of the one repository there is.
    cells: BTreeMap<(GitHash, BuilderName), BuildId>,
    pub builds: BTreeMap<BuildId, ModelBuild>,
    pub leases: BTreeMap<MachineId, Holder>,
    pub loans: BTreeMap<LoanId, Loan>,
    /// Ended ones too.
    pub all_loans: BTreeSet<LoanId>,
    pub answered: BTreeSet<i64>,
}

/// Whose a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    Attempt(AttemptId),
    Loan(LoanId),
}

#[derive(Debug, Clone)]
pub struct ModelBuild {
    pub repo: RepoName,
    pub commit: GitHash,
    pub builder: BuilderName,
    pub requested: Timestamp,
    pub not_before: Option<Timestamp>,
    pub tries_left: u32,
    pub done: Option<Outcome>,
    /// How often a person asked for it again.
    pub asked: u32,
    pub attempts: Vec<ModelAttempt>,
}

impl ModelBuild {
    pub fn runs(&self) -> bool {
        self.attempts.last().is_some_and(|last| last.outcome.is_none())
    }
}

#[derive(Debug, Clone)]
pub struct ModelAttempt {
    pub machine: MachineId,
    pub host_type: HostType,
    pub started: Timestamp,
    pub plan: Plan,
    pub steps: Vec<RestoredStep>,
    pub outcome: Option<Outcome>,
}

impl Model {
    /// A violation is the end of the world: what was applied before it stays.
    pub fn apply(&mut self, writes: &[Write]) -> Result<(), Violation> {
        writes.iter().try_for_each(|write| self.apply_one(write))
    }

    pub fn build_of(&self, commit: &GitHash, builder: &BuilderName) -> Option<&ModelBuild> {
        let id = self.cells.get(&(commit.clone(), builder.clone()))?;
        self.builds.get(id)
    }

    /// The attempt, while it runs.
    pub fn running(&self, id: AttemptId) -> Option<&ModelAttempt> {
        let attempts = &self.builds.get(&id.build)?.attempts;
        attempts
            .get(id.n as usize - 1)
            .filter(|attempt| attempt.outcome.is_none())
    }

    fn attempt(&mut self, id: AttemptId) -> Result<&mut ModelAttempt, Violation> {
        let build = self.builds.get_mut(&id.build);
        match build.and_then(|build| build.attempts.get_mut(id.n as usize - 1)) {
            Some(attempt) if attempt.outcome.is_none() => Ok(attempt),
            Some(_) => broken(format!("attempt {id} was written to after its end")),
            None => broken(format!("attempt {id} was written to before its start")),
        }
    }

    fn apply_one(&mut self, write: &Write) -> Result<(), Violation> {
        match write {
            Write::BuildCreated(new) => {
                let cell = (new.commit.clone(), new.builder.clone());
                let number =
                    self.builds.contains_key(&new.build) || self.all_loans.contains(&LoanId(new.build.0));
                if number || self.cells.insert(cell, new.build).is_some() {
                    return broken(format!("build {} was created twice", new.build));
                }
                let build = ModelBuild {
                    repo: new.repo.clone(),
                    commit: new.commit.clone(),
                    builder: new.builder.clone(),
                    requested: new.requested,
                    not_before: None,
                    tries_left: new.tries_left,
                    done: None,
                    asked: 0,
                    attempts: Vec::new(),
                };
                self.builds.insert(new.build, build);
            }
            Write::AttemptStarted {
                attempt,
                machine,
                host_type,
                at,
                plan,
            } => {
                self.lease(machine, Holder::Attempt(*attempt))?;
                let Some(build) = self.builds.get_mut(&attempt.build) else {
                    return broken(format!("attempt {attempt} of an unknown build"));
                };
                if build.done.is_some() || build.attempts.last().is_some_and(|last| last.outcome.is_none()) {
                    return broken(format!(
                        "attempt {attempt} was started though the build did not wait"
                    ));
                }
                if build.attempts.len() + 1 != attempt.n as usize {
                    return broken(format!("attempt {attempt} came after {}", build.attempts.len()));
                }
                build.attempts.push(ModelAttempt {
                    machine: machine.clone(),
                    host_type: host_type.clone(),
                    started: *at,
                    plan: plan.clone(),
                    steps: Vec::new(),
                    outcome: None,
                });
            }
            Write::StepStarted { step, at } => {
                let attempt = self.attempt(step.attempt)?;
                if attempt.steps.len() != step.index as usize {
                    return broken(format!("step {step} was started out of order or twice"));
                }
                if attempt
                    .steps
                    .last()
                    .is_some_and(|last| !matches!(last.ended, Some((_, true))))
                {
                    return broken(format!(
                        "step {step} was started before the one before it had passed"
                    ));
                }
                attempt.steps.push(RestoredStep {
                    started: *at,
                    ended: None,
                });
            }
            Write::StepEnded { step, at, ok, .. } => {
                match self.attempt(step.attempt)?.steps.get_mut(step.index as usize) {
                    Some(stored) if stored.ended.is_none() => stored.ended = Some((*at, *ok)),
                    _ => return broken(format!("step {step} ended twice, or without a start")),
                }
            }
            Write::AttemptEnded { attempt, outcome, .. } => {
                let stored = self.attempt(*attempt)?;
                let all = stored.steps.len() == stored.plan.steps.len()
                    && stored
                        .steps
                        .iter()
                        .all(|step| matches!(step.ended, Some((_, true))));
                if *outcome == Outcome::Passed && !all {
                    return broken(format!("attempt {attempt} passed without all steps passing"));
                }
                stored.outcome = Some(outcome.clone());
                let machine = stored.machine.clone();
                if self.leases.remove(&machine) != Some(Holder::Attempt(*attempt)) {
                    return broken(format!("attempt {attempt} ended without holding {machine}"));
                }
            }
            Write::BuildWaiting {
                build,
                since,
                not_before,
                tries_left,
                why,
            } => {
                let Some(stored) = self.builds.get_mut(build) else {
                    return broken(format!("build {build} waits and is unknown"));
                };
                if stored.attempts.last().is_some_and(|last| last.outcome.is_none()) {
                    return broken(format!("build {build} waits while an attempt runs"));
                }
                let asked = why.starts_with("asked for by");
                let last = stored.attempts.last().and_then(|last| last.outcome.as_ref());
                let counted = matches!(last, Some(Outcome::Infra { cause, .. }) if *cause != InfraCause::CoordinatorRestart);
                if counted && !asked && *tries_left >= stored.tries_left {
                    return broken(format!("build {build} lost an attempt, and it was not counted"));
                }
                stored.asked += u32::from(asked);
                stored.requested = *since;
                stored.not_before = *not_before;
                stored.tries_left = *tries_left;
                stored.done = None;
            }
            Write::BuildDone { build, outcome, .. } => {
                let Some(stored) = self.builds.get_mut(build) else {
                    return broken(format!("build {build} ended and is unknown"));
                };
                if stored.done.is_some() {
                    return broken(format!("build {build} ended twice"));
                }
                if stored.attempts.last().is_some_and(|last| last.outcome.is_none()) {
                    return broken(format!("build {build} ended while an attempt runs"));
                }
                let reason = match outcome {
                    Outcome::Passed => "passed",
                    Outcome::Failed { reason, .. } => reason,
                    Outcome::Infra { detail, .. } => detail,
                    Outcome::Cancelled { by } => by,
                };
                if reason.is_empty() {
                    return broken(format!("build {build} ended without a reason"));
                }
                stored.done = Some(outcome.clone());
                let results = stored
                    .attempts
                    .iter()
                    .filter(|a| matches!(a.outcome, Some(Outcome::Passed | Outcome::Failed { .. })))
                    .count();
                if results > 1 + stored.asked as usize {
                    return broken(format!("build {build} was run to a result {results} times"));
                }
            }
            Write::MachineUp { .. } | Write::MachineDown { .. } => {}
            Write::LoanStarted(loan) => {
                self.lease(&loan.machine, Holder::Loan(loan.loan))?;
                if !self.all_loans.insert(loan.loan) || self.builds.contains_key(&BuildId(loan.loan.0)) {
                    return broken(format!("the number of loan {} was given before", loan.loan));
                }
                if self.loans.values().any(|other| other.name == loan.name) {
                    return broken(format!("two loans are called {}", loan.name));
                }
                self.loans.insert(loan.loan, loan.clone());
            }
            Write::LoanRenewed { loan, expires } => match self.loans.get_mut(loan) {
                Some(loan) => loan.expires = *expires,
                None => return broken(format!("loan {loan} was renewed after its end")),
            },
            Write::LoanEnded { loan, why, .. } => {
                let Some(ended) = self.loans.remove(loan) else {
                    return broken(format!("loan {loan} ended twice"));
                };
                if why.is_empty() {
                    return broken(format!("loan {loan} ended without a reason"));
                }
                if self.leases.remove(&ended.machine) != Some(Holder::Loan(*loan)) {
                    return broken(format!("loan {loan} ended without holding {}", ended.machine));
                }
            }
            Write::IntentDone { intent, .. } => {
                if !self.answered.insert(*intent) {
                    return broken(format!("intent {intent} was answered twice"));
                }
            }
        }
        Ok(())
    }

    fn lease(&mut self, machine: &MachineId, holder: Holder) -> Result<(), Violation> {
        match self.leases.insert(machine.clone(), holder) {
            Some(other) => broken(format!(
                "machine {machine} was given to {holder:?} while {other:?} held it"
            )),
            None => Ok(()),
        }
    }

    /// What a coordinator starts from.
    pub fn restored(&self) -> Restored {
        let unfinished = self.builds.iter().filter(|(_, build)| build.done.is_none());
        Restored {
            last_build: self
                .builds
                .keys()
                .next_back()
                .map_or(0, |id| id.0)
                .max(self.all_loans.last().map_or(0, |loan| loan.0)),
            builds: unfinished.map(|(id, build)| restored(*id, build)).collect(),
            loans: self.loans.values().cloned().collect(),
        }
    }

    pub fn restored_build(&self, id: BuildId) -> Option<RestoredBuild> {
        self.builds.get(&id).map(|build| restored(id, build))
    }
}

fn restored(id: BuildId, build: &ModelBuild) -> RestoredBuild {
    let n = build.attempts.len() as u32;
    let running = build.attempts.last().filter(|attempt| attempt.outcome.is_none());
    RestoredBuild {
        build: id,
        repo: build.repo.clone(),
        commit: build.commit.clone(),
        commit_time: Timestamp(0),
        builder: build.builder.clone(),
        requested: build.requested,
        not_before: build.not_before,
        tries_left: build.tries_left,
        attempts: n,
        avoid: Vec::new(),
        running: running.map(|attempt| RestoredAttempt {
            attempt: AttemptId { build: id, n },
            machine: attempt.machine.clone(),
            host_type: attempt.host_type.clone(),
            started: attempt.started,
            plan: attempt.plan.clone(),
            steps: attempt.steps.clone(),
        }),
    }
}
