use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// How long a machine may be out of reach before its connection counts as lost.
const DEAD_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(15);

/// A connection, plain or TLS. What was read of it too early comes first.
pub struct RawStream {
    early: Bytes,
    io: Io,
}

pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl RawStream {
    pub(crate) fn new(io: Io) -> RawStream {
        RawStream {
            early: Bytes::new(),
            io,
        }
    }

    /// Puts bytes back, to be read next. Call it once.
    pub(crate) fn put_back(&mut self, early: Bytes) {
        self.early = early;
    }

    /// Makes the kernel notice a peer that vanished without a word.
    pub(crate) fn notice_death(&self) -> io::Result<()> {
        use rustix::net::sockopt;
        let tcp = match &self.io {
            Io::Plain(tcp) => tcp,
            Io::Tls(tls) => tls.get_ref().0,
        };
        sockopt::set_socket_keepalive(tcp, true)?;
        sockopt::set_tcp_keepidle(tcp, PROBE_EVERY)?;
        sockopt::set_tcp_keepintvl(tcp, PROBE_EVERY)?;
        sockopt::set_tcp_keepcnt(tcp, 3)?;
        #[cfg(target_os = "linux")]
        sockopt::set_tcp_user_timeout(tcp, DEAD_AFTER.as_millis() as u32)?;
        Ok(())
    }
}

impl AsyncRead for RawStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let n = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..n]);
            self.early.advance(n);
            return Poll::Ready(Ok(()));
        }
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Io::Tls(tls) => Pin::new(tls).poll_read(cx, buf).map_err(plainly),
        }
    }
}

/// In words for whoever reads why a machine is gone: rustls explains to programmers.
fn plainly(fault: io::Error) -> io::Error {
    match fault.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(fault.kind(), "the peer ended it without a word"),
        _ => fault,
    }
}

impl AsyncWrite for RawStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Io::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Io::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Io::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
