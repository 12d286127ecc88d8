//! Buildlets that dial in: registration, their sessions, and their health.
//!
//! The accept loop hands over raw streams: a registration to [`ReversePool::register`], a connection
//! that a buildlet was asked for to [`ReversePool::pickup`]. What comes of them is told as
//! [`PoolEvent`]s. Start at [`ReversePool`].
//!
//! Never listens, never ends TLS, and never hands out a machine: whoever reads the events does.
//! Spawns nothing: a session lives in the future of its `register`.
//!
//! Source: golang/build `internal/coordinator/pool/reverse.go` (2023).
//!
//! [`PoolEvent`]: buildlet_api::PoolEvent

mod admit; // who may register
mod bad_keys; // how often an address may guess
pub mod identity; // machines with a key of their own
mod multiplexed; // connections within the registered one, before 2019
mod names; // what a machine is called
mod pool; // sessions, dials, machines
mod tied; // connections that end with their session

pub use admit::{Credential, IdentityVerdict, KeyCheck, KeyVerdict, RegisterHead, refuse};
pub use pool::{ReverseConfig, ReversePool};
