//! Brings a git work tree to a machine: sends what differs, removes what is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};

use buildlet_api::{CallError, Client, DirEntry, ListOptions, Upload};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha1::{Digest as _, Sha1};

use super::reach::Counted;
use super::{MOST_ENTRIES, bar, failed};
use crate::failure::{Exit, Failure, at_path};
use crate::git;
use crate::show;

/// Paths of one request to remove.
const REMOVED_AT_ONCE: usize = 200;

#[derive(Debug, clap::Args)]
pub struct Push {
    /// Folder on the machine
    #[arg(long, default_value = "src")]
    pub dir: String,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    #[arg(value_name = "INSTANCE")]
    pub words: Vec<String>,
}

/// What is to be done to make the machine's folder equal to ours.
#[derive(Debug, PartialEq)]
struct Difference {
    /// Paths from the top of the tree, with slashes.
    send: Vec<String>,
    /// Of the machine alone; not yet sieved by what git ignores.
    only_there: Vec<String>,
}

pub async fn push(to: &Client, asked: &Push) -> Result<Exit, Failure> {
    let top = PathBuf::from(git::line(Path::new("."), &["rev-parse", "--show-toplevel"])?);
    let here = digests(&top)?;
    let options = ListOptions {
        recursive: true,
        digest: true,
        skip: Vec::new(),
    };
    let there = match to.ls(&asked.dir, &options, MOST_ENTRIES).await {
        Ok(entries) => entries,
        // It is not there yet, or the machine cannot tell: all is sent.
        Err(CallError::Refused { .. } | CallError::Gone { .. }) => Vec::new(),
        Err(why) => return Err(failed(why)),
    };
    let difference = difference(&here, &there);
    let remove = not_ignored(&top, difference.only_there)?;
    for path in &remove {
        eprintln!("- {}", show::plain(path));
    }
    for path in &difference.send {
        eprintln!("+ {}", show::plain(path));
    }
    if asked.dry_run {
        return Ok(Exit::Done);
    }
    let inside: Vec<String> = remove
        .iter()
        .map(|path| format!("{}/{path}", asked.dir))
        .collect();
    for paths in inside.chunks(REMOVED_AT_ONCE) {
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        to.remove_all(&paths).await.map_err(failed)?;
    }
    if !difference.send.is_empty() {
        let archive = pack(&top, &difference.send)?;
        let size = archive
            .metadata()
            .map_err(|error| at_path("read", &top, &error))?
            .len();
        let bar = bar(Some(size));
        let reader = Box::new(Counted::new(tokio::fs::File::from_std(archive), bar.clone()));
        let sent = to
            .put_tgz(
                &asked.dir,
                Upload::Reader {
                    reader,
                    size: Some(size),
                },
            )
            .await;
        bar.finish_and_clear();
        sent.map_err(failed)?;
    }
    eprintln!(
        "{} of {} files sent, {} removed",
        difference.send.len(),
        here.len(),
        remove.len()
    );
    Ok(Exit::Done)
}

