//! The agent on every host: files in, processes run, output out.
//!
//! Blocking threads, no async runtime, few dependencies: it is copied onto every kind of machine there is.
//! Reading order: [`main_with`] (the program), `server` (one connection), `exec` (commands that outlive
//! their connection), `files` (the working directory), `reverse` (dialling in).
//!
//! Source of the protocol: golang/build `cmd/buildlet/buildlet.go` (2023); paths under `/burrow/` are our own.

mod answer; // whole ones, and bodies of unknown length
mod base64;
pub mod beneath; // paths that stay below a folder
mod command; // what to run, resolved
mod contain; // what commands are kept within
mod control; // the connection that was registered
pub mod dial; // connections to the coordinator
mod exec; // commands that outlive their connection
mod facts; // what this machine is
mod fetch; // archives by URL
pub mod files; // what is written into the working directory
mod flags; // what to be told
pub mod form; // fields of queries and bodies
mod gomode; // modes as Go writes them
mod identity; // a key of its own
mod leftover; // what a buildlet that was killed left running
mod list; // what is read from the working directory
mod metadata; // what is told to a machine that listens
mod multiplexed; // connections within it, before 2019
mod ordered; // work in threads, results in order
mod output; // of a command, to whoever asked
mod reverse; // dialling in
mod run; // the program
mod server; // one connection
mod ssh; // shells for people
mod strays; // what commands leave behind
pub mod stream; // bytes, read ahead
pub mod trust; // which coordinators are believed

pub use run::main_with;
