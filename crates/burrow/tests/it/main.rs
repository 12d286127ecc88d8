//! The program as its users run it: `up --demo`, the clients, a kill, a clean end.

mod backup;
mod bad_input;
mod chaos;
mod dial_in;
mod enroll;
mod farm;
mod gomote;
mod host;
mod hostile;
mod large;
mod maintnerd;
mod newcomer;
mod peers;
mod reload;
mod security;
mod shells;
mod updates;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// For anything to happen that should take seconds.
const LIMIT: Duration = Duration::from_secs(120);

struct Farm {
    child: Child,
}

impl Farm {
    fn start(state: &Path) -> Farm {
        let told = state.join("server.json");
        // Of a farm that was killed.
        let _ = std::fs::remove_file(&told);
        let child = Command::new(env!("CARGO_BIN_EXE_burrow"))
            .args([
                "up",
                "--demo",
                "--open-nothing",
                "--slots",
                "2",
                "--listen",
                "127.0.0.1:0",
                "--state-dir",
            ])
            .arg(state)
            .stdout(Stdio::null())
            .spawn()
            .expect("burrow starts");
        let farm = Farm { child };
        until("the farm is up", || told.exists().then_some(()));
        farm
    }

    fn signal(&mut self, name: &str) {
        let sent = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(sent.success());
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        // A test that failed leaves no farm behind; its buildlets end by their orphan limit.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(LIMIT, what, look)
}

fn until_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < limit, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn burrow(state: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_burrow"));
    command
        .args(args)
        .arg("--state-dir")
        .arg(state)
        .env_remove("BURROW_TOKEN")
        .env_remove("BURROW_SERVER");
    command.output().expect("burrow runs")
}

/// `(build, state, attempts)` of every build; empty while the farm does not answer.
fn builds(state: &Path) -> Vec<(u64, String, u64)> {
    let out = burrow(state, &["builds", "--json", "--limit", "200"]);
    let page: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
    let one = |build: &serde_json::Value| {
        let status = build["status"].as_str().unwrap_or_default().to_owned();
        (
            build["id"].as_u64().unwrap_or(0),
            status,
            build["attempts"].as_u64().unwrap_or(0),
        )
    };
    page["builds"].as_array().into_iter().flatten().map(one).collect()
}

fn all_done(state: &Path) -> Option<Vec<(u64, String, u64)>> {
    let all = builds(state);
    let done = |(_, status, _): &(u64, String, u64)| status != "waiting" && status != "running";
    (all.len() >= 24 && all.iter().all(done)).then_some(all)
}

/// Whether a process with this state folder in its command line runs.
fn buildlet_runs(state: &Path) -> bool {
    let folder = state.to_str().expect("a path").as_bytes();
    let processes = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    let mut lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| line.windows(folder.len()).any(|part| part == folder))
}

#[test]
fn a_commit_becomes_a_result_and_a_killed_farm_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path();
    let mut farm = Farm::start(state);
    until("something has passed", || {
        builds(state)
            .iter()
            .any(|(_, status, _)| status == "passed")
            .then_some(())
    });

    // A second one on the same folder is refused, and says by whom it is held.
    let second = burrow(
        state,
        &["up", "--demo", "--open-nothing", "--listen", "127.0.0.1:0"],
    );
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("process {}", farm.child.id())), "{said}");

    farm.signal("-KILL");
    drop(farm);
    let mut farm = Farm::start(state);
    let all = until("everything is built", || all_done(state));
    assert!(all.iter().any(|(_, status, _)| status == "passed"), "{all:?}");
    assert!(all.iter().any(|(_, status, _)| status == "failed"), "{all:?}");
    assert!(
        all.iter().all(|(_, status, _)| status != "infra"),
        "nothing was the farm's fault: {all:?}"
    );

    let (passed, _, attempts) = all
        .iter()
        .find(|(_, status, _)| status == "passed")
        .expect("one passed")
        .clone();
    let id = passed.to_string();
    let log = burrow(state, &["logs", &id]);
    assert!(log.status.success() && !log.stdout.is_empty());

    // Without a token nothing is retried; with the farm's own it is.
    let refused = burrow(state, &["retry", &id, "--token", "bt_wrong"]);
    assert_eq!(
        refused.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&refused.stderr)
    );
    assert!(burrow(state, &["retry", &id]).status.success());
    until("it was built again", || {
        let all = all_done(state)?;
        all.iter()
            .any(|(build, _, now)| *build == passed && *now > attempts)
            .then_some(())
    });

    farm.signal("-INT");
    let ended = until("the farm has ended", || {
        farm.child.try_wait().expect("it can be waited for")
    });
    assert_eq!(ended.code(), Some(0));
    assert_eq!(
        burrow(state, &["status"]).status.code(),
        Some(4),
        "no farm answers any more"
    );
    until("its buildlets have ended", || {
        (!buildlet_runs(state)).then_some(())
    });
}

