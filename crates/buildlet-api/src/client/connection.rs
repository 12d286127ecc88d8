//! Connections to one buildlet: made, kept while idle, given up.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use ids::MachineId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::CallError;
use crate::wire;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A connection to a buildlet, whatever it runs over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
pub type BoxedStream = Box<dyn Stream>;

/// Makes connections to one buildlet. Cancel safe: a future dropped gives its connection up.
pub trait Connect: Send + Sync + 'static {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<BoxedStream>> + Send + '_>>;
    /// Where that is, for people and for the `Host` header.
    fn address(&self) -> String;
}

/// Plain TCP, given up after 5 s.
#[derive(Debug, Clone, Copy)]
pub struct TcpConnect(pub SocketAddr);

impl Connect for TcpConnect {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<BoxedStream>> + Send + '_>> {
        Box::pin(async {
            let dialed = timeout(Duration::from_secs(5), tokio::net::TcpStream::connect(self.0)).await;
            let stream = dialed.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }

    fn address(&self) -> String {
        self.0.to_string()
    }
}

/// Idle connections kept; a build needs few at once, and each costs a reverse buildlet a thread.
const IDLE_MAX: usize = 4;
/// Source: Go's client keeps them that long.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Whatever the connector's own limit is.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Of the reason in a refusal. Source: Go's client shows that much.
const REASON_LIMIT: usize = 4096;
/// Of a good answer that is read whole.
const TEXT_LIMIT: usize = 1 << 20;

/// Whom we speak to; enough to make every request and every error.
#[derive(Clone)]
pub(super) struct Peer {
    host: MachineId,
    connect: Arc<dyn Connect>,
    authorization: Option<HeaderValue>,
    /// Which of the coordinator's machines it is, if it is one.
    proxy: Option<HeaderValue>,
}

impl Peer {
    pub fn new(host: MachineId, connect: Arc<dyn Connect>, authorization: Option<String>) -> Peer {
        let authorization = authorization.map(|text| {
            let mut value = HeaderValue::try_from(text).expect("`Basic` and base64 make a header value");
            value.set_sensitive(true);
            value
        });
        Peer {
            host,
            connect,
            authorization,
            proxy: None,
        }
    }

    pub fn behind(mut self, loan: &str) -> Peer {
        self.proxy = Some(HeaderValue::try_from(loan).expect("the name of a machine makes a header value"));
        self
    }

    pub fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.clone()
    }

    pub fn gone(&self, request: &'static str, source: io::Error) -> CallError {
        CallError::Gone {
            host: self.host.clone(),
            request,
            source,
        }
    }

    pub fn timeout(&self, request: &'static str, limit: Duration) -> CallError {
        CallError::Timeout {
            host: self.host.clone(),
            request,
            limit,
        }
    }

    pub fn nonsense(&self, request: &'static str, found: &[u8], wanted: &'static str) -> CallError {
        CallError::Nonsense {
            host: self.host.clone(),
            request,
            found: excerpt(found, 80),
            wanted,
        }
    }

    pub fn local(&self, what: String, source: io::Error) -> CallError {
        CallError::Local {
            host: self.host.clone(),
            what,
            source,
        }
    }
}

/// What the clones of one client share.
pub(super) struct Inner {
    pub peer: Peer,
    idle: Mutex<Vec<(Instant, Connection)>>,
}

impl Inner {
    pub fn new(peer: Peer) -> Inner {
        Inner {
            peer,
            idle: Mutex::default(),
        }
    }

    pub fn host(&self) -> &MachineId {
        &self.peer.host
    }

    pub fn address(&self) -> String {
        self.peer.connect.address()
    }

    /// The connection that was used last, if it is still good as far as we know.
    pub fn idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        idle.retain(|(since, connection)| since.elapsed() < IDLE_LIMIT && !connection.sender.is_closed());
        idle.pop().map(|(_, connection)| connection)
    }

    pub fn forget_idle(&self, since: Duration) {
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let old: Vec<_> = idle.extract_if(.., |(at, _)| at.elapsed() >= since).collect();
        if idle.is_empty() {
            idle.shrink_to_fit();
        }
        drop(idle);
        // Behind the lock.
        drop(old);
    }

    pub async fn connect(&self, request: &'static str) -> Result<Connection, CallError> {
        let stream = self.dial(request).await?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = shaken.map_err(|error| self.peer.gone(request, io_error(error)))?;
        let driver = tokio::spawn(async move {
            // How a connection ended is told to whoever waits for an answer on it.
            let _ = driver.await;
        });
        Ok(Connection {
            sender,
            _driver: AbortOnDrop(driver),
        })
    }

    pub async fn dial(&self, request: &'static str) -> Result<BoxedStream, CallError> {
        let dialed = timeout(CONNECT_LIMIT, self.peer.connect.connect()).await;
        let dialed = dialed.map_err(|_| self.peer.timeout(request, CONNECT_LIMIT))?;
        dialed.map_err(|source| self.peer.gone(request, source))
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if idle.len() < IDLE_MAX {
            idle.push((Instant::now(), connection));
        }
    }
}

