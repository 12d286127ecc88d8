//! The agent on every host: files in, processes run, output out.
//!
//! Blocking threads, no async runtime, few dependencies: it is copied onto every kind of machine there is.
//! Reading order: [`main_with`] (flags), `server` (one connection), `exec` (commands that outlive
//! their connection), `files` (the working directory).
//!
//! Source of the protocol: golang/build `cmd/buildlet/buildlet.go` (2023); paths under `/burrow/` are our own.

mod exec;
mod files;
mod flags;
mod form;
mod server;

pub use flags::main_with;
