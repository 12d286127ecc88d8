//! Lent machines over ssh: whose keys open which, and the way to a machine's ssh server.
//!
//! A person's public keys are a file in the state folder, which they put there themselves; the original has them from
//! GitHub at each call.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use buildlet_api::BoxedStream;
use farm::Input;
use ids::Timestamp;
use serde::Deserialize;
use ssh::{Farm, Keys, Lent};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use store::read::{Role, TokenRow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tracing::info;
use web::ConnectionInfo;

use super::Gomotes;
use super::wire::{Refusal, refusal};
use crate::{current, engine};

/// In the state folder; `people/user-amy` in it has the keys of one person.
const FOLDER: &str = "ssh";
const PEOPLE: &str = "people";
const KEYS_MAX: usize = 64 * 1024;
/// For the head of the machine's answer: it may have to start a server.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const HEAD_MAX: usize = 16 * 1024;
/// How long a certificate opens. Source: golang/build `internal/coordinator/remote/ssh.go`.
const CERTIFICATE: Duration = Duration::from_secs(300);

/// What the gateway and the requests about its keys share.
#[derive(Clone)]
pub struct Shells {
    people: PathBuf,
    pub keys: Arc<Keys>,
    /// Where it listens, if it does.
    pub port: Option<u16>,
}

impl Shells {
    /// Blocking.
    pub fn open(state: &Path, port: Option<u16>) -> anyhow::Result<Shells> {
        let folder = state.join(FOLDER);
        let people = folder.join(PEOPLE);
        std::fs::create_dir_all(&people)?;
        Ok(Shells {
            people,
            keys: Arc::new(Keys::open(&folder)?),
            port,
        })
    }

    /// Those that were put since `since`: what a namesake left behind is no key of theirs.
    fn keys_of(&self, owner: &str, since: Timestamp) -> io::Result<Vec<String>> {
        let path = self.people.join(owner);
        let put = std::fs::metadata(&path).and_then(|meta| meta.modified());
        let put = put.map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        if put.is_ok_and(|at| at.as_micros() < u128::try_from(since.0).unwrap_or(0)) {
            return Ok(Vec::new());
        }
        match std::fs::read_to_string(path) {
            Ok(text) => ssh::authorized(&text).map_err(io::Error::other),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(why) => Err(why),
        }
    }

    fn keep(&self, owner: &str, keys: &[String]) -> io::Result<()> {
        let path = self.people.join(owner);
        let fresh = self.people.join(format!(".{owner}.new"));
        std::fs::write(&fresh, keys.join("\n") + "\n")?;
        std::fs::rename(fresh, path)
    }
}

#[derive(Deserialize)]
pub struct Put {
    keys: String,
}

#[derive(Deserialize)]
pub struct Certify {
    instance: String,
    key: String,
}

/// `POST /buildlet/ssh-keys`: the public keys of who asks, in place of those there were. Answers with the gateway's port and
/// fingerprint.
pub async fn put_keys(
    State(app): State<Gomotes>,
    Extension(connection): Extension<ConnectionInfo>,
    headers: HeaderMap,
    form: Result<Form<Put>, FormRejection>,
) -> Result<Response, Refusal> {
    let owner = app.owner(&headers, connection).await?;
    let Form(put) = form.map_err(|why| refusal(400, why.body_text()))?;
    if put.keys.len() > KEYS_MAX {
        return Err(refusal(400, format!("more than {KEYS_MAX} bytes of keys")));
    }
    let keys = ssh::authorized(&put.keys).map_err(|why| refusal(400, why.to_string()))?;
    let kept = app.shells.keep(&owner, &keys);
    kept.map_err(|why| refusal(503, format!("the keys cannot be kept: {why}")))?;
    let told = serde_json::json!({
        "keys": keys.len(), "port": app.shells.port, "fingerprint": app.shells.keys.fingerprint(),
    });
    Ok(axum::Json(told).into_response())
}

/// `POST /buildlet/ssh-certificate`: a certificate for a key, good for one machine of who asks, for five minutes.
pub async fn certify(
    State(app): State<Gomotes>,
    Extension(connection): Extension<ConnectionInfo>,
    headers: HeaderMap,
    form: Result<Form<Certify>, FormRejection>,
) -> Result<Response, Refusal> {
    let owner = app.owner(&headers, connection).await?;
    let Form(asked) = form.map_err(|why| refusal(400, why.body_text()))?;
    let row = app.loan(&asked.instance).await?;
    if row.loan.owner != owner {
        return Err(refusal(401, "you don't own that buildlet"));
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = since.unwrap_or_default().as_secs();
    let made = app
        .shells
        .keys
        .certify(&asked.key, &row.loan.name, &owner, now, CERTIFICATE);
    made.map(|line| format!("{line}\n").into_response())
        .map_err(|why| refusal(400, why.to_string()))
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Since when an owner may borrow, of all the tokens that ever had their name. One without any shows a key made from
/// the master key, which is good for ever.
fn good_since(tokens: &[TokenRow], owner: &str, now: Timestamp) -> Option<Timestamp> {
    let named = |token: &&TokenRow| owner.strip_prefix("user-") == Some(token.name.as_str());
    let mut of_name = tokens.iter().filter(named).peekable();
    if of_name.peek().is_none() {
        return Some(Timestamp(0));
    }
    let good = |token: &&TokenRow| {
        token.revoked.is_none()
            && token.expires.is_none_or(|until| now < until)
            && token.role >= Role::Contributor
    };
    of_name.find(good).map(|token| token.created)
}

impl Gomotes {
    async fn good_since(&self, owner: &str) -> Result<Timestamp, String> {
        let tokens = self.tokens.store().tokens().await;
        let tokens = tokens.map_err(|why| format!("{:#}", anyhow::Error::from(why)))?;
        good_since(&tokens, owner, engine::wall())
            .ok_or_else(|| format!("the token of {owner} was revoked, or has expired"))
    }
}

impl Farm for Gomotes {
    fn lent<'a>(&'a self, name: &'a str) -> Answer<'a, Result<Lent, String>> {
        Box::pin(async move {
            let cut_off = |why: Refusal| why.text;
            let row = self.loan(name).await.map_err(cut_off)?;
            let ended = self.desk.cut_of(row.loan.loan);
            // What ended behind the first look has not cut us.
            let row = self
                .loan(name)
                .await
                .inspect_err(|_| self.desk.cut(row.loan.loan))
                .map_err(cut_off)?;
            let owner = row.loan.owner.clone();
            let since = self.good_since(&owner).await?;
            let keys = self
                .shells
                .keys_of(&owner, since)
                .map_err(|why| why.to_string())?;
            let config = current(&self.config);
            let host = config.hosts.get(&row.loan.host_type);
            Ok(Lent {
                name: row.loan.name,
                owner,
                login: host.map_or_else(|| "root".to_owned(), |host| host.ssh_user.clone()),
                keys,
                ended,
            })
        })
    }

    fn connect<'a>(
        &'a self,
        lent: &'a Lent,
        authorized_key: &'a str,
    ) -> Answer<'a, Result<BoxedStream, String>> {
        Box::pin(async move {
            let row = self.loan(&lent.name).await.map_err(|why| why.text)?;
            let machine = &row.loan.machine;
            let link = self.links.lock().expect("no holder panics").get(machine).cloned();
            let Some(link) = link else {
                return Err(self.away(&row).await.text);
            };
            let connecting = async {
                let (mut stream, authorization) = link
                    .client
                    .dial()
                    .await
                    .map_err(|why| format!("{:#}", anyhow::Error::from(why)))?;
                let authorization = authorization.as_ref().and_then(|value| value.to_str().ok());
                let authorization = authorization.map(|value| format!("Authorization: {value}\r\n"));
                let head = format!(
                    "POST /connect-ssh HTTP/1.1\r\nHost: buildlet\r\nX-Go-Ssh-User: {}\r\n\
                     X-Go-Authorized-Key: {authorized_key}\r\n{}Content-Length: 0\r\n\r\n",
                    lent.login,
                    authorization.unwrap_or_default()
                );
                handed_over(&mut stream, &head).await?;
                Ok(stream)
            };
            timeout(CONNECT_LIMIT, connecting).await.unwrap_or_else(|_| {
                Err(format!(
                    "machine {machine} did not answer within {CONNECT_LIMIT:?}"
                ))
            })
        })
    }

    fn used<'a>(&'a self, lent: &'a Lent) -> Answer<'a, ()> {
        Box::pin(async move {
            if let Ok(row) = self.loan(&lent.name).await {
                if let Err(why) = self.good_since(&lent.owner).await {
                    info!(loan.name = %lent.name, "sessions with {} are cut: {why}", lent.name);
                    return self.desk.cut(row.loan.loan);
                }
                // Closed only when the coordinator stops.
                let _ = self.inputs.send(Input::LoanUsed { loan: row.loan.loan }).await;
            }
        })
    }
}

/// Sends `head`, and reads the answer up to its end and not a byte more: servers speak at once.
async fn handed_over(stream: &mut BoxedStream, head: &str) -> Result<(), String> {
    let broke = |why: io::Error| format!("the connection to the machine broke: {why}");
    stream.write_all(head.as_bytes()).await.map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.map_err(broke)?);
        if answer.len() > HEAD_MAX {
            return Err("the machine's answer has no end".to_owned());
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let line = text.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) == Some("101") {
        return Ok(());
    }
    let mut why = String::new();
    // What came of it is worth showing, the rest is not.
    let _ = timeout(Duration::from_secs(1), stream.take(1000).read_to_string(&mut why)).await;
    let why: String = why.trim().chars().filter(|c| !c.is_control()).collect();
    Err(format!("the machine answered `{line}`: {why}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[test]
    fn whose_token_is_no_more_borrows_no_more_and_a_namesake_begins_anew() {
        let token = |id, name: &str, created, revoked: Option<i64>, expires: Option<i64>| TokenRow {
            id,
            name: name.to_owned(),
            role: Role::Contributor,
            created: Timestamp(created),
            expires: expires.map(Timestamp),
            revoked: revoked.map(Timestamp),
            last_used: None,
        };
        let since = |tokens: &[TokenRow]| good_since(tokens, "user-amy", Timestamp(50)).map(|at| at.0);
        assert_eq!(since(&[]), Some(0), "by the master key");
        assert_eq!(since(&[token(1, "bob", 10, Some(20), None)]), Some(0));
        assert_eq!(since(&[token(1, "amy", 10, None, None)]), Some(10));
        assert_eq!(since(&[token(1, "amy", 10, Some(20), None)]), None);
        assert_eq!(since(&[token(1, "amy", 10, None, Some(50))]), None);
        let again = [
            token(1, "amy", 10, Some(20), None),
            token(2, "amy", 30, None, Some(51)),
        ];
        assert_eq!(since(&again), Some(30));
        let dir = tempfile::tempdir().expect("a folder");
        let shells = Shells::open(dir.path(), None).expect("a folder");
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJN1u2gLZVCE2bPcz2kkTMHzqjLzNMqvgGVFkHUbGdBh";
        shells.keep("user-amy", &[key.to_owned()]).expect("kept");
        assert_eq!(shells.keys_of("user-amy", Timestamp(30)).expect("read").len(), 1);
        assert!(
            shells
                .keys_of("user-amy", Timestamp(i64::MAX))
                .expect("read")
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_connection_begins_behind_the_machines_answer() {
        let answered = async |answer: &[u8]| {
            let (mut machine, ours) = duplex(4096);
            machine.write_all(answer).await.expect("room");
            machine.shutdown().await.expect("no error");
            let mut stream: BoxedStream = Box::new(ours);
            let came = handed_over(&mut stream, "POST /connect-ssh HTTP/1.1\r\n\r\n").await;
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.expect("text");
            came.map(|()| rest)
        };
        let good = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: ssh\r\n\r\nSSH-2.0-x\r\n";
        assert_eq!(answered(good).await.as_deref(), Ok("SSH-2.0-x\r\n"));
        let none = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 8\r\n\r\nno sshd\n";
        let why = "the machine answered `HTTP/1.1 502 Bad Gateway`: no sshd";
        assert_eq!(answered(none).await, Err(why.to_owned()));
        assert!(answered(b"HTTP/1.1 101").await.is_err());
    }
}
