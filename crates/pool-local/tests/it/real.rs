//! Against the real buildlet: the one named by `BUILDLET_BINARY`, or what `cargo build -p buildlet`
//! put beside these tests.

use std::future::ready;
use std::path::{Path, PathBuf};
use std::time::Duration;

use buildlet_api::{CallError, Client, ExecSpec, FollowError, ListOptions, ProcessState, Upload};
use bytes::Bytes;
use rustix::process::Pid;
use tokio::sync::oneshot;

use crate::farm::{Farm, lives, until};

/// The binary, or nothing and a word about it.
fn buildlet() -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    let built = tests.parent().unwrap().parent().unwrap().join("buildlet");
    let binary = std::env::var_os("BUILDLET_BINARY").map_or(built, PathBuf::from);
    if binary.exists() {
        return Some(binary);
    }
    let why = format!(
        "no buildlet at {}; run `cargo build -p buildlet` first",
        binary.display()
    );
    assert!(std::env::var_os("BURROW_TEST_REQUIRE").is_none(), "{why}");
    eprintln!("skipped: {why}");
    None
}

/// A shell command in the work directory.
fn sh(script: &str) -> ExecSpec {
    ExecSpec {
        cmd: "sh".into(),
        args: vec!["-c".into(), script.into()],
        system: true,
        ..ExecSpec::default()
    }
}

/// Prints `one`, waits until the file `gate` is there, prints `two`, ends with 3.
fn gated() -> ExecSpec {
    sh("printf one; while [ ! -e gate ]; do sleep 0.02; done; printf two; exit 3")
}

async fn open_gate(client: &Client) {
    client
        .put_file("gate", 0o644, Upload::Bytes(Bytes::new()))
        .await
        .unwrap();
}

/// Follows until the output holds `one`, then lets go of the connection; returns how far it came.
async fn follow_to_one(client: &Client, id: &str) -> u64 {
    let (sender, seen) = oneshot::channel();
    let (mut sender, mut at) = (Some(sender), 0);
    let following = client.follow_exec(id, 0, |offset, piece| {
        assert_eq!(offset, at);
        at += piece.len() as u64;
        if at >= 3
            && let Some(sender) = sender.take()
        {
            sender.send(at).unwrap();
        }
        ready(())
    });
    tokio::select! {
        at = seen => at.unwrap(),
        ended = following => panic!("{ended:?}"),
    }
}

/// Follows from `offset` to the end: the output, the state, the bytes in all and the exit code.
async fn follow(client: &Client, id: &str, offset: u64) -> (String, ProcessState, u64, Option<i64>) {
    let mut output = Vec::new();
    let end = client
        .follow_exec(id, offset, |_, piece| {
            output.extend_from_slice(&piece);
            ready(())
        })
        .await
        .unwrap();
    (String::from_utf8(output).unwrap(), end.state, end.bytes, end.exit)
}

fn failed(text: &str) -> ProcessState {
    ProcessState::Failed(text.to_owned())
}

#[tokio::test]
async fn limits_that_are_asked_for_hold() {
    let Some(binary) = buildlet() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut farm = Farm::start(folder.path(), &binary, 1, &[]);
    let machine = farm.up().await;
    assert!(machine.status.limits() && machine.status.containment.contains_key("memory"));
    let mut spec = sh("yes");
    spec.limits.output = Some(1000);
    machine.client.start_exec("18.1.0", &spec, None).await.unwrap();
    let (_, state, ..) = follow(&machine.client, "18.1.0", 0).await;
    assert_eq!(state, failed("signal: killed (it printed more than 1000 bytes)"));
    if machine.status.containment["network"].by.is_some() {
        let mut spec = sh("cat /proc/net/route | wc -l; ls /sys/class/net | wc -l");
        spec.limits.no_network = true;
        machine.client.start_exec("18.1.1", &spec, None).await.unwrap();
        let (text, state, ..) = follow(&machine.client, "18.1.1", 0).await;
        assert!(text.starts_with("1\n") && state.is_ok(), "{text} {state}");
    }
}

#[tokio::test]
async fn a_command_outlives_its_connection_and_its_coordinator() {
    let Some(binary) = buildlet() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut farm = Farm::start(folder.path(), &binary, 1, &[]);
    let first = farm.up().await;
    assert!(first.resumable, "{:?}", first.status);
    assert!(
        first
            .client
            .start_exec("17.1.0", &gated(), Some(Duration::from_secs(60)))
            .await
            .unwrap()
    );
    assert!(
        !first
            .client
            .start_exec("17.1.0", &gated(), Some(Duration::from_secs(60)))
            .await
            .unwrap()
    );
    let offset = follow_to_one(&first.client, "17.1.0").await;
    assert_eq!(offset, 3);
    let pid = farm.pid(1);
    farm.vanish().await;

    let mut farm = Farm::start(folder.path(), &binary, 1, &[]);
    let second = farm.up().await;
    assert_eq!(second.status.instance, first.status.instance);
    assert_eq!(farm.pid(1), pid);
    let known = second.client.list_execs().await.unwrap();
    assert_eq!(
        (known.len(), known[0].id.as_str(), known[0].running),
        (1, "17.1.0", true)
    );
    open_gate(&second.client).await;
    let state = failed("exit status 3");
    assert_eq!(
        follow(&second.client, "17.1.0", offset).await,
        ("two".to_owned(), state.clone(), 6, Some(3))
    );
    // What has ended can be followed again, until it is forgotten.
    assert_eq!(
        follow(&second.client, "17.1.0", 0).await,
        ("onetwo".to_owned(), state, 6, Some(3))
    );
    assert!(second.client.kill_exec("17.1.0").await.unwrap());
    assert!(!second.client.kill_exec("17.1.0").await.unwrap());
    let unknown = second.client.follow_exec("17.1.0", 0, |_, _| ready(())).await;
    assert!(matches!(unknown, Err(FollowError::UnknownId)), "{unknown:?}");
    farm.shut_down().await;
    assert!(!lives(pid));
}

