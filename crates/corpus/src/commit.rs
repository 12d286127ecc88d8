//! The text of a git commit.

use std::borrow::Cow;

use memchr::{memchr, memmem, memrchr};

use crate::git::Hash;

/// A commit object, as far as it is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed<'a> {
    pub tree: Option<Hash>,
    pub parents: Vec<Hash>,
    pub author: Option<Signature<'a>>,
    pub committer: Option<Signature<'a>>,
    /// What it says its message is written in; nothing means UTF-8.
    pub encoding: &'a [u8],
    pub message: &'a [u8],
}

/// Who and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signature<'a> {
    /// `Name <email>`
    pub who: &'a [u8],
    /// Seconds since 1970.
    pub time: i64,
    /// Minutes east of Greenwich.
    pub zone: i16,
}

/// Why a text is no commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadCommit {
    #[error("its name is no git hash")]
    BadName,
    #[error("no blank line ends its header")]
    NoMessage,
    #[error("a hash in its header is none")]
    BadHash,
    #[error("its author or committer is not `NAME <EMAIL> SECONDS ZONE`")]
    BadSignature,
}

/// All of a commit that the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitText {
    pub tree: Option<Hash>,
    /// As it stands there.
    pub message: Vec<u8>,
    /// Whether that is Latin-1, as the commit says; else it is UTF-8, or should be.
    pub is_latin1: bool,
    /// Sorted by name. None for root and merge commits.
    pub files: Vec<FileStat>,
}

/// How a commit changed one file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileStat {
    /// As git prints it: quoted if it holds unusual bytes.
    pub name: String,
    pub added: i64,
    pub deleted: i64,
    pub binary: bool,
}

/// Someone as a commit names him: `Name <email>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person<'a>(pub Cow<'a, str>);

impl Person<'_> {
    pub fn name(&self) -> &str {
        self.0.split('<').next().unwrap_or_default().trim()
    }

    /// Empty if there is none.
    pub fn email(&self) -> &str {
        match (self.0.find('<'), self.0.find('>')) {
            (Some(from), Some(to)) if from < to => &self.0[from + 1..to],
            _ => "",
        }
    }
}

impl CommitText {
    /// The message as text. What is no UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        match self.is_latin1 {
            true => self.message.iter().map(|byte| char::from(*byte)).collect(),
            false => String::from_utf8_lossy(&self.message),
        }
    }

    /// First line of the message.
    pub fn summary(&self) -> String {
        self.text().lines().next().unwrap_or_default().trim().to_owned()
    }

    /// Whether both changed the same files by as many lines.
    pub fn same_stat(&self, other: &CommitText) -> bool {
        self.files == other.files
    }
}

/// Takes a commit object apart.
///
/// Differs: the original takes a commit without a blank line for one that has its last byte as header,
/// or crashes.
pub(crate) fn parse(raw: &[u8]) -> Result<Parsed<'_>, BadCommit> {
    let end = memmem::find(raw, b"\n\n").ok_or(BadCommit::NoMessage)?;
    let mut parsed = Parsed {
        tree: None,
        parents: Vec::new(),
        author: None,
        committer: None,
        encoding: b"",
        message: &raw[end + 2..],
    };
    let mut header = &raw[..end];
    while !header.is_empty() {
        let line = header;
        let line = &line[..memchr(b'\n', line).unwrap_or(line.len())];
        header = header.get(line.len() + 1..).unwrap_or_default();
        if let Some(hash) = line.strip_prefix(b"parent ") {
            parsed.parents.push(Hash::parse(hash).ok_or(BadCommit::BadHash)?);
        } else if let Some(who) = line.strip_prefix(b"author ") {
            parsed.author = Some(signature(who)?);
        } else if let Some(who) = line.strip_prefix(b"committer ") {
            parsed.committer = Some(signature(who)?);
        } else if let Some(encoding) = line.strip_prefix(b"encoding ") {
            parsed.encoding = encoding;
        } else if let Some(hash) = line.strip_prefix(b"tree ") {
            parsed.tree = Some(Hash::parse(hash).ok_or(BadCommit::BadHash)?);
        }
    }
    Ok(parsed)
}

