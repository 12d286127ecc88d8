use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ids::{BranchName, GitHash};
use tokio::process::Child;

use crate::parse::{self, Commit, is_safe_rev};
use crate::run::redact;
use crate::{Git, GitError};

/// How long a lock that another holder has is tried for.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A bare copy of an upstream's branches and tags.
#[derive(Debug)]
pub struct Mirror {
    git: Git,
    url: String,
    /// One writer for each repository, across processes.
    _lock: File,
}

/// What a look at the upstream brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FetchReport {
    pub changes: Vec<RefChange>,
    /// What the upstream's HEAD names; `None` for an empty repository.
    pub default_branch: Option<BranchName>,
}

/// A branch that is new, has moved, or is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefChange {
    pub branch: BranchName,
    pub old: Option<GitHash>,
    pub new: Option<GitHash>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub commit: GitHash,
    pub tree: GitHash,
}

impl Mirror {
    /// Opens the mirror in `dir`, or makes an empty one. `url`: anything that git fetches from.
    pub async fn open(dir: &Path, url: &str) -> Result<Mirror, GitError> {
        let io = |what: &'static str| {
            let path = dir.to_owned();
            move |source| GitError::Io { what, path, source }
        };
        std::fs::create_dir_all(dir).map_err(io("make"))?;
        let lock = File::create(dir.join("burrow.lock")).map_err(io("lock"))?;
        // A child that is being started elsewhere in this process has the file too until it runs its program.
        let deadline = tokio::time::Instant::now() + LOCK_LIMIT;
        while let Err(why) = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            if why != rustix::io::Errno::WOULDBLOCK || tokio::time::Instant::now() >= deadline {
                return Err(io("lock")(why.into()));
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        let git = Git::new(dir);
        if !dir.join("HEAD").exists() || git.output(&["rev-parse", "--is-bare-repository"]).await.is_err() {
            let dir = dir
                .to_str()
                .ok_or_else(|| io("use")(std::io::ErrorKind::InvalidInput.into()))?;
            git.output(&["init", "--quiet", "--bare", "--", dir]).await?;
        }
        Ok(Mirror {
            git,
            url: url.to_owned(),
            _lock: lock,
        })
    }

    /// Looks at the upstream and fetches what has changed. An upstream without any ref is empty: nothing
    /// is taken from the mirror for it.
    pub async fn fetch(&self) -> Result<FetchReport, GitError> {
        let listed = self
            .upstream(&[
                "ls-remote",
                "--symref",
                "--end-of-options",
                &self.url,
                "HEAD",
                "refs/heads/*",
                "refs/tags/*",
            ])
            .await?;
        let listed = String::from_utf8_lossy(&listed);
        let head = listed.lines().find_map(|line| {
            let target = line.strip_prefix("ref: refs/heads/")?.strip_suffix("\tHEAD")?;
            target.parse().ok()
        });
        let mut remote: BTreeMap<&str, &str> = BTreeMap::new();
        for line in listed.lines().filter(|line| !line.starts_with("ref: ")) {
            if let Some((hash, name)) = line.split_once('\t')
                && name.starts_with("refs/")
                && !name.ends_with("^{}")
            {
                remote.insert(name, hash);
            }
        }
        if remote.is_empty() {
            return Ok(FetchReport::default());
        }
        let before = self.refs().await?;
        let same = remote.len() == before.len()
            && remote
                .iter()
                .all(|(name, hash)| before.get(*name).is_some_and(|old| old == hash));
        if !same {
            let specs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
            let mut args = vec![
                "fetch",
                "--quiet",
                "--prune",
                "--no-tags",
                "--no-write-fetch-head",
            ];
            args.extend(["--end-of-options", &self.url]);
            args.extend(specs);
            self.upstream(&args).await?;
        }
        let after = if same { before.clone() } else { self.refs().await? };
        Ok(FetchReport {
            changes: changes(&before, &after),
            default_branch: head,
        })
    }

    /// Branch heads, by name. Names that the farm cannot speak of are left out.
    pub async fn branches(&self) -> Result<BTreeMap<BranchName, GitHash>, GitError> {
        Ok(branches(&self.refs().await?))
    }

    /// Commits from `head` along first parents, newest first, at most `limit`.
    pub async fn first_parents(&self, head: &GitHash, limit: usize) -> Result<Vec<Commit>, GitError> {
        let count = format!("--max-count={limit}");
        let args = [
            "log",
            "--first-parent",
            "--encoding=UTF-8",
            &count,
            parse::FORMAT,
            "--end-of-options",
            head.as_str(),
        ];
        let out = self.git.output(&args).await?;
        parse::commits(&out).map_err(|what| GitError::Failed {
            command: "log".to_owned(),
            said: format!("it printed what is no commit: `{what}`"),
        })
    }

