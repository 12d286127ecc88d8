//! The repository of `up --demo`: a dozen commits of a small shell program, with one that breaks a
//! test and one that mends it, a race that only the slow builder finds, and a test that fails now
//! and then. Needs git and `/bin/sh`, no toolchain.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;

use config::Defaults;

use crate::args::Global;
use crate::failure::{Failure, at_path};
use crate::farm_file::{self, Found};
use crate::git;

const REPO: &str = "widget.git";

/// One commit: where, by whom, how many minutes ago, what is said and what is written.
struct Commit {
    branch: &'static str,
    author: &'static str,
    minutes_ago: i64,
    message: &'static str,
    files: &'static [(&'static str, &'static str)],
}

/// The demo's configuration under `state`, made there unless it is there already.
pub fn prepare(state: &Path, global: &Global, defaults: &Defaults) -> Result<Found, Failure> {
    let dir = state.join("demo");
    let file = dir.join(farm_file::NAME);
    // Written last: with it, all is there.
    let known = file.is_file();
    if !known {
        if dir.exists() {
            std::fs::remove_dir_all(&dir).map_err(|error| at_path("clear", &dir, &error))?;
        }
        std::fs::create_dir_all(&dir).map_err(|error| at_path("make", &dir, &error))?;
        make_repository(&dir)?;
        let text = configuration(&dir.join(REPO), &defaults.os_arch);
        std::fs::write(&file, text).map_err(|error| at_path("write", &file, &error))?;
    }
    let mut here = global.clone();
    here.state_dir = Some(state.to_owned());
    let mut found = farm_file::load(&file, &here, defaults)?;
    let made = if known { "going on with" } else { "made" };
    found.why = format!(
        "{made} the demo repository {}; {}",
        dir.join(REPO).display(),
        "commit to a clone of it, push, and watch"
    );
    Ok(found)
}

fn make_repository(dir: &Path) -> Result<(), Failure> {
    let repo = dir.join(REPO);
    git::git(dir, &["init", "--quiet", "--bare", "--initial-branch=main", REPO])?;
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    git::git_with_input(
        &repo,
        &["fast-import", "--quiet", "--done"],
        stream(now).as_bytes(),
    )?;
    Ok(())
}

/// All commits in the language of `git fast-import`.
fn stream(now: i64) -> String {
    let mut out = String::from("feature done\n");
    let mut heads: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, commit) in COMMITS.iter().enumerate() {
        let mark = i + 1;
        let time = now - commit.minutes_ago * 60;
        let text = |text: &str| format!("data {}\n{text}\n", text.len());
        let _ = writeln!(out, "commit refs/heads/{}\nmark :{mark}", commit.branch);
        let _ = writeln!(
            out,
            "author {0} {time} +0000\ncommitter {0} {time} +0000",
            commit.author
        );
        out.push_str(&text(commit.message));
        if let Some(parent) = heads.get(commit.branch).or_else(|| heads.get("main")) {
            _ = writeln!(out, "from :{parent}");
        }
        for (path, content) in commit.files {
            let mode = if content.starts_with("#!") {
                "100755"
            } else {
                "100644"
            };
            let _ = write!(out, "M {mode} inline {path}\n{}", text(content));
        }
        heads.insert(commit.branch, mark);
    }
    out.push_str("done\n");
    out
}

fn configuration(repo: &Path, os_arch: &str) -> String {
    let url = toml_text(&repo.to_string_lossy());
    format!(
        r#"# The farm of `burrow up --demo`. Change it while it runs: it is read again.

[farm]
name = "demo"

[repo.widget]
url = {url}
branches = ["main", "release/*"]
recipe = "widget"
poll = "2s"
backfill = 20

[host.local]
pool = "local"
slots = 2

[builder.{os_arch}]
host = "local"

[builder.{os_arch}-race]
host = "local"
env = ["WIDGET_RACE=1"]
notes = "Every test twice, and the counter from many processes at once: slower"

[recipe.widget]
steps = [
  {{ name = "build", run = ["./ci/build"], timeout = "1m" }},
  {{ name = "test", run = ["./ci/test"], timeout = "2m" }},
]
"#
    )
}

fn toml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

const ADA: &str = "Ada Lind <ada@widget.example>";
const TOM: &str = "Tom Okoro <tom@widget.example>";
const MEI: &str = "Mei Tanaka <mei@widget.example>";

