//! Keys to sign with, signed folders, and folders that are served: the work of the farm's owner.
//!
//! Errors are whole sentences for whoever typed the command.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::SystemTime;

use ring::signature::Ed25519KeyPair;

use crate::manifest::{self, Binary, MAX_MANIFEST, Summary, Target, Version};

/// The name of the manifest beside the binaries.
pub const MANIFEST: &str = "manifest";

/// Makes a key, in a new file for its owner alone; its public half in hex.
pub fn new_key(path: &Path) -> Result<String, String> {
    let random = ring::rand::SystemRandom::new();
    let bytes = Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| "there is no randomness to be had")?;
    let key = Ed25519KeyPair::from_pkcs8(bytes.as_ref()).expect("just made");
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = || {
        let mut file = options.open(path)?;
        file.write_all(bytes.as_ref())?;
        file.sync_all()
    };
    write().map_err(|why| failed("write", path, &why))?;
    Ok(manifest::public_hex(&key))
}

/// Writes the manifest of the files `buildlet.SYSTEM-PROCESSOR` of a folder; for how many kinds of machine. Without a
/// `serial` it is the time, in seconds.
pub fn sign(
    key: &Path,
    version: Version,
    minimum: Version,
    serial: Option<u64>,
    dir: &Path,
) -> Result<usize, String> {
    let bytes = fs::read(key).map_err(|why| failed("read", key, &why))?;
    let pair = Ed25519KeyPair::from_pkcs8(&bytes)
        .map_err(|_| format!("`{}` is no key to sign with; `new-key` makes one", key.display()))?;
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let binaries = binaries(dir)?;
    let serial = serial.unwrap_or(since.as_secs());
    let signed = manifest::sign(&pair, serial, version, minimum, &binaries);
    let path = dir.join(MANIFEST);
    put(&path, &mut signed.as_slice()).map_err(|why| failed("write", &path, &why))?;
    Ok(binaries.len())
}

/// Copies a signed folder to where it is served from: first the binaries, each held against the manifest, then the manifest.
/// Whoever asks meanwhile gets a manifest and binaries that belong together, or binaries that do not fit and asks again.
pub fn publish(from: &Path, to: &Path) -> Result<Summary, String> {
    let summary = summary(from)?.ok_or_else(|| {
        format!(
            "there is no `{}`; sign the folder first",
            from.join(MANIFEST).display()
        )
    })?;
    if let Some(there) = summary_of_served(to)?
        && there.serial > summary.serial
    {
        return Err(format!(
            "what is published has the serial {}, which is later than {}; machines would not take it. Sign it again",
            there.serial, summary.serial
        ));
    }
    fs::create_dir_all(to).map_err(|why| failed("make", to, &why))?;
    // All are looked at before anything is changed.
    for (_, binary) in &summary.binaries {
        let path = from.join(&binary.name);
        let found = measure(&path, &binary.name)?;
        if found != *binary {
            return Err(format!(
                "`{}` is not what was signed; sign the folder again",
                path.display()
            ));
        }
    }
    let names = summary.binaries.iter().map(|(_, binary)| binary.name.as_str());
    for name in names.chain([MANIFEST]) {
        let (source, target) = (from.join(name), to.join(name));
        let mut file = File::open(&source).map_err(|why| failed("read", &source, &why))?;
        put(&target, &mut file).map_err(|why| failed("write", &target, &why))?;
    }
    Ok(summary)
}

/// What a served folder has; `None`: nothing was published.
pub fn summary_of_served(dir: &Path) -> Result<Option<Summary>, String> {
    summary(dir)
}

fn summary(dir: &Path) -> Result<Option<Summary>, String> {
    let path = dir.join(MANIFEST);
    let bytes = match fs::read(&path) {
        Ok(bytes) if bytes.len() as u64 > MAX_MANIFEST => {
            return Err(format!(
                "`{}` is longer than {MAX_MANIFEST} bytes",
                path.display()
            ));
        }
        Ok(bytes) => bytes,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(failed("read", &path, &why)),
    };
    let summary = manifest::summary(&bytes);
    summary
        .map(Some)
        .map_err(|why| format!("`{}`: {why}", path.display()))
}

/// The files `buildlet.TARGET` of a folder, by name.
fn binaries(dir: &Path) -> Result<Vec<(Target, Binary)>, String> {
    let mut found = Vec::new();
    let entries = fs::read_dir(dir).map_err(|why| failed("read", dir, &why))?;
    for entry in entries {
        let path = entry.map_err(|why| failed("read", dir, &why))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let target = name.strip_prefix("buildlet.").and_then(Target::parse);
        let Some(target) = target else { continue };
        found.push((target, measure(&path, name)?));
    }
    if found.is_empty() {
        let wanted = "there is no buildlet.SYSTEM-PROCESSOR, such as buildlet.linux-amd64, in";
        return Err(format!("{wanted} `{}`", dir.display()));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn measure(path: &Path, name: &str) -> Result<Binary, String> {
    let bytes = fs::read(path).map_err(|why| failed("read", path, &why))?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    Ok(Binary {
        size: bytes.len() as u64,
        sha256: digest.as_ref().try_into().expect("SHA-256 has 32 bytes"),
        name: name.to_owned(),
    })
}

/// Whole or not at all.
fn put(path: &Path, content: &mut dyn io::Read) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = Path::new(&name);
    let mut file = File::create(fresh)?;
    io::copy(content, &mut file)?;
    file.sync_all()?;
    fs::rename(fresh, path)
}

fn failed(what: &str, path: &Path, why: &io::Error) -> String {
    format!("cannot {what} `{}`: {why}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_is_published_and_never_an_older_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let (from, to, key) = (
            dir.path().join("from"),
            dir.path().join("to"),
            dir.path().join("key"),
        );
        fs::create_dir(&from).expect("a folder");
        let binary = from.join("buildlet.linux-amd64");
        fs::write(&binary, "one").expect("written");
        assert!(
            publish(&from, &to)
                .expect_err("not signed")
                .contains("sign the folder first")
        );
        new_key(&key).expect("a key");
        assert!(new_key(&key).is_err(), "a key is never replaced");
        let version = Version::parse("1.0.0").expect("a version");
        let sign = |serial| sign(&key, version, version, Some(serial), &from).expect("signed");
        assert_eq!(sign(7), 1);
        assert_eq!(publish(&from, &to).expect("published").serial, 7);
        assert_eq!(publish(&from, &to).expect("again").serial, 7);
        fs::write(&binary, "two").expect("written");
        assert!(
            publish(&from, &to)
                .expect_err("changed")
                .contains("is not what was signed")
        );
        assert_eq!(fs::read(to.join("buildlet.linux-amd64")).expect("there"), b"one");
        sign(6);
        assert!(
            publish(&from, &to)
                .expect_err("older")
                .contains("serial 7, which is later than 6")
        );
        sign(8);
        let published = publish(&from, &to).expect("published");
        assert_eq!((published.serial, published.binaries.len()), (8, 1));
        assert_eq!(fs::read(to.join("buildlet.linux-amd64")).expect("there"), b"two");
        let names: Vec<_> = fs::read_dir(&to)
            .expect("there")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(names.len(), 2, "nothing is left over: {names:?}");
    }
}
