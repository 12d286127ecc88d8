//! A folder held open, below which things are opened, made and removed, and never outside of it:
//! a command may have planted links.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self as at, AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::ordered::ordered;

/// Folders within folders that are walked; each is held open meanwhile.
pub const DEPTH_MAX: usize = 200;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

pub struct Root(OwnedFd);

/// A path below the working directory, cleaned; empty for itself. Slashes only, nothing that leads out.
pub fn relative(path: &str) -> Result<PathBuf, String> {
    let wrong = |why: &str| {
        Err(format!(
            "bogus path `{path}`: {why}; wanted one below the working directory"
        ))
    };
    if path.is_empty() {
        return wrong("it is empty");
    }
    if path.contains('\0') {
        return wrong("it has a NUL");
    }
    match cleaned(Path::new(path)) {
        Some(clean) => Ok(clean),
        None if path.starts_with('/') => wrong("it is absolute"),
        None => wrong("it leads out"),
    }
}

/// Without `.` and `..`; `None` if it leads out.
pub fn cleaned(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir if clean.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// Whether a path was not followed because it leads out, or through a link where links are not followed.
pub fn leads_out(why: &io::Error) -> bool {
    matches!(Errno::from_io_error(why), Some(Errno::XDEV | Errno::LOOP))
}

/// A name for something unfinished, unlike any other of this process.
pub fn temporary_name() -> OsString {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(".burrow-{}-{n}", std::process::id()).into()
}

impl Root {
    pub fn open(path: &Path) -> io::Result<Root> {
        Ok(Root(at::openat(CWD, path, FOLDER, Mode::empty())?))
    }

    /// Opens a folder that is there.
    pub fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open_below(path, FOLDER)
    }

    /// Opens a folder; it and its parents are made if they are missing.
    pub fn make_folder(&self, path: &Path) -> io::Result<OwnedFd> {
        match (self.folder(path), path.parent(), path.file_name()) {
            (Err(why), Some(parent), Some(name)) if why.kind() == io::ErrorKind::NotFound => {
                match at::mkdirat(self.make_folder(parent)?, name, Mode::from_raw_mode(0o755)) {
                    Err(Errno::EXIST) | Ok(()) => self.folder(path),
                    Err(why) => Err(why.into()),
                }
            }
            (opened, ..) => opened,
        }
    }

    /// The folder that holds `path`, made if it is missing, and the name in it; `None` for the root.
    pub fn make_parent<'p>(&self, path: &'p Path) -> io::Result<Option<(OwnedFd, &'p OsStr)>> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok(Some((self.make_folder(parent)?, name))),
            _ => Ok(None),
        }
    }

    fn open_below(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        #[cfg(target_os = "linux")]
        for _ in 0..16 {
            let beneath = at::ResolveFlags::BENEATH | at::ResolveFlags::NO_MAGICLINKS;
            match at::openat2(&self.0, path, flags, Mode::empty(), beneath) {
                // A folder on the way was moved meanwhile.
                Err(Errno::AGAIN | Errno::INTR) => {}
                // Kernels before 5.6, and sandboxes that do not know the call.
                Err(Errno::NOSYS | Errno::PERM) => break,
                opened => return Ok(opened?),
            }
        }
        self.open_by_steps(path, flags)
    }

    /// Component by component, following no link.
    fn open_by_steps(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let mut folder = at::openat(&self.0, ".", FOLDER, Mode::empty())?;
        let mut steps = path.components().peekable();
        while let Some(step) = steps.next() {
            let flags = if steps.peek().is_some() { FOLDER } else { flags } | OFlags::NOFOLLOW;
            folder = match (step, at::openat(&folder, step.as_os_str(), flags, Mode::empty())) {
                (Component::CurDir, _) => continue,
                (Component::Normal(name), Err(Errno::NOTDIR)) if is_link(&folder, name) => {
                    return Err(Errno::LOOP.into());
                }
                (Component::Normal(_), opened) => opened?,
                _ => return Err(Errno::XDEV.into()),
            };
        }
        Ok(folder)
    }
}

fn is_link(folder: &OwnedFd, name: &OsStr) -> bool {
    stat(folder, name).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// What is there under a name, a link as itself.
pub fn stat(folder: impl AsFd, name: &OsStr) -> io::Result<Stat> {
    Ok(at::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Opens a regular file to read; a link is not followed, and nothing is waited for.
pub fn open_file(folder: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(at::openat(folder, name, flags, Mode::empty())?.into())
}

pub fn open_folder(folder: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(at::openat(
        folder,
        name,
        FOLDER | OFlags::NOFOLLOW,
        Mode::empty(),
    )?)
}

/// The names in a folder, sorted by their bytes.
pub fn names(folder: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names: Vec<_> = entries(folder)?.into_iter().map(|entry| entry.name).collect();
    names.sort();
    Ok(names)
}

/// What a folder says of something in it.
struct Entry {
    name: OsString,
    /// Unknown where the file system does not keep it there.
    kind: FileType,
    inode: u64,
}

fn entries(folder: impl AsFd) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in at::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            entries.push(Entry {
                name: OsStr::from_bytes(name).to_owned(),
                kind: entry.file_type(),
                inode: entry.ino(),
            });
        }
    }
    Ok(entries)
}

/// Removes all in a folder. Read-only folders get their owner's right to write first, as module caches need.
pub fn clear(folder: &OwnedFd) -> io::Result<()> {
    for name in names(folder)? {
        remove(folder, &name)?;
    }
    Ok(())
}

