//! A farm as a process of its own, and what its user does with it.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{until, until_within};

/// For a build to be done, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(400);

/// A farm in a folder: state in `state`, what it says in `said`. Killed when dropped.
pub struct Process {
    pub child: Child,
    dir: PathBuf,
}

impl Process {
    /// Runs burrow with `args` in the folder `at`, until its pages are up.
    pub fn start(dir: &Path, at: &Path, args: &[&str]) -> Process {
        Process::start_with(dir, at, args, &[])
    }

    /// The same with other variables in its environment.
    pub fn start_with(dir: &Path, at: &Path, args: &[&str], env: &[(&str, &str)]) -> Process {
        let mut burrow = Command::new(env!("CARGO_BIN_EXE_burrow"));
        burrow.envs(env.iter().copied());
        Process::start_by(burrow, dir, at, args)
    }

    /// The same by a command of one's own, which runs burrow with what it is given.
    pub fn start_by(burrow: Command, dir: &Path, at: &Path, args: &[&str]) -> Process {
        // Of one that was here before and did not end well.
        let _ = fs::remove_file(dir.join("state/server.json"));
        let state = dir.join("state");
        let args = [args, &["--state-dir", state.to_str().expect("a path")]].concat();
        let mut process = Process::begin(burrow, dir, at, &args);
        until("the farm is up", || {
            let ended = process.child.try_wait().expect("it can be waited for");
            assert!(ended.is_none(), "it ended: {}", process.said());
            process.state().join("server.json").exists().then_some(())
        });
        process
    }

    fn begin(mut burrow: Command, dir: &Path, at: &Path, args: &[&str]) -> Process {
        let said = File::create(dir.join("said")).expect("a file");
        let child = burrow
            .args(args)
            .current_dir(at)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env_remove("BURROW_TOKEN")
            .env_remove("BURROW_SERVER")
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a file"))
            .stderr(said)
            .spawn()
            .expect("burrow starts");
        Process {
            child,
            dir: dir.to_owned(),
        }
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("said")).unwrap_or_default()).into_owned()
    }

    /// Status and body of a page.
    pub fn get(&self, path: &str) -> (u16, Vec<u8>) {
        self.ask(&format!("GET {path}"), "")
    }

    /// Where its pages are: `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        let told = fs::read(self.state().join("server.json")).expect("it is up");
        let told: Value = serde_json::from_slice(&told).expect("JSON");
        let url = told["url"].as_str().expect("an address");
        url.trim_start_matches("http://").to_owned()
    }

    pub fn ask(&self, line: &str, fields: &str) -> (u16, Vec<u8>) {
        let host = self.address();
        let mut stream = TcpStream::connect(&host).expect("it listens");
        write!(stream, "{line} HTTP/1.0\r\nHost: {host}\r\n{fields}\r\n").expect("it reads");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("it answers");
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head");
        let status = String::from_utf8_lossy(&bytes[9..12]).parse().expect("a status");
        (status, bytes.split_off(end + 4))
    }

    pub fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}");
        serde_json::from_slice(&body).unwrap_or_else(|why| panic!("{path} is no JSON: {why}"))
    }

    pub fn builds(&self, repo: &str) -> Vec<Value> {
        let page = self.json(&format!("/builds.json?limit=200&repo={repo}"));
        page["builds"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until the one newest build of the repository is done.
    pub fn done(&self, repo: &str) -> Value {
        // A compiler may have to build its own library first.
        until_within(LIMIT, &format!("the newest build of {repo} is done"), || {
            let newest = self.builds(repo).into_iter().next()?;
            let open = ["waiting", "running"]
                .iter()
                .any(|state| newest["status"] == **state);
            (!open).then_some(newest)
        })
    }

    /// What the status page says of something, and whether it is well.
    pub fn health(&self, name: &str) -> (bool, String) {
        let page = self.json("/status.json");
        let item = page["items"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|item| item["name"] == name);
        let item = item.unwrap_or_else(|| panic!("the status page says nothing of {name}: {page}"));
        (
            item["ok"] == true,
            item["text"].as_str().unwrap_or_default().to_owned(),
        )
    }

    pub fn log(&self, build: &Value) -> Vec<u8> {
        let id = build["id"].to_string();
        let out = crate::burrow(&self.state(), &["logs", &id]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Cleanly, so that its buildlets end; one that does not listen is killed.
        let runs = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        if runs(&mut self.child) {
            let _ = Command::new("kill")
                .args(["-INT", &self.child.id().to_string()])
                .status();
        }
        let began = Instant::now();
        while runs(&mut self.child) && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What burrow says that ends by itself, and how it ends.
pub fn refused(at: &Path, args: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let burrow = Command::new(env!("CARGO_BIN_EXE_burrow"));
    let mut process = Process::begin(burrow, folder.path(), at, args);
    let limit = Duration::from_secs(40);
    let ended = until_within(limit, &format!("burrow {args:?} has ended"), || {
        process.child.try_wait().expect("it can be waited for")
    });
    (ended.code().unwrap_or(-1), process.said())
}

pub fn git(dir: &Path, args: &[&str]) -> String {
    git_with(dir, args, b"")
}

pub fn git_with(dir: &Path, args: &[&str], input: &[u8]) -> String {
    let mut child = Command::new("git")
        .args([
            "-c",
            "user.name=Ann",
            "-c",
            "user.email=ann@example.org",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git runs");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input)
        .expect("it reads");
    let out = child.wait_with_output().expect("git ends");
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A repository of these files, committed once.
pub fn repository(dir: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(dir).expect("a folder");
    git(dir, &["init", "-q"]);
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-q", "--allow-empty", "-m", "one"]);
}
