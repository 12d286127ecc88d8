//! The written form: the tables of all files as one tree in which each key and value knows where
//! it stands, and the reader that takes typed values out of it and collects what is wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::keys::{Effect, Key};
use crate::nearest::nearest;
use crate::problem::{Problem, SourceFile, line_column};
use crate::units::{DURATION, SIZE, parse_duration, parse_size};

/// Where something stands: which file, which bytes of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub file: usize,
    pub start: usize,
    pub end: usize,
}

pub(crate) struct Node {
    pub at: At,
    pub value: Value,
}

pub(crate) enum Value {
    Text(String),
    /// `None`: does not fit 64 bits.
    Integer(Option<i64>),
    Float,
    Bool(bool),
    Datetime,
    List(Vec<Node>),
    Table(Table),
}

pub(crate) type Table = BTreeMap<String, Entry>;

pub(crate) struct Entry {
    pub key_at: At,
    pub node: Node,
}

/// A value with its path, taken out of the tree.
pub(crate) struct Item<'t> {
    pub node: &'t Node,
    pub path: String,
    /// Where to point when something is missing in it: its key, or for a list's element itself.
    pub head: At,
}

/// The keys of one table.
pub(crate) struct Fields<'t> {
    table: &'t Table,
    pub path: String,
    pub head: At,
}

/// Collects what is wrong while the tree is read.
pub(crate) struct Reader<'f> {
    files: &'f [SourceFile],
    problems: Vec<(At, Problem)>,
    notices: Vec<(At, Problem)>,
}

