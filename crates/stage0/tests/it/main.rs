//! The real program against a real HTTP server; the buildlets are shell scripts.
#![cfg(unix)]

mod downloads;
mod settings;
mod world;
