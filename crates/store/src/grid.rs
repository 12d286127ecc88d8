//! A page of commits by builders. Cells come by the thousand: they are read as one JSON text for each commit, which
//! takes a fifth of the time that as many rows do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ids::{BranchName, BuildId, BuilderName, GitHash, RepoName, Timestamp};
use serde::Deserialize;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use crate::history::{pattern, stored_branch};
use crate::read::{BuildRow, Grid, GridRow};
use crate::rows::{self, Built, Columns, commit_columns, damaged, int};
use crate::{Engine, Store, StoreError};

/// As [`Cell`] has them.
const CELL: &str = "b.id, b.builder, b.requested, b.state, b.since, b.not_before, b.why, b.machine, b.attempts, \
                    b.passed, b.failed, b.took, b.outcome_step, b.outcome_cause, b.outcome_detail";

/// One build as it comes out of the database.
#[derive(Deserialize)]
struct Cell(
    u64,
    String,
    i64,
    String,
    i64,
    Option<i64>,
    String,
    Option<String>,
    u32,
    i64,
    i64,
    u64,
    Option<i64>,
    Option<String>,
    String,
);

impl Store {
    /// [`Store::grid_rows`] with all their cells, however many.
    pub async fn grid(
        &self,
        repo: &RepoName,
        branch: &BranchName,
        before: Option<u64>,
        words: &str,
        limit: usize,
    ) -> Result<Option<Grid>, StoreError> {
        let Some(mut grid) = self.grid_rows(repo, branch, before, words, limit).await? else {
            return Ok(None);
        };
        self.fill_grid(repo, &mut grid, None, usize::MAX).await?;
        Ok(Some(grid))
    }

    /// A page of a branch's history, newest first: the commits at depths below `before`, or from the
    /// head. With `words` only those that have them in the title or the author's name or address,
    /// whatever the case. `None` when the branch is not known. No row has a cell yet.
    pub async fn grid_rows(
        &self,
        repo: &RepoName,
        branch: &BranchName,
        before: Option<u64>,
        words: &str,
        limit: usize,
    ) -> Result<Option<Grid>, StoreError> {
        self.within(async {
            let mut tx = self.snapshot().await?;
            let Some(stored) = stored_branch(&mut tx, repo, branch).await? else {
                return Ok(None);
            };
            let before = before.unwrap_or(u64::MAX).min(stored.head_depth + 1);
            let found = sqlx::query(concat!(
                "SELECT d.depth, ",
                commit_columns!(),
                " FROM branch_commits d JOIN commits c ON c.repo = d.repo AND c.hash = d.hash \
                 WHERE d.repo = $1 AND d.branch = $2 AND d.depth < $3 ",
                r"AND c.search LIKE $4 ESCAPE '\' ORDER BY d.depth DESC LIMIT $5"
            ))
            .bind(repo.as_str())
            .bind(branch.as_str())
            .bind(int(before))
            .bind(pattern(words))
            .bind(int((limit as u64).saturating_add(1)))
            .fetch_all(&mut *tx)
            .await?;
            let mut rows = found.iter().map(grid_row).collect::<Result<Vec<_>, _>>()?;
            let older = rows.len() > limit;
            rows.truncate(limit);
            let newer = before <= stored.head_depth;
            Ok(Some(Grid { rows, older, newer }))
        })
        .await
    }

