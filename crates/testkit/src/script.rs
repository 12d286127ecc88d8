use std::fmt;
use std::time::Duration;

use crate::Random;

/// How long things happen to a farm; after that it has time to come to rest.
pub const TROUBLE: Duration = Duration::from_secs(2 * 60 * 60);

/// Builders of a simulated farm, `b0` and on; builder n is of host type n modulo 3.
pub const BUILDERS: usize = 5;

/// Everything that happens to one simulated farm from outside, in order of time.
///
/// What happens inside (how long a command takes, how late a packet is) follows from `seed` and from
/// what it is about, so that a script with an event left out is nearly the same farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub seed: u64,
    /// How many machines there are of each host type: of local ones, of burrow's and of Go's that dial in.
    pub machines: [usize; 3],
    /// Of a hundred connections that a machine is asked for, so many cannot be made.
    pub failed_dials: u64,
    pub events: Vec<(Duration, Happening)>,
}

/// One thing that happens. Machines are counted over all host types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// A new commit on the branch.
    Commit(u64),
    /// So many of the newest commits are taken off the branch by force, and another takes their place.
    Rewind {
        off: usize,
        commit: u64,
    },
    /// A person asks for one of the builds that exist by then.
    Retry(u64),
    Cancel(u64),
    /// A person cancels a build, running or not, and asks for it again soon after; and the same again, impatiently.
    Again {
        which: u64,
        after: Duration,
        times: u32,
    },
    /// Somebody wants a machine; whoever has one uses it, gives it back or forgets it.
    Borrow(u64),
    /// The configuration changes: a builder is there or not, and runs so many at once.
    Configure {
        builder: usize,
        there: bool,
        at_once: Option<u32>,
    },
    /// The coordinator is killed around the next thing it writes.
    CoordinatorDies {
        at: Moment,
        away: Duration,
    },
    /// Its host loses power: what was not synced is gone, and the local machines with it.
    PowerFails {
        away: Duration,
    },
    MachineDies {
        machine: usize,
        away: Duration,
    },
    /// All connections of a machine are reset, and none can be made for a while.
    LinkCut {
        machine: usize,
        away: Duration,
    },
    /// Nothing of it moves: a stopped process, a network that swallows.
    LinkStalls {
        machine: usize,
        stalls: Duration,
    },
    /// The data connections of a machine are reset, its control connection is not.
    ConnectionsBreak {
        machine: usize,
    },
    /// The wall clock of the coordinator jumps.
    ClockJumps {
        secs: i64,
    },
    /// The store takes no writes. The one in flight may have been taken all the same.
    StoreAway {
        away: Duration,
        taken: bool,
    },
    DiskLow {
        low: Duration,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    BeforeCommit,
    /// After the commit, before what follows from it.
    AfterCommit,
    AfterEffects,
}

impl Script {
    pub fn new(seed: u64) -> Script {
        let mut random = Random::new(seed);
        let machines = [0; 3].map(|_| 1 + random.below(3) as usize);
        let mut script = Script {
            seed,
            machines,
            failed_dials: 2,
            events: Vec::new(),
        };
        for n in 0..random.within(3, 9) {
            script.at(&mut random, Happening::Commit(n));
        }
        for n in 0..random.below(3) {
            let off = random.within(1, 4) as usize;
            script.at(&mut random, Happening::Rewind { off, commit: 100 + n });
        }
        for _ in 0..random.below(8) {
            let build = random.draw();
            let wish = if random.chance(60) {
                Happening::Retry(build)
            } else {
                Happening::Cancel(build)
            };
            script.at(&mut random, wish);
        }
        for _ in 0..random.below(4) {
            let event = Happening::Configure {
                builder: random.below(BUILDERS as u64) as usize,
                there: random.chance(70),
                at_once: random.chance(40).then_some(1),
            };
            script.at(&mut random, event);
        }
        for _ in 0..random.below(8) {
            let at = [Moment::BeforeCommit, Moment::AfterCommit, Moment::AfterEffects];
            let at = at[random.below(3) as usize];
            let away = away(&mut random);
            script.at(&mut random, Happening::CoordinatorDies { at, away });
        }
        for _ in 0..random.below(2) {
            let away = away(&mut random);
            script.at(&mut random, Happening::PowerFails { away });
        }
        let all = machines.iter().sum::<usize>() as u64;
        for _ in 0..random.below(20) {
            let (machine, away) = (random.below(all) as usize, away(&mut random));
            let event = match random.below(4) {
                0 => Happening::MachineDies { machine, away },
                1 => Happening::LinkCut { machine, away },
                2 => Happening::LinkStalls {
                    machine,
                    stalls: away,
                },
                _ => Happening::ConnectionsBreak { machine },
            };
            script.at(&mut random, event);
        }
        for _ in 0..random.below(3) {
            let secs = [-86_400, 86_400, -30, 3_600][random.below(4) as usize];
            script.at(&mut random, Happening::ClockJumps { secs });
        }
        for _ in 0..random.below(3) {
            let (away, taken) = (away(&mut random), random.chance(30));
            script.at(&mut random, Happening::StoreAway { away, taken });
        }
        for _ in 0..random.below(2) {
            let low = away(&mut random);
            script.at(&mut random, Happening::DiskLow { low });
        }
        for _ in 0..random.below(12) {
            let what = random.draw();
            script.at(&mut random, Happening::Borrow(what));
        }
        for _ in 0..random.below(12) {
            let which = random.draw();
            // Before the coordinator looks for wishes again, or at any time of the attempt's end.
            let longest = if random.chance(50) { 150 } else { 30_000 };
            let after = Duration::from_millis(random.within(1, longest));
            let times = 1 + random.below(3) as u32;
            script.at(&mut random, Happening::Again { which, after, times });
        }
        script.events.sort_by_key(|(at, _)| *at);
        script
    }

    fn at(&mut self, random: &mut Random, event: Happening) {
        let at = Duration::from_millis(random.below(TROUBLE.as_millis() as u64));
        self.events.push((at, event));
    }
}

/// A blink, some seconds, some minutes or a quarter of an hour: each is another path through the farm.
fn away(random: &mut Random) -> Duration {
    let (from, to) = [
        (100, 2_000),
        (5_000, 40_000),
        (60_000, 280_000),
        (310_000, 900_000),
    ][random.below(4) as usize];
    Duration::from_millis(random.within(from, to))
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [local, reverse, go] = self.machines;
        writeln!(
            f,
            "seed {}: {local} local, {reverse} reverse, {go} of Go's",
            self.seed
        )?;
        for (at, event) in &self.events {
            writeln!(f, "{:>10.3}s  {event:?}", at.as_secs_f64())?;
        }
        Ok(())
    }
}
