use std::collections::{BTreeMap, BTreeSet};

use ids::{BranchName, BuilderName, GitHash, RepoName, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Transaction};

use crate::apply::conflict;
use crate::read::{BranchRow, CommitRow, HistoryRow, RepoRow};
use crate::rows::{self, Columns, build_columns, commit_columns, int, placeholders, text};
use crate::{Store, StoreError};

/// Rows of one multi-row insert.
const BATCH: usize = 50;

/// Search looks at this many characters of a commit's title and author: index rows are limited
/// (PostgreSQL: 2704 bytes).
const SEARCHED: usize = 400;

/// What [`Store::record_branch`] found different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BranchChange {
    pub new: bool,
    /// The head is another one than at the last call, or the branch was gone.
    pub moved: bool,
    /// Depths that had no commit before.
    pub added: u64,
    /// Depths whose commit is another one, or that are no more: a force push.
    pub replaced: u64,
    /// Depths below what was handed in that do not connect to it and were therefore dropped.
    pub forgotten: u64,
}

/// All commits of a branch up to `depth`, where `hash` is, have a build for each of `builders`.
pub(crate) struct Complete {
    builders: Vec<BuilderName>,
    build_from: u64,
    depth: u64,
    hash: GitHash,
}

pub(crate) struct Stored {
    head: GitHash,
    pub head_depth: u64,
    build_from: u64,
    gone: bool,
}

impl Store {
    /// Records a branch as fetched. `commits`: newest first along first parents, without gaps, from
    /// the head (at `head_depth`; the root has depth 0) to any depth. They need only reach down to
    /// what is stored already; what is stored below and does not connect is dropped.
    ///
    /// Commits at `build_from` and deeper are built: for a new branch the newest `backfill`.
    /// [`StoreError::Conflict`]: the commits are not as described above.
    pub async fn record_branch(
        &self,
        repo: &RepoName,
        branch: &BranchName,
        commits: &[CommitRow],
        head_depth: u64,
        backfill: u64,
        now: Timestamp,
    ) -> Result<BranchChange, StoreError> {
        let lowest = check_line(repo, branch, commits, head_depth)?;
        let head = &commits[0].hash;
        self.within(async {
            let mut tx = self.begin().await?;
            let stored = stored_branch(&mut tx, repo, branch).await?;
            let mut change = BranchChange {
                new: stored.is_none(),
                ..BranchChange::default()
            };
            change.moved = stored.as_ref().is_none_or(|old| old.gone || old.head != *head);
            let top = stored
                .as_ref()
                .map_or(head_depth, |old| old.head_depth.max(head_depth));
            let line = stored_line(&mut tx, repo, branch, lowest.saturating_sub(1), top).await?;

            // What lies below must be the history of what was handed in.
            let below = lowest.checked_sub(1).and_then(|depth| line.get(&depth));
            let parent = commits.last().and_then(|commit| commit.parents.first());
            if lowest > 0 && (below.is_none() || below != parent) {
                change.forgotten = delete_depths(&mut tx, repo, branch, 0, lowest - 1).await?;
            }
            let mut fresh = Vec::new();
            for (commit, depth) in commits.iter().zip((lowest..=head_depth).rev()) {
                match line.get(&depth) {
                    Some(hash) if *hash == commit.hash => {}
                    Some(_) => {
                        change.replaced += 1;
                        fresh.push((depth, commit));
                    }
                    None => {
                        change.added += 1;
                        fresh.push((depth, commit));
                    }
                }
            }
            if top > head_depth {
                change.replaced += delete_depths(&mut tx, repo, branch, head_depth + 1, top).await?;
            }
            insert_commits(&mut tx, repo, branch, &fresh).await?;

            let first = (head_depth + 1).saturating_sub(backfill);
            // A branch rewritten to less than it was would otherwise never be built again.
            let build_from = stored.map_or(first, |old| {
                if old.build_from > head_depth + 1 {
                    first
                } else {
                    old.build_from
                }
            });
            sqlx::query(
                "INSERT INTO branches (repo, branch, head, head_depth, build_from, seen, gone) \
                 VALUES ($1, $2, $3, $4, $5, $6, 0) ON CONFLICT (repo, branch) DO UPDATE SET \
                 head = excluded.head, head_depth = excluded.head_depth, build_from = excluded.build_from, \
                 seen = excluded.seen, gone = 0",
            )
            .bind(repo.as_str())
            .bind(branch.as_str())
            .bind(head.as_str())
            .bind(int(head_depth))
            .bind(int(build_from))
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            self.commit(tx).await?;
            Ok(change)
        })
        .await
    }

