//! B15: what a farm costs that has nothing to do.

use std::time::Duration;

use super::farm::{Farm, Plan, children, usage};
use super::peer::Buildbot;
use super::{Figure, Setup};

/// The row's time; `--size` is another number of seconds.
const SECONDS: usize = 600;

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let rest = setup.size.unwrap_or(SECONDS);
    let farm = Farm::start(setup, &Plan::local(20, 1, "[\"true\"]"))?;
    let agents = children(farm.pid());
    let (ours, busy) = resting(&[&[farm.pid()][..], &agents].concat(), rest)?;
    let mut figure = Figure::new(
        format!("idle for {rest} s: resident memory of the server and one agent; share of a core"),
        format!("{}; {busy:.2} %", megabytes(&ours)),
        "<= 40 + 8 MB; <= 0.5 %",
    );
    drop(farm);
    if let Some(venv) = &setup.buildbot {
        let buildbot = Buildbot::start(venv, 20, &["true"])?;
        let pids = buildbot.pids();
        let (theirs, busy) = resting(&pids[..2], rest)?;
        figure = figure.beside(format!("{}; {busy:.2} %", megabytes(&theirs)));
    }
    Ok(vec![figure])
}

fn megabytes(sizes: &[u64]) -> String {
    let sizes: Vec<String> = sizes
        .iter()
        .map(|size| format!("{:.1}", *size as f64 / 1e6))
        .collect();
    format!("{} MB", sizes.join(" + "))
}

/// Resident memory of each afterwards, and the share of a processor that all took meanwhile, in percent.
fn resting(pids: &[u32], seconds: usize) -> anyhow::Result<(Vec<u64>, f64)> {
    let look = || {
        pids.iter()
            .map(|pid| usage(*pid))
            .collect::<anyhow::Result<Vec<_>>>()
    };
    std::thread::sleep(Duration::from_secs(2));
    let before = look()?;
    std::thread::sleep(Duration::from_secs(seconds as u64));
    let after = look()?;
    let busy: Duration = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after.1 - before.1)
        .sum();
    let share = busy.as_secs_f64() / seconds as f64 * 100.0;
    Ok((after.into_iter().map(|(resident, _)| resident).collect(), share))
}
