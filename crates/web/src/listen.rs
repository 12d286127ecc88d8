use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use http::{HeaderName, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{Instrument, debug, info_span, warn};

use crate::head::{Begin, HEAD_LIMIT, Parsed, RawHead, begin};
use crate::stream::{Io, RawStream};

/// For the first request head of a connection, and for its TLS handshake.
const FIRST_HEAD_LIMIT: Duration = Duration::from_secs(10);
/// For each later head; also how long a connection may idle.
const NEXT_HEAD_LIMIT: Duration = Duration::from_secs(60);
/// What requests under way get to end in when the service stops.
const GRACE: Duration = Duration::from_secs(10);
/// After an accept that failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where connections come in.
pub enum Door {
    Plain(TcpListener),
    /// The configuration as of [`crate::tls_from_files`] or [`crate::tls_of_our_own`].
    Tls(TcpListener, Arc<ServerConfig>),
}

/// What to do with connections.
pub struct Server {
    pub router: Router,
    /// Exact paths whose first request goes to `raw` with its connection: `/reverse`, `/revdial`.
    pub raw_paths: Vec<String>,
    /// First requests with this header go there too, whatever their path. On a connection that has carried another one,
    /// or in HTTP/2, they are answered 421.
    pub raw_header: Option<HeaderName>,
    pub raw: Arc<dyn RawHandler>,
    pub limits: Limits,
}

/// Takes over a connection whose first request was for one of the raw paths.
pub trait RawHandler: Send + Sync + 'static {
    /// Runs for as long as the connection is wanted. `stream` begins with the first byte after the
    /// head. The future is dropped when the service has stopped and its grace is over.
    fn handle(&self, head: RawHead, stream: RawStream) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Most connections at once. One more than `http` waits until another ends, for 10 s; one more than `raw` is
/// answered 503. Those that have asked nothing yet are counted apart: for a quarter of `http` more, each makes room
/// for the next one, oldest first, so that clients that never ask keep nobody out.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub http: usize,
    pub raw: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            http: 4096,
            // 10,000 machines, and a build at work on each.
            raw: 32 * 1024,
        }
    }
}

/// Where a request came in; in the extensions of each.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionInfo {
    pub peer: SocketAddr,
    pub tls: bool,
}

/// Serves until `stop` is cancelled; then takes no more, lets requests under way end, and returns.
///
/// Fails only if a door's socket is unusable from the start; trouble with single connections is
/// logged and passed over.
pub async fn serve(doors: Vec<Door>, server: Server, stop: CancellationToken) -> io::Result<()> {
    let shared = Arc::new(Shared {
        http: Arc::new(Semaphore::new(server.limits.http)),
        newcomers: Newcomers::new(server.limits.http / 4 + 1),
        raw: Semaphore::new(server.limits.raw),
        server,
        stop,
    });
    try_join_all(doors.into_iter().map(|door| accept(door, shared.clone()))).await?;
    Ok(())
}

struct Shared {
    server: Server,
    http: Arc<Semaphore>,
    newcomers: Newcomers,
    raw: Semaphore,
    stop: CancellationToken,
}

async fn accept(door: Door, shared: Arc<Shared>) -> io::Result<()> {
    let (listener, acceptor) = match door {
        Door::Plain(listener) => (listener, None),
        Door::Tls(listener, config) => (listener, Some(TlsAcceptor::from(config))),
    };
    listener.local_addr()?;
    let mut connections = JoinSet::new();
    loop {
        let (tcp, peer) = loop {
            tokio::select! {
                () = shared.stop.cancelled() => {
                    drain(connections).await;
                    return Ok(());
                }
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => break accepted,
                    Err(fault) if concerns_one_connection(&fault) => {}
                    Err(fault) => {
                        warn!(error = %fault, "cannot take connections; trying again in {ACCEPT_PAUSE:?}");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        };
        let span = info_span!("connection", %peer);
        let (shared, acceptor) = (shared.clone(), acceptor.clone());
        let (number, crowded_out) = shared.newcomers.enter();
        let connection = async move {
            let new = Newcomer {
                shared: &shared,
                number,
                crowded_out,
            };
            if let Err(fault) = connection(tcp, peer, acceptor, new).await {
                debug!(error = %fault, "connection from {peer} ended early");
            }
        };
        connections.spawn(connection.instrument(span));
    }
}

/// Connections that have asked nothing yet, oldest first.
struct Newcomers {
    room: usize,
    waiting: Mutex<(u64, BTreeMap<u64, CancellationToken>)>,
}

impl Newcomers {
    fn new(room: usize) -> Newcomers {
        Newcomers {
            room,
            waiting: Mutex::default(),
        }
    }

    /// Makes room if there is none.
    fn enter(&self) -> (u64, CancellationToken) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, token) = (waiting.0, CancellationToken::new());
        waiting.0 += 1;
        waiting.1.insert(number, token.clone());
        if waiting.1.len() > self.room
            && let Some((_, oldest)) = waiting.1.pop_first()
        {
            oldest.cancel();
        }
        (number, token)
    }

    fn leave(&self, number: u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.1.remove(&number);
    }
}

