//! All of a store as lines of text, and a store from them: how farms are backed up and moved between engines.
//!
//! One JSON value a line: `{"table":…,"columns":[[NAME, "int" or "text"],…]}`, then an array for each row, table after
//! table in an order in which each row finds what it refers to. The lines of one engine load into the other.

use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Executor, Row, Transaction};

use crate::open::{SCHEMA, open_at};
use crate::{Engine, OpenError, Store, StoreError, StoreUrl};

/// In the order of what refers to what.
const TABLES: [&str; 17] = [
    "repos",
    "commits",
    "branches",
    "branch_commits",
    "builds",
    "build_counts",
    "attempts",
    "steps",
    "loans",
    "leases",
    "machines",
    "run_times",
    "intents",
    "tokens",
    "machine_keys",
    "identities",
    "enrolments",
];

/// Those that number their rows themselves.
const NUMBERED: [&str; 5] = ["intents", "tokens", "machine_keys", "identities", "enrolments"];

#[derive(Deserialize)]
struct Head {
    table: String,
    columns: Vec<(String, Kind)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Int,
    Text,
}

/// Why a store could not be filled. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the store is not empty; name one that is")]
    NotEmpty,
    #[error("line {line} is no row of a farm store: {why}")]
    Line { line: usize, why: String },
    #[error("the lines could not be read")]
    Read(#[source] std::io::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for LoadError {
    fn from(error: sqlx::Error) -> LoadError {
        LoadError::Store(error.into())
    }
}

/// Why a store could not be written out.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error("the lines could not be written")]
    Write(#[source] std::io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for DumpError {
    fn from(error: sqlx::Error) -> DumpError {
        DumpError::Store(error.into())
    }
}

impl Store {
    /// The number of the newest schema that this program knows: that of every open store.
    pub const SCHEMA: i64 = SCHEMA;

    /// Hands every row to `write`, a line each with its newline, all as of one moment. Others go on writing.
    pub async fn dump(&self, mut write: impl FnMut(&[u8]) -> std::io::Result<()>) -> Result<(), DumpError> {
        let mut tx = self.snapshot().await?;
        if self.engine == Engine::Postgres {
            tx.execute("SET LOCAL statement_timeout = 0").await?;
        }
        let mut put = |value: Value| write(format!("{value}\n").as_bytes()).map_err(DumpError::Write);
        for table in TABLES {
            let columns = columns(&mut tx, self.engine, table).await?;
            let kinds: Vec<Kind> = columns.iter().map(|(_, kind)| *kind).collect();
            let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
            let sql = format!("SELECT {} FROM {table}", names.join(", "));
            put(serde_json::json!({ "table": table, "columns": &columns }))?;
            let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut *tx);
            while let Some(row) = rows.try_next().await? {
                put(values(&row, &kinds)?.into())?;
            }
        }
        Ok(())
    }
}

/// Fills an empty store with what [`Store::dump`] wrote at schema number `schema`, and brings it up to date. All or
/// nothing.
pub async fn load(
    url: &StoreUrl,
    schema: i64,
    lines: impl Iterator<Item = std::io::Result<String>>,
) -> Result<(), LoadError> {
    let store = open_at(url, schema).await?;
    let loaded = fill(&store, lines).await;
    store.close().await;
    loaded?;
    Store::open(url).await?.close().await;
    Ok(())
}

