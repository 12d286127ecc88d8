//! Finds work, owns machines, runs builds: the hands of the farm core.
//!
//! `engine` drives the core, `drive` performs its effects on machines (what their answers mean is decided in `answer`),
//! `intake` tells the mutation log what the mirrors fetched, `watch` turns what the corpus then knows into what is wanted, by
//! the plan of `branches`; `upkeep` looks after disk, logs and configuration, `pools` after machines on this host, `http` opens the doors, `enroll` makes machines known, `downloads` serves
//! their buildlets and `rollout` has them run those, `gomote` lends machines to people. Start at
//! [`serve`].

mod answer;
mod branches;
mod downloads;
mod drive;
mod engine;
mod enroll;
mod files;
mod gomote;
mod health;
mod http;
mod intake;
mod keys;
mod known;
mod lock;
mod mask;
mod pools;
mod rollout;
mod secrets;
mod upkeep;
mod watch;

pub use downloads::FOLDER as BUILDLETS;
pub use http::endpoints;
pub use lock::{StateLock, take as lock};

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use config::Config;
use gitmirror::{MirrorService, RepoConfig};
use pool_local::PoolStop;
use pool_reverse::{ReverseConfig, ReversePool};
use store::{PgUrl, Store, StoreUrl};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// What parts get to end in.
const GRACE: Duration = Duration::from_secs(15);

/// How a farm is started.
pub struct Options {
    pub config: Arc<Config>,
    /// File or folder that `config` was read from; looked at again and again.
    pub reload: Option<PathBuf>,
    /// Command line of a buildlet on this machine, without its flags.
    pub buildlet: Vec<OsString>,
    pub defaults: config::Defaults,
    pub on_ready: oneshot::Sender<Ready>,
    /// Set before the stop: another process goes on with the machines and what runs on them.
    pub hand_over: Arc<AtomicBool>,
}

/// Where the farm is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    pub http: SocketAddr,
    pub https: Option<SocketAddr>,
}

/// The configuration that holds at present, and a word to whoever wants to know of changes.
pub(crate) type Current = Arc<tokio::sync::watch::Sender<Arc<Config>>>;

pub(crate) fn current(config: &Current) -> Arc<Config> {
    config.borrow().clone()
}

