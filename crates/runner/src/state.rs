use std::time::Duration;

use ids::Now;

use crate::{InfraCause, Outcome, Plan};

/// How long a machine that may return is waited for before its attempt counts as lost.
/// The buildlet keeps an ended command's output for 10 min, so half of that is safe.
pub const REATTACH: Duration = Duration::from_secs(5 * 60);

/// How long a killed step has to report its end. The buildlet sends TERM, waits 5 s, sends KILL.
pub const STOP_GRACE: Duration = Duration::from_secs(20);

/// What happened to the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The working directory is clean and the source is in it.
    Prepared,
    PrepareFailed {
        cause: InfraCause,
        detail: String,
    },
    /// The machine was there and found the commit's tree such that it must not be unpacked.
    SourceRefused {
        detail: String,
    },
    /// The running step printed something.
    Output,
    /// The step's process is gone and all it printed is stored. `state` as the machine says it:
    /// `ok`, `exit status 1`, `signal: killed`, or why it could not be started.
    StepEnded {
        index: u32,
        ok: bool,
        state: String,
    },
    /// The machine answers, but does not know the step's command, or gave an answer that makes no sense.
    StepLost {
        index: u32,
        detail: String,
    },
    /// The machine is out of reach and may come back with the command still running.
    LinkLost,
    LinkBack,
    /// The machine is out of reach for good.
    MachineGone {
        why: String,
    },
    Cancel {
        by: String,
    },
    /// Time has passed.
    Tick,
}

/// What to do about it, in order. What follows a record waits until the record is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Record(Record),
    /// Clean the working directory and put the source in. Safe to do twice.
    Prepare,
    StartStep {
        index: u32,
    },
    /// The step was started before: take up its output where the stored log ends. Never starts it.
    FollowStep {
        index: u32,
    },
    KillStep {
        index: u32,
    },
}

/// A fact for the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Written before the command is started: a step without it has certainly not run.
    StepStarted {
        index: u32,
    },
    StepEnded {
        index: u32,
        ok: bool,
        state: String,
    },
    /// The last record of an attempt.
    Ended(Outcome),
}

/// One attempt in progress.
#[derive(Debug, Clone)]
pub struct Runner {
    plan: Plan,
    stage: Stage,
    /// Deadline of the whole attempt (mono).
    until: Duration,
    /// Since when the machine is out of reach (mono).
    unlinked: Option<Duration>,
    /// Found at the start of this process: what is lost was lost to the restart.
    restored: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Preparing {
        since: Duration,
    },
    Running {
        index: u32,
        since: Duration,
        output: Duration,
    },
    /// The step was told to end; whatever it says then, the attempt ends as `outcome`.
    Stopping {
        index: u32,
        since: Duration,
        outcome: Outcome,
    },
    Ended,
}

/// Cleaning and sending the source: generous, for slow links (upload limit: 30 s + size / 100 KiB/s).
const PREPARE_LIMIT: Duration = Duration::from_secs(30 * 60);

impl Runner {
    /// Begins an attempt on a machine that is there.
    pub fn new(plan: Plan, now: Now) -> (Runner, Vec<Action>) {
        let until = now.mono + plan.limit;
        let stage = Stage::Preparing { since: now.mono };
        let runner = Runner {
            plan,
            stage,
            until,
            unlinked: None,
            restored: false,
        };
        (runner, vec![Action::Prepare])
    }

