//! Runs git: bare mirrors, commits along first parents, archives.
//!
//! Argument vectors only, never a shell; `--end-of-options` before anything that comes from outside;
//! no configuration but our own; no secret where the process list or an error shows it; every child
//! in a process group of its own, which ends with it, with limits. Start at [`Mirror`].

mod address;
mod job;
mod mirror;
mod parse;
mod run;

pub use address::Upstream;
pub use job::{ARCHIVE, GitError, Job, Limits, Printed};
pub use mirror::{FetchReport, Mirror, Resolved};
pub use parse::{Commit, is_safe_rev};
pub use run::Git;
