use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use git::{GitError, Mirror};
use ids::{GitHash, RepoName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio_util::io::SyncIoBridge;
use tracing::warn;

use crate::sift::{Oddities, Sift};

/// Most bytes of archives kept; the longest unused go first.
const CACHE_MAX: u64 = 4 << 30;

/// A tar.gz on disk, of one commit: its files have the commit's time, and what `export-subst` puts into
/// them may be its hash, so equal trees of two commits are two archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    pub path: PathBuf,
    pub bytes: u64,
    /// What the page of a build says of its source.
    pub notes: Vec<String>,
}

/// Whom an archive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// As git makes it.
    Anybody,
    /// Without what no machine takes.
    Machine,
}

/// Beside each archive: what was written, so that what is read is the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Facts {
    whole: Written,
    /// Only where it is another one.
    machine: Option<Written>,
    oddities: Oddities,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    bytes: u64,
    sha256: String,
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
    /// What an earlier process did not get done with is deleted.
    pub fn new(dir: PathBuf) -> Archives {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                // What cannot be deleted goes with the cache.
                let _ = fs::remove_file(path);
            }
        }
        Archives {
            dir,
            making: StdMutex::default(),
            made: AtomicU64::new(0),
        }
    }

    /// The archive of the commit, made if it is not there or not what was written.
    pub async fn get(&self, mirror: &Mirror, commit: &GitHash, whom: For) -> Result<Archive, ArchiveError> {
        let turn = self
            .making
            .lock()
            .expect("no holder panics")
            .entry(commit.clone())
            .or_default()
            .clone();
        let held = turn.lock().await;
        let made = self.get_alone(mirror, commit, whom).await;
        drop(held);
        let mut making = self.making.lock().expect("no holder panics");
        if Arc::strong_count(&turn) <= 2 {
            making.remove(commit);
        }
        made
    }

    /// The archive of the commit if it is there, and is what was written.
    pub async fn there(&self, commit: &GitHash, whom: For) -> Option<Archive> {
        let place = Place::new(&self.dir, commit);
        let path = place.whole.clone();
        blocking(&path, move || Ok(place.find(whom))).await.ok().flatten()
    }

    async fn get_alone(&self, mirror: &Mirror, commit: &GitHash, whom: For) -> Result<Archive, ArchiveError> {
        let place = Place::new(&self.dir, commit);
        let there = place.clone();
        if let Some(found) = self.there(commit, whom).await {
            return Ok(found);
        }
        let io = |source| ArchiveError::Io {
            path: place.whole.clone(),
            source,
        };
        fs::create_dir_all(&self.dir).map_err(io)?;
        let mut job = mirror.archive(commit)?;
        let pipe = SyncIoBridge::new(job.take_stdout());
        let temporary = self.temporary(commit);
        let (target, cleared) = (temporary.clone(), there.clone());
        let packing = blocking(&place.whole, move || {
            // What is there is of no use, and must not be taken for what is made now.
            cleared.clear();
            pack(pipe, &target)
        });
        let (ended, packed) = tokio::join!(job.end(git::ARCHIVE), packing);
        // A disk that is full ends git too, by a broken pipe: that is not git's fault.
        let made = match packed {
            Err(why) => Err(why),
            Ok(packed) => ended.map(|()| packed).map_err(ArchiveError::from),
        };
        let made = match made {
            Err(why) => Err(why),
            Ok((whole, oddities)) => {
                let (temporary, second) = (temporary.clone(), self.temporary(commit));
                let path = place.whole.clone();
                blocking(&path, move || {
                    there.settle(&temporary, &second, whole, oddities, whom)
                })
                .await
            }
        };
        match made {
            Ok(made) => {
                self.prune(&[&place.whole, &place.machine, &place.facts]);
                Ok(made)
            }
            Err(why) => {
                // Whatever it is, it is no archive. What cannot be deleted goes with the cache.
                let _ = fs::remove_file(&temporary);
                Err(why)
            }
        }
    }

    fn temporary(&self, commit: &GitHash) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{commit}.{number}.tmp"))
    }

    /// Deletes the longest unused archives beyond the limit. What cannot be deleted stays: it is a cache.
    fn prune(&self, keep: &[&Path]) {
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
            if !keep.contains(&path.as_path()) && fs::remove_file(&path).is_ok() {
                total -= len;
            }
        }
    }
}

/// The files of one commit.
#[derive(Debug, Clone)]
struct Place {
    whole: PathBuf,
    machine: PathBuf,
    facts: PathBuf,
}

impl Place {
    fn new(dir: &Path, commit: &GitHash) -> Place {
        let at = |end: &str| dir.join(format!("{commit}.{end}"));
        Place {
            whole: at("tar.gz"),
            machine: at("machine.tar.gz"),
            facts: at("json"),
        }
    }

