//! The identifiers, names and times that every other crate speaks in.
//!
//! Pure: each type is parsed once, at the edge, and cannot be wrong after. No type here knows
//! where it is stored or how it travels.

mod hash;
mod limits;
mod name;
mod number;
mod time;

pub use hash::{BadHash, GitHash};
pub use limits::Limits;
pub use name::{BadName, BranchName, BuilderName, HostType, MachineId, RecipeName, RepoName};
pub use number::{AttemptId, BadNumber, BuildId, LoanId, StepId};
pub use time::{Now, Timestamp};