const COMMITS: &[Commit] = &[
    Commit {
        branch: "main",
        author: ADA,
        minutes_ago: 4300,
        message: "start widget: slugs from titles\n",
        files: &[
            ("README.md", "# widget\n\nSmall text tools in plain shell.\n"),
            ("VERSION", "0.9\n"),
            ("ci/build", BUILD),
            ("ci/test", TEST),
            ("lib/slug.sh", SLUG),
            ("tests/slug.sh", TEST_SLUG),
        ],
    },
    Commit {
        branch: "main",
        author: TOM,
        minutes_ago: 4100,
        message: "wrap: break text at a column\n",
        files: &[("lib/wrap.sh", WRAP), ("tests/wrap.sh", TEST_WRAP)],
    },
    Commit {
        branch: "main",
        author: MEI,
        minutes_ago: 3000,
        message: "counter: count in a file\n\nSo that runs can be numbered.\n",
        files: &[
            ("lib/counter.sh", COUNTER_RACY),
            ("tests/counter.sh", TEST_COUNTER),
        ],
    },
    Commit {
        branch: "main",
        author: ADA,
        minutes_ago: 2880,
        message: "README: how to run the tests\n",
        files: &[(
            "README.md",
            "# widget\n\nSmall text tools in plain shell.\n\nTests: `./ci/build && ./ci/test`\n",
        )],
    },
    Commit {
        branch: "main",
        author: MEI,
        minutes_ago: 2700,
        message: "counter: take a lock\n\nThe race builder lost counts: two processes read the same number.\n",
        files: &[("lib/counter.sh", COUNTER_LOCKED)],
    },
    Commit {
        branch: "main",
        author: TOM,
        minutes_ago: 1600,
        message: "table: align columns\n",
        files: &[("lib/table.sh", TABLE), ("tests/table.sh", TEST_TABLE)],
    },
    Commit {
        branch: "release/1.0",
        author: ADA,
        minutes_ago: 1500,
        message: "release 1.0\n",
        files: &[("VERSION", "1.0\n")],
    },
    Commit {
        branch: "release/1.0",
        author: ADA,
        minutes_ago: 1450,
        message: "README: name the release\n",
        files: &[(
            "README.md",
            "# widget 1.0\n\nSmall text tools in plain shell.\n\nTests: `./ci/build && ./ci/test`\n",
        )],
    },
    Commit {
        branch: "main",
        author: TOM,
        minutes_ago: 900,
        message: "slug: do not fold, it is slow\n",
        files: &[("lib/slug.sh", SLUG_BROKEN)],
    },
    Commit {
        branch: "main",
        author: ADA,
        minutes_ago: 840,
        message: "slug: fold runs of dashes again\n\nTitles with punctuation gave `a--b`.\n",
        files: &[("lib/slug.sh", SLUG)],
    },
    Commit {
        branch: "main",
        author: MEI,
        minutes_ago: 300,
        message: "cache: remember what was made\n",
        files: &[("lib/cache.sh", CACHE), ("tests/cache.sh", TEST_CACHE_FLAKY)],
    },
    Commit {
        branch: "main",
        author: TOM,
        minutes_ago: 200,
        message: "wrap: say what it does\n",
        files: &[(
            "README.md",
            "# widget\n\nSmall text tools in plain shell: slug, wrap, counter, table, cache.\n\nTests: `./ci/build && ./ci/test`\n",
        )],
    },
    Commit {
        branch: "main",
        author: MEI,
        minutes_ago: 45,
        message: "cache: wait for the write, do not guess how long it takes\n",
        files: &[("tests/cache.sh", TEST_CACHE)],
    },
    Commit {
        branch: "main",
        author: ADA,
        minutes_ago: 8,
        message: "version 1.1\n",
        files: &[("VERSION", "1.1\n")],
    },
];

