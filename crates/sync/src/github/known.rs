use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use maintpb::borrowed::{GithubIssueMutation, GithubIssueSyncStatus, GithubMutation, GithubUser, Timestamp};

/// What the log knows of a repository of GitHub, as far as the sync must know it: a fold over its
/// mutations. Texts are known by a sum of theirs.
#[derive(Debug, Clone, Default)]
pub struct Repo {
    pub owner: String,
    pub name: String,
    pub(super) issues: BTreeMap<i32, Issue>,
    pub(super) labels: BTreeMap<i64, String>,
    pub(super) milestones: BTreeMap<i64, Milestone>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Issue {
    pub not_exist: bool,
    pub pull_request: bool,
    pub created: Option<i64>,
    pub updated: Option<i64>,
    pub closed_at: Option<i64>,
    pub user: Option<User>,
    pub title: Sum,
    pub body: Sum,
    pub closed: bool,
    pub locked: bool,
    pub milestone: MilestoneOf,
    pub assignees: Vec<User>,
    pub labels: BTreeSet<i64>,
    pub comments: BTreeMap<i64, Comment>,
    pub events: BTreeSet<i64>,
    pub reviews: BTreeSet<i64>,
    /// Comments, events and reviews are complete as of then, by the server's clock.
    pub complete: [Option<i64>; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum MilestoneOf {
    #[default]
    Unknown,
    None,
    Id(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub id: i64,
    pub login: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Milestone {
    pub title: String,
    pub number: i64,
    pub closed: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Comment {
    pub updated: i64,
    pub body: Sum,
}

/// Of a text. Two texts with one sum are not to be expected in a lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum(u64);

impl Sum {
    pub fn of(text: &[u8]) -> Sum {
        let mut sum = DefaultHasher::new();
        text.hash(&mut sum);
        Sum(sum.finish())
    }
}

impl Default for Sum {
    fn default() -> Sum {
        Sum::of(b"")
    }
}

impl Repo {
    pub fn new(owner: &str, name: &str) -> Repo {
        Repo {
            owner: owner.to_owned(),
            name: name.to_owned(),
            ..Repo::default()
        }
    }

    /// Takes in a mutation of the log; those of other repositories change nothing.
    pub fn apply(&mut self, told: &GithubMutation<'_>) {
        if !self.is_ours(told.owner.0, told.repo.0) {
            return;
        }
        for label in &told.labels {
            self.labels.insert(label.id, label.name.lossy().into_owned());
        }
        for told in &told.milestones {
            let milestone = self.milestones.entry(told.id).or_default();
            if !told.title.is_empty() {
                milestone.title = told.title.lossy().into_owned();
            }
            if told.number != 0 {
                milestone.number = told.number;
            }
            milestone.closed = told.closed.as_ref().map_or(milestone.closed, |closed| closed.val);
        }
        for id in &told.deleted_labels {
            self.labels.remove(id);
        }
        for id in &told.deleted_milestones {
            self.milestones.remove(id);
        }
    }

    /// As [`Repo::apply`].
    pub fn apply_issue(&mut self, told: &GithubIssueMutation<'_>) {
        if !self.is_ours(told.owner.0, told.repo.0) || told.number == 0 {
            return;
        }
        let issue = self.issues.entry(told.number).or_default();
        issue.not_exist = told.not_exist;
        if told.not_exist {
            return;
        }
        issue.apply(told);
        // They tell of a label or a milestone by the way.
        for label in &told.add_label {
            self.labels.insert(label.id, label.name.lossy().into_owned());
        }
        if told.milestone_id != 0 {
            let milestone = self.milestones.entry(told.milestone_id).or_default();
            milestone.title = told.milestone_title.lossy().into_owned();
            milestone.number = told.milestone_num;
        }
    }

    fn is_ours(&self, owner: &[u8], name: &[u8]) -> bool {
        owner == self.owner.as_bytes() && name == self.name.as_bytes()
    }
}

impl Issue {
    fn apply(&mut self, told: &GithubIssueMutation<'_>) {
        let secs = |time: &Option<Timestamp<'_>>| time.as_ref().map(|time| time.seconds);
        self.created = secs(&told.created).or(self.created);
        self.updated = secs(&told.updated).or(self.updated);
        self.closed_at = secs(&told.closed_at).or(self.closed_at);
        self.user = told.user.as_ref().map(user).or(self.user.take());
        self.pull_request |= told.pull_request;
        if !told.title.is_empty() {
            self.title = Sum::of(told.title.0);
        }
        if !told.body.is_empty() {
            self.body = Sum::of(told.body.0);
        }
        self.body = told
            .body_change
            .as_ref()
            .map_or(self.body, |body| Sum::of(body.val.0));
        self.closed = told.closed.as_ref().map_or(self.closed, |closed| closed.val);
        self.locked = told.locked.as_ref().map_or(self.locked, |locked| locked.val);
        match (told.no_milestone, told.milestone_id) {
            (true, _) => self.milestone = MilestoneOf::None,
            (false, 0) => {}
            (false, id) => self.milestone = MilestoneOf::Id(id),
        }
        for told in told.assignees.iter().map(user) {
            match self.assignees.iter_mut().find(|known| known.id == told.id) {
                Some(known) => *known = told,
                None => self.assignees.push(told),
            }
        }
        self.assignees
            .retain(|known| !told.deleted_assignees.contains(&known.id));
        for id in &told.remove_label {
            self.labels.remove(id);
        }
        self.labels.extend(told.add_label.iter().map(|label| label.id));
        for told in &told.comment {
            let comment = self.comments.entry(told.id).or_default();
            comment.updated = secs(&told.updated).unwrap_or(comment.updated);
            if !told.body.is_empty() {
                comment.body = Sum::of(told.body.0);
            }
        }
        for id in &told.deleted_comments {
            self.comments.remove(id);
        }
        self.events.extend(told.event.iter().map(|event| event.id));
        self.reviews.extend(told.review.iter().map(|review| review.id));
        let of = |status: &Option<GithubIssueSyncStatus<'_>>| {
            status.as_ref().and_then(|status| secs(&status.server_date))
        };
        let told = [
            of(&told.comment_status),
            of(&told.event_status),
            of(&told.review_status),
        ];
        for (known, told) in self.complete.iter_mut().zip(told) {
            *known = told.or(*known);
        }
    }

    /// Something of it may be missing: it changed in the second when its parts were asked for, or later.
    pub fn is_stale(&self) -> bool {
        let parts = if self.pull_request {
            &self.complete[..]
        } else {
            &self.complete[..2]
        };
        !self.not_exist && parts.iter().any(|complete| *complete <= self.updated)
    }
}

fn user(told: &GithubUser<'_>) -> User {
    User {
        id: told.id,
        login: told.login.lossy().into_owned(),
    }
}
