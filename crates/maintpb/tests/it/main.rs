//! The reader that borrows against the generated one, on messages that the schema itself makes.

mod differential;
mod schema;
