//! The state folder: the manifests taken last and known to be good, and their binaries.
//!
//! ```text
//! newest.manifest   the newest one seen, kept before its binary is fetched: older ones stay refused
//! latest.manifest   of the binary that was fetched last
//! good.manifest     of the binary that was proven last
//! SHA256            a binary, under its own digest; there only if whole
//! part              what is being fetched, of no worth when it is found at a start
//! lock              held by the stage0 at work
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use crate::manifest::{self, Binary, Offer, PublicKey, Target};
use crate::stage::{Floor, Kept};

const NEWEST: &str = "newest.manifest";
const LATEST: &str = "latest.manifest";
const GOOD: &str = "good.manifest";
const PART: &str = "part";
const LOCK: &str = "lock";

pub struct Folder {
    path: PathBuf,
    _lock: File,
}

/// Where a binary goes as it comes.
pub struct Part<'a> {
    folder: &'a Folder,
    file: File,
    digest: Context,
    size: u64,
}

impl Folder {
    /// Makes it if need be. Fails while another stage0 has it.
    pub fn open(path: &Path) -> io::Result<Folder> {
        fs::create_dir_all(path)?;
        let lock = File::create(path.join(LOCK))?;
        lock.try_lock().map_err(|why| match why {
            fs::TryLockError::WouldBlock => io::Error::other("another stage0 is at work in it"),
            fs::TryLockError::Error(why) => why,
        })?;
        let path = path.to_owned();
        Ok(Folder { path, _lock: lock })
    }

    /// What is here and was signed by one of `keys`; all else is as if it were not there.
    pub fn kept(&self, keys: &[PublicKey], target: &Target) -> Kept {
        let offer = |name: &str| -> Option<Offer> {
            let bytes = fs::read(self.path.join(name)).ok()?;
            manifest::open(&bytes, keys, target).ok()
        };
        let (newest, latest, good) = (offer(NEWEST), offer(LATEST), offer(GOOD));
        let all = newest.iter().chain(&latest).chain(&good);
        let floor = all.max_by_key(|offer| offer.release.serial).map(|offer| Floor {
            serial: offer.release.serial,
            minimum: offer.minimum,
        });
        let here = |offer: Option<Offer>| Some(offer?.release).filter(|release| self.has(&release.binary));
        Kept {
            floor,
            latest: here(latest),
            good: here(good),
        }
    }

    pub fn keep_newest(&self, manifest: &[u8]) -> io::Result<()> {
        self.write(NEWEST, manifest)
    }

    /// Of a binary that is here.
    pub fn keep_latest(&self, manifest: &[u8]) -> io::Result<()> {
        self.write(LATEST, manifest)
    }

    /// Makes the latest, which `binary` is of, the good one.
    pub fn keep_as_good(&self, binary: &Binary) -> io::Result<()> {
        self.write(GOOD, &fs::read(self.path.join(LATEST))?)?;
        self.tidy(binary)
    }

    pub fn program(&self, binary: &Binary) -> PathBuf {
        self.path.join(manifest::hex(&binary.sha256))
    }

    /// Whether the binary is here and is what was signed.
    pub fn has(&self, binary: &Binary) -> bool {
        let digest = || {
            let mut file = File::open(self.program(binary))?;
            let mut digest = Context::new(&SHA256);
            let mut piece = [0; 64 * 1024];
            loop {
                match file.read(&mut piece)? {
                    0 => return io::Result::Ok(digest.finish()),
                    n => digest.update(&piece[..n]),
                }
            }
        };
        digest().is_ok_and(|found| found.as_ref() == binary.sha256)
    }

    pub fn part(&self) -> io::Result<Part<'_>> {
        let file = File::create(self.path.join(PART))?;
        Ok(Part {
            folder: self,
            file,
            digest: Context::new(&SHA256),
            size: 0,
        })
    }

    /// To a name of its own, then renamed.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let fresh = self.path.join(PART);
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, self.path.join(name))?;
        self.sync()
    }

    /// Removes all binaries but this one, the good one.
    fn tidy(&self, good: &Binary) -> io::Result<()> {
        let keep = self.program(good);
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            if name.len() == 64 && path != keep {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// A renamed file is sure to be found after a power cut only once its folder is on disk.
    fn sync(&self) -> io::Result<()> {
        if cfg!(unix) {
            File::open(&self.path)?.sync_all()?;
        }
        Ok(())
    }
}

impl Write for Part<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.digest.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Part<'_> {
    /// Gives it its name if it is what was signed; otherwise says what it is.
    pub fn finish(self, wanted: &Binary) -> Result<(), String> {
        let Part {
            folder,
            file,
            digest,
            size,
        } = self;
        let found = digest.finish();
        if size != wanted.size {
            return Err(format!(
                "`{}` has {size} bytes; wanted {}",
                wanted.name, wanted.size
            ));
        }
        if found.as_ref() != wanted.sha256 {
            let (found, name) = (manifest::hex(found.as_ref()), &wanted.name);
            return Err(format!(
                "`{name}` has the SHA-256 {found}, which is not the one signed"
            ));
        }
        let keep = || {
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                file.set_permissions(fs::Permissions::from_mode(0o755))?;
            }
            file.sync_all()?;
            drop(file);
            fs::rename(folder.path.join(PART), folder.program(wanted))?;
            folder.sync()
        };
        keep().map_err(|why| format!("cannot keep `{}`: {why}", wanted.name))
    }
}
