//! What callers may do below the working directory, and nowhere else.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;

/// Why a file operation was refused or failed: a status of the answer and its text.
#[derive(Debug, PartialEq, Eq)]
pub struct FileError(pub u16, pub String);

fn bad(text: impl Into<String>) -> FileError {
    FileError(400, text.into())
}

fn failed(what: &str, path: &Path, why: io::Error) -> FileError {
    FileError(500, format!("cannot {what} {}: {why}", path.display()))
}

/// A path below the working directory, cleaned; `.` for itself. Slashes only, nothing that leads out.
pub fn relative(path: &str) -> Result<PathBuf, String> {
    let wrong = |why: &str| {
        Err(format!(
            "bogus path `{path}`: {why}; wanted one below the working directory"
        ))
    };
    if path.is_empty() {
        return wrong("it is empty");
    }
    if path.contains('\0') || path.contains('\\') {
        return wrong("it has a NUL or backslash");
    }
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir if clean.pop() => {}
            Component::ParentDir => return wrong("it leads out"),
            Component::RootDir | Component::Prefix(_) => return wrong("it is absolute"),
        }
    }
    Ok(clean)
}

/// The target below `workdir`, after looking that no folder on the way is a link: a command may have
/// planted one.
fn beneath(workdir: &Path, path: &Path) -> Result<PathBuf, FileError> {
    let mut at = workdir.to_owned();
    let parents = path.parent().into_iter().flat_map(Path::components);
    for part in parents {
        at.push(part);
        if fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_symlink()) {
            return Err(bad(format!(
                "`{}` is reached through the link `{}`",
                path.display(),
                at.display()
            )));
        }
    }
    Ok(workdir.join(path))
}

/// Unpacks a tar.gz, of one gzip member or many, into `dir` below the working directory.
pub fn unpack(workdir: &Path, dir: &str, archive: impl Read) -> Result<(), FileError> {
    let dir = if dir.is_empty() {
        PathBuf::new()
    } else {
        relative(dir).map_err(bad)?
    };
    let root = beneath(workdir, &dir.join("x"))?;
    let root = root.parent().unwrap_or(workdir).to_owned();
    fs::create_dir_all(&root).map_err(|why| failed("make", &root, why))?;
    let began = SystemTime::now();
    let mut tar = tar::Archive::new(MultiGzDecoder::new(archive));
    let entries = tar.entries().map_err(|why| bad(format!("not a tar.gz: {why}")))?;
    for (n, entry) in entries.enumerate() {
        let mut entry = entry.map_err(|why| bad(format!("bad archive at entry {n}: {why}")))?;
        let name = String::from_utf8(entry.path_bytes().into_owned());
        let name = name.map_err(|_| bad(format!("the name of entry {n} is no UTF-8")))?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let path = relative(&name).map_err(|why| bad(format!("entry {n}: {why}")))?;
        let target = beneath(&root, &path)?;
        let parent = target.parent().unwrap_or(&root);
        if kind.is_dir() {
            fs::create_dir_all(&target).map_err(|why| failed("make", &target, why))?;
            continue;
        }
        fs::create_dir_all(parent).map_err(|why| failed("make", parent, why))?;
        if kind.is_symlink() {
            let to = entry
                .link_name()
                .ok()
                .flatten()
                .map(|to| to.into_owned())
                .unwrap_or_default();
            let inside = to
                .to_str()
                .map(|to| relative(&path.parent().unwrap_or(Path::new("")).join(to).to_string_lossy()));
            if to.is_absolute() || !matches!(inside, Some(Ok(_))) {
                return Err(bad(format!(
                    "entry {n}: the link `{name}` leads out to `{}`",
                    to.display()
                )));
            }
            // One that is there is replaced, never written through.
            let _ = fs::remove_file(&target);
            std::os::unix::fs::symlink(&to, &target).map_err(|why| failed("link", &target, why))?;
            continue;
        }
        if !kind.is_file() && !kind.is_contiguous() {
            return Err(bad(format!(
                "tar file entry {name} contained unsupported file type {}",
                kind.as_byte() as char
            )));
        }
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        let modified = entry.header().mtime().unwrap_or(0);
        let modified = SystemTime::UNIX_EPOCH
            .checked_add(std::time::Duration::from_secs(modified))
            .unwrap_or(began);
        write(&target, mode, &mut entry, Some(modified.min(began)))
            .map_err(|why| failed("write", &target, why))?;
    }
    Ok(())
}

