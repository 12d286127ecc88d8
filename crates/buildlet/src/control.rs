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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::thread::{self, JoinHandle};

    use rustls::{ServerConnection, StreamOwned};

    use super::*;
    use crate::dial::secure;
    use crate::trust::{Trust, server_config};

    /// A control connection with `early` behind its 101, and its coordinator, who does `then`.
    fn connected<T: Send + 'static>(
        early: &[u8],
        then: impl FnOnce(StreamOwned<ServerConnection, TcpStream>) -> T + Send + 'static,
    ) -> (Control, JoinHandle<T>) {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        let certificate = params.self_signed(&pair).expect("signed");
        let config = server_config(&certificate.pem(), &pair.serialize_pem()).expect("a configuration");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let coordinator = thread::spawn(move || {
            let (mut tcp, _) = listener.accept().expect("a connection");
            let mut tls = ServerConnection::new(config).expect("a server");
            while tls.is_handshaking() {
                tls.complete_io(&mut tcp).expect("a handshake");
            }
            then(StreamOwned::new(tls, tcp))
        });
        let tcp = TcpStream::connect(address).expect("connected");
        let trust = Arc::new(Trust::Anybody.client_config().expect("a configuration"));
        let tls = secure(tcp, "localhost", &trust, Instant::now() + SILENCE_LIMIT).expect("secured");
        let mut registered = Buffered::new(Stream::Dialled(Box::new(tls)));
        registered.have = early.to_vec();
        (Control::new(registered).expect("dialled"), coordinator)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn what_came_with_the_answer_comes_first_and_the_end_is_told() {
        let (control, coordinator) = connected(b"early", |mut stream| {
            stream.write_all(b"late").expect("sent");
            stream.conn.send_close_notify();
            stream.flush().expect("closed");
        });
        let mut heard = control.receive(soon()).expect("bytes");
        assert!(heard.starts_with(b"early"));
        while heard.len() < 9 {
            heard.extend(control.receive(soon()).expect("bytes"));
        }
        assert_eq!(heard, b"earlylate");
        coordinator.join().expect("no panic");
        let ended = control.receive(soon()).map_err(|why| why.kind());
        assert!(
            matches!(ended, Ok(ref bytes) if bytes.is_empty()) || ended == Err(io::ErrorKind::UnexpectedEof)
        );
    }

    #[test]
    fn a_coordinator_that_says_nothing_is_given_up() {
        let (control, coordinator) = connected(b"", |stream| stream);
        let silent = control
            .receive(Instant::now() + Duration::from_millis(50))
            .expect_err("nothing came");
        assert_eq!(silent.to_string(), "no word from the coordinator for 100 s");
        coordinator.join().expect("no panic");
    }

    #[test]
    fn more_is_sent_at_once_than_tls_can_hold() {
        let (control, coordinator) = connected(b"", |mut stream| {
            let mut heard = vec![0; 1 << 20];
            stream.read_exact(&mut heard).expect("all of it");
            heard
        });
        let long: Vec<u8> = (0..1u32 << 20).map(|n| (n >> 3) as u8).collect();
        control.send(&long).expect("sent");
        assert!(coordinator.join().expect("no panic") == long);
    }
}
