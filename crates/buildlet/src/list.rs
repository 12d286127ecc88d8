//! What callers may read below the working directory: listings and archives.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{self as at, FileType, Stat};
use sha1::{Digest, Sha1};

use crate::beneath::{DEPTH_MAX, Root, names, open_file, open_folder, stat};
use crate::gomode;
use crate::ordered::{Ordered, ordered};

/// Uncompressed bytes of one gzip member. Source: golang/build `pargzip/pargzip.go`.
const MEMBER: usize = 1 << 20;

/// Sources become a tenth longer than at level 6, in half the time.
const LEVEL: Compression = Compression::new(3);

/// Members that are compressed, or wait to be sent.
const MEMBERS_AHEAD: usize = 4;

/// What `/ls` is asked for.
pub struct Listing<'a> {
    pub recursive: bool,
    pub digest: bool,
    /// Folders, by their path from the listed one, that are left out whole.
    pub skip: Vec<&'a str>,
}

/// Something below the folder that is walked.
struct Found<'a> {
    folder: &'a OwnedFd,
    name: &'a OsStr,
    /// From the walked folder, with slashes.
    path: &'a [u8],
    stat: Stat,
}

impl Found<'_> {
    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Goes through a folder in the order of names' bytes, a folder before what is in it, which is gone
/// through if `visit` says so. What vanishes meanwhile is passed over.
fn walk(
    folder: &OwnedFd,
    path: &mut Vec<u8>,
    depth: usize,
    visit: &mut dyn FnMut(Found) -> io::Result<bool>,
) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!(
            "more than {DEPTH_MAX} folders within each other"
        )));
    }
    let length = path.len();
    for name in names(folder)? {
        path.truncate(length);
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        let Some(stat) = still_there(stat(folder, &name))? else {
            continue;
        };
        let found = Found {
            folder,
            name: &name,
            path,
            stat,
        };
        let is_folder = found.kind() == FileType::Directory;
        if visit(found)?
            && is_folder
            && let Some(inner) = still_there(open_folder(folder, &name))?
        {
            walk(&inner, path, depth + 1, visit)?;
        }
    }
    path.truncate(length);
    Ok(())
}

fn still_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Files that are held open while they wait for their digests.
const DIGESTS_AHEAD: usize = 64;

/// Writes a line for each entry below `dir`; for a file its own, without a path. Returns how many were
/// left out because their names have control characters, which no line can hold.
pub fn list(root: &Root, dir: &Path, listing: &Listing, out: &mut dyn Write) -> io::Result<usize> {
    if !listing.digest {
        return list_with(root, dir, listing, &mut |line, _| finish_line(line, None, out));
    }
    // A line, and whose digest belongs to it.
    let digested = |(line, file): (Vec<u8>, Option<File>)| match file {
        None => Ok((line, None)),
        Some(mut file) => sha1(&mut file).map(|digest| (line, Some(digest))),
    };
    ordered(DIGESTS_AHEAD, digested, |lines| {
        let mut finish = |line: io::Result<(Vec<u8>, Option<String>)>| {
            let (line, digest) = line?;
            finish_line(line, digest, out)
        };
        let omitted = list_with(root, dir, listing, &mut |line, file| {
            lines.push((line, file)).map_or(Ok(()), &mut finish)
        })?;
        while let Some(line) = lines.oldest() {
            finish(line)?;
        }
        Ok(omitted)
    })
}

fn finish_line(mut line: Vec<u8>, digest: Option<String>, out: &mut dyn Write) -> io::Result<()> {
    if let Some(digest) = digest {
        line.push(b'\t');
        line.extend_from_slice(digest.as_bytes());
    }
    line.push(b'\n');
    out.write_all(&line)
}

/// Hands each line on, without a digest; with the file it is of, if one is wanted.
fn list_with(
    root: &Root,
    dir: &Path,
    listing: &Listing,
    hand_on: &mut dyn FnMut(Vec<u8>, Option<File>) -> io::Result<()>,
) -> io::Result<usize> {
    let mut omitted = 0;
    let mut line = |found: Found| {
        if found.path.iter().any(u8::is_ascii_control) {
            omitted += 1;
            return Ok(false);
        }
        let is_folder = found.kind() == FileType::Directory;
        if is_folder && listing.skip.iter().any(|skip| skip.as_bytes() == found.path) {
            return Ok(false);
        }
        let mut line = gomode::text(found.stat.st_mode).into_bytes();
        line.push(b'\t');
        line.extend_from_slice(found.path);
        let mut digested = None;
        match found.kind() {
            FileType::Directory => line.push(b'/'),
            FileType::RegularFile => {
                line.extend(format!("\t{}\t{}", found.stat.st_size, rfc3339(found.stat.st_mtime)).bytes());
                if listing.digest {
                    digested = still_there(open_file(found.folder, found.name))?;
                    if digested.is_none() {
                        return Ok(false);
                    }
                }
            }
            _ => {}
        }
        hand_on(line, digested)?;
        Ok(is_folder && listing.recursive)
    };
    match root.folder(dir) {
        Ok(folder) => walk(&folder, &mut Vec::new(), 0, &mut line)?,
        Err(why) if why.kind() == io::ErrorKind::NotADirectory => {
            let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
                return Err(why);
            };
            let folder = &root.folder(parent)?;
            let stat = stat(folder, name)?;
            line(Found {
                folder,
                name,
                path: b"",
                stat,
            })?;
        }
        Err(why) => return Err(why),
    }
    Ok(omitted)
}

