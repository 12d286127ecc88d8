use std::borrow::Cow;
use std::collections::BTreeMap;

use maintpb::Malformed;
use maintpb::borrowed::{Mutation, View};
use mutlog::{Place, Span};

use crate::change::ProjectView;
use crate::commit::BadCommit;
use crate::gerrit::Gerrit;
use crate::git::{CommitView, Git, Hash};
use crate::github::{Context, Event, GitHub, RepoView, UserId};
use crate::names::{Name, Names};

/// All issues, changes and commits of a log.
#[derive(Clone, Default)]
pub struct Corpus {
    pub(crate) issues: Issues,
    pub(crate) code: Code,
}

/// What GitHub says.
#[derive(Clone, Default)]
pub struct Issues {
    pub(crate) names: Names,
    pub(crate) github: GitHub,
}

/// What Gerrit and git say.
#[derive(Clone, Default)]
pub struct Code {
    pub(crate) names: Names,
    pub(crate) git: Git,
    pub(crate) gerrit: Gerrit,
}

/// Something in the log that is not as it should be; it was passed over, and the rest was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("commit `{commit}` cannot be read")]
    BadCommit {
        commit: String,
        #[source]
        why: BadCommit,
    },
    #[error("ref `{name}` is at `{commit}`, which the log does not know")]
    UnknownCommit { name: String, commit: String },
    #[error("change {change} of `{project}` has metas that the log does not know, or that branch")]
    NoHistory { project: String, change: i32 },
    #[error("a mutation of Gerrit names no project")]
    NoProject,
    #[error("a mutation of GitHub names no repository")]
    NoRepo,
    #[error("a mutation of an issue has the number {number}")]
    NoIssueNumber { number: i32 },
    #[error("issue {number} is new, but not said to be created")]
    NoCreationTime { number: i32 },
}

/// The fields of a mutation that are about GitHub.
const OF_ISSUES: [u32; 2] = [1, 3];

impl Issues {
    /// As [`Corpus::apply_record`], of what is about GitHub.
    pub fn apply_record(&mut self, at: Place, payload: &[u8]) -> Result<Vec<Trouble>, Malformed> {
        let mutation = Mutation::decode_fields(payload, |number| OF_ISSUES.contains(&number))?;
        Ok(self.apply(at, &mutation))
    }

    fn apply(&mut self, at: Place, mutation: &Mutation<'_>) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        if let Some(issue) = &mutation.github_issue {
            let context = Context {
                names: &mut self.names,
                span: span_in(at, mutation),
                troubles: &mut troubles,
            };
            self.github.apply_issue(context, issue);
        }
        if let Some(repo) = &mutation.github {
            self.github.apply_repo(repo, &mut troubles);
        }
        troubles
    }
}

impl Code {
    /// As [`Corpus::apply_record`], of all that is not about GitHub.
    pub fn apply_record(&mut self, at: Place, payload: &[u8]) -> Result<Vec<Trouble>, Malformed> {
        let mutation = Mutation::decode_fields(payload, |number| !OF_ISSUES.contains(&number))?;
        Ok(self.apply(at, &mutation))
    }

    fn apply(&mut self, at: Place, mutation: &Mutation<'_>) -> Vec<Trouble> {
        let (mut troubles, span) = (Vec::new(), span_in(at, mutation));
        if let Some(commit) = mutation.git.as_ref().and_then(|git| git.commit.as_ref())
            && let Err(why) = self.git.add(&mut self.names, commit, span(commit.bytes))
        {
            let commit = commit.sha1.lossy().into_owned();
            troubles.push(Trouble::BadCommit { commit, why });
        }
        if let Some(gerrit) = &mutation.gerrit {
            self.gerrit
                .apply(&mut self.git, &mut self.names, span, gerrit, &mut troubles);
        }
        troubles
    }
}

/// Where parts of a mutation stand in the log, whose payload stands at `at`.
fn span_in(at: Place, mutation: &Mutation<'_>) -> impl Fn(&[u8]) -> Span + use<> {
    let start = mutation.bytes.as_ptr().addr();
    move |part| {
        let offset = part.as_ptr().addr().wrapping_sub(start);
        let limit = |n: usize| u32::try_from(n).expect("a record is far below 4 GiB");
        match part.len() {
            0 => Span::default(),
            len => Span {
                at: Place {
                    segment: at.segment,
                    offset: at.offset + limit(offset),
                },
                len: limit(len),
            },
        }
    }
}

