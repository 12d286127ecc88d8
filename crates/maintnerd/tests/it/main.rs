//! The log over HTTP, against itself and against the original.

mod copy;
mod farm;
mod import;
mod original;
mod replay;
mod serve;
