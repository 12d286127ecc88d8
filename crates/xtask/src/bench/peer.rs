use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::http::Connection;

const LIMIT: Duration = Duration::from_secs(1800);

/// Buildbot's own: one master on SQLite, two workers with four slots. Its builds fetch no source, ours do.
pub struct Buildbot {
    /// The master, then the workers.
    children: Vec<Child>,
    folder: TempDir,
    venv: PathBuf,
    pub address: SocketAddr,
}

impl Buildbot {
    pub fn start(venv: &Path, builders: usize, command: &[&str]) -> anyhow::Result<Buildbot> {
        let venv = std::path::absolute(venv)?;
        let folder = tempfile::tempdir()?;
        let port = || anyhow::Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?);
        let (address, workers) = (port()?, port()?);
        let master = folder.path().join("master");
        run(&venv, "buildbot", &["create-master", "-q", text(&master)?])?;
        fs::write(
            master.join("master.cfg"),
            config(builders, command, address.port(), workers.port()),
        )?;
        run(&venv, "buildbot", &["upgrade-master", "-q", text(&master)?])?;
        let mut buildbot = Buildbot {
            children: Vec::new(),
            folder,
            venv,
            address,
        };
        buildbot.spawn("buildbot", &master)?;
        let (began, mut ready) = (Instant::now(), false);
        while !ready {
            ensure!(began.elapsed() < LIMIT, "Buildbot does not come up");
            std::thread::sleep(Duration::from_millis(100));
            let look = || Connection::open(address)?.get("/api/v2/masters");
            ready = look().is_ok_and(|answer| answer.status == 200);
        }
        for name in ["w0", "w1"] {
            let dir = buildbot.folder.path().join(name);
            let at = format!("127.0.0.1:{}", workers.port());
            run(
                &buildbot.venv,
                "buildbot-worker",
                &["create-worker", "-q", text(&dir)?, &at, name, "secret"],
            )?;
            buildbot.spawn("buildbot-worker", &dir)?;
        }
        let connected = || {
            let answer = Connection::open(address)?.get("/api/v2/workers")?;
            let page: serde_json::Value = serde_json::from_slice(&answer.body)?;
            let workers = page["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
            let there = |worker: &serde_json::Value| {
                worker["connected_to"].as_array().is_some_and(|to| !to.is_empty())
                    && worker["configured_on"]
                        .as_array()
                        .is_some_and(|on| on.len() == builders)
            };
            anyhow::Ok(workers.len() == 2 && workers.iter().all(there))
        };
        while !connected().unwrap_or(false) {
            ensure!(began.elapsed() < LIMIT, "Buildbot's workers do not connect");
            std::thread::sleep(Duration::from_millis(200));
        }
        // It sets up each builder on each worker after that.
        std::thread::sleep(Duration::from_secs(3));
        Ok(buildbot)
    }

    fn spawn(&mut self, program: &str, dir: &Path) -> anyhow::Result<()> {
        let child = Command::new(self.venv.join("bin").join(program))
            .args(["start", "--nodaemon", text(dir)?])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        self.children.push(child);
        Ok(())
    }

    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    /// One change to the repository.
    pub fn hook(&self) -> anyhow::Result<()> {
        let form = "author=ann&revision=1&comments=change&branch=main&repository=widget&project=widget";
        let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
        let answer = Connection::open(self.address)?.send("POST", "/change_hook/base", kind, form)?;
        ensure!(
            answer.status < 300,
            "Buildbot's hook was answered {}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        Ok(())
    }

    /// Waits until so many builds are complete in its database; looks there as it is cheaper than its API.
    pub fn complete(&self, wanted: usize) -> anyhow::Result<Instant> {
        let script = "import sqlite3,sys,time\nwhile True:\n  try:\n    d=sqlite3.connect(sys.argv[1])\n    \
                      n=d.execute('select count(*) from builds where complete_at is not null').fetchone()[0]\n    \
                      d.close()\n  except sqlite3.OperationalError: n=0\n  if n>=int(sys.argv[2]): break\n  \
                      time.sleep(0.02)\n";
        let file = self.folder.path().join("master").join("state.sqlite");
        let done = Command::new(self.venv.join("bin").join("python"))
            .args(["-c", script, text(&file)?, &wanted.to_string()])
            .status()?;
        ensure!(done.success(), "looking at Buildbot's builds failed");
        Ok(Instant::now())
    }
}

impl Drop for Buildbot {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

fn run(venv: &Path, program: &str, args: &[&str]) -> anyhow::Result<()> {
    let out = Command::new(venv.join("bin").join(program))
        .args(args)
        .output()
        .with_context(|| format!("start {program} of `{}`", venv.display()))?;
    ensure!(
        out.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(())
}

fn config(builders: usize, command: &[&str], http: u16, workers: u16) -> String {
    let command = serde_json::Value::from(command.to_vec());
    format!(
        "from buildbot.plugins import *\n\
         c = BuildmasterConfig = {{}}\n\
         c['workers'] = [worker.Worker('w%d' % n, 'secret', max_builds=4) for n in range(2)]\n\
         c['protocols'] = {{'pb': {{'port': 'tcp:{workers}:interface=127.0.0.1'}}}}\n\
         names = ['b%04d' % n for n in range({builders})]\n\
         f = util.BuildFactory([steps.ShellCommand(command={command})])\n\
         c['builders'] = [util.BuilderConfig(name=n, workernames=['w0', 'w1'], factory=f) for n in names]\n\
         c['schedulers'] = [schedulers.AnyBranchScheduler(name='all', treeStableTimer=None, builderNames=names)]\n\
         c['www'] = dict(port='tcp:{http}:interface=127.0.0.1', change_hook_dialects={{'base': True}})\n\
         c['db'] = {{'db_url': 'sqlite:///state.sqlite'}}\n\
         c['buildbotNetUsageData'] = None\n\
         c['buildbotURL'] = 'http://127.0.0.1:{http}/'\n"
    )
}
