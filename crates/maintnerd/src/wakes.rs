//! Hears from a pubsubhelper, golang/build's or ours, what changed, and wakes who follows it.
//!
//! Source: golang/build `maintner/subscribe.go`.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::sources::Sources;

/// The server answers within 30 s.
const LIMIT: Duration = Duration::from_secs(300);
/// After an error.
const PAUSE: Duration = Duration::from_secs(5);
/// An event is a few hundred bytes.
const MOST: usize = 64 << 10;

/// As the helper writes it; the rest is not for us.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    /// `None`: no time at all.
    time: Option<String>,
    gerrit: Option<Gerrit>,
    #[serde(rename = "GitHub")]
    github: Option<GitHub>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Gerrit {
    #[serde(rename = "URL")]
    url: String,
    project: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GitHub {
    repo_owner: String,
    repo: String,
}

impl Event {
    /// What happened to whom; `None`: nothing has.
    fn topic(&self) -> Option<String> {
        if let Some(github) = &self.github {
            return Some(format!("github:{}/{}", github.repo_owner, github.repo));
        }
        let gerrit = self.gerrit.as_ref()?;
        let host = gerrit.url.split_once("://")?.1.split('/').next()?;
        Some(format!("gerrit:{host}/{}", gerrit.project))
    }
}

/// Until `stop`. What is missed while the helper is away is found by looking now and then.
pub(crate) async fn listen(base: String, sources: Sources, stop: CancellationToken) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().timeout(LIMIT).build()?;
    let url: Url = format!("{}/waitevent", base.trim_end_matches('/')).parse()?;
    let mut after = String::new();
    let mut away = false;
    loop {
        let waited = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            waited = wait(&http, &url, &after) => waited,
        };
        match waited {
            Ok(event) => {
                away = false;
                if let Some(topic) = event.topic() {
                    let woken = sources.wake(&topic);
                    debug!("{topic} changed: {woken} sources are woken");
                }
                after = event.time.unwrap_or_default();
            }
            Err(why) => {
                // Once, not every five seconds.
                if !std::mem::replace(&mut away, true) {
                    warn!("cannot hear from the pubsubhelper at {base}, trying again: {why:#}");
                }
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
}

async fn wait(http: &reqwest::Client, url: &Url, after: &str) -> anyhow::Result<Event> {
    let mut url = url.clone();
    url.query_pairs_mut().append_pair("after", after);
    let mut answer = http.get(url).send().await?;
    anyhow::ensure!(
        answer.status() == StatusCode::OK,
        "it answered {}",
        answer.status()
    );
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        body.extend_from_slice(&piece);
        anyhow::ensure!(body.len() <= MOST, "its answer is no event: it is too long");
    }
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_what_changed() {
        let check = |json: &str, expect: Option<&str>| {
            let event: Event = serde_json::from_str(json).unwrap();
            assert_eq!(event.topic().as_deref(), expect, "{json}");
        };
        check(
            r#"{"Time":"2018-06-13T21:27:35.1Z","Gerrit":{"URL":"https://go-review.googlesource.com/c/build/+/39551","Project":"build","CommitHash":"1","ChangeNumber":39551}}"#,
            Some("gerrit:go-review.googlesource.com/build"),
        );
        check(
            r#"{"Time":null,"GitHub":{"Action":"opened","RepoOwner":"golang","Repo":"go","IssueNumber":3}}"#,
            Some("github:golang/go"),
        );
        check(
            r#"{"Time":"2018-06-13T21:28:05.5Z","LongPollTimeout":true}"#,
            None,
        );
    }
}
