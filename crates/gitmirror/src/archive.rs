use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use git::{GitError, Mirror};
use ids::{GitHash, RepoName};
use tokio::sync::Mutex;
use tokio_util::io::SyncIoBridge;

/// Most bytes of archives kept; the longest unused go first.
const CACHE_MAX: u64 = 4 << 30;

/// A tar.gz on disk, of one commit: its files have the commit's time, and what `export-subst` puts into
/// them may be its hash, so equal trees of two commits are two archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    pub path: PathBuf,
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("there is no repository `{0}`")]
    NoRepo(RepoName),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("cannot write the archive `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The cache, by commit.
pub(crate) struct Archives {
    dir: PathBuf,
    /// One maker for each commit; the others wait for it.
    making: StdMutex<BTreeMap<GitHash, Arc<Mutex<()>>>>,
    /// Counts temporary files: a request that was dropped may still be writing its own.
    made: AtomicU64,
}

impl Archives {
    pub fn new(dir: PathBuf) -> Archives {
        Archives {
            dir,
            making: StdMutex::default(),
            made: AtomicU64::new(0),
        }
    }

    /// The archive of the commit, made if it is not there.
    pub async fn get(&self, mirror: &Mirror, commit: &GitHash) -> Result<Archive, ArchiveError> {
        let turn = self
            .making
            .lock()
            .expect("no holder panics")
            .entry(commit.clone())
            .or_default()
            .clone();
        let held = turn.lock().await;
        let made = self.get_alone(mirror, commit).await;
        drop(held);
        let mut making = self.making.lock().expect("no holder panics");
        if Arc::strong_count(&turn) <= 2 {
            making.remove(commit);
        }
        made
    }

    /// The archive of the commit if it is there.
    pub fn there(&self, commit: &GitHash) -> Option<Archive> {
        let path = self.path(commit);
        let meta = fs::metadata(&path).ok()?;
        // Used: it goes to the end of the line of those to be deleted.
        let _ = File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(std::time::SystemTime::now()));
        Some(Archive {
            path,
            bytes: meta.len(),
        })
    }

    fn path(&self, commit: &GitHash) -> PathBuf {
        self.dir.join(format!("{commit}.tar.gz"))
    }

    async fn get_alone(&self, mirror: &Mirror, commit: &GitHash) -> Result<Archive, ArchiveError> {
        if let Some(archive) = self.there(commit) {
            return Ok(archive);
        }
        let path = self.path(commit);
        let io = |source| ArchiveError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&self.dir).map_err(io)?;
        let mut job = mirror.archive(commit)?;
        let pipe = SyncIoBridge::new(job.take_stdout());
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir.join(format!("{commit}.{number}.tmp"));
        let target = temporary.clone();
        let packing = tokio::task::spawn_blocking(move || pack(pipe, &target));
        let (ended, packed) = tokio::join!(job.end(git::ARCHIVE), packing);
        // A disk that is full ends git too, by a broken pipe: that is not git's fault.
        let done = match packed.map_err(|why| io(io::Error::other(why)))? {
            Err(why) => Err(io(why)),
            Ok(()) => ended.map_err(ArchiveError::from),
        };
        let done = done.and_then(|()| fs::rename(&temporary, &path).map_err(io));
        if let Err(why) = done {
            // Whatever it is, it is no archive. What cannot be deleted goes with the cache.
            let _ = fs::remove_file(&temporary);
            return Err(why);
        }
        self.prune(&path);
        let bytes = fs::metadata(&path).map_err(io)?.len();
        Ok(Archive { path, bytes })
    }

    /// Deletes the longest unused archives beyond the limit. What cannot be deleted stays: it is a cache.
    fn prune(&self, keep: &PathBuf) {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        let mut all: Vec<_> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let meta = entry.metadata().ok()?;
                Some((meta.modified().ok()?, meta.len(), entry.path()))
            })
            .collect();
        all.sort();
        let mut total: u64 = all.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in all {
            if total <= CACHE_MAX {
                return;
            }
            if &path != keep && fs::remove_file(&path).is_ok() {
                total -= len;
            }
        }
    }
}

/// Compresses a tar stream into a file that is whole on disk when this returns.
fn pack(mut tar: impl Read, path: &PathBuf) -> io::Result<()> {
    let mut gzip = GzEncoder::new(
        io::BufWriter::with_capacity(1 << 20, File::create(path)?),
        Compression::new(1),
    );
    let mut piece = vec![0; 256 * 1024];
    loop {
        let n = tar.read(&mut piece)?;
        if n == 0 {
            break;
        }
        gzip.write_all(&piece[..n])?;
    }
    gzip.finish()?
        .into_inner()
        .map_err(|why| why.into_error())?
        .sync_data()
}
