use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ids::StepId;
use tracing::warn;

use crate::layout::{self, Layout, Segment};
use crate::lines::LineIndex;
use crate::seal;
use crate::store::{Live, LogError, blocking, gone};

/// However short the pieces between gaps, a log has no more files than this.
const MAX_FILES: usize = 64;

/// Of the beginning and of the end at least this much is kept, whatever the limit.
const LEAST: u64 = 1024;

/// Appends to the log of one step.
///
/// A call that is dropped before its end may have done its work or not;
/// [`LogWriter::stream_offset`] tells. The calls of one writer never overlap.
pub struct LogWriter {
    path: PathBuf,
    files: Arc<Mutex<Files>>,
    offset: Arc<AtomicU64>,
    live: Arc<Live>,
    /// By [`Live::writer`].
    number: u64,
}

struct Files {
    dir: Arc<Path>,
    step: StepId,
    /// Half of the limit: as much is kept of the beginning, and of the end.
    half: u64,
    /// The beginning; `None` once something follows it.
    head: Option<Segment>,
    /// What follows the beginning, oldest first.
    tail: VecDeque<Segment>,
    /// The last of all, open for appending.
    file: File,
    /// Folders in which something was made that is not certain to stay.
    made_in: Vec<PathBuf>,
}

impl LogWriter {
    pub(crate) async fn open(
        dir: Arc<Path>,
        step: StepId,
        max: u64,
        live: Arc<Live>,
    ) -> Result<LogWriter, LogError> {
        let (path, fence) = (layout::file(&dir, step, 0), live.clone());
        let opened = blocking("open the log", &path, move || {
            let mut writer = fence.writer.lock().unwrap_or_else(PoisonError::into_inner);
            *writer += 1;
            Ok((Files::open(dir, step, max)?, *writer))
        });
        let (files, number) = opened.await?;
        let offset = Arc::new(AtomicU64::new(files.end()));
        Ok(LogWriter {
            path,
            files: Arc::new(Mutex::new(files)),
            offset,
            live,
            number,
        })
    }

    /// How many bytes of the step's output were taken, over all writers this log had: from here a
    /// follower asks for more.
    pub fn stream_offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Takes the next bytes of the output. When it fails, [`LogWriter::stream_offset`] says how many
    /// of them were taken.
    pub async fn append(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let bytes = bytes.to_vec();
        self.with_files("append to the log", move |files| files.append(&bytes))
            .await
    }

    /// The output from `from` to `to`, in bytes, is lost. `from` is where the log stands; a `to` that
    /// is not past it is no gap.
    pub async fn gap(&mut self, to: u64) -> Result<(), LogError> {
        self.with_files("note a gap in the log", move |files| files.gap(to))
            .await
    }

    /// Returns when all that was appended would survive a loss of power.
    pub async fn sync(&mut self) -> Result<(), LogError> {
        self.with_files("sync the log", Files::sync).await
    }

    /// The same, of a log that is finished: what is read of it later is held against what it was.
    pub async fn finish(&mut self) -> Result<(), LogError> {
        self.with_files("sync the log", |files| {
            files.sync()?;
            if let Err(why) = seal::write(&files.dir, files.step) {
                // It is whole all the same; only later harm to it will not show.
                warn!("the log of step {} gets no seal: {why}", files.step);
            }
            Ok(())
        })
        .await
    }

    async fn with_files(
        &mut self,
        action: &'static str,
        work: impl FnOnce(&mut Files) -> io::Result<()> + Send + 'static,
    ) -> Result<(), LogError> {
        let (files, offset, live) = (self.files.clone(), self.offset.clone(), self.live.clone());
        let number = self.number;
        blocking(action, &self.path, move || {
            // A call that was dropped may be carried out only now, when another has taken the log up where it ended.
            let writer = live.writer.lock().unwrap_or_else(PoisonError::into_inner);
            if *writer != number {
                return Err(io::Error::other("another writer has taken it over"));
            }
            let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
            let done = work(&mut files);
            let end = files.end();
            if offset.swap(end, Ordering::AcqRel) != end {
                live.changes.send_modify(|count| *count += 1);
            }
            done
        })
        .await
    }
}

