use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};

use crate::folder::Folder;
use crate::lease::Lease;

/// The little that a [`crate::Writer`] asks of a file system, so that tests can lose power at any
/// point. Names are of files in one folder.
pub trait Disk {
    fn names(&self) -> io::Result<Vec<String>>;
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Anything that changes when the file is written to, for knowing a file that was verified.
    fn stamp(&self, name: &str) -> io::Result<String>;
    /// Adds to the end of a file, which is made if it is not there. Not durable before `sync`.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Makes durable what the file holds and that it is there.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Durable when it returns.
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// Durable when it returns.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Durable when it returns. A file that is not there is no error.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// The file holds `bytes` whole or is as before. Durable when it returns.
    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
}

/// A real folder, written to only while the [`Lease`] on it is ours.
pub struct FolderDisk {
    folder: Folder,
    lease: Lease,
    /// What is appended to, and whether the folder is known to hold it durably.
    open: BTreeMap<String, (File, bool)>,
}

impl FolderDisk {
    pub fn new(folder: Folder, lease: Lease) -> FolderDisk {
        FolderDisk {
            folder,
            lease,
            open: BTreeMap::new(),
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(self.folder.dir())?.sync_all()
    }
}

impl Disk for FolderDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        self.folder.names()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.folder.dir().join(name))
    }

    fn stamp(&self, name: &str) -> io::Result<String> {
        let seen = fs::metadata(self.folder.dir().join(name))?;
        let modified = seen
            .modified()?
            .duration_since(std::time::UNIX_EPOCH)
            .map_err(io::Error::other)?;
        Ok(format!("{} {}", seen.len(), modified.as_nanos()))
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.lease.check()?;
        if !self.open.contains_key(name) {
            let path = self.folder.dir().join(name);
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            self.open.insert(name.to_owned(), (file, false));
        }
        (&self.open[name].0).write_all(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let (file, held) = self.open.get_mut(name).ok_or(ErrorKind::NotFound)?;
        file.sync_data()?;
        match std::mem::replace(held, true) {
            true => Ok(()),
            false => self.sync_folder(),
        }
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.lease.check()?;
        let file = OpenOptions::new()
            .write(true)
            .open(self.folder.dir().join(name))?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.lease.check()?;
        self.open.remove(from);
        fs::rename(self.folder.dir().join(from), self.folder.dir().join(to))?;
        self.sync_folder()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.lease.check()?;
        self.open.remove(name);
        match fs::remove_file(self.folder.dir().join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => self.sync_folder(),
        }
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.lease.check()?;
        self.open.remove(name);
        let path = self.folder.dir().join(name);
        let whole = path.with_extension("part");
        let mut file = File::create(&whole)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(whole, path)?;
        self.sync_folder()
    }
}