    /// The archive, if what is there is what was written. Blocks.
    fn find(&self, whom: For) -> Option<Archive> {
        let facts: Facts = serde_json::from_slice(&fs::read(&self.facts).ok()?).ok()?;
        let (path, written) = self.of(whom, &facts);
        match sha256(path) {
            Ok(found) if found == *written => {}
            Ok(_) => {
                warn!(
                    "the archive `{}` is not what was written; making it anew",
                    path.display()
                );
                return None;
            }
            Err(why) if why.kind() == io::ErrorKind::NotFound => return None,
            Err(why) => {
                warn!(
                    "the archive `{}` cannot be read, making it anew: {why}",
                    path.display()
                );
                return None;
            }
        }
        // Used: they go to the end of the line of those to be deleted.
        for used in [path, &self.facts] {
            let _ = File::options()
                .append(true)
                .open(used)
                .and_then(|file| file.set_modified(std::time::SystemTime::now()));
        }
        Some(self.archive(whom, &facts))
    }

    fn of<'a>(&'a self, whom: For, facts: &'a Facts) -> (&'a Path, &'a Written) {
        match &facts.machine {
            Some(machine) if whom == For::Machine => (&self.machine, machine),
            _ => (&self.whole, &facts.whole),
        }
    }

    fn archive(&self, whom: For, facts: &Facts) -> Archive {
        let (path, written) = self.of(whom, facts);
        Archive {
            path: path.to_owned(),
            bytes: written.bytes,
            notes: facts.oddities.notes(),
        }
    }

    fn clear(&self) {
        for path in [&self.facts, &self.machine, &self.whole] {
            // Not there, or replaced in a moment.
            let _ = fs::remove_file(path);
        }
    }

    /// Gives a packed archive its name, and makes the one for machines if that is another. Blocks.
    fn settle(
        &self,
        packed: &Path,
        second: &Path,
        whole: Written,
        oddities: Oddities,
        whom: For,
    ) -> io::Result<Archive> {
        let done = || {
            let machine = if oddities.leaves_out() {
                let machine = sift(packed, second)?;
                fs::rename(second, &self.machine)?;
                Some(machine)
            } else {
                None
            };
            fs::rename(packed, &self.whole)?;
            let facts = Facts {
                whole,
                machine,
                oddities,
            };
            // Last: they vouch for the others.
            fs::write(second, serde_json::to_vec(&facts)?)?;
            fs::rename(second, &self.facts)?;
            Ok(self.archive(whom, &facts))
        };
        done().inspect_err(|_| drop(fs::remove_file(second)))
    }
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ArchiveError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|why| Err(io::Error::other(why)))
        .map_err(|source| ArchiveError::Io {
            path: path.to_owned(),
            source,
        })
}

/// Compresses a tar stream into a file that is whole on disk when this returns.
fn pack(mut tar: impl Read, path: &Path) -> io::Result<(Written, Oddities)> {
    let mut gzip = packing(path)?;
    let mut sift = Sift::new(io::sink());
    let mut piece = vec![0; 256 * 1024];
    loop {
        let n = tar.read(&mut piece)?;
        if n == 0 {
            break;
        }
        gzip.write_all(&piece[..n])?;
        sift.write_all(&piece[..n])?;
    }
    Ok((finish(gzip)?, sift.end().1))
}

/// The same archive without what no machine takes.
fn sift(packed: &Path, path: &Path) -> io::Result<Written> {
    let mut sift = Sift::new(packing(path)?);
    io::copy(&mut MultiGzDecoder::new(File::open(packed)?), &mut sift)?;
    finish(sift.end().0)
}

type Packing = GzEncoder<io::BufWriter<Hashing>>;

fn packing(path: &Path) -> io::Result<Packing> {
    let file = Hashing {
        file: File::create(path)?,
        bytes: 0,
        sha256: Sha256::new(),
    };
    let file = io::BufWriter::with_capacity(1 << 20, file);
    Ok(GzEncoder::new(file, Compression::new(1)))
}

fn finish(gzip: Packing) -> io::Result<Written> {
    let hashing = gzip.finish()?.into_inner().map_err(|why| why.into_error())?;
    hashing.file.sync_data()?;
    Ok(hashing.written())
}

/// A file, and the digest of what is written to it.
struct Hashing {
    file: File,
    bytes: u64,
    sha256: Sha256,
}

impl Hashing {
    fn written(self) -> Written {
        let digest = self.sha256.finalize();
        Written {
            bytes: self.bytes,
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.bytes += n as u64;
        self.sha256.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn sha256(path: &Path) -> io::Result<Written> {
    let (mut file, mut piece) = (File::open(path)?, vec![0; 256 * 1024]);
    let (mut bytes, mut sha256) = (0, Sha256::new());
    loop {
        let n = file.read(&mut piece)?;
        if n == 0 {
            break;
        }
        bytes += n as u64;
        sha256.update(&piece[..n]);
    }
    let hashing = Hashing { file, bytes, sha256 };
    Ok(hashing.written())
}
