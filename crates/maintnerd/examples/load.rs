//! Measures how long a corpus takes to load, and in how much memory:
//!
//! ```text
//! cargo run --release -p maintnerd --example load -- DIR [RECORDS]
//! ```
//!
//! DIR keeps the log, which is made up at the first run: 1.06 million records, 512 MiB, unless told
//! otherwise. With a Go toolchain, the original of 2026 loads the same log beside. Each load is a process
//! of its own, after one whose time does not count.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use maintnerd::synthetic::Synthetic;
use maintnerd::{Leader, Replay};
use maintpb::Message;
use mutlog::Folder;

const RECORDS: usize = 1_060_000;
const BATCH: usize = 4000;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["ours", dir] => ours(Path::new(dir)),
        [dir] => compare(Path::new(dir), RECORDS),
        [dir, records] => compare(Path::new(dir), records.parse()?),
        _ => anyhow::bail!("usage: load DIR [RECORDS]"),
    }
}

fn compare(dir: &Path, records: usize) -> anyhow::Result<()> {
    let log = dir.join("log");
    if !log.is_dir() {
        make(&log, records)?;
    }
    let load = || run(Command::new(std::env::current_exe()?).arg("ours").arg(&log));
    load()?;
    println!("burrow    {}", load()?);

    let program = std::path::absolute(dir.join("maintner"))?;
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/go/2026");
    let build = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(sources)
        .status();
    if !build.is_ok_and(|built| built.success()) {
        println!("original  not measured: no Go to build it with");
        return Ok(());
    }
    let days = dir.join("days");
    if !days.is_dir() {
        fs::create_dir(&days)?;
        let folder = Folder::new(&log);
        for file in folder.log()? {
            // A name that it reads, and that sorts alike.
            fs::hard_link(folder.path(&file), days.join(format!("maintner-{file}")))?;
        }
    }
    println!(
        "original  {}",
        run(Command::new(program).arg("read").arg(days).arg("-time"))?
    );
    Ok(())
}

fn make(log: &Path, records: usize) -> anyhow::Result<()> {
    let leader = Leader::open(Folder::new(log))?;
    let mut mutations = Synthetic::new(1).take(records);
    loop {
        let batch: Vec<Vec<u8>> = mutations
            .by_ref()
            .take(BATCH)
            .map(|mutation| mutation.encode_to_vec())
            .collect();
        if batch.is_empty() {
            return Ok(leader.close()?);
        }
        leader.appender.append(batch)?;
    }
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let done = command.output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(
        done.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(said.trim().to_owned())
}

fn ours(log: &Path) -> anyhow::Result<()> {
    let leader = Leader::open(Folder::new(log))?;
    let log = leader.visible.borrow().clone().context("the log is open")?;
    let mut replay = Replay::default();
    let start = Instant::now();
    replay.advance(&leader.reader, &log)?;
    let loaded = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let clone = replay.corpus().clone();
    let cloned = start.elapsed().as_secs_f64() * 1e6;
    let counts = replay.counts();
    let troubles: u64 = counts.troubles.values().map(|(count, _)| count).sum();
    let (commits, unknown) = clone.commits();
    println!(
        "loaded in {loaded:.2} s, peak {}; {} MiB, {} records, {commits} commits, {unknown} unknown, {troubles} passed over; a snapshot takes {cloned:.0} us",
        peak()?,
        counts.bytes >> 20,
        counts.records,
    );
    Ok(())
}

/// The most memory that the process had so far.
fn peak() -> anyhow::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.context("a line VmHWM")?.trim().to_owned())
}
