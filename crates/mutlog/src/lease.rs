use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

const NAME: &str = "lease";

/// The right to append to the log in a folder: of one process at a time.
///
/// The file `lease` is locked as long as the process lives, and says who it is. Each lease has a
/// counter one higher than the one before; where locks are not what they seem, as on some network
/// file systems, a writer that was followed by another sees the higher counter and writes no more.
pub struct Lease {
    file: File,
    path: PathBuf,
    owner: Owner,
}

/// Who may append: `host pid counter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub host: String,
    pub pid: u32,
    pub counter: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("the log is being written by process {} on `{}`; a log has one writer", owner.pid, owner.host)]
    Held { owner: Owner },
    #[error("cannot lock `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Lease {
    /// Makes the folder if it is not there.
    pub fn take(dir: &Path) -> Result<Lease, LeaseError> {
        let path = dir.join(NAME);
        let io = |source| LeaseError::Io {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(io)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io)?;
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        let before = read(&mut file).map_err(io)?;
        match locked {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let owner = before.unwrap_or(Owner {
                    host: "?".into(),
                    pid: 0,
                    counter: 0,
                });
                return Err(LeaseError::Held { owner });
            }
            Err(error) => return Err(io(error.into())),
        }
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .replace(char::is_whitespace, "-");
        let owner = Owner {
            host,
            pid: std::process::id(),
            counter: before.map_or(0, |before| before.counter) + 1,
        };
        // Of one length for all, so that it is replaced in one write.
        let line = format!("{:<120}\n", owner.to_string());
        file.write_all_at(line.as_bytes(), 0).map_err(io)?;
        file.sync_all().map_err(io)?;
        Ok(Lease { file, path, owner })
    }

    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Fails if another has taken the log over. Asks the file at its path: it may be another one.
    pub(crate) fn check(&self) -> io::Result<()> {
        match read(&mut File::open(&self.path)?)? {
            Some(owner) if owner == self.owner => Ok(()),
            Some(owner) => Err(io::Error::other(format!(
                "process {} on `{}` has taken the log over",
                owner.pid, owner.host
            ))),
            None => Err(io::Error::other("the lease on the log is damaged")),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The lock would go with the file anyway; a child process may hold the file for longer.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn read(file: &mut File) -> io::Result<Option<Owner>> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(4096).read_to_string(&mut text)?;
    let mut words = text.split_whitespace();
    let mut owner = || {
        Some(Owner {
            host: words.next()?.to_owned(),
            pid: words.next()?.parse().ok()?,
            counter: words.next()?.parse().ok()?,
        })
    };
    Ok(owner())
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.host, self.pid, self.counter)
    }
}
