//! Turns what the corpus knows into commits in the store, and what the store lacks into wants.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use config::{Config, Repo};
use corpus::{CommitView, Corpus, Hash};
use farm::{Input, Want};
use gitmirror::{Look, MirrorService};
use ids::{BranchName, GitHash, RepoName, Timestamp};
use maintnerd::Snapshot;
use store::Store;
use store::read::CommitRow;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::branches::{self, Step};
use crate::intake::Taken;
use crate::{Current, current, engine};

/// How often what should be built is compared with what is, without being told.
const COMPARE_EVERY: Duration = Duration::from_secs(15);

/// Most branches of a repository that are recorded in one round; the next goes on at once.
const BRANCHES_MAX: usize = 20;

/// Most commits of a branch that are asked for at once; the next comparison asks for the rest.
const WANTS_MAX: usize = 200;

/// Commits of a branch that are recorded when it is first seen: a few pages of the grid.
const HISTORY: usize = 300;

/// Most commits that are recorded in one go; what lies below is dropped from the branch's line.
const HISTORY_MAX: u64 = 20_000;

/// So many commits a branch may have grown by to be taken in the short way.
const GROWN: usize = 50;

/// So many archives at once are made before they are asked for.
const PACKED_AHEAD: usize = 2;

pub struct Watch {
    pub config: Current,
    pub store: Store,
    pub mirror: Arc<MirrorService>,
    pub corpus: watch::Receiver<Option<Snapshot>>,
    pub taken: Taken,
    pub inputs: mpsc::Sender<Input>,
    /// Ends with this value.
    pub packing: std::sync::Mutex<JoinSet<()>>,
}

/// Up to which look each repository has been taken in. Only saves work: a restart takes all in again.
type TakenIn = BTreeMap<RepoName, u64>;

