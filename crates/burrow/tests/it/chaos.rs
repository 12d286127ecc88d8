//! A farm whose coordinator, buildlets and database are killed and stopped at random, and which loses nothing.
//!
//! Each command writes numbered lines to its output and to a file of its own. Afterwards every log is held against
//! its file, and every file against what the store says was started. `BURROW_CHAOS_SECONDS` makes it longer,
//! `BURROW_CHAOS_SEED` tells it when to do what.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use runner::Outcome;
use store::read::{BuildDetail, BuildFilter};
use store::{PgUrl, Store, StoreUrl};
use testkit::Random;

use crate::peers::git;
use crate::{builds, burrow, until};

const COMMITS: u64 = 5;
const BUILDERS: usize = 2;

/// `$1` is the step's name. What it says goes to its file first: a log is never ahead of it.
const STEP: &str = r#"
f=$(mktemp "$OUT/XXXXXXXX")
say() { printf '%s\n' "$1" >> "$f"; printf '%s\n' "$1"; }
say "$f $BURROW_BUILDER $BURROW_COMMIT $1"
i=0
while [ $i -lt 30 ]; do i=$((i + 1)); say "$i of $1"; sleep 0.03; done
"#;

#[test]
fn on_sqlite_no_byte_is_lost_and_nothing_is_run_twice() {
    chaos(None);
}

#[test]
fn on_postgresql_no_byte_is_lost_and_nothing_is_run_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    if let Some(database) = Postgres::make(folder.path()) {
        chaos(Some(database));
    }
}

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is `{text}`, no number"))
    })
}

fn chaos(mut database: Option<Postgres>) {
    let (seed, lasts) = (
        number("BURROW_CHAOS_SEED", 1),
        Duration::from_secs(number("BURROW_CHAOS_SECONDS", 12)),
    );
    println!("BURROW_CHAOS_SEED={seed}");
    let mut random = Random::new(seed);
    let folder = tempfile::tempdir().expect("a folder");
    let mut farm = Farm::of_commits(folder.path(), COMMITS, database.as_ref());
    let began = Instant::now();
    let mut made = COMMITS;
    let (mut kills, mut deaths) = (0, 0);
    while began.elapsed() < lasts {
        let pause = Duration::from_millis(random.within(100, 900));
        let long = Duration::from_millis(random.within(200, 2_500));
        std::thread::sleep(pause);
        farm.supervise();
        match random.below(if database.is_some() { 8 } else { 6 }) {
            0 | 1 => {
                signal("-KILL", farm.child.id());
                farm.child.wait().expect("it can be waited for");
                kills += 1;
                std::thread::sleep(pause);
            }
            2 => stop_for(farm.child.id(), long),
            3 => {
                let all = farm.buildlets();
                if let Some(pid) = all.get(random.below(all.len().max(1) as u64) as usize) {
                    signal("-KILL", *pid);
                    deaths += 1;
                }
            }
            4 => {
                let all = farm.buildlets();
                if let Some(pid) = all.get(random.below(all.len().max(1) as u64) as usize) {
                    stop_for(*pid, long);
                }
            }
            5 => {
                commit(folder.path());
                made += 1;
            }
            _ => {
                if let Some(database) = &mut database {
                    database.crash();
                    // Long runs have it away for a minute, too.
                    let minute = lasts.as_secs() >= 60 && random.chance(20);
                    std::thread::sleep(if minute { Duration::from_secs(60) } else { long });
                    database.start();
                }
            }
        }
    }
    println!("{kills} kills of the coordinator, {deaths} of buildlets, {made} commits");
    farm.finish(folder.path(), made);
}

