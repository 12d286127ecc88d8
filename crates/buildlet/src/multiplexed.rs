//! Connections that coordinators of before 2019 multiplex over the one that was registered.
//!
//! Such a coordinator sends as fast as it can and is never told to wait. What has not been read yet is
//! kept in memory, then in a file, then the one connection is closed: the others, which carry its questions
//! whether this machine lives, must not stall.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use revdial::v1::{ConnId, Event, PAYLOAD_MAX, Session};

use crate::beneath::temporary_name;
use crate::control::{Control, SILENCE_LIMIT};
use crate::reverse::CLOSED;
use crate::server::Server;
use crate::stream::{Buffered, Stream};

/// Unread bytes of a connection in memory, and in all.
const MEMORY_MAX: usize = 16 << 20;
const UNREAD_MAX: u64 = 1 << 30;

/// All connections of a session.
struct Connections {
    control: Arc<Control>,
    session: Mutex<Session>,
    open: Mutex<BTreeMap<ConnId, Arc<Incoming>>>,
}

/// One of them, as a stream.
pub struct Connection {
    all: Arc<Connections>,
    conn: ConnId,
    incoming: Arc<Incoming>,
    nonblocking: Cell<bool>,
    limit: Cell<Option<Duration>>,
}

#[derive(Default)]
struct Incoming {
    unread: Mutex<Unread>,
    changed: Condvar,
}

/// What came in and was not read yet: memory before file.
#[derive(Default)]
struct Unread {
    memory: VecDeque<u8>,
    file: Option<File>,
    /// Where in the file to read and to write next.
    read: u64,
    written: u64,
    ended: bool,
}

/// Serves the connections that the coordinator opens until the session ends; returns why it ended.
pub fn listen(control: &Arc<Control>, server: &Arc<Server>, first: &[u8]) -> String {
    let all = Arc::new(Connections {
        control: control.clone(),
        session: Mutex::new(Session::listener()),
        open: Mutex::default(),
    });
    let why = all.serve(server, first);
    for incoming in all.open.lock().expect("no holder panics").values() {
        incoming.end();
    }
    why
}

impl Connections {
    fn serve(self: &Arc<Connections>, server: &Arc<Server>, first: &[u8]) -> String {
        let mut bytes = first.to_vec();
        loop {
            let events = self.session.lock().expect("no holder panics").receive(&bytes);
            let events = match events {
                Ok(events) => events,
                Err(why) => return format!("the coordinator broke the protocol: {why}"),
            };
            for event in events {
                match event {
                    Event::Opened(conn) => {
                        let stream = Stream::Multiplexed(self.opened(conn));
                        let server = server.clone();
                        thread::spawn(move || server.serve(Buffered::new(stream)));
                    }
                    Event::Data(conn, bytes) => self.take(conn, &bytes),
                    Event::Ended(conn) => {
                        if let Some(incoming) = self.incoming(conn) {
                            incoming.end();
                        }
                    }
                }
            }
            bytes = match self.control.receive(Instant::now() + SILENCE_LIMIT) {
                Ok(bytes) if bytes.is_empty() => return CLOSED.to_owned(),
                Ok(bytes) => bytes,
                Err(why) => return why.to_string(),
            };
        }
    }

    fn opened(self: &Arc<Connections>, conn: ConnId) -> Connection {
        let incoming = Arc::new(Incoming::default());
        self.open
            .lock()
            .expect("no holder panics")
            .insert(conn, incoming.clone());
        Connection {
            all: self.clone(),
            conn,
            incoming,
            nonblocking: Cell::new(false),
            limit: Cell::new(None),
        }
    }

    fn incoming(&self, conn: ConnId) -> Option<Arc<Incoming>> {
        self.open.lock().expect("no holder panics").get(&conn).cloned()
    }

    fn take(&self, conn: ConnId, bytes: &[u8]) {
        let Some(incoming) = self.incoming(conn) else {
            return;
        };
        if let Err(why) = incoming.unread().put(bytes) {
            eprintln!("buildlet: closing one connection: what came in cannot be kept: {why}");
            self.close(conn);
        }
        incoming.changed.notify_all();
    }