#[test]
fn wrong_command_lines_end_with_2_and_every_command_has_help() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(burrow(folder.path(), &["nothing"]).status.code(), Some(2));
    assert_eq!(burrow(folder.path(), &["logs", "x"]).status.code(), Some(2));
    let commands = [
        "up",
        "serve",
        "check",
        "status",
        "builds",
        "logs",
        "retry",
        "cancel",
        "gomote",
        "buildlets",
        "enroll",
        "key",
        "token",
        "backup",
        "restore",
        "move-store",
        "completions",
    ];
    for command in commands {
        let help = burrow(folder.path(), &[command, "--help"]);
        assert!(help.status.success() && help.stdout.len() > 200, "{command}");
    }
}

#[test]
fn mistakes_of_a_configuration_are_told_with_their_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("burrow.toml");
    std::fs::write(&file, "[builder.x]\nhost = \"nowhere\"\n[farm]\nnmae = \"f\"\n").expect("a file");
    let out = burrow(folder.path(), &["check", file.to_str().expect("a path")]);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(!out.status.success());
    assert!(
        said.contains("nowhere") && said.contains("nmae"),
        "both mistakes at once: {said}"
    );
}

#[test]
fn builder_keys_are_the_originals() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = burrow(folder.path(), &["key", "derive", "--development", "linux-amd64"]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("8b3dbf220b21848be6884e982b34702e"), "{said}");
}

/// A folder as golang/build's disk logger leaves it: one issue, which is `golang/go#7`.
fn daily_files(dir: &Path) {
    std::fs::create_dir(dir).expect("a new folder");
    let record = b"REC@0+1a=\x0a\x18\x0a\x06golang\x12\x02go\x18\x07\x2a\x02\x08\x01\x4a\x04leak";
    std::fs::write(dir.join("maintner-2018-06-01.mutlog"), record).expect("a file is written");
}

#[test]
fn a_log_is_imported_looked_into_served_and_followed() {
    let dirs = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dirs.path().join(name).to_str().expect("plain").to_owned();
    daily_files(Path::new(&path("days")));
    let corpus = |log: &str, args: &[&str]| {
        let out = burrow(
            dirs.path(),
            &[&["corpus", "--json", "--log", &path(log)], args].concat(),
        );
        let said = String::from_utf8(out.stdout).expect("JSON is UTF-8");
        assert!(
            out.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&out.stderr)
        );
        serde_json::from_str::<serde_json::Value>(&said).expect("JSON")
    };
    assert_eq!(corpus("log", &["import", &path("days")])["imported"], 1);
    assert_eq!(corpus("log", &["fsck"])["good"], true);
    assert_eq!(corpus("log", &["stats"])["repos"]["golang/go"]["open"], 1);
    let count = "SELECT count(*) AS n FROM issues";
    assert_eq!(corpus("log", &["sql", count])["n"], 1);
    assert_eq!(corpus("log", &["--as-of", "0:0", "sql", count])["n"], 0);
    let leak = ["query", "issues", "state=open", "title~ea", "--columns", "title"];
    assert_eq!(corpus("log", &leak)["title"], "leak");
    assert_eq!(corpus("log", &["export", "issues"])["number"], 7);

    let serve = |args: &[&str]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_burrow"))
            .args(["maintnerd", "--listen", "127.0.0.1:0", "--log"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("burrow starts");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        out.read_line(&mut line).expect("it says where");
        let url = line.trim().rsplit(' ').next().expect("a word").to_owned();
        (Farm { child }, url)
    };
    let (_leader, url) = serve(&[&path("log")]);
    let (_copy, _) = serve(&[&path("copy"), "--follow", &url]);
    until("the copy is there", || {
        dirs.path()
            .join("copy/0000.growing.mutlog")
            .exists()
            .then_some(())
    });
    until("the copy is whole", || {
        let out = burrow(
            dirs.path(),
            &[
                "corpus",
                "--json",
                "--log",
                &path("copy"),
                "issue",
                "golang/go",
                "7",
            ],
        );
        String::from_utf8_lossy(&out.stdout)
            .contains("\"title\":\"leak\"")
            .then_some(())
    });
    let out = burrow(
        dirs.path(),
        &["corpus", "--log", &path("log"), "issue", "golang/go", "8"],
    );
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&out.stderr),
        "error: the log has no issue golang/go#8\n"
    );
}
