//! What the coordinator decides, whole: what happened comes in, store writes and effects come out.
//!
//! Pure: no clock, socket, file or randomness. It puts the scheduler (who gets which machine) and
//! the runners (one per attempt) together with what must be durable before what. The coordinator's
//! shell commits [`Step::writes`] in one transaction and only then performs [`Step::effects`].
//! Start reading at [`Farm::handle`].

mod farm;
mod plan;
mod restored;
#[cfg(test)]
mod tests;
mod write;

pub use farm::{
    BACK_OFF, Effect, Farm, IDLE_LIMIT, Input, MOST_LOANS, RETRIES, Step, Ticket, WaitingLoan, Want,
    first_of_each,
};
pub use plan::plan;
pub use restored::{Restored, RestoredAttempt, RestoredBuild, RestoredStep};
pub use write::{Loan, MachineFacts, NewBuild, Write};
