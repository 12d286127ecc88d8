use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use crate::{Parts, named};

/// Appends to one step's log. One at a time for each step: the farm has one follower for each.
pub struct LogWriter {
    head: PathBuf,
    file: File,
    /// Length of the file that is written to.
    file_len: u64,
    /// Stream offsets of the tails on disk, oldest first; empty while the head is written.
    tails: Vec<u64>,
    offset: u64,
    max: u64,
    changes: watch::Sender<u64>,
    /// A write failed: what lies on disk may end anywhere, so nothing more may follow it.
    broken: Option<String>,
}

impl LogWriter {
    pub(crate) fn open(
        head: PathBuf,
        parts: Option<Parts>,
        max: u64,
        changes: watch::Sender<u64>,
    ) -> io::Result<LogWriter> {
        let tails: Vec<u64> = parts
            .iter()
            .flat_map(|parts| parts.tails.iter().map(|(at, _, _)| *at))
            .collect();
        let path = tails
            .last()
            .map_or_else(|| head.clone(), |at| tail_path(&head, *at));
        let file = append_to(&path)?;
        let file_len = file.metadata().map_err(|why| named("read", &path, why))?.len();
        let offset = parts.map_or(0, |parts| parts.stream_len());
        Ok(LogWriter {
            head,
            file,
            file_len,
            tails,
            offset,
            max,
            changes,
            broken: None,
        })
    }

    /// How many bytes of the step's output have been taken in, left-out ones included: where a follower goes on.
    pub fn stream_offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes of the output. After an error every further call fails too.
    pub async fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        // Into the page cache: as short as a memory copy, so not handed to another thread.
        while !bytes.is_empty() {
            let limit = if self.tails.is_empty() {
                self.max / 2
            } else {
                self.max / 4
            };
            if self.file_len >= limit {
                self.check()?;
                self.turn(self.offset)?;
                continue;
            }
            let take = bytes.len().min((limit - self.file_len) as usize);
            self.write(&bytes[..take])?;
            bytes = &bytes[take..];
        }
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// The output goes on at stream offset `to`: the machine itself had to drop what lies between.
    pub async fn gap(&mut self, to: u64) -> io::Result<()> {
        self.check()?;
        if to > self.offset {
            self.offset = to;
            self.turn(to)?;
        }
        Ok(())
    }

    /// Returns when all of it is on disk, whatever happens to the machine then.
    pub async fn sync(&mut self) -> io::Result<()> {
        self.check()?;
        let file = self.file.try_clone()?;
        let folder = self.head.parent().map(Path::to_owned);
        crate::blocking(move || {
            file.sync_data()?;
            folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        })
        .await
    }

    fn check(&self) -> io::Result<()> {
        match &self.broken {
            None => Ok(()),
            Some(why) => Err(io::Error::other(why.clone())),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.check()?;
        if let Err(why) = self.file.write_all(bytes) {
            let why = named("write", &self.head, why);
            self.broken = Some(why.to_string());
            return Err(why);
        }
        self.file_len += bytes.len() as u64;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Begins the next tail at `at`; of the older ones only the last stays.
    fn turn(&mut self, at: u64) -> io::Result<()> {
        let path = tail_path(&self.head, at);
        self.file = append_to(&path)?;
        self.file_len = 0;
        self.tails.push(at);
        while self.tails.len() > 2 {
            let old = tail_path(&self.head, self.tails.remove(0));
            fs::remove_file(&old).map_err(|why| named("delete", &old, why))?;
        }
        Ok(())
    }
}

fn tail_path(head: &Path, at: u64) -> PathBuf {
    head.with_extension(format!("{at}.tail"))
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|why| named("open", path, why))
}
