//! Answers: whole ones, and bodies of unknown length.

use std::io::{self, Write};

use crate::command::Refusal;
use crate::files::FileError;
use crate::stream::Buffered;

/// A whole answer.
pub struct Answer {
    pub status: u16,
    pub kind: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn ok(text: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status: 200,
            kind: "text/plain; charset=utf-8",
            body: text.into(),
        }
    }

    pub fn json(value: serde_json::Value) -> Answer {
        Answer {
            status: 200,
            kind: "application/json; charset=utf-8",
            body: format!("{value}\n").into_bytes(),
        }
    }

    pub fn reason(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }

    /// As Go's error helper sends it: the text and one line end.
    pub fn error(status: u16, text: impl std::fmt::Display) -> Answer {
        Answer {
            status,
            kind: "text/plain; charset=utf-8",
            body: format!("{text}\n").into_bytes(),
        }
    }
}

impl From<FileError> for Answer {
    fn from(FileError(status, text): FileError) -> Answer {
        Answer::error(status, text)
    }
}

impl From<Refusal> for Answer {
    fn from(Refusal(status, text): Refusal) -> Answer {
        Answer::error(status, text)
    }
}

pub fn send(to: &mut Buffered, answer: &Answer, keep: bool) -> io::Result<()> {
    let mut out = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nX-Content-Type-Options: nosniff\r\nContent-Length: {}\r\n{}\r\n",
        answer.status,
        phrase(answer.status),
        answer.kind,
        answer.body.len(),
        if keep { "" } else { "Connection: close\r\n" },
    )
    .into_bytes();
    out.extend_from_slice(&answer.body);
    to.send(&out)
}

pub fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        413 => "Payload Too Large",
        422 => "Unprocessable Entity",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

/// A body of unknown length on its way. Its head goes out with the first bytes, so that what fails
/// before can still be answered with a status.
pub struct Outgoing<'a> {
    to: &'a mut Buffered,
    head: Option<String>,
    buffer: Vec<u8>,
}

impl Outgoing<'_> {
    pub fn new<'a>(to: &'a mut Buffered, kind: &str, trailers: &str) -> Outgoing<'a> {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nX-Content-Type-Options: nosniff\r\nTrailer: {trailers}\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        Outgoing {
            to,
            head: Some(head),
            buffer: Vec::new(),
        }
    }

    pub fn finish(mut self, trailers: &[(&str, &str)]) -> io::Result<Option<Answer>> {
        self.flush()?;
        self.to.send(&http1::last_chunk(trailers))?;
        Ok(None)
    }

    /// With the head gone, all that is left is to cut the body short; the reason goes as a trailer to whoever
    /// reads so far.
    pub fn fail(self, status: u16, why: &str) -> io::Result<Option<Answer>> {
        if self.head.is_some() {
            return Ok(Some(Answer::error(status, why)));
        }
        let mut cut = http1::last_chunk(&[("Burrow-Error", why)]);
        cut.truncate(cut.len() - 2);
        self.to.send(&cut)?;
        Err(io::Error::other(why.to_owned()))
    }
}

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= 64 * 1024 {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut out = self.head.take().unwrap_or_default().into_bytes();
        if !self.buffer.is_empty() {
            out.extend(http1::chunk(&self.buffer));
            self.buffer.clear();
        }
        self.to.send(&out)
    }
}
