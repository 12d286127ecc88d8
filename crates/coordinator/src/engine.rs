//! The loop that drives the farm core: the only place where it meets the clock and the store.

use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use farm::{Farm, Input, WaitingLoan, Want, Write};
use ids::{BuildId, Now, Timestamp};
use store::read::{Intent, Wish};
use store::{Store, StoreError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::drive::{Aimed, Drivers};

/// How many inputs are taken into one transaction at most.
const BATCH: usize = 512;

/// How often what waits is explained anew for the pages, and what people asked for is read.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// To explain a long queue takes a while: at most one part in so many of the engine's time.
const EXPLAINING: u32 = 20;

/// Counts from the start of this process; reads the wall clock. The one clock of the coordinator.
#[derive(Clone)]
pub struct Clock {
    began: Instant,
    /// What the wall clock showed then, and for how long the system had run.
    wall: Timestamp,
    up: Option<f64>,
}

impl Clock {
    pub fn start() -> Clock {
        Clock {
            began: Instant::now(),
            wall: wall(),
            up: up(),
        }
    }

    pub fn now(&self) -> Now {
        Now {
            mono: self.began.elapsed(),
            wall: wall(),
        }
    }

    /// By how many seconds the wall clock was put forward, or back, since the start.
    pub fn off(&self) -> i64 {
        // Counts on while a system sleeps, as a laptop does; `Instant` does not.
        let elapsed = match (self.up, up()) {
            (Some(from), Some(to)) if to >= from => Duration::from_secs_f64(to - from),
            _ => self.began.elapsed(),
        };
        let even = self.wall + elapsed;
        wall().0.saturating_sub(even.0) / 1_000_000
    }
}

/// For how many seconds the system has run, asleep or not. Source: proc_uptime(5).
fn up() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// The wall clock, in the store's unit.
pub fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// What readers see of the core without going through it.
#[derive(Default)]
pub struct Published {
    pub waiting: Arc<Vec<schedule::Waiting>>,
    pub loans: Arc<Vec<WaitingLoan>>,
    pub at: Timestamp,
    pub paused: Option<String>,
    /// Since when the store has refused writes, and why.
    pub store_trouble: Option<String>,
}

pub type Board = Arc<RwLock<Arc<Published>>>;

/// What the engine drives the core with.
pub struct Engine {
    pub store: Store,
    pub clock: Clock,
    pub inputs: mpsc::Receiver<Input>,
    pub drivers: Drivers,
    pub board: Board,
}

/// Runs until `stop`; `first` is what restoring the core gave. An error is a broken invariant: the service must not go on.
pub async fn run(
    mut farm: Farm,
    first: farm::Step,
    mut engine: Engine,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    if commit(&engine.store, &first.writes, &engine.board, &stop).await? {
        engine.drivers.perform(engine.drivers.aim(first.effects));
    }
    let (mut looked, mut paused, mut explain_at) = (None, None, Duration::ZERO);
    loop {
        let now = engine.clock.now();
        if looked.is_none_or(|looked| now.mono >= looked + LOOK_EVERY) {
            looked = Some(now.mono);
            let old = read(&engine.board);
            let (waiting, loans, at) = if now.mono >= explain_at {
                let (waiting, loans) = farm.explain(now);
                let ended = engine.clock.now().mono;
                explain_at = ended + ended.saturating_sub(now.mono) * EXPLAINING;
                (Arc::new(waiting), Arc::new(loans), now.wall)
            } else {
                (old.waiting.clone(), old.loans.clone(), old.at)
            };
            publish(
                &engine.board,
                Published {
                    waiting,
                    loans,
                    at,
                    paused: paused.clone(),
                    store_trouble: old.store_trouble.clone(),
                },
            );
            // Wishes are a turn of their own, and the first one: whatever machines report may end what they are about.
            let mut open = wishes(&engine.store).await;
            let mut told = returned(&engine.store).await;
            while !open.is_empty() || !told.is_empty() {
                let (first, rest) = farm::first_of_each(open, about);
                told.extend(looked_up(&farm, &engine.store, first).await);
                let batch = std::mem::take(&mut told);
                engine.turn(&mut farm, batch, &mut paused, &stop).await?;
                open = rest;
            }
        }
        let due = farm
            .next_deadline(now)
            .unwrap_or(Duration::MAX)
            .min(now.mono + LOOK_EVERY);
        let wait = due.saturating_sub(now.mono).max(Duration::from_millis(1));
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            count = engine.inputs.recv_many(&mut batch, BATCH) => {
                anyhow::ensure!(count > 0, "every sender of inputs is gone");
            }
            () = tokio::time::sleep(wait) => batch.push(Input::Tick),
        }
        engine.turn(&mut farm, batch, &mut paused, &stop).await?;
    }
}

