//! What Gerrit writes about a change: a chain of commits whose messages end in footers.
//!
//! Only the last paragraph of a message is footers; what a person wrote above it looks like them at
//! times, and is not.

use std::collections::{BTreeMap, BTreeSet};

use ids::Timestamp;
use memchr::{memchr, memmem, memrchr};
use notedb::LabelLine;

use crate::gerrit::Status;
use crate::names::{Name, Names};

/// What the state of a change needs of each of its meta commits; kept for every commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub is_meta: bool,
    pub status: Option<Status>,
    pub private: Option<bool>,
    pub work_in_progress: Option<bool>,
    /// Without `refs/heads/`; empty if it does not say.
    pub branch: Name,
}

impl Default for Facts {
    fn default() -> Facts {
        Facts {
            is_meta: false,
            status: None,
            private: None,
            work_in_progress: None,
            branch: Name::EMPTY,
        }
    }
}

impl Facts {
    /// All but the branch: from the lowest bit one, three, two and two bits.
    pub fn packed(&self) -> u8 {
        let status = match self.status {
            None => 0,
            Some(Status::New) => 1,
            Some(Status::Draft) => 2,
            Some(Status::Merged) => 3,
            Some(Status::Abandoned) => 4,
        };
        let flag = |flag: Option<bool>| flag.map_or(0, |flag| 1 + u8::from(flag));
        u8::from(self.is_meta) | status << 1 | flag(self.private) << 4 | flag(self.work_in_progress) << 6
    }

    pub fn unpacked(packed: u8, branch: Name) -> Facts {
        let status = match packed >> 1 & 7 {
            1 => Some(Status::New),
            2 => Some(Status::Draft),
            3 => Some(Status::Merged),
            4 => Some(Status::Abandoned),
            _ => None,
        };
        let flag = |bits: u8| (bits & 3 > 0).then_some(bits & 3 > 1);
        Facts {
            is_meta: packed & 1 > 0,
            status,
            private: flag(packed >> 4),
            work_in_progress: flag(packed >> 6),
            branch,
        }
    }
}

pub(crate) fn facts(names: &mut Names, message: &[u8]) -> Facts {
    let mut facts = Facts::default();
    let footers = last_paragraph(message);
    if !footers.starts_with(b"Patch-set: ") && memmem::find(footers, b"\nPatch-set: ").is_none() {
        return facts;
    }
    facts.is_meta = true;
    let mut rest = footers;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        // Most lines are told by their first letter.
        match line.first() {
            Some(b'B') => {
                if let Some(branch) = line.strip_prefix(b"Branch:") {
                    let branch = branch.trim_ascii();
                    facts.branch = names.intern(branch.strip_prefix(b"refs/heads/").unwrap_or(branch));
                }
            }
            Some(b'P') => facts.private = line.strip_prefix(b"Private:").map_or(facts.private, flag),
            Some(b'S') => facts.status = line.strip_prefix(b"Status:").map_or(facts.status, Status::parse),
            Some(b'W') => {
                let wip = line.strip_prefix(b"Work-in-progress:");
                facts.work_in_progress = wip.map_or(facts.work_in_progress, flag);
            }
            _ => {}
        }
    }
    facts
}

fn flag(value: &[u8]) -> Option<bool> {
    match value.trim_ascii() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

fn last_paragraph(message: &[u8]) -> &[u8] {
    // Line by line from the end: it is short.
    let mut end = message.len();
    while let Some(at) = memrchr(b'\n', &message[..end]) {
        if at > 0 && message[at - 1] == b'\n' {
            return &message[at + 1..];
        }
        end = at;
    }
    b""
}

/// One step in the life of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Email of its author: `ACCOUNT@SERVER`.
    pub author: String,
    pub time: Timestamp,
    /// The whole message of the commit.
    pub text: String,
}

/// What a person or the server said about a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub patch_set: i32,
    /// As of [`Meta::author`].
    pub author: String,
    pub time: Timestamp,
    pub text: String,
}

