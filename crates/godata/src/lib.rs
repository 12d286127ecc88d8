//! One call gives a live corpus: every issue, change and commit of a project, in the memory of your
//! program, and kept like the server's.
//!
//! ```no_run
//! # async fn show() -> anyhow::Result<()> {
//! let mut data = godata::live("https://maintner.example.org/logs", "/var/cache/example").await?;
//! let now = data.now();
//! for project in now.corpus.projects() {
//!     println!("{}: {} open changes", project.key, project.open_changes().count());
//! }
//! loop {
//!     let update = data.next().await?;
//!     for issue in &update.changed.issues {
//!         println!("{}/{}#{} changed", issue.owner, issue.repo, issue.number);
//!     }
//! }
//! # }
//! ```
//!
//! A whole program to copy: `crates/godata/examples/watch.rs`. What can be asked: [`corpus::Corpus`].
//!
//! The folder keeps a copy of the log and a snapshot of the corpus, so that the next start is quick, and
//! works when the server is away. One program at a time uses it; another gets an error that says who has it.
//! The original's client can use the same folder, one after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
pub use corpus;
use corpus::{Changed, Corpus};
use mutlog::{Folder, LogReader};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The corpus at a moment. Does not change; a clone costs nothing.
#[derive(Clone)]
pub struct Now {
    pub corpus: Arc<Corpus>,
    /// Where long texts are read from: bodies, messages.
    pub texts: LogReader,
}

/// What came.
pub struct Update {
    pub now: Now,
    /// What is another than in the update before.
    pub changed: Changed,
}

/// A corpus that is kept like a server's. Dropping it ends that.
pub struct Live {
    now: Now,
    snapshots: watch::Receiver<Option<maintnerd::Snapshot>>,
    following: Option<JoinHandle<anyhow::Result<()>>>,
    _stop: DropGuard,
}

/// Follows the log at `url`, the server's `/logs`; keeps a copy in `folder`, which is made if it is not
/// there. Returns when the corpus is there: at once from the copy, if that was kept before; else when the
/// whole log has come. A server that does not answer is asked again for ever.
pub async fn live(url: &str, folder: impl Into<PathBuf>) -> anyhow::Result<Live> {
    // Where another was chosen already, that stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let at: reqwest::Url = url.parse().with_context(|| format!("`{url}` is no URL"))?;
    let folder = folder.into();
    let opening = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&folder).with_context(|| format!("make `{}`", folder.display()))?;
        maintnerd::Copy::open(at, Folder::new(folder))
    });
    let copy = opening.await.context("opening the copy was stopped")??;
    let stop = CancellationToken::new();
    let (following, run) = maintnerd::follow(copy, stop.clone());
    let mut live = Live {
        now: Now {
            corpus: Arc::default(),
            texts: following.reader,
        },
        snapshots: following.snapshot,
        following: Some(tokio::spawn(run)),
        _stop: stop.drop_guard(),
    };
    live.next().await?;
    Ok(live)
}

/// The corpus of a log that lies in `folder`, as it is; nothing is followed. For tools that ask once.
pub fn open(folder: impl AsRef<Path>) -> anyhow::Result<Now> {
    let started = maintnerd::load_from(&Folder::new(folder.as_ref()))?;
    Ok(Now {
        corpus: Arc::new(started.replay.corpus().clone()),
        texts: started.reader,
    })
}

impl Live {
    /// The corpus as of the last update that was seen.
    pub fn now(&self) -> Now {
        self.now.clone()
    }

    /// Waits for something new and says what. Updates that come while nobody waits come as one.
    ///
    /// Fails when the copy can not be written or read any more; the corpus is then as it was.
    ///
    /// Cancel safe: an update that nobody got is part of the next.
    pub async fn next(&mut self) -> anyhow::Result<Update> {
        loop {
            if self.snapshots.changed().await.is_err() {
                return Err(self.why_ended().await);
            }
            let snapshot = self.snapshots.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                let changed = snapshot.corpus.changed_since(&self.now.corpus);
                self.now = Now {
                    corpus: snapshot.corpus,
                    texts: snapshot.texts,
                };
                let now = self.now();
                return Ok(Update { now, changed });
            }
        }
    }

    async fn why_ended(&mut self) -> anyhow::Error {
        let ended = match self.following.take() {
            Some(following) => following.await.context("following the log was stopped"),
            None => Err(anyhow!("the log is not followed any more")),
        };
        match ended.and_then(|ended| ended) {
            Ok(()) => anyhow!("following the log ended"),
            Err(why) => why,
        }
    }
}
