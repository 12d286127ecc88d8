//! The service over real repositories, with the git program.

mod http;
mod mirrors;
mod world;
