use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corpus::Hash;
use gerrit::refs::{self, BadListing};
use gerrit::{Objects, Remote};
use git::{Git, GitError};
use maintpb::borrowed::{self, View};
use maintpb::{Message, Mutation};

use crate::known::Known;
use crate::project::{Moved, Project, is_plain};
use crate::walk::{Found, Walk};

/// Commits of which what they did to files is asked at once, and that are logged together.
const STATS: usize = 1000;

/// Commits of a mirror's first import of which what they did to files is told; of those before it is
/// not, so that a long history is there soon. Of all that come later it is.
const MIRROR_STATS: usize = 5000;

/// Where mutations go.
pub trait Log: Send {
    type Error: Send;

    /// Makes mutations durable, in this order and none between them. After an error some of them may be
    /// in the log: what is known must be learnt from it anew.
    fn append(&mut self, mutations: &[Vec<u8>]) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

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

/// Syncs a project of Gerrit, or a repository of any server.
#[derive(Debug)]
pub struct Gerrit {
    remote: Remote,
    objects: Option<Objects>,
    plain: bool,
}

impl Gerrit {
    pub fn new(remote: Remote) -> Gerrit {
        Gerrit {
            remote,
            objects: None,
            plain: false,
        }
    }

    /// Of branches, tags and `HEAD` alone, whatever else the server has.
    pub fn plain(remote: Remote) -> Gerrit {
        Gerrit {
            plain: true,
            ..Gerrit::new(remote)
        }
    }

    /// Brings the log up to date with the server. `now`: by a clock that never jumps. After an error the
    /// round ends, and the next goes on where it was.
    pub async fn round<L: Log>(
        &mut self,
        project: &mut Project,
        now: Duration,
        log: &mut L,
    ) -> Result<Round, SyncError<L::Error>> {
        let printed = self.remote.list().await?;
        let mut listing = refs::listing(&printed)?;
        if self.plain {
            listing.retain(|found| is_plain(found.name));
        }
        let plan = project.compare(now, &listing);
        let mut teller = Teller::new(project, log);
        teller.round.doubted = plan.doubted;
        if let Some(deleted) = plan.deleted {
            teller.push(deleted);
        }
        for batch in plan.batches {
            let names: Vec<&str> = batch.iter().map(|moved| &moved.name[..]).collect();
            self.remote.fetch(&names).await?;
            let objects = match self.objects.take() {
                Some(objects) => objects,
                None => Objects::open(self.remote.dir())?,
            };
            self.objects = Some(teller.batch(objects, batch, usize::MAX).await?);
        }
        teller.flush().await?;
        Ok(teller.round)
    }
}

/// Syncs the branches and tags of a repository that somebody else fetches.
#[derive(Debug)]
pub struct Mirrored {
    dir: PathBuf,
    objects: Option<Objects>,
}

impl Mirrored {
    pub fn new(dir: &Path) -> Mirrored {
        Mirrored {
            dir: dir.to_owned(),
            objects: None,
        }
    }

    /// Brings the log up to date with `listing`, all branches and tags that were fetched: what is not
    /// among them is gone.
    pub async fn round<L: Log>(
        &mut self,
        project: &mut Project,
        listing: &[refs::Ref<'_>],
        log: &mut L,
    ) -> Result<Round, SyncError<L::Error>> {
        let plan = project.believe(listing);
        let mut teller = Teller::new(project, log);
        if let Some(deleted) = plan.deleted {
            teller.push(deleted);
        }
        for batch in plan.batches {
            let objects = match self.objects.take() {
                Some(objects) => objects,
                None => Objects::open(&self.dir)?,
            };
            self.objects = Some(teller.batch(objects, batch, MIRROR_STATS).await?);
        }
        teller.flush().await?;
        if !teller.round.left.is_empty() {
            // A tag of no commit is, always; else the repository may be another now.
            self.objects = None;
        }
        Ok(teller.round)
    }
}

/// Tells the log of what is new, many mutations at once, and the project once they are durable.
struct Teller<'a, L> {
    project: &'a mut Project,
    log: &'a mut L,
    pending: Vec<Vec<u8>>,
    round: Round,
}

impl<'a, L: Log> Teller<'a, L> {
    fn new(project: &'a mut Project, log: &'a mut L) -> Teller<'a, L> {
        Teller {
            project,
            log,
            pending: Vec::new(),
            round: Round::default(),
        }
    }

