//! A host that fails the farm, and a farm that is replaced under its work.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::chaos;
use crate::farm::{Process, git, repository};
use crate::{until, until_within};

/// A farm of two machines with the repository `widget`, whose one step runs `step.sh`.
fn serve(dir: &Path) -> Process {
    let url = dir.join("widget");
    let text = format!(
        "[farm]\nlisten = \"127.0.0.1:0\"\n[host.box]\npool = \"local\"\nslots = 2\n[builder.b]\nhost = \"box\"\n\
         [repo.widget]\nurl = {url:?}\npoll = \"1s\"\nrecipe = \"own\"\n[recipe.own]\n\
         steps = [{{ name = \"test\", run = [\"sh\", \"step.sh\"] }}]\n"
    );
    fs::write(dir.join("burrow.toml"), text).expect("a file");
    Process::start(dir, dir, &["serve", "--config", "burrow.toml"])
}

fn signal(farm: &Process, name: &str) {
    let sent = Command::new("kill")
        .args([name, &farm.child.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
}

/// Counts to `$1` at some 50 lines a second, and says elsewhere that it was started, and as which process.
fn counting(dir: &Path, to: u32) -> String {
    format!(
        "echo $$ >> '{}/started'; i=0; while [ $i -lt {to} ]; do i=$((i+1)); echo $i; sleep 0.02; done\n",
        dir.display()
    )
}

fn numbers(to: u32) -> String {
    (1..=to).map(|n| format!("{n}\n")).collect()
}

fn running(farm: &Process, dir: &Path) {
    until("the step runs", || {
        let builds = farm.builds("widget");
        (dir.join("started").exists() && builds.first()?["status"] == "running").then_some(())
    });
}

#[test]
fn a_farm_that_is_told_to_end_hands_its_running_commands_to_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    repository(&dir.join("widget"), &[("step.sh", &counting(dir, 300))]);
    let mut farm = serve(dir);
    running(&farm, dir);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        // Somebody looks at the page meanwhile, and somebody follows the log; neither holds it up.
        let mut watching = TcpStream::connect(farm.address()).expect("it listens");
        write!(
            watching,
            "GET /build/1/log/events?attempt=1&step=0&offset=0&line=0 HTTP/1.1\r\nHost: {}\r\n\r\n",
            farm.address()
        )
        .expect("it reads");
        let began = Instant::now();
        signal(&farm, "-TERM");
        let ended = farm.child.wait().expect("it can be waited for");
        assert!(ended.success(), "{ended}: {}", farm.said());
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        farm = serve(dir);
    }
    let build = farm.done("widget");
    assert_eq!(
        (&build["status"], &build["attempts"]),
        (&Value::from("passed"), &Value::from(1)),
        "{build}"
    );
    assert_eq!(
        String::from_utf8_lossy(&farm.log(&build)),
        numbers(300),
        "no line lost or doubled"
    );
    assert_eq!(
        fs::read_to_string(dir.join("started"))
            .expect("a file")
            .lines()
            .count(),
        1,
        "run once"
    );

    // ^C is the end of it all.
    git(
        &dir.join("widget"),
        &["commit", "-q", "--allow-empty", "-m", "two"],
    );
    until("the second one runs", || {
        (fs::read_to_string(dir.join("started")).ok()?.lines().count() == 2).then_some(())
    });
    signal(&farm, "-INT");
    assert!(farm.child.wait().expect("it can be waited for").success());
    let last = fs::read_to_string(dir.join("started")).expect("a file");
    let pid = last.lines().next_back().expect("a line");
    assert!(
        !Path::new(&format!("/proc/{pid}")).exists(),
        "its command has ended"
    );
}

#[test]
fn a_store_that_is_locked_for_a_while_is_waited_for_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    repository(&dir.join("widget"), &[("step.sh", &counting(dir, 100))]);
    let farm = serve(dir);
    running(&farm, dir);
    let database = dir.join("state/farm.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        use sqlx::{Connection as _, Executor as _};
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
        let mut other = sqlx::SqliteConnection::connect_with(&options)
            .await
            .expect("it opens");
        other.execute("BEGIN IMMEDIATE").await.expect("a lock");
        // Longer than SQLite itself waits; the step ends meanwhile.
        let said = until_within(
            Duration::from_secs(60),
            "the farm says that it is not ready",
            || {
                let (status, text) = farm.get("/readyz");
                (status == 503).then(|| String::from_utf8_lossy(&text).into_owned())
            },
        );
        assert!(
            said.contains("store: takes no writes") && said.contains("locked"),
            "{said}"
        );
        assert_eq!(farm.get("/builds").0, 200, "what is known is shown");
        other.execute("ROLLBACK").await.expect("unlocked");
        other.close().await.expect("closed");
    });
    let build = farm.done("widget");
    assert_eq!(
        (&build["status"], &build["attempts"]),
        (&Value::from("passed"), &Value::from(1)),
        "{build}"
    );
    assert_eq!(String::from_utf8_lossy(&farm.log(&build)), numbers(100));
    until("it is ready again", || {
        (farm.get("/readyz").0 == 200).then_some(())
    });
}

