//! Keeps a bare mirror of each repository, knows what its upstream has, and serves archives from it.
//!
//! Start at [`MirrorService::run`] for the loop, [`MirrorService::looks`] for what it saw,
//! [`MirrorService::archive`] for what machines get, and [`archives`] for HTTP.

mod archive;
mod http;
mod service;
mod sift; // what of a tree machines can be given

pub use archive::{Archive, ArchiveError};
pub use http::{Table, archives, hooks, own_path, status};
pub use service::{Look, MirrorService, RepoConfig, Seen};
