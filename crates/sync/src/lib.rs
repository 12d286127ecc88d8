//! Closes the gap between the mutation log and the outside: what a server has and the log does not is
//! written to the log.
//!
//! [`Project`] is what the log knows of a project of Gerrit, as far as the sync must know it: a fold over
//! its mutations. [`Project::compare`] sets it against a listing of the server's refs, and [`Walk`] finds
//! the commits that are new. Both are pure. [`Gerrit`] drives them with git; it learns what it wrote by
//! reading it back, so what is known is what is logged, also after a restart. A round that finds nothing
//! new writes nothing.
//!
//! [`Mirrored`] does the same for a repository that somebody else fetches, [`Tree`] for one in a folder,
//! [`github`] for GitHub. All of them write to a [`Log`]. Start at [`Project`].

pub mod github;
mod known;
mod project;
mod round;
mod walk;

pub use known::Known;
pub use project::{Moved, Plan, Project};
pub use round::{Gerrit, Log, Mirrored, Round, SyncError, Tree};
pub use walk::{Found, Walk};
