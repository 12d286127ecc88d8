//! A farm that stands still: a real store and real logs in a folder, behind the pages, without sockets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use blobs::LogStore;
use config::{Config, Defaults, SourceFile};
use dashboard::{Dashboard, HealthItem, Live, QueueView};
use farm::{MachineFacts, NewBuild, Write};
use http_body_util::BodyExt;
use ids::{AttemptId, BranchName, BuildId, GitHash, HostType, MachineId, RepoName, StepId, Timestamp};
use runner::{Command, Outcome, Plan, StepPlan};
use store::read::{CommitRow, Role};
use store::{Store, StoreUrl};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use web::{Frame, Site};

/// 2025-10-09 08:53:20 UTC
pub const THEN: i64 = 1_760_000_000;

pub const CONFIG: &str = r#"
[farm]
name = "test farm"

[repo.widget]
url = "https://example.org/widget.git"
branches = ["main", "release/*"]
recipe = "make"

[host.linux]
pool = "local"
slots = 2

[host.mac]
pool = "reverse"
expect = 3
owners = ["amy@example.org"]
notes = "In the cellar"

[builder.linux-amd64]
host = "linux"
group = "linux"

[builder.linux-race]
host = "linux"
group = "linux"
max_at_once = 1

[builder.mac-arm64]
host = "mac"
group = "mac"
known_issues = ["https://example.org/issue/5"]

[recipe.make]
steps = [{ name = "build", run = ["make"] }, { name = "test", run = ["make", "test"] }]
"#;

pub struct World {
    pub store: Store,
    pub logs: LogStore,
    pub live: Arc<Told>,
    pub router: Router,
    pub stop: CancellationToken,
    /// When all begins, in seconds since 1970.
    then: i64,
    _dir: tempfile::TempDir,
}

/// What the coordinator would tell.
pub struct Told {
    pub config: Mutex<Arc<Config>>,
    pub queue: Mutex<QueueView>,
    pub health: Mutex<Vec<HealthItem>>,
    pub alarm: Mutex<Option<String>>,
}

impl Live for Told {
    fn queue(&self) -> Arc<QueueView> {
        Arc::new(self.queue.lock().unwrap().clone())
    }

    fn config(&self) -> Arc<Config> {
        self.config.lock().unwrap().clone()
    }

    fn health(&self) -> Vec<HealthItem> {
        self.health.lock().unwrap().clone()
    }
}

impl Frame for Told {
    fn farm(&self) -> String {
        self.config().farm.name.clone()
    }

    fn alarm(&self) -> Option<String> {
        self.alarm.lock().unwrap().clone()
    }
}

/// An answer as text.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub fn has(&self, words: &[&str]) -> &Answer {
        let text = self.text();
        for word in words {
            assert!(text.contains(word), "no `{word}` in\n{text}");
        }
        self
    }

    #[track_caller]
    pub fn lacks(&self, words: &[&str]) -> &Answer {
        let text = self.text();
        for word in words {
            assert!(!text.contains(word), "`{word}` in\n{text}");
        }
        self
    }
}

pub fn repo() -> RepoName {
    "widget".parse().unwrap()
}

pub fn branch(name: &str) -> BranchName {
    name.parse().unwrap()
}

pub fn hash(branch: &str, depth: u64) -> GitHash {
    // A branch other than main begins at its third commit.
    let line = if branch == "main" || depth < 3 { 0 } else { 0xb };
    format!("{:07x}{line:033x}", ((depth + 1) * 0x00f0_1357) & 0x0fff_ffff)
        .parse()
        .unwrap()
}

pub fn passed() -> Outcome {
    Outcome::Passed
}

pub fn failed() -> Outcome {
    Outcome::Failed {
        step: 1,
        reason: "step `test`: exit status 2".to_owned(),
    }
}

pub fn lost() -> Outcome {
    Outcome::Infra {
        cause: runner::InfraCause::MachineLost,
        detail: "machine mac7 is gone: connection reset".to_owned(),
    }
}

pub fn attempt(build: u64, n: u32) -> AttemptId {
    AttemptId {
        build: BuildId(build),
        n,
    }
}

