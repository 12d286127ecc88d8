//! Go's own buildlets dial in to our coordinator and build commits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use testkit::peer::{Era, go_program};

use crate::{burrow, until};

/// Printed by the step and looked for in the log, byte for byte: more than a pipe holds.
const LINES: usize = 5_000;

#[test]
fn gos_buildlet_of_2021_builds_our_commits() {
    builds_commits(Era::Mature, "127.77.21.1:443");
}

#[test]
fn gos_buildlet_of_today_builds_our_commits() {
    builds_commits(Era::Latest, "127.77.26.1:443");
}

/// `door` is an address of its own: Go sends any port but 443 as part of the TLS server name, which is against the protocol and refused.
fn builds_commits(era: Era, door: &str) {
    let Some(program) = go_program("buildlet", era) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let repo = folder.path().join("widget");
    fs::create_dir(&repo).expect("a folder");
    git(&repo, &["init", "-q", "-b", "main"]);
    commit(&repo, "good", &format!("seq {LINES}; echo \"by $WHO in $PWD\""));
    let farm = Farm::start(folder.path(), &repo, door, true);
    let _machine = Supervised::start(&program, folder.path(), door);

    let good = wait_for(&farm, 1, "passed");
    let log = log_of(&farm, good);
    let numbers: String = (1..=LINES).map(|n| format!("{n}\n")).collect();
    assert!(
        log.starts_with(&numbers),
        "every line, once, in order: {log:.200}"
    );
    assert!(
        log.contains("by go in ") && log.trim_end().ends_with("src"),
        "{log}"
    );

    // The machine registers anew for each build; a failing command is the author's matter, said as Go says it.
    commit(&repo, "bad", "echo broken >&2; exit 3");
    let bad = wait_for(&farm, 2, "failed");
    assert!(log_of(&farm, bad).contains("broken"));
    let page = burrow(&farm.state, &["builds", "--json"]);
    assert!(!String::from_utf8_lossy(&page.stdout).contains("infra"));

    // A running one is stopped with its command (Go kills the one process that it started), and the machine is there
    // for the next.
    let mark = folder.path().join("started");
    commit(
        &repo,
        "long",
        &format!(
            "touch {}; exec sleep 10000.{}",
            mark.display(),
            std::process::id()
        ),
    );
    until("the long step runs", || mark.exists().then_some(()));
    let made = burrow(
        &farm.state,
        &["token", "new", "tester", "--role", "contributor", "--json"],
    );
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let token = made["token"].as_str().expect("the token, this once");
    let cancelled = burrow(&farm.state, &["cancel", "3", "--token", token]);
    assert!(
        cancelled.status.success(),
        "{}",
        String::from_utf8_lossy(&cancelled.stderr)
    );
    wait_for(&farm, 3, "cancelled");
    let sleeper = format!("10000.{}", std::process::id());
    until("its command has ended", || (!runs(&sleeper)).then_some(()));
    commit(&repo, "good again", "true");
    wait_for(&farm, 4, "passed");
}

/// A farm of one builder on machines that dial in at `door`.
pub struct Farm {
    pub child: Child,
    pub state: PathBuf,
}

impl Farm {
    pub fn start(folder: &Path, repo: &Path, door: &str, development_keys: bool) -> Farm {
        let text = format!(
            r#"
[farm]
listen = "127.0.0.1:0"
listen_https = "{door}"
[repo.widget]
url = "{}"
poll = "1s"
[host.rack]
pool = "reverse"
expect = 1
accept_development_keys = {development_keys}
[builder.linux-go]
host = "rack"
env = ["WHO=go"]
[recipe.widget]
steps = [{{ name = "script", run = ["sh", "step.sh"] }}]
"#,
            repo.display()
        );
        Farm::serve(folder, &text)
    }

    /// A farm with this configuration, in `burrow.toml` of the folder.
    pub fn serve(folder: &Path, text: &str) -> Farm {
        let config = folder.join("burrow.toml");
        fs::write(&config, text).expect("a file");
        let state = folder.join("state");
        // Of a farm that was killed.
        let _ = fs::remove_file(state.join("server.json"));
        let child = Command::new(env!("CARGO_BIN_EXE_burrow"))
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .arg("--state-dir")
            .arg(&state)
            .stdout(Stdio::null())
            .spawn()
            .expect("burrow starts");
        let farm = Farm { child, state };
        until("the farm is up", || {
            farm.state.join("server.json").exists().then_some(())
        });
        farm
    }
}

impl Farm {
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// A clean end, which takes local buildlets along.
    pub fn end(mut self) {
        self.signal("-INT");
        assert!(self.child.wait().expect("it can be waited for").success());
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A buildlet and what starts it again when it ends, as a service manager would.
pub struct Supervised(Child);

impl Supervised {
    pub fn start(program: &Path, folder: &Path, door: &str) -> Supervised {
        let workdir = folder.join("work");
        fs::create_dir(&workdir).expect("a folder");
        // A shell of its own process group: ended together with whatever it has started.
        let line = "while :; do \"$0\" \"$@\"; sleep 0.2; done";
        let mut command = Command::new("sh");
        command.args(["-c", line]).arg(program).args([
            "-reverse-type=rack",
            "-hostname=gopher",
            "-halt=false",
            "-health-addr=127.0.0.1:0",
            &format!("-coordinator={door}"),
            &format!("-workdir={}", workdir.display()),
        ]);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let log = fs::File::create(folder.join("buildlet.log")).expect("a file");
        Supervised(command.stderr(log).spawn().expect("a shell starts"))
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        // Gone already is as good.
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.0.wait();
    }
}

pub fn wait_for(farm: &Farm, build: u64, wanted: &str) -> u64 {
    until(&format!("build {build} has {wanted}"), || {
        let out = burrow(&farm.state, &["builds", "--json"]);
        let page: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
        let found = page["builds"].as_array()?.iter().find(|row| row["id"] == build)?;
        let state = found["status"].as_str()?;
        let open = ["waiting", "running"].contains(&state);
        assert!(open || state == wanted, "build {build} has {state}: {found}");
        (!open).then_some(build)
    })
}

pub fn log_of(farm: &Farm, build: u64) -> String {
    let out = burrow(&farm.state, &["logs", &build.to_string()]);
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub fn commit(repo: &Path, title: &str, script: &str) {
    fs::write(repo.join("step.sh"), format!("{script}\n")).expect("a file");
    git(repo, &["add", "."]);
    git(repo, &["commit", "-q", "-m", title]);
}

pub fn git(repo: &Path, args: &[&str]) {
    let done = Command::new("git")
        .arg("-C")
        .arg(repo)
        .args(["-c", "user.name=A", "-c", "user.email=a@example.org"])
        .args(args)
        .status()
        .expect("git runs");
    assert!(done.success(), "git {args:?}");
}

/// Whether a process with this in its command line runs.
pub fn runs(text: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    let mut lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| line.windows(text.len()).any(|part| part == text.as_bytes()))
}
