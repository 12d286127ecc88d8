use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ids::Timestamp;
use maintpb::borrowed::{self, View};
use mutlog::Span;
use zerocopy::little_endian::I64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::apply::{Corpus, Trouble};
use crate::names::{Name, Names};
use crate::shared::{Numbered, Shards, rows};
use crate::stored::{List, Stored, Take, put_piece, put_several};
use crate::text::Texts;

#[derive(Clone, Default)]
pub(crate) struct GitHub {
    /// By owner and name, sorted: searched without a key of its own for each of millions.
    pub repos: Vec<Repo>,
    /// Logins, by id. Users known only by their id are not in it.
    pub users: Named,
    /// Slugs, by id.
    pub teams: Named,
    /// Which of the repositories the last mutation was about.
    last: usize,
}

/// What users or teams are called, by their id; with a base.
#[derive(Clone, Default)]
pub(crate) struct Named {
    /// [`NamedRow`]s by id.
    base: Bytes,
    added: Shards<i64, Name>,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct NamedRow {
    id: I64,
    name: Name,
}

impl Named {
    pub fn over(base: Bytes) -> Named {
        Named {
            base,
            added: Shards::default(),
        }
    }

    pub fn get(&self, id: i64) -> Option<Name> {
        self.added
            .get(&id)
            .copied()
            .or_else(|| in_base(rows(&self.base), id))
    }

    fn set(&mut self, id: i64, name: Name) {
        if self.get(id) != Some(name) {
            self.added.set(id, name);
        }
    }

    /// By id.
    pub fn all(&self) -> BTreeMap<i64, Name> {
        let base = rows::<NamedRow>(&self.base);
        let mut all: BTreeMap<i64, Name> = base.iter().map(|row| (row.id.get(), row.name)).collect();
        all.extend(self.added.all());
        all
    }

    /// For [`Named::over`].
    pub fn rows(&self) -> Vec<NamedRow> {
        let row = |(id, name): (i64, Name)| NamedRow { id: id.into(), name };
        self.all().into_iter().map(row).collect()
    }
}

fn in_base(rows: &[NamedRow], id: i64) -> Option<Name> {
    let at = rows.binary_search_by_key(&id, |row| row.id.get()).ok()?;
    Some(rows[at].name)
}

#[derive(Clone, Default)]
pub(crate) struct Repo {
    pub owner: String,
    pub name: String,
    pub issues: Numbered<Arc<Issue>>,
    /// By id.
    pub labels: Arc<BTreeMap<i64, Label>>,
    /// By id.
    pub milestones: Arc<BTreeMap<i64, Milestone>>,
    /// What it was called before, as owner/name or name alone.
    pub renamed_from: Option<String>,
}

/// A user of GitHub, for all repositories. No user has 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub i64);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Label {
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Milestone {
    pub title: String,
    pub number: i64,
    pub closed: bool,
}

/// Which milestone an issue has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MilestoneOf {
    /// The log does not say.
    Unknown,
    None,
    Id(i64),
}

/// An issue or a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    pub number: i32,
    /// 0 if the log does not say, which is usual.
    pub id: i64,
    /// It was deleted, or moved away.
    pub not_exist: bool,
    /// Where it was moved: owner, name, number.
    pub transferred_to: Option<(String, String, i32)>,
    pub closed: bool,
    pub locked: bool,
    pub pull_request: bool,
    pub user: Option<UserId>,
    /// In the order in which they were assigned.
    pub assignees: Vec<UserId>,
    pub created: Option<Timestamp>,
    pub updated: Option<Timestamp>,
    /// When it was closed last, also if it was opened again.
    pub closed_at: Option<Timestamp>,
    pub closed_by: Option<UserId>,
    pub title: Box<str>,
    pub body: Span,
    pub milestone: MilestoneOf,
    /// By id, ascending.
    pub labels: Vec<i64>,
    /// By id, ascending.
    pub comments: List<Comment>,
    /// By id, ascending.
    pub events: List<Event>,
    /// By id, ascending.
    pub reviews: List<Review>,
    /// Up to when the server's comments, events and reviews are all here.
    pub comments_as_of: Option<Timestamp>,
    pub events_as_of: Option<Timestamp>,
    pub reviews_as_of: Option<Timestamp>,
    latest_event: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    pub id: i64,
    pub user: Option<UserId>,
    pub created: Option<Timestamp>,
    pub updated: Option<Timestamp>,
    pub body: Span,
}

