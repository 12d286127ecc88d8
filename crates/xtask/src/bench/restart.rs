//! B7: a farm with a long past is killed while builds run: how soon it serves again, and what became of them.

use std::fs;
use std::time::{Duration, Instant};

use super::farm::{Farm, Plan, Upstream};
use super::grid_page::past_repo;
use super::http::Connection;
use super::made::{Past, REPO};
use super::{Figure, Setup};

const BUILDERS: usize = 2_000;
const BUILDS: usize = 1_000_000;
const RUNNING: usize = 100;

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let past = Past {
        builders: BUILDERS,
        commits: setup.size.unwrap_or(BUILDS) / BUILDERS,
    };
    let folder = tempfile::tempdir()?;
    past.make(&folder.path().join("state"))?;
    let (begun, go) = (folder.path().join("begun"), folder.path().join("go"));
    // One write each, so that those of all builds stay whole; told of twice, it was run twice.
    let run = format!(
        "echo $BURROW_BUILDER >> {}; echo begun; until test -e {}; do sleep 0.5; done; echo done",
        begun.display(),
        go.display()
    );
    let mut machines = format!(
        "[host.local]\npool = \"local\"\nslots = {RUNNING}\n{}",
        past_repo()
    );
    for n in 0..BUILDERS {
        machines += &format!("[builder.b{n:04}]\nhost = \"local\"\n");
        if n >= RUNNING {
            machines += &format!("builds = [{{ repo = {REPO:?}, build = true }}]\n");
        }
    }
    let plan = Plan {
        machines,
        run: format!("{run:?}"),
        farm: String::new(),
        slots: RUNNING,
    };
    let upstream = Upstream::make(folder.path().join("widget.git"))?;
    let mut farm = Farm::start_in(setup, &plan, folder, upstream)?;
    farm.upstream.push()?;
    farm.hook(&mut Connection::open(farm.address)?)?;
    let lines = || fs::read_to_string(&begun).map_or(0, |text| text.lines().count());
    farm.until("all run", |_| Ok(lines() == RUNNING))?;

    farm.kill()?;
    let killed = Instant::now();
    farm.spawn_again()?;
    farm.wait_announced()?;
    farm.until("it is ready", |farm| {
        Ok(Connection::open(farm.address)?.get("/readyz")?.status == 200)
    })?;
    let ready = killed.elapsed();
    let page = Connection::open(farm.address)?.get(&format!("/repo/{REPO}/main?builder=b00*"))?;
    anyhow::ensure!(page.status == 200, "the first page was answered {}", page.status);
    let shown = killed.elapsed();
    farm.until("its machines are there", |farm| {
        let mut connection = Connection::open(farm.address)?;
        Ok(farm.machines(&mut connection)? == RUNNING)
    })?;
    let attached = killed.elapsed();
    fs::write(&go, "")?;
    let before = past.builds();
    farm.until("all have ended", |farm| {
        let counts = farm.counts(&mut Connection::open(farm.address)?)?;
        Ok(counts.get("running") == Some(&0) && counts.get("waiting") == Some(&0))
    })?;
    let counts = farm.counts(&mut Connection::open(farm.address)?)?;
    let ended: usize = counts.values().sum();
    let passed = ["passed", "failed"]
        .iter()
        .filter_map(|state| counts.get(*state))
        .sum::<usize>();
    let (lost, twice) = (RUNNING + before - passed, lines() - RUNNING);
    anyhow::ensure!(ended == before + RUNNING, "{ended} builds in the end: {counts:?}");
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let what = format!("{BUILDERS} builders, {before} past builds, {RUNNING} running, SIGKILL");
    Ok(vec![
        Figure::new(
            format!("{what}: until ready / first page / all machines"),
            format!("{} / {} / {}", seconds(ready), seconds(shown), seconds(attached)),
            "<= 1 s",
        ),
        Figure::new(
            format!("{what}: lost, run twice"),
            format!("{lost}, {twice}"),
            "0, 0",
        ),
    ])
}
