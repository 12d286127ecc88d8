//! Connections to lent machines, through the coordinator.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use buildlet_api::{BoxedStream, Client, Connect};
use ids::MachineId;
use indicatif::ProgressBar;
use rustls_pki_types::ServerName;
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::server::Server;
use crate::show;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A client to the machine lent as `name`.
pub fn client(server: &Server, name: &str) -> Result<Client, Failure> {
    let loan =
        MachineId::parse(name).map_err(|error| server.strange("/buildlet/list", &error.to_string()))?;
    Ok(Client::lent(
        Arc::new(ToFarm::of(server)?),
        loan,
        authorization(server)?,
    ))
}

/// The farm's host, as ssh takes it.
pub fn host(server: &Server) -> Result<String, Failure> {
    Ok(ToFarm::of(server)?.host)
}

fn authorization(server: &Server) -> Result<String, Failure> {
    let token = server.token().ok_or_else(|| {
        Failure::new("machines are lent to holders of a token").hint(
            "`burrow token new NAME --role contributor` makes one; give it with --token or BURROW_TOKEN",
        )
    })?;
    Ok(format!("Bearer {token}"))
}

/// Dials the farm, with TLS if its address says so.
struct ToFarm {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl ToFarm {
    fn of(server: &Server) -> Result<ToFarm, Failure> {
        let wrong = || Failure::usage(format!("`{}` is no address of a farm", show::plain(server.url())));
        let url = reqwest::Url::parse(server.url()).map_err(|_| wrong())?;
        let host = url.host_str().ok_or_else(wrong)?.to_owned();
        let port = url.port_or_known_default().ok_or_else(wrong)?;
        // An IPv6 address stands in brackets.
        let bare = host.trim_matches(['[', ']']).to_owned();
        let tls = if url.scheme() == "https" {
            let config = rustls::ClientConfig::with_platform_verifier()
                .map_err(|error| Failure::new(format!("cannot set up TLS: {error}")))?;
            let name = ServerName::try_from(bare.clone()).map_err(|_| wrong())?;
            Some((TlsConnector::from(Arc::new(config)), name))
        } else {
            None
        };
        Ok(ToFarm {
            host: bare,
            port,
            tls,
        })
    }
}

impl Connect for ToFarm {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<BoxedStream>> + Send + '_>> {
        Box::pin(async {
            let connecting = async {
                let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
                tcp.set_nodelay(true)?;
                Ok::<BoxedStream, io::Error>(match &self.tls {
                    None => Box::new(tcp),
                    Some((tls, name)) => Box::new(tls.connect(name.clone(), tcp).await?),
                })
            };
            timeout(CONNECT_LIMIT, connecting)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        })
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Counts what goes through.
pub struct Counted<T> {
    inner: T,
    bar: ProgressBar,
}

impl<T> Counted<T> {
    pub fn new(inner: T, bar: ProgressBar) -> Counted<T> {
        Counted { inner, bar }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.bar.inc((buf.filled().len() - before) as u64);
        done
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &done {
            self.bar.inc(*count as u64);
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[derive(Debug, clap::Args)]
pub struct Ssh {
    /// Whom to be on the machine
    #[arg(long, default_value = "root", value_name = "USER")]
    user: String,
    /// Public key that the machine is to let in; this process is then the connection, on standard input and output
    #[arg(long, hide = true, value_name = "KEY")]
    pipe: Option<String>,
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "INSTANCE ARGS…"
    )]
    pub words: Vec<String>,
}

/// Runs ssh with this program as its connection, and a key that lives as long.
pub async fn ssh(
    global: &Global,
    server: &Server,
    name: &str,
    asked: &Ssh,
    args: &[String],
) -> Result<Exit, Failure> {
    if let Some(key) = &asked.pipe {
        return pipe(server, name, &asked.user, key).await;
    }
    let cannot = |what: &str, error: &io::Error| Failure::new(format!("cannot {what}: {error}"));
    let folder = tempfile::tempdir().map_err(|error| cannot("make a folder for the key", &error))?;
    let private = folder.path().join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "burrow", "-f"])
        .arg(&private)
        .status()
        .map_err(|error| cannot("run ssh-keygen", &error).hint("install OpenSSH's client"))?;
    if !made.success() {
        return Err(Failure::new("ssh-keygen made no key"));
    }
    let public = std::fs::read_to_string(private.with_extension("pub"))
        .map_err(|error| cannot("read the key", &error))?;
    let own = std::env::current_exe().map_err(|error| cannot("tell where this program is", &error))?;
    let proxy = [
        own.to_string_lossy().as_ref(),
        "gomote",
        "ssh",
        "--user",
        &asked.user,
        "--pipe",
        public.trim(),
        name,
    ]
    .map(quoted)
    .join(" ");
    let status = tokio::process::Command::new("ssh")
        .arg("-o")
        .arg(format!("ProxyCommand={}", proxy.replace('%', "%%")))
        .args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args(["-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", "-i"])
        .arg(&private)
        .arg(format!("{}@{name}", asked.user))
        .args(args.iter().skip_while(|word| *word == "--"))
        // Not on the command line, where everyone could read it.
        .env("BURROW_SERVER", server.url())
        .env("BURROW_TOKEN", server.token().unwrap_or_default())
        .envs(global.state_dir.as_ref().map(|dir| ("BURROW_STATE_DIR", dir)))
        .status()
        .await
        .map_err(|error| cannot("run ssh", &error).hint("install OpenSSH's client"))?;
    Ok(Exit::Command(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(255),
    ))
}

/// As one word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Standard input and output become the connection to the machine's ssh server.
async fn pipe(server: &Server, name: &str, user: &str, key: &str) -> Result<Exit, Failure> {
    let plain = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !plain(user) || !plain(key) {
        return Err(Failure::usage("a user and a key are one line of plain text"));
    }
    let farm = ToFarm::of(server)?;
    let broken =
        |error: io::Error| Failure::new(format!("the connection to {} broke: {error}", farm.address()));
    let mut stream = farm.connect().await.map_err(broken)?;
    let head = format!(
        "POST /connect-ssh HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nX-Buildlet-Proxy: {name}\r\n\
         X-Go-Ssh-User: {user}\r\nX-Go-Authorized-Key: {key}\r\nContent-Length: 0\r\n\r\n",
        farm.address(),
        authorization(server)?,
    );
    stream.write_all(head.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") && answer.len() < 64 * 1024 {
        answer.push(stream.read_u8().await.map_err(broken)?);
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let line = text.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) != Some("101") {
        let mut why = String::new();
        // What came of it is worth showing, the rest is not.
        let _ = stream.take(4096).read_to_string(&mut why).await;
        return Err(Failure::new(format!(
            "no ssh server there: {}: {}",
            show::plain(line),
            show::plain(why.trim())
        )));
    }
    let mut own = tokio::io::join(standard(io::stdin())?, standard(io::stdout())?);
    match tokio::io::copy_bidirectional(&mut own, &mut stream).await {
        // A read of standard input that waits cannot be called off, and would keep this process.
        Ok(_) => std::process::exit(0),
        Err(error) => Err(broken(error)),
    }
}

/// Standard input or output, to be waited for.
pub fn standard(stream: impl AsFd) -> Result<tokio::fs::File, Failure> {
    let own = stream.as_fd().try_clone_to_owned();
    let own = own.map_err(|error| Failure::new(format!("cannot use standard input and output: {error}")))?;
    Ok(tokio::fs::File::from_std(own.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole_in_a_shell() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
