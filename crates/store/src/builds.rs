use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farm::{MachineFacts, Restored, RestoredAttempt, RestoredBuild, RestoredStep};
use ids::{AttemptId, BranchName, BuildId, BuilderName, GitHash, MachineId, RepoName, StepId, Timestamp};
use runner::Plan;
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Transaction};

use crate::read::{AttemptRow, BuildDetail, BuildFilter, BuildRow, MachineRow, Status, StepRow};
use crate::rows::{self, Columns, build_columns, commit_columns, damaged, int};
use crate::{Store, StoreError, loans, plan};

/// Read by [`attempt`], in this order.
const ATTEMPT: &str = "SELECT n, machine, host_type, started, ended, plan, outcome, outcome_step, outcome_cause, \
                       outcome_detail FROM attempts WHERE build = $1 ORDER BY n";

/// Read by [`step`], in this order.
const STEPS: &str =
    "SELECT n, idx, started, ended, ok, state, log_idle FROM steps WHERE build = $1 ORDER BY n, idx";

struct Attempt {
    n: u32,
    machine: MachineId,
    host_type: ids::HostType,
    started: Timestamp,
    ended: Option<(Timestamp, runner::Outcome)>,
    plan: Plan,
}

struct Step {
    n: u32,
    index: u32,
    started: Timestamp,
    ended: Option<(Timestamp, bool)>,
    state: String,
    has_log: bool,
}

impl Store {
    /// All that waits or runs: what a coordinator starts from. One moment's view.
    pub async fn unfinished(&self) -> Result<Restored, StoreError> {
        self.within(async {
            let mut tx = self.snapshot().await?;
            let last = sqlx::query(
                "SELECT COALESCE(MAX(id), 0) FROM (SELECT id FROM builds UNION ALL SELECT id FROM loans) numbered",
            )
                .fetch_one(&mut *tx)
                .await?;
            let last_build = Columns::of(&last).count()?;
            let found =
                sqlx::query("SELECT id FROM builds WHERE state IN ('waiting', 'running') ORDER BY id")
                    .fetch_all(&mut *tx)
                    .await?;
            let mut builds = Vec::with_capacity(found.len());
            for row in &found {
                let id = Columns::of(row).build_id()?;
                builds.extend(restored(&mut tx, id).await?);
            }
            let loans = loans::restored(&mut tx).await?;
            Ok(Restored {
                last_build,
                builds,
                loans,
            })
        })
        .await
    }

    /// One build as the farm core takes it up, finished or not: for a retry by hand.
    pub async fn restored_build(&self, build: BuildId) -> Result<Option<RestoredBuild>, StoreError> {
        self.within(async { restored(&mut self.snapshot().await?, build).await })
            .await
    }

    pub async fn build(&self, build: BuildId) -> Result<Option<BuildDetail>, StoreError> {
        self.within(async {
            let mut tx = self.snapshot().await?;
            let found = sqlx::query(concat!(
                "SELECT ",
                build_columns!(),
                ", ",
                commit_columns!(),
                " FROM builds b JOIN commits c ON c.repo = b.repo AND c.hash = b.commit_hash WHERE b.id = $1"
            ))
            .bind(int(build.0))
            .fetch_optional(&mut *tx)
            .await?;
            let Some(found) = found else { return Ok(None) };
            let mut columns = Columns::of(&found);
            let (row, commit) = (rows::build(&mut columns)?, rows::commit(&mut columns)?);
            let branches = sqlx::query(
                "SELECT DISTINCT branch FROM branch_commits WHERE repo = $1 AND hash = $2 ORDER BY branch",
            )
            .bind(row.repo.as_str())
            .bind(row.commit.as_str())
            .fetch_all(&mut *tx)
            .await?;
            let branches = branches
                .iter()
                .map(|row| Columns::of(row).name())
                .collect::<Result<Vec<BranchName>, _>>()?;
            let attempts = attempts(&mut tx, build).await?;
            let attempts = attempts
                .into_iter()
                .map(|(attempt, steps)| attempt_row(build, attempt, steps));
            Ok(Some(BuildDetail {
                row,
                commit,
                branches,
                attempts: attempts.collect(),
            }))
        })
        .await
    }

