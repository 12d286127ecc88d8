/// A head longer than this is refused.
pub const MAX_HEAD: usize = 64 * 1024;

/// A request's first part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// `1` for HTTP/1.1, `0` for HTTP/1.0.
    pub minor: u8,
    /// In order, names in lower case, values without surrounding white space.
    pub headers: Vec<(String, Vec<u8>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("the head is longer than {MAX_HEAD} bytes")]
    TooLong,
    #[error("this is no HTTP/1 head: {0}")]
    Malformed(String),
}

impl RequestHead {
    /// Takes a head off `input`; says how many bytes it had. `None`: more is needed.
    pub fn parse(input: &[u8]) -> Result<Option<(RequestHead, usize)>, HeadError> {
        let mut slots = [httparse::EMPTY_HEADER; 128];
        let mut request = httparse::Request::new(&mut slots);
        let end = match request.parse(input) {
            Ok(httparse::Status::Complete(end)) if end <= MAX_HEAD => end,
            Ok(httparse::Status::Partial) if input.len() <= MAX_HEAD => return Ok(None),
            Ok(_) => return Err(HeadError::TooLong),
            Err(why) => return Err(HeadError::Malformed(why.to_string())),
        };
        let headers = request
            .headers
            .iter()
            .map(|h| (h.name.to_ascii_lowercase(), h.value.trim_ascii().to_vec()));
        let head = RequestHead {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            minor: request.version.unwrap_or(0),
            headers: headers.collect(),
        };
        Ok(Some((head, end)))
    }

    /// The first header of that name (lower case), if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// Whether the peer waits for `100 Continue` before it sends the body. HTTP/1.0 knows no such thing.
    pub fn expects_continue(&self) -> bool {
        self.minor > 0
            && self
                .header("expect")
                .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    }

    /// Whether the peer wants another request on this connection.
    pub fn keeps_alive(&self) -> bool {
        let says = |word: &str| {
            self.header("connection")
                .is_some_and(|value| value.to_ascii_lowercase().contains(word))
        };
        if self.minor == 0 {
            says("keep-alive")
        } else {
            !says("close")
        }
    }
}

/// The first part of the answer to `/reverse` or `/revdial`.
///
/// Go's coordinator leaves the version out, so that `HTTP/0.0 101 Switching Protocols` is what comes.
/// Source: golang/build `internal/coordinator/pool/reverse.go`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerHead {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl AnswerHead {
    /// Takes a head off `input`; says how many bytes it had: what follows belongs to the stream.
    /// `None`: more is needed.
    pub fn parse(input: &[u8]) -> Result<Option<(AnswerHead, usize)>, HeadError> {
        let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
            return if input.len() > MAX_HEAD {
                Err(HeadError::TooLong)
            } else {
                Ok(None)
            };
        };
        let text = String::from_utf8_lossy(&input[..end]);
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let bytes = line.as_bytes();
        let version = bytes.len() >= 12
            && line.starts_with("HTTP/")
            && bytes[5].is_ascii_digit()
            && bytes[6] == b'.'
            && bytes[7].is_ascii_digit()
            && bytes[8] == b' ';
        let status = version.then(|| line.get(9..12)?.parse().ok()).flatten();
        let status = status.ok_or_else(|| HeadError::Malformed(line.chars().take(80).collect()))?;
        let pair = |line: &str| {
            line.split_once(':')
                .map(|(k, v)| (k.to_ascii_lowercase(), v.trim().to_owned()))
        };
        Ok(Some((
            AnswerHead {
                status,
                headers: lines.filter_map(pair).collect(),
            },
            end + 4,
        )))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_taken_off_and_the_rest_left() {
        let input = b"POST /exec?a=1 HTTP/1.1\r\nHost:\r\nX-A:  b \r\n\r\nbody";
        for end in 0..input.len() - 5 {
            assert_eq!(RequestHead::parse(&input[..end]).expect("no error"), None);
        }
        let (head, used) = RequestHead::parse(input).expect("no error").expect("whole");
        assert_eq!(&input[used..], b"body");
        assert_eq!(
            (head.path(), head.query(), head.header("x-a")),
            ("/exec", "a=1", Some("b"))
        );
        assert!(head.keeps_alive());
    }

    #[test]
    fn who_waits_and_who_stays_is_read_off_the_head() {
        let head = |text: &str| {
            RequestHead::parse(text.as_bytes())
                .expect("no error")
                .expect("whole")
                .0
        };
        let waits = head("PUT / HTTP/1.1\r\nExpect: 100-Continue\r\nConnection: Close\r\n\r\n");
        assert!(waits.expects_continue() && !waits.keeps_alive());
        let old = head("PUT / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n");
        assert!(!old.expects_continue() && !old.keeps_alive());
        assert!(head("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keeps_alive());
    }

    #[test]
    fn what_is_no_head_is_refused() {
        assert!(matches!(
            RequestHead::parse(b"\x16\x03\x01\r\n\r\n"),
            Err(HeadError::Malformed(_))
        ));
        let long = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; MAX_HEAD]].concat();
        assert_eq!(RequestHead::parse(&long), Err(HeadError::TooLong));
    }

    #[test]
    fn the_answer_without_a_version_is_understood() {
        let input = b"HTTP/0.0 101 Switching Protocols\r\n\r\n{\"command\":";
        let (head, used) = AnswerHead::parse(input).expect("no error").expect("whole");
        assert_eq!(head.status, 101);
        assert_eq!(&input[used..], b"{\"command\":");
        let (head, _) = AnswerHead::parse(b"HTTP/1.1 307 X\r\nLocation: /other\r\n\r\n")
            .expect("no error")
            .expect("whole");
        assert_eq!(head.header("location"), Some("/other"));
        assert!(AnswerHead::parse(b"SSH-2.0-x\r\n\r\n").is_err());
        assert_eq!(AnswerHead::parse(b"HTTP/1.1 101 X\r\n").expect("no error"), None);
    }
}