impl<'f> Reader<'f> {
    pub fn new(files: &'f [SourceFile]) -> Reader<'f> {
        Reader {
            files,
            problems: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Reads every file and puts their tables together. `None` when one is no TOML; what is merely
    /// given twice is a problem, and reading goes on.
    pub fn parse(&mut self) -> Option<Table> {
        let mut whole = true;
        let mut root = Table::new();
        let files = self.files;
        for (file, source) in files.iter().enumerate() {
            let (table, errors) = DeTable::parse_recoverable(&source.text);
            for error in errors {
                let span = error.span().unwrap_or(0..0);
                let at = At {
                    file,
                    start: span.start,
                    end: span.end,
                };
                let twice = error.message() == "duplicate key";
                whole &= twice;
                let key = source.text.get(span).unwrap_or("");
                if twice {
                    self.problem(
                        at,
                        "",
                        format!("`{}` is given twice", key.trim()),
                        "keep one of them",
                    );
                } else {
                    self.problem(at, "", format!("not TOML: {}", error.message()), None::<&str>);
                }
            }
            self.merge(&mut root, to_table(file, table.get_ref()), "");
        }
        whole.then_some(root)
    }

    /// Adds `more` to `into`: tables that hold named tables are joined, anything else in two files
    /// is a problem.
    fn merge(&mut self, into: &mut Table, more: Table, path: &str) {
        for (key, entry) in more {
            let path = join(path, &key);
            let joins = matches!(
                path.as_str(),
                "farm"
                    | "environment"
                    | "forge"
                    | "repo"
                    | "policy"
                    | "host"
                    | "builder"
                    | "recipe"
                    | "maintner"
                    | "maintner.watch"
                    | "slowbots"
                    | "policy.repos"
                    | "policy.tests"
            );
            match into.get_mut(&key) {
                None => {
                    into.insert(key, entry);
                }
                Some(there) => match (&mut there.node.value, entry.node.value) {
                    (Value::Table(one), Value::Table(other)) if joins => self.merge(one, other, &path),
                    _ => {
                        let first = self.place(there.key_at);
                        let hint = "keep it in one file";
                        self.problem(
                            entry.key_at,
                            &path,
                            format!("is given twice: first at {first}"),
                            hint,
                        );
                    }
                },
            }
        }
    }

    pub fn problem(&mut self, at: At, path: &str, message: impl Into<String>, hint: impl IntoHint) {
        let problem = self.make(at, path, message.into(), hint.into_hint());
        self.problems.push((at, problem));
    }

    pub fn notice(&mut self, at: At, path: &str, message: &str) {
        let notice = self.make(at, path, message.to_owned(), None);
        self.notices.push((at, notice));
    }

    /// How many problems there are so far: to tell whether a part was read without any.
    pub fn problem_count(&self) -> usize {
        self.problems.len()
    }

    /// All problems and all notices, each in the order of the text.
    pub fn finish(mut self) -> (Vec<Problem>, Vec<Problem>) {
        self.problems.sort_by_key(|(at, _)| *at);
        // The TOML parser may tell one mistake once per key that suffers from it.
        self.problems.dedup();
        self.notices.sort_by_key(|(at, _)| *at);
        let strip = |list: Vec<(At, Problem)>| list.into_iter().map(|(_, problem)| problem).collect();
        (strip(self.problems), strip(self.notices))
    }

    /// `item` as a table with these keys. Unknown keys are problems, keys without effect notices.
    pub fn fields<'t>(&mut self, item: &Item<'t>, keys: &[Key]) -> Option<Fields<'t>> {
        let table = self.table(item)?;
        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        self.refuse_unknown(table, &item.path, &names);
        for key in keys {
            let (Effect::None { inner }, Some(entry)) = (&key.effect, table.get(key.name)) else {
                continue;
            };
            let path = join(&item.path, key.name);
            if let (Value::Table(table), false) = (&entry.node.value, inner.is_empty()) {
                self.refuse_unknown(table, &path, inner);
            }
            self.notice(entry.key_at, &path, NO_EFFECT);
        }
        Some(Fields {
            table,
            path: item.path.clone(),
            head: item.head,
        })
    }

    pub fn refuse_unknown(&mut self, table: &Table, path: &str, names: &[&str]) {
        for (key, entry) in table {
            if names.contains(&key.as_str()) {
                continue;
            }
            let hint = match nearest(key, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are: {}", names.join(", ")),
            };
            self.problem(
                entry.key_at,
                &join(path, key),
                format!("unknown key `{key}`"),
                hint,
            );
        }
    }

    pub fn table<'t>(&mut self, item: &Item<'t>) -> Option<&'t Table> {
        match &item.node.value {
            Value::Table(table) => Some(table),
            _ => self.wrong(item, "a table"),
        }
    }

    /// Text that is not blank.
    pub fn text<'t>(&mut self, item: &Item<'t>) -> Option<&'t str> {
        match &item.node.value {
            Value::Text(text) if text.trim().is_empty() => {
                self.problem(
                    item.node.at,
                    &item.path,
                    "is empty",
                    "give it a value or leave the key out",
                );
                None
            }
            Value::Text(text) => Some(text),
            _ => self.wrong(item, "text in quotes"),
        }
    }

    /// Text that may be empty.
    pub fn any_text<'t>(&mut self, item: &Item<'t>) -> Option<&'t str> {
        match &item.node.value {
            Value::Text(text) => Some(text),
            _ => self.wrong(item, "text in quotes"),
        }
    }

    pub fn bool(&mut self, item: &Item<'_>) -> Option<bool> {
        match &item.node.value {
            Value::Bool(value) => Some(*value),
            _ => self.wrong(item, "`true` or `false`"),
        }
    }

    pub fn integer(&mut self, item: &Item<'_>, least: i64, most: i64) -> Option<i64> {
        match &item.node.value {
            Value::Integer(Some(value)) if (least..=most).contains(value) => Some(*value),
            Value::Integer(value) => {
                let found = value.map_or("the number".to_owned(), |value| format!("`{value}`"));
                let message = format!("{found} is out of range; wanted {least} to {most}");
                self.problem(item.node.at, &item.path, message, None::<&str>);
                None
            }
            _ => self.wrong(item, &format!("a number from {least} to {most}, without quotes")),
        }
    }

    /// [`Reader::integer`] for what is counted; `most` is at most `u32::MAX`.
    pub fn count(&mut self, item: &Item<'_>, least: u32, most: u32) -> Option<u32> {
        let value = self.integer(item, least.into(), most.into())?;
        u32::try_from(value).ok()
    }

    /// A duration longer than nothing.
    pub fn duration(&mut self, item: &Item<'_>) -> Option<Duration> {
        let wanted = format!("wanted such as {DURATION}");
        match &item.node.value {
            Value::Text(text) => match parse_duration(text) {
                Ok(duration) if !duration.is_zero() => Some(duration),
                Ok(_) => self.refuse(item, format!("`{text}` is no time at all"), wanted),
                Err(why) => self.refuse(item, format!("`{text}` {why}"), wanted),
            },
            Value::Integer(Some(n)) => self.refuse(item, format!("`{n}` has no unit"), wanted),
            _ => self.wrong(item, &format!("a duration such as {DURATION}")),
        }
    }

    pub fn size(&mut self, item: &Item<'_>) -> Option<u64> {
        let wanted = format!("wanted such as {SIZE}");
        match &item.node.value {
            Value::Text(text) => match parse_size(text) {
                Ok(size) => Some(size),
                Err(why) => self.refuse(item, format!("`{text}` {why}"), wanted),
            },
            Value::Integer(Some(n)) => self.refuse(item, format!("`{n}` has no unit"), wanted),
            _ => self.wrong(item, &format!("a size such as {SIZE}")),
        }
    }

    /// The elements of a list.
    pub fn list<'t>(&mut self, item: &Item<'t>) -> Option<Vec<Item<'t>>> {
        match &item.node.value {
            Value::List(list) => Some(
                list.iter()
                    .enumerate()
                    .map(|(i, node)| Item {
                        node,
                        path: format!("{}[{i}]", item.path),
                        head: node.at,
                    })
                    .collect(),
            ),
            _ => self.wrong(item, "a list"),
        }
    }

    /// A list, or one thing that stands for a list of one.
    pub fn one_or_list<'t>(&mut self, item: &Item<'t>) -> Option<Vec<Item<'t>>> {
        match &item.node.value {
            Value::Text(_) => Some(vec![Item {
                node: item.node,
                path: item.path.clone(),
                head: item.head,
            }]),
            Value::List(_) => self.list(item),
            _ => self.wrong(item, "text in quotes or a list of such"),
        }
    }

    /// A problem at the value of `item`; always `None`, for the end of a `match`.
    pub fn refuse<T>(
        &mut self,
        item: &Item<'_>,
        message: impl Into<String>,
        hint: impl IntoHint,
    ) -> Option<T> {
        self.problem(item.node.at, &item.path, message, hint);
        None
    }

    /// A problem at the head of a table that lacks `key`.
    pub fn missing<T>(&mut self, fields: &Fields<'_>, key: &str, hint: impl IntoHint) -> Option<T> {
        self.problem(fields.head, &fields.path, format!("no `{key}`"), hint);
        None
    }

    fn wrong<T>(&mut self, item: &Item<'_>, wanted: &str) -> Option<T> {
        let found = match &item.node.value {
            Value::Text(_) => "text",
            Value::Integer(_) => "a number",
            Value::Float => "a number with a point",
            Value::Bool(_) => "true or false",
            Value::Datetime => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        };
        self.refuse(item, format!("wanted {wanted}, found {found}"), None::<&str>)
    }

    fn place(&self, at: At) -> String {
        let source = &self.files[at.file];
        let (line, column) = line_column(&source.text, at.start);
        format!("{}:{line}:{column}", source.name)
    }

    fn make(&self, at: At, path: &str, message: String, hint: Option<String>) -> Problem {
        let (file, line, column) = match self.files.get(at.file) {
            Some(source) => {
                let (line, column) = line_column(&source.text, at.start);
                (source.name.clone(), line, column)
            }
            None => (String::new(), 1, 1),
        };
        Problem {
            file,
            line,
            column,
            span: at.start..at.end,
            path: path.to_owned(),
            message,
            hint,
        }
    }
}

