//! Looks at a repository of GitHub.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::SecretAt;
use github::{Budget, Client};
use serde::{Deserialize, Serialize};
use sync::github::{GitHub, GitHubError, Poll, Round, Trouble};

use super::status::Failure;
use super::{Done, Looked, Shared, chain, of_log};
use crate::keeper::LogGone;

/// All of a repository is looked at, for what is gone too.
const FULL_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);

/// To answer in whole.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Looks {
    api: String,
    owner: String,
    name: String,
    token: Option<SecretAt>,
    budget: Arc<tokio::sync::Mutex<Budget>>,
    /// What was kept of the process before; `None` until it was read.
    kept: Option<Kept>,
}

/// What is kept over a restart, beside the log. Only saves work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Bytes of the log when this was true of it.
    log: u64,
    /// Unix seconds of the last look at all.
    full: u64,
    /// By address.
    etags: BTreeMap<String, String>,
}

impl Looks {
    pub fn new(
        api: &str,
        owner: &str,
        name: &str,
        token: Option<SecretAt>,
        budget: Arc<tokio::sync::Mutex<Budget>>,
    ) -> Looks {
        Looks {
            api: api.to_owned(),
            owner: owner.to_owned(),
            name: name.to_owned(),
            token,
            budget,
            kept: None,
        }
    }

    pub async fn look(&mut self, shared: &Shared) -> Looked {
        let failed = |why: String| Failure {
            why,
            at_least: Duration::ZERO,
            until: None,
        };
        let token = self.token.as_ref().map(read_secret).transpose().map_err(failed)?;
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .timeout(ANSWER_LIMIT)
            .build()
            .map_err(|why| failed(chain(&why)))?;
        let client = Client::new(http, &self.api, token);
        let mut held = shared
            .known
            .repo(&self.owner, &self.name)
            .await
            .map_err(|why| of_log(&why))?;
        let path = shared
            .dir
            .join("github")
            .join(format!("{}+{}.json", self.owner, self.name));
        let mut kept = match self.kept.take() {
            Some(kept) => kept,
            None => read_kept(&path, shared.keeper.size()),
        };
        let mut poll = Poll::new(std::mem::take(&mut held.value));
        poll.etags = std::mem::take(&mut kept.etags);
        let due = unix().saturating_sub(kept.full) >= FULL_EVERY.as_secs();
        let round = if due { Round::Full } else { Round::Recent };
        let github = GitHub {
            client: &client,
            budget: &self.budget,
            started: shared.started.into_std(),
        };
        let done = github.round(&mut poll, round, &mut held.tell).await;
        if let Err(GitHubError::Log(gone)) = &done {
            return Err(of_log(gone));
        }
        kept.etags = std::mem::take(&mut poll.etags);
        held.value = poll.into_repo();
        held.keep();
        if done.is_ok() {
            kept.full = if due { unix() } else { kept.full };
            kept.log = shared.keeper.size();
            write_kept(&path, &kept);
        }
        self.kept = Some(kept);
        match done {
            Ok(written) => Ok(Done {
                written,
                ..Done::default()
            }),
            Err(why) => Err(Failure {
                why: words(&why, self.token.as_ref()),
                ..failed(String::new())
            }),
        }
    }
}

/// What is wrong, and who can mend it.
fn words(why: &GitHubError<LogGone>, token: Option<&SecretAt>) -> String {
    let GitHubError::Trouble(Trouble::Refused { status, address }) = why else {
        return chain(why);
    };
    let with = match token {
        Some(SecretAt::File(path)) => format!("the token in `{}`", path.display()),
        Some(SecretAt::Env(name)) => format!("the token in ${name}"),
        None => "us, who show no token".to_owned(),
    };
    match status {
        401 => format!("GitHub does not know {with} (401 to `{address}`)"),
        403 => format!("GitHub does not let {with} read this (403 to `{address}`)"),
        404 => format!("it is gone, or GitHub does not show it to {with} (404 to `{address}`)"),
        _ => chain(why),
    }
}

fn read_secret(at: &SecretAt) -> Result<String, String> {
    let secret = match at {
        SecretAt::File(path) => std::fs::read_to_string(path)
            .map_err(|why| format!("cannot read the token in `{}`: {why}", path.display()))?,
        SecretAt::Env(name) => std::env::var(name).map_err(|_| format!("the token in ${name} is not set"))?,
    };
    let secret = secret.trim();
    if secret.is_empty() || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        let place = match at {
            SecretAt::File(path) => format!("`{}`", path.display()),
            SecretAt::Env(name) => format!("${name}"),
        };
        return Err(format!(
            "{place} holds no token: wanted one line of letters, digits and signs"
        ));
    }
    Ok(secret.to_owned())
}

/// Nothing, if it is not of this log: what was answered then is not known now.
fn read_kept(path: &Path, log: u64) -> Kept {
    let kept = std::fs::read(path).ok();
    let kept: Option<Kept> = kept.and_then(|kept| serde_json::from_slice(&kept).ok());
    kept.filter(|kept| kept.log <= log).unwrap_or_default()
}

/// That it is lost costs a few questions more.
fn write_kept(path: &Path, kept: &Kept) {
    let written = || -> std::io::Result<()> {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let fresh: PathBuf = path.with_extension("json.new");
        std::fs::write(&fresh, serde_json::to_vec(kept)?)?;
        std::fs::rename(&fresh, path)
    };
    if let Err(why) = written() {
        tracing::debug!("cannot keep what GitHub answered in `{}`: {why}", path.display());
    }
}

fn unix() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
