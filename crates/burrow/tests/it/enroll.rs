//! Machines with keys of their own, from the operator's first command to the last.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::dial_in::{Ended, connected, said};
use crate::peers::{Farm, commit, git, wait_for};
use crate::{burrow, until};

const DOOR: &str = "127.77.3.2:8443";

#[test]
fn a_machine_is_enrolled_once_builds_comes_back_and_is_revoked() {
    let folder = tempfile::tempdir().expect("a folder");
    let repo = folder.path().join("widget");
    fs::create_dir(&repo).expect("a folder");
    git(&repo, &["init", "-q", "-b", "main"]);
    commit(&repo, "first", "echo built");
    let farm = Farm::start(folder.path(), &repo, DOOR, false);

    let made = enroll(
        &farm,
        folder.path(),
        &["new", "--host-type", "rack", "--name", "board-1"],
    );
    let command = String::from_utf8_lossy(&made.stdout).trim().to_owned();
    assert_eq!(command.lines().count(), 1, "one command: {command}");
    let word = |flag: &str| {
        let word = command
            .split_whitespace()
            .find_map(|word| word.strip_prefix(flag));
        word.unwrap_or_else(|| panic!("{flag} in {command}")).to_owned()
    };
    let token = word("-enroll=");
    assert!(
        word("-coordinator=").ends_with(":8443") && command.starts_with("buildlet "),
        "{command}"
    );
    let machine = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_burrow"));
        command
            .args(["buildlet", "-hostname=other"])
            .arg(format!("-coordinator={DOOR}"))
            .arg(format!("-fingerprint={}", word("-fingerprint=")))
            .arg(format!("-enroll={token}"))
            .arg(format!("-identity={}", folder.path().join(name).display()))
            .env("TMPDIR", folder.path());
        command
    };
    let start = || Ended(machine("own").spawn().expect("a buildlet starts"));
    let first = start();
    wait_for(&farm, 1, "passed");
    let page = machines(&farm);
    assert!(page.contains("\"board-1.") && page.contains("\"rack\""), "{page}");
    let kept = fs::read_to_string(folder.path().join("own")).expect("its key");
    assert!(
        kept.contains("\nname board-1\nhost-type rack\n") && !kept.contains(&token),
        "{kept}"
    );

    // Another machine cannot use the token; it is told so and does not try again.
    let other = machine("other's").output().expect("a buildlet starts");
    assert_eq!(other.status.code(), Some(78), "{}", said(&other));
    assert!(
        said(&other).contains("by board-1; each is for one machine"),
        "{}",
        said(&other)
    );
    assert!(!said(&other).contains(&token));

    // It comes back by its key alone.
    drop(first);
    until("the farm has noticed", || (!connected(&farm)).then_some(()));
    let mut second = start();
    until("it is back", || connected(&farm).then_some(()));

    let listed = enroll(&farm, folder.path(), &["list"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("board-1") && listed.contains("good"), "{listed}");
    enroll(&farm, folder.path(), &["revoke", "board-1"]);
    let ended = until("it has left", || {
        second.0.try_wait().expect("it can be waited for")
    });
    assert_eq!(ended.code(), Some(78), "refused when it came again");
    assert!(!connected(&farm));
    let listed = enroll(&farm, folder.path(), &["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert!(listed["machines"][0]["revoked"].is_string(), "{listed}");
    let again = burrow(&farm.state, &["enroll", "revoke", "board-1"]);
    assert!(
        said(&again).contains("no machine `board-1` is enrolled"),
        "{}",
        said(&again)
    );

    // A new token is taken by the machine that was revoked, with a new key.
    let made = enroll(&farm, folder.path(), &["new", "--host-type", "rack", "--json"]);
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let token = made["token"].as_str().expect("a token");
    let _third = Ended(
        machine("own")
            .arg(format!("-enroll={token}"))
            .spawn()
            .expect("a buildlet starts"),
    );
    until("it is enrolled anew", || connected(&farm).then_some(()));
    assert!(machines(&farm).contains("\"other."), "{}", machines(&farm));

    // A token that was not used is taken back.
    let made = enroll(&farm, folder.path(), &["new", "--host-type", "rack", "--json"]);
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).expect("JSON");
    enroll(
        &farm,
        folder.path(),
        &["revoke", "token", &made["id"].to_string()],
    );
    let token = made["token"].as_str().expect("a token");
    let late = machine("late").arg(format!("-enroll={token}")).output();
    let late = late.expect("a buildlet starts");
    assert!(
        said(&late).contains("this token was taken back at"),
        "{}",
        said(&late)
    );
}

fn enroll(farm: &Farm, folder: &Path, args: &[&str]) -> Output {
    let config = folder.join("burrow.toml");
    let config = config.to_str().expect("a path");
    let out = burrow(&farm.state, &[&["enroll", "--config", config], args].concat());
    assert!(out.status.success(), "{}", said(&out));
    out
}

fn machines(farm: &Farm) -> String {
    crate::dial_in::get(&farm.state, "/machines.json").unwrap_or_default()
}
