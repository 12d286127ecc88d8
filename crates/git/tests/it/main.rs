//! Mirrors of real repositories, made with the git program.

use std::path::Path;
use std::process::Command;

use git::{GitError, Mirror};

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

fn commit(dir: &Path, name: &str) -> String {
    std::fs::write(dir.join(name), name).expect("a file");
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-q", "-m", name]);
    git(dir, &["rev-parse", "HEAD"])
}

struct World {
    upstream: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let world = World {
            upstream: tempfile::tempdir().expect("a folder"),
            state: tempfile::tempdir().expect("a folder"),
        };
        git(world.upstream.path(), &["init", "-q"]);
        world
    }

    async fn mirror(&self) -> Mirror {
        let url = self.upstream.path().to_str().expect("a path");
        Mirror::open(&self.state.path().join("m"), url)
            .await
            .expect("a mirror")
    }
}

#[tokio::test]
async fn an_empty_repository_is_a_state_and_no_error() {
    let world = World::new();
    let report = world.mirror().await.fetch().await.expect("a fetch");
    assert!(report.changes.is_empty());
}

#[tokio::test]
async fn commits_arrive_move_and_go() {
    let world = World::new();
    let up = world.upstream.path();
    let first = commit(up, "one");
    let mirror = world.mirror().await;
    let report = mirror.fetch().await.expect("a fetch");
    assert_eq!(report.default_branch.expect("a default branch").as_str(), "main");
    assert_eq!(report.changes.len(), 1);
    assert_eq!(report.changes[0].new.as_ref().expect("a head").as_str(), first);
    assert!(mirror.fetch().await.expect("a fetch").changes.is_empty());

    let second = commit(up, "two");
    git(up, &["branch", "side"]);
    assert_eq!(mirror.fetch().await.expect("a fetch").changes.len(), 2);
    let head = second.parse().expect("a hash");
    let log = mirror.first_parents(&head, 10).await.expect("a log");
    assert_eq!(
        log.iter().map(|c| c.title.as_str()).collect::<Vec<_>>(),
        ["two", "one"]
    );
    assert_eq!(
        (log[0].author_name.as_str(), log[0].author_email.as_str()),
        ("Ann", "ann@example.org")
    );
    assert_eq!(mirror.depth(&head).await.expect("a depth"), 1);
    assert_eq!(mirror.root_files(&head).await.expect("files"), ["one", "two"]);
    assert_eq!(mirror.read_file(&head, "one").await.as_deref(), Some("one"));
    assert_eq!(mirror.read_file(&head, "none").await, None);

    // Forced back and the branch deleted.
    git(up, &["reset", "-q", "--hard", &first]);
    git(up, &["branch", "-D", "side"]);
    let changes = mirror.fetch().await.expect("a fetch").changes;
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[0].new.as_ref().expect("a head").as_str(), first);
    assert_eq!(changes[1].new, None);
}

#[tokio::test]
async fn revisions_are_names_and_nothing_else() {
    let world = World::new();
    let head = commit(world.upstream.path(), "one");
    git(world.upstream.path(), &["tag", "v1"]);
    let mirror = world.mirror().await;
    mirror.fetch().await.expect("a fetch");
    for rev in ["main", "v1", "refs/heads/main", &head] {
        assert_eq!(
            mirror.resolve(rev).await.expect("resolved").commit.as_str(),
            head,
            "{rev}"
        );
    }
    for rev in ["--upload-pack=touch x", "main~1", "a..b", ""] {
        assert!(
            matches!(mirror.resolve(rev).await, Err(GitError::BadRev { .. })),
            "{rev}"
        );
    }
    for rev in ["nothere", &"0".repeat(40)] {
        assert!(
            matches!(mirror.resolve(rev).await, Err(GitError::NoRev { .. })),
            "{rev}"
        );
    }
}

#[tokio::test]
async fn refs_that_look_like_options_do_no_harm() {
    let world = World::new();
    let head = commit(world.upstream.path(), "one");
    git(
        world.upstream.path(),
        &["update-ref", "refs/heads/--upload-pack=x", &head],
    );
    let mirror = world.mirror().await;
    let changes = mirror.fetch().await.expect("a fetch").changes;
    assert_eq!(changes.len(), 1, "the farm does not speak of it: {changes:?}");
}

#[tokio::test]
async fn a_repository_that_is_gone_is_named() {
    let state = tempfile::tempdir().expect("a folder");
    let mirror = Mirror::open(&state.path().join("m"), "/nowhere/at/all")
        .await
        .expect("a mirror");
    let error = mirror.fetch().await.expect_err("refused").to_string();
    assert!(error.contains("`/nowhere/at/all` cannot be read"), "{error}");
}

#[tokio::test]
async fn a_damaged_mirror_is_made_anew_by_the_next_fetch() {
    let world = World::new();
    let head = commit(world.upstream.path(), "one");
    drop(world.mirror().await.fetch().await.expect("a fetch"));
    std::fs::remove_file(world.state.path().join("m/HEAD")).expect("damage");
    let mirror = world.mirror().await;
    mirror.fetch().await.expect("a fetch");
    assert_eq!(
        mirror.resolve("main").await.expect("resolved").commit.as_str(),
        head
    );
}

#[tokio::test]
async fn two_mirrors_in_one_folder_are_refused() {
    let world = World::new();
    let _first = world.mirror().await;
    let second = Mirror::open(&world.state.path().join("m"), "/x").await;
    assert!(matches!(second, Err(GitError::Io { what: "lock", .. })));
}
