use tracing_subscriber::EnvFilter;

use crate::args::Global;
use crate::failure::Failure;

/// The program's own log, to stderr. `BURROW_LOG` says what of it, in the language of
/// `tracing_subscriber::EnvFilter`; else `default`, raised by each `-v`.
pub fn start(global: &Global, default: &str) -> Result<(), Failure> {
    let filter = match std::env::var("BURROW_LOG") {
        Ok(words) if !words.is_empty() => EnvFilter::try_new(&words).map_err(|error| {
            Failure::usage(format!("BURROW_LOG is `{words}`: {error}"))
                .hint("wanted a level such as `info`, or `warn,coordinator=debug`")
        })?,
        _ => EnvFilter::new(match (default, global.verbose) {
            (level, 0) => level,
            ("warn", 1) => "info",
            ("warn", 2) | ("info", 1) => "debug",
            _ => "trace",
        }),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = if global.log_json {
        log.json().try_init()
    } else {
        log.with_ansi(global.color.on_stderr()).try_init()
    };
    started.map_err(|error| Failure::new(format!("cannot start the log: {error}")))
}