impl Files {
    fn open(dir: Arc<Path>, step: StepId, max: u64) -> io::Result<Files> {
        let folder = layout::folder(&dir, step);
        let mut made_in = Vec::new();
        if !folder.is_dir() {
            let above = folder.parent().unwrap_or(&dir);
            if !above.is_dir() {
                made_in.push(dir.to_path_buf());
            }
            made_in.push(above.to_owned());
            fs::create_dir_all(&folder)?;
        }
        // Of one who thought that it was finished.
        gone(fs::remove_file(layout::seal(&dir, step)))?;
        let mut tail = VecDeque::from(Layout::find(&dir, step)?.segments);
        let last = tail.back().cloned().unwrap_or(Segment { start: 0, len: 0 });
        let head = match tail.len() {
            0 => Some(last.clone()),
            1 if last.start == 0 => tail.pop_front(),
            _ => {
                tail.pop_front_if(|first| first.start == 0);
                None
            }
        };
        let file = open_file(&dir, step, last.start)?;
        // It may be there by a writer that died before it could sync.
        made_in.push(folder);
        Ok(Files {
            dir,
            step,
            half: (max / 2).max(LEAST),
            head,
            tail,
            file,
            made_in,
        })
    }

    /// A log without a byte need not stay: it reads the same when it is not there.
    fn sync(&mut self) -> io::Result<()> {
        if self.end() == 0 {
            return Ok(());
        }
        // All at once: a disk takes as long for one as for many that come together.
        let done = std::thread::scope(|scope| {
            let folders: Vec<_> = self
                .made_in
                .iter()
                .map(|folder| scope.spawn(|| sync_folder(folder)))
                .collect();
            let done = self.file.sync_data();
            let folders = folders.into_iter().map(|one| {
                one.join()
                    .unwrap_or_else(|_| Err(io::Error::other("a sync panicked")))
            });
            folders.fold(done, |done, one| done.and(one))
        });
        if done.is_ok() {
            self.made_in.clear();
            // Whoever looks first at a long log need not wait until it has been read through; without it they do.
            let _ = LineIndex::store(&self.dir, self.step);
        }
        done
    }

    fn end(&self) -> u64 {
        self.tail.back().or(self.head.as_ref()).map_or(0, Segment::end)
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let last = self.tail.back_mut().or(self.head.as_mut());
            let Some(last) = last.filter(|last| last.len < self.half) else {
                self.next_file(self.end())?;
                continue;
            };
            let room = usize::try_from(self.half - last.len).unwrap_or(usize::MAX);
            let written = self.file.write(&bytes[..room.min(bytes.len())])?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            last.len += written as u64;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    fn gap(&mut self, to: u64) -> io::Result<()> {
        if to > self.end() {
            self.next_file(to)
        } else {
            Ok(())
        }
    }

    /// Goes on in a file that begins at `start` of the stream. What is before it is made durable
    /// first: a file that is there vouches for all the bytes before it.
    fn next_file(&mut self, start: u64) -> io::Result<()> {
        self.file.sync_data()?;
        let file = open_file(&self.dir, self.step, start)?;
        let folder = layout::folder(&self.dir, self.step);
        sync_folder(&folder)?;
        self.made_in.retain(|made_in| *made_in != folder);
        self.file = file;
        self.head = None;
        self.tail.push_back(Segment { start, len: 0 });
        let mut kept: u64 = self.tail.iter().map(|segment| segment.len).sum();
        while let Some(oldest) = self.tail.front() {
            let spare = kept - oldest.len >= self.half && oldest.len > 0;
            if self.tail.len() < 2 || !(spare || self.tail.len() > MAX_FILES) {
                break;
            }
            gone(fs::remove_file(layout::file(&self.dir, self.step, oldest.start)))?;
            kept -= oldest.len;
            self.tail.pop_front();
        }
        Ok(())
    }
}

fn open_file(dir: &Path, step: StepId, start: u64) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(layout::file(dir, step, start))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
