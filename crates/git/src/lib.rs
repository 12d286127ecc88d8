//! Runs git: bare mirrors, commits along first parents, archives.
//!
//! Argument vectors only, never a shell; `--end-of-options` before anything that comes from outside;
//! no configuration but our own; every child in a process group of its own with a limit. Start at [`Mirror`].

mod mirror;
mod parse;
mod run;

pub use mirror::{FetchReport, Mirror, RefChange, Resolved};
pub use parse::{Commit, is_safe_rev};
pub use run::{Git, GitError};