/// What somebody gave a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    pub value: i8,
    /// Given to an earlier patch set, and carried over.
    pub copied: bool,
}

/// Votes of each label, of each voter by his email.
pub type Votes = BTreeMap<String, BTreeMap<String, Vote>>;

impl Meta {
    /// Keys without the colon, in order; a key may come more than once.
    pub fn footers(&self) -> impl Iterator<Item = (&str, &str)> {
        let from = self.text.rfind("\n\n").map_or(self.text.len(), |at| at + 2);
        let lines = self.text[from..].lines();
        lines
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key, value.trim()))
    }

    pub fn footer(&self, key: &str) -> Option<&str> {
        self.footers()
            .find(|(found, _)| *found == key)
            .map(|(_, value)| value)
    }

    pub fn patch_set(&self) -> Option<i32> {
        self.footer("Patch-set")?.split(' ').next()?.parse().ok()
    }

    /// What stands between the first paragraph and the footers.
    pub fn message(&self) -> Option<Message> {
        let from = self.text.find("\n\n")? + 1;
        let to = self.text.rfind("\n\n")?;
        let text = self.text.get(from..to)?.trim();
        Some(Message {
            patch_set: self.patch_set()?,
            author: self.author.clone(),
            time: self.time,
            text: text.to_owned(),
        })
        .filter(|message| !message.text.is_empty())
    }
}

