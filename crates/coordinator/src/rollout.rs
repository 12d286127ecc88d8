//! Has machines of stage0's run the buildlet that was published last: which, and how many at once. Pure but for [`run`].
//!
//! Of each host type one idle machine goes first. Once it is back with the new buildlet, up to a quarter of them go at once. When
//! machines that were asked stay away or come back with the old one, which is what stage0 does with a buildlet that
//! falls, that host type is left alone for an hour, and the log says so.
//!
//! An assignment that is under way when a machine ends itself finds it gone: the attempt is infra, and is tried elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ids::{HostType, MachineId};
use pool_reverse::ReversePool;
use store::Store;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::downloads::FOLDER;

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// For a machine to fetch a buildlet of a few MB and come back.
const BACK_WITHIN: Duration = Duration::from_secs(180);
const REST: Duration = Duration::from_secs(3600);

/// A machine that stage0 runs.
#[derive(Debug, Clone)]
struct Seen {
    host_type: HostType,
    machine: MachineId,
    serial: u64,
    busy: bool,
}

#[derive(Debug, PartialEq)]
enum Step {
    Ask(MachineId),
    /// It does not get through on this host type.
    Halt(HostType),
}

#[derive(Default)]
struct Rollout {
    serial: u64,
    types: BTreeMap<HostType, Progress>,
}

#[derive(Debug)]
struct Progress {
    /// How many had it when it began, and how many were asked since.
    before: usize,
    asked: usize,
    done: usize,
    moved_at: Duration,
    rest_until: Option<Duration>,
}

impl Rollout {
    /// What to do at `now`, when `serial` is published.
    fn plan(&mut self, now: Duration, serial: u64, machines: &[Seen]) -> Vec<Step> {
        if self.serial != serial {
            self.types.clear();
            self.serial = serial;
        }
        let mut by_type: BTreeMap<&HostType, Vec<&Seen>> = BTreeMap::new();
        for seen in machines {
            by_type.entry(&seen.host_type).or_default().push(seen);
        }
        let mut steps = Vec::new();
        for (host_type, machines) in by_type {
            let have = machines.iter().filter(|seen| seen.serial >= serial).count();
            let progress = self.types.entry(host_type.clone()).or_insert(Progress {
                before: have,
                asked: 0,
                done: 0,
                moved_at: now,
                rest_until: None,
            });
            let done = have.saturating_sub(progress.before).min(progress.asked);
            if done > progress.done {
                progress.moved_at = now;
            }
            progress.done = progress.done.max(done);
            match progress.rest_until {
                Some(until) if now < until => continue,
                Some(_) => {
                    (progress.before, progress.asked, progress.done) = (have, 0, 0);
                    (progress.moved_at, progress.rest_until) = (now, None);
                }
                None => {}
            }
            let away = progress.asked - progress.done;
            if away > 0 && now >= progress.moved_at + BACK_WITHIN {
                progress.rest_until = Some(now + REST);
                steps.push(Step::Halt(host_type.clone()));
                continue;
            }
            let at_once = match have {
                0 => 1,
                _ => (machines.len() / 4).max(1),
            };
            let idle = machines.iter().filter(|seen| seen.serial < serial && !seen.busy);
            for seen in idle.take(at_once.saturating_sub(away)) {
                if away == 0 {
                    progress.moved_at = now;
                }
                progress.asked += 1;
                steps.push(Step::Ask(seen.machine.clone()));
            }
        }
        steps
    }

    /// It was at work after all.
    fn not_now(&mut self, host_type: &HostType) {
        if let Some(progress) = self.types.get_mut(host_type) {
            progress.asked = progress.asked.saturating_sub(1).max(progress.done);
        }
    }
}

