//! A byte stream that has been accepted or dialled, and what has been read off it ahead of its use.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use http1::{BodyDecoder, Decoded};
use rustls::{ClientConnection, ServerConnection, StreamOwned};

use crate::multiplexed::Connection;

/// Bytes read ahead of their use while an answer is under way; more stay with the kernel.
const AHEAD_MAX: usize = 64 * 1024;

pub enum Stream {
    Plain(TcpStream),
    Accepted(Box<StreamOwned<ServerConnection, TcpStream>>),
    Multiplexed(Connection),
    Dialled(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// The socket below, if there is one of its own.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Plain(tcp) => Some(tcp),
            Stream::Accepted(tls) => Some(&tls.sock),
            Stream::Dialled(tls) => Some(&tls.sock),
            Stream::Multiplexed(_) => None,
        }
    }

    /// Whether this side made the connection, or it came within one that this side made.
    pub fn is_dialled(&self) -> bool {
        matches!(self, Stream::Dialled(_) | Stream::Multiplexed(_))
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Stream::Multiplexed(connection) => connection.set_nonblocking(on),
            stream => return stream.tcp().map_or(Ok(()), |tcp| tcp.set_nonblocking(on)),
        }
        Ok(())
    }

    /// How long a read may take from its beginning.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Multiplexed(connection) => connection.set_read_timeout(limit),
            stream => return stream.tcp().map_or(Ok(()), |tcp| tcp.set_read_timeout(limit)),
        }
        Ok(())
    }

    /// No more is sent. Multiplexed connections cannot be closed by half.
    pub fn end_sending(&self) {
        if let Some(tcp) = self.tcp() {
            // Closed already is as good.
            let _ = tcp.shutdown(Shutdown::Write);
        }
    }

    pub fn close(&self) {
        match (self, self.tcp()) {
            (Stream::Multiplexed(connection), _) => connection.close(),
            (_, Some(tcp)) => drop(tcp.shutdown(Shutdown::Both)),
            (_, None) => {}
        }
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.read(out),
            Stream::Accepted(tls) => tls.read(out),
            Stream::Dialled(tls) => tls.read(out),
            Stream::Multiplexed(connection) => connection.read(out),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.write(bytes),
            Stream::Accepted(tls) => tls.write(bytes),
            Stream::Dialled(tls) => tls.write(bytes),
            Stream::Multiplexed(connection) => connection.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(tcp) => tcp.flush(),
            Stream::Accepted(tls) => tls.flush(),
            Stream::Dialled(tls) => tls.flush(),
            Stream::Multiplexed(connection) => connection.flush(),
        }
    }
}

/// A stream with what was read and not yet used.
pub struct Buffered {
    pub stream: Stream,
    pub have: Vec<u8>,
}

impl Buffered {
    pub fn new(stream: Stream) -> Buffered {
        Buffered {
            stream,
            have: Vec::new(),
        }
    }

    /// Reads some more; 0: the peer sends no more.
    pub fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
                Ok(n) => {
                    self.have.extend_from_slice(&piece[..n]);
                    return Ok(n);
                }
            }
        }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Waits until one of `sources` can be read from, at most `limit`; says of each whether it can. That the peer has
    /// gone is an error.
    pub fn await_any<const N: usize>(
        &mut self,
        sources: [Option<BorrowedFd<'_>>; N],
        limit: Duration,
    ) -> io::Result<[bool; N]> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let there = sources.iter().flatten();
        let mut fds: Vec<PollFd<'_>> = there
            .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
            .collect();
        // What the peer sends ahead stays with the kernel, and would be there at once each time.
        let heard = if self.have.len() < AHEAD_MAX {
            self.stream.tcp()
        } else {
            None
        };
        fds.extend(heard.map(|tcp| PollFd::new(tcp, PollFlags::IN)));
        let limit = Timespec {
            tv_sec: limit.as_secs() as _,
            tv_nsec: limit.subsec_nanos() as _,
        };
        match poll(&mut fds, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => return Ok([false; N]),
            polled => polled?,
        };
        let mut polled = fds.iter().map(|fd| !fd.revents().is_empty());
        let readable = sources.map(|source| source.is_some() && polled.next() == Some(true));
        let peer = polled.next();
        drop(polled);
        if peer != Some(false) && self.is_gone() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(readable)
    }

    /// Sends `n` bytes that are there in `output` as one chunk.
    ///
    /// Not spliced: the pipe would be locked for as long as the peer does not read, and a command that waits for that
    /// lock cannot be killed.
    pub fn send_output(&mut self, output: &mut PipeReader, n: usize) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Stream::Plain(tcp) = &self.stream {
            let mut piece = vec![0; n.min(64 * 1024)];
            return framed(tcp, n, |left| {
                let part = left.min(piece.len());
                let got = output.read(&mut piece[..part])?;
                let mut to = tcp;
                to.write_all(&piece[..got])?;
                Ok(got)
            });
        }
        self.send_read(output, n)
    }

    /// As [`Buffered::send_output`], from where a file stands.
    pub fn send_file(&mut self, file: &mut File, n: usize) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Stream::Plain(tcp) = &self.stream {
            return framed(tcp, n, |left| Ok(rustix::fs::sendfile(tcp, &*file, None, left)?));
        }
        self.send_read(file, n)
    }

    fn send_read(&mut self, from: &mut impl Read, n: usize) -> io::Result<()> {
        let mut piece = vec![0; n.min(64 * 1024)];
        let mut left = n;
        while left > 0 {
            let part = left.min(piece.len());
            from.read_exact(&mut piece[..part])?;
            self.send(&http1::chunk(&piece[..part]))?;
            left -= part;
        }
        Ok(())
    }

    /// Whether the peer has gone, without waiting; what it sent meanwhile is the next request.
    pub fn is_gone(&mut self) -> bool {
        if self.have.len() >= AHEAD_MAX {
            return false;
        }
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let filled = self.fill();
        if self.stream.set_nonblocking(false).is_err() {
            return true;
        }
        match filled {
            Ok(n) => n == 0,
            Err(why) => why.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// What there is to read without waiting; empty: the peer sends no more.
    pub fn take_ready(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.have.is_empty() {
            self.stream.set_nonblocking(true)?;
            let filled = self.fill();
            self.stream.set_nonblocking(false)?;
            match filled {
                Ok(_) => {}
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(why) => return Err(why),
            }
        }
        Ok(Some(std::mem::take(&mut self.have)))
    }

    /// Waits until there is something to read here or from `other`, at most `limit`; may return early.
    pub fn wait_ready(&self, other: Option<&UnixStream>, limit: Duration) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let limit = match self.stream.tcp() {
            Some(_) => limit,
            // Multiplexed, it has nothing of its own that could be waited for.
            None => limit.min(Duration::from_millis(10)),
        };
        let own = self.stream.tcp().map(|tcp| PollFd::new(tcp, PollFlags::IN));
        let other = other.map(|other| PollFd::new(other, PollFlags::IN));
        let mut all: Vec<PollFd<'_>> = own.into_iter().chain(other).collect();
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        match poll(&mut all, Some(&limit)) {
            Err(why) if why != rustix::io::Errno::INTR => Err(why.into()),
            _ => Ok(()),
        }
    }

    /// Reads a body framed as `decoder` says, and not a byte of what follows it. With `expected`, its
    /// sender waits to be told that it is wanted, which is when it is first read.
    pub fn body(&mut self, decoder: BodyDecoder, expected: bool) -> Body<'_> {
        Body {
            connection: self,
            decoder,
            ready: 0,
            expected,
        }
    }
}

