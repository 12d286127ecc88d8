//! What callers may write and remove below the working directory.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flate2::read::MultiGzDecoder;
use rustix::fs::{self as at, AtFlags, FileType, Mode, OFlags};
use tar::{Entry, EntryType};

use crate::beneath::{
    Root, cleaned, clear, leads_out, names, open_file, relative, remove, stat, temporary_name,
};
use crate::gomode;
use crate::ordered::{Ordered, ordered};

/// An archive unpacks to no more than this, in bytes and in entries.
const ARCHIVE_MAX: u64 = 256 << 30;
const ENTRIES_MAX: usize = 10_000_000;

/// Folders of one archive whose owner lacks rights to them; more are not remembered, and refused.
const RIGHTS_MAX: usize = 100_000;

/// What of a disk an archive leaves free, in bytes; of a small one, a tenth of what is free.
const SPARE: u64 = 64 << 20;

/// How often a folder is emptied that does not stay so.
const CLEARINGS: usize = 5;

/// Why a file operation was refused or failed: a status of the answer and its text.
#[derive(Debug, PartialEq, Eq)]
pub struct FileError(pub u16, pub String);

pub fn bad(text: impl Into<String>) -> FileError {
    FileError(400, text.into())
}

/// What leads out is the caller's fault, all else the machine's.
pub fn failed(what: &str, path: &Path, why: io::Error) -> FileError {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    if leads_out(&why) {
        return bad(format!(
            "cannot {what} `{}`: it leads out of the working directory",
            path.display()
        ));
    }
    FileError(500, format!("cannot {what} `{}`: {why}", path.display()))
}

/// Why bytes did not get from the sender into a file.
enum CopyError {
    Sender(io::Error),
    File(io::Error),
}

impl From<io::Error> for CopyError {
    fn from(why: io::Error) -> CopyError {
        CopyError::File(why)
    }
}

/// Files up to this size are written by threads while the archive is read on.
const SMALL: u64 = 64 * 1024;

/// So many of them at once.
const SMALL_AHEAD: usize = 32;

/// Names of files that may be under way, at most.
const WRITING_MAX: usize = 4096;

