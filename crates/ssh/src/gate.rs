use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use russh::keys::ssh_key::PublicKey;
use russh::keys::{Certificate, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::server::{Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, Disconnect, MethodKind, MethodSet, Pty, SshId, client, server,
};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::keys::is_one_of;
use crate::relay::{self, relay};
use crate::{Farm, Keys, Lent};

/// From the connection to a key that is taken.
const AUTH_LIMIT: Duration = Duration::from_secs(30);
/// For a machine's ssh server. Source: golang/build `buildlet/buildletclient.go`, `ConnectSSH`.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const USED_EVERY: Duration = Duration::from_secs(60);
/// A caller that is gone without a word is noticed after three of these.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Shells and forwarded connections of one caller.
const CHANNELS_MAX: usize = 64;
/// Source: golang/build `internal/coordinator/remote/ssh.go` (2018): a machine that is not made anew for each. All are taken here.
const MUTABLE: &str = "mutable-";

pub(crate) fn config(keys: &Keys) -> server::Config {
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::PublicKey);
    server::Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-burrow")),
        methods,
        auth_rejection_time: Duration::from_millis(500),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![keys.host.clone()],
        max_auth_attempts: 8,
        inactivity_timeout: None,
        keepalive_interval: Some(KEEP_ALIVE),
        nodelay: true,
        ..server::Config::default()
    }
}

/// Serves one caller to the end.
pub(crate) async fn caller(
    tcp: TcpStream,
    peer: SocketAddr,
    config: Arc<server::Config>,
    farm: Arc<dyn Farm>,
    keys: Arc<Keys>,
) -> Result<(), russh::Error> {
    let known = CancellationToken::new();
    let ended = CancellationToken::new();
    // Whatever becomes of this future, what was made for the caller ends with it.
    let _guard = ended.clone().drop_guard();
    let gate = Gate {
        farm,
        keys,
        peer,
        lent: None,
        machine: None,
        channels: Arc::default(),
        known: known.clone(),
        ended: ended.clone(),
    };
    let running = timeout(AUTH_LIMIT, server::run_stream(config, tcp, gate)).await;
    let mut running = running.map_err(|_| russh::Error::ConnectionTimeout)??;
    let handle = running.handle();
    let why = tokio::select! {
        done = &mut running => return done,
        () = async {
            if timeout(AUTH_LIMIT, known.cancelled()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        } => "no key that opens anything was shown in time",
        () = ended.cancelled() => "the loan has ended",
    };
    let _ = handle
        .disconnect(Disconnect::ByApplication, why.to_owned(), String::new())
        .await;
    timeout(Duration::from_secs(5), running).await.unwrap_or(Ok(()))
}

struct Gate {
    farm: Arc<dyn Farm>,
    keys: Arc<Keys>,
    peer: SocketAddr,
    /// What the caller has proved to have.
    lent: Option<Lent>,
    /// The session with the machine's server, made with the first channel.
    machine: Option<client::Handle<Machine>>,
    /// One place for each channel.
    channels: Arc<()>,
    /// Cancelled once the caller is known.
    known: CancellationToken,
    /// Cancelled when the loan ends, or the caller's connection.
    ended: CancellationToken,
}

/// The machine's side: its host key was made with it, and the farm has reached it by its own connection.
struct Machine;

impl client::Handler for Machine {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

impl Gate {
    /// Takes note of a caller that may have the machine `user`, as `may` says of the machine.
    async fn admit(&mut self, user: &str, may: impl FnOnce(&Keys, &Lent) -> bool) -> Auth {
        let name = user.strip_prefix(MUTABLE).unwrap_or(user);
        let lent = match self.farm.lent(name).await {
            Ok(lent) if may(&self.keys, &lent) => lent,
            // Which machines there are, and whose, is nobody else's matter.
            _ => {
                info!(peer = %self.peer, "refused a key of {} for `{}` over ssh", self.peer, name.escape_default());
                return Auth::reject();
            }
        };
        info!(peer = %self.peer, name, owner = lent.owner, "{} uses {name} over ssh from {}", lent.owner, self.peer);
        let (farm, of, ended) = (self.farm.clone(), lent.clone(), self.ended.clone());
        tokio::spawn(async move {
            let mut every = interval(USED_EVERY);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = ended.cancelled() => return,
                    () = of.ended.cancelled() => return ended.cancel(),
                    _ = every.tick() => farm.used(&of).await,
                }
            }
        });
        self.lent = Some(lent);
        self.known.cancel();
        Auth::Accept
    }

    /// The session with the machine, or why there is none.
    async fn machine(&mut self) -> Result<&client::Handle<Machine>, String> {
        if self.machine.as_ref().is_none_or(client::Handle::is_closed) {
            self.machine = None;
            let lent = self.lent.as_ref().ok_or("no key was shown")?;
            let connecting = dial(&*self.farm, &self.keys, lent);
            let connected = timeout(CONNECT_LIMIT, connecting).await;
            self.machine = Some(connected.map_err(|_| format!("no ssh session within {CONNECT_LIMIT:?}"))??);
        }
        self.machine.as_ref().ok_or_else(|| "no ssh session".to_owned())
    }

    fn is_full(&self) -> bool {
        Arc::strong_count(&self.channels) > CHANNELS_MAX
    }

    /// Has a channel of the caller go on in one of the machine's.
    fn join(&self, near: Channel<Msg>, far: Channel<client::Msg>, session: &Session) {
        let (handle, place, ended) = (session.handle(), self.channels.clone(), self.ended.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = ended.cancelled() => {}
                () = relay(near, far, handle) => {}
            }
        });
    }
}

