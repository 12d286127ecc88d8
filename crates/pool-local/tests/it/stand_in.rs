use std::path::PathBuf;
use std::time::{Duration, Instant};

use buildlet_api::PoolEvent;
use tokio::time::timeout;

use crate::farm::{Farm, lives, until};

/// The example of this crate, which `cargo test` builds beside the tests.
fn stand_in() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let binary = tests
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/stand_in");
    assert!(
        binary.exists(),
        "{} is missing; `cargo test` without `--test` builds it",
        binary.display()
    );
    binary
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn each_slot_gets_a_buildlet_and_a_shutdown_ends_them() {
    let folder = folder();
    let mut farm = Farm::start(folder.path(), &stand_in(), 2, &[]);
    let mut names = Vec::new();
    for _ in 0..2 {
        let up = farm.up().await;
        assert!(!up.resumable, "a stand-in has no feature");
        names.push(up.name);
    }
    names.sort();
    assert_eq!(names, ["linux-std-1", "linux-std-2"]);
    let pids = [farm.pid(1), farm.pid(2)];
    farm.shut_down().await;
    assert!(!pids.into_iter().any(lives));
}

#[tokio::test]
async fn slots_come_and_go_while_the_others_stay() {
    let folder = folder();
    let mut farm = Farm::start(folder.path(), &stand_in(), 1, &[]);
    assert_eq!(farm.up().await.name, "linux-std-1");
    let first = farm.pid(1);
    farm.slots.send_replace(2);
    assert_eq!(farm.up().await.name, "linux-std-2");
    let second = farm.pid(2);
    farm.slots.send_replace(1);
    match farm.event().await {
        PoolEvent::Down { machine, .. } => assert_eq!(machine.as_str(), "linux-std-2"),
        other => panic!("{other:?}"),
    }
    until("the second has ended", || !lives(second)).await;
    // Back at once, after its predecessor has gone.
    farm.slots.send_replace(2);
    assert_eq!(farm.up().await.name, "linux-std-2");
    assert!(lives(first) && lives(farm.pid(2)));
    farm.shut_down().await;
}

