//! Buildlets that the coordinator starts as its own children, one for each slot.
//!
//! A slot is a folder with a password, a report, a log, and the buildlet's own folders. Its buildlet
//! outlives the coordinator: the next one finds the report, asks the buildlet who it is, and adopts
//! it, commands and all. Start at [`LocalPool::run`].
//!
//! Never hands out a machine, and never trusts a process number that is written down: what it
//! kills is a process whose command line names the slot's report.

mod backoff; // how long to wait before the next start
mod process; // starting, finding, killing
mod slot; // one buildlet, kept alive
mod tree; // removing what a build left

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use buildlet_api::PoolEvent;
use ids::HostType;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

/// What to keep alive.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Holds a folder for each slot; made if missing. One pool at a time uses it.
    pub dir: PathBuf,
    /// The buildlet program.
    pub binary: PathBuf,
    pub host_type: HostType,
    /// How many buildlets; their machines are `TYPE-1`, `TYPE-2`, ..., after the host type.
    pub slots: u32,
    /// What buildlets get besides `PATH`, `HOME` and the like. The rest of the coordinator's own
    /// environment they never see.
    pub env: Vec<(String, String)>,
}

/// Ends a pool, in one of two ways.
#[derive(Debug, Clone, Default)]
pub struct PoolStop {
    token: CancellationToken,
    end_children: Arc<AtomicBool>,
}

impl PoolStop {
    /// Cancelling `token` itself is a hand-over.
    pub fn new(token: CancellationToken) -> PoolStop {
        PoolStop {
            token,
            end_children: Arc::default(),
        }
    }

    /// Leaves the buildlets running for the next pool to adopt.
    pub fn hand_over(&self) {
        self.token.cancel();
    }

    /// Ends the buildlets too.
    pub fn shut_down(&self) {
        self.end_children.store(true, Ordering::SeqCst);
        self.token.cancel();
    }

    fn ends_children(&self) -> bool {
        self.end_children.load(Ordering::SeqCst)
    }
}

pub struct LocalPool;

impl LocalPool {
    /// Keeps the buildlets alive until `stop`. A buildlet that does not come up is tried again, with
    /// pauses from 1 s to 1 min; that is logged and is no error.
    ///
    /// Fails if the folder cannot be used or another pool uses it. May be dropped, which is a
    /// hand-over without notice.
    pub async fn run(
        config: LocalConfig,
        events: mpsc::Sender<PoolEvent>,
        stop: PoolStop,
    ) -> anyhow::Result<()> {
        let dir = &config.dir;
        std::fs::create_dir_all(dir).with_context(|| format!("create `{}`", dir.display()))?;
        let dir = std::path::absolute(dir).with_context(|| format!("find `{}`", dir.display()))?;
        let lock_path = dir.join("lock");
        let lock =
            std::fs::File::create(&lock_path).with_context(|| format!("create `{}`", lock_path.display()))?;
        if let Err(error) = lock.try_lock() {
            bail!(
                "cannot lock `{}`: {error}; is another coordinator running on this folder?",
                lock_path.display()
            );
        }
        let mut slots = JoinSet::new();
        for number in 1..=config.slots {
            let slot = slot::Slot::new(&config, &dir, number, events.clone(), stop.clone())?;
            slots.spawn(slot.keep_alive().instrument(info_span!("local", slot = number)));
        }
        stop.token.cancelled().await;
        while let Some(ended) = slots.join_next().await {
            ended.context("a slot of the local pool panicked")?;
        }
        drop(lock);
        Ok(())
    }
}
