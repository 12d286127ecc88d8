//! The messages as views of the bytes they were read from. Reading copies no text.
//!
//! A later value of a field replaces an earlier one, and messages are merged, as the encoding wants.
//! A field of another wire type than its own is taken for an unknown one.
//!
//! Differs: generated readers of Rust refuse a wrong wire type and text that is no UTF-8. The
//! original's skips the one, and its old writers checked the other nowhere, so here are both read.

use std::borrow::Cow;
use std::fmt;

use crate::wire::{Fields, Malformed, Value};

/// A field of type string. Meant to be UTF-8; not always so.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Text<'a>(pub &'a [u8]);

impl<'a> Text<'a> {
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// What is no UTF-8 is replaced.
    pub fn lossy(self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.0)
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.lossy(), f)
    }
}

/// A message that borrows.
pub trait View<'a>: Default {
    /// The same message with its own copies.
    type Owned;

    fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut view = Self::default();
        view.merge(bytes)?;
        Ok(view)
    }

    fn merge(&mut self, bytes: &'a [u8]) -> Result<(), Malformed>;

    fn merge_field(&mut self, number: u32, value: Value<'a>) -> Result<(), Malformed>;

    fn copied(&self) -> Self::Owned;
}

macro_rules! views {
    ($($name:ident<$life:lifetime> { $($number:literal $field:ident: $kind:ty,)* })*) => {$(
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name<$life> {
            $(pub $field: $kind,)*
            /// The message's own bytes; of one that came in pieces, the last piece.
            pub bytes: &$life [u8],
        }

        impl<$life> View<$life> for $name<$life> {
            type Owned = crate::$name;

            fn merge(&mut self, bytes: &$life [u8]) -> Result<(), Malformed> {
                self.bytes = bytes;
                let mut fields = Fields::new(bytes);
                while let Some((number, value)) = fields.next()? {
                    self.merge_field(number, value)?;
                }
                Ok(())
            }

            #[inline]
            fn merge_field(&mut self, number: u32, value: Value<$life>) -> Result<(), Malformed> {
                match number {
                    $($number => self.$field.merge_value(value),)*
                    _ => Ok(()),
                }
            }

            fn copied(&self) -> crate::$name {
                crate::$name { $($field: self.$field.owned(),)* }
            }
        }
    )*};
}

views! {
    Mutation<'a> {
        1 github_issue: Option<GithubIssueMutation<'a>>,
        2 git: Option<GitMutation<'a>>,
        3 github: Option<GithubMutation<'a>>,
        4 gerrit: Option<GerritMutation<'a>>,
        1000 redaction: Option<Redaction<'a>>,
        1001 observed_at: Option<Timestamp<'a>>,
    }
    Timestamp<'a> {
        1 seconds: i64,
        2 nanos: i32,
    }
    Redaction<'a> {
        1 segment: i32,
        2 offset: i64,
        3 reason: Text<'a>,
    }
    GithubMutation<'a> {
        1 owner: Text<'a>,
        2 repo: Text<'a>,
        3 labels: Vec<GithubLabel<'a>>,
        4 milestones: Vec<GithubMilestone<'a>>,
        1001 deleted_labels: Vec<i64>,
        1002 deleted_milestones: Vec<i64>,
        1003 renamed_from: Text<'a>,
    }
    GithubIssueMutation<'a> {
        1 owner: Text<'a>,
        2 repo: Text<'a>,
        3 number: i32,
        4 user: Option<GithubUser<'a>>,
        5 created: Option<Timestamp<'a>>,
        6 updated: Option<Timestamp<'a>>,
        7 body: Text<'a>,
        8 comment: Vec<GithubIssueCommentMutation<'a>>,
        9 title: Text<'a>,
        10 assignees: Vec<GithubUser<'a>>,
        11 deleted_assignees: Vec<i64>,
        12 id: i64,
        13 not_exist: bool,
        14 comment_status: Option<GithubIssueSyncStatus<'a>>,
        15 no_milestone: bool,
        16 milestone_id: i64,
        17 milestone_num: i64,
        18 milestone_title: Text<'a>,
        19 closed: Option<BoolChange<'a>>,
        21 closed_at: Option<Timestamp<'a>>,
        22 closed_by: Option<GithubUser<'a>>,
        23 remove_label: Vec<i64>,
        24 add_label: Vec<GithubLabel<'a>>,
        25 locked: Option<BoolChange<'a>>,
        26 event: Vec<GithubIssueEvent<'a>>,
        27 event_status: Option<GithubIssueSyncStatus<'a>>,
        28 pull_request: bool,
        29 review: Vec<GithubReview<'a>>,
        30 review_status: Option<GithubIssueSyncStatus<'a>>,
        31 body_change: Option<StringChange<'a>>,
        1001 deleted_comments: Vec<i64>,
        1002 transferred_to: Option<IssuePlace<'a>>,
        1003 labels_snapshot_complete: bool,
    }
    IssuePlace<'a> {
        1 owner: Text<'a>,
        2 repo: Text<'a>,
        3 number: i32,
    }
    BoolChange<'a> {
        1 val: bool,
    }
    StringChange<'a> {
        1 val: Text<'a>,
    }
    GithubLabel<'a> {
        1 id: i64,
        2 name: Text<'a>,
    }
    GithubMilestone<'a> {
        1 id: i64,
        2 title: Text<'a>,
        3 closed: Option<BoolChange<'a>>,
        4 number: i64,
    }
    GithubUser<'a> {
        1 id: i64,
        2 login: Text<'a>,
    }
    GithubTeam<'a> {
        1 id: i64,
        2 slug: Text<'a>,
    }
    GithubCommit<'a> {
        1 owner: Text<'a>,
        2 repo: Text<'a>,
        3 commit_id: Text<'a>,
    }
    GithubIssueSyncStatus<'a> {
        1 server_date: Option<Timestamp<'a>>,
    }
    GithubIssueCommentMutation<'a> {
        1 id: i64,
        2 user: Option<GithubUser<'a>>,
        3 body: Text<'a>,
        4 created: Option<Timestamp<'a>>,
        5 updated: Option<Timestamp<'a>>,
    }
    GithubIssueEvent<'a> {
        1 id: i64,
        2 event_type: Text<'a>,
        3 actor_id: i64,
        4 created: Option<Timestamp<'a>>,
        5 label: Option<GithubLabel<'a>>,
        6 milestone: Option<GithubMilestone<'a>>,
        7 assignee_id: i64,
        8 assigner_id: i64,
        9 commit: Option<GithubCommit<'a>>,
        10 other_json: &'a [u8],
        11 rename_from: Text<'a>,
        12 rename_to: Text<'a>,
        13 reviewer_id: i64,
        14 review_requester_id: i64,
        15 dismissed_review: Option<GithubDismissedReviewEvent<'a>>,
        16 team_reviewer: Option<GithubTeam<'a>>,
    }
    GithubDismissedReviewEvent<'a> {
        1 review_id: i64,
        3 dismissal_message: Text<'a>,
        4 state: Text<'a>,
    }
    GithubReview<'a> {
        1 id: i64,
        2 actor_id: i64,
        3 created: Option<Timestamp<'a>>,
        4 body: Text<'a>,
        5 state: Text<'a>,
        6 commit_id: Text<'a>,
        7 actor_association: Text<'a>,
        8 other_json: &'a [u8],
    }
    GitMutation<'a> {
        1 repo: Option<GitRepo<'a>>,
        2 commit: Option<GitCommit<'a>>,
    }
    GitRepo<'a> {
        1 go_repo: Text<'a>,
    }
    GitCommit<'a> {
        1 sha1: Text<'a>,
        2 raw: &'a [u8],
        3 diff_tree: Option<GitDiffTree<'a>>,
    }
    GitDiffTree<'a> {
        1 file: Vec<GitDiffTreeFile<'a>>,
    }
    GitDiffTreeFile<'a> {
        1 file: Text<'a>,
        2 added: i64,
        3 deleted: i64,
        4 binary: bool,
    }
    GerritMutation<'a> {
        1 project: Text<'a>,
        2 commits: Vec<GitCommit<'a>>,
        3 refs: Vec<GitRef<'a>>,
        4 deleted_refs: Vec<Text<'a>>,
        1001 inline_comments: Vec<GerritInlineComment<'a>>,
        1002 deleted_change_refs: Vec<Text<'a>>,
    }
    GitRef<'a> {
        1 r#ref: Text<'a>,
        2 sha1: Text<'a>,
    }
    GerritInlineComment<'a> {
        1 cl: i32,
        2 revision: Text<'a>,
        3 json: &'a [u8],
    }
}

