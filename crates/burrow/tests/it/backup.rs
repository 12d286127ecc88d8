//! A farm is backed up while it runs, made anew from the file, and moved to PostgreSQL.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::chaos::{Farm, Postgres};
use crate::{builds, burrow, until};

fn words(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// `(build, attempts)` of those that have passed.
fn passed(state: &Path) -> Vec<(u64, u64)> {
    let all = builds(state).into_iter();
    let mut passed: Vec<_> = all
        .filter(|(_, status, _)| status == "passed")
        .map(|(id, _, n)| (id, n))
        .collect();
    passed.sort_unstable();
    passed
}

fn log(state: &Path, build: u64) -> Vec<u8> {
    let out = burrow(state, &["logs", &build.to_string()]);
    assert!(out.status.success(), "{}", words(&out));
    out.stdout
}

#[test]
fn a_farm_is_made_anew_from_a_backup_that_was_taken_while_it_ran() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut farm = Farm::of_commits(folder.path(), 4, None);
    until("two have passed", || {
        (passed(&farm.state).len() >= 2).then_some(())
    });
    let before = passed(&farm.state);
    let logs: Vec<Vec<u8>> = before.iter().map(|(build, _)| log(&farm.state, *build)).collect();
    let file = folder.path().join("farm.tgz");
    let name = file.to_str().expect("a path");
    let out = farm.burrow(&["backup", name]);
    assert!(out.status.success(), "{}", words(&out));
    assert!(words(&farm.burrow(&["backup", name])).contains("is there already"));
    assert!(words(&farm.burrow(&["restore", name])).contains("is not empty"));
    farm.end();

    // A backup with one bit turned, or with its end missing, is none.
    let (good, other) = (fs::read(&file).expect("a file"), folder.path().join("other"));
    let mut turned = good.clone();
    turned[good.len() / 2] ^= 1;
    for bad in [turned, good[..good.len() - 40].to_vec()] {
        fs::write(&file, bad).expect("a file");
        let out = farm.burrow_in(&other, &["restore", name]);
        assert!(words(&out).contains("is no whole backup"), "{}", words(&out));
        assert!(!other.exists(), "nothing is left of it");
    }
    fs::write(&file, good).expect("a file");
    let out = farm.burrow_in(&other, &["restore", name]);
    assert!(out.status.success(), "{}", words(&out));

    farm.restart_in(&other);
    until("the rest is built", || (passed(&other).len() == 8).then_some(()));
    let after = passed(&other);
    assert!(
        before.iter().all(|build| after.contains(build)),
        "nothing is run again: {before:?} {after:?}"
    );
    for ((build, _), kept) in before.iter().zip(logs) {
        assert_eq!(log(&other, *build), kept);
    }
    farm.end();
}

#[test]
fn a_farm_is_moved_to_postgresql_by_one_command() {
    let (folder, data) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let Some(database) = Postgres::make(data.path()) else {
        return;
    };
    let mut farm = Farm::of_commits(folder.path(), 1, None);
    until("all have passed", || {
        (passed(&farm.state).len() == 2).then_some(())
    });
    let before = passed(&farm.state);
    let url = database.url();
    let refused = farm.burrow(&["move-store", "--to", &url]);
    assert!(words(&refused).contains("is in use"), "{}", words(&refused));
    farm.end();
    let moved = farm.burrow(&["move-store", "--to", &url]);
    assert!(moved.status.success(), "{}", words(&moved));
    let again = farm.burrow(&["move-store", "--to", &url]);
    assert!(words(&again).contains("is not empty"), "{}", words(&again));

    let text = fs::read_to_string(&farm.config).expect("a file");
    fs::write(
        &farm.config,
        text.replace("store = \"embedded\"", &format!("store = \"{url}\"")),
    )
    .expect("a file");
    let state = farm.state.clone();
    farm.restart_in(&state);
    assert_eq!(passed(&state), before);
    assert!(!log(&state, before[0].0).is_empty());
    farm.end();
}
