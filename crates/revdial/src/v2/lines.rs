use serde::{Deserialize, Serialize};

/// The longest control line with its newline, in bytes.
///
/// Source: golang/build `revdial/v2/revdial.go` reads lines through a buffer of this size.
pub const LINE_LIMIT: usize = 4096;

/// What the peer sent is no control message. The session is over: nothing after it can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("control line runs past {LINE_LIMIT} bytes")]
    TooLong,
    #[error("control line is no JSON object of strings: `{line}`")]
    NotJson { line: String, source: BadJson },
    #[error(
        "`conn-ready` names `{path}`; wanted a path that begins with `/`, without spaces or control bytes"
    )]
    BadPath { path: String },
}

/// Where and why a line stopped being JSON, in the parser's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadJson(String);

/// A control message with the original's field names. A field that is absent, empty or null is the
/// same thing to the original.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    #[serde(default, rename = "connPath", skip_serializing_if = "Option::is_none")]
    pub conn_path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub err: Option<String>,
}

impl Message {
    pub fn command(name: &str) -> Message {
        Message {
            command: Some(name.to_owned()),
            ..Message::default()
        }
    }

    /// The message as a line with its newline. Its length is the caller's concern.
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("three optional strings always serialise");
        line.push(b'\n');
        line
    }
}

/// Cuts a stream of bytes into control messages. Holds at most one unfinished line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    unfinished: Vec<u8>,
}

impl Lines {
    /// The messages that `bytes` finishes, in order.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<Vec<Message>, ProtocolError> {
        let mut messages = Vec::new();
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.unfinished.len() + line.len() > LINE_LIMIT {
                return Err(ProtocolError::TooLong);
            }
            self.unfinished.extend_from_slice(line);
            messages.push(parse(&self.unfinished)?);
            self.unfinished.clear();
        }
        // A full buffer without a newline cannot become a good line any more.
        if self.unfinished.len() + bytes.len() >= LINE_LIMIT {
            return Err(ProtocolError::TooLong);
        }
        self.unfinished.extend_from_slice(bytes);
        Ok(messages)
    }
}

fn parse(line: &[u8]) -> Result<Message, ProtocolError> {
    let refuse = |why: String| ProtocolError::NotJson {
        line: excerpt(&String::from_utf8_lossy(line), 80),
        source: BadJson(why),
    };
    // The parser would take an array for a struct's fields in order; on this wire it is no message.
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err(refuse("it does not begin with `{`".to_owned()));
    }
    serde_json::from_slice(line).map_err(|error| refuse(error.to_string()))
}

/// The first `limit` characters without control characters: enough to know what came, safe to log.
pub(super) fn excerpt(text: &str, limit: usize) -> String {
    text.trim_end()
        .chars()
        .take(limit)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