    /// How many first parents `head` has before it: the root has 0.
    pub async fn depth(&self, head: &GitHash) -> Result<u64, GitError> {
        let args = [
            "rev-list",
            "--first-parent",
            "--count",
            "--end-of-options",
            head.as_str(),
        ];
        let out = self.git.output(&args).await?;
        let count: Option<u64> = String::from_utf8_lossy(&out).trim().parse().ok();
        count
            .and_then(|count| count.checked_sub(1))
            .ok_or_else(|| GitError::Failed {
                command: "rev-list".to_owned(),
                said: "it counted no commit".to_owned(),
            })
    }

    /// The commit that a name or hash from outside means; heads before tags.
    pub async fn resolve(&self, rev: &str) -> Result<Resolved, GitError> {
        if !is_safe_rev(rev) {
            return Err(GitError::BadRev {
                rev: rev.chars().take(100).collect(),
            });
        }
        let full = GitHash::parse(rev).is_ok() || rev.starts_with("refs/");
        let names = if full {
            vec![rev.to_owned()]
        } else {
            vec![format!("refs/heads/{rev}"), format!("refs/tags/{rev}")]
        };
        for name in names {
            let (commit, tree) = (format!("{name}^{{commit}}"), format!("{name}^{{tree}}"));
            let mut found = Vec::new();
            for what in [&commit, &tree] {
                let args = ["rev-parse", "--quiet", "--verify", "--end-of-options", what];
                if let Ok(out) = self.git.output(&args).await {
                    found.extend(GitHash::parse(String::from_utf8_lossy(&out).trim()));
                }
            }
            if let [commit, tree] = &found[..] {
                return Ok(Resolved {
                    commit: commit.clone(),
                    tree: tree.clone(),
                });
            }
        }
        Err(GitError::NoRev { rev: rev.to_owned() })
    }

    /// Names of the files and folders at the root of a commit's tree.
    pub async fn root_files(&self, commit: &GitHash) -> Result<Vec<String>, GitError> {
        let out = self
            .git
            .output(&[
                "ls-tree",
                "-z",
                "--name-only",
                "--end-of-options",
                commit.as_str(),
            ])
            .await?;
        let names = out.split(|b| *b == 0).filter(|name| !name.is_empty());
        Ok(names
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect())
    }

    /// A text file of a commit; `None` if there is none of that name.
    pub async fn read_file(&self, commit: &GitHash, path: &str) -> Option<String> {
        let object = format!("{commit}:{path}");
        let out = self
            .git
            .output(&["cat-file", "blob", "--end-of-options", &object])
            .await
            .ok()?;
        Some(String::from_utf8_lossy(&out).into_owned())
    }

    /// Starts `git archive` of a commit as tar on standard output. Files have the commit's time; its
    /// attributes `export-ignore` and `export-subst` hold.
    pub fn archive(&self, commit: &GitHash) -> Result<Child, GitError> {
        let args = ["archive", "--format=tar", "--end-of-options", commit.as_str()];
        self.git.command(&args).spawn().map_err(GitError::NoGit)
    }

    pub fn dir(&self) -> PathBuf {
        self.git.dir().to_owned()
    }

    async fn upstream(&self, args: &[&str]) -> Result<Vec<u8>, GitError> {
        self.git.output(args).await.map_err(|why| match why {
            GitError::Failed { said, .. } => GitError::Upstream {
                url: redact(&self.url),
                said,
            },
            other => other,
        })
    }

    async fn refs(&self) -> Result<BTreeMap<String, String>, GitError> {
        let out = self
            .git
            .output(&["for-each-ref", "--format=%(objectname) %(refname)"])
            .await?;
        let text = String::from_utf8_lossy(&out);
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        Ok(pairs
            .map(|(hash, name)| (name.to_owned(), hash.to_owned()))
            .collect())
    }
}

fn branches(refs: &BTreeMap<String, String>) -> BTreeMap<BranchName, GitHash> {
    let heads = refs
        .iter()
        .filter_map(|(name, hash)| Some((name.strip_prefix("refs/heads/")?, hash)));
    heads
        .filter_map(|(name, hash)| Some((name.parse().ok()?, hash.parse().ok()?)))
        .collect()
}

fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<RefChange> {
    let (before, after) = (branches(before), branches(after));
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let change = |name: &BranchName| RefChange {
        branch: name.clone(),
        old: before.get(name).cloned(),
        new: after.get(name).cloned(),
    };
    names
        .into_iter()
        .map(change)
        .filter(|change| change.old != change.new)
        .collect()
}
