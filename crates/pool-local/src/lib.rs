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

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use buildlet_api::PoolEvent;
use ids::HostType;
use tokio::sync::{mpsc, watch};
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
    /// How many buildlets, and what is made of each change; their machines are `TYPE-1`, `TYPE-2`, ..., after the host
    /// type. A slot that goes takes its build along.
    pub slots: watch::Receiver<u32>,
    /// What buildlets get besides `PATH`, `HOME` and the like. The rest of the coordinator's own
    /// environment they never see.
    pub env: Vec<(String, String)>,
}

/// Ends a pool, in one of two ways.
#[derive(Debug, Clone, Default)]
pub struct PoolStop {
    token: CancellationToken,
    /// Any of them says so.
    end_children: Vec<Arc<AtomicBool>>,
}

impl PoolStop {
    /// Cancelling `token` itself is a hand-over.
    pub fn new(token: CancellationToken) -> PoolStop {
        PoolStop {
            token,
            end_children: vec![Arc::default()],
        }
    }

    /// Stops with this one, and may stop before it.
    pub fn child(&self) -> PoolStop {
        let mut end_children = vec![Arc::default()];
        end_children.extend(self.end_children.iter().cloned());
        PoolStop {
            token: self.token.child_token(),
            end_children,
        }
    }

    /// Leaves the buildlets running for the next pool to adopt.
    pub fn hand_over(&self) {
        self.token.cancel();
    }

    /// Ends the buildlets too.
    pub fn shut_down(&self) {
        self.end_children[0].store(true, Ordering::SeqCst);
        self.token.cancel();
    }

    pub fn is_stopped(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Cancel safe: only waits.
    pub async fn stopped(&self) {
        self.token.cancelled().await;
    }

    fn ends_children(&self) -> bool {
        self.end_children.iter().any(|end| end.load(Ordering::SeqCst))
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
        mut config: LocalConfig,
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
        let mut turns: BTreeMap<u32, Arc<tokio::sync::Mutex<()>>> = BTreeMap::new();
        // By number, each with its own stop.
        let mut running: BTreeMap<u32, PoolStop> = BTreeMap::new();
        let mut may_change = true;
        while !stop.token.is_cancelled() {
            let wanted = *config.slots.borrow_and_update();
            for gone in running.split_off(&(wanted + 1)).into_values() {
                gone.shut_down();
            }
            for number in (1..=wanted)
                .filter(|number| !running.contains_key(number))
                .collect::<Vec<_>>()
            {
                let stop = stop.child();
                let slot = slot::Slot::new(&config, &dir, number, events.clone(), stop.clone())?;
                let turn = turns.entry(number).or_default().clone();
                let keep = async move {
                    // One that was just taken away may not have ended.
                    let _turn = turn.lock().await;
                    slot.keep_alive().await;
                };
                slots.spawn(keep.instrument(info_span!("local", slot = number)));
                running.insert(number, stop);
            }
            tokio::select! {
                () = stop.token.cancelled() => {}
                changed = config.slots.changed(), if may_change => may_change = changed.is_ok(),
                Some(ended) = slots.join_next() => ended.context("a slot of the local pool panicked")?,
            }
        }
        while let Some(ended) = slots.join_next().await {
            ended.context("a slot of the local pool panicked")?;
        }
        drop(lock);
        Ok(())
    }
}
