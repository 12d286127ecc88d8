//! HTTP/1.1 framing without IO: request heads, bodies with a length or in chunks, answers with trailers.
//!
//! For the agent, whose peers keep connections open, expect trailers they did not ask for, and take
//! connections over. Bytes in, values and bytes out; who reads and writes them is not known here.
//! Start at [`RequestHead::parse`] and [`BodyDecoder`].

mod body;
mod head;

pub use body::{BodyDecoder, BodyError, Decoded, chunk, last_chunk};
pub use head::{AnswerHead, HeadError, MAX_HEAD, RequestHead};
