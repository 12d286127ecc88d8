//! The client against a server that plays back scripted bytes.

mod calls;
mod exec;
mod go; // against the originals
mod server;
