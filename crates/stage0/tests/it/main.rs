//! The real program against a real HTTP server. The buildlets are shell scripts, except in `homes`, where
//! the real one runs in the places that `env/` is for.
#![cfg(unix)]

mod downloads;
mod homes;
mod settings;
mod world;
