//! Calls to one buildlet.

mod connection;
mod error;
mod upload;

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use ids::MachineId;
use serde::Deserialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

pub use connection::{BoxedStream, Connect, Stream, TcpConnect};
pub use error::{CallError, FollowError};
pub use upload::Upload;

use crate::exec::{ExecSpec, ProcessState};
use crate::ls::{DirEntry, ListOptions, parse_line};
use crate::status::Status;
use crate::wire;
use connection::{Answer, Body, Inner, Peer};

/// For the head of an answer. Source: the 2023 client's header timeout.
const HEAD_LIMIT: Duration = Duration::from_secs(20);
/// Halting is a courtesy. Source: golang/build `buildlet/buildletclient.go`, `Close`.
const HALT_LIMIT: Duration = Duration::from_secs(2);
/// Removing a big tree takes a while, and Windows buildlets retry for 10 s.
const REMOVE_LIMIT: Duration = Duration::from_secs(300);
/// Without a byte of a listing or an archive.
const STALL_LIMIT: Duration = Duration::from_secs(120);
const UPLOAD_BASE: Duration = Duration::from_secs(30);
const UPLOAD_BYTES_PER_SEC: u64 = 100 * 1024;
/// An upload whose size nobody knows beforehand.
const UPLOAD_UNSIZED_LIMIT: Duration = Duration::from_secs(3600);
/// A line of `/ls`. Source: Go's client gives up on longer ones.
const LS_LINE_LIMIT: usize = 64 * 1024;

/// The password of a buildlet. Has no `Debug` and no `Display`.
#[derive(Clone)]
pub struct Password(Box<str>);

impl Password {
    /// White space around `text` is not part of it. `None` if nothing is left.
    pub fn new(text: &str) -> Option<Password> {
        let text = text.trim();
        (!text.is_empty()).then(|| Password(text.into()))
    }

    /// The value of the header `Authorization`.
    fn basic_auth(&self) -> String {
        format!("Basic {}", base64(format!("gomote:{}", self.0).as_bytes()))
    }
}

/// Speaks to one buildlet. Cheap to clone; clones share their idle connections.
///
/// Every wait has a limit, named with each call. A future of any call may be dropped: its
/// connection is closed then, which kills a command of [`Client::exec`] and nothing else.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

/// How a command followed by [`Client::follow_exec`] ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecEnd {
    pub state: ProcessState,
    /// All it ever printed, in bytes.
    pub bytes: u64,
    /// Its exit code, if it ran and was not killed.
    pub exit: Option<i64>,
    /// How long it ran by the buildlet's clock.
    pub wall: Option<Duration>,
}

/// One command that the buildlet knows of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RunningExec {
    pub id: String,
    pub running: bool,
    pub bytes: u64,
}

impl Client {
    /// `host` is for messages; `password` goes with every request.
    pub fn new(connect: Arc<dyn Connect>, host: MachineId, password: Option<Password>) -> Client {
        let peer = Peer::new(host, connect, password.map(|password| password.basic_auth()));
        Client(Arc::new(Inner::new(peer)))
    }

    /// A client to a machine that a coordinator lends: `connect` leads to the coordinator, `loan` is the machine's name there,
    /// `authorization` the header of whoever has it.
    pub fn lent(connect: Arc<dyn Connect>, loan: MachineId, authorization: String) -> Client {
        let name = loan.as_str().to_owned();
        let peer = Peer::new(loan, connect, Some(authorization)).behind(&name);
        Client(Arc::new(Inner::new(peer)))
    }

    pub fn host(&self) -> &MachineId {
        self.0.host()
    }

    /// Where the buildlet is, for people.
    pub fn address(&self) -> String {
        self.0.address()
    }

    /// A connection for somebody else's requests, and the header `Authorization` that they need, if any. 30 s.
    pub async fn dial(&self) -> Result<(BoxedStream, Option<HeaderValue>), CallError> {
        let stream = self.0.dial("a request passed on").await?;
        Ok((stream, self.0.peer.authorization()))
    }