    /// Tells the commits of refs that moved, then the refs; what is pending is flushed at the next batch.
    /// `with_files`: of so many of the newest.
    async fn batch(
        &mut self,
        mut objects: Objects,
        batch: Vec<Moved>,
        with_files: usize,
    ) -> Result<Objects, SyncError<L::Error>> {
        if self.pending.len() > 1 {
            // Commits of the batch before, which this one must not tell again.
            self.flush().await?;
        }
        let known = &self.project.known;
        let from = batch.iter().map(|moved| moved.hash).chain(known.needed());
        let found = walk(&mut objects, Walk::new(known, from)).await?;
        let here = found.iter().map(|found| found.hash);
        let here: BTreeSet<Hash> = here.filter(|hash| !known.has(*hash)).collect();
        let (before, newest) = found.split_at(found.len().saturating_sub(with_files));
        for some in before.chunks(STATS) {
            let stats = vec![None; some.len()];
            self.commits(some, stats).await?;
        }
        for some in newest.chunks(STATS) {
            let stats = stats(&mut objects, some).await?;
            self.commits(some, stats.into_iter().map(Some).collect()).await?;
        }
        let (had, left): (Vec<Moved>, Vec<Moved>) = batch
            .into_iter()
            .partition(|moved| here.contains(&moved.hash) || self.project.known.has(moved.hash));
        self.round.left.extend(left.into_iter().map(|moved| moved.name));
        if !had.is_empty() {
            self.push(moved(self.project.name(), had));
        }
        Ok(objects)
    }

    /// A mutation for each. Those of the last call may wait for what comes next.
    async fn commits(
        &mut self,
        found: &[Found],
        stats: Vec<Option<Vec<gerrit::Stat>>>,
    ) -> Result<(), SyncError<L::Error>> {
        if self.pending.len() + found.len() > STATS {
            self.flush().await?;
        }
        for (found, stats) in found.iter().zip(stats) {
            self.push(maintpb::GerritMutation {
                project: self.project.name().to_owned(),
                commits: vec![commit(found, stats)],
                ..maintpb::GerritMutation::default()
            });
        }
        Ok(())
    }

    fn push(&mut self, gerrit: maintpb::GerritMutation) {
        let mutation = Mutation {
            gerrit: Some(gerrit),
            ..Mutation::default()
        };
        self.pending.push(mutation.encode_to_vec());
    }

    async fn flush(&mut self) -> Result<(), SyncError<L::Error>> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.log.append(&self.pending).await.map_err(SyncError::Log)?;
        for bytes in self.pending.drain(..) {
            let told = borrowed::Mutation::decode(&bytes).expect("what was encoded can be decoded");
            self.project.apply(told.gerrit.as_ref().expect("it was set"));
            self.round.written += 1;
        }
        Ok(())
    }
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

async fn stats(objects: &mut Objects, found: &[Found]) -> Result<Vec<Vec<gerrit::Stat>>, GitError> {
    let hashes: Vec<&str> = found.iter().map(|found| &found.object.hash[..]).collect();
    objects.stats(&hashes).await
}

/// A commit as the log has it.
fn commit(found: &Found, stats: Option<Vec<gerrit::Stat>>) -> maintpb::GitCommit {
    let diff_tree = stats.map(|mut stats| {
        // As the original has them: not in git's order, in which a quote is not part of a name.
        stats.sort_by(|a, b| a.file.cmp(&b.file));
        maintpb::GitDiffTree {
            file: stats.into_iter().map(file).collect(),
        }
    });
    maintpb::GitCommit {
        sha1: found.hash.to_string(),
        raw: found.object.raw.clone(),
        diff_tree,
    }
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
    pub async fn round<L: Log>(&mut self, log: &mut L) -> Result<Round, SyncError<L::Error>> {
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
            let stats = stats(&mut objects, some).await?;
            let told = |(found, stats): (&Found, Vec<gerrit::Stat>)| {
                let git = maintpb::GitMutation {
                    repo: Some(maintpb::GitRepo {
                        go_repo: self.name.clone(),
                    }),
                    commit: Some(commit(found, Some(stats))),
                };
                let mutation = Mutation {
                    git: Some(git),
                    ..Mutation::default()
                };
                mutation.encode_to_vec()
            };
            let told: Vec<Vec<u8>> = some.iter().zip(stats).map(told).collect();
            log.append(&told).await.map_err(SyncError::Log)?;
            for bytes in told {
                let told = borrowed::Mutation::decode(&bytes).expect("what was encoded can be decoded");
                self.apply(told.git.as_ref().expect("it was set"));
                round.written += 1;
            }
        }
        Ok(round)
    }
}
