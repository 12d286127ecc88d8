//! How the original reads a change, errors included: for comparing a corpus with its.
//!
//! It looks for footers in the whole of a message, never unsets `Private`, reads the votes of newer
//! servers as 0, and takes the patch set that it heard of last for the newest.
//!
//! Source: golang/build `maintner/gerrit.go`, `maintner/github.go` (2023).

use std::collections::BTreeMap;

use memchr::{memchr, memmem};
use zerocopy::little_endian::I32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::commit::CommitText;
use crate::names::{Name, Names};
use crate::notedb::Meta;

/// An issue that a commit's message names: `owner/repo#number`, or `#number` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct IssueRef {
    /// In lower case, as its name; both empty if the text does not say.
    pub owner: Name,
    pub repo: Name,
    pub number: I32,
}

/// The issues that a text names, in order, each once.
pub(crate) fn issue_refs(names: &mut Names, text: &[u8]) -> Box<[IssueRef]> {
    let mut refs: Vec<IssueRef> = Vec::new();
    // What is before this belongs to the reference before.
    let mut from = 0;
    let mut at = 0;
    while let Some(hash) = memchr(b'#', &text[at..]).map(|found| at + found) {
        at = hash + 1;
        let digits = text[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let end = at + digits;
        if digits == 0 || text.get(end).is_some_and(|b| is_word(*b)) {
            continue;
        }
        let repo = repo_before(&text[..hash], from);
        (from, at) = (end, end);
        let number = str::from_utf8(&text[hash + 1..end])
            .ok()
            .and_then(|digits| digits.parse().ok());
        let Some(number) = number else { continue };
        let mut lower = |name: &[u8]| names.intern(&name.to_ascii_lowercase());
        let (owner, repo) = repo.map_or_else(Default::default, |(owner, repo)| (lower(owner), lower(repo)));
        let number = I32::new(number);
        let found = IssueRef { owner, repo, number };
        if !refs.contains(&found) {
            refs.push(found);
        }
    }
    refs.into()
}

/// `owner/repo` at the very end of `text`, no part of it before `from`.
fn repo_before(text: &[u8], from: usize) -> Option<(&[u8], &[u8])> {
    let run = |end: usize| {
        let len = text[from..end]
            .iter()
            .rev()
            .take_while(|b| is_word(**b) || **b == b'-')
            .count();
        end - len
    };
    let repo = run(text.len());
    let slash = repo
        .checked_sub(1)
        .filter(|at| *at >= from && text[*at] == b'/' && repo < text.len())?;
    // The name begins at the first border of a word.
    let word = |at: Option<usize>| at.is_some_and(|at| is_word(text[at]));
    let owner = (run(slash)..slash).find(|at| word(Some(*at)) != word(at.checked_sub(1)))?;
    Some((&text[owner..slash], &text[repo..]))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The value of the first line of `text` that begins with `prefix`, and all lines after it.
pub fn line_value<'a>(text: &'a [u8], prefix: &str) -> Option<(&'a [u8], &'a [u8])> {
    let mut rest = text;
    loop {
        let at = memmem::find(rest, prefix.as_bytes())?;
        let after = &rest[at + prefix.len()..];
        if at > 0 && !matches!(rest[at - 1], b'\n' | b'\r') {
            rest = after;
            continue;
        }
        let end = memchr(b'\n', after).map_or(after.len(), |line| line + 1);
        return Some((trim(&after[..end]), &after[end..]));
    }
}

/// As Go trims: ASCII's vertical tab too.
fn trim(text: &[u8]) -> &[u8] {
    let space = |b: &u8| b.is_ascii_whitespace() || *b == 0x0b;
    let from = text.iter().position(|b| !space(b)).unwrap_or(text.len());
    let to = text.iter().rposition(|b| !space(b)).map_or(from, |last| last + 1);
    &text[from..to]
}

fn value<'a>(text: &'a [u8], prefix: &str) -> &'a [u8] {
    line_value(text, prefix).map_or(b"", |(value, _)| value)
}

/// The state of a change as the original has it, from the messages of its metas, oldest first.
#[derive(Debug, PartialEq, Eq)]
pub struct State {
    pub status: &'static str,
    pub private: bool,
    pub work_in_progress: bool,
    pub branch: String,
}

