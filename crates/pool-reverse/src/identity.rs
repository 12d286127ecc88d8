//! Machines with a key of their own: their proof at each registration.

use http1::RequestHead;
use revdial::proof;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, UnparsedPublicKey};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Duration, timeout};

use crate::admit::{Refusal, WRITE_LIMIT};

/// For a machine to sign, which takes it a millisecond, and for its lines.
const PROOF_LIMIT: Duration = Duration::from_secs(10);
const HEAD_MAX: usize = 16 * 1024;

/// An Ed25519 key, of 32 bytes; whether they are a point is seen when a signature is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// 64 hex digits in lower case.
    pub fn parse(text: &str) -> Option<PublicKey> {
        proof::unhex(text).map(PublicKey)
    }

    pub fn to_hex(&self) -> String {
        proof::hex(&self.0)
    }

    /// Whether its private half has signed `message`. `signature`: 128 hex digits.
    pub fn has_signed(&self, message: &str, signature: &str) -> bool {
        proof::unhex::<64>(signature).is_some_and(|signature| {
            let key = UnparsedPublicKey::new(&ED25519, self.0);
            key.verify(message.as_bytes(), &signature).is_ok()
        })
    }
}

/// Has the machine sign something that was never signed before. Nothing that another connection has seen is of use.
pub(crate) async fn challenge<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &PublicKey,
    hostname: &str,
    instance: &str,
) -> Result<(), Refusal> {
    let mut fresh = [0; 32];
    SystemRandom::new()
        .fill(&mut fresh)
        .map_err(|_| Refusal::new(500, "no random numbers to be had"))?;
    let challenge = proof::hex(&fresh);
    let question = format!(
        "HTTP/1.1 401 Unauthorized\r\n{}: {challenge}\r\nContent-Length: 0\r\n\r\n",
        proof::CHALLENGE
    );
    let asking = async {
        stream.write_all(question.as_bytes()).await?;
        stream.flush().await
    };
    let gone = |_| Refusal::new(408, "it could not be asked for its proof");
    let asked = timeout(WRITE_LIMIT, asking)
        .await
        .unwrap_or_else(|late| Err(late.into()));
    asked.map_err(gone)?;
    let head = timeout(PROOF_LIMIT, second_head(stream)).await;
    let head = head.map_err(|_| Refusal::new(408, format!("no proof came within {PROOF_LIMIT:?}")))??;
    let signature = head.header(proof::PROOF).unwrap_or_default();
    let message = proof::registration(&challenge, &key.to_hex(), hostname, instance);
    if key.has_signed(&message, signature) {
        return Ok(());
    }
    Err(Refusal {
        bad_key: true,
        ..Refusal::new(412, "the proof is not by the key of this machine")
    })
}

/// Reads one head and not a byte more: who registers says nothing behind it before the 101.
async fn second_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<RequestHead, Refusal> {
    let odd = |what: &str| Refusal::new(400, what);
    let mut bytes = Vec::new();
    loop {
        match stream.read_buf(&mut bytes).await {
            Ok(1..) if bytes.len() <= HEAD_MAX => {}
            Ok(1..) => return Err(odd("the request with the proof is longer than 16 KiB")),
            Ok(0) | Err(_) => return Err(odd("it left when it was asked for its proof")),
        }
        match RequestHead::parse(&bytes) {
            Ok(None) => {}
            Ok(Some((head, used))) if used == bytes.len() => return Ok(head),
            Ok(Some(_)) => return Err(odd("more came than the request with the proof")),
            Err(why) => return Err(odd(&format!("the request with the proof cannot be read: {why}"))),
        }
    }
}