impl World {
    pub async fn new() -> World {
        World::with(CONFIG, THEN).await
    }

    pub async fn with(config: &str, then: i64) -> World {
        let dir = tempfile::tempdir().unwrap();
        let url = StoreUrl::Sqlite(dir.path().join("farm.db"));
        let store = Store::open(&url).await.unwrap();
        let logs = LogStore::open(&dir.path().join("logs")).await.unwrap();
        let live = Arc::new(Told {
            config: Mutex::new(Arc::new(read(config))),
            queue: Mutex::default(),
            health: Mutex::default(),
            alarm: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let site = Site::new(store.clone(), live.clone(), stop.clone());
        let dashboard = Dashboard {
            store: store.clone(),
            logs: logs.clone(),
            live: live.clone(),
            site: site.clone(),
        };
        World {
            router: site.wrap(dashboard::routes(dashboard)),
            store,
            logs,
            live,
            stop,
            then,
            _dir: dir,
        }
    }

    pub fn at(&self, secs: i64) -> Timestamp {
        Timestamp::from_secs(self.then + secs)
    }

    /// Commit `depth` of a branch, one each hour.
    pub fn commit(&self, branch: &str, depth: u64) -> CommitRow {
        let people = ["Ada Lind", "Tom Okoro", "Mei Tanaka"];
        let name = people[depth as usize % people.len()];
        let title = format!("part {}: make it better, step {depth}", depth % 5);
        CommitRow {
            repo: repo(),
            hash: hash(branch, depth),
            parents: depth
                .checked_sub(1)
                .map(|depth| hash(branch, depth))
                .into_iter()
                .collect(),
            author_name: name.to_owned(),
            author_email: format!("{}@example.org", &name[..3].to_lowercase()),
            author_time: self.at(depth as i64 * 3600),
            commit_time: self.at(depth as i64 * 3600),
            message: format!("{title}\n\nIt was not good enough."),
            title,
        }
    }

    /// Commits 0 to `head` of a branch, the last of them as `change` makes it.
    pub async fn history(&self, name: &str, head: u64, change: fn(&mut CommitRow)) {
        let mut commits: Vec<CommitRow> = (0..=head).rev().map(|depth| self.commit(name, depth)).collect();
        change(&mut commits[0]);
        let now = self.at(head as i64 * 3600 + 60);
        let branch = branch(name);
        self.store
            .record_branch(&repo(), &branch, &commits, head, head + 1, now)
            .await
            .unwrap();
        let default = "main".parse().unwrap();
        self.store
            .record_repo_state(&repo(), Some(&default), None, now)
            .await
            .unwrap();
    }

    pub async fn apply(&self, writes: &[Write]) {
        self.store.apply(writes).await.unwrap();
    }

    pub fn up(&self, name: &str, host: &str, secs: i64) -> Write {
        Write::MachineUp {
            machine: name.parse().unwrap(),
            host_type: host.parse().unwrap(),
            at: self.at(secs),
            facts: MachineFacts {
                pool: if host == "linux" { "local" } else { "reverse" }.to_owned(),
                version: 27,
                software: "burrow 0.1.0".to_owned(),
                address: "192.0.2.7:41212".to_owned(),
                resumable: true,
            },
        }
    }

    pub fn down(&self, name: &str, secs: i64) -> Write {
        Write::MachineDown {
            machine: name.parse().unwrap(),
            at: self.at(secs),
            why: "unplugged".to_owned(),
        }
    }

    pub fn created(&self, build: u64, commit: GitHash, builder: &str, secs: i64) -> Write {
        Write::BuildCreated(NewBuild {
            build: BuildId(build),
            repo: repo(),
            commit,
            builder: builder.parse().unwrap(),
            requested: self.at(secs),
            tries_left: 3,
        })
    }

    pub fn started(&self, attempt: AttemptId, on: &str, secs: i64) -> Vec<Write> {
        let step = |name: &str, args: &[&str]| StepPlan {
            name: name.to_owned(),
            command: Command::Args(args.iter().map(|arg| (*arg).to_owned()).collect()),
            dir: "src".to_owned(),
            env: Vec::new(),
            timeout: Duration::from_secs(60),
            silence: Duration::from_secs(10),
            limits: ids::Limits::default(),
        };
        let start = Write::AttemptStarted {
            attempt,
            machine: MachineId::parse(on).unwrap(),
            host_type: HostType::parse(if on.starts_with("mac") { "mac" } else { "linux" }).unwrap(),
            at: self.at(secs),
            plan: Plan {
                source_dir: "src".to_owned(),
                steps: vec![step("build", &["make"]), step("test", &["make", "test"])],
                limit: Duration::from_secs(3600),
            },
        };
        vec![start, self.step_started(attempt, 0, secs)]
    }

    pub fn step_started(&self, attempt: AttemptId, index: u32, secs: i64) -> Write {
        let at = self.at(secs);
        Write::StepStarted {
            step: StepId { attempt, index },
            at,
        }
    }

    pub fn step_ended(&self, attempt: AttemptId, index: u32, secs: i64, ok: bool) -> Write {
        Write::StepEnded {
            step: StepId { attempt, index },
            at: self.at(secs),
            ok,
            state: if ok { "ok" } else { "exit status 2" }.to_owned(),
        }
    }

    /// The rest of an attempt that began at `secs`; the build is done with it.
    pub fn ended(&self, attempt: AttemptId, secs: i64, outcome: Outcome) -> Vec<Write> {
        let mut writes = Vec::new();
        if let Outcome::Passed | Outcome::Failed { .. } = outcome {
            writes.extend([
                self.step_ended(attempt, 0, secs + 3, true),
                self.step_started(attempt, 1, secs + 3),
                self.step_ended(attempt, 1, secs + 10, outcome == Outcome::Passed),
            ]);
        }
        let at = self.at(secs + 10);
        writes.push(Write::AttemptEnded {
            attempt,
            at,
            outcome: outcome.clone(),
        });
        writes.push(Write::BuildDone {
            build: attempt.build,
            at,
            outcome,
        });
        writes
    }

    /// A build that was made, started and done in one go.
    pub async fn built(&self, build: u64, commit: GitHash, builder: &str, secs: i64, outcome: Outcome) {
        let machine = if builder.starts_with("mac") {
            "mac7"
        } else {
            "local-1"
        };
        let attempt = attempt(build, 1);
        let mut writes = vec![self.created(build, commit, builder, secs)];
        writes.extend(self.started(attempt, machine, secs));
        writes.extend(self.ended(attempt, secs, outcome));
        self.apply(&writes).await;
    }

    pub async fn again(&self, build: u64, n: u32, secs: i64, outcome: Outcome) {
        let wait = Write::BuildWaiting {
            build: BuildId(build),
            since: self.at(secs),
            not_before: None,
            tries_left: 3,
            why: String::new(),
        };
        let mut writes = vec![wait];
        writes.extend(self.started(attempt(build, n), "local-2", secs));
        writes.extend(self.ended(attempt(build, n), secs, outcome));
        self.apply(&writes).await;
    }

    /// What a step prints, as the coordinator would append it. `17.1.0`
    pub async fn print(&self, step: &str, text: &[u8]) {
        let mut writer = self.logs.writer(step.parse().unwrap(), 1 << 30).await.unwrap();
        writer.append(text).await.unwrap();
    }

    /// A token's secret.
    pub async fn token(&self, name: &str, role: Role) -> String {
        let made = self.store.create_token(name, role, None, self.at(0)).await;
        made.unwrap().secret
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(path);
        if !headers.iter().any(|(name, _)| *name == "accept") {
            request = request.header("accept", "text/html");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// A page that must be there.
    #[track_caller]
    pub fn page(&self, path: &str) -> impl Future<Output = Answer> {
        let place = std::panic::Location::caller();
        let path = path.to_owned();
        async move {
            let answer = self.get(&path).await;
            assert_eq!(
                answer.status,
                StatusCode::OK,
                "{path}, asked at {place}: {}",
                answer.text()
            );
            answer
        }
    }

    pub async fn json(&self, path: &str) -> serde_json::Value {
        let answer = self.get_with(path, &[("accept", "application/json")]).await;
        assert_eq!(answer.header(header::CONTENT_TYPE), "application/json", "{path}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    pub fn wait(
        &self,
        build: u64,
        builder: &str,
        host: &str,
        ahead: usize,
        reason: schedule::Reason,
    ) -> schedule::Waiting {
        schedule::Waiting {
            build: BuildId(build),
            builder: builder.parse().unwrap(),
            repo: repo(),
            host_type: host.parse().unwrap(),
            class: schedule::Class::PostSubmit,
            requested: self.at(40_000),
            ahead,
            reason,
            starts: None,
        }
    }
}

pub fn read(text: &str) -> Config {
    let file = SourceFile {
        name: "burrow.toml".to_owned(),
        text: text.to_owned(),
    };
    let defaults = Defaults {
        cpus: 2,
        os_arch: "linux-amd64".to_owned(),
        state_dir: "state".into(),
    };
    match Config::check(&[file], &defaults) {
        Ok(checked) => checked.config,
        Err(problems) => panic!("{problems}"),
    }
}

/// A bit of everything: eight commits with a breakage on one builder that is mended and one that is
/// not, a flake, a lost machine, a build that runs and two that wait.
pub async fn farm(then: i64) -> World {
    let world = World::with(CONFIG, then).await;
    world.history("main", 7, |_| {}).await;
    world.history("release/1.0", 3, |_| {}).await;
    let all = [
        world.up("local-1", "linux", 10),
        world.up("local-2", "linux", 10),
        world.up("mac7", "mac", 20),
        world.up("mac8", "mac", 30),
        world.down("mac8", 9000),
    ];
    world.apply(&all).await;
    let on = |depth| hash("main", depth);
    for depth in 0..7 {
        let secs = depth as i64 * 3600 + 100;
        let linux = if (2..5).contains(&depth) {
            failed()
        } else {
            passed()
        };
        world
            .built(depth * 3 + 1, on(depth), "linux-amd64", secs, linux)
            .await;
        let race = if depth >= 5 { failed() } else { passed() };
        if depth != 4 {
            world
                .built(depth * 3 + 2, on(depth), "linux-race", secs + 20, race)
                .await;
        }
        if depth < 6 {
            let mac = if depth == 5 { lost() } else { failed() };
            world
                .built(depth * 3 + 3, on(depth), "mac-arm64", secs + 40, mac)
                .await;
        }
    }
    world.again(1, 2, 500, failed()).await;
    world.again(1, 3, 600, passed()).await;
    for build in [7, 10, 13, 17, 20] {
        world
            .print(&format!("{build}.1.0"), b"cc -c slug.c\ncc -o widget slug.o\n")
            .await;
        world
            .print(
                &format!("{build}.1.1"),
                b"=== RUN  slug\n--- PASS slug\n=== RUN  table\n\x1b[31m--- FAIL: table\x1b[0m (0.02s)\n    table_test.c:41: got 3 columns, want 4\nFAIL\nexit status 2\n",
            )
            .await;
    }
    let mut writes = vec![
        world.created(22, on(7), "linux-amd64", 25_300),
        world.created(23, on(7), "linux-race", 25_300),
        world.created(24, on(7), "mac-arm64", 25_300),
    ];
    writes.extend(world.started(attempt(22, 1), "local-1", 25_310));
    world.apply(&writes).await;
    world.print("22.1.0", b"cc -c slug.c\ncc -c table").await;
    let mut race = world.wait(
        23,
        "linux-race",
        "linux",
        0,
        schedule::Reason::AllBusy { machines: 2 },
    );
    race.starts = Some(world.at(25_400));
    let mac = world.wait(24, "mac-arm64", "mac", 0, schedule::Reason::NoMachine);
    *world.live.queue.lock().unwrap() = QueueView {
        waiting: Arc::new(vec![race, mac]),
        at: world.at(25_320),
        paused: None,
    };
    *world.live.health.lock().unwrap() = vec![HealthItem {
        name: "store".to_owned(),
        ok: true,
        text: "takes writes".to_owned(),
    }];
    world
}