    /// Who the buildlet says it is; also the heartbeat. 20 s in all.
    pub async fn status(&self) -> Result<Status, CallError> {
        let call = self.call(Method::GET, wire::STATUS, "GET /status");
        call.json(HEAD_LIMIT).await
    }

    /// Closes the connections that were kept for later calls for so long.
    pub fn forget_idle(&self, since: Duration) {
        self.0.forget_idle(since);
    }

    /// Asks a buildlet of stage0's to end itself if it does nothing, so that the published one is run. `false`: it is at work.
    /// 20 s in all.
    pub async fn update(&self) -> Result<bool, CallError> {
        let call = self.call(Method::POST, wire::BURROW_UPDATE, "POST /burrow/update");
        match call.text(HEAD_LIMIT).await {
            Ok(_) => Ok(true),
            Err(CallError::Refused { status: 409, .. }) => Ok(false),
            Err(why) => Err(why),
        }
    }

    /// The absolute work directory, as the buildlet's platform writes it. 20 s in all.
    pub async fn work_dir(&self) -> Result<String, CallError> {
        let call = self.call(Method::GET, wire::WORK_DIR, "GET /workdir");
        call.text(HEAD_LIMIT).await
    }

    /// Removes paths below the work directory, in order, up to the first that cannot be; `.` clears
    /// all of it. Missing ones are fine. 5 min in all.
    pub async fn remove_all(&self, paths: &[&str]) -> Result<(), CallError> {
        let form = wire::form(paths.iter().map(|path| ("path", *path)));
        let call = self.call(Method::POST, wire::REMOVE_ALL, "POST /removeall");
        call.form(form).text(REMOVE_LIMIT).await.map(drop)
    }

    /// Asks the buildlet to end itself, which it does a second after its answer. 2 s in all, best
    /// effort; an error says no more than that it did not answer.
    pub async fn halt(&self) -> Result<(), CallError> {
        let call = self.call(Method::POST, wire::HALT, "POST /halt");
        call.text(HALT_LIMIT).await.map(drop)
    }

    /// Unpacks a tar.gz into `dir` below the work directory; empty: the work directory itself. The
    /// limit is 30 s and a second for each 100 KiB; an hour if the size is not known.
    pub async fn put_tgz(&self, dir: &str, archive: Upload) -> Result<(), CallError> {
        let target = format!("{}?{}", wire::WRITE_TGZ, wire::form([("dir", dir)]));
        self.upload(target, "PUT /writetgz", archive).await
    }

    /// Writes a file below the work directory. `mode` holds the nine permission bits. Limits as
    /// [`Client::put_tgz`].
    pub async fn put_file(&self, path: &str, mode: u32, content: Upload) -> Result<(), CallError> {
        // On the wire it is Go's file mode in decimal, of which these bits alone make sense.
        let mode = (mode & 0o777).to_string();
        let target = format!(
            "{}?{}",
            wire::WRITE,
            wire::form([("mode", mode.as_str()), ("path", path)])
        );
        self.upload(target, "PUT /write", content).await
    }

