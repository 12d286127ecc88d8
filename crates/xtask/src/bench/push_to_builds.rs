//! B1: one push, many builders of one command that says a word; builds a second until the last result is durable.

use std::time::{Duration, Instant};

use super::farm::{Farm, Plan};
use super::http::Connection;
use super::peer::Buildbot;
use super::{Figure, Setup};

/// As Buildbot is given: two workers of four.
const SLOTS: usize = 8;

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let sizes = setup.size.map_or(vec![100, 1000], |size| vec![size]);
    let mut figures = Vec::new();
    for builders in sizes {
        let mut figure = Figure::new(
            format!("one push, {builders} builders, {SLOTS} at once: builds a second"),
            rate(builders, ours(setup, builders)?),
            ">= 500",
        );
        if let Some(venv) = &setup.buildbot {
            figure = figure.beside(rate(builders, theirs(venv, builders)?));
        }
        figures.push(figure);
    }
    Ok(figures)
}

fn rate(builders: usize, took: Duration) -> String {
    format!(
        "{:.1} ({:.2} s)",
        builders as f64 / took.as_secs_f64(),
        took.as_secs_f64()
    )
}

fn ours(setup: &Setup, builders: usize) -> anyhow::Result<Duration> {
    let mut farm = Farm::start(setup, &Plan::local(builders, SLOTS, "[\"echo\", \"ok\"]"))?;
    farm.upstream.push()?;
    let mut connection = Connection::open(farm.address)?;
    let began = Instant::now();
    farm.hook(&mut connection)?;
    Ok(farm.passed(builders, Duration::from_millis(20))? - began)
}

fn theirs(venv: &std::path::Path, builders: usize) -> anyhow::Result<Duration> {
    let buildbot = Buildbot::start(venv, builders, &["echo", "ok"])?;
    let began = Instant::now();
    buildbot.hook()?;
    Ok(buildbot.complete(builders)? - began)
}
