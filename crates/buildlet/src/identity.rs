//! The key that is this machine's own: made here, made known to the farm once by a token, kept in a file.
//!
//! The file, for its owner alone:
//! ```text
//! burrow-identity 1
//! key 302e…            (PKCS#8 of an Ed25519 pair, in hex)
//! token 9f86d081884c7d65   (of the token that made it known: the beginning of its SHA-256)
//! name rack-7
//! host-type rack-arm64
//! ```
//! Until the farm has answered, the key stands in `FILE.new` without the last two lines: an answer that got lost
//! is asked for again with the same key.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use revdial::proof;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use crate::dial::{Coordinator, post_form};
use crate::form;
use crate::reverse::{Refused, is_final, pause, random};
use crate::stream::{Buffered, Stream};

const FIRST_LINE: &str = "burrow-identity 1";
/// For one try to enrol.
const ENROL_LIMIT: Duration = Duration::from_secs(30);

pub struct OwnKey {
    pair: Ed25519KeyPair,
    public: String,
}

/// An enrolled machine, as the file has it.
pub struct Enrolled {
    pub key: OwnKey,
    pub host_type: String,
}

/// Why this machine has no identity.
pub enum Trouble {
    /// The farm does not take the token.
    Refused(Refused),
    /// Something here is wrong.
    Here(String),
}

impl OwnKey {
    fn parse(pkcs8: &[u8]) -> Option<OwnKey> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).ok()?;
        let public = proof::hex(pair.public_key().as_ref());
        Some(OwnKey { pair, public })
    }

    pub fn public(&self) -> &str {
        &self.public
    }

    /// 128 hex digits.
    pub fn sign(&self, message: &str) -> String {
        proof::hex(self.pair.sign(message.as_bytes()).as_ref())
    }
}

/// The file where there is none by a flag: `~/.burrow/identity`.
pub fn default_file(env: impl Fn(&str) -> Option<String>) -> PathBuf {
    match env("BURROW_IDENTITY").filter(|path| !path.is_empty()) {
        Some(path) => path.into(),
        None => PathBuf::from(env("HOME").unwrap_or("/root".to_owned())).join(".burrow/identity"),
    }
}

/// A token as a flag gives it: itself, or `@FILE`.
pub fn token(given: &str) -> Result<String, String> {
    let text = match given.strip_prefix('@') {
        None => given.to_owned(),
        Some(path) => fs::read_to_string(path)
            .map_err(|why| format!("-enroll: cannot read the token from `{path}`: {why}"))?,
    };
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("-enroll: it is no token; wanted what `burrow enroll new` printed, or @FILE".to_owned());
    }
    Ok(text.to_owned())
}

/// The identity in `file`. With a `token` that it was not made by, a new one, once the farm knows it; while the farm
/// cannot be reached, it is asked again and again.
pub fn open(
    file: &Path,
    token: Option<&str>,
    coordinator: &Coordinator,
    hostname: &str,
) -> Result<Enrolled, Trouble> {
    let kept = read(file).map_err(Trouble::Here)?;
    let by = token.map(|token| {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        proof::hex(&digest.as_ref()[..8])
    });
    match (kept, token.zip(by)) {
        (Some(kept), None) => kept.enrolled(file).map_err(Trouble::Here),
        (Some(kept), Some((_, by))) if kept.token == by => kept.enrolled(file).map_err(Trouble::Here),
        (None, None) => Err(Trouble::Here(format!(
            "this machine is not enrolled: there is no `{}`; give -enroll a token of `burrow enroll new`, \
             or -reverse-type and a key",
            file.display()
        ))),
        (_, Some((token, by))) => enrol(file, token, by, coordinator, hostname),
    }
}

