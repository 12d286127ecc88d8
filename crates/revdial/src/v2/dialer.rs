use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::lines::{Lines, Message, ProtocolError, excerpt};

/// The name of one session: 16 random bytes. Whoever knows it can pose as that buildlet, so it is
/// printed only into the path that goes to the buildlet itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DialerId(pub [u8; 16]);

/// The name of one dial: 16 random bytes, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nonce(pub [u8; 16]);

/// What the shell has to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write this line to the control connection, whole and flushed, within 10 s.
    Send { session: DialerId, line: Vec<u8> },
    /// No connection will come for this dial. It is forgotten already.
    Failed { dial: Nonce, why: String },
}

/// Bounds on what the peers can make the coordinator remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialerLimits {
    /// Sessions open at once.
    pub sessions: usize,
    /// Dials of one session that wait for their connection. Listeners of ours serve 64 at once.
    pub dials_per_session: usize,
    /// How long a dial waits for its connection.
    pub pickup: Duration,
    /// After how long without a message of ours a keep-alive is due.
    pub keep_alive: Duration,
}

impl Default for DialerLimits {
    fn default() -> DialerLimits {
        DialerLimits {
            sessions: 20_000,
            dials_per_session: 64,
            pickup: Duration::from_secs(30),
            // Source: golang/build `revdial/v2/revdial.go`. Listeners of ours give up after 100 s.
            keep_alive: Duration::from_secs(30),
        }
    }
}

impl DialerLimits {
    fn late(&self, dial: Nonce) -> Action {
        let why = format!(
            "the buildlet did not dial back within {} s",
            self.pickup.as_secs()
        );
        Action::Failed { dial, why }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("{limit} reverse sessions are open, which is the limit")]
    TooMany { limit: usize },
    #[error("the session identifier is in use")]
    Taken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    #[error("the session is closed")]
    Closed,
    #[error("{limit} dials wait for the buildlet, which is the limit")]
    TooMany { limit: usize },
    #[error("the dial identifier is in use")]
    Taken,
}

/// Why a connection that came in belongs to nobody. Either way it is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PickupError {
    /// The text is the original's.
    #[error("unknown dialer")]
    UnknownDialer,
    /// Given up on, picked up before, or never asked for.
    #[error("unknown dial; it may have expired")]
    UnknownDial,
}

/// The coordinator's side of all its sessions.
///
/// Each dial gets a path of its own, `MOUNT?revdial.dialer=SESSION&n=NONCE`, and the buildlet's
/// answer, a connection or a failure, is matched to it by the nonce.
///
/// Differs: golang/build hands any connection of a session to whoever dials next, so that one dial
/// given up on leaves a dead connection to all that follow. Its listeners echo the path as it
/// came, so the nonce is compatible with them.
#[derive(Debug)]
pub struct Dialer {
    mount: &'static str,
    limits: DialerLimits,
    sessions: BTreeMap<DialerId, Session>,
    dials: BTreeMap<Nonce, Dial>,
}

#[derive(Debug)]
struct Session {
    lines: Lines,
    keep_alive_at: Duration,
    dials: usize,
}

#[derive(Debug)]
struct Dial {
    session: DialerId,
    expires_at: Duration,
}

impl Dialer {
    /// `mount` is the path that connections are picked up at, `/revdial` by custom.
    pub fn new(mount: &'static str, limits: DialerLimits) -> Dialer {
        Dialer {
            mount,
            limits,
            sessions: BTreeMap::new(),
            dials: BTreeMap::new(),
        }
    }

    /// Begins a session; its 101 has been written. The first keep-alive goes out at once.
    pub fn open(&mut self, now: Duration, session: DialerId) -> Result<Vec<Action>, OpenError> {
        if self.sessions.len() >= self.limits.sessions {
            return Err(OpenError::TooMany {
                limit: self.limits.sessions,
            });
        }
        if self.sessions.contains_key(&session) {
            return Err(OpenError::Taken);
        }
        self.sessions.insert(
            session,
            Session {
                lines: Lines::default(),
                keep_alive_at: now + self.limits.keep_alive,
                dials: 0,
            },
        );
        Ok(vec![keep_alive(session)])
    }

    /// Ends a session and fails its dials. A session that is not open is left alone.
    pub fn close(&mut self, session: DialerId) -> Vec<Action> {
        if self.sessions.remove(&session).is_none() {
            return Vec::new();
        }
        self.dials
            .extract_if(.., |_, dial| dial.session == session)
            .map(|(dial, _)| Action::Failed {
                dial,
                why: "the buildlet's control connection ended".to_owned(),
            })
            .collect()
    }

    /// Asks the buildlet for a connection. [`Dialer::pickup`] or [`Action::Failed`] ends the dial.
    ///
    /// A keep-alive follows at once: the original sends one there, which moves the request out of
    /// buffers on the way.
    pub fn dial(&mut self, now: Duration, id: DialerId, nonce: Nonce) -> Result<Vec<Action>, DialError> {
        let session = self.sessions.get_mut(&id).ok_or(DialError::Closed)?;
        if session.dials >= self.limits.dials_per_session {
            return Err(DialError::TooMany {
                limit: self.limits.dials_per_session,
            });
        }
        if self.dials.contains_key(&nonce) {
            return Err(DialError::Taken);
        }
        session.dials += 1;
        session.keep_alive_at = now + self.limits.keep_alive;
        let dial = Dial {
            session: id,
            expires_at: now + self.limits.pickup,
        };
        self.dials.insert(nonce, dial);

        let mut message = Message::command("conn-ready");
        message.conn_path = Some(format!(
            "{}?revdial.dialer={}&n={}",
            self.mount,
            Hex(&id.0),
            Hex(&nonce.0)
        ));
        let ready = Action::Send {
            session: id,
            line: message.to_line(),
        };
        Ok(vec![ready, keep_alive(id)])
    }