impl<'a> Mutation<'a> {
    /// As [`View::decode`], of the fields with these numbers alone; what others hold is not looked at.
    pub fn decode_fields(bytes: &'a [u8], wanted: impl Fn(u32) -> bool) -> Result<Mutation<'a>, Malformed> {
        let mut mutation = Mutation {
            bytes,
            ..Mutation::default()
        };
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            if wanted(number) {
                mutation.merge_field(number, value)?;
            }
        }
        Ok(mutation)
    }
}

/// What a field of a view can be.
trait FieldValue<'a> {
    type Owned;

    fn merge_value(&mut self, value: Value<'a>) -> Result<(), Malformed>;

    fn owned(&self) -> Self::Owned;
}

/// Fields of plain values: which wire value makes one, and its copy.
macro_rules! plain {
    ($($kind:ty, $wire:ident($value:ident) => $made:expr, $owned:ty, $view:ident => $copy:expr;)*) => {$(
        impl<'a> FieldValue<'a> for $kind {
            type Owned = $owned;

            #[inline]
            fn merge_value(&mut self, value: Value<'a>) -> Result<(), Malformed> {
                if let Value::$wire($value) = value {
                    *self = $made;
                }
                Ok(())
            }

            fn owned(&self) -> $owned {
                let $view = self;
                $copy
            }
        }
    )*};
}

