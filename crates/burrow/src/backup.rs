//! `backup`, `restore` and `move-store`: all that a farm keeps as one file, and a farm from it.
//!
//! The file is a gzipped tar: `store.jsonl` (every row, of whichever engine), the keys of the state folder, the step
//! logs, and last `manifest.json`, which names each with its length and SHA-256. The store is read first and as of one
//! moment: the log of a step that has ended by then is whole on disk. Mirrors and working folders are left out; a farm
//! makes them anew.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use config::Config;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::backup::load;
use store::{PgUrl, Store, StoreUrl};

use crate::args::{Backup, Global, MoveStore, Restore};
use crate::failure::{Exit, Failure, at_path};
use crate::secrets;

const ROWS: &str = "store.jsonl";
const MANIFEST: &str = "manifest.json";

/// What is kept of a state folder besides the store: files, and folders with all that is in them.
const KEPT: [&str; 4] = ["master-key", "token", "tls", "logs"];

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    /// The program that made it.
    burrow: String,
    /// The schema of the rows.
    schema: i64,
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    sha256: String,
}

pub async fn backup(global: &Global, backup: &Backup) -> Result<Exit, Failure> {
    let config = secrets::configured(global, backup.config.as_deref())?;
    let state = &config.farm.state_dir;
    if backup.file.exists() {
        return Err(
            Failure::new(format!("`{}` is there already", backup.file.display())).hint("name another file"),
        );
    }
    let (part, rows) = (beside(&backup.file, "part"), beside(&backup.file, "rows"));
    let _remove = (Remove(part.clone()), Remove(rows.clone()));
    dump(&config, &rows).await?;
    let file = private(&part).map_err(|error| at_path("write", &part, &error))?;
    let files = pack(file, &rows, state).map_err(|error| at_path("write", &part, &error))?;
    fs::rename(&part, &backup.file).map_err(|error| at_path("write", &backup.file, &error))?;
    println!(
        "{files} files of `{}` are in `{}`",
        state.display(),
        backup.file.display()
    );
    Ok(Exit::Done)
}

pub async fn restore(global: &Global, restore: &Restore) -> Result<Exit, Failure> {
    let config = secrets::configured(global, restore.config.as_deref())?;
    let state = &config.farm.state_dir;
    if fs::read_dir(state).is_ok_and(|mut inside| inside.next().is_some()) {
        let hint = "name an empty one with --state-dir, or move it away";
        return Err(Failure::new(format!("the state folder `{}` is not empty", state.display())).hint(hint));
    }
    let damaged =
        |why: io::Error| Failure::new(format!("`{}` is no whole backup: {why}", restore.file.display()));
    let manifest = verify(&restore.file).map_err(damaged)?;
    // Made beside it and put in place whole.
    let fresh = beside(state, "restoring");
    let _remove = Remove(fresh.clone());
    fs::create_dir_all(&fresh).map_err(|error| at_path("make", &fresh, &error))?;
    unpack(&restore.file, &fresh).map_err(damaged)?;
    let rows = fresh.join(ROWS);
    let url = match &config.farm.store {
        config::StoreUrl::Embedded => StoreUrl::Sqlite(fresh.join("farm.db")),
        config::StoreUrl::Postgres(_) => secrets::store_url(&config),
    };
    fill(&url, manifest.schema, &rows).await?;
    fs::remove_file(&rows).map_err(|error| at_path("remove", &rows, &error))?;
    fs::rename(&fresh, state).map_err(|error| at_path("put in place", state, &error))?;
    println!("restored {} files to `{}`", manifest.files.len(), state.display());
    Ok(Exit::Done)
}

pub async fn move_store(global: &Global, wanted: &MoveStore) -> Result<Exit, Failure> {
    let config = secrets::configured(global, wanted.config.as_deref())?;
    // What a running farm writes meanwhile would stay behind.
    let _lock = coordinator::lock(&config.farm.state_dir)?;
    let rows = config.farm.state_dir.join("moving.rows");
    let _remove = Remove(rows.clone());
    dump(&config, &rows).await?;
    fill(
        &StoreUrl::Postgres(PgUrl::new(wanted.to.clone())),
        Store::SCHEMA,
        &rows,
    )
    .await?;
    println!(
        "every row is there; write the address as `store` into [farm] of the configuration and start the farm"
    );
    Ok(Exit::Done)
}

