//! GitHub, asked again and again: what to ask next, and what the answers say that the log does not.
//!
//! [`Poll`] is a state machine without IO. A round asks for labels, milestones and the issues that changed
//! since the newest change known, oldest first, so that a round that dies has missed nothing before where
//! it was. Of each issue the comments, events and reviews are asked for before any of it is told, in one
//! mutation: a reader never sees half a change. Now and then a [full](Round::Full) round looks at all
//! issues, and finds what was deleted or moved elsewhere.
//!
//! Source: golang/build `maintner/github.go` for the fields and their rules.

mod differ;
mod known;
mod poll;
mod shell;

pub use known::Repo;
pub use poll::{Poll, Question, Round, Trouble};
pub use shell::{GitHub, GitHubError};
