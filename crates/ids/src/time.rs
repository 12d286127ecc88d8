use std::ops::Add;
use std::time::Duration;

/// A moment by the wall clock: microseconds since 1970 in UTC. The wall clock may jump; whatever
/// must not jump with it is counted in [`Now::mono`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub const fn from_secs(secs: i64) -> Timestamp {
        Timestamp(secs * 1_000_000)
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// How long after `earlier` this is; zero if it is not after.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, by: Duration) -> Timestamp {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(micros))
    }
}

/// What the clocks show when something happens. Handed into every core; none reads a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since this process started. Never goes back, starts again at zero after a restart: deadlines.
    pub mono: Duration,
    /// By the wall clock: what is stored and shown.
    pub wall: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_went_back_gives_zero() {
        let t = Timestamp::from_secs(10);
        assert_eq!(t.since(Timestamp::from_secs(20)), Duration::ZERO);
        assert_eq!((t + Duration::from_secs(5)).since(t), Duration::from_secs(5));
        assert_eq!(Timestamp(-1).as_secs(), -1);
    }
}
