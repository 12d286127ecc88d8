//! One buildlet, kept alive.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use buildlet_api::{Client, Password, PoolEvent, Status, TcpConnect};
use ids::{HostType, MachineId};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, timeout};
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::process::{self, Folder};
use crate::tree::remove_tree;
use crate::{LocalConfig, PoolStop};

const POOL: &str = "local";
/// From start to an answer at `/status`.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How often to look for the report of a buildlet that starts.
const LOOK: Duration = Duration::from_millis(50);
/// How often to see whether an adopted buildlet, whose end nobody tells us, still runs.
const WATCH: Duration = Duration::from_secs(1);
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Heartbeats in a row that may fail; each has 20 s.
const HEARTBEAT_FAILURES: u32 = 3;
/// For a buildlet to end after `/halt`, which acts a second after its answer.
const HALT_GRACE: Duration = Duration::from_secs(5);

pub(crate) struct Slot {
    machine: MachineId,
    binary: PathBuf,
    host_type: HostType,
    env: Vec<(String, String)>,
    folder: Folder,
    events: mpsc::Sender<PoolEvent>,
    stop: PoolStop,
}

/// What the buildlet writes once it listens.
#[derive(Debug, Deserialize)]
struct Report {
    address: SocketAddr,
    pid: u32,
    instance: String,
}

/// A buildlet that answers.
struct Running {
    /// `None`: an earlier coordinator's child, which is not ours to wait for.
    child: Option<Child>,
    client: Client,
    status: Status,
    report: Report,
}

impl Slot {
    pub fn new(
        config: &LocalConfig,
        dir: &Path,
        number: u32,
        events: mpsc::Sender<PoolEvent>,
        stop: PoolStop,
    ) -> anyhow::Result<Slot> {
        Ok(Slot {
            machine: MachineId::parse(&format!("{}-{number}", config.host_type))?,
            binary: config.binary.clone(),
            host_type: config.host_type.clone(),
            env: config.env.clone(),
            folder: Folder::new(dir.join(number.to_string())),
            events,
            stop,
        })
    }