/// Something that happened to an issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: i64,
    /// See [`Corpus::kind`].
    pub(crate) kind: Name,
    pub actor: Option<UserId>,
    pub created: Option<Timestamp>,
    /// The message of the log that tells of it.
    told: Span,
}

/// A review of a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    pub id: i64,
    pub actor: Option<UserId>,
    pub created: Option<Timestamp>,
    told: Span,
}

/// What a mutation is applied with.
pub(crate) struct Context<'c, S> {
    pub names: &'c mut Names,
    /// Where some bytes of the mutation stand in the log.
    pub span: S,
    pub troubles: &'c mut Vec<Trouble>,
}

impl GitHub {
    pub fn over(repos: Vec<Repo>, users: Named, teams: Named) -> GitHub {
        GitHub {
            repos,
            users,
            teams,
            last: 0,
        }
    }

    pub fn apply_repo(&mut self, mutation: &borrowed::GithubMutation<'_>, troubles: &mut Vec<Trouble>) {
        let Some(repo) = self.repo(mutation.owner.lossy(), mutation.repo.lossy()) else {
            troubles.push(Trouble::NoRepo);
            return;
        };
        mutation.labels.iter().for_each(|label| repo.learn_label(label));
        mutation
            .milestones
            .iter()
            .for_each(|milestone| repo.learn_milestone(milestone));
        for id in &mutation.deleted_labels {
            Arc::make_mut(&mut repo.labels).remove(id);
        }
        for id in &mutation.deleted_milestones {
            Arc::make_mut(&mut repo.milestones).remove(id);
        }
        if !mutation.renamed_from.is_empty() {
            repo.renamed_from = Some(mutation.renamed_from.lossy().into_owned());
        }
    }

    pub fn apply_issue(
        &mut self,
        context: Context<'_, impl Fn(&[u8]) -> Span>,
        mutation: &borrowed::GithubIssueMutation<'_>,
    ) {
        let Context {
            names,
            span,
            troubles,
        } = context;
        let number = u32::try_from(mutation.number).unwrap_or(0);
        if number == 0 {
            troubles.push(Trouble::NoIssueNumber {
                number: mutation.number,
            });
            return;
        }
        // Users and teams are learned first; the repository is borrowed after.
        if !mutation.not_exist {
            self.learn_people(names, mutation);
        }
        let Some(repo) = self.repo(mutation.owner.lossy(), mutation.repo.lossy()) else {
            troubles.push(Trouble::NoRepo);
            return;
        };
        let mut is_new = false;
        let issue = repo.issues.get_or_insert_with(number, || {
            is_new = true;
            Arc::new(Issue::new(mutation.number, mutation.id))
        });
        let issue = Arc::make_mut(issue);
        issue.not_exist = mutation.not_exist;
        if let Some(to) = &mutation.transferred_to {
            let (owner, repo) = (to.owner.lossy().into_owned(), to.repo.lossy().into_owned());
            issue.transferred_to = Some((owner, repo, to.number));
        }
        if mutation.not_exist {
            return;
        }
        if is_new {
            issue.created = time(&mutation.created);
            if issue.created.is_none() {
                troubles.push(Trouble::NoCreationTime {
                    number: mutation.number,
                });
            }
        }
        issue.apply(names, &span, mutation);

        if mutation.no_milestone {
            issue.milestone = MilestoneOf::None;
        } else if mutation.milestone_id != 0 {
            issue.milestone = MilestoneOf::Id(mutation.milestone_id);
            repo.learn_milestone(&borrowed::GithubMilestone {
                id: mutation.milestone_id,
                title: mutation.milestone_title,
                number: mutation.milestone_num,
                ..Default::default()
            });
        }
        mutation
            .add_label
            .iter()
            .for_each(|label| repo.learn_label(label));
    }