/// Runs the whole farm until `stop`, or until a part of it ends unasked.
pub async fn serve(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let config = options.config;
    files::raise(&config);
    let state = std::path::absolute(&config.farm.state_dir).context("find the state folder")?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&state)
        .with_context(|| format!("make the state folder `{}`", state.display()))?;
    let _lock = lock::take(&state)?;
    let http = http::bind(config.farm.listen_http).await?;
    let https = match config.farm.listen_https {
        Some(address) => Some(http::bind(address).await?),
        None => None,
    };
    let shell = match config.farm.listen_ssh {
        Some(address) => Some(http::bind(address).await?),
        None => None,
    };
    let ready = Ready {
        http: http.local_addr().context("ask for the address")?,
        https: https
            .as_ref()
            .map(|door| door.local_addr())
            .transpose()
            .context("ask for the address")?,
    };

    let store = Store::open(&store_url(&config, &state))
        .await
        .context("open the farm store")?;
    store
        .machines_unknown(engine::wall(), "the coordinator was started anew")
        .await?;
    let logs = blobs::LogStore::open(&state.join("logs"))
        .await
        .context("open the log store")?;
    let clock = engine::Clock::start();
    let (farm, first) = engine::restore(&store, &clock, config.clone()).await?;
    let (inputs, from_all) = mpsc::channel(4096);
    let (pool_events, from_pools) = mpsc::channel(1024);
    let mirror = MirrorService::new(state.join("mirror"), mirrored(&config));
    let links = drive::Links::default();
    let board = engine::Board::default();
    let connected = drive::Connected::default();
    let desk = gomote::Desk::default();
    let log_trouble = drive::LogTrouble::default();
    let holds: Current = Arc::new(tokio::sync::watch::Sender::new(config.clone()));
    let drivers = drive::Drivers::new(drive::Shared {
        inputs: inputs.clone(),
        logs: logs.clone(),
        max_log: config.farm.max_log,
        mirror: mirror.clone(),
        log_trouble: log_trouble.clone(),
        machines: links.clone(),
        connected: connected.clone(),
        desk: desk.clone(),
        secrets: secrets::Folder::new(holds.clone(), state.clone()),
    });
    let master = keys::master(&state)?;
    let check = Arc::new(keys::Keys::new(holds.clone(), store.clone(), master.clone()));
    let reverse = ReversePool::new(ReverseConfig::default(), check, pool_events.clone());

    // Not a child of `stop`: the pools end when they are told how, with their buildlets.
    let pools = PoolStop::new(CancellationToken::new());
    let mut parts: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let local = pools::LocalPools::new(&state, &options.buildlet, pool_events, pools.clone())?;
    parts.spawn(local.run(holds.subscribe()));
    let engine = engine::Engine {
        store: store.clone(),
        clock: clock.clone(),
        inputs: from_all,
        drivers,
        board: board.clone(),
    };
    let log = mutlog::Folder::new(state.join("maintner"));
    let (keeper, keep) = maintnerd::Keeper::open(log, stop.clone())?;
    parts.spawn(keep);
    let known = maintnerd::Known::new(keeper.clone());
    parts.spawn(engine::run(farm, first, engine, stop.clone()));
    parts.spawn(mirror.clone().run(stop.clone()));
    let taken = tokio::sync::watch::Sender::default();
    let watch = watch::Watch {
        config: holds.clone(),
        store: store.clone(),
        mirror: mirror.clone(),
        corpus: keeper.snapshot(),
        taken: taken.subscribe(),
        inputs: inputs.clone(),
        packing: std::sync::Mutex::default(),
    };
    parts.spawn(watch.run(stop.clone()));
    let intake = intake::Intake {
        config: holds.clone(),
        mirror: mirror.clone(),
        known: known.clone(),
        keeper: keeper.clone(),
        taken,
    };
    parts.spawn(intake.run(stop.clone()));
    let sources = maintnerd::Sources::new(state.join("sources"), keeper.clone(), known);
    sources.set(maintnerd::sources(&config.maintner), config.maintner.github_rate);
    parts.spawn(sources.clone().run(stop.clone()));
    {
        let (config, sources, stop) = (config.clone(), sources.clone(), stop.clone());
        parts.spawn(async move { maintnerd::hear(&config.maintner, &sources, &stop).await });
    }
    parts.spawn(until(
        stop.clone(),
        drive::take_pool_events(from_pools, links, inputs.clone()),
    ));
    let refused = upkeep::Refused::default();
    let gomotes = gomote::Gomotes {
        config: holds.clone(),
        store: store.clone(),
        tokens: store.clone().into(),
        board: board.clone(),
        master,
        inputs: inputs.clone(),
        links: connected,
        desk,
        shells: gomote::Shells::open(
            &state,
            shell
                .as_ref()
                .and_then(|door| Some(door.local_addr().ok()?.port())),
        )
        .context("open the keys of the ssh gateway")?,
    };
    if let Some(listener) = shell {
        let (farm, keys, stop) = (
            Arc::new(gomotes.clone()),
            gomotes.shells.keys.clone(),
            stop.clone(),
        );
        parts.spawn(async move {
            ssh::serve(listener, farm, keys, stop).await;
            Ok(())
        });
    }
    let upkeep = upkeep::Upkeep {
        config: holds.clone(),
        refused: refused.clone(),
        files: options.reload,
        defaults: options.defaults,
        state: state.clone(),
        store: store.clone(),
        logs: logs.clone(),
        mirror: mirror.clone(),
        sources: sources.clone(),
        inputs,
        clock: clock.clone(),
    };
    parts.spawn(upkeep.run(stop.clone()));
    parts.spawn(rollout::run(
        state.clone(),
        store.clone(),
        reverse.clone(),
        stop.clone(),
    ));
    let tls = http::tls(&config, &state)?;
    let service = http::Service {
        config: holds,
        refused,
        store: store.clone(),
        logs,
        board,
        mirror,
        reverse: reverse.clone(),
        gomotes,
        state,
        shown: maintnerd::Shown {
            visible: keeper.visible(),
            snapshot: keeper.snapshot(),
            own: Some((keeper, sources)),
        },
        clock,
        log_trouble,
    };
    parts.spawn(http::run(service, http, https.zip(tls), stop.clone()));
    info!("farm `{}` is up at http://{}/", config.farm.name, ready.http);
    // Nobody may be waiting to hear it.
    let _ = options.on_ready.send(ready);

    let first = parts.join_next().await.expect("parts were spawned");
    let asked = stop.is_cancelled();
    // Who failed is started anew, and goes on with them too.
    if asked && !options.hand_over.load(Ordering::SeqCst) {
        pools.shut_down();
    } else {
        pools.hand_over();
    }
    reverse.close();
    stop.cancel();
    let rest = async {
        while let Some(part) = parts.join_next().await {
            match part {
                Ok(Ok(())) => {}
                Ok(Err(why)) => error!("a part ended badly: {why:#}"),
                Err(why) => error!("a part panicked: {why}"),
            }
        }
    };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        warn!("parts still run after {} s; dropping them", GRACE.as_secs());
    }
    store.close().await;
    first.context("a part panicked")??;
    anyhow::ensure!(asked, "a part ended though nobody asked it to");
    Ok(())
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = work => anyhow::bail!("every pool has ended"),
    }
}

fn store_url(config: &Config, state: &Path) -> StoreUrl {
    match &config.farm.store {
        config::StoreUrl::Embedded => StoreUrl::Sqlite(state.join("farm.db")),
        config::StoreUrl::Postgres(url) => StoreUrl::Postgres(PgUrl::new(url.expose().to_owned())),
    }
}

pub(crate) fn mirrored(config: &Config) -> Vec<RepoConfig> {
    let one = |(name, repo): (&ids::RepoName, &config::Repo)| RepoConfig {
        name: name.clone(),
        upstream: git::Upstream::new(&repo.url),
        poll: repo.poll,
    };
    config.repos.iter().map(one).collect()
}