/// Every build with its attempts.
async fn read(url: &StoreUrl) -> Vec<BuildDetail> {
    let store = Store::open(url).await.expect("the store opens");
    let rows = store
        .builds(&BuildFilter::default(), 1_000)
        .await
        .expect("builds");
    let mut all = Vec::new();
    for row in rows {
        all.push(
            store
                .build(row.build)
                .await
                .expect("a build")
                .expect("it is there"),
        );
    }
    let held = store.machines().await.expect("machines");
    assert!(
        held.iter().all(|machine| machine.running.is_none()),
        "a machine is held for ever: {held:?}"
    );
    store.close().await;
    all
}

fn check(details: &[BuildDetail], wanted: usize, state: &Path, out: &Path) {
    assert_eq!(details.len(), wanted, "each commit once on each builder");
    // What was started by what the store says, and by what was left behind.
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    let mut claimed: BTreeMap<PathBuf, String> = BTreeMap::new();
    for detail in details {
        let passed = detail
            .attempts
            .iter()
            .filter(|attempt| attempt.outcome == Some(Outcome::Passed));
        let results: Vec<_> = detail.attempts.iter().map(|attempt| &attempt.outcome).collect();
        assert_eq!(
            passed.count(),
            1,
            "build {} has one result: {results:?}",
            detail.row.build
        );
        assert!(
            !results
                .iter()
                .any(|outcome| matches!(outcome, Some(Outcome::Failed { .. }) | None)),
            "nothing is the author's fault, and everything has ended: {results:?}"
        );
        for attempt in &detail.attempts {
            for step in attempt.steps.iter().filter(|step| step.started.is_some()) {
                let name = format!("{}.{}", attempt.attempt, step.index);
                let (builder, commit) = (&detail.row.builder, &detail.row.commit);
                *told
                    .entry(format!("{builder} {commit} {}", step.name))
                    .or_default() += 1;
                let (build, n) = (attempt.attempt.build.0, attempt.attempt.n);
                let file = format!("logs/{}/{build}/{n}-{}.log", build / 1000, step.index);
                let log = fs::read_to_string(state.join(file)).unwrap_or_default();
                let ended = step.ended.is_some();
                let Some((first, _)) = log.split_once('\n') else {
                    assert!(!ended, "step {name} has ended, and its log is empty");
                    continue;
                };
                let path = PathBuf::from(first.split(' ').next().expect("a line has a word"));
                let printed =
                    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
                let other = claimed.insert(path, name.clone());
                assert_eq!(other, None, "one command for each step: {name}");
                if ended {
                    assert_eq!(log, printed, "the log of step {name} is what it printed");
                } else {
                    assert!(
                        printed.starts_with(&log),
                        "the log of step {name} is the beginning of what it printed"
                    );
                }
            }
        }
    }
    let mut started: BTreeMap<String, usize> = BTreeMap::new();
    for entry in fs::read_dir(out).expect("a folder").flatten() {
        let text = fs::read_to_string(entry.path()).expect("a file");
        // One that was killed before its first line is whole says nothing.
        if let Some((first, _)) = text.split_once('\n')
            && let Some((_, what)) = first.split_once(' ')
        {
            *started.entry(what.to_owned()).or_default() += 1;
        }
    }
    for (what, times) in &started {
        let known = told.get(what).copied().unwrap_or(0);
        assert!(
            *times <= known,
            "`{what}` was started {times} times, and {known} starts are written"
        );
    }
}

/// One more commit of the repository in `folder`, as all before it.
fn commit(folder: &Path) {
    git(
        &folder.join("widget"),
        &["commit", "-q", "--allow-empty", "-m", "another"],
    );
}

/// A farm with two builders on local machines.
pub struct Farm {
    pub config: PathBuf,
    pub state: PathBuf,
    store: StoreUrl,
    child: Child,
}

