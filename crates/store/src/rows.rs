//! Columns to values and back. Whatever does not fit its type is [`StoreError::Damaged`].

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use ids::{BuildId, BuilderName, GitHash, MachineId, RepoName, Timestamp};
use runner::{InfraCause, Outcome};
use sqlx::any::AnyRow;
use sqlx::{Any, Decode, Row, Type};

use crate::StoreError;
use crate::read::{BuildRow, BuildState, CommitRow, Role};

/// Read by [`build`], in this order; the table is called `b`.
macro_rules! build_columns {
    () => {
        "b.id, b.repo, b.commit_hash, b.builder, b.requested, b.state, b.since, b.not_before, b.why, \
         b.machine, b.attempts, b.passed, b.failed, b.took, b.outcome_step, b.outcome_cause, b.outcome_detail"
    };
}

/// Read by [`commit`], in this order; the table is called `c`.
macro_rules! commit_columns {
    () => {
        "c.repo, c.hash, c.parents, c.author_name, c.author_email, c.author_time, c.commit_time, c.title, c.message"
    };
}

pub(crate) use {build_columns, commit_columns};

/// Takes a row's columns one after the other.
pub(crate) struct Columns<'a> {
    row: &'a AnyRow,
    next: usize,
}

impl<'a> Columns<'a> {
    pub(crate) fn of(row: &'a AnyRow) -> Columns<'a> {
        Columns { row, next: 0 }
    }

    fn take<T: Decode<'a, Any> + Type<Any>>(&mut self) -> Result<T, StoreError> {
        self.next += 1;
        Ok(self.row.try_get(self.next - 1)?)
    }

    pub(crate) fn int(&mut self) -> Result<i64, StoreError> {
        self.take()
    }

    pub(crate) fn int_or_null(&mut self) -> Result<Option<i64>, StoreError> {
        self.take()
    }

    pub(crate) fn text(&mut self) -> Result<String, StoreError> {
        self.take()
    }

    pub(crate) fn text_or_null(&mut self) -> Result<Option<String>, StoreError> {
        self.take()
    }

    /// A count, depth or position.
    pub(crate) fn count<T: TryFrom<i64>>(&mut self) -> Result<T, StoreError> {
        let found = self.int()?;
        T::try_from(found).map_err(|_| damaged(format!("{found} where a count should be")))
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp(self.int()?))
    }

    pub(crate) fn time_or_null(&mut self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.int_or_null()?.map(Timestamp))
    }

    pub(crate) fn micros(&mut self) -> Result<Duration, StoreError> {
        Ok(Duration::from_micros(self.count()?))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, StoreError> {
        match self.int()? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(damaged(format!("{found} where 0 or 1 should be"))),
        }
    }

    pub(crate) fn build_id(&mut self) -> Result<BuildId, StoreError> {
        Ok(BuildId(self.count()?))
    }

    /// Any of the names and hashes.
    pub(crate) fn name<T: FromStr<Err: Display>>(&mut self) -> Result<T, StoreError> {
        parsed(self.take()?)
    }

    pub(crate) fn name_or_null<T: FromStr<Err: Display>>(&mut self) -> Result<Option<T>, StoreError> {
        self.take::<Option<&str>>()?.map(parsed).transpose()
    }
}

pub(crate) fn build(columns: &mut Columns<'_>) -> Result<BuildRow, StoreError> {
    let id = columns.build_id()?;
    let (repo, commit, builder) = (columns.name()?, columns.name()?, columns.name()?);
    let requested = columns.time()?;
    let word = columns.text()?;
    built(Built {
        id,
        repo,
        commit,
        builder,
        requested,
        word: &word,
        since: columns.time()?,
        not_before: columns.time_or_null()?,
        why: columns.text()?,
        machine: columns.name_or_null()?,
        attempts: columns.count()?,
        passed: columns.int()?,
        failed: columns.int()?,
        took: columns.micros()?,
        outcome: (columns.int_or_null()?, columns.text_or_null()?, columns.text()?),
    })
}

/// The columns of a build, not yet held against each other.
pub(crate) struct Built<'a> {
    pub id: BuildId,
    pub repo: RepoName,
    pub commit: GitHash,
    pub builder: BuilderName,
    pub requested: Timestamp,
    /// The state.
    pub word: &'a str,
    pub since: Timestamp,
    pub not_before: Option<Timestamp>,
    pub why: String,
    pub machine: Option<MachineId>,
    pub attempts: u32,
    pub passed: i64,
    pub failed: i64,
    pub took: Duration,
    /// Step, cause, detail.
    pub outcome: (Option<i64>, Option<String>, String),
}