impl Engine {
    /// Decides, writes, and then does.
    async fn turn(
        &mut self,
        farm: &mut Farm,
        batch: Vec<Input>,
        paused: &mut Option<String>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let (mut writes, mut effects): (Vec<Write>, Vec<Aimed>) = (Vec::new(), Vec::new());
        for mut input in batch {
            match &mut input {
                Input::Paused { why } => *paused = Some(why.clone()),
                Input::Resumed => *paused = None,
                Input::Wanted(wants) => *wants = unbuilt(&self.store, std::mem::take(wants)).await,
                _ => {}
            }
            self.drivers.heed(&input);
            let step = farm.handle(self.clock.now(), input);
            writes.extend(step.writes);
            effects.extend(self.drivers.aim(step.effects));
        }
        effects.retain(|aimed| farm.stands(aimed.effect()));
        log(&writes);
        if commit(&self.store, &writes, &self.board, stop).await? {
            self.drivers.perform(effects);
        }
        Ok(())
    }
}

/// What people asked for and nobody has answered.
async fn wishes(store: &Store) -> Vec<Intent> {
    store.open_intents().await.unwrap_or_else(|why| {
        warn!(
            "cannot read what people asked for: {:#}",
            anyhow::Error::from(why)
        );
        Vec::new()
    })
}

fn about(intent: &Intent) -> BuildId {
    match intent.wish {
        Wish::Cancel(build) | Wish::Retry(build) => build,
    }
}

/// As the core takes them. Asked of the store by the only one who answers, so that nothing changes between the look
/// and the deed.
async fn looked_up(farm: &Farm, store: &Store, wishes: Vec<Intent>) -> Vec<Input> {
    let mut inputs = Vec::new();
    for Intent {
        id: intent, by, wish, ..
    } in wishes
    {
        match wish {
            Wish::Cancel(build) => inputs.push(Input::Cancel { intent, build, by }),
            Wish::Retry(build) => {
                let finished = if farm.has(build) {
                    Ok(None)
                } else {
                    store.restored_build(build).await
                };
                match finished {
                    Ok(finished) => inputs.push(Input::Retry {
                        intent,
                        build,
                        by,
                        finished,
                    }),
                    Err(why) => warn!("cannot read build {build}: {:#}", anyhow::Error::from(why)),
                }
            }
        }
    }
    inputs
}

async fn returned(store: &Store) -> Vec<Input> {
    match store.returned_loans().await {
        Ok(returned) => returned
            .into_iter()
            .map(|(loan, by)| Input::LoanReturned { loan, by })
            .collect(),
        Err(why) => {
            warn!(
                "cannot read which machines are given back: {:#}",
                anyhow::Error::from(why)
            );
            Vec::new()
        }
    }
}

