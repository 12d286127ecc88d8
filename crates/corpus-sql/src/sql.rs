//! The tables to SQLite, which asks them row by row. They are read-only, and the database is nothing but
//! them: no file can be reached from it.

use std::ffi::c_int;
use std::io;
use std::sync::Arc;

use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::vtab::{
    Context, Filters, IndexConstraintOp, IndexInfo, VTab, VTabConfig, VTabConnection, VTabCursor,
    eponymous_only_module,
};
use rusqlite::{Connection, ToSql, ffi};

use crate::cell::Cell;
use crate::item::{Item, Items, Only, Source};
use crate::tables::{Kind, TABLES, Table};

/// Rows of a whole table, for SQLite's plans.
const MANY: f64 = 1e6;
/// The longest statement, in bytes.
const LONGEST: i32 = 1 << 20;

/// Asks a corpus, as it was when this was opened.
pub struct Sql {
    db: Connection,
}

/// A query that was not answered.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// Wrong SQL, or a text of the log that cannot be read.
    #[error("{0}")]
    Query(String),
    #[error("the statement changes something; the corpus can only be read")]
    NotReadOnly,
    #[error("{found} values are given for the `?`s of the query, which has {wanted}")]
    Parameters { found: usize, wanted: usize },
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> SqlError {
        SqlError::Query(match error {
            rusqlite::Error::SqlInputError { msg, .. } => msg,
            rusqlite::Error::SqliteFailure(_, Some(message)) => message,
            other => other.to_string(),
        })
    }
}

impl Sql {
    pub fn open(source: Source) -> Result<Sql, SqlError> {
        let db = Connection::open_in_memory()?;
        // Nothing of it ever goes to a file, and no file is opened by `ATTACH`.
        db.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        db.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, LONGEST)?;
        db.execute_batch("PRAGMA temp_store = MEMORY")?;
        for table in TABLES {
            let shared = Shared {
                source: source.clone(),
                table,
            };
            db.create_module(table.name, eponymous_only_module::<Mapped>(), Some(shared))?;
        }
        Ok(Sql { db })
    }

    /// The names of the columns that a query gives, without asking it.
    pub fn columns(&self, query: &str) -> Result<Vec<String>, SqlError> {
        let statement = self.db.prepare(query)?;
        Ok(statement.column_names().into_iter().map(str::to_owned).collect())
    }

    /// Gives each row to `row`, until that says `false`. Returns the names of the columns. `values` are
    /// for the `?`s of the query.
    pub fn query(
        &self,
        query: &str,
        values: &[&str],
        mut row: impl FnMut(Vec<Cell>) -> bool,
    ) -> Result<Vec<String>, SqlError> {
        let mut statement = self.db.prepare(query)?;
        if !statement.readonly() {
            return Err(SqlError::NotReadOnly);
        }
        let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
        let (found, wanted) = (values.len(), statement.parameter_count());
        if found != wanted {
            return Err(SqlError::Parameters { found, wanted });
        }
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        while let Some(found) = rows.next()? {
            let cells = (0..columns.len()).map(|at| Ok(cell(found.get_ref(at)?)));
            if !row(cells.collect::<Result<_, rusqlite::Error>>()?) {
                break;
            }
        }
        Ok(columns)
    }

    /// All rows at once.
    pub fn all(&self, query: &str, values: &[&str]) -> Result<Vec<Vec<Cell>>, SqlError> {
        let mut rows = Vec::new();
        self.query(query, values, |row| {
            rows.push(row);
            true
        })?;
        Ok(rows)
    }
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(n) => Cell::Int(n),
        ValueRef::Real(x) => Cell::Real(x),
        ValueRef::Text(text) | ValueRef::Blob(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Cell::Null => ToSqlOutput::Owned(Value::Null),
            Cell::Int(n) => ToSqlOutput::Owned(Value::Integer(*n)),
            Cell::Real(x) => ToSqlOutput::Owned(Value::Real(*x)),
            Cell::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}

/// What every connection to a table gets.
#[derive(Clone)]
struct Shared {
    source: Source,
    table: &'static Table,
}

#[repr(C)]
struct Mapped {
    /// SQLite's own, first of all.
    base: ffi::sqlite3_vtab,
    shared: Arc<Shared>,
}

/// What a plan hands to the cursor: which of the values, in this order, it has.
const PLACE: c_int = 1;
const NUMBER: c_int = 2;
const COMMIT: c_int = 4;

// SAFETY: the struct is `repr(C)` and begins with SQLite's part, as the trait wants.
#[allow(unsafe_code)]
unsafe impl<'vtab> VTab<'vtab> for Mapped {
    type Aux = Shared;
    type Cursor = Cursor<'vtab>;