/// Removes what can be of all that lies two folders down, in threads: it makes the removal that follows shorter, and
/// that is what tells of errors.
fn thin_out(folder: &OwnedFd, name: &OsStr) {
    let Ok(inner) = open_folder(folder, name) else {
        return;
    };
    let Ok(inside) = entries(&inner) else { return };
    let folders: Vec<_> = inside
        .into_iter()
        .filter(|entry| entry.kind == FileType::Directory)
        .collect();
    if folders.len() < 2 {
        return;
    }
    let thin = |name: OsString| drop(remove_tree(&inner, &name));
    ordered(folders.len(), thin, |ordered| {
        for entry in folders {
            ordered.push(entry.name);
        }
    });
}

/// Removes whatever is there under a name; nothing is fine.
pub fn remove(folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
    thin_out(folder, name);
    remove_tree(folder, name)
}

fn remove_tree(folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let mut deep = vec![name.to_owned()];
    while let Some(name) = deep.pop() {
        let kind = match stat(folder, &name) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
            stat => FileType::from_raw_mode(stat?.st_mode),
        };
        remove_at(folder, folder, &name, kind, 0, &mut deep)?;
    }
    Ok(())
}

/// What lies too deep is moved up into `top`, and its name there put on `deep`.
fn remove_at(
    top: &OwnedFd,
    folder: &OwnedFd,
    name: &OsStr,
    kind: FileType,
    depth: usize,
    deep: &mut Vec<OsString>,
) -> io::Result<()> {
    if kind != FileType::Directory {
        return writable(folder, || at::unlinkat(folder, name, AtFlags::empty()));
    }
    if depth >= DEPTH_MAX {
        let up = temporary_name();
        at::renameat(folder, name, top, &up)?;
        deep.push(up);
        return Ok(());
    }
    let inner = match open_folder(folder, name) {
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
            at::chmodat(folder, name, Mode::RWXU, AtFlags::empty())?;
            open_folder(folder, name)?
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut inside = entries(&inner)?;
    // As they lie on the disk.
    inside.sort_unstable_by_key(|entry| entry.inode);
    for Entry { name, kind, .. } in inside {
        let kind = match kind {
            FileType::Unknown => match stat(&inner, &name) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
                stat => FileType::from_raw_mode(stat?.st_mode),
            },
            known => known,
        };
        remove_at(top, &inner, &name, kind, depth + 1, deep)?;
    }
    writable(folder, || at::unlinkat(folder, name, AtFlags::REMOVEDIR))
}

/// Tries once more with the folder made writable; what went meanwhile is gone.
fn writable(folder: &OwnedFd, change: impl Fn() -> rustix::io::Result<()>) -> io::Result<()> {
    let done = match change() {
        Err(Errno::ACCESS) => {
            at::fchmod(folder, Mode::RWXU)?;
            change()
        }
        done => done,
    };
    match done {
        Err(Errno::NOENT) | Ok(()) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_stay_below() {
        for (path, clean) in [
            ("a/b", "a/b"),
            (".", ""),
            ("./a/../b", "b"),
            ("foo../bar", "foo../bar"),
            ("a\\b", "a\\b"),
            ("C:x", "C:x"),
        ] {
            assert_eq!(relative(path).expect("fine").to_str(), Some(clean));
        }
        for path in ["", "..", "a/../..", "/etc", "a\0"] {
            assert!(relative(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn links_lead_nowhere_outside_by_either_way() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("work/in")).expect("made");
        fs::create_dir(folder.path().join("out")).expect("made");
        let work = folder.path().join("work");
        symlink("../out", work.join("up")).expect("linked");
        symlink(folder.path().join("out"), work.join("absolute")).expect("linked");
        symlink("in", work.join("inside")).expect("linked");
        let root = Root::open(&work).expect("opened");
        for path in ["up", "up/x", "absolute", "in/../../out"] {
            let path = Path::new(path);
            for opened in [
                root.folder(path),
                root.make_folder(path),
                root.open_by_steps(path, FOLDER),
            ] {
                assert!(leads_out(&opened.expect_err("leads out")), "{path:?}");
            }
        }
        root.folder(Path::new("inside")).expect("below");
        assert!(leads_out(
            &root
                .open_by_steps(Path::new("inside"), FOLDER)
                .expect_err("a link")
        ));
        for path in ["in", "", "."] {
            root.open_by_steps(Path::new(path), FOLDER).expect("below");
        }
        root.make_folder(Path::new("a/b/c")).expect("made");
        assert!(work.join("a/b/c").is_dir());
        assert_eq!(fs::read_dir(folder.path().join("out")).expect("read").count(), 0);
    }

    #[test]
    fn deep_and_read_only_trees_go_and_what_links_name_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = Root::open(folder.path()).expect("opened");
        let mut at = root.make_folder(Path::new("tree")).expect("made");
        for _ in 0..3 * DEPTH_MAX {
            at::mkdirat(&at, "d", Mode::RWXU).expect("made");
            at = open_folder(&at, OsStr::new("d")).expect("opened");
        }
        fs::write(folder.path().join("kept"), "x").expect("written");
        at::symlinkat(folder.path().join("kept"), &at, "link").expect("linked");
        at::fchmod(&at, Mode::RUSR | Mode::XUSR).expect("changed");
        let top = root.folder(Path::new("")).expect("opened");
        remove(&top, OsStr::new("tree")).expect("removed");
        remove(&top, OsStr::new("tree")).expect("nothing to remove");
        assert_eq!(names(&top).expect("read"), ["kept"]);
    }
}
