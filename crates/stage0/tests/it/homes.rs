//! What lies in `env/`, used as its comments say.

mod counterparts;
mod guest;
mod recipes;
mod static_programs;