    /// The branch is no more upstream. Its history is kept. A branch not known is no error.
    pub async fn mark_branch_gone(
        &self,
        repo: &RepoName,
        branch: &BranchName,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.within(async {
            let mut tx = self.begin().await?;
            sqlx::query(
                "UPDATE branches SET gone = 1, seen = $3 WHERE repo = $1 AND branch = $2 AND gone = 0",
            )
            .bind(repo.as_str())
            .bind(branch.as_str())
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            self.commit(tx).await
        })
        .await
    }

    /// By repository and name, those that are gone too.
    pub async fn branches(&self, repo: Option<&RepoName>) -> Result<Vec<BranchRow>, StoreError> {
        const ALL: &str = "SELECT repo, branch, head, head_depth, build_from, seen, gone FROM branches \
                           ORDER BY repo, branch";
        const ONE: &str = "SELECT repo, branch, head, head_depth, build_from, seen, gone FROM branches \
                           WHERE repo = $1 ORDER BY branch";
        self.within(async {
            let query = match repo {
                None => sqlx::query(ALL),
                Some(repo) => sqlx::query(ONE).bind(repo.as_str()),
            };
            query
                .fetch_all(&self.read)
                .await?
                .iter()
                .map(branch_row)
                .collect()
        })
        .await
    }

    /// How the last look at a repository's upstream went. `error` is `None` when it went well;
    /// then `now` is when it was fetched. Without `default_branch` the one known stays.
    pub async fn record_repo_state(
        &self,
        repo: &RepoName,
        default_branch: Option<&BranchName>,
        error: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.within(async {
            let mut tx = self.begin().await?;
            sqlx::query(
                "INSERT INTO repos (repo, default_branch, fetched, error, since) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (repo) DO UPDATE SET \
                 default_branch = COALESCE(excluded.default_branch, repos.default_branch), \
                 fetched = COALESCE(excluded.fetched, repos.fetched), error = excluded.error, \
                 since = CASE WHEN (repos.error IS NULL) = (excluded.error IS NULL) \
                 THEN repos.since ELSE excluded.since END",
            )
            .bind(repo.as_str())
            .bind(default_branch.map(|branch| branch.as_str()))
            .bind(error.is_none().then_some(now.0))
            .bind(error.map(text))
            .bind(now.0)
            .execute(&mut *tx)
            .await?;
            self.commit(tx).await
        })
        .await
    }

    pub async fn repos(&self) -> Result<Vec<RepoRow>, StoreError> {
        self.within(async {
            let rows =
                sqlx::query("SELECT repo, default_branch, fetched, error, since FROM repos ORDER BY repo")
                    .fetch_all(&self.read)
                    .await?;
            rows.iter().map(repo_row).collect()
        })
        .await
    }

