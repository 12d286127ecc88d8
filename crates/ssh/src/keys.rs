use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::ssh_key::{LineEnding, PublicKey};
use russh::keys::{Certificate, HashAlg, PrivateKey};

/// Source: golang/build `internal/coordinator/remote/ssh.go`: what its certificates may be used for, behind the name of the machine.
const PRINCIPAL: &str = "@farmer.golang.org";
const KEY_ID: &str = "go_build";
const EXTENSIONS: [&str; 5] = [
    "permit-X11-forwarding",
    "permit-agent-forwarding",
    "permit-port-forwarding",
    "permit-pty",
    "permit-user-rc",
];

/// The farm's own keys, in files that are its own alone. They stay over restarts: callers know the farm by the first.
pub struct Keys {
    /// By which callers know the gateway.
    pub(crate) host: PrivateKey,
    /// By which machines know it.
    pub(crate) machine: Arc<PrivateKey>,
    /// Which signs certificates.
    authority: PrivateKey,
}

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("cannot use the key `{}`", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("`{}` is no key; remove it, and a new one is made", .path.display())]
    NoKey { path: PathBuf },
    #[error("the system gave no random numbers")]
    Random,
}

/// What is no public key, in words for who gave it.
#[derive(Debug, thiserror::Error)]
#[error("`{line}` is no public key of OpenSSH; wanted a line such as `ssh-ed25519 AAAA… NAME`")]
pub struct BadKey {
    line: String,
}

impl Keys {
    /// Those in `folder`; made where they are missing. Blocking.
    pub fn open(folder: &Path) -> Result<Keys, KeysError> {
        let file = |path: &Path, source| KeysError::File {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(folder).map_err(|why| file(folder, why))?;
        let key = |name: &str| {
            let path = folder.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => PrivateKey::from_openssh(&text).map_err(|_| KeysError::NoKey { path }),
                Err(why) if why.kind() == io::ErrorKind::NotFound => {
                    let key = new_key()?;
                    let text = key.to_openssh(LineEnding::LF).map_err(|_| KeysError::Random)?;
                    keep(&path, text.as_bytes()).map_err(|why| file(&path, why))?;
                    Ok(key)
                }
                Err(why) => Err(file(&path, why)),
            }
        };
        Ok(Keys {
            host: key("host")?,
            machine: Arc::new(key("machine")?),
            authority: key("authority")?,
        })
    }

    /// The line that lets the gateway in on a machine.
    pub(crate) fn machine_line(&self) -> String {
        line_of(self.machine.public_key())
    }

    /// The gateway's fingerprint, as ssh shows it at the first call.
    pub fn fingerprint(&self) -> String {
        self.host.public_key().fingerprint(HashAlg::Sha256).to_string()
    }

    /// A certificate, as a line of OpenSSH, by which the holder of `public` may call the machine lent as `name` for `valid`.
    /// `now`: seconds since 1970.
    pub fn certify(
        &self,
        public: &str,
        name: &str,
        owner: &str,
        now: u64,
        valid: Duration,
    ) -> Result<String, BadKey> {
        let bad = |_| BadKey {
            line: public.trim().chars().take(80).collect(),
        };
        let key = PublicKey::from_openssh(public.trim()).map_err(bad)?;
        let mut nonce = vec![0; 32];
        let _ = SystemRandom::new().fill(&mut nonce);
        let sign = || {
            let mut made = Builder::new(
                nonce,
                key.key_data().clone(),
                now.saturating_sub(60),
                now + valid.as_secs(),
            )?;
            made.serial(1)?;
            made.key_id(KEY_ID)?;
            made.cert_type(CertType::User)?;
            made.valid_principal(format!("{name}{PRINCIPAL}"))?;
            made.valid_principal(owner)?;
            for extension in EXTENSIONS {
                made.extension(extension, "")?;
            }
            made.sign(&self.authority)?.to_openssh()
        };
        sign().map_err(bad)
    }

    /// Whether a certificate, whose holder has proved to have its key, is for this machine, by us and not too old.
    pub(crate) fn accepts(&self, certificate: &Certificate, name: &str, owner: &str, now: u64) -> bool {
        let ours = self.authority.public_key().fingerprint(HashAlg::Sha256);
        let principals = certificate.valid_principals();
        certificate.cert_type() == CertType::User
            && certificate.validate_at(now, [&ours]).is_ok()
            && principals.contains(&format!("{name}{PRINCIPAL}"))
            && principals.iter().any(|principal| principal == owner)
            && certificate.critical_options().is_empty()
    }
}