/// Unpacks a tar.gz, of one gzip member or many, into `dir` below the working directory.
///
/// What was unpacked before an error stays. Nothing is dropped silently: what cannot be made is refused.
pub fn unpack(root: &Root, dir: &Path, archive: impl Read) -> Result<(), FileError> {
    let folder = root.make_folder(dir).map_err(|why| failed("make", dir, why))?;
    // Where that cannot be learnt, the disk itself will say.
    let free = at::fstatvfs(&folder).map_or(ARCHIVE_MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    unpack_within(root, dir, archive, ARCHIVE_MAX.min(free - SPARE.min(free / 10)))
}

/// As [`unpack`], into `max` bytes at most.
pub fn unpack_within(root: &Root, dir: &Path, archive: impl Read, max: u64) -> Result<(), FileError> {
    ordered(SMALL_AHEAD, Small::write, |small| {
        let mut unpacking = Unpacking {
            root,
            dir,
            began: SystemTime::now(),
            left: max,
            max,
            rights: BTreeMap::new(),
            small,
            writing: BTreeSet::new(),
            folder: None,
        };
        let unpacked = unpacking.take_all(archive);
        // What stands earlier in the archive is what went wrong first.
        unpacking.settle()?;
        unpacked?;
        unpacking.finish()
    })
}

/// A file whose content has been read.
struct Small {
    folder: Arc<OwnedFd>,
    path: PathBuf,
    mode: u32,
    modified: Option<SystemTime>,
    content: Vec<u8>,
}

impl Small {
    fn write(self) -> Result<(), FileError> {
        let name = self.path.file_name().unwrap_or_default();
        let size = Some(self.content.len() as u64);
        match write(
            &self.folder,
            name,
            self.mode,
            &mut self.content.as_slice(),
            size,
            self.modified,
        ) {
            Ok(()) => Ok(()),
            Err(CopyError::Sender(why) | CopyError::File(why)) => Err(failed("write", &self.path, why)),
        }
    }
}

struct Unpacking<'a, 'w> {
    root: &'a Root,
    /// Below the root.
    dir: &'a Path,
    began: SystemTime,
    /// Bytes it may still unpack to.
    left: u64,
    max: u64,
    /// The owner's rights of folders that lack some, given last: what is in them comes after them.
    rights: BTreeMap<PathBuf, u32>,
    small: &'a mut Ordered<'w, Small, Result<(), FileError>>,
    /// Files that may be under way.
    writing: BTreeSet<PathBuf>,
    /// The folder of the last file, held open.
    folder: Option<(PathBuf, Arc<OwnedFd>)>,
}

impl Unpacking<'_, '_> {
    fn take_all(&mut self, archive: impl Read) -> Result<(), FileError> {
        let mut tar = tar::Archive::new(MultiGzDecoder::new(archive));
        let entries = tar
            .entries()
            .map_err(|why| bad(format!("requires a tar.gz: {why}")))?;
        for (n, entry) in entries.enumerate() {
            let entry = entry.map_err(|why| match n {
                0 => bad(format!("requires a tar.gz: {why}")),
                n => bad(format!("tar error at entry {n}: {why}")),
            })?;
            if n >= ENTRIES_MAX {
                return Err(bad(format!("the archive has more than {ENTRIES_MAX} entries")));
            }
            self.take(entry)?;
        }
        // To the end of the gzip stream, where its checksum is.
        let rest = io::copy(&mut tar.into_inner().take(ARCHIVE_MAX), &mut io::sink());
        rest.map_err(|why| bad(format!("requires a tar.gz: {why}")))?;
        Ok(())
    }

    /// Waits for the files under way, and forgets what may be something else from here on.
    fn settle(&mut self) -> Result<(), FileError> {
        self.writing.clear();
        self.folder = None;
        let mut settled = Ok(());
        while let Some(written) = self.small.oldest() {
            settled = settled.and(written);
        }
        settled
    }

    fn take(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), FileError> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let invalid = |why: &str| bad(format!("tar file contained invalid name `{name}`: {why}"));
        if std::str::from_utf8(&entry.path_bytes()).is_err() {
            return Err(invalid("it is no UTF-8"));
        }
        let path = self.dir.join(relative(&name).map_err(|why| invalid(&why))?);
        let mode = entry.header().mode().unwrap_or(0o644);
        let room = self.writing.len() < WRITING_MAX;
        if kind != EntryType::Regular || !room || self.writing.contains(&path) {
            self.settle()?;
        }
        match kind {
            EntryType::Directory => {
                self.root
                    .make_folder(&path)
                    .map_err(|why| failed("make", &path, why))?;
                if mode & 0o700 == 0o700 {
                    self.rights.remove(&path);
                } else {
                    if self.rights.len() >= RIGHTS_MAX {
                        return Err(bad(format!(
                            "the archive has more than {RIGHTS_MAX} folders that their owner has not all rights to"
                        )));
                    }
                    self.rights.insert(path, mode & 0o700);
                }
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
            EntryType::Symlink | EntryType::Link => {}
            other => {
                return Err(bad(format!(
                    "tar file entry {name} contained unsupported file type `{}`",
                    other.as_byte().escape_ascii()
                )));
            }
        }
        let (Some(parent), Some(last)) = (path.parent(), path.file_name()) else {
            return Err(invalid("it is the folder itself"));
        };
        let folder = self
            .folder_of(parent)
            .map_err(|why| failed("make the folder of", &path, why))?;
        let link = entry.link_name().ok().flatten().unwrap_or_default().into_owned();
        match kind {
            EntryType::Symlink => {
                let base = path.parent().unwrap_or(Path::new(""));
                if link.as_os_str().is_empty() || link.is_absolute() || cleaned(&base.join(&link)).is_none() {
                    let to = link.display();
                    return Err(bad(format!(
                        "the link `{name}` leads out of the working directory, to `{to}`"
                    )));
                }
                put_in_place(&folder, last, |temporary| {
                    Ok(at::symlinkat(&link, &folder, temporary)?)
                })
                .map_err(|why| failed("link", &path, why))
            }
            EntryType::Link => {
                let from = relative(&link.to_string_lossy()).map_err(|why| invalid(&why))?;
                let from = self.dir.join(from);
                self.hard_link(&from, &folder, last)
                    .map_err(|why| match why.kind() {
                        io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => bad(format!(
                            "the hard link `{name}` names `{}`, which is no file here",
                            link.display()
                        )),
                        _ => failed("link", &path, why),
                    })
            }
            _ => {
                let size = entry.size();
                if size > self.left {
                    return Err(FileError(
                        413,
                        format!(
                            "the archive unpacks to more than {} bytes, which is what this machine has room for",
                            self.max
                        ),
                    ));
                }
                self.left -= size;
                let modified = Duration::from_secs(entry.header().mtime().unwrap_or(0));
                let modified = SystemTime::UNIX_EPOCH.checked_add(modified).unwrap_or(self.began);
                let modified = Some(modified.min(self.began));
                if size <= SMALL && kind == EntryType::Regular {
                    let mut content = Vec::with_capacity(size as usize);
                    let read = entry.read_to_end(&mut content);
                    let whole = read.and_then(|n| match n as u64 == size {
                        true => Ok(()),
                        false => Err(io::ErrorKind::UnexpectedEof.into()),
                    });
                    whole.map_err(|why| bad(format!("tar error in `{name}`: {why}")))?;
                    self.writing.insert(path.clone());
                    let mode = mode & 0o777;
                    return self
                        .small
                        .push(Small {
                            folder,
                            path,
                            mode,
                            modified,
                            content,
                        })
                        .unwrap_or(Ok(()));
                }
                match write(&folder, last, mode & 0o777, &mut entry, Some(size), modified) {
                    Ok(()) => Ok(()),
                    Err(CopyError::Sender(why)) => Err(bad(format!("tar error in `{name}`: {why}"))),
                    Err(CopyError::File(why)) => Err(failed("write", &path, why)),
                }
            }
        }
    }

    /// The folder that files of an archive go into; mostly it is that of the last one.
    fn folder_of(&mut self, path: &Path) -> io::Result<Arc<OwnedFd>> {
        if let Some((last, folder)) = &self.folder
            && last == path
        {
            return Ok(folder.clone());
        }
        let folder = Arc::new(self.root.make_folder(path)?);
        self.folder = Some((path.to_owned(), folder.clone()));
        Ok(folder)
    }

    /// A second name for a file of the archive; where the file system has none, a copy.
    fn hard_link(&self, from: &Path, folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let no_file = || io::Error::from(io::ErrorKind::InvalidInput);
        let source = self.root.folder(from.parent().ok_or_else(no_file)?)?;
        let source_name = from.file_name().ok_or_else(no_file)?;
        let stat = stat(&source, source_name)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(no_file());
        }
        let linked = put_in_place(folder, name, |temporary| {
            Ok(at::linkat(
                &source,
                source_name,
                folder,
                temporary,
                AtFlags::empty(),
            )?)
        });
        if linked.is_ok() {
            return Ok(());
        }
        let mut content = open_file(&source, source_name)?;
        let modified = content.metadata()?.modified().ok();
        match write(folder, name, stat.st_mode & 0o777, &mut content, None, modified) {
            Ok(()) => Ok(()),
            Err(CopyError::Sender(why) | CopyError::File(why)) => Err(why),
        }
    }

    fn finish(self) -> Result<(), FileError> {
        // The deepest first, or they could not be reached.
        for (path, rights) in self.rights.iter().rev() {
            let changed = self.root.folder(path).and_then(|folder| {
                let mode = at::fstat(&folder)?.st_mode & 0o077 | rights;
                Ok(at::fchmod(&folder, Mode::from_raw_mode(mode))?)
            });
            changed.map_err(|why| failed("change the mode of", path, why))?;
        }
        Ok(())
    }
}