/// Every file that git tracks or would track, as it stands, with its SHA-1; a link has none.
fn digests(top: &Path) -> Result<BTreeMap<String, Option<String>>, Failure> {
    let listed = git::git(
        top,
        &["ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    )?;
    let mut files = BTreeMap::new();
    for name in listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = std::str::from_utf8(name).map_err(|_| {
            Failure::new(format!(
                "`{}` is no UTF-8 and cannot be sent",
                show::plain(&String::from_utf8_lossy(name))
            ))
        })?;
        let path = top.join(name);
        // Deleted and still in the index; or a submodule.
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        if meta.is_dir() {
            continue;
        }
        let digest = if meta.is_file() {
            let mut sha1 = Sha1::new();
            let mut file = File::open(&path).map_err(|error| at_path("read", &path, &error))?;
            std::io::copy(&mut file, &mut Hashed(&mut sha1))
                .map_err(|error| at_path("read", &path, &error))?;
            Some(sha1.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
        } else {
            None
        };
        files.insert(name.to_owned(), digest);
    }
    Ok(files)
}

struct Hashed<'a>(&'a mut Sha1);

impl std::io::Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Links are always sent: a listing does not tell where they lead.
fn difference(here: &BTreeMap<String, Option<String>>, there: &[DirEntry]) -> Difference {
    let theirs: BTreeMap<&str, Option<&str>> = there
        .iter()
        .filter(|entry| !entry.path.ends_with('/'))
        .map(|entry| {
            let sha1 = entry.file.as_ref().and_then(|file| file.sha1.as_deref());
            (entry.path.as_str(), sha1)
        })
        .collect();
    let same = |name: &String, digest: &Option<String>| {
        digest.is_some() && theirs.get(name.as_str()).copied().flatten() == digest.as_deref()
    };
    Difference {
        send: here
            .iter()
            .filter(|(name, digest)| !same(name, digest))
            .map(|(name, _)| name.clone())
            .collect(),
        only_there: theirs
            .keys()
            .filter(|name| !here.contains_key(**name))
            .map(|name| (*name).to_owned())
            .collect(),
    }
}

/// What builds made stays, if git would not track it here.
fn not_ignored(top: &Path, paths: Vec<String>) -> Result<Vec<String>, Failure> {
    if paths.is_empty() {
        return Ok(paths);
    }
    let input: Vec<u8> = paths
        .iter()
        .flat_map(|path| [path.as_bytes(), b"\0"].concat())
        .collect();
    // Every path is answered, so that the exit code tells nothing but success.
    let answer = git::git_with_input(
        top,
        &["check-ignore", "-z", "--stdin", "-v", "-n", "--no-index"],
        &input,
    );
    // It exits 1 when nothing is ignored.
    let answer = answer.unwrap_or_default();
    let fields: Vec<&[u8]> = answer.split(|byte| *byte == 0).collect();
    let ignored: BTreeSet<&[u8]> = fields
        .chunks_exact(4)
        .filter(|row| !row[0].is_empty())
        .map(|row| row[3])
        .collect();
    Ok(paths
        .into_iter()
        .filter(|path| !ignored.contains(path.as_bytes()))
        .collect())
}

/// A tar.gz of these files, in a file without a name, to be read from its beginning.
fn pack(top: &Path, names: &[String]) -> Result<File, Failure> {
    let cannot = |error: std::io::Error| Failure::new(format!("cannot pack what is to be sent: {error}"));
    let mut file = tempfile::tempfile().map_err(cannot)?;
    let mut tar = tar::Builder::new(GzEncoder::new(&mut file, Compression::fast()));
    tar.follow_symlinks(false);
    for name in names {
        let path = top.join(name);
        tar.append_path_with_name(&path, name)
            .map_err(|error| at_path("pack", &path, &error))?;
    }
    let packed = tar.into_inner().and_then(GzEncoder::finish);
    packed.and_then(|out| out.flush()).map_err(cannot)?;
    file.rewind().map_err(cannot)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use buildlet_api::ls::FileInfo;

    use super::*;

    #[test]
    fn what_differs_is_sent_and_what_is_gone_is_removed() {
        let here = |pairs: &[(&str, Option<&str>)]| {
            let pair = |(name, digest): &(&str, Option<&str>)| (name.to_string(), digest.map(str::to_owned));
            pairs.iter().map(pair).collect::<BTreeMap<_, _>>()
        };
        let there = |path: &str, sha1: Option<&str>| DirEntry {
            mode: "-rw-r--r--".to_owned(),
            path: path.to_owned(),
            file: sha1.map(|sha1| FileInfo {
                size: 1,
                modified: String::new(),
                sha1: Some(sha1.to_owned()),
            }),
        };
        let found = difference(
            &here(&[
                ("same", Some("1")),
                ("changed", Some("2")),
                ("new", Some("3")),
                ("link", None),
            ]),
            &[
                there("same", Some("1")),
                there("changed", Some("1")),
                there("gone/x", Some("9")),
                there("gone/", None),
                there("link", None),
            ],
        );
        assert_eq!(found.send, ["changed", "link", "new"]);
        assert_eq!(found.only_there, ["gone/x"]);
    }

    #[test]
    fn what_git_ignores_stays_on_the_machine() {
        let folder = tempfile::tempdir().expect("a folder");
        let top = folder.path();
        git::git(top, &["init", "-q"]).expect("git runs");
        std::fs::write(top.join(".gitignore"), "out/\n*.o\n").expect("a file");
        std::fs::write(top.join("kept"), "abc").expect("a file");
        std::fs::write(top.join("x.o"), "").expect("a file");
        let all = ["out/a", "b.o", "old/c"].map(str::to_owned).to_vec();
        assert_eq!(not_ignored(top, all).expect("git runs"), ["old/c"]);
        assert_eq!(
            not_ignored(top, vec!["old/c".to_owned()]).expect("git runs"),
            ["old/c"]
        );
        let files = digests(top).expect("git runs");
        assert_eq!(files.keys().collect::<Vec<_>>(), [".gitignore", "kept"]);
        assert_eq!(
            files["kept"].as_deref(),
            Some("a9993e364706816aba3e25717850c26c9cd0d89d")
        );
    }
}