async fn fill(store: &Store, lines: impl Iterator<Item = std::io::Result<String>>) -> Result<(), LoadError> {
    let mut tx = store.begin().await?;
    for table in ["repos", "machines", "tokens", "machine_keys"] {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *tx).await?;
        if rows > 0 {
            return Err(LoadError::NotEmpty);
        }
    }
    // A new store counts none of each state.
    tx.execute("DELETE FROM build_counts").await?;
    let mut head: Option<(String, Vec<Kind>)> = None;
    for (n, line) in lines.enumerate() {
        let text = line.map_err(LoadError::Read)?;
        let bad = |why: &str| LoadError::Line {
            line: n + 1,
            why: why.to_owned(),
        };
        match (serde_json::from_str(&text), &head) {
            (Ok(Value::Object(_)), _) => {
                let next: Head = serde_json::from_str(&text).map_err(|why| bad(&why.to_string()))?;
                head = Some(
                    insert(&mut tx, store.engine, &next)
                        .await?
                        .ok_or_else(|| bad("no such table or column"))?,
                );
            }
            (Ok(Value::Array(row)), Some((sql, kinds))) if row.len() == kinds.len() => {
                let mut query = sqlx::query(AssertSqlSafe(sql.clone()));
                for (value, kind) in row.into_iter().zip(kinds) {
                    query = match (kind, value) {
                        (Kind::Int, Value::Null) => query.bind(None::<i64>),
                        (Kind::Text, Value::Null) => query.bind(None::<String>),
                        (Kind::Int, Value::Number(n)) => {
                            query.bind(n.as_i64().ok_or_else(|| bad("a number out of range"))?)
                        }
                        (Kind::Text, Value::String(text)) => query.bind(text),
                        _ => return Err(bad("a value of another kind than its column")),
                    };
                }
                query.execute(&mut *tx).await?;
            }
            (Ok(_), _) => {
                return Err(bad(
                    "wanted an array with a value for each column, behind the head of its table",
                ));
            }
            (Err(why), _) => return Err(bad(&why.to_string())),
        }
    }
    if head.is_none() {
        return Err(LoadError::Line {
            line: 1,
            why: "there is none".to_owned(),
        });
    }
    if store.engine == Engine::Postgres {
        for table in NUMBERED {
            let sql = format!(
                "SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT COALESCE(MAX(id), 0) + 1 FROM {table}), false)"
            );
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await?;
        }
    }
    Ok(store.commit(tx).await?)
}

/// The statement that puts in a row, if this store has that table and those columns.
async fn insert(
    tx: &mut Transaction<'static, Any>,
    engine: Engine,
    head: &Head,
) -> Result<Option<(String, Vec<Kind>)>, LoadError> {
    let Some(table) = TABLES.into_iter().find(|table| **table == head.table) else {
        return Ok(None);
    };
    let there = columns(tx, engine, table).await?;
    if !head.columns.iter().all(|column| there.contains(column)) {
        return Ok(None);
    }
    let names: Vec<&str> = head.columns.iter().map(|(name, _)| name.as_str()).collect();
    let places: Vec<String> = (1..=names.len()).map(|n| format!("${n}")).collect();
    let sql = format!(
        "INSERT INTO {table} ({}) VALUES ({})",
        names.join(", "),
        places.join(", ")
    );
    Ok(Some((sql, head.columns.iter().map(|(_, kind)| *kind).collect())))
}

async fn columns(
    tx: &mut Transaction<'static, Any>,
    engine: Engine,
    table: &str,
) -> Result<Vec<(String, Kind)>, sqlx::Error> {
    let sql = match engine {
        Engine::Sqlite => "SELECT name, lower(type) FROM pragma_table_info($1)",
        Engine::Postgres => {
            "SELECT column_name::text, data_type::text FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = $1"
        }
    };
    let rows = sqlx::query(sql)
        .bind(table.to_owned())
        .fetch_all(&mut **tx)
        .await?;
    let column = |row: &AnyRow| {
        let (name, kind): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let kind = if kind == "text" { Kind::Text } else { Kind::Int };
        Ok((name, kind))
    };
    let mut columns = rows.iter().map(column).collect::<Result<Vec<_>, sqlx::Error>>()?;
    // Engines have them in orders of their own, by how each table came to be.
    columns.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(columns)
}

fn values(row: &AnyRow, kinds: &[Kind]) -> Result<Vec<Value>, sqlx::Error> {
    let value = |(n, kind): (usize, &Kind)| {
        Ok(match kind {
            Kind::Int => row.try_get::<Option<i64>, _>(n)?.map_or(Value::Null, Value::from),
            Kind::Text => row
                .try_get::<Option<String>, _>(n)?
                .map_or(Value::Null, Value::from),
        })
    };
    kinds.iter().enumerate().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::TABLES;

    #[test]
    fn every_table_is_in_a_backup() {
        let migrations = [
            include_str!("../migrations/sqlite/0001_farm.sql"),
            include_str!("../migrations/sqlite/0002_loans.sql"),
            include_str!("../migrations/sqlite/0003_identities.sql"),
        ];
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite");
        let files = std::fs::read_dir(folder).expect("the migrations").count();
        assert_eq!(files, migrations.len(), "each migration is looked at here");
        let made = migrations.iter().flat_map(|sql| sql.lines());
        let made = made.filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split_whitespace().next());
        // One that replaces another bears its name in the end.
        for table in made.map(|table| table.trim_start_matches("new_")) {
            assert!(TABLES.contains(&table), "`{table}` is in no backup");
        }
    }
}