    /// `None`: it is not named.
    fn repo(&mut self, owner: Cow<'_, str>, name: Cow<'_, str>) -> Option<&mut Repo> {
        if owner.is_empty() || name.is_empty() {
            return None;
        }
        // Mostly the same again.
        let last = self.repos.get(self.last);
        if last.is_some_and(|repo| repo.name == name && repo.owner == owner) {
            return self.repos.get_mut(self.last);
        }
        let at = self.find(&owner, &name).unwrap_or_else(|at| {
            let (owner, name) = (owner.into_owned(), name.into_owned());
            self.repos.insert(
                at,
                Repo {
                    owner,
                    name,
                    ..Repo::default()
                },
            );
            at
        });
        self.last = at;
        Some(&mut self.repos[at])
    }

    /// Where a repository is, or belongs.
    pub fn find(&self, owner: &str, name: &str) -> Result<usize, usize> {
        self.repos
            .binary_search_by(|repo| (&*repo.owner, &*repo.name).cmp(&(owner, name)))
    }

    fn learn_people(&mut self, names: &mut Names, mutation: &borrowed::GithubIssueMutation<'_>) {
        let comments = mutation.comment.iter().filter(|comment| comment.id != 0);
        let users = mutation
            .user
            .iter()
            .chain(&mutation.closed_by)
            .chain(&mutation.assignees);
        for user in users.chain(comments.filter_map(|comment| comment.user.as_ref())) {
            if !user.login.is_empty() {
                self.users.set(user.id, names.intern(user.login.0));
            }
        }
        let events = mutation.event.iter().filter(|event| event.id != 0);
        for team in events.filter_map(|event| event.team_reviewer.as_ref()) {
            if !team.slug.is_empty() {
                self.teams.set(team.id, names.intern(team.slug.0));
            }
        }
    }
}

impl Repo {
    fn learn_label(&mut self, told: &borrowed::GithubLabel<'_>) {
        let known = self.labels.get(&told.id);
        if known.is_some_and(|label| told.name.is_empty() || label.name == told.name.lossy()) {
            return;
        }
        let label = Arc::make_mut(&mut self.labels).entry(told.id).or_default();
        label.name = told.name.lossy().into_owned();
    }

    fn learn_milestone(&mut self, told: &borrowed::GithubMilestone<'_>) {
        let milestone = Arc::make_mut(&mut self.milestones).entry(told.id).or_default();
        if !told.title.is_empty() {
            milestone.title = told.title.lossy().into_owned();
        }
        if told.number != 0 {
            milestone.number = told.number;
        }
        if let Some(closed) = &told.closed {
            milestone.closed = closed.val;
        }
    }
}

impl Issue {
    fn new(number: i32, id: i64) -> Issue {
        Issue {
            number,
            id,
            not_exist: false,
            transferred_to: None,
            closed: false,
            locked: false,
            pull_request: false,
            user: None,
            assignees: Vec::new(),
            created: None,
            updated: None,
            closed_at: None,
            closed_by: None,
            title: Box::default(),
            body: Span::default(),
            milestone: MilestoneOf::Unknown,
            labels: Vec::new(),
            comments: List::default(),
            events: List::default(),
            reviews: List::default(),
            comments_as_of: None,
            events_as_of: None,
            reviews_as_of: None,
            latest_event: None,
        }
    }

    /// When it, or an event or review of it, changed last. Comments do not count.
    pub fn last_modified(&self) -> Option<Timestamp> {
        self.updated.max(self.latest_event)
    }

    fn apply(
        &mut self,
        names: &mut Names,
        span: &impl Fn(&[u8]) -> Span,
        mutation: &borrowed::GithubIssueMutation<'_>,
    ) {
        let set = |field: &mut Option<Timestamp>, told: &Option<borrowed::Timestamp<'_>>| {
            *field = time(told).or(*field)
        };
        set(&mut self.updated, &mutation.updated);
        set(&mut self.closed_at, &mutation.closed_at);
        let user = |told: &borrowed::GithubUser<'_>| UserId(told.id);
        self.user = mutation.user.as_ref().map(user).or(self.user);
        self.closed_by = mutation.closed_by.as_ref().map(user).or(self.closed_by);
        self.closed = mutation.closed.as_ref().map_or(self.closed, |closed| closed.val);
        self.locked = mutation.locked.as_ref().map_or(self.locked, |locked| locked.val);
        self.pull_request |= mutation.pull_request;

