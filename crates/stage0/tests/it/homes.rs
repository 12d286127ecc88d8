//! What lies in `env/`, used as its comments say.

mod counterparts;
mod docker;
mod foreign;
mod guest;
mod qemu;
mod recipes;
mod static_programs;
