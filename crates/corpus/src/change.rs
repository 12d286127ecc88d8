use std::collections::BTreeSet;

use crate::apply::Corpus;
use crate::gerrit::{Change, Project, Status};
use crate::git::{CommitId, CommitView, Hash};
use crate::names::Name;
use crate::notedb::{self, Message, Meta, Votes};
use crate::text::Texts;

/// The labels that projects of Go's server lose with a new patch set.
///
/// Source: golang/build `maintner/gerrit.go`.
const DROPPED: &[&str] = &["Run-TryBot", "TryBot-Result"];

/// A project of Gerrit, to be asked.
#[derive(Clone, Copy)]
pub struct ProjectView<'a> {
    pub(crate) corpus: &'a Corpus,
    /// `host/project`
    pub key: &'a str,
    pub(crate) project: &'a Project,
}

impl<'a> ProjectView<'a> {
    /// `None`: there is none, or too little of it is known.
    pub fn change(self, number: i32) -> Option<ChangeView<'a>> {
        let change = self.project.changes.get(u32::try_from(number).ok()?)?;
        Some(ChangeView {
            project: self,
            change,
        })
        .filter(|change| change.is_complete())
    }

    /// By number, ascending; without those of which too little is known.
    pub fn changes(self) -> impl Iterator<Item = ChangeView<'a>> {
        let changes = self.project.changes.values();
        let changes = changes.map(move |change| ChangeView {
            project: self,
            change,
        });
        changes.filter(|change| change.is_complete())
    }

    /// New, and neither private nor deleted.
    pub fn open_changes(self) -> impl Iterator<Item = ChangeView<'a>> {
        self.changes()
            .filter(|change| change.status == Status::New && !change.private && !change.deleted)
    }

    /// All but those of changes, by name.
    pub fn refs(self) -> impl Iterator<Item = (&'a str, CommitView<'a>)> {
        let corpus = self.corpus;
        self.project
            .refs
            .iter()
            .map(|(name, id)| (&name[..], CommitView { corpus, id: *id }))
    }

    /// `name`: `HEAD`, or in full.
    pub fn commit_at(self, name: &str) -> Option<CommitView<'a>> {
        let id = *self.project.refs.get(name)?;
        Some(CommitView {
            corpus: self.corpus,
            id,
        })
    }
}

/// A change in its project; has all the fields of [`Change`].
#[derive(Clone, Copy)]
pub struct ChangeView<'a> {
    pub project: ProjectView<'a>,
    pub(crate) change: &'a Change,
}

impl std::ops::Deref for ChangeView<'_> {
    type Target = Change;

    fn deref(&self) -> &Change {
        self.change
    }
}

/// A step in the life of a change, and the commit that tells of it.
pub struct MetaView<'a> {
    pub commit: CommitView<'a>,
    pub meta: Meta,
}

impl<'a> ChangeView<'a> {
    pub fn branch_name(self) -> String {
        self.project.corpus.name(self.change.branch).into_owned()
    }

    /// Of the newest patch set.
    pub fn commit(self) -> Option<CommitView<'a>> {
        self.change.newest().map(|(_, id)| self.view(id))
    }

    pub fn patch_set(self, number: i32) -> Option<CommitView<'a>> {
        self.change.patch_sets.get(&number).map(|id| self.view(*id))
    }

    /// The commit that told of it last.
    pub fn last_step(self) -> Option<CommitView<'a>> {
        self.change.metas.last().map(|id| self.view(*id))
    }

    /// The account that made it.
    pub fn owner_id(self) -> Option<u32> {
        let first = self.view(*self.change.metas.first()?);
        first.author().email().split_once('@')?.0.parse().ok()
    }

    /// First paragraph of the newest patch set's message, as one line.
    pub fn subject<T: Texts>(self, texts: &T) -> Result<String, T::Error> {
        let Some(commit) = self.commit() else {
            return Ok(String::new());
        };
        let message = commit.message(texts)?;
        let subject = message.split("\n\n").next().unwrap_or_default();
        Ok(subject.replace('\n', " "))
    }

    /// Its whole history, oldest first.
    pub fn metas<T: Texts>(self, texts: &T) -> Result<Vec<MetaView<'a>>, T::Error> {
        let meta = |id: &CommitId| {
            let commit = self.view(*id);
            Ok(MetaView {
                commit,
                meta: Meta {
                    author: commit.author().email().to_owned(),
                    time: commit.commit_time(),
                    text: commit.message(texts)?,
                },
            })
        };
        self.change.metas.iter().map(meta).collect()
    }

    /// What was said, oldest first.
    pub fn messages<T: Texts>(self, texts: &T) -> Result<Vec<Message>, T::Error> {
        let metas = self.metas(texts)?;
        Ok(metas.iter().filter_map(|step| step.meta.message()).collect())
    }

    /// The votes that hold, of each label, of each voter by his email.
    pub fn votes<T: Texts>(self, texts: &T) -> Result<Votes, T::Error> {
        let metas: Vec<Meta> = self.metas(texts)?.into_iter().map(|step| step.meta).collect();
        Ok(notedb::votes(&metas, DROPPED))
    }

    pub fn hashtags<T: Texts>(self, texts: &T) -> Result<BTreeSet<String>, T::Error> {
        let metas: Vec<Meta> = self.metas(texts)?.into_iter().map(|step| step.meta).collect();
        Ok(notedb::hashtags(&metas))
    }

    /// Comments on lines, as Gerrit keeps them: for each patch set's commit that has some, by its hash,
    /// the JSON of its note. Empty unless whoever wrote the log fetched them.
    pub fn inline_comments<T: Texts>(self, texts: &T) -> Result<Vec<(Hash, Vec<u8>)>, T::Error> {
        let told = self.change.inline.iter().filter(|(_, told)| told.len > 0);
        told.map(|(hash, told)| Ok((*hash, texts.read(*told)?))).collect()
    }

    /// The issues that the newest patch set's message names: owner, name, number. `#N` alone is an
    /// issue of `bare`, and of nothing if that is `None`.
    pub fn issue_refs(self, bare: Option<(&str, &str)>) -> Vec<(String, String, i32)> {
        let corpus = self.project.corpus;
        let refs = self
            .change
            .newest()
            .map_or(&[][..], |(_, id)| corpus.code.git.issue_refs(id));
        corpus.resolve(refs, bare)
    }

    pub(crate) fn view(self, id: CommitId) -> CommitView<'a> {
        CommitView {
            corpus: self.project.corpus,
            id,
        }
    }
}

impl Corpus {
    pub(crate) fn resolve(
        &self,
        refs: &[crate::original::IssueRef],
        bare: Option<(&str, &str)>,
    ) -> Vec<(String, String, i32)> {
        let mut found = Vec::new();
        for named in refs {
            let repo = match (named.owner, named.repo) {
                (owner, repo) if repo != Name::EMPTY => {
                    Some((self.name(owner).into_owned(), self.name(repo).into_owned()))
                }
                _ => bare.map(|(owner, repo)| (owner.to_owned(), repo.to_owned())),
            };
            let issue = repo.map(|(owner, repo)| (owner, repo, named.number.get()));
            found.extend(issue.filter(|issue| !found.contains(issue)));
        }
        found
    }
}
