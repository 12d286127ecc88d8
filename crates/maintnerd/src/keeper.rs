use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use mutlog::{Appender, Folder, GroupCommit, LogReader, Segment, TARGET};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::follow::Snapshot;
use crate::leader::Leader;
use crate::replay::Replay;
use crate::serve::{Visible, total};

/// Between two tries to open a log whose writer failed, as of a disk that is full.
const REOPEN_PAUSE: Duration = Duration::from_secs(5);

/// The log of a process that appends to it, and the corpus of it. Cheap to clone.
///
/// The writer ends when a write fails, for then nobody knows what the disk holds. The log is then opened
/// anew, which finds out, and has another era: what somebody knew of the log before does not hold.
#[derive(Clone)]
pub struct Keeper(Arc<Kept>);

struct Kept {
    folder: Folder,
    target: u64,
    writer: watch::Sender<Option<Writer>>,
    visible: watch::Sender<Option<Arc<[Segment]>>>,
    reader: LogReader,
    snapshot: watch::Sender<Option<Snapshot>>,
    trouble: Mutex<Option<String>>,
}

#[derive(Clone)]
struct Writer {
    era: u64,
    appender: Appender,
}

/// The log took nothing, or not all. What is known of it must be learnt anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log does not take writes")]
pub struct LogGone;

/// Appends as long as the era lasts in which it was made.
pub struct Tell {
    keeper: Keeper,
    era: u64,
}

impl Keeper {
    /// Opens the log in `folder`, or begins it. The future keeps it until `stop`; it fails only if the
    /// log cannot be replayed.
    pub fn open(
        folder: Folder,
        stop: CancellationToken,
    ) -> anyhow::Result<(Keeper, impl Future<Output = anyhow::Result<()>>)> {
        Keeper::open_with_target(folder, TARGET, stop)
    }

    /// As [`Keeper::open`], with segments of another length.
    pub fn open_with_target(
        folder: Folder,
        target: u64,
        stop: CancellationToken,
    ) -> anyhow::Result<(Keeper, impl Future<Output = anyhow::Result<()>>)> {
        let keeper = Keeper(Arc::new(Kept {
            target,
            writer: watch::Sender::new(None),
            visible: watch::Sender::new(None),
            reader: LogReader::new(folder.clone()),
            snapshot: watch::Sender::new(None),
            trouble: Mutex::default(),
            folder,
        }));
        let commits = keeper.begin(keeper.lead()?, 1);
        let run = keeper.clone().run(commits, stop);
        Ok((keeper, run))
    }

    /// Lets the log be written to, in this era.
    fn begin(&self, leader: Leader, era: u64) -> GroupCommit {
        let (appender, commits) = leader.parts();
        self.0.writer.send_replace(Some(Writer { era, appender }));
        commits
    }

    fn lead(&self) -> anyhow::Result<Leader> {
        let leader = Leader::open_onto(self.0.folder.clone(), self.0.target, self.0.visible.clone())?;
        if let Some(torn) = &leader.torn {
            warn!("{torn}");
        }
        Ok(leader)
    }

    async fn run(self, commits: GroupCommit, stop: CancellationToken) -> anyhow::Result<()> {
        let ended = tokio::select! {
            folded = self.fold() => folded,
            () = self.hold(commits, &stop) => Ok(()),
        };
        // Its thread ends when nobody can append any more.
        self.0.writer.send_replace(None);
        ended
    }

