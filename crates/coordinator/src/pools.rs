//! The pools of machines on this host: one for each local host type of the configuration that holds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use buildlet_api::PoolEvent;
use config::{Config, Host, Pool};
use ids::HostType;
use pool_local::{LocalConfig, LocalPool, PoolStop};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub struct LocalPools {
    /// Has a folder for each host type.
    dir: PathBuf,
    buildlet: PathBuf,
    events: mpsc::Sender<PoolEvent>,
    stop: PoolStop,
}

struct Running {
    slots: watch::Sender<u32>,
    env: Vec<(String, String)>,
    stop: PoolStop,
}

impl LocalPools {
    /// `buildlet` is the command line of the program that a pool starts.
    pub fn new(
        state: &Path,
        buildlet: &[OsString],
        events: mpsc::Sender<PoolEvent>,
        stop: PoolStop,
    ) -> anyhow::Result<LocalPools> {
        Ok(LocalPools {
            dir: state.join("local"),
            buildlet: program(state, buildlet)?,
            events,
            stop,
        })
    }

    /// Keeps the pools as each configuration has them, until the stop.
    pub async fn run(self, mut config: watch::Receiver<Arc<Config>>) -> anyhow::Result<()> {
        let mut running: BTreeMap<HostType, Running> = BTreeMap::new();
        let mut pools: JoinSet<(HostType, anyhow::Result<()>)> = JoinSet::new();
        while !self.stop.is_stopped() {
            let wanted = config.borrow_and_update().clone();
            let wanted = local(&wanted);
            for (host_type, pool) in &running {
                match wanted.get(host_type) {
                    // Its buildlets were started with another environment.
                    Some((_, host)) if host.env != pool.env => pool.stop.shut_down(),
                    Some((slots, _)) => drop(pool.slots.send_replace(*slots)),
                    None => pool.stop.shut_down(),
                }
            }
            for (host_type, (slots, host)) in wanted {
                if !running.contains_key(host_type) {
                    let (pool, run) = self.pool(host_type, slots, host);
                    let host_type = host_type.clone();
                    running.insert(host_type.clone(), pool);
                    pools.spawn(async move { (host_type, run.await) });
                }
            }
            tokio::select! {
                () = self.stop.stopped() => {}
                changed = config.changed() => changed.context("the configuration is gone")?,
                Some(ended) = pools.join_next() => {
                    let (host_type, ended) = ended.context("a local pool panicked")?;
                    ended.with_context(|| format!("keep machines of {host_type}"))?;
                    // Stopped for a change; the next round starts it anew if it is still wanted.
                    running.remove(&host_type);
                }
            }
        }
        while let Some(ended) = pools.join_next().await {
            ended.context("a local pool panicked")?.1?;
        }
        Ok(())
    }

    fn pool(
        &self,
        host_type: &HostType,
        slots: u32,
        host: &Host,
    ) -> (Running, impl Future<Output = anyhow::Result<()>> + use<>) {
        let (slots, wanted) = watch::channel(slots);
        let stop = self.stop.child();
        let config = LocalConfig {
            dir: self.dir.join(host_type.as_str()),
            binary: self.buildlet.clone(),
            host_type: host_type.clone(),
            slots: wanted,
            env: host.env.clone(),
        };
        let run = LocalPool::run(config, self.events.clone(), stop.clone());
        let env = host.env.clone();
        (Running { slots, env, stop }, run)
    }
}

fn local(config: &Config) -> BTreeMap<&HostType, (u32, &Host)> {
    let hosts = config.hosts.iter();
    hosts
        .filter_map(|(host_type, host)| match host.pool {
            Pool::Local { slots } => Some((host_type, (slots, host))),
            Pool::Reverse { .. } => None,
        })
        .collect()
}

/// A pool starts a program, not a command line: the farm's own executable stands under the name `buildlet`,
/// by which it knows what to be.
fn program(state: &Path, buildlet: &[OsString]) -> anyhow::Result<PathBuf> {
    let [first, rest @ ..] = buildlet else {
        anyhow::bail!("there is no buildlet to start")
    };
    if rest.is_empty() {
        return Ok(first.into());
    }
    let link = state.join("buildlet");
    match std::fs::remove_file(&link) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => {
            return Err(why).context("replace the buildlet's link");
        }
        _ => {}
    }
    std::os::unix::fs::symlink(first, &link).with_context(|| format!("link `{}`", link.display()))?;
    Ok(link)
}
