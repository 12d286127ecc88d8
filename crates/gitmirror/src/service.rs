use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use git::{GitError, Mirror, RefChange};
use ids::{BranchName, GitHash, RepoName};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};

use crate::archive::{Archive, ArchiveError, Archives};

/// Longest pause after errors.
const BACK_OFF_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoConfig {
    pub name: RepoName,
    /// Anything that git fetches from.
    pub url: String,
    /// How often to look without being told.
    pub poll: Duration,
}

/// What the loop of one repository came to know. The channel is bounded: a slow reader slows fetching.
#[derive(Debug, Clone)]
pub enum MirrorEvent {
    /// The first of a process tells all branches as changes.
    Fetched {
        repo: RepoName,
        changes: Vec<RefChange>,
        default_branch: Option<BranchName>,
    },
    Failed {
        repo: RepoName,
        error: String,
    },
}

/// How a repository is doing.
#[derive(Debug, Clone, Default)]
pub struct RepoStatus {
    pub last_good: Option<Instant>,
    /// The last attempt's error, if it failed.
    pub error: Option<String>,
}

/// All mirrors of a farm.
pub struct MirrorService {
    dir: PathBuf,
    repos: StdMutex<BTreeMap<RepoName, Arc<Repo>>>,
    changed: Notify,
    events: mpsc::Sender<MirrorEvent>,
    archives: Archives,
    started: Instant,
}

pub(crate) struct Repo {
    pub config: RepoConfig,
    poke: Notify,
    pub status: StdMutex<RepoStatus>,
    mirror: Mutex<Option<Arc<Mirror>>>,
    /// Something else than the loop has fetched: its next look tells every branch.
    untold: AtomicBool,
    stop: CancellationToken,
}

impl MirrorService {
    /// Mirrors live in `dir/NAME.git`, archives in `dir/archives`.
    pub fn new(
        dir: PathBuf,
        repos: Vec<RepoConfig>,
        events: mpsc::Sender<MirrorEvent>,
    ) -> Arc<MirrorService> {
        let archives = Archives::new(dir.join("archives"));
        let service = MirrorService {
            dir,
            repos: StdMutex::default(),
            changed: Notify::new(),
            events,
            archives,
            started: Instant::now(),
        };
        service.set_repos(repos);
        Arc::new(service)
    }

    /// Another set of repositories holds from here on; those that are as before go on undisturbed.
    pub fn set_repos(&self, repos: Vec<RepoConfig>) {
        let mut known = self.repos.lock().expect("no holder panics");
        let mut next = BTreeMap::new();
        for config in repos {
            let same = known.remove(&config.name).filter(|old| {
                let same = old.config == config;
                if !same {
                    old.stop.cancel();
                }
                same
            });
            let fresh = || {
                Arc::new(Repo {
                    config: config.clone(),
                    poke: Notify::new(),
                    status: StdMutex::default(),
                    mirror: Mutex::new(None),
                    untold: AtomicBool::new(true),
                    stop: CancellationToken::new(),
                })
            };
            next.insert(config.name.clone(), same.unwrap_or_else(fresh));
        }
        known.values().for_each(|gone| gone.stop.cancel());
        *known = next;
        drop(known);
        self.changed.notify_one();
    }

    /// Looks at once; `false` if there is no such repository.
    pub fn poke(&self, repo: &RepoName) -> bool {
        self.repo(repo).map(|repo| repo.poke.notify_one()).is_some()
    }

    pub fn poke_all(&self) {
        self.repos
            .lock()
            .expect("no holder panics")
            .values()
            .for_each(|repo| repo.poke.notify_one());
    }

    /// By name, with how long this service has run.
    pub fn statuses(&self) -> (Vec<(RepoName, RepoStatus)>, Duration) {
        let repos = self.repos.lock().expect("no holder panics");
        let status = |repo: &Arc<Repo>| repo.status.lock().expect("no holder panics").clone();
        (
            repos
                .iter()
                .map(|(name, repo)| (name.clone(), status(repo)))
                .collect(),
            self.started.elapsed(),
        )
    }

