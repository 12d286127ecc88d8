use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use corpus::Corpus;
use mutlog::LogReader;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::copy::{Copy, CopyError, Outcome};
use crate::replay::Replay;
use crate::serve::{Visible, total};
use crate::snapshot::{open_snapshot, save_snapshot};

/// Between two tries after the first, the second and so on failed; the last for all later ones.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(9),
    Duration::from_secs(15),
];

/// How much of the log is replayed between two snapshots of the corpus.
const KEEP_AFTER: u64 = 32 << 20;

/// A corpus as of some moment, and where its texts are.
#[derive(Clone)]
pub struct Snapshot {
    pub corpus: Arc<Corpus>,
    pub texts: LogReader,
    /// Bytes of the log that it has.
    pub size: u64,
}

/// What a follower shows: both change together with the log, the log first.
pub struct Following {
    /// `None` until the log was there once.
    pub snapshot: watch::Receiver<Option<Snapshot>>,
    /// What the copy holds, for serving it on.
    pub visible: Visible,
    pub reader: LogReader,
}

/// Keeps a corpus like the log that `copy` is of. The future runs until `stop` is cancelled, or until
/// the copy cannot be written or read; a server that cannot be reached is tried again for ever.
pub fn follow(copy: Copy, stop: CancellationToken) -> (Following, impl Future<Output = anyhow::Result<()>>) {
    let (snapshots, snapshot) = watch::channel(None);
    let (logs, visible) = watch::channel(None);
    let reader = copy.reader();
    let served = reader.clone();
    let run = async move {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            ended = run(copy, snapshots, logs, served) => ended,
        }
    };
    (
        Following {
            snapshot,
            visible,
            reader,
        },
        run,
    )
}

/// What an earlier process left, or nothing.
async fn from_snapshot(reader: LogReader, log: Vec<mutlog::Segment>) -> anyhow::Result<Replay> {
    let opening = tokio::task::spawn_blocking(move || open_snapshot(&reader, reader.folder().dir(), &log));
    match opening.await.context("opening the snapshot was stopped")? {
        Ok(found) => Ok(found.unwrap_or_default()),
        Err(why) => {
            let why = anyhow::Error::from(why);
            info!("replaying the whole log, not from the snapshot: {why:#}");
            Ok(Replay::default())
        }
    }
}

/// Leaves a snapshot now and then, so that the next start is quick.
fn keep(reader: &LogReader, replay: &mut Replay) {
    if replay.unsaved() >= KEEP_AFTER {
        if let Err(error) = save_snapshot(reader.folder().dir(), replay) {
            warn!("the next start will take longer: {error:#}");
        }
        // Also after a failure: not at every batch.
        replay.saved();
    }
}

async fn run(
    mut copy: Copy,
    snapshots: watch::Sender<Option<Snapshot>>,
    logs: watch::Sender<Option<Arc<[mutlog::Segment]>>>,
    served: LogReader,
) -> anyhow::Result<()> {
    let mut texts = copy.reader();
    let mut replay = from_snapshot(texts.clone(), copy.segments()).await?;
    let mut failures = 0;
    // What is there already is shown before the server is asked.
    let mut news = !copy.segments().is_empty();
    loop {
        if news {
            let log = copy.segments();
            let size = total(&log);
            logs.send_replace(Some(log.clone().into()));
            let reader = texts.clone();
            let advanced = tokio::task::spawn_blocking(move || {
                let done = replay.advance(&reader, &log).map(|()| keep(&reader, &mut replay));
                (replay, done)
            });
            let (advancing, done) = advanced.await.context("replaying the log was stopped")?;
            replay = advancing;
            done.context("replay the log")?;
            let corpus = Arc::new(replay.corpus().clone());
            snapshots.send_replace(Some(Snapshot {
                corpus,
                texts: texts.clone(),
                size,
            }));
        }
        match copy.update().await {
            Ok(Outcome::Unchanged) => {
                failures = 0;
                // An empty log is shown, too, once it is known to be one.
                news = logs.borrow().is_none();
            }
            Ok(Outcome::Grown) => {
                failures = 0;
                news = true;
            }
            Ok(Outcome::Split) => {
                failures = 0;
                news = true;
                info!("the log that is followed began anew; reading all of it");
                // Snapshots from before keep their files: replaying has opened them all.
                (replay, texts) = (Replay::default(), copy.reader());
                served.forget();
            }
            Err(error @ (CopyError::Commit(_) | CopyError::Stopped)) => return Err(error.into()),
            Err(error) => {
                let pause = PAUSES[failures.min(PAUSES.len() - 1)];
                failures += 1;
                news = false;
                let error = anyhow::Error::from(error);
                warn!("cannot follow the log, trying again in {pause:?}: {error:#}");
                sleep(pause).await;
            }
        }
    }
}
