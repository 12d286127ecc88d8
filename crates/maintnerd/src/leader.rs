use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use mutlog::{
    Appender, CommitError, Folder, FolderDisk, GroupCommit, Lease, LogReader, Segment, TARGET, Torn, Writer,
};
use tokio::sync::watch;

use crate::serve::Visible;

/// The one process that appends to a log.
pub struct Leader {
    /// Ends the log's writer when the last clone of it is gone.
    pub appender: Appender,
    pub visible: Visible,
    pub reader: LogReader,
    /// What the process before left unfinished.
    pub torn: Option<Torn>,
    commits: GroupCommit,
}

impl Leader {
    /// Opens the log in `folder`, or begins it. Fails if another process has it.
    pub fn open(folder: Folder) -> anyhow::Result<Leader> {
        Leader::open_with_target(folder, TARGET)
    }

    /// As [`Leader::open`], with segments of another length.
    pub fn open_with_target(folder: Folder, target: u64) -> anyhow::Result<Leader> {
        Leader::open_onto(folder, target, watch::Sender::new(None))
    }

    /// As [`Leader::open_with_target`]. What is visible goes to `send`.
    pub(crate) fn open_onto(
        folder: Folder,
        target: u64,
        send: watch::Sender<Option<Arc<[Segment]>>>,
    ) -> anyhow::Result<Leader> {
        let (writer, torn) = open_writer(&folder, target)?;
        send.send_replace(Some(writer.visible().into()));
        let visible = send.subscribe();
        let (commits, appender) = GroupCommit::start(writer, move |segments| {
            send.send_replace(Some(Arc::from(segments)));
        });
        let reader = LogReader::new(folder);
        Ok(Leader {
            appender,
            visible,
            reader,
            torn,
            commits,
        })
    }

    pub(crate) fn parts(self) -> (Appender, GroupCommit) {
        (self.appender, self.commits)
    }

    /// Waits until all is durable that was handed over. Fails if a commit did.
    pub fn close(self) -> Result<(), CommitError> {
        drop(self.appender);
        self.commits.join()
    }
}

pub(crate) fn open_writer(
    folder: &Folder,
    target: u64,
) -> anyhow::Result<(Writer<FolderDisk>, Option<Torn>)> {
    let dir = folder.dir().display();
    let lease = Lease::take(folder.dir()).with_context(|| format!("lock the log in `{dir}`"))?;
    let disk = FolderDisk::new(folder.clone(), lease);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    Writer::open(disk, target, now.as_secs()).with_context(|| format!("open the log in `{dir}`"))
}