    /// Lists a directory below the work directory. Gives up when nothing comes for 2 min, and past
    /// `max` entries.
    pub async fn ls(&self, dir: &str, options: &ListOptions, max: usize) -> Result<Vec<DirEntry>, CallError> {
        let flag = |on: bool| if on { "true" } else { "false" };
        let mut pairs = vec![("digest", flag(options.digest)), ("dir", dir)];
        pairs.push(("recursive", flag(options.recursive)));
        pairs.extend(options.skip.iter().map(|skip| ("skip", skip.as_str())));
        let target = format!("{}?{}", wire::LS, wire::form(pairs));
        let mut answer = self
            .call(Method::GET, &target, "GET /ls")
            .send_within(STALL_LIMIT)
            .await?;

        let mut entries = Vec::new();
        let mut pending = BytesMut::new();
        loop {
            let piece = answer.data_within(STALL_LIMIT).await?;
            let ended = piece.is_none();
            pending.extend_from_slice(&piece.unwrap_or_default());
            while let Some(end) = pending.iter().position(|&b| b == b'\n') {
                let line = pending.split_to(end + 1);
                let text = std::str::from_utf8(&line[..end]).ok();
                let entry = text.and_then(parse_line);
                entries.push(entry.ok_or_else(|| answer.nonsense(&line, "a line of a listing"))?);
            }
            if entries.len() > max || pending.len() > LS_LINE_LIMIT {
                return Err(answer.nonsense(b"too much", "a listing within its limits"));
            }
            if ended && !pending.is_empty() {
                return Err(answer.nonsense(&pending, "a line of a listing with its newline"));
            }
            if ended {
                return Ok(entries);
            }
        }
    }

    /// Reads a directory below the work directory as a tar.gz into `out`, unflushed; returns its
    /// length. The gzip stream may have many members. Gives up when nothing comes for 2 min, and
    /// past `max` bytes; what was written is of no use then.
    pub async fn tgz<W>(&self, dir: &str, out: &mut W, max: u64) -> Result<u64, CallError>
    where
        W: AsyncWrite + Unpin + Send,
    {
        // Buildlets of 2023 refuse an empty directory here.
        let dir = if dir.is_empty() { "." } else { dir };
        let target = format!("{}?{}", wire::TGZ, wire::form([("dir", dir)]));
        let mut answer = self
            .call(Method::GET, &target, "GET /tgz")
            .send_within(STALL_LIMIT)
            .await?;
        let mut length = 0;
        while let Some(piece) = answer.data_within(STALL_LIMIT).await? {
            length += piece.len() as u64;
            if length > max {
                return Err(answer.nonsense(b"too much", "an archive within its limit"));
            }
            let written = out.write_all(&piece).await;
            written.map_err(|source| answer.local("write the archive", source))?;
        }
        Ok(length)
    }

    /// Runs a command to its end on this connection, as Go's client does: if the connection goes,
    /// so does the command. Hands each piece of the output to `output` and waits for it before the
    /// next is read.
    ///
    /// 20 s for the head of the answer; from there on no limit but the caller's, who drops the
    /// future. A stream that is cut, or ends without saying how the command ended, is
    /// [`CallError::Gone`]; a command that the machine failed is [`CallError::Failed`].
    pub async fn exec<F, Fut>(&self, spec: &ExecSpec, mut output: F) -> Result<ProcessState, CallError>
    where
        F: FnMut(Bytes) -> Fut,
        Fut: Future<Output = ()>,
    {
        let call = self.call(Method::POST, wire::EXEC, "POST /exec").once();
        let mut answer = call.form(spec.form(None)).send_within(HEAD_LIMIT).await?;
        while let Some(piece) = answer.data().await? {
            output(piece).await;
        }
        process_state(&answer)
    }

    /// Starts a command that goes on whatever becomes of the connection; asked twice for one `id`, it
    /// starts once. `true`: it was started by this call. `wall` is the time after which the buildlet
    /// kills it. 20 s in all.
    ///
    /// For buildlets with the feature `exec2` ([`Status::resumable`]).
    pub async fn start_exec(
        &self,
        id: &str,
        spec: &ExecSpec,
        wall: Option<Duration>,
    ) -> Result<bool, CallError> {
        #[derive(Deserialize)]
        struct Started {
            started: bool,
        }
        let target = format!("{}?{}", wire::BURROW_EXEC, wire::form([("id", id)]));
        let call = self.call(Method::POST, &target, "POST /burrow/exec");
        let started: Started = call.form(spec.form(wall)).json(HEAD_LIMIT).await?;
        Ok(started.started)
    }

