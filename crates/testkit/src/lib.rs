//! A whole farm in memory, in virtual time, made from a seed: machines die and hang, links stall and break,
//! the store refuses, the configuration changes, clocks jump, people cancel and retry, and the coordinator is
//! killed between any two store writes.
//!
//! The real cores run in it (farm, scheduler, runner, reverse dialling, the placing of output); everything
//! around them is simulated and holds the invariants of [`Violation`] after each step. Start at [`simulate`].
//! [`peer`] brings Go's own programs to test against, [`recorded`] what real servers said, [`github`] is a GitHub.

mod coordinator; // the cores, with shells in virtual time
mod decided; // what the core may decide, from one input to the next
mod fault;
pub mod github;
mod host;
mod model; // the store, strict
pub mod peer;
mod random;
pub mod recorded;
mod script; // what happens, and when
mod serve; // a machine's answers
mod shrink;
#[cfg(test)]
mod tests;
mod world;

use std::fmt;

pub use fault::Fault;
pub use model::{Model, Violation};
pub use random::Random;
pub use script::{Happening, Moment, Script};
pub use shrink::shrink;
use world::World;

/// What simulated farms went through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    pub builds: usize,
    pub attempts: usize,
    pub passed: usize,
    pub failed: usize,
    pub infra: usize,
    pub cancelled: usize,
    pub log_bytes: usize,
    pub coordinator_kills: usize,
    pub power_failures: usize,
    pub machine_deaths: usize,
    pub link_cuts: usize,
    pub link_stalls: usize,
    pub broken_connections: usize,
    pub store_refusals: usize,
    pub configurations: usize,
    pub clock_jumps: usize,
    pub loans: usize,
}

impl Account {
    /// Each number with its name, in words.
    pub fn lines(&self) -> [(&'static str, usize); 17] {
        [
            ("builds", self.builds),
            ("attempts", self.attempts),
            ("passed", self.passed),
            ("failed", self.failed),
            ("infra", self.infra),
            ("cancelled", self.cancelled),
            ("bytes of logs", self.log_bytes),
            ("kills of the coordinator", self.coordinator_kills),
            ("power failures", self.power_failures),
            ("deaths of machines", self.machine_deaths),
            ("cut links", self.link_cuts),
            ("stalled links", self.link_stalls),
            ("broken connections", self.broken_connections),
            ("refusals of the store", self.store_refusals),
            ("changes of the configuration", self.configurations),
            ("jumps of the clock", self.clock_jumps),
            ("loans", self.loans),
        ]
    }

    pub fn add(&mut self, other: &Account) {
        self.builds += other.builds;
        self.loans += other.loans;
        self.attempts += other.attempts;
        self.passed += other.passed;
        self.failed += other.failed;
        self.infra += other.infra;
        self.cancelled += other.cancelled;
        self.log_bytes += other.log_bytes;
        self.coordinator_kills += other.coordinator_kills;
        self.power_failures += other.power_failures;
        self.machine_deaths += other.machine_deaths;
        self.link_cuts += other.link_cuts;
        self.link_stalls += other.link_stalls;
        self.broken_connections += other.broken_connections;
        self.store_refusals += other.store_refusals;
        self.configurations += other.configurations;
        self.clock_jumps += other.clock_jumps;
    }
}

/// A script under which an invariant broke. Printed as the invariant in words, the script and what it led to.
#[derive(Debug, Clone)]
pub struct Failure {
    pub violation: Violation,
    pub script: Script,
    /// What happened in that farm, oldest first.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.violation.0)?;
        write!(f, "{}", self.script)?;
        writeln!(f, "what came of it (the last 60 lines):")?;
        let from = self.trace.len().saturating_sub(60);
        self.trace[from..]
            .iter()
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Runs one farm from `seed`: two virtual hours of trouble, and then until it is at rest.
pub fn simulate(seed: u64, fault: Option<Fault>) -> Result<Account, Box<Failure>> {
    run(&Script::new(seed), fault)
}

pub fn run(script: &Script, fault: Option<Fault>) -> Result<Account, Box<Failure>> {
    World::new(script, fault, false).run().map_err(|_| {
        let mut again = World::new(script, fault, true);
        let violation = again.run().expect_err("the same script is the same farm");
        Box::new(Failure {
            violation,
            script: script.clone(),
            trace: again.trace.unwrap_or_default(),
        })
    })
}

/// The shortest script found that breaks an invariant, from one that does.
pub fn shortest(failure: &Failure, fault: Option<Fault>) -> Box<Failure> {
    let script = shrink(&failure.script, |script| {
        World::new(script, fault, false).run().is_err()
    });
    run(&script, fault).expect_err("it failed just now")
}
