use std::collections::BTreeMap;
use std::sync::Arc;

use ids::Timestamp;
use maintpb::borrowed;
use mutlog::Span;

use crate::apply::Trouble;
use crate::git::{CommitId, Git, Hash};
use crate::names::{Name, Names};
use crate::notedb::Facts;
use crate::shared::Numbered;
use crate::stored::{Stored, Take, put_several};

#[derive(Clone, Default)]
pub(crate) struct Gerrit {
    /// By `host/project`.
    pub projects: BTreeMap<String, Project>,
}

#[derive(Clone, Default)]
pub(crate) struct Project {
    /// By number.
    pub changes: Numbered<Arc<Change>>,
    /// All but those of changes.
    pub refs: Arc<BTreeMap<String, CommitId>>,
    /// Changes whose metas moved since the last batch ended.
    pub dirty: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    New,
    Draft,
    Merged,
    Abandoned,
}

/// A change of Gerrit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub number: i32,
    /// The newest meta commit that the log told of.
    pub meta: Option<CommitId>,
    /// All meta commits from the first on, as of the end of the last batch.
    pub metas: Vec<CommitId>,
    /// By number, which begins at 1.
    pub patch_sets: BTreeMap<i32, CommitId>,
    /// The patch set that the log told of last. Of a bulk import that is not the newest.
    pub last_told: i32,
    pub status: Status,
    pub private: bool,
    pub work_in_progress: bool,
    /// Without `refs/heads/`.
    pub(crate) branch: Name,
    /// Commit time of the first meta.
    pub created: Timestamp,
    /// Its refs are gone from the server.
    pub deleted: bool,
    /// Comments on lines: the last that was told of each patch set's commit, by its hash.
    pub(crate) inline: BTreeMap<Hash, Span>,
}

impl Status {
    /// `None`: no status of a change.
    pub(crate) fn parse(value: &[u8]) -> Option<Status> {
        match value.trim_ascii() {
            b"new" => Some(Status::New),
            b"draft" => Some(Status::Draft),
            b"merged" => Some(Status::Merged),
            b"abandoned" => Some(Status::Abandoned),
            _ => None,
        }
    }
}

impl Stored for Change {
    fn put(&self, out: &mut Vec<u8>) {
        self.number.put(out);
        self.meta.map(CommitId::number).put(out);
        put_several(out, &self.metas, |out, id| id.number().put(out));
        let patch_sets: Vec<(&i32, &CommitId)> = self.patch_sets.iter().collect();
        put_several(out, &patch_sets, |out, (number, id)| {
            number.put(out);
            id.number().put(out);
        });
        self.last_told.put(out);
        let facts = Facts {
            is_meta: self.deleted,
            status: Some(self.status),
            private: Some(self.private),
            work_in_progress: Some(self.work_in_progress),
            branch: self.branch,
        };
        out.push(facts.packed());
        self.branch.number().put(out);
        self.created.put(out);
        let inline: Vec<(&Hash, &Span)> = self.inline.iter().collect();
        put_several(out, &inline, |out, (hash, told)| {
            hash.put(out);
            told.put(out);
        });
    }

    fn read(from: &mut Take) -> Option<Change> {
        let id = |from: &mut Take| from.u32().map(CommitId::new);
        let mut change = Change::new(from.i32()?);
        change.meta = Option::<u32>::read(from)?.map(CommitId::new);
        change.metas = from.several(id)?;
        let patch_sets = from.several(|from| Some((from.i32()?, id(from)?)))?;
        change.patch_sets = patch_sets.into_iter().collect();
        change.last_told = from.i32()?;
        let facts = Facts::unpacked(from.u8()?, Name::new(from.u32()?));
        (change.deleted, change.branch) = (facts.is_meta, facts.branch);
        change.status = facts.status?;
        change.private = facts.private?;
        change.work_in_progress = facts.work_in_progress?;
        change.created = Timestamp::read(from)?;
        let inline = from.several(|from| Some((Hash::read(from)?, Span::read(from)?)))?;
        change.inline = inline.into_iter().collect();
        Some(change)
    }
}