pub fn state(metas: &[Vec<u8>]) -> State {
    let newest_first = || metas.iter().rev();
    let status = newest_first().find_map(|text| {
        let value = &text[memmem::find(text, b"\nStatus: ")? + 9..];
        ["merged", "abandoned", "draft", "new"]
            .into_iter()
            .find(|status| value.starts_with(status.as_bytes()))
    });
    let mut work_in_progress = false;
    for text in metas {
        match value(text, "Work-in-progress:") {
            b"true" => work_in_progress = true,
            b"false" => work_in_progress = false,
            _ => {}
        }
    }
    let branch = newest_first()
        .map(|text| value(text, "Branch:"))
        .find(|branch| !branch.is_empty());
    let branch = branch.unwrap_or_default();
    State {
        status: status.unwrap_or("new"),
        private: metas
            .iter()
            .any(|text| memmem::find(text, b"\nPrivate: true\n").is_some()),
        work_in_progress,
        branch: String::from_utf8_lossy(branch.strip_prefix(b"refs/heads/").unwrap_or(branch)).into_owned(),
    }
}

/// What was said in a meta: the patch set, and the text.
pub fn message(text: &[u8]) -> Option<(i32, &[u8])> {
    let phrases = [b"\nPatch Set ".as_slice(), b"\nUploaded patch set "];
    let found = phrases
        .into_iter()
        .filter_map(|phrase| Some((memmem::find(text, phrase)?, phrase.len())));
    let (start, len) = found.min()?;
    let rest = &text[start + len..];
    let number = &rest[..memchr(b':', rest)?];
    // A sign is fine with Go as with Rust.
    let number = str::from_utf8(number).ok()?.parse().ok()?;
    let body = &text[start + 1..];
    let mut end = 0;
    loop {
        let line = end + memchr(b'\n', &body[end..])?;
        if body[end..line].starts_with(b"Patch-set:") {
            return Some((number, &body[..end.checked_sub(2)?]));
        }
        end = line + 1;
    }
}

/// The footers of a meta.
pub fn footers(text: &[u8]) -> &[u8] {
    memmem::rfind(text, b"\n\n").map_or(b"", |at| &text[at + 2..])
}

/// The hashtags as of the last of these metas.
pub fn hashtags(metas: &[Vec<u8>]) -> String {
    let newest = metas
        .iter()
        .rev()
        .find_map(|text| line_value(footers(text), "Hashtags: "));
    String::from_utf8_lossy(newest.map_or(b"", |(value, _)| value)).into_owned()
}

/// The votes as of the last of these metas: of each label, of each voter. `commit` finds the commit of
/// a patch set; `Err` is its name if there is none, where the original gives up.
pub fn votes(
    metas: &[Meta],
    mut commit: impl FnMut(&str) -> Option<CommitText>,
) -> Result<BTreeMap<String, BTreeMap<String, i8>>, String> {
    let mut votes: BTreeMap<String, BTreeMap<String, i8>> = BTreeMap::new();
    let mut last: Option<CommitText> = None;
    for meta in metas {
        let text = meta.text.as_bytes();
        let mut rest = footers(text);
        let hash = value(rest, "Commit: ");
        if memmem::find(rest, b"\nTag: autogenerated:gerrit:newPatchSet\n").is_some() && !hash.is_empty() {
            let hash = String::from_utf8_lossy(hash).into_owned();
            let next = commit(&hash).ok_or(hash)?;
            if last.is_some_and(|last| !last.same_stat(&next)) {
                votes.remove("Run-TryBot");
                votes.remove("TryBot-Result");
            }
            last = Some(next);
        }
        while let Some((line, after)) = line_value(rest, "Label: ") {
            rest = after;
            let line = String::from_utf8_lossy(line);
            let (label, value, whose) = label_value(&line);
            let whose = whose.unwrap_or(&meta.author).to_owned();
            if let Some(label) = label.strip_prefix('-') {
                if let Some(voters) = votes.get_mut(label) {
                    voters.remove(&whose);
                }
            } else if !label.is_empty() {
                votes.entry(label.to_owned()).or_default().insert(whose, value);
            }
        }
    }
    Ok(votes)
}

