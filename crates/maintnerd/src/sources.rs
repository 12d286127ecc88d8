//! What is followed: each source has a task that looks when it is time or when it is woken, tells the
//! log what is new, and says how it is doing.

mod gerrit;
mod github;
mod status;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::github::Budget;
use config::{ForgeAt, Maintner, SecretAt};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

pub use status::{SourceStatus, State};

use crate::keeper::Keeper;
use crate::known::Known;
use crate::pace::{Outcome, Pace};
use status::{Failure, Standing};

/// Gits that fetch at the same time.
const AT_ONCE: usize = 4;

/// Something that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub what: What,
    pub poll: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Branches and tags.
    Git { key: String, url: String },
    /// Changes too.
    Gerrit {
        key: String,
        url: String,
        cookies: Option<PathBuf>,
    },
    GitHub {
        api: String,
        owner: String,
        name: String,
        token: Option<SecretAt>,
    },
}

impl What {
    /// The same for one thing, however it is got to: `gerrit HOST/PROJECT`, `github OWNER/NAME`.
    pub fn name(&self) -> String {
        match self {
            What::Git { key, .. } => format!("git {key}"),
            What::Gerrit { key, .. } => format!("gerrit {key}"),
            What::GitHub { owner, name, .. } => format!("github {owner}/{name}"),
        }
    }

    /// As a pubsubhelper calls it.
    fn topic(&self) -> String {
        match self {
            What::Git { key, .. } | What::Gerrit { key, .. } => format!("gerrit:{key}"),
            What::GitHub { owner, name, .. } => format!("github:{owner}/{name}"),
        }
    }
}

/// All that a configuration says to follow, each once.
pub fn sources(maintner: &Maintner) -> Vec<Source> {
    let mut found: BTreeMap<String, Source> = BTreeMap::new();
    for watch in maintner.watches.values() {
        for project in &watch.projects {
            let url = |base: &str| format!("{base}/{project}");
            let what = match &watch.at {
                ForgeAt::Git { base } => What::Git {
                    key: key(&url(base), project),
                    url: url(base),
                },
                ForgeAt::Gerrit { base, cookies } => What::Gerrit {
                    key: key(&url(base), project),
                    url: url(base),
                    cookies: cookies.clone(),
                },
                ForgeAt::GitHub { api, token } => {
                    let (owner, name) = project.split_once('/').unwrap_or((project, ""));
                    What::GitHub {
                        api: api.clone(),
                        owner: owner.to_owned(),
                        name: name.to_owned(),
                        token: token.clone(),
                    }
                }
            };
            let source = Source {
                what,
                poll: watch.poll,
            };
            let known = found.entry(source.what.name()).or_insert_with(|| source.clone());
            known.poll = known.poll.min(source.poll);
        }
    }
    found.into_values().collect()
}

/// What a repository is called in the log: its host and path, however one logs in there; `local/NAME`
/// if it is on this machine.
pub fn key(url: &str, name: &str) -> String {
    let local = || format!("local/{name}");
    let rest = match url.split_once("://") {
        Some(("file", _)) => return local(),
        Some((_, rest)) => rest.to_owned(),
        // `user@host:path`, as ssh takes it.
        None => match url.split_once(':') {
            Some((host, path)) if !host.contains('/') => format!("{host}/{}", path.trim_start_matches('/')),
            _ => return local(),
        },
    };
    let (host, path) = rest.split_once('/').unwrap_or((&rest, ""));
    let host = host.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    let path = path
        .split(['?', '#'])
        .next()
        .unwrap_or_default()
        .trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    match (host.is_empty(), path.is_empty()) {
        (false, false) => format!("{host}/{path}"),
        _ => local(),
    }
}

/// Follows sources. Cheap to clone.
#[derive(Clone)]
pub struct Sources(Arc<Shared>);

/// An API and the token that is shown to it.
type TokenAt = (String, Option<SecretAt>);

struct Shared {
    /// Where copies of repositories are, and what GitHub answered.
    dir: PathBuf,
    known: Known,
    keeper: Keeper,
    followed: Mutex<BTreeMap<String, Followed>>,
    changed: Notify,
    at_once: Semaphore,
    budgets: Mutex<BTreeMap<TokenAt, Arc<tokio::sync::Mutex<Budget>>>>,
    started: Instant,
}

