//! Serves made-up farms to look at: a full one, an empty one and one in trouble.
//!
//! `cargo run -p dashboard --example gallery` prints their addresses.

#[path = "../tests/it/world.rs"]
#[allow(dead_code)]
mod world;

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use web::{Door, Limits, RawHandler, RawHead, RawStream, Server};
use world::{World, failed, hash, lost, passed};

struct NoRaw;

impl RawHandler for NoRaw {
    fn handle(&self, _: RawHead, _: RawStream) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

#[tokio::main]
async fn main() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let some = world::farm(now - 25_400).await;
    let full = full(now).await;
    let empty = World::new().await;
    let broken = broken(now).await;
    // Each address once: the same one would be remembered.
    for path in ["/repo/widget/main?limit=49", "/repo/widget/main?limit=50", "/"] {
        let start = Instant::now();
        let answer = full.page(path).await;
        println!(
            "full {path}: {} KiB in {:?}",
            answer.body.len() >> 10,
            start.elapsed()
        );
    }
    let mut serving = tokio::task::JoinSet::new();
    for (name, world) in [
        ("some", some),
        ("full", full),
        ("empty", empty),
        ("broken", broken),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{name} http://{}", listener.local_addr().unwrap());
        let server = Server {
            router: world.router.clone(),
            raw_paths: Vec::new(),
            raw_header: None,
            raw: Arc::new(NoRaw),
            limits: Limits::default(),
        };
        serving.spawn(async move {
            // Whole: its folder goes with it.
            let world = world;
            web::serve(vec![Door::Plain(listener)], server, world.stop.clone()).await
        });
    }
    while serving.join_next().await.is_some() {}
}

/// 120 builders in nine groups, 60 commits.
async fn full(now: i64) -> World {
    let groups = [
        "linux", "darwin", "windows", "freebsd", "openbsd", "netbsd", "android", "plan9", "race",
    ];
    let mut config = world::CONFIG
        .split("[builder.linux-amd64]")
        .next()
        .unwrap()
        .replace("test farm", "Widget farm");
    let mut names = Vec::new();
    for n in 0..120 {
        let group = groups[(n * groups.len()) / 120];
        let arch = ["amd64", "arm64", "386", "riscv64", "ppc64le"][n % 5];
        let name = format!(
            "{group}-{arch}-{}",
            ["", "longtest", "nocgo", "noopt", "boringcrypto"][n / 5 % 5]
        );
        let name = format!(
            "{}{}",
            name.trim_end_matches('-'),
            if n % 17 == 3 {
                format!("-v{n}")
            } else {
                String::new()
            }
        );
        if names.contains(&name) {
            continue;
        }
        let host = if group == "darwin" { "mac" } else { "linux" };
        let known = if n % 31 == 7 {
            "known_issues = [\"https://example.org/issue/7\"]\n"
        } else {
            ""
        };
        write!(
            config,
            "[builder.{name}]\nhost = \"{host}\"\ngroup = \"{group}\"\n{known}\n"
        )
        .unwrap();
        names.push(name);
    }
    config.push_str("[recipe.make]\nsteps = [{ name = \"build\", run = [\"make\"] }, { name = \"test\", run = [\"make\", \"test\"] }]\n");
    let world = World::with(&config, now - 60 * 3600).await;
    world.history("main", 59, |_| {}).await;
    world.history("release/1.0", 12, |_| {}).await;
    world
        .apply(&[world.up("local-1", "linux", 0), world.up("mac7", "mac", 0)])
        .await;
    let mut build = 0;
    for depth in 0..60_u64 {
        for (n, name) in names.iter().enumerate() {
            build += 1;
            let dice = (build * 2_654_435_761_u64) >> 7 & 0xff;
            let secs = depth as i64 * 3600 + n as i64;
            let commit = hash("main", depth);
            if depth >= 58 && dice < 140 {
                world.apply(&[world.created(build, commit, name, secs)]).await;
                continue;
            }
            let outcome = match dice {
                0..4 => lost(),
                4..9 => failed(),
                _ if n % 23 == 5 && (20..40).contains(&depth) => failed(),
                _ if n % 29 == 11 && depth > 50 => failed(),
                _ => passed(),
            };
            world.built(build, commit, name, secs, outcome).await;
            if dice == 77 {
                world.again(build, 2, secs + 20, failed()).await;
            }
        }
    }
    world
}

/// Nothing is well: the mirror, the disk, the machines; titles, names and logs mean no good.
async fn broken(now: i64) -> World {
    let world = world::farm(now - 25_400).await;
    world
        .history("main", 8, |commit| {
            commit.title = "\u{202e}<script>alert(1)</script> a title that goes on and on, as if nobody had ever said that the first line of a commit should be short, without-a-place-to-break-it-".to_owned() + &"x".repeat(80);
        })
        .await;
    let gone = Some(
        "git fetch: fatal: unable to access 'https://example.org/widget.git/': Could not resolve host: example.org",
    );
    world
        .store
        .record_repo_state(&world::repo(), None, gone, world.at(25_000))
        .await
        .unwrap();
    *world.live.alarm.lock().unwrap() =
        Some("Nothing is started: 96 MiB are free in the state folder, wanted 1 GiB".to_owned());
    world.live.queue.lock().unwrap().paused =
        Some("96 MiB are free in the state folder, wanted 1 GiB".to_owned());
    world
        .apply(&[world.down("local-1", 25_330), world.down("mac7", 25_340)])
        .await;
    let mut log = String::new();
    for n in 0..6000 {
        writeln!(log, "\x1b[3{}mline {n}\x1b[0m {}", n % 8, "=".repeat(n % 90)).unwrap();
    }
    log.push_str("test slug ... \x1b[1;31mFAILED\x1b[0m\nthread 'slug' panicked at src/slug.rs:41:9:\nassertion `left == right` failed\n  left: \"a-b\"\n right: \"a--b\"\n");
    world.print("20.1.1", log.as_bytes()).await;
    world
        .print(
            "22.1.0",
            b"le.c\n<script>alert(1)</script> \xff\xfe \xe2\x80\xaeright to left\n",
        )
        .await;
    world
}