#[tokio::test]
async fn a_running_command_can_be_killed() {
    let Some(binary) = buildlet() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut farm = Farm::start(folder.path(), &binary, 1, &[]);
    let client = farm.up().await.client;
    client.start_exec("1.1.0", &gated(), None).await.unwrap();
    follow_to_one(&client, "1.1.0").await;
    let follower = client.clone();
    let following = tokio::spawn(async move { follow(&follower, "1.1.0", 0).await });
    assert!(client.kill_exec("1.1.0").await.unwrap());
    let (output, state, ..) = following.await.unwrap();
    assert!(output.starts_with("one"), "{output}");
    assert!(!state.is_ok(), "{state}");
    farm.shut_down().await;
}

#[tokio::test]
async fn a_command_past_its_wall_time_is_killed() {
    let Some(binary) = buildlet() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut farm = Farm::start(folder.path(), &binary, 1, &[]);
    let client = farm.up().await.client;
    client
        .start_exec("1.1.0", &gated(), Some(Duration::from_secs(1)))
        .await
        .unwrap();
    let (output, state, ..) = follow(&client, "1.1.0", 0).await;
    assert!(output.starts_with("one"), "{output}");
    assert!(!state.is_ok(), "{state}");
    farm.shut_down().await;
}

#[tokio::test]
async fn a_command_whose_output_cannot_be_kept_is_the_machines_failure() {
    let Some(binary) = buildlet() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut farm = Farm::start(folder.path(), &binary, 1, &[]);
    let client = farm.up().await.client;
    // As a disk that is full.
    std::os::unix::fs::symlink("/dev/full", folder.path().join("1/state/execs/1.1.0")).unwrap();
    client.start_exec("1.1.0", &gated(), None).await.unwrap();
    let failed = client.follow_exec("1.1.0", 0, |_, _| ready(())).await;
    let wanted = "its output cannot be kept on this machine: no space left on device";
    assert!(
        matches!(&failed, Err(FollowError::Call(CallError::Failed { why, .. })) if why == wanted),
        "{failed:?}"
    );
    farm.shut_down().await;
}

/// The processes whose work directory is below `folder`.
fn commands(folder: &Path) -> Vec<Pid> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let below = |pid: &i32| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder.join("1/work")))
    };
    pids.filter(below).filter_map(Pid::from_raw).collect()
}

/// A tar.gz with the file `src/hello`, which holds `hello`.
fn hello_tgz() -> Upload {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), Default::default()));
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o755);
    header.set_cksum();
    archive
        .append_data(&mut header, "src/hello", &b"hello"[..])
        .unwrap();
    let archive = archive.into_inner().unwrap().finish().unwrap();
    Upload::Bytes(archive.into())
}

#[tokio::test]
async fn files_go_in_and_commands_see_them_until_they_are_removed() {
    let Some(binary) = buildlet() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut farm = Farm::start(folder.path(), &binary, 1, &[]);
    let client = farm.up().await.client;
    client.put_tgz("go", hello_tgz()).await.unwrap();

    let mut output = Vec::new();
    let state = client
        .exec(&sh("cat go/src/hello; echo; pwd; exit 7"), |piece| {
            output.extend_from_slice(&piece);
            ready(())
        })
        .await
        .unwrap();
    assert_eq!(state, failed("exit status 7"));
    let work_dir = client.work_dir().await.unwrap();
    assert_eq!(String::from_utf8(output).unwrap(), format!("hello\n{work_dir}\n"));

    client.remove_all(&["."]).await.unwrap();
    let gone = client.exec(&sh("cat go/src/hello"), |_| ready(())).await.unwrap();
    assert_eq!(gone, failed("exit status 1"));
    farm.shut_down().await;
}

#[tokio::test]
async fn a_directory_is_listed_and_read_back() {
    let Some(binary) = buildlet() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut farm = Farm::start(folder.path(), &binary, 1, &[]);
    let client = farm.up().await.client;
    client.put_tgz("go", hello_tgz()).await.unwrap();
    let options = ListOptions {
        recursive: true,
        digest: true,
        ..ListOptions::default()
    };
    let entries = client.ls("go", &options, 100).await.unwrap();
    let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["src/", "src/hello"]);
    let sha1 = entries[1].file.as_ref().unwrap().sha1.as_deref();
    assert_eq!(sha1, Some("aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"));

    let mut out = Vec::new();
    client.tgz("go", &mut out, 1 << 20).await.unwrap();
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(&out[..]));
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert!(names.iter().any(|name| name == "src/hello"), "{names:?}");
    farm.shut_down().await;
}

#[tokio::test]
async fn a_crashed_buildlet_comes_back_and_has_forgotten_its_commands() {
    let Some(binary) = buildlet() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut farm = Farm::start(folder.path(), &binary, 1, &[]);
    let first = farm.up().await;
    first.client.start_exec("1.1.0", &gated(), None).await.unwrap();
    follow_to_one(&first.client, "1.1.0").await;
    let stray = commands(folder.path());
    assert!(!stray.is_empty());
    farm.kill(1);
    assert!(matches!(
        farm.event().await,
        buildlet_api::PoolEvent::Down {
            may_return: false,
            ..
        }
    ));
    let second = farm.up().await;
    until("its commands are killed", || !stray.iter().any(|&pid| lives(pid))).await;
    let unknown = second.client.follow_exec("1.1.0", 0, |_, _| ready(())).await;
    assert!(matches!(unknown, Err(FollowError::UnknownId)), "{unknown:?}");
    farm.shut_down().await;
}
