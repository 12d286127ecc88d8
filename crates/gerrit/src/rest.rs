//! The REST API: what git does not tell, such as who an account is.
//!
//! Source: golang/build `gerrit/`; the answers of 3.10.

use std::collections::BTreeMap;

use ids::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::credentials::Credentials;

/// An answer larger than this is refused. Source: all options of 500 changes are about 8 MiB.
pub const MAX_BODY: usize = 64 << 20;

/// How much of an error's body is told. Source: golang/build `gerrit/gerrit.go`.
const MAX_SAID: usize = 4 << 10;

#[derive(Debug, thiserror::Error)]
pub enum RestError {
    #[error("there is no `{path}`, or not for us")]
    NotFound { path: String },
    #[error("the server answered {status} to `{path}`: {said}")]
    Refused { path: String, status: u16, said: String },
    #[error("the answer to `{path}` is larger than {MAX_BODY} bytes")]
    TooLarge { path: String },
    #[error("the answer to `{path}` is not what Gerrit answers")]
    Malformed { path: String, source: BadAnswer },
    #[error("cannot ask the server")]
    Transport(#[source] reqwest::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum BadAnswer {
    #[error("it does not start with `)]}}'`")]
    NoGuard,
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Reads an answer, which starts with a line that keeps browsers from running it.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadAnswer> {
    let json = body.strip_prefix(b")]}'").ok_or(BadAnswer::NoGuard)?;
    Ok(serde_json::from_slice(json)?)
}

/// The pages of a query, one after the other.
#[derive(Debug)]
pub struct Pages {
    query: String,
    options: Vec<&'static str>,
    start: Option<usize>,
}

impl Pages {
    /// `options`: the fields wanted beyond the plain ones, as `MESSAGES`.
    pub fn new(query: &str, options: &[&'static str]) -> Pages {
        Pages {
            query: query.to_owned(),
            options: options.to_vec(),
            start: Some(0),
        }
    }

    /// What to ask next; `None`: all is there.
    pub fn next(&self) -> Option<(String, Vec<(&'static str, String)>)> {
        let start = self.start?;
        let mut parameters: Vec<(&'static str, String)> = self
            .options
            .iter()
            .map(|option| ("o", (*option).to_owned()))
            .collect();
        parameters.push(("q", self.query.clone()));
        if start > 0 {
            parameters.push(("S", start.to_string()));
        }
        Some(("/changes/".to_owned(), parameters))
    }

    /// Takes in the answer: the last change of a page says whether there are more.
    pub fn take(&mut self, page: &[ChangeInfo]) {
        let more = page.last().is_some_and(|last| last.more_changes);
        self.start = self.start.filter(|_| more).map(|start| start + page.len());
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct ChangeInfo {
    pub project: String,
    /// Without `refs/heads/`.
    pub branch: String,
    #[serde(rename = "_number")]
    pub number: u32,
    pub change_id: String,
    pub subject: String,
    pub status: String,
    #[serde(deserialize_with = "time")]
    pub created: Timestamp,
    #[serde(deserialize_with = "time")]
    pub updated: Timestamp,
    #[serde(default, deserialize_with = "maybe_time")]
    pub submitted: Option<Timestamp>,
    pub submitter: Option<AccountInfo>,
    pub owner: AccountInfo,
    pub topic: Option<String>,
    #[serde(default)]
    pub hashtags: Vec<String>,
    #[serde(default)]
    pub is_private: bool,
    #[serde(default)]
    pub work_in_progress: bool,
    pub meta_rev_id: Option<String>,
    pub submission_id: Option<String>,
    pub revert_of: Option<u32>,
    pub cherry_pick_of_change: Option<u32>,
    pub cherry_pick_of_patch_set: Option<u32>,
    #[serde(default)]
    pub attention_set: BTreeMap<u32, AttentionInfo>,
    #[serde(default)]
    pub removed_from_attention_set: BTreeMap<u32, AttentionInfo>,
    #[serde(default)]
    pub custom_keyed_values: BTreeMap<String, String>,
    #[serde(default)]
    pub labels: BTreeMap<String, LabelInfo>,
    /// By `REVIEWER`, `CC`.
    #[serde(default)]
    pub reviewers: BTreeMap<String, Vec<AccountInfo>>,
    #[serde(default)]
    pub messages: Vec<MessageInfo>,
    pub current_revision: Option<String>,
    /// By commit.
    #[serde(default)]
    pub revisions: BTreeMap<String, RevisionInfo>,
    #[serde(rename = "_more_changes", default)]
    pub more_changes: bool,
}

/// Without a number: somebody who has no account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AccountInfo {
    #[serde(rename = "_account_id")]
    pub id: Option<u32>,
    pub name: Option<String>,
    pub email: Option<String>,
    pub username: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct AttentionInfo {
    #[serde(deserialize_with = "time")]
    pub last_update: Timestamp,
    pub reason: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct LabelInfo {
    /// All who voted or could.
    #[serde(default)]
    pub all: Vec<ApprovalInfo>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct ApprovalInfo {
    #[serde(rename = "_account_id")]
    pub id: u32,
    #[serde(default)]
    pub value: i16,
}

#[derive(Debug, Clone, Deserialize)]
pub struct MessageInfo {
    /// The meta commit that tells of it.
    pub id: String,
    pub author: Option<AccountInfo>,
    pub real_author: Option<AccountInfo>,
    #[serde(deserialize_with = "time")]
    pub date: Timestamp,
    pub message: String,
    pub tag: Option<String>,
    #[serde(rename = "_revision_number")]
    pub patch_set: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct RevisionInfo {
    #[serde(rename = "_number")]
    pub number: u32,
    #[serde(deserialize_with = "time")]
    pub created: Timestamp,
    pub uploader: AccountInfo,
    #[serde(rename = "ref")]
    pub name: String,
    pub description: Option<String>,
}

fn time<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(from)?;
    read_time(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no time")))
}

fn maybe_time<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    time(from).map(Some)
}

/// `2026-11-23 10:48:25.000000000`, in UTC.
fn read_time(text: &str) -> Option<Timestamp> {
    let time: jiff::civil::DateTime = text.parse().ok()?;
    let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Timestamp(time.timestamp().as_microsecond()))
}

/// Asks a server.
pub struct Client {
    http: reqwest::Client,
    base: String,
    credentials: Option<Credentials>,
}

impl Client {
    /// `base`: where its pages are, without a slash at the end.
    pub fn new(http: reqwest::Client, base: &str, credentials: Option<Credentials>) -> Client {
        Client {
            http,
            base: base.to_owned(),
            credentials,
        }
    }

    /// All changes that a query finds, each once though pages move while they are read.
    pub async fn changes(&self, query: &str, options: &[&'static str]) -> Result<Vec<ChangeInfo>, RestError> {
        let mut pages = Pages::new(query, options);
        let mut found = BTreeMap::new();
        while let Some((path, parameters)) = pages.next() {
            let page: Vec<ChangeInfo> = self.get(&path, &parameters).await?;
            pages.take(&page);
            found.extend(page.into_iter().map(|change| (change.number, change)));
        }
        Ok(found.into_values().collect())
    }

    /// `path` begins with a slash and holds no parameters.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
    ) -> Result<T, RestError> {
        let (prefix, request) = match &self.credentials {
            None => ("", None),
            Some(credentials) => ("/a", Some(credentials)),
        };
        let asked = self
            .http
            .get(format!("{}{prefix}{path}", self.base))
            .query(parameters);
        let asked = match request {
            None => asked,
            Some(Credentials::Cookie(cookie)) => asked.header("Cookie", cookie),
            Some(Credentials::Basic { user, password }) => asked.basic_auth(user, Some(password)),
        };
        let mut answer = asked.send().await.map_err(RestError::Transport)?;
        let status = answer.status().as_u16();
        let path = || path.to_owned();
        let limit = if status == 200 { MAX_BODY } else { MAX_SAID };
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(RestError::Transport)? {
            body.extend_from_slice(&piece);
            if body.len() > limit {
                break;
            }
        }
        match status {
            200 if body.len() > limit => Err(RestError::TooLarge { path: path() }),
            200 => read(&body).map_err(|source| RestError::Malformed { path: path(), source }),
            404 => Err(RestError::NotFound { path: path() }),
            status => {
                body.truncate(limit);
                let said = String::from_utf8_lossy(&body).trim().to_owned();
                Err(RestError::Refused {
                    path: path(),
                    status,
                    said,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_guard_is_needed() {
        assert_eq!(read::<Vec<u8>>(b")]}'\n[1,2]").unwrap(), [1, 2]);
        assert!(matches!(read::<Vec<u8>>(b"[1]"), Err(BadAnswer::NoGuard)));
        assert!(matches!(read::<Vec<u8>>(b")]}'\n[1"), Err(BadAnswer::Json(_))));
    }

    #[test]
    fn times_are_in_utc() {
        let time = read_time("2026-11-23 10:48:25.000001000").unwrap();
        assert_eq!(time, Timestamp(1_795_430_905_000_001));
        assert_eq!(
            read_time("2026-11-23T10:48"),
            Some(Timestamp(1_795_430_880_000_000))
        );
        assert_eq!(read_time("yesterday"), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(json in "[{}\\[\\]\":,0-9a-z_ -]{0,100}") {
            let _ = read::<Vec<ChangeInfo>>(format!(")]}}'\n{json}").as_bytes());
        }
    }
}
