//! One attempt to build one commit on one machine: a state machine without clock or socket.
//!
//! [`Runner::handle`] takes what happened and when, and returns what to record and what to do, in
//! that order: a caller commits every [`Action::Record`] before it performs what follows it.
//! Start reading there.

mod place; // where output goes in a step's log
mod plan;
mod state;
#[cfg(test)]
mod tests;

pub use place::{Place, place};
pub use plan::{Command, Plan, StepPlan};
pub use state::{Action, Input, REATTACH, Record, Runner, STOP_GRACE};

/// How an attempt ended. Every attempt is kept, with this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// The code under test, or its recipe, is at fault: reported, never retried by itself.
    Failed {
        step: u32,
        reason: String,
    },
    /// The farm is at fault: retried elsewhere, never a red build.
    Infra {
        cause: InfraCause,
        detail: String,
    },
    Cancelled {
        by: String,
    },
}

/// Which part of the farm failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InfraCause {
    /// The machine died, or was out of reach for longer than it may be.
    MachineLost,
    /// The machine is there but refused: disk full, could not be cleaned, an answer we did not understand.
    MachineRefused,
    /// The source could not be had from the mirror.
    SourceUnavailable,
    /// The machine could not keep the command over a restart of the coordinator. Not counted as a try.
    CoordinatorRestart,
    /// No machine took it within the waiting limit.
    NoMachine,
}

impl InfraCause {
    /// The word that is stored and shown; [`InfraCause::parse`] reads it back.
    pub fn as_str(self) -> &'static str {
        match self {
            InfraCause::MachineLost => "machine_lost",
            InfraCause::MachineRefused => "machine_refused",
            InfraCause::SourceUnavailable => "source_unavailable",
            InfraCause::CoordinatorRestart => "coordinator_restart",
            InfraCause::NoMachine => "no_machine",
        }
    }

    pub fn parse(word: &str) -> Option<InfraCause> {
        use InfraCause::*;
        [
            MachineLost,
            MachineRefused,
            SourceUnavailable,
            CoordinatorRestart,
            NoMachine,
        ]
        .into_iter()
        .find(|cause| cause.as_str() == word)
    }
}
