use std::io;
use std::sync::Arc;

use corpus::{
    ChangeView, Comment, CommitView, Corpus, Event, FileStat, Hash, IssueView, Label, Message, Milestone,
    Part, ProjectView, RepoView, Review, UserId, Vote,
};
use ids::Timestamp;
use mutlog::LogReader;

use crate::cell::Cell;

/// What is asked.
#[derive(Clone)]
pub struct Source {
    pub corpus: Arc<Corpus>,
    /// Of the log that the corpus is of.
    pub texts: LogReader,
}

/// Which rows are wanted, as far as that is known. Others may come too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Only {
    /// The repository, `owner/name`, or the project, `host/name`.
    pub place: Option<String>,
    /// Of an issue or a change.
    pub number: Option<i32>,
    pub commit: Option<Hash>,
}

/// A row of a table.
pub(crate) enum Item<'a> {
    Repo(RepoView<'a>),
    Label(RepoView<'a>, i64, &'a Label),
    Milestone(RepoView<'a>, i64, &'a Milestone),
    Issue(IssueView<'a>),
    IssueLabel(IssueView<'a>, i64, &'a str),
    Assignee(IssueView<'a>, UserId),
    Comment(IssueView<'a>, &'a Comment),
    Event(IssueView<'a>, &'a Event),
    Review(IssueView<'a>, &'a Review),
    /// A user or a team.
    Named(i64, String),
    Project(ProjectView<'a>),
    Ref(ProjectView<'a>, &'a str, CommitView<'a>),
    Change(ChangeView<'a>),
    PatchSet(ChangeView<'a>, i32, CommitView<'a>),
    Step(ChangeView<'a>, usize, CommitView<'a>, corpus::Meta),
    Message(ChangeView<'a>, Message),
    Vote(ChangeView<'a>, String, String, Vote),
    Reviewer(ChangeView<'a>, String, Part),
    Turn(ChangeView<'a>, String, corpus::Attention),
    Hashtag(ChangeView<'a>, String),
    IssueRef(ChangeView<'a>, String, i32),
    Inline(ChangeView<'a>, Hash, serde_json::Value),
    Commit(CommitView<'a>),
    Parent(CommitView<'a>, usize, CommitView<'a>),
    File(CommitView<'a>, FileStat),
}

pub(crate) type Items<'a> = Box<dyn Iterator<Item = io::Result<Item<'a>>> + 'a>;

impl Source {
    pub(crate) fn login(&self, user: Option<UserId>) -> Cell {
        user.and_then(|user| self.corpus.login(user)).into()
    }

    /// A user of an event, of which 0 is none.
    pub(crate) fn login_of(&self, id: i64) -> Cell {
        self.login((id != 0).then_some(UserId(id)))
    }

    /// Owner and name, or host and name.
    fn repos<'a>(&'a self, only: &Only) -> Box<dyn Iterator<Item = RepoView<'a>> + 'a> {
        match &only.place {
            Some(place) => {
                let repo = place.split_once('/');
                Box::new(
                    repo.and_then(|(owner, name)| self.corpus.repo(owner, name))
                        .into_iter(),
                )
            }
            None => Box::new(self.corpus.repos()),
        }
    }

    fn issues<'a>(&'a self, only: &Only) -> impl Iterator<Item = IssueView<'a>> + use<'a> {
        let number = only.number;
        self.repos(only).flat_map(move |repo| {
            let issues: Box<dyn Iterator<Item = IssueView<'a>>> = match number {
                Some(number) => Box::new(repo.issue(number).into_iter()),
                None => Box::new(repo.issues()),
            };
            issues
        })
    }

    fn projects<'a>(&'a self, only: &Only) -> Box<dyn Iterator<Item = ProjectView<'a>> + 'a> {
        match &only.place {
            Some(place) => Box::new(self.corpus.project(place).into_iter()),
            None => Box::new(self.corpus.projects()),
        }
    }

    fn changes<'a>(&'a self, only: &Only) -> impl Iterator<Item = ChangeView<'a>> + use<'a> {
        let number = only.number;
        self.projects(only).flat_map(move |project| {
            let changes: Box<dyn Iterator<Item = ChangeView<'a>>> = match number {
                Some(number) => Box::new(project.change(number).into_iter()),
                None => Box::new(project.changes()),
            };
            changes
        })
    }

    fn all_commits<'a>(&'a self, only: &Only) -> Box<dyn Iterator<Item = CommitView<'a>> + 'a> {
        match only.commit {
            Some(hash) => Box::new(self.corpus.commit(hash).into_iter()),
            None => Box::new(self.corpus.all_commits()),
        }
    }
}

/// Several rows for each of something, which may fail.
fn each<'a, P: 'a, I: IntoIterator<Item = Item<'a>> + 'a>(
    parents: impl Iterator<Item = P> + 'a,
    rows: impl Fn(P) -> io::Result<I> + 'a,
) -> Items<'a> {
    Box::new(parents.flat_map(move |parent| {
        let rows: Items<'a> = match rows(parent) {
            Ok(rows) => Box::new(rows.into_iter().map(Ok)),
            Err(error) => Box::new(std::iter::once(Err(error))),
        };
        rows
    }))
}

pub(crate) fn repos<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    Box::new(source.repos(only).map(|repo| Ok(Item::Repo(repo))))
}

pub(crate) fn labels<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.repos(only), |repo| {
        let labels = repo.labels().iter();
        Ok(labels.map(move |(id, label)| Item::Label(repo, *id, label)))
    })
}

pub(crate) fn milestones<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.repos(only), |repo| {
        let milestones = repo.milestones().iter();
        Ok(milestones.map(move |(id, milestone)| Item::Milestone(repo, *id, milestone)))
    })
}

