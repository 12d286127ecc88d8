//! The agent on every host: files in, processes run, output out.
//!
//! Blocking threads, no async runtime, few dependencies: it is copied onto every kind of machine there is.
//! Reading order: [`main_with`] (flags), `server` (one connection), `exec` (commands that outlive
//! their connection), `files` (the working directory), `reverse` (dialling in).
//!
//! Source of the protocol: golang/build `cmd/buildlet/buildlet.go` (2023); paths under `/burrow/` are our own.

mod dial; // connections to the coordinator
mod exec; // commands that outlive their connection
mod files; // the working directory
mod flags; // what to be
mod form;
mod reverse; // dialling in
mod server; // one connection
mod stream; // bytes, read ahead
mod trust; // which coordinators are believed // urlencoded pairs

pub use flags::main_with;
