use std::path::Path;
use std::time::Duration;

use corpus::Hash;
use gerrit::refs::{self, BadListing};
use gerrit::{Objects, Remote};
use git::{Git, GitError};
use maintpb::borrowed::{self, View};
use maintpb::{Message, Mutation};

use crate::known::Known;
use crate::project::{Moved, Project};
use crate::walk::{Found, Walk};

/// Commits of which what they did to files is asked at once.
const STATS: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum SyncError<E> {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("the server's refs cannot be read")]
    Listing(#[from] BadListing),
    /// Nothing after it was written.
    #[error("the log takes nothing")]
    Log(#[source] E),
}

/// What a round did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Mutations written.
    pub written: usize,
    /// Refs whose commits could not be had, as of a tag of a file, or because they moved meanwhile.
    pub left: Vec<String>,
    /// Refs that seem to be gone, and are not believed to be; run again after a minute.
    pub doubted: usize,
}

/// Syncs a project of Gerrit.
#[derive(Debug)]
pub struct Gerrit {
    remote: Remote,
    objects: Option<Objects>,
}

impl Gerrit {
    pub fn new(remote: Remote) -> Gerrit {
        Gerrit {
            remote,
            objects: None,
        }
    }

    /// Brings the log up to date with the server. `now`: by a clock that never jumps. `log`: makes a
    /// mutation durable; after an error the round ends, and the next goes on where it was.
    pub async fn round<E>(
        &mut self,
        project: &mut Project,
        now: Duration,
        mut log: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Round, SyncError<E>> {
        let printed = self.remote.list().await?;
        let listing = refs::listing(&printed)?;
        let plan = project.compare(now, &listing);
        let mut round = Round {
            doubted: plan.doubted,
            ..Round::default()
        };
        if let Some(deleted) = plan.deleted {
            round.written += write(project, deleted, &mut log)?;
        }
        for batch in plan.batches {
            let names: Vec<&str> = batch.iter().map(|moved| &moved.name[..]).collect();
            self.remote.fetch(&names).await?;
            let from = batch.iter().map(|moved| moved.hash).chain(project.known.needed());
            let mut objects = match self.objects.take() {
                Some(objects) => objects,
                None => Objects::open(self.remote.dir())?,
            };
            let found = walk(&mut objects, Walk::new(&project.known, from)).await?;
            for some in found.chunks(STATS) {
                for commit in commits(&objects, some).await? {
                    let mutation = maintpb::GerritMutation {
                        project: project.name().to_owned(),
                        commits: vec![commit],
                        ..maintpb::GerritMutation::default()
                    };
                    round.written += write(project, mutation, &mut log)?;
                }
            }
            self.objects = Some(objects);
            let (had, left): (Vec<Moved>, Vec<Moved>) =
                batch.into_iter().partition(|moved| project.known.has(moved.hash));
            round.left.extend(left.into_iter().map(|moved| moved.name));
            if !had.is_empty() {
                let mutation = moved(project.name(), had);
                round.written += write(project, mutation, &mut log)?;
            }
        }
        Ok(round)
    }
}

/// Logs a mutation and learns it; how many were written.
fn write<E>(
    project: &mut Project,
    gerrit: maintpb::GerritMutation,
    log: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<usize, SyncError<E>> {
    let mutation = Mutation {
        gerrit: Some(gerrit),
        ..Mutation::default()
    };
    let bytes = mutation.encode_to_vec();
    log(&bytes).map_err(SyncError::Log)?;
    let told = borrowed::Mutation::decode(&bytes).expect("what was encoded can be decoded");
    project.apply(told.gerrit.as_ref().expect("it was set"));
    Ok(1)
}

fn moved(project: &str, moved: Vec<Moved>) -> maintpb::GerritMutation {
    let told = |moved: Moved| maintpb::GitRef {
        r#ref: moved.name,
        sha1: moved.hash.to_string(),
    };
    maintpb::GerritMutation {
        project: project.to_owned(),
        refs: moved.into_iter().map(told).collect(),
        ..maintpb::GerritMutation::default()
    }
}

async fn walk(objects: &mut Objects, mut walk: Walk<'_>) -> Result<Vec<Found>, GitError> {
    loop {
        let wants = walk.wants();
        if wants.is_empty() {
            return Ok(walk.finish());
        }
        let hashes: Vec<String> = wants.iter().map(Hash::to_string).collect();
        let hashes: Vec<&str> = hashes.iter().map(String::as_str).collect();
        let found = objects.commits(&hashes).await?;
        wants
            .into_iter()
            .zip(found)
            .for_each(|(hash, object)| walk.take(hash, object));
    }
}

/// Commits as the log has them.
async fn commits(objects: &Objects, found: &[Found]) -> Result<Vec<maintpb::GitCommit>, GitError> {
    let hashes: Vec<&str> = found.iter().map(|found| &found.object.hash[..]).collect();
    let stats = objects.stats(&hashes).await?;
    let commit = |(found, mut stats): (&Found, Vec<gerrit::Stat>)| {
        // As the original has them: not in git's order, in which a quote is not part of a name.
        stats.sort_by(|a, b| a.file.cmp(&b.file));
        maintpb::GitCommit {
            sha1: found.hash.to_string(),
            raw: found.object.raw.clone(),
            diff_tree: Some(maintpb::GitDiffTree {
                file: stats.into_iter().map(file).collect(),
            }),
        }
    };
    Ok(found.iter().zip(stats).map(commit).collect())
}

fn file(stat: gerrit::Stat) -> maintpb::GitDiffTreeFile {
    let (added, deleted) = stat.lines.unwrap_or_default();
    maintpb::GitDiffTreeFile {
        file: stat.file,
        added,
        deleted,
        binary: stat.lines.is_none(),
    }
}

/// Syncs the branches of a repository in a folder.
#[derive(Debug)]
pub struct Tree {
    name: String,
    git: Git,
    known: Known,
}

impl Tree {
    /// `name`: as the log has it, `go` for go.googlesource.com/go.
    pub fn new(name: &str, repository: &Path) -> Tree {
        Tree {
            name: name.to_owned(),
            git: Git::new(repository),
            known: Known::default(),
        }
    }

    /// Takes in a mutation of the log; those of other trees change nothing.
    pub fn apply(&mut self, told: &borrowed::GitMutation<'_>) {
        let ours = |repo: &borrowed::GitRepo<'_>| repo.go_repo.0 == self.name.as_bytes();
        if told.repo.as_ref().is_some_and(ours)
            && let Some(commit) = &told.commit
        {
            self.known.learn(commit);
        }
    }

    /// Brings the log up to date with all branches of the repository.
    ///
    /// Differs: the original looks at one branch, once; so it never sees what comes later.
    pub async fn round<E>(
        &mut self,
        mut log: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Round, SyncError<E>> {
        let args = [
            "for-each-ref",
            "--format=%(objectname)",
            "refs/heads",
            "refs/remotes",
        ];
        let printed = self.git.output(&args).await?;
        let heads = printed.split(|b| *b == b'\n').filter_map(Hash::parse);
        let mut objects = Objects::open(self.git.dir())?;
        let from: Vec<Hash> = heads.chain(self.known.needed()).collect();
        let found = walk(&mut objects, Walk::new(&self.known, from)).await?;
        let mut round = Round::default();
        for some in found.chunks(STATS) {
            for commit in commits(&objects, some).await? {
                let mutation = Mutation {
                    git: Some(maintpb::GitMutation {
                        repo: Some(maintpb::GitRepo {
                            go_repo: self.name.clone(),
                        }),
                        commit: Some(commit),
                    }),
                    ..Mutation::default()
                };
                let bytes = mutation.encode_to_vec();
                log(&bytes).map_err(SyncError::Log)?;
                let told = borrowed::Mutation::decode(&bytes).expect("what was encoded can be decoded");
                self.apply(told.git.as_ref().expect("it was set"));
                round.written += 1;
            }
        }
        Ok(round)
    }
}
