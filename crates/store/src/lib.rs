//! The farm store: what the farm wants, is doing and has done. SQLite or PostgreSQL, one contract.
//!
//! Everything here is durable when its call returns `Ok`. A change that breaks an invariant (a
//! machine leased twice, a build created twice) is refused whole, as [`StoreError::Conflict`]; a row
//! that contradicts itself is an error for whoever reads it, never a guess. The store decides
//! nothing and reads no clock: what is to be stored is handed in, with its time.
//!
//! Start at [`Store::open`] and [`Store::apply`]. Tables: `docs/store-schema.md`.

mod access; // tokens, machine keys, what people asked for
mod apply; // the writes of the farm core, one transaction each
pub mod backup; // all rows as lines, and back
mod builds; // builds, attempts, machines as readers see them
mod enrol; // machines with a key of their own
mod error;
mod grid; // commits by builders
mod history; // repositories, branches, commits
mod loans; // machines lent to people
mod open;
mod plan; // the stored form of an attempt's plan
pub mod read;
mod rows; // columns to values
mod secret;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ids::{BranchName, RepoName};
use sqlx::AnyPool;
use tokio::sync::watch;

pub use access::{CreatedKey, CreatedToken};
pub use enrol::{CreatedEnrolment, Enrolled};
pub use error::{OpenError, StoreError};
pub use history::BranchChange;
pub use open::{PgUrl, StoreUrl};

/// One handle on a farm store. Cheap to clone; clones share connections and [`Store::changes`].
///
/// No call is safe to drop before its end in this sense: a dropped write may or may not be done.
/// It is never done in part.
#[derive(Clone)]
pub struct Store {
    /// SQLite: its one writing connection.
    write: AnyPool,
    read: AnyPool,
    engine: Engine,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Sqlite,
    Postgres,
}

struct Shared {
    changes: watch::Sender<u64>,
    /// Up to where each branch is known to lack no build: builds are never deleted.
    complete: Mutex<BTreeMap<(RepoName, BranchName), history::Complete>>,
}

impl Store {
    /// Counts the commits made through this handle and its clones. Wakes pages and event streams;
    /// what changed is not said.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Whether the store answers.
    pub async fn health(&self) -> Result<(), StoreError> {
        self.within(async {
            sqlx::query("SELECT n FROM build_counts")
                .fetch_all(&self.read)
                .await?;
            Ok(())
        })
        .await
    }
}
