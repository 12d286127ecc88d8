use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::Setup;
use super::http::Connection;

/// For anything that should take seconds.
const LIMIT: Duration = Duration::from_secs(200);

/// A repository that the measured farm follows.
pub struct Upstream {
    pub place: PathBuf,
    commits: usize,
}

impl Upstream {
    /// A bare repository with one commit of some files.
    pub fn make(place: PathBuf) -> anyhow::Result<Upstream> {
        fs::create_dir(&place)?;
        git(&place, &["init", "--quiet", "--bare", "--initial-branch=main"])?;
        let mut upstream = Upstream { place, commits: 0 };
        upstream.push()?;
        Ok(upstream)
    }

    /// One more commit on `main`, there for whoever fetches. Its hash.
    pub fn push(&mut self) -> anyhow::Result<String> {
        self.commits += 1;
        let n = self.commits;
        let time = seconds() as u64;
        let mut stream = format!(
            "commit refs/heads/main\ncommitter Ann <ann@example.org> {time} +0000\ndata <<END\ncommit {n}\nEND\n"
        );
        if n > 1 {
            stream += "from refs/heads/main^0\n";
        } else {
            for file in 1..=3 {
                let text = "some text of a line\n".repeat(50);
                stream += &format!("M 100644 inline src/file-{file}\ndata {}\n{text}\n", text.len());
            }
        }
        stream += &format!("M 100644 inline count\ndata <<END\n{n}\nEND\n\n");
        let mut child = Command::new("git")
            .args(["fast-import", "--quiet"])
            .current_dir(&self.place)
            .stdin(Stdio::piped())
            .spawn()
            .context("start git")?;
        std::io::Write::write_all(&mut child.stdin.take().expect("it is piped"), stream.as_bytes())?;
        ensure!(child.wait()?.success(), "git fast-import failed");
        git(&self.place, &["rev-parse", "refs/heads/main"])
    }
}

/// A farm that runs.
pub struct Farm {
    child: Child,
    pub folder: TempDir,
    pub address: SocketAddr,
    pub upstream: Upstream,
    config: PathBuf,
    burrow: PathBuf,
}

/// What its configuration says besides the repository.
pub struct Plan {
    /// Tables of hosts and builders.
    pub machines: String,
    /// `run` of the one step, as TOML.
    pub run: String,
    /// More of `[farm]`.
    pub farm: String,
    /// Machines that are waited for.
    pub slots: usize,
}

impl Plan {
    pub fn local(builders: usize, slots: usize, run: &str) -> Plan {
        let mut machines = format!("[host.local]\npool = \"local\"\nslots = {slots}\n");
        for n in 0..builders {
            machines += &format!("[builder.b{n:04}]\nhost = \"local\"\n");
        }
        Plan {
            machines,
            run: run.to_owned(),
            farm: String::new(),
            slots,
        }
    }
}

impl Farm {
    /// Starts it and waits until its machines are there and it knows the branch, whose one commit it does not build.
    pub fn start(setup: &Setup, plan: &Plan) -> anyhow::Result<Farm> {
        let folder = tempfile::tempdir()?;
        let upstream = Upstream::make(folder.path().join("widget.git"))?;
        Farm::start_in(setup, plan, folder, upstream)
    }

