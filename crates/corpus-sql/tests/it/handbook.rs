//! What docs/corpus.md says is so: its questions are asked, its list of tables is the list.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use corpus_sql::{Format, Kind, Rows, Sql, TABLES};

use crate::{example, sql};

/// As the handbook tells its readers to make it.
const RECORDS: usize = 5000;

fn handbook() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/corpus.md")
}

/// Compares the handbook with what it should be; with `BURROW_BLESS=1` writes that instead.
fn check(found: &str, expect: &str) {
    if std::env::var("BURROW_BLESS").as_deref() == Ok("1") {
        fs::write(handbook(), expect).unwrap();
        return;
    }
    for (line, (found, expect)) in (1..).zip(found.lines().zip(expect.lines())) {
        assert_eq!(
            found, expect,
            "line {line} of docs/corpus.md; BURROW_BLESS=1 writes it anew"
        );
    }
    assert_eq!(found.lines().count(), expect.lines().count());
}

fn answer(sql: &Sql, query: &str) -> String {
    let mut out = Vec::new();
    let columns = sql
        .columns(query)
        .unwrap_or_else(|error| panic!("{error}: {query}"));
    let mut rows = Rows::start(&mut out, &columns, Format::Table);
    sql.query(query, &[], |row| rows.row(row).is_ok())
        .unwrap_or_else(|error| panic!("{error}: {query}"));
    rows.end().unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_questions_of_the_handbook_have_the_answers_that_it_gives() {
    let dir = tempfile::tempdir().unwrap();
    let sql = sql(&example(dir.path(), RECORDS));
    let text = fs::read_to_string(handbook()).unwrap();
    let (mut expect, mut rest, mut asked) = (String::new(), &text[..], 0);
    while let Some((before, after)) = rest.split_once("```sql\n") {
        let (query, after) = after.split_once("```\n").expect("the block ends");
        let (between, after) = after.split_once("```text\n").expect("an answer follows");
        let (_, after) = after.split_once("```\n").expect("the block ends");
        let answer = answer(&sql, query);
        assert!(answer.lines().count() > 1, "no rows: {query}");
        write!(
            expect,
            "{before}```sql\n{query}```\n{between}```text\n{answer}```\n"
        )
        .unwrap();
        rest = after;
        asked += 1;
    }
    expect += rest;
    assert!(asked >= 10, "{asked}");
    check(&text, &expect);
}

#[test]
fn the_handbook_has_every_table_and_column() {
    let text = fs::read_to_string(handbook()).unwrap();
    let mut list = String::new();
    for table in TABLES {
        write!(
            list,
            "\n### {}\n{}.\n\n| column | is | |\n|---|---|---|\n",
            table.name, table.about
        )
        .unwrap();
        for column in table.columns {
            let kind = match column.kind {
                Kind::Text => "text",
                Kind::Int => "number",
                Kind::Bool => "0 or 1",
                Kind::Time => "time",
                Kind::Json => "JSON",
            };
            writeln!(list, "| `{}` | {kind} | {} |", column.name, column.about).unwrap();
        }
    }
    let (before, _) = text
        .split_once("\n### ")
        .expect("the list is the end of the page");
    check(&text, &format!("{before}{list}"));
}
