use std::fs;
use std::process::Command;

use super::counterparts::{has_program, output, recipe, there_is};

/// As `systemd-analyze security` counts, in tenths: 27 of the 100 of a unit without any hardening.
const EXPOSURE_MAX: &str = "30";

#[test]
fn systemd_takes_the_unit_without_a_word_and_finds_it_confined() {
    if !there_is("systemd-analyze", "systemd", has_program("systemd-analyze")) {
        return;
    }
    let unit = fs::read_to_string(recipe("systemd/burrow-buildlet.service")).expect("it is there");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("burrow-buildlet.service");
    // The program has to be there to be found fine.
    fs::write(
        &path,
        unit.replace("/usr/local/bin/stage0", env!("CARGO_BIN_EXE_stage0")),
    )
    .expect("written");
    let out = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&path)
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && told.is_empty(), "{told}");
    let mut security = Command::new("systemd-analyze");
    security.args([
        "security",
        "--offline=true",
        "--no-pager",
        "--threshold",
        EXPOSURE_MAX,
    ]);
    output(security.arg(&path));
}

#[test]
fn launchd_finds_a_property_list_that_starts_stage0() {
    if !there_is(
        "python3, which reads property lists",
        "python3",
        has_program("python3"),
    ) {
        return;
    }
    let read = "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
    let json = output(
        Command::new("python3")
            .args(["-c", read])
            .arg(recipe("launchd/dev.burrow.buildlet.plist")),
    );
    let job: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(job["Label"], "dev.burrow.buildlet");
    assert_eq!(job["ProgramArguments"][0], "/usr/local/bin/stage0");
    assert_eq!(
        (&job["RunAtLoad"], &job["KeepAlive"]),
        (&true.into(), &true.into())
    );
}

#[test]
fn shells_can_read_the_scripts() {
    for script in ["freebsd/burrow_buildlet", "qemu/init"] {
        output(Command::new("sh").arg("-n").arg(recipe(script)));
    }
}
