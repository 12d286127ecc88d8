//! What is to be said of a farm by what is known of its host. Pure: `http` gathers the facts, the status page and
//! `/readyz` show what is made of them.

use dashboard::HealthItem;

/// File descriptors in use above which it is said, in hundredths of what the process may have.
const FILES_FULL: u64 = 80;

/// By so many seconds the clock may be put right without a word.
const CLOCK_SLACK: i64 = 60;

/// What is known of the host and of the farm's own files.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Why the store refuses writes.
    pub store_writes: Option<String>,
    /// Why it cannot be read.
    pub store_reads: Option<String>,
    /// Why nothing is started.
    pub paused: Option<String>,
    /// Bytes on the disk of the state folder, or why that is not known.
    pub disk_free: Option<Result<u64, String>>,
    /// Why the log that was written last could not be.
    pub logs: Option<String>,
    /// Why the changed configuration is refused.
    pub refused: Option<String>,
    /// By how many seconds the wall clock went otherwise than time since the start of this process.
    pub clock_off: i64,
    /// File descriptors in use, and how many there may be.
    pub files: Option<(u64, u64)>,
}

/// One line of the status page, and whether work may be sent to a farm with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub name: &'static str,
    pub ok: bool,
    pub text: String,
    /// Not ready: nothing that is asked of the farm would last.
    pub unready: bool,
}

impl Item {
    fn good(name: &'static str, text: impl Into<String>) -> Item {
        Item {
            name,
            ok: true,
            text: text.into(),
            unready: false,
        }
    }

    fn bad(name: &'static str, text: String) -> Item {
        Item {
            ok: false,
            ..Item::good(name, text)
        }
    }
}

impl From<Item> for HealthItem {
    fn from(item: Item) -> HealthItem {
        HealthItem {
            name: item.name.to_owned(),
            ok: item.ok,
            text: item.text,
        }
    }
}

/// Every line there is, in a lasting order.
pub fn items(facts: &Facts) -> Vec<Item> {
    vec![
        store(facts),
        disk(facts),
        match &facts.logs {
            None => Item::good("logs", "are written"),
            Some(why) => Item::bad(
                "logs",
                format!("cannot be written; their steps go on, and are tried again: {why}"),
            ),
        },
        match &facts.refused {
            None => Item::good("configuration", "as on disk"),
            Some(why) => Item::bad(
                "configuration",
                format!("the changed one is refused, the old one holds: {why}"),
            ),
        },
        clock(facts.clock_off),
        files(facts.files),
    ]
}

fn store(facts: &Facts) -> Item {
    let why = match (&facts.store_writes, &facts.store_reads) {
        (None, None) => return Item::good("store", "takes writes"),
        (Some(why), _) => format!("takes no writes; nothing is started, what runs goes on: {why}"),
        (None, Some(why)) => format!("cannot be read: {why}"),
    };
    Item {
        unready: true,
        ..Item::bad("store", why)
    }
}

fn disk(facts: &Facts) -> Item {
    let free = match &facts.disk_free {
        None => "not looked at yet".to_owned(),
        Some(Ok(free)) => format!("{} MiB free", free >> 20),
        Some(Err(why)) => return Item::bad("disk and new work", why.clone()),
    };
    match &facts.paused {
        None => Item::good("disk and new work", free),
        Some(why) => Item::bad("disk and new work", format!("nothing is started: {why}")),
    }
}

fn clock(off: i64) -> Item {
    if off.abs() <= CLOCK_SLACK {
        return Item::good("clock", "goes evenly");
    }
    let way = if off > 0 { "forward" } else { "back" };
    Item::bad(
        "clock",
        format!(
            "was put {way} by {} while the farm ran: times before and after do not compare, and no log is deleted by its \
             age until the farm is started anew",
            span(off.unsigned_abs())
        ),
    )
}

