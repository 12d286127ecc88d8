//! Real repositories, a real mirror, a store that fails when told.

use std::path::Path;
use std::process::Command;

use config::{Defaults, SourceFile};
use sqlx::{Connection, Executor, SqliteConnection};
use store::StoreUrl;
use tokio::task::JoinSet;

use super::*;

struct World {
    upstream: tempfile::TempDir,
    state: tempfile::TempDir,
    watch: Watch,
    wants: mpsc::Receiver<Input>,
    taken_in: TakenIn,
    stop: CancellationToken,
    parts: JoinSet<anyhow::Result<()>>,
}

impl World {
    /// A farm that follows every branch of one repository, and has not looked at it yet.
    async fn new() -> World {
        let (upstream, state) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        git(upstream.path(), &["init", "-q"]);
        git(upstream.path(), &["commit", "-q", "--allow-empty", "-m", "one"]);
        let text = format!(
            "[repo.widget]\nurl = {:?}\nbranches = [\"*\"]\npoll = \"1h\"\nrecipe = \"own\"\n[host.local]\npool = \"local\"\n\
             [builder.local]\nhost = \"local\"\n[recipe.own]\nsteps = [{{ name = \"test\", run = \"true\" }}]\n",
            upstream.path()
        );
        let defaults = Defaults {
            cpus: 1,
            os_arch: "linux-amd64".to_owned(),
            state_dir: state.path().to_owned(),
        };
        let name = "burrow.toml".to_owned();
        let config = Config::check(&[SourceFile { name, text }], &defaults)
            .expect("right")
            .config;
        let store = Store::open(&StoreUrl::Sqlite(state.path().join("farm.db")))
            .await
            .expect("a store");
        let mirror = MirrorService::new(state.path().join("mirror"), crate::mirrored(&config));
        let (inputs, wants) = mpsc::channel(64);
        let config = Arc::new(tokio::sync::watch::Sender::new(Arc::new(config)));
        let stop = CancellationToken::new();
        let mut parts = JoinSet::new();
        let (corpus, taken) = start(&config, &mirror, state.path(), &stop, &mut parts);
        World {
            upstream,
            state,
            watch: Watch {
                config,
                store,
                mirror,
                corpus,
                taken,
                inputs,
                packing: std::sync::Mutex::default(),
            },
            wants,
            taken_in: TakenIn::new(),
            stop,
            parts,
        }
    }

    /// Waits for so many looks at the upstream, and until the corpus has what they saw.
    async fn looked(&self, count: u64) {
        let mut taken = self.watch.taken.clone();
        let looking = taken.wait_for(|taken| taken.values().any(|upto| upto.look >= count));
        tokio::time::timeout(Duration::from_secs(30), looking)
            .await
            .expect("it looks in time")
            .expect("it goes on looking");
    }

    async fn round(&mut self) -> bool {
        self.watch.round(&mut self.taken_in, false).await
    }

