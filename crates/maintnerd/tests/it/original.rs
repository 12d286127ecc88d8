//! Against the original's own programs: `tests/go`, built with a Go toolchain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::Mutex;

use corpus::Corpus;
use maintnerd::synthetic::Synthetic;
use maintnerd::{Leader, Replay, import, import_into, load};
use maintpb::{Message, Mutation};
use mutlog::{Folder, FolderDisk, Lease, LogReader, Records, Segment, TARGET, Writer};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

use crate::farm::{PATIENCE, Server, append, bind_again, copy_of, issue, served, update};

fn original(era: &str) -> Option<PathBuf> {
    program(era)
}

/// The program of `tests/go/NAME`. `None`: there is no Go here, which was said.
pub fn program(era: &str) -> Option<PathBuf> {
    // One build at a time; Go's own cache makes all but the first quick.
    static BUILDING: Mutex<()> = Mutex::new(());
    let building = BUILDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/go").join(era);
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("maintner{era}"));
    let built = Command::new("go")
        .args(["build", "-mod=readonly", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(sources)
        .output();
    drop(building);
    match built {
        Ok(built) => {
            assert!(
                built.status.success(),
                "{}",
                String::from_utf8_lossy(&built.stderr)
            );
            Some(program)
        }
        Err(error) => {
            let required = std::env::var("BURROW_TEST_REQUIRE").as_deref() == Ok("1");
            assert!(!required, "there is no Go to build the original with: {error}");
            eprintln!("SKIPPED: there is no Go to build the original with: {error}");
            None
        }
    }
}

fn run(program: &Path, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(
        done.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    said.trim().to_owned()
}

fn replayed(reader: &LogReader, log: &[Segment]) -> Replay {
    let mut replay = Replay::default();
    replay.advance(reader, log).unwrap();
    replay
}

fn summary(corpus: &Corpus, reader: &LogReader) -> String {
    corpus::summary(corpus, reader).unwrap()
}

/// What a leader's log says now.
fn summary_of(leader: &Leader) -> String {
    let log = leader.visible.borrow().clone().unwrap();
    summary(replayed(&leader.reader, &log).corpus(), &leader.reader)
}

#[test]
fn a_log_that_the_original_wrote_says_what_it_says_to_the_original() {
    let Some(program) = original("2026") else { return };
    let Some(older) = original("2019") else { return };
    // `BURROW_SEEDS=100` tries as many logs.
    let seeds = std::env::var("BURROW_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(4);
    for seed in 1..=seeds {
        let dirs = tempfile::tempdir().unwrap();
        let path = |name: &str| dirs.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(path("days")).unwrap();
        run(&program, &["write", &path("days"), &seed.to_string(), "3000"]);
        let expect = run(&program, &["read", &path("days"), &path("dump")]);

        let folder = Folder::new(path("log"));
        let disk = FolderDisk::new(folder.clone(), Lease::take(folder.dir()).unwrap());
        let (mut writer, _) = Writer::open(disk, TARGET, 1).unwrap();
        assert!(import(Path::new(&path("days")), &mut writer).unwrap() > 3000);
        let reader = LogReader::new(folder);
        let replay = replayed(&reader, &writer.visible());

        let theirs = fs::read_to_string(path("dump")).unwrap();
        let mut theirs = theirs.lines();
        corpus::dump(replay.corpus(), &reader, &mut |ours| {
            assert_eq!(Some(ours), theirs.next(), "seed {seed}");
        })
        .unwrap();
        assert_eq!(theirs.next(), None);
        assert_eq!(summary(replay.corpus(), &reader), expect);

        // The writer of 2019 does not know all fields; what it wrote says the same to both readers.
        fs::create_dir(path("old-days")).unwrap();
        run(&older, &["rewrite", &path("days"), &path("old-days")]);
        let expect_old = run(&program, &["read", &path("old-days"), &path("dump")]);
        let old = Folder::new(path("old-log"));
        import_into(Path::new(&path("old-days")), &old).unwrap();
        let (replay, texts) = load(&old).unwrap();
        assert_eq!(summary(replay.corpus(), &texts), expect_old);

        // Told in our words, in our segments, it is the same to the original.
        let ours = Folder::new(path("ours"));
        let leader = Leader::open_with_target(ours.clone(), 1 << 18).unwrap();
        let again = |file| {
            let bytes = fs::read(reader.folder().path(&file)).unwrap();
            let payloads = Records::new(&bytes, 0).map(|(_, payload)| {
                Mutation::decode(payload)
                    .expect("the original writes mutations")
                    .encode_to_vec()
            });
            payloads.collect::<Vec<_>>()
        };
        for file in reader.folder().log().unwrap() {
            leader.appender.append(again(file)).unwrap();
        }
        leader.close().unwrap();
        fs::create_dir(path("our-days")).unwrap();
        assert!(ours.log().unwrap().len() > 1);
        for file in ours.log().unwrap() {
            // A name that it reads, and that sorts alike.
            let day = Path::new(&path("our-days")).join(format!("maintner-{file}"));
            fs::copy(ours.path(&file), day).unwrap();
        }
        assert_eq!(run(&program, &["read", &path("our-days"), &path("dump")]), expect);
        assert!(
            expect.split(' ').next().unwrap().parse::<u32>().unwrap() > 5000,
            "{expect}"
        );
    }
}

/// A follower of the original's.
struct Follower {
    said: Lines<BufReader<ChildStdout>>,
    ask: ChildStdin,
    /// Killed with it.
    _child: Child,
}

impl Follower {
    fn start(program: &Path, server: &Server, cache: &Path) -> Follower {
        fs::create_dir_all(cache).unwrap();
        let mut child = tokio::process::Command::new(program)
            .args(if program.ends_with("maintner2026") {
                &["follow"][..]
            } else {
                &[]
            })
            .arg(server.url.as_str())
            .arg(cache)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Follower {
            said,
            ask: child.stdin.take().unwrap(),
            _child: child,
        }
    }

    async fn says(&mut self) -> String {
        let line = timeout(PATIENCE, self.said.next_line())
            .await
            .expect("the original answers");
        line.unwrap().expect("the original runs on")
    }

    async fn update(&mut self) {
        self.ask.write_all(b"\n").await.unwrap();
    }
}

fn leader(dir: &Path, target: u64) -> Leader {
    Leader::open_with_target(Folder::new(dir), target).unwrap()
}

async fn append_synthetic(leader: &Leader, log: &mut Synthetic, count: usize) {
    let payloads = log.take(count).map(|mutation| mutation.encode_to_vec()).collect();
    append(leader, payloads).await;
}

#[tokio::test]
async fn the_original_follows_a_log_through_growth_new_segments_and_a_restart() {
    let Some(program) = original("2026") else { return };
    let dirs = tempfile::tempdir().unwrap();
    let (folder, mut log) = (dirs.path().join("log"), Synthetic::new(7));
    let first = leader(&folder, 1 << 20);
    append_synthetic(&first, &mut log, 1500).await;
    let server = Server::start(|stop| served(&first, stop)).await;
    let mut follower = Follower::start(&program, &server, &dirs.path().join("cache"));
    assert_eq!(follower.says().await, summary_of(&first));

    // It waits, and the last segment grows.
    follower.update().await;
    append_synthetic(&first, &mut log, 5).await;
    assert_eq!(follower.says().await, summary_of(&first));

    let segments = first.visible.borrow().as_ref().unwrap().len();
    append_synthetic(&first, &mut log, 6000).await;
    assert!(first.visible.borrow().as_ref().unwrap().len() > segments + 1);
    follower.update().await;
    assert_eq!(follower.says().await, summary_of(&first));

    // It waits while the server goes and comes back with more.
    follower.update().await;
    let address = server.stop();
    first.close().unwrap();
    let second = leader(&folder, 1 << 20);
    append_synthetic(&second, &mut log, 50).await;
    let server = Server::on(bind_again(address).await, |stop| served(&second, stop));
    assert_eq!(follower.says().await, summary_of(&second));

    // Another that begins with what the first one kept, which our copies take over too.
    let mut late = Follower::start(&program, &server, &dirs.path().join("cache"));
    assert_eq!(late.says().await, summary_of(&second));
    let cache = Folder::new(dirs.path().join("cache"));
    cache
        .seal_all_but_last(&Lease::take(cache.dir()).unwrap())
        .unwrap();
    let mut copy = copy_of(&server.url, cache.dir());
    assert_eq!(Some(&copy.segments()[..]), second.visible.borrow().as_deref());
    append_synthetic(&second, &mut log, 5).await;
    assert_eq!(update(&mut copy).await, maintnerd::Outcome::Grown);
}

#[tokio::test]
async fn the_original_tells_a_log_that_went_another_way() {
    let Some(program) = original("2026") else { return };
    let dirs = tempfile::tempdir().unwrap();
    let one = leader(&dirs.path().join("one"), TARGET);
    let other = leader(&dirs.path().join("other"), TARGET);
    append(&one, vec![issue(1, "a")]).await;
    append(&other, vec![issue(1, "X"), issue(2, "Y")]).await;
    let server = Server::start(|stop| served(&one, stop)).await;
    let mut follower = Follower::start(&program, &server, &dirs.path().join("cache"));
    assert_eq!(follower.says().await, summary_of(&one));
    follower.update().await;
    let address = server.stop();
    let _server = Server::on(bind_again(address).await, |stop| served(&other, stop));
    assert_eq!(follower.says().await, "split");
}

fn totals(corpus: &Corpus) -> String {
    let (mut issues, mut comments, mut events) = (0, 0, 0);
    for issue in corpus.repos().flat_map(|repo| repo.issues()) {
        issues += 1;
        comments += issue.comments.len();
        events += issue.events.len();
    }
    let changes: Vec<usize> = corpus
        .projects()
        .flat_map(|project| project.changes())
        .map(|change| change.metas.len())
        .collect();
    let metas: usize = changes.iter().sum();
    format!(
        "issues {issues} comments {comments} events {events} changes {} metas {metas}",
        changes.len()
    )
}

#[tokio::test]
async fn the_original_of_2019_follows_a_log_and_recovers_from_what_it_kept() {
    let Some(program) = original("2019") else { return };
    let dirs = tempfile::tempdir().unwrap();
    let mut log = Synthetic::new(8);
    let leader = leader(&dirs.path().join("log"), 1 << 20);
    let expect = |leader: &Leader| {
        let segments: Arc<[Segment]> = leader.visible.borrow().clone().unwrap();
        totals(replayed(&leader.reader, &segments).corpus())
    };
    append_synthetic(&leader, &mut log, 3000).await;
    let server = Server::start(|stop| served(&leader, stop)).await;
    let cache = dirs.path().join("cache");
    fs::create_dir(&cache).unwrap();
    // Longer than the segment is: it asks for a range that ends before it begins.
    fs::write(cache.join("0000.growing.mutlog"), vec![b'x'; 3 << 20]).unwrap();
    let mut follower = Follower::start(&program, &server, &cache);
    assert_eq!(follower.says().await, expect(&leader));
    append_synthetic(&leader, &mut log, 3000).await;
    follower.update().await;
    assert_eq!(follower.says().await, expect(&leader));
}
