//! A log that is in an object store, through crashes between any two calls, lost machines and second writers; and
//! in a real server of one.

mod crash;
mod dying;
mod real;
