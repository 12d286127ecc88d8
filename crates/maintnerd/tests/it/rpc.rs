//! The RPC service beside golang/build's own, on the same log.

use std::collections::BTreeMap;
use std::fs;

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::get;
use maintnerd::{Replay, Snapshot};
use maintpb::{GerritMutation, GitCommit, GitDiffTree, GitRef, Message, Mutation};
use mutlog::{Folder, FolderDisk, Lease, TARGET, Writer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use web::{Door, Limits, RawHandler, RawHead, RawStream, Server};

use crate::original::program;

/// Makes a log by hand: its commits have names of our choice, which nobody checks.
#[derive(Default)]
struct Maker {
    payloads: Vec<Vec<u8>>,
    count: u64,
}

impl Maker {
    fn tell(&mut self, project: &str, told: GerritMutation) {
        let told = GerritMutation {
            project: format!("go.googlesource.com/{project}"),
            ..told
        };
        let mutation = Mutation {
            gerrit: Some(told),
            ..Mutation::default()
        };
        self.payloads.push(mutation.encode_to_vec());
    }

    fn commit(&mut self, project: &str, parents: &[&str], author: &str, time: i64, message: &str) -> String {
        self.count += 1;
        let sha1 = format!(
            "{:040x}",
            u128::from(self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 60
        );
        let parents: String = parents
            .iter()
            .map(|parent| format!("parent {parent}\n"))
            .collect();
        let raw = format!(
            "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n{parents}author {author} {time} +0000\n\
             committer C <c@example.org> {time} +0000\n\n{message}"
        );
        let commit = GitCommit {
            sha1: sha1.clone(),
            raw: raw.into_bytes(),
            diff_tree: Some(GitDiffTree::default()),
        };
        self.tell(
            project,
            GerritMutation {
                commits: vec![commit],
                ..GerritMutation::default()
            },
        );
        sha1
    }

    /// Commits on top of each other, at these times.
    fn line(&mut self, project: &str, from: Option<&str>, times: impl IntoIterator<Item = i64>) -> String {
        let mut head = from.map(str::to_owned);
        for time in times {
            let parents: Vec<&str> = head.as_deref().into_iter().collect();
            let message = format!("{project}: at {time} \n\nMore.\n");
            head = Some(self.commit(project, &parents, "Ann Ö <ann@example.org>", time, &message));
        }
        head.expect("some commit")
    }

    fn refs(&mut self, project: &str, refs: &[(&str, &str)]) {
        let told = |(name, sha1): &(&str, &str)| GitRef {
            r#ref: (*name).to_owned(),
            sha1: (*sha1).to_owned(),
        };
        self.tell(
            project,
            GerritMutation {
                refs: refs.iter().map(told).collect(),
                ..GerritMutation::default()
            },
        );
    }

    /// A change with one patch set; `steps` are what follows its creation. Its commit.
    fn change(&mut self, project: &str, number: i32, branch: &str, steps: &[&str]) -> String {
        let id = format!("I{number:040}");
        let message = format!("{project}: change\n\nChange-Id: {id}\n");
        let commit = self.commit(project, &[], "Bob <bob@example.org>", 5000, &message);
        let created = format!(
            "Create change\n\nUploaded patch set 1.\n\nPatch-set: 1\nChange-id: {id}\nSubject: change\n\
             Branch: refs/heads/{branch}\nStatus: new\nCommit: {commit}\n"
        );
        let who = "Gerrit User 5 <5@62eb7196>";
        let mut meta = self.commit(project, &[], who, 5000, &created);
        for (at, step) in (1..).zip(steps) {
            meta = self.commit(project, &[&meta], who, 5000 + at, step);
        }
        let shard = format!("{:02}", number % 100);
        self.refs(
            project,
            &[
                (&format!("refs/changes/{shard}/{number}/meta"), &meta),
                (&format!("refs/changes/{shard}/{number}/1"), &commit),
            ],
        );
        commit
    }
}

const VOTE: &str = "Update patch set 1\n\nPatch Set 1: Run-TryBot+1\n\nPatch-set: 1\nLabel: Run-TryBot=+1\n";
const RESULT: &str =
    "Update patch set 1\n\nPatch Set 1: TryBot-Result+1\n\nPatch-set: 1\nLabel: TryBot-Result=+1\n";
const ABANDONED: &str = "Abandon\n\nAbandoned\n\nPatch-set: 1\nStatus: abandoned\n";

/// What a review server answers to the query of what waits: project, number, commit.
type Waiting = Vec<(String, i32, String)>;

fn made() -> (Vec<Vec<u8>>, Waiting) {
    let mut maker = Maker::default();
    let master = maker.line("go", None, (0..40).map(|n| 1000 + n * 100));
    let dev = maker.line("go", Some(&master), [5000, 5001, 5001]);
    let mut releases = BTreeMap::new();
    for minor in [19, 20, 21] {
        releases.insert(
            minor,
            maker.line("go", Some(&master), [6000 + minor, 7000 + minor * 10]),
        );
    }
    maker.refs(
        "go",
        &[
            ("HEAD", &master),
            ("refs/heads/master", &master),
            ("refs/heads/dev.link", &dev),
            ("refs/heads/release-branch.go1.19", &releases[&19]),
            ("refs/heads/release-branch.go1.20", &releases[&20]),
            ("refs/heads/release-branch.go1.21", &releases[&21]),
            ("refs/heads/release-branch.go1.30.0", &master),
            ("refs/tags/go1.19.2", &master),
            ("refs/tags/go1.20", &releases[&20]),
            ("refs/tags/go1.20.11", &dev),
            ("refs/tags/go1.20.2", &master),
            ("refs/tags/go1.21.1", &releases[&21]),
            ("refs/tags/go1.22rc1", &master),
        ],
    );
    // Between the commits of go, before all and after all of them.
    let net = maker.line("net", None, [500, 1050, 1500, 1500, 2222, 4900, 9000]);
    maker.refs(
        "net",
        &[
            ("refs/heads/master", &net),
            ("refs/heads/release-branch.go1.20", &net),
        ],
    );
    let tools = maker.line("tools", None, [3000]);
    maker.refs("tools", &[("refs/heads/master", &tools)]);
    let mut waiting = Waiting::new();
    for (project, number, branch, steps) in [
        ("go", 1, "master", &[VOTE][..]),
        ("go", 2, "release-branch.go1.20", &[VOTE]),
        ("go", 3, "master", &[]),
        ("net", 4, "master", &[VOTE]),
        ("net", 5, "master", &[VOTE, RESULT]),
        ("net", 6, "internal-branch.go1.21-vendor", &[VOTE]),
        ("net", 7, "internal-branch.go1.18-vendor", &[VOTE]),
        ("net", 8, "dev.x", &[VOTE]),
        ("net", 9, "master", &[VOTE, ABANDONED]),
        ("tools", 10, "gopls-release-branch.0.1", &[VOTE]),
    ] {
        let commit = maker.change(project, number, branch, steps);
        if steps == [VOTE] {
            waiting.push((project.to_owned(), number, commit));
        }
    }
    (maker.payloads, waiting)
}

/// A review server, as far as the original's service asks it.
async fn review(State(waiting): State<Waiting>, uri: Uri) -> String {
    if uri.path() != "/changes/" {
        // Comments of a change.
        return ")]}'\n{}".to_owned();
    }
    let change = |(project, number, commit): &(String, i32, String)| {
        serde_json::json!({
            "project": project, "_number": number, "status": "NEW", "current_revision": commit,
            "revisions": { commit.as_str(): { "_number": 1 } },
        })
    };
    let changes: Vec<_> = waiting.iter().map(change).collect();
    format!(")]}}'\n{}", serde_json::Value::from(changes))
}

struct NoRaw;

impl RawHandler for NoRaw {
    fn handle(&self, _: RawHead, _: RawStream) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

#[tokio::test]
async fn the_originals_service_and_ours_answer_the_same() {
    let Some(program) = program("rpc") else { return };
    let dirs = tempfile::tempdir().unwrap();
    let (payloads, waiting) = made();
    assert_eq!(waiting.len(), 7);
    // As the original keeps a log, and as we do.
    let days = dirs.path().join("days");
    fs::create_dir(&days).unwrap();
    let mut bytes = Vec::new();
    for payload in &payloads {
        let offset = bytes.len() as u64;
        mutlog::put(&mut bytes, offset, payload);
    }
    fs::write(days.join("maintner-0000.mutlog"), bytes).unwrap();
    let folder = Folder::new(dirs.path().join("log"));
    let disk = FolderDisk::new(folder.clone(), Lease::take(folder.dir()).unwrap());
    let (mut writer, _) = Writer::open(disk, TARGET, 1).unwrap();
    for payload in &payloads {
        writer.append(payload).unwrap();
    }
    writer.commit().unwrap();
    let texts = mutlog::LogReader::new(folder);
    let mut replay = Replay::default();
    replay.advance(&texts, &writer.visible()).unwrap();
    assert!(replay.counts().troubles.is_empty(), "{:?}", replay.counts());
    let snapshot = Snapshot {
        corpus: std::sync::Arc::new(replay.corpus().clone()),
        texts,
        size: 1,
    };

    let stop = CancellationToken::new();
    let (_keep, snapshots) = watch::channel(Some(snapshot));
    let server = Server {
        router: maintnerd::rpc(snapshots),
        raw_paths: Vec::new(),
        raw: std::sync::Arc::new(NoRaw),
        raw_header: None,
        limits: Limits::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(web::serve(vec![Door::Plain(listener)], server, stop.clone()));
    let reviews = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let review_url = format!("http://{}", reviews.local_addr().unwrap());
    let router = Router::new().fallback(get(review)).with_state(waiting);
    let reviewing = tokio::spawn(async move { axum::serve(reviews, router).await });

    let mut asking = tokio::process::Command::new(program);
    asking
        .arg(&days)
        .arg(address.to_string())
        .arg(&review_url)
        .kill_on_drop(true);
    let asked = tokio::time::timeout(crate::farm::PATIENCE, asking.output());
    let asked = asked.await.expect("it asks in time").unwrap();
    let said = String::from_utf8_lossy(&asked.stdout);
    assert!(
        asked.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&asked.stderr)
    );
    let last = said.lines().last().unwrap();
    assert!(last.ends_with(" differ 0"), "{said}");
    let count: u32 = last.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(count > 2000, "{last}");
    // One is passed over: the branch that it is for is not there.
    assert!(said.contains("waiting 6\n"), "{said}");
    stop.cancel();
    serving.await.unwrap().unwrap();
    reviewing.abort();
}