plain! {
    i64, Varint(bits) => bits.cast_signed(), i64, own => *own;
    // Of more than 32 bits, the low ones.
    i32, Varint(bits) => bits as i32, i32, own => *own;
    bool, Varint(bits) => bits != 0, bool, own => *own;
    Text<'a>, Bytes(bytes) => Text(bytes), String, text => text.lossy().into_owned();
    &'a [u8], Bytes(bytes) => bytes, Vec<u8>, bytes => bytes.to_vec();
}

impl<'a, V: View<'a>> FieldValue<'a> for Option<V> {
    type Owned = Option<V::Owned>;

    #[inline]
    fn merge_value(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        match value {
            Value::Bytes(bytes) => self.get_or_insert_default().merge(bytes),
            Value::Varint(_) | Value::Other => Ok(()),
        }
    }

    fn owned(&self) -> Option<V::Owned> {
        self.as_ref().map(V::copied)
    }
}

impl<'a, V: View<'a>> FieldValue<'a> for Vec<V> {
    type Owned = Vec<V::Owned>;

    #[inline]
    fn merge_value(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        if let Value::Bytes(bytes) = value {
            self.push(V::decode(bytes)?);
        }
        Ok(())
    }

    fn owned(&self) -> Vec<V::Owned> {
        self.iter().map(V::copied).collect()
    }
}

impl<'a> FieldValue<'a> for Vec<Text<'a>> {
    type Owned = Vec<String>;

    fn merge_value(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        if let Value::Bytes(bytes) = value {
            self.push(Text(bytes));
        }
        Ok(())
    }

    fn owned(&self) -> Vec<String> {
        self.iter().map(FieldValue::owned).collect()
    }
}

/// Packed or one by one, whatever the writer did.
impl<'a> FieldValue<'a> for Vec<i64> {
    type Owned = Vec<i64>;

    fn merge_value(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        match value {
            Value::Varint(bits) => self.push(bits.cast_signed()),
            Value::Bytes(packed) => {
                let mut packed = Fields::new(packed);
                while !packed.is_empty() {
                    self.push(packed.varint()?.cast_signed());
                }
            }
            Value::Other => {}
        }
        Ok(())
    }

    fn owned(&self) -> Vec<i64> {
        self.clone()
    }
}
