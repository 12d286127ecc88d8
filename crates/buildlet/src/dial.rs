//! Gets a connection to the coordinator and has it handed over: TCP, a proxy if need be, TLS, 101.

use std::io::{self, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http1::{AnswerHead, BodyDecoder};
use revdial::proof;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::stream::{Buffered, Stream, notice_death};
use crate::trust::{WrongCertificate, handshake_failed};

/// For one address. Source: golang/build `cmd/buildlet/reverse.go`.
const TCP_LIMIT: Duration = Duration::from_secs(10);

/// Where the coordinator is and how it is known.
pub struct Coordinator {
    pub host: String,
    pub port: u16,
    pub tls: Arc<ClientConfig>,
    pub proxy: Option<Proxy>,
}

/// An HTTP proxy, for where the coordinator cannot be reached directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
}

/// Why the coordinator did not hand the connection over.
#[derive(Debug)]
pub enum UpgradeError {
    /// It answered with something else than 101.
    Refused {
        status: u16,
        text: String,
    },
    Broken(io::Error),
}

impl From<io::Error> for UpgradeError {
    fn from(why: io::Error) -> UpgradeError {
        UpgradeError::Broken(why)
    }
}

impl UpgradeError {
    /// Whether somebody else than the coordinator that is meant answers there.
    pub fn is_stranger(&self) -> bool {
        match self {
            UpgradeError::Refused { .. } => false,
            UpgradeError::Broken(why) => why.get_ref().is_some_and(|why| why.is::<WrongCertificate>()),
        }
    }
}

impl std::fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UpgradeError::Refused { status, text } => write!(f, "the coordinator answered {status}: {text}"),
            UpgradeError::Broken(why) => write!(f, "{why}"),
        }
    }
}

/// `HOST:PORT`, `HOST` with port 443, `[::1]:8443`.
pub fn parse_address(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, 443),
    };
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    ServerName::try_from(host).ok()?;
    Some((host.to_owned(), port))
}

impl Proxy {
    /// From the environment, for connections to `host`.
    pub fn from_env(tls: bool, host: &str) -> Option<Proxy> {
        let env = |name: &str| {
            let value = std::env::var(name).or_else(|_| std::env::var(name.to_lowercase()));
            value.unwrap_or_default()
        };
        let proxy = env(if tls { "HTTPS_PROXY" } else { "HTTP_PROXY" });
        Proxy::parse(&proxy, &env("NO_PROXY"), host)
    }

    fn parse(proxy: &str, no_proxy: &str, wanted: &str) -> Option<Proxy> {
        let spared = no_proxy.split(',').map(str::trim).any(|name| {
            let name = name.trim_start_matches("*.").trim_start_matches('.');
            let below = wanted.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
            name == "*" || name == wanted || (!name.is_empty() && below)
        });
        let text = proxy.trim();
        if text.is_empty() || spared {
            return None;
        }
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        let text = text.split('/').next().unwrap_or_default();
        let text = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
        let text = if text.contains(':') {
            text.to_owned()
        } else {
            format!("{text}:80")
        };
        let (host, port) = parse_address(&text)?;
        Some(Proxy { host, port })
    }
}

impl Coordinator {
    /// A connection with TLS on it, the handshake done, until `deadline`.
    pub fn dial(&self, deadline: Instant) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let tcp = match (tcp(&self.host, self.port, deadline), &self.proxy) {
            (Ok(tcp), _) => tcp,
            (Err(why), None) => return Err(why),
            (Err(why), Some(proxy)) => tunnel(proxy, &self.host, self.port, deadline).map_err(|second| {
                let (host, port) = (&proxy.host, proxy.port);
                io::Error::new(
                    second.kind(),
                    format!("{why}; by the proxy {host}:{port}: {second}"),
                )
            })?,
        };
        secure(tcp, &self.host, &self.tls, deadline)
    }
}

/// Puts TLS on a connection to `host`.
pub fn secure(
    mut tcp: TcpStream,
    host: &str,
    trust: &Arc<ClientConfig>,
    deadline: Instant,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(trust.clone(), name).map_err(io::Error::other)?;
    loop {
        while tls.wants_write() {
            tls.write_tls(&mut tcp)?;
        }
        if !tls.is_handshaking() {
            return Ok(StreamOwned::new(tls, tcp));
        }
        tcp.set_read_timeout(Some(left(deadline)?))?;
        if tls.read_tls(&mut tcp)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "closed in the TLS handshake",
            ));
        }
        tls.process_new_packets().map_err(handshake_failed)?;
    }
}

