use std::path::{Path, PathBuf};
use std::time::Duration;

use ids::{BranchName, RepoName};

use super::*;

mod docs;
mod mistakes;
mod recipes;

/// A farm with nothing wrong in it, put behind the text of a test that has no such tables.
const BASE: &str = r#"
[repo.widget]
url = "https://git.example.org/widget.git"
recipe = "make"
[host.local]
pool = "local"
[builder.linux-amd64]
host = "local"
[recipe.make]
steps = [{ name = "test", run = ["make", "test"] }]
"#;

fn defaults() -> Defaults {
    Defaults {
        cpus: 4,
        os_arch: "linux-amd64".to_owned(),
        state_dir: PathBuf::from("/var/lib/burrow"),
    }
}

fn files(files: &[(&str, &str)]) -> Vec<SourceFile> {
    files
        .iter()
        .map(|(name, text)| SourceFile {
            name: (*name).to_owned(),
            text: (*text).to_owned(),
        })
        .collect()
}

fn check(text: &str) -> Result<Checked, Problems> {
    Config::check(&files(&[("burrow.toml", text)]), &defaults())
}

fn good(text: &str) -> Config {
    check(text).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn lines(list: &[Problem]) -> Vec<String> {
    list.iter().map(Problem::to_string).collect()
}

/// The example of the specification, with `widget` alone: what this version can do of it.
const EXAMPLE: &str = include_str!("../testdata/example.toml");
/// The same in full.
const FULL_EXAMPLE: &str = include_str!("../testdata/full-example.toml");

#[test]
fn the_example_is_checked_and_its_idle_keys_are_told() {
    let Checked { config, notices } = check(EXAMPLE).unwrap_or_else(|problems| panic!("{problems}"));
    insta::assert_snapshot!("example_notices", lines(&notices).join("\n"));
    insta::assert_debug_snapshot!("example_config", config);
}

#[test]
fn the_full_example_tells_all_that_is_not_available() {
    let problems = check(FULL_EXAMPLE).unwrap_err();
    insta::assert_snapshot!("full_example_problems", problems.to_string());
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = good(BASE);
    let farm = &config.farm;
    assert_eq!(farm.name, "burrow");
    assert_eq!(farm.state_dir, Path::new("/var/lib/burrow"));
    assert_eq!(farm.listen_http.to_string(), "127.0.0.1:8080");
    assert_eq!(farm.store, StoreUrl::Embedded);
    assert_eq!((farm.disk_floor, farm.max_log), (1 << 30, 32 << 20));
    assert_eq!(farm.keep_logs, Duration::from_secs(90 * 86_400));
    assert_eq!(farm.wait_limit, Duration::from_secs(86_400));
    assert_eq!(
        config.hosts.values().next().unwrap().pool,
        Pool::Local { slots: 4 }
    );
    let repo = config.repos.values().next().unwrap();
    assert_eq!((repo.poll, repo.backfill), (Duration::from_secs(30), 10));
    assert_eq!(repo.branches, []);
    let builder = config.builders.values().next().unwrap();
    assert_eq!(
        (builder.group.as_str(), builder.time_scale, builder.max_at_once),
        ("linux", 1, None)
    );
    let step = &config.recipes.values().next().unwrap().steps[0];
    assert_eq!(step.dir, "src");
    assert_eq!(
        (step.timeout, step.silence),
        (Duration::from_secs(3600), Duration::from_secs(1800))
    );
}

#[test]
fn commands_of_a_host_type_are_kept_within_limits() {
    let with = |keys: &str| BASE.replace("pool = \"local\"\n", &format!("pool = \"local\"\n{keys}\n"));
    let limits = |config: &Config| config.hosts.values().next().map(|host| host.limits);
    assert_eq!(limits(&good(BASE)), Some(ids::Limits::default()));
    let keys = "memory_limit = \"4GiB\"\nprocess_limit = 500\noutput_limit = \"1MB\"\nnetwork = false\nconfine = true";
    let config = good(&with(keys));
    let wanted = ids::Limits {
        memory: Some(4 << 30),
        processes: Some(500),
        output: Some(1_000_000),
        no_network: true,
        confined: true,
    };
    assert_eq!(limits(&config), Some(wanted));
    assert_eq!(limits(&good(&to_toml(&config))), Some(wanted));
    for (key, why) in [
        ("memory_limit = 4", "`4` has no unit"),
        ("memory_limit = \"0B\"", "nothing runs with so little"),
        ("process_limit = 0", "`0` is out of range; wanted 1 to 10000000"),
        ("network = \"off\"", "wanted `true` or `false`, found text"),
    ] {
        let problems = check(&with(key)).expect_err("it is wrong").to_string();
        assert!(problems.contains(why), "{problems}");
    }
}

#[test]
fn what_is_said_is_taken() {
    let config = good(
        r#"
[farm]
name = "example"
public_url = "https://farm.example.org"
listen = "0.0.0.0:80"
insecure_http = true
listen_https = "0.0.0.0:443"
tls_cert = "/etc/cert.pem"
tls_key = "/etc/key.pem"
store = "postgres://burrow:hunter2@db/farm"
disk_floor = "512MiB"
keep_logs = "7d"
max_log = "1MB"
wait_limit = "1h30m"
[forge.review]
kind = "gerrit"
git = "https://go.example.org/"
[forge.hub]
kind = "github"
[repo]
sys = { forge = "review", project = "x/sys", recipe = "r", branches = ["main", "release/*"], poll = "1m", backfill = 0 }
r = { forge = "hub", project = "acme/r", branches = "main" }
[policy.repos.base]
rules = [{ build = true }]
[policy.repos.main]
extends = "base"
rules = [{ repo = "!sys", build = false }, { target_branch = "release/*", build = false }]
[host.rack]
pool = "reverse"
expect = 4
accept_development_keys = true
env = ["GO_TEST_TIMEOUT_SCALE=5", "A=b=c", "EMPTY="]
owners = ["github:someone"]
[builder."b.x"]
host = "rack"
builds = "main"
group = "boards"
order = -2
max_at_once = 2
known_issues = [42, "https://example.org/1"]
recipe = "r"
[builder.a]
host = "rack"
time_scale = 3
[recipe.r]
source = "code"
steps = [
  { name = "one", run = "make && make test" },
  { name = "two", run = ["prog", ""], dir = "./code//sub/", timeout = "40m", no_output = "90s", env = ["X=1"] },
]
"#,
    );
    let farm = &config.farm;
    assert_eq!(farm.public_url.as_deref(), Some("https://farm.example.org/"));
    assert_eq!(
        farm.tls.as_ref().map(|tls| tls.key.as_path()),
        Some(Path::new("/etc/key.pem"))
    );
    assert!(matches!(&farm.store, StoreUrl::Postgres(url) if url.expose().contains("hunter2")));
    let urls: Vec<&str> = config.repos.values().map(|repo| repo.url.as_str()).collect();
    assert_eq!(
        urls,
        ["https://github.com/acme/r.git", "https://go.example.org/x/sys"]
    );
    let host = config.hosts.values().next().unwrap();
    assert_eq!(
        host.pool,
        Pool::Reverse {
            expect: 4,
            development_key: true
        }
    );
    let pairs: Vec<(&str, &str)> = host.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        pairs,
        [("GO_TEST_TIMEOUT_SCALE", "5"), ("A", "b=c"), ("EMPTY", "")]
    );
    let scales: Vec<u32> = config
        .builders
        .values()
        .map(|builder| builder.time_scale)
        .collect();
    assert_eq!(scales, [3, 5]);
    let steps = &config.recipes.values().next().unwrap().steps;
    assert_eq!(steps[0].run, Run::Shell("make && make test".to_owned()));
    assert_eq!(
        (steps[0].dir.as_str(), steps[1].dir.as_str()),
        ("code", "code/sub")
    );

    let builders = |repo: &str, branch: &str| -> Vec<String> {
        let found = config.builders_for(
            &RepoName::parse(repo).unwrap(),
            &BranchName::parse(branch).unwrap(),
        );
        found.iter().map(|name| name.to_string()).collect()
    };
    assert_eq!(builders("sys", "main"), ["a", "b.x"]);
    assert_eq!(builders("sys", "release/1"), ["a"]);
    assert_eq!(builders("r", "main"), ["a"]);
}