/// Writes one file of the working directory; `mode` is Go's, of which only permissions are taken.
pub fn put(root: &Root, path: &str, mode: &str, content: &mut dyn Read) -> Result<(), FileError> {
    let path = relative(path).map_err(|why| bad(format!("invalid 'path' parameter: {why}")))?;
    let mode = gomode::parse_permissions(mode).ok_or_else(|| {
        bad(format!(
            "bad mode `{mode}`; wanted a regular file's in decimal, as 493 for 0755"
        ))
    })?;
    let made = root
        .make_parent(&path)
        .map_err(|why| failed("make the folder of", &path, why))?;
    let (folder, name) = made.ok_or_else(|| bad("invalid 'path' parameter: it is the working directory"))?;
    match write(&folder, name, mode, content, None, None) {
        Ok(()) => Ok(()),
        Err(CopyError::Sender(why)) => Err(bad(format!("cannot read the body: {why}"))),
        Err(CopyError::File(why)) => Err(failed("write", &path, why)),
    }
}

/// Writes all that `content` gives, which is `size` bytes if that is known, to a new file in place of
/// what has the name.
fn write(
    folder: &OwnedFd,
    name: &OsStr,
    mode: u32,
    content: &mut dyn Read,
    size: Option<u64>,
    modified: Option<SystemTime>,
) -> Result<(), CopyError> {
    let mut fault = None;
    let written = put_in_place(folder, name, |temporary| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(at::openat(folder, temporary, flags, Mode::RUSR | Mode::WUSR)?);
        match copy(content, &mut file) {
            Ok(copied) if size.is_none_or(|size| copied == size) => {}
            Ok(_) => fault = Some(CopyError::Sender(io::ErrorKind::UnexpectedEof.into())),
            Err(why) => fault = Some(why),
        }
        if fault.is_some() {
            return Err(io::ErrorKind::Other.into());
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        if let Some(modified) = modified
            && let Err(why) = file.set_modified(modified)
        {
            static ONCE: std::sync::Once = std::sync::Once::new();
            ONCE.call_once(|| eprintln!("buildlet: times of files cannot be set: {why}"));
        }
        Ok(())
    });
    match fault {
        Some(fault) => Err(fault),
        None => Ok(written?),
    }
}

