use std::time::Duration;

/// After a round that failed; doubled with each that follows.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
const LONGEST_AFTER_FAILURE: Duration = Duration::from_secs(600);

/// After a listing that was not believed: by then it is.
const AFTER_DOUBT: Duration = Duration::from_secs(61);

/// When to look next. Pure.
///
/// Who was woken and found nothing looks again soon, for events come before what they tell of is to be
/// seen; the pauses double until it is as if nobody had woken it.
///
/// Source: golang/build `maintner/github.go`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    poll: Duration,
    failures: u32,
    /// The next pause of one that was woken.
    soon: Option<Duration>,
}

/// How a round went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    News,
    Nothing,
    /// Refs seem to be gone, and are not believed to be.
    Doubt,
    /// It is known to be of no use before that.
    Failed {
        at_least: Duration,
    },
}

impl Pace {
    pub fn new(poll: Duration) -> Pace {
        Pace {
            poll,
            failures: 0,
            soon: None,
        }
    }

    /// Something is said to have happened.
    pub fn woken(&mut self) {
        self.soon = Some(Duration::from_secs(1));
    }

    /// How long to wait after a round.
    pub fn after(&mut self, outcome: Outcome) -> Duration {
        match outcome {
            Outcome::Failed { at_least } => {
                let doubled = AFTER_FAILURE * 2_u32.saturating_pow(self.failures.min(16));
                self.failures += 1;
                return doubled.min(LONGEST_AFTER_FAILURE).max(at_least);
            }
            Outcome::News | Outcome::Nothing | Outcome::Doubt => self.failures = 0,
        }
        if outcome == Outcome::News {
            self.soon = None;
        }
        let pause = match self.soon {
            Some(soon) if soon < self.poll => {
                self.soon = Some(soon * 2);
                soon
            }
            Some(_) | None => {
                self.soon = None;
                self.poll
            }
        };
        match outcome {
            Outcome::Doubt => pause.min(AFTER_DOUBT),
            Outcome::News | Outcome::Nothing | Outcome::Failed { .. } => pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `woken`, `news`, `nothing`, `doubt`, `failed`, `failed+SECONDS`; what is after it is the pause.
    fn check(poll: u64, story: &str) {
        let mut pace = Pace::new(Duration::from_secs(poll));
        for line in story.split(',').map(str::trim) {
            let (happened, expect) = line.split_once(' ').unwrap_or((line, ""));
            let outcome = match happened.split_once('+').unwrap_or((happened, "0")) {
                ("woken", _) => {
                    pace.woken();
                    continue;
                }
                ("news", _) => Outcome::News,
                ("nothing", _) => Outcome::Nothing,
                ("doubt", _) => Outcome::Doubt,
                ("failed", seconds) => Outcome::Failed {
                    at_least: Duration::from_secs(seconds.parse().unwrap()),
                },
                _ => panic!("{line}"),
            };
            let expect = Duration::from_secs(expect.parse().unwrap());
            assert_eq!(pace.after(outcome), expect, "{line} of {story}");
        }
    }

    #[test]
    fn who_was_woken_and_finds_nothing_looks_again_soon() {
        check(
            900,
            "nothing 900, woken, nothing 1, nothing 2, nothing 4, news 900, nothing 900",
        );
        check(5, "woken, nothing 1, nothing 2, nothing 4, nothing 5, nothing 5");
        check(1, "woken, nothing 1, nothing 1");
    }

    #[test]
    fn what_fails_is_tried_less_and_less_often_but_not_before_it_can_work() {
        check(
            300,
            "failed 30, failed 60, failed 120, failed 240, failed 480, failed 600, failed 600",
        );
        check(300, "failed 30, failed 60, nothing 300, failed 30");
        check(300, "failed+3600 3600, failed+10 60");
    }

    #[test]
    fn what_is_doubted_is_looked_at_again_after_a_minute() {
        check(300, "doubt 61, news 300");
        check(20, "doubt 20");
    }
}
