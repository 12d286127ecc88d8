//! Looks after what nobody asks for: free disk, old logs, usual times, a configuration that changed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use blobs::LogStore;
use config::{Config, Defaults, SourceFile};
use farm::Input;
use gitmirror::MirrorService;
use ids::Timestamp;
use store::Store;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{Current, current, engine, mirrored};

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Usual times and old logs are looked at every so many looks.
const SELDOM: u32 = 15;

/// Seconds; see `health`.
const CLOCK_SLACK: i64 = 60;

/// Why the configuration on disk does not hold, while it does not.
pub type Refused = Arc<Mutex<Option<String>>>;

pub struct Upkeep {
    pub config: Current,
    pub refused: Refused,
    pub files: Option<PathBuf>,
    pub defaults: Defaults,
    pub state: PathBuf,
    pub store: Store,
    pub logs: LogStore,
    pub mirror: Arc<MirrorService>,
    pub sources: maintnerd::Sources,
    pub inputs: mpsc::Sender<Input>,
    pub clock: engine::Clock,
}

impl Upkeep {
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut every = tokio::time::interval(LOOK_EVERY);
        // Without this the signal would end the process, and with it the farm.
        let mut hangups = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
        let (mut looks, mut paused, mut stamp) = (0u32, false, self.stamp());
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(()) = hangups.recv() => {
                    info!("SIGHUP: reading the configuration again");
                    stamp = self.stamp();
                    self.reload().await;
                    continue;
                }
                _ = every.tick() => {}
            }
            paused = self.disk(paused).await;
            let newer = self.stamp();
            if newer != stamp {
                stamp = newer;
                self.reload().await;
            }
            if looks.is_multiple_of(SELDOM)
                && let Err(why) = self.seldom().await
            {
                warn!("upkeep did not get through, trying again: {why:#}");
            }
            looks = looks.wrapping_add(1);
        }
    }

    /// Stops new work below the floor, and lets it go on a tenth above it.
    async fn disk(&self, paused: bool) -> bool {
        let floor = current(&self.config).farm.disk_floor;
        let free = match blobs::disk_free(&self.state) {
            Ok(free) => free,
            Err(why) => {
                warn!("{:#}", anyhow::Error::from(why));
                return paused;
            }
        };
        let low = free < if paused { floor + floor / 10 } else { floor };
        if low != paused {
            let input = if low {
                let why = format!(
                    "the disk of the state folder is nearly full: {} MiB free, the floor is {} MiB",
                    free >> 20,
                    floor >> 20
                );
                warn!("no build starts: {why}");
                Input::Paused { why }
            } else {
                info!("builds start again: {} MiB free", free >> 20);
                Input::Resumed
            };
            // Closed only when the coordinator stops.
            let _ = self.inputs.send(input).await;
        }
        low
    }

    async fn seldom(&self) -> anyhow::Result<()> {
        let config = current(&self.config);
        let builders: Vec<_> = config.builders.keys().cloned().collect();
        let usual = self.store.usual_times(&builders).await?;
        let _ = self.inputs.send(Input::Usual(usual)).await;
        // By a clock that was put a year forward all would be old.
        if self.clock.off().abs() > CLOCK_SLACK {
            return Ok(());
        }
        let keep = i64::try_from(config.farm.keep_logs.as_micros()).unwrap_or(i64::MAX);
        let before = Timestamp(engine::wall().0.saturating_sub(keep));
        let expired = self.store.expire_logs(before, 500).await?;
        for step in &expired {
            self.logs.delete(*step).await?;
        }
        if !expired.is_empty() {
            self.store.mark_log_deleted(&expired).await?;
            info!("deleted {} old logs", expired.len());
        }
        Ok(())
    }

    /// Changes when a file of the configuration does.
    fn stamp(&self) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
        let files = self.files.iter().flat_map(|path| files(path).unwrap_or_default());
        let stamp = |path: PathBuf| {
            let meta = std::fs::metadata(&path).ok();
            let modified = meta.as_ref().and_then(|meta| meta.modified().ok());
            (path, modified, meta.map_or(0, |meta| meta.len()))
        };
        files.map(stamp).collect()
    }

    async fn reload(&self) {
        let Some(path) = &self.files else { return };
        let read = read(path, &self.defaults);
        let why = read.as_ref().err().map(|why| format!("{why:#}"));
        self.refused.lock().expect("no holder panics").clone_from(&why);
        let fresh = match read {
            Ok(fresh) => Arc::new(fresh),
            Err(why) => return error!("the changed configuration is refused, the old one holds:\n{why:#}"),
        };
        let old = current(&self.config);
        for line in config::diff(&old, &fresh) {
            info!("configuration: {line}");
        }
        self.config.send_replace(fresh.clone());
        self.mirror.set_repos(mirrored(&fresh));
        let maintner = &fresh.maintner;
        self.sources
            .set(maintnerd::sources(maintner), maintner.github_rate);
        let _ = self.inputs.send(Input::Configured(fresh)).await;
    }
}

fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    Ok(files)
}

fn read(path: &Path, defaults: &Defaults) -> anyhow::Result<Config> {
    let mut sources = Vec::new();
    for file in files(path).with_context(|| format!("read `{}`", path.display()))? {
        let text = std::fs::read_to_string(&file).with_context(|| format!("read `{}`", file.display()))?;
        sources.push(SourceFile {
            name: file.display().to_string(),
            text,
        });
    }
    Ok(Config::check(&sources, defaults)?.config)
}
