//! What is run by hand: `cargo run --release -p xtask -- simulate --seeds 100000`.

mod agent_bench;
mod bench;
mod corpus_bench;
mod follow_bench;
mod idle_bench;
mod schedule_bench;
mod simulate;

use lexopt::{Arg, ValueExt};

const USAGE: &str = "\
usage: xtask COMMAND

  simulate [--seeds N] [--from S]   simulate farms of the seeds S to S+N-1; at the first that breaks an
                                    invariant, print the shortest script found for it, and exit 1
  follow-bench                      50 followers of a log that grows by 1,000 mutations a second
  agent-bench                       time the agent and Go's side by side; first `cargo build --release -p buildlet`
  schedule-bench                    time the scheduler alone, up to 1,000,000 builds and 10,000 machines
  bench [ROW...] [--buildbot VENV] [--size N]
                                    start real farms, measure them and print a table; all rows, or B1, B2, ...
                                    --buildbot: with Buildbot of that virtual environment beside it
                                    --size: instead of the row's own number of builders, pushes, lines or builds
  idle-bench [--machines N] [--go] [--seconds S]
                                    what idle machines that dialled in cost the coordinator beside this program:
                                    memory of each, share of a core. --go: as Go's are, without keep-alives
  corpus-bench DIR [--records N]    time the corpus on a log that is made in DIR and kept there
";

fn main() -> std::process::ExitCode {
    match run() {
        Ok(code) => code,
        Err(why) => {
            eprint!("xtask: {why}\n{USAGE}");
            2.into()
        }
    }
}

fn run() -> Result<std::process::ExitCode, lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    let command = match parser.next()? {
        Some(Arg::Value(command)) => command.string()?,
        _ => return Err("wanted a command".into()),
    };
    let (mut seeds, mut from) = (10_000, 0);
    let mut bench = bench::Wanted::default();
    let mut idle = idle_bench::Options::default();
    let (mut dir, mut records, mut measure) = (None, 1_060_000, None);
    let mut serve: Option<String> = None;
    while let Some(arg) = parser.next()? {
        match (command.as_str(), arg) {
            ("simulate", Arg::Long("seeds")) => seeds = parser.value()?.parse()?,
            ("simulate", Arg::Long("from")) => from = parser.value()?.parse()?,
            ("bench", Arg::Long("buildbot")) => bench.buildbot = Some(parser.value()?.into()),
            ("bench", Arg::Long("size")) => bench.size = Some(parser.value()?.parse()?),
            ("bench", Arg::Value(row)) => bench.rows.push(row.string()?),
            ("idle-bench", Arg::Long("machines")) => idle.machines = parser.value()?.parse()?,
            ("idle-bench", Arg::Long("seconds")) => idle.seconds = parser.value()?.parse()?,
            ("idle-bench", Arg::Long("go")) => idle.go = true,
            ("corpus-bench", Arg::Long("records")) => records = parser.value()?.parse()?,
            ("corpus-bench", Arg::Long("measure")) => measure = Some(parser.value()?.string()?),
            ("corpus-bench", Arg::Value(value)) if dir.is_none() => dir = Some(value),
            // Of the bench itself: its server.
            ("follow-bench", Arg::Long("serve")) => serve = Some(parser.value()?.string()?),
            (_, arg) => return Err(arg.unexpected()),
        }
    }
    match command.as_str() {
        "simulate" => Ok(simulate::run(from, seeds)),
        "idle-bench" => Ok(idle_bench::run(&idle)),
        "follow-bench" => Ok(serve.map_or_else(follow_bench::run, |dir| follow_bench::serve(&dir))),
        "agent-bench" => Ok(match agent_bench::run() {
            Ok(()) => 0.into(),
            Err(why) => {
                eprintln!("xtask: {why}");
                1.into()
            }
        }),
        "schedule-bench" => Ok(schedule_bench::run()),
        "bench" => Ok(bench::run(&bench)),
        "corpus-bench" => {
            let dir = dir.ok_or("`corpus-bench` wants a folder")?;
            Ok(corpus_bench::run(dir.as_ref(), records, measure.as_deref()))
        }
        other => Err(format!("no command `{other}`").into()),
    }
}