/// The public keys of a text such as `authorized_keys`, as lines without options; comments and empty lines are left out.
pub fn authorized(text: &str) -> Result<Vec<String>, BadKey> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match PublicKey::from_openssh(line) {
            Ok(key) => Ok(line_of(&key)),
            Err(_) => Err(BadKey {
                line: line.chars().take(80).collect(),
            }),
        })
        .collect()
}

/// Whether `key` is one of these lines.
pub(crate) fn is_one_of(key: &PublicKey, lines: &[String]) -> bool {
    let same =
        |line: &String| PublicKey::from_openssh(line).is_ok_and(|known| known.key_data() == key.key_data());
    lines.iter().any(same)
}

/// Without its comment.
fn line_of(key: &PublicKey) -> String {
    let bare = PublicKey::from(key.key_data().clone());
    bare.to_openssh().unwrap_or_default()
}

fn new_key() -> Result<PrivateKey, KeysError> {
    let mut seed = [0; 32];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| KeysError::Random)?;
    let pair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
    PrivateKey::new(pair, "burrow").map_err(|_| KeysError::Random)
}

fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn keys() -> (tempfile::TempDir, Keys) {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = Keys::open(folder.path()).expect("keys");
        (folder, keys)
    }

    #[test]
    fn keys_stay_and_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let (folder, first) = keys();
        let again = Keys::open(folder.path()).expect("keys");
        assert_eq!(first.fingerprint(), again.fingerprint());
        for name in ["host", "machine", "authority"] {
            let mode = fs::metadata(folder.path().join(name))
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        fs::write(folder.path().join("host"), "x").expect("written");
        assert!(matches!(Keys::open(folder.path()), Err(KeysError::NoKey { .. })));
    }

    #[test]
    fn a_certificate_is_for_one_machine_its_owner_and_a_while() {
        let (_folder, keys) = keys();
        let (_other_folder, other) = self::keys();
        let public = line_of(new_key().expect("a key").public_key());
        let valid = Duration::from_secs(300);
        let made = keys
            .certify(&public, "user-amy-linux-0", "user-amy", NOW, valid)
            .expect("signed");
        let certificate = Certificate::from_openssh(&made).expect("a certificate");
        let accepts =
            |keys: &Keys, name: &str, owner: &str, now| keys.accepts(&certificate, name, owner, now);
        assert!(accepts(&keys, "user-amy-linux-0", "user-amy", NOW));
        assert!(accepts(&keys, "user-amy-linux-0", "user-amy", NOW + 299));
        assert!(!accepts(&keys, "user-amy-linux-0", "user-amy", NOW + 301));
        assert!(!accepts(&keys, "user-amy-linux-0", "user-amy", NOW - 3600));
        assert!(!accepts(&keys, "user-amy-linux-1", "user-amy", NOW));
        assert!(!accepts(&keys, "user-amy-linux-0", "user-bob", NOW));
        assert!(
            !accepts(&other, "user-amy-linux-0", "user-amy", NOW),
            "another farm's"
        );
        assert!(keys.certify("ssh-rsa x", "n", "o", NOW, valid).is_err());
    }

    #[test]
    fn lists_of_keys_are_read_whole_or_refused() {
        let (one, two) = (new_key().expect("a key"), new_key().expect("a key"));
        let (one, two) = (one.public_key(), two.public_key());
        let text = format!("# mine\n\n{} amy@home\r\n{}\n", line_of(one), line_of(two));
        let lines = authorized(&text).expect("keys");
        assert_eq!(lines.len(), 2);
        assert!(is_one_of(one, &lines) && is_one_of(two, &lines) && !is_one_of(one, &lines[1..]));
        let why = authorized("ssh-ed25519 x\n").expect_err("no key").to_string();
        assert!(why.starts_with("`ssh-ed25519 x` is no public key"), "{why}");
        // With options it would be let in without them.
        assert!(authorized(&format!("command=\"x\" {}", line_of(one))).is_err());
    }
}
