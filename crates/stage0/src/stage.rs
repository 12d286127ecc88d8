//! What to do next: every decision of stage0, without IO.
//!
//! [`Stage::handle`] takes what happened and when, and says what to do, in the order to do it; the
//! last of it brings the next event. One thing is under way at a time.

use std::time::Duration;

use crate::manifest::{Offer, Release, Version};

/// A buildlet that has lived so long works.
pub const PROVEN_AFTER: Duration = Duration::from_secs(60);

/// After so many falls within [`PROVEN_AFTER`] the last good one is run instead.
const FALLS_MAX: u32 = 3;

const PAUSE_MAX: Duration = Duration::from_secs(60);

/// When the coordinator refuses the machine a person has to act, which takes its time.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(1800);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Began,
    /// A manifest with a good signature came.
    Offered(Offer),
    /// Nobody answered: the network may not be there yet.
    Unanswered(String),
    /// Something came that cannot be used.
    Unusable(String),
    /// What [`Action::Take`] asked for is in the state folder.
    Taken,
    /// It could not be had whole and right.
    NotTaken(String),
    /// The buildlet has been running for [`PROVEN_AFTER`].
    Proven,
    Ended(End),
    Waited,
}

/// How the buildlet's process ended. Source of the codes: sysexits.h, and `buildlet -help`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// 0: the coordinator halted it.
    Halted,
    /// 75: it lost its coordinator; another try may find it.
    Orphaned,
    /// 78: the coordinator does not want this machine.
    Refused,
    /// All else, or it could not be started; in words.
    Fell(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask for the manifest.
    Ask,
    /// Keep the manifest, then get the binary unless it is there: the event is `Taken` or `NotTaken`.
    Take(Release),
    /// `Proven` comes once, then `Ended`.
    Run(Release),
    /// Keep it as the last good one. Brings no event.
    KeepAsGood(Release),
    /// For the log. Brings no event.
    Tell(String),
    /// Wait for a random time between half of it and all of it, lest a farm's machines come at once.
    Wait(Duration),
    /// End with this code.
    Exit(u8),
}

/// What the state folder holds at the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Of the manifest taken last, even if its binary is not there.
    pub floor: Option<Floor>,
    /// With its binary.
    pub latest: Option<Release>,
    /// With its binary.
    pub good: Option<Release>,
}

/// What may not be gone below again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    pub serial: u64,
    pub minimum: Version,
}

pub struct Stage {
    kept: Kept,
    /// How long to ask a network that does not answer before the last good buildlet is run.
    network_wait: Duration,
    doing: Doing,
    /// Asked in vain, one after the other.
    unanswered: u32,
    /// Ended before they were proven, one after the other, whichever it was.
    short_runs: u32,
    /// Falls of `kept.latest` since it was taken.
    falls: u32,
    refusals: u32,
}

enum Doing {
    Asking { since: Duration },
    Taking(Release),
    Running { release: Release, proven: bool },
    Pausing { asking_since: Option<Duration> },
}

impl Stage {
    pub fn new(kept: Kept, network_wait: Duration) -> Stage {
        Stage {
            kept,
            network_wait,
            doing: Doing::Pausing { asking_since: None },
            unanswered: 0,
            short_runs: 0,
            falls: 0,
            refusals: 0,
        }
    }

