//! A whole farm in memory, in virtual time, made from a seed: machines die, links stall, clocks
//! jump, people cancel and retry, and the coordinator is killed between any two store writes.
//!
//! The real cores run in it; everything around them is simulated and holds the invariants of
//! [`Violation`] after each step. Start at [`simulate`]. [`peer`] brings Go's own programs to test against,
//! [`recorded`] what real servers said.

mod model;
pub mod peer;
mod random;
pub mod recorded;
#[cfg(test)]
mod tests;
mod world;

pub use model::{Model, Violation};
pub use random::Random;
pub use world::{Account, Failure, Fault, simulate};
