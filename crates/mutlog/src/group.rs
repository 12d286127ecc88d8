use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::place::{Place, Segment};
use crate::writer::{CommitError, Writer};

/// A commit waits at most this long for company: so that followers have what was appended within 50 ms,
/// the disk's time and theirs included.
const WINDOW: Duration = Duration::from_millis(20);
/// With so many bytes a commit waits no longer.
const ENOUGH: usize = 256 << 10;
/// Appends that wait for the thread; one more waits itself.
const QUEUE: usize = 1024;

/// Commits for many appenders at once, on a thread of its own.
///
/// Ends when all [`Appender`]s are gone, or when a commit fails.
pub struct GroupCommit {
    thread: JoinHandle<Result<(), CommitError>>,
}

/// Hands records to the writer's thread. Cheap to clone.
#[derive(Clone)]
pub struct Appender {
    queue: SyncSender<Append>,
}

struct Append {
    payloads: Vec<Vec<u8>>,
    done: SyncSender<Vec<Place>>,
}

/// The writer has ended; what was handed to it may be durable or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the writer of the log has ended")]
pub struct Ended;

impl GroupCommit {
    /// `committed` is called after each commit, before its appenders go on, with what is visible.
    pub fn start<D: Disk + Send + 'static>(
        writer: Writer<D>,
        committed: impl FnMut(Vec<Segment>) + Send + 'static,
    ) -> (GroupCommit, Appender) {
        let (queue, appends) = mpsc::sync_channel(QUEUE);
        let thread = std::thread::spawn(move || run(writer, &appends, committed));
        (GroupCommit { thread }, Appender { queue })
    }

    /// Waits until it has ended. Fails with why a commit failed.
    pub fn join(self) -> Result<(), CommitError> {
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Appender {
    /// Appends records, none between them, and returns when they are durable. A payload may have at
    /// most [`crate::MAX_PAYLOAD`] bytes; a longer one ends the writer.
    pub fn append(&self, payloads: Vec<Vec<u8>>) -> Result<Vec<Place>, Ended> {
        let (done, durable) = mpsc::sync_channel(1);
        self.queue.send(Append { payloads, done }).map_err(|_| Ended)?;
        durable.recv().map_err(|_| Ended)
    }
}

fn run<D: Disk>(
    mut writer: Writer<D>,
    appends: &Receiver<Append>,
    mut committed: impl FnMut(Vec<Segment>),
) -> Result<(), CommitError> {
    let mut last: Option<Instant> = None;
    while let Ok(first) = appends.recv() {
        let mut waiting = Vec::new();
        let mut take = |writer: &mut Writer<D>, append: Append| {
            let places = append.payloads.iter().map(|payload| writer.append(payload));
            let places: Result<Vec<Place>, _> = places.collect();
            waiting.push((append.done, places.expect("callers keep to the limit")));
        };
        take(&mut writer, first);
        // The first after a pause goes at once.
        let due = last.map_or_else(Instant::now, |last| last + WINDOW);
        while writer.pending() < ENOUGH {
            match appends.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(append) => take(&mut writer, append),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        writer.commit()?;
        last = Some(Instant::now());
        committed(writer.visible());
        for (done, places) in waiting {
            // An appender that went away wants no answer.
            let _ = done.send(places);
        }
    }
    Ok(())
}
