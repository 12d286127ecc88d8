use ids::{
    AttemptId, BuildId, BuilderName, GitHash, HostType, LoanId, MachineId, RepoName, StepId, Timestamp,
};
use runner::{Outcome, Plan};

/// One change to the farm store. All writes of one [`crate::Step`] are committed together, before
/// any of its effects is performed; each names what it changes by key, so that a reader of the
/// store can tell what had happened up to the last commit.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    BuildCreated(NewBuild),
    /// Takes the machine's lease: a store that already has one for this machine must refuse the
    /// whole transaction, for the core would have given one machine to two attempts.
    AttemptStarted {
        attempt: AttemptId,
        machine: MachineId,
        host_type: HostType,
        at: Timestamp,
        plan: Plan,
    },
    /// The command is about to be started on the machine; after a restart it may or may not run there.
    StepStarted {
        step: StepId,
        at: Timestamp,
    },
    StepEnded {
        step: StepId,
        at: Timestamp,
        ok: bool,
        state: String,
    },
    /// Gives the lease back.
    AttemptEnded {
        attempt: AttemptId,
        at: Timestamp,
        outcome: Outcome,
    },
    /// Back in line, as after an infra attempt or a retry by hand. `not_before` is back-off.
    BuildWaiting {
        build: BuildId,
        since: Timestamp,
        not_before: Option<Timestamp>,
        tries_left: u32,
        why: String,
    },
    /// No more attempts unless somebody asks.
    BuildDone {
        build: BuildId,
        at: Timestamp,
        outcome: Outcome,
    },
    MachineUp {
        machine: MachineId,
        host_type: HostType,
        at: Timestamp,
        facts: MachineFacts,
    },
    MachineDown {
        machine: MachineId,
        at: Timestamp,
        why: String,
    },
    /// Takes the machine's lease, as [`Write::AttemptStarted`] does.
    LoanStarted(Loan),
    LoanRenewed {
        loan: LoanId,
        expires: Timestamp,
    },
    /// Gives the lease back.
    LoanEnded {
        loan: LoanId,
        at: Timestamp,
        why: String,
    },
    /// The wish of a person, taken from the store's intents, has been dealt with.
    IntentDone {
        intent: i64,
        at: Timestamp,
        answer: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBuild {
    pub build: BuildId,
    pub repo: RepoName,
    pub commit: GitHash,
    pub builder: BuilderName,
    /// When it was found to be wanted: its place in line.
    pub requested: Timestamp,
    pub tries_left: u32,
}

/// A machine lent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loan {
    pub loan: LoanId,
    /// `user-amy-linux-amd64-0`: its owner, its builder, and the smallest number that no other one has.
    pub name: String,
    /// `user-amy`
    pub owner: String,
    pub builder: BuilderName,
    pub host_type: HostType,
    pub machine: MachineId,
    pub since: Timestamp,
    /// When it ends unless it is used.
    pub expires: Timestamp,
}

/// What a machine says of itself when it comes up; shown, never decided on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineFacts {
    /// `local` or `reverse`.
    pub pool: String,
    /// As `/status` says: 27.
    pub version: u32,
    /// `burrow 0.1.0` or empty for Go's.
    pub software: String,
    /// Where it was reached or came from.
    pub address: String,
    /// Whether its commands outlive a lost connection.
    pub resumable: bool,
}
