//! Measures real farms: the release binary, its agents, real repositories, everything durable.
//!
//! Each row is a module with one function; [`ROWS`] is the list. A row starts what it needs in a temporary folder,
//! measures from outside (HTTP, files that commands write, `/proc`), and ends it. Figures are never estimated.

mod big_log; // B6
mod dialled_in; // B3
mod farm; // a farm of burrow's, started, asked and ended
mod grid_page; // B10
mod hook_to_command; // B2
mod http; // as much HTTP as a measurement needs
mod idle;
mod made; // a store with a long past
mod peer; // Buildbot, the same way
mod push_to_builds; // B1
mod restart; // B7 // B15

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

/// What was asked for on the command line.
#[derive(Default)]
pub struct Wanted {
    /// None: all.
    pub rows: Vec<String>,
    /// Folder of a Python virtual environment with Buildbot in it.
    pub buildbot: Option<PathBuf>,
    pub size: Option<usize>,
}

/// What a row measures with.
struct Setup {
    burrow: PathBuf,
    buildbot: Option<PathBuf>,
    size: Option<usize>,
}

/// A line of the table.
struct Figure {
    what: String,
    ours: String,
    buildbot: String,
    aim: &'static str,
}

type Measure = fn(&Setup) -> anyhow::Result<Vec<Figure>>;

const ROWS: &[(&str, Measure)] = &[
    ("B1", push_to_builds::measure),
    ("B2", hook_to_command::measure),
    ("B3", dialled_in::measure),
    ("B6", big_log::measure),
    ("B7", restart::measure),
    ("B10", grid_page::measure),
    ("B15", idle::measure),
];

pub fn run(wanted: &Wanted) -> ExitCode {
    match measure(wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(wanted: &Wanted) -> anyhow::Result<()> {
    for row in &wanted.rows {
        let known = || ROWS.iter().map(|(id, _)| *id).collect::<Vec<_>>().join(", ");
        anyhow::ensure!(
            ROWS.iter().any(|(id, _)| id == row),
            "no row `{row}`; there are: {}",
            known()
        );
    }
    let own = std::env::current_exe().context("find this program")?;
    let burrow = own.with_file_name("burrow");
    anyhow::ensure!(
        burrow.is_file(),
        "`{}` is not there; `cargo build --release -p burrow -p xtask` makes both",
        burrow.display()
    );
    let setup = Setup {
        burrow,
        buildbot: wanted.buildbot.clone(),
        size: wanted.size,
    };
    println!("{}", machine());
    println!("\n| id | what | burrow | Buildbot | aim |\n|---|---|---|---|---|");
    for (id, row) in ROWS {
        if !wanted.rows.is_empty() && !wanted.rows.iter().any(|row| row == id) {
            continue;
        }
        for figure in row(&setup).with_context(|| format!("row {id}"))? {
            let Figure {
                what,
                ours,
                buildbot,
                aim,
            } = figure;
            println!("| {id} | {what} | {ours} | {buildbot} | {aim} |");
        }
    }
    Ok(())
}

/// Processors and their name, for the head of the table.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names: Vec<&str> = info
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map(|(_, name)| name.trim())
        .collect();
    format!("{} x {}", names.len(), names.first().unwrap_or(&"unknown"))
}

impl Figure {
    fn new(what: impl Into<String>, ours: impl Into<String>, aim: &'static str) -> Figure {
        Figure {
            what: what.into(),
            ours: ours.into(),
            buildbot: String::new(),
            aim,
        }
    }

    fn beside(mut self, buildbot: impl Into<String>) -> Figure {
        self.buildbot = buildbot.into();
        self
    }
}

/// The value below which `part` of all lie; `times` is not empty.
fn quantile(times: &mut [f64], part: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = (times.len() as f64 * part).ceil() as usize;
    times[at.clamp(1, times.len()) - 1]
}
