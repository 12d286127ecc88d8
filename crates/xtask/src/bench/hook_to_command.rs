//! B2: an idle farm, push after push: from the hook until the command runs.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::farm::{Farm, Plan, seconds};
use super::http::Connection;
use super::peer::Buildbot;
use super::{Figure, Setup, quantile};

const PUSHES: usize = 200;

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let pushes = setup.size.unwrap_or(PUSHES);
    let mut times = ours(setup, pushes)?;
    let mut figure = Figure::new(
        format!("{pushes} pushes, hook to running command: p50 / p99"),
        shown(&mut times),
        "<= 20 / 80 ms",
    );
    if let Some(venv) = &setup.buildbot {
        figure = figure.beside(shown(&mut theirs(venv, pushes)?));
    }
    Ok(vec![figure])
}

fn shown(times: &mut [f64]) -> String {
    format!(
        "{:.0} / {:.0} ms",
        quantile(times, 0.5) * 1e3,
        quantile(times, 0.99) * 1e3
    )
}

/// A command that leaves the time at which it ran in a file.
fn command(file: &Path) -> String {
    format!("date +%s.%N > '{0}.new'; mv '{0}.new' '{0}'", file.display())
}

/// Waits for the file, takes the time from it and removes it.
fn ran(file: &Path) -> anyhow::Result<f64> {
    let began = Instant::now();
    while !file.exists() {
        anyhow::ensure!(
            began.elapsed() < Duration::from_secs(60),
            "the command did not run"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let text = fs::read_to_string(file)?;
    fs::remove_file(file)?;
    text.trim().parse().context("read the time")
}

fn ours(setup: &Setup, pushes: usize) -> anyhow::Result<Vec<f64>> {
    let place = tempfile::tempdir()?;
    let file = place.path().join("ran");
    let mut farm = Farm::start(setup, &Plan::local(1, 2, &format!("{:?}", command(&file))))?;
    let mut connection = Connection::open(farm.address)?;
    let mut times = Vec::new();
    for n in 1..=pushes {
        farm.upstream.push()?;
        let began = seconds();
        farm.hook(&mut connection)?;
        times.push(ran(&file)? - began);
        farm.passed(n, Duration::from_millis(10))?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(times)
}

fn theirs(venv: &Path, pushes: usize) -> anyhow::Result<Vec<f64>> {
    let place = tempfile::tempdir()?;
    let file = place.path().join("ran");
    let buildbot = Buildbot::start(venv, 1, &["sh", "-c", &command(&file)])?;
    let mut times = Vec::new();
    for n in 1..=pushes {
        let began = seconds();
        buildbot.hook()?;
        times.push(ran(&file)? - began);
        buildbot.complete(n)?;
    }
    Ok(times)
}