pub async fn run(
    state: PathBuf,
    store: Store,
    pool: ReversePool,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (mut rollout, began) = (Rollout::default(), Instant::now());
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(LOOK_EVERY) => {}
        }
        let Some(serial) = published(&state.join(FOLDER)).await else {
            continue;
        };
        let releases = pool.releases();
        if releases.iter().all(|(_, _, has)| *has >= serial) {
            continue;
        }
        let busy = match busy(&store).await {
            Ok(busy) => busy,
            Err(why) => {
                warn!(
                    "cannot tell which machines are at work: {:#}",
                    anyhow::Error::from(why)
                );
                continue;
            }
        };
        let seen: Vec<Seen> = releases
            .into_iter()
            .map(|(host_type, machine, serial)| Seen {
                busy: busy.contains(&machine),
                host_type,
                machine,
                serial,
            })
            .collect();
        for step in rollout.plan(began.elapsed(), serial, &seen) {
            match step {
                Step::Ask(machine) => {
                    let host_type = seen.iter().find(|seen| seen.machine == machine);
                    match pool.update(&machine).await {
                        Ok(true) => {
                            info!(machine.id = %machine, "{machine} was asked to run the published buildlet")
                        }
                        Ok(false) => {
                            if let Some(seen) = host_type {
                                rollout.not_now(&seen.host_type);
                            }
                        }
                        // It may have ended before its answer came.
                        Err(why) => {
                            info!(machine.id = %machine, "{machine} was asked to run the published buildlet: {why}")
                        }
                    }
                }
                Step::Halt(host_type) => warn!(
                    "machines of {host_type} do not come back with the published buildlet (serial {serial}); \
                     the others are left with theirs for an hour. Their stage0 logs why"
                ),
            }
        }
    }
}

async fn busy(store: &Store) -> Result<std::collections::BTreeSet<MachineId>, store::StoreError> {
    let at_work = store.machines().await?.into_iter();
    let at_work = at_work.filter(|row| row.running.is_some()).map(|row| row.machine);
    let lent = store.loans().await?.into_iter().map(|row| row.loan.machine);
    Ok(at_work.chain(lent).collect())
}

/// The serial of the manifest that is served.
async fn published(folder: &Path) -> Option<u64> {
    let text = tokio::fs::read_to_string(folder.join("manifest")).await.ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("serial ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A farm of `a0` to `a7`, in seconds: what is done when the serials are these (`*` behind one: at work).
    fn steps(rollout: &mut Rollout, at: u64, serials: &str) -> String {
        let seen = |(n, word): (usize, &str)| Seen {
            host_type: HostType::parse("a").expect("a name"),
            machine: MachineId::parse(&format!("a{n}")).expect("a name"),
            serial: word.trim_end_matches('*').parse().expect("a number"),
            busy: word.ends_with('*'),
        };
        let machines: Vec<Seen> = serials.split(' ').enumerate().map(seen).collect();
        let planned = rollout.plan(Duration::from_secs(at), 2, &machines);
        let words: Vec<String> = planned
            .iter()
            .map(|step| match step {
                Step::Ask(machine) => machine.to_string(),
                Step::Halt(host_type) => format!("halt {host_type}"),
            })
            .collect();
        words.join(" ")
    }

    #[test]
    fn one_goes_first_and_then_a_quarter() {
        let mut rollout = Rollout::default();
        assert_eq!(steps(&mut rollout, 0, "1* 1 1 1 1 1 1 1"), "a1");
        assert_eq!(steps(&mut rollout, 5, "1* 1 1 1 1 1 1 1"), "", "it is awaited");
        // It is away for a moment, and back under another name.
        assert_eq!(steps(&mut rollout, 10, "1* 1 1 1 1 1 1"), "");
        assert_eq!(steps(&mut rollout, 15, "1* 1 1 1 1 1 1 2"), "a1 a2");
        assert_eq!(steps(&mut rollout, 20, "1* 1 1 1 1 1 2 2"), "a1");
        assert_eq!(steps(&mut rollout, 25, "1* 2 2 2 2 2 2 2"), "");
        assert_eq!(steps(&mut rollout, 30, "1 2 2 2 2 2 2 2"), "a0");
    }

    #[test]
    fn a_buildlet_that_falls_reaches_one_machine_and_is_tried_again_later() {
        let mut rollout = Rollout::default();
        assert_eq!(steps(&mut rollout, 0, "1 1 1 1"), "a0");
        // stage0 went back to the last good one.
        assert_eq!(steps(&mut rollout, 100, "1 1 1 1"), "");
        assert_eq!(steps(&mut rollout, 180, "1 1 1 1"), "halt a");
        assert_eq!(steps(&mut rollout, 185, "1 1 1 1"), "");
        assert_eq!(steps(&mut rollout, 3780, "1 1 1 1"), "a0");
        // Another publication begins anew.
        let mut rollout = Rollout::default();
        rollout.plan(Duration::ZERO, 1, &[]);
        assert_eq!(steps(&mut rollout, 5, "1 1"), "a0");
    }

    #[test]
    fn who_was_at_work_after_all_is_not_awaited() {
        let mut rollout = Rollout::default();
        assert_eq!(steps(&mut rollout, 0, "1 1"), "a0");
        rollout.not_now(&HostType::parse("a").expect("a name"));
        assert_eq!(steps(&mut rollout, 5, "1* 1"), "a1");
    }
}