/// A small file system of its own, while it lives. `None`, said aloud, where none can be mounted.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, mib: u32) -> Option<Small> {
        fs::create_dir_all(at).expect("a folder");
        let size = format!("size={mib}m,mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(at)
            .output();
        match mounted {
            Ok(out) if out.status.success() => Some(Small(at.to_owned())),
            why => {
                eprintln!("SKIPPED: no small file system to be had for a full disk (run as root): {why:?}");
                None
            }
        }
    }

    /// Takes every byte there is.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).expect("a file");
        for size in [1 << 20, 4096, 1] {
            let block = vec![0u8; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("removed");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Buildlets may still be ending.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_again_and_again_costs_time_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let Some(disk) = Small::mount(&state, 48) else {
        return;
    };
    let mut farm = chaos::Farm::of_commits(folder.path(), 6, None);
    let began = Instant::now();
    let mut round = 0;
    while began.elapsed() < Duration::from_secs(12) {
        round += 1;
        std::thread::sleep(Duration::from_millis(400 + 170 * (round % 5)));
        disk.fill();
        std::thread::sleep(Duration::from_millis(300 + 230 * (round % 4)));
        disk.free();
        farm.supervise();
    }
    farm.finish(folder.path(), 6);
}

#[test]
fn a_log_that_is_harmed_or_gone_is_not_shown_as_if_it_were_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    repository(&dir.join("widget"), &[("step.sh", "seq 1000; exit 1\n")]);
    let farm = serve(dir);
    let build = farm.done("widget");
    let page = |wanted: Option<&str>| {
        let page = farm.json("/build/1.json");
        let (_, html) = farm.get("/build/1");
        let html = String::from_utf8_lossy(&html).into_owned();
        let damage = page["log"]["damage"].as_str();
        assert_eq!(damage.is_some(), wanted.is_some(), "{page}");
        assert_eq!(
            html.contains("This log is not as it was written"),
            wanted.is_some()
        );
        assert!(
            damage.unwrap_or_default().contains(wanted.unwrap_or_default()),
            "{damage:?}"
        );
    };
    assert_eq!(build["status"], "failed");
    page(None);
    let file = dir.join("state/logs/0/1/1-0.log");
    let good = fs::read(&file).expect("a file");
    let mut bad = good.clone();
    bad[2000] ^= 1;
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&file, &bad).expect("written");
    page(Some("is not what was written"));
    fs::write(&file, &good[..100]).expect("written");
    page(Some("it has 100 bytes"));
    fs::remove_file(&file).expect("removed");
    page(Some("missing"));
    fs::write(&file, &good).expect("written");
    page(None);
}

#[test]
fn a_store_that_is_harmed_is_refused_with_what_to_do_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    repository(&dir.join("widget"), &[("step.sh", "exit 0\n")]);
    let mut farm = serve(dir);
    farm.done("widget");
    signal(&farm, "-INT");
    farm.child.wait().expect("it can be waited for");
    let database = dir.join("state/farm.db");
    let mut bytes = fs::read(&database).expect("a file");
    let (from, to) = (bytes.len() / 2, bytes.len() / 2 + 8192);
    bytes[from..to].fill(0x5a);
    fs::write(&database, &bytes).expect("written");
    let state = dir.join("state");
    let args = [
        "serve",
        "--config",
        "burrow.toml",
        "--state-dir",
        state.to_str().expect("a path"),
    ];
    let (code, said) = crate::farm::refused(dir, &args);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("farm.db") && said.contains("damaged") && said.contains("backup"),
        "{said}"
    );
    assert!(
        fs::read(&database).expect("a file") == bytes,
        "nothing was repaired in silence"
    );
}

/// Connections that say nothing, or half of something.
fn slow_clients(farm: &Process, count: usize) -> Vec<TcpStream> {
    let address = farm.address();
    let connect = |n: usize| {
        let mut stream = TcpStream::connect(&address).ok()?;
        if n.is_multiple_of(2) {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
        }
        Some(stream)
    };
    (0..count).filter_map(connect).collect()
}

