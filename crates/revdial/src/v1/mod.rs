//! Version 1: all connections multiplexed over the one that the buildlet registered.
//!
//! A frame is a type byte, a connection's number and the payload's length, both big-endian, and the
//! payload:
//!
//! ```text
//! 0  type: `N` new, `C` close, `W` write
//! 1  connection, 4 bytes
//! 5  length, 2 bytes
//! 7  payload
//! ```
//!
//! There is no half-close, no flow control and no sign of life. Frames of other types are passed over.
//!
//! Source: golang/build `revdial/revdial.go` (2018), whose comment has the type bytes wrong.

use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// The longest payload of a frame.
pub const PAYLOAD_MAX: usize = 0xffff;

const HEAD: usize = 7;

/// One connection within a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub u32);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The coordinator opened a connection; the buildlet is to serve it.
    Opened(ConnId),
    /// Bytes came in. How many wait to be read is the caller's concern: the peer does not ask.
    Data(ConnId, Vec<u8>),
    /// No more will come in: what has come is read, then the connection ends.
    Ended(ConnId),
}

/// What the peer sent breaks the protocol. The session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("the buildlet opened connection {0}, which only the coordinator does")]
    OpenedByListener(u32),
    #[error("connection {0} was opened twice")]
    OpenedTwice(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The coordinator.
    Dialer,
    /// The buildlet.
    Listener,
}

/// Who has closed a connection that is still known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    ClosedHere,
    ClosedThere,
}

/// Either side of the multiplexed connection.
#[derive(Debug)]
pub struct Session {
    role: Role,
    conns: BTreeMap<ConnId, State>,
    /// The number given last.
    last: u32,
    /// A frame that is not there whole.
    unfinished: Vec<u8>,
}

impl Session {
    /// The coordinator's side.
    pub fn dialer() -> Session {
        Session::new(Role::Dialer)
    }

    /// The buildlet's side.
    pub fn listener() -> Session {
        Session::new(Role::Listener)
    }

    fn new(role: Role) -> Session {
        Session {
            role,
            conns: BTreeMap::new(),
            last: 0,
            unfinished: Vec::new(),
        }
    }

    /// Takes bytes as they come off the registered connection, from the first one after the 101. After an
    /// error it is to be closed.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Event>, ProtocolError> {
        self.unfinished.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut at = 0;
        while let Some((kind, conn, payload)) = frame(&self.unfinished[at..]) {
            at += HEAD + payload.len();
            let event = match (kind, self.conns.get(&conn).copied()) {
                (b'N', _) if self.role == Role::Dialer => {
                    return Err(ProtocolError::OpenedByListener(conn.0));
                }
                (b'N', Some(_)) => return Err(ProtocolError::OpenedTwice(conn.0)),
                (b'N', None) => {
                    self.conns.insert(conn, State::Open);
                    Some(Event::Opened(conn))
                }
                (b'W', Some(State::Open)) => Some(Event::Data(conn, payload.to_vec())),
                (b'C', Some(State::Open)) => {
                    self.conns.insert(conn, State::ClosedThere);
                    Some(Event::Ended(conn))
                }
                (b'C', Some(State::ClosedHere)) => {
                    self.conns.remove(&conn);
                    None
                }
                // Late data and the unknown.
                _ => None,
            };
            events.extend(event);
        }
        self.unfinished.drain(..at);
        Ok(events)
    }

    /// Opens a connection, for the coordinator: its number and the bytes to send.
    pub fn open(&mut self) -> (ConnId, Vec<u8>) {
        loop {
            self.last = self.last.wrapping_add(1);
            let conn = ConnId(self.last);
            if let std::collections::btree_map::Entry::Vacant(free) = self.conns.entry(conn) {
                free.insert(State::Open);
                return (conn, encoded(b'N', conn, b""));
            }
        }
    }

    /// The bytes to send for `bytes` written to a connection; none once either side has closed it.
    pub fn write(&self, conn: ConnId, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.conns.get(&conn) != Some(&State::Open) {
            return None;
        }
        Some(
            bytes
                .chunks(PAYLOAD_MAX)
                .flat_map(|piece| encoded(b'W', conn, piece))
                .collect(),
        )
    }

    /// Closes a connection on this side: the bytes to send, none if it was closed here before.
    ///
    /// The coordinator's numbers are free at once; the buildlet keeps one until the coordinator has closed it
    /// too, so that late data is known for what it is.
    pub fn close(&mut self, conn: ConnId) -> Option<Vec<u8>> {
        match (self.conns.get(&conn)?, self.role) {
            (State::ClosedHere, _) => return None,
            (State::Open, Role::Listener) => {
                self.conns.insert(conn, State::ClosedHere);
            }
            (State::Open, Role::Dialer) | (State::ClosedThere, _) => {
                self.conns.remove(&conn);
            }
        }
        Some(encoded(b'C', conn, b""))
    }
}

/// The first frame, if it is whole.
fn frame(bytes: &[u8]) -> Option<(u8, ConnId, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let [kind, a, b, c, d, e, f] = *head;
    let payload = rest.get(..usize::from(u16::from_be_bytes([e, f])))?;
    Some((kind, ConnId(u32::from_be_bytes([a, b, c, d])), payload))
}

fn encoded(kind: u8, conn: ConnId, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("payloads are cut to what fits");
    let mut out = vec![kind];
    out.extend(conn.0.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend_from_slice(payload);
    out
}