    pub async fn build_of(
        &self,
        repo: &RepoName,
        commit: &GitHash,
        builder: &BuilderName,
    ) -> Result<Option<BuildId>, StoreError> {
        self.within(async {
            let row =
                sqlx::query("SELECT id FROM builds WHERE repo = $1 AND commit_hash = $2 AND builder = $3")
                    .bind(repo.as_str())
                    .bind(commit.as_str())
                    .bind(builder.as_str())
                    .fetch_optional(&self.read)
                    .await?;
            row.map(|row| Columns::of(&row).build_id()).transpose()
        })
        .await
    }

    /// The builders that have a build of a commit.
    pub async fn builders_of(
        &self,
        repo: &RepoName,
        commit: &GitHash,
    ) -> Result<BTreeSet<BuilderName>, StoreError> {
        self.within(async {
            let found = sqlx::query("SELECT builder FROM builds WHERE repo = $1 AND commit_hash = $2")
                .bind(repo.as_str())
                .bind(commit.as_str())
                .fetch_all(&self.read)
                .await?;
            found.iter().map(|row| Columns::of(row).name()).collect()
        })
        .await
    }

    /// Newest first.
    pub async fn builds(&self, filter: &BuildFilter, limit: usize) -> Result<Vec<BuildRow>, StoreError> {
        let mut wheres = Vec::new();
        let mut texts = Vec::new();
        let mut want = |condition: &str, value: Option<&str>| {
            if let Some(value) = value {
                texts.push(value.to_owned());
                wheres.push(condition.replace('?', &format!("${}", texts.len() + 2)));
            }
        };
        want("b.repo = ?", filter.repo.as_ref().map(RepoName::as_str));
        want("b.builder = ?", filter.builder.as_ref().map(BuilderName::as_str));
        want("b.commit_hash = ?", filter.commit.as_ref().map(GitHash::as_str));
        want("b.state = ?", filter.status.map(Status::as_str));
        want(
            "b.id IN (SELECT a.build FROM attempts a WHERE a.machine = ?)",
            filter.machine.as_ref().map(MachineId::as_str),
        );
        let wheres: String = wheres
            .iter()
            .map(|condition| format!(" AND {condition}"))
            .collect();
        let sql = format!(
            "SELECT {} FROM builds b WHERE b.id < $1{wheres} ORDER BY b.id DESC LIMIT $2",
            build_columns!()
        );
        self.within(async {
            let mut query = sqlx::query(AssertSqlSafe(sql))
                .bind(filter.before.map_or(i64::MAX, |before| int(before.0)))
                .bind(int(limit as u64));
            for text in texts {
                query = query.bind(text);
            }
            build_rows(&query.fetch_all(&self.read).await?)
        })
        .await
    }

    /// Oldest first.
    pub async fn waiting_and_running(&self) -> Result<Vec<BuildRow>, StoreError> {
        self.within(async {
            let found = sqlx::query(concat!(
                "SELECT ",
                build_columns!(),
                " FROM builds b WHERE b.state IN ('waiting', 'running') ORDER BY b.id"
            ))
            .fetch_all(&self.read)
            .await?;
            build_rows(&found)
        })
        .await
    }

    /// How many builds there are of each status; all six are there.
    pub async fn counts(&self) -> Result<BTreeMap<Status, u64>, StoreError> {
        self.within(async {
            let found = sqlx::query("SELECT state, n FROM build_counts")
                .fetch_all(&self.read)
                .await?;
            let mut counts = BTreeMap::from(Status::ALL.map(|status| (status, 0)));
            for row in &found {
                let mut columns = Columns::of(row);
                let word = columns.text()?;
                let status = Status::parse(&word).ok_or_else(|| damaged(format!("`{word}` is no status")))?;
                counts.insert(status, columns.count()?);
            }
            Ok(counts)
        })
        .await
    }

