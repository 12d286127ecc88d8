//! The corpus as tables: SQL over it, simple questions, export.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use corpus_sql::{Format, Only, Rows, Source, Sql, Table};
use maintnerd::{Started, log_in, place_at, start, until};
use mutlog::{Folder, LogReader, Place, SegmentNumber};
use serde_json::Value;

use crate::args::Global;
use crate::failure::{Exit, Failure};

/// Behind the snapshot, what is worth a new one: as for all other commands.
const WORTH: u64 = 16 << 20;

/// When or where to look back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    Time(corpus::Timestamp),
    Place(Place),
}

impl std::str::FromStr for AsOf {
    type Err = String;

    fn from_str(text: &str) -> Result<AsOf, String> {
        let place = text.split_once(':').and_then(|(segment, offset)| {
            Some(Place {
                segment: SegmentNumber(segment.parse().ok()?),
                offset: offset.parse().ok()?,
            })
        });
        if let Some(place) = place {
            return Ok(AsOf::Place(place));
        }
        let day = || {
            text.parse::<jiff::civil::Date>()
                .ok()?
                .to_zoned(jiff::tz::TimeZone::UTC)
                .ok()
        };
        let time = text
            .parse::<jiff::Timestamp>()
            .ok()
            .or_else(|| Some(day()?.timestamp()));
        time.map(|time| AsOf::Time(corpus::Timestamp(time.as_microsecond())))
            .ok_or_else(|| {
                format!("`{text}` is no time or place; wanted `2026-01-31`, `2026-01-31T12:00:00Z`, or SEGMENT:OFFSET")
            })
    }
}

/// The corpus, all of it or as it was.
pub fn started(folder: &Folder, as_of: Option<AsOf>) -> anyhow::Result<Started> {
    let mut log = log_in(folder)?;
    if let Some(as_of) = as_of {
        let reader = LogReader::new(folder.clone());
        let end = match as_of {
            AsOf::Time(time) => place_at(&reader, &log, time)?,
            AsOf::Place(place) => place,
        };
        log = until(&reader, &log, end)?;
    }
    // A part of the log leaves no snapshot: it would be of no use to others.
    start(folder, log, if as_of.is_some() { u64::MAX } else { WORTH })
}

/// As [`started`], for asking.
pub fn source(folder: &Folder, as_of: Option<AsOf>) -> anyhow::Result<Source> {
    let started = started(folder, as_of)?;
    Ok(Source {
        corpus: Arc::new(started.replay.corpus().clone()),
        texts: started.reader,
    })
}

pub fn sql(global: &Global, source: Source, query: &str, format: Option<Format>) -> Result<Exit, Failure> {
    answer(global, source, query, &[], format)
}

fn answer(
    global: &Global,
    source: Source,
    query: &str,
    values: &[&str],
    format: Option<Format>,
) -> Result<Exit, Failure> {
    let sql = Sql::open(source).map_err(anyhow::Error::from)?;
    let columns = sql
        .columns(query)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let mut rows = Rows::start(
        io::stdout().lock(),
        &columns,
        format.unwrap_or(default_format(global)),
    );
    let mut failed = None;
    let asked = sql.query(query, values, |row| {
        failed = rows.row(row).err();
        failed.is_none()
    });
    asked.map_err(|error| Failure::usage(error.to_string()))?;
    let written = failed.map_or_else(|| rows.end().map(drop), Err);
    finish(written)
}

/// A reader that went away wants no more, and that is fine.
fn finish(written: io::Result<()>) -> Result<Exit, Failure> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
        written => Ok(written.map(|()| Exit::Done).context("write the rows")?),
    }
}

fn default_format(global: &Global) -> Format {
    match (global.json, io::stdout().is_terminal()) {
        (true, _) => Format::Ndjson,
        (false, true) => Format::Table,
        (false, false) => Format::Csv,
    }
}