/// One connection. Dropping it closes it, whatever is under way on it.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    _driver: AbortOnDrop,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Sends one request and waits for the head of its answer, whatever its status.
    pub async fn send(
        mut self,
        inner: &Arc<Inner>,
        method: &Method,
        target: &str,
        request: &'static str,
        is_form: bool,
        body: Body,
    ) -> Result<Answer, CallError> {
        let peer = &inner.peer;
        let mut built = Request::new(body);
        *built.method_mut() = method.clone();
        *built.uri_mut() = target
            .parse()
            .map_err(|error| peer.gone(request, io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let headers = built.headers_mut();
        let host = host_header(&peer.connect.address());
        headers.insert(header::HOST, host);
        headers.insert(header::USER_AGENT, HeaderValue::from_static("burrow"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        if let Some(authorization) = &peer.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        if let Some(proxy) = &peer.proxy {
            headers.insert(wire::BUILDLET_PROXY, proxy.clone());
        }
        if is_form {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, form);
        }
        let sent = async {
            self.sender.ready().await?;
            self.sender.send_request(built).await
        };
        let response = sent.await.map_err(|error| peer.gone(request, io_error(error)))?;
        Ok(Answer {
            response,
            trailers: None,
            request,
            connection: Some(self),
            inner: inner.clone(),
        })
    }
}

/// An answer whose head has come. When its body has been read to the end, its connection goes back
/// to the idle ones; dropped before, the connection is closed.
pub(super) struct Answer {
    response: Response<Incoming>,
    trailers: Option<HeaderMap>,
    request: &'static str,
    connection: Option<Connection>,
    inner: Arc<Inner>,
}

impl Answer {
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The value of a trailer; `None` as long as the body has not ended.
    pub fn trailer(&self, name: &str) -> Option<&[u8]> {
        self.trailers.as_ref()?.get(name).map(|value| value.as_bytes())
    }

    /// The next piece of the body; `None` at its end, which is never the mere end of the stream.
    pub async fn data(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            match self.response.body_mut().frame().await {
                None => {
                    if let Some(connection) = self.connection.take() {
                        self.inner.keep(connection);
                    }
                    return Ok(None);
                }
                Some(Err(error)) => return Err(self.gone(io_error(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    /// As [`Answer::data`], with a limit for this one piece.
    pub async fn data_within(&mut self, limit: Duration) -> Result<Option<Bytes>, CallError> {
        match timeout(limit, self.data()).await {
            Ok(data) => data,
            Err(_) => Err(self.inner.peer.timeout(self.request, limit)),
        }
    }

    pub async fn text(mut self, until: Instant, limit: Duration) -> Result<String, CallError> {
        let (peer, request) = (self.inner.peer.clone(), self.request);
        let read = timeout_at(until, self.read(TEXT_LIMIT)).await;
        let bytes = read.map_err(|_| peer.timeout(request, limit))??;
        if bytes.len() > TEXT_LIMIT {
            return Err(peer.nonsense(request, &bytes, "an answer of at most 1 MiB"));
        }
        String::from_utf8(bytes).map_err(|error| peer.nonsense(request, error.as_bytes(), "UTF-8"))
    }

    /// Makes the error of an answer that is not 200, with the reason in its body if that comes.
    pub async fn refused(mut self, until: Instant) -> CallError {
        let status = self.status().as_u16();
        let reason = timeout_at(until, self.read(REASON_LIMIT)).await;
        let reason = reason.ok().and_then(Result::ok).unwrap_or_default();
        CallError::Refused {
            host: self.inner.peer.host.clone(),
            request: self.request,
            status,
            body: excerpt(&reason, REASON_LIMIT),
        }
    }

    /// What the machine says for itself.
    pub fn failed(&self, why: &[u8]) -> CallError {
        CallError::Failed {
            host: self.inner.peer.host.clone(),
            why: excerpt(why, REASON_LIMIT),
        }
    }

    pub fn gone(&self, source: io::Error) -> CallError {
        self.inner.peer.gone(self.request, source)
    }

    pub fn nonsense(&self, found: &[u8], wanted: &'static str) -> CallError {
        self.inner.peer.nonsense(self.request, found, wanted)
    }

    pub fn local(&self, what: &str, source: io::Error) -> CallError {
        self.inner.peer.local(what.to_owned(), source)
    }

    /// Reads up to the end or a little past `limit` bytes.
    async fn read(&mut self, limit: usize) -> Result<Vec<u8>, CallError> {
        let mut bytes = Vec::new();
        while bytes.len() <= limit {
            match self.data().await? {
                Some(data) => bytes.extend_from_slice(&data),
                None => break,
            }
        }
        Ok(bytes)
    }
}

/// The address if it can be a `Host`; Go's server answers 400 to one with, say, a space in it.
fn host_header(address: &str) -> HeaderValue {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let host = if address.chars().all(plain) {
        address
    } else {
        "buildlet"
    };
    HeaderValue::try_from(host).expect("letters, digits and `.-:[]` make a header value")
}

pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// hyper's errors hold the one of the stream, where there is one, as their source.
fn io_error(error: hyper::Error) -> io::Error {
    let kind = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .map_or(io::ErrorKind::UnexpectedEof, io::Error::kind);
    io::Error::new(kind, error)
}

/// What came, cut to size and without control characters, for a message.
fn excerpt(bytes: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]);
    text.trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
