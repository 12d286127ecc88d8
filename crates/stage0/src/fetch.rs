//! One file by HTTP, watched for size and time.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use buildlet::dial::{Coordinator, Proxy, parse_address};
use buildlet::stream::{Buffered, Stream};
use buildlet::trust::Trust;
use http1::{AnswerHead, BodyDecoder};

/// To connect, and for each wait for more. Twice what golang/build's stage0 gives its probe.
const STALL: Duration = Duration::from_secs(10);

/// `https://HOST:PORT/PATH`, or the same with `http`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The machine or its network may not be up yet.
    #[error("no answer from {url}: {why}")]
    Unanswered { url: String, why: io::Error },
    #[error("{url} answered {status}; wanted 200")]
    Status { url: String, status: u16 },
    #[error("{url} is longer than {limit} bytes")]
    TooLong { url: String, limit: u64 },
    #[error("{url} ended in the middle: {why}")]
    Cut { url: String, why: io::Error },
    #[error("cannot keep it: {0}")]
    Keep(io::Error),
}

pub struct Fetcher {
    pub trust: Trust,
    pub agent: String,
}

impl Url {
    pub fn new(tls: bool, host: String, port: u16, path: &str) -> Url {
        let path = path.to_owned();
        Url {
            tls,
            host,
            port,
            path,
        }
    }

    pub fn parse(text: &str) -> Option<Url> {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let (host, path) = rest.split_once('/')?;
        // `parse_address` takes 443 for the port that is not there.
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let (host, port) = parse_address(host)?;
        let port = if has_port || tls { port } else { 80 };
        let graphic = path.bytes().all(|b| b.is_ascii_graphic());
        graphic.then(|| Url::new(tls, host, port, &format!("/{path}")))
    }

    /// A file in the same folder.
    pub fn beside(&self, name: &str) -> Url {
        let path = self.path.split('?').next().unwrap_or_default();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Url {
            path: format!("{folder}/{name}"),
            ..self.clone()
        }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Url { host, port, path, .. } = self;
        let scheme = if self.tls { "https" } else { "http" };
        match host.contains(':') {
            true => write!(f, "{scheme}://[{host}]:{port}{path}"),
            false => write!(f, "{scheme}://{host}:{port}{path}"),
        }
    }
}

impl Fetcher {
    /// Writes the file at `url` into `out`, at most `limit` bytes of it and until `deadline`.
    ///
    /// `headers` are whole lines. Redirections are not followed: what is signed names its own files.
    pub fn get(
        &self,
        url: &Url,
        headers: &str,
        limit: u64,
        deadline: Instant,
        out: &mut dyn Write,
    ) -> Result<u64, FetchError> {
        let name = || url.to_string();
        let unanswered = |why| FetchError::Unanswered { url: name(), why };
        let (mut connection, head) = self.ask(url, headers, deadline).map_err(unanswered)?;
        if head.status != 200 {
            let status = head.status;
            return Err(FetchError::Status { url: name(), status });
        }
        let cut = |why| FetchError::Cut { url: name(), why };
        let decoder = BodyDecoder::of_answer(&head).map_err(|why| cut(io::Error::other(why)))?;
        let mut body = connection.body(decoder, false);
        let mut piece = [0; 64 * 1024];
        let mut got = 0;
        loop {
            if Instant::now() > deadline {
                return Err(cut(io::ErrorKind::TimedOut.into()));
            }
            let n = body.read(&mut piece).map_err(cut)?;
            if n == 0 {
                return Ok(got);
            }
            got += n as u64;
            if got > limit {
                return Err(FetchError::TooLong { url: name(), limit });
            }
            out.write_all(&piece[..n]).map_err(FetchError::Keep)?;
        }
    }

    fn ask(&self, url: &Url, headers: &str, deadline: Instant) -> io::Result<(Buffered, AnswerHead)> {
        let stall = Instant::now() + STALL;
        let stream = if url.tls {
            Stream::Dialled(Box::new(self.coordinator(url)?.dial(stall)?))
        } else {
            Stream::Plain(connect(url)?)
        };
        if let Some(tcp) = stream.tcp() {
            tcp.set_read_timeout(Some(STALL))?;
            tcp.set_write_timeout(Some(STALL))?;
        }
        let mut connection = Buffered::new(stream);
        let Url { host, path, .. } = url;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {}\r\nConnection: close\r\n{headers}\r\n",
            self.agent
        );
        connection.send(request.as_bytes())?;
        loop {
            if let Some((head, used)) = AnswerHead::parse(&connection.have).map_err(io::Error::other)? {
                connection.have.drain(..used);
                return Ok((connection, head));
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if connection.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn coordinator(&self, url: &Url) -> io::Result<Coordinator> {
        Ok(Coordinator {
            proxy: Proxy::from_env(true, &url.host),
            tls: Arc::new(self.trust.client_config().map_err(io::Error::other)?),
            host: url.host.clone(),
            port: url.port,
        })
    }
}

fn connect(url: &Url) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (url.host.as_str(), url.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, STALL) {
            Ok(tcp) => return Ok(tcp),
            Err(why) => last = why,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_name_their_neighbours() {
        let parsed = |text| Url::parse(text).map(|url| url.to_string());
        for (text, wanted) in [
            (
                "https://farm/buildlet/manifest",
                Some("https://farm:443/buildlet/manifest"),
            ),
            ("http://farm/m", Some("http://farm:80/m")),
            ("http://[::1]/m", Some("http://[::1]:80/m")),
            ("https://[::1]:8443/m", Some("https://[::1]:8443/m")),
            ("https://farm", None),
            ("farm/m", None),
            ("ftp://farm/m", None),
            ("https://farm/a b", None),
        ] {
            assert_eq!(parsed(text).as_deref(), wanted, "{text}");
        }
        let url = Url::parse("https://farm/x/manifest?a=/b").expect("a URL");
        assert_eq!(url.beside("b").to_string(), "https://farm:443/x/b");
    }
}