#[tokio::test]
async fn a_crashed_buildlet_is_started_anew_in_a_clean_folder() {
    let folder = folder();
    let mut farm = Farm::start(folder.path(), &stand_in(), 1, &[]);
    let first = farm.up().await;
    let litter = folder.path().join("1/work/litter");
    std::fs::write(&litter, "x").unwrap();
    farm.kill(1);
    match farm.event().await {
        PoolEvent::Down {
            machine,
            why,
            may_return,
            generation,
        } => {
            assert_eq!(
                (machine.as_str(), may_return, generation),
                ("linux-std-1", false, first.generation)
            );
            assert!(why.contains("signal: 9"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    let second = farm.up().await;
    assert!(second.generation > first.generation);
    assert_ne!(second.status.instance, first.status.instance);
    assert!(!litter.exists());
    farm.shut_down().await;
}

#[tokio::test]
async fn a_new_coordinator_adopts_what_a_killed_one_left() {
    let folder = folder();
    let mut farm = Farm::start(folder.path(), &stand_in(), 1, &[]);
    let first = farm.up().await;
    let pid = farm.pid(1);
    farm.vanish().await;
    assert!(lives(pid));

    let mut farm = Farm::start(folder.path(), &stand_in(), 1, &[]);
    let second = farm.up().await;
    assert_eq!(
        (&second.name, &second.status.instance),
        (&first.name, &first.status.instance)
    );
    assert_eq!(farm.pid(1), pid);
    // The end of an adopted one is noticed too.
    farm.kill(1);
    assert!(matches!(farm.event().await, PoolEvent::Down { .. }));
    assert_ne!(farm.up().await.status.instance, first.status.instance);
    farm.shut_down().await;
}

#[tokio::test]
async fn a_hand_over_leaves_buildlets_and_a_shutdown_ends_adopted_ones() {
    let folder = folder();
    let mut farm = Farm::start(folder.path(), &stand_in(), 1, &[]);
    farm.up().await;
    let pid = farm.pid(1);
    farm.stop.hand_over();
    timeout(Duration::from_secs(30), &mut farm.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(lives(pid));
    let mut farm = Farm::start(folder.path(), &stand_in(), 1, &[]);
    farm.up().await;
    farm.shut_down().await;
    assert!(!lives(pid));
}

#[tokio::test]
async fn a_buildlet_that_is_not_the_reports_is_killed_and_replaced() {
    let folder = folder();
    let mut farm = Farm::start(folder.path(), &stand_in(), 1, &[]);
    let first = farm.up().await;
    let pid = farm.pid(1);
    farm.vanish().await;
    let report = folder.path().join("1/report.json");
    let text = std::fs::read_to_string(&report).unwrap();
    std::fs::write(&report, text.replace(&first.status.instance.unwrap(), "another")).unwrap();

    let mut farm = Farm::start(folder.path(), &stand_in(), 1, &[]);
    farm.up().await;
    assert_ne!(farm.pid(1), pid);
    until("the stray buildlet is killed", || !lives(pid)).await;
    farm.shut_down().await;
}

#[tokio::test]
async fn a_report_that_is_torn_or_points_elsewhere_is_not_followed() {
    for report in ["{", "", r#"{"address":"192.0.2.1:80","pid":1,"instance":"x"}"#] {
        let folder = folder();
        std::fs::create_dir(folder.path().join("1")).unwrap();
        std::fs::write(folder.path().join("1/report.json"), report).unwrap();
        std::fs::write(folder.path().join("1/password"), "x").unwrap();
        let began = Instant::now();
        let mut farm = Farm::start(folder.path(), &stand_in(), 1, &[]);
        farm.up().await;
        assert!(began.elapsed() < Duration::from_secs(15), "{report}");
        farm.shut_down().await;
    }
}

#[tokio::test]
async fn a_buildlet_that_does_not_come_up_is_tried_again_and_a_shutdown_does_not_wait() {
    let folder = folder();
    let farm = Farm::start(folder.path(), &stand_in(), 1, &[("STAND_IN", "refuse")]);
    let log = folder.path().join("1/log");
    let starts = || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .matches("cannot open the moon")
            .count()
    };
    until("it is started a second time", || starts() >= 2).await;
    let began = Instant::now();
    farm.shut_down().await;
    assert!(began.elapsed() < Duration::from_secs(10));

    let farm = Farm::start(folder.path(), &stand_in(), 1, &[("STAND_IN", "mute")]);
    until("it is running", || folder.path().join("1/password").exists()).await;
    farm.shut_down().await;
}

#[tokio::test]
async fn a_program_that_is_missing_stops_nobody() {
    let folder = folder();
    let farm = Farm::start(folder.path(), &folder.path().join("none"), 1, &[]);
    until("its folder is made", || folder.path().join("1/password").exists()).await;
    farm.shut_down().await;
}

#[tokio::test]
async fn the_coordinators_environment_stays_its_own() {
    let folder = folder();
    // Cargo's variables are in this process; of ours, only what is asked for gets through.
    let mut farm = Farm::start(folder.path(), &stand_in(), 1, &[("BURROW_SECRET", "+given")]);
    assert_eq!(farm.up().await.status.burrow.as_deref(), Some("stand-in+given"));
    let environ = std::fs::read(format!("/proc/{}/environ", farm.pid(1).as_raw_nonzero())).unwrap();
    let environ = String::from_utf8_lossy(&environ);
    assert!(
        std::env::var_os("CARGO_MANIFEST_DIR").is_some() && !environ.contains("CARGO"),
        "{environ}"
    );
    farm.shut_down().await;
}

#[tokio::test]
async fn two_pools_cannot_share_a_folder() {
    let folder = folder();
    let mut farm = Farm::start(folder.path(), &stand_in(), 1, &[]);
    farm.up().await;
    let mut second = Farm::start(folder.path(), &stand_in(), 1, &[]);
    let error = timeout(Duration::from_secs(30), &mut second.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is another coordinator running on this folder?"),
        "{error}"
    );
    farm.shut_down().await;
}

#[cfg(unix)]
#[tokio::test]
async fn secrets_are_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let mut farm = Farm::start(folder.path(), &stand_in(), 1, &[]);
    farm.up().await;
    let mode = |name: &str| {
        std::fs::metadata(folder.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("1"), mode("1/password")), (0o700, 0o600));
    farm.shut_down().await;
}
