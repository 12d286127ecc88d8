use std::io;

use mutlog::{LogReader, Span};

/// Where the long texts of the log are read from.
pub trait Texts {
    type Error;

    /// The bytes of `span`; an empty one is not asked for.
    fn read(&self, span: Span) -> Result<Vec<u8>, Self::Error>;

    /// What is no UTF-8 is replaced.
    fn text(&self, span: Span) -> Result<String, Self::Error> {
        if span.len == 0 {
            return Ok(String::new());
        }
        let bytes = self.read(span)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into_owned()))
    }
}

impl Texts for LogReader {
    type Error = io::Error;

    fn read(&self, span: Span) -> io::Result<Vec<u8>> {
        LogReader::read(self, span)
    }
}
