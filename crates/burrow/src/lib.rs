//! The program around the farm: reads the command line, finds a configuration, runs the
//! coordinator or asks a running one, and turns what came of it into words and an exit code.
//!
//! It decides nothing about builds. Start at [`main_with`], then `up`.

mod args; // the command line
mod backup; // `backup`, `restore`, `move-store`
mod buildlets; // `buildlets`: what stage0 fetches
mod check; // `check`
mod client; // `status`, `builds`, `logs`, `retry`, `cancel`
mod corpus; // `corpus` and `maintnerd`
mod demo; // the repository of `up --demo`
mod enroll; // `enroll`: machines with keys of their own
mod failure; // what went wrong, what to do, the exit code
mod farm_file; // which configuration, and where state is
mod git; // the few git commands that are needed before a farm runs
mod gomote; // `gomote`: machines lent to people
mod logging; // the program's own log
mod progress; // finished builds, one line each
mod secrets; // `token` and `key`
mod server; // HTTP to a running farm
mod show; // tables and lines for people
mod up; // `up` and `serve`
mod wiring; // the coordinator and the buildlet

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Args, Command};
use failure::{Exit, Failure};

/// Runs the program. `args` begins with the program's own name.
///
/// `burrow buildlet …` is the buildlet, whose flags are its own: the pool of local machines starts
/// this very executable so, and one file is all that a small farm needs.
pub fn main_with(args: Vec<OsString>) -> ExitCode {
    if args.get(1).is_some_and(|word| word == "buildlet") {
        return wiring::buildlet(args[2..].to_vec());
    }
    // A link of this name is one, too.
    if args.first().is_some_and(|own| {
        std::path::Path::new(own)
            .file_name()
            .is_some_and(|name| name == "buildlet")
    }) {
        return wiring::buildlet(args[1..].to_vec());
    }
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Nothing is left to say when even this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            }
            .into();
        }
    };
    let color = args.global.color;
    match run(args) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprint!("{}", failure.shown(color.on_stderr()));
            failure.exit.into()
        }
    }
}

fn run(args: Args) -> Result<Exit, Failure> {
    let Args { global, command } = args;
    match command {
        Command::Up(up) => block_on(up::up(&global, &up)),
        Command::Serve(serve) => block_on(up::serve(&global, &serve)),
        Command::Check(check) => check::check(&global, &check),
        Command::Status => block_on(client::status(&global)),
        Command::Builds(builds) => block_on(client::builds(&global, &builds)),
        Command::Logs(logs) => block_on(client::logs(&global, &logs)),
        Command::Retry(retry) => block_on(client::retry(&global, &retry)),
        Command::Cancel(cancel) => block_on(client::cancel(&global, &cancel)),
        Command::Gomote(gomote) => block_on(gomote::gomote(&global, &gomote)),
        Command::Buildlets(buildlets) => buildlets::buildlets(&global, &buildlets),
        Command::Enroll(enroll) => block_on(enroll::enroll(&global, &enroll)),
        Command::Key(key) => block_on(secrets::key(&global, &key)),
        Command::Token(token) => block_on(secrets::token(&global, &token)),
        Command::Backup(backup) => block_on(backup::backup(&global, &backup)),
        Command::Restore(restore) => block_on(backup::restore(&global, &restore)),
        Command::MoveStore(wanted) => block_on(backup::move_store(&global, &wanted)),
        Command::Maintnerd(maintnerd) => block_on(corpus::maintnerd(&global, &maintnerd)),
        Command::Corpus(corpus) => corpus::corpus(&global, &corpus),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "burrow", &mut std::io::stdout());
            Ok(Exit::Done)
        }
    }
}

fn block_on(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    // Fails only when a provider is installed already: then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start the runtime: {error}")))?;
    let done = runtime.block_on(work);
    // Nothing that still reads a file keeps the program from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    done
}
