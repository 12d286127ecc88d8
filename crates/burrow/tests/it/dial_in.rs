//! Machines of ours that dial in: a key is given out, opens, survives a kill of the farm, and is taken back.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output};

use crate::peers::{Farm, commit, git, log_of, wait_for};
use crate::{burrow, until};

const DOOR: &str = "127.77.3.1:8443";

#[test]
fn a_machine_dials_in_builds_over_a_kill_of_the_farm_and_leaves_when_its_key_is_revoked() {
    let folder = tempfile::tempdir().expect("a folder");
    let repo = folder.path().join("widget");
    fs::create_dir(&repo).expect("a folder");
    git(&repo, &["init", "-q", "-b", "main"]);
    let (begun, go_on) = (folder.path().join("begun"), folder.path().join("go on"));
    // It says once that it has begun, waits for the test, and counts on.
    let script = format!(
        "echo begun >> '{}'; seq 1000; until test -e '{}'; do sleep 0.1; done; seq 1001 2000",
        begun.display(),
        go_on.display()
    );
    commit(&repo, "long", &script);
    let config = || Farm::start(folder.path(), &repo, DOOR, false);
    let farm = config();

    let made = key(&farm.state, folder.path());
    let fingerprint = said(&made)
        .split("-fingerprint=")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .expect("what to call the buildlet with")
        .to_owned();
    let secret = String::from_utf8_lossy(&made.stdout).trim().to_owned();

    // Who shows no key, a wrong one, or one for another host type is told so and gives up.
    for (shown, host_type, wanted) in [
        (None, "rack", "cannot read the key"),
        (Some("wrong"), "rack", "invalid build key"),
        (Some(secret.as_str()), "other", "invalid build key"),
    ] {
        let out = buildlet(folder.path(), shown, host_type, &fingerprint)
            .output()
            .expect("a buildlet starts");
        assert_eq!(out.status.code(), Some(78), "{}", said(&out));
        assert!(said(&out).contains(wanted), "{}", said(&out));
        assert!(!said(&out).contains(&secret));
    }
    // The farm must be the one that it is meant to be: both fingerprints are told, and it is not asked again.
    let other = "0f".repeat(32);
    let stranger = buildlet(folder.path(), Some(&secret), "rack", &other)
        .arg("-orphan-timeout=30s")
        .output()
        .expect("a buildlet starts");
    let told = said(&stranger);
    assert_eq!(stranger.status.code(), Some(78), "{told}");
    assert!(told.contains(&fingerprint) && told.contains(&other), "{told}");
    assert!(
        !told.contains("unexpected error") && !told.contains("trying again"),
        "{told}"
    );

    let machine = buildlet(folder.path(), Some(&secret), "rack", &fingerprint).spawn();
    let mut machine = Ended(machine.expect("a buildlet starts"));
    until("the step runs", || begun.exists().then_some(()));
    drop(farm);
    let farm = config();
    until("the machine is back", || connected(&farm).then_some(()));
    fs::write(&go_on, "").expect("a file");
    wait_for(&farm, 1, "passed");
    let numbers: String = (1..=2000).map(|n| format!("{n}\n")).collect();
    assert_eq!(log_of(&farm, 1), numbers, "no line lost or doubled");
    assert_eq!(fs::read_to_string(&begun).expect("a file"), "begun\n", "run once");

    let revoked = burrow(&farm.state, &["key", "revoke", "1"]);
    assert!(revoked.status.success(), "{}", said(&revoked));
    let ended = until("the machine has left", || {
        machine.0.try_wait().expect("it can be waited for")
    });
    assert_eq!(ended.code(), Some(78));
    let page = burrow(&farm.state, &["status", "--json"]);
    assert!(!connected(&farm), "{}", said(&page));
}

/// Its host crashed, say, and a service manager started the buildlet anew: what ran there is gone, and the build does not
/// wait for it.
#[test]
fn a_buildlet_that_was_started_anew_frees_the_build_of_the_old_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let repo = folder.path().join("widget");
    fs::create_dir(&repo).expect("a folder");
    git(&repo, &["init", "-q", "-b", "main"]);
    let (begun, go_on) = (folder.path().join("begun"), folder.path().join("go on"));
    let script = format!(
        "touch '{}'; until test -e '{}'; do sleep 0.1; done",
        begun.display(),
        go_on.display()
    );
    commit(&repo, "long", &script);
    let door = "127.77.3.2:8443";
    let farm = Farm::start(folder.path(), &repo, door, false);
    let made = key(&farm.state, folder.path());
    let said = said(&made);
    let fingerprint = said.split("-fingerprint=").nth(1).expect("what to call it with");
    let fingerprint = fingerprint.split_whitespace().next().expect("a word");
    let secret = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    let start = || {
        let mut command = buildlet(folder.path(), Some(&secret), "rack", fingerprint);
        // The later one holds.
        command.arg(format!("-coordinator={door}"));
        Ended(command.spawn().expect("a buildlet starts"))
    };
    let first = start();
    until("the step runs", || begun.exists().then_some(()));
    drop(first);
    let page = || {
        let page = get(&farm.state, "/build/1.json").unwrap_or_default();
        let body = page.split_once("\r\n\r\n")?.1.to_owned();
        serde_json::from_str::<serde_json::Value>(&body).ok()
    };
    until("the page says that it is out of reach", || {
        page()?["away"]["why"].is_string().then_some(())
    });
    let began = std::time::Instant::now();
    let _second = start();
    let why = until("the attempt has ended", || {
        let attempt = page()?["attempts"][0].clone();
        attempt["ended"].is_i64().then(|| attempt["reason"].to_string())
    });
    assert!(why.contains("another process of it came as board-1."), "{why}");
    assert!(began.elapsed().as_secs() < 60, "it did not wait for the old one");
    // What the killed one left behind ends, too.
    fs::write(&go_on, "").expect("a file");
}

fn key(state: &Path, folder: &Path) -> Output {
    let config = folder.join("burrow.toml");
    let config = config.to_str().expect("a path");
    let made = burrow(
        state,
        &["key", "--config", config, "new", "board-1", "--host-type", "rack"],
    );
    assert!(made.status.success(), "{}", said(&made));
    made
}

fn buildlet(folder: &Path, key: Option<&str>, host_type: &str, fingerprint: &str) -> Command {
    let file = folder.join(format!("key {}", key.unwrap_or("none")));
    if let Some(key) = key {
        fs::write(&file, key).expect("a file");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_burrow"));
    command
        .arg("buildlet")
        .arg(format!("-coordinator={DOOR}"))
        .arg(format!("-reverse-type={host_type}"))
        .arg(format!("-fingerprint={fingerprint}"))
        .arg("-hostname=board-1")
        .env("GO_BUILD_KEY_PATH", file)
        .env("TMPDIR", folder);
    command
}

/// Whether the page of machines has one that is connected.
pub fn connected(farm: &Farm) -> bool {
    let page = get(&farm.state, "/machines.json").unwrap_or_default();
    page.contains("\"connected\":true")
}

pub fn get(state: &Path, path: &str) -> Option<String> {
    let file = fs::read(state.join("server.json")).ok()?;
    let file: serde_json::Value = serde_json::from_slice(&file).ok()?;
    let address = file["url"]
        .as_str()?
        .strip_prefix("http://")?
        .trim_end_matches('/')
        .to_owned();
    let mut stream = TcpStream::connect(&address).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

pub fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// A process that does not outlive its test.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
