//! Heads of requests and answers on their way through, and what the original's clients read.

use farm::Loan;
use http1::AnswerHead;
use ids::Timestamp;
use serde::Serialize;
use web::RawHead;

/// Of the protocol in which waiting is told line by line. Versions compare as texts.
pub const STREAM_VERSION: &str = "20191119";
/// The oldest that is served.
pub const OLDEST_VERSION: &str = "20160922";

/// Why a request goes no further. The text is for people, the rest for programs.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub status: u16,
    pub text: String,
    pub machine: Option<String>,
    /// Since when it has been so.
    pub since: Option<Timestamp>,
}

pub fn refusal(status: u16, text: impl Into<String>) -> Refusal {
    Refusal {
        status,
        text: text.into(),
        machine: None,
        since: None,
    }
}

impl Refusal {
    /// The header `Burrow-Error`: which hop failed, which machine, since when.
    pub fn header(&self) -> String {
        #[derive(Serialize)]
        struct Header<'a> {
            hop: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            machine: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            since: Option<String>,
        }
        let header = Header {
            hop: if self.machine.is_some() {
                "machine"
            } else {
                "coordinator"
            },
            machine: self.machine.as_deref(),
            since: self.since.map(time),
        };
        serde_json::to_string(&header).unwrap_or_default()
    }

    /// The whole answer, closing the connection.
    pub fn answer(&self) -> Vec<u8> {
        let phrase = match self.status {
            400 => "Bad Request",
            401 => "Unauthorized",
            429 => "Too Many Requests",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            _ => "Refused",
        };
        let text: String = self
            .text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        format!(
            "HTTP/1.1 {} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
             Burrow-Error: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}\n",
            self.status,
            self.header(),
            text.len() + 1,
        )
        .into_bytes()
    }
}

/// A machine lent, as the original writes it, and which one it is.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RemoteBuildlet<'a> {
    user: &'a str,
    name: &'a str,
    host_type: &'a str,
    builder_type: &'a str,
    created: String,
    expires: String,
    machine: &'a str,
}

impl<'a> From<&'a Loan> for RemoteBuildlet<'a> {
    fn from(loan: &'a Loan) -> RemoteBuildlet<'a> {
        RemoteBuildlet {
            user: &loan.owner,
            name: &loan.name,
            host_type: loan.host_type.as_str(),
            builder_type: loan.builder.as_str(),
            created: time(loan.since),
            expires: time(loan.expires),
            machine: loan.machine.as_str(),
        }
    }
}

/// One line of the answer to `/buildlet/create`.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<'a> {
    Status { message: String, ahead: usize },
    Buildlet(RemoteBuildlet<'a>),
    Error(String),
}

impl Line<'_> {
    pub fn text(&self) -> String {
        let json = serde_json::to_string(self).expect("texts and numbers make JSON");
        format!("{json}\n")
    }
}

/// RFC 3339 in UTC.
pub fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_microsecond(at.0).map_or_else(|_| at.0.to_string(), |at| at.to_string())
}

/// What is not passed on: credentials of the coordinator's, and what speaks of this connection only.
const KEPT_BACK: [&str; 9] = [
    "authorization",
    "cookie",
    super::PROXY,
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "upgrade",
];

