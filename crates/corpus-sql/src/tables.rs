//! The tables: what a row of each is, and what stands in its columns.

use std::io;

use corpus::{CommitView, IssueView, MilestoneOf, RepoView, Status, Texts};

use crate::cell::Cell;
use crate::item::{self, Item, Items, Only, Source, updated};

/// A kind of thing that the corpus knows, a row for each of them.
pub struct Table {
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    pub columns: &'static [Column],
    /// The column by which rows of one place are found without walking over all.
    pub(crate) place: Option<usize>,
    pub(crate) number: Option<usize>,
    pub(crate) commit: Option<usize>,
    pub(crate) items: for<'a> fn(&'a Source, &Only) -> Items<'a>,
}

pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    /// One line.
    pub about: &'static str,
    pub(crate) cell: fn(&Source, &Item<'_>) -> io::Result<Cell>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Int,
    /// 0 or 1.
    Bool,
    /// Text such as `2018-06-06T15:20:00Z`, in UTC.
    Time,
    /// Text that is JSON.
    Json,
}

impl Table {
    pub fn find(name: &str) -> Option<&'static Table> {
        TABLES.iter().find(|table| table.name == name)
    }
}

/// The rows of a table, one after the other.
pub fn rows<'a>(
    source: &'a Source,
    table: &'static Table,
    only: &Only,
) -> impl Iterator<Item = io::Result<Vec<Cell>>> + use<'a> {
    (table.items)(source, only).map(move |item| {
        let item = item?;
        let cells = table.columns.iter().map(|column| (column.cell)(source, &item));
        cells.collect()
    })
}

fn repo(repo: RepoView<'_>) -> String {
    format!("{}/{}", repo.owner(), repo.name())
}

fn state(issue: IssueView<'_>) -> &'static str {
    match (issue.not_exist, issue.closed) {
        (true, _) => "gone",
        (false, true) => "closed",
        (false, false) => "open",
    }
}

fn milestone(issue: IssueView<'_>) -> Option<&str> {
    let MilestoneOf::Id(id) = issue.milestone else {
        return None;
    };
    let milestone = issue.repo.milestones().get(&id)?;
    Some(&milestone.title)
}

fn status(status: Status) -> &'static str {
    match status {
        Status::New => "new",
        Status::Draft => "draft",
        Status::Merged => "merged",
        Status::Abandoned => "abandoned",
    }
}

fn json_list<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Cell {
    let texts: Vec<String> = texts.into_iter().map(Into::into).collect();
    Cell::Text(serde_json::Value::from(texts).to_string())
}

fn message(source: &Source, commit: Option<CommitView<'_>>) -> io::Result<String> {
    commit.map_or(Ok(String::new()), |commit| commit.message(&source.texts))
}

/// As the original finds it: the first line, wherever it stands.
fn change_id(message: &str) -> Option<&str> {
    let id = message
        .lines()
        .find_map(|line| line.strip_prefix("Change-Id:"))?
        .trim();
    (id.len() == 41 && id.starts_with('I')).then_some(id)
}

macro_rules! columns {
    ($source:ident, $item:pat => $($name:literal $kind:ident $about:literal $cell:expr;)*) => {
        &[$(Column {
            name: $name,
            kind: Kind::$kind,
            about: $about,
            cell: |$source, item| {
                let _ = $source;
                #[allow(unused_variables)]
                let $item = item else {
                    return Ok(Cell::Null);
                };
                Ok(Cell::from($cell))
            },
        }),*]
    };
}