impl Watch {
    /// Until `stop`. What goes wrong with one repository is logged, shown and tried again.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut every = tokio::time::interval(COMPARE_EVERY);
        let mut taken_in = TakenIn::new();
        let mut more = false;
        loop {
            let all = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = every.tick() => true,
                changed = self.taken.changed() => match changed {
                    Ok(()) => false,
                    // Its sender ends only with the farm.
                    Err(_) => return Ok(()),
                },
                () = std::future::ready(()), if more => false,
            };
            more = self.round(&mut taken_in, all).await;
        }
    }

    /// Takes in what is new, or with `all` compares every repository. Whether there is more to do at once.
    async fn round(&self, taken_in: &mut TakenIn, all: bool) -> bool {
        let config = current(&self.config);
        let (looks, taken) = (self.mirror.looks(), self.taken.borrow().clone());
        taken_in.retain(|repo, _| config.repos.contains_key(repo));
        let mut more = false;
        for (repo, conf) in &config.repos {
            let look = looks.get(repo).cloned().unwrap_or_default();
            let upto = taken.get(repo).cloned().unwrap_or_default();
            let new = upto.look > 0 && taken_in.get(repo) != Some(&upto.look);
            if !new && !all {
                continue;
            }
            let at = At {
                look,
                project: upto.project,
                partly: upto.partly,
                new,
            };
            match self.one(&config, repo, conf, &at, all).await {
                Ok(true) => {
                    taken_in.insert(repo.clone(), upto.look);
                }
                Ok(false) => more = true,
                // Not taken in: the next round tries again.
                Err(why) => warn!("cannot take in what is known of {repo}, trying again: {why:#}"),
            }
        }
        more
    }

    /// Whether all of it is done.
    async fn one(
        &self,
        config: &Config,
        repo: &RepoName,
        conf: &Repo,
        at: &At,
        all: bool,
    ) -> anyhow::Result<bool> {
        let At {
            look, project, new, ..
        } = at;
        let default = look.seen.as_ref().and_then(|seen| seen.default_branch.as_ref());
        let state = self
            .store
            .repos()
            .await?
            .into_iter()
            .find(|row| &row.repo == repo);
        // What is the same but for the time can wait until what is new has been asked for.
        let same = state.is_some_and(|state| {
            (default.is_none() || default == state.default_branch.as_ref())
                && state.error.as_deref() == look.error.as_deref()
        });
        if *new && !same {
            self.record_state(repo, look).await?;
        }
        let (mut done, mut failed) = (true, Ok(()));
        let snapshot = self.corpus.borrow().clone();
        if let Some((project, snapshot)) = project.as_ref().zip(snapshot) {
            let stored = self.store.branches(Some(repo)).await?;
            let tracked = |branch: &BranchName| conf.tracks(branch, default);
            let heads = heads(&snapshot.corpus, project);
            let mut steps = branches::plan(&heads, &stored, tracked, default);
            // What could not be told is not there, and not gone.
            steps.retain(|step| !at.partly || !matches!(step, Step::Gone { .. }));
            done = steps.len() <= BRANCHES_MAX;
            for step in steps.into_iter().take(BRANCHES_MAX) {
                // The others are not held up by one that cannot be recorded.
                failed = self
                    .perform(repo, &snapshot, step, u64::from(conf.backfill))
                    .await
                    .and(failed);
            }
        }
        // Between rounds that follow each other at once, every branch would be compared far too often.
        self.compare(config, repo, conf, done || all).await?;
        if *new && same {
            self.record_state(repo, look).await?;
        }
        failed?;
        Ok(done)
    }

    async fn record_state(&self, repo: &RepoName, look: &Look) -> anyhow::Result<()> {
        let default = look.seen.as_ref().and_then(|seen| seen.default_branch.as_ref());
        self.store
            .record_repo_state(repo, default, look.error.as_deref(), engine::wall())
            .await?;
        Ok(())
    }

    async fn perform(
        &self,
        repo: &RepoName,
        snapshot: &Snapshot,
        step: Step,
        backfill: u64,
    ) -> anyhow::Result<()> {
        match step {
            Step::Gone { branch } => {
                self.store.mark_branch_gone(repo, &branch, engine::wall()).await?;
                info!("{repo} {branch} is gone");
                Ok(())
            }
            Step::Record { branch, head, stored } => self
                .record(repo, snapshot, &branch, &head, stored, backfill)
                .await
                .with_context(|| format!("record branch `{branch}`")),
        }
    }

    async fn record(
        &self,
        repo: &RepoName,
        snapshot: &Snapshot,
        branch: &BranchName,
        head: &GitHash,
        stored: Option<(GitHash, u64)>,
        backfill: u64,
    ) -> anyhow::Result<()> {
        // What is recorded for the first time is mostly history.
        if stored.is_some() {
            self.pack_ahead(repo, head);
        }
        let (snapshot, own, from) = (snapshot.clone(), repo.clone(), head.clone());
        let read = move || {
            let (line, depth) = first_parents(&snapshot.corpus, &from, stored.as_ref())?;
            let fresh = stored.map_or(0, |(_, stored)| depth.saturating_sub(stored) + 50);
            let limit = fresh.clamp(HISTORY as u64, HISTORY_MAX).max(backfill);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let rows = line
                .into_iter()
                .take(limit)
                .map(|commit| row(&own, &snapshot, commit));
            Ok((depth, rows.collect::<anyhow::Result<Vec<CommitRow>>>()?))
        };
        let read = tokio::task::spawn_blocking(read)
            .await
            .context("reading the corpus was stopped")?;
        let (depth, rows): (u64, Vec<CommitRow>) = read.map_err(|why: anyhow::Error| why)?;
        let change = self
            .store
            .record_branch(repo, branch, &rows, depth, backfill, engine::wall())
            .await?;
        info!(
            "{repo} {branch} is at {}: {} new, {} replaced",
            head.short(),
            change.added,
            change.replaced
        );
        Ok(())
    }

    /// Packs a commit that is about to be built while it is recorded and given machines. Whoever needs the archive
    /// waits for this one, or makes it if it came to nothing.
    fn pack_ahead(&self, repo: &RepoName, commit: &GitHash) {
        let mut packing = self.packing.lock().expect("no holder panics");
        while packing.try_join_next().is_some() {}
        if packing.len() < PACKED_AHEAD {
            let (mirror, repo, commit) = (self.mirror.clone(), repo.clone(), commit.clone());
            packing.spawn(async move {
                let _ = mirror.archive(&repo, &commit).await;
            });
        }
    }

    /// Asks for every cell that should have a build and has none, newest commits first: of all branches,
    /// or of the default one.
    async fn compare(
        &self,
        config: &Config,
        repo: &RepoName,
        conf: &Repo,
        all_branches: bool,
    ) -> anyhow::Result<()> {
        let default = self
            .store
            .repos()
            .await?
            .into_iter()
            .find(|row| &row.repo == repo);
        let default = default.and_then(|row| row.default_branch);
        for branch in self.store.branches(Some(repo)).await? {
            let wanted = all_branches || Some(&branch.branch) == default.as_ref();
            if branch.gone || !wanted || !conf.tracks(&branch.branch, default.as_ref()) {
                continue;
            }
            let builders: Vec<_> = config
                .builders_for(repo, &branch.branch)
                .into_iter()
                .cloned()
                .collect();
            let missing = self
                .store
                .missing(repo, &branch.branch, &builders, WANTS_MAX)
                .await?;
            let wants: Vec<Want> = missing
                .into_iter()
                .flat_map(|(commit, builders)| {
                    builders.into_iter().map(move |builder| Want {
                        repo: commit.repo.clone(),
                        commit: commit.hash.clone(),
                        commit_time: commit.commit_time,
                        builder,
                    })
                })
                .collect();
            if !wants.is_empty() && self.inputs.send(Input::Wanted(wants)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// What a round takes in of a repository.
struct At {
    look: Look,
    /// Of the corpus, as of [`crate::intake::Upto`].
    project: Option<Arc<str>>,
    partly: bool,
    new: bool,
}

/// The branches of a project. Names that the farm cannot speak of are left out.
fn heads(corpus: &Corpus, key: &str) -> BTreeMap<BranchName, GitHash> {
    let Some(project) = corpus.project(key) else {
        return BTreeMap::new();
    };
    let head = |(name, commit): (&str, CommitView<'_>)| {
        let branch = name.strip_prefix("refs/heads/")?.parse().ok()?;
        Some((branch, commit.hash().to_string().parse().ok()?))
    };
    project.refs().filter_map(head).collect()
}

/// A commit and its first parents, newest first, with how many are below the first of them: down to the root; or the
/// newest few, if `stored` (a commit and how many are below it) is among them.
fn first_parents<'a>(
    corpus: &'a Corpus,
    head: &GitHash,
    stored: Option<&(GitHash, u64)>,
) -> anyhow::Result<(Vec<CommitView<'a>>, u64)> {
    let hash = Hash::parse(head.as_str().as_bytes()).context("wanted a SHA-1")?;
    let stored = stored.and_then(|(old, below)| Some((Hash::parse(old.as_str().as_bytes())?, *below)));
    let mut line: Vec<CommitView<'a>> = Vec::new();
    let mut next = corpus.commit(hash);
    anyhow::ensure!(next.is_some(), "the log does not tell of commit {head}");
    while let Some(commit) = next {
        anyhow::ensure!(
            commit.is_known(),
            "the log does not tell of commit {}, which {head} is built on",
            commit.hash()
        );
        line.push(commit);
        next = commit.parents().next();
        if line.len() == GROWN
            && let Some((old, below)) = stored
            && let Some(on) = line.iter().position(|commit| commit.hash() == old)
        {
            return Ok((line, below + on as u64));
        }
    }
    let depth = line.len() as u64 - 1;
    Ok((line, depth))
}

fn row(repo: &RepoName, snapshot: &Snapshot, commit: CommitView<'_>) -> anyhow::Result<CommitRow> {
    let hash = |hash: Hash| hash.to_string().parse::<GitHash>().context("a SHA-1 is a hash");
    let message = commit
        .message(&snapshot.texts)
        .context("read a commit in the log")?;
    let time = |time: Timestamp| Timestamp::from_secs(time.as_secs().clamp(0, LAST_SECOND));
    let parents = commit.parents().map(|parent| hash(parent.hash()));
    Ok(CommitRow {
        repo: repo.clone(),
        hash: hash(commit.hash())?,
        parents: parents.collect::<anyhow::Result<Vec<GitHash>>>()?,
        author_name: commit.author().name().to_owned(),
        author_email: commit.author().email().to_owned(),
        author_time: time(commit.author_time()),
        commit_time: time(commit.commit_time()),
        title: message.lines().next().unwrap_or_default().to_owned(),
        message: message.trim_end().to_owned(),
    })
}

/// The end of the year 9999: what is later cannot be shown.
const LAST_SECOND: i64 = 253_402_300_799;

#[cfg(test)]
mod tests;
