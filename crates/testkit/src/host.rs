use std::collections::BTreeMap;
use std::time::Duration;

use ids::{AttemptId, HostType, MachineId, StepId};

/// Output past this many bytes is not kept on a simulated machine.
pub const SPOOL: u64 = 700;

/// How long a buildlet that nobody asks for goes on, and remembers a command that has ended.
pub const ORPHAN: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A child of the coordinator: outlives it, is taken up or replaced by the next one.
    Local,
    /// Dials in; its commands outlive the connection.
    Reverse,
    /// Dials in; its commands end with the connection, and so does it.
    Go,
}

/// A machine: a process that can die, the commands it runs, and its link to the coordinator.
pub struct Host {
    pub id: MachineId,
    pub host_type: HostType,
    pub kind: Kind,
    pub alive: bool,
    /// Counts its processes.
    pub boot: u32,
    pub commands: BTreeMap<StepId, Command>,
    /// Whose source lies on it.
    pub source: Option<AttemptId>,
    /// No connection can be made.
    pub cut: bool,
    /// Counts what ended all connections.
    pub net: u32,
    pub stalled_until: Duration,
    /// The coordinator has been told that it is there.
    pub up: bool,
    /// Counts how often it was.
    pub generation: u32,
    /// Since when nobody can ask it for anything.
    pub orphan_since: Duration,
    /// It is about to register.
    pub dialling: bool,
    /// When the last bytes to it, and from it, arrive: none overtakes another.
    pub last_in: Duration,
    pub last_out: Duration,
}

impl Host {
    pub fn resumable(&self) -> bool {
        self.kind != Kind::Go
    }

    pub fn reachable(&self) -> bool {
        self.alive && !self.cut
    }

    /// Ends the process: what it ran and knew is gone.
    pub fn end(&mut self) {
        self.alive = false;
        self.boot += 1;
        self.net += 1;
        self.commands.clear();
        self.source = None;
    }
}

/// A process on a machine, as it goes if nobody kills it: it prints a line every `pace`.
#[derive(Debug, Clone)]
pub struct Command {
    pub started: Duration,
    pub ends: Duration,
    pub pace: Duration,
    /// Bytes of one line.
    pub line: u64,
    pub ok: bool,
    /// All it ever printed, of one that was told to end.
    pub cut_at: Option<u64>,
}

impl Command {
    pub fn runs(&self, now: Duration) -> bool {
        now < self.ends
    }

    /// How many bytes are in the spool.
    pub fn printed(&self, now: Duration) -> u64 {
        let lines = (now.min(self.ends) - self.started).as_micros() / self.pace.as_micros();
        self.cut_at.unwrap_or((self.line * lines as u64).min(SPOOL))
    }

    /// When there is more to tell than at `now`: the next line, or the end.
    pub fn next(&self, now: Duration) -> Duration {
        let lines = now.saturating_sub(self.started).as_micros() / self.pace.as_micros();
        (self.started + self.pace * (lines as u32 + 1)).min(self.ends)
    }

    pub fn kill(&mut self, now: Duration) {
        if self.runs(now) {
            self.cut_at = Some(self.printed(now));
            (self.ends, self.ok) = (now + Duration::from_millis(50), false);
        }
    }
}

/// Byte `at` of what a step prints.
pub fn byte(step: StepId, at: u64) -> u8 {
    let of = step.attempt.build.0 * 31 + u64::from(step.attempt.n) * 7 + u64::from(step.index);
    b'!' + (of.wrapping_mul(0x9e37_79b9).wrapping_add(at * at + at * 13) % 90) as u8
}
