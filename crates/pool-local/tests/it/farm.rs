//! A pool in a folder of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use buildlet_api::{Client, PoolEvent, Status};
use ids::HostType;
use pool_local::{LocalConfig, LocalPool, PoolStop};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Farm {
    pub events: mpsc::Receiver<PoolEvent>,
    pub stop: PoolStop,
    pub slots: watch::Sender<u32>,
    pub task: JoinHandle<anyhow::Result<()>>,
    dir: PathBuf,
}

/// A machine that came up.
pub struct Up {
    pub name: String,
    pub client: Client,
    pub status: Status,
    pub resumable: bool,
    pub generation: u64,
}

impl Farm {
    pub fn start(dir: &Path, binary: &Path, slots: u32, env: &[(&str, &str)]) -> Farm {
        let (sender, events) = mpsc::channel(64);
        let stop = PoolStop::new(CancellationToken::new());
        let (slots, wanted) = watch::channel(slots);
        let config = LocalConfig {
            dir: dir.to_owned(),
            binary: binary.to_owned(),
            host_type: HostType::parse("linux-std").unwrap(),
            slots: wanted,
            env: env
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
        };
        let task = tokio::spawn(LocalPool::run(config, sender, stop.clone()));
        Farm {
            events,
            stop,
            slots,
            task,
            dir: dir.to_owned(),
        }
    }

    /// The next one, but for the word that nothing was there to be adopted.
    pub async fn event(&mut self) -> PoolEvent {
        loop {
            let event = timeout(PATIENCE, self.events.recv())
                .await
                .expect("an event comes")
                .expect("the pool lives");
            if !matches!(event, PoolEvent::Down { generation: 0, .. }) {
                return event;
            }
        }
    }

    pub async fn up(&mut self) -> Up {
        match self.event().await {
            PoolEvent::Up {
                machine,
                client,
                status,
                resumable,
                generation,
                ..
            } => Up {
                name: machine.to_string(),
                client,
                status,
                resumable,
                generation,
            },
            other => panic!("{other:?}"),
        }
    }

    /// The process of a slot, by its report.
    pub fn pid(&self, slot: u32) -> Pid {
        let report = std::fs::read(self.dir.join(format!("{slot}/report.json"))).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        Pid::from_raw(report["pid"].as_i64().unwrap() as i32).unwrap()
    }

    pub fn kill(&self, slot: u32) {
        kill_process(self.pid(slot), Signal::KILL).unwrap();
    }

    pub async fn shut_down(mut self) {
        self.stop.shut_down();
        timeout(PATIENCE, &mut self.task)
            .await
            .expect("the pool stops")
            .unwrap()
            .unwrap();
    }

    /// Ends the pool as a killed coordinator does.
    pub async fn vanish(mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
    }
}

impl Drop for Farm {
    /// A test that fails leaves no buildlets behind.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for slot in 1..=9 {
            let report = std::fs::read(self.dir.join(format!("{slot}/report.json"))).unwrap_or_default();
            let report: serde_json::Value = serde_json::from_slice(&report).unwrap_or_default();
            if let Some(pid) = report["pid"].as_i64().and_then(|pid| Pid::from_raw(pid as i32)) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

pub fn lives(pid: Pid) -> bool {
    // A zombie can be signalled, but has no command line.
    test_kill_process(pid).is_ok()
        && std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).is_ok_and(|line| !line.is_empty())
}

/// Waits until `happened`.
pub async fn until(what: &str, happened: impl Fn() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