        let known = self.assignees.len();
        for assignee in mutation.assignees.iter().map(user) {
            if !self.assignees[..known].contains(&assignee) {
                self.assignees.push(assignee);
            }
        }
        self.assignees
            .retain(|user| !mutation.deleted_assignees.contains(&user.0));

        if !mutation.body.is_empty() {
            self.body = span(mutation.body.0);
        }
        if let Some(change) = &mutation.body_change {
            self.body = span(change.val.0);
        }
        if !mutation.title.is_empty() {
            self.title = mutation.title.lossy().into();
        }
        if mutation.labels_snapshot_complete {
            self.labels.clear();
        }
        if !mutation.remove_label.is_empty() {
            self.labels.retain(|id| !mutation.remove_label.contains(id));
        }
        for label in &mutation.add_label {
            if let Err(at) = self.labels.binary_search(&label.id) {
                self.labels.insert(at, label.id);
            }
        }
        for told in mutation.comment.iter().filter(|told| told.id != 0) {
            let comments = self.comments.make_mut();
            let at = place(comments, told.id, |comment| comment.id).unwrap_or_else(|at| {
                comments.insert(at, Comment::new(told.id));
                at
            });
            let comment = &mut comments[at];
            comment.user = told.user.as_ref().map(user).or(comment.user);
            set(&mut comment.created, &told.created);
            set(&mut comment.updated, &told.updated);
            if !told.body.is_empty() {
                comment.body = span(told.body.0);
            }
        }
        if !mutation.deleted_comments.is_empty() {
            self.comments
                .make_mut()
                .retain(|comment| !mutation.deleted_comments.contains(&comment.id));
        }
        for told in mutation.event.iter().filter(|told| told.id != 0) {
            let event = Event {
                id: told.id,
                kind: names.intern(told.event_type.0),
                actor: actor(told.actor_id),
                created: time(&told.created),
                told: span(told.bytes),
            };
            self.latest_event = self.latest_event.max(event.created);
            put(self.events.make_mut(), event, |event| event.id);
        }
        for told in mutation.review.iter().filter(|told| told.id != 0) {
            let review = Review {
                id: told.id,
                actor: actor(told.actor_id),
                created: time(&told.created),
                told: span(told.bytes),
            };
            self.latest_event = self.latest_event.max(review.created);
            put(self.reviews.make_mut(), review, |review| review.id);
        }
        let as_of = |field: &mut Option<Timestamp>, told: &Option<borrowed::GithubIssueSyncStatus<'_>>| {
            if let Some(status) = told {
                set(field, &status.server_date);
            }
        };
        as_of(&mut self.comments_as_of, &mutation.comment_status);
        as_of(&mut self.events_as_of, &mutation.event_status);
        as_of(&mut self.reviews_as_of, &mutation.review_status);
    }
}

/// Where the one of that id is, or belongs.
fn place<T>(sorted: &[T], id: i64, id_of: impl Fn(&T) -> i64) -> Result<usize, usize> {
    // Most are newer than all before.
    match sorted.last().map(&id_of) {
        Some(last) if last >= id => sorted.binary_search_by_key(&id, id_of),
        _ => Err(sorted.len()),
    }
}

/// Takes in one whole; one of the same id goes.
fn put<T>(sorted: &mut Vec<T>, one: T, id_of: impl Fn(&T) -> i64 + Copy) {
    match place(sorted, id_of(&one), id_of) {
        Ok(at) => sorted[at] = one,
        Err(at) => sorted.insert(at, one),
    }
}

fn actor(id: i64) -> Option<UserId> {
    (id != 0).then_some(UserId(id))
}

pub(crate) fn time(told: &Option<borrowed::Timestamp<'_>>) -> Option<Timestamp> {
    let told = told.as_ref()?;
    let micros = told.seconds.saturating_mul(1_000_000);
    Some(Timestamp(
        micros.saturating_add(i64::from(told.nanos).div_euclid(1000)),
    ))
}

impl Stored for UserId {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn read(from: &mut Take) -> Option<UserId> {
        from.i64().map(UserId)
    }
}