#[test]
fn files_of_a_folder_are_one_configuration() {
    let (head, tail) = BASE.split_once("[host.local]").unwrap();
    let tail = format!("[host.local]{tail}");
    let split = files(&[
        ("a.toml", head),
        ("b.toml", &tail),
        ("c.toml", "[farm]\nname = 'x'"),
    ]);
    let config = Config::check(&split, &defaults()).unwrap().config;
    assert_eq!(config.farm.name, "x");
    assert_eq!(config.builders.len(), 1);
}

#[test]
fn a_table_in_two_files_is_a_mistake_that_names_both() {
    let twice = files(&[
        ("a.toml", BASE),
        (
            "b.toml",
            "[farm]\nname = 'x'\n[builder.linux-amd64]\nhost = 'local'",
        ),
        ("c.toml", "[farm]\nname = 'y'"),
    ]);
    let problems = Config::check(&twice, &defaults()).unwrap_err();
    assert_eq!(
        lines(problems.list()),
        [
            "b.toml:3:10: builder.linux-amd64: is given twice: first at a.toml:7:10 (keep it in one file)",
            "c.toml:2:1: farm.name: is given twice: first at b.toml:2:1 (keep it in one file)",
        ]
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_text() {
    let text = format!("[farm]\nnam = 'x'\n[builder.a]\nhost = 'locla'\n[host.b]\npool = 'gce'\n{BASE}");
    let problems = check(&text).unwrap_err();
    assert_eq!(
        lines(problems.list()),
        [
            "burrow.toml:2:1: farm.nam: unknown key `nam` (did you mean `name`?)",
            "burrow.toml:4:8: builder.a.host: no host type `locla`; there are: b, local (did you mean `local`?)",
            "burrow.toml:6:8: host.b.pool: pool `gce` is not available; there are: local, reverse",
        ]
    );
}

#[test]
fn mistakes_are_shown_under_their_line() {
    let text = format!("[builder.arm]\nhost = \"locla\"\n{BASE}");
    let problems = check(&text).unwrap_err();
    insta::assert_snapshot!("rendered", problems.render(false));
    assert!(problems.render(true).contains("\u{1b}["));
    assert!(!problems.render(false).contains("\u{1b}["));
}

#[test]
fn a_mistake_over_several_lines_is_shown_by_its_first() {
    let problems = check("[farm]\nname = [\n  1,\n]\n").unwrap_err();
    let shown = problems.render(false);
    assert!(
        shown.contains("2 | name = [") && !shown.contains("4 | ]"),
        "{shown}"
    );
}

#[test]
fn no_secret_is_ever_printed() {
    let text = r#"
[farm]
store = "postgres://burrow:hunter2@db/farm?" # wrong
stoer = "postgres://burrow:hunter2@db/farm"
public_url = "ftp://u:hunter2@h"
[forge.f]
kind = "git"
git = " https://u:hunter2@h"
auth = { pasword = 1, password = "hunter2" }
[host.h]
pool = "local"
env = ["API_TOKEN hunter2", " TOKEN=hunter2"]
"#
    .to_owned()
        + BASE;
    let problems = check(&text).unwrap_err();
    // The entry without `=` cannot be told from harmless text in its line; the message is silent.
    let rendered = problems.render(false).replace("\"API_TOKEN hunter2\"", "");
    assert!(!rendered.contains("hunter2"), "{rendered}");
    assert!(!problems.to_string().contains("hunter2"), "{problems}");
    assert!(!format!("{problems:?}").contains("hunter2"));

    let config = good(&("[farm]\nstore = 'postgres://u:hunter2@db/f'".to_owned() + BASE));
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(!to_toml(&config).contains("hunter2"));
    let syntax = check("[farm]\nstore = 'postgres://u:hunter2@db/f\n").unwrap_err();
    assert!(
        !syntax.render(false).contains("hunter2"),
        "{}",
        syntax.render(false)
    );
}

#[test]
fn what_leads_nowhere_is_noticed() {
    let text = r#"
[repo.alone]
url = "/srv/alone"
recipe = "make"
[host.idle]
pool = "reverse"
[recipe.idle]
steps = [{ name = "x", run = "x" }]
[builder.never]
host = "local"
post_submit = "never"
"#
    .to_owned()
        + &BASE.replace(
            "host = \"local\"\n",
            "host = \"local\"\nbuilds = [{ repo = \"widget\", build = true }]\n",
        );
    let checked = check(&text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(
        lines(&checked.notices),
        [
            "burrow.toml:2:7: repo.alone: no builder builds it",
            "burrow.toml:5:7: host.idle: no builder uses it",
            "burrow.toml:7:9: recipe.idle: nothing uses it",
            "burrow.toml:11:1: builder.never.post_submit: builds nothing in this version: proposed changes are not built yet",
        ]
    );
}

#[test]
fn a_reload_tells_what_it_changes_and_no_address() {
    let old = good(BASE);
    let new = BASE
        .replace("git.example.org", "u:hunter2@git.example.org")
        .replace("[builder.linux-amd64]", "[builder.linux-386]")
        .replace("pool = \"local\"", "pool = \"local\"\nslots = 2");
    let new = good(&format!("[farm]\nlisten = '127.0.0.1:9'\n{new}"));
    assert_eq!(
        diff(&old, &new),
        [
            "farm: listen changed, takes effect at the next start",
            "repo widget: url changed",
            "host local: slots changed from 4 to 2",
            "builder linux-amd64 removed",
            "builder linux-386 added",
        ]
    );
    assert_eq!(diff(&new, &new), Vec::<String>::new());
}

#[test]
fn every_text_that_is_printed_back_means_the_same() {
    for text in [BASE, EXAMPLE] {
        let config = good(text);
        let again = good(&to_toml(&config));
        assert_eq!(again, config, "{}", to_toml(&config));
    }
    let odd = r#"
[farm]
listen = "[::]:1"
insecure_http = true
listen_https = "[::]:2"
tls_cert = "a"
tls_key = "b c"
[forge.hub]
kind = "github"
auth = { token_env = "T" }
[forge.rev]
kind = "gerrit"
git = "https://r.example.org"
auth = { cookies_file = "c d" }
[maintner]
public = true
github_rate = 0
pubsub = "https://p.example.org/"
[maintner.watch.a]
forge = "hub"
projects = ["o/n", "o/m"]
[maintner.watch.b]
forge = "rev"
projects = ["x/y/z"]
poll = "1h"
[repo."w.x"]
url = 'C:\git "x"'
recipe = "r"
branches = ["main", "!old*"]
[host.h]
pool = "reverse"
accept_development_keys = true
env = ["A=\"q\" \\ 'p'", "B=line\nline"]
notes = "ä\t\u0001"
[builder.n]
host = "h"
post_submit = "never"
[builder.y]
host = "h"
builds = [{ repo = ["w.x", "!z"], branch = "main", build = true }]
known_issues = [1]
[recipe.r]
steps = [{ name = "a b", run = "x\ny", dir = ".", env = ["K=v"], timeout = "250ms", no_output = "1d" }]
"#;
    let config = good(odd);
    assert_eq!(good(&to_toml(&config)), config, "{}", to_toml(&config));
}

#[test]
fn names_of_machines_are_those_that_builders_bear() {
    for (os, arch, name) in [
        ("linux", "x86_64", "linux-amd64"),
        ("macos", "aarch64", "darwin-arm64"),
        ("windows", "x86", "windows-386"),
        ("linux", "riscv64", "linux-riscv64"),
    ] {
        assert_eq!(os_arch(os, arch), name);
    }
}

#[test]
fn no_text_makes_the_checker_panic() {
    // Every beginning of a file that holds every kind of thing, and the same with a byte changed.
    let step = 7;
    for end in (0..FULL_EXAMPLE.len())
        .step_by(step)
        .filter(|end| FULL_EXAMPLE.is_char_boundary(*end))
    {
        let _ = check(&FULL_EXAMPLE[..end]).map_err(|problems| problems.to_string());
        let mut bytes = FULL_EXAMPLE.as_bytes().to_vec();
        bytes[end] = b'"';
        if let Ok(text) = String::from_utf8(bytes)
            && let Err(problems) = check(&text)
            && end % (step * 10) == 0
        {
            assert!(!problems.render(false).is_empty());
        }
    }
}
