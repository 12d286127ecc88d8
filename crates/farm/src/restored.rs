use ids::{AttemptId, BuildId, BuilderName, GitHash, HostType, MachineId, RepoName, Timestamp};
use runner::Plan;

use crate::Loan;

/// Everything unfinished that the store holds: what a coordinator starts from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Restored {
    /// The highest number ever given to a build or a loan; 0 if none.
    pub last_build: u64,
    pub builds: Vec<RestoredBuild>,
    /// Those that hold a machine.
    pub loans: Vec<Loan>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RestoredBuild {
    pub build: BuildId,
    pub repo: RepoName,
    pub commit: GitHash,
    pub commit_time: Timestamp,
    pub builder: BuilderName,
    pub requested: Timestamp,
    pub not_before: Option<Timestamp>,
    pub tries_left: u32,
    /// The highest attempt number; 0 if none yet.
    pub attempts: u32,
    /// Machines on which an attempt ended as infra since the last time somebody asked for the build.
    pub avoid: Vec<MachineId>,
    pub running: Option<RestoredAttempt>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RestoredAttempt {
    pub attempt: AttemptId,
    pub machine: MachineId,
    pub host_type: HostType,
    pub started: Timestamp,
    pub plan: Plan,
    /// Steps with a durable start, in order; `ended` with a durable end.
    pub steps: Vec<RestoredStep>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RestoredStep {
    pub started: Timestamp,
    /// `(when, ok)`
    pub ended: Option<(Timestamp, bool)>,
}
