use http::{HeaderMap, HeaderName, HeaderValue};
use std::net::SocketAddr;

/// Longest first request head of a connection, in bytes.
pub(crate) const HEAD_LIMIT: usize = 64 * 1024;

/// How a client with prior knowledge of HTTP/2 begins (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const MAX_HEADERS: usize = 128;

/// The first request of a connection that goes to a [`crate::RawHandler`].
#[derive(Debug, Clone)]
pub struct RawHead {
    pub method: String,
    /// Path and query as sent: `/revdial?revdial.dialer=4f2a`.
    pub target: String,
    pub headers: HeaderMap,
    pub peer: SocketAddr,
    pub tls: bool,
}

impl RawHead {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The header's value; empty if it is absent or no text.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq)]
pub(crate) enum Begin {
    /// The head is not there yet.
    More,
    Http2,
    Http1(Parsed),
    /// No HTTP/1 head that we can read; hyper words the refusal.
    Odd,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Parsed {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    /// Bytes of the head, the empty line included.
    pub len: usize,
}

/// Looks at all bytes read so far; `before` of them were there at the last look, so that a client
/// that sends byte by byte costs one pass in all.
pub(crate) fn begin(bytes: &[u8], before: usize) -> Begin {
    let same = bytes.len().min(HTTP2_PREFACE.len());
    if !bytes.is_empty() && bytes[..same] == HTTP2_PREFACE[..same] {
        return if same == HTTP2_PREFACE.len() {
            Begin::Http2
        } else {
            Begin::More
        };
    }
    let fresh = &bytes[before.saturating_sub(3).min(bytes.len())..];
    let ends = fresh.windows(2).any(|two| two == b"\n\n") || fresh.windows(3).any(|three| three == b"\n\r\n");
    if ends { parse(bytes) } else { Begin::More }
}

fn parse(bytes: &[u8]) -> Begin {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Begin::More,
        Err(_) => return Begin::Odd,
    };
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Begin::Odd;
    };
    let mut map = HeaderMap::new();
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_bytes(header.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Begin::Odd;
        };
        map.append(name, value);
    }
    Begin::Http1(Parsed {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: map,
        len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_registers_with_an_empty_host_and_no_upgrade() {
        let bytes = b"GET /reverse HTTP/1.1\r\nHost: \r\nX-Go-Host-Type: host-linux\r\n\r\nearly";
        let Begin::Http1(head) = begin(bytes, 0) else {
            panic!()
        };
        assert_eq!((head.method.as_str(), head.target.as_str()), ("GET", "/reverse"));
        assert_eq!(head.headers["host"], "");
        assert_eq!(&bytes[head.len..], b"early");
    }

    #[test]
    fn a_head_in_pieces_is_found_at_its_last_byte() {
        let whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for end in 1..whole.len() {
            assert_eq!(begin(&whole[..end], end - 1), Begin::More, "{end}");
        }
        assert!(matches!(begin(whole, whole.len() - 1), Begin::Http1(_)));
        assert!(matches!(begin(b"GET / HTTP/1.0\n\n", 15), Begin::Http1(_)));
    }

    #[test]
    fn http2_is_told_by_its_whole_preface() {
        assert_eq!(begin(b"PRI", 0), Begin::More);
        assert_eq!(begin(HTTP2_PREFACE, 0), Begin::Http2);
        assert_eq!(begin(&[HTTP2_PREFACE, b"more"].concat(), 0), Begin::Http2);
    }

    #[test]
    fn what_is_no_http_is_odd() {
        assert_eq!(begin(b"\x16\x03\x01\x02\n\r\n", 0), Begin::Odd);
        assert_eq!(begin(b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 0), Begin::Odd);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(begin(many.as_bytes(), 0), Begin::Odd);
    }
}