#[derive(Clone)]
struct Followed {
    source: Source,
    rate: u32,
    wake: Arc<Notify>,
    standing: Arc<Mutex<Standing>>,
    /// It is followed no more, or otherwise; heeded between two looks.
    ended: CancellationToken,
}

impl Sources {
    /// `dir`: for what is kept beside the log.
    pub fn new(dir: PathBuf, keeper: Keeper, known: Known) -> Sources {
        Sources(Arc::new(Shared {
            dir,
            known,
            keeper,
            followed: Mutex::default(),
            changed: Notify::new(),
            at_once: Semaphore::new(AT_ONCE),
            budgets: Mutex::default(),
            started: Instant::now(),
        }))
    }

    /// Another set holds from here on; those that are as before go on undisturbed. `rate`: questions a
    /// second of each token of GitHub.
    pub fn set(&self, sources: Vec<Source>, rate: u32) {
        let mut followed = self.followed();
        let mut next = BTreeMap::new();
        for source in sources {
            let name = source.what.name();
            let one = match followed.remove(&name) {
                Some(same) if same.source == source && same.rate == rate => same,
                old => {
                    old.inspect(|old| old.ended.cancel());
                    Followed {
                        standing: Arc::new(Mutex::new(Standing::new(&source))),
                        source,
                        rate,
                        wake: Arc::new(Notify::new()),
                        ended: CancellationToken::new(),
                    }
                }
            };
            next.insert(name, one);
        }
        followed.values().for_each(|gone| gone.ended.cancel());
        *followed = next;
        drop(followed);
        self.0.changed.notify_one();
    }

    /// Lets all look at once whose topic or name this is; how many. One that is looking looks once more.
    pub fn wake(&self, topic: &str) -> usize {
        let woken = |one: &&Followed| {
            let what = &one.source.what;
            // Hosts of Gerrit's pages are not those of its repositories.
            let plain = topic.replacen("-review.googlesource.com/", ".googlesource.com/", 1);
            what.topic() == plain || what.name() == topic
        };
        let followed = self.followed();
        let woken = followed.values().filter(woken);
        woken.map(|one| one.wake.notify_one()).count()
    }

    pub fn wake_all(&self) {
        self.followed().values().for_each(|one| one.wake.notify_one());
    }

    /// How each is doing, by name.
    pub fn status(&self) -> Vec<SourceStatus> {
        let followed: Vec<Followed> = self.followed().values().cloned().collect();
        let status = |one: &Followed| {
            let blocked = match &one.source.what {
                What::GitHub { api, token, .. } => {
                    let budget = self.budget(api, token.clone(), one.rate);
                    let asked = budget.try_lock().ok();
                    asked.and_then(|budget| budget.blocked(self.0.started.elapsed()))
                }
                What::Git { .. } | What::Gerrit { .. } => None,
            };
            status::locked(&one.standing).status(blocked)
        };
        followed.iter().map(status).collect()
    }

    /// Follows until `stop`. Looks that run then are dropped: the log has whole mutations, and the next
    /// process goes on where this one was.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        let mut running: BTreeMap<String, CancellationToken> = BTreeMap::new();
        loop {
            let followed = self.followed().clone();
            self.learn(&followed, &running).await;
            running.retain(|_, ended| !ended.is_cancelled());
            for (name, one) in followed {
                if !running.contains_key(&name) {
                    running.insert(name.clone(), one.ended.clone());
                    let (sources, stop) = (self.clone(), stop.clone());
                    let span = info_span!("source", source.name = %name);
                    tasks.spawn(async move { sources.follow(one, stop).await }.instrument(span));
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.0.changed.notified() => {}
            }
            while tasks.try_join_next().is_some() {}
        }
        tasks.shutdown().await;
        Ok(())
    }

