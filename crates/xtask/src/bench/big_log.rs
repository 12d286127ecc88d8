//! B6: one step prints a million lines: until all are durable, and how fast they are read back.

use std::time::{Duration, Instant};

use super::farm::{Farm, Plan, seconds};
use super::http::Connection;
use super::peer::Buildbot;
use super::{Figure, Setup};

const LINES: usize = 1_000_000;

/// 45 bytes with its end.
const LINE: &str = "a line of a log as compilers and tests print";

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let lines = setup.size.unwrap_or(LINES);
    let bytes = (lines * (LINE.len() + 1)) as f64;
    let (written, read) = ours(setup, lines)?;
    let speed = |took: Duration| format!("{:.1} MB/s", bytes / 1e6 / took.as_secs_f64());
    let what = format!("{lines} lines, {:.0} MB", bytes / 1e6);
    let mut durable = Figure::new(format!("{what}: until durable"), speed(written), ">= 200 MB/s");
    let mut back = Figure::new(format!("{what}: read back"), speed(read), ">= 400 MB/s");
    if let Some(venv) = &setup.buildbot {
        let (written, read) = theirs(venv, lines)?;
        (durable, back) = (durable.beside(speed(written)), back.beside(speed(read)));
    }
    Ok(vec![durable, back])
}

fn command(lines: usize) -> String {
    format!("yes '{LINE}' | head -n {lines}")
}

/// From the hook until the result is durable would be more than the log: the step says when it begins.
fn ours(setup: &Setup, lines: usize) -> anyhow::Result<(Duration, Duration)> {
    let place = tempfile::tempdir()?;
    let begun = place.path().join("begun");
    let run = format!("date +%s.%N > '{}'; {}", begun.display(), command(lines));
    let mut plan = Plan::local(1, 1, &format!("{run:?}"));
    plan.farm = "max_log = \"4GiB\"\n".to_owned();
    let mut farm = Farm::start(setup, &plan)?;
    farm.upstream.push()?;
    let mut connection = Connection::open(farm.address)?;
    farm.hook(&mut connection)?;
    farm.passed(1, Duration::from_millis(5))?;
    let ended = seconds();
    let began: f64 = std::fs::read_to_string(begun)?.trim().parse()?;
    let written = Duration::from_secs_f64(ended - began);

    let mut best = Duration::MAX;
    for _ in 0..3 {
        let (from, mut size, mut ends) = (Instant::now(), 0, 0);
        let status = connection.send_into("GET", "/build/1/log?step=0", "", "", &mut |piece| {
            size += piece.len();
            ends += usize::from(piece.ends_with(b"\n"));
        })?;
        best = best.min(from.elapsed());
        anyhow::ensure!(
            status == 200 && size == lines * (LINE.len() + 1) && ends > 0,
            "the log has {size} bytes, status {status}"
        );
    }
    Ok((written, best))
}

fn theirs(venv: &std::path::Path, lines: usize) -> anyhow::Result<(Duration, Duration)> {
    let place = tempfile::tempdir()?;
    let begun = place.path().join("begun");
    let run = format!("date +%s.%N > '{}'; {}", begun.display(), command(lines));
    let buildbot = Buildbot::start(venv, 1, &["sh", "-c", &run])?;
    buildbot.hook()?;
    buildbot.complete(1)?;
    let ended = seconds();
    let began: f64 = std::fs::read_to_string(begun)?.trim().parse()?;
    let mut connection = Connection::open(buildbot.address)?;
    let from = Instant::now();
    let mut size = 0;
    let status = connection.send_into("GET", "/api/v2/logs/1/raw", "", "", &mut |piece| {
        size += piece.len()
    })?;
    anyhow::ensure!(
        status == 200 && size >= lines * LINE.len(),
        "Buildbot's log has {size} bytes, status {status}"
    );
    Ok((Duration::from_secs_f64(ended - began), from.elapsed()))
}
