//! Tells the mutation log what the mirrors fetched: that is how the corpus gets to know of commits, and
//! the corpus is where the farm finds them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gerrit::refs::Ref;
use gitmirror::{MirrorService, Seen};
use ids::RepoName;
use maintnerd::{Keeper, Known};
use sync::Mirrored;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Current, current};

/// When a repository that could not be told is tried again.
const RETRY: Duration = Duration::from_secs(15);

/// Up to where each repository is in the corpus.
pub type Taken = watch::Receiver<BTreeMap<RepoName, Upto>>;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upto {
    /// The look at the upstream that was the last to be taken in, whether it went well or not.
    pub look: u64,
    /// The project of the corpus that has what some look of this process saw, so what it lacks is gone.
    pub project: Option<Arc<str>>,
    /// Some branch of that look could not be told: what the project lacks may be there.
    pub partly: bool,
}

pub struct Intake {
    pub config: Current,
    pub mirror: Arc<MirrorService>,
    pub keeper: Keeper,
    pub known: Known,
    pub taken: watch::Sender<BTreeMap<RepoName, Upto>>,
}

/// Of a repository.
enum Reader {
    Idle(Mirrored),
    /// It is being told of.
    Busy,
    /// It could not be told of, and is tried again then.
    Failed(Mirrored, Instant),
}

type Readers = BTreeMap<RepoName, Reader>;

/// How it went to tell what a look saw.
struct Told {
    repo: RepoName,
    key: Arc<str>,
    look: u64,
    reader: Mirrored,
    /// Whether all of it.
    done: anyhow::Result<bool>,
}

impl Intake {
    /// Until `stop`. One repository waits for no other.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut readers = Readers::new();
        let mut telling: JoinSet<Told> = JoinSet::new();
        let repos = current(&self.config).repos.clone();
        let keys = repos
            .iter()
            .map(|(repo, conf)| maintnerd::key(&conf.url, repo.as_str()));
        if let Err(why) = self.known.learn_projects(keys.collect()).await {
            warn!("the log is read for each repository: {why:#}");
        }
        loop {
            self.begin(&mut readers, &mut telling);
            let again = readers.values().filter_map(|reader| match reader {
                Reader::Failed(_, again) => Some(*again),
                Reader::Idle(_) | Reader::Busy => None,
            });
            let again = again.min().unwrap_or_else(|| Instant::now() + RETRY);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.mirror.news() => {}
                () = tokio::time::sleep_until(again) => {}
                Some(told) = telling.join_next() => {
                    let told = told.context("telling the log of a repository was stopped")?;
                    let reader = match told.done {
                        Ok(all) => {
                            if !all {
                                warn!("the mirror of {} lacks what some of its branches are built on; they wait", told.repo);
                            }
                            self.note(&told.repo, Upto { look: told.look, project: Some(told.key), partly: !all });
                            Reader::Idle(told.reader)
                        }
                        Err(why) => {
                            warn!("cannot tell the log of {}, trying again: {why:#}", told.repo);
                            Reader::Failed(told.reader, Instant::now() + RETRY)
                        }
                    };
                    readers.insert(told.repo, reader);
                }
            }
        }
    }

    /// Starts telling of every repository that was looked at since it was told of.
    fn begin(&self, readers: &mut Readers, telling: &mut JoinSet<Told>) {
        let config = current(&self.config);
        readers.retain(|repo, reader| matches!(reader, Reader::Busy) || config.repos.contains_key(repo));
        self.taken.send_if_modified(|taken| {
            taken.retain(|repo, _| config.repos.contains_key(repo));
            false
        });
        for (repo, look) in self.mirror.looks() {
            let upto = self.taken.borrow().get(&repo).cloned().unwrap_or_default();
            let Some(conf) = config.repos.get(&repo).filter(|_| look.count != upto.look) else {
                continue;
            };
            let Some(seen) = look.seen.filter(|_| look.error.is_none()) else {
                let failed = Upto {
                    look: look.count,
                    ..upto
                };
                self.note(&repo, failed);
                continue;
            };
            let mirrored = match readers.remove(&repo) {
                None => Mirrored::new(&self.mirror.folder(&repo)),
                Some(Reader::Idle(mirrored)) => mirrored,
                Some(Reader::Failed(mirrored, again)) if again <= Instant::now() => mirrored,
                Some(wait) => {
                    readers.insert(repo, wait);
                    continue;
                }
            };
            readers.insert(repo.clone(), Reader::Busy);
            let (known, keeper, mirror) = (self.known.clone(), self.keeper.clone(), self.mirror.clone());
            let (key, look) = (Arc::from(maintnerd::key(&conf.url, repo.as_str())), look.count);
            telling.spawn(async move {
                let (reader, done) = tell(mirrored, &known, &keeper, &key, &seen).await;
                if !matches!(done, Ok(true))
                    && keeper.trouble().is_none()
                    && let Ok(mirror) = mirror.mirror(&repo).await
                {
                    // What it has just fetched is not there: the next look finds out what else is not.
                    mirror.doubt();
                }
                Told {
                    repo,
                    key,
                    look,
                    reader,
                    done,
                }
            });
        }
    }

    fn note(&self, repo: &RepoName, upto: Upto) {
        self.taken.send_modify(|taken| {
            taken.insert(repo.clone(), upto);
        });
    }
}

/// Whether every branch could be told.
async fn tell(
    mut reader: Mirrored,
    known: &Known,
    keeper: &Keeper,
    key: &str,
    seen: &Seen,
) -> (Mirrored, anyhow::Result<bool>) {
    let listing: Vec<Ref<'_>> = seen.refs.iter().map(|(name, hash)| Ref { name, hash }).collect();
    let done = async {
        let mut held = known.project(key).await?;
        let round = reader.round(&mut held.value, &listing, &mut held.tell).await?;
        held.keep();
        if round.written > 0 {
            info!("the log tells {} more of {key}", round.written);
        }
        keeper.caught_up().await?;
        Ok(!round.left.iter().any(|name| name.starts_with("refs/heads/")))
    };
    let done = done.await;
    (reader, done)
}