    /// Reads the log once for all that are new, not once for each.
    async fn learn(
        &self,
        followed: &BTreeMap<String, Followed>,
        running: &BTreeMap<String, CancellationToken>,
    ) {
        let (mut projects, mut repos) = (Vec::new(), Vec::new());
        for one in followed.iter().filter(|(name, _)| !running.contains_key(*name)) {
            match &one.1.source.what {
                What::Git { key, .. } | What::Gerrit { key, .. } => projects.push(key.clone()),
                What::GitHub { owner, name, .. } => repos.push((owner.clone(), name.clone())),
            }
        }
        if projects.len() + repos.len() > 1
            && let Err(why) = self.0.known.learn(projects, repos).await
        {
            warn!("cannot learn from the log what is known: {why:#}");
        }
    }

    async fn follow(&self, one: Followed, stop: CancellationToken) {
        let mut pace = Pace::new(one.source.poll);
        let mut look = match &one.source.what {
            What::Git { key, url } => Looks::Gerrit(gerrit::Looks::new(key, url, None, true)),
            What::Gerrit { key, url, cookies } => {
                Looks::Gerrit(gerrit::Looks::new(key, url, cookies.clone(), false))
            }
            What::GitHub {
                api,
                owner,
                name,
                token,
            } => {
                let budget = self.budget(api, token.clone(), one.rate);
                Looks::GitHub(Box::new(github::Looks::new(
                    api,
                    owner,
                    name,
                    token.clone(),
                    budget,
                )))
            }
        };
        loop {
            let looking = async {
                match &mut look {
                    Looks::Gerrit(looks) => {
                        // Never closed.
                        let _turn = self.0.at_once.acquire().await;
                        status::locked(&one.standing).began();
                        looks.look(&self.0).await
                    }
                    Looks::GitHub(looks) => {
                        // It waits for its budget.
                        status::locked(&one.standing).began();
                        looks.look(&self.0).await
                    }
                }
            };
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = looking => looked,
            };
            let outcome = match &looked {
                Ok(done) if done.doubted > 0 => Outcome::Doubt,
                Ok(done) if done.written > 0 => Outcome::News,
                Ok(_) => Outcome::Nothing,
                Err(failure) => Outcome::Failed {
                    at_least: failure.at_least,
                },
            };
            match &looked {
                Ok(done) if done.written > 0 => info!("told the log {} mutations", done.written),
                Ok(_) => {}
                Err(failure) => warn!("{}", failure.why),
            }
            let pause = pace.after(outcome);
            status::locked(&one.standing).ended(looked, pause);
            tokio::select! {
                () = stop.cancelled() => return,
                () = one.ended.cancelled() => return,
                () = one.wake.notified() => pace.woken(),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One for each token: what it may ask is asked for by all together.
    fn budget(&self, api: &str, token: Option<SecretAt>, rate: u32) -> Arc<tokio::sync::Mutex<Budget>> {
        let mut budgets = self.0.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = budgets.entry((api.to_owned(), token));
        let fresh = || Arc::new(tokio::sync::Mutex::new(Budget::new(rate, rate.max(1))));
        budget.or_insert_with(fresh).clone()
    }

    fn followed(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Followed>> {
        self.0.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Looks {
    Gerrit(gerrit::Looks),
    GitHub(Box<github::Looks>),
}

/// What a look did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Done {
    written: usize,
    /// Refs that seem to be gone.
    doubted: usize,
    /// Refs whose commits could not be had.
    left: Vec<String>,
}

type Looked = Result<Done, Failure>;

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A failure of our own log; it says more where it is kept.
fn of_log(why: &dyn std::fmt::Display) -> Failure {
    Failure {
        why: format!("our own log: {why}"),
        at_least: Duration::ZERO,
        until: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_called_after_its_host_and_path() {
        for (url, expect) in [
            ("https://go.googlesource.com/build", "go.googlesource.com/build"),
            (
                "https://me:secret@Git.example.org:8443/a/b.git/",
                "git.example.org:8443/a/b",
            ),
            ("ssh://git@example.org/a.git", "example.org/a"),
            ("git@github.com:acme/widget.git", "github.com/acme/widget"),
            ("/srv/git/widget.git", "local/widget"),
            ("../widget", "local/widget"),
            ("./a:b", "local/widget"),
            ("file:///srv/git/widget.git", "local/widget"),
            ("https://example.org", "local/widget"),
        ] {
            assert_eq!(key(url, "widget"), expect, "{url}");
        }
    }
}
