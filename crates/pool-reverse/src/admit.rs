//! Who may register, and what the others are told.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use buildlet_api::BoxedStream;
use ids::HostType;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::identity;

/// For writing an answer's head. Source: golang/build `revdial/v2/revdial.go`, for control lines.
pub(crate) const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// What a registration says in its head. A header that is absent is an empty text here.
#[derive(Clone, Default)]
pub struct RegisterHead {
    /// `X-Go-Host-Type`
    pub host_type: String,
    /// `X-Go-Builder-Key`; never logged.
    pub key: String,
    /// `X-Go-Builder-Hostname`
    pub hostname: String,
    /// `X-Go-Builder-Version`
    pub version: String,
    /// `X-Revdial-Version`; empty for version 1
    pub revdial_version: String,
    /// `X-Burrow-Instance`
    pub instance: Option<String>,
    /// `X-Burrow-Identity`: it has a key of its own, and is asked to prove it.
    pub identity: Option<String>,
    /// `X-Burrow-Keep-Alive`: it sends keep-alives itself.
    pub keeps_alive: bool,
    /// `X-Burrow-Release`: the serial of what its stage0 runs.
    pub release: Option<u64>,
    /// Address and port that it came from.
    pub peer: String,
}

/// Decides about keys; given by the coordinator, which knows the master key, the tokens and the
/// configuration.
pub trait KeyCheck: Send + Sync + 'static {
    fn check<'a>(
        &'a self,
        host_type: &'a HostType,
        key: &'a str,
    ) -> Pin<Box<dyn Future<Output = KeyVerdict> + Send + 'a>>;

    /// Which machine has this public key.
    fn identity<'a>(
        &'a self,
        public_key: &'a str,
    ) -> Pin<Box<dyn Future<Output = IdentityVerdict> + Send + 'a>>;

    /// Whether a machine that was let in by this may stay. Asked again and again for each, so it has to be cheap;
    /// an answer may be some seconds old.
    fn still<'a>(
        &'a self,
        host_type: &'a HostType,
        shown: &'a Credential,
    ) -> Pin<Box<dyn Future<Output = KeyVerdict> + Send + 'a>>;
}

/// By what a machine was let in. Never printed.
#[derive(Clone)]
pub enum Credential {
    /// The key of its host type, or one that was given out for it.
    Key(String),
    /// The public half of its own key.
    Identity(String),
}

/// What is known of a machine that says which key it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityVerdict {
    /// It still has to prove that it has the private half.
    Known {
        name: String,
        host_type: HostType,
    },
    /// It was never enrolled here.
    Unknown,
    Revoked,
    /// The farm has no such host type any more.
    UnknownHostType(HostType),
    CannotTell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyVerdict {
    Good,
    Bad,
    /// The key is right, but the farm has no such host type. Strangers do not learn which exist.
    UnknownHostType,
    /// Keys cannot be looked up at the moment: the machine may try again.
    CannotTell,
}

/// A registration turned down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: u16,
    pub text: String,
    /// It counts against its address.
    pub bad_key: bool,
}

impl Refusal {
    pub fn new(status: u16, text: impl Into<String>) -> Refusal {
        Refusal {
            status,
            text: text.into(),
            bad_key: false,
        }
    }
}

/// What a registration may be.
#[derive(Debug)]
pub(crate) struct Admission {
    pub host_type: HostType,
    /// Of a machine with a key of its own.
    pub own_name: Option<String>,
}

/// Makes the checks of 2023, in its order and its words, but takes older buildlets; the limit on guesses comes before it.
pub(crate) async fn admit(
    head: &RegisterHead,
    keys: &dyn KeyCheck,
    stream: &mut BoxedStream,
) -> Result<Admission, Refusal> {
    match head.revdial_version.as_str() {
        // Those of before 2019 do not say that they speak version 1.
        "" | "2" => {}
        _ => return Err(Refusal::new(400, "unknown revdial version")),
    }
    if head.hostname.is_empty() {
        return Err(Refusal::new(400, "missing X-Go-Builder-Hostname header"));
    }
    if let Some(identity) = &head.identity {
        return by_identity(head, identity, keys, stream).await;
    }
    if head.host_type.is_empty() {
        return Err(Refusal::new(400, "missing X-Go-Host-Type; old buildlet binary?"));
    }
    let invalid = Refusal {
        status: 412,
        text: "invalid build key".to_owned(),
        bad_key: true,
    };
    let Ok(host_type) = HostType::parse(&head.host_type) else {
        return Err(invalid);
    };
    match keys.check(&host_type, head.key.trim()).await {
        KeyVerdict::Good => Ok(Admission {
            host_type,
            own_name: None,
        }),
        KeyVerdict::Bad => Err(invalid),
        KeyVerdict::CannotTell => Err(Refusal::new(503, "keys cannot be looked up at the moment")),
        KeyVerdict::UnknownHostType => Err(Refusal::new(
            412,
            format!("unknown host type `{host_type}`; the farm's configuration has none of that name"),
        )),
    }
}

/// Lets a machine in that has a key of its own, once it has proved it.
async fn by_identity(
    head: &RegisterHead,
    public_key: &str,
    keys: &dyn KeyCheck,
    stream: &mut BoxedStream,
) -> Result<Admission, Refusal> {
    let refusal = |text: &str| Refusal {
        bad_key: true,
        ..Refusal::new(412, text)
    };
    let Some(parsed) = identity::PublicKey::parse(public_key) else {
        return Err(refusal(
            "X-Burrow-Identity is no key; wanted 64 hex digits in lower case",
        ));
    };
    let (name, host_type) = match keys.identity(public_key).await {
        IdentityVerdict::Known { name, host_type } => (name, host_type),
        IdentityVerdict::Unknown => {
            return Err(refusal(
                "no machine of this key is enrolled here; enrol it with a new token",
            ));
        }
        IdentityVerdict::Revoked => {
            return Err(refusal(
                "this machine's key was revoked; enrol it with a new token",
            ));
        }
        IdentityVerdict::UnknownHostType(host_type) => {
            return Err(Refusal::new(
                412,
                format!("unknown host type `{host_type}`; the farm's configuration has none of that name"),
            ));
        }
        IdentityVerdict::CannotTell => {
            return Err(Refusal::new(503, "keys cannot be looked up at the moment"));
        }
    };
    if !head.host_type.is_empty() && head.host_type != host_type.as_str() {
        return Err(Refusal::new(
            412,
            format!("this machine is enrolled as `{host_type}`; it says that it is another type"),
        ));
    }
    let instance = head.instance.as_deref().unwrap_or_default();
    identity::challenge(stream, &parsed, &head.hostname, instance).await?;
    Ok(Admission {
        host_type,
        own_name: Some(name),
    })
}

/// Answers a raw stream with an error as Go's `http.Error` does, and closes it. 10 s.
pub async fn refuse<S: AsyncWrite + Unpin>(mut stream: S, status: u16, text: &str) -> io::Result<()> {
    let phrase = match status {
        400 => "Bad Request",
        408 => "Request Timeout",
        409 => "Conflict",
        412 => "Precondition Failed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Refused",
    };
    let answer = format!(
        "HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{text}\n",
        text.len() + 1
    );
    let writing = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    timeout(WRITE_LIMIT, writing)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Answers 101 as a write of its own: Go's buildlets lose what comes in the same record.
pub(crate) async fn switch<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    const ANSWER: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: revdial\r\n\r\n";
    let writing = async {
        stream.write_all(ANSWER).await?;
        stream.flush().await
    };
    timeout(WRITE_LIMIT, writing)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
