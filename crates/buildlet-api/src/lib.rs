//! The buildlet's HTTP API: its paths and headers, what travels in them, and an async client.
//!
//! Knows nothing of where machines come from: a [`Client`] gets its connections from a
//! [`Connect`], which dials, or asks a reverse buildlet to dial back. Runs no command itself and
//! retries nothing but what is safe to do twice.
//!
//! Start at [`Client`]. Source of every wire fact: golang/build `buildlet/buildletclient.go` and
//! `cmd/buildlet/buildlet.go` (2018 and 2023); paths under `/burrow/` are our own.

pub mod client; // calls to one buildlet
pub mod exec; // what to run, as a form; how it ended
pub mod keys; // the builder keys of the original
pub mod ls; // the lines of `/ls`
pub mod pool; // what pools of machines tell the coordinator
pub mod status; // who a buildlet says it is
pub mod wire; // paths, headers, form encoding

pub use client::{
    BoxedStream, CallError, Client, Connect, ExecEnd, FollowError, Password, RunningExec, TcpConnect, Upload,
};
pub use exec::{ExecSpec, MissingState, ProcessState};
pub use keys::{EmptyMasterKey, MasterKey};
pub use ls::{DirEntry, ListOptions};
pub use pool::PoolEvent;
pub use status::Status;