    pub fn start_in(setup: &Setup, plan: &Plan, folder: TempDir, upstream: Upstream) -> anyhow::Result<Farm> {
        let text = format!(
            "[farm]\nlisten = \"127.0.0.1:0\"\n{}\n[repo.widget]\nurl = {:?}\nrecipe = \"r\"\npoll = \"1h\"\n\
             backfill = 0\n[recipe.r]\nsteps = [{{ name = \"it\", run = {} }}]\n{}",
            plan.farm, upstream.place, plan.run, plan.machines
        );
        let config = folder.path().join("burrow.toml");
        fs::write(&config, text)?;
        let child = spawn(&setup.burrow, folder.path(), &config)?;
        let mut farm = Farm {
            child,
            folder,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            upstream,
            config,
            burrow: setup.burrow.clone(),
        };
        farm.address = farm.announced()?;
        farm.until("its machines are there", |farm| {
            let mut connection = Connection::open(farm.address)?;
            Ok(farm.machines(&mut connection)? == plan.slots)
        })?;
        farm.until("it knows the branch", |farm| {
            let page = Connection::open(farm.address)?.get("/repo/widget/main.json")?;
            Ok(page.status == 200)
        })?;
        Ok(farm)
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to look at the repository.
    pub fn hook(&self, connection: &mut Connection) -> anyhow::Result<()> {
        let answer = connection.send("POST", "/hook/widget", "", "")?;
        ensure!(answer.status < 300, "the hook was answered {}", answer.status);
        Ok(())
    }

    /// How many builds there are in each state.
    pub fn counts(&self, connection: &mut Connection) -> anyhow::Result<BTreeMap<String, usize>> {
        let text = String::from_utf8(connection.get("/metrics")?.body)?;
        let one = |line: &str| {
            let (state, n) = line.strip_prefix("burrow_builds{state=\"")?.split_once("\"} ")?;
            Some((state.to_owned(), n.trim().parse().ok()?))
        };
        Ok(text.lines().filter_map(one).collect())
    }

    /// Waits until so many builds have passed, and says when that was first seen. Any that failed is an error.
    pub fn passed(&mut self, wanted: usize, every: Duration) -> anyhow::Result<Instant> {
        let (began, mut connection) = (Instant::now(), Connection::open(self.address)?);
        loop {
            let counts = self.counts(&mut connection)?;
            let now = Instant::now();
            let of = |state: &str| counts.get(state).copied().unwrap_or(0);
            ensure!(
                of("failed") + of("infra") + of("cancelled") == 0,
                "not all passed: {counts:?}"
            );
            if of("passed") >= wanted {
                return Ok(now);
            }
            ensure!(
                began.elapsed() < LIMIT,
                "after {LIMIT:?} not all have passed: {counts:?}"
            );
            self.alive()?;
            std::thread::sleep(every);
        }
    }

    /// How many are connected.
    pub fn machines(&self, connection: &mut Connection) -> anyhow::Result<usize> {
        let text = String::from_utf8(connection.get("/metrics")?.body)?;
        let of_line = |line: &str| {
            line.strip_prefix("burrow_machines_connected{")?
                .rsplit(' ')
                .next()?
                .parse::<usize>()
                .ok()
        };
        Ok(text.lines().filter_map(of_line).sum())
    }

    pub fn until(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Farm) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            self.alive()?;
            // A farm that starts may not answer yet.
            if look(self).unwrap_or(false) {
                return Ok(());
            }
            ensure!(
                began.elapsed() < LIMIT,
                "after {LIMIT:?} still waiting until {what}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn alive(&mut self) -> anyhow::Result<()> {
        if let Some(ended) = self.child.try_wait()? {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            anyhow::bail!("the farm has ended with {ended}: {last:?}");
        }
        Ok(())
    }

    fn announced(&mut self) -> anyhow::Result<SocketAddr> {
        let file = self.state().join("server.json");
        let mut found = None;
        self.until("it says where it is", |_| {
            let told: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
            let url = told["url"].as_str().context("no url")?;
            found = Some(url.trim_start_matches("http://").trim_end_matches('/').parse()?);
            Ok(true)
        })?;
        found.context("no address")
    }

    /// Ends it at once, as a crash would; its agents go on.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        // Of the one that is gone.
        let _ = fs::remove_file(self.state().join("server.json"));
        Ok(())
    }

    /// Starts it again where it was; returns at once.
    pub fn spawn_again(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.burrow, self.folder.path(), &self.config)?;
        Ok(())
    }

    pub fn wait_announced(&mut self) -> anyhow::Result<()> {
        self.address = self.announced()?;
        Ok(())
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        // Asked, it ends its agents too.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(burrow: &Path, folder: &Path, config: &Path) -> anyhow::Result<Child> {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))?;
    Command::new(burrow)
        .arg("serve")
        .arg("--config")
        .arg(config)
        .arg("--state-dir")
        .arg(folder.join("state"))
        .env("TMPDIR", folder)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("start `{}`", burrow.display()))
}

pub fn git(dir: &Path, args: &[&str]) -> anyhow::Result<String> {
    let out = Command::new("git")
        .args(args)
        .current_dir(dir)
        .output()
        .context("start git")?;
    ensure!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(String::from_utf8(out.stdout)?.trim().to_owned())
}

/// The wall clock in seconds.
pub fn seconds() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// Of a process: resident memory in bytes, and the processor time it has used.
pub fn usage(pid: u32) -> anyhow::Result<(u64, Duration)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .context("no VmRSS")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(") ").context("no name")?.1;
    let mut fields = rest.split(' ').skip(11).map(|field| field.parse::<u64>());
    let (user, system) = (
        fields.next().context("no time")??,
        fields.next().context("no time")??,
    );
    // The kernel counts in hundredths of a second there.
    Ok((resident * 1024, Duration::from_millis((user + system) * 10)))
}

/// Processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}
