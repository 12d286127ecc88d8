//! Logs written mutation by mutation, and what the corpus makes of them.

mod gerrit;
mod git;
mod github;
mod hostile;
mod log;
