use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use buildlet_api::BoxedStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A connection that fails as soon as its session has ended, so that no call waits for a machine
/// that is given up. Read and written by one task, as an HTTP/1.1 connection is.
pub(crate) struct Tied {
    inner: BoxedStream,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Tied {
    pub fn new(inner: BoxedStream, session: CancellationToken) -> Tied {
        Tied {
            inner,
            ended: Box::pin(session.cancelled_owned()),
        }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.ended.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "its reverse session ended",
            )),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Tied {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What has arrived already is still good: the last answer often comes with the end.
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Pending => match self.check(cx) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
            read => read,
        }
    }
}

impl AsyncWrite for Tied {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