fn copy(from: &mut dyn Read, to: &mut File) -> Result<u64, CopyError> {
    let mut piece = vec![0; 128 * 1024];
    let mut copied = 0;
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(copied),
            Ok(n) => {
                to.write_all(&piece[..n])?;
                copied += n as u64;
            }
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(CopyError::Sender(why)),
        }
    }
}

/// Makes something under a temporary name, then gives it its own: a program that runs, and a link, is
/// replaced and never written through.
fn put_in_place(
    folder: &OwnedFd,
    name: &OsStr,
    make: impl FnOnce(&OsStr) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = temporary_name();
    let made = make(&temporary).and_then(|()| Ok(at::renameat(folder, &temporary, folder, name)?));
    // It is still there after an error, and where it and the old file were one already.
    let _ = at::unlinkat(folder, &temporary, AtFlags::empty());
    made
}

/// Removes files and folders below the working directory; `.` empties it. What is not there is fine.
pub fn remove_all(root: &Root, paths: &[&str]) -> Result<(), FileError> {
    if paths.is_empty() {
        return Err(bad("requires 'path' parameter"));
    }
    let clean = paths
        .iter()
        .map(|path| relative(path))
        .collect::<Result<Vec<PathBuf>, _>>();
    for path in clean.map_err(|why| bad(format!("invalid 'path' parameter: {why}")))? {
        let removed = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => match root.folder(parent) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
                folder => folder.and_then(|folder| remove(&folder, name)),
            },
            _ => root.folder(&path).and_then(|folder| cleared(&folder, clear)),
        };
        removed.map_err(|why| failed("remove", &path, why))?;
    }
    Ok(())
}

