//! Passes one request to the machine that its asker has, and the answer back.
//!
//! Behind the two heads all bytes go through as they come: trailers, pieces, what follows a 101. The connection to the
//! machine is the asker's for this one request; when either side, the loan or the machine ends, so does it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use buildlet_api::BoxedStream;
use farm::Input;
use http1::{BodyDecoder, Decoded, RequestHead};
use ids::LoanId;
use store::read::LoanRow;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{interval, timeout};
use tracing::debug;
use web::{Client, ConnectionInfo, RawHead, RawStream};

use super::wire::{Refusal, back, onward, refusal, time};
use super::{Gomotes, PROXY, who};
use crate::engine;

const PIECE: usize = 64 * 1024;
/// Longest head of an answer.
const MAX_HEAD: usize = 64 * 1024;
/// How often a request that goes on counts as a use.
const RENEW_EVERY: Duration = Duration::from_secs(60);
/// For the end of a loan that is given back. Go's client waits 2 s.
const RETURN_LIMIT: Duration = Duration::from_secs(10);
/// What a client may still be sending when it is refused: read, or it sees a reset and not the reason.
const DRAIN: u64 = 256 * 1024;
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

impl Gomotes {
    /// Runs until the answer is through.
    pub async fn pass(&self, head: RawHead, mut stream: RawStream) {
        let refused = match self.admit(&head).await {
            Ok(None) => {
                let done = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                return finish(&mut stream, done).await;
            }
            Ok(Some(loan)) => self.through(&loan, &head, &mut stream).await.err(),
            Err(why) => Some(why),
        };
        if let Some(why) = refused {
            finish(&mut stream, &why.answer()).await;
        }
    }

    /// The loan that the request is for; `None` when the request was to give it back, and it has been.
    async fn admit(&self, head: &RawHead) -> Result<Option<LoanRow>, Refusal> {
        let connection = ConnectionInfo {
            peer: head.peer,
            tls: head.tls,
        };
        let owner = who::owner(
            head.header("authorization"),
            Client::of(head.peer.ip(), &head.headers),
            connection,
            &self.master,
            &self.tokens,
        )
        .await?;
        let row = self.loan(head.header(PROXY)).await?;
        if row.loan.owner != owner {
            return Err(refusal(401, "you don't own that buildlet"));
        }
        if (head.method.as_str(), head.path()) == ("POST", "/halt") {
            self.give_back(row.loan.loan, &row.loan.name, &owner).await?;
            return Ok(None);
        }
        if head.path() == "/tcpproxy" {
            // The original dials the address of a virtual machine that it made.
            let why = "machines here have no address of their own; `ssh -p PORT -L 3389:localhost:3389 INSTANCE@FARM` leads to \
                       any port of one";
            return Err(refusal(400, why));
        }
        Ok(Some(row))
    }

    /// The loan of this name, while it lasts.
    pub(super) async fn loan(&self, name: &str) -> Result<LoanRow, Refusal> {
        let found = self.store.loan(name).await;
        let found = found.map_err(|why| refusal(503, format!("{:#}", anyhow::Error::from(why))))?;
        let row = found.ok_or_else(|| refusal(502, "unknown or expired buildlet"))?;
        match row.ended {
            None => Ok(row),
            Some(at) => Err(Refusal {
                machine: Some(row.loan.machine.to_string()),
                since: Some(at),
                ..refusal(
                    502,
                    format!(
                        "unknown or expired buildlet: it ended at {}: {}",
                        time(at),
                        row.why
                    ),
                )
            }),
        }
    }

    async fn give_back(&self, loan: LoanId, name: &str, owner: &str) -> Result<(), Refusal> {
        let trouble = |why| refusal(503, format!("{:#}", anyhow::Error::from(why)));
        let mut changes = self.store.changes();
        self.store.return_loan(loan, owner).await.map_err(trouble)?;
        let ended = async {
            loop {
                changes.mark_unchanged();
                let row = self.store.loan(name).await.map_err(trouble)?;
                if row.is_none_or(|row| row.loan.loan != loan || row.ended.is_some()) {
                    return Ok(());
                }
                if changes.changed().await.is_err() {
                    return Ok(());
                }
            }
        };
        // Noted durably: it ends, if later.
        timeout(RETURN_LIMIT, ended).await.unwrap_or(Ok(()))
    }

