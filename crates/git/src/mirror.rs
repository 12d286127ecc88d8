use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ids::{BranchName, GitHash};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::parse::{self, Commit, is_safe_rev};
use crate::run::Git;
use crate::{GitError, Job, Upstream};

/// How long a lock that another holder has is tried for.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How often a mirror is looked through when there is nothing else to do.
const CHECK_EVERY: Duration = Duration::from_secs(24 * 3600);

/// A mirror is made anew at most so often: what its upstream lacks too, a copy does not bring.
const RENEW_EVERY: Duration = Duration::from_secs(3600);

/// From so many on they are kept in one file.
const MANY_REFS: usize = 1000;

/// Branches that cannot be spoken of are named up to here.
pub const NAMED: usize = 5;

/// A bare copy of an upstream's branches and tags. Which upstream, each fetch is told.
#[derive(Debug)]
pub struct Mirror {
    git: Git,
    /// One fetch at a time; what only reads never waits for it.
    writing: Mutex<Upkeep>,
    /// Something in it could not be read.
    suspect: AtomicBool,
    /// One writer for each repository, across processes.
    _lock: File,
}

#[derive(Debug, Default)]
struct Upkeep {
    checked: Option<Instant>,
    renewed: Option<Instant>,
}

/// What a look at the upstream brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FetchReport {
    /// Branch heads, by name.
    pub heads: BTreeMap<BranchName, GitHash>,
    /// Branches that the farm cannot speak of, such as `--upload-pack=x`: at most [`NAMED`] of them, and how many.
    pub unnamed: (Vec<String>, usize),
    /// What the upstream's HEAD names; `None` for an empty repository.
    pub default_branch: Option<BranchName>,
    /// All that was fetched, by full name: branches and tags, `HEAD`, and as `refs/tags/T^{}` what a
    /// tag is of.
    pub refs: BTreeMap<String, String>,
    /// The mirror was damaged, as this says, and has been made anew.
    pub renewed: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// What it was found as: a hash, or a full ref name.
    pub name: String,
    pub commit: GitHash,
    pub tree: GitHash,
}

type Refs = BTreeMap<String, String>;

