//! What the farm core decides from one input to the next, before any of it is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::Config;
use farm::{Input, Restored, Write};
use ids::{BuildId, BuilderName, LoanId, MachineId};

use crate::model::{Violation, broken};

/// Where work is, by the decisions of one coordinator.
pub(crate) struct Decided {
    config: Arc<Config>,
    builders: BTreeMap<BuildId, BuilderName>,
    work: BTreeMap<Work, (MachineId, BuilderName)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Build(BuildId),
    Loan(LoanId),
}

/// What an input says that must be heeded at once.
pub(crate) enum Told {
    Configured(Arc<Config>),
    /// What ran on it is gone.
    Lost(MachineId),
    /// A build that ended, perhaps before this coordinator, is there again.
    Back(BuildId, BuilderName),
    Other,
}

impl Told {
    pub fn of(input: &Input) -> Told {
        match input {
            Input::Configured(config) => Told::Configured(config.clone()),
            Input::MachineDown {
                machine,
                may_return: false,
                ..
            } => Told::Lost(machine.clone()),
            Input::Retry {
                finished: Some(build),
                ..
            } => Told::Back(build.build, build.builder.clone()),
            Input::MachineUp { machine, facts, .. } if !facts.resumable => Told::Lost(machine.clone()),
            _ => Told::Other,
        }
    }
}

impl Decided {
    pub fn restored(restored: &Restored, config: Arc<Config>) -> Decided {
        let builders: BTreeMap<_, _> = restored
            .builds
            .iter()
            .map(|build| (build.build, build.builder.clone()))
            .collect();
        let builds = restored.builds.iter().filter_map(|build| {
            let machine = build.running.as_ref()?.machine.clone();
            Some((Work::Build(build.build), (machine, build.builder.clone())))
        });
        let loans = restored.loans.iter().map(|loan| {
            (
                Work::Loan(loan.loan),
                (loan.machine.clone(), loan.builder.clone()),
            )
        });
        Decided {
            config,
            builders,
            work: builds.chain(loans).collect(),
        }
    }

    /// Holds what an input led to against what may be.
    pub fn take(&mut self, told: Told, writes: &[Write]) -> Result<(), Violation> {
        match &told {
            Told::Configured(config) => self.config = config.clone(),
            Told::Back(build, builder) => {
                self.builders.insert(*build, builder.clone());
            }
            Told::Lost(_) | Told::Other => {}
        }
        for write in writes {
            match write {
                Write::BuildCreated(new) => {
                    self.builders.insert(new.build, new.builder.clone());
                }
                Write::AttemptStarted { attempt, machine, .. } => {
                    let builder = self.builders.get(&attempt.build).cloned();
                    let Some(builder) = builder else {
                        return broken(format!("attempt {attempt} of an unknown build"));
                    };
                    self.starts(Work::Build(attempt.build), machine, builder)?;
                }
                Write::AttemptEnded { attempt, .. } => {
                    self.work.remove(&Work::Build(attempt.build));
                }
                Write::LoanStarted(loan) => {
                    self.starts(Work::Loan(loan.loan), &loan.machine, loan.builder.clone())?;
                }
                Write::LoanEnded { loan, .. } => {
                    self.work.remove(&Work::Loan(*loan));
                }
                _ => {}
            }
        }
        match told {
            Told::Lost(machine) => match self.work.iter().find(|(_, (at, _))| *at == machine) {
                Some((work, _)) => broken(format!("{work:?} goes on though {machine} has lost it")),
                None => Ok(()),
            },
            Told::Configured(_) | Told::Back(..) | Told::Other => Ok(()),
        }
    }

    fn starts(&mut self, work: Work, machine: &MachineId, builder: BuilderName) -> Result<(), Violation> {
        self.work.insert(work, (machine.clone(), builder.clone()));
        let at_once = self.work.values().filter(|(_, other)| *other == builder).count();
        let most = self
            .config
            .builders
            .get(&builder)
            .and_then(|conf| conf.max_at_once);
        match most {
            Some(most) if at_once > most as usize => broken(format!(
                "{work:?} is the {at_once}. of {builder} at once, of which there may be {most}"
            )),
            _ => Ok(()),
        }
    }
}