    /// The newest `limit` commits that are to be built and lack a build for one of `builders`, each
    /// with those it lacks. Newest first. Cheap when called again and again: what was complete
    /// stays complete, so only what is above is looked at.
    pub async fn missing(
        &self,
        repo: &RepoName,
        branch: &BranchName,
        builders: &[BuilderName],
        limit: usize,
    ) -> Result<Vec<(CommitRow, Vec<BuilderName>)>, StoreError> {
        let wanted: Vec<BuilderName> = BTreeSet::from_iter(builders.iter().cloned())
            .into_iter()
            .collect();
        if wanted.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        self.within(async {
            let mut tx = self.snapshot().await?;
            let Some(stored) = stored_branch(&mut tx, repo, branch)
                .await?
                .filter(|stored| !stored.gone)
            else {
                return Ok(Vec::new());
            };
            let from = self
                .first_unknown(&mut tx, repo, branch, &wanted, &stored)
                .await?;
            let lacking = lacking(&mut tx, repo, branch, &wanted, from, limit).await?;
            let lowest = lacking.last().map(|(depth, ..)| *depth);
            let complete = match lowest {
                None => Some(stored.head_depth),
                Some(lowest) if lacking.len() < limit => lowest.checked_sub(1),
                Some(_) => None,
            };
            if let Some(depth) = complete.filter(|depth| *depth >= stored.build_from) {
                self.remember_complete(&mut tx, repo, branch, wanted, stored.build_from, depth)
                    .await?;
            }
            Ok(lacking
                .into_iter()
                .map(|(_, commit, builders)| (commit, builders))
                .collect())
        })
        .await
    }

    /// The first-parent depth of a commit on a branch; `None` if it is not there.
    pub async fn depth_of(
        &self,
        repo: &RepoName,
        branch: &BranchName,
        hash: &GitHash,
    ) -> Result<Option<u64>, StoreError> {
        self.within(async {
            let row =
                sqlx::query("SELECT depth FROM branch_commits WHERE repo = $1 AND hash = $2 AND branch = $3")
                    .bind(repo.as_str())
                    .bind(hash.as_str())
                    .bind(branch.as_str())
                    .fetch_optional(&self.read)
                    .await?;
            row.map(|row| Columns::of(&row).count()).transpose()
        })
        .await
    }

    /// The branches whose first-parent history holds a commit, by name.
    pub async fn branches_with(
        &self,
        repo: &RepoName,
        hash: &GitHash,
    ) -> Result<Vec<BranchName>, StoreError> {
        self.within(async {
            let found = sqlx::query(
                "SELECT DISTINCT branch FROM branch_commits WHERE repo = $1 AND hash = $2 ORDER BY branch",
            )
            .bind(repo.as_str())
            .bind(hash.as_str())
            .fetch_all(&self.read)
            .await?;
            found.iter().map(|row| Columns::of(row).name()).collect()
        })
        .await
    }

