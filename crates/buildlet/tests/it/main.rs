//! The real program over real sockets.

mod archives; // what goes in and comes out as tar.gz
mod commands; // what runs
mod doors; // TLS, passwords, signals, ends
mod go; // against the originals
mod listings;
mod machine;
mod seed; // under the first coordinator
mod strays; // what commands leave behind
mod wire; // requests that are wrong