impl Farm {
    /// Its repository `widget` has so many commits; what their steps print goes to files in `out`.
    pub fn of_commits(folder: &Path, commits: u64, database: Option<&Postgres>) -> Farm {
        let (repo, out) = (folder.join("widget"), folder.join("out"));
        fs::create_dir(&repo).expect("a folder");
        fs::create_dir(&out).expect("a folder");
        git(&repo, &["init", "-q", "-b", "main"]);
        fs::write(repo.join("step.sh"), STEP).expect("a file");
        git(&repo, &["add", "."]);
        for _ in 0..commits {
            commit(folder);
        }
        let (config, state) = (folder.join("burrow.toml"), folder.join("state"));
        let address = database.map_or("embedded".to_owned(), Postgres::url);
        let text = format!(
            r#"
[farm]
listen = "127.0.0.1:0"
disk_floor = "1MiB"
store = "{address}"
[repo.widget]
url = "{}"
poll = "1s"
backfill = 100
[host.box]
pool = "local"
slots = 3
[builder.one]
host = "box"
env = ["OUT={out}"]
[builder.two]
host = "box"
env = ["OUT={out}"]
[recipe.widget]
steps = [
  {{ name = "make", run = ["sh", "step.sh", "make"] }},
  {{ name = "test", run = ["sh", "step.sh", "test"] }},
]
"#,
            repo.display(),
            out = out.display(),
        );
        fs::write(&config, text).expect("a file");
        let store = match database {
            None => StoreUrl::Sqlite(state.join("farm.db")),
            Some(_) => StoreUrl::Postgres(PgUrl::new(address)),
        };
        let child = serve(&config, &state);
        let farm = Farm {
            config,
            state,
            store,
            child,
        };
        until("the farm is up", || {
            farm.state.join("server.json").exists().then_some(())
        });
        farm
    }

    /// A command about this farm.
    pub fn burrow(&self, args: &[&str]) -> Output {
        self.burrow_in(&self.state, args)
    }

    /// The same with another state folder.
    pub fn burrow_in(&self, state: &Path, args: &[&str]) -> Output {
        let config = self.config.to_str().expect("a path");
        burrow(state, &[args, &["--config", config]].concat())
    }

    /// After its end.
    pub fn restart_in(&mut self, state: &Path) {
        self.state = state.to_owned();
        self.child = serve(&self.config, state);
        until("the farm is up", || {
            state.join("server.json").exists().then_some(())
        });
    }

    fn token(&self) -> String {
        let config = self.config.to_str().expect("a path");
        let words = [
            "token",
            "--config",
            config,
            "new",
            "tester",
            "--role",
            "contributor",
            "--json",
        ];
        let made = burrow(&self.state, &words);
        let told = String::from_utf8_lossy(&made.stderr).into_owned();
        let made: serde_json::Value =
            serde_json::from_slice(&made.stdout).unwrap_or_else(|_| panic!("{told}"));
        made["token"].as_str().expect("the token, this once").to_owned()
    }

    /// Waits until so many commits are built, ends the farm, and holds what it kept against what was printed.
    pub fn finish(mut self, folder: &Path, commits: u64) {
        let (wanted, token) = (commits as usize * BUILDERS, self.token());
        until("everything is built", || {
            self.supervise();
            let all = builds(&self.state);
            // A machine that was killed costs its build a back-off of a minute, which a person may end.
            for (id, _, _) in all
                .iter()
                .filter(|(_, status, attempts)| status == "waiting" && *attempts > 0)
            {
                burrow(&self.state, &["retry", &id.to_string(), "--token", &token]);
            }
            let open = |status: &str| status == "waiting" || status == "running";
            (all.len() >= wanted && !all.iter().any(|(_, status, _)| open(status))).then_some(())
        });
        self.end();
        let details = block_on(read(&self.store));
        check(&details, wanted, &self.state, &folder.join("out"));
    }

    /// Starts it again if it has ended, as a service manager would.
    pub fn supervise(&mut self) {
        if self.child.try_wait().expect("it can be waited for").is_some() {
            self.child = serve(&self.config, &self.state);
        }
    }