fn label_value(line: &str) -> (&str, i8, Option<&str>) {
    let (vote, whose) = line.split_once(' ').unwrap_or((line, ""));
    let whose = whose.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    let whose = whose.map(|(email, _)| email).filter(|email| !email.is_empty());
    let (label, value) = vote.split_once('=').unwrap_or((vote, ""));
    (label, value.parse().unwrap_or(0), whose)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issues_are_found_as_the_originals_pattern_finds_them() {
        let check = |text: &str, expect: &str| {
            let mut names = Names::default();
            let refs = issue_refs(&mut names, text.as_bytes());
            let shown: Vec<String> = refs
                .iter()
                .map(|found| match (found.owner, found.repo) {
                    (owner, repo) if repo != Name::EMPTY => {
                        format!("{}/{}#{}", names.text(owner), names.text(repo), found.number)
                    }
                    _ => format!("#{}", found.number),
                })
                .collect();
            assert_eq!(shown.join(" "), expect, "{text}");
        };
        check("Fixes #12, #12 and golang/go#13.", "#12 golang/go#13");
        check("no\nUpdates GoLang/Build#7", "golang/build#7");
        check("#12a #x # 1 #99999999999 a#5", "#5");
        check("x.y/z#1 -a/b#2 --/c#3 /d#4 e/#5", "y/z#1 a/b#2 #3 #4 #5");
        check("a/b#1/c#2", "a/b#1 #2");
        check("#1-a/b#2", "#1 -a/b#2");
        check("a/b/c#1", "b/c#1");
    }

    #[test]
    fn a_line_is_found_where_one_begins() {
        let text = b"xKey: a\nKey:  b \nKey: c\n";
        assert_eq!(
            line_value(text, "Key:"),
            Some((b"b".as_slice(), b"Key: c\n".as_slice()))
        );
        assert_eq!(
            line_value(b"Key:", "Key:"),
            Some((b"".as_slice(), b"".as_slice()))
        );
        assert_eq!(line_value(b"a\rKey: b", "Key:").unwrap().0, b"b");
        assert_eq!(line_value(b"x", "Key:"), None);
    }

    #[test]
    fn only_messages_with_a_colon_after_the_patch_set_are_read() {
        let check = |said: &str, expect: Option<(i32, &str)>| {
            let text = format!("Update patch set 2\n\n{said}\n\nPatch-set: 2\n");
            let found = message(text.as_bytes())
                .map(|(number, text)| (number, String::from_utf8_lossy(text).into_owned()));
            assert_eq!(
                found,
                expect.map(|(number, text)| (number, text.to_owned())),
                "{said}"
            );
        };
        check(
            "Patch Set 2: Run-TryBot+1\n\nok",
            Some((2, "Patch Set 2: Run-TryBot+1\n\nok")),
        );
        check("Uploaded patch set 1.", None);
        check(
            "Uploaded patch set 1: Run-TryBot+1.",
            Some((1, "Uploaded patch set 1: Run-TryBot+1.")),
        );
        check("Patch Set 2\n: x", None);
    }

    #[test]
    fn flags_are_fooled_by_text_and_private_stays() {
        let metas = [
            "a\n\nPatch-set: 1\nPrivate: true\nBranch: refs/heads/x\n",
            "b\n\nStatus: abandoned\n\nPatch-set: 1\nPrivate: false\n",
        ];
        let metas: Vec<Vec<u8>> = metas.iter().map(|text| text.as_bytes().to_vec()).collect();
        let expect = State {
            status: "abandoned",
            private: true,
            work_in_progress: false,
            branch: "x".into(),
        };
        assert_eq!(state(&metas), expect);
    }

    #[test]
    fn a_vote_with_a_uuid_is_read_as_zero() {
        assert_eq!(label_value("CR=+2, 0123 G <5@s>"), ("CR", 0, Some("5@s")));
        assert_eq!(label_value("CR=+2 G <5@s>"), ("CR", 2, Some("5@s")));
        assert_eq!(label_value("-CR"), ("-CR", 0, None));
        assert_eq!(label_value("CR=+200"), ("CR", 0, None));
    }
}