    /// A builder's results along a branch, newest first, with the commits it has no build of.
    /// Commits at depths below `before`, or from the head.
    pub async fn builder_history(
        &self,
        repo: &RepoName,
        builder: &BuilderName,
        branch: &BranchName,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<HistoryRow>, StoreError> {
        self.within(async {
            let found = sqlx::query(concat!(
                "SELECT d.depth, ",
                commit_columns!(),
                ", ",
                build_columns!(),
                " FROM branch_commits d JOIN commits c ON c.repo = d.repo AND c.hash = d.hash \
                 LEFT JOIN builds b ON b.repo = d.repo AND b.commit_hash = d.hash AND b.builder = $3 \
                 WHERE d.repo = $1 AND d.branch = $2 AND d.depth < $4 ORDER BY d.depth DESC LIMIT $5"
            ))
            .bind(repo.as_str())
            .bind(branch.as_str())
            .bind(builder.as_str())
            .bind(int(before.unwrap_or(u64::MAX)))
            .bind(int(limit as u64))
            .fetch_all(&self.read)
            .await?;
            found.iter().map(history_row).collect()
        })
        .await
    }

    pub async fn commit_row(&self, repo: &RepoName, hash: &GitHash) -> Result<Option<CommitRow>, StoreError> {
        self.within(async {
            let row = sqlx::query(concat!(
                "SELECT ",
                commit_columns!(),
                " FROM commits c WHERE c.repo = $1 AND c.hash = $2"
            ))
            .bind(repo.as_str())
            .bind(hash.as_str())
            .fetch_optional(&self.read)
            .await?;
            row.map(|row| rows::commit(&mut Columns::of(&row))).transpose()
        })
        .await
    }

    /// Commits of all repositories whose hash begins with `prefix`: 4 to 64 lower-case hex digits,
    /// anything else finds nothing.
    pub async fn commits_by_prefix(&self, prefix: &str, limit: usize) -> Result<Vec<CommitRow>, StoreError> {
        let hex = prefix
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if !hex || !(4..=64).contains(&prefix.len()) {
            return Ok(Vec::new());
        }
        self.within(async {
            // `g` comes after every hex digit.
            let found = sqlx::query(concat!(
                "SELECT ",
                commit_columns!(),
                " FROM commits c WHERE c.hash >= $1 AND c.hash < $2 ORDER BY c.hash, c.repo LIMIT $3"
            ))
            .bind(prefix)
            .bind(format!("{prefix}g"))
            .bind(int(limit as u64))
            .fetch_all(&self.read)
            .await?;
            found
                .iter()
                .map(|row| rows::commit(&mut Columns::of(row)))
                .collect()
        })
        .await
    }

    /// Commits with `words` in the title or the author's name or address, whatever the case; newest
    /// first by commit time.
    pub async fn search_commits(&self, words: &str, limit: usize) -> Result<Vec<CommitRow>, StoreError> {
        if words.trim().is_empty() {
            return Ok(Vec::new());
        }
        self.within(async {
            let found = sqlx::query(concat!(
                "SELECT ",
                commit_columns!(),
                r" FROM commits c WHERE c.search LIKE $1 ESCAPE '\' ORDER BY c.commit_time DESC LIMIT $2"
            ))
            .bind(pattern(words))
            .bind(int(limit as u64))
            .fetch_all(&self.read)
            .await?;
            found
                .iter()
                .map(|row| rows::commit(&mut Columns::of(row)))
                .collect()
        })
        .await
    }

    /// The lowest depth that may lack a build.
    async fn first_unknown(
        &self,
        tx: &mut Transaction<'static, Any>,
        repo: &RepoName,
        branch: &BranchName,
        builders: &[BuilderName],
        stored: &Stored,
    ) -> Result<u64, StoreError> {
        let key = (repo.clone(), branch.clone());
        let known = self.complete().get(&key).and_then(|known| {
            let same = known.builders == builders && known.build_from == stored.build_from;
            same.then(|| (known.depth, known.hash.clone()))
        });
        let Some((depth, hash)) = known else {
            return Ok(stored.build_from);
        };
        // The same commit at the same depth has the same commits below it.
        let line = stored_line(tx, repo, branch, depth, depth).await?;
        Ok(if line.get(&depth) == Some(&hash) {
            depth + 1
        } else {
            stored.build_from
        })
    }

    async fn remember_complete(
        &self,
        tx: &mut Transaction<'static, Any>,
        repo: &RepoName,
        branch: &BranchName,
        builders: Vec<BuilderName>,
        build_from: u64,
        depth: u64,
    ) -> Result<(), StoreError> {
        let line = stored_line(tx, repo, branch, depth, depth).await?;
        if let Some(hash) = line.into_values().next() {
            let known = Complete {
                builders,
                build_from,
                depth,
                hash,
            };
            self.complete().insert((repo.clone(), branch.clone()), known);
        }
        Ok(())
    }

    fn complete(&self) -> std::sync::MutexGuard<'_, BTreeMap<(RepoName, BranchName), Complete>> {
        self.shared
            .complete
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The depth of the last of `commits`.
fn check_line(
    repo: &RepoName,
    branch: &BranchName,
    commits: &[CommitRow],
    head_depth: u64,
) -> Result<u64, StoreError> {
    let bad = |what: String| Err(conflict(format!("branch `{branch}` of `{repo}`: {what}")));
    if commits.is_empty() {
        return bad("no commits; wanted at least the head".to_owned());
    }
    for pair in commits.windows(2) {
        if pair[0].parents.first() != Some(&pair[1].hash) {
            let (child, next) = (pair[0].hash.short(), pair[1].hash.short());
            return bad(format!(
                "{next} is not the first parent of {child}, after which it stands"
            ));
        }
    }
    if let Some(stranger) = commits.iter().find(|commit| commit.repo != *repo) {
        return bad(format!(
            "commit {} is of `{}`",
            stranger.hash.short(),
            stranger.repo
        ));
    }
    match (head_depth + 1).checked_sub(commits.len() as u64) {
        Some(lowest) => Ok(lowest),
        None => bad(format!(
            "{} commits do not fit a head at depth {head_depth}",
            commits.len()
        )),
    }
}

pub(crate) async fn stored_branch(
    tx: &mut Transaction<'static, Any>,
    repo: &RepoName,
    branch: &BranchName,
) -> Result<Option<Stored>, StoreError> {
    let row = sqlx::query(
        "SELECT head, head_depth, build_from, gone FROM branches WHERE repo = $1 AND branch = $2",
    )
    .bind(repo.as_str())
    .bind(branch.as_str())
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let mut columns = Columns::of(&row);
    Ok(Some(Stored {
        head: columns.name()?,
        head_depth: columns.count()?,
        build_from: columns.count()?,
        gone: columns.flag()?,
    }))
}

/// The commits at depths `from` to `to`, both included.
async fn stored_line(
    tx: &mut Transaction<'static, Any>,
    repo: &RepoName,
    branch: &BranchName,
    from: u64,
    to: u64,
) -> Result<BTreeMap<u64, GitHash>, StoreError> {
    let found = sqlx::query(
        "SELECT depth, hash FROM branch_commits WHERE repo = $1 AND branch = $2 AND depth >= $3 AND depth <= $4",
    )
    .bind(repo.as_str())
    .bind(branch.as_str())
    .bind(int(from))
    .bind(int(to))
    .fetch_all(&mut **tx)
    .await?;
    let row = |row: &AnyRow| {
        let mut columns = Columns::of(row);
        Ok((columns.count()?, columns.name()?))
    };
    found.iter().map(row).collect()
}

async fn delete_depths(
    tx: &mut Transaction<'static, Any>,
    repo: &RepoName,
    branch: &BranchName,
    from: u64,
    to: u64,
) -> Result<u64, StoreError> {
    let deleted = sqlx::query(
        "DELETE FROM branch_commits WHERE repo = $1 AND branch = $2 AND depth >= $3 AND depth <= $4",
    )
    .bind(repo.as_str())
    .bind(branch.as_str())
    .bind(int(from))
    .bind(int(to))
    .execute(&mut **tx)
    .await?;
    Ok(deleted.rows_affected())
}

async fn insert_commits(
    tx: &mut Transaction<'static, Any>,
    repo: &RepoName,
    branch: &BranchName,
    commits: &[(u64, &CommitRow)],
) -> Result<(), StoreError> {
    for batch in commits.chunks(BATCH) {
        let keep = batch.len() == 1 || batch.len() == BATCH;
        let sql = format!(
            "INSERT INTO commits (repo, hash, parents, author_name, author_email, author_time, commit_time, title, \
             message, search) VALUES {} ON CONFLICT DO NOTHING",
            placeholders(batch.len(), 10)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(keep);
        for (_, commit) in batch {
            let parents: Vec<&str> = commit.parents.iter().map(GitHash::as_str).collect();
            query = query
                .bind(repo.as_str())
                .bind(commit.hash.as_str())
                .bind(parents.join(" "))
                .bind(text(&commit.author_name))
                .bind(text(&commit.author_email))
                .bind(commit.author_time.0)
                .bind(commit.commit_time.0)
                .bind(text(&commit.title))
                .bind(text(&commit.message))
                .bind(search_text(commit));
        }
        query.execute(&mut **tx).await?;
        let sql = format!(
            "INSERT INTO branch_commits (repo, branch, depth, hash) VALUES {} \
             ON CONFLICT (repo, branch, depth) DO UPDATE SET hash = excluded.hash",
            placeholders(batch.len(), 4)
        );
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(keep);
        for (depth, commit) in batch {
            query = query
                .bind(repo.as_str())
                .bind(branch.as_str())
                .bind(int(*depth))
                .bind(commit.hash.as_str());
        }
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// For `LIKE`: what holds `words` somewhere. No words are everywhere.
pub(crate) fn pattern(words: &str) -> String {
    let words: String = words.trim().to_lowercase().chars().take(SEARCHED).collect();
    let escaped = text(&words)
        .replace('\\', r"\\")
        .replace('%', r"\%")
        .replace('_', r"\_");
    format!("%{escaped}%")
}

/// Title first: it is what people remember.
fn search_text(commit: &CommitRow) -> String {
    let all = format!("{} {} {}", commit.title, commit.author_name, commit.author_email);
    text(&all.to_lowercase()).chars().take(SEARCHED).collect()
}

/// `(depth, commit, builders without a build of it)`, newest first.
async fn lacking(
    tx: &mut Transaction<'static, Any>,
    repo: &RepoName,
    branch: &BranchName,
    builders: &[BuilderName],
    from: u64,
    limit: usize,
) -> Result<Vec<(u64, CommitRow, Vec<BuilderName>)>, StoreError> {
    let names: Vec<String> = (0..builders.len()).map(|i| format!("${}", i + 6)).collect();
    let sql = format!(
        "SELECT d.depth, {} FROM branch_commits d JOIN commits c ON c.repo = d.repo AND c.hash = d.hash \
         WHERE d.repo = $1 AND d.branch = $2 AND d.depth >= $3 \
         AND (SELECT COUNT(*) FROM builds b WHERE b.repo = d.repo AND b.commit_hash = d.hash \
         AND b.builder IN ({})) < $4 ORDER BY d.depth DESC LIMIT $5",
        commit_columns!(),
        names.join(", ")
    );
    let mut query = sqlx::query(AssertSqlSafe(sql))
        .bind(repo.as_str())
        .bind(branch.as_str())
        .bind(int(from))
        .bind(int(builders.len() as u64))
        .bind(int(limit as u64));
    for builder in builders {
        query = query.bind(builder.as_str());
    }
    let mut lacking = Vec::new();
    for row in query.fetch_all(&mut **tx).await? {
        let mut columns = Columns::of(&row);
        let (depth, commit) = (columns.count()?, rows::commit(&mut columns)?);
        let there = sqlx::query("SELECT builder FROM builds WHERE repo = $1 AND commit_hash = $2")
            .bind(repo.as_str())
            .bind(commit.hash.as_str())
            .fetch_all(&mut **tx)
            .await?;
        let there: BTreeSet<BuilderName> = there
            .iter()
            .map(|row| Columns::of(row).name())
            .collect::<Result<_, _>>()?;
        let lacks = builders
            .iter()
            .filter(|builder| !there.contains(*builder))
            .cloned()
            .collect();
        lacking.push((depth, commit, lacks));
    }
    Ok(lacking)
}

fn branch_row(row: &AnyRow) -> Result<BranchRow, StoreError> {
    let mut columns = Columns::of(row);
    Ok(BranchRow {
        repo: columns.name()?,
        branch: columns.name()?,
        head: columns.name()?,
        head_depth: columns.count()?,
        build_from: columns.count()?,
        seen: columns.time()?,
        gone: columns.flag()?,
    })
}

fn repo_row(row: &AnyRow) -> Result<RepoRow, StoreError> {
    let mut columns = Columns::of(row);
    Ok(RepoRow {
        repo: columns.name()?,
        default_branch: columns.name_or_null()?,
        fetched: columns.time_or_null()?,
        error: columns.text_or_null()?,
        since: columns.time()?,
    })
}

fn history_row(row: &AnyRow) -> Result<HistoryRow, StoreError> {
    let mut columns = Columns::of(row);
    let depth = columns.count()?;
    let commit = rows::commit(&mut columns)?;
    let build = rows::build_or_null(&mut columns)?;
    Ok(HistoryRow { depth, commit, build })
}