fn sha1(file: &mut impl Read) -> io::Result<String> {
    let mut digest = Sha1::new();
    let mut piece = [0; 32 * 1024];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => digest.update(&piece[..n]),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    let digits = digest
        .finalize()
        .into_iter()
        .flat_map(|byte| [byte >> 4, byte & 15]);
    Ok(digits
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect())
}

/// Seconds since 1970 as `2018-06-13T21:27:35Z`.
fn rfc3339(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years are counted from the first of March, eras of 400 years from the year 0.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Writes a tar of all below `folder`, each MiB of it a gzip member of its own, or all of it one
/// member. Sockets, which no archive can hold, are passed over with a word to the log.
pub fn archive(folder: &OwnedFd, one_member: bool, out: &mut dyn Write) -> io::Result<()> {
    if one_member {
        return write_tar(folder, GzEncoder::new(out, LEVEL))?.finish().map(drop);
    }
    ordered(MEMBERS_AHEAD, compressed, |packed| {
        let members = Members {
            packed,
            out,
            member: Vec::with_capacity(MEMBER),
        };
        write_tar(folder, members)?.finish()
    })
}

/// Writes a tar of all below `folder` and returns where it went.
fn write_tar<W: Write>(folder: &OwnedFd, out: W) -> io::Result<W> {
    let mut tar = tar::Builder::new(out);
    walk(folder, &mut Vec::new(), 0, &mut |found| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(found.stat.st_mode & 0o7777);
        header.set_mtime(u64::try_from(found.stat.st_mtime).unwrap_or(0));
        header.set_size(0);
        let mut name = OsString::from_vec(found.path.to_vec());
        let kind = found.kind();
        header.set_entry_type(match kind {
            FileType::Directory => tar::EntryType::Directory,
            FileType::Symlink => tar::EntryType::Symlink,
            FileType::Fifo => tar::EntryType::Fifo,
            FileType::CharacterDevice => tar::EntryType::Char,
            FileType::BlockDevice => tar::EntryType::Block,
            FileType::Socket => {
                eprintln!(
                    "buildlet: the socket `{}` is left out of an archive",
                    name.display()
                );
                return Ok(false);
            }
            _ => tar::EntryType::Regular,
        });
        match kind {
            FileType::RegularFile => {
                let Some(mut file) = still_there(open_file(found.folder, found.name))? else {
                    return Ok(false);
                };
                let size = file.metadata()?.len();
                header.set_size(size);
                let mut content = (&mut file).take(size);
                tar.append_data(&mut header, &name, &mut content)?;
                if content.limit() > 0 {
                    return Err(io::Error::other(format!(
                        "`{}` shrank while it was read",
                        name.display()
                    )));
                }
            }
            FileType::Symlink => {
                let to = at::readlinkat(found.folder, found.name, Vec::new());
                let Some(to) = still_there(to.map_err(io::Error::from))? else {
                    return Ok(false);
                };
                tar.append_link(&mut header, &name, OsStr::from_bytes(to.as_bytes()))?;
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                header.set_device_major(at::major(found.stat.st_rdev))?;
                header.set_device_minor(at::minor(found.stat.st_rdev))?;
                tar.append_data(&mut header, &name, io::empty())?;
            }
            kind => {
                if kind == FileType::Directory {
                    name.push("/");
                }
                tar.append_data(&mut header, &name, io::empty())?;
            }
        }
        Ok(true)
    })?;
    tar.into_inner()
}

/// Gzip members one after another, compressed in threads.
struct Members<'a, 'w> {
    packed: &'a mut Ordered<'w, Vec<u8>, io::Result<Vec<u8>>>,
    out: &'a mut dyn Write,
    /// What the next one will hold.
    member: Vec<u8>,
}

fn compressed(member: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::with_capacity(member.len() / 3), LEVEL);
    gzip.write_all(&member)?;
    gzip.finish()
}

impl Members<'_, '_> {
    fn next_member(&mut self) -> io::Result<()> {
        let member = std::mem::replace(&mut self.member, Vec::with_capacity(MEMBER));
        match self.packed.push(member) {
            Some(packed) => self.out.write_all(&packed?),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> io::Result<()> {
        self.next_member()?;
        while let Some(packed) = self.packed.oldest() {
            self.out.write_all(&packed?)?;
        }
        Ok(())
    }
}

impl Write for Members<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.member.len() == MEMBER {
            self.next_member()?;
        }
        let n = bytes.len().min(MEMBER - self.member.len());
        self.member.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_528_925_255, "2018-06-13T21:27:35Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), wanted);
        }
    }

    #[test]
    fn an_archive_is_one_member_or_many_and_holds_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let content: Vec<u8> = (0..3 * MEMBER as u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        std::fs::write(folder.path().join("big"), &content).expect("written");
        let root = Root::open(folder.path()).expect("opened");
        let folder = root.folder(Path::new("")).expect("opened");
        let packed = |one_member| {
            let mut out = Vec::new();
            archive(&folder, one_member, &mut out).expect("packed");
            out
        };
        let plain = |packed: &[u8], all: bool| {
            let mut out = Vec::new();
            match all {
                true => flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut out),
                false => flate2::read::GzDecoder::new(packed).read_to_end(&mut out),
            }
            .expect("unpacked");
            out
        };
        let (one, many) = (packed(true), packed(false));
        assert_eq!(plain(&one, false), plain(&many, true));
        assert_eq!(plain(&many, false).len(), MEMBER);
        assert!(
            plain(&one, false)
                .windows(1000)
                .any(|window| window == &content[5000..6000])
        );
    }
}
