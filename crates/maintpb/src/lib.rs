//! What a record of the mutation log says: the schema, twice.
//!
//! The messages at the root own what they hold and are what writers make (`proto/maintner.proto` is
//! their source, and says what each field means). [`borrowed`] has the same messages as views of the
//! bytes they were read from, for reading millions. Both know the same fields; a field that is in no
//! schema is skipped, and stays in the record's bytes, which are what is kept and passed on.
//!
//! Start at [`borrowed::Mutation`].

pub mod borrowed;
mod generated; // by the test `the_messages_are_those_of_the_schema`
mod wire;

pub use generated::*;
pub use prost::Message;
pub use wire::{Malformed, Value};