    /// By name.
    pub async fn machines(&self) -> Result<Vec<MachineRow>, StoreError> {
        self.machine_rows(None).await
    }

    pub async fn machine(&self, machine: &MachineId) -> Result<Option<MachineRow>, StoreError> {
        Ok(self.machine_rows(Some(machine)).await?.pop())
    }

    /// How long each of `builders` usually takes on each repository: the median of its last 20
    /// passed attempts, the higher one of two. Pairs without a passed attempt are absent.
    pub async fn usual_times(
        &self,
        builders: &[BuilderName],
    ) -> Result<BTreeMap<(RepoName, BuilderName), Duration>, StoreError> {
        self.within(async {
            let found = sqlx::query("SELECT repo, builder, took FROM run_times ORDER BY repo, builder, took")
                .fetch_all(&self.read)
                .await?;
            let mut times: BTreeMap<(RepoName, BuilderName), Vec<Duration>> = BTreeMap::new();
            for row in &found {
                let mut columns = Columns::of(row);
                let key: (RepoName, BuilderName) = (columns.name()?, columns.name()?);
                if builders.contains(&key.1) {
                    times.entry(key).or_default().push(columns.micros()?);
                }
            }
            Ok(times
                .into_iter()
                .map(|(key, times)| (key, times[times.len() / 2]))
                .collect())
        })
        .await
    }

    /// Lets the logs of at most `limit` more steps expire, oldest first, whose attempt ended before `before`. From here on
    /// no page points to them. All that are to be deleted, those of a call whose caller died among them.
    pub async fn expire_logs(&self, before: Timestamp, limit: usize) -> Result<Vec<StepId>, StoreError> {
        self.within(async {
            let mut tx = self.begin().await?;
            sqlx::query(
                "UPDATE steps SET log_idle = -2 WHERE (build, n, idx) IN (SELECT build, n, idx FROM steps \
                 WHERE log_idle >= 0 AND log_idle < $1 ORDER BY log_idle LIMIT $2)",
            )
            .bind(before.0)
            .bind(int(limit as u64))
            .execute(&mut *tx)
            .await?;
            let found =
                sqlx::query("SELECT build, n, idx FROM steps WHERE log_idle = -2 ORDER BY build, n, idx")
                    .fetch_all(&mut *tx)
                    .await?;
            if !found.is_empty() {
                self.commit(tx).await?;
            }
            let step = |row: &AnyRow| {
                let mut columns = Columns::of(row);
                let attempt = AttemptId {
                    build: columns.build_id()?,
                    n: columns.count()?,
                };
                Ok(StepId {
                    attempt,
                    index: columns.count()?,
                })
            };
            found.iter().map(step).collect()
        })
        .await
    }

    /// The logs of these steps are no more.
    pub async fn mark_log_deleted(&self, steps: &[StepId]) -> Result<(), StoreError> {
        self.within(async {
            let mut tx = self.begin().await?;
            for step in steps {
                sqlx::query("UPDATE steps SET log_idle = -1 WHERE build = $1 AND n = $2 AND idx = $3")
                    .bind(int(step.attempt.build.0))
                    .bind(i64::from(step.attempt.n))
                    .bind(i64::from(step.index))
                    .execute(&mut *tx)
                    .await?;
            }
            self.commit(tx).await
        })
        .await
    }

    async fn machine_rows(&self, only: Option<&MachineId>) -> Result<Vec<MachineRow>, StoreError> {
        macro_rules! machines {
            ($rest:literal) => {
                concat!(
                    "SELECT m.machine, m.host_type, m.pool, m.version, m.software, m.address, m.resumable, \
                     m.first_seen, m.changed, m.connected, m.why_gone, l.build, l.n \
                     FROM machines m LEFT JOIN leases l ON l.machine = m.machine ",
                    $rest
                )
            };
        }
        self.within(async {
            let query = match only {
                None => sqlx::query(machines!("ORDER BY m.machine")),
                Some(machine) => sqlx::query(machines!("WHERE m.machine = $1")).bind(machine.as_str()),
            };
            query
                .fetch_all(&self.read)
                .await?
                .iter()
                .map(machine_row)
                .collect()
        })
        .await
    }
}

