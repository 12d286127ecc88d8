//! The service over real repositories.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gitmirror::{MirrorEvent, MirrorService, RepoConfig};
use ids::{GitHash, RepoName};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
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
        .output()
        .expect("git runs");
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn commit(dir: &Path, name: &str) -> GitHash {
    std::fs::write(dir.join(name), name).expect("a file");
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-q", "-m", name]);
    git(dir, &["rev-parse", "HEAD"]).parse().expect("a hash")
}

/// The heads that the next look tells.
async fn told(events: &mut mpsc::Receiver<MirrorEvent>) -> Vec<GitHash> {
    let event = tokio::time::timeout(Duration::from_secs(30), events.recv())
        .await
        .expect("in time");
    match event.expect("the service runs") {
        MirrorEvent::Fetched { changes, .. } => changes.into_iter().filter_map(|change| change.new).collect(),
        MirrorEvent::Failed { error, .. } => panic!("{error}"),
    }
}

#[tokio::test]
async fn what_an_archive_request_fetched_is_told_too() {
    let (upstream, state) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    git(upstream.path(), &["init", "-q"]);
    let first = commit(upstream.path(), "one");
    let name: RepoName = "widget".parse().expect("a name");
    let url = upstream.path().to_str().expect("a path").to_owned();
    // So seldom that only a poke makes it look.
    let repo = RepoConfig {
        name: name.clone(),
        url,
        poll: Duration::from_secs(3600),
    };
    let (sender, mut events) = mpsc::channel(4);
    let service = MirrorService::new(state.path().to_owned(), vec![repo], sender);
    let stop = CancellationToken::new();
    let running = tokio::spawn(service.clone().run(stop.clone()));
    assert_eq!(told(&mut events).await, [first]);

    let second = commit(upstream.path(), "two");
    let archive = service.archive(&name, &second).await.expect("an archive");
    assert!(archive.bytes > 0 && archive.path.is_file());
    assert_eq!(told(&mut events).await, std::slice::from_ref(&second));
    // Nothing is made twice, and nothing half-made is left.
    assert_eq!(
        service.archive(&name, &second).await.expect("an archive"),
        archive
    );
    let left = std::fs::read_dir(state.path().join("archives"))
        .expect("a folder")
        .count();
    assert_eq!(left, 1);

    stop.cancel();
    running.await.expect("no panic").expect("a clean end");
}
