//! A corpus that starts from what an earlier process left beside the log, and the tail of the log.
//!
//! The file is a cache. Whatever is wrong with it, the log is replayed from its beginning, and the file
//! written anew. It is mapped into memory, so it is never written to: a new one takes its place.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Context;
use bytes::Bytes;
use corpus::snapshot::{self, About, BadSnapshot, Contents};
use mutlog::{Folder, LogReader, Place, Records, Segment, State, Sum};

use crate::replay::{Replay, ReplayError};

/// Its name in the folder of the log.
pub const SNAPSHOT: &str = "corpus.snapshot";

/// How much of the log may lie behind the snapshot before a new one is written: some hundredths of a
/// second of replaying.
const WORTH: u64 = 16 << 20;
/// Threads that compare the file with its digests.
const CHECKERS: usize = 4;

/// How a corpus came to be.
pub struct Started {
    pub replay: Replay,
    pub reader: LogReader,
    /// What was applied.
    pub log: Vec<Segment>,
    /// Bytes of the log that came from the snapshot.
    pub from_snapshot: u64,
    /// Why the snapshot that is there was not used.
    pub not_used: Option<String>,
    /// Why no new snapshot could be written, though it would have been worth it.
    pub not_saved: Option<String>,
}

/// The log in a folder as far as it is whole, whoever writes it.
pub fn log_in(folder: &Folder) -> anyhow::Result<Vec<Segment>> {
    let mut log = Vec::new();
    for file in folder.log()? {
        let path = folder.path(&file);
        let read = || format!("read `{}`", path.display());
        let (len, sum) = match file.state {
            State::Sealed(sum) => (fs::metadata(&path).with_context(read)?.len(), sum),
            State::Growing => {
                let bytes = fs::read(&path).with_context(read)?;
                let mut records = Records::new(&bytes, 0);
                records.by_ref().for_each(drop);
                let len = records.offset();
                (len, Sum::of(&bytes[..usize::try_from(len)?]))
            }
        };
        log.push(Segment {
            number: file.number,
            len,
            sum,
        });
    }
    Ok(log)
}

/// The corpus of a folder's log, by way of the snapshot if that helps; leaves a new one if that will.
pub fn load_from(folder: &Folder) -> anyhow::Result<Started> {
    start(folder, log_in(folder)?, WORTH)
}

/// As [`load_from`], of a part of the log from its beginning. `worth`: how many bytes behind the snapshot
/// are worth a new one.
pub fn start(folder: &Folder, log: Vec<Segment>, worth: u64) -> anyhow::Result<Started> {
    let reader = LogReader::new(folder.clone());
    let opened = open_snapshot(&reader, folder.dir(), &log);
    let (found, not_used) = match opened {
        Ok(found) => (found, None),
        Err(why) => (None, Some(format!("{:#}", anyhow::Error::from(why)))),
    };
    let mut replay = found.unwrap_or_default();
    let from_snapshot = replay.counts().bytes;
    replay.advance(&reader, &log)?;
    let not_saved = match replay.counts().bytes - from_snapshot >= worth {
        true => save_snapshot(folder.dir(), &replay).err(),
        false => None,
    };
    Ok(Started {
        replay,
        reader,
        log,
        from_snapshot,
        not_used,
        not_saved: not_saved.map(|error| format!("{error:#}")),
    })
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub enum NotUsed {
    #[error(transparent)]
    Bad(#[from] BadSnapshot),
    #[error("the snapshot is of another log: segment {0} differs")]
    OtherLog(mutlog::SegmentNumber),
    #[error("the snapshot is of more than is there of the log")]
    Ahead,
}

/// What is in the snapshot of a folder, to be advanced to the end of `log`. `None`: there is none.
pub fn open_snapshot(reader: &LogReader, dir: &Path, log: &[Segment]) -> Result<Option<Replay>, NotUsed> {
    let file = match File::open(dir.join(SNAPSHOT)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(BadSnapshot::from)?,
    };
    let len = file.metadata().map_err(BadSnapshot::from)?.len();
    let read = |at: u64, room: &mut [u8]| file.read_exact_at(room, at);
    let contents = Contents::read(len, read)?;
    is_of(&contents.about.log, reader, log)?;
    check(&contents, &file)?;
    let corpus = contents.corpus(&map(&file).map_err(BadSnapshot::from)?)?;
    let damaged = || BadSnapshot::Damaged {
        what: "what was passed over".to_owned(),
    };
    Ok(Some(Replay::resume(corpus, contents.about).ok_or_else(damaged)?))
}

/// Whether `log` begins with what the snapshot is of.
fn is_of(snapshot: &[Segment], reader: &LogReader, log: &[Segment]) -> Result<(), NotUsed> {
    if snapshot.len() > log.len() {
        return Err(NotUsed::Ahead);
    }
    for (at, (ours, theirs)) in snapshot.iter().zip(log).enumerate() {
        let is_last = at + 1 == snapshot.len();
        let same = match (ours.len, theirs.len) {
            (ours_len, len) if ours_len == len => ours.sum == theirs.sum,
            (ours_len, len) if ours_len < len && is_last => {
                let mut begin = vec![0; usize::try_from(ours_len).unwrap_or(usize::MAX)];
                let (segment, offset) = (theirs.number, 0);
                let at = Place { segment, offset };
                reader.read_into(at, &mut begin).map_err(BadSnapshot::from)?;
                Sum::of(&begin) == ours.sum
            }
            (ours_len, len) if ours_len > len && is_last && at + 1 == log.len() => {
                return Err(NotUsed::Ahead);
            }
            _ => false,
        };
        if !same || ours.number != theirs.number {
            return Err(NotUsed::OtherLog(theirs.number));
        }
    }
    Ok(())
}

/// Compares the whole file with its digests. It is read, not mapped: what nobody asks for takes no memory.
fn check(contents: &Contents, file: &File) -> Result<(), BadSnapshot> {
    let next = AtomicUsize::new(0);
    let checker = || {
        let mut room = Vec::new();
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= contents.blocks() {
                return Ok(());
            }
            contents.check(block, &mut room, |at, room| file.read_exact_at(room, at))?;
        }
    };
    let threads = thread::available_parallelism().map_or(1, |count| count.get().min(CHECKERS));
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(checker)).collect();
        let ours = checker();
        others
            .into_iter()
            .map(|other| {
                other
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .fold(ours, Result::and)
    })
}

