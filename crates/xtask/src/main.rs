//! What is run by hand: `cargo run --release -p xtask -- simulate --seeds 100000`.

mod schedule_bench;
mod simulate;

use lexopt::{Arg, ValueExt};

const USAGE: &str = "\
usage: xtask COMMAND

  simulate [--seeds N] [--from S]   simulate farms of the seeds S to S+N-1; at the first that breaks an
                                    invariant, print the shortest script found for it, and exit 1
  schedule-bench                    time the scheduler alone, up to 1,000,000 builds and 10,000 machines
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
    while let Some(arg) = parser.next()? {
        match (command.as_str(), arg) {
            ("simulate", Arg::Long("seeds")) => seeds = parser.value()?.parse()?,
            ("simulate", Arg::Long("from")) => from = parser.value()?.parse()?,
            (_, arg) => return Err(arg.unexpected()),
        }
    }
    match command.as_str() {
        "simulate" => Ok(simulate::run(from, seeds)),
        "schedule-bench" => Ok(schedule_bench::run()),
        other => Err(format!("no command `{other}`").into()),
    }
}
