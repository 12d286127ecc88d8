//! The log over HTTP, against itself and against the original.

mod copy;
mod farm;
mod fsck;
mod import;
mod original;
mod replay;
mod serve;
mod service;
mod snapshot;