    /// Adopts or starts the buildlet, again and again, until the pool stops.
    pub async fn keep_alive(self) {
        let token = self.stop.token.clone();
        let mut backoff = Backoff::default();
        let mut generation = 0;
        let mut adopted = tokio::select! {
            biased;
            () = token.cancelled() => return,
            adopted = self.adopt() => adopted,
        };
        if adopted.is_none() {
            // An earlier coordinator may have given it work, or lent it: that is gone with its buildlet.
            self.kill(None).await;
            let why = "its buildlet ended while no coordinator ran".to_owned();
            let _ = self.events.send(self.down(why, generation)).await;
        }
        loop {
            let running = match adopted.take() {
                Some(running) => Ok(running),
                None => tokio::select! {
                    biased;
                    () = token.cancelled() => return self.leave(None).await,
                    started = self.start() => started,
                },
            };
            let mut up_for = Duration::ZERO;
            match running {
                Ok(mut running) => {
                    generation += 1;
                    let began = Instant::now();
                    let why = tokio::select! {
                        biased;
                        () = token.cancelled() => return self.leave(Some((running, generation))).await,
                        why = self.watch(&mut running, generation) => why,
                    };
                    up_for = began.elapsed();
                    warn!(machine.id = %self.machine, "{} is down: {why}", self.machine);
                    let down = self.down(why, generation);
                    // Fails only if nobody listens any more.
                    let _ = self.events.send(down).await;
                    self.kill(running.child).await;
                }
                Err(error) => {
                    warn!(machine.id = %self.machine, "{} does not come up: {error:#}", self.machine);
                    self.kill(None).await;
                }
            }
            let pause = backoff.after(up_for);
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Takes over the buildlet of an earlier coordinator if it is the one that wrote the report.
    async fn adopt(&self) -> Option<Running> {
        let report = self.report()?;
        let running = self.ask(report).await;
        match running {
            Ok(running) => {
                info!(machine.id = %self.machine, pid = running.report.pid, "adopted the running buildlet of {}", self.machine);
                Some(running)
            }
            Err(error) => {
                info!(machine.id = %self.machine, "no buildlet to adopt as {}: {error:#}", self.machine);
                None
            }
        }
    }

    /// Starts a buildlet in a clean folder and waits until it answers.
    async fn start(&self) -> anyhow::Result<Running> {
        self.clean().await?;
        let mut child = process::start(&self.binary, &self.env, &self.folder)
            .with_context(|| format!("start `{}`", self.binary.display()))?;
        let started = tokio::select! {
            ended = child.wait() => Err(match ended {
                Ok(status) => anyhow!("it ended with {status} before it listened"),
                Err(error) => anyhow!(error).context("wait for it"),
            }),
            running = timeout(START_LIMIT, self.reported()) => match running {
                Ok(running) => running,
                Err(_) => Err(anyhow!(
                    "it wrote no good report to `{}` within {START_LIMIT:?}", self.folder.report.display()
                )),
            },
        };
        match started {
            Ok(running) => {
                info!(machine.id = %self.machine, pid = running.report.pid, "started the buildlet of {}", self.machine);
                Ok(Running {
                    child: Some(child),
                    ..running
                })
            }
            Err(error) => {
                self.kill(Some(child)).await;
                match process::last_line(&self.folder.log) {
                    Some(line) => Err(error.context(format!("its log ends with `{line}`"))),
                    None => Err(error),
                }
            }
        }
    }

    /// Ends leftovers, empties the folder, and writes a new password.
    async fn clean(&self) -> anyhow::Result<()> {
        let folder = self.folder.clone();
        let cleaned = tokio::task::spawn_blocking(move || {
            process::kill_all(&folder);
            private_folder(&folder.root)?;
            for tree in [&folder.work, &folder.state] {
                remove_tree(tree).with_context(|| format!("remove `{}`", tree.display()))?;
            }
            match std::fs::remove_file(&folder.report) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove `{}`", folder.report.display()));
                }
                _ => {}
            }
            for made in [&folder.work, &folder.state] {
                std::fs::create_dir(made).with_context(|| format!("create `{}`", made.display()))?;
            }
            write_password(&folder.password)
        });
        cleaned.await.context("cleaning panicked")?
    }

    /// Waits for the report of a buildlet that starts, and for its first answer. No limit.
    async fn reported(&self) -> anyhow::Result<Running> {
        loop {
            if let Some(report) = self.report() {
                return self.ask(report).await;
            }
            sleep(LOOK).await;
        }
    }