async fn dump(config: &Config, rows: &Path) -> Result<(), Failure> {
    let store = secrets::open_store(config).await?;
    let file = private(rows).map_err(|error| at_path("write", rows, &error))?;
    let mut file = BufWriter::new(file);
    let dumped = store
        .dump(|line| file.write_all(line))
        .await
        .map_err(anyhow::Error::from);
    store.close().await;
    dumped?;
    file.flush().map_err(|error| at_path("write", rows, &error))
}

async fn fill(url: &StoreUrl, schema: i64, rows: &Path) -> Result<(), Failure> {
    let file = File::open(rows).map_err(|error| at_path("read", rows, &error))?;
    let lines = BufReader::new(file).lines();
    Ok(load(url, schema, lines).await.map_err(anyhow::Error::from)?)
}

/// Writes the archive; how many files are in it.
fn pack(file: File, rows: &Path, state: &Path) -> io::Result<usize> {
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
    let mut files = BTreeMap::new();
    let mut put = |name: &str, path: &Path| -> io::Result<()> {
        let file = File::open(path)?;
        // A log that grows is taken up to where it is.
        let bytes = file.metadata()?.len();
        let mut head = tar::Header::new_gnu();
        head.set_size(bytes);
        head.set_mode(0o600);
        let mut read = Hashing::new(file.take(bytes));
        archive.append_data(&mut head, name, &mut read)?;
        let sha256 = read.digest();
        files.insert(name.to_owned(), Entry { bytes, sha256 });
        Ok(())
    };
    put(ROWS, rows)?;
    let mut open: Vec<PathBuf> = KEPT.iter().map(PathBuf::from).collect();
    while let Some(name) = open.pop() {
        let path = state.join(&name);
        let done = match fs::read_dir(&path) {
            Ok(inside) => {
                let names = inside.map(|entry| Ok(name.join(entry?.file_name())));
                names
                    .collect::<io::Result<Vec<_>>>()
                    .map(|names| open.extend(names))
            }
            Err(why) if why.kind() == io::ErrorKind::NotADirectory => put(&name.to_string_lossy(), &path),
            Err(why) => Err(why),
        };
        match done {
            // Expired since, or never there.
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    let count = files.len();
    let manifest = Manifest {
        burrow: env!("CARGO_PKG_VERSION").to_owned(),
        schema: Store::SCHEMA,
        files,
    };
    let text = serde_json::to_vec_pretty(&manifest)?;
    let mut head = tar::Header::new_gnu();
    head.set_size(text.len() as u64);
    head.set_mode(0o600);
    archive.append_data(&mut head, MANIFEST, text.as_slice())?;
    archive.into_inner()?.finish()?.sync_all()?;
    Ok(count)
}

/// Reads the whole archive and holds it against its manifest.
fn verify(path: &Path) -> io::Result<Manifest> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut found = BTreeMap::new();
    let mut manifest: Option<Manifest> = None;
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(path)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        if name == MANIFEST {
            manifest = Some(serde_json::from_reader(&mut entry)?);
            continue;
        }
        let mut read = Hashing::new(&mut entry);
        let bytes = io::copy(&mut read, &mut io::sink())?;
        let sha256 = read.digest();
        found.insert(name, Entry { bytes, sha256 });
    }
    let manifest = manifest.ok_or_else(|| wrong("its end is missing".to_owned()))?;
    for (name, entry) in &manifest.files {
        if found.get(name) != Some(entry) {
            return Err(wrong(format!("`{name}` is not what was put in")));
        }
    }
    match found.keys().find(|name| !manifest.files.contains_key(*name)) {
        Some(name) => Err(wrong(format!("`{name}` was put in by somebody else"))),
        None if !found.contains_key(ROWS) => Err(wrong("it holds no store".to_owned())),
        None => Ok(manifest),
    }
}