/// One of them; none any more when dropped.
struct Newcomer<'a> {
    shared: &'a Shared,
    number: u64,
    crowded_out: CancellationToken,
}

impl Drop for Newcomer<'_> {
    fn drop(&mut self) {
        self.shared.newcomers.leave(self.number);
    }
}

/// A place among the connections that are served; `None`: there was none for too long. Who waits for one is a newcomer
/// still.
async fn place(new: Newcomer<'_>) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        () = new.crowded_out.cancelled() => None,
        permit = timeout(FIRST_HEAD_LIMIT, new.shared.http.clone().acquire_owned()) => {
            Some(permit.ok()?.expect("the semaphore is never closed"))
        }
    }
}

const CROWDED: (&str, &str) = ("503 Service Unavailable", "too many connections; try again");

async fn drain(mut connections: JoinSet<()>) {
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, rest).await.is_err() {
        warn!(
            "{} connections still open after {GRACE:?}; closing them",
            connections.len()
        );
    }
}

fn concerns_one_connection(fault: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        fault.kind(),
        ConnectionAborted | ConnectionReset | ConnectionRefused
    )
}

async fn connection(
    tcp: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    new: Newcomer<'_>,
) -> io::Result<()> {
    let shared = new.shared;
    tcp.set_nodelay(true)?;
    let tls = acceptor.is_some();
    let info = ConnectionInfo { peer, tls };
    let (mut stream, http2_agreed) = match acceptor {
        None => (RawStream::new(Io::Plain(tcp)), false),
        Some(acceptor) => {
            let secured = tokio::select! {
                () = new.crowded_out.cancelled() => return Err(crowded_out()),
                secured = timeout(FIRST_HEAD_LIMIT, acceptor.accept(tcp)) => secured,
            };
            let Ok(secured) = secured else {
                return Err(late("TLS handshake"));
            };
            let secured = secured?;
            let http2 = secured.get_ref().1.alpn_protocol() == Some(b"h2");
            (RawStream::new(Io::Tls(Box::new(secured))), http2)
        }
    };
    // Each in a box of its own: a machine's connection that idles for weeks shall not have room for a page's.
    if http2_agreed {
        let Some(_place) = place(new).await else {
            return Err(crowded_out());
        };
        return Box::pin(http2(stream, info, shared)).await;
    }
    let first = tokio::select! {
        () = shared.stop.cancelled() => return Ok(()),
        () = new.crowded_out.cancelled() => return Err(crowded_out()),
        first = timeout(FIRST_HEAD_LIMIT, first_head(&mut stream)) => first,
    };
    let (bytes, begin) = match first {
        Ok(Ok(first)) => first,
        Ok(Err(fault)) => return Err(fault),
        Err(_) => {
            refuse(
                &mut stream,
                "408 Request Timeout",
                "no whole request within 10 seconds",
            )
            .await?;
            return Err(late("first request"));
        }
    };
    let begin = match begin {
        Begin::Http1(head) if is_raw(&head, shared) => {
            drop(new);
            stream.put_back(bytes.slice(head.len..));
            drop(bytes);
            return Box::pin(raw(head, stream, info, shared)).await;
        }
        other => other,
    };
    let Some(_place) = place(new).await else {
        return refuse(&mut stream, CROWDED.0, CROWDED.1).await;
    };
    match begin {
        Begin::Http2 => {
            stream.put_back(bytes);
            Box::pin(http2(stream, info, shared)).await
        }
        Begin::More if bytes.is_empty() => Ok(()), // opened and closed: a health check, a browser's spare
        Begin::More if bytes.len() >= HEAD_LIMIT => {
            refuse(
                &mut stream,
                "431 Request Header Fields Too Large",
                "the request head exceeds 64 KiB",
            )
            .await
        }
        Begin::Http1(_) | Begin::Odd | Begin::More => {
            stream.put_back(bytes);
            Box::pin(http1(stream, info, shared)).await
        }
    }
}

