//! The log over HTTP, against itself and against the original.

mod copy;
mod farm;
mod fsck;
mod gcslog;
mod import;
mod original;
mod replay;
mod rpc;
mod schema;
mod serve;
mod service;
mod snapshot;
mod sources;