    /// The report, if it is there and whole.
    fn report(&self) -> Option<Report> {
        let text = std::fs::read(&self.folder.report).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Asks the buildlet of a report who it is; it has to be the one that wrote it.
    async fn ask(&self, report: Report) -> anyhow::Result<Running> {
        ensure!(
            report.address.ip().is_loopback(),
            "its report names `{}`; wanted a loopback address",
            report.address
        );
        let path = &self.folder.password;
        let password = std::fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))?;
        let Some(password) = Password::new(&password) else {
            bail!("`{}` is empty", path.display())
        };
        let connect = Arc::new(TcpConnect(report.address));
        let client = Client::new(connect, self.machine.clone(), Some(password));
        let status = client.status().await?;
        let instance = status.instance.as_deref().unwrap_or("none");
        ensure!(
            instance == report.instance,
            "`{}` is served by instance {instance}; wanted {}",
            report.address,
            report.instance
        );
        Ok(Running {
            child: None,
            client,
            status,
            report,
        })
    }

    /// Reports the machine as up and looks after it; returns why it is down.
    async fn watch(&self, running: &mut Running, generation: u64) -> String {
        let up = PoolEvent::Up {
            machine: self.machine.clone(),
            host_type: self.host_type.clone(),
            client: running.client.clone(),
            status: running.status.clone(),
            pool: POOL,
            address: running.client.address(),
            resumable: running.status.resumable(),
            generation,
        };
        if self.events.send(up).await.is_err() {
            return "nobody listens to the pool".to_owned();
        }
        let pid = running.report.pid;
        let folder = &self.folder;
        let ended = async {
            match &mut running.child {
                Some(child) => match child.wait().await {
                    Ok(status) => format!("its buildlet ended with {status}"),
                    Err(error) => format!("its buildlet cannot be waited for: {error}"),
                },
                None => {
                    let mut look = interval(WATCH);
                    loop {
                        look.tick().await;
                        if process::can_look() && !process::is_of(pid, folder) {
                            return "its adopted buildlet ended".to_owned();
                        }
                    }
                }
            }
        };
        tokio::select! {
            why = ended => why,
            why = heartbeat(&running.client, folder) => why,
        }
    }

    /// Ends the slot as the pool's stop asks for.
    async fn leave(&self, running: Option<(Running, u64)>) {
        if !self.stop.ends_children() {
            return;
        }
        let mut child = None;
        if let Some((mut running, generation)) = running {
            if let Err(error) = running.client.halt().await {
                debug!("{} did not answer its halt: {error}", self.machine);
            }
            let ended = async {
                match &mut running.child {
                    Some(child) => drop(child.wait().await),
                    None => {
                        while process::is_of(running.report.pid, &self.folder) {
                            sleep(LOOK).await;
                        }
                    }
                }
            };
            if timeout(HALT_GRACE, ended).await.is_err() {
                warn!(machine.id = %self.machine, "{} did not end within {HALT_GRACE:?} of its halt; killing it", self.machine);
            }
            // Whoever listens may be ending too and not read it.
            let down = self.down("the farm has ended it".to_owned(), generation);
            let _ = self.events.send_timeout(down, HALT_GRACE).await;
            child = running.child;
        }
        self.kill(child).await;
        let _ = std::fs::remove_file(&self.folder.report);
    }

    /// Kills what is left of the slot's buildlets and reaps our own.
    async fn kill(&self, child: Option<Child>) {
        let folder = self.folder.clone();
        let killed = tokio::task::spawn_blocking(move || process::kill_all(&folder)).await;
        if let Err(error) = killed {
            warn!("looking for buildlets panicked: {error}");
        }
        if let Some(mut child) = child
            && let Err(error) = child.kill().await
        {
            warn!(machine.id = %self.machine, "cannot end the buildlet of {}: {error}", self.machine);
        }
    }

    fn down(&self, why: String, generation: u64) -> PoolEvent {
        // A child that ended takes its commands along; the next one is another.
        PoolEvent::Down {
            machine: self.machine.clone(),
            why,
            may_return: false,
            generation,
        }
    }
}

/// Asks after the buildlet until it is given up; returns why. Keeps its log short on the way.
async fn heartbeat(client: &Client, folder: &Folder) -> String {
    let mut failures = 0;
    loop {
        sleep(HEARTBEAT).await;
        if let Err(error) = process::rotate_log(&folder.log) {
            warn!("cannot shorten `{}`: {error}", folder.log.display());
        }
        match client.status().await {
            Ok(_) => failures = 0,
            Err(error) => {
                failures += 1;
                debug!(failures, "heartbeat failed: {error}");
                if failures >= HEARTBEAT_FAILURES {
                    return format!("{failures} heartbeats in a row failed: {error}");
                }
            }
        }
    }
}

/// Makes a folder that its owner alone can enter.
fn private_folder(path: &Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .with_context(|| format!("create `{}`", path.display()))
}

/// Writes 256 random bits as hex, for the owner's eyes only.
fn write_password(path: &Path) -> anyhow::Result<()> {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow!("no random numbers to be had"))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // A file of its own, so that the mode holds from the first byte on.
    let _ = std::fs::remove_file(path);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options
        .open(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.with_context(|| format!("write `{}`", path.display()))
}