    /// Watches all repositories until `stop`.
    pub async fn run(self: Arc<MirrorService>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut loops = JoinSet::new();
        let mut watched: BTreeMap<RepoName, RepoConfig> = BTreeMap::new();
        loop {
            let repos: Vec<Arc<Repo>> = self
                .repos
                .lock()
                .expect("no holder panics")
                .values()
                .cloned()
                .collect();
            watched.retain(|name, config| {
                repos
                    .iter()
                    .any(|repo| &repo.config.name == name && &repo.config == config)
            });
            for repo in repos {
                if watched
                    .insert(repo.config.name.clone(), repo.config.clone())
                    .is_none()
                {
                    let span = info_span!("mirror", repo = %repo.config.name);
                    let (service, stop) = (self.clone(), stop.clone());
                    loops.spawn(async move { service.watch(repo, stop).await }.instrument(span));
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.changed.notified() => {}
            }
            while loops.try_join_next().is_some() {}
        }
        while loops.join_next().await.is_some() {}
        Ok(())
    }

    /// The mirror of a repository; opened when first asked for.
    pub async fn mirror(&self, name: &RepoName) -> Result<Arc<Mirror>, ArchiveError> {
        let repo = self
            .repo(name)
            .ok_or_else(|| ArchiveError::NoRepo(name.clone()))?;
        Ok(self.open(&repo).await?)
    }

    /// A tar.gz of a commit's tree, from the cache or made now; one at a time for each tree. A commit
    /// that the mirror lacks is looked for upstream once.
    pub async fn archive(&self, name: &RepoName, commit: &GitHash) -> Result<Archive, ArchiveError> {
        self.archive_of(name, commit.as_str())
            .await
            .map(|(archive, _)| archive)
    }

    pub(crate) async fn archive_of(
        &self,
        name: &RepoName,
        rev: &str,
    ) -> Result<(Archive, git::Resolved), ArchiveError> {
        let mirror = self.mirror(name).await?;
        let resolved = match mirror.resolve(rev).await {
            Err(GitError::NoRev { .. }) => {
                mirror.fetch().await?;
                if let Some(repo) = self.repo(name) {
                    repo.untold.store(true, Ordering::SeqCst);
                    repo.poke.notify_one();
                }
                mirror.resolve(rev).await?
            }
            found => found?,
        };
        Ok((self.archives.get(&mirror, &resolved).await?, resolved))
    }

    fn repo(&self, name: &RepoName) -> Option<Arc<Repo>> {
        self.repos.lock().expect("no holder panics").get(name).cloned()
    }

    async fn open(&self, repo: &Repo) -> Result<Arc<Mirror>, GitError> {
        let mut open = repo.mirror.lock().await;
        if let Some(mirror) = &*open {
            return Ok(mirror.clone());
        }
        let dir = self.dir.join(format!("{}.git", repo.config.name));
        let mirror = Arc::new(Mirror::open(&dir, &repo.config.url).await?);
        *open = Some(mirror.clone());
        Ok(mirror)
    }

    async fn watch(&self, repo: Arc<Repo>, stop: CancellationToken) {
        let name = repo.config.name.clone();
        let mut failures = 0u32;
        loop {
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                () = repo.stop.cancelled() => return,
                looked = self.look(&repo) => looked,
            };
            let pause = match looked {
                Ok(event) => {
                    failures = 0;
                    *repo.status.lock().expect("no holder panics") = RepoStatus {
                        last_good: Some(Instant::now()),
                        error: None,
                    };
                    if self.events.send(event).await.is_err() {
                        return;
                    }
                    repo.config.poll
                }
                Err(why) => {
                    failures += 1;
                    let error = format!("{:#}", anyhow::Error::from(why));
                    warn!("repository {name}: {error}");
                    repo.status.lock().expect("no holder panics").error = Some(error.clone());
                    let failed = MirrorEvent::Failed {
                        repo: name.clone(),
                        error,
                    };
                    if self.events.send(failed).await.is_err() {
                        return;
                    }
                    repo.config
                        .poll
                        .max(Duration::from_secs(5) * failures.min(120))
                        .min(BACK_OFF_MAX)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = repo.stop.cancelled() => return,
                () = repo.poke.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn look(&self, repo: &Repo) -> Result<MirrorEvent, GitError> {
        // Taken before the fetch: what somebody else fetches from here on is told by the next look.
        let untold = repo.untold.swap(false, Ordering::SeqCst);
        let looked = self.look_and_tell(repo, untold).await;
        if looked.is_err() {
            repo.untold.fetch_or(untold, Ordering::SeqCst);
        }
        looked
    }

    async fn look_and_tell(&self, repo: &Repo, untold: bool) -> Result<MirrorEvent, GitError> {
        let mirror = self.open(repo).await?;
        let report = mirror.fetch().await?;
        let mut changes = report.changes;
        if untold {
            // What moved while nobody watched is told too.
            let gone = changes
                .into_iter()
                .filter(|change| change.new.is_none())
                .collect::<Vec<_>>();
            let heads = mirror.branches().await?.into_iter();
            changes = heads
                .map(|(branch, new)| RefChange {
                    branch,
                    old: None,
                    new: Some(new),
                })
                .chain(gone)
                .collect();
        }
        Ok(MirrorEvent::Fetched {
            repo: repo.config.name.clone(),
            changes,
            default_branch: report.default_branch,
        })
    }
}
