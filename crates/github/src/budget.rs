use std::time::Duration;

use crate::Answer;

/// How long to wait when GitHub says that it was too much, and not for how long. Doubled each time.
/// Source: GitHub's "best practices for using the REST API".
const PENALTY: Duration = Duration::from_secs(60);
const MAX_PENALTY: Duration = Duration::from_secs(3600);

/// What a token may ask: so many a second, and no more than GitHub allows in an hour. Whoever asks with
/// the token asks here first; `now` is by a clock that never jumps.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Between two questions, in the long run.
    pause: Duration,
    burst: u32,
    /// When the next question would be due if all were asked at the pause.
    due: Duration,
    /// Nothing is asked before.
    blocked: Duration,
    penalty: Duration,
    remaining: Option<u32>,
}

impl Budget {
    /// `per_second`: 0 is no limit of ours. `burst`: how many may come at once after a rest.
    pub fn new(per_second: u32, burst: u32) -> Budget {
        Budget {
            pause: Duration::from_secs(1).checked_div(per_second).unwrap_or_default(),
            burst: burst.max(1),
            due: Duration::ZERO,
            blocked: Duration::ZERO,
            penalty: PENALTY,
            remaining: None,
        }
    }

    /// Takes one question out of the budget, or says how long to wait before asking again.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let ahead = self.pause * (self.burst - 1);
        let wait = self
            .blocked
            .max(self.due.saturating_sub(ahead))
            .saturating_sub(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.due = self.due.max(now) + self.pause;
        Ok(())
    }

    /// Learns from an answer.
    pub fn learn(&mut self, now: Duration, answer: &Answer) {
        self.remaining = answer.remaining.or(self.remaining);
        // By the server's clock both, so that ours need not be right.
        let reset = answer.reset.zip(answer.date).map(|(reset, date)| {
            // The second that it names is not over.
            Duration::from_secs(u64::try_from(reset.saturating_sub(date)).unwrap_or(0) + 1)
        });
        let wait = match (answer.is_limited(), answer.retry_after, answer.remaining, reset) {
            (true, Some(after), _, _) => after,
            (_, _, Some(0), Some(reset)) => reset,
            (true, _, _, _) => {
                let penalty = self.penalty;
                self.penalty = (penalty * 2).min(MAX_PENALTY);
                penalty
            }
            (false, _, _, _) => {
                self.penalty = PENALTY;
                return;
            }
        };
        self.blocked = self.blocked.max(now + wait);
    }

    /// How long GitHub lets us ask nothing, from `now` on.
    pub fn blocked(&self, now: Duration) -> Option<Duration> {
        Some(self.blocked.saturating_sub(now)).filter(|wait| !wait.is_zero())
    }

    /// How many more GitHub allows until it counts anew, as it last said.
    pub fn remaining(&self) -> Option<u32> {
        self.remaining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn after_a_burst_questions_come_one_by_one() {
        let mut budget = Budget::new(10, 3);
        assert_eq!([0; 3].map(|_| budget.take(NOW)), [Ok(()); 3]);
        assert_eq!(budget.take(NOW), Err(ms(100)));
        assert_eq!(budget.take(NOW + ms(100)), Ok(()));
        assert_eq!(budget.take(NOW + ms(150)), Err(ms(50)));
        assert_eq!(
            [0; 4].map(|_| budget.take(NOW * 2)),
            [Ok(()), Ok(()), Ok(()), Err(ms(100))]
        );
    }

    #[test]
    fn no_limit_is_none() {
        let mut budget = Budget::new(0, 0);
        assert!((0..1000).all(|_| budget.take(NOW).is_ok()));
    }

    fn answer(status: u16, remaining: Option<u32>, reset_in: Option<i64>, retry: Option<u64>) -> Answer {
        Answer {
            status,
            remaining,
            date: Some(5000),
            reset: reset_in.map(|reset| 5000 + reset),
            retry_after: retry.map(Duration::from_secs),
            ..Answer::default()
        }
    }

    fn check(answers: &[Answer], wait: u64) {
        let mut budget = Budget::new(0, 1);
        answers.iter().for_each(|answer| budget.learn(NOW, answer));
        let expect = if wait == 0 {
            Ok(())
        } else {
            Err(Duration::from_secs(wait))
        };
        assert_eq!(budget.take(NOW), expect, "{answers:?}");
    }

    #[test]
    fn what_github_allows_is_not_gone_beyond() {
        check(&[answer(200, Some(1), Some(60), None)], 0);
        check(&[answer(200, Some(0), Some(60), None)], 61);
        check(&[answer(403, Some(0), Some(60), None)], 61);
        check(&[answer(403, Some(0), Some(60), Some(5))], 5);
        check(&[answer(429, None, None, Some(7))], 7);
        check(&[answer(403, Some(9), None, None)], 0);
    }

    #[test]
    fn a_budget_says_how_long_it_is_blocked() {
        let mut budget = Budget::new(1, 1);
        assert_eq!(budget.take(NOW), Ok(()));
        assert_eq!(budget.blocked(NOW), None, "a pause of ours is no block");
        budget.learn(NOW, &answer(429, None, None, Some(7)));
        assert_eq!(budget.blocked(NOW + ms(2000)), Some(ms(5000)));
        assert_eq!(budget.blocked(NOW + ms(7000)), None);
    }

    #[test]
    fn who_is_not_told_how_long_waits_longer_each_time() {
        let limited = answer(429, None, None, None);
        check(std::slice::from_ref(&limited), 60);
        check(&[limited.clone(), limited.clone()], 120);
        check(&vec![limited.clone(); 20], 3600);
        // What went well in between is what counts.
        let mut budget = Budget::new(0, 1);
        for now in [NOW, NOW * 2] {
            budget.learn(now, &limited);
            budget.learn(now, &answer(200, None, None, None));
        }
        assert_eq!(budget.take(NOW * 2), Err(Duration::from_secs(60)));
    }
}