impl Corpus {
    /// Applies a record of the log. `at`: where its payload stands. Fails if that is no mutation.
    pub fn apply_record(&mut self, at: Place, payload: &[u8]) -> Result<Vec<Trouble>, Malformed> {
        Ok(self.apply(at, &Mutation::decode(payload)?))
    }

    /// Applies a mutation, which was decoded from the payload that stands at `at`. Says what it passed
    /// over. Changes whose history moved are as before until [`Corpus::finish`].
    pub fn apply(&mut self, at: Place, mutation: &Mutation<'_>) -> Vec<Trouble> {
        let mut troubles = self.issues.apply(at, mutation);
        troubles.extend(self.code.apply(at, mutation));
        troubles
    }

    /// The two halves, neither of which needs the other: applying all records to each is applying them
    /// to the corpus, and can be done at the same time.
    pub fn halves(&mut self) -> (&mut Issues, &mut Code) {
        (&mut self.issues, &mut self.code)
    }

    /// Ends a batch of mutations: what they say together holds from here on.
    pub fn finish(&mut self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        self.code.gerrit.finish(&self.code.git, &mut troubles);
        troubles
    }

    /// By owner, then name.
    pub fn repos(&self) -> impl Iterator<Item = RepoView<'_>> {
        self.issues
            .github
            .repos
            .iter()
            .map(|repo| RepoView { corpus: self, repo })
    }

    /// As the log spells it.
    pub fn repo(&self, owner: &str, name: &str) -> Option<RepoView<'_>> {
        let at = self.issues.github.find(owner, name).ok()?;
        Some(RepoView {
            corpus: self,
            repo: &self.issues.github.repos[at],
        })
    }

    /// By key.
    pub fn projects(&self) -> impl Iterator<Item = ProjectView<'_>> {
        self.code
            .gerrit
            .projects
            .iter()
            .map(|(key, project)| ProjectView {
                corpus: self,
                key,
                project,
            })
    }

    /// `key`: `host/project`; the host may also be that of the review pages of googlesource.com, with
    /// `https://` or without.
    pub fn project(&self, key: &str) -> Option<ProjectView<'_>> {
        let key = key.split_once("://").map_or(key, |(_, key)| key);
        let git = key.replacen("-review.googlesource.com/", ".googlesource.com/", 1);
        let (key, project) = self.code.gerrit.projects.get_key_value(&git)?;
        Some(ProjectView {
            corpus: self,
            key,
            project,
        })
    }

    /// `None`: no commit of the log has or names this one.
    pub fn commit(&self, hash: Hash) -> Option<CommitView<'_>> {
        self.code.git.find(hash).map(|id| CommitView { corpus: self, id })
    }

    /// `None`: the log does not say.
    pub fn login(&self, user: UserId) -> Option<Cow<'_, str>> {
        self.issues
            .github
            .users
            .get(user.0)
            .map(|name| self.issues.names.text(name))
    }

    /// Of a team of GitHub, by its id.
    pub fn team(&self, id: i64) -> Option<Cow<'_, str>> {
        self.issues
            .github
            .teams
            .get(id)
            .map(|name| self.issues.names.text(name))
    }

    /// All users whose login the log tells, by id.
    pub fn users(&self) -> BTreeMap<UserId, String> {
        let users = self.issues.github.users.all().into_iter();
        users
            .map(|(id, name)| (UserId(id), self.issues.names.text(name).into_owned()))
            .collect()
    }

    /// All teams of GitHub that the log tells of, by id.
    pub fn teams(&self) -> BTreeMap<i64, String> {
        let teams = self.issues.github.teams.all().into_iter();
        teams
            .map(|(id, name)| (id, self.issues.names.text(name).into_owned()))
            .collect()
    }

    /// In the order in which the log told of them first, also those of which only the name is known.
    pub fn all_commits(&self) -> impl Iterator<Item = CommitView<'_>> {
        self.code.git.all().map(|id| CommitView { corpus: self, id })
    }

    /// What happened: `labeled`, `closed`, `mentioned` …
    pub fn kind(&self, event: &Event) -> Cow<'_, str> {
        self.issues.names.text(event.kind)
    }

    /// Of what Gerrit and git say.
    pub(crate) fn name(&self, name: Name) -> Cow<'_, str> {
        self.code.names.text(name)
    }

    /// How many commits it knows, and how many more by name alone: those should not be.
    pub fn commits(&self) -> (u32, u32) {
        let unknown = self.code.git.unknown();
        (self.code.git.len() - unknown, unknown)
    }
}
