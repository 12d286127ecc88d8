//! Keeps a bare mirror of each repository, says which branches moved, and serves archives from it.
//!
//! Start at [`MirrorService::run`] for the loop, [`MirrorService::archive`] for what buildlets get, and
//! [`routes`] for HTTP.

mod archive;
mod http;
mod service;

pub use archive::{Archive, ArchiveError};
pub use http::routes;
pub use service::{MirrorEvent, MirrorService, RepoConfig, RepoStatus};
