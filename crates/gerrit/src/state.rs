use std::collections::{BTreeMap, BTreeSet};

use ids::{GitHash, Timestamp};

use crate::notedb::{AccountId, Edit, Person, Role, Status, Step};

/// What the steps of a change, taken in from the first on, make of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    pub owner: Option<AccountId>,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub status: Option<Status>,
    /// In full.
    pub branch: String,
    pub change_id: String,
    pub subject: String,
    /// Empty: none.
    pub topic: String,
    pub hashtags: BTreeSet<String>,
    pub private: bool,
    pub work_in_progress: bool,
    pub assignee: Option<AccountId>,
    /// By number.
    pub patch_sets: BTreeMap<u32, PatchSet>,
    pub messages: Vec<Message>,
    /// Reviewers and those who only get copies.
    pub people: BTreeMap<Person, Part>,
    /// All whose attention was ever asked for, or asked for no more.
    pub attention: BTreeMap<AccountId, Attention>,
    pub submission_id: Option<String>,
    pub submitted_by: Option<(AccountId, Timestamp)>,
    pub revert_of: Option<u32>,
    /// A change and a patch set.
    pub cherry_pick_of: Option<(u32, u32)>,
    pub custom_keyed_values: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchSet {
    pub commit: GitHash,
    pub uploader: Option<AccountId>,
    pub uploaded: Timestamp,
    /// Empty: none.
    pub description: String,
    /// By label and voter.
    pub votes: BTreeMap<(String, AccountId), Vote>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    /// Not 0.
    pub value: i16,
    pub copied: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub patch_set: u32,
    pub author: Option<AccountId>,
    /// Who really acted, if that is another.
    pub real_author: Option<AccountId>,
    pub time: Timestamp,
    pub tag: Option<String>,
    /// Accounts stand in it as `<GERRIT_ACCOUNT_5>`.
    pub text: String,
}

/// How somebody takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Reviewer,
    Cc,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attention {
    pub asked: bool,
    pub reason: String,
    pub since: Timestamp,
}

impl Change {
    /// Takes in the next step: who wrote it, and when. History counts, not time: many steps share one
    /// second.
    pub fn apply(&mut self, author: Option<AccountId>, time: Timestamp, step: &Step) {
        if self.owner.is_none() && self.created == Timestamp::default() {
            (self.owner, self.created) = (author, time);
        }
        self.updated = time;
        let mut real_author = None;
        for edit in &step.edits {
            if let Edit::Commit(commit) = edit {
                let patch_set = PatchSet {
                    commit: commit.clone(),
                    uploader: author,
                    uploaded: time,
                    description: String::new(),
                    votes: BTreeMap::new(),
                };
                self.patch_sets.insert(step.patch_set, patch_set);
            }
            if let Edit::RealUser(user) = edit {
                real_author = Some(*user);
            }
        }
        for edit in &step.edits {
            self.edit(author, time, step.patch_set, edit);
        }
        if let Some(text) = &step.message {
            self.messages.push(Message {
                patch_set: step.patch_set,
                author,
                real_author,
                time,
                tag: step.tag().map(str::to_owned),
                text: text.clone(),
            });
        }
    }

    fn edit(&mut self, author: Option<AccountId>, time: Timestamp, patch_set: u32, edit: &Edit) {
        match edit {
            Edit::Status(status) => {
                self.status = Some(*status);
                self.submitted_by = match (status, author) {
                    (Status::Merged, Some(author)) => Some((author, time)),
                    _ => None,
                };
            }
            Edit::Branch(branch) => self.branch.clone_from(branch),
            Edit::ChangeId(id) => self.change_id.clone_from(id),
            Edit::Subject(subject) => self.subject.clone_from(subject),
            Edit::Topic(topic) => self.topic.clone_from(topic),
            Edit::Description(text) => {
                if let Some(patch_set) = self.patch_sets.get_mut(&patch_set) {
                    patch_set.description.clone_from(text);
                }
            }
            Edit::Vote(vote) => {
                // What the server notes when it submits is nobody's vote.
                let known = self.patch_sets.get_mut(&patch_set);
                if let Some(patch_set) = known.filter(|_| vote.label != "SUBM")
                    && let Some(voter) = vote.voter.or(author)
                {
                    let key = (vote.label.clone(), voter);
                    match vote.value {
                        0 => patch_set.votes.remove(&key),
                        value => patch_set.votes.insert(
                            key,
                            Vote {
                                value,
                                copied: vote.copied,
                            },
                        ),
                    };
                }
            }
            Edit::Reviewer(role, person) => {
                match role {
                    Role::Reviewer => self.people.insert(person.clone(), Part::Reviewer),
                    Role::Cc => self.people.insert(person.clone(), Part::Cc),
                    Role::Removed => self.people.remove(person),
                };
            }
            Edit::Hashtags(tags) => self.hashtags.clone_from(tags),
            Edit::Attention(edit) => {
                let attention = Attention {
                    asked: edit.add,
                    reason: edit.reason.clone(),
                    since: time,
                };
                self.attention.insert(edit.account, attention);
            }
            Edit::Private(private) => self.private = *private,
            Edit::WorkInProgress(wip) => self.work_in_progress = *wip,
            Edit::Assignee(assignee) => self.assignee = *assignee,
            Edit::SubmissionId(id) => self.submission_id = Some(id.clone()),
            Edit::RevertOf(change) => self.revert_of = *change,
            Edit::CherryPickOf(change) => self.cherry_pick_of = *change,
            Edit::CustomKeyedValue(key, value) => {
                match value {
                    Some(value) => self.custom_keyed_values.insert(key.clone(), value.clone()),
                    None => self.custom_keyed_values.remove(key),
                };
            }
            // Of the step, not of the change; or told before.
            Edit::Commit(_)
            | Edit::Groups(_)
            | Edit::PatchSetState(_)
            | Edit::Current
            | Edit::Tag(_)
            | Edit::RealUser(_)
            | Edit::SubmittedWith(_) => {}
        }
    }
}
