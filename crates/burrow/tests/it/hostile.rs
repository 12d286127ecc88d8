//! Repositories and steps that are made to do harm, or happen to, through a real farm: each ends in a clear result, on
//! a machine that is none the worse, and on a page that shows it safely.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::farm::{Process, git, git_with, repository};
use crate::peers::runs;
use crate::until;

/// A farm with two machines, and for each repository (a folder of that name) one step, a shell script.
fn farm(dir: &Path, farm: &str, repos: &[(&str, &str)]) -> Process {
    let mut text = format!(
        "[farm]\nlisten = \"127.0.0.1:0\"\n{farm}\n[host.box]\npool = \"local\"\nslots = 2\n[builder.b]\nhost = \"box\"\n"
    );
    for (name, script) in repos {
        let url = dir.join(name);
        text += &format!(
            "[repo.{name}]\nurl = {url:?}\npoll = \"1s\"\nbackfill = 1\nrecipe = \"{name}\"\n[recipe.{name}]\n\
             steps = [{{ name = \"test\", run = [\"sh\", \"-c\", {script:?}] }}]\n"
        );
    }
    fs::write(dir.join("burrow.toml"), text).expect("a file");
    Process::start(dir, dir, &["serve", "--config", "burrow.toml"])
}

/// The page of a build as JSON and as HTML.
fn pages(farm: &Process, build: &Value) -> (Value, String) {
    let path = format!("/build/{}", build["id"]);
    let (status, html) = farm.get(&path);
    assert_eq!(status, 200, "{path}");
    (
        farm.json(&format!("{path}.json")),
        String::from_utf8(html).expect("a page is UTF-8"),
    )
}

fn passed(farm: &Process, repo: &str) -> Value {
    let build = farm.done(repo);
    let log = String::from_utf8_lossy(&farm.log(&build)).into_owned();
    assert_eq!(build["status"], "passed", "{repo}: {build} {log}");
    build
}

fn notes(page: &Value) -> String {
    page["attempts"][0]["notes"].to_string()
}

#[test]
fn odd_commits_are_built_and_what_is_odd_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let at = |name: &str| dir.join(name);

    repository(
        &at("submodule"),
        &[
            ("a", "a"),
            (
                ".gitmodules",
                "[submodule \"sub\"]\n\tpath = sub\n\turl = /nowhere\n",
            ),
        ],
    );
    let nowhere = format!("160000,{},sub", "1".repeat(40));
    git(
        &at("submodule"),
        &["update-index", "--add", "--cacheinfo", &nowhere],
    );
    git(
        &at("submodule"),
        &["commit", "-q", "-m", "a submodule that is nowhere"],
    );

    fs::create_dir(at("bytes")).expect("a folder");
    git(&at("bytes"), &["init", "-q"]);
    let message = b"caf\xe9 <script>alert(1)</script> \x1b[31mred\xff\n\nbody \x00 end";
    let message: Vec<u8> = message.iter().copied().filter(|&byte| byte != 0).collect();
    let mut stream =
        b"commit refs/heads/main\nauthor Ren\xe9 \x07\"& <r\xe9ne@example.org> 1700000000 +0000\n\
                       committer Ann <ann@example.org> 99999999999 +0000\n"
            .to_vec();
    stream.extend(format!("data {}\n", message.len()).into_bytes());
    stream.extend(&message);
    stream.extend(b"\nM 100644 inline a\ndata 1\na\nM 100644 inline \"na\\351me\"\ndata 1\nb\n");
    git_with(&at("bytes"), &["fast-import", "--quiet"], &stream);

    repository(
        &at("links"),
        &[("a", "a"), ("d/b", "b"), ("README", "1"), ("readme", "2")],
    );
    for (name, target) in [
        ("in", "a"),
        ("d/up", "../a"),
        ("out", "../../etc/passwd"),
        ("root", "/etc/passwd"),
    ] {
        std::os::unix::fs::symlink(target, at("links").join(name)).expect("a link");
    }
    git(&at("links"), &["add", "-A"]);
    git(&at("links"), &["commit", "-q", "-m", "links"]);

    repository(&at("refs"), &[("a", "a")]);
    let head = git(&at("refs"), &["rev-parse", "HEAD"]);
    for name in [
        "refs/heads/--upload-pack=touch",
        "refs/tags/--upload-pack=touch",
        "refs/heads/-x",
    ] {
        git(&at("refs"), &["update-ref", name, &head]);
    }

    let farm = farm(
        dir,
        "",
        &[
            ("submodule", "test -d sub && test -z \"$(ls -A sub)\""),
            ("bytes", "test -f a && test \"$(ls | wc -l)\" = 1"),
            (
                "links",
                "test \"$(cat in d/up README readme)\" = aa12 && test ! -L out && test ! -L root",
            ),
            ("refs", "test -f a"),
        ],
    );
    passed(&farm, "submodule");

    let (page, html) = pages(&farm, &passed(&farm, "bytes"));
    assert!(
        page["commit"]["title"]
            .as_str()
            .is_some_and(|title| title.starts_with("caf\u{fffd} <script>")),
        "{page}"
    );
    assert!(
        html.contains("caf\u{fffd} &lt;script&gt;") && !html.contains("<script>alert"),
        "escaped"
    );
    assert!(
        !html.contains('\u{1b}') && !html.contains('\u{7}'),
        "no control character reaches a page"
    );
    assert!(notes(&page).contains("no UTF-8: `na\\\\xe9me`"), "{page}");

    let (page, html) = pages(&farm, &passed(&farm, "links"));
    let told = notes(&page);
    for wanted in ["`out -> ../../etc/passwd`, `root -> /etc/passwd`", "`readme`"] {
        assert!(told.contains(wanted), "{told}");
    }
    assert!(html.contains("Left out of the source"), "the page says so");

    passed(&farm, "refs");
    assert_eq!(farm.builds("refs").len(), 1);
    let (ok, told) = farm.health("repository refs");
    assert!(ok && told.contains("--upload-pack=touch, -x"), "{told}");
}

