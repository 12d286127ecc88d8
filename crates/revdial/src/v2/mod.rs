//! Version 2: control messages as JSON lines, data on connections of their own.
//!
//! A control message is one JSON object on one line, at most [`LINE_LIMIT`] bytes with its
//! newline, with the optional string fields `command`, `connPath` and `err`:
//!
//! | command | direction | meaning |
//! |---|---|---|
//! | `keep-alive` | either | nothing; never answered |
//! | `conn-ready` + `connPath` | coordinator to buildlet | dial the coordinator anew and ask for that path |
//! | `pickup-failed` + `connPath` + `err` | buildlet to coordinator | that dial came to nothing |
//!
//! Commands of other names are ignored, so that either side may learn more of them.

mod dialer;
mod lines;
mod listener;

pub use dialer::{Action, DialError, Dialer, DialerId, DialerLimits, Nonce, OpenError, PickupError};
pub use lines::{LINE_LIMIT, ProtocolError};
pub use listener::{Listener, ListenerEvent, keep_alive_line, pickup_failed_line};

#[cfg(test)]
mod tests;