/// All tables.
pub const TABLES: &[Table] = &[
    Table {
        name: "repos",
        about: "Repositories of GitHub",
        place: Some(0),
        number: None,
        commit: None,
        items: item::repos,
        columns: columns! { source, Item::Repo(repo) =>
            "repo" Text "`owner/name`" self::repo(*repo);
            "owner" Text "Whose it is" repo.owner();
            "name" Text "What it is called" repo.name();
            "renamed_from" Text "What it was called before" repo.renamed_from();
            "issues" Int "How many issues and pull requests of it exist" repo.issues().filter(|issue| !issue.not_exist).count();
            "open" Int "How many of these are open" repo.issues().filter(|issue| !issue.not_exist && !issue.closed).count();
        },
    },
    Table {
        name: "labels",
        about: "Labels that a repository has",
        place: Some(0),
        number: None,
        commit: None,
        items: item::labels,
        columns: columns! { source, Item::Label(repo, id, label) =>
            "repo" Text "The repository, `owner/name`" self::repo(*repo);
            "id" Int "GitHub's number" *id;
            "name" Text "Its name" &label.name[..];
        },
    },
    Table {
        name: "milestones",
        about: "Milestones that a repository has",
        place: Some(0),
        number: None,
        commit: None,
        items: item::milestones,
        columns: columns! { source, Item::Milestone(repo, id, milestone) =>
            "repo" Text "The repository, `owner/name`" self::repo(*repo);
            "id" Int "GitHub's number" *id;
            "number" Int "Its number in the repository" milestone.number;
            "title" Text "Its name" &milestone.title[..];
            "state" Text "`open` or `closed`" if milestone.closed { "closed" } else { "open" };
        },
    },
    Table {
        name: "issues",
        about: "Issues and pull requests",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::issues,
        columns: columns! { source, Item::Issue(issue) =>
            "repo" Text "The repository, `owner/name`" repo(issue.repo);
            "number" Int "Number of the issue or pull request" issue.number;
            "title" Text "Its title" &*issue.title;
            "state" Text "`open`, `closed`, or `gone`: deleted, or moved to another repository" state(*issue);
            "pull_request" Bool "Whether it is a pull request" issue.pull_request;
            "locked" Bool "Whether only members may comment" issue.locked;
            "author" Text "Login of who opened it" source.login(issue.user);
            "author_id" Int "GitHub's number of who opened it" issue.user.map(|user| user.0);
            "created" Time "When it was opened" issue.created;
            "updated" Time "When GitHub says that it changed" issue.updated;
            "closed_at" Time "When it was closed last, also if it was opened again" issue.closed_at;
            "closed_by" Text "Login of who closed it; GitHub seldom says" source.login(issue.closed_by);
            "milestone" Text "Title of its milestone" milestone(*issue);
            "labels" Json "Names of its labels" json_list(issue.label_names());
            "assignees" Json "Logins of who is to do it, in the order in which they were assigned" json_list(issue.assignees.iter().map(|user| source.login(Some(*user)).to_string()));
            "comments" Int "How many comments it has" issue.comments.len();
            "events" Int "How many events it has" issue.events.len();
            "reviews" Int "How many reviews it has" issue.reviews.len();
            "last_modified" Time "When it, an event or a review of it changed last" issue.last_modified();
            "moved_to" Text "Where it was moved, `owner/name#number`" issue.transferred_to.as_ref().map(|(owner, name, number)| format!("{owner}/{name}#{number}"));
            "id" Int "GitHub's number for all repositories; 0 if the log does not say, which is usual" issue.id;
            "body" Text "What was written on opening it" issue.body(&source.texts)?;
        },
    },
    Table {
        name: "issue_labels",
        about: "A row for each label of each issue",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::issue_labels,
        columns: columns! { source, Item::IssueLabel(issue, id, name) =>
            "repo" Text "The repository, `owner/name`" repo(issue.repo);
            "number" Int "Number of the issue or pull request" issue.number;
            "label" Text "Name of the label; empty if the label was deleted" *name;
            "label_id" Int "GitHub's number of the label" *id;
        },
    },
    Table {
        name: "issue_assignees",
        about: "A row for each assignee of each issue",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::assignees,
        columns: columns! { source, Item::Assignee(issue, user) =>
            "repo" Text "The repository, `owner/name`" repo(issue.repo);
            "number" Int "Number of the issue or pull request" issue.number;
            "login" Text "Login of who is to do it" source.login(Some(*user));
            "user_id" Int "GitHub's number of the user" user.0;
        },
    },
    Table {
        name: "comments",
        about: "Comments on issues and pull requests",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::comments,
        columns: columns! { source, Item::Comment(issue, comment) =>
            "repo" Text "The repository, `owner/name`" repo(issue.repo);
            "number" Int "Number of the issue or pull request" issue.number;
            "id" Int "GitHub's number" comment.id;
            "author" Text "Login of who wrote it" source.login(comment.user);
            "author_id" Int "GitHub's number of who wrote it" comment.user.map(|user| user.0);
            "created" Time "When it was written" comment.created;
            "updated" Time "When it was edited last" comment.updated;
            "body" Text "What it says" source.texts.text(comment.body)?;
        },
    },
    Table {
        name: "events",
        about: "What happened to issues and pull requests",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::events,
        columns: columns! { source, Item::Event(issue, event) =>
            "repo" Text "The repository, `owner/name`" repo(issue.repo);
            "number" Int "Number of the issue or pull request" issue.number;
            "id" Int "GitHub's number" event.id;
            "kind" Text "`labeled`, `closed`, `mentioned` …" source.corpus.kind(event);
            "actor" Text "Login of who did it" source.login(event.actor);
            "actor_id" Int "GitHub's number of who did it" event.actor.map(|user| user.0);
            "created" Time "When it happened" event.created;
            "label" Text "The label that came or went" event.details(&source.texts)?.and_then(|told| told.label).map(|label| label.name);
            "milestone" Text "The milestone that came or went" event.details(&source.texts)?.and_then(|told| told.milestone).map(|milestone| milestone.title);
            "assignee" Text "Login of who was assigned, or is not any more" event.details(&source.texts)?.map(|told| source.login_of(told.assignee_id));
            "assigner" Text "Login of who said so" event.details(&source.texts)?.map(|told| source.login_of(told.assigner_id));
            "rename_from" Text "The title before" event.details(&source.texts)?.map(|told| told.rename_from).filter(|name| !name.is_empty());
            "rename_to" Text "The title after" event.details(&source.texts)?.map(|told| told.rename_to).filter(|name| !name.is_empty());
            "commit_hash" Text "The commit that closed or named it" event.details(&source.texts)?.and_then(|told| told.commit).map(|commit| commit.commit_id);
            "reviewer" Text "Login of who was asked for a review" event.details(&source.texts)?.map(|told| source.login_of(told.reviewer_id));
            "review_requester" Text "Login of who asked for the review" event.details(&source.texts)?.map(|told| source.login_of(told.review_requester_id));
            "team" Text "The team that was asked for a review" event.details(&source.texts)?.and_then(|told| told.team_reviewer).map(|team| team.slug);
            "dismissed_review" Int "GitHub's number of the review that was dismissed" event.details(&source.texts)?.and_then(|told| told.dismissed_review).map(|review| review.review_id);
            "other" Json "All else that GitHub says of it" event.details(&source.texts)?.map(|told| String::from_utf8_lossy(&told.other_json).into_owned()).filter(|json| !json.is_empty());
        },
    },
    Table {
        name: "reviews",
        about: "Reviews of pull requests",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::reviews,
        columns: columns! { source, Item::Review(issue, review) =>
            "repo" Text "The repository, `owner/name`" repo(issue.repo);
            "number" Int "Number of the issue or pull request" issue.number;
            "id" Int "GitHub's number" review.id;
            "actor" Text "Login of who reviewed" source.login(review.actor);
            "actor_id" Int "GitHub's number of who reviewed" review.actor.map(|user| user.0);
            "created" Time "When" review.created;
            "state" Text "`APPROVED`, `CHANGES_REQUESTED`, `COMMENTED` …" review.details(&source.texts)?.map(|told| told.state);
            "commit_hash" Text "The commit that was looked at" review.details(&source.texts)?.map(|told| told.commit_id);
            "association" Text "What the reviewer is to the repository" review.details(&source.texts)?.map(|told| told.actor_association);
            "body" Text "What the review says" review.details(&source.texts)?.map(|told| told.body);
            "other" Json "All else that GitHub says of it" review.details(&source.texts)?.map(|told| String::from_utf8_lossy(&told.other_json).into_owned()).filter(|json| !json.is_empty());
        },
    },
    Table {
        name: "users",
        about: "Users of GitHub whose login the log tells",
        place: None,
        number: None,
        commit: None,
        items: item::users,
        columns: columns! { source, Item::Named(id, name) =>
            "id" Int "GitHub's number" *id;
            "login" Text "The login, as of last" &name[..];
        },
    },
    Table {
        name: "teams",
        about: "Teams of GitHub",
        place: None,
        number: None,
        commit: None,
        items: item::teams,
        columns: columns! { source, Item::Named(id, name) =>
            "id" Int "GitHub's number" *id;
            "slug" Text "The team's name in URLs" &name[..];
        },
    },
    Table {
        name: "projects",
        about: "Projects of Gerrit, and other git repositories",
        place: Some(0),
        number: None,
        commit: None,
        items: item::projects,
        columns: columns! { source, Item::Project(project) =>
            "project" Text "`host/name`" project.key;
            "changes" Int "How many changes it has, without those of which the log tells too little" project.changes().count();
            "open" Int "How many are new, and neither private nor deleted" project.open_changes().count();
        },
    },
    Table {
        name: "refs",
        about: "Branches, tags and other refs of a project, without those of changes",
        place: Some(0),
        number: None,
        commit: None,
        items: item::refs,
        columns: columns! { source, Item::Ref(project, name, commit) =>
            "project" Text "The project, `host/name`" project.key;
            "name" Text "In full: `refs/heads/master`; or `HEAD`" *name;
            "commit_hash" Text "Where it is" commit.hash().to_string();
        },
    },
    Table {
        name: "changes",
        about: "Changes of Gerrit",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::changes,
        columns: columns! { source, Item::Change(change) =>
            "project" Text "The project, `host/name`" change.project.key;
            "number" Int "Number of the change" change.number;
            "subject" Text "First paragraph of the newest patch set's message" change.subject(&source.texts)?;
            "status" Text "`new`, `draft`, `merged` or `abandoned`" status(change.status);
            "branch" Text "Where it is to go, without `refs/heads/`" change.branch_name();
            "owner" Text "Who made it: author of the first patch set, `Name <email>`" change.patch_set(1).map(|first| first.author().0);
            "owner_account" Int "Gerrit's number of who made it" change.owner_id();
            "patch_set" Int "Number of the newest patch set" change.newest().map(|(number, _)| number);
            "commit_hash" Text "Its commit" change.commit().map(|commit| commit.hash().to_string());
            "created" Time "When it was made" change.created;
            "updated" Time "When something happened to it last" updated(*change);
            "private" Bool "Whether only some may see it" change.private;
            "work_in_progress" Bool "Whether its owner still works on it" change.work_in_progress;
            "deleted" Bool "Whether the server has it no more" change.deleted;
            "topic" Text "Its topic" Some(change.topic(&source.texts)?).filter(|topic| !topic.is_empty());
            "hashtags" Json "Its hashtags" json_list(change.hashtags(&source.texts)?);
            "change_id" Text "`I` and 40 digits, from the newest message" change_id(&message(source, change.commit())?);
            "steps" Int "How many steps its history has" change.metas.len();
            "message" Text "The newest patch set's message" message(source, change.commit())?;
        },
    },
    Table {
        name: "patch_sets",
        about: "Patch sets of changes",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::patch_sets,
        columns: columns! { source, Item::PatchSet(change, number, commit) =>
            "project" Text "The project, `host/name`" change.project.key;
            "number" Int "Number of the change" change.number;
            "patch_set" Int "Its number, from 1" *number;
            "commit_hash" Text "Its commit" commit.hash().to_string();
            "author" Text "`Name <email>`" commit.author().0;
            "committed" Time "When its commit was made" commit.commit_time();
        },
    },
    Table {
        name: "steps",
        about: "What happened to changes: a row for each commit of their histories",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::steps,
        columns: columns! { source, Item::Step(change, at, commit, meta) =>
            "project" Text "The project, `host/name`" change.project.key;
            "number" Int "Number of the change" change.number;
            "step" Int "From 0, oldest first" *at;
            "commit_hash" Text "The commit of the history" commit.hash().to_string();
            "account" Text "Who did it, `account@server`" &meta.author[..];
            "time" Time "When" meta.time;
            "patch_set" Int "The patch set it is about" meta.patch_set();
            "tag" Text "What did it, such as `autogenerated:gerrit:merged`" meta.footer("Tag");
            "text" Text "The whole message with its footers" &meta.text[..];
        },
    },
    Table {
        name: "messages",
        about: "What was said about changes",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::messages,
        columns: columns! { source, Item::Message(change, message) =>
            "project" Text "The project, `host/name`" change.project.key;
            "number" Int "Number of the change" change.number;
            "patch_set" Int "The patch set it is about" message.patch_set;
            "account" Text "Who said it, `account@server`" &message.author[..];
            "time" Time "When" message.time;
            "text" Text "What was said" &message.text[..];
        },
    },
    Table {
        name: "votes",
        about: "Votes on changes that hold",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::votes,
        columns: columns! { source, Item::Vote(change, label, voter, vote) =>
            "project" Text "The project, `host/name`" change.project.key;
            "number" Int "Number of the change" change.number;
            "label" Text "On what: `Code-Review` …" &label[..];
            "voter" Text "Who, `account@server`" &voter[..];
            "value" Int "What was voted" i32::from(vote.value);
            "copied" Bool "Whether it was given to an earlier patch set" vote.copied;
        },
    },
    Table {
        name: "reviewers",
        about: "Who reviews a change, or gets the mails about it",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::reviewers,
        columns: columns! { source, Item::Reviewer(change, who, part) =>
            "project" Text "The project, `host/name`" change.project.key;
            "number" Int "Number of the change" change.number;
            "person" Text "`account@server`, or an address" &who[..];
            "part" Text "`reviewer` or `cc`" match part { corpus::Part::Reviewer => "reviewer", corpus::Part::Cc => "cc" };
        },
    },
    Table {
        name: "attention",
        about: "Whose turn it is with a change",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::attention,
        columns: columns! { source, Item::Turn(change, who, turn) =>
            "project" Text "The project, `host/name`" change.project.key;
            "number" Int "Number of the change" change.number;
            "person" Text "`account@server`" &who[..];
            "since" Time "Since when" turn.since;
            "reason" Text "Why" &turn.reason[..];
        },
    },
    Table {
        name: "hashtags",
        about: "A row for each hashtag of each change",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::hashtags,
        columns: columns! { source, Item::Hashtag(change, tag) =>
            "project" Text "The project, `host/name`" change.project.key;
            "number" Int "Number of the change" change.number;
            "hashtag" Text "Its text" &tag[..];
        },
    },
    Table {
        name: "change_issues",
        about: "The issues that the newest message of a change names",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::issue_refs,
        columns: columns! { source, Item::IssueRef(change, repo, issue) =>
            "project" Text "The project, `host/name`" change.project.key;
            "number" Int "Number of the change" change.number;
            "repo" Text "Repository of the issue, in lower case" &repo[..];
            "issue" Int "Number of the issue" *issue;
        },
    },
    Table {
        name: "inline_comments",
        about: "Comments on lines, where whoever wrote the log fetched them",
        place: Some(0),
        number: Some(1),
        commit: None,
        items: item::inline_comments,
        columns: columns! { source, Item::Inline(change, hash, comment) =>
            "project" Text "The project, `host/name`" change.project.key;
            "number" Int "Number of the change" change.number;
            "patch_set" Int "The patch set" comment["key"]["patchSetId"].as_i64();
            "commit_hash" Text "Its commit" hash.to_string();
            "file" Text "The file" comment["key"]["filename"].as_str();
            "line" Int "The line; 0 or nothing for the file" comment["lineNbr"].as_i64();
            "account" Int "Gerrit's number of who wrote it" comment["author"]["id"].as_i64();
            "written" Text "When, as Gerrit spells it" comment["writtenOn"].as_str();
            "unresolved" Bool "Whether it waits for an answer" comment["unresolved"].as_bool();
            "uuid" Text "Gerrit's name of it" comment["key"]["uuid"].as_str();
            "parent" Text "The one that it answers" comment["parentUuid"].as_str();
            "message" Text "What it says" comment["message"].as_str();
        },
    },
    Table {
        name: "commits",
        about: "Commits: of branches, of patch sets and of the histories of changes",
        place: None,
        number: None,
        commit: Some(0),
        items: item::commits,
        columns: columns! { source, Item::Commit(commit) =>
            "hash" Text "40 digits" commit.hash().to_string();
            "known" Bool "Whether the log tells more of it than its name" commit.is_known();
            "author" Text "Name of who wrote it" commit.author().name();
            "author_email" Text "Address of who wrote it" commit.author().email();
            "author_time" Time "When it was written" commit.is_known().then(|| commit.author_time());
            "committer" Text "Name of who made the commit" commit.committer().name();
            "committer_email" Text "Address of who made the commit" commit.committer().email();
            "commit_time" Time "When the commit was made" commit.is_known().then(|| commit.commit_time());
            "parents" Int "How many parents it has" commit.parents().count();
            "subject" Text "First line of the message" commit.text(&source.texts)?.map(|text| text.summary());
            "tree" Text "Its tree" commit.text(&source.texts)?.and_then(|text| text.tree).map(|tree| tree.to_string());
            "message" Text "The whole message" commit.text(&source.texts)?.map(|text| text.text().into_owned());
        },
    },
    Table {
        name: "commit_parents",
        about: "A row for each parent of each commit",
        place: None,
        number: None,
        commit: Some(0),
        items: item::parents,
        columns: columns! { source, Item::Parent(commit, at, parent) =>
            "hash" Text "The commit" commit.hash().to_string();
            "position" Int "From 0, first parent first" *at;
            "parent" Text "The parent" parent.hash().to_string();
        },
    },
    Table {
        name: "commit_files",
        about: "The files that a commit changed; none for root and merge commits",
        place: None,
        number: None,
        commit: Some(0),
        items: item::files,
        columns: columns! { source, Item::File(commit, file) =>
            "hash" Text "The commit" commit.hash().to_string();
            "file" Text "Its path, as git prints it" &file.name[..];
            "added" Int "Lines added" file.added;
            "deleted" Int "Lines deleted" file.deleted;
            "binary" Bool "Whether it is no text" file.binary;
        },
    },
];