/// Replays a change, oldest first. `None`: no meta says; an empty set was cleared.
pub(crate) fn hashtags(metas: &[Meta]) -> BTreeSet<String> {
    let newest = metas.iter().rev().find_map(|meta| meta.footer("Hashtags"));
    let tags = newest.unwrap_or_default().split(',').map(str::trim);
    tags.filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

/// Replays a change, oldest first. `dropped`: the labels whose votes a new patch set ends where the
/// server does not say which votes it carries over, as Gerrit before 3.5 did not.
pub(crate) fn votes(metas: &[Meta], dropped: &[&str]) -> Votes {
    let mut votes = Votes::new();
    let mut patch_set = None;
    let mut server_says = false;
    for meta in metas {
        let next = meta.patch_set();
        let labels = meta
            .footers()
            .filter(|(key, _)| *key == "Label" || *key == "Copied-Label");
        let labels: Vec<(&str, LabelLine)> = labels
            .filter_map(|(key, value)| Some((key, LabelLine::parse(value)?)))
            .collect();
        server_says |= labels
            .iter()
            .any(|(key, line)| *key == "Copied-Label" || line.has_uuid);
        if next > patch_set && patch_set.is_some() {
            if server_says {
                votes.clear();
            } else {
                dropped.iter().for_each(|label| {
                    votes.remove(*label);
                });
            }
        }
        patch_set = next.max(patch_set);
        for (key, line) in labels {
            // What the server notes when it submits is nobody's vote.
            if line.label == "SUBM" {
                continue;
            }
            let voter = line.voter.unwrap_or(&meta.author).to_owned();
            let label = votes.entry(line.label.to_owned()).or_default();
            match i8::try_from(line.value) {
                Ok(value) if value != 0 => {
                    let copied = key == "Copied-Label";
                    label.insert(voter, Vote { value, copied });
                }
                _ => {
                    label.remove(&voter);
                }
            }
        }
    }
    votes.retain(|_, voters| !voters.is_empty());
    votes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metas(texts: &[&str]) -> Vec<Meta> {
        let meta = |text: &&str| Meta {
            author: "5@srv".to_owned(),
            time: Timestamp::from_secs(0),
            text: (*text).to_owned(),
        };
        texts.iter().map(meta).collect()
    }

    /// Each meta as `PATCH-SET FOOTER; FOOTER`.
    fn check_votes(steps: &[&str], expect: &str) {
        let texts: Vec<String> = steps
            .iter()
            .map(|step| {
                let (patch_set, footers) = step.split_once(' ').unwrap();
                format!(
                    "Update\n\nPatch-set: {patch_set}\n{}\n",
                    footers.replace("; ", "\n")
                )
            })
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let found: Vec<String> = votes(&metas(&texts), &["TryBot"])
            .iter()
            .flat_map(|(label, votes)| {
                votes.iter().map(move |(voter, vote)| {
                    format!(
                        "{label} {voter} {:+}{}",
                        vote.value,
                        if vote.copied { " copied" } else { "" }
                    )
                })
            })
            .collect();
        assert_eq!(found.join("; "), expect, "{steps:?}");
    }

    const UUID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_vote_is_the_authors_or_that_of_the_person_named() {
        check_votes(&["1 Label: CR=+2"], "CR 5@srv +2");
        check_votes(&["1 Label: CR=-1 Gerrit User 6 <6@srv>"], "CR 6@srv -1");
        check_votes(&[&format!("1 Label: CR=+2, {UUID}")], "CR 5@srv +2");
        check_votes(
            &[&format!("1 Label: CR=+2, {UUID} Gerrit User 6 <6@srv>")],
            "CR 6@srv +2",
        );
    }

    #[test]
    fn a_vote_that_was_withdrawn_is_gone() {
        check_votes(&["1 Label: CR=+2; Label: V=+1", "1 Label: -CR"], "V 5@srv +1");
        check_votes(&["1 Label: CR=+2", &format!("1 Label: CR=0, {UUID}")], "");
        check_votes(
            &["1 Label: CR=+2 A <6@srv>; Label: CR=+1", "1 Label: -CR A <6@srv>"],
            "CR 5@srv +1",
        );
    }

    #[test]
    fn a_new_patch_set_keeps_what_the_server_copies() {
        let voted = format!("1 Label: CR=+2, {UUID}; Label: V=+1, {UUID}");
        check_votes(&[&voted, "2 Commit: x"], "");
        let copied = format!("2 Commit: x; Copied-Label: CR=+2, {UUID} Gerrit User 5 <5@srv>:\"tag\"");
        check_votes(&[&voted, &copied], "CR 5@srv +2 copied");
    }

    #[test]
    fn an_old_server_copies_all_but_the_labels_named() {
        check_votes(
            &["1 Label: CR=+2; Label: TryBot=+1", "2 Commit: x"],
            "CR 5@srv +2",
        );
    }

    #[test]
    fn a_submit_is_no_vote() {
        check_votes(&["1 Label: SUBM=+1; Label: CR=+2"], "CR 5@srv +2");
    }

    #[test]
    fn footers_are_the_last_paragraph_alone() {
        let fooled = "Update patch set 1\n\nPatch Set 1:\n\nStatus: abandoned\nPrivate: true\nPatch-set: 5\n\nPatch-set: 1\nStatus: merged\nWork-in-progress: false\nBranch: refs/heads/master\n";
        let mut names = Names::default();
        let facts = facts(&mut names, fooled.as_bytes());
        assert_eq!(
            (facts.status, facts.private, facts.work_in_progress),
            (Some(Status::Merged), None, Some(false))
        );
        assert_eq!(names.text(facts.branch), "master");
        let meta = &metas(&[fooled])[0];
        let message = meta.message().unwrap();
        assert_eq!((message.patch_set, message.text.lines().count()), (1, 5));
        assert_eq!(super::facts(&mut names, b"fix\n\nBranch: x\n"), Facts::default());
    }

    #[test]
    fn the_newest_hashtags_are_the_ones() {
        let steps = [
            "a\n\nPatch-set: 1\nHashtags: x\n",
            "b\n\nPatch-set: 1\nHashtags: z, y\n",
            "c\n\nPatch-set: 1\n",
        ];
        assert_eq!(
            hashtags(&metas(&steps)).into_iter().collect::<Vec<_>>(),
            ["y", "z"]
        );
        assert!(hashtags(&metas(&[steps[0], "d\n\nPatch-set: 1\nHashtags:\n"])).is_empty());
    }
}