    fn buildlets(&self) -> Vec<u32> {
        let state = self.state.to_str().expect("a path").as_bytes();
        let has = |line: &[u8], text: &[u8]| line.windows(text.len()).any(|part| part == text);
        let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            has(&line, state) && has(&line, b"-report-file")
        };
        let mut pids: Vec<u32> = pids.filter(ours).collect();
        pids.sort_unstable();
        pids
    }

    pub fn end(&mut self) {
        signal("-INT", self.child.id());
        let ended = until("the farm has ended", || {
            self.child.try_wait().expect("it can be waited for")
        });
        assert!(ended.success(), "{ended}");
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        // After a test that failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.buildlets().into_iter().for_each(|pid| signal("-KILL", pid));
    }
}

fn serve(config: &Path, state: &Path) -> Child {
    // Of one that was killed: clients would look for it there.
    let _ = fs::remove_file(state.join("server.json"));
    Command::new(env!("CARGO_BIN_EXE_burrow"))
        .arg("serve")
        .arg("--config")
        .arg(config)
        .arg("--state-dir")
        .arg(state)
        .stdout(Stdio::null())
        .spawn()
        .expect("burrow starts")
}

/// Gone already is as good.
fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill")
        .args([name, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    sent.expect("kill runs");
}

fn stop_for(pid: u32, time: Duration) {
    signal("-STOP", pid);
    std::thread::sleep(time);
    signal("-CONT", pid);
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// A server of our own that crashes when told.
pub struct Postgres {
    data: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    server: Option<Child>,
}

const BIN: &str = "/usr/lib/postgresql/15/bin";

impl Postgres {
    /// `None`, said aloud, where PostgreSQL is not installed.
    pub fn make(folder: &Path) -> Option<Postgres> {
        if !Path::new(BIN).join("postgres").exists() {
            let missing = format!("no PostgreSQL in {BIN}; install it with `apt-get install postgresql`");
            assert!(
                std::env::var(testkit::peer::REQUIRE).as_deref() != Ok("1"),
                "{missing}"
            );
            eprintln!("SKIPPED: {missing}");
            return None;
        }
        let data = folder.join("data");
        fs::create_dir(&data).expect("a folder");
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a folder");
        let id = |args: &[&str]| -> Option<u32> {
            let out = Command::new("id").args(args).output().ok()?;
            String::from_utf8(out.stdout).ok()?.trim().parse().ok()
        };
        // PostgreSQL refuses to run as root.
        let user = (id(&["-u"]) == Some(0)).then(|| {
            let user = id(&["-u", "postgres"])
                .zip(id(&["-g", "postgres"]))
                .expect("a user `postgres`");
            std::os::unix::fs::chown(&data, Some(user.0), Some(user.1)).expect("a folder");
            user
        });
        let any = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = any.local_addr().expect("a port").port();
        drop(any);
        let mut database = Postgres {
            data,
            port,
            user,
            server: None,
        };
        let made = database
            .program("initdb")
            .args(["-U", "farm", "-A", "trust", "-E", "UTF8", "--no-sync"])
            .arg("-D")
            .arg(&database.data)
            .status();
        assert!(made.expect("initdb runs").success());
        database.start();
        until("there is a database", || {
            let port = database.port.to_string();
            let mut made = database.program("createdb");
            made.args(["-h", "127.0.0.1", "-p", &port, "-U", "farm", "chaos"])
                .stderr(Stdio::null());
            made.status().expect("createdb runs").success().then_some(())
        });
        Some(database)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(Path::new(BIN).join(name));
        command.current_dir(&self.data).stdout(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn start(&mut self) {
        let mut command = self.program("postgres");
        command.arg("-D").arg(&self.data).arg("-k").arg(&self.data);
        command.args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        self.server = Some(command.stderr(Stdio::null()).spawn().expect("postgres starts"));
    }

    /// SIGQUIT: at once, to be recovered from.
    fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            signal("-QUIT", server.id());
            server.wait().expect("it can be waited for");
        }
    }

    pub fn url(&self) -> String {
        format!("postgres://farm:unused@127.0.0.1:{}/chaos", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
    }
}
