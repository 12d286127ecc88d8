//! The pool against buildlets made of in-memory streams and the listener's side of the protocol.
//! Time is virtual: it moves when everything waits.

mod farm;
mod health;
mod refusals;
mod sessions;