pub(crate) fn built(found: Built<'_>) -> Result<BuildRow, StoreError> {
    let (id, since) = (found.id, found.since);
    let state = match (found.word, found.machine) {
        ("waiting", None) => BuildState::Waiting {
            since,
            not_before: found.not_before,
            why: found.why,
        },
        ("running", Some(machine)) => BuildState::Running { since, machine },
        (word @ ("waiting" | "running"), _) => {
            return Err(damaged(format!(
                "build {id} is {word}, and its machine column says otherwise"
            )));
        }
        (word, _) => BuildState::Done {
            at: since,
            outcome: read_outcome(word, found.outcome)
                .map_err(|why| damaged(format!("build {id}: {why}")))?,
        },
    };
    Ok(BuildRow {
        build: id,
        repo: found.repo,
        commit: found.commit,
        builder: found.builder,
        requested: found.requested,
        state,
        attempts: found.attempts,
        flaky: found.passed > 0 && found.failed > 0,
        took: found.took,
    })
}

/// For an outer join: `None` when there is no build.
pub(crate) fn build_or_null(columns: &mut Columns<'_>) -> Result<Option<BuildRow>, StoreError> {
    let id: Option<i64> = columns.take()?;
    columns.next -= 1;
    id.map(|_| build(columns)).transpose()
}

pub(crate) fn commit(columns: &mut Columns<'_>) -> Result<CommitRow, StoreError> {
    Ok(CommitRow {
        repo: columns.name()?,
        hash: columns.name()?,
        parents: parents(columns.take()?)?,
        author_name: columns.text()?,
        author_email: columns.text()?,
        author_time: columns.time()?,
        commit_time: columns.time()?,
        title: columns.text()?,
        message: columns.text()?,
    })
}

/// `(kind, step, cause, detail)`
pub(crate) fn outcome_columns(
    outcome: &Outcome,
) -> (&'static str, Option<i64>, Option<&'static str>, String) {
    match outcome {
        Outcome::Passed => ("passed", None, None, String::new()),
        Outcome::Failed { step, reason } => ("failed", Some(i64::from(*step)), None, text(reason)),
        Outcome::Infra { cause, detail } => ("infra", None, Some(cause.as_str()), text(detail)),
        Outcome::Cancelled { by } => ("cancelled", None, None, text(by)),
    }
}

pub(crate) fn read_outcome(
    kind: &str,
    rest: (Option<i64>, Option<String>, String),
) -> Result<Outcome, String> {
    let (step, cause, detail) = rest;
    let cause = match cause {
        None => None,
        Some(word) => Some(InfraCause::parse(&word).ok_or(format!("`{word}` is no cause"))?),
    };
    match (kind, step, cause) {
        ("passed", None, None) if detail.is_empty() => Ok(Outcome::Passed),
        ("failed", Some(step), None) => {
            let step = u32::try_from(step).map_err(|_| format!("{step} is no step"))?;
            Ok(Outcome::Failed { step, reason: detail })
        }
        ("infra", None, Some(cause)) => Ok(Outcome::Infra { cause, detail }),
        ("cancelled", None, None) => Ok(Outcome::Cancelled { by: detail }),
        _ => Err(format!("its outcome columns do not fit `{kind}`")),
    }
}

pub(crate) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Contributor => "contributor",
        Role::Admin => "admin",
    }
}

pub(crate) fn role(word: &str) -> Result<Role, StoreError> {
    [Role::Reader, Role::Contributor, Role::Admin]
        .into_iter()
        .find(|role| role_word(*role) == word)
        .ok_or_else(|| damaged(format!("`{word}` is no role")))
}

/// Free text as it can be stored: PostgreSQL takes no zero byte.
pub(crate) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A number of ours as a column: none comes near the limit.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn damaged(what: String) -> StoreError {
    StoreError::Damaged(what)
}

/// `($1, $2), ($3, $4)` for two rows of two columns.
pub(crate) fn placeholders(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let names: Vec<String> = (1..=columns)
            .map(|column| format!("${}", row * columns + column))
            .collect();
        format!("({})", names.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

fn parents(hashes: &str) -> Result<Vec<GitHash>, StoreError> {
    hashes.split_ascii_whitespace().map(parsed).collect()
}

fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|error: T::Err| damaged(error.to_string()))
}