impl Mirror {
    /// Opens the mirror in `dir`, or makes an empty one. Beside it are its lock `DIR.lock`, `DIR.fresh`
    /// while it is made anew, and `DIR.damaged`, what was there before.
    pub async fn open(dir: &Path) -> Result<Mirror, GitError> {
        fs::create_dir_all(dir).map_err(at("make", dir))?;
        let lock = File::create(beside(dir, "lock")).map_err(at("lock", dir))?;
        // A child that is being started elsewhere in this process has the file too until it runs its program.
        let deadline = Instant::now() + LOCK_LIMIT;
        while let Err(why) = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            if why != rustix::io::Errno::WOULDBLOCK || Instant::now() >= deadline {
                return Err(at("lock", dir)(why.into()));
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        let git = Git::new(dir);
        if !dir.join("HEAD").exists() || git.output(&["rev-parse", "--is-bare-repository"]).await.is_err() {
            git.output(&["init", "--quiet", "--bare"]).await?;
        }
        Ok(Mirror {
            git,
            writing: Mutex::default(),
            suspect: AtomicBool::new(false),
            _lock: lock,
        })
    }

    /// Looks at the upstream and fetches what has changed. An upstream without any ref is empty: nothing
    /// is taken from the mirror for it. A mirror that turns out to be damaged is made anew.
    pub async fn fetch(&self, upstream: &Upstream) -> Result<FetchReport, GitError> {
        let mut upkeep = self.writing.lock().await;
        let Listed {
            refs: remote,
            more,
            default_branch,
        } = listed(&self.git, upstream).await?;
        let same = remote.is_empty() || remote == refs(&self.git).await?;
        let brought = if same {
            Ok(())
        } else {
            let filled = fill(&self.git, upstream).await;
            // One file for each ref takes seconds to look through, at every look.
            if filled.is_ok() && remote.len() > MANY_REFS {
                self.git.output(&["pack-refs", "--all"]).await?;
            }
            filled
        };
        let suspect = self.suspect.load(Ordering::SeqCst) || brought.is_err();
        let renewed = match self.damage(&mut upkeep, suspect, same).await? {
            Some(what) if !remote.is_empty() => {
                self.renew(&mut upkeep, upstream, &what).await?;
                Some(what)
            }
            _ => {
                brought?;
                None
            }
        };
        let mut refs = refs(&self.git).await?;
        let (heads, unnamed) = branches(&refs);
        // What a tag is of holds as long as the tag is what was listed.
        let holds = |name: &str| {
            let tag = name.strip_suffix("^{}");
            tag.is_none_or(|tag| refs.contains_key(tag) && refs.get(tag) == remote.get(tag))
        };
        let more: Vec<_> = more.into_iter().filter(|(name, _)| holds(name)).collect();
        refs.extend(more);
        Ok(FetchReport {
            heads,
            unnamed,
            default_branch,
            refs,
            renewed,
        })
    }

    /// Brings what the upstream has that the mirror has not, without asking it for more: half the time of
    /// [`Mirror::fetch`], for when somebody says that there is news. What is gone upstream stays, and
    /// whatever is wrong is for [`Mirror::fetch`] to find out and mend. The branch heads afterwards.
    pub async fn fetch_new(&self, upstream: &Upstream) -> Result<BTreeMap<BranchName, GitHash>, GitError> {
        let _writing = self.writing.lock().await;
        take(&self.git, upstream, &[]).await?;
        Ok(branches(&refs(&self.git).await?).0)
    }

    /// Lets the next fetch look whether the mirror is whole.
    pub fn doubt(&self) {
        self.suspect.store(true, Ordering::SeqCst);
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
        let out = self.read(&args).await?;
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
        let out = self.read(&args).await?;
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
                    name,
                    commit: commit.clone(),
                    tree: tree.clone(),
                });
            }
        }
        Err(GitError::NoRev { rev: rev.to_owned() })
    }

    /// Starts `git archive` of a commit as tar on standard output. Files have the commit's time; its
    /// attributes `export-ignore` and `export-subst` hold. Whoever sees it fail says so by [`Mirror::doubt`].
    pub fn archive(&self, commit: &GitHash) -> Result<Job, GitError> {
        self.git
            .start(&["archive", "--format=tar", "--end-of-options", commit.as_str()])
    }

    /// What is known to be there is read.
    async fn read(&self, args: &[&str]) -> Result<Vec<u8>, GitError> {
        let done = self.git.output(args).await;
        if done.is_err() {
            self.doubt();
        }
        done
    }

    /// What is missing or broken, if it is time to look: now and then when `idle`, and at every content
    /// when `suspect`.
    async fn damage(
        &self,
        upkeep: &mut Upkeep,
        suspect: bool,
        idle: bool,
    ) -> Result<Option<String>, GitError> {
        let due = idle && upkeep.checked.is_none_or(|at| at.elapsed() >= CHECK_EVERY);
        let recent = upkeep.renewed.is_some_and(|at| at.elapsed() < RENEW_EVERY);
        if recent || !(suspect || due) {
            return Ok(None);
        }
        let objects = if suspect { "--verify-objects" } else { "--objects" };
        // The commit graph would speak for commits that are lost.
        let args = [
            "-c",
            "core.commitGraph=false",
            "rev-list",
            "--quiet",
            objects,
            "--all",
        ];
        let found = match self.git.output(&args).await {
            Ok(_) => None,
            Err(GitError::Failed { said, .. }) => Some(said),
            // It is large, or the disk is slow: it may be whole all the same.
            Err(GitError::GivenUp { .. }) => None,
            Err(why) => return Err(why),
        };
        upkeep.checked = Some(Instant::now());
        self.suspect.store(false, Ordering::SeqCst);
        Ok(found)
    }

    /// Fetches everything into a folder beside and puts it in the place of the damaged one, which stays
    /// beside for who wants to look. What reads meanwhile reads the old one.
    async fn renew(&self, upkeep: &mut Upkeep, upstream: &Upstream, what: &str) -> Result<(), GitError> {
        let (dir, fresh, damaged) = (
            self.git.dir(),
            beside(self.git.dir(), "fresh"),
            beside(self.git.dir(), "damaged"),
        );
        let made = async {
            emptied(&fresh)?;
            fs::create_dir_all(&fresh).map_err(at("make", &fresh))?;
            let git = Git::new(&fresh);
            git.output(&["init", "--quiet", "--bare"]).await?;
            fill(&git, upstream).await?;
            emptied(&damaged)?;
            fs::rename(dir, &damaged).map_err(at("move", dir))?;
            fs::rename(&fresh, dir).map_err(at("move", &fresh))
        };
        match made.await {
            Ok(()) => {
                upkeep.renewed = Some(Instant::now());
                Ok(())
            }
            Err(why) => {
                self.doubt();
                Err(GitError::Damaged {
                    dir: dir.to_owned(),
                    what: what.to_owned(),
                    source: Box::new(why),
                })
            }
        }
    }
}