    /// Takes up an attempt that another process began. `steps` are the durably started ones in
    /// order, each with whether it durably ended well. `age` is how long ago the attempt began by
    /// the wall clock. Waits for the machine ([`Input::LinkBack`]) before it does anything on it.
    pub fn restore(plan: Plan, now: Now, age: Duration, steps: &[Option<bool>]) -> (Runner, Vec<Action>) {
        let until = now.mono + plan.limit.saturating_sub(age);
        let stage = Stage::Preparing { since: now.mono };
        let mut runner = Runner {
            plan,
            stage,
            until,
            unlinked: Some(now.mono),
            restored: true,
        };
        let mut actions = Vec::new();
        match steps.last() {
            None => {}
            Some(None) => runner.stage = running(steps.len() as u32 - 1, now),
            // Both are written together with what follows them; handled all the same, so that an
            // older store cannot leave an attempt hanging.
            Some(Some(ok)) => {
                let index = steps.len() as u32 - 1;
                runner.stage = running(index, now);
                runner.step_over(now, index, *ok, "as recorded".to_owned(), &mut actions);
            }
        }
        (runner, actions)
    }

    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.ended() {
            return actions;
        }
        match input {
            Input::Prepared => {
                if matches!(self.stage, Stage::Preparing { .. }) {
                    self.start(now, 0, &mut actions);
                }
            }
            Input::PrepareFailed { cause, detail } => {
                if matches!(self.stage, Stage::Preparing { .. }) {
                    self.end(Outcome::Infra { cause, detail }, &mut actions);
                }
            }
            Input::SourceRefused { detail } => {
                if matches!(self.stage, Stage::Preparing { .. }) {
                    let reason = format!("the source was refused: {detail}");
                    self.end(Outcome::Failed { step: 0, reason }, &mut actions);
                }
            }
            Input::Output => {
                if let Stage::Running { output, .. } = &mut self.stage {
                    *output = now.mono;
                }
            }
            Input::StepEnded { index, ok, state } => {
                if self.current() == Some(index) {
                    actions.push(Action::Record(Record::StepEnded {
                        index,
                        ok,
                        state: state.clone(),
                    }));
                    self.step_over(now, index, ok, state, &mut actions);
                }
            }
            Input::StepLost { index, detail } => {
                if self.current() == Some(index) {
                    self.lost(detail, &mut actions);
                }
            }
            Input::LinkLost => self.unlinked = self.unlinked.or(Some(now.mono)),
            Input::LinkBack => self.link_back(now, &mut actions),
            Input::MachineGone { why } => self.lost(why, &mut actions),
            Input::Cancel { by } => self.cancel(now, by, &mut actions),
            Input::Tick => self.tick(now, &mut actions),
        }
        actions
    }

    /// When to send [`Input::Tick`] at the latest (mono).
    pub fn next_deadline(&self) -> Option<Duration> {
        let mut at = match &self.stage {
            Stage::Ended => return None,
            Stage::Preparing { since } => *since + PREPARE_LIMIT,
            Stage::Running { index, since, output } => {
                let step = &self.plan.steps[*index as usize];
                let silent = if self.unlinked.is_none() {
                    *output + step.silence
                } else {
                    Duration::MAX
                };
                silent.min(*since + step.timeout)
            }
            Stage::Stopping { since, .. } => *since + STOP_GRACE,
        };
        if !matches!(self.stage, Stage::Stopping { .. }) {
            at = at.min(self.until);
        }
        if let Some(since) = self.unlinked {
            at = at.min(since + REATTACH);
        }
        Some(at)
    }

    pub fn ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn current(&self) -> Option<u32> {
        match self.stage {
            Stage::Running { index, .. } | Stage::Stopping { index, .. } => Some(index),
            Stage::Preparing { .. } | Stage::Ended => None,
        }
    }

    fn start(&mut self, now: Now, index: u32, actions: &mut Vec<Action>) {
        self.stage = running(index, now);
        actions.push(Action::Record(Record::StepStarted { index }));
        actions.push(Action::StartStep { index });
    }

    fn step_over(&mut self, now: Now, index: u32, ok: bool, state: String, actions: &mut Vec<Action>) {
        if let Stage::Stopping { outcome, .. } = &self.stage {
            let outcome = outcome.clone();
            self.end(outcome, actions);
        } else if !ok {
            let name = &self.plan.steps[index as usize].name;
            let reason = format!("step `{name}`: {state}");
            self.end(Outcome::Failed { step: index, reason }, actions);
        } else if (index as usize) + 1 < self.plan.steps.len() {
            self.start(now, index + 1, actions);
        } else {
            self.end(Outcome::Passed, actions);
        }
    }

    fn link_back(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.unlinked.take().is_none() {
            return;
        }
        match &mut self.stage {
            Stage::Preparing { .. } => actions.push(Action::Prepare),
            Stage::Running { index, output, .. } => {
                *output = now.mono;
                actions.push(Action::FollowStep { index: *index });
            }
            Stage::Stopping { index, .. } => {
                actions.push(Action::KillStep { index: *index });
                actions.push(Action::FollowStep { index: *index });
            }
            Stage::Ended => {}
        }
    }

    fn cancel(&mut self, now: Now, by: String, actions: &mut Vec<Action>) {
        let outcome = Outcome::Cancelled { by };
        match self.stage {
            // Nobody is there to be told; the machine is cleaned before anything else runs on it. How the step ended
            // nobody knows.
            Stage::Running { .. } if self.unlinked.is_some() => self.end(outcome, actions),
            Stage::Running { index, .. } => self.stop(now, index, outcome, actions),
            Stage::Preparing { .. } => self.end(outcome, actions),
            Stage::Stopping { .. } | Stage::Ended => {}
        }
    }

    fn stop(&mut self, now: Now, index: u32, outcome: Outcome, actions: &mut Vec<Action>) {
        self.stage = Stage::Stopping {
            index,
            since: now.mono,
            outcome,
        };
        actions.push(Action::KillStep { index });
    }

    /// The machine, or its memory of the step, is gone. What was being stopped ends as it was to.
    fn lost(&mut self, detail: String, actions: &mut Vec<Action>) {
        let outcome = match &self.stage {
            Stage::Stopping { outcome, .. } => outcome.clone(),
            _ if self.restored => Outcome::Infra {
                cause: InfraCause::CoordinatorRestart,
                detail,
            },
            _ => Outcome::Infra {
                cause: InfraCause::MachineLost,
                detail,
            },
        };
        self.end(outcome, actions);
    }

    fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.unlinked.is_some_and(|since| now.mono >= since + REATTACH) {
            let detail = format!("the machine was out of reach for {} s", REATTACH.as_secs());
            return self.lost(detail, actions);
        }
        match &self.stage {
            Stage::Ended => {}
            Stage::Preparing { since } => {
                if now.mono >= (*since + PREPARE_LIMIT).min(self.until) {
                    let detail = "the machine took too long to be cleaned and given the source".to_owned();
                    self.end(
                        Outcome::Infra {
                            cause: InfraCause::MachineRefused,
                            detail,
                        },
                        actions,
                    );
                }
            }
            Stage::Running { index, since, output } => {
                let (index, step) = (*index, &self.plan.steps[*index as usize]);
                let name = &step.name;
                let reason = if now.mono >= *since + step.timeout {
                    format!("step `{name}` ran over its limit of {}", human(step.timeout))
                } else if now.mono >= self.until {
                    format!(
                        "step `{name}` ran when the build reached its limit of {}",
                        human(self.plan.limit)
                    )
                } else if self.unlinked.is_none() && now.mono >= *output + step.silence {
                    format!("step `{name}` printed nothing for {}", human(step.silence))
                } else {
                    return;
                };
                self.stop(now, index, Outcome::Failed { step: index, reason }, actions);
            }
            Stage::Stopping {
                index,
                since,
                outcome,
            } => {
                if now.mono >= *since + STOP_GRACE {
                    let (index, outcome) = (*index, outcome.clone());
                    let state = format!("did not end within {} of being killed", human(STOP_GRACE));
                    actions.push(Action::Record(Record::StepEnded {
                        index,
                        ok: false,
                        state,
                    }));
                    self.end(outcome, actions);
                }
            }
        }
    }

    fn end(&mut self, outcome: Outcome, actions: &mut Vec<Action>) {
        self.stage = Stage::Ended;
        actions.push(Action::Record(Record::Ended(outcome)));
    }
}

fn running(index: u32, now: Now) -> Stage {
    Stage::Running {
        index,
        since: now.mono,
        output: now.mono,
    }
}

/// `90s`, `20m`, `2h`: as the configuration writes it.
fn human(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        s if s > 0 && s % 3600 == 0 => format!("{}h", s / 3600),
        s if s > 0 && s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}
