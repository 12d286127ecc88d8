//! Step logs on disk: appended live, read by range, bounded.
//!
//! One log for each step. Up to the limit a log is one file, byte for byte what the step printed. Past
//! it the head stays, the newest part stays in two files that take turns, and a mark in the text says how
//! much is left out between them. What lies on disk is the truth: a writer that died is followed by one that goes on at
//! [`LogWriter::stream_offset`].
//!
//! ```text
//! DIR/0/17/2-0.log               head of step 17.2.0: the first max/2 bytes, or all of a small log
//! DIR/0/17/2-0.1048576.tail      what follows stream offset 1048576, at most max/4 bytes
//! ```

mod writer;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ids::StepId;
use tokio::sync::watch;

pub use writer::LogWriter;

/// All step logs of a farm. Cheap to clone.
#[derive(Clone)]
pub struct LogStore {
    dir: Arc<PathBuf>,
    changes: watch::Sender<u64>,
}

/// The parts of one log as they lie on disk, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    head: PathBuf,
    head_len: u64,
    /// `(stream offset of its first byte, length, file)`, by offset.
    tails: Vec<(u64, u64, PathBuf)>,
}

impl LogStore {
    /// Makes the folder if it is not there. Errors name it.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<LogStore> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|why| named("make the log folder", &dir, why))?;
        Ok(LogStore {
            dir: Arc::new(dir),
            changes: watch::Sender::new(0),
        })
    }

    /// Goes on where the log on disk ends. `max` is the most bytes kept, at least 4 KiB.
    pub async fn writer(&self, step: StepId, max: u64) -> io::Result<LogWriter> {
        let (store, max) = (self.clone(), max.max(4096));
        blocking(move || {
            let head = store.head(step);
            if let Some(parent) = head.parent() {
                fs::create_dir_all(parent).map_err(|why| named("make the log folder", parent, why))?;
            }
            let parts = store.parts(step)?;
            LogWriter::open(head, parts, max, store.changes.clone())
        })
        .await
    }

    /// Up to `len` bytes of the text from `offset` on; less at the end, none past it. `None`: there is no such log.
    pub async fn read(&self, step: StepId, offset: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
        let store = self.clone();
        blocking(move || match store.parts(step)? {
            None => Ok(None),
            Some(parts) => parts.read(offset, len).map(Some),
        })
        .await
    }

    /// Bytes of the text, the mark included. `None`: there is no such log.
    pub async fn len(&self, step: StepId) -> io::Result<Option<u64>> {
        let store = self.clone();
        blocking(move || Ok(store.parts(step)?.map(|parts| parts.text_len()))).await
    }

    /// Counts up when any log has grown; several times may count as one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Deletes the log; one that is not there is fine.
    pub async fn delete(&self, step: StepId) -> io::Result<()> {
        let store = self.clone();
        blocking(move || {
            let Some(parts) = store.parts(step)? else {
                return Ok(());
            };
            for (_, _, tail) in &parts.tails {
                fs::remove_file(tail).map_err(|why| named("delete", tail, why))?;
            }
            fs::remove_file(&parts.head).map_err(|why| named("delete", &parts.head, why))
        })
        .await
    }

    fn head(&self, step: StepId) -> PathBuf {
        let build = step.attempt.build.0;
        let file = format!("{}-{}.log", step.attempt.n, step.index);
        self.dir
            .join((build / 1000).to_string())
            .join(build.to_string())
            .join(file)
    }

    fn parts(&self, step: StepId) -> io::Result<Option<Parts>> {
        let head = self.head(step);
        let head_len = match fs::metadata(&head) {
            Ok(meta) => meta.len(),
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(named("read", &head, why)),
        };
        let (Some(folder), Some(stem)) = (head.parent(), head.file_stem().and_then(|stem| stem.to_str()))
        else {
            return Ok(None);
        };
        let mut tails = Vec::new();
        for entry in fs::read_dir(folder).map_err(|why| named("read", folder, why))? {
            let entry = entry.map_err(|why| named("read", folder, why))?;
            let name = entry.file_name();
            let offset = name.to_str().and_then(|name| {
                let rest = name.strip_prefix(stem)?.strip_prefix('.')?;
                rest.strip_suffix(".tail")?.parse::<u64>().ok()
            });
            if let Some(offset) = offset {
                let len = entry
                    .metadata()
                    .map_err(|why| named("read", &entry.path(), why))?
                    .len();
                tails.push((offset, len, entry.path()));
            }
        }
        tails.sort();
        Ok(Some(Parts {
            head,
            head_len,
            tails,
        }))
    }
}

/// Free bytes for ordinary users on the file system that holds `path`.
pub fn disk_free(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path).map_err(|why| named("ask for free space on", path, why.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

impl Parts {
    /// How much of the stream has been taken in.
    fn stream_len(&self) -> u64 {
        self.tails
            .last()
            .map_or(self.head_len, |(offset, len, _)| offset + len)
    }

    /// Pieces of the text in order: a file and its length, or a mark.
    fn pieces(&self) -> Vec<Piece<'_>> {
        let mut pieces = vec![Piece::File(&self.head, self.head_len)];
        let mut at = self.head_len;
        for (offset, len, file) in &self.tails {
            if *offset > at {
                pieces.push(Piece::Mark(format!(
                    "\n[burrow: {} bytes left out here]\n",
                    offset - at
                )));
            }
            pieces.push(Piece::File(file, *len));
            at = offset + len;
        }
        pieces
    }

    fn text_len(&self) -> u64 {
        self.pieces().iter().map(Piece::len).sum()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(len.min(1 << 20));
        let mut at = 0;
        for piece in self.pieces() {
            let (from, to) = (at, at + piece.len());
            at = to;
            let want = offset + out.len() as u64;
            if want >= to || out.len() >= len {
                continue;
            }
            let skip = want.saturating_sub(from);
            let take = (to - from - skip).min((len - out.len()) as u64);
            match piece {
                Piece::Mark(text) => {
                    out.extend_from_slice(&text.as_bytes()[skip as usize..(skip + take) as usize])
                }
                Piece::File(path, _) => {
                    let mut file = match File::open(path) {
                        Ok(file) => file,
                        // Its turn was over between the look at the folder and now.
                        Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
                        Err(why) => return Err(named("read", path, why)),
                    };
                    file.seek(SeekFrom::Start(skip))
                        .map_err(|why| named("read", path, why))?;
                    file.take(take)
                        .read_to_end(&mut out)
                        .map_err(|why| named("read", path, why))?;
                }
            }
        }
        Ok(out)
    }
}

enum Piece<'a> {
    File(&'a Path, u64),
    Mark(String),
}

impl Piece<'_> {
    fn len(&self) -> u64 {
        match self {
            Piece::File(_, len) => *len,
            Piece::Mark(text) => text.len() as u64,
        }
    }
}

fn named(what: &str, path: &Path, why: io::Error) -> io::Error {
    io::Error::new(why.kind(), format!("cannot {what} `{}`: {why}", path.display()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
