use std::borrow::Cow;

use ids::Timestamp;
use serde_json::Value;

/// What stands in a column of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
}

impl Cell {
    pub fn json(self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Int(n) => n.into(),
            Cell::Real(x) => x.into(),
            Cell::Text(text) => text.into(),
        }
    }
}

/// Empty for nothing.
impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Null => Ok(()),
            Cell::Int(n) => n.fmt(f),
            Cell::Real(x) => x.fmt(f),
            Cell::Text(text) => f.write_str(text),
        }
    }
}

impl From<i64> for Cell {
    fn from(n: i64) -> Cell {
        Cell::Int(n)
    }
}

impl From<i32> for Cell {
    fn from(n: i32) -> Cell {
        Cell::Int(n.into())
    }
}

impl From<u32> for Cell {
    fn from(n: u32) -> Cell {
        Cell::Int(n.into())
    }
}

impl From<usize> for Cell {
    fn from(n: usize) -> Cell {
        i64::try_from(n).map_or(Cell::Null, Cell::Int)
    }
}

impl From<bool> for Cell {
    fn from(is: bool) -> Cell {
        Cell::Int(is.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<Cow<'_, str>> for Cell {
    fn from(text: Cow<'_, str>) -> Cell {
        Cell::Text(text.into_owned())
    }
}

/// As SQLite's functions of time read it: `2018-06-06T15:20:00Z`, in UTC.
impl From<Timestamp> for Cell {
    fn from(time: Timestamp) -> Cell {
        let time = jiff::Timestamp::from_microsecond(time.0);
        time.map_or(Cell::Null, |time| Cell::Text(time.to_string()))
    }
}

impl<T> From<Option<T>> for Cell
where
    Cell: From<T>,
{
    fn from(it: Option<T>) -> Cell {
        it.map_or(Cell::Null, Cell::from)
    }
}
