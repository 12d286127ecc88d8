//! Golang/build's own log server, on an emulator of its object store: our client follows it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use maintnerd::{Copy, Outcome, Replay};
use mutlog::LogReader;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::farm::{PATIENCE, copy_of, update};
use crate::original::program;

/// The emulator of the object store, of Python's package index. Installed on first use, into the user's
/// cache folder. `None`, said aloud, where it cannot be had.
fn emulator() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let dir = cache.or_else(home)?.join("burrow-test/gcp-storage-emulator");
    let emulator = dir.join("bin/gcp-storage-emulator");
    if emulator.exists() {
        return Some(emulator);
    }
    let run = |program: &Path, args: &[&str]| {
        let done = Command::new(program).args(args).stdin(Stdio::null()).output();
        done.is_ok_and(|done| done.status.success())
    };
    let path = dir.to_str()?;
    let pip = dir.join("bin/pip");
    let there = run(Path::new("python3"), &["-m", "venv", path])
        && run(&pip, &["install", "-q", "gcp-storage-emulator"])
        && emulator.exists();
    if there {
        return Some(emulator);
    }
    let required = std::env::var("BURROW_TEST_REQUIRE").as_deref() == Ok("1");
    assert!(
        !required,
        "the emulator of the object store cannot be installed: wanted python3 with venv"
    );
    eprintln!("SKIPPED: the emulator of the object store cannot be installed");
    None
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// Go's log server as a process. Killed when dropped.
struct Server {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Server {
    async fn start(program: &Path, store: &str, address: &str) -> Server {
        let mut child = tokio::process::Command::new(program)
            .args(["mlog", address, store])
            .env("STORAGE_EMULATOR_HOST", store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut server = Server {
            _child: child,
            input,
            output,
        };
        server.hear().await;
        server
    }

    async fn hear(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await;
        line.expect("it answers").unwrap().expect("it lives")
    }

    async fn issue(&mut self, number: i32, size: usize) {
        self.say(&format!("issue {number} {size}")).await;
    }

    async fn say(&mut self, line: &str) {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
        assert_eq!(self.hear().await, "ok");
    }
}

/// The highest issue of what was copied, and how many segments that is.
fn issues(copy: &Copy) -> (usize, usize) {
    let log = copy.segments();
    let reader: LogReader = copy.reader();
    let mut replay = Replay::default();
    replay.advance(&reader, &log).unwrap();
    let repo = replay.corpus().repo("golang", "go");
    (repo.map_or(0, |repo| repo.issues().count()), log.len())
}

async fn until(copy: &mut Copy, expect: (usize, usize)) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    while issues(copy) != expect {
        outcomes.push(update(copy).await);
        assert!(
            outcomes.len() < 20,
            "{:?} is not {expect:?}: {outcomes:?}",
            issues(copy)
        );
    }
    outcomes
}

#[tokio::test]
async fn our_client_follows_the_originals_log_server_through_growth_a_new_segment_and_a_restart() {
    let (Some(program), Some(emulator)) = (program("gcslog"), emulator()) else {
        return;
    };
    let dirs = tempfile::tempdir().unwrap();
    let (bucket, port) = (dirs.path().join("store"), free_port().await);
    fs::create_dir(&bucket).unwrap();
    let _store = tokio::process::Command::new(emulator)
        .args(["-d", bucket.to_str().unwrap(), "start", "--host", "127.0.0.1"])
        .args(["--port", &port.to_string(), "--default-bucket", "mlog"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let up = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, up).await.expect("the store is up");
    let store = format!("http://127.0.0.1:{port}");
    let address = format!("127.0.0.1:{}", free_port().await);
    let mut server = Server::start(&program, &store, &address).await;
    let url = format!("http://{address}/logs").parse().unwrap();
    let mut copy = copy_of(&url, &dirs.path().join("copy"));

    server.issue(1, 10).await;
    until(&mut copy, (1, 1)).await;
    server.issue(2, 9_000_000).await;
    until(&mut copy, (2, 1)).await;
    // Over the length of a segment: the first is put into the store, whole.
    server.issue(3, 9_000_000).await;
    until(&mut copy, (3, 2)).await;
    // What is new begins in a segment, and ends in the one after the next.
    server.issue(4, 9_000_000).await;
    server.issue(5, 10).await;
    let outcomes = until(&mut copy, (5, 3)).await;
    assert!(!outcomes.contains(&Outcome::Split), "{outcomes:?}");

    // A server that ended in order goes on with the same log.
    server.say("flush").await;
    drop(server);
    let mut server = Server::start(&program, &store, &address).await;
    server.issue(6, 10).await;
    let outcomes = until(&mut copy, (6, 3)).await;
    assert!(!outcomes.contains(&Outcome::Split), "{outcomes:?}");

    // One that died has lost what was not in the store, though we were told of it: a split.
    server.issue(7, 10).await;
    until(&mut copy, (7, 3)).await;
    drop(server);
    let mut server = Server::start(&program, &store, &address).await;
    server.issue(17, 100).await;
    let outcomes = until(&mut copy, (6, 3)).await;
    assert!(outcomes.contains(&Outcome::Split), "{outcomes:?}");
    server.issue(8, 10).await;
    until(&mut copy, (7, 3)).await;
}
