//! The connection that a buildlet registered, and that its coordinator keeps open.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustls::ClientConnection;

use crate::stream::{Buffered, Stream};

/// Without a word from the coordinator, which owes a line, or a question, every 30 s.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(100);
/// For what is written to be taken.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// The control connection. One thread waits for its bytes, any may send a line: TLS is locked only
/// while bytes pass through it.
pub struct Control {
    tcp: TcpStream,
    tls: Mutex<ClientConnection>,
    /// What came with the 101.
    early: Mutex<Vec<u8>>,
}

impl Control {
    pub fn new(registered: Buffered) -> io::Result<Control> {
        let Stream::Dialled(tls) = registered.stream else {
            return Err(io::Error::other("not a dialled connection"));
        };
        let (tls, tcp) = tls.into_parts();
        tcp.set_write_timeout(Some(WRITE_LIMIT))?;
        Ok(Control {
            tcp,
            tls: Mutex::new(tls),
            early: Mutex::new(registered.have),
        })
    }

    pub fn close(&self) {
        // Closed already is as good.
        let _ = self.tcp.shutdown(Shutdown::Both);
    }

    /// What the coordinator sent next; empty: it has closed.
    pub fn receive(&self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut plain = std::mem::take(&mut *self.early.lock().expect("no holder panics"));
        plain.extend(self.decrypted(&[])?);
        let mut piece = [0; 4096];
        while plain.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(silent());
            }
            self.tcp.set_read_timeout(Some(left))?;
            match (&self.tcp).read(&mut piece) {
                Ok(0) => return Ok(Vec::new()),
                Ok(n) => plain = self.decrypted(&piece[..n])?,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(silent());
                }
                Err(why) => return Err(why),
            }
        }
        Ok(plain)
    }

    fn decrypted(&self, mut bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut tls = self.tls.lock().expect("no holder panics");
        let mut plain = Vec::new();
        loop {
            if !bytes.is_empty() {
                tls.read_tls(&mut bytes)?;
            }
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let had = plain.len();
            plain.resize(had + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut plain[had..])?;
            if bytes.is_empty() {
                self.flush(&mut tls)?;
                if plain.is_empty() && state.peer_has_closed() {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the coordinator closed it",
                    ));
                }
                return Ok(plain);
            }
        }
    }

    /// Sends bytes that no others may come between.
    pub fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        let mut tls = self.tls.lock().expect("no holder panics");
        while !bytes.is_empty() {
            // It takes no more than it can hold.
            let n = tls.writer().write(bytes)?;
            bytes = &bytes[n..];
            self.flush(&mut tls)?;
        }
        Ok(())
    }

    fn flush(&self, tls: &mut ClientConnection) -> io::Result<()> {
        while tls.wants_write() {
            tls.write_tls(&mut &self.tcp)?;
        }
        Ok(())
    }
}

fn silent() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no word from the coordinator for {} s", SILENCE_LIMIT.as_secs()),
    )
}
