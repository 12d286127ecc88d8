//! Turns what the mirrors saw into commits in the store, and what the store lacks into wants.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use farm::{Input, Want};
use git::RefChange;
use gitmirror::{MirrorEvent, MirrorService};
use ids::{BranchName, GitHash, RepoName};
use store::Store;
use store::read::CommitRow;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Current, current, engine};

/// How often what should be built is compared with what is, without being told.
const COMPARE_EVERY: Duration = Duration::from_secs(15);

/// Most commits of a branch that are asked for at once; the next comparison asks for the rest.
const WANTS_MAX: usize = 200;

/// Commits of a branch that are recorded when it is first seen: a few pages of the grid.
const HISTORY: usize = 300;

/// Most commits that are recorded in one go; what lies below is dropped from the branch's line.
const HISTORY_MAX: u64 = 20_000;

pub struct Watch {
    pub config: Current,
    pub store: Store,
    pub mirror: Arc<MirrorService>,
    pub inputs: mpsc::Sender<Input>,
}

impl Watch {
    /// Until `stop`. What goes wrong with one repository is logged, shown and tried again.
    pub async fn run(
        self,
        mut events: mpsc::Receiver<MirrorEvent>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut every = tokio::time::interval(COMPARE_EVERY);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                event = events.recv() => Some(event.context("the mirrors have ended")?),
                _ = every.tick() => None,
            };
            let done = match event {
                Some(MirrorEvent::Fetched {
                    repo,
                    changes,
                    default_branch,
                }) => self.fetched(&repo, changes, default_branch).await,
                Some(MirrorEvent::Failed { repo, error }) => {
                    let recorded = self
                        .store
                        .record_repo_state(&repo, None, Some(&error), engine::wall())
                        .await;
                    recorded.map_err(Into::into)
                }
                None => self.compare_all().await,
            };
            if let Err(why) = done {
                warn!("cannot take in what the mirrors saw, trying again: {why:#}");
            }
        }
    }

    async fn fetched(
        &self,
        repo: &RepoName,
        changes: Vec<RefChange>,
        default_branch: Option<BranchName>,
    ) -> anyhow::Result<()> {
        let config = current(&self.config);
        let Some(conf) = config.repos.get(repo) else {
            return Ok(());
        };
        self.store
            .record_repo_state(repo, default_branch.as_ref(), None, engine::wall())
            .await?;
        for change in changes
            .iter()
            .filter(|change| conf.tracks(&change.branch, default_branch.as_ref()))
        {
            match &change.new {
                None => {
                    self.store
                        .mark_branch_gone(repo, &change.branch, engine::wall())
                        .await?
                }
                Some(head) => {
                    let recorded = self
                        .record(repo, &change.branch, head, u64::from(conf.backfill))
                        .await;
                    recorded.with_context(|| format!("record branch `{}` of {repo}", change.branch))?;
                }
            }
        }
        self.compare(repo).await
    }

    async fn record(
        &self,
        repo: &RepoName,
        branch: &BranchName,
        head: &GitHash,
        backfill: u64,
    ) -> anyhow::Result<()> {
        let mirror = self.mirror.mirror(repo).await?;
        let depth = mirror.depth(head).await?;
        let known = self
            .store
            .branches(Some(repo))
            .await?
            .into_iter()
            .find(|row| &row.branch == branch);
        if known.as_ref().is_some_and(|row| &row.head == head && !row.gone) {
            return Ok(());
        }
        let fresh = known.map_or(0, |row| depth.saturating_sub(row.head_depth) + 50);
        let limit = fresh.clamp(HISTORY as u64, HISTORY_MAX).max(backfill);
        let commits = mirror.first_parents(head, limit as usize).await?;
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

    async fn compare_all(&self) -> anyhow::Result<()> {
        for repo in current(&self.config).repos.keys() {
            self.compare(repo).await?;
        }
        Ok(())
    }

    /// Asks for every cell that should have a build and has none, newest commits first.
    async fn compare(&self, repo: &RepoName) -> anyhow::Result<()> {
        let config = current(&self.config);
        let Some(conf) = config.repos.get(repo) else {
            return Ok(());
        };
        let default = self
            .store
            .repos()
            .await?
            .into_iter()
            .find(|row| &row.repo == repo);
        let default = default.and_then(|row| row.default_branch);
        for branch in self.store.branches(Some(repo)).await? {
            if branch.gone || !conf.tracks(&branch.branch, default.as_ref()) {
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