fn enrol(
    file: &Path,
    token: &str,
    by: String,
    coordinator: &Coordinator,
    hostname: &str,
) -> Result<Enrolled, Trouble> {
    let wrong =
        |path: &Path, why: io::Error| Trouble::Here(format!("cannot write `{}`: {why}", path.display()));
    let fresh = beside(file);
    let mut kept = match read(&fresh) {
        Ok(Some(kept)) if kept.token == by => kept,
        // Of another token, or torn.
        _ => {
            let random = SystemRandom::new();
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random)
                .map_err(|_| Trouble::Here("there is no randomness to be had".to_owned()))?;
            let kept = Kept {
                pkcs8: pkcs8.as_ref().to_vec(),
                token: by,
                name: String::new(),
                host_type: String::new(),
            };
            kept.write(&fresh).map_err(|why| wrong(&fresh, why))?;
            kept
        }
    };
    let key = OwnKey::parse(&kept.pkcs8)
        .ok_or_else(|| Trouble::Here(format!("`{}` holds no key; remove it", fresh.display())))?;
    let signature = key.sign(&proof::enrolment(token, key.public(), hostname));
    let fields = [
        ("token", token),
        ("public_key", key.public()),
        ("hostname", hostname),
        ("proof", &signature),
    ];
    let request = form::encode(&fields);
    let mut failures = 0;
    let (name, host_type) = loop {
        let why = match ask(coordinator, &request) {
            Ok((200, text)) => match known(&text) {
                Some(known) => break known,
                None => {
                    return Err(Trouble::Refused(Refused(
                        "the coordinator's answer is none of a burrow".to_owned(),
                    )));
                }
            },
            Ok((status, text)) if is_final(status) => {
                return Err(Trouble::Refused(Refused(format!(
                    "the coordinator did not enrol this machine ({status}): {text}"
                ))));
            }
            Ok((status, text)) => format!("it answered {status}: {text}"),
            Err(why) => why.to_string(),
        };
        let pause = pause(failures, random());
        failures += 1;
        eprintln!(
            "buildlet: not enrolled at {}: {why}; trying again in {:.1} s",
            coordinator.host,
            pause.as_secs_f32()
        );
        std::thread::sleep(pause);
    };
    (kept.name, kept.host_type) = (name, host_type);
    kept.write(&fresh).map_err(|why| wrong(&fresh, why))?;
    fs::rename(&fresh, file).map_err(|why| wrong(file, why))?;
    eprintln!(
        "buildlet: enrolled at {} as {} ({}), key in `{}`",
        coordinator.host,
        kept.name,
        kept.host_type,
        file.display()
    );
    kept.enrolled(file).map_err(Trouble::Here)
}

fn ask(coordinator: &Coordinator, request: &str) -> io::Result<(u16, String)> {
    let deadline = Instant::now() + ENROL_LIMIT;
    let tls = coordinator.dial(deadline)?;
    let connection = Buffered::new(Stream::Dialled(Box::new(tls)));
    post_form(connection, &coordinator.host, proof::ENROL, request, deadline)
}

/// Name and host type of an answer. They go into headers.
fn known(text: &str) -> Option<(String, String)> {
    let answer: serde_json::Value = serde_json::from_str(text).ok()?;
    let word = |key: &str| {
        let word = answer.get(key)?.as_str()?;
        (!word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic())).then(|| word.to_owned())
    };
    Some((word("name")?, word("host_type")?))
}

/// `identity.new` for `identity`.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

struct Kept {
    pkcs8: Vec<u8>,
    token: String,
    /// Empty: the farm has not answered yet.
    name: String,
    host_type: String,
}

impl Kept {
    fn parse(text: &str) -> Option<Kept> {
        let mut lines = text.lines();
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let mut kept = Kept {
            pkcs8: Vec::new(),
            token: String::new(),
            name: String::new(),
            host_type: String::new(),
        };
        for line in lines {
            let (word, value) = line.split_once(' ')?;
            match word {
                "key" => kept.pkcs8 = bytes(value)?,
                "token" => kept.token = value.to_owned(),
                "name" => kept.name = value.to_owned(),
                "host-type" => kept.host_type = value.to_owned(),
                _ => return None,
            }
        }
        (!kept.pkcs8.is_empty()).then_some(kept)
    }

