//! Decides which waiting build gets which machine, and says of each one that waits why it does.
//!
//! Pure: no clock, no sockets, no randomness; a machine is an id and a type here, and no pool is
//! known. [`Scheduler::handle`] takes what happened and when, and returns the assignments;
//! [`Scheduler::explain`] says why the rest waits. Start reading at `handle`.

mod scheduler;
#[cfg(test)]
mod tests;

pub use scheduler::{Limits, Scheduler};

use std::collections::BTreeSet;
use std::time::Duration;

use ids::{BuildId, BuilderName, HostType, MachineId, RepoName, Timestamp};

/// Why a build was asked for; the order is the order of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Urgent,
    Interactive,
    Try,
    PostSubmit,
}

/// A build that wants a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub build: BuildId,
    pub builder: BuilderName,
    pub repo: RepoName,
    pub host_type: HostType,
    pub class: Class,
    /// Of the commit; post-submit builds go newest commit first.
    pub commit_time: Timestamp,
    /// The place in line.
    pub requested: Timestamp,
    /// Back-off.
    pub not_before: Option<Timestamp>,
    /// Machines that lost it before; taken again only when there is no other of the type.
    pub avoid: BTreeSet<MachineId>,
    /// Most builds of its builder at once.
    pub max_at_once: Option<u32>,
    /// How long builds of this builder take, if known.
    pub usual: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A build waits; the same build again replaces its request.
    Requested(Request),
    /// It does not wait any more: cancelled, or no longer wanted.
    Withdrawn {
        build: BuildId,
    },
    /// A machine is connected and free. Also: it has become free again.
    Idle {
        machine: MachineId,
        host_type: HostType,
    },
    /// A machine is connected and at work on `build` since `since`, as found at start.
    Busy {
        machine: MachineId,
        host_type: HostType,
        builder: BuilderName,
        build: BuildId,
        since: Timestamp,
        usual: Option<Duration>,
    },
    /// A machine is not to be had any more; what it ran is somebody else's matter.
    Gone {
        machine: MachineId,
    },
    /// No assignment until `Resumed`: low disk, drain. Shown as the reason of every wait.
    Paused {
        why: String,
    },
    Resumed,
    /// Time has passed.
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Assign {
        build: BuildId,
        machine: MachineId,
    },
    /// It has waited longer than any build may.
    GiveUp {
        build: BuildId,
        waited: Duration,
    },
}

/// One waiting build, as the queue page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub build: BuildId,
    pub builder: BuilderName,
    pub repo: RepoName,
    pub host_type: HostType,
    pub class: Class,
    pub requested: Timestamp,
    /// How many of the same host type are before it.
    pub ahead: usize,
    pub reason: Reason,
    /// When it should start, from the usual times of what runs and of what is ahead; `None` when nothing is known.
    pub starts: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No machine of the type is connected.
    NoMachine,
    /// All `machines` of the type are at work.
    AllBusy { machines: usize },
    /// Tried before; not again until then.
    BackOff { until: Timestamp },
    /// Its builder runs as many at once as it may.
    BuilderLimit { running: u32, max: u32 },
    /// Machines are free, but each of them has lost this build before; another is waited for.
    Avoiding { machines: usize },
    /// Nothing is started at present.
    Paused { why: String },
}
