use std::io::{self, Write};

use serde_json::{Map, Value};

use crate::cell::Cell;

/// How wide a column may get before its texts are cut, for people.
const WIDE: usize = 60;
/// Rows that are kept to find the widths of the columns; wider ones after these stand out.
const KEPT: usize = 10_000;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people: a line for each row, long texts cut.
    Table,
    /// A JSON object on each line.
    Ndjson,
    /// As RFC 4180 has it, but with line feeds alone; the first line has the names of the columns.
    Csv,
}

/// Rows on their way out.
pub struct Rows<W> {
    out: W,
    columns: Vec<String>,
    format: Format,
    /// Of a table for people, which is drawn when its widths are known.
    kept: Vec<Vec<String>>,
    widths: Vec<usize>,
    count: u64,
}

impl<W: Write> Rows<W> {
    pub fn start(out: W, columns: &[String], format: Format) -> Rows<W> {
        Rows {
            out,
            columns: columns.to_vec(),
            format,
            kept: Vec::new(),
            widths: Vec::new(),
            count: 0,
        }
    }

    pub fn row(&mut self, row: Vec<Cell>) -> io::Result<()> {
        if self.count == 0 && self.format == Format::Csv {
            self.head()?;
        }
        self.count += 1;
        match self.format {
            Format::Ndjson => {
                let cells = self.columns.iter().cloned().zip(row.into_iter().map(Cell::json));
                writeln!(self.out, "{}", Value::Object(cells.collect::<Map<_, _>>()))
            }
            Format::Csv => {
                let cells: Vec<String> = row.iter().map(|cell| csv(&cell.to_string())).collect();
                writeln!(self.out, "{}", cells.join(","))
            }
            Format::Table => {
                self.kept.push(row.iter().map(short).collect());
                match self.kept.len() {
                    KEPT => self.draw(),
                    _ => Ok(()),
                }
            }
        }
    }

    fn head(&mut self) -> io::Result<()> {
        let names: Vec<String> = self.columns.iter().map(|name| csv(name)).collect();
        writeln!(self.out, "{}", names.join(","))
    }

    /// How many there were.
    pub fn end(mut self) -> io::Result<u64> {
        match self.format {
            Format::Ndjson => {}
            Format::Csv if self.count == 0 => self.head()?,
            Format::Csv => {}
            Format::Table => self.draw()?,
        }
        self.out.flush()?;
        Ok(self.count)
    }

    /// Writes what is kept; the first time also the heads of the columns.
    fn draw(&mut self) -> io::Result<()> {
        if self.widths.is_empty() {
            let heads: Vec<String> = self.columns.iter().map(|name| printable(name)).collect();
            self.kept.insert(0, heads);
            let width = |at: usize| self.kept.iter().map(|row| row[at].chars().count()).max();
            self.widths = (0..self.columns.len()).map(|at| width(at).unwrap_or(0)).collect();
        }
        for row in self.kept.drain(..) {
            let cells = row
                .iter()
                .zip(&self.widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(self.out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// One line that a terminal can be given.
fn short(cell: &Cell) -> String {
    let text = cell.to_string();
    let mut line: String = printable(text.lines().next().unwrap_or_default());
    if line.chars().count() > WIDE || text.lines().nth(1).is_some() {
        line = line.chars().take(WIDE - 1).collect();
        line.push('…');
    }
    line
}

/// As RFC 4180 has it.
fn csv(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// Without what a terminal would take for commands.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format) -> String {
        let mut out = Vec::new();
        let mut rows = Rows::start(&mut out, &["a".to_owned(), "b".to_owned()], format);
        rows.row(vec![Cell::Int(1), Cell::Text("x\"y,\nz".to_owned())])
            .unwrap();
        rows.row(vec![Cell::Null, Cell::Text("q\u{1b}".to_owned())])
            .unwrap();
        assert_eq!(rows.end().unwrap(), 2);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_are_written_so_that_others_can_read_them() {
        let ndjson = "{\"a\":1,\"b\":\"x\\\"y,\\nz\"}\n{\"a\":null,\"b\":\"q\\u001b\"}\n";
        assert_eq!(written(Format::Ndjson), ndjson);
        assert_eq!(written(Format::Csv), "a,b\n1,\"x\"\"y,\nz\"\n,q\u{1b}\n");
        assert_eq!(written(Format::Table), "a  b\n1  x\"y,…\n   q\u{fffd}\n");
    }
}
