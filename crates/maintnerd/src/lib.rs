//! The mutation log over HTTP, both ways, and the corpus that follows it.
//!
//! [`routes`] serve a log to followers: ours and the original's. [`Copy`] keeps a folder like another
//! server's log, [`Replay`] turns what is new of a log into a corpus, and [`follow`] runs both for
//! ever. [`run`] is the service of it all. A log that is written here has a [`Keeper`], and [`Sources`] tell
//! it what git, Gerrit and GitHub say; what each of them knows is [`Known`], learnt from the log. [`rpc`]
//! answers questions, [`pages`] tell how all this is doing. [`Leader`] is the one who appends. [`import`] takes over what the original's disk logger wrote.
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
mod pages;
mod replay;
mod rpc;
mod serve;
mod service;
mod snapshot;
mod sources;
pub mod synthetic;
mod wakes;

pub use as_of::place_at;
pub use copy::{Copy, CopyError, Outcome};
pub use follow::{Following, Snapshot, follow};
pub use fsck::{Checked, fsck};
pub use import::{ImportError, import, import_into};
pub use index::{Listed, Plan, plan};
pub use keeper::{Keeper, LogGone, Tell};
pub use known::{Held, Known};
pub use leader::Leader;
pub use pages::{Shown, View, hooks, page_of, pages, words};
pub use replay::{Counts, Replay, ReplayError, load};
pub use rpc::rpc;
pub use serve::{Served, Visible, routes};
pub use service::{Config, hear, run};
pub use snapshot::{
    NotUsed, SNAPSHOT, Started, load_from, log_in, open_snapshot, save_snapshot, start, until,
};
pub use sources::{Source, SourceStatus, Sources, State, What, key, sources};

/// Every address of a log that is served within a farm.
pub fn paths() -> Vec<&'static str> {
    let log = serve::table().into_iter().map(|(path, _)| path);
    let questions = rpc::table().into_iter().map(|(path, _)| path);
    let page = pages::table().into_iter().map(|(path, _)| path);
    log.chain(questions).chain(page).collect()
}

/// The same, to let through: what ends in `/` is the beginning of an address.
pub fn open_paths() -> [&'static str; 5] {
    [
        "/logs",
        "/logs/",
        "/apipb.MaintnerService/",
        "/maintner",
        "/maintner.json",
    ]
}
