//! Pages and JSON: what was built, what broke, what waits and why.
//!
//! Reads the store and the logs; the only thing it writes is what a person asks for, as an intent that the
//! coordinator takes up. Views are plain values, JSON by serde, HTML by functions of them; start at [`routes`].

mod ansi; // a log's escapes as safe HTML
mod draw; // views as HTML
mod routes;
mod view; // what pages show

use std::sync::Arc;

use blobs::LogStore;
use ids::Timestamp;
use store::Store;
use web::Site;

pub use routes::routes;

/// What lives in the coordinator's memory and is worth a look.
pub trait Live: Send + Sync + 'static {
    fn queue(&self) -> Arc<QueueView>;
    fn config(&self) -> Arc<config::Config>;
    fn health(&self) -> Vec<HealthItem>;
}

/// All that waits, in order, as of a moment.
#[derive(Debug, Clone, Default)]
pub struct QueueView {
    pub waiting: Vec<schedule::Waiting>,
    pub at: Timestamp,
    pub paused: Option<String>,
}

/// One line of the status page.
#[derive(Debug, Clone, serde::Serialize)]
pub struct HealthItem {
    pub name: String,
    pub ok: bool,
    pub text: String,
}

/// What the pages are made from.
#[derive(Clone)]
pub struct Dashboard {
    pub store: Store,
    pub logs: LogStore,
    pub live: Arc<dyn Live>,
    pub site: Site,
}
