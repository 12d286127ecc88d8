//! The sync with real git: against what a real Gerrit had at three moments, and against odd repositories.

mod described;
mod github;
mod log;
mod made;
mod original;
mod recorded;
mod server;
