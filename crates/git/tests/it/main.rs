//! Mirrors of real repositories, made with the git program.

mod guarded;

use std::path::Path;
use std::process::Command;

use guarded::Guarded;

use git::{FetchReport, GitError, Mirror, Upstream};

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
        Mirror::open(&self.state.path().join("m.git"))
            .await
            .expect("a mirror")
    }

    async fn fetch(&self, mirror: &Mirror) -> Result<FetchReport, GitError> {
        mirror.fetch(&at(self.upstream.path())).await
    }
}

fn at(path: &Path) -> Upstream {
    Upstream::new(path.to_str().expect("a path"))
}

/// `main=HASH side=HASH`
fn heads(report: &FetchReport) -> String {
    let heads = report
        .heads
        .iter()
        .map(|(branch, head)| format!("{branch}={head}"));
    heads.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn an_empty_repository_is_a_state_and_no_error() {
    let world = World::new();
    let mirror = world.mirror().await;
    let report = world.fetch(&mirror).await.expect("a fetch");
    assert_eq!(report, FetchReport::default());
    // One that was emptied takes nothing away.
    let head = commit(world.upstream.path(), "one");
    world.fetch(&mirror).await.expect("a fetch");
    git(world.upstream.path(), &["update-ref", "-d", "refs/heads/main"]);
    let report = world.fetch(&mirror).await.expect("a fetch");
    assert_eq!(heads(&report), format!("main={head}"));
}

#[tokio::test]
async fn commits_arrive_move_and_go() {
    let world = World::new();
    let up = world.upstream.path();
    let first = commit(up, "one");
    let mirror = world.mirror().await;
    let report = world.fetch(&mirror).await.expect("a fetch");
    assert_eq!(
        report.default_branch.as_ref().expect("a default branch").as_str(),
        "main"
    );
    assert_eq!(heads(&report), format!("main={first}"));

    let second = commit(up, "two");
    git(up, &["branch", "side"]);
    let report = world.fetch(&mirror).await.expect("a fetch");
    assert_eq!(heads(&report), format!("main={second} side={second}"));
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

    // Forced back and the branch deleted.
    git(up, &["reset", "-q", "--hard", &first]);
    git(up, &["branch", "-D", "side"]);
    let report = world.fetch(&mirror).await.expect("a fetch");
    assert_eq!(heads(&report), format!("main={first}"));
}

#[tokio::test]
async fn revisions_are_names_and_nothing_else() {
    let world = World::new();
    let head = commit(world.upstream.path(), "one");
    git(world.upstream.path(), &["tag", "v1"]);
    let mirror = world.mirror().await;
    world.fetch(&mirror).await.expect("a fetch");
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
    let report = world.fetch(&mirror).await.expect("a fetch");
    assert_eq!(
        heads(&report),
        format!("main={head}"),
        "the farm does not speak of it"
    );
}

#[tokio::test]
async fn a_repository_that_is_gone_is_named() {
    let world = World::new();
    let mirror = world.mirror().await;
    let error = mirror
        .fetch(&Upstream::new("/nowhere/at/all"))
        .await
        .expect_err("refused");
    assert!(
        error.to_string().contains("`/nowhere/at/all` cannot be read"),
        "{error}"
    );
}

#[tokio::test]
async fn a_shallow_clone_is_refused_with_what_would_make_it_whole() {
    let world = World::new();
    commit(world.upstream.path(), "one");
    commit(world.upstream.path(), "two");
    let shallow = world.state.path().join("shallow");
    let from = format!("file://{}", world.upstream.path().display());
    git(
        world.state.path(),
        &[
            "clone",
            "-q",
            "--depth",
            "1",
            &from,
            shallow.to_str().expect("a path"),
        ],
    );
    let error = world
        .mirror()
        .await
        .fetch(&at(&shallow))
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("git fetch --unshallow"), "{error}");
}

#[tokio::test]
async fn a_mirror_without_a_head_is_made_one_again() {
    let world = World::new();
    let head = commit(world.upstream.path(), "one");
    let mirror = world.mirror().await;
    world.fetch(&mirror).await.expect("a fetch");
    drop(mirror);
    std::fs::remove_file(world.state.path().join("m.git/HEAD")).expect("damage");
    let mirror = world.mirror().await;
    world.fetch(&mirror).await.expect("a fetch");
    assert_eq!(
        mirror.resolve("main").await.expect("resolved").commit.as_str(),
        head
    );
}

/// The loose object of a commit in the mirror.
fn object(world: &World, hash: &str) -> std::path::PathBuf {
    let path = world
        .state
        .path()
        .join("m.git/objects")
        .join(&hash[..2])
        .join(&hash[2..]);
    assert!(path.is_file(), "it is loose");
    path
}