    /// Gives up on a dial; its connection, should it come, is a late comer.
    pub fn forget(&mut self, nonce: Nonce) {
        self.take(nonce);
    }

    /// Takes bytes as they come off a session's control connection. Bytes of a session that is not
    /// open are ignored. After an error the session is to be closed.
    pub fn receive(&mut self, session: DialerId, bytes: &[u8]) -> Result<Vec<Action>, ProtocolError> {
        let Some(open) = self.sessions.get_mut(&session) else {
            return Ok(Vec::new());
        };
        let mut actions = Vec::new();
        for message in open.lines.receive(bytes)? {
            if message.command.as_deref() != Some("pickup-failed") {
                continue;
            }
            let path = message.conn_path.unwrap_or_default();
            let Some((named, dial)) = parse_path(&path) else {
                continue;
            };
            if named == session && self.dials.get(&dial).is_some_and(|d| d.session == session) {
                self.take(dial);
                let err = excerpt(message.err.as_deref().unwrap_or("no reason given"), 1024);
                actions.push(Action::Failed {
                    dial,
                    why: format!("the buildlet could not dial back: {err}"),
                });
            }
        }
        Ok(actions)
    }

    /// A connection came in that asked for `path_and_query`: which dial is it for? The dial has
    /// ended with this; a second connection with the same path is a late comer.
    pub fn pickup(&mut self, path_and_query: &str) -> Result<Nonce, PickupError> {
        let Some(session) = parameter(path_and_query, "revdial.dialer").and_then(parse_hex) else {
            return Err(PickupError::UnknownDialer);
        };
        let session = DialerId(session);
        if !self.sessions.contains_key(&session) {
            return Err(PickupError::UnknownDialer);
        }
        let (_, nonce) = parse_path(path_and_query).ok_or(PickupError::UnknownDial)?;
        match self.dials.get(&nonce) {
            Some(dial) if dial.session == session => {
                self.take(nonce);
                Ok(nonce)
            }
            _ => Err(PickupError::UnknownDial),
        }
    }

    /// Does what is due at `now`: keep-alives, and dials nobody answered.
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        for (&id, session) in &mut self.sessions {
            if session.keep_alive_at <= now {
                session.keep_alive_at = now + self.limits.keep_alive;
                actions.push(keep_alive(id));
            }
        }
        let due = self.dials.extract_if(.., |_, dial| dial.expires_at <= now);
        for (nonce, dial) in due {
            if let Some(session) = self.sessions.get_mut(&dial.session) {
                session.dials -= 1;
            }
            actions.push(self.limits.late(nonce));
        }
        actions
    }

    /// As [`Dialer::tick`], for one session alone: what many sessions with a timer each cost does not grow with their number.
    pub fn tick_of(&mut self, now: Duration, id: DialerId) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(session) = self.sessions.get_mut(&id) else {
            return actions;
        };
        if session.keep_alive_at <= now {
            session.keep_alive_at = now + self.limits.keep_alive;
            actions.push(keep_alive(id));
        }
        if session.dials > 0 {
            let late = |dial: &Dial| dial.session == id && dial.expires_at <= now;
            let due: Vec<_> = self.dials.extract_if(.., |_, dial| late(dial)).collect();
            session.dials -= due.len();
            actions.extend(due.into_iter().map(|(nonce, _)| self.limits.late(nonce)));
        }
        actions
    }

    /// When to call [`Dialer::tick`] if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Duration> {
        let keep_alives = self.sessions.values().map(|session| session.keep_alive_at);
        let expiries = self.dials.values().map(|dial| dial.expires_at);
        keep_alives.chain(expiries).min()
    }

    /// As [`Dialer::next_deadline`], for one session alone.
    pub fn next_deadline_of(&self, session: DialerId) -> Option<Duration> {
        let open = self.sessions.get(&session)?;
        let keep_alive = open.keep_alive_at;
        if open.dials == 0 {
            return Some(keep_alive);
        }
        let expiries = self.dials.values().filter(|dial| dial.session == session);
        expiries.map(|dial| dial.expires_at).chain([keep_alive]).min()
    }

    fn take(&mut self, nonce: Nonce) {
        if let Some(dial) = self.dials.remove(&nonce)
            && let Some(session) = self.sessions.get_mut(&dial.session)
        {
            session.dials -= 1;
        }
    }
}

impl fmt::Debug for DialerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", Hex(&self.0[..3]))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", Hex(&self.0[..3]))
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn keep_alive(session: DialerId) -> Action {
    Action::Send {
        session,
        line: super::keep_alive_line(),
    }
}

fn parse_path(path_and_query: &str) -> Option<(DialerId, Nonce)> {
    let session = parameter(path_and_query, "revdial.dialer").and_then(parse_hex)?;
    let nonce = parameter(path_and_query, "n").and_then(parse_hex)?;
    Some((DialerId(session), Nonce(nonce)))
}

/// The first value of a query parameter, as written. Our own values need no decoding.
fn parameter<'a>(path_and_query: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = path_and_query.split_once('?')?;
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let number = u128::from_str_radix(text, 16).ok()?;
    Some(number.to_be_bytes())
}