pub(crate) fn issues<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    Box::new(source.issues(only).map(|issue| Ok(Item::Issue(issue))))
}

pub(crate) fn issue_labels<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.issues(only), |issue| {
        let ids = issue.labels.clone();
        let names: Vec<&str> = issue.label_names().collect();
        let rows = ids.into_iter().zip(names);
        Ok(rows.map(move |(id, name)| Item::IssueLabel(issue, id, name)))
    })
}

pub(crate) fn assignees<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.issues(only), |issue| {
        let users = issue.assignees.clone();
        Ok(users.into_iter().map(move |user| Item::Assignee(issue, user)))
    })
}

pub(crate) fn comments<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.issues(only), |issue| {
        let comments = issue.comments_by_time().into_iter();
        Ok(comments.map(move |comment| Item::Comment(issue, comment)))
    })
}

pub(crate) fn events<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.issues(only), |issue| {
        let events = issue.events_by_time().into_iter();
        Ok(events.map(move |event| Item::Event(issue, event)))
    })
}

pub(crate) fn reviews<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.issues(only), |issue| {
        let reviews = issue.reviews_by_time().into_iter();
        Ok(reviews.map(move |review| Item::Review(issue, review)))
    })
}

pub(crate) fn users<'a>(source: &'a Source, _: &Only) -> Items<'a> {
    let users = source.corpus.users().into_iter();
    Box::new(users.map(|(id, login)| Ok(Item::Named(id.0, login))))
}

pub(crate) fn teams<'a>(source: &'a Source, _: &Only) -> Items<'a> {
    let teams = source.corpus.teams().into_iter();
    Box::new(teams.map(|(id, slug)| Ok(Item::Named(id, slug))))
}

pub(crate) fn projects<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    Box::new(source.projects(only).map(|project| Ok(Item::Project(project))))
}

pub(crate) fn refs<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.projects(only), |project| {
        let refs = project.refs();
        Ok(refs.map(move |(name, commit)| Item::Ref(project, name, commit)))
    })
}

pub(crate) fn changes<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    Box::new(source.changes(only).map(|change| Ok(Item::Change(change))))
}

pub(crate) fn patch_sets<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.changes(only), |change| {
        let numbers: Vec<i32> = change.patch_sets.keys().copied().collect();
        let rows = numbers.into_iter();
        Ok(rows.filter_map(move |number| Some(Item::PatchSet(change, number, change.patch_set(number)?))))
    })
}

pub(crate) fn steps<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.changes(only), |change| {
        let steps = change.metas(&source.texts)?.into_iter().enumerate();
        Ok(steps.map(move |(at, step)| Item::Step(change, at, step.commit, step.meta)))
    })
}

pub(crate) fn messages<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.changes(only), |change| {
        let messages = change.messages(&source.texts)?.into_iter();
        Ok(messages.map(move |message| Item::Message(change, message)))
    })
}

pub(crate) fn votes<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.changes(only), |change| {
        let votes = change.votes(&source.texts)?.into_iter();
        Ok(votes.flat_map(move |(label, voters)| {
            voters
                .into_iter()
                .map(move |(voter, vote)| Item::Vote(change, label.clone(), voter, vote))
        }))
    })
}

pub(crate) fn reviewers<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.changes(only), |change| {
        let people = change.reviewers(&source.texts)?.into_iter();
        Ok(people.map(move |(who, part)| Item::Reviewer(change, who, part)))
    })
}

pub(crate) fn attention<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.changes(only), |change| {
        let turns = change.attention(&source.texts)?.into_iter();
        Ok(turns.map(move |(who, turn)| Item::Turn(change, who, turn)))
    })
}

pub(crate) fn hashtags<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.changes(only), |change| {
        let tags = change.hashtags(&source.texts)?.into_iter();
        Ok(tags.map(move |tag| Item::Hashtag(change, tag)))
    })
}

pub(crate) fn issue_refs<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.changes(only), |change| {
        // Whose `#N` alone means something is the original's rule.
        let bare = (change.project.key == "go.googlesource.com/go").then_some(("golang", "go"));
        let refs = change.issue_refs(bare).into_iter();
        Ok(refs.map(move |(owner, name, number)| Item::IssueRef(change, format!("{owner}/{name}"), number)))
    })
}

/// Of a note that is no JSON of Gerrit's there are none.
pub(crate) fn inline_comments<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.changes(only), |change| {
        let notes = change.inline_comments(&source.texts)?.into_iter();
        Ok(notes.flat_map(move |(hash, json)| {
            let note: serde_json::Value = serde_json::from_slice(&json).unwrap_or_default();
            let comments = note["comments"].as_array().cloned().unwrap_or_default();
            comments
                .into_iter()
                .map(move |comment| Item::Inline(change, hash, comment))
        }))
    })
}

pub(crate) fn commits<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    Box::new(source.all_commits(only).map(|commit| Ok(Item::Commit(commit))))
}

pub(crate) fn parents<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.all_commits(only), |commit| {
        let parents = commit.parents().enumerate();
        Ok(parents.map(move |(at, parent)| Item::Parent(commit, at, parent)))
    })
}

pub(crate) fn files<'a>(source: &'a Source, only: &Only) -> Items<'a> {
    each(source.all_commits(only), |commit| {
        let text = commit.text(&source.texts)?;
        let files = text.map(|text| text.files).unwrap_or_default();
        Ok(files.into_iter().map(move |file| Item::File(commit, file)))
    })
}

/// When something last happened to a change.
pub(crate) fn updated(change: ChangeView<'_>) -> Option<Timestamp> {
    Some(change.last_step()?.commit_time())
}
