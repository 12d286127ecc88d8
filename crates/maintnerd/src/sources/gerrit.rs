//! Looks at a repository of git, with the changes of a Gerrit in it or without.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use gerrit::Remote;
use sync::SyncError;

use super::status::Failure;
use super::{Done, Looked, Shared, chain, of_log};
use crate::keeper::LogGone;

pub(super) struct Looks {
    key: String,
    url: String,
    cookies: Option<PathBuf>,
    /// Branches and tags alone.
    plain: bool,
    syncer: Option<sync::Gerrit>,
}

impl Looks {
    pub fn new(key: &str, url: &str, cookies: Option<PathBuf>, plain: bool) -> Looks {
        Looks {
            key: key.to_owned(),
            url: url.to_owned(),
            cookies,
            plain,
            syncer: None,
        }
    }

    pub async fn look(&mut self, shared: &Shared) -> Looked {
        let mut syncer = match self.syncer.take() {
            Some(syncer) => syncer,
            None => self.open(shared).await.map_err(|why| Failure {
                why: format!("{why:#}"),
                at_least: Duration::ZERO,
                until: None,
            })?,
        };
        let mut held = shared
            .known
            .project(&self.key)
            .await
            .map_err(|why| of_log(&why))?;
        let now = shared.started.elapsed();
        let round = syncer.round(&mut held.value, now, &mut held.tell).await;
        match round {
            Ok(round) => {
                held.keep();
                self.syncer = Some(syncer);
                Ok(Done {
                    written: round.written,
                    doubted: round.doubted,
                    left: round.left,
                })
            }
            Err(SyncError::Log(gone)) => Err(of_log(&gone)),
            Err(why) => {
                // What was told before it failed is durable and known.
                held.keep();
                Err(Failure {
                    why: words(&why),
                    at_least: Duration::ZERO,
                    until: None,
                })
            }
        }
    }

    async fn open(&self, shared: &Shared) -> anyhow::Result<sync::Gerrit> {
        if let Some(cookies) = &self.cookies {
            // Git says nothing of a file that is not there, and is nobody then.
            std::fs::metadata(cookies)
                .with_context(|| format!("read the cookies in `{}`", cookies.display()))?;
        }
        let dir = shared.dir.join("git").join(folder(&self.key));
        let cookies = self.cookies.as_ref().map(|path| path.to_string_lossy());
        let remote = Remote::open(&dir, &self.url, cookies.as_deref()).await?;
        Ok(match self.plain {
            true => sync::Gerrit::plain(remote),
            false => sync::Gerrit::new(remote),
        })
    }
}

/// What is wrong, and where that is to be seen what to do.
fn words(why: &SyncError<LogGone>) -> String {
    let said = chain(why);
    let refused = [
        "Authentication failed",
        "could not read Username",
        "401",
        "403",
        "Permission denied",
    ];
    if refused.iter().any(|word| said.contains(word)) {
        return format!("the server refuses us; is `auth` of its forge right? {said}");
    }
    let gone = [
        "not found",
        "does not exist",
        "does not appear to be a git repository",
        "404",
    ];
    if gone.iter().any(|word| said.contains(word)) {
        return format!("it is gone, or not for us: {said}");
    }
    said
}

/// One folder for each, whatever stands in its name.
fn folder(key: &str) -> String {
    let escaped = |c: char| match c {
        '/' => "%2F".to_owned(),
        '%' => "%25".to_owned(),
        c => c.to_string(),
    };
    key.chars().map(escaped).collect::<String>() + ".git"
}
