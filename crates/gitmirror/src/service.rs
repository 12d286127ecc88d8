use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use git::{GitError, Mirror, Upstream};
use ids::{BranchName, GitHash, RepoName};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};

use crate::archive::{Archive, ArchiveError, Archives, For};

/// Longest pause after errors.
const BACK_OFF_MAX: Duration = Duration::from_secs(600);

/// What a hook brought is taken at once; what else has changed is looked at so much later.
const AFTER_GLANCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoConfig {
    pub name: RepoName,
    pub upstream: Upstream,
    /// How often to look without being told.
    pub poll: Duration,
}

/// What a repository's upstream had when it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub heads: BTreeMap<BranchName, GitHash>,
    /// Branches whose names no farm can use: some of them, and how many.
    pub unnamed: (Vec<String>, usize),
    /// `None` for an empty repository.
    pub default_branch: Option<BranchName>,
    /// As [`git::FetchReport::refs`].
    pub refs: BTreeMap<String, String>,
}

/// How a repository is doing.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// Rises with each look that ends, whichever repository's it is: another number, something else to tell.
    pub count: u64,
    pub last_good: Option<Instant>,
    /// The last look's error, if it failed.
    pub error: Option<String>,
    /// By the last look that went well. It stays true of the mirror while the upstream is away.
    pub seen: Option<Arc<Seen>>,
}

/// All mirrors of a farm.
pub struct MirrorService {
    dir: PathBuf,
    repos: StdMutex<BTreeMap<RepoName, Arc<Repo>>>,
    changed: Notify,
    news: Notify,
    looked: AtomicU64,
    archives: Archives,
    started: Instant,
}

struct Repo {
    config: RepoConfig,
    poke: Notify,
    look: StdMutex<Look>,
    /// The same for all configurations that a repository has had: it has one writer.
    mirror: Arc<Mutex<Option<Arc<Mirror>>>>,
    stop: CancellationToken,
}