    /// `now` is the time since any fixed moment.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let idle = Doing::Pausing { asking_since: None };
        match (event, std::mem::replace(&mut self.doing, idle)) {
            (Event::Began | Event::Waited, Doing::Pausing { asking_since }) => {
                let since = asking_since.unwrap_or(now);
                self.doing = Doing::Asking { since };
                vec![Action::Ask]
            }
            (Event::Offered(offer), Doing::Asking { .. }) => self.offered(offer),
            (Event::Unanswered(why), Doing::Asking { since }) => {
                let patient = now.saturating_sub(since) < self.network_wait;
                if self.runnable().is_some() && !patient {
                    return self.fall_back(format!("cannot ask for the manifest: {why}"));
                }
                let pause = self.pause_to_ask(Some(since));
                vec![Action::Tell(format!("cannot ask for the manifest: {why}")), pause]
            }
            (Event::Unusable(why), Doing::Asking { .. }) => self.fall_back(format!("the manifest: {why}")),
            (Event::Taken, Doing::Taking(release)) => {
                self.unanswered = 0;
                self.kept.latest = Some(release);
                self.run()
            }
            (Event::NotTaken(why), Doing::Taking(release)) => {
                self.fall_back(format!("buildlet {}: {why}", release.version))
            }
            (Event::Proven, Doing::Running { release, .. }) => {
                self.short_runs = 0;
                self.refusals = 0;
                let good = self.prove(&release);
                self.doing = Doing::Running {
                    release,
                    proven: true,
                };
                good
            }
            (Event::Ended(end), Doing::Running { release, proven }) => self.ended(end, release, proven),
            (event, _) => unreachable!("{event:?} comes only for what was asked"),
        }
    }

    fn offered(&mut self, offer: Offer) -> Vec<Action> {
        let Offer { release, minimum } = offer;
        if let Some(floor) = self.kept.floor.filter(|floor| release.serial < floor.serial) {
            let (found, wanted) = (release.serial, floor.serial);
            return self.fall_back(format!(
                "the manifest: its serial {found} is below {wanted}, which was here before; it is an old one"
            ));
        }
        if self.kept.floor.is_none_or(|floor| floor.serial < release.serial) {
            self.falls = 0;
        }
        self.kept.floor = Some(Floor {
            serial: release.serial,
            minimum,
        });
        self.doing = Doing::Taking(release.clone());
        vec![Action::Take(release)]
    }

    /// Runs what is here, for what is wanted cannot be had.
    fn fall_back(&mut self, why: String) -> Vec<Action> {
        let mut actions = vec![Action::Tell(why)];
        if self.runnable().is_some() {
            actions.extend(self.run());
        } else {
            actions.push(self.pause_to_ask(None));
        }
        actions
    }

    fn run(&mut self) -> Vec<Action> {
        let release = self.runnable().expect("asked before, or just taken").clone();
        self.doing = Doing::Running {
            release: release.clone(),
            proven: false,
        };
        vec![Action::Run(release)]
    }

    /// The latest, or the last good one where the latest has fallen too often; never one that is too old.
    fn runnable(&self) -> Option<&Release> {
        let allowed = |release: &&Release| {
            self.kept
                .floor
                .is_none_or(|floor| release.version >= floor.minimum)
        };
        let latest = self.kept.latest.as_ref().filter(allowed);
        let good = self.kept.good.as_ref().filter(allowed);
        if self.falls >= FALLS_MAX {
            good.or(latest)
        } else {
            latest.or(good)
        }
    }

    fn ended(&mut self, end: End, release: Release, proven: bool) -> Vec<Action> {
        if !proven {
            self.short_runs += 1;
        }
        let version = release.version;
        let (mut actions, pause) = match end {
            End::Halted => {
                let mut actions = self.prove(&release);
                actions.push(Action::Exit(0));
                return actions;
            }
            End::Orphaned => (self.prove(&release), pause_after(self.short_runs)),
            End::Refused => {
                let pause = doubled(REFUSED_PAUSE, self.refusals, REFUSED_PAUSE_MAX);
                self.refusals += 1;
                let why = "the coordinator refuses this machine; its owner has to see to it".to_owned();
                (vec![Action::Tell(why)], pause)
            }
            End::Fell(how) => {
                if !proven && self.kept.latest.as_ref() == Some(&release) {
                    self.falls += 1;
                }
                let why = format!("buildlet {version} ended: {how}");
                (vec![Action::Tell(why)], pause_after(self.short_runs))
            }
        };
        self.doing = Doing::Pausing { asking_since: None };
        actions.push(Action::Wait(pause));
        actions
    }

    fn prove(&mut self, release: &Release) -> Vec<Action> {
        if self.kept.good.as_ref() == Some(release) {
            return Vec::new();
        }
        self.kept.good = Some(release.clone());
        vec![Action::KeepAsGood(release.clone())]
    }

    fn pause_to_ask(&mut self, asking_since: Option<Duration>) -> Action {
        self.unanswered += 1;
        self.doing = Doing::Pausing { asking_since };
        Action::Wait(pause_after(self.unanswered))
    }
}

fn pause_after(failures: u32) -> Duration {
    doubled(Duration::from_secs(1), failures.saturating_sub(1), PAUSE_MAX)
}

fn doubled(first: Duration, times: u32, max: Duration) -> Duration {
    first
        .saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX))
        .min(max)
}

#[cfg(test)]
mod tests;
