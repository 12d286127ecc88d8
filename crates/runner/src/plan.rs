use std::time::Duration;

use ids::Limits;

/// What an attempt runs, fixed when it starts: a change of the configuration does not reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where the source goes, relative to the working directory: `src`.
    pub source_dir: String,
    /// At least one.
    pub steps: Vec<StepPlan>,
    /// For the whole attempt, from its start.
    pub limit: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlan {
    pub name: String,
    pub command: Command,
    /// Relative to the working directory.
    pub dir: String,
    /// `(key, value)`, later wins. The whole of what the buildlet is sent: farm, host, builder, step.
    pub env: Vec<(String, String)>,
    pub timeout: Duration,
    /// A step that prints nothing for this long is killed.
    pub silence: Duration,
    pub limits: Limits,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Program and arguments.
    Args(Vec<String>),
    /// One text for the machine's shell: `/bin/sh -e -c TEXT`, or `cmd /c TEXT` on Windows.
    Shell(String),
}