#[test]
fn a_hundred_thousand_refs_take_a_while_and_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("many");
    repository(&place, &[("a", "a")]);
    let head = git(&place, &["rev-parse", "HEAD"]);
    let names = (100_000..200_000).map(|n| {
        if n % 2 == 0 {
            format!("heads/b{n}")
        } else {
            format!("tags/t{n}")
        }
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    let lines = names.iter().map(|name| format!("{head} refs/{name}\n"));
    let packed = "# pack-refs with: peeled fully-peeled sorted \n".to_owned() + &lines.collect::<String>();
    fs::write(place.join(".git/packed-refs"), packed).expect("a file");
    let farm = farm(folder.path(), "", &[("many", "test -f a")]);
    passed(&farm, "many");
    // Every look after the first is quick, and sees what is new.
    git(&place, &["commit", "-q", "--allow-empty", "-m", "two"]);
    until("the second commit is built", || {
        let builds = farm.builds("many");
        (builds.len() == 2 && builds[0]["status"] == "passed").then_some(())
    });
    assert!(memory(farm.child.id()) < 400, "{} MiB", memory(farm.child.id()));
}

/// The most memory that a process ever had, in MiB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.expect("a number") >> 10
}

/// The buildlets of a farm.
pub fn buildlets(farm: &Process) -> Vec<u32> {
    let state = farm.state();
    let state = state.to_str().expect("a path");
    let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ours = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(state) && line.contains("-report-file")
    };
    pids.filter(ours).collect()
}

#[test]
fn a_file_of_one_gib_goes_through_in_bounded_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("large");
    repository(&place, &[("a", "a")]);
    // A file of holes: quick to make, and small wherever it is compressed.
    let file = fs::File::create(place.join("big")).expect("a file");
    file.set_len(1 << 30).expect("a length");
    git(
        &place,
        &[
            "-c",
            "core.compression=1",
            "-c",
            "core.bigFileThreshold=1m",
            "add",
            "big",
        ],
    );
    git(&place, &["commit", "-q", "-m", "large"]);
    fs::remove_file(place.join("big")).expect("removed");
    let farm = farm(
        folder.path(),
        "",
        &[("large", "test \"$(stat -c %s big)\" = 1073741824")],
    );
    passed(&farm, "large");
    let all: Vec<u64> = buildlets(&farm)
        .into_iter()
        .chain([farm.child.id()])
        .map(memory)
        .collect();
    assert!(all.len() == 3 && all.iter().all(|&mib| mib < 300), "{all:?} MiB");
}

/// What no other test's command has in its command line.
fn mark(name: &str) -> String {
    format!("86{}.{}", std::process::id(), name.len())
}