const BUILD: &str = r#"#!/bin/sh
# Checks every file and puts them together as build/widget.
set -eu
echo "widget $(cat VERSION), shell $(command -v sh), $(uname -sm)"
mkdir -p build
: > build/widget
for file in lib/*.sh; do
	printf 'check  %-18s ' "$file"
	sh -n "$file"
	echo "ok, $(wc -l < "$file" | tr -d ' ') lines"
	cat "$file" >> build/widget
	sleep 0.05
done
for file in tests/*.sh; do
	printf 'check  %-18s ' "$file"
	sh -n "$file"
	echo ok
done
echo "made   build/widget, $(wc -c < build/widget | tr -d ' ') bytes, cksum $(cksum < build/widget | cut -d ' ' -f 1)"
"#;

const TEST: &str = r#"#!/bin/sh
# Runs every test, or those named; WIDGET_RACE=1 runs each of them twice.
set -u
. ./build/widget
want() { # NAME WANTED FOUND
	if [ "$2" = "$3" ]; then
		echo "    ok   $1"
	else
		echo "    FAIL $1"
		echo "         wanted: $2"
		echo "         found:  $3"
		bad=1
	fi
}
TMP=$(mktemp -d); trap 'rm -rf "$TMP"' EXIT
failed= count=0
rounds=1; [ -n "${WIDGET_RACE-}" ] && rounds=2 && echo "race: every test twice"
for file in tests/*.sh; do
	name=$(basename "$file" .sh); bad=0; round=0
	echo "=== RUN  $name"
	while [ "$round" -lt "$rounds" ]; do
		. "./$file"; round=$((round + 1)); sleep 0.1
	done
	count=$((count + 1))
	if [ "$bad" = 0 ]; then echo "--- PASS $name"; else echo "--- FAIL $name"; failed="$failed $name"; fi
done
if [ -n "$failed" ]; then echo "FAILED:$failed"; exit 1; fi
echo "all $count tests passed"
"#;

const SLUG: &str = r#"# slug TEXT: lower case, one dash for what is no letter or digit
slug() { printf '%s' "$1" | tr 'A-Z' 'a-z' | tr -cs 'a-z0-9' '-' | sed 's/^-//; s/-$//'; }
"#;

const SLUG_BROKEN: &str = r#"# slug TEXT: lower case, a dash for what is no letter or digit
slug() { printf '%s' "$1" | tr 'A-Z' 'a-z' | tr -c 'a-z0-9' '-' | sed 's/^-//; s/-$//'; }
"#;

const TEST_SLUG: &str = r#"want "a word stays" "widget" "$(slug widget)"
want "capitals go" "widget" "$(slug Widget)"
want "a space is a dash" "small-text-tools" "$(slug 'Small text tools')"
want "punctuation folds into one dash" "what-is-new-in-1-0" "$(slug 'What is new, in 1.0?')"
"#;

const WRAP: &str = r#"# wrap COLUMN: lines of standard input, broken at spaces
wrap() { fold -s -w "$1" | sed 's/ *$//'; }
"#;

const TEST_WRAP: &str = r#"want "short lines stay" "one two" "$(echo 'one two' | wrap 20)"
want "long lines break at a space" "one two
three" "$(echo 'one two three' | wrap 9)"
"#;

const COUNTER_RACY: &str = r#"# count_up FILE: adds one to the number in FILE
count_up() {
	n=$(cat "$1" 2>/dev/null || echo 0)
	sleep 0.05
	echo $((n + 1)) > "$1"
}
"#;

const COUNTER_LOCKED: &str = r#"# count_up FILE: adds one to the number in FILE; one process at a time
count_up() {
	until mkdir "$1.lock" 2>/dev/null; do sleep 0.02; done
	n=$(cat "$1" 2>/dev/null || echo 0)
	sleep 0.02
	echo $((n + 1)) > "$1"
	rmdir "$1.lock"
}
"#;

const TEST_COUNTER: &str = r#"rm -f "$TMP/n"
count_up "$TMP/n"; count_up "$TMP/n"
want "counts up" 2 "$(cat "$TMP/n")"
if [ -n "${WIDGET_RACE-}" ]; then
	for i in 1 2 3 4; do count_up "$TMP/n" & done
	wait
	want "counts up from four processes at once" 6 "$(cat "$TMP/n")"
fi
"#;

const TABLE: &str = r#"# table: lines of `NAME VALUE` in two columns
table() { awk '{ printf "%-10s %6s\n", $1, $2 }'; }
"#;

const TEST_TABLE: &str = r#"want "columns line up" "lines          12" "$(echo 'lines 12' | table)"
"#;

const CACHE: &str = r#"# remember FILE TEXT: writes behind the caller's back; the disk takes a moment, or two
remember() {
	jitter=$(od -An -N1 -tu1 /dev/urandom | tr -d ' ')
	( sleep "0.$((jitter % 4 * 2))5"; echo "$2" > "$1.new"; mv "$1.new" "$1" ) > /dev/null 2>&1 &
}
"#;

const TEST_CACHE_FLAKY: &str = r#"rm -f "$TMP/cache"
remember "$TMP/cache" hello
sleep 0.35
want "is there a moment later" hello "$(cat "$TMP/cache" 2>/dev/null)"
wait
"#;

const TEST_CACHE: &str = r#"rm -f "$TMP/cache"
remember "$TMP/cache" hello
wait
want "is there once written" hello "$(cat "$TMP/cache" 2>/dev/null)"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_quotes_survive_the_configuration() {
        let text = configuration(Path::new(r#"/tmp/a "b" \c/widget.git"#), "linux-amd64");
        let files = [config::SourceFile {
            name: "burrow.toml".into(),
            text,
        }];
        let defaults = Defaults {
            cpus: 2,
            os_arch: "linux-amd64".into(),
            state_dir: "/tmp".into(),
        };
        let checked = config::Config::check(&files, &defaults).unwrap();
        assert_eq!(
            checked.config.repos.values().next().unwrap().url,
            r#"/tmp/a "b" \c/widget.git"#
        );
        assert_eq!(checked.config.builders.len(), 2);
    }

    #[test]
    fn git_takes_the_history_and_every_commit_has_its_date() {
        let dir = tempfile::tempdir().unwrap();
        make_repository(dir.path()).unwrap();
        let repo = dir.path().join(REPO);
        assert_eq!(git::line(&repo, &["rev-list", "--count", "main"]).unwrap(), "12");
        assert_eq!(
            git::line(&repo, &["rev-list", "--count", "main..release/1.0"]).unwrap(),
            "2"
        );
        assert_eq!(
            git::line(&repo, &["merge-base", "main", "release/1.0"])
                .unwrap()
                .len(),
            40
        );
        git::git(&repo, &["fsck", "--strict"]).unwrap();
    }
}
