//! The payloads, as far as the log wants them. What GitHub adds later is ignored.

use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Issue {
    pub number: i32,
    #[serde(default)]
    pub title: Option<String>,
    #[serde(default)]
    pub body: Option<String>,
    /// `None`: whoever it was is gone.
    #[serde(default)]
    pub user: Option<User>,
    pub state: String,
    #[serde(default)]
    pub locked: bool,
    #[serde(default)]
    pub labels: Vec<Label>,
    #[serde(default)]
    pub milestone: Option<Milestone>,
    #[serde(default)]
    pub assignees: Vec<User>,
    /// How many there are now.
    #[serde(default)]
    pub comments: usize,
    pub created_at: Time,
    pub updated_at: Time,
    #[serde(default)]
    pub closed_at: Option<Time>,
    #[serde(default)]
    pub pull_request: Option<Value>,
    /// `https://api.github.com/repos/OWNER/REPO`.
    #[serde(default)]
    pub repository_url: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct User {
    pub id: i64,
    pub login: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Label {
    pub id: i64,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Milestone {
    pub id: i64,
    pub number: i64,
    pub title: String,
    #[serde(default)]
    pub state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Comment {
    pub id: i64,
    #[serde(default)]
    pub user: Option<User>,
    #[serde(default)]
    pub body: Option<String>,
    pub created_at: Time,
    pub updated_at: Time,
}

/// An event or a review: what the log has no field for is kept as it is.
pub type Open = Map<String, Value>;

/// Seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

impl Time {
    pub fn parse(text: &str) -> Option<Time> {
        let time: jiff::Timestamp = text.parse().ok()?;
        Some(Time(time.as_second()))
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_second(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => "1970-01-01T00:00:00Z".fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
        let text = String::deserialize(from)?;
        Time::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no time")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_and_written() {
        let time = Time::parse("2026-11-24T10:00:01Z").unwrap();
        assert_eq!(
            (time.0, time.to_string()),
            (1_795_514_401, "2026-11-24T10:00:01Z".to_owned())
        );
        assert_eq!(Time::parse("2026-11-24"), None);
        assert_eq!(Time(i64::MAX).to_string(), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn an_issue_needs_little() {
        let least = r#"{"number":1,"state":"open","created_at":"2026-11-24T10:00:01Z","updated_at":"2026-11-24T10:00:01Z","user":null,"body":null,"labels":[],"new":1}"#;
        let issue: Issue = serde_json::from_str(least).unwrap();
        assert_eq!(
            (issue.number, issue.user, issue.body, issue.pull_request),
            (1, None, None, None)
        );
        assert!(serde_json::from_str::<Issue>(r#"{"number":1}"#).is_err());
    }

    proptest! {
        #[test]
        fn no_payload_makes_it_panic(json in "[{}\\[\\]\":,0-9a-z_ -]{0,100}") {
            let _ = serde_json::from_str::<Vec<Issue>>(&json);
            let _ = serde_json::from_str::<Vec<Comment>>(&json);
            Time::parse(&json);
        }
    }
}
