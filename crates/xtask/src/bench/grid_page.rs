//! B10: the grid of 120 builders and 30 commits, out of a million builds: how long the server takes, and how much it sends.

use std::time::Instant;

use super::farm::{Farm, Plan, Upstream};
use super::http::Connection;
use super::made::{Past, REPO};
use super::peer::Buildbot;
use super::{Figure, Setup, quantile};

const BUILDERS: usize = 120;
const BUILDS: usize = 1_000_000;
const ROWS: usize = 30;

/// Pages asked for, each of them another one.
const PAGES: usize = 200;

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let past = Past {
        builders: BUILDERS,
        commits: setup.size.unwrap_or(BUILDS) / BUILDERS,
    };
    let folder = tempfile::tempdir()?;
    past.make(&folder.path().join("state"))?;
    let upstream = Upstream::make(folder.path().join("widget.git"))?;
    let mut plan = Plan::local(BUILDERS, 1, "[\"true\"]");
    plan.machines += &past_repo();
    let mut farm = Farm::start_in(setup, &plan, folder, upstream)?;
    let path = format!("/repo/{REPO}/main?limit={ROWS}");
    farm.until("the past is shown", |farm| {
        Ok(Connection::open(farm.address)?.get(&path)?.status == 200)
    })?;
    let mut connection = Connection::open(farm.address)?;
    let (mut fresh, size) = pages(&mut connection, &path)?;
    let mut again = Vec::new();
    for _ in 0..PAGES {
        let began = Instant::now();
        connection.send("GET", &path, "Accept-Encoding: gzip\r\n", "")?;
        again.push(began.elapsed().as_secs_f64());
    }
    let times = |times: &mut [f64]| {
        format!(
            "{:.1} / {:.1} ms",
            quantile(times, 0.5) * 1e3,
            quantile(times, 0.99) * 1e3
        )
    };
    let what = format!(
        "grid of {BUILDERS} x {ROWS}, {} builds in the store",
        past.builds()
    );
    let mut shown = Figure::new(
        format!("{what}: a page that nobody has looked at, p50 / p99"),
        times(&mut fresh),
        "<= 15 ms",
    );
    if let Some(venv) = &setup.buildbot {
        shown = shown.beside(times(&mut theirs(venv)?));
    }
    Ok(vec![
        shown,
        Figure::new(
            format!("{what}: the newest page again"),
            times(&mut again),
            "<= 15 ms",
        ),
        Figure::new(
            format!("{what}: compressed"),
            format!("{:.0} KB", size as f64 / 1e3),
            "<= 150 KB",
        ),
    ])
}

/// The made repository, in the configuration: its upstream is away.
pub fn past_repo() -> String {
    format!("[repo.{REPO}]\nurl = \"/nonexistent/past.git\"\nrecipe = \"r\"\npoll = \"1h\"\n")
}

/// Times of pages from the newest on back, and the size of the largest.
fn pages(connection: &mut Connection, path: &str) -> anyhow::Result<(Vec<f64>, usize)> {
    let (mut times, mut size, mut before) = (Vec::new(), 0, String::new());
    for _ in 0..PAGES {
        let began = Instant::now();
        let page = connection.send("GET", &format!("{path}{before}"), "Accept-Encoding: gzip\r\n", "")?;
        times.push(began.elapsed().as_secs_f64());
        anyhow::ensure!(page.status == 200, "a page was answered {}", page.status);
        size = size.max(page.body.len());
        // Looking up the next cursor must not make the next page one that has been looked at.
        let json = connection.get(&format!("{path}{before}&builder=b0000").replace("/main", "/main.json"))?;
        let json: serde_json::Value = serde_json::from_slice(&json.body)?;
        let Some(cursor) = json["before"].as_str() else {
            break;
        };
        before = format!("&before={cursor}");
    }
    Ok((times, size))
}

/// Buildbot has no page on the server's side: what its grid asks for, the newest builds, of one commit where ours shows thirty.
fn theirs(venv: &std::path::Path) -> anyhow::Result<Vec<f64>> {
    let buildbot = Buildbot::start(venv, BUILDERS, &["true"])?;
    // One commit's builds; it takes a while to make those of thirty.
    buildbot.hook()?;
    buildbot.complete(BUILDERS)?;
    let mut connection = Connection::open(buildbot.address)?;
    let mut times = Vec::new();
    for _ in 0..30 {
        let began = Instant::now();
        let answer = connection.get("/api/v2/builds?limit=120&order=-buildid")?;
        times.push(began.elapsed().as_secs_f64());
        anyhow::ensure!(answer.status == 200, "Buildbot answered {}", answer.status);
    }
    Ok(times)
}