/// How long a page takes while others hold their connections.
fn page_took(farm: &Process) -> Duration {
    let began = Instant::now();
    let mut stream = TcpStream::connect(farm.address()).expect("it listens");
    write!(
        stream,
        "GET /status HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        farm.address()
    )
    .expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    assert!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer[..answer.len().min(200)])
    );
    began.elapsed()
}

#[test]
fn ten_thousand_slow_clients_keep_nobody_out() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let more = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, more).expect("its own limit");
    let room = limit.maximum.unwrap_or(u64::MAX).saturating_sub(200);
    let count = 10_000.min(usize::try_from(room).unwrap_or(usize::MAX));
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    repository(&dir.join("widget"), &[("step.sh", "exit 0\n")]);
    let farm = serve(dir);
    let held = slow_clients(&farm, count);
    assert!(held.len() * 10 > count * 9, "{} of {count}", held.len());
    let took = page_took(&farm);
    assert!(took < Duration::from_secs(5), "a page took {took:?}");
    assert_eq!(farm.done("widget")["status"], "passed");
    drop(held);
}

#[test]
fn a_farm_with_few_file_descriptors_works_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    repository(&dir.join("widget"), &[("step.sh", "exit 0\n")]);
    let config = {
        let farm = serve(dir);
        farm.done("widget");
        farm
    };
    drop(config);
    let mut line = Command::new("sh");
    line.args(["-c", "ulimit -n 128; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_burrow"));
    let farm = Process::start_by(line, dir, dir, &["serve", "--config", "burrow.toml"]);
    let held = slow_clients(&farm, 300);
    assert!(page_took(&farm) < Duration::from_secs(5));
    git(
        &dir.join("widget"),
        &["commit", "-q", "--allow-empty", "-m", "two"],
    );
    until("the second commit is built", || {
        let builds = farm.builds("widget");
        (builds.len() == 2 && builds[0]["status"] != "waiting" && builds[0]["status"] != "running")
            .then_some(())
    });
    let newest = &farm.builds("widget")[0];
    assert_eq!(
        (&newest["status"], &newest["attempts"]),
        (&Value::from("passed"), &Value::from(1)),
        "{newest}"
    );
    let (_, told) = farm.health("open files");
    assert!(told.contains("of 128"), "{told}");
    drop(held);
}

#[test]
fn a_machine_that_died_while_no_coordinator_ran_is_known_to_have() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    repository(&dir.join("widget"), &[("step.sh", &counting(dir, 100_000))]);
    let mut farm = serve(dir);
    running(&farm, dir);
    let config = dir.join("burrow.toml");
    let config = config.to_str().expect("a path");
    let made = crate::burrow(
        &farm.state(),
        &[
            "token",
            "--config",
            config,
            "new",
            "amy",
            "--role",
            "contributor",
            "--json",
        ],
    );
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let token = made["token"].as_str().expect("the token, this once").to_owned();
    let gomote = |farm: &Process, words: &[&str]| {
        let words = [&["gomote"], words, &["--token", &token]].concat();
        crate::burrow(&farm.state(), &words)
    };
    let lent = gomote(&farm, &["create", "b"]);
    assert!(lent.status.success(), "{}", String::from_utf8_lossy(&lent.stderr));
    let buildlets = crate::hostile::buildlets(&farm);
    assert_eq!(buildlets.len(), 2);
    signal(&farm, "-KILL");
    farm.child.wait().expect("it can be waited for");
    for pid in buildlets {
        assert!(
            Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .status()
                .expect("kill runs")
                .success()
        );
    }
    let started = fs::read_to_string(dir.join("started")).expect("a file");
    let command = format!("/proc/{}", started.trim());
    assert!(
        Path::new(&command).exists(),
        "the command of a buildlet that was killed goes on"
    );
    let farm = serve(dir);
    let limit = Duration::from_secs(20);
    until_within(limit, "the attempt is known to be lost", || {
        let page = farm.json("/build/1.json");
        let first = &page["attempts"][0];
        let reason = first["reason"].as_str()?;
        (first["status"] == "infra" && reason.contains("ended while no coordinator ran")).then_some(())
    });
    until_within(limit, "its command has ended", || {
        (!Path::new(&command).exists()).then_some(())
    });
    until_within(limit, "nothing is lent", || {
        let list = gomote(&farm, &["list"]);
        (list.status.success() && !String::from_utf8_lossy(&list.stdout).contains("-b-0")).then_some(())
    });
}
