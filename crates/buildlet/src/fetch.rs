//! Fetches an archive by its URL, as `/writetgz` is asked to.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http1::BodyDecoder;
use rustls::ClientConfig;

use crate::dial::{Proxy, answer_head, parse_address, secure, tcp, tunnel};
use crate::stream::{Buffered, Stream};

/// Source: Go's `net/http`, which gives up after as many.
const REDIRECTS_MAX: usize = 10;
/// From the request to the head of the answer: a mirror may have to fetch first.
const HEAD_LIMIT: Duration = Duration::from_secs(600);
/// Without a byte of the body.
const STALL_LIMIT: Duration = Duration::from_secs(120);

/// Whose certificates are good for which hosts.
pub struct Fetcher {
    pub public: Arc<ClientConfig>,
    /// The coordinator's own host, port and trust.
    pub own: Option<(String, u16, Arc<ClientConfig>)>,
}

/// A URL as far as it is needed: never printed with its query, which may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Url {
    tls: bool,
    host: String,
    port: u16,
    /// Path and query.
    target: String,
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

impl Url {
    fn parse(text: &str) -> Option<Url> {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let (host, port) = if has_port {
            parse_address(authority)?
        } else {
            (parse_address(authority)?.0, if tls { 443 } else { 80 })
        };
        let target = match target {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            target => target.to_owned(),
        };
        target.bytes().all(|b| b.is_ascii_graphic()).then_some(Url {
            tls,
            host,
            port,
            target,
        })
    }

    /// Where a `Location` leads from here.
    fn join(&self, location: &str) -> Option<Url> {
        if location.contains("://") {
            return Url::parse(location);
        }
        let scheme = if self.tls { "https" } else { "http" };
        if location.starts_with("//") {
            return Url::parse(&format!("{scheme}:{location}"));
        }
        let path = self.target.split('?').next().unwrap_or_default();
        let folder = &path[..path.rfind('/').map_or(0, |at| at + 1)];
        let base = if location.starts_with('/') { "" } else { folder };
        Url::parse(&format!("{scheme}://{}{base}{location}", self.authority()))
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl Fetcher {
    /// Asks for a URL, follows it where it leads; the body is still to be read, each piece of it within
    /// 2 min. An error names the URL and what came of it.
    pub fn get(&self, url: &str) -> Result<(Buffered, BodyDecoder), String> {
        let mut url = Url::parse(url).ok_or("bad url; wanted http://HOST/PATH or https://HOST/PATH")?;
        for _ in 0..=REDIRECTS_MAX {
            let broken = |why: io::Error| format!("fetching {url}: {why}");
            let mut connection = self.ask(&url).map_err(broken)?;
            let head = answer_head(&mut connection, Instant::now() + HEAD_LIMIT).map_err(broken)?;
            match head.status {
                200 => {
                    let stalled = connection.stream.set_read_timeout(Some(STALL_LIMIT));
                    stalled.map_err(broken)?;
                    let body =
                        BodyDecoder::of_answer(&head).map_err(|why| format!("fetching {url}: {why}"))?;
                    return Ok((connection, body));
                }
                301 | 302 | 303 | 307 | 308 => {
                    let location = head.header("location").unwrap_or_default();
                    let next = url.join(location);
                    url = next.ok_or_else(|| format!("fetching {url}: it leads to no URL, `{location}`"))?;
                }
                status => return Err(format!("fetching {url}: the answer is {status}; wanted 200")),
            }
        }
        Err(format!("fetching {url}: more than {REDIRECTS_MAX} redirections"))
    }

    fn ask(&self, url: &Url) -> io::Result<Buffered> {
        let deadline = Instant::now() + Duration::from_secs(60);
        // Source: Go's `net/http`, which asks no proxy for this machine itself.
        let address = url.host.parse::<std::net::IpAddr>();
        let here = url.host == "localhost" || address.is_ok_and(|address| address.is_loopback());
        let proxy = if here {
            None
        } else {
            Proxy::from_env(url.tls, &url.host)
        };
        let stream = match (&proxy, url.tls) {
            (None, _) => tcp(&url.host, url.port, deadline)?,
            (Some(proxy), false) => tcp(&proxy.host, proxy.port, deadline)?,
            (Some(proxy), true) => tunnel(proxy, &url.host, url.port, deadline)?,
        };
        let stream = if url.tls {
            let own = self
                .own
                .as_ref()
                .filter(|(host, port, _)| (host, *port) == (&url.host, url.port));
            let trust = own.map_or(&self.public, |(.., trust)| trust);
            Stream::Dialled(Box::new(secure(stream, &url.host, trust, deadline)?))
        } else {
            Stream::Plain(stream)
        };
        let authority = url.authority();
        let through = if proxy.is_some() && !url.tls {
            format!("http://{authority}")
        } else {
            String::new()
        };
        let request = format!(
            "GET {through}{} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: burrow-buildlet\r\nConnection: close\r\n\r\n",
            url.target
        );
        let mut connection = Buffered::new(stream);
        connection.send(request.as_bytes())?;
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_and_joined() {
        let url = |text: &str| Url::parse(text).map(|url| format!("{} {} {}", url, url.port, url.target));
        for (text, wanted) in [
            ("http://x", Some("http://x/ 80 /")),
            (
                "https://x:8443/a/b?c=/d#e",
                Some("https://x:8443/a/b 8443 /a/b?c=/d"),
            ),
            ("HTTP://[::1]:80?q", Some("http://[::1]/ 80 /?q")),
            ("http://u:p@x/", None),
            ("ftp://x/", None),
            ("x/y", None),
            ("http:///y", None),
            ("http://x/a b", None),
        ] {
            assert_eq!(url(text).as_deref(), wanted, "{text}");
        }
        let base = Url::parse("https://x:8443/a/b?c").expect("a URL");
        for (location, wanted) in [
            ("http://y/z", Some("http://y/z")),
            ("//y/z", Some("https://y/z")),
            ("/z", Some("https://x:8443/z")),
            ("z?q", Some("https://x:8443/a/z")),
            ("file:///etc/passwd", None),
        ] {
            let joined = base.join(location).map(|url| url.to_string());
            assert_eq!(joined.as_deref(), wanted, "{location}");
        }
    }
}