/// Puts the files of a verified archive into a folder, and nothing outside of it.
fn unpack(path: &Path, folder: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(path)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let plain = |part| matches!(part, std::path::Component::Normal(_));
        if !name.components().all(plain) {
            let what = format!("`{}` leads out of the state folder", name.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if name == Path::new(MANIFEST) {
            continue;
        }
        let target = folder.join(name);
        target.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mut file = private(&target)?;
        io::copy(&mut entry, &mut file)?;
        file.sync_all()?;
    }
    Ok(())
}

/// Hands on what it reads, and hashes it.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Hashing<R> {
        Hashing {
            inner,
            hash: Sha256::new(),
        }
    }

    fn digest(self) -> String {
        self.hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// Removes what is left of a deed that did not get through.
struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        // Nothing is there when it did.
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `farm.tgz.part` for `farm.tgz`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    name.into()
}

/// For its owner alone: keys are in it.
fn private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of `files`, whose manifest is that of `told`.
    fn archive(path: &Path, files: &[(&str, &str)], told: &[(&str, &str)]) {
        let entry = |(name, text): &(&str, &str)| {
            let mut read = Hashing::new(text.as_bytes());
            let bytes = io::copy(&mut read, &mut io::sink()).unwrap();
            let sha256 = read.digest();
            ((*name).to_owned(), Entry { bytes, sha256 })
        };
        let manifest = Manifest {
            burrow: "0.1.0".to_owned(),
            schema: 1,
            files: told.iter().map(entry).collect(),
        };
        let manifest = serde_json::to_string(&manifest).unwrap();
        let mut tar = tar::Builder::new(GzEncoder::new(File::create(path).unwrap(), Compression::fast()));
        for (name, text) in files.iter().chain(&[(MANIFEST, manifest.as_str())]) {
            let mut head = tar::Header::new_gnu();
            head.set_size(text.len() as u64);
            // The crate's own way would refuse a name that leads out.
            head.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            head.set_cksum();
            tar.append(&head, text.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
    }

    #[test]
    fn a_backup_is_whole_only_if_each_file_is_what_was_put_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("farm.tgz");
        let (rows, log) = ((ROWS, "[1]\n"), ("logs/0/1/1-0.log", "hello"));
        let cases = [
            (vec![rows, log], vec![rows, log], None),
            (
                vec![rows, ("logs/0/1/1-0.log", "hellp")],
                vec![rows, log],
                Some("is not what was put in"),
            ),
            (vec![rows], vec![rows, log], Some("is not what was put in")),
            (vec![rows, log], vec![rows], Some("was put in by somebody else")),
            (vec![log], vec![log], Some("holds no store")),
        ];
        for (files, told, wanted) in cases {
            archive(&path, &files, &told);
            let found = verify(&path).err().map(|why| why.to_string());
            assert!(
                found
                    .as_deref()
                    .is_none_or(|found| wanted.is_some_and(|wanted| found.contains(wanted)))
                    && found.is_some() == wanted.is_some(),
                "{found:?} {wanted:?}"
            );
        }
    }

    #[test]
    fn nothing_is_unpacked_outside_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join("farm.tgz"), folder.path().join("state"));
        fs::create_dir(&target).unwrap();
        for name in ["../evil", "/tmp/evil-of-burrow", "logs/../../evil"] {
            archive(&path, &[(name, "x")], &[]);
            let why = unpack(&path, &target).unwrap_err().to_string();
            assert!(why.contains("leads out"), "{why}");
        }
        assert!(!folder.path().join("evil").exists());
        archive(&path, &[("logs/0/1/1-0.log", "x")], &[]);
        unpack(&path, &target).unwrap();
        assert_eq!(fs::read_to_string(target.join("logs/0/1/1-0.log")).unwrap(), "x");
    }
}
