//! What GitHub's REST API says, and who may ask it when.
//!
//! [`Answer`] reads what every answer says beside its body: where the next page is, how to ask whether it
//! changed, how much may still be asked. [`Budget`] is the one owner of what a token may ask. The
//! payloads, as far as the log wants them, are in [`model`]. All that is pure; [`Client`] asks.

mod answer;
mod budget;
mod client;
pub mod model;

pub use answer::Answer;
pub use budget::Budget;
pub use client::{AskError, Client};
