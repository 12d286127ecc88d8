//! Pages and JSON: what was built, what broke, what waits and why.
//!
//! Reads the store and the logs; the only thing it writes is what a person asks for, as an intent that the
//! coordinator takes up. Each page is a module: a view, which is its JSON, a handler that makes it, and a
//! function that draws it. No page relies on script. Start at [`routes()`]; `docs/api.md` is the outside.

mod routes; // every address

mod build;
mod builder;
mod builds;
mod commit;
mod farm;
mod gomotes; // machines lent to people
mod grid;
mod machine;
mod queue;
mod search;
mod status;
mod wish; // what people ask for

mod ansi; // a log's escapes as safe HTML
mod failing; // which lines of a log say why
mod log; // a step's log on a page
mod part; // pieces that pages are drawn from
mod raw; // logs as bytes, and as they come
mod view; // what several pages show

use std::sync::Arc;

use blobs::LogStore;
use ids::Timestamp;
use store::Store;
use web::Site;

pub use gomotes::{Gomotes, WaitingLoan, gomote_paths, gomotes};
pub use routes::{paths, routes};

/// What lives in the coordinator's memory and is worth a look.
pub trait Live: Send + Sync + 'static {
    fn queue(&self) -> Arc<QueueView>;
    fn config(&self) -> Arc<config::Config>;
    fn health(&self) -> Vec<HealthItem>;
}

/// All that waits, in order, as of a moment.
#[derive(Debug, Clone, Default)]
pub struct QueueView {
    pub waiting: Arc<Vec<schedule::Waiting>>,
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