impl Change {
    fn new(number: i32) -> Change {
        Change {
            number,
            meta: None,
            metas: Vec::new(),
            patch_sets: BTreeMap::new(),
            last_told: 0,
            status: Status::New,
            private: false,
            work_in_progress: false,
            branch: Name::EMPTY,
            created: Timestamp(0),
            deleted: false,
            inline: BTreeMap::new(),
        }
    }

    /// Whether enough of it is known to be shown: its history, and a patch set.
    pub fn is_complete(&self) -> bool {
        !self.metas.is_empty() && !self.patch_sets.is_empty()
    }

    /// The newest patch set and its commit.
    pub fn newest(&self) -> Option<(i32, CommitId)> {
        self.patch_sets
            .last_key_value()
            .map(|(number, commit)| (*number, *commit))
    }
}

impl Gerrit {
    pub fn apply(
        &mut self,
        git: &mut Git,
        names: &mut Names,
        span: impl Fn(&[u8]) -> Span,
        mutation: &borrowed::GerritMutation<'_>,
        troubles: &mut Vec<Trouble>,
    ) {
        for commit in &mutation.commits {
            if let Err(why) = git.add(names, commit, span(commit.bytes)) {
                let commit = commit.sha1.lossy().into_owned();
                troubles.push(Trouble::BadCommit { commit, why });
            }
        }
        if mutation.project.is_empty() {
            troubles.push(Trouble::NoProject);
            return;
        }
        let key = mutation.project.lossy();
        if !self.projects.contains_key(&*key) {
            self.projects.insert(key.clone().into_owned(), Project::default());
        }
        let project = self.projects.get_mut(&*key).expect("inserted above");
        for name in &mutation.deleted_refs {
            Arc::make_mut(&mut project.refs).remove(&*name.lossy());
        }
        for name in &mutation.deleted_change_refs {
            if let Some((number, ChangeRef::Meta)) = change_ref(name.0)
                && project.changes.get(number).is_some()
            {
                project.change(number).deleted = true;
            }
        }
        for told in &mutation.inline_comments {
            let number = u32::try_from(told.cl).ok();
            let (Some(number), Some(revision)) = (number, Hash::parse(told.revision.0)) else {
                troubles.push(Trouble::UnknownCommit {
                    name: format!("comments on change {}", told.cl),
                    commit: told.revision.lossy().into_owned(),
                });
                continue;
            };
            project.change(number).inline.insert(revision, span(told.json));
        }
        for told in &mutation.refs {
            let name = told.r#ref.0;
            let Some(commit) = Hash::parse(told.sha1.0).and_then(|hash| git.find(hash)) else {
                if !name.starts_with(b"refs/meta/") {
                    let (name, commit) = (told.r#ref.lossy().into_owned(), told.sha1.lossy().into_owned());
                    troubles.push(Trouble::UnknownCommit { name, commit });
                }
                continue;
            };
            match change_ref(name) {
                Some((number, ChangeRef::Meta)) => {
                    let change = project.change(number);
                    change.meta = Some(commit);
                    change.deleted = false;
                    project.dirty.push(number);
                }
                Some((number, ChangeRef::PatchSet(patch_set))) => {
                    let change = project.change(number);
                    change.patch_sets.insert(patch_set, commit);
                    change.last_told = patch_set;
                }
                None if name.starts_with(b"refs/meta/") || is_change_ref(name) => {}
                None => {
                    let refs = Arc::make_mut(&mut project.refs);
                    refs.insert(told.r#ref.lossy().into_owned(), commit);
                }
            }
        }
    }

    /// Brings the changes whose metas moved up to date.
    pub fn finish(&mut self, git: &Git, troubles: &mut Vec<Trouble>) {
        for (key, project) in &mut self.projects {
            let mut dirty = std::mem::take(&mut project.dirty);
            dirty.sort_unstable();
            dirty.dedup();
            for number in dirty {
                let change = project.change(number);
                match history(git, change) {
                    Some(metas) => change.replay(git, metas),
                    None => troubles.push(Trouble::NoHistory {
                        project: key.clone(),
                        change: change.number,
                    }),
                }
            }
        }
    }
}

impl Project {
    fn change(&mut self, number: u32) -> &mut Change {
        let make = || Arc::new(Change::new(number.cast_signed()));
        Arc::make_mut(self.changes.get_or_insert_with(number, make))
    }
}

/// The metas of a change from its first on. `None`: some are not known, or have several parents.
fn history(git: &Git, change: &Change) -> Option<Vec<CommitId>> {
    let mut newer = Vec::new();
    let mut next = change.meta;
    while let Some(commit) = next {
        // Mostly the history grew since the last time.
        if change.metas.last() == Some(&commit) {
            let mut metas = change.metas.clone();
            metas.extend(newer.iter().rev());
            return Some(metas);
        }
        // A log that says that commits are their own ancestors has no end otherwise.
        if !git.row(commit).is_known() || newer.len() >= git.len() as usize {
            return None;
        }
        newer.push(commit);
        next = match git.parents(commit) {
            [] => None,
            [parent] => Some(*parent),
            _ => return None,
        };
    }
    newer.reverse();
    Some(newer)
}

impl Change {
    fn replay(&mut self, git: &Git, metas: Vec<CommitId>) {
        (self.status, self.private, self.work_in_progress) = (Status::New, false, false);
        self.branch = Name::EMPTY;
        for meta in &metas {
            let facts = git.row(*meta).facts();
            self.status = facts.status.unwrap_or(self.status);
            self.private = facts.private.unwrap_or(self.private);
            self.work_in_progress = facts.work_in_progress.unwrap_or(self.work_in_progress);
            if facts.branch != Name::EMPTY {
                self.branch = facts.branch;
            }
        }
        self.created = git.row(metas[0]).commit_time();
        self.metas = metas;
    }
}

enum ChangeRef {
    Meta,
    PatchSet(i32),
}

/// `refs/changes/NN/NUMBER/meta` or `…/PATCH-SET`. `None`: another ref, or numbers too large.
fn change_ref(name: &[u8]) -> Option<(u32, ChangeRef)> {
    let rest = &name.strip_prefix(b"refs/changes/")?;
    let ([a, b, b'/'], rest) = rest.split_first_chunk()? else {
        return None;
    };
    let hex = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if !hex(a) || !hex(b) {
        return None;
    }
    let slash = rest.iter().position(|b| *b == b'/')?;
    let number = number(&rest[..slash])?;
    let rest = &rest[slash + 1..];
    // The original's pattern ignores what follows.
    if rest.starts_with(b"meta") {
        return Some((number, ChangeRef::Meta));
    }
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    match self::number(&rest[..digits])?.cast_signed() {
        // In the original patch set 0 is the meta.
        0 => Some((number, ChangeRef::Meta)),
        patch_set => Some((number, ChangeRef::PatchSet(patch_set))),
    }
}

/// What the original takes for a ref of a change, usable or not.
fn is_change_ref(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"refs/changes/") else {
        return false;
    };
    let mut parts = rest.splitn(3, |b| *b == b'/');
    let (shard, number, last) = (parts.next(), parts.next(), parts.next());
    let hex = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    shard.is_some_and(|shard| shard.len() == 2 && shard.iter().all(hex))
        && number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
        && last.is_some_and(|last| last.starts_with(b"meta") || last.first().is_some_and(u8::is_ascii_digit))
}

/// Decimal, below 2^31.
fn number(digits: &[u8]) -> Option<u32> {
    let number: i32 = str::from_utf8(digits).ok()?.parse().ok()?;
    u32::try_from(number)
        .ok()
        .filter(|_| digits.iter().all(u8::is_ascii_digit))
}