impl Stored for Issue {
    fn put(&self, out: &mut Vec<u8>) {
        self.number.put(out);
        self.id.put(out);
        let flags = [self.not_exist, self.closed, self.locked, self.pull_request];
        out.push((0..).zip(flags).map(|(bit, flag)| u8::from(flag) << bit).sum());
        self.transferred_to.is_some().then_some(0_i32).put(out);
        if let Some((owner, name, number)) = &self.transferred_to {
            put_piece(out, owner.as_bytes());
            put_piece(out, name.as_bytes());
            number.put(out);
        }
        self.user.put(out);
        put_several(out, &self.assignees, |out, user| user.put(out));
        self.created.put(out);
        self.updated.put(out);
        self.closed_at.put(out);
        self.closed_by.put(out);
        put_piece(out, self.title.as_bytes());
        self.body.put(out);
        match self.milestone {
            MilestoneOf::Unknown => out.push(0),
            MilestoneOf::None => out.push(1),
            MilestoneOf::Id(id) => {
                out.push(2);
                id.put(out);
            }
        }
        put_several(out, &self.labels, |out, label| label.put(out));
        self.comments.put(out);
        self.events.put(out);
        self.reviews.put(out);
        self.comments_as_of.put(out);
        self.events_as_of.put(out);
        self.reviews_as_of.put(out);
        self.latest_event.put(out);
    }

    fn read(from: &mut Take) -> Option<Issue> {
        let (number, id) = (from.i32()?, from.i64()?);
        let mut issue = Issue::new(number, id);
        let flags = from.u8()?;
        [issue.not_exist, issue.closed, issue.locked, issue.pull_request] =
            [0, 1, 2, 3].map(|bit| flags >> bit & 1 > 0);
        if Option::<i32>::read(from)?.is_some() {
            issue.transferred_to = Some((from.text()?, from.text()?, from.i32()?));
        }
        issue.user = Option::read(from)?;
        issue.assignees = from.several(UserId::read)?;
        issue.created = Option::read(from)?;
        issue.updated = Option::read(from)?;
        issue.closed_at = Option::read(from)?;
        issue.closed_by = Option::read(from)?;
        issue.title = from.text()?.into();
        issue.body = Span::read(from)?;
        issue.milestone = match from.u8()? {
            0 => MilestoneOf::Unknown,
            1 => MilestoneOf::None,
            2 => MilestoneOf::Id(from.i64()?),
            _ => return None,
        };
        issue.labels = from.several(i64::read)?;
        issue.comments = List::read(from)?;
        issue.events = List::read(from)?;
        issue.reviews = List::read(from)?;
        issue.comments_as_of = Option::read(from)?;
        issue.events_as_of = Option::read(from)?;
        issue.reviews_as_of = Option::read(from)?;
        issue.latest_event = Option::read(from)?;
        Some(issue)
    }
}

impl Stored for Comment {
    fn put(&self, out: &mut Vec<u8>) {
        self.id.put(out);
        self.user.put(out);
        self.created.put(out);
        self.updated.put(out);
        self.body.put(out);
    }

    fn read(from: &mut Take) -> Option<Comment> {
        Some(Comment {
            id: from.i64()?,
            user: Option::read(from)?,
            created: Option::read(from)?,
            updated: Option::read(from)?,
            body: Span::read(from)?,
        })
    }
}

impl Stored for Event {
    fn put(&self, out: &mut Vec<u8>) {
        self.id.put(out);
        self.kind.number().put(out);
        self.actor.put(out);
        self.created.put(out);
        self.told.put(out);
    }

    fn read(from: &mut Take) -> Option<Event> {
        Some(Event {
            id: from.i64()?,
            kind: Name::new(from.u32()?),
            actor: Option::read(from)?,
            created: Option::read(from)?,
            told: Span::read(from)?,
        })
    }
}

impl Stored for Review {
    fn put(&self, out: &mut Vec<u8>) {
        self.id.put(out);
        self.actor.put(out);
        self.created.put(out);
        self.told.put(out);
    }

    fn read(from: &mut Take) -> Option<Review> {
        Some(Review {
            id: from.i64()?,
            actor: Option::read(from)?,
            created: Option::read(from)?,
            told: Span::read(from)?,
        })
    }
}

impl Comment {
    fn new(id: i64) -> Comment {
        Comment {
            id,
            user: None,
            created: None,
            updated: None,
            body: Span::default(),
        }
    }
}

