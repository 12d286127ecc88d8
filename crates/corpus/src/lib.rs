//! All that the mutation log says, in memory: issues, changes, commits and who did what.
//!
//! The corpus is a fold: [`Corpus::apply`] takes one mutation after another and has no other input, so
//! the same log gives the same corpus. It holds what queries ask for; long texts stay in the log, and
//! are found again by their [`Span`] through [`Texts`]. A clone is cheap and never changes: a writer
//! applies a batch, calls [`Corpus::finish`] and hands out a clone, and readers wait for nobody.
//!
//! ```no_run
//! # fn show(corpus: &corpus::Corpus, log: &mutlog::LogReader) -> std::io::Result<()> {
//! let go = corpus.repo("golang", "go").expect("the repository is in the log");
//! for issue in go.issues().filter(|issue| !issue.closed && issue.has_label("release-blocker")) {
//!     println!("#{} {} {}", issue.number, issue.title, issue.comments.len());
//! }
//! let project = corpus.project("go.googlesource.com/go").expect("the project is in the log");
//! for change in project.open_changes() {
//!     println!("{} {} {:?}", change.number, change.subject(log)?, change.votes(log)?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Start at [`Corpus`]. Facts are those of golang/build `maintner/{git,github,gerrit}.go`, of 2023
//! unless said; where the original errs, [`original`] has its reading.

mod apply;
mod change;
mod changed;
mod clock;
mod commit;
mod digest;
mod gerrit;
mod git;
mod github;
mod names;
mod notedb;
pub mod original;
mod people;
mod shared;
pub mod snapshot;
mod stored;
mod text;

pub use self::notedb::{Message, Meta, Vote};
pub use apply::{Code, Corpus, Issues, Trouble};
pub use change::{ChangeView, MetaView, ProjectView};
pub use changed::{ChangeName, Changed, IssueName, RefName};
pub use clock::seen_at;
pub use commit::{BadCommit, CommitText, FileStat, Person};
pub use digest::{dump, summary};
pub use gerrit::{Change, Status};
pub use git::{CommitId, CommitView, Hash};
pub use github::{Comment, Event, Issue, IssueView, Label, Milestone, MilestoneOf, RepoView, Review, UserId};
pub use ids::Timestamp;
pub use mutlog::Span;
pub use people::{Attention, Part};
pub use stored::{List, Stored, Take};
pub use text::Texts;
