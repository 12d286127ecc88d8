//! Turns what the mirrors saw into commits in the store, and what the store lacks into wants.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use config::{Config, Repo};
use farm::{Input, Want};
use gitmirror::{Look, MirrorService};
use ids::{BranchName, GitHash, RepoName};
use store::Store;
use store::read::CommitRow;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::branches::{self, Step};
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
    pub inputs: mpsc::Sender<Input>,
    /// Ends with this value.
    pub packing: std::sync::Mutex<JoinSet<()>>,
}

/// Up to which look each repository has been taken in. Only saves work: a restart takes all in again.
type TakenIn = BTreeMap<RepoName, u64>;

impl Watch {
    /// Until `stop`. What goes wrong with one repository is logged, shown and tried again.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut every = tokio::time::interval(COMPARE_EVERY);
        let mut taken_in = TakenIn::new();
        let mut more = false;
        loop {
            let all = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = every.tick() => true,
                () = self.mirror.news() => false,
                () = std::future::ready(()), if more => false,
            };
            more = self.round(&mut taken_in, all).await;
        }
    }

    /// Takes in what is new, or with `all` compares every repository. Whether there is more to do at once.
    async fn round(&self, taken_in: &mut TakenIn, all: bool) -> bool {
        let config = current(&self.config);
        let looks = self.mirror.looks();
        taken_in.retain(|repo, _| config.repos.contains_key(repo));
        let mut more = false;
        for (repo, conf) in &config.repos {
            let look = looks.get(repo).cloned().unwrap_or_default();
            let new = look.count > 0 && taken_in.get(repo) != Some(&look.count);
            if !new && !all {
                continue;
            }
            match self.one(&config, repo, conf, &look, new, all).await {
                Ok(true) => {
                    taken_in.insert(repo.clone(), look.count);
                }
                Ok(false) => more = true,
                // Not taken in: the next round tries again.
                Err(why) => warn!("cannot take in what the mirror of {repo} saw, trying again: {why:#}"),
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
        look: &Look,
        new: bool,
        all: bool,
    ) -> anyhow::Result<bool> {
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
        if new && !same {
            self.record_state(repo, look).await?;
        }
        let mut done = true;
        if let Some(seen) = &look.seen {
            let stored = self.store.branches(Some(repo)).await?;
            let tracked = |branch: &BranchName| conf.tracks(branch, default);
            let steps = branches::plan(&seen.heads, &stored, tracked, default);
            done = steps.len() <= BRANCHES_MAX;
            let mut failed = Ok(());
            for step in steps.into_iter().take(BRANCHES_MAX) {
                // The others are not held up by one that cannot be recorded.
                failed = self
                    .perform(repo, step, u64::from(conf.backfill))
                    .await
                    .and(failed);
            }
            failed?;
        }
        // Between rounds that follow each other at once, every branch would be compared far too often.
        self.compare(config, repo, conf, done || all).await?;
        if new && same {
            self.record_state(repo, look).await?;
        }
        Ok(done)
    }

    async fn record_state(&self, repo: &RepoName, look: &Look) -> anyhow::Result<()> {
        let default = look.seen.as_ref().and_then(|seen| seen.default_branch.as_ref());
        self.store
            .record_repo_state(repo, default, look.error.as_deref(), engine::wall())
            .await?;
        Ok(())
    }

    async fn perform(&self, repo: &RepoName, step: Step, backfill: u64) -> anyhow::Result<()> {
        match step {
            Step::Gone { branch } => {
                self.store.mark_branch_gone(repo, &branch, engine::wall()).await?;
                info!("{repo} {branch} is gone");
                Ok(())
            }
            Step::Record { branch, head, stored } => self
                .record(repo, &branch, &head, stored, backfill)
                .await
                .with_context(|| format!("record branch `{branch}`")),
        }
    }

    async fn record(
        &self,
        repo: &RepoName,
        branch: &BranchName,
        head: &GitHash,
        stored: Option<(GitHash, u64)>,
        backfill: u64,
    ) -> anyhow::Result<()> {
        // What is recorded for the first time is mostly history.
        if stored.is_some() {
            self.pack_ahead(repo, head);
        }
        let mirror = self.mirror.mirror(repo).await?;
        let grown = match &stored {
            Some((old, depth)) => grown(&mirror, head, old, *depth).await?,
            None => None,
        };
        let (commits, depth) = match grown {
            Some(grown) => grown,
            None => {
                let depth = mirror.depth(head).await?;
                let fresh = stored.map_or(0, |(_, stored)| depth.saturating_sub(stored) + 50);
                let limit = fresh.clamp(HISTORY as u64, HISTORY_MAX).max(backfill);
                (mirror.first_parents(head, limit as usize).await?, depth)
            }
        };
        let rows: Vec<CommitRow> = commits.into_iter().map(|commit| row(repo, commit)).collect();
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

/// The newest commits down to `old`, the head as stored, and the new head's depth, if that is a few commits on: to
/// count all that are below takes a while in a long history.
async fn grown(
    mirror: &git::Mirror,
    head: &GitHash,
    old: &GitHash,
    depth: u64,
) -> anyhow::Result<Option<(Vec<git::Commit>, u64)>> {
    let commits = mirror.first_parents(head, GROWN).await?;
    let on = commits.iter().position(|commit| commit.hash == *old);
    Ok(on.map(|on| (commits, depth + on as u64)))
}

fn row(repo: &RepoName, commit: git::Commit) -> CommitRow {
    CommitRow {
        repo: repo.clone(),
        hash: commit.hash,
        parents: commit.parents,
        author_name: commit.author_name,
        author_email: commit.author_email,
        author_time: commit.author_time,
        commit_time: commit.commit_time,
        title: commit.title,
        message: commit.message,
    }
}

#[cfg(test)]
mod tests;
