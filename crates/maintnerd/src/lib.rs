//! The mutation log over HTTP, both ways, and the corpus that follows it.
//!
//! [`routes`] serve a log to followers: ours and the original's. [`Copy`] keeps a folder like another
//! server's log, [`Replay`] turns what is new of a log into a corpus, and [`follow`] runs both for
//! ever. [`run`] is the service of it all. [`Leader`] is the one who appends. [`import`] takes over what the original's disk logger wrote.
//!
//! A log is shown only as far as it is durable, so what was served once never changes.

mod as_of;
mod copy;
mod follow;
mod fsck;
mod import;
mod index;
mod keeper;
mod known;
mod leader;
mod pace;
mod replay;
mod serve;
mod service;
mod snapshot;
mod sources;
pub mod synthetic;

pub use as_of::place_at;
pub use copy::{Copy, CopyError, Outcome};
pub use follow::{Following, Snapshot, follow};
pub use fsck::{Checked, fsck};
pub use import::{ImportError, import, import_into};
pub use index::{Listed, Plan, plan};
pub use keeper::{Keeper, LogGone, Tell};
pub use known::{Held, Known};
pub use leader::Leader;
pub use replay::{Counts, Replay, ReplayError, load};
pub use serve::{Served, Visible, routes};
pub use service::{Config, run};
pub use snapshot::{
    NotUsed, SNAPSHOT, Started, load_from, log_in, open_snapshot, save_snapshot, start, until,
};
pub use sources::{Source, SourceStatus, Sources, State, What, key, sources};