    /// `main side !gone`
    async fn branches(&self) -> String {
        let rows = self.watch.store.branches(None).await.expect("rows");
        let word =
            |row: &store::read::BranchRow| format!("{}{}", if row.gone { "!" } else { "" }, row.branch);
        rows.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    async fn sql(&self, text: &'static str) {
        let url = format!("sqlite:{}", self.state.path().join("farm.db").display());
        let mut store = SqliteConnection::connect(&url).await.expect("the store");
        store.execute(text).await.expect("it takes it");
        store.close().await.expect("closed");
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(part) = self.parts.join_next().await {
            part.expect("no panic").expect("a clean end");
        }
    }
}

/// All that a watch is fed by.
fn start(
    config: &Current,
    mirror: &Arc<MirrorService>,
    state: &Path,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> (watch::Receiver<Option<Snapshot>>, Taken) {
    let log = mutlog::Folder::new(state.join("maintner"));
    let (keeper, keep) = maintnerd::Keeper::open(log, stop.clone()).expect("a log");
    parts.spawn(keep);
    parts.spawn(mirror.clone().run(stop.clone()));
    let taken = watch::Sender::default();
    let feeds = (keeper.snapshot(), taken.subscribe());
    let intake = crate::intake::Intake {
        config: config.clone(),
        mirror: mirror.clone(),
        known: maintnerd::Known::new(keeper.clone()),
        keeper,
        taken,
    };
    parts.spawn(intake.run(stop.clone()));
    feeds
}

fn git(dir: &Path, args: &[&str]) {
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
}

#[tokio::test]
async fn what_a_store_that_failed_did_not_take_is_recorded_by_the_next_round() {
    let mut world = World::new().await;
    world.looked(1).await;
    world
        .sql("CREATE TRIGGER no BEFORE INSERT ON branches BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")
        .await;
    world.round().await;
    assert_eq!(world.branches().await, "");
    assert!(world.wants.try_recv().is_err());
    // No further look at the upstream is needed, and none brings the branch as news again.
    world.sql("DROP TRIGGER no").await;
    world.round().await;
    assert_eq!(world.branches().await, "main");
    assert!(matches!(world.wants.try_recv(), Ok(Input::Wanted(wants)) if wants.len() == 1));
    world.end().await;
}

#[tokio::test]
async fn branches_that_went_while_no_farm_ran_are_gone() {
    let mut world = World::new().await;
    git(world.upstream.path(), &["branch", "side"]);
    world.looked(1).await;
    world.watch.mirror.poke_all();
    world.looked(2).await;
    world.round().await;
    assert_eq!(world.branches().await, "main side");
    git(world.upstream.path(), &["branch", "-D", "side"]);

    // Another process, on the same folder, whose mirror has the branch until its first look.
    world.stop.cancel();
    while world.parts.join_next().await.is_some() {}
    let repos = crate::mirrored(&current(&world.watch.config));
    world.watch.mirror = MirrorService::new(world.state.path().join("mirror"), repos);
    world.taken_in.clear();
    world.stop = CancellationToken::new();
    let World {
        watch,
        state,
        stop,
        parts,
        ..
    } = &mut world;
    (watch.corpus, watch.taken) = start(&watch.config, &watch.mirror, state.path(), stop, parts);
    world.looked(1).await;
    world.round().await;
    assert_eq!(world.branches().await, "main !side");
    world.end().await;
}

#[tokio::test]
async fn a_repository_that_is_to_be_fetched_from_elsewhere_loses_nothing_before_it_is_seen_there() {
    let mut world = World::new().await;
    world.looked(1).await;
    world.round().await;
    assert_eq!(world.branches().await, "main");
    let mut config = Config::clone(&current(&world.watch.config));
    let repo = config.repos.values_mut().next().expect("one");
    repo.url = "http://127.0.0.1:1/nobody/there.git".to_owned();
    world.watch.config.send_replace(Arc::new(config));
    world
        .watch
        .mirror
        .set_repos(crate::mirrored(&current(&world.watch.config)));
    world.looked(2).await;
    world.round().await;
    assert!(world.watch.store.repos().await.expect("rows")[0].error.is_some());
    assert_eq!(world.branches().await, "main");
    world.end().await;
}

#[tokio::test]
async fn a_repository_that_cannot_be_read_is_recorded_and_keeps_its_branches() {
    let mut world = World::new().await;
    world.looked(1).await;
    world.round().await;
    let away = world.upstream.path().with_extension("away");
    std::fs::rename(world.upstream.path(), &away).expect("moved");
    world.watch.mirror.poke_all();
    world.looked(2).await;
    world.round().await;
    let repos = world.watch.store.repos().await.expect("rows");
    assert!(
        repos[0]
            .error
            .as_ref()
            .is_some_and(|error| error.contains("cannot be read"))
    );
    assert_eq!(world.branches().await, "main");
    std::fs::rename(&away, world.upstream.path()).expect("moved");
    world.watch.mirror.poke_all();
    world.looked(3).await;
    world.round().await;
    assert_eq!(world.watch.store.repos().await.expect("rows")[0].error, None);
    world.end().await;
}

#[tokio::test]
async fn many_branches_are_recorded_in_rounds_of_bounded_work() {
    let mut world = World::new().await;
    for number in 0..2 * BRANCHES_MAX {
        git(world.upstream.path(), &["branch", &format!("b{number}")]);
    }
    world.looked(1).await;
    world.watch.mirror.poke_all();
    world.looked(2).await;
    let (mut recorded, mut wanted) = (Vec::new(), Vec::new());
    while world.round().await {
        recorded.push(world.branches().await.split(' ').count());
        let wants = std::iter::from_fn(|| world.wants.try_recv().ok());
        wanted.push(wants.count());
    }
    // Meanwhile only the default branch is compared.
    assert_eq!(wanted, [1, 1]);
    // The last round asked for no other.
    assert_eq!(recorded, [BRANCHES_MAX, 2 * BRANCHES_MAX]);
    assert_eq!(world.branches().await.split(' ').count(), 2 * BRANCHES_MAX + 1);
    assert!(!world.round().await);
    world.end().await;
}
