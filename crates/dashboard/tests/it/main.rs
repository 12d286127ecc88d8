//! The pages over a real store and real logs, asked without sockets.

mod api;
mod browser;
mod build;
mod crawl;
mod grid;
mod lists;
mod log;
mod many;
mod wish;
mod world;