    /// Keeps the log open until `stop`, and what was handed over is durable.
    async fn hold(&self, mut commits: GroupCommit, stop: &CancellationToken) {
        for era in 2.. {
            let mut ended = tokio::task::spawn_blocking(move || commits.join());
            let why = tokio::select! {
                () = stop.cancelled() => {
                    self.0.writer.send_replace(None);
                    if let Ok(Err(why)) = ended.await {
                        error!("the end of the log was not written: {:#}", anyhow::Error::from(why));
                    }
                    return;
                }
                ended = &mut ended => match ended {
                    Ok(Ok(())) => "its writer ended".to_owned(),
                    Ok(Err(why)) => format!("{:#}", anyhow::Error::from(why)),
                    Err(why) => why.to_string(),
                },
            };
            self.0.writer.send_replace(None);
            error!("the log takes no writes, opening it anew: {why}");
            self.note(Some(why));
            let leader = loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(REOPEN_PAUSE) => {}
                }
                match self.lead() {
                    Ok(leader) => break leader,
                    Err(why) => {
                        warn!("the log cannot be opened, trying again: {why:#}");
                        self.note(Some(format!("{why:#}")));
                    }
                }
            };
            // What was behind its durable end was cut off.
            self.0.reader.forget();
            commits = self.begin(leader, era);
            self.note(None);
        }
    }

    /// Turns what becomes visible into snapshots.
    async fn fold(&self) -> anyhow::Result<()> {
        let mut replay = Replay::default();
        let mut visible = self.visible();
        loop {
            let log = visible.borrow_and_update().clone();
            if let Some(log) = log {
                let (reader, size) = (self.0.reader.clone(), total(&log));
                let advanced = tokio::task::spawn_blocking(move || {
                    let done = replay.advance(&reader, &log);
                    (replay, done)
                });
                let (advancing, done) = advanced.await.context("replaying the log was stopped")?;
                replay = advancing;
                done.with_context(|| format!("replay the log in `{}`", self.0.folder.dir().display()))?;
                self.0.snapshot.send_replace(Some(Snapshot {
                    corpus: Arc::new(replay.corpus().clone()),
                    texts: self.0.reader.clone(),
                    size,
                }));
            }
            visible.changed().await.context("the log is closed")?;
        }
    }

    fn note(&self, trouble: Option<String>) {
        *self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Why the log takes no writes, while it does not.
    pub fn trouble(&self) -> Option<String> {
        self.0
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What followers may see.
    pub fn visible(&self) -> Visible {
        self.0.visible.subscribe()
    }

    pub fn reader(&self) -> LogReader {
        self.0.reader.clone()
    }

    pub fn snapshot(&self) -> watch::Receiver<Option<Snapshot>> {
        self.0.snapshot.subscribe()
    }

    /// Bytes of the log.
    pub fn size(&self) -> u64 {
        self.0.visible.borrow().as_deref().map_or(0, total)
    }

    /// Waits until snapshots have all that is in the log at this moment.
    pub async fn caught_up(&self) -> Result<(), LogGone> {
        let size = self.size();
        let mut snapshot = self.snapshot();
        let reached = snapshot.wait_for(|snapshot| snapshot.as_ref().is_some_and(|one| one.size >= size));
        reached.await.map(drop).map_err(|_| LogGone)
    }

    /// `None` while the log takes no writes.
    pub fn tell(&self) -> Option<Tell> {
        let era = self.0.writer.borrow().as_ref()?.era;
        Some(Tell {
            keeper: self.clone(),
            era,
        })
    }

    /// The log as far as it is visible, read from its first record on. Blocks.
    pub(crate) fn log(&self) -> (LogReader, Arc<[Segment]>) {
        let log = self.0.visible.borrow().clone().unwrap_or_default();
        (self.reader(), log)
    }
}

impl Tell {
    pub fn era(&self) -> u64 {
        self.era
    }
}

impl sync::Log for Tell {
    type Error = LogGone;

    async fn append(&mut self, mutations: &[Vec<u8>]) -> Result<(), LogGone> {
        let writer = self.keeper.0.writer.borrow().clone();
        let writer = writer.filter(|writer| writer.era == self.era).ok_or(LogGone)?;
        let mutations = mutations.to_vec();
        let appended = tokio::task::spawn_blocking(move || writer.appender.append(mutations).map(drop));
        match appended.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(LogGone),
        }
    }
}
