//! What an answer says and the log does not, as mutations.

use std::collections::BTreeSet;

use github::model::{self, Open, Time};
use maintpb::{
    BoolChange, GithubCommit, GithubDismissedReviewEvent, GithubIssueCommentMutation, GithubIssueEvent,
    GithubIssueMutation, GithubIssueSyncStatus, GithubLabel, GithubMilestone, GithubMutation, GithubReview,
    GithubTeam, GithubUser, StringChange, Timestamp,
};
use serde_json::Value;

use super::known::{Issue, Milestone, MilestoneOf, Repo, Sum, User};

pub(super) fn ts(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

pub(super) fn status(date: Option<i64>) -> Option<GithubIssueSyncStatus> {
    Some(GithubIssueSyncStatus {
        server_date: Some(ts(date?)),
    })
}

fn time(known: Option<i64>, found: Option<Time>) -> Option<Timestamp> {
    found
        .filter(|found| known != Some(found.0))
        .map(|found| ts(found.0))
}

fn user(found: &model::User) -> GithubUser {
    GithubUser {
        id: found.id,
        login: found.login.clone(),
    }
}

fn is_same(known: &User, found: &model::User) -> bool {
    known.id == found.id && known.login == found.login
}

/// The fields of an issue. `None`: all is known.
pub(super) fn issue(repo: &Repo, found: &model::Issue) -> Option<GithubIssueMutation> {
    let new = Issue::default();
    let listed = repo.issues.get(&found.number);
    let is_new = listed.is_none();
    let known = listed.unwrap_or(&new);
    let blank = place(repo, found);
    let mut told = GithubIssueMutation {
        created: time(known.created, Some(found.created_at)),
        updated: time(known.updated, Some(found.updated_at)),
        closed_at: time(known.closed_at, found.closed_at),
        ..blank.clone()
    };
    if let Some(found) = &found.user
        && !known.user.as_ref().is_some_and(|known| is_same(known, found))
    {
        told.user = Some(user(found));
    }
    let body = found.body.as_deref().unwrap_or_default();
    if is_new || Sum::of(body.as_bytes()) != known.body {
        told.body_change = Some(StringChange { val: body.to_owned() });
    }
    let title = found.title.as_deref().unwrap_or_default();
    if Sum::of(title.as_bytes()) != known.title {
        title.clone_into(&mut told.title);
    }
    match &found.milestone {
        None if known.milestone != MilestoneOf::None => told.no_milestone = true,
        Some(found) if known.milestone != MilestoneOf::Id(found.id) => {
            (told.milestone_id, told.milestone_num) = (found.id, found.number);
            told.milestone_title.clone_from(&found.title);
        }
        _ => {}
    }
    for assignee in &found.assignees {
        if !known.assignees.iter().any(|known| is_same(known, assignee)) {
            told.assignees.push(user(assignee));
        }
    }
    let is_there = |id: i64| found.assignees.iter().any(|found| found.id == id);
    told.deleted_assignees = known
        .assignees
        .iter()
        .map(|known| known.id)
        .filter(|id| !is_there(*id))
        .collect();
    let closed = found.state == "closed";
    if is_new || closed != known.closed {
        told.closed = Some(BoolChange { val: closed });
    }
    if found.locked != known.locked {
        told.locked = Some(BoolChange { val: found.locked });
    }
    let labels: BTreeSet<i64> = found.labels.iter().map(|label| label.id).collect();
    told.remove_label = known.labels.difference(&labels).copied().collect();
    let added = found
        .labels
        .iter()
        .filter(|label| !known.labels.contains(&label.id));
    told.add_label = added
        .map(|label| GithubLabel {
            id: label.id,
            name: label.name.clone(),
        })
        .collect();
    // One that was gone is told of as a whole, so that a reader has it again.
    (told != blank || known.not_exist).then_some(told)
}

/// A mutation of an issue that tells nothing yet.
pub(super) fn place(repo: &Repo, found: &model::Issue) -> GithubIssueMutation {
    GithubIssueMutation {
        pull_request: found.pull_request.is_some(),
        ..numbered(repo, found.number)
    }
}

pub(super) fn numbered(repo: &Repo, number: i32) -> GithubIssueMutation {
    GithubIssueMutation {
        owner: repo.owner.clone(),
        repo: repo.name.clone(),
        number,
        ..GithubIssueMutation::default()
    }
}

/// A comment that is new or was edited.
pub(super) fn comment(known: Option<&Issue>, found: &model::Comment) -> Option<GithubIssueCommentMutation> {
    let body = found.body.clone().unwrap_or_default();
    let Some(known) = known.and_then(|issue| issue.comments.get(&found.id)) else {
        return Some(GithubIssueCommentMutation {
            id: found.id,
            user: found.user.as_ref().map(user),
            body,
            created: Some(ts(found.created_at.0)),
            updated: Some(ts(found.updated_at.0)),
        });
    };
    let told = GithubIssueCommentMutation {
        id: found.id,
        // A body cannot be cleared by the log.
        body: if Sum::of(body.as_bytes()) == known.body {
            String::new()
        } else {
            body
        },
        updated: time(Some(known.updated), Some(found.updated_at)),
        ..GithubIssueCommentMutation::default()
    };
    (told.updated.is_some() || !told.body.is_empty()).then_some(told)
}

/// All labels of a repository; those that are known and not among them are deleted.
pub(super) fn labels(repo: &Repo, found: &[model::Label]) -> Option<GithubMutation> {
    let changed = found
        .iter()
        .filter(|found| repo.labels.get(&found.id) != Some(&found.name));
    let labels = changed.map(|found| GithubLabel {
        id: found.id,
        name: found.name.clone(),
    });
    let ids: BTreeSet<i64> = found.iter().map(|found| found.id).collect();
    let told = GithubMutation {
        labels: labels.collect(),
        deleted_labels: repo
            .labels
            .keys()
            .filter(|id| !ids.contains(id))
            .copied()
            .collect(),
        ..definitions(repo)
    };
    (told != definitions(repo)).then_some(told)
}

/// As [`labels`].
pub(super) fn milestones(repo: &Repo, found: &[model::Milestone]) -> Option<GithubMutation> {
    let milestone = |found: &model::Milestone| {
        let now = Milestone {
            title: found.title.clone(),
            number: found.number,
            closed: found.state == "closed",
        };
        let known = repo.milestones.get(&found.id);
        (known != Some(&now)).then_some(GithubMilestone {
            id: found.id,
            title: now.title,
            closed: Some(BoolChange { val: now.closed }),
            number: now.number,
        })
    };
    let ids: BTreeSet<i64> = found.iter().map(|found| found.id).collect();
    let told = GithubMutation {
        milestones: found.iter().filter_map(milestone).collect(),
        deleted_milestones: repo
            .milestones
            .keys()
            .filter(|id| !ids.contains(id))
            .copied()
            .collect(),
        ..definitions(repo)
    };
    (told != definitions(repo)).then_some(told)
}

fn definitions(repo: &Repo) -> GithubMutation {
    GithubMutation {
        owner: repo.owner.clone(),
        repo: repo.name.clone(),
        ..GithubMutation::default()
    }
}

fn number(value: &Value, path: &[&str]) -> i64 {
    path.iter()
        .fold(value, |value, key| &value[key])
        .as_i64()
        .unwrap_or(0)
}

fn text(value: &Value, path: &[&str]) -> String {
    let found = path.iter().fold(value, |value, key| &value[key]);
    found.as_str().unwrap_or_default().to_owned()
}

fn moment(value: &Value, key: &str) -> Option<Timestamp> {
    Time::parse(value[key].as_str()?).map(|time| ts(time.0))
}

/// The members that are in no field, as the original keeps them: without nulls, keys sorted.
fn others(mut open: Open, taken: &[&str]) -> Vec<u8> {
    open.retain(|key, value| !value.is_null() && !taken.contains(&&key[..]));
    match open.is_empty() {
        true => Vec::new(),
        false => serde_json::to_vec(&open).expect("JSON can be written"),
    }
}

/// `None`: it has no id.
pub(super) fn event(open: Open) -> Option<GithubIssueEvent> {
    const TAKEN: &[&str] = &[
        "id",
        "event",
        "actor",
        "created_at",
        "label",
        "milestone",
        "assignee",
        "assigner",
        "commit_id",
        "commit_url",
        "rename",
        "requested_reviewer",
        "review_requester",
        "dismissed_review",
        "requested_team",
        "url",
        "node_id",
        "lock_reason",
    ];
    let value = Value::Object(open);
    let there = |key: &str| !value[key].is_null();
    let event = GithubIssueEvent {
        id: number(&value, &["id"]),
        event_type: text(&value, &["event"]),
        actor_id: number(&value, &["actor", "id"]),
        created: moment(&value, "created_at"),
        label: there("label").then(|| GithubLabel {
            id: 0,
            name: text(&value, &["label", "name"]),
        }),
        milestone: there("milestone").then(|| GithubMilestone {
            title: text(&value, &["milestone", "title"]),
            ..GithubMilestone::default()
        }),
        assignee_id: number(&value, &["assignee", "id"]),
        assigner_id: number(&value, &["assigner", "id"]),
        commit: there("commit_id").then(|| {
            let url = text(&value, &["commit_url"]);
            let (owner, repo) = repo_of(&url).unwrap_or_default();
            GithubCommit {
                owner,
                repo,
                commit_id: text(&value, &["commit_id"]),
            }
        }),
        rename_from: text(&value, &["rename", "from"]),
        rename_to: text(&value, &["rename", "to"]),
        reviewer_id: number(&value, &["requested_reviewer", "id"]),
        review_requester_id: number(&value, &["review_requester", "id"]),
        dismissed_review: there("dismissed_review").then(|| GithubDismissedReviewEvent {
            review_id: number(&value, &["dismissed_review", "review_id"]),
            dismissal_message: text(&value, &["dismissed_review", "dismissal_message"]),
            state: text(&value, &["dismissed_review", "state"]),
        }),
        team_reviewer: there("requested_team").then(|| GithubTeam {
            id: number(&value, &["requested_team", "id"]),
            slug: text(&value, &["requested_team", "slug"]),
        }),
        other_json: Vec::new(),
    };
    let Value::Object(open) = value else { return None };
    (event.id != 0).then(|| GithubIssueEvent {
        other_json: others(open, TAKEN),
        ..event
    })
}

/// Owner and name in `https://api.github.com/repos/OWNER/NAME…`.
pub(super) fn repo_of(address: &str) -> Option<(String, String)> {
    let mut parts = address.split_once("/repos/")?.1.split('/');
    Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
}

/// `None`: it has no id, or is not submitted.
pub(super) fn review(open: Open) -> Option<GithubReview> {
    const TAKEN: &[&str] = &[
        "id",
        "body",
        "state",
        "commit_id",
        "user",
        "author_association",
        "submitted_at",
        "node_id",
        "html_url",
        "pull_request_url",
        "_links",
    ];
    let value = Value::Object(open);
    let review = GithubReview {
        id: number(&value, &["id"]),
        actor_id: number(&value, &["user", "id"]),
        created: moment(&value, "submitted_at"),
        body: text(&value, &["body"]),
        state: text(&value, &["state"]),
        commit_id: text(&value, &["commit_id"]),
        actor_association: text(&value, &["author_association"]),
        other_json: Vec::new(),
    };
    let Value::Object(open) = value else { return None };
    (review.id != 0 && review.created.is_some()).then(|| GithubReview {
        other_json: others(open, TAKEN),
        ..review
    })
}
