//! The pool against stand-in buildlets, and against the real one where it has been built.

mod farm;
mod real;
mod stand_in;