/// Of what a look at the store some time ago found missing, what is missing still.
async fn unbuilt(store: &Store, wants: Vec<Want>) -> Vec<Want> {
    let mut missing = Vec::new();
    for of_commit in wants.chunk_by(|one, next| (&one.repo, &one.commit) == (&next.repo, &next.commit)) {
        let Want { repo, commit, .. } = &of_commit[0];
        // What cannot be told is asked for again by the next comparison.
        if let Ok(built) = store.builders_of(repo, commit).await {
            let lacks = of_commit.iter().filter(|want| !built.contains(&want.builder));
            missing.extend(lacks.cloned());
        }
    }
    missing
}

/// Commits, waiting for a store that is out of reach: nothing is shown or done before. `false`: told to stop, and
/// nothing may be done.
async fn commit(
    store: &Store,
    writes: &[Write],
    board: &Board,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    if writes.is_empty() {
        return Ok(true);
    }
    let mut pause = Duration::from_millis(50);
    loop {
        match store.apply(writes).await {
            Ok(()) => {
                if read(board).store_trouble.is_some() {
                    info!("the store takes writes again");
                    set_trouble(board, None);
                }
                return Ok(true);
            }
            Err(StoreError::Conflict(what)) => {
                error!("the store refused what can never be: {what}");
                anyhow::bail!("the store refused what can never be: {what}");
            }
            Err(why) => {
                let text = format!("{:#}", anyhow::Error::from(why));
                warn!("the store does not take writes, builds wait: {text}");
                set_trouble(board, Some(text));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(5)),
        }
    }
}

fn set_trouble(board: &Board, trouble: Option<String>) {
    let old = read(board);
    publish(
        board,
        Published {
            waiting: old.waiting.clone(),
            loans: old.loans.clone(),
            at: old.at,
            paused: old.paused.clone(),
            store_trouble: trouble,
        },
    );
}

pub fn read(board: &Board) -> Arc<Published> {
    board.read().expect("no holder of this lock panics").clone()
}

fn publish(board: &Board, what: Published) {
    *board.write().expect("no holder of this lock panics") = Arc::new(what);
}

/// The core does not log; what it wrote is what happened.
fn log(writes: &[Write]) {
    for write in writes {
        match write {
            Write::AttemptStarted { attempt, machine, .. } => {
                info!(build.id = %attempt.build, machine.id = %machine, "attempt {attempt} starts on {machine}");
            }
            Write::AttemptEnded { attempt, outcome, .. } => {
                info!(build.id = %attempt.build, "attempt {attempt} ended: {outcome:?}");
            }
            Write::BuildWaiting { build, why, .. } => info!(build.id = %build, "build {build} waits: {why}"),
            Write::MachineUp {
                machine, host_type, ..
            } => {
                info!(machine.id = %machine, "machine {machine} ({host_type}) is up");
            }
            Write::MachineDown { machine, why, .. } => {
                info!(machine.id = %machine, "machine {machine} is gone: {why}");
            }
            Write::LoanStarted(loan) => {
                let (name, machine) = (&loan.name, &loan.machine);
                info!(loan.id = %loan.loan, machine.id = %machine, "machine {machine} is lent as {name}");
            }
            Write::LoanEnded { loan, why, .. } => info!(loan.id = %loan, "loan {loan} ended: {why}"),
            Write::BuildCreated(_)
            | Write::LoanRenewed { .. }
            | Write::BuildDone { .. }
            | Write::StepStarted { .. }
            | Write::StepEnded { .. }
            | Write::IntentDone { .. } => {}
        }
    }
}

/// Reads what the store holds and makes the core from it.
pub async fn restore(
    store: &Store,
    clock: &Clock,
    config: Arc<config::Config>,
) -> anyhow::Result<(Farm, farm::Step)> {
    let restored = store.unfinished().await.context("read what is unfinished")?;
    let running = restored
        .builds
        .iter()
        .filter(|build| build.running.is_some())
        .count();
    if !restored.builds.is_empty() {
        info!(
            "taking up {} unfinished builds, {running} of them running",
            restored.builds.len()
        );
    }
    Ok(Farm::restore(clock.now(), config, restored))
}
