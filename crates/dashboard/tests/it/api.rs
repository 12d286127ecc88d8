//! `docs/api.md` holds each address with an answer of it. `UPDATE_DOCS=1` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::world::*;

/// Path as the router has it, an example if it answers JSON, and what it is.
const PAGES: [(&str, &str, &str); 20] = [
    (
        "/",
        "/",
        "The farm: each branch with its newest commit, the builders that are broken on it, and the worst result of its newest 20 commits.",
    ),
    ("/repo/{repo}", "", "Leads to the repository's default branch."),
    (
        "/repo/{repo}/{*branch}",
        "/repo/widget/main?limit=1&builder=linux-*",
        "Commits by builders, newest first; a row's `cells` are in the order of `builders`, null where there is no build.\n\n\
         `group`, `builder` (patterns as in `burrow.toml`, separated by commas; a word without `*` or `?` may stand anywhere; `!` excludes), \
         `q` (words of title or author), `failing=1` (builders that failed on this page), `limit` (30, up to 200, fewer where there are many builders), \
         `columns=N`: pass over so many builders, of which a page has up to 250 (`columns_next`, `columns_before`), \
         `before=HASH`: the page of commits older than that one, the `before` of the page before.",
    ),
    (
        "/commit/{repo}/{hash}",
        "/commit/widget/HASH",
        "One commit with all its builders, those that need a look first, 200 at a time. `from=N`: pass over so many. The beginning of a hash, 4 digits at least, leads to the full one.",
    ),
    (
        "/cell/{repo}/{hash}/{builder}",
        "",
        "Leads to the build of this commit by this builder; a lasting address.",
    ),
    (
        "/builds",
        "/builds?builder=linux-race&limit=1",
        "Builds, newest first. `status`, `repo`, `builder`, `commit` (the full hash), `machine`; `before=ID`, `limit` (100, up to 1000). `next` is the address of the next page.",
    ),
    (
        "/build/{id}",
        "/build/7",
        "One build. `attempt`: another than the latest; `step`: whose log is told of, else of the step that failed or was started last. \
         `log.failing` quotes what failed; `breakage` says between which commits.\n\n\
         The page takes `from=LINE` for a window of a long log; a line's address ends in `#L` and its number. `find=WORDS`: the lines that have them, up to 200, in `log.found`.",
    ),
    (
        "/build/{id}/log",
        "",
        "The log as text: all steps of an attempt, each after a line `==> NAME: COMMAND`. `attempt`: another than the latest; `step`: one step without that line; \
         `offset`: from that byte on; `download=1`: as a file. Takes one `Range` of bytes. A log that was deleted answers 410.",
    ),
    (
        "/build/{id}/log/events",
        "",
        "Server-sent events of one step: `attempt`, `step`, `offset` (a byte at which a line begins), `line` (how many lines are before it). \
         `lines`: `{\"line\", \"html\"}`, rows from that number on; one that comes again replaces the former. `reset`: the log became shorter, look again. \
         `end`: the step has ended. An event's id is `OFFSET.LINE`: sent as `Last-Event-ID`, the stream goes on from there.",
    ),
    (
        "/build/{id}/retry",
        "",
        "POST, contributors: build again. Answers `{\"build\", \"intent\"}` when the wish is durable.",
    ),
    (
        "/build/{id}/cancel",
        "",
        "POST, contributors: stop a build that waits or runs. Answers as `retry` does.",
    ),
    (
        "/builders",
        "/builders",
        "All builders with their newest builds, 200 at a time. `from=N`: pass over so many, `next` of the page before.",
    ),
    (
        "/builder/{name}",
        "/builder/linux-race",
        "One builder: how it does on each branch, over the newest 50 commits.",
    ),
    (
        "/machines",
        "/machines",
        "Host types with what is expected, connected, at work and waited for, and their machines, 200 at a time. `host`: one type; `from=N`: pass over so many of each.",
    ),
    (
        "/machine/{name}",
        "/machine/mac8",
        "One machine and the builds that had an attempt on it.",
    ),
    (
        "/queue",
        "/queue",
        "What waits, by host type in the order in which it should start, and what runs. `after` is the build right before it.",
    ),
    (
        "/status",
        "/status",
        "Whether each part is well, and as of when; for one in trouble, since when.",
    ),
    (
        "/search",
        "/search?q=1.0",
        "`q`: the beginning of a hash, words of a title or author, a part of the name of a builder, machine or branch. A build's number, a builder's name and a hash that begins one commit lead there.",
    ),
    (
        "/events",
        "",
        "Server-sent events: `changed` each time the store took something.",
    ),
    (
        "/events/grid",
        "",
        "Server-sent events of one grid: `repo`, `branch`, the grid's filters and the `tag` that its page has. `cells`: `[[id, html], …]` of what changed; `changed`: there are other rows or columns.",
    ),
];

#[tokio::test]
async fn the_documentation_has_every_address_and_its_answer() {
    let listed: Vec<&str> = PAGES.iter().map(|(path, ..)| *path).collect();
    assert_eq!(listed, dashboard::paths());
    let world = farm(THEN).await;
    let mut pages = String::new();
    for (path, example, about) in PAGES {
        let method = if about.starts_with("POST") { "" } else { "GET " };
        writeln!(pages, "### `{method}{path}`\n{about}\n").unwrap();
        if !example.is_empty() {
            let asked = example.replace("HASH", hash("main", 5).as_str());
            let mut answer = world.json(&asked).await;
            shorten(&mut answer);
            let text = serde_json::to_string_pretty(&answer).unwrap();
            writeln!(pages, "`{example}`\n```json\n{text}\n```\n").unwrap();
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let found = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = found.split_once("<!-- pages -->\n").expect("where pages begin");
    let (_, tail) = rest.split_once("<!-- end of pages -->").expect("where pages end");
    let wanted = format!("{head}<!-- pages -->\n\n{pages}<!-- end of pages -->{tail}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let fresh = path.with_extension("md.new");
        std::fs::write(&fresh, &wanted).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
    } else {
        assert!(
            found == wanted,
            "docs/api.md is stale; run the tests of `dashboard` with UPDATE_DOCS=1"
        );
    }
}

/// Of a list the first one is enough.
fn shorten(value: &mut Value) {
    match value {
        Value::Array(list) => {
            list.truncate(1);
            list.iter_mut().for_each(shorten);
        }
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