#[tokio::test]
async fn a_mirror_that_lost_a_commit_is_made_anew_and_the_old_one_kept() {
    let world = World::new();
    let first = commit(world.upstream.path(), "one");
    let head = commit(world.upstream.path(), "two");
    let mirror = world.mirror().await;
    let report = world.fetch(&mirror).await.expect("a fetch");
    assert_eq!(report.renewed, None);
    std::fs::remove_file(object(&world, &first)).expect("damage");
    // Nothing was asked of it: the next look finds nothing to fetch, and looks through it.
    let report = world.fetch(&mirror).await.expect("a fetch");
    assert!(report.renewed.expect("it is said").contains(&first));
    assert_eq!(
        mirror.depth(&head.parse().expect("a hash")).await.expect("whole"),
        1
    );
    assert!(world.state.path().join("m.git.damaged").is_dir());
    assert!(!world.state.path().join("m.git.fresh").exists());
    // Still its only writer.
    assert!(matches!(
        Mirror::open(&world.state.path().join("m.git")).await,
        Err(GitError::Io { what: "lock", .. })
    ));
}

#[tokio::test]
async fn a_mirror_whose_content_rotted_is_made_anew_once_reading_it_fails() {
    let world = World::new();
    let head = commit(world.upstream.path(), "one");
    let mirror = world.mirror().await;
    for _ in 0..2 {
        let report = world.fetch(&mirror).await.expect("a fetch");
        assert_eq!(report.renewed, None);
    }
    let blob = git(world.upstream.path(), &["rev-parse", "HEAD:one"]);
    let file = object(&world, &blob);
    let mut permissions = std::fs::metadata(&file).expect("a file").permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "of a test's own file")]
    permissions.set_readonly(false);
    std::fs::set_permissions(&file, permissions).expect("writable");
    std::fs::write(&file, "rot").expect("damage");

    let archive = async || {
        let mut job = mirror.archive(&head.parse().expect("a hash")).expect("git");
        let (mut tar, mut nowhere) = (job.take_stdout(), tokio::io::sink());
        let (_, ended) = tokio::join!(tokio::io::copy(&mut tar, &mut nowhere), job.end(git::ARCHIVE));
        ended
    };
    archive().await.expect_err("it cannot be read");
    assert_eq!(
        world.fetch(&mirror).await.expect("a fetch").renewed,
        None,
        "nobody said so"
    );
    mirror.doubt();
    assert!(world.fetch(&mirror).await.expect("a fetch").renewed.is_some());
    archive().await.expect("it is whole");
}

#[tokio::test]
async fn a_damaged_mirror_stays_while_its_upstream_is_away() {
    let world = World::new();
    let head = commit(world.upstream.path(), "one");
    let mirror = world.mirror().await;
    world.fetch(&mirror).await.expect("a fetch");
    std::fs::remove_file(object(
        &world,
        &git(world.upstream.path(), &["rev-parse", "HEAD:one"]),
    ))
    .expect("damage");
    mirror.fetch(&Upstream::new("/nowhere")).await.expect_err("away");
    assert_eq!(
        mirror.depth(&head.parse().expect("a hash")).await.expect("there"),
        0
    );
    assert!(world.fetch(&mirror).await.expect("a fetch").renewed.is_some());
}

#[tokio::test]
async fn two_mirrors_in_one_folder_are_refused() {
    let world = World::new();
    let _first = world.mirror().await;
    let second = Mirror::open(&world.state.path().join("m.git")).await;
    assert!(matches!(second, Err(GitError::Io { what: "lock", .. })));
}

#[tokio::test]
async fn a_password_reaches_the_server_and_nobody_else() {
    let world = World::new();
    let head = commit(world.upstream.path(), "one");
    git(world.upstream.path(), &["update-server-info"]);
    let server = Guarded::start(world.upstream.path().join(".git"));
    let mirror = world.mirror().await;
    let url = |login: &str| Upstream::new(&format!("http://{login}{}/w", server.address));
    let report = mirror.fetch(&url("amy:s3cr%40t@")).await.expect("a fetch");
    assert_eq!(heads(&report), format!("main={head}"));
    // base64 of `amy:s3cr@t`
    assert_eq!(server.login(), "Basic YW15OnMzY3JAdA==");
    for login in ["", "amy:wr0ng@"] {
        let error = mirror.fetch(&url(login)).await.expect_err("refused").to_string();
        assert!(
            error.contains(&server.address) && !error.contains("wr0ng"),
            "{error}"
        );
    }
    assert_eq!(server.seen(), Vec::<String>::new(), "in no command line");
}