/// Empties a folder and looks whether it is: something may have put things there meanwhile.
fn cleared(folder: &OwnedFd, clear: impl Fn(&OwnedFd) -> io::Result<()>) -> io::Result<()> {
    for _ in 0..CLEARINGS {
        clear(folder)?;
        if names(folder)?.is_empty() {
            return Ok(());
        }
    }
    let left = names(folder)?;
    match left.first() {
        None => Ok(()),
        Some(name) => Err(io::Error::other(format!(
            "it was emptied {CLEARINGS} times and still has `{}`: something keeps writing to it",
            name.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(fill: impl FnOnce(&mut tar::Builder<GzEncoder<Vec<u8>>>)) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        fill(&mut tar);
        tar.into_inner().expect("packed").finish().expect("packed")
    }

    fn header(kind: EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header
    }

    #[test]
    fn a_bomb_is_refused_before_it_has_gone_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::open(folder.path()).expect("opened");
        // 64 MiB in 64 KiB, as one file; and as many, of which those within the limit are there.
        let one = packed(|tar| {
            let zeros = io::repeat(0).take(64 << 20);
            tar.append_data(&mut header(EntryType::Regular, 64 << 20), "one", zeros)
                .expect("packed");
        });
        let many = packed(|tar| {
            for n in 0..100 {
                let zeros = io::repeat(0).take(50_000);
                tar.append_data(&mut header(EntryType::Regular, 50_000), format!("n{n}"), zeros)
                    .expect("packed");
            }
        });
        // A sparse file of 2 TiB, of which the archive has nothing.
        let sparse = packed(|tar| {
            let mut header = header(EntryType::GNUSparse, 0);
            header.set_path("sparse").expect("short");
            let gnu = header.as_gnu_mut().expect("gnu");
            gnu.realsize = *b"\x80\0\0\0\0\0\x02\0\0\0\0\0";
            gnu.sparse[0].offset = gnu.realsize;
            gnu.sparse[0].numbytes = *b"00000000000\0";
            header.set_cksum();
            tar.append(&header, io::empty()).expect("packed");
        });
        for (what, archive) in [("one", &one), ("many", &many), ("sparse", &sparse)] {
            let refused = unpack_within(&root, Path::new(what), archive.as_slice(), 1 << 20).expect_err(what);
            assert_eq!(refused.0, 413, "{what}: {}", refused.1);
            assert!(refused.1.contains("more than 1048576 bytes"), "{}", refused.1);
        }
        assert_eq!(fs::read_dir(folder.path().join("one")).expect("read").count(), 0);
        assert_eq!(
            fs::read_dir(folder.path().join("many")).expect("read").count(),
            20
        );
        assert_eq!(
            fs::read_dir(folder.path().join("sparse")).expect("read").count(),
            0
        );
    }

    #[test]
    fn a_folder_is_clean_when_it_has_been_seen_to_be_empty() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::open(folder.path()).expect("opened");
        let top = root.folder(Path::new("")).expect("opened");
        let left = std::cell::Cell::new(3);
        // Somebody puts a file back, three times and then without end.
        let emptied = |again: usize| {
            left.set(again);
            cleared(&top, |top| {
                clear(top)?;
                if left.get() > 0 {
                    left.set(left.get() - 1);
                    fs::write(folder.path().join("back"), "")?;
                }
                Ok(())
            })
        };
        emptied(3).expect("empty in the end");
        let why = emptied(1000).expect_err("never empty").to_string();
        assert_eq!(
            why,
            "it was emptied 5 times and still has `back`: something keeps writing to it"
        );
    }

    #[test]
    fn names_that_come_again_have_what_came_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::open(folder.path()).expect("opened");
        let archive = packed(|tar| {
            for n in 0..5_000u32 {
                let content = n.to_string();
                let mut header = header(EntryType::Regular, content.len() as u64);
                tar.append_data(&mut header, format!("d/{}", n % 7), content.as_bytes())
                    .expect("packed");
            }
            let mut link = header(EntryType::Link, 0);
            tar.append_link(&mut link, "hard", "d/0").expect("packed");
        });
        unpack(&root, Path::new(""), archive.as_slice()).expect("unpacked");
        for n in 4_993..5_000u32 {
            let found = fs::read_to_string(folder.path().join(format!("d/{}", n % 7))).expect("read");
            assert_eq!(found, n.to_string());
        }
        assert_eq!(
            fs::read_to_string(folder.path().join("hard")).expect("read"),
            "4998"
        );
    }

    #[test]
    fn what_went_wrong_first_is_what_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::open(folder.path()).expect("opened");
        fs::create_dir_all(folder.path().join("taken/x")).expect("made");
        let archive = packed(|tar| {
            for name in ["a", "taken", "b"] {
                tar.append_data(&mut header(EntryType::Regular, 1), name, &b"x"[..])
                    .expect("packed");
            }
            let mut fifo = header(EntryType::Fifo, 0);
            tar.append_data(&mut fifo, "fifo", io::empty()).expect("packed");
        });
        let failed = unpack(&root, Path::new(""), archive.as_slice()).expect_err("a folder is in the way");
        assert!(failed.1.starts_with("cannot write `taken`: "), "{}", failed.1);
    }
}