fn build_rows(rows: &[AnyRow]) -> Result<Vec<BuildRow>, StoreError> {
    rows.iter()
        .map(|row| rows::build(&mut Columns::of(row)))
        .collect()
}

async fn restored(
    tx: &mut Transaction<'static, Any>,
    id: BuildId,
) -> Result<Option<RestoredBuild>, StoreError> {
    let row = sqlx::query(
        "SELECT b.repo, b.commit_hash, c.commit_time, b.builder, b.requested, b.not_before, b.tries_left, \
         b.attempts, b.asked_after, b.state FROM builds b \
         JOIN commits c ON c.repo = b.repo AND c.hash = b.commit_hash WHERE b.id = $1",
    )
    .bind(int(id.0))
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let mut columns = Columns::of(&row);
    let mut build = RestoredBuild {
        build: id,
        repo: columns.name()?,
        commit: columns.name()?,
        commit_time: columns.time()?,
        builder: columns.name()?,
        requested: columns.time()?,
        not_before: columns.time_or_null()?,
        tries_left: columns.count()?,
        attempts: columns.count()?,
        avoid: Vec::new(),
        running: None,
    };
    let asked_after: i64 = columns.int()?;
    let running = columns.text()? == "running";
    if build.attempts == 0 {
        return Ok(Some(build));
    }
    // An attempt lost to a restart of the coordinator says nothing of its machine.
    let avoid = sqlx::query(
        "SELECT DISTINCT machine FROM attempts WHERE build = $1 AND n > $2 AND outcome = 'infra' \
         AND outcome_cause <> 'coordinator_restart' ORDER BY machine",
    )
    .bind(int(id.0))
    .bind(asked_after)
    .fetch_all(&mut **tx)
    .await?;
    build.avoid = avoid
        .iter()
        .map(|row| Columns::of(row).name())
        .collect::<Result<_, _>>()?;
    if running {
        let (attempt, steps) = attempts(tx, id)
            .await?
            .pop()
            .filter(|(attempt, _)| attempt.ended.is_none() && attempt.n == build.attempts)
            .ok_or_else(|| damaged(format!("build {id} is running, and its last attempt is not")))?;
        build.running = Some(RestoredAttempt {
            attempt: AttemptId {
                build: id,
                n: attempt.n,
            },
            machine: attempt.machine,
            host_type: attempt.host_type,
            started: attempt.started,
            plan: attempt.plan,
            steps: steps
                .into_iter()
                .map(|step| RestoredStep {
                    started: step.started,
                    ended: step.ended,
                })
                .collect(),
        });
    }
    Ok(Some(build))
}

/// All attempts at a build, oldest first, each with its steps in order and without gaps.
async fn attempts(
    tx: &mut Transaction<'static, Any>,
    build: BuildId,
) -> Result<Vec<(Attempt, Vec<Step>)>, StoreError> {
    let found = sqlx::query(ATTEMPT)
        .bind(int(build.0))
        .fetch_all(&mut **tx)
        .await?;
    let mut all = found
        .iter()
        .map(|row| Ok((attempt(build, row)?, Vec::new())))
        .collect::<Result<Vec<(Attempt, Vec<Step>)>, StoreError>>()?;
    for row in sqlx::query(STEPS).bind(int(build.0)).fetch_all(&mut **tx).await? {
        let step = step(build, &row)?;
        let owner = all.iter_mut().find(|(attempt, _)| attempt.n == step.n);
        match owner {
            Some((attempt, steps))
                if steps.len() == step.index as usize && steps.len() < attempt.plan.steps.len() =>
            {
                steps.push(step);
            }
            _ => {
                let (n, index) = (step.n, step.index);
                return Err(damaged(format!(
                    "step {build}.{n}.{index} does not fit its attempt's plan"
                )));
            }
        }
    }
    Ok(all)
}