    fn write(&self, file: &Path) -> io::Result<()> {
        let mut text = format!(
            "{FIRST_LINE}\nkey {}\ntoken {}\n",
            proof::hex(&self.pkcs8),
            self.token
        );
        if !self.name.is_empty() {
            text += &format!("name {}\nhost-type {}\n", self.name, self.host_type);
        }
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.map_or(Ok(()), fs::create_dir_all)?;
        let part = file.with_extension("part");
        // One left by a crash could have another mode.
        let _ = fs::remove_file(&part);
        let mut options = fs::File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut written = options.open(&part)?;
        written.write_all(text.as_bytes())?;
        written.sync_all()?;
        fs::rename(&part, file)?;
        // The name is to be as durable as what it names.
        #[cfg(unix)]
        fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(())
    }

    fn enrolled(self, file: &Path) -> Result<Enrolled, String> {
        let key = OwnKey::parse(&self.pkcs8).filter(|_| !self.name.is_empty() && !self.host_type.is_empty());
        let key = key.ok_or_else(|| damaged(file))?;
        Ok(Enrolled {
            key,
            host_type: self.host_type,
        })
    }
}

fn damaged(file: &Path) -> String {
    format!(
        "`{}` is no identity of a machine; remove it, and enrol this machine with a new token",
        file.display()
    )
}

fn read(file: &Path) -> Result<Option<Kept>, String> {
    match fs::read_to_string(file) {
        Ok(text) => Kept::parse(&text).map(Some).ok_or_else(|| damaged(file)),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(format!("cannot read `{}`: {why}", file.display())),
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    let pair = |pair: &[u8]| Some(proof::unhex::<1>(std::str::from_utf8(pair).ok()?)?[0]);
    pairs.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str) -> Kept {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("randomness");
        Kept {
            pkcs8: pkcs8.as_ref().to_vec(),
            token: "9f86d081884c7d65".to_owned(),
            name: name.to_owned(),
            host_type: "rack".to_owned(),
        }
    }

    #[test]
    fn the_file_is_whole_its_owners_alone_and_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("deep/identity");
        assert!(read(&file).expect("no file is no error").is_none());
        let made = kept("rack-7");
        made.write(&file).expect("written");
        let back = read(&file).expect("read").expect("there");
        assert_eq!((&back.token, &back.pkcs8), (&made.token, &made.pkcs8));
        let back = back.enrolled(&file).expect("enrolled");
        assert_eq!(back.host_type, "rack");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&file).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        // The farm has not answered.
        kept("").write(&file).expect("written");
        assert!(
            read(&file)
                .expect("read")
                .expect("there")
                .enrolled(&file)
                .is_err()
        );
        for bad in [
            "",
            "burrow-identity 2\n",
            "burrow-identity 1\n",
            "burrow-identity 1\nkey 0g\n",
            "x",
        ] {
            fs::write(&file, bad).expect("written");
            assert!(
                read(&file)
                    .err()
                    .expect("no identity")
                    .contains("enrol this machine"),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_token_is_given_or_stands_in_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        fs::write(&file, "be_abc\n").expect("written");
        assert_eq!(token("be_abc").as_deref(), Ok("be_abc"));
        assert_eq!(token(&format!("@{}", file.display())).as_deref(), Ok("be_abc"));
        for bad in ["", " ", "a b", "a\r\nX: y", "@/nowhere"] {
            assert!(token(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_answer_names_the_machine() {
        let rack = Some(("rack-7".to_owned(), "rack".to_owned()));
        assert_eq!(known(r#"{"name":"rack-7","host_type":"rack","more":1}"#), rack);
        for bad in [
            "",
            "{}",
            r#"{"name":"","host_type":"rack"}"#,
            r#"{"name":"a b","host_type":"rack"}"#,
        ] {
            assert_eq!(known(bad), None, "{bad}");
        }
    }
}