impl<'t> Fields<'t> {
    pub fn get(&self, key: &str) -> Option<Item<'t>> {
        let entry = self.table.get(key)?;
        Some(Item {
            node: &entry.node,
            path: join(&self.path, key),
            head: entry.key_at,
        })
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }
}

/// What is said of a key that is accepted and ignored.
pub(crate) const NO_EFFECT: &str = "accepted, has no effect in this version";

/// What can be given as a hint.
pub(crate) trait IntoHint {
    fn into_hint(self) -> Option<String>;
}
impl IntoHint for &str {
    fn into_hint(self) -> Option<String> {
        Some(self.to_owned())
    }
}
impl IntoHint for String {
    fn into_hint(self) -> Option<String> {
        Some(self)
    }
}
impl IntoHint for Option<&str> {
    fn into_hint(self) -> Option<String> {
        self.map(str::to_owned)
    }
}
impl IntoHint for Option<String> {
    fn into_hint(self) -> Option<String> {
        self
    }
}

/// `path.key`, the key in quotes where TOML would want them.
pub(crate) fn join(path: &str, key: &str) -> String {
    let key = quoted_key(key);
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

/// A key as TOML wants it written.
pub(crate) fn quoted_key(key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare {
        key.to_owned()
    } else {
        toml::Value::String(key.to_owned()).to_string()
    }
}

fn to_table(file: usize, table: &DeTable<'_>) -> Table {
    table
        .iter()
        .map(|(key, value)| {
            let key_at = at(file, key);
            (
                key.get_ref().to_string(),
                Entry {
                    key_at,
                    node: to_node(file, value),
                },
            )
        })
        .collect()
}

fn to_node(file: usize, value: &Spanned<DeValue<'_>>) -> Node {
    let node = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => Value::Integer(i64::from_str_radix(n.as_str(), n.radix()).ok()),
        DeValue::Float(_) => Value::Float,
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(list) => Value::List(list.iter().map(|value| to_node(file, value)).collect()),
        DeValue::Table(table) => Value::Table(to_table(file, table)),
    };
    Node {
        at: at(file, value),
        value: node,
    }
}

fn at<T>(file: usize, spanned: &Spanned<T>) -> At {
    let span = spanned.span();
    At {
        file,
        start: span.start,
        end: span.end,
    }
}