    /// `Err`: nothing has been answered yet.
    async fn through(&self, row: &LoanRow, head: &RawHead, stream: &mut RawStream) -> Result<(), Refusal> {
        let (loan, machine) = (row.loan.loan, &row.loan.machine);
        let cut = self.desk.cut_of(loan);
        // What ends behind this look cuts us.
        let row = self
            .loan(&row.loan.name)
            .await
            .inspect_err(|_| self.desk.cut(loan))?;
        if row.loan.loan != loan {
            return Err(refusal(502, "unknown or expired buildlet"));
        }
        let used = || async {
            // Closed only when the coordinator stops.
            let _ = self.inputs.send(Input::LoanUsed { loan }).await;
        };
        used().await;
        let link = self.links.lock().expect("no holder panics").get(machine).cloned();
        let Some(link) = link else {
            return Err(self.away(&row).await);
        };
        let failed = |why: String| Refusal {
            machine: Some(machine.to_string()),
            ..refusal(502, format!("gomote proxy error: {why}"))
        };
        let (onto, authorization) = link
            .client
            .dial()
            .await
            .map_err(|why| failed(format!("{:#}", anyhow::Error::from(why))))?;
        let answered = AtomicBool::new(false);
        let renew = async {
            let mut every = interval(RENEW_EVERY);
            loop {
                every.tick().await;
                used().await;
            }
        };
        let head_onward = onward(head, authorization.as_ref().map(|value| value.as_bytes()));
        let ended: Result<(), String> = tokio::select! {
            done = exchange(stream, onto, head, &head_onward, &answered) => {
                done.map_err(|why| format!("machine {machine} did not answer: {why}"))
            }
            () = cut.cancelled() => Err("the loan has ended".to_owned()),
            () = link.gone.cancelled() => Err(format!("machine {machine} was lost")),
            () = renew => Ok(()),
        };
        match ended {
            Err(why) if !answered.load(Ordering::Relaxed) => {
                // Why it has ended says more.
                let ended = self.loan(&row.loan.name).await.err();
                Err(ended.unwrap_or_else(|| failed(why)))
            }
            Err(why) => {
                debug!(loan.id = %loan, "a request to {machine} broke off: {why}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Of a machine that is not connected and may come back.
    pub(super) async fn away(&self, row: &LoanRow) -> Refusal {
        let machine = &row.loan.machine;
        let known = self.store.machine(machine).await.ok().flatten();
        let (since, why) = match known {
            Some(known) if !known.connected => (Some(known.changed), known.why_gone),
            _ => (None, "it is not connected".to_owned()),
        };
        let at = since.map(|at| format!(" since {}", time(at)));
        Refusal {
            machine: Some(machine.to_string()),
            since: since.or(Some(engine::wall())),
            ..refusal(
                502,
                format!(
                    "gomote proxy error: machine {machine} is out of reach{}: {why}",
                    at.unwrap_or_default()
                ),
            )
        }
    }
}

async fn finish(stream: &mut RawStream, answer: &[u8]) {
    let writing = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(DRAIN), &mut tokio::io::sink()).await
    };
    // Whoever left meanwhile does not need the answer.
    let _ = timeout(DRAIN_LIMIT, writing).await;
}

/// One request with its body to the machine, its answer back. `answered` is set once something has been.
async fn exchange(
    client: &mut RawStream,
    machine: BoxedStream,
    head: &RawHead,
    onward: &[u8],
    answered: &AtomicBool,
) -> io::Result<()> {
    let body = RequestHead {
        method: head.method.clone(),
        target: head.target.clone(),
        minor: 1,
        headers: head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect(),
    };
    let body = BodyDecoder::new(&body).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
    let handed_over = AtomicBool::new(false);
    let (client_in, client_out) = tokio::io::split(client);
    let (machine_in, mut machine_out) = tokio::io::split(machine);
    machine_out.write_all(onward).await?;
    machine_out.flush().await?;
    tokio::select! {
        done = up(client_in, machine_out, body, &handed_over) => done,
        done = down(machine_in, client_out, answered, &handed_over) => done,
    }
}

/// Passes the body on, and not a byte more, unless the connection is handed over. Ends when the client is gone.
async fn up<R, W>(mut from: R, mut to: W, mut body: BodyDecoder, handed_over: &AtomicBool) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut input = Vec::with_capacity(PIECE);
    while !body.is_done() {
        if from.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let mut used = 0;
        loop {
            let look = body.decode(&input[used..]);
            match look.map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))? {
                Decoded::Data { skip, take } => used += skip + take,
                Decoded::More { used: more } | Decoded::End { used: more } => {
                    used += more;
                    break;
                }
            }
        }
        to.write_all(&input[..used]).await?;
        to.flush().await?;
        input.drain(..used);
    }
    loop {
        input.clear();
        let count = from.read_buf(&mut input).await?;
        match (count, handed_over.load(Ordering::Acquire)) {
            (0, false) => return Ok(()),
            (0, true) => {
                to.shutdown().await?;
                return std::future::pending().await;
            }
            (_, true) => {
                to.write_all(&input).await?;
                to.flush().await?;
            }
            // A second request on a connection that ends with the first.
            (_, false) => {}
        }
    }
}