    fn connect(
        db: &mut VTabConnection,
        aux: Option<&Shared>,
        _: &[&[u8]],
    ) -> rusqlite::Result<(String, Mapped)> {
        let shared = aux.ok_or_else(|| failure("a table without a corpus"))?;
        db.config(VTabConfig::Innocuous)?;
        let columns: Vec<String> = shared
            .table
            .columns
            .iter()
            .map(|column| {
                let kind = match column.kind {
                    Kind::Text | Kind::Time | Kind::Json => "TEXT",
                    Kind::Int | Kind::Bool => "INTEGER",
                };
                format!("\"{}\" {kind}", column.name)
            })
            .collect();
        let mapped = Mapped {
            base: ffi::sqlite3_vtab::default(),
            shared: Arc::new(shared.clone()),
        };
        Ok((format!("CREATE TABLE x({})", columns.join(", ")), mapped))
    }

    fn best_index(&self, info: &mut IndexInfo) -> rusqlite::Result<()> {
        let keys = [
            self.shared.table.place,
            self.shared.table.number,
            self.shared.table.commit,
        ];
        let mut found = [None; 3];
        for (at, constraint) in info.constraints().enumerate() {
            let is_usable = constraint.is_usable()
                && constraint.operator() == IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_EQ
                && info.collation(at)? == "BINARY";
            let column = usize::try_from(constraint.column()).ok();
            let key = column.and_then(|column| keys.iter().position(|key| *key == Some(column)));
            if let (true, Some(key)) = (is_usable, key) {
                found[key] = Some(at);
            }
        }
        let mut plan = 0;
        for (flag, constraint) in [PLACE, NUMBER, COMMIT].into_iter().zip(found) {
            if let Some(constraint) = constraint {
                plan |= flag;
                info.constraint_usage(constraint).set_argv_index(plan_size(plan));
            }
        }
        let rows = match plan {
            plan if plan & COMMIT > 0 => 2.0,
            plan if plan & NUMBER > 0 => 10.0,
            plan if plan & PLACE > 0 => MANY / 4.0,
            _ => MANY,
        };
        // Looking one up costs about as much as walking over a few.
        info.set_estimated_cost(rows + 5.0);
        info.set_estimated_rows(rows as i64);
        info.set_idx_num(plan);
        Ok(())
    }

    fn open(&'vtab mut self) -> rusqlite::Result<Cursor<'vtab>> {
        Ok(Cursor {
            base: ffi::sqlite3_vtab_cursor::default(),
            shared: &self.shared,
            items: Box::new(std::iter::empty()),
            item: None,
            row: 0,
        })
    }
}

fn plan_size(plan: c_int) -> c_int {
    c_int::try_from(plan.count_ones()).expect("three bits")
}

#[repr(C)]
struct Cursor<'vtab> {
    /// SQLite's own, first of all.
    base: ffi::sqlite3_vtab_cursor,
    shared: &'vtab Shared,
    items: Items<'vtab>,
    item: Option<Item<'vtab>>,
    row: i64,
}

impl Cursor<'_> {
    fn advance(&mut self) -> rusqlite::Result<()> {
        self.item = self.items.next().transpose().map_err(unread)?;
        self.row += 1;
        Ok(())
    }
}

fn unread(error: io::Error) -> rusqlite::Error {
    failure(format!("cannot read a text of the log: {error}"))
}

fn failure(why: impl Into<String>) -> rusqlite::Error {
    rusqlite::Error::ModuleError(why.into())
}

// SAFETY: the struct is `repr(C)` and begins with SQLite's part, as the trait wants.
#[allow(unsafe_code)]
unsafe impl VTabCursor for Cursor<'_> {
    fn filter(&mut self, plan: c_int, _: Option<&str>, args: &Filters<'_>) -> rusqlite::Result<()> {
        let mut values = args.iter();
        let mut only = Only::default();
        let mut nothing = false;
        for key in [PLACE, NUMBER, COMMIT] {
            if plan & key == 0 {
                continue;
            }
            // What can be no key is nothing's key; SQLite compares the rows once more itself.
            match (key, values.next()) {
                (PLACE, Some(ValueRef::Text(text))) => {
                    only.place = str::from_utf8(text).ok().map(str::to_owned)
                }
                (NUMBER, Some(ValueRef::Integer(n))) => match i32::try_from(n) {
                    Ok(n) => only.number = Some(n),
                    Err(_) => nothing = true,
                },
                (COMMIT, Some(ValueRef::Text(hex))) => match corpus::Hash::parse(hex) {
                    Some(hash) => only.commit = Some(hash),
                    None => nothing = true,
                },
                _ => nothing = true,
            }
        }
        self.items = match nothing {
            true => Box::new(std::iter::empty()),
            false => (self.shared.table.items)(&self.shared.source, &only),
        };
        self.row = 0;
        self.advance()
    }

    fn next(&mut self) -> rusqlite::Result<()> {
        self.advance()
    }

    fn eof(&self) -> bool {
        self.item.is_none()
    }

    fn column(&self, context: &mut Context, at: c_int) -> rusqlite::Result<()> {
        let column = usize::try_from(at)
            .ok()
            .and_then(|at| self.shared.table.columns.get(at));
        let (Some(item), Some(column)) = (&self.item, column) else {
            return context.set_result(&Cell::Null);
        };
        let cell = (column.cell)(&self.shared.source, item).map_err(unread)?;
        context.set_result(&cell)
    }

    fn rowid(&self) -> rusqlite::Result<i64> {
        Ok(self.row)
    }
}