#[test]
fn hostile_steps_end_clearly_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let (forked, closed, parent) = (mark("forked"), mark("closed!"), mark("parent!!"));
    let many = mark("processes");
    let steps: Vec<(&str, String)> = vec![
        // Into the background, in a session of its own, its parents gone, with the output held.
        ("forks", format!("(setsid sh -c 'sleep {forked} & sleep {forked}' &) ; echo done")),
        ("closes", format!("exec 1>&- 2>&-; sleep {closed} & sleep 0.3; exit 7")),
        ("lines", "head -c 3000000 /dev/zero | tr '\\0' x".to_owned()),
        (
            "escapes",
            "printf '\\033[31mred\\033[0m \\033]0;title\\007 \\033[2J<script>alert(1)</script> \\360\\237 \\r\\b\\000<b>\\n'; exit 3"
                .to_owned(),
        ),
        ("parent", format!("sleep {parent} & kill -KILL $PPID; kill -KILL $$; sleep {parent}")),
        (
            "processes",
            // Shells that wait for a line that never comes. As many as there may be; what cannot be forked is the step's affair.
            format!(
                ": {many}; mkfifo f; n=0; while [ $n -lt 10000 ]; do (read x < f) & n=$((n+1)); done; echo started"
            ),
        ),
        ("fills", "ulimit -f 20480; head -c 100000000 /dev/zero > big".to_owned()),
    ];
    for (name, _) in &steps {
        repository(&dir.join(name), &[("a", "a")]);
    }
    let repos: Vec<(&str, &str)> = steps
        .iter()
        .map(|(name, script)| (*name, script.as_str()))
        .collect();
    let farm = farm(dir, "", &repos);
    let ended = |name: &str, status: &str, reason: &str| {
        let build = farm.done(name);
        assert_eq!(build["status"], status, "{name}: {build}");
        assert!(
            build["reason"].as_str().unwrap_or_default().contains(reason),
            "{name}: {build}"
        );
        let (page, html) = pages(&farm, &build);
        assert!(
            !html.contains("<script>alert") && !html.contains('\u{1b}') && !html.contains('\0'),
            "{name}"
        );
        (page, html, farm.log(&build))
    };

    let (_, _, log) = ended("forks", "passed", "");
    let log = String::from_utf8_lossy(&log).into_owned();
    assert!(
        log.starts_with("done\n") && log.contains("sleep"),
        "what was left is named: {log}"
    );
    let (_, html, log) = ended("closes", "failed", "exit status 7");
    assert!(log.is_empty() || !html.contains("It printed nothing"), "{html}");
    let (page, html, log) = ended("lines", "passed", "");
    assert!(
        log.len() == 3_000_000 && log.iter().all(|&byte| byte == b'x'),
        "kept whole"
    );
    assert!(
        html.len() < 1_000_000 && page["log"]["lines"] == 1,
        "and shown in part: {}",
        html.len()
    );
    let (_, html, log) = ended("escapes", "failed", "exit status 3");
    assert!(
        log.starts_with(b"\x1b[31mred") && log.contains(&0),
        "the log is as it was printed"
    );
    assert!(html.contains("&lt;script&gt;alert(1)"), "the page is not");
    let (_, _, _) = ended("fills", "failed", "");
    let (_, _, log) = ended("processes", "passed", "");
    let log = String::from_utf8_lossy(&log).into_owned();
    assert!(
        log.starts_with("started\n") && log.trim_end().ends_with(" more"),
        "some are named: {log}"
    );
    // Who kills the agent has lost its machine; it is tried again later, and the page says why.
    until("the attempt that killed its parent is lost", || {
        let build = farm.builds("parent").into_iter().next()?;
        let page = farm.json(&format!("/build/{}.json", build["id"]));
        let first = &page["attempts"][0];
        let reason = first["reason"].as_str()?;
        (first["status"] == "infra" && reason.contains("buildlet ended")).then_some(())
    });
    for (name, left) in [
        ("forks", &forked),
        ("closes", &closed),
        ("parent", &parent),
        ("processes", &many),
    ] {
        until(&format!("nothing of {name} runs"), || (!runs(left)).then_some(()));
    }
    // And the machines work on.
    repository(&dir.join("forks"), &[("b", "b")]);
    until("another commit is built", || {
        let builds = farm.builds("forks");
        (builds.len() == 2 && builds[0]["status"] == "passed").then_some(())
    });
}

#[test]
fn a_step_that_prints_one_gib_is_kept_in_part_and_the_page_says_which() {
    let folder = tempfile::tempdir().expect("a folder");
    repository(&folder.path().join("prints"), &[("a", "a")]);
    let script = "echo first; head -c 1073741824 /dev/zero | tr '\\0' '\\n'; echo last; exit 1";
    let farm = farm(folder.path(), "max_log = \"1MiB\"", &[("prints", script)]);
    let build = farm.done("prints");
    assert_eq!(build["status"], "failed", "{build}");
    let log = farm.log(&build);
    assert!(log.len() < (2 << 20), "{}", log.len());
    assert!(
        log.starts_with(b"first\n") && log.ends_with(b"last\n"),
        "its beginning and its end are kept"
    );
    let said = String::from_utf8_lossy(&log).into_owned();
    let left: u64 = said
        .split("[burrow: ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .expect("what was left out is said");
    let mark = format!("\n[burrow: {left} bytes left out here]\n").len() as u64;
    assert_eq!(left + log.len() as u64 - mark, 1_073_741_824 + 11, "to the byte");
    let (_, html) = pages(&farm, &build);
    assert!(html.contains("bytes left out here") || html.contains("not shown"));
    let all: Vec<u64> = buildlets(&farm)
        .into_iter()
        .chain([farm.child.id()])
        .map(memory)
        .collect();
    assert!(all.iter().all(|&mib| mib < 300), "{all:?} MiB");
}
