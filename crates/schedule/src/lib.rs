//! Decides which waiting build gets which machine, and says of each one that waits why it does.
//!
//! Pure: no clock, no sockets, no randomness; a machine is an id and a type here, and no pool is
//! known. [`Scheduler::handle`] takes what happened and when, and returns the assignments;
//! [`Scheduler::explain`] says why the rest waits. Start reading at `handle`.
//!
//! Order of service among the builds of one host type: urgent, then interactive, then try, then
//! post-submit. Within the first three the oldest request goes first, among post-submit builds the
//! newest commit. So that columns fill from the top and yet no hole stays open, every fourth
//! post-submit grant goes to the oldest request; and in every class a build that has waited too long
//! goes before those that have not.
//! Source: golang/build `internal/coordinator/pool/queue/item.go` (2023).
//!
//! Differs: golang/build looks at the head of its queue only, so that a build that cannot start
//! holds up all behind it. Here a build in back-off, at its builder's limit or waiting for another
//! machine than the free one is passed by.
//!
//! Nothing in here can fail; what goes wrong outside arrives as an [`Input`]. Nothing in here is
//! stored: after a restart the caller hands in every waiting build and every machine again, and
//! [`Request::requested`] brings back the places.

mod explain;
mod order;
mod queue;
mod scheduler;

pub use scheduler::{Limits, Scheduler};

#[cfg(test)]
mod tests;

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
    /// The place in line. One that lies ahead of the wall clock counts as made when it is handed in.
    pub requested: Timestamp,
    /// Back-off: it does not start before the wall clock shows this. If the clock is set back, the
    /// time that was missing when the request came in is what counts, and never more than
    /// [`Limits::max_wait`].
    pub not_before: Option<Timestamp>,
    /// Machines that lost it before. Taken only when no other of the host type is connected, or when
    /// it could have started for [`Limits::avoid_for`] and no other came free.
    pub avoid: BTreeSet<MachineId>,
    /// Most builds of its builder at once, over all host types. What the latest request of a builder
    /// says holds for all of the builder's.
    pub max_at_once: Option<u32>,
    /// How long builds of this builder take, if known.
    pub usual: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A build waits. The same build again replaces what is known of it and keeps its place and the
    /// time it has waited. For a build that is at work it says that the attempt is over: the build
    /// is in line again at once, its machine stays busy until `Idle` or `Gone`.
    Requested(Request),
    /// It does not wait any more: cancelled, or no longer wanted.
    Withdrawn {
        build: BuildId,
    },
    /// A machine is connected and free. Also: it has become free again. Nothing for one that is free.
    Idle {
        machine: MachineId,
        host_type: HostType,
    },
    /// A machine is connected and at work on `build` since `since`, as found at start. The build, if
    /// it waits, does not any more.
    Busy {
        machine: MachineId,
        host_type: HostType,
        builder: BuilderName,
        build: BuildId,
        since: Timestamp,
        usual: Option<Duration>,
    },
    /// A machine is not to be had any more; what it ran is somebody else's matter, and does not count
    /// against its builder's limit. Nothing for one that is unknown.
    Gone {
        machine: MachineId,
    },
    /// No assignment until `Resumed`: low disk, drain. Shown as the reason of every wait. The time
    /// that builds wait goes on.
    Paused {
        why: String,
    },
    Resumed,
    /// Time has passed.
    Tick,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The machine is busy from here on, until `Idle` or `Gone`.
    Assign { build: BuildId, machine: MachineId },
    /// It has waited longer than any build may, and waits no more. What `waited` counts:
    /// [`Limits::wait_limit`].
    GiveUp { build: BuildId, waited: Duration },
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
    /// When it should start, from the usual times of what runs and of what is ahead; `None` when
    /// nothing is known, no machine is connected, or nothing is started at present.
    pub starts: Option<Timestamp>,
}

/// What keeps a build waiting. Where several hold, the first of: paused, no machine, back-off,
/// builder limit, avoiding, all busy.
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
