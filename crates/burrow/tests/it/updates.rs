//! A machine that stage0 keeps: it fetches the buildlet from its farm, is enrolled, and runs the next one when that is published.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::dial_in::{Ended, connected, said};
use crate::peers::{Farm, commit, git, wait_for};
use crate::{burrow, until};

const DOOR: &str = "127.77.3.3:8443";

#[test]
fn an_idle_machine_runs_the_buildlet_that_is_published() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let repo = path("widget");
    fs::create_dir(&repo).expect("a folder");
    git(&repo, &["init", "-q", "-b", "main"]);
    commit(&repo, "first", "echo built");
    let farm = Farm::start(folder.path(), &repo, DOOR, false);
    let site = path("site");
    fs::create_dir(&site).expect("a folder");
    let shown = |path: &Path| path.to_str().expect("a path").to_owned();
    let run = |args: &[&str]| {
        let out = burrow(&farm.state, args);
        assert!(out.status.success(), "{}", said(&out));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };

    let key = shown(&path("signer"));
    let public = run(&["buildlets", "new-key", &key]);
    let publish = |version: &str, serial: &str| {
        let mut program = fs::read(beside("buildlet")).expect("`cargo build -p buildlet`");
        // What follows a program changes nothing but its digest.
        program.extend_from_slice(version.as_bytes());
        let name = format!("buildlet.{}", stage0::manifest::Target::ours());
        fs::write(site.join(name), program).expect("a file");
        let site = shown(&site);
        run(&[
            "buildlets",
            "sign",
            "--key",
            &key,
            "--version",
            version,
            "--serial",
            serial,
            &site,
        ]);
        run(&["buildlets", "publish", &site])
    };
    assert!(publish("1.0.0", "1").contains("version 1.0.0, serial 1"));

    let config = shown(&path("burrow.toml"));
    let command = run(&[
        "enroll",
        "--config",
        &config,
        "new",
        "--host-type",
        "rack",
        "--name",
        "board-1",
    ]);
    let word = |flag: &str| {
        let word = command
            .split_whitespace()
            .find_map(|word| word.strip_prefix(flag));
        word.expect("it is in the command").to_owned()
    };
    let mut settings = File::create(path("stage0.conf")).expect("a file");
    write!(
        settings,
        "coordinator = {DOOR}\nfingerprint = {}\npublic-keys = {public}\nenroll = {}\nidentity = {}\nstate-dir = {}\n",
        word("-fingerprint="),
        word("-enroll="),
        path("identity").display(),
        path("stage0").display(),
    )
    .expect("written");
    let told = path("told");
    let machine = Command::new(beside("stage0"))
        .arg("--config")
        .arg(path("stage0.conf"))
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(File::create(&told).expect("a file"))
        .spawn();
    let _machine = Ended(machine.expect("`cargo build -p stage0`"));
    let told = || fs::read_to_string(&told).unwrap_or_default();
    wait_for(&farm, 1, "passed");
    assert!(told().contains("running buildlet 1.0.0"), "{}", told());

    publish("1.0.1", "2");
    until("the idle machine has the new one", || {
        (told().contains("running buildlet 1.0.1") && told().matches("registered with").count() == 2)
            .then_some(())
    });
    until("it is back", || connected(&farm).then_some(()));
    let token = run(&["token", "--config", &config, "new", "amy"]);
    run(&["retry", "1", "--token", &token]);
    until("it builds with the new one", || {
        let builds = crate::builds(&farm.state);
        (builds.first()? == &(1, "passed".to_owned(), 2)).then_some(())
    });
    assert_eq!(
        told().matches("enrolled at").count(),
        1,
        "its key is the same: {}",
        told()
    );

    // At work it is left alone: it has the third one only after the build.
    let (begun, go_on) = (path("begun"), path("go on"));
    let wait = format!(
        "touch '{}'; until test -e '{}'; do sleep 0.1; done",
        begun.display(),
        go_on.display()
    );
    commit(&repo, "long", &wait);
    until("the step runs", || begun.exists().then_some(()));
    publish("1.0.2", "3");
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert!(!told().contains("running buildlet 1.0.2"), "{}", told());
    fs::write(&go_on, "").expect("a file");
    wait_for(&farm, 2, "passed");
    until("it has the third", || {
        told().contains("running buildlet 1.0.2").then_some(())
    });
    assert_eq!(
        crate::builds(&farm.state)
            .iter()
            .find(|(id, _, _)| *id == 2)
            .expect("there")
            .2,
        1
    );
}

/// A program of this workspace.
fn beside(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_burrow")).with_file_name(name);
    assert!(path.exists(), "build it first: cargo build -p {name}");
    path
}
