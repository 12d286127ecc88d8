//! Fetches the buildlet that its owner signed, keeps the last good one, and runs it, again and again.
//!
//! It is baked into images and hardly ever replaced, so that the buildlet can be. What is fetched is
//! believed for its signature, never for the server it came from.
//! Reading order: [`manifest`] (what is signed), [`stage`] (every decision, without IO), `settings`,
//! then the shell: `drive`, `kept` (the state folder), `fetch`, `child`, `metadata`.
//!
//! Source of the idea: golang/build `cmd/buildlet/stage0/stage0.go`, which checks nothing it downloads.

mod args; // the command line
mod child; // the buildlet as a process
mod drive; // does what the core says
mod fetch; // over HTTP
mod kept; // the state folder
pub mod manifest;
mod metadata; // what a cloud says about its machine
pub mod publish; // what is run by who signs and who runs the farm
mod settings;
pub mod stage;

pub use args::main_with;
