use std::process::ExitCode;
use std::time::Instant;

use testkit::{Account, shortest, simulate};

/// How often to say how far it is, in seeds.
const TELL_EVERY: u64 = 10_000;

/// Simulates the farms of so many seeds, one after another, and says what they went through.
pub fn run(from: u64, seeds: u64) -> ExitCode {
    let (began, mut total) = (Instant::now(), Account::default());
    for (n, seed) in (from..from.saturating_add(seeds)).enumerate() {
        match simulate(seed, None) {
            Ok(account) => total.add(&account),
            Err(failure) => {
                println!("seed {seed} breaks an invariant: {}", shortest(&failure, None));
                return ExitCode::FAILURE;
            }
        }
        let done = n as u64 + 1;
        if done.is_multiple_of(TELL_EVERY) {
            eprintln!("{done} farms in {} s", began.elapsed().as_secs());
        }
    }
    println!(
        "{seeds} farms from seed {from} in {} s:",
        began.elapsed().as_secs()
    );
    for (what, count) in total.lines() {
        println!("{count:>14} {what}");
    }
    ExitCode::SUCCESS
}