/// Writes one file of the working directory; `mode` is Go's, of which only permissions are taken.
pub fn put(workdir: &Path, path: &str, mode: &str, content: &mut dyn Read) -> Result<(), FileError> {
    let mode: i64 = mode.parse().map_err(|_| {
        bad(format!(
            "bad mode `{mode}`; wanted a decimal number as 493 for 0755"
        ))
    })?;
    // Go's bits for folder, link, device, fifo, socket, character device, irregular.
    let special = [31, 27, 26, 25, 24, 21, 19]
        .iter()
        .any(|bit| mode >> bit & 1 == 1);
    if !(0..1 << 32).contains(&mode) || special {
        return Err(bad(format!("bad mode `{mode}`; wanted that of a regular file")));
    }
    let target = beneath(workdir, &relative(path).map_err(bad)?)?;
    let parent = target.parent().unwrap_or(workdir);
    fs::create_dir_all(parent).map_err(|why| failed("make", parent, why))?;
    write(&target, mode as u32 & 0o777, content, None).map_err(|why| failed("write", &target, why))
}

/// To a name of its own, then renamed: a program that runs is replaced, never truncated.
fn write(target: &Path, mode: u32, content: &mut dyn Read, modified: Option<SystemTime>) -> io::Result<()> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".burrow-tmp");
    let temporary = target.with_file_name(name);
    let _ = fs::remove_file(&temporary);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let done = io::copy(content, &mut file).and_then(|_| {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        if let Some(modified) = modified {
            file.set_modified(modified)?;
        }
        fs::rename(&temporary, target)
    });
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// Removes files and folders below the working directory; `.` empties it. What is not there is fine.
pub fn remove(workdir: &Path, paths: &[&str]) -> Result<(), FileError> {
    if paths.is_empty() {
        return Err(bad("requires 'path' parameter"));
    }
    let clean: Vec<PathBuf> = paths
        .iter()
        .map(|path| relative(path))
        .collect::<Result<_, _>>()
        .map_err(bad)?;
    for path in clean {
        if path.as_os_str().is_empty() {
            for entry in fs::read_dir(workdir).map_err(|why| failed("read", workdir, why))? {
                let entry = entry.map_err(|why| failed("read", workdir, why))?;
                remove_one(&entry.path())?;
            }
        } else {
            remove_one(&beneath(workdir, &path)?)?;
        }
    }
    Ok(())
}

fn remove_one(path: &Path) -> Result<(), FileError> {
    let try_it = || match fs::symlink_metadata(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(why),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    match try_it() {
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            try_it().map_err(|why| failed("remove", path, why))
        }
        done => done.map_err(|why| failed("remove", path, why)),
    }
}

/// Gives the owner the right to write everywhere below, as read-only trees need before they can go.
fn open_up(path: &Path) {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return;
    };
    if meta.is_dir() {
        let _ = fs::set_permissions(
            path,
            fs::Permissions::from_mode(meta.permissions().mode() | 0o700),
        );
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::relative;

    #[test]
    fn paths_stay_below() {
        for (path, clean) in [
            ("a/b", "a/b"),
            (".", ""),
            ("./a/../b", "b"),
            ("foo../bar", "foo../bar"),
        ] {
            assert_eq!(relative(path).expect("fine").to_str(), Some(clean));
        }
        for path in ["", "..", "a/../..", "/etc", "a\\b", "a\0"] {
            assert!(relative(path).is_err(), "{path:?}");
        }
    }
}
