use super::lines::{LINE_LIMIT, Lines, Message, ProtocolError, excerpt};

/// The longest reason sent with a failed pick-up, in bytes.
const ERR_LIMIT: usize = 1024;

/// What a line of the control connection asks of the buildlet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerEvent {
    /// The coordinator is alive. One is due at least every 30 s.
    KeepAlive,
    /// The coordinator wants a connection: dial it, `GET` this path, and serve what follows the 101.
    /// The path may be put into a request line as it is: it begins with `/` and has neither spaces
    /// nor control bytes. Its meaning is the coordinator's own.
    Dial { path: String },
}

/// The buildlet's side of the control connection.
#[derive(Debug, Default)]
pub struct Listener {
    lines: Lines,
}

impl Listener {
    pub fn new() -> Listener {
        Listener::default()
    }

    /// Takes bytes as they come off the control connection, from the first one after the 101;
    /// returns what they ask for, in order. After an error the connection is to be closed.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Vec<ListenerEvent>, ProtocolError> {
        let mut events = Vec::new();
        for message in self.lines.receive(bytes)? {
            match message.command.as_deref() {
                Some("keep-alive") => events.push(ListenerEvent::KeepAlive),
                Some("conn-ready") => events.push(ListenerEvent::Dial {
                    path: check_path(message.conn_path.unwrap_or_default())?,
                }),
                _ => {}
            }
        }
        Ok(events)
    }
}

/// The line that tells the coordinator why the connection of `path` will not come.
///
/// Fits the line limit whatever is handed in: `err` loses its control characters and all past 1 KiB
/// or past what fits, and a path too long to be repeated is left out (the original's dialer looks
/// at the command alone).
pub fn pickup_failed_line(path: &str, err: &str) -> Vec<u8> {
    let mut message = Message::command("pickup-failed");
    message.conn_path = Some(path.to_owned());
    if message.to_line().len() + 64 > LINE_LIMIT {
        message.conn_path = None;
    }
    let mut err: String = err
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    cut(&mut err, ERR_LIMIT);
    loop {
        message.err = Some(err.clone());
        let line = message.to_line();
        if line.len() <= LINE_LIMIT {
            return line;
        }
        // JSON doubles quotes and backslashes at worst, so halving ends after a few rounds.
        let half = err.len() / 2;
        cut(&mut err, half);
    }
}

/// The line that says nothing but "I am here". Listeners send it only to a coordinator that
/// announced it wants them; the original's dialer ignores it.
pub fn keep_alive_line() -> Vec<u8> {
    Message::command("keep-alive").to_line()
}

/// Lets through only what cannot break out of a request line.
fn check_path(path: String) -> Result<String, ProtocolError> {
    if path.starts_with('/') && path.chars().all(|c| c != ' ' && !c.is_control()) {
        Ok(path)
    } else {
        Err(ProtocolError::BadPath {
            path: excerpt(&path, 80),
        })
    }
}

/// Cuts `text` to at most `limit` bytes, between characters.
fn cut(text: &mut String, limit: usize) {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}