/// A connection to `host` through a proxy.
pub fn tunnel(proxy: &Proxy, host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let tcp = tcp(&proxy.host, proxy.port, deadline)?;
    let mut connection = Buffered::new(Stream::Plain(tcp));
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {}\r\n\r\n", proxy.host);
    connection.send(request.as_bytes())?;
    let head = answer_head(&mut connection, deadline)?;
    match (head.status, connection.stream) {
        (200, Stream::Plain(tcp)) if connection.have.is_empty() => Ok(tcp),
        (status, _) => Err(io::Error::other(format!("it answered {status}; wanted 200"))),
    }
}

/// Asks for `path` with `headers` (whole lines) until the stream is handed over; a redirection to
/// another path is followed once. What the coordinator sent behind the 101 stays in the buffer.
pub fn upgrade(
    connection: Buffered,
    path: &str,
    headers: &str,
    deadline: Instant,
) -> Result<Buffered, UpgradeError> {
    upgrade_proving(connection, path, headers, None, deadline)
}

/// As [`upgrade`]; when the coordinator asks for a proof, once, it gets what `prove` makes of its challenge.
pub fn upgrade_proving(
    mut connection: Buffered,
    path: &str,
    headers: &str,
    mut prove: Option<&dyn Fn(&str) -> String>,
    deadline: Instant,
) -> Result<Buffered, UpgradeError> {
    let mut path = path.to_owned();
    let mut may_follow = true;
    let mut proof_line = String::new();
    loop {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: \r\nUser-Agent: burrow-buildlet\r\n{headers}{proof_line}\r\n"
        );
        connection.send(request.as_bytes())?;
        let head = answer_head(&mut connection, deadline)?;
        if head.status == 101 {
            connection.stream.set_read_timeout(None)?;
            return Ok(connection);
        }
        let text = body_text(&mut connection, &head)?;
        let plain = |path: &&str| {
            path.starts_with('/') && !path.starts_with("//") && path.chars().all(|c| c.is_ascii_graphic())
        };
        if head.status == 401
            && let (Some(challenge), Some(make)) = (head.header(proof::CHALLENGE), prove.take())
        {
            proof_line = format!("{}: {}\r\n", proof::PROOF, make(challenge));
            continue;
        }
        match head.header("location").filter(plain) {
            Some(location) if head.status == 307 && may_follow => path = location.to_owned(),
            _ => {
                return Err(UpgradeError::Refused {
                    status: head.status,
                    text,
                });
            }
        }
        may_follow = false;
    }
}

/// Sends a form to `path`; the status of the answer, and the first 4 KiB of its body on one line.
pub fn post_form(
    mut connection: Buffered,
    host: &str,
    path: &str,
    form: &str,
    deadline: Instant,
) -> io::Result<(u16, String)> {
    let length = form.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: burrow-buildlet\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{form}"
    );
    connection.send(request.as_bytes())?;
    let head = answer_head(&mut connection, deadline)?;
    let text = body_text(&mut connection, &head)?;
    Ok((head.status, text))
}

/// The first 4 KiB of a body, on one line.
fn body_text(connection: &mut Buffered, head: &AnswerHead) -> io::Result<String> {
    let mut body = connection.body(BodyDecoder::of_answer(head).map_err(io::Error::other)?, false);
    let mut text = Vec::new();
    (&mut body).take(4096).read_to_end(&mut text)?;
    body.drain(256 * 1024)?;
    let text = String::from_utf8_lossy(&text);
    let plain = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    Ok(plain.collect())
}

pub fn answer_head(connection: &mut Buffered, deadline: Instant) -> io::Result<AnswerHead> {
    loop {
        if let Some((head, used)) = AnswerHead::parse(&connection.have).map_err(io::Error::other)? {
            connection.have.drain(..used);
            return Ok(head);
        }
        connection.stream.set_read_timeout(Some(left(deadline)?))?;
        if connection.fill()? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "closed before it answered",
            ));
        }
    }
}

