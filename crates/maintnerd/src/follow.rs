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
use crate::serve::Visible;

/// Between two tries after the first, the second and so on failed; the last for all later ones.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(9),
    Duration::from_secs(15),
];

/// A corpus as of some moment, and where its texts are.
#[derive(Clone)]
pub struct Snapshot {
    pub corpus: Arc<Corpus>,
    pub texts: LogReader,
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

async fn run(
    mut copy: Copy,
    snapshots: watch::Sender<Option<Snapshot>>,
    logs: watch::Sender<Option<Arc<[mutlog::Segment]>>>,
    served: LogReader,
) -> anyhow::Result<()> {
    let mut replay = Replay::default();
    let mut texts = copy.reader();
    let mut failures = 0;
    // What is there already is shown before the server is asked.
    let mut news = !copy.segments().is_empty();
    loop {
        if news {
            let log = copy.segments();
            logs.send_replace(Some(log.clone().into()));
            let reader = texts.clone();
            let advanced = tokio::task::spawn_blocking(move || {
                let done = replay.advance(&reader, &log);
                (replay, done)
            });
            let (advancing, done) = advanced.await.context("replaying the log was stopped")?;
            replay = advancing;
            done.context("replay the log")?;
            let corpus = Arc::new(replay.corpus().clone());
            snapshots.send_replace(Some(Snapshot {
                corpus,
                texts: texts.clone(),
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
