//! Times the corpus: replayed whole, started from a snapshot, asked in SQL; and how much memory each takes.
//!
//! A log of a fixed seed is made at the first run and kept in the folder. Each measure is a process of its own,
//! so that its peak of memory is its own. Pages of the snapshot that are mapped are told apart: they are the
//! page cache's, and go when memory is wanted.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use corpus_sql::{Source, Sql};
use maintnerd::synthetic::Synthetic;
use maintnerd::{Leader, Replay, SNAPSHOT, log_in, save_snapshot, start};
use maintpb::Message;
use mutlog::{Folder, LogReader};

const BATCH: usize = 4000;
/// How often what is quick is measured.
const TIMES: usize = 5;

const BY_LABEL: &str = "SELECT label, count(*) AS n FROM issue_labels JOIN issues USING (repo, number)
    WHERE state = 'open' GROUP BY label ORDER BY n DESC";

type Done = Result<(), Box<dyn std::error::Error>>;

pub fn run(dir: &Path, records: usize, measure: Option<&str>) -> std::process::ExitCode {
    let done = match measure {
        None => all(dir, records),
        Some("cold") => cold(dir),
        Some("save") => save(dir),
        Some("first") => first(dir),
        Some("sql") => sql(dir),
        Some(other) => Err(format!("no measure `{other}`; there are: cold, save, first, sql").into()),
    };
    match done {
        Ok(()) => 0.into(),
        Err(why) => {
            eprintln!("xtask: {why}");
            1.into()
        }
    }
}

fn all(dir: &Path, records: usize) -> Done {
    if !dir.is_dir() {
        make(dir, records)?;
    }
    let measure = |name: &str| -> Done {
        let this = std::env::current_exe()?;
        let done = Command::new(this)
            .arg("corpus-bench")
            .arg(dir)
            .args(["--measure", name])
            .status()?;
        match done.success() {
            true => Ok(()),
            false => Err(format!("measure `{name}` failed").into()),
        }
    };
    measure("cold")?;
    measure("cold")?;
    measure("save")?;
    (0..TIMES).try_for_each(|_| measure("first"))?;
    (0..TIMES).try_for_each(|_| measure("sql"))
}

fn make(dir: &Path, records: usize) -> Done {
    let leader = Leader::open(Folder::new(dir))?;
    let mut mutations = Synthetic::new(1).take(records);
    loop {
        let batch = mutations.by_ref().take(BATCH);
        let batch: Vec<Vec<u8>> = batch.map(|mutation| mutation.encode_to_vec()).collect();
        if batch.is_empty() {
            return Ok(leader.close()?);
        }
        leader.appender.append(batch)?;
    }
}

fn replayed(dir: &Path) -> Result<Replay, Box<dyn std::error::Error>> {
    let folder = Folder::new(dir);
    let log = log_in(&folder)?;
    let mut replay = Replay::default();
    replay.advance(&LogReader::new(folder), &log)?;
    Ok(replay)
}

fn cold(dir: &Path) -> Done {
    let begin = Instant::now();
    let replay = replayed(dir)?;
    let took = begin.elapsed().as_secs_f64();
    let counts = replay.counts();
    let (mib, records) = (counts.bytes >> 20, counts.records);
    println!(
        "cold    {took:.2} s for {mib} MiB, {records} records; {}",
        memory()?
    );
    Ok(())
}

fn save(dir: &Path) -> Done {
    let replay = replayed(dir)?;
    let begin = Instant::now();
    save_snapshot(dir, &replay)?;
    let took = begin.elapsed().as_secs_f64();
    let mib = std::fs::metadata(dir.join(SNAPSHOT))?.len() >> 20;
    println!("save    {took:.2} s for a snapshot of {mib} MiB; {}", memory()?);
    Ok(())
}

/// From the start of the process to the answer: an issue with its comments, a change with its votes.
fn first(dir: &Path) -> Done {
    let begin = Instant::now();
    let source = source(dir)?;
    let opened = begin.elapsed().as_secs_f64() * 1e3;
    let repo = source.corpus.repo("golang", "go").ok_or("no such repository")?;
    let issue = repo.issues().nth(20).ok_or("no issue")?;
    let body = issue.body(&source.texts)?.len();
    let project = source
        .corpus
        .project("go.googlesource.com/go")
        .ok_or("no such project")?;
    let change = project.open_changes().next().ok_or("no open change")?;
    let (subject, votes) = (change.subject(&source.texts)?, change.votes(&source.texts)?.len());
    let took = begin.elapsed().as_secs_f64() * 1e3;
    let comments = issue.comments.len();
    println!(
        "first   {took:.0} ms, {opened:.0} of them until open; {comments} comments, {body} bytes, {} bytes, {votes} votes; {}",
        subject.len(),
        memory()?
    );
    Ok(())
}

fn sql(dir: &Path) -> Done {
    let begin = Instant::now();
    let sql = Sql::open(source(dir)?)?;
    let opened = begin.elapsed().as_secs_f64() * 1e3;
    let rows = sql.all(BY_LABEL, &[])?.len();
    let first = begin.elapsed().as_secs_f64() * 1e3 - opened;
    let again = Instant::now();
    sql.all(BY_LABEL, &[])?;
    let again = again.elapsed().as_secs_f64() * 1e3;
    println!(
        "sql     open issues by label {first:.0} ms, again {again:.0} ms, opened in {opened:.0} ms; {rows} labels; {}",
        memory()?
    );
    Ok(())
}

fn source(dir: &Path) -> Result<Source, Box<dyn std::error::Error>> {
    let folder = Folder::new(dir);
    let log = log_in(&folder)?;
    let started = start(&folder, log, u64::MAX)?;
    if started.from_snapshot != started.replay.counts().bytes {
        return Err(format!("the snapshot was not used: {:?}", started.not_used).into());
    }
    Ok(Source {
        corpus: Arc::new(started.replay.corpus().clone()),
        texts: started.reader,
    })
}

/// The process's own peak, and what of its memory is mapped files.
fn memory() -> Result<String, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim_matches([':', ' ', '\t']).strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<f64>().ok())
            .map_or(0.0, |kib| kib / 1024.0)
    };
    let (peak, own, mapped) = (mib("VmHWM"), mib("RssAnon"), mib("RssFile"));
    Ok(format!(
        "peak {peak:.0} MiB; at the end {own:.0} MiB of its own, {mapped:.0} MiB mapped"
    ))
}