/// As people spell it: `ISO-8859-1`, `latin1`.
pub(crate) fn is_latin1(encoding: &[u8]) -> bool {
    let names: [&[u8]; 4] = [b"ISO-8859-1", b"ISO8859-1", b"latin1", b"latin-1"];
    names.iter().any(|name| encoding.eq_ignore_ascii_case(name))
}

fn signature(text: &[u8]) -> Result<Signature<'_>, BadCommit> {
    let text = text.trim_ascii();
    let split = |text| memrchr(b' ', text).ok_or(BadCommit::BadSignature);
    let at = split(text)?;
    let (text, zone) = (&text[..at], &text[at + 1..]);
    let at = split(text)?;
    let (who, seconds) = (&text[..at], &text[at + 1..]);
    let seconds = str::from_utf8(seconds).ok().and_then(|text| text.parse().ok());
    Ok(Signature {
        who,
        time: seconds.ok_or(BadCommit::BadSignature)?,
        zone: minutes_east(zone),
    })
}

/// `+hhmm`; digits that are none count as zero, as in the original.
fn minutes_east(zone: &[u8]) -> i16 {
    let two = |from: usize| {
        let digits = zone.get(from..from + 2).and_then(|two| str::from_utf8(two).ok());
        digits.and_then(|two| two.parse::<i16>().ok()).unwrap_or(0)
    };
    let minutes = two(1) * 60 + two(3);
    if zone.starts_with(b"-") { -minutes } else { minutes }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "3b5637ff2bd5c03479780995e7a35c48222157c1";

    fn parsed(header: &str) -> Result<Parsed<'_>, BadCommit> {
        parse(header.as_bytes())
    }

    #[test]
    fn a_commit_is_taken_apart_and_its_message_kept_as_it_is() {
        let text = format!(
            "tree {HASH}\nparent {HASH}\nparent {HASH}\nauthor A B <a@b> 1488624439 +0930\ncommitter C <c> -5 -0100 \n\
             gpgsig -----\n parent no\nencoding x\nmergetag y\n\n subject\n\nauthor z\n"
        );
        let commit = parsed(&text).unwrap();
        let hash = Hash::parse(HASH.as_bytes());
        assert_eq!((commit.tree, commit.parents), (hash, vec![hash.unwrap(); 2]));
        assert_eq!(
            commit.author,
            Some(Signature {
                who: b"A B <a@b>",
                time: 1_488_624_439,
                zone: 570
            })
        );
        assert_eq!(
            commit.committer,
            Some(Signature {
                who: b"C <c>",
                time: -5,
                zone: -60
            })
        );
        assert_eq!(commit.message, b" subject\n\nauthor z\n");
        assert_eq!(commit.encoding, b"x");
    }

    #[test]
    fn what_is_no_commit_is_refused_with_the_reason() {
        assert_eq!(parsed("tree x\n"), Err(BadCommit::NoMessage));
        assert_eq!(parsed("tree x\n\n"), Err(BadCommit::BadHash));
        assert_eq!(parsed(&format!("parent {HASH}0\n\n")), Err(BadCommit::BadHash));
        assert_eq!(parsed("author A <a> x +0000\n\n"), Err(BadCommit::BadSignature));
        assert_eq!(parsed("committer A\n\n"), Err(BadCommit::BadSignature));
        assert_eq!(parsed("\n\nm").unwrap().message, b"m");
    }

    #[test]
    fn a_person_has_a_name_and_an_email() {
        let check = |text: &str, name: &str, email: &str| {
            let person = Person(text.into());
            assert_eq!((person.name(), person.email()), (name, email));
        };
        check("A B <a@b>", "A B", "a@b");
        check("A", "A", "");
        check("> A <", "> A", "");
    }
}