impl Event {
    /// All that the log tells of it. `None`: the log was changed under us.
    pub fn details<T: Texts>(&self, texts: &T) -> Result<Option<maintpb::GithubIssueEvent>, T::Error> {
        let bytes = texts.read(self.told)?;
        Ok(borrowed::GithubIssueEvent::decode(&bytes)
            .ok()
            .map(|event| event.copied()))
    }
}

impl Review {
    /// All that the log tells of it. `None`: the log was changed under us.
    pub fn details<T: Texts>(&self, texts: &T) -> Result<Option<maintpb::GithubReview>, T::Error> {
        let bytes = texts.read(self.told)?;
        Ok(borrowed::GithubReview::decode(&bytes)
            .ok()
            .map(|review| review.copied()))
    }
}

/// A repository of GitHub, to be asked.
#[derive(Clone, Copy)]
pub struct RepoView<'a> {
    pub(crate) corpus: &'a Corpus,
    pub(crate) repo: &'a Repo,
}

impl<'a> RepoView<'a> {
    pub fn owner(self) -> &'a str {
        &self.repo.owner
    }

    pub fn name(self) -> &'a str {
        &self.repo.name
    }

    /// Those that the log says do not exist any more are among them.
    pub fn issue(self, number: i32) -> Option<IssueView<'a>> {
        let issue = self.repo.issues.get(u32::try_from(number).ok()?)?;
        Some(IssueView { repo: self, issue })
    }

    /// By number, ascending; also those that do not exist any more.
    pub fn issues(self) -> impl Iterator<Item = IssueView<'a>> {
        self.repo
            .issues
            .values()
            .map(move |issue| IssueView { repo: self, issue })
    }

    /// By id.
    pub fn labels(self) -> &'a BTreeMap<i64, Label> {
        &self.repo.labels
    }

    /// By id.
    pub fn milestones(self) -> &'a BTreeMap<i64, Milestone> {
        &self.repo.milestones
    }

    pub fn renamed_from(self) -> Option<&'a str> {
        self.repo.renamed_from.as_deref()
    }
}

/// An issue in its repository; has all the fields of [`Issue`].
#[derive(Clone, Copy)]
pub struct IssueView<'a> {
    pub repo: RepoView<'a>,
    pub(crate) issue: &'a Issue,
}

impl std::ops::Deref for IssueView<'_> {
    type Target = Issue;

    fn deref(&self) -> &Issue {
        self.issue
    }
}

impl<'a> IssueView<'a> {
    /// The issue itself, for as long as its corpus.
    pub fn issue(self) -> &'a Issue {
        self.issue
    }

    /// The name of a label that was deleted is empty.
    pub fn label_names(self) -> impl Iterator<Item = &'a str> {
        let labels = self.repo.labels();
        self.issue
            .labels
            .iter()
            .map(|id| labels.get(id).map_or("", |label| &label.name[..]))
    }

    pub fn has_label(self, name: &str) -> bool {
        self.label_names().any(|label| label == name)
    }

    /// Whether something of that kind ever happened to it.
    pub fn has_event(self, kind: &str) -> bool {
        let kind = self.repo.corpus.issues.names.find(kind.as_bytes());
        kind.is_some_and(|kind| self.issue.events.iter().any(|event| event.kind == kind))
    }

    pub fn body<T: Texts>(self, texts: &T) -> Result<String, T::Error> {
        texts.text(self.issue.body)
    }

    /// By time, then by id.
    pub fn comments_by_time(self) -> Vec<&'a Comment> {
        let mut comments: Vec<&Comment> = self.issue.comments.iter().collect();
        comments.sort_by_key(|comment| (comment.created, comment.id));
        comments
    }

    /// By time, then by id.
    pub fn events_by_time(self) -> Vec<&'a Event> {
        let mut events: Vec<&Event> = self.issue.events.iter().collect();
        events.sort_by_key(|event| (event.created, event.id));
        events
    }

    /// By time, then by id.
    pub fn reviews_by_time(self) -> Vec<&'a Review> {
        let mut reviews: Vec<&Review> = self.issue.reviews.iter().collect();
        reviews.sort_by_key(|review| (review.created, review.id));
        reviews
    }
}