/// What an upstream has.
struct Listed {
    refs: Refs,
    /// `HEAD`, and what tags are of.
    more: Refs,
    /// Which branch its HEAD names.
    default_branch: Option<BranchName>,
}

async fn listed(git: &Git, upstream: &Upstream) -> Result<Listed, GitError> {
    let wanted = ["HEAD", "refs/heads/*", "refs/tags/*"];
    let printed = git
        .upstream(upstream, "ls-remote", &["--symref"], &wanted)
        .await?;
    let text = String::from_utf8_lossy(&printed.out);
    let default_branch = text.lines().find_map(|line| {
        let target = line.strip_prefix("ref: refs/heads/")?.strip_suffix("\tHEAD")?;
        target.parse().ok()
    });
    let names = text
        .lines()
        .filter(|line| !line.starts_with("ref: "))
        .filter_map(|line| line.split_once('\t'))
        .map(|(hash, name)| (name.to_owned(), hash.to_owned()));
    let (refs, more) =
        names.partition(|(name, _): &(String, String)| name.starts_with("refs/") && !name.ends_with("^{}"));
    Ok(Listed {
        refs,
        more,
        default_branch,
    })
}

/// Makes the branches and tags those of the upstream.
async fn fill(git: &Git, upstream: &Upstream) -> Result<(), GitError> {
    take(git, upstream, &["--prune"]).await
}

async fn take(git: &Git, upstream: &Upstream, more: &[&str]) -> Result<(), GitError> {
    let options = [&["--progress", "--no-tags", "--no-write-fetch-head"], more].concat();
    let specs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
    let printed = git.upstream(upstream, "fetch", &options, &specs).await?;
    // Git takes nothing, warns, and is content.
    if printed.said.contains("shallow roots are not allowed") {
        return Err(GitError::Upstream {
            url: upstream.address().to_owned(),
            said: "it is a shallow clone, whose history is cut off; make it whole there with \
                   `git fetch --unshallow`, or name the repository that it was cloned from"
                .to_owned(),
        });
    }
    Ok(())
}

async fn refs(git: &Git) -> Result<Refs, GitError> {
    let out = git
        .output(&["for-each-ref", "--format=%(objectname) %(refname)"])
        .await?;
    let text = String::from_utf8_lossy(&out);
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs
        .map(|(hash, name)| (name.to_owned(), hash.to_owned()))
        .collect())
}

fn branches(refs: &Refs) -> (BTreeMap<BranchName, GitHash>, (Vec<String>, usize)) {
    let (mut heads, mut unnamed) = (BTreeMap::new(), (Vec::new(), 0));
    for (name, hash) in refs {
        let Some(name) = name.strip_prefix("refs/heads/") else {
            continue;
        };
        match (name.parse(), hash.parse()) {
            (Ok(name), Ok(hash)) => drop(heads.insert(name, hash)),
            _ => {
                unnamed.1 += 1;
                if unnamed.0.len() < NAMED {
                    unnamed.0.push(name.chars().take(100).collect());
                }
            }
        }
    }
    (heads, unnamed)
}

/// `widget.git` has `widget.git.lock` beside it.
fn beside(dir: &Path, what: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

fn emptied(dir: &Path) -> Result<(), GitError> {
    match fs::remove_dir_all(dir) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(at("delete", dir)(why)),
        _ => Ok(()),
    }
}

fn at(what: &'static str, path: &Path) -> impl Fn(io::Error) -> GitError + use<> {
    let path = path.to_owned();
    move |source| GitError::Io {
        what,
        path: path.clone(),
        source,
    }
}
