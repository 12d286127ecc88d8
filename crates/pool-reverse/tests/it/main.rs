//! The pool against buildlets made of in-memory streams and the listener's side of the protocol.
//! Time is virtual: it moves when everything waits. In `real`, the real buildlet dials in over TLS.

mod farm;
mod go;
mod health;
mod identity;
mod multiplexed;
mod real;
mod refusals;
mod sessions;