fn span(secs: u64) -> String {
    match secs {
        0..7200 => format!("{} min", secs / 60),
        7200..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}

fn files(files: Option<(u64, u64)>) -> Item {
    let Some((used, most)) = files else {
        return Item::good("open files", "cannot be counted on this system");
    };
    let text = format!("{used} of {most}");
    if used * 100 < most * FILES_FULL {
        return Item::good("open files", text);
    }
    Item::bad(
        "open files",
        format!(
            "{text}: connections will wait and steps will fail to start; raise LimitNOFILE, or `ulimit -n`"
        ),
    )
}

/// The answer of `/readyz`: whether the farm is ready, and what is to be said.
pub fn ready(items: &[Item]) -> (bool, String) {
    let ready = !items.iter().any(|item| item.unready);
    let bad: Vec<&Item> = items.iter().filter(|item| !item.ok).collect();
    let mut text = match (ready, bad.is_empty()) {
        (true, true) => "ok\n",
        (true, false) => "ok, but degraded\n",
        (false, _) => "not ready\n",
    }
    .to_owned();
    for item in bad {
        text += &format!("{}: {}\n", item.name, item.text.replace(['\n', '\r'], " "));
    }
    (ready, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why() -> Option<String> {
        Some("why".to_owned())
    }

    /// One row for each fact: what it makes of which line, and whether the farm is ready.
    #[test]
    fn each_trouble_is_said_in_its_line_and_no_other_is_touched() {
        let well = items(&Facts::default());
        assert!(well.iter().all(|item| item.ok && !item.unready));
        let check = |facts: Facts, name: &str, says: &str, is_ready: bool| {
            let told = items(&facts);
            for (item, well) in told.iter().zip(&well) {
                if item.name == name {
                    assert!(!item.ok && item.text.contains(says), "{item:?}");
                } else {
                    assert_eq!((item.ok, item.unready), (well.ok, false), "{item:?}");
                }
            }
            let (ready, text) = ready(&told);
            assert_eq!(ready, is_ready, "{text}");
            assert!(
                text.contains(&format!("\n{name}: ")) && text.contains(says),
                "{text}"
            );
        };
        let d = Facts::default;
        check(
            Facts {
                store_writes: why(),
                ..d()
            },
            "store",
            "takes no writes",
            false,
        );
        check(
            Facts {
                store_reads: why(),
                ..d()
            },
            "store",
            "cannot be read: why",
            false,
        );
        check(
            Facts { paused: why(), ..d() },
            "disk and new work",
            "nothing is started: why",
            true,
        );
        let unknown = Some(Err("gone".to_owned()));
        check(
            Facts {
                disk_free: unknown,
                ..d()
            },
            "disk and new work",
            "gone",
            true,
        );
        check(Facts { logs: why(), ..d() }, "logs", "cannot be written", true);
        check(
            Facts {
                refused: why(),
                ..d()
            },
            "configuration",
            "the old one holds: why",
            true,
        );
        check(
            Facts {
                clock_off: 86_400,
                ..d()
            },
            "clock",
            "forward by 24 h",
            true,
        );
        check(
            Facts {
                clock_off: -86_400 * 9,
                ..d()
            },
            "clock",
            "back by 9 days",
            true,
        );
        check(
            Facts {
                clock_off: -61,
                ..d()
            },
            "clock",
            "back by 1 min",
            true,
        );
        check(
            Facts {
                files: Some((80, 100)),
                ..d()
            },
            "open files",
            "80 of 100",
            true,
        );
    }

    #[test]
    fn what_is_well_is_said_so() {
        let facts = Facts {
            disk_free: Some(Ok(5 << 30)),
            clock_off: -60,
            files: Some((79, 100)),
            ..Facts::default()
        };
        let told = items(&facts);
        assert_eq!(ready(&told), (true, "ok\n".to_owned()));
        let texts: Vec<&str> = told.iter().map(|item| item.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "takes writes",
                "5120 MiB free",
                "are written",
                "as on disk",
                "goes evenly",
                "79 of 100"
            ]
        );
    }
}