/// The request's head as the machine gets it: `authorization` is the machine's own, if it wants one. It asks for the end
/// of the connection behind the answer, so that nothing else can travel on it.
pub fn onward(head: &RawHead, authorization: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\n", head.method, head.target).into_bytes();
    let mut line = |name: &str, value: &[u8]| {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    };
    for (name, value) in &head.headers {
        if !KEPT_BACK.contains(&name.as_str()) {
            line(name.as_str(), value.as_bytes());
        }
    }
    if let Some(authorization) = authorization {
        line("Authorization", authorization);
    }
    line("Connection", b"close");
    line("TE", b"trailers");
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// A head on its way back.
#[derive(Debug, PartialEq)]
pub struct Back {
    pub status: u16,
    /// As the client gets it: the connection ends behind the answer, unless it is handed over (101).
    pub bytes: Vec<u8>,
    /// How much of the input it was.
    pub used: usize,
}

/// Takes the next head off what the machine sent. `None`: more is needed.
pub fn back(input: &[u8]) -> Result<Option<Back>, http1::HeadError> {
    let Some((head, used)) = AnswerHead::parse(input)? else {
        return Ok(None);
    };
    let mut bytes = Vec::with_capacity(used + 32);
    for line in input[..used - 4].split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if head.status >= 200 && name.eq_ignore_ascii_case(b"connection") {
            continue;
        }
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(b"\r\n");
    }
    if head.status >= 200 {
        bytes.extend_from_slice(b"Connection: close\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    Ok(Some(Back {
        status: head.status,
        bytes,
        used,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_here_and_all_else_goes_on() {
        let mut headers = axum::http::HeaderMap::new();
        for (name, value) in [
            ("host", "localhost:8119"),
            ("authorization", "Basic dXNlci1hbXk6a2V5"),
            ("cookie", "burrow=bt_x"),
            ("x-buildlet-proxy", "user-amy-linux-0"),
            ("connection", "keep-alive"),
            ("content-length", "3"),
            ("x-go-ssh-user", "root"),
        ] {
            headers.append(name, value.parse().expect("a value"));
        }
        let head = RawHead {
            method: "POST".to_owned(),
            target: "/exec?a=b".to_owned(),
            headers,
            peer: ([127, 0, 0, 1], 1).into(),
            tls: true,
        };
        let sent = String::from_utf8(onward(&head, None)).expect("text");
        assert_eq!(
            sent,
            "POST /exec?a=b HTTP/1.1\r\nhost: localhost:8119\r\ncontent-length: 3\r\nx-go-ssh-user: root\r\n\
             Connection: close\r\nTE: trailers\r\n\r\n"
        );
        let own = String::from_utf8(onward(&head, Some(b"Basic own"))).expect("text");
        assert!(own.contains("\r\nAuthorization: Basic own\r\n"), "{own}");
        assert_eq!(own.matches("Basic").count(), 1);
    }

    #[test]
    fn an_answer_ends_its_connection_and_keeps_what_else_it_says() {
        let input = b"HTTP/1.1 200 OK\r\nTrailer: Process-State\r\nconnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
        for end in 0..input.len() - 3 {
            assert_eq!(back(&input[..end]).expect("no error"), None);
        }
        let found = back(input).expect("no error").expect("whole");
        assert_eq!(&input[found.used..], b"0\r\n");
        assert_eq!(
            String::from_utf8(found.bytes).expect("text"),
            "HTTP/1.1 200 OK\r\nTrailer: Process-State\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        );
        for kept in [
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: ssh\r\nConnection: Upgrade\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
        ] {
            let found = back(kept.as_bytes()).expect("no error").expect("whole");
            assert_eq!(String::from_utf8(found.bytes).expect("text"), kept);
        }
        assert!(back(b"SSH-2.0-x\r\n\r\n").is_err());
    }

    #[test]
    fn refusals_are_texts_for_people_and_a_header_for_programs() {
        let gone = Refusal {
            machine: Some("rack-7".to_owned()),
            since: Some(Timestamp::from_secs(0)),
            ..refusal(502, "gone\r\nX: y")
        };
        let text = String::from_utf8(gone.answer()).expect("text");
        assert!(text.starts_with("HTTP/1.1 502 Bad Gateway\r\n"));
        assert!(text.contains(
            "\r\nBurrow-Error: {\"hop\":\"machine\",\"machine\":\"rack-7\",\"since\":\"1970-01-01T00:00:00Z\"}\r\n"
        ));
        assert!(
            text.ends_with("\r\nContent-Length: 11\r\nConnection: close\r\n\r\ngone  X: y\n"),
            "{text}"
        );
    }

    #[test]
    fn lines_are_those_of_the_original() {
        let loan = Loan {
            loan: ids::LoanId(3),
            name: "user-amy-linux-0".to_owned(),
            owner: "user-amy".to_owned(),
            builder: "linux".parse().expect("a name"),
            host_type: "rack".parse().expect("a name"),
            machine: "rack-7".parse().expect("a name"),
            since: Timestamp::from_secs(0),
            expires: Timestamp::from_secs(1800),
        };
        assert_eq!(
            Line::Buildlet((&loan).into()).text(),
            "{\"buildlet\":{\"User\":\"user-amy\",\"Name\":\"user-amy-linux-0\",\"HostType\":\"rack\",\
             \"BuilderType\":\"linux\",\"Created\":\"1970-01-01T00:00:00Z\",\"Expires\":\"1970-01-01T00:30:00Z\",\
             \"Machine\":\"rack-7\"}}\n"
        );
        let status = Line::Status {
            message: "all busy".to_owned(),
            ahead: 2,
        };
        assert_eq!(
            status.text(),
            "{\"status\":{\"message\":\"all busy\",\"ahead\":2}}\n"
        );
        assert_eq!(Line::Error("no".to_owned()).text(), "{\"error\":\"no\"}\n");
    }
}