impl MirrorService {
    /// Mirrors live in `dir/NAME.git`, archives in `dir/archives`.
    pub fn new(dir: PathBuf, repos: Vec<RepoConfig>) -> Arc<MirrorService> {
        let archives = Archives::new(dir.join("archives"));
        let service = MirrorService {
            dir,
            repos: StdMutex::default(),
            changed: Notify::new(),
            news: Notify::new(),
            looked: AtomicU64::new(0),
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
            let old = known.remove(&config.name);
            let repo = match old {
                Some(same) if same.config == config => same,
                old => {
                    if let Some(old) = &old {
                        old.stop.cancel();
                    }
                    Arc::new(Repo {
                        config: config.clone(),
                        poke: Notify::new(),
                        look: StdMutex::default(),
                        mirror: old.map(|old| old.mirror.clone()).unwrap_or_default(),
                        stop: CancellationToken::new(),
                    })
                }
            };
            next.insert(config.name, repo);
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

    /// How each repository is doing.
    pub fn looks(&self) -> BTreeMap<RepoName, Look> {
        let repos = self.repos.lock().expect("no holder panics");
        let look = |repo: &Arc<Repo>| repo.look.lock().expect("no holder panics").clone();
        repos
            .iter()
            .map(|(name, repo)| (name.clone(), look(repo)))
            .collect()
    }

    /// How long this service has run.
    pub fn up(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits for the next look to end, or returns at once if one has since the last call. For one waiter.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Watches all repositories until `stop`.
    pub async fn run(self: Arc<MirrorService>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut loops = JoinSet::new();
        let mut watched: BTreeMap<RepoName, Arc<Repo>> = BTreeMap::new();
        loop {
            let repos = self.repos.lock().expect("no holder panics").clone();
            for (name, repo) in &repos {
                if watched.get(name).is_none_or(|old| !Arc::ptr_eq(old, repo)) {
                    let span = info_span!("mirror", repo = %name);
                    let (service, repo, stop) = (self.clone(), repo.clone(), stop.clone());
                    loops.spawn(async move { service.watch(repo, stop).await }.instrument(span));
                }
            }
            watched = repos;
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.changed.notified() => {}
            }
            while loops.try_join_next().is_some() {}
        }
        while loops.join_next().await.is_some() {}
        Ok(())
    }

    /// Where the mirror of a repository is.
    pub fn folder(&self, name: &RepoName) -> PathBuf {
        self.dir.join(format!("{name}.git"))
    }

    /// The mirror of a repository; opened when first asked for.
    pub async fn mirror(&self, name: &RepoName) -> Result<Arc<Mirror>, ArchiveError> {
        Ok(self.open(&*self.wanted(name)?).await?)
    }

    /// What a machine gets of a commit, from the cache or made now; one at a time for each commit. A commit
    /// that the mirror lacks is looked for upstream once, and so is one that cannot be read.
    pub async fn archive(&self, name: &RepoName, commit: &GitHash) -> Result<Archive, ArchiveError> {
        self.wanted(name)?;
        // A hash means the same for ever: for most builds of a commit no git is run.
        if let Some(archive) = self.archives.there(commit, For::Machine).await {
            return Ok(archive);
        }
        self.archive_of(name, commit.as_str(), For::Machine)
            .await
            .map(|(archive, _)| archive)
    }

    pub(crate) async fn archive_of(
        &self,
        name: &RepoName,
        rev: &str,
        whom: For,
    ) -> Result<(Archive, git::Resolved), ArchiveError> {
        let repo = self.wanted(name)?;
        let mirror = self.open(&repo).await?;
        let resolved = match mirror.resolve(rev).await {
            Err(GitError::NoRev { .. }) => {
                self.look(&repo).await?;
                mirror.resolve(rev).await?
            }
            found => found?,
        };
        let archive = match self.archives.get(&mirror, &resolved.commit, whom).await {
            Err(ArchiveError::Git(GitError::Failed { command, said })) => {
                warn!("repository {name}: git {command} failed: {said}; looking whether the mirror is whole");
                mirror.doubt();
                self.look(&repo).await?;
                self.archives.get(&mirror, &resolved.commit, whom).await?
            }
            made => made?,
        };
        Ok((archive, resolved))
    }

    fn repo(&self, name: &RepoName) -> Option<Arc<Repo>> {
        self.repos.lock().expect("no holder panics").get(name).cloned()
    }

    fn wanted(&self, name: &RepoName) -> Result<Arc<Repo>, ArchiveError> {
        self.repo(name).ok_or_else(|| ArchiveError::NoRepo(name.clone()))
    }

    async fn open(&self, repo: &Repo) -> Result<Arc<Mirror>, GitError> {
        let mut open = repo.mirror.lock().await;
        if let Some(mirror) = &*open {
            return Ok(mirror.clone());
        }
        let mirror = Arc::new(Mirror::open(&self.folder(&repo.config.name)).await?);
        *open = Some(mirror.clone());
        Ok(mirror)
    }

    async fn watch(&self, repo: Arc<Repo>, stop: CancellationToken) {
        let mut failures = 0u32;
        loop {
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                () = repo.stop.cancelled() => return,
                looked = self.look(&repo) => looked,
            };
            let pause = match looked {
                Ok(()) => {
                    failures = 0;
                    repo.config.poll
                }
                Err(_) => {
                    failures += 1;
                    let patience = Duration::from_secs(5) * failures.min(120);
                    repo.config.poll.max(patience).min(BACK_OFF_MAX)
                }
            };
            let mut due = tokio::time::Instant::now() + pause;
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = repo.stop.cancelled() => return,
                    () = repo.poke.notified() => {}
                    () = tokio::time::sleep_until(due) => break,
                }
                let glanced = tokio::select! {
                    () = stop.cancelled() => return,
                    () = repo.stop.cancelled() => return,
                    glanced = self.glance(&repo) => glanced,
                };
                if !glanced {
                    break;
                }
                due = due.min(tokio::time::Instant::now() + AFTER_GLANCE);
            }
        }
    }

    /// Fetches what is new, without a whole look, when the last one went well. `false`: a look has to tell.
    async fn glance(&self, repo: &Repo) -> bool {
        let seen = {
            let look = repo.look.lock().expect("no holder panics");
            look.seen.clone().filter(|_| look.error.is_none())
        };
        // What a first look has to find out is not known yet.
        let Some(seen) = seen.filter(|seen| !seen.heads.is_empty()) else {
            return false;
        };
        let fetched = async { self.open(repo).await?.fetch_new(&repo.config.upstream).await }.await;
        let Ok(heads) = fetched else { return false };
        {
            let mut look = repo.look.lock().expect("no holder panics");
            look.count = self.looked.fetch_add(1, Ordering::Relaxed) + 1;
            // Tags wait for the next look: what they are of is not known yet.
            let mut refs = seen.refs.clone();
            refs.extend(
                heads
                    .iter()
                    .map(|(branch, hash)| (format!("refs/heads/{branch}"), hash.to_string())),
            );
            let default = seen.default_branch.as_ref().and_then(|branch| heads.get(branch));
            refs.extend(default.map(|hash| ("HEAD".to_owned(), hash.to_string())));
            look.seen = Some(Arc::new(Seen {
                heads,
                unnamed: seen.unnamed.clone(),
                default_branch: seen.default_branch.clone(),
                refs,
            }));
        }
        self.news.notify_one();
        true
    }

    /// Looks at the upstream, and says what came of it to whoever asks.
    async fn look(&self, repo: &Repo) -> Result<(), GitError> {
        let looked = async { self.open(repo).await?.fetch(&repo.config.upstream).await }.await;
        let done = {
            let mut look = repo.look.lock().expect("no holder panics");
            look.count = self.looked.fetch_add(1, Ordering::Relaxed) + 1;
            match looked {
                Ok(report) => {
                    if let Some(what) = report.renewed {
                        warn!(
                            "the mirror of {} was damaged and has been made anew: {what}",
                            repo.config.name
                        );
                    }
                    look.last_good = Some(Instant::now());
                    look.error = None;
                    look.seen = Some(Arc::new(Seen {
                        heads: report.heads,
                        unnamed: report.unnamed,
                        default_branch: report.default_branch,
                        refs: report.refs,
                    }));
                    Ok(())
                }
                Err(why) => {
                    let error = chain(&why);
                    warn!("repository {}: {error}", repo.config.name);
                    look.error = Some(error);
                    Err(why)
                }
            }
        };
        self.news.notify_one();
        done
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
