//! The real program over real sockets.

mod archives; // what goes in and comes out as tar.gz
mod clean; // what a machine that cannot be cleaned does
mod commands; // what runs
#[cfg(target_os = "linux")]
mod contain; // what commands are kept within, looked at from outside
mod doors; // TLS, passwords, signals, ends
mod go; // against the originals
mod hostile; // peers that mean no good
mod interop; // the list of what is checked against what
mod listings;
mod machine;
mod seed; // under the first coordinator
mod ssh; // sessions
mod strays; // what commands leave behind
mod transcripts; // byte for byte
mod wire; // requests that are wrong
