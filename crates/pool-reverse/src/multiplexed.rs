//! Sessions of buildlets of before 2019: all connections within the one that was registered.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, ready};

use buildlet_api::{BoxedStream, Connect};
use revdial::v1::{ConnId, Event, PAYLOAD_MAX, Session};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, PollSender};

use crate::tied::Tied;

/// Frames waiting to be written; more, and writers wait.
const FRAMES_MAX: usize = 16;
/// Bytes of one connection that wait to be read. A buildlet is never told to wait, so one whose bytes nobody
/// takes is closed.
const UNREAD_MAX: usize = 64 << 20;
/// For a frame to be taken. Source: golang/build `cmd/buildlet/reverse.go` (2018).
const WRITE_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// All connections to one buildlet.
pub(crate) struct Multiplexed {
    state: Mutex<State>,
    frames: mpsc::Sender<Vec<u8>>,
    /// Frames that close connections, at most one for each: whoever drops one cannot wait.
    closes: mpsc::UnboundedSender<Vec<u8>>,
    stop: CancellationToken,
}

struct State {
    session: Session,
    open: BTreeMap<ConnId, Incoming>,
}

/// Where a connection's bytes go.
struct Incoming {
    pieces: mpsc::UnboundedSender<Vec<u8>>,
    unread: Arc<AtomicUsize>,
}

/// What is to be written, in two queues.
pub(crate) struct Outgoing {
    frames: mpsc::Receiver<Vec<u8>>,
    closes: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Multiplexed {
    pub fn new(stop: CancellationToken) -> (Arc<Multiplexed>, Outgoing) {
        let (frames, queued) = mpsc::channel(FRAMES_MAX);
        let (closes, closed) = mpsc::unbounded_channel();
        let state = Mutex::new(State {
            session: Session::dialer(),
            open: BTreeMap::new(),
        });
        let all = Multiplexed {
            state,
            frames,
            closes,
            stop,
        };
        let outgoing = Outgoing {
            frames: queued,
            closes: closed,
        };
        (Arc::new(all), outgoing)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Reads the registered connection to its end; returns why it ended.
    pub async fn read(&self, mut read: ReadHalf<BoxedStream>) -> String {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = match read.read(&mut buffer).await {
                Ok(0) => return "its connection was closed".to_owned(),
                Ok(length) => length,
                Err(error) => return format!("its connection broke: {error}"),
            };
            let mut state = self.lock();
            let events = match state.session.receive(&buffer[..length]) {
                Ok(events) => events,
                Err(error) => return format!("it broke the protocol: {error}"),
            };
            for event in events {
                match event {
                    Event::Data(conn, bytes) => {
                        let Some(incoming) = state.open.get(&conn) else {
                            continue;
                        };
                        let unread = incoming.unread.fetch_add(bytes.len(), Ordering::SeqCst) + bytes.len();
                        if unread > UNREAD_MAX || incoming.pieces.send(bytes).is_err() {
                            self.close(&mut state, conn);
                        }
                    }
                    Event::Ended(conn) => drop(state.open.remove(&conn)),
                    Event::Opened(_) => {}
                }
            }
        }
    }

    /// Writes frames as they come; returns why it cannot.
    pub async fn write(&self, mut outgoing: Outgoing, mut write: WriteHalf<BoxedStream>) -> String {
        loop {
            // What was written before a connection was closed goes out before.
            let frame = tokio::select! {
                biased;
                Some(frame) = outgoing.frames.recv() => frame,
                Some(frame) = outgoing.closes.recv() => frame,
                else => return "its session was closed".to_owned(),
            };
            let writing = async {
                write.write_all(&frame).await?;
                write.flush().await
            };
            match timeout(WRITE_LIMIT, writing).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return format!("its connection broke: {error}"),
                Err(_) => return format!("its connection took no frame for {WRITE_LIMIT:?}"),
            }
        }
    }

    /// Fails only when the session is over, which its end tells.
    fn close(&self, state: &mut State, conn: ConnId) {
        state.open.remove(&conn);
        if let Some(frame) = state.session.close(conn) {
            let _ = self.closes.send(frame);
        }
    }
}

/// Opens connections within a session.
pub(crate) struct MultiplexedConnect {
    pub all: Weak<Multiplexed>,
    pub address: String,
}

impl Connect for MultiplexedConnect {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<BoxedStream>> + Send + '_>> {
        Box::pin(async {
            let closed = || io::Error::new(io::ErrorKind::NotConnected, "its reverse session ended");
            let all = self.all.upgrade().ok_or_else(closed)?;
            // The place first, so that frames of the connection cannot overtake the one that opens it.
            let place = all.frames.reserve().await.map_err(|_| closed())?;
            let (pieces, incoming) = mpsc::unbounded_channel();
            let unread = Arc::new(AtomicUsize::new(0));
            let conn = {
                let mut state = all.lock();
                let (conn, frame) = state.session.open();
                state.open.insert(
                    conn,
                    Incoming {
                        pieces,
                        unread: unread.clone(),
                    },
                );
                place.send(frame);
                conn
            };
            let stream = Connection {
                conn,
                frames: PollSender::new(all.frames.clone()),
                all: all.clone(),
                incoming,
                unread,
                piece: Vec::new(),
                used: 0,
            };
            Ok(Box::new(Tied::new(Box::new(stream), all.stop.clone())) as BoxedStream)
        })
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

/// One connection, as a stream.
struct Connection {
    all: Arc<Multiplexed>,
    conn: ConnId,
    frames: PollSender<Vec<u8>>,
    incoming: mpsc::UnboundedReceiver<Vec<u8>>,
    unread: Arc<AtomicUsize>,
    /// The piece being read, and how much of it has been.
    piece: Vec<u8>,
    used: usize,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let all = self.all.clone();
        all.close(&mut all.lock(), self.conn);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.used == self.piece.len() {
            match ready!(self.incoming.poll_recv(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(piece) => (self.piece, self.used) = (piece, 0),
            }
        }
        let n = buf.remaining().min(self.piece.len() - self.used);
        buf.put_slice(&self.piece[self.used..self.used + n]);
        self.used += n;
        self.unread.fetch_sub(n, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.frames.poll_reserve(cx)).map_err(|_| gone())?;
        let piece = &buf[..buf.len().min(PAYLOAD_MAX)];
        let frame = self.all.lock().session.write(self.conn, piece).ok_or_else(gone)?;
        self.frames.send_item(frame).map_err(|_| gone())?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // There is no half of it to close.
        Poll::Ready(Ok(()))
    }
}