fn attempt(build: BuildId, row: &AnyRow) -> Result<Attempt, StoreError> {
    let mut columns = Columns::of(row);
    let n: u32 = columns.count()?;
    let (machine, host_type, started) = (columns.name()?, columns.name()?, columns.time()?);
    let ended = columns.time_or_null()?;
    let plan = columns.text()?;
    let plan = plan::from_json(&plan).map_err(|error| {
        damaged(format!(
            "the plan of attempt {build}.{n} is not readable: {error}"
        ))
    })?;
    let kind = columns.text_or_null()?;
    let rest = (columns.int_or_null()?, columns.text_or_null()?, columns.text()?);
    let ended = match (ended, kind) {
        (None, None) => None,
        (Some(at), Some(kind)) => {
            let outcome = rows::read_outcome(&kind, rest)
                .map_err(|why| damaged(format!("attempt {build}.{n}: {why}")))?;
            Some((at, outcome))
        }
        _ => {
            return Err(damaged(format!(
                "attempt {build}.{n} has an end without outcome, or the reverse"
            )));
        }
    };
    Ok(Attempt {
        n,
        machine,
        host_type,
        started,
        ended,
        plan,
    })
}

fn step(build: BuildId, row: &AnyRow) -> Result<Step, StoreError> {
    let mut columns = Columns::of(row);
    let (n, index, started) = (columns.count()?, columns.count()?, columns.time()?);
    let (ended, ok, state) = (columns.time_or_null()?, columns.int_or_null()?, columns.text()?);
    let ended = match (ended, ok) {
        (None, None) => None,
        (Some(at), Some(ok @ (0 | 1))) => Some((at, ok == 1)),
        _ => {
            return Err(damaged(format!(
                "step {build}.{n}.{index} has an end without result, or the reverse"
            )));
        }
    };
    let has_log = columns.int_or_null()?.is_none_or(|idle| idle >= 0);
    Ok(Step {
        n,
        index,
        started,
        ended,
        state,
        has_log,
    })
}

/// The steps of the plan, with what is known of those that were started.
fn attempt_row(build: BuildId, attempt: Attempt, steps: Vec<Step>) -> AttemptRow {
    let mut started = steps.into_iter();
    let steps = attempt.plan.steps.iter().zip(0..).map(|(planned, index)| {
        let step = started.next();
        StepRow {
            index,
            name: planned.name.clone(),
            command: plan::typed(&planned.command),
            started: step.as_ref().map(|step| step.started),
            ended: step.as_ref().and_then(|step| Some(step.ended?.0)),
            ok: step.as_ref().and_then(|step| Some(step.ended?.1)),
            has_log: step.as_ref().is_some_and(|step| step.has_log),
            state: step.map(|step| step.state).unwrap_or_default(),
        }
    });
    let steps = steps.collect();
    let (ended, outcome) = attempt.ended.unzip();
    AttemptRow {
        attempt: AttemptId { build, n: attempt.n },
        machine: attempt.machine,
        host_type: attempt.host_type,
        started: attempt.started,
        ended,
        outcome,
        steps,
    }
}

fn machine_row(row: &AnyRow) -> Result<MachineRow, StoreError> {
    let mut columns = Columns::of(row);
    let (machine, host_type) = (columns.name()?, columns.name()?);
    let facts = MachineFacts {
        pool: columns.text()?,
        version: columns.count()?,
        software: columns.text()?,
        address: columns.text()?,
        resumable: columns.flag()?,
    };
    let (first_seen, changed) = (columns.time()?, columns.time()?);
    let (connected, why_gone) = (columns.flag()?, columns.text()?);
    let running = match (columns.int_or_null()?, columns.int_or_null()?) {
        (Some(build), Some(n)) => {
            let number =
                |found: i64| u64::try_from(found).map_err(|_| damaged(format!("{found} is no number")));
            let n = u32::try_from(n).map_err(|_| damaged(format!("{n} is no attempt")))?;
            Some(AttemptId {
                build: BuildId(number(build)?),
                n,
            })
        }
        _ => None,
    };
    Ok(MachineRow {
        machine,
        host_type,
        facts,
        first_seen,
        changed,
        connected,
        why_gone,
        running,
    })
}
