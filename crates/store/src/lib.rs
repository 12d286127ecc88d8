//! The farm store: what the farm wants, is doing and has done. SQLite or PostgreSQL, one contract.

pub mod read;
