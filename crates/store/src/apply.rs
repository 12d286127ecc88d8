use std::collections::BTreeMap;

use farm::{MachineFacts, NewBuild, Write};
use ids::{AttemptId, BuildId, HostType, MachineId, StepId, Timestamp};
use runner::{Outcome, Plan};
use sqlx::{Any, AssertSqlSafe, Row, Transaction};

use crate::rows::{int, outcome_columns, placeholders, text};
use crate::{Store, StoreError, loans, plan};

/// Builds created by one statement. A new branch creates as many as it has builders times commits.
const BATCH: usize = 50;

/// How many passed attempts the usual time is taken from.
const RUN_TIMES: i64 = 20;

impl Store {
    /// Makes all the changes durable, or none. [`StoreError::Conflict`]: one of them does not fit
    /// what is stored; the caller's idea of the store is wrong.
    pub async fn apply(&self, writes: &[Write]) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        self.within(async {
            let mut apply = Apply {
                tx: self.begin().await?,
                counts: BTreeMap::new(),
            };
            let mut rest = writes;
            while let Some(first) = rest.first() {
                let created = rest.iter().take(BATCH).map_while(created).collect::<Vec<_>>();
                if created.is_empty() {
                    apply.one(first).await?;
                    rest = &rest[1..];
                } else {
                    apply.builds_created(&created).await?;
                    rest = &rest[created.len()..];
                }
            }
            apply.count().await?;
            self.commit(apply.tx).await
        })
        .await
    }

    /// At the start of a coordinator: no machine is connected until it says so again.
    pub async fn machines_unknown(&self, now: Timestamp, why: &str) -> Result<(), StoreError> {
        self.within(async {
            let mut tx = self.begin().await?;
            sqlx::query("UPDATE machines SET connected = 0, changed = $1, why_gone = $2 WHERE connected = 1")
                .bind(now.0)
                .bind(text(why))
                .execute(&mut *tx)
                .await?;
            self.commit(tx).await
        })
        .await
    }
}

fn created(write: &Write) -> Option<&NewBuild> {
    match write {
        Write::BuildCreated(new) => Some(new),
        _ => None,
    }
}

struct Apply {
    tx: Transaction<'static, Any>,
    /// By how much the number of builds in each state changes.
    counts: BTreeMap<String, i64>,
}