/// `filters`: `COLUMN=VALUE`, `COLUMN!=VALUE` or `COLUMN~PART`.
pub fn query(
    global: &Global,
    source: Source,
    table: &str,
    filters: &[String],
    columns: &[String],
    limit: Option<u64>,
    format: Option<Format>,
) -> Result<Exit, Failure> {
    let table = find(table)?;
    let known = |name: &str| match table.columns.iter().any(|column| column.name == name) {
        true => Ok(()),
        false => {
            let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
            let (table, names) = (table.name, names.join(", "));
            Err(Failure::usage(format!(
                "`{table}` has no column `{name}`; there are: {names}"
            )))
        }
    };
    let (mut wanted, mut values) = (Vec::new(), Vec::new());
    for filter in filters {
        let at = filter.find(['=', '!', '~']).unwrap_or(filter.len());
        let (column, rest) = filter.split_at(at);
        let (condition, value) = match rest.split_at_checked(1) {
            Some(("=", value)) => ("= ?", value),
            Some(("!", value)) if value.starts_with('=') => ("IS NOT ?", &value[1..]),
            Some(("~", value)) => ("LIKE '%' || ? || '%'", value),
            _ => {
                let wanted = "COLUMN=VALUE, COLUMN!=VALUE or COLUMN~PART";
                return Err(Failure::usage(format!(
                    "`{filter}` is no filter; wanted {wanted}"
                )));
            }
        };
        known(column)?;
        wanted.push(format!("\"{column}\" {condition}"));
        values.push(value);
    }
    columns.iter().try_for_each(|column| known(column))?;
    let shown = match columns {
        [] => "*".to_owned(),
        columns => format!("\"{}\"", columns.join("\", \"")),
    };
    let mut query = format!("SELECT {shown} FROM \"{}\"", table.name);
    if !wanted.is_empty() {
        query += &format!(" WHERE {}", wanted.join(" AND "));
    }
    if let Some(limit) = limit {
        query += &format!(" LIMIT {limit}");
    }
    answer(global, source, &query, &values, format)
}

fn find(table: &str) -> Result<&'static Table, Failure> {
    Table::find(table).ok_or_else(|| {
        let names: Vec<&str> = corpus_sql::TABLES.iter().map(|table| table.name).collect();
        Failure::usage(format!(
            "there is no table `{table}`; there are: {}",
            names.join(", ")
        ))
    })
}

/// What the tables are, for people or as JSON.
pub fn tables(global: &Global) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    let write = |out: &mut dyn Write, table: &Table| match global.json {
        true => {
            let columns = table.columns.iter().map(|column| {
                serde_json::json!({ "name": column.name, "kind": format!("{:?}", column.kind).to_lowercase(), "about": column.about })
            });
            let columns: Vec<Value> = columns.collect();
            let table = serde_json::json!({ "table": table.name, "about": table.about, "columns": columns });
            writeln!(out, "{table}")
        }
        false => {
            writeln!(out, "{}: {}", table.name, table.about)?;
            table
                .columns
                .iter()
                .try_for_each(|column| writeln!(out, "  {:<18} {}", column.name, column.about))
        }
    };
    finish(
        corpus_sql::TABLES
            .iter()
            .try_for_each(|table| write(&mut out, table)),
    )
}

/// Writes tables to files of `to`, each whole or not at all; or one table to the standard output.
pub fn export(
    source: &Source,
    tables: &[String],
    to: Option<&Path>,
    format: Format,
) -> Result<Exit, Failure> {
    let chosen: Vec<&'static Table> = match tables {
        [] => corpus_sql::TABLES.iter().collect(),
        named => named.iter().map(|name| find(name)).collect::<Result<_, _>>()?,
    };
    let Some(dir) = to else {
        let [table] = chosen[..] else {
            return Err(Failure::usage("more than one table needs a folder: `--to DIR`"));
        };
        let out = BufWriter::new(io::stdout().lock());
        return finish(write_table(source, table, out, format).map(drop));
    };
    let suffix = match format {
        Format::Ndjson => "ndjson",
        Format::Csv => "csv",
        Format::Table => "txt",
    };
    fs::create_dir_all(dir).with_context(|| format!("make `{}`", dir.display()))?;
    for table in chosen {
        let path = dir.join(format!("{}.{suffix}", table.name));
        let part = dir.join(format!("{}.{suffix}.part", table.name));
        let written = File::create(&part)
            .and_then(|file| write_table(source, table, BufWriter::new(file), format))
            .and_then(|count| fs::rename(&part, &path).map(|()| count));
        let count = written.with_context(|| format!("write `{}`", path.display()))?;
        eprintln!("{count} rows in {}", path.display());
    }
    Ok(Exit::Done)
}

fn write_table(source: &Source, table: &'static Table, out: impl Write, format: Format) -> io::Result<u64> {
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|column| column.name.to_owned())
        .collect();
    let mut rows = Rows::start(out, &columns, format);
    corpus_sql::rows(source, table, &Only::default()).try_for_each(|row| rows.row(row?))?;
    rows.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_a_day_and_a_place_can_be_looked_back_to() {
        let check = |text: &str| text.parse::<AsOf>();
        let day = corpus::Timestamp::from_secs(1_769_817_600);
        assert_eq!(check("2026-01-31"), Ok(AsOf::Time(day)));
        assert_eq!(check("2026-01-31T00:00:00Z"), Ok(AsOf::Time(day)));
        let place = Place {
            segment: SegmentNumber(3),
            offset: 145,
        };
        assert_eq!(check("3:145"), Ok(AsOf::Place(place)));
        assert!(
            check("yesterday")
                .unwrap_err()
                .starts_with("`yesterday` is no time or place")
        );
    }
}
