use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::server::{Build, Server};
use crate::show;

const EVERY: Duration = Duration::from_millis(700);

/// How many of the newest builds are looked at each time.
const LOOK: u32 = 200;

/// Prints each build as it ends, and on a terminal a line of what goes on, until `stop`.
pub async fn follow(server: &Server, stop: CancellationToken) {
    let bar = std::io::stdout().is_terminal().then(|| {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    });
    let mut told: Option<BTreeSet<(u64, u32)>> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
        // A look that failed is made up for by the next one; the log has what is wrong.
        let Ok(builds) = server.builds(&[("limit", LOOK.to_string())]).await else {
            continue;
        };
        let ended = |build: &&Build| build.is_done();
        let keys = builds
            .iter()
            .filter(ended)
            .map(|build| (build.id, build.attempts));
        let Some(told) = &mut told else {
            // What ended before this start is no news.
            told = Some(keys.collect());
            continue;
        };
        for build in builds.iter().rev().filter(ended) {
            if told.insert((build.id, build.attempts)) {
                let line = show::built(build);
                match &bar {
                    Some(bar) => bar.suspend(|| println!("{line}")),
                    None => println!("{line}"),
                }
            }
        }
        let _ = std::io::stdout().flush();
        if let Some(bar) = &bar {
            let running: Vec<String> = builds
                .iter()
                .filter(|build| build.status == "running")
                .map(show::short)
                .collect();
            let waiting = builds.iter().filter(|build| build.status == "waiting").count();
            bar.set_message(match running.len() {
                0 if waiting == 0 => "all built; waiting for commits".to_owned(),
                _ => format!(
                    "{} running, {waiting} waiting: {}",
                    running.len(),
                    running.join(", ")
                ),
            });
        }
    }
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
}