pub fn tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(deadline)?.min(TCP_LIMIT)) {
            Ok(tcp) => {
                notice_death(&tcp, Duration::from_secs(15));
                tcp.set_write_timeout(Some(Duration::from_secs(60)))?;
                return Ok(tcp);
            }
            Err(why) => last = why,
        }
    }
    Err(last)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long"));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_perhaps_a_port() {
        let parsed = |text| parse_address(text).map(|(host, port)| format!("{host} {port}"));
        for (text, wanted) in [
            ("farm.example.com", Some("farm.example.com 443")),
            ("farm.example.com:8443", Some("farm.example.com 8443")),
            ("[::1]:8119", Some("::1 8119")),
            ("::1", Some("::1 443")),
            ("10.0.0.7:1", Some("10.0.0.7 1")),
            ("host:port", None),
            ("https://host", None),
            ("", None),
        ] {
            assert_eq!(parsed(text).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn a_proxy_is_for_those_not_spared() {
        let proxy = |proxy, spared| {
            Proxy::parse(proxy, spared, "ci.example.com").map(|p| format!("{} {}", p.host, p.port))
        };
        assert_eq!(
            proxy("http://user:x@proxy:3128/", "").as_deref(),
            Some("proxy 3128")
        );
        assert_eq!(
            proxy("proxy", "other.com, ample.com").as_deref(),
            Some("proxy 80")
        );
        for (text, spared) in [
            ("", ""),
            ("proxy", "*"),
            ("proxy", "x,.example.com"),
            ("proxy", "ci.example.com"),
        ] {
            assert_eq!(proxy(text, spared), None, "{text} {spared}");
        }
    }

    /// Asks a coordinator that gives these answers: what became of it, and the paths asked for.
    fn asked(answers: &'static [&'static str]) -> (Result<Buffered, UpgradeError>, Vec<String>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let tcp = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let coordinator = std::thread::spawn(move || {
            let mut connection = Buffered::new(Stream::Plain(listener.accept().expect("a connection").0));
            let mut paths = Vec::new();
            for answer in answers {
                let (head, used) = loop {
                    match http1::RequestHead::parse(&connection.have).expect("a head") {
                        Some(parsed) => break parsed,
                        None => assert_ne!(connection.fill().expect("read"), 0),
                    }
                };
                connection.have.drain(..used);
                assert_eq!(head.header("x-go-host-type"), Some("t"));
                paths.push(head.target);
                connection.send(answer.as_bytes()).expect("sent");
            }
            paths
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        let connection = Buffered::new(Stream::Plain(tcp));
        let opened = upgrade(connection, "/reverse", "X-Go-Host-Type: t\r\n", deadline);
        (opened, coordinator.join().expect("no panic"))
    }

    #[test]
    fn the_originals_answer_hands_the_stream_over_with_what_came_behind_it() {
        let (opened, _) = asked(&["HTTP/0.0 101 Switching Protocols\r\n\r\n{\"command\":\"keep-alive\"}\n"]);
        assert_eq!(
            opened.expect("handed over").have,
            b"{\"command\":\"keep-alive\"}\n"
        );
    }

    #[test]
    fn a_redirection_to_another_path_is_followed_once() {
        const AWAY: &str =
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: /other\r\nContent-Length: 2\r\n\r\nno";
        const DONE: &str = "HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n";
        let (opened, paths) = asked(&[AWAY, DONE]);
        assert!(opened.is_ok());
        assert_eq!(paths, ["/reverse", "/other"]);
        const ELSEWHERE: &str =
            "HTTP/1.1 307 X\r\nLocation: //evil.example.com/\r\nContent-Length: 0\r\n\r\n";
        for answers in [&[AWAY, AWAY][..], &[ELSEWHERE]] {
            let refused = asked(answers).0.err();
            assert!(
                matches!(refused, Some(UpgradeError::Refused { status: 307, .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn a_refusal_brings_its_reason_on_one_line() {
        let (opened, _) = asked(&["HTTP/1.1 412 X\r\nContent-Length: 8\r\n\r\nbad\x07key\n"]);
        let why = opened.err().expect("refused");
        assert_eq!(why.to_string(), "the coordinator answered 412: bad key");
        let (opened, _) = asked(&["SSH-2.0-x\r\n\r\n"]);
        assert!(matches!(opened, Err(UpgradeError::Broken(_))));
    }
}
