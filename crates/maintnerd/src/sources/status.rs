use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::Instant;

use super::{Looked, Source};

/// How a source is doing, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceStatus {
    pub name: String,
    #[serde(flatten)]
    pub state: State,
    /// Seconds since the last look that went well: how old what is known may be. `None`: none has.
    pub fresh_secs_ago: Option<u64>,
    /// Seconds since the last look that brought something.
    pub news_secs_ago: Option<u64>,
    pub poll_secs: u64,
    /// Looks that ended, and those that failed.
    pub looks: u64,
    pub failures: u64,
    /// Mutations told since this process began.
    pub told: u64,
    /// Refs that seem to be gone, and will be believed to be after the next look.
    pub doubted: usize,
    /// Refs whose commits the server does not give, a few of them.
    pub left: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Nothing is known yet.
    Starting,
    Looking,
    Good,
    Failing {
        /// For whoever must mend it.
        why: String,
        for_secs: u64,
        again_in_secs: u64,
    },
    /// The server lets us ask nothing more.
    Limited {
        /// Unix seconds.
        until: u64,
        for_secs: u64,
    },
}

impl State {
    pub fn word(&self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Looking => "looking",
            State::Good => "good",
            State::Failing { .. } => "failing",
            State::Limited { .. } => "limited",
        }
    }

    /// One sentence; `None` while there is nothing to say.
    pub fn trouble(&self) -> Option<String> {
        match self {
            State::Starting | State::Looking | State::Good => None,
            State::Failing { why, .. } => Some(why.clone()),
            State::Limited { until, .. } => {
                let time = i64::try_from(*until).ok();
                let time = time.and_then(|time| jiff::Timestamp::from_second(time).ok());
                let time = time.map_or("later".to_owned(), |time| time.to_string());
                Some(format!("rate limited until {time}"))
            }
        }
    }
}

/// Why a look failed, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub why: String,
    /// It is of no use to look again before.
    pub at_least: Duration,
    /// The server said how long it wants to hear nothing.
    pub until: Option<Duration>,
}

/// What is known of how a source is doing.
#[derive(Debug)]
pub(super) struct Standing {
    name: String,
    poll: Duration,
    looking: bool,
    fresh: Option<Instant>,
    news: Option<Instant>,
    /// The first of those that failed since one went well, why the last did, and when it is tried again.
    failing: Option<(Instant, Failure, Instant)>,
    looks: u64,
    failures: u64,
    told: u64,
    doubted: usize,
    left: Vec<String>,
}

impl Standing {
    pub fn new(source: &Source) -> Standing {
        Standing {
            name: source.what.name(),
            poll: source.poll,
            looking: false,
            fresh: None,
            news: None,
            failing: None,
            looks: 0,
            failures: 0,
            told: 0,
            doubted: 0,
            left: Vec::new(),
        }
    }

    pub fn began(&mut self) {
        self.looking = true;
    }

    pub fn ended(&mut self, looked: Looked, pause: Duration) {
        let now = Instant::now();
        self.looking = false;
        self.looks += 1;
        match looked {
            Ok(done) => {
                self.fresh = Some(now);
                self.news = Some(now).filter(|_| done.written > 0).or(self.news);
                self.told += done.written as u64;
                self.doubted = done.doubted;
                self.left = done.left;
                self.left.truncate(10);
                self.failing = None;
            }
            Err(failure) => {
                self.failures += 1;
                let since = self.failing.as_ref().map_or(now, |(since, ..)| *since);
                self.failing = Some((since, failure, now + pause));
            }
        }
    }

    /// `blocked`: how long the server lets us ask nothing.
    pub fn status(&self, blocked: Option<Duration>) -> SourceStatus {
        let now = Instant::now();
        let since = |at: Instant| now.saturating_duration_since(at).as_secs();
        let until = |wait: Duration| {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (unix + wait).as_secs()
        };
        let failed_for = self.failing.as_ref().map_or(0, |(at, ..)| since(*at));
        let state = match (&self.failing, blocked) {
            (_, Some(wait)) => State::Limited {
                until: until(wait),
                for_secs: failed_for,
            },
            (Some((_, failure, again)), None) => match failure.until {
                Some(_) if *again > now => State::Limited {
                    until: until(*again - now),
                    for_secs: failed_for,
                },
                _ => State::Failing {
                    why: failure.why.clone(),
                    for_secs: failed_for,
                    again_in_secs: again.saturating_duration_since(now).as_secs(),
                },
            },
            (None, None) if self.looking => State::Looking,
            (None, None) if self.fresh.is_none() => State::Starting,
            (None, None) => State::Good,
        };
        SourceStatus {
            name: self.name.clone(),
            state,
            fresh_secs_ago: self.fresh.map(since),
            news_secs_ago: self.news.map(since),
            poll_secs: self.poll.as_secs(),
            looks: self.looks,
            failures: self.failures,
            told: self.told,
            doubted: self.doubted,
            left: self.left.clone(),
        }
    }
}

pub(super) fn locked(standing: &Mutex<Standing>) -> MutexGuard<'_, Standing> {
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}