    /// Follows a command of [`Client::start_exec`] from a byte of its output to its end. Hands each
    /// piece with the stream offset of its first byte to `output` and waits for it before the next
    /// is read. The first piece begins past `offset` if the buildlet had to drop some.
    ///
    /// 20 s for the head of the answer; from there on no limit but the caller's. After
    /// [`CallError::Failed`] there is no more to come; after any other [`FollowError::Call`] the command may well run on: follow it again from where the pieces end.
    pub async fn follow_exec<F, Fut>(
        &self,
        id: &str,
        offset: u64,
        mut output: F,
    ) -> Result<ExecEnd, FollowError>
    where
        F: FnMut(u64, Bytes) -> Fut,
        Fut: Future<Output = ()>,
    {
        let target = format!("{}?offset={offset}", exec_path(id));
        let call = self.call(Method::GET, &target, "GET /burrow/exec");
        let mut answer = match call.send_within(HEAD_LIMIT).await {
            Err(CallError::Refused { status: 404, .. }) => return Err(FollowError::UnknownId),
            answer => answer?,
        };
        let mut at = match header(answer.headers(), wire::BURROW_OFFSET) {
            None => offset,
            Some(value) => {
                let begin = std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.trim().parse::<u64>().ok());
                let begin = begin.filter(|&begin| begin >= offset);
                begin.ok_or_else(|| answer.nonsense(value, "an offset no less than the one asked for"))?
            }
        };
        while let Some(piece) = answer.data().await? {
            let next = at + piece.len() as u64;
            output(at, piece).await;
            at = next;
        }
        let state = process_state(&answer)?;
        let detail: ExecDetail = match answer.trailer(wire::BURROW_EXEC_TRAILER) {
            None => ExecDetail::default(),
            Some(json) => {
                serde_json::from_slice(json).map_err(|_| answer.nonsense(json, "an end of a command"))?
            }
        };
        Ok(ExecEnd {
            state,
            bytes: detail.bytes.unwrap_or(at),
            exit: detail.exit,
            wall: detail.wall_ms.map(Duration::from_millis),
        })
    }

    /// Kills a command of [`Client::start_exec`], or forgets it if it has ended. `false`: the buildlet
    /// does not know it. 20 s in all.
    pub async fn kill_exec(&self, id: &str) -> Result<bool, CallError> {
        let path = exec_path(id);
        let call = self.call(Method::DELETE, &path, "DELETE /burrow/exec");
        match call.text(HEAD_LIMIT).await {
            Ok(_) => Ok(true),
            Err(CallError::Refused { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The commands of [`Client::start_exec`] that the buildlet has not forgotten. 20 s in all.
    pub async fn list_execs(&self) -> Result<Vec<RunningExec>, CallError> {
        let call = self.call(Method::GET, wire::BURROW_EXEC, "GET /burrow/exec");
        call.json(HEAD_LIMIT).await
    }

    async fn upload(&self, target: String, request: &'static str, upload: Upload) -> Result<(), CallError> {
        let call = self.call(Method::PUT, &target, request).once();
        let opened = upload.open().await;
        let opened = opened.map_err(|(what, source)| self.0.peer.local(what, source))?;
        let limit = match opened.size {
            Some(size) => UPLOAD_BASE + Duration::from_secs(size / UPLOAD_BYTES_PER_SEC),
            None => UPLOAD_UNSIZED_LIMIT,
        };
        let result = call.body(opened.body).text(limit).await;
        // A file that could not be read looks to the connection like any other end of it.
        match opened.fault.take() {
            Some(source) => Err(self
                .0
                .peer
                .local("read what is to be uploaded".to_owned(), source)),
            None => result.map(drop),
        }
    }

    fn call(&self, method: Method, target: &str, request: &'static str) -> Call<'_> {
        Call {
            client: self,
            method,
            target: target.to_owned(),
            request,
            body: CallBody::None,
            again: true,
        }
    }
}

/// One request under construction.
struct Call<'a> {
    client: &'a Client,
    method: Method,
    target: String,
    /// For messages: the method and path without what the caller put in.
    request: &'static str,
    body: CallBody,
    /// It may use a connection that has been idle, and be sent anew on a fresh one if that turns out
    /// to be stale.
    again: bool,
}

enum CallBody {
    None,
    Form(String),
    Stream(Body),
}

impl Call<'_> {
    fn once(mut self) -> Self {
        self.again = false;
        self
    }

    fn form(mut self, form: String) -> Self {
        self.body = CallBody::Form(form);
        self
    }

    fn body(mut self, body: Body) -> Self {
        self.body = CallBody::Stream(body);
        self
    }

    /// Sends it and waits for the head of a good answer.
    async fn send_within(self, limit: Duration) -> Result<Answer, CallError> {
        let until = Instant::now() + limit;
        self.send(until, limit).await
    }

    /// Sends it and reads a good answer whole, up to 1 MiB.
    async fn text(self, limit: Duration) -> Result<String, CallError> {
        let until = Instant::now() + limit;
        let answer = self.send(until, limit).await?;
        answer.text(until, limit).await
    }

    async fn json<T: serde::de::DeserializeOwned>(self, limit: Duration) -> Result<T, CallError> {
        let (peer, request) = (self.client.0.peer.clone(), self.request);
        let text = self.text(limit).await?;
        serde_json::from_str(&text)
            .map_err(|_| peer.nonsense(request, text.as_bytes(), "the JSON of this call"))
    }

    async fn send(self, until: Instant, limit: Duration) -> Result<Answer, CallError> {
        let Call {
            client,
            method,
            target,
            request,
            body,
            again,
        } = self;
        let inner = &client.0;
        let (form, body) = match body {
            CallBody::None => (None, Body::default()),
            CallBody::Form(form) => (Some(Bytes::from(form)), Body::default()),
            CallBody::Stream(body) => (None, body),
        };
        let sending = async {
            if again && let Some(idle) = inner.idle() {
                let body = form.clone().map(connection::full).unwrap_or_default();
                match idle
                    .send(inner, &method, &target, request, form.is_some(), body)
                    .await
                {
                    Err(CallError::Gone { .. }) => {}
                    answer => return answer,
                }
            }
            let fresh = inner.connect(request).await?;
            let is_form = form.is_some();
            let body = form.map(connection::full).unwrap_or(body);
            fresh.send(inner, &method, &target, request, is_form, body).await
        };
        let answer = timeout_at(until, sending).await;
        let answer = answer.map_err(|_| inner.peer.timeout(request, limit))??;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        Err(answer.refused(until).await)
    }
}

/// The trailer `Burrow-Exec`; what is not read here is for people.
#[derive(Debug, Default, Deserialize)]
struct ExecDetail {
    bytes: Option<u64>,
    exit: Option<i64>,
    wall_ms: Option<u64>,
}

fn process_state(answer: &Answer) -> Result<ProcessState, CallError> {
    if let Some(why) = answer.trailer(wire::BURROW_ERROR) {
        return Err(answer.failed(why));
    }
    ProcessState::parse(answer.trailer(wire::PROCESS_STATE))
        .map_err(|missing| answer.gone(io::Error::new(io::ErrorKind::UnexpectedEof, missing)))
}

fn exec_path(id: &str) -> String {
    format!("{}/{}", wire::BURROW_EXEC, wire::segment(id))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.get(name).map(|value| value.as_bytes())
}

/// Base64 with padding, for the one header that needs it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= chunk.len() { digit.into() } else { '=' });
        }
    }
    out
}

/// Where a local file came from, for messages.
fn quoted(path: &Path) -> String {
    format!("`{}`", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
            ("\u{3ff}\u{3ff}", "z7/Pvw=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn a_password_is_trimmed_and_never_empty() {
        assert!(Password::new(" \n").is_none());
        let password = Password::new("secret\n").unwrap();
        assert_eq!(
            password.basic_auth(),
            format!("Basic {}", base64(b"gomote:secret"))
        );
    }
}