/// Sends a chunk of `n` bytes, which `pass` passes on without more ado; it is told how many are left.
#[cfg(target_os = "linux")]
fn framed(tcp: &TcpStream, n: usize, mut pass: impl FnMut(usize) -> io::Result<usize>) -> io::Result<()> {
    use rustix::net::{SendFlags, send};
    let again = |why: &io::Error| why.kind() == io::ErrorKind::Interrupted;
    let frame = |bytes: &[u8], flags| {
        let mut sent = 0;
        while sent < bytes.len() {
            match send(tcp, &bytes[sent..], flags | SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                n => sent += n?,
            }
        }
        io::Result::Ok(())
    };
    frame(format!("{n:x}\r\n").as_bytes(), SendFlags::MORE)?;
    let mut left = n;
    while left > 0 {
        match pass(left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => left -= n,
            Err(why) if again(&why) => {}
            Err(why) => return Err(why),
        }
    }
    frame(b"\r\n", SendFlags::empty())
}

/// A body that is read as it comes.
pub struct Body<'a> {
    pub connection: &'a mut Buffered,
    decoder: BodyDecoder,
    /// How many bytes at the front of `have` are body.
    ready: usize,
    expected: bool,
}

impl Body<'_> {
    /// Whether it has been read to its end.
    pub fn is_done(&self) -> bool {
        self.ready == 0 && self.decoder.is_done()
    }

    /// Reads on to the body's end, at most `limit` bytes; one that its sender holds back is left there.
    pub fn drain(&mut self, limit: u64) -> io::Result<()> {
        if !self.expected {
            io::copy(&mut self.take(limit), &mut io::sink())?;
        }
        Ok(())
    }
}

impl Read for Body<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        while self.ready == 0 {
            let have = &mut self.connection.have;
            match self.decoder.decode(have).map_err(io::Error::other)? {
                Decoded::Data { skip, take } => {
                    have.drain(..skip);
                    self.ready = take;
                }
                Decoded::End { used } => {
                    have.drain(..used);
                    return Ok(0);
                }
                Decoded::More { used } => {
                    have.drain(..used);
                    if std::mem::take(&mut self.expected) {
                        self.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                    }
                    if self.connection.fill()? == 0 {
                        if self.decoder.ends_with_connection() {
                            return Ok(0);
                        }
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
        let n = out.len().min(self.ready);
        out[..n].copy_from_slice(&self.connection.have[..n]);
        self.connection.have.drain(..n);
        self.ready -= n;
        Ok(n)
    }
}

/// Notices a peer that is gone without a word: `idle` without traffic, then probes; and, where the
/// system knows that, a minute without an acknowledgement of what was sent.
pub fn notice_death(tcp: &TcpStream, idle: Duration) {
    use rustix::net::sockopt;
    // Each is a help and not a need.
    let _ = tcp.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(tcp, true);
    #[cfg(not(target_os = "openbsd"))]
    {
        #[cfg(not(any(target_os = "macos", target_os = "ios")))]
        let _ = sockopt::set_tcp_keepidle(tcp, idle);
        let _ = sockopt::set_tcp_keepintvl(tcp, Duration::from_secs(15));
    }
    #[cfg(target_os = "linux")]
    let _ = sockopt::set_tcp_user_timeout(tcp, 60_000);
}
