//! A mutation log that outlives its machine: what is shown is in an object store first.
//!
//! The folder stays the log's face: its one writer, its readers and its followers use it as ever. [`open`]
//! takes the log from the store into the folder, on this machine or on a new one, and gives the [`Mirror`]
//! that a [`mutlog::Writer`] writes through. In the store, under a prefix:
//!
//! | object | holds |
//! |---|---|
//! | `NNNN.<sha224>.mutlog` | a sealed segment, named as the original names them, and read by it |
//! | `growing/NNNN/OOOOOOOOOOOO` | what one commit added to the growing segment, at that offset |
//! | `lease` | `COUNTER` of the writer that came last |
//!
//! **Invariant:** a commit is told of only when its object is in the store. A commit to the store costs one
//! write and one look at the lease: a writer that was followed by another writes no more.
//!
//! Absent on purpose: retries beyond those of the client. A commit that fails ends the writer, as a disk
//! that fails does, and opening the log anew finds out what is there.

mod mirror;
mod store;

pub use mirror::{Mirror, open};
pub use store::Store;
