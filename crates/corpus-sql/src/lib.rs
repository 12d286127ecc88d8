//! The corpus as tables: [`TABLES`] says which there are, [`Sql`] asks them in SQL, [`rows`] goes through
//! one of them.
//!
//! Nothing is copied: a query walks the corpus where it is, and texts are read from the log when a query
//! looks at them. So what a query does not name costs nothing.
//!
//! ```no_run
//! # fn show(corpus: std::sync::Arc<corpus::Corpus>, log: mutlog::LogReader) -> Result<(), corpus_sql::SqlError> {
//! let sql = corpus_sql::Sql::open(corpus_sql::Source { corpus, texts: log })?;
//! let open = "SELECT number, title FROM issues WHERE state = 'open' AND repo = ? LIMIT 5";
//! let columns = sql.query(open, &["golang/go"], |row| {
//!     println!("{row:?}");
//!     true
//! })?;
//! assert_eq!(columns, ["number", "title"]);
//! # Ok(())
//! # }
//! ```

mod cell;
mod item;
mod out;
mod sql;
mod tables;

pub use cell::Cell;
pub use item::{Only, Source};
pub use out::{Format, Rows};
pub use sql::{Sql, SqlError};
pub use tables::{Column, Kind, TABLES, Table, rows};