/// Passes the answer back, its heads rewritten. Ends with it.
async fn down<R, W>(mut from: R, mut to: W, answered: &AtomicBool, handed_over: &AtomicBool) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut input = Vec::with_capacity(PIECE);
    loop {
        let head = back(&input).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
        let Some(head) = head else {
            if input.len() > MAX_HEAD || from.read_buf(&mut input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            continue;
        };
        if head.status == 101 {
            handed_over.store(true, Ordering::Release);
        }
        answered.store(true, Ordering::Relaxed);
        to.write_all(&head.bytes).await?;
        to.flush().await?;
        input.drain(..head.used);
        if head.status == 101 || head.status >= 200 {
            break;
        }
    }
    loop {
        if !input.is_empty() {
            to.write_all(&input).await?;
            to.flush().await?;
            input.clear();
        }
        if from.read_buf(&mut input).await? == 0 {
            return to.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What came out of both ends when `client` and `machine` have said this, each in one piece, and have hung up or not.
    async fn exchanged(
        head: &str,
        client: &[u8],
        machine: &[u8],
        machine_ends: bool,
    ) -> (Vec<u8>, Vec<u8>, bool) {
        let (mut client_end, client_ours) = duplex(1 << 20);
        let (mut machine_end, machine_ours) = duplex(1 << 20);
        client_end.write_all(client).await.expect("room");
        machine_end.write_all(machine).await.expect("room");
        if machine_ends {
            machine_end.shutdown().await.expect("no error");
        }
        let (parsed, _) = RequestHead::parse(head.as_bytes())
            .expect("no error")
            .expect("whole");
        let body = BodyDecoder::new(&parsed).expect("a body");
        let (answered, handed_over) = (AtomicBool::new(false), AtomicBool::new(false));
        let (client_in, client_out) = tokio::io::split(client_ours);
        let (machine_in, machine_out) = tokio::io::split(machine_ours);
        let done = tokio::select! {
            biased;
            done = down(machine_in, client_out, &answered, &handed_over) => done,
            done = up(client_in, machine_out, body, &handed_over) => done,
            // Nothing is left to do but to wait for more.
            () = idle() => Ok(()),
        };
        let (mut to_client, mut to_machine) = (Vec::new(), Vec::new());
        let _ = client_end.read_to_end(&mut to_client).await;
        let _ = machine_end.read_to_end(&mut to_machine).await;
        (to_client, to_machine, done.is_ok())
    }

    /// Ready once everything else has had many turns.
    async fn idle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_body_goes_on_and_not_a_byte_behind_it() {
        let head = "PUT /write HTTP/1.1\r\nContent-Length: 4\r\n\r\n";
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
        let second = b"bodyGET / HTTP/1.1\r\nAuthorization: Basic secret\r\n\r\n";
        let (to_client, to_machine, ok) = exchanged(head, second, answer, false).await;
        assert!(ok);
        assert_eq!(text(&to_machine), "body");
        assert_eq!(
            text(&to_client),
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK"
        );
        let head = "PUT /write HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunks = b"3\r\nabc\r\n0\r\nA: b\r\n\r\nPOST /halt HTTP/1.1\r\n\r\n";
        let (_, to_machine, _) = exchanged(head, chunks, answer, false).await;
        assert_eq!(text(&to_machine), "3\r\nabc\r\n0\r\nA: b\r\n\r\n");
        let second = b"GET / HTTP/1.1\r\nAuthorization: Basic secret\r\n\r\n";
        let (_, to_machine, _) = exchanged("GET /status HTTP/1.1\r\n\r\n", second, answer, false).await;
        assert_eq!(text(&to_machine), "");
    }

    #[tokio::test]
    async fn trailers_come_back_as_they_are() {
        let head = "POST /exec HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTrailer: Process-State\r\nTransfer-Encoding: chunked\r\n\r\n\
            2\r\nhi\r\n0\r\nProcess-State: exit status 3\r\n\r\n";
        let (to_client, _, ok) = exchanged(head, b"", answer, true).await;
        assert!(ok);
        let said = text(&to_client);
        assert!(said.contains("\r\nConnection: close\r\n\r\n2\r\nhi"), "{said}");
        assert!(
            said.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
            "{said}"
        );
        assert!(
            said.ends_with("2\r\nhi\r\n0\r\nProcess-State: exit status 3\r\n\r\n"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn a_connection_that_is_handed_over_carries_bytes_both_ways() {
        let head = "POST /connect-ssh HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: ssh\r\nConnection: Upgrade\r\n\r\nSSH-2.0-server\r\n";
        let (to_client, to_machine, _) = exchanged(head, b"SSH-2.0-client\r\n", answer, false).await;
        assert_eq!(to_client, answer);
        assert_eq!(text(&to_machine), "SSH-2.0-client\r\n");
    }

    #[tokio::test]
    async fn a_machine_that_says_nothing_whole_has_not_answered() {
        let head = "GET /status HTTP/1.1\r\n\r\n";
        let (to_client, _, ok) = exchanged(head, b"", b"HTTP/1.1 200", true).await;
        assert!(!ok && to_client.is_empty());
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }
}
