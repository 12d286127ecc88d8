//! What the log tells of each project and repository that is synced, shared by all that sync it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use maintpb::borrowed::{Mutation, View};
use mutlog::{LogReader, Segment};
use sync::Project;
use sync::github::Repo;
use tokio::sync::OwnedMutexGuard;

use crate::keeper::{Keeper, LogGone, Tell};
use crate::replay::{ReplayError, each};

/// Owner and name of a repository of GitHub.
pub(crate) type RepoKey = (String, String);

/// What is known, learnt from the log once for all, and again in each of its eras.
#[derive(Clone)]
pub struct Known {
    keeper: Keeper,
    projects: Slots<String, Project>,
    repos: Slots<RepoKey, Repo>,
}

type Slots<K, T> = Arc<Mutex<BTreeMap<K, Arc<tokio::sync::Mutex<Slot<T>>>>>>;

struct Slot<T> {
    /// Of the log, when `value` was learnt.
    era: u64,
    value: Option<T>,
}

/// What is known of one, held by whoever syncs it. Unless it is [kept](Held::keep) it is learnt anew.
pub struct Held<T> {
    slot: OwnedMutexGuard<Slot<T>>,
    pub value: T,
    pub tell: Tell,
}

impl<T> Held<T> {
    /// What was told is durable, and `value` has it.
    pub fn keep(mut self) {
        self.slot.era = self.tell.era();
        self.slot.value = Some(self.value);
    }
}

/// What a log says of some, and nothing of others.
#[derive(Default)]
pub(crate) struct Learnt {
    pub projects: BTreeMap<String, Project>,
    pub repos: BTreeMap<RepoKey, Repo>,
}

impl Learnt {
    pub fn read(mut self, reader: &LogReader, log: &[Segment]) -> Result<Learnt, ReplayError> {
        each(reader, log, |_, payload| {
            let mutation = Mutation::decode(payload)?;
            if let Some(told) = &mutation.gerrit
                && let Some(project) = self.projects.get_mut(&*told.project.lossy())
            {
                project.apply(told);
            }
            if let Some(told) = &mutation.github_issue
                && let Some(repo) = self.repo(&told.owner.lossy(), &told.repo.lossy())
            {
                repo.apply_issue(told);
            }
            if let Some(told) = &mutation.github
                && let Some(repo) = self.repo(&told.owner.lossy(), &told.repo.lossy())
            {
                repo.apply(told);
            }
            Ok(())
        })?;
        Ok(self)
    }

    fn repo(&mut self, owner: &str, name: &str) -> Option<&mut Repo> {
        if self.repos.is_empty() {
            return None;
        }
        self.repos.get_mut(&(owner.to_owned(), name.to_owned()))
    }
}

impl Known {
    pub fn new(keeper: Keeper) -> Known {
        Known {
            keeper,
            projects: Slots::default(),
            repos: Slots::default(),
        }
    }

    /// Reads the log once for all these, and not once for each when it is first asked for.
    pub async fn learn_projects(&self, names: Vec<String>) -> anyhow::Result<()> {
        self.learn(names, Vec::new()).await
    }

    /// Learns of all these in one go. What is not learnt so is when it is first asked for.
    pub(crate) async fn learn(&self, projects: Vec<String>, repos: Vec<RepoKey>) -> anyhow::Result<()> {
        let Some(era) = self.keeper.tell().map(|tell| tell.era()) else {
            return Ok(());
        };
        // Held while the log is read: what somebody tells meanwhile would be missed.
        let projects = unknown(&self.projects, projects, era);
        let repos = unknown(&self.repos, repos, era);
        let mut learnt = Learnt::default();
        for name in projects.keys() {
            learnt.projects.insert(name.clone(), Project::new(name));
        }
        for (owner, name) in repos.keys() {
            let repo = Repo::new(owner, name);
            learnt.repos.insert((owner.clone(), name.clone()), repo);
        }
        if projects.len() + repos.len() == 0 {
            return Ok(());
        }
        let learnt = self.read(learnt).await?;
        fill(projects, learnt.projects, era);
        fill(repos, learnt.repos, era);
        Ok(())
    }

    /// Waits until nobody else holds it.
    pub async fn project(&self, name: &str) -> anyhow::Result<Held<Project>> {
        let slot = slot(&self.projects, name.to_owned()).lock_owned().await;
        self.hold(slot, async || {
            let mut learnt = Learnt::default();
            learnt.projects.insert(name.to_owned(), Project::new(name));
            let learnt = self.read(learnt).await?;
            Ok(learnt.projects.into_values().next().expect("it was put in"))
        })
        .await
    }

    /// As [`Known::project`].
    pub async fn repo(&self, owner: &str, name: &str) -> anyhow::Result<Held<Repo>> {
        let key = (owner.to_owned(), name.to_owned());
        let slot = slot(&self.repos, key.clone()).lock_owned().await;
        self.hold(slot, async || {
            let mut learnt = Learnt::default();
            learnt.repos.insert(key, Repo::new(owner, name));
            let learnt = self.read(learnt).await?;
            Ok(learnt.repos.into_values().next().expect("it was put in"))
        })
        .await
    }

    async fn hold<T>(
        &self,
        mut slot: OwnedMutexGuard<Slot<T>>,
        learn: impl AsyncFnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<Held<T>> {
        let tell = self.keeper.tell().ok_or(LogGone)?;
        let value = slot.value.take().filter(|_| slot.era == tell.era());
        let value = match value {
            Some(value) => value,
            None => learn().await?,
        };
        Ok(Held { slot, value, tell })
    }

    async fn read(&self, learnt: Learnt) -> anyhow::Result<Learnt> {
        let (reader, log) = self.keeper.log();
        let read = tokio::task::spawn_blocking(move || learnt.read(&reader, &log));
        let read = read.await.context("reading the log was stopped")?;
        read.context("learn what the log tells")
    }
}

fn slot<K: Ord, T>(slots: &Slots<K, T>, key: K) -> Arc<tokio::sync::Mutex<Slot<T>>> {
    let mut slots = slots.lock().unwrap_or_else(PoisonError::into_inner);
    let empty = || Arc::new(tokio::sync::Mutex::new(Slot { era: 0, value: None }));
    slots.entry(key).or_insert_with(empty).clone()
}

/// Those of which nothing is known and that nobody holds, held.
fn unknown<K: Ord + Clone, T>(
    slots: &Slots<K, T>,
    keys: Vec<K>,
    era: u64,
) -> BTreeMap<K, OwnedMutexGuard<Slot<T>>> {
    let free = keys.into_iter().filter_map(|key| {
        let held = slot(slots, key.clone()).try_lock_owned().ok()?;
        Some((key, held)).filter(|(_, held)| held.value.is_none() || held.era != era)
    });
    free.collect()
}

fn fill<K: Ord, T>(held: BTreeMap<K, OwnedMutexGuard<Slot<T>>>, mut learnt: BTreeMap<K, T>, era: u64) {
    for (key, mut slot) in held {
        (slot.era, slot.value) = (era, learnt.remove(&key));
    }
}
