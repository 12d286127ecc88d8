use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);
/// A buildlet that was up for that long was well.
const WELL: Duration = Duration::from_secs(60);

/// The pauses between starts: 1 s, doubled with every start that came to little, up to 1 min.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// The pause after a buildlet that was up for `up`; zero if it never was.
    pub fn after(&mut self, up: Duration) -> Duration {
        let pause = match self.last {
            Some(last) if up < WELL => (last * 2).min(LAST),
            _ => FIRST,
        };
        self.last = Some(pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_a_minute_and_start_over_after_a_good_run() {
        let mut backoff = Backoff::default();
        let mut after = |up| backoff.after(Duration::from_secs(up)).as_secs();
        let pauses: Vec<u64> = (0..8).map(|_| after(0)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(after(59), 60);
        assert_eq!(after(60), 1);
        assert_eq!(after(0), 2);
    }
}