impl Apply {
    async fn one(&mut self, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::BuildCreated(new) => self.builds_created(&[new]).await,
            Write::AttemptStarted {
                attempt,
                machine,
                host_type,
                at,
                plan,
            } => {
                self.attempt_started(*attempt, machine, host_type, *at, plan)
                    .await
            }
            Write::StepStarted { step, at } => self.step_started(*step, *at).await,
            Write::StepEnded { step, at, ok, state } => self.step_ended(*step, *at, *ok, state).await,
            Write::AttemptEnded { attempt, at, outcome } => self.attempt_ended(*attempt, *at, outcome).await,
            Write::BuildWaiting {
                build,
                since,
                not_before,
                tries_left,
                why,
            } => {
                self.build_waiting(*build, *since, *not_before, *tries_left, why)
                    .await
            }
            Write::BuildDone { build, at, outcome } => self.build_done(*build, *at, outcome).await,
            Write::MachineUp {
                machine,
                host_type,
                at,
                facts,
            } => self.machine_up(machine, host_type, *at, facts).await,
            Write::MachineDown { machine, at, why } => self.machine_down(machine, *at, why).await,
            Write::LoanStarted(loan) => loans::started(&mut self.tx, loan).await,
            Write::LoanRenewed { loan, expires } => loans::renewed(&mut self.tx, *loan, *expires).await,
            Write::LoanEnded { loan, at, why } => loans::ended(&mut self.tx, *loan, *at, why).await,
            Write::IntentDone { intent, at, answer } => self.intent_done(*intent, *at, answer).await,
        }
    }

    async fn builds_created(&mut self, new: &[&NewBuild]) -> Result<(), StoreError> {
        let sql = format!(
            "INSERT INTO builds (id, repo, commit_hash, builder, requested, since, tries_left, state, why, \
             attempts, asked_after, passed, failed, took, outcome_detail) VALUES {} ON CONFLICT DO NOTHING",
            placeholders(new.len(), 7).replace(')', ", 'waiting', '', 0, 0, 0, 0, 0, '')"),
        );
        // Only the full batch and the single one come often enough to be worth keeping prepared.
        let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(new.len() == 1 || new.len() == BATCH);
        for build in new {
            query = query
                .bind(int(build.build.0))
                .bind(build.repo.as_str())
                .bind(build.commit.as_str())
                .bind(build.builder.as_str())
                .bind(build.requested.0)
                .bind(build.requested.0)
                .bind(i64::from(build.tries_left));
        }
        let made = query
            .execute(&mut *self.tx)
            .await
            .map_err(|error| match error.as_database_error() {
                Some(db) if db.is_foreign_key_violation() => {
                    let first = new[0];
                    conflict(format!(
                        "build {} or one after it is of a commit that is not recorded",
                        first.build
                    ))
                }
                _ => error.into(),
            })?;
        if made.rows_affected() != new.len() as u64 {
            return Err(self.name_the_double(new).await);
        }
        self.moved(None, "waiting", new.len());
        Ok(())
    }

    async fn name_the_double(&mut self, new: &[&NewBuild]) -> StoreError {
        for build in new {
            let found = sqlx::query(
                "SELECT id FROM builds WHERE (id = $1 OR (repo = $2 AND commit_hash = $3 AND builder = $4)) \
                 AND NOT (id = $1 AND repo = $2 AND commit_hash = $3 AND builder = $4 AND requested = $5)",
            )
            .bind(int(build.build.0))
            .bind(build.repo.as_str())
            .bind(build.commit.as_str())
            .bind(build.builder.as_str())
            .bind(build.requested.0)
            .fetch_optional(&mut *self.tx)
            .await;
            match found {
                Ok(Some(row)) => {
                    let there: i64 = row.try_get(0).unwrap_or_default();
                    return conflict(format!(
                        "build {} of `{}` {} on `{}` cannot be created: build {there} is there",
                        build.build,
                        build.repo,
                        build.commit.short(),
                        build.builder,
                    ));
                }
                Ok(None) => {}
                Err(error) => return error.into(),
            }
        }
        conflict(format!("build {} or one after it is created twice", new[0].build))
    }

    async fn attempt_started(
        &mut self,
        attempt: AttemptId,
        machine: &MachineId,
        host_type: &HostType,
        at: Timestamp,
        plan: &Plan,
    ) -> Result<(), StoreError> {
        let started = sqlx::query(
            "UPDATE builds SET state = 'running', since = $1, machine = $2, attempts = $3, not_before = NULL, \
             why = '' WHERE id = $4 AND state = 'waiting' AND attempts = $3 - 1",
        )
        .bind(at.0)
        .bind(machine.as_str())
        .bind(i64::from(attempt.n))
        .bind(int(attempt.build.0))
        .execute(&mut *self.tx)
        .await?;
        expect_one(started.rows_affected(), || {
            format!(
                "attempt {attempt} cannot start: its build does not wait for its attempt {}",
                attempt.n
            )
        })?;
        self.moved(Some("waiting"), "running", 1);
        sqlx::query(
            "INSERT INTO attempts (build, n, machine, host_type, started, plan, outcome_detail) \
             VALUES ($1, $2, $3, $4, $5, $6, '')",
        )
        .bind(int(attempt.build.0))
        .bind(i64::from(attempt.n))
        .bind(machine.as_str())
        .bind(host_type.as_str())
        .bind(at.0)
        .bind(plan::to_json(plan)?)
        .execute(&mut *self.tx)
        .await?;
        let leased = sqlx::query(
            "INSERT INTO leases (machine, build, n, taken) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(machine.as_str())
        .bind(int(attempt.build.0))
        .bind(i64::from(attempt.n))
        .bind(at.0)
        .execute(&mut *self.tx)
        .await?;
        expect_one(leased.rows_affected(), || {
            format!("attempt {attempt} cannot have machine `{machine}`: another attempt holds it")
        })
    }

    async fn step_started(&mut self, step: StepId, at: Timestamp) -> Result<(), StoreError> {
        let (build, n, index) = step_key(step);
        let started = sqlx::query(
            "INSERT INTO steps (build, n, idx, started, state) \
             SELECT a.build, a.n, $3, $4, '' FROM attempts a \
             WHERE a.build = $1 AND a.n = $2 AND a.ended IS NULL \
             AND (SELECT COUNT(*) FROM steps s WHERE s.build = a.build AND s.n = a.n) = $3 \
             AND NOT EXISTS (SELECT 1 FROM steps s WHERE s.build = a.build AND s.n = a.n AND s.ended IS NULL)",
        )
        .bind(build)
        .bind(n)
        .bind(index)
        .bind(at.0)
        .execute(&mut *self.tx)
        .await?;
        expect_one(started.rows_affected(), || {
            format!("step {step} cannot start: its attempt has ended, or it is not the next one")
        })
    }

    async fn step_ended(
        &mut self,
        step: StepId,
        at: Timestamp,
        ok: bool,
        state: &str,
    ) -> Result<(), StoreError> {
        let (build, n, index) = step_key(step);
        let ended = sqlx::query(
            "UPDATE steps SET ended = $4, ok = $5, state = $6 \
             WHERE build = $1 AND n = $2 AND idx = $3 AND ended IS NULL AND log_idle IS NULL",
        )
        .bind(build)
        .bind(n)
        .bind(index)
        .bind(at.0)
        .bind(i64::from(ok))
        .bind(text(state))
        .execute(&mut *self.tx)
        .await?;
        expect_one(ended.rows_affected(), || {
            format!("step {step} cannot end: it is not running")
        })
    }

    async fn attempt_ended(
        &mut self,
        attempt: AttemptId,
        at: Timestamp,
        outcome: &Outcome,
    ) -> Result<(), StoreError> {
        let (build, n) = (int(attempt.build.0), i64::from(attempt.n));
        let (kind, step, cause, detail) = outcome_columns(outcome);
        let ended = sqlx::query(
            "UPDATE attempts SET ended = $3, outcome = $4, outcome_step = $5, outcome_cause = $6, \
             outcome_detail = $7 WHERE build = $1 AND n = $2 AND ended IS NULL",
        )
        .bind(build)
        .bind(n)
        .bind(at.0)
        .bind(kind)
        .bind(step)
        .bind(cause)
        .bind(detail)
        .execute(&mut *self.tx)
        .await?;
        expect_one(ended.rows_affected(), || {
            format!("attempt {attempt} cannot end: it is not running")
        })?;
        let freed = sqlx::query("DELETE FROM leases WHERE build = $1 AND n = $2")
            .bind(build)
            .bind(n)
            .execute(&mut *self.tx)
            .await?;
        expect_one(freed.rows_affected(), || {
            format!("attempt {attempt} cannot end: it holds no machine")
        })?;
        sqlx::query("UPDATE steps SET log_idle = $3 WHERE build = $1 AND n = $2")
            .bind(build)
            .bind(n)
            .bind(at.0)
            .execute(&mut *self.tx)
            .await?;
        // In line again, until what follows in the same transaction says more.
        let (passed, failed) = (i64::from(kind == "passed"), i64::from(kind == "failed"));
        let waits = sqlx::query(
            "UPDATE builds SET state = 'waiting', took = CASE WHEN $2 > since THEN $2 - since ELSE 0 END, \
             since = requested, machine = NULL, passed = passed + $3, failed = failed + $4 \
             WHERE id = $1 AND state = 'running'",
        )
        .bind(build)
        .bind(at.0)
        .bind(passed)
        .bind(failed)
        .execute(&mut *self.tx)
        .await?;
        expect_one(waits.rows_affected(), || {
            format!("attempt {attempt} cannot end: its build is not running")
        })?;
        self.moved(Some("running"), "waiting", 1);
        if *outcome == Outcome::Passed {
            self.run_time(build).await?;
        }
        Ok(())
    }

    /// Keeps the last few times of a builder on a repository.
    async fn run_time(&mut self, build: i64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO run_times (repo, builder, seq, took) \
             SELECT b.repo, b.builder, 1 + COALESCE((SELECT MAX(r.seq) FROM run_times r \
             WHERE r.repo = b.repo AND r.builder = b.builder), 0), b.took FROM builds b WHERE b.id = $1",
        )
        .bind(build)
        .execute(&mut *self.tx)
        .await?;
        sqlx::query(
            "DELETE FROM run_times WHERE repo = (SELECT repo FROM builds WHERE id = $1) \
             AND builder = (SELECT builder FROM builds WHERE id = $1) \
             AND seq <= (SELECT MAX(r.seq) - $2 FROM run_times r JOIN builds b \
             ON r.repo = b.repo AND r.builder = b.builder WHERE b.id = $1)",
        )
        .bind(build)
        .bind(RUN_TIMES)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    async fn build_waiting(
        &mut self,
        build: BuildId,
        since: Timestamp,
        not_before: Option<Timestamp>,
        tries_left: u32,
        why: &str,
    ) -> Result<(), StoreError> {
        let was = sqlx::query("SELECT state FROM builds WHERE id = $1 AND state <> 'running'")
            .bind(int(build.0))
            .fetch_optional(&mut *self.tx)
            .await?;
        let Some(was) = was else {
            return Err(conflict(format!(
                "build {build} cannot wait: it is running, or not there"
            )));
        };
        let was: String = was.try_get(0)?;
        // Whoever asks for a finished build again asks all machines again.
        sqlx::query(
            "UPDATE builds SET state = 'waiting', since = $2, requested = $2, not_before = $3, tries_left = $4, \
             why = $5, asked_after = CASE WHEN state = 'waiting' THEN asked_after ELSE attempts END, \
             machine = NULL, outcome_step = NULL, outcome_cause = NULL, outcome_detail = '' WHERE id = $1",
        )
        .bind(int(build.0))
        .bind(since.0)
        .bind(not_before.map(|at| at.0))
        .bind(i64::from(tries_left))
        .bind(text(why))
        .execute(&mut *self.tx)
        .await?;
        self.moved(Some(&was), "waiting", 1);
        Ok(())
    }

    async fn build_done(
        &mut self,
        build: BuildId,
        at: Timestamp,
        outcome: &Outcome,
    ) -> Result<(), StoreError> {
        let (kind, step, cause, detail) = outcome_columns(outcome);
        let done = sqlx::query(
            "UPDATE builds SET state = $2, since = $3, outcome_step = $4, outcome_cause = $5, \
             outcome_detail = $6, not_before = NULL, why = '' WHERE id = $1 AND state = 'waiting'",
        )
        .bind(int(build.0))
        .bind(kind)
        .bind(at.0)
        .bind(step)
        .bind(cause)
        .bind(detail)
        .execute(&mut *self.tx)
        .await?;
        expect_one(done.rows_affected(), || {
            format!("build {build} cannot be done: an attempt runs, or it is done or not there")
        })?;
        self.moved(Some("waiting"), kind, 1);
        Ok(())
    }

    async fn machine_up(
        &mut self,
        machine: &MachineId,
        host_type: &HostType,
        at: Timestamp,
        facts: &MachineFacts,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO machines (machine, host_type, pool, version, software, address, resumable, first_seen, \
             changed, connected, why_gone) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, 1, '') \
             ON CONFLICT (machine) DO UPDATE SET host_type = excluded.host_type, pool = excluded.pool, \
             version = excluded.version, software = excluded.software, address = excluded.address, \
             resumable = excluded.resumable, changed = excluded.changed, connected = 1, why_gone = ''",
        )
        .bind(machine.as_str())
        .bind(host_type.as_str())
        .bind(text(&facts.pool))
        .bind(i64::from(facts.version))
        .bind(text(&facts.software))
        .bind(text(&facts.address))
        .bind(i64::from(facts.resumable))
        .bind(at.0)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    async fn machine_down(
        &mut self,
        machine: &MachineId,
        at: Timestamp,
        why: &str,
    ) -> Result<(), StoreError> {
        let down =
            sqlx::query("UPDATE machines SET connected = 0, changed = $2, why_gone = $3 WHERE machine = $1")
                .bind(machine.as_str())
                .bind(at.0)
                .bind(text(why))
                .execute(&mut *self.tx)
                .await?;
        expect_one(down.rows_affected(), || {
            format!("machine `{machine}` cannot go: it never came")
        })
    }

    async fn intent_done(&mut self, intent: i64, at: Timestamp, answer: &str) -> Result<(), StoreError> {
        let done = sqlx::query("UPDATE intents SET done = $2, answer = $3 WHERE id = $1 AND done IS NULL")
            .bind(intent)
            .bind(at.0)
            .bind(text(answer))
            .execute(&mut *self.tx)
            .await?;
        expect_one(done.rows_affected(), || {
            format!("wish {intent} cannot be done: it is done or not there")
        })
    }

    fn moved(&mut self, from: Option<&str>, to: &str, builds: usize) {
        let builds = int(builds as u64);
        if let Some(from) = from {
            *self.counts.entry(from.to_owned()).or_default() -= builds;
        }
        *self.counts.entry(to.to_owned()).or_default() += builds;
    }

    /// In the order of the words, so that two transactions cannot wait for each other here.
    async fn count(&mut self) -> Result<(), StoreError> {
        for (state, by) in std::mem::take(&mut self.counts) {
            if by != 0 {
                sqlx::query("UPDATE build_counts SET n = n + $1 WHERE state = $2")
                    .bind(by)
                    .bind(state)
                    .execute(&mut *self.tx)
                    .await?;
            }
        }
        Ok(())
    }
}

fn step_key(step: StepId) -> (i64, i64, i64) {
    (
        int(step.attempt.build.0),
        i64::from(step.attempt.n),
        i64::from(step.index),
    )
}

pub(crate) fn expect_one(rows: u64, otherwise: impl FnOnce() -> String) -> Result<(), StoreError> {
    if rows == 1 {
        Ok(())
    } else {
        Err(conflict(otherwise()))
    }
}

pub(crate) fn conflict(what: String) -> StoreError {
    StoreError::Conflict(what)
}