    fn close(&self, conn: ConnId) {
        let closed = self.session.lock().expect("no holder panics").close(conn);
        if let Some(bytes) = closed {
            // The session may be over, which its reader tells.
            let _ = self.control.send(&bytes);
        }
        if let Some(incoming) = self.open.lock().expect("no holder panics").remove(&conn) {
            incoming.end();
        }
    }
}

impl Incoming {
    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().expect("no holder panics")
    }

    fn end(&self) {
        self.unread().ended = true;
        self.changed.notify_all();
    }
}

impl Unread {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() && self.memory.len() + bytes.len() <= MEMORY_MAX {
            self.memory.extend(bytes);
            return Ok(());
        }
        if self.written - self.read + bytes.len() as u64 > UNREAD_MAX {
            return Err(io::Error::other(format!(
                "more than {UNREAD_MAX} bytes wait to be read"
            )));
        }
        let file = match &mut self.file {
            Some(file) => file,
            file => file.insert(nameless_file()?),
        };
        file.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn take(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if !self.memory.is_empty() {
            return self.memory.read(out);
        }
        let Some(file) = &self.file else { return Ok(0) };
        let left = usize::try_from(self.written - self.read).unwrap_or(usize::MAX);
        let wanted = out.len().min(left);
        let n = file.read_at(&mut out[..wanted], self.read)?;
        self.read += n as u64;
        if self.read == self.written {
            self.file = None;
            (self.read, self.written) = (0, 0);
        }
        Ok(n)
    }
}

/// A file that goes with its last holder.
fn nameless_file() -> io::Result<File> {
    let path = std::env::temp_dir().join(temporary_name());
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

impl Connection {
    pub fn set_nonblocking(&self, on: bool) {
        self.nonblocking.set(on);
    }

    pub fn set_read_timeout(&self, limit: Option<Duration>) {
        self.limit.set(limit);
    }

    pub fn close(&self) {
        self.all.close(self.conn);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

impl Read for Connection {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let deadline = self.limit.get().map(|limit| Instant::now() + limit);
        let mut unread = self.incoming.unread();
        loop {
            let n = unread.take(out)?;
            if n > 0 || unread.ended || out.is_empty() {
                return Ok(n);
            }
            if self.nonblocking.get() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            unread = match deadline {
                None => self.incoming.changed.wait(unread).expect("no holder panics"),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    let waited = self.incoming.changed.wait_timeout(unread, left);
                    waited.expect("no holder panics").0
                }
            };
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A frame at a time, so that the connections take turns.
        let piece = &bytes[..bytes.len().min(PAYLOAD_MAX)];
        let framed = self
            .all
            .session
            .lock()
            .expect("no holder panics")
            .write(self.conn, piece);
        self.all.control.send(&framed.ok_or(io::ErrorKind::BrokenPipe)?)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unread_goes_to_a_file_and_comes_back_in_order() {
        let mut unread = Unread::default();
        let mut sent = Vec::new();
        for n in 0..20u8 {
            let piece = vec![n; 1 << 20];
            unread.put(&piece).expect("kept");
            sent.extend(piece);
        }
        assert_eq!(unread.memory.len(), MEMORY_MAX);
        assert_eq!(unread.written, 4 << 20);
        let (mut got, mut piece) = (Vec::new(), vec![0; 300_000]);
        for _ in 0..30 {
            let n = unread.take(&mut piece).expect("read");
            got.extend_from_slice(&piece[..n]);
        }
        // Memory has room again, but what came later comes later.
        unread.put(b"last").expect("kept");
        sent.extend(b"last");
        loop {
            match unread.take(&mut piece).expect("read") {
                0 => break,
                n => got.extend_from_slice(&piece[..n]),
            }
        }
        assert!(got == sent && unread.file.is_none());
    }

    #[test]
    fn past_a_gibibyte_no_more_is_kept() {
        let mut unread = Unread {
            file: Some(nameless_file().expect("a file")),
            written: UNREAD_MAX - 1,
            ..Unread::default()
        };
        unread.put(b"x").expect("the last byte");
        assert!(unread.put(b"y").is_err());
    }
}
