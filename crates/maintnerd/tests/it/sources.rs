//! A log of our own, told by real git and by a GitHub with state.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use config::SecretAt;
use corpus::Corpus;
use maintnerd::{Keeper, Known, Source, SourceStatus, Sources, State, What};
use mutlog::Folder;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::farm::PATIENCE;

/// So seldom that only a wake-up makes it look.
const SELDOM: Duration = Duration::from_secs(3600);

struct World {
    dir: tempfile::TempDir,
    keeper: Keeper,
    sources: Sources,
    parts: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl World {
    fn new() -> World {
        World::on(tempfile::tempdir().unwrap())
    }

    fn on(dir: tempfile::TempDir) -> World {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let stop = CancellationToken::new();
        let (keeper, keep) = Keeper::open(Folder::new(dir.path().join("log")), stop.clone()).unwrap();
        let sources = Sources::new(
            dir.path().join("sources"),
            keeper.clone(),
            Known::new(keeper.clone()),
        );
        let mut parts = JoinSet::new();
        parts.spawn(keep);
        parts.spawn(sources.clone().run(stop.clone()));
        World {
            dir,
            keeper,
            sources,
            parts,
            stop,
        }
    }

    fn follow(&self, what: &[What]) {
        let source = |what: &What| Source {
            what: what.clone(),
            poll: SELDOM,
        };
        self.sources.set(what.iter().map(source).collect(), 0);
    }

    /// Waits until the corpus is so.
    async fn corpus(&self, what: &str, is: impl Fn(&Corpus) -> bool) {
        let mut snapshot = self.keeper.snapshot();
        let known = snapshot.wait_for(|snapshot| snapshot.as_ref().is_some_and(|one| is(&one.corpus)));
        timeout(PATIENCE, known)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"))
            .unwrap();
    }

    /// Waits until the one source that is followed does so.
    async fn doing(&self, what: &str, is: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        let waiting = async {
            loop {
                if let [one] = &self.sources.status()[..]
                    && is(one)
                {
                    return one.clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let done = timeout(PATIENCE, waiting).await;
        done.unwrap_or_else(|_| panic!("never {what}: {:?}", self.sources.status()))
    }

    async fn end(mut self) -> tempfile::TempDir {
        self.stop.cancel();
        while let Some(part) = timeout(PATIENCE, self.parts.join_next()).await.unwrap() {
            part.unwrap().unwrap();
        }
        self.dir
    }
}

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
        .unwrap();
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A repository with one commit on `main`.
fn repository(world: &World) -> PathBuf {
    let dir = world.dir.path().join("upstream");
    std::fs::create_dir(&dir).unwrap();
    git(&dir, &["init", "-q"]);
    git(&dir, &["commit", "-q", "--allow-empty", "-m", "one"]);
    dir
}

fn plain(url: &Path) -> What {
    What::Git {
        key: "local/upstream".to_owned(),
        url: url.to_str().unwrap().to_owned(),
    }
}

fn head(corpus: &Corpus, name: &str) -> Option<String> {
    let project = corpus.project("local/upstream")?;
    Some(project.commit_at(name)?.hash().to_string())
}

#[tokio::test]
async fn what_git_has_is_in_the_corpus_and_a_wake_up_brings_what_is_new() {
    let world = World::new();
    let upstream = repository(&world);
    // No branch and no tag: of no matter here.
    git(&upstream, &["update-ref", "refs/pull/1/head", "HEAD"]);
    world.follow(&[plain(&upstream)]);
    let one = git(&upstream, &["rev-parse", "HEAD"]);
    world
        .corpus("the first commit", |corpus| {
            head(corpus, "refs/heads/main").as_ref() == Some(&one)
        })
        .await;
    git(&upstream, &["commit", "-q", "--allow-empty", "-m", "two"]);
    git(&upstream, &["tag", "v1"]);
    let two = git(&upstream, &["rev-parse", "HEAD"]);
    assert_eq!(world.sources.wake("gerrit:local/upstream"), 1);
    world
        .corpus("the second", |corpus| {
            head(corpus, "refs/tags/v1").as_ref() == Some(&two)
        })
        .await;
    let status = world
        .doing("good", |one| one.state == State::Good && one.told >= 4)
        .await;
    assert!(
        status.fresh_secs_ago.is_some() && status.news_secs_ago.is_some(),
        "{status:?}"
    );
    world
        .corpus("no more refs", |corpus| {
            let names: Vec<&str> = corpus
                .project("local/upstream")
                .unwrap()
                .refs()
                .map(|(name, _)| name)
                .collect();
            names == ["HEAD", "refs/heads/main", "refs/tags/v1"]
        })
        .await;

    // A branch that is gone is one of few: it is looked at again before it is believed.
    git(&upstream, &["tag", "-d", "v1"]);
    assert_eq!(world.sources.wake("git local/upstream"), 1);
    world.doing("in doubt", |one| one.doubted == 1).await;
    // After a restart nothing is told twice.
    let size = world.keeper.size();
    let world = World::on(world.end().await);
    git(&upstream, &["tag", "v1"]);
    world.follow(&[plain(&upstream)]);
    world.doing("looked", |one| one.looks > 0).await;
    assert_eq!(world.keeper.size(), size);
    world.end().await;
}

#[tokio::test]
async fn who_is_gone_is_said_to_be_and_found_when_it_is_back() {
    let world = World::new();
    let upstream = repository(&world);
    let away = upstream.with_extension("away");
    std::fs::rename(&upstream, &away).unwrap();
    world.follow(&[plain(&upstream)]);
    let status = world.doing("failing", |one| one.failures > 0).await;
    let State::Failing {
        why, again_in_secs, ..
    } = &status.state
    else {
        panic!("{status:?}")
    };
    assert!(why.contains("gone") && *again_in_secs <= 30, "{status:?}");
    std::fs::rename(&away, &upstream).unwrap();
    world.sources.wake_all();
    world.doing("good", |one| one.state == State::Good).await;
    world.end().await;
}

#[tokio::test]
async fn what_github_has_is_in_the_corpus_and_its_troubles_are_told_apart() {
    let hub = testkit::github::GitHub::start().await;
    hub.world().wanted_token = Some("right".to_owned());
    hub.world().open("first", "body");
    let world = World::new();
    let token = world.dir.path().join("token");
    std::fs::write(&token, "wrong\n").unwrap();
    let what = What::GitHub {
        api: hub.base.clone(),
        owner: "o".to_owned(),
        name: "r".to_owned(),
        token: Some(SecretAt::File(token.clone())),
    };
    world.follow(std::slice::from_ref(&what));
    let status = world.doing("failing", |one| one.failures > 0).await;
    let why = status.state.trouble().unwrap();
    assert!(
        why.contains("does not know the token in") && why.contains("token"),
        "{why}"
    );
    assert!(!why.contains("wrong"), "{why}");

    // It is read anew each time.
    std::fs::write(&token, "right\n").unwrap();
    assert_eq!(world.sources.wake("github:o/r"), 1);
    let title = |corpus: &Corpus, number: i32| Some(corpus.repo("o", "r")?.issue(number)?.title.to_string());
    world
        .corpus("the issue", |corpus| title(corpus, 1).as_deref() == Some("first"))
        .await;
    world.doing("good", |one| one.state == State::Good).await;

    // GitHub lets us ask nothing for an hour.
    {
        let mut hub = hub.world();
        hub.now += 60;
        hub.exhausted = Some(3600);
        hub.open("second", "body");
    }
    world.sources.wake_all();
    let status = world
        .doing("limited", |one| matches!(one.state, State::Limited { .. }))
        .await;
    assert!(
        status.state.trouble().unwrap().starts_with("rate limited until "),
        "{status:?}"
    );
    let asked = hub.world().asked.len();
    // What is not known over a restart is asked again, and what was answered before is not.
    let world = World::on(world.end().await);
    {
        let mut hub = hub.world();
        assert_eq!(hub.asked.len(), asked, "it asked though it was told not to");
        hub.exhausted = None;
        hub.asked.clear();
    }
    world.follow(&[what]);
    world
        .corpus("the second issue", |corpus| {
            title(corpus, 2).as_deref() == Some("second")
        })
        .await;
    world.doing("good", |one| one.state == State::Good).await;
    let asked = hub.world().asked.clone();
    let labels = asked
        .iter()
        .find(|(_, address)| address.contains("labels"))
        .unwrap();
    assert_eq!(labels.0, 304, "{asked:?}");
    world.end().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_opened_anew_and_nothing_is_told_twice() {
    let world = World::new();
    let upstream = repository(&world);
    world.follow(&[plain(&upstream)]);
    world.doing("good", |one| one.state == State::Good).await;
    // Another takes the log over, as on a file system whose locks are none.
    let lease = world.dir.path().join("log/lease");
    let ours = std::fs::read_to_string(&lease).unwrap();
    std::fs::write(&lease, format!("{:<120}\n", "elsewhere 1 99")).unwrap();
    git(&upstream, &["commit", "-q", "--allow-empty", "-m", "two"]);
    world.sources.wake_all();
    world.doing("failing", |one| one.failures > 0).await;
    assert!(
        world
            .keeper
            .trouble()
            .is_some_and(|why| why.contains("taken the log over")),
        "{:?}",
        world.keeper.trouble()
    );
    std::fs::write(&lease, ours).unwrap();
    let two = git(&upstream, &["rev-parse", "HEAD"]);
    // Opened anew within seconds.
    let healed = async {
        while world.keeper.trouble().is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, healed).await.expect("the log is opened anew");
    world.sources.wake_all();
    world
        .corpus("the second", |corpus| {
            head(corpus, "refs/heads/main").as_ref() == Some(&two)
        })
        .await;
    let dir = world.end().await;
    let (replay, _) = maintnerd::load(&Folder::new(dir.path().join("log"))).unwrap();
    // Two commits, and twice where `main` and `HEAD` are.
    assert_eq!(replay.counts().records, 4, "{:?}", replay.counts());
}
