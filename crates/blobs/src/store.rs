use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ids::{AttemptId, StepId};
use tokio::sync::watch;

use crate::layout::{self, Layout};
use crate::lines;
use crate::seal::{self, Seal, Stamp};
use crate::writer::LogWriter;

/// The longest piece that one [`LogStore::read`] gives.
const MAX_READ: usize = 16 << 20;

/// So many logs are remembered to be whole or not.
const LOOKED: usize = 256;

/// All logs of a farm, in one folder. Cheap to clone.
#[derive(Clone)]
pub struct LogStore {
    dir: Arc<Path>,
    live: Arc<Mutex<BTreeMap<StepId, Arc<Live>>>>,
    /// What was found of seals, and of which files.
    looked: Arc<Mutex<BTreeMap<StepId, (Stamp, Seal)>>>,
}

/// A log that somebody writes or watches.
#[derive(Default)]
pub(crate) struct Live {
    pub changes: watch::Sender<u64>,
    /// The number of the writer that was opened last; held while a writer touches the files.
    pub writer: Mutex<u64>,
}

/// The disk did not do as told.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct LogError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl LogStore {
    /// Makes the folder if it is not there.
    pub async fn open(dir: &Path) -> Result<LogStore, LogError> {
        let dir: Arc<Path> = dir.into();
        let made = dir.clone();
        blocking("make the log folder", &dir, move || fs::create_dir_all(made)).await?;
        Ok(LogStore {
            dir,
            live: Arc::default(),
            looked: Arc::default(),
        })
    }

    /// Opens the log of a step at its end, or begins it. `max`: the length in bytes above which the
    /// middle is left out, at least 2 KiB; on disk a log takes up to half as much again. Writers opened
    /// before are fenced off: what they were about to do fails.
    pub async fn writer(&self, step: StepId, max: u64) -> Result<LogWriter, LogError> {
        LogWriter::open(self.dir.clone(), step, max, self.live(step)).await
    }

    /// Of a log as one text, at most `len` bytes (and at most 16 MiB) from `offset`; shorter at the
    /// end, empty past it. `None`: there is no such log.
    ///
    /// Where output was left out, the text has a line `[burrow: N bytes left out here]`. While such
    /// a log grows, what is past that line moves.
    pub async fn read(&self, step: StepId, offset: u64, len: usize) -> Result<Option<Vec<u8>>, LogError> {
        let len = len.min(MAX_READ);
        self.with_layout(step, move |dir, layout| layout.read(dir, step, offset, len))
            .await
    }

    /// Length of the text that [`LogStore::read`] reads from. `None`: there is no such log.
    pub async fn len(&self, step: StepId) -> Result<Option<u64>, LogError> {
        self.with_layout(step, |_, layout| Ok(layout.text_len())).await
    }

    /// Whether a log is what was written. Reads up to 128 MiB of it the first time, and again when a file has changed.
    pub async fn check(&self, step: StepId) -> Result<Seal, LogError> {
        let (dir, looked) = (self.dir.clone(), self.looked.clone());
        blocking("check the log", &layout::file(&dir, step, 0), move || {
            let stamp = seal::stamp(&dir, step)?;
            {
                let looked = looked.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((as_of, found)) = looked.get(&step)
                    && *as_of == stamp
                {
                    return Ok(found.clone());
                }
            }
            let found = seal::check(&dir, step)?;
            let mut looked = looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.len() >= LOOKED {
                looked.pop_first();
            }
            looked.insert(step, (stamp, found.clone()));
            Ok(found)
        })
        .await
    }

    /// Keeps what is to be said of an attempt besides what it printed, in place of what was kept before.
    pub async fn note(&self, attempt: AttemptId, text: &str) -> Result<(), LogError> {
        let (path, text) = (layout::notes(&self.dir, attempt), text.to_owned());
        let target = path.clone();
        blocking("write the notes", &path, move || {
            target.parent().map_or(Ok(()), fs::create_dir_all)?;
            let temporary = target.with_extension("tmp");
            let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &target));
            written.inspect_err(|_| drop(fs::remove_file(&temporary)))
        })
        .await
    }

    /// What was kept so; empty without.
    pub async fn notes(&self, attempt: AttemptId) -> Result<String, LogError> {
        let path = layout::notes(&self.dir, attempt);
        let target = path.clone();
        blocking("read the notes", &path, move || match fs::read(target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read.map(|text| String::from_utf8_lossy(&text).into_owned()),
        })
        .await
    }

    /// Counts the appends to a log, from whenever it is first asked or written. Never ends by
    /// itself: whether more is to come is for the farm store to say.
    pub fn changes(&self, step: StepId) -> watch::Receiver<u64> {
        self.live(step).changes.subscribe()
    }

    /// No such log is no error. Not to be called while it is written.
    pub async fn delete(&self, step: StepId) -> Result<(), LogError> {
        let dir = self.dir.clone();
        let folder = layout::folder(&dir, step);
        blocking("delete a log in", &folder.clone(), move || {
            for segment in Layout::find(&dir, step)?.segments.iter().rev() {
                gone(fs::remove_file(layout::file(&dir, step, segment.start)))?;
            }
            gone(fs::remove_file(layout::seal(&dir, step)))?;
            if step.index == 0 {
                gone(fs::remove_file(layout::notes(&dir, step.attempt)))?;
            }
            gone(fs::remove_file(lines::index_file(&dir, step)))?;
            // The last log takes the folder along; most are not the last.
            let _ = fs::remove_dir(folder);
            Ok(())
        })
        .await
    }

    pub(crate) async fn with_layout<T: Send + 'static>(
        &self,
        step: StepId,
        work: impl Fn(&Path, &Layout) -> io::Result<T> + Send + 'static,
    ) -> Result<Option<T>, LogError> {
        let dir = self.dir.clone();
        let path = layout::file(&dir, step, 0);
        blocking("read the log", &path, move || {
            let mut tries = 0;
            loop {
                let layout = Layout::find(&dir, step)?;
                if layout.segments.is_empty() {
                    return Ok(None);
                }
                match work(&dir, &layout) {
                    // The writer has taken a file of the middle away since it was seen.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 10 => tries += 1,
                    done => return done.map(Some),
                }
            }
        })
        .await
    }

    fn live(&self, step: StepId) -> Arc<Live> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|known, log| {
            *known == step || log.changes.receiver_count() > 0 || Arc::strong_count(log) > 1
        });
        live.entry(step).or_default().clone()
    }
}

/// Bytes that are free for this user on the file system of `dir`.
pub fn disk_free(dir: &Path) -> Result<u64, LogError> {
    let fs = rustix::fs::statvfs(dir).map_err(|error| LogError {
        action: "ask for the free space of",
        path: dir.to_owned(),
        source: error.into(),
    })?;
    Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    action: &'static str,
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, LogError> {
    let done = match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(stopped) => Err(io::Error::other(stopped)),
    };
    done.map_err(|source| LogError {
        action,
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