async fn dial(farm: &dyn Farm, keys: &Keys, lent: &Lent) -> Result<client::Handle<Machine>, String> {
    let stream = farm.connect(lent, &keys.machine_line()).await?;
    let config = client::Config {
        client_id: SshId::Standard(Cow::Borrowed("SSH-2.0-burrow")),
        keepalive_interval: Some(KEEP_ALIVE),
        ..client::Config::default()
    };
    let broken = |why: russh::Error| format!("its ssh server: {why}");
    let mut session = client::connect_stream(Arc::new(config), stream, Machine)
        .await
        .map_err(broken)?;
    let key = PrivateKeyWithHashAlg::new(keys.machine.clone(), None);
    let admitted = session
        .authenticate_publickey(&lent.login, key)
        .await
        .map_err(broken)?;
    match admitted.success() {
        true => Ok(session),
        false => Err(format!(
            "its ssh server does not let the farm in as `{}`",
            lent.login
        )),
    }
}

impl server::Handler for Gate {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let shown: &PublicKey = key.public_key;
        Ok(self.admit(user, |_, lent| is_one_of(shown, &lent.keys)).await)
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        shown: &Certificate,
    ) -> Result<Auth, russh::Error> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = since.unwrap_or_default().as_secs();
        let may = |keys: &Keys, lent: &Lent| keys.accepts(shown, &lent.name, &lent.owner, now);
        Ok(self.admit(user, may).await)
    }

    async fn channel_open_session(
        &mut self,
        near: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.is_full() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let opened = match self.machine().await {
            Ok(machine) => machine
                .channel_open_session()
                .await
                .map_err(|why| why.to_string()),
            Err(why) => Err(why),
        };
        reply.accept().await;
        match opened {
            Ok(far) => self.join(near, far, session),
            Err(why) => {
                let name = self.lent.as_ref().map_or("", |lent| &lent.name);
                warn!(peer = %self.peer, name, "no ssh session with {name}: {why}");
                let text = format!("burrow: {name} cannot be had over ssh: {why}\r\n");
                tokio::spawn(relay::refuse(near, text));
            }
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        near: Channel<Msg>,
        host: &str,
        port: u32,
        from: &str,
        from_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.is_full() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        // The machine is lent, not the network that it is in.
        if !["localhost", "127.0.0.1", "::1"].contains(&host) {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        }
        let opened = match self.machine().await {
            Ok(machine) => machine
                .channel_open_direct_tcpip(host, port, from, from_port)
                .await
                .ok(),
            _ => None,
        };
        match opened {
            Some(far) => {
                reply.accept().await;
                self.join(near, far, session);
            }
            None => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        // Answered before the next request comes: the answer of that would be taken for this one's.
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)
    }
}