    /// Puts the cells into the rows of [`Store::grid_rows`]: those of all builders, or of some. `false`: there are
    /// more than `most`, and no row has any.
    pub async fn fill_grid(
        &self,
        repo: &RepoName,
        grid: &mut Grid,
        builders: Option<&[BuilderName]>,
        most: usize,
    ) -> Result<bool, StoreError> {
        if grid.rows.is_empty() || builders.is_some_and(<[_]>::is_empty) {
            return Ok(true);
        }
        self.within(async {
            let hashes: Vec<&str> = grid.rows.iter().map(|row| row.commit.hash.as_str()).collect();
            let commits = names(2, hashes.len());
            if most < usize::MAX && builders.is_none() {
                let sql = format!(
                    "SELECT COUNT(*) FROM (SELECT 1 FROM builds b WHERE b.repo = $1 AND b.commit_hash IN ({commits}) \
                     LIMIT {}) counted",
                    most as u64 + 1
                );
                let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false).bind(repo.as_str());
                for hash in &hashes {
                    query = query.bind(*hash);
                }
                let row = query.fetch_one(&self.read).await?;
                if Columns::of(&row).count::<usize>()? > most {
                    return Ok(false);
                }
            }
            let of_builders = builders.map_or(String::new(), |builders| {
                format!(" AND b.builder IN ({})", names(2 + hashes.len(), builders.len()))
            });
            let cells = match self.engine {
                Engine::Sqlite => format!("json_group_array(json_array({CELL}))"),
                Engine::Postgres => format!("json_agg(json_build_array({CELL}))::text"),
            };
            let sql = format!(
                "SELECT b.commit_hash, {cells} FROM builds b WHERE b.repo = $1 AND b.commit_hash IN ({commits})\
                 {of_builders} GROUP BY b.commit_hash"
            );
            let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false).bind(repo.as_str());
            for hash in &hashes {
                query = query.bind(*hash);
            }
            for builder in builders.unwrap_or_default() {
                query = query.bind(builder.as_str());
            }
            let found = query.fetch_all(&self.read).await?;
            let mut by_hash: BTreeMap<GitHash, Vec<BuildRow>> = BTreeMap::new();
            for row in &found {
                let mut columns = Columns::of(row);
                let hash: GitHash = columns.name()?;
                let cells = read_cells(repo, &hash, &columns.text()?)?;
                by_hash.insert(hash, cells);
            }
            for row in &mut grid.rows {
                row.cells = by_hash.get(&row.commit.hash).cloned().unwrap_or_default();
            }
            Ok(true)
        })
        .await
    }

    /// The builders that have a build of one of the grid's commits; with `failed` those with one that failed.
    pub async fn grid_builders(
        &self,
        repo: &RepoName,
        grid: &Grid,
        failed: bool,
    ) -> Result<BTreeSet<BuilderName>, StoreError> {
        if grid.rows.is_empty() {
            return Ok(BTreeSet::new());
        }
        self.within(async {
            let sql = format!(
                "SELECT DISTINCT b.builder FROM builds b WHERE b.repo = $1 AND b.commit_hash IN ({}){}",
                names(2, grid.rows.len()),
                if failed { " AND b.state = 'failed'" } else { "" }
            );
            let mut query = sqlx::query(AssertSqlSafe(sql))
                .persistent(false)
                .bind(repo.as_str());
            for row in &grid.rows {
                query = query.bind(row.commit.hash.as_str());
            }
            let found = query.fetch_all(&self.read).await?;
            found.iter().map(|row| Columns::of(row).name()).collect()
        })
        .await
    }
}

/// `$2, $3, $4` for three from 2 on.
fn names(first: usize, count: usize) -> String {
    let names: Vec<String> = (first..first + count).map(|n| format!("${n}")).collect();
    names.join(", ")
}

/// By builder.
fn read_cells(repo: &RepoName, hash: &GitHash, json: &str) -> Result<Vec<BuildRow>, StoreError> {
    let cells: Vec<Cell> = serde_json::from_str(json).map_err(|error| {
        damaged(format!(
            "the builds of {} are not readable: {error}",
            hash.short()
        ))
    })?;
    let mut rows = cells
        .into_iter()
        .map(|cell| {
            let name = |text: String| text.parse().map_err(|error| damaged(format!("{error}")));
            rows::built(Built {
                id: BuildId(cell.0),
                repo: repo.clone(),
                commit: hash.clone(),
                builder: name(cell.1)?,
                requested: Timestamp(cell.2),
                word: &cell.3,
                since: Timestamp(cell.4),
                not_before: cell.5.map(Timestamp),
                why: cell.6,
                machine: cell
                    .7
                    .map(|text| text.parse().map_err(|error| damaged(format!("{error}"))))
                    .transpose()?,
                attempts: cell.8,
                passed: cell.9,
                failed: cell.10,
                took: Duration::from_micros(cell.11),
                outcome: (cell.12, cell.13, cell.14),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    rows.sort_unstable_by(|one, other| one.builder.cmp(&other.builder));
    Ok(rows)
}

fn grid_row(row: &AnyRow) -> Result<GridRow, StoreError> {
    let mut columns = Columns::of(row);
    let depth = columns.count()?;
    Ok(GridRow {
        commit: rows::commit(&mut columns)?,
        depth,
        cells: Vec::new(),
    })
}