fn crowded_out() -> io::Error {
    io::Error::other("it asked nothing, and newer ones needed its place")
}

fn late(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no {what} within {FIRST_HEAD_LIMIT:?}"),
    )
}

fn is_raw(head: &Parsed, shared: &Shared) -> bool {
    let path = head.target.split('?').next().unwrap_or_default();
    let named = shared.server.raw_header.as_ref();
    shared.server.raw_paths.iter().any(|raw| raw == path)
        || named.is_some_and(|name| head.headers.contains_key(name))
}

/// Reads until the first head is whole, the limit is met or the peer is done.
async fn first_head(stream: &mut RawStream) -> io::Result<(Bytes, Begin)> {
    let mut bytes = BytesMut::with_capacity(4096);
    loop {
        let before = bytes.len();
        let n = stream.read_buf(&mut bytes).await?;
        let begin = begin(&bytes, before);
        if n == 0 || begin != Begin::More || bytes.len() >= HEAD_LIMIT {
            return Ok((bytes.freeze(), begin));
        }
    }
}

async fn refuse(stream: &mut RawStream, status: &str, text: &str) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}\n",
        text.len() + 1,
    );
    let write = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    timeout(FIRST_HEAD_LIMIT, write)
        .await
        .unwrap_or_else(|_| Err(late("reader for a refusal")))
}

async fn raw(head: Parsed, mut stream: RawStream, info: ConnectionInfo, shared: &Shared) -> io::Result<()> {
    let Ok(_permit) = shared.raw.try_acquire() else {
        warn!(peer = %info.peer, "refused {}: {} raw connections are open", info.peer, shared.server.limits.raw);
        return refuse(
            &mut stream,
            "503 Service Unavailable",
            "too many connections of machines; try again",
        )
        .await;
    };
    stream.notice_death()?;
    let Parsed {
        method,
        target,
        headers,
        len: _,
    } = head;
    let head = RawHead {
        method,
        target,
        headers,
        peer: info.peer,
        tls: info.tls,
    };
    shared.server.raw.handle(head, stream).await;
    Ok(())
}

async fn http1(stream: RawStream, info: ConnectionInfo, shared: &Shared) -> io::Result<()> {
    let service = service(
        shared.server.router.clone(),
        shared.server.raw_header.clone(),
        info,
    );
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_HEAD_LIMIT)
        .max_buf_size(HEAD_LIMIT * 2)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    tokio::select! {
        done = serving.as_mut() => return done.map_err(io::Error::other),
        () = shared.stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    serving.await.map_err(io::Error::other)
}

async fn http2(stream: RawStream, info: ConnectionInfo, shared: &Shared) -> io::Result<()> {
    let service = service(
        shared.server.router.clone(),
        shared.server.raw_header.clone(),
        info,
    );
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(100)
        .max_header_list_size(HEAD_LIMIT as u32)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    tokio::select! {
        done = serving.as_mut() => return done.map_err(io::Error::other),
        () = shared.stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    serving.await.map_err(io::Error::other)
}

fn service(
    router: Router,
    raw_header: Option<HeaderName>,
    info: ConnectionInfo,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send,
> + Clone {
    hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(info);
        let raw = raw_header
            .as_ref()
            .is_some_and(|name| request.headers().contains_key(name));
        let mut router = router.clone();
        async move {
            if raw {
                let mut refused = Response::new(Body::from(
                    "such requests need an HTTP/1.1 connection of their own\n",
                ));
                *refused.status_mut() = StatusCode::MISDIRECTED_REQUEST;
                return Ok(refused);
            }
            router.call(request.map(Body::new)).await
        }
    })
}