#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: The memory must not change while it is shared. Nobody writes to a snapshot once it has its
    // name: `save_snapshot` renames a whole one into its place, and the old file lives on as long as it is
    // mapped. Whoever writes into it by hand can stop this process, as he can who writes into its program.
    let mapped = unsafe { memmap2::Mmap::map(file)? };
    Ok(Bytes::from_owner(mapped))
}

/// Leaves what was replayed for the next process. The file is there whole, or as before.
pub fn save_snapshot(dir: &Path, replay: &Replay) -> anyhow::Result<()> {
    let path = dir.join(SNAPSHOT);
    let whole = dir.join(format!("{SNAPSHOT}.{}.part", std::process::id()));
    let written = write(&whole, replay).and_then(|()| fs::rename(&whole, &path));
    if written.is_err() {
        // It may be what filled the disk.
        let _ = fs::remove_file(&whole);
    }
    written.with_context(|| format!("write `{}`", path.display()))
}

fn write(path: &Path, replay: &Replay) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    let counts = replay.counts();
    let passed_over = counts
        .troubles
        .iter()
        .map(|(kind, (count, one))| ((*kind).to_owned(), *count, one.clone()));
    let about = About {
        log: replay.applied().to_vec(),
        records: counts.records,
        bytes: counts.bytes,
        passed_over: passed_over.collect(),
    };
    snapshot::write(replay.corpus(), &about, &mut out)?;
    out.flush()?;
    // A cache needs no order on disk: half of it after a loss of power is found by its digests.
    Ok(())
}

/// What of `log` lies before `end`: the records that end there or before.
pub fn until(reader: &LogReader, log: &[Segment], end: Place) -> Result<Vec<Segment>, ReplayError> {
    let mut part: Vec<Segment> = log
        .iter()
        .take_while(|segment| segment.number <= end.segment)
        .cloned()
        .collect();
    let Some(last) = part.last_mut().filter(|last| last.number == end.segment) else {
        return Ok(part);
    };
    if u64::from(end.offset) < last.len {
        let mut bytes = vec![0; end.offset as usize];
        let (segment, offset) = (last.number, 0);
        let read = reader.read_into(Place { segment, offset }, &mut bytes);
        read.map_err(|source| ReplayError::Io {
            number: segment,
            source,
        })?;
        let mut records = Records::new(&bytes, 0);
        records.by_ref().for_each(drop);
        let whole = usize::try_from(records.offset()).expect("within the bytes");
        (last.len, last.sum) = (records.offset(), Sum::of(&bytes[..whole]));
    }
    Ok(part)
}
