//! Which buildlet is to run, signed by who runs the farm.
//!
//! Lines of words, so that it can be read and made anywhere:
//! ```text
//! burrow-buildlets 1
//! serial 1764000000
//! version 0.2.0
//! minimum 0.1.0
//! binary linux-amd64 2801234 9f86d0…(64 hex digits of SHA-256) buildlet.linux-amd64
//! signature 5d41…(128 hex digits of Ed25519 over all bytes before this line)
//! ```
//! A binary's name is that of a file beside the manifest.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// A manifest longer than this is refused unread.
pub const MAX_MANIFEST: u64 = 64 * 1024;

/// A binary larger than this is refused; ours have a few MB.
const MAX_BINARY: u64 = 256 * 1024 * 1024;

const FIRST_LINE: &str = "burrow-buildlets 1";

/// What the farm wants to run, as far as one kind of machine is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub release: Release,
    /// Older ones are not to be run any more, whatever else there is.
    pub minimum: Version,
}

/// One signed buildlet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Grows with each manifest; one with a smaller serial is never taken after it.
    pub serial: u64,
    pub version: Version,
    pub binary: Binary,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    pub size: u64,
    pub sha256: [u8; 32],
    /// A plain file name, in the folder of the manifest.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3]);

/// Whose signatures are believed: an Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// The system and processor, in Go's words: `linux-amd64`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("it is no manifest of buildlets: {0}")]
    Malformed(String),
    #[error("none of the keys given has signed it")]
    Signature,
    #[error("it has no buildlet for `{0}`")]
    NoBinary(String),
}

impl Version {
    pub fn parse(text: &str) -> Option<Version> {
        let numbers: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
        Some(Version(numbers.try_into().ok()?))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Version([major, minor, patch]) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl PublicKey {
    pub fn parse(text: &str) -> Option<PublicKey> {
        Some(PublicKey(unhex(text)?))
    }
}

impl Target {
    /// Of this very program.
    pub fn ours() -> Target {
        let os = match std::env::consts::OS {
            "macos" => "darwin",
            os => os,
        };
        let little = cfg!(target_endian = "little");
        let cpu = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "loongarch64" => "loong64",
            "powerpc64" if little => "ppc64le",
            "powerpc64" => "ppc64",
            cpu => cpu,
        };
        Target(format!("{os}-{cpu}"))
    }

    pub fn parse(text: &str) -> Option<Target> {
        let (os, cpu) = text.split_once('-')?;
        let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric());
        (word(os) && cpu.split('-').all(word)).then(|| Target(text.to_owned()))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks the signature, then reads; nothing of what nobody signed is looked at.
pub fn open(bytes: &[u8], keys: &[PublicKey], target: &Target) -> Result<Offer, ManifestError> {
    let (signed, signature) = split(bytes)?;
    let believed = keys.iter().any(|PublicKey(key)| {
        let key = UnparsedPublicKey::new(&ED25519, key);
        key.verify(signed.as_bytes(), &signature).is_ok()
    });
    if !believed {
        return Err(ManifestError::Signature);
    }
    read(signed, target)
}

/// What is signed, and the signature.
fn split(bytes: &[u8]) -> Result<(&str, [u8; 64]), ManifestError> {
    let malformed = |why: String| ManifestError::Malformed(why);
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is no text".to_owned()))?;
    if !text.starts_with(FIRST_LINE) {
        let found: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
        let found = found.escape_default();
        return Err(malformed(format!("it begins `{found}`; wanted `{FIRST_LINE}`")));
    }
    let (signed, signature) = text
        .rsplit_once("\nsignature ")
        .and_then(|(before, line)| Some((&text[..=before.len()], line.strip_suffix('\n')?)))
        .ok_or_else(|| malformed("it does not end with a signature; it may be cut short".to_owned()))?;
    let signature: [u8; 64] =
        unhex(signature).ok_or_else(|| malformed("its signature is no 128 hex digits".to_owned()))?;
    Ok((signed, signature))
}

/// All that a manifest says, for who publishes it. Its signature is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub serial: u64,
    pub version: Version,
    pub minimum: Version,
    pub binaries: Vec<(Target, Binary)>,
}

/// Reads a manifest without believing it.
pub fn summary(bytes: &[u8]) -> Result<Summary, ManifestError> {
    let (signed, _) = split(bytes)?;
    read_all(signed)
}

fn read(text: &str, target: &Target) -> Result<Offer, ManifestError> {
    let all = read_all(text)?;
    let binary = all.binaries.into_iter().rfind(|(kind, _)| kind == target);
    let (_, binary) = binary.ok_or_else(|| ManifestError::NoBinary(target.to_string()))?;
    let release = Release {
        serial: all.serial,
        version: all.version,
        binary,
    };
    Ok(Offer {
        release,
        minimum: all.minimum,
    })
}

fn read_all(text: &str) -> Result<Summary, ManifestError> {
    let (mut serial, mut version, mut minimum, mut binaries) = (None, None, None, Vec::new());
    for line in text.lines().skip(1) {
        let wrong = || ManifestError::Malformed(format!("`{line}` is no line of a manifest"));
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["serial", value] => serial = Some(number(value).ok_or_else(wrong)?),
            ["version", value] => version = Some(Version::parse(value).ok_or_else(wrong)?),
            ["minimum", value] => minimum = Some(Version::parse(value).ok_or_else(wrong)?),
            ["binary", kind, size, sha256, name] => {
                let parsed = Binary {
                    size: number(size)
                        .filter(|size| *size <= MAX_BINARY)
                        .ok_or_else(wrong)?,
                    sha256: unhex(sha256).ok_or_else(wrong)?,
                    name: Some(name)
                        .filter(|name| plain(name))
                        .ok_or_else(wrong)?
                        .to_owned(),
                };
                // Of kinds that this program has no word for, too.
                binaries.push((Target(kind.to_owned()), parsed));
            }
            // A later form of manifest has another first line.
            _ => return Err(wrong()),
        }
    }
    let missing = |what: &str| ManifestError::Malformed(format!("it has no `{what}`"));
    let summary = Summary {
        serial: serial.ok_or_else(|| missing("serial"))?,
        version: version.ok_or_else(|| missing("version"))?,
        minimum: minimum.ok_or_else(|| missing("minimum"))?,
        binaries,
    };
    let Summary { version, minimum, .. } = summary;
    if version < minimum {
        let why = format!("version {version} is below its own minimum {minimum}");
        return Err(ManifestError::Malformed(why));
    }
    Ok(summary)
}

/// Signs buildlets, one for each kind of machine: the manifest's bytes.
pub fn sign(
    key: &Ed25519KeyPair,
    serial: u64,
    version: Version,
    minimum: Version,
    binaries: &[(Target, Binary)],
) -> Vec<u8> {
    let mut text = format!("{FIRST_LINE}\nserial {serial}\nversion {version}\nminimum {minimum}\n");
    for (target, Binary { size, sha256, name }) in binaries {
        text += &format!("binary {target} {size} {} {name}\n", hex(sha256));
    }
    let signature = hex(key.sign(text.as_bytes()).as_ref());
    text += &format!("signature {signature}\n");
    text.into_bytes()
}

/// The public half, as settings have it.
pub fn public_hex(key: &Ed25519KeyPair) -> String {
    hex(key.public_key().as_ref())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|digit| digit as u8);
    let digits: Vec<u8> = text.bytes().map(digit).collect::<Option<_>>()?;
    if digits.len() != 2 * N {
        return None;
    }
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.try_into().ok()
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn plain(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(fine)
}

#[cfg(test)]
mod tests;
