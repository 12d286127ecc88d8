//! Every mistake, and what is said of it.

use super::*;

/// What a mistake is called in the documentation, a text with it (put before [`BASE`]), and the
/// lines that tell it, without the file's name.
pub(super) struct Mistake {
    pub name: &'static str,
    pub text: &'static str,
    pub told: &'static [&'static str],
}

const fn mistake(name: &'static str, text: &'static str, told: &'static [&'static str]) -> Mistake {
    Mistake { name, text, told }
}

#[rustfmt::skip]
pub(super) const MISTAKES: &[Mistake] = &[
    mistake("not TOML", "[farm]\nname = \n", &[
        "2:8: not TOML: string values must be quoted, expected literal string",
    ]),
    mistake("a string without its end", "[farm]\nname = \"x\n", &[
        "2:10: not TOML: invalid basic string, expected `\"`",
    ]),
    mistake("a key given twice", "[farm]\nname = 'a'\nname = 'b'", &[
        "3:1: `name` is given twice (keep one of them)",
    ]),
    mistake("an unknown table", "[hosts.x]\npool = 'local'", &[
        "1:2: hosts: unknown key `hosts` (did you mean `host`?)",
    ]),
    mistake("an unknown key", "[farm]\npublic_ur = 'https://x'", &[
        "2:1: farm.public_ur: unknown key `public_ur` (did you mean `public_url`?)",
    ]),
    mistake("an unknown key, nothing like it", "[policy.repos.x]\ncolour = 1", &[
        "2:1: policy.repos.x.colour: unknown key `colour` (there are: extends, rules)",
    ]),
    mistake("an unknown key in a step", "[recipe.x]\nsteps = [{ name = 'a', run = 'a', timout = '1h' }]", &[
        "2:35: recipe.x.steps[0].timout: unknown key `timout` (did you mean `timeout`?)",
    ]),
    mistake("an unknown key in a rule", "[policy.repos.x]\nrules = [{ repos = 'a', build = true }]", &[
        "2:12: policy.repos.x.rules[0].repos: unknown key `repos` (did you mean `repo`?)",
    ]),
    mistake("an unknown key in an inline table", "[builder.x]\nhost = 'local'\ntry = { brunch = 'main' }", &[
        "3:9: builder.x.try.brunch: unknown key `brunch` (did you mean `branch`?)",
    ]),
    mistake("a value of the wrong type", "[farm]\nname = 3", &[
        "2:8: farm.name: wanted text in quotes, found a number",
    ]),
    mistake("a table given twice", "[host.x]\npool = 'local'\n[host.x]\npool = 'local'", &[
        "3:7: `x` is given twice (keep one of them)",
        "4:1: `pool` is given twice (keep one of them)",
    ]),
    mistake("a table of the wrong type", "slowbots = 3", &[
        "1:12: slowbots: wanted a table, found a number",
    ]),
    mistake("a value where tables are", "host = 3", &[
        "6:2: not TOML: cannot extend value of type integer with a dotted key",
    ]),
    mistake("a list of tables where they have names", "[[builder]]\nhost = 'local'", &[
        "1:1: builder: wanted tables with names, found a list (write `[builder.NAME]`, not `[[builder]]`)",
    ]),
    mistake("an empty text", "[farm]\nname = ''", &[
        "2:8: farm.name: is empty (give it a value or leave the key out)",
    ]),
    mistake("a number out of range", "[builder.x]\nhost = 'local'\ntime_scale = 0", &[
        "3:14: builder.x.time_scale: `0` is out of range; wanted 1 to 1000",
    ]),
    mistake("a number too large for any key", "[builder.x]\nhost = 'local'\norder = 99999999999999999999", &[
        "3:9: builder.x.order: the number is out of range; wanted -1000000 to 1000000",
    ]),
    mistake("a number in quotes", "[builder.x]\nhost = 'local'\ntime_scale = '3'", &[
        "3:14: builder.x.time_scale: wanted a number from 1 to 1000, without quotes, found text",
    ]),
    mistake("a duration without unit", "[farm]\nkeep_logs = '90'", &[
        "2:13: farm.keep_logs: `90` has no unit (wanted such as `90s`, `40m`, `2h`, `7d` or `1h30m`)",
    ]),
    mistake("a duration that is a number", "[farm]\nkeep_logs = 90", &[
        "2:13: farm.keep_logs: `90` has no unit (wanted such as `90s`, `40m`, `2h`, `7d` or `1h30m`)",
    ]),
    mistake("no duration", "[farm]\nwait_limit = 'soon'", &[
        "2:14: farm.wait_limit: `soon` is not a duration (wanted such as `90s`, `40m`, `2h`, `7d` or `1h30m`)",
    ]),
    mistake("a duration of nothing", "[farm]\nwait_limit = '0s'", &[
        "2:14: farm.wait_limit: `0s` is no time at all (wanted such as `90s`, `40m`, `2h`, `7d` or `1h30m`)",
    ]),
    mistake("a duration beyond reason", "[farm]\nkeep_logs = '5000d'", &[
        "2:13: farm.keep_logs: `5000d` is longer than 3650 days (wanted such as `90s`, `40m`, `2h`, `7d` or `1h30m`)",
    ]),
    mistake("a size without unit", "[farm]\ndisk_floor = '1024'", &[
        "2:14: farm.disk_floor: `1024` has no unit (wanted such as `512MiB`, `8GiB` or `100MB`)",
    ]),
    mistake("a size that is a number", "[farm]\ndisk_floor = 1024", &[
        "2:14: farm.disk_floor: `1024` has no unit (wanted such as `512MiB`, `8GiB` or `100MB`)",
    ]),
    mistake("no size", "[farm]\nmax_log = 'big'", &[
        "2:11: farm.max_log: `big` is not a size (wanted such as `512MiB`, `8GiB` or `100MB`)",
    ]),
    mistake("a size of nothing for logs", "[farm]\nmax_log = '0B'", &[
        "2:11: farm.max_log: no log could be kept (wanted such as `32MiB`)",
    ]),
    mistake("`public_url` not http", "[farm]\npublic_url = 'ftp://x'", &[
        "2:14: farm.public_url: `ftp://x` is no `http://` or `https://` address (wanted such as `https://farm.example.org/`)",
    ]),
    mistake("`public_url` with a query", "[farm]\npublic_url = 'https://x/?y'", &[
        "2:14: farm.public_url: holds more than a host and a path (wanted such as `https://farm.example.org/`)",
    ]),
    mistake("a name of the farm with a scheme", "[farm]\nnames = ['a', 'https://farm.example.org']", &[
        "2:9: farm.names: `https://farm.example.org` is no name of a host (wanted such as `farm.example.org`, without `https://` and port)",
    ]),
    mistake("no way of reading", "[farm]\nreading = 'private'", &[
        "2:11: farm.reading: `private` is no way of reading (wanted `open`: anybody reads, or `closed`: holders of a token do)",
    ]),
    mistake("a secret by a path", "[host.x]\npool = 'local'\nenv = ['A=secret:../x']", &[
        "3:8: host.x.env[0]: names no secret that there could be (wanted `KEY=secret:NAME`, the name of letters, digits, `-`, `_` and `.`)",
    ]),
    mistake("`listen` without a port", "[farm]\nlisten = '127.0.0.1'", &[
        "2:10: farm.listen: `127.0.0.1` is not an address and a port (wanted such as `127.0.0.1:8080`)",
    ]),
    mistake("`listen` for all without TLS", "[farm]\nlisten = '0.0.0.0:8080'", &[
        "2:10: farm.listen: `0.0.0.0:8080` can be reached from other machines without TLS (listen on 127.0.0.1 and give `listen_https`, or say `insecure_http = true`)",
    ]),
    mistake("`listen_https` the same as `listen`", "[farm]\nlisten_https = '127.0.0.1:8080'", &[
        "2:16: farm.listen_https: is the same as `listen` (give each its own port)",
    ]),
    mistake("a certificate without key", "[farm]\nlisten_https = '0.0.0.0:443'\ntls_cert = 'a'", &[
        "3:1: farm.tls_cert: a certificate without its key (add `tls_key`, the file with its private key)",
    ]),
    mistake("a key without certificate", "[farm]\nlisten_https = '0.0.0.0:443'\ntls_key = 'a'", &[
        "3:1: farm.tls_key: a key without its certificate (add `tls_cert`, the file with its certificate)",
    ]),
    mistake("a certificate that nothing uses", "[farm]\ntls_cert = 'a'\ntls_key = 'b'", &[
        "2:1: farm.tls_cert: nothing listens over TLS (add such as `listen_https = \"0.0.0.0:8443\"`)",
    ]),
    mistake("an unknown store", "[farm]\nstore = 'mysql://u:p@h/d'", &[
        "2:9: farm.store: no such store (wanted `embedded` or an address that begins with `postgres://`)",
    ]),
    mistake("an unknown environment", "[farm]\nenvironment = 'prod'\n[environment.production]", &[
        "2:15: farm.environment: no environment `prod`; there are: production",
    ]),
    mistake("a forge of no kind", "[forge.x]\ngit = 'https://x'", &[
        "1:8: forge.x: no `kind` (one of: gerrit, git, github)",
    ]),
    mistake("an unknown kind of forge", "[forge.x]\nkind = 'gerit'", &[
        "2:8: forge.x.kind: no kind of forge `gerit`; there are: gerrit, git, github (did you mean `gerrit`?)",
    ]),
    mistake("a Gerrit without an address", "[forge.x]\nkind = 'gerrit'", &[
        "1:8: forge.x: no `git` (the URL that its repositories are below)",
    ]),
    mistake("a repository without address", "[repo.x]\nrecipe = 'make'", &[
        "1:7: repo.x: no `url` (give `url`, or `forge` and `project`)",
    ]),
    mistake("a token for a Gerrit", "[forge.x]\nkind = 'gerrit'\ngit = 'https://x'\nauth = { token_file = '/t' }", &[
        "4:10: forge.x.auth.token_file: is not how to log in at this kind of forge (wanted cookies_file)",
    ]),
    mistake("a token in the place of its variable", "[forge.x]\nkind = 'github'\nauth = { token_env = 'ghp-12' }", &[
        "3:22: forge.x.auth.token_env: is not the name of a variable (wanted such as `GITHUB_TOKEN`)",
    ]),
    mistake("two tokens", "[forge.x]\nkind = 'github'\nauth = { token_env = 'T', token_file = '/t' }", &[
        "3:10: forge.x.auth.token_env: both `token_file` and `token_env` (keep one)",
    ]),
    mistake("an API that is no URL", "[forge.x]\nkind = 'github'\napi = 'api.example.org'", &[
        "3:7: forge.x.api: `api.example.org` is not the URL of an API (wanted such as `https://api.github.com`)",
    ]),
    mistake("a watch on no forge", "[maintner.watch.a]\nforge = 'hub'\nprojects = ['a/b']\n[forge.hab]\nkind = 'github'", &[
        "2:9: maintner.watch.a.forge: no forge `hub`; there are: hab (did you mean `hab`?)",
    ]),
    mistake("a watch on no project of GitHub", "[maintner.watch.a]\nforge = 'hub'\nprojects = ['a', 'b/c', 'b/c']\n[forge.hub]\nkind = 'github'", &[
        "3:13: maintner.watch.a.projects[0]: `a` is not the name of a project on GitHub (wanted `OWNER/NAME`)",
        "3:25: maintner.watch.a.projects[2]: `b/c` is named twice (keep one of them)",
    ]),
    mistake("a watch on nothing", "[maintner.watch.a]\nforge = 'hub'\n[maintner.watch.b]\nforge = 'hub'\nprojects = []\n[forge.hub]\nkind = 'github'", &[
        "1:17: maintner.watch.a: no `projects` (a list of their names on the forge)",
        "5:12: maintner.watch.b.projects: names no project (name one, or take the table out)",
    ]),
    mistake("a repository with two addresses", "[repo.x]\nurl = 'https://x'\nforge = 'hub'\nproject = 'a/b'\nrecipe = 'make'\n[forge.hub]\nkind = 'github'", &[
        "3:1: repo.x: both `url` and `forge` (give `url`, or `forge` and `project`)",
    ]),
    mistake("a forge without project", "[repo.x]\nforge = 'hub'\nrecipe = 'make'\n[forge.hub]\nkind = 'github'", &[
        "1:7: repo.x: no `project` (its name on the forge)",
    ]),
    mistake("a project without forge", "[repo.x]\nurl = '/x'\nproject = 'a/b'\nrecipe = 'make'", &[
        "3:1: repo.x: `project` without `forge` (give `url`, or `forge` and `project`)",
    ]),
    mistake("an unknown forge", "[repo.x]\nforge = 'hbu'\nproject = 'a/b'\nrecipe = 'make'\n[forge.hub]\nkind = 'github'", &[
        "2:9: repo.x.forge: no forge `hbu`; there are: hub (did you mean `hub`?)",
    ]),
    mistake("a project GitHub cannot have", "[repo.x]\nforge = 'hub'\nproject = 'a'\nrecipe = 'make'\n[forge.hub]\nkind = 'github'", &[
        "3:11: repo.x.project: `a` is not the name of a project on GitHub (wanted `OWNER/NAME`)",
    ]),
    mistake("a project with a way out", "[repo.x]\nforge = 'hub'\nproject = 'a/../b'\nrecipe = 'make'\n[forge.hub]\nkind = 'github'", &[
        "3:11: repo.x.project: `a/../b` is not the name of a project (wanted such as `acme/widget`)",
    ]),
    mistake("an address that is an option", "[repo.x]\nurl = '--upload-pack=x'\nrecipe = 'make'", &[
        "2:7: repo.x.url: `--upload-pack=x` is not a URL or path to fetch from (wanted such as `https://git.example.org/widget.git` or `/srv/git/widget.git`)",
    ]),
    mistake("an address that runs a program", "[repo.x]\nurl = 'ext::sh -c x'\nrecipe = 'make'", &[
        "2:7: repo.x.url: `ext::sh -c x` is not a URL or path to fetch from (wanted such as `https://git.example.org/widget.git` or `/srv/git/widget.git`)",
    ]),
    mistake("a repository without recipe", "[repo.x]\nurl = '/x'", &[
        "1:7: repo.x: no `recipe` (there are: make)",
    ]),
    mistake("an unknown recipe", "[repo.x]\nurl = '/x'\nrecipe = 'maek'", &[
        "3:10: repo.x.recipe: no recipe `maek`; there are: make (did you mean `make`?)",
    ]),
    mistake("a recipe this version has not", "[repo.x]\nurl = '/x'\nrecipe = 'go-toolchain'", &[
        "3:10: repo.x.recipe: recipe `go-toolchain` is not available in this version (write its steps as `[recipe.go-toolchain]`)",
    ]),
    mistake("a bad glob", "[repo.x]\nurl = '/x'\nrecipe = 'make'\nbranches = ['release/[0-9]', 'ok']", &[
        "4:13: repo.x.branches[0]: `release/[0-9]` matches no name of a branch (`*` is any run of characters, `?` any one; `!` in front takes away)",
    ]),
    mistake("a ref for a branch", "[repo.x]\nurl = '/x'\nrecipe = 'make'\nbranches = 'refs/heads/main'", &[
        "4:12: repo.x.branches: `refs/heads/main` is a ref, not a branch (write `main`)",
    ]),
    mistake("a name that cannot be", "[host.'a b']\npool = 'local'", &[
        "1:7: host.\"a b\": `a b` is not a host type; wanted 1 to 100 of letters, digits, `.`, `_`, `-`, beginning with a letter or digit",
    ]),
    mistake("an empty name", "[builder.'']\nhost = 'local'", &[
        "1:10: builder.\"\": `` is not a builder name; wanted 1 to 100 of letters, digits, `.`, `_`, `-`, beginning with a letter or digit",
    ]),
    mistake("a host without pool", "[host.x]\nnotes = 'x'", &[
        "1:7: host.x: no `pool` (one of: local, reverse)",
    ]),
    mistake("an unknown pool", "[host.x]\npool = 'lokal'", &[
        "2:8: host.x.pool: no pool `lokal`; there are: local, reverse (did you mean `local`?)",
    ]),
    mistake("a pool this version has not", "[host.x]\npool = 'gce'", &[
        "2:8: host.x.pool: pool `gce` is not available; there are: local, reverse",
    ]),
    mistake("a host with two pools", "[host.x]\npool = 'reverse'\nvm_image = 'x'", &[
        "3:1: host.x.vm_image: pool `reverse` has no `vm_image` (take the key out, or choose the other pool)",
    ]),
    mistake("a key of the other pool", "[host.x]\npool = 'local'\nexpect = 3", &[
        "3:1: host.x.expect: pool `local` has no `expect` (take the key out, or choose the other pool)",
    ]),
    mistake("a bad environment entry", "[host.x]\npool = 'local'\nenv = ['A=1', 'B']", &[
        "3:15: host.x.env[1]: is not `KEY=VALUE` (wanted such as `\"CGO_ENABLED=0\"`)",
    ]),
    mistake("a builder without host", "[builder.x]\nnotes = 'x'", &[
        "1:10: builder.x: no `host` (there are: local)",
    ]),
    mistake("an unknown host", "[builder.x]\nhost = 'lokal'", &[
        "2:8: builder.x.host: no host type `lokal`; there are: local (did you mean `local`?)",
    ]),
    mistake("an unknown policy", "[builder.x]\nhost = 'local'\nbuilds = 'defualt'\n[policy.repos.default]\nrules = [{ build = true }]", &[
        "3:10: builder.x.builds: no policy `defualt`; there are: default (did you mean `default`?)",
    ]),
    mistake("a rule outside of a list", "[builder.x]\nhost = 'local'\nbuilds = { repo = 'widget', build = true }", &[
        "3:10: builder.x.builds: wanted the name of a policy or a list of rules, found a table (put the rule into brackets: `builds = [{ repo = \"widget\", build = true }]`)",
    ]),
    mistake("a rule without answer", "[builder.x]\nhost = 'local'\nbuilds = [{ repo = 'widget' }]", &[
        "3:11: builder.x.builds[0]: no `build` (add `build = true` or `build = false`)",
    ]),
    mistake("a selector this version has not", "[builder.x]\nhost = 'local'\nbuilds = [{ path = 'src/**', build = true }]", &[
        "3:13: builder.x.builds[0].path: `path` is not available in this version (there are: repo, branch, target_branch)",
    ]),
    mistake("two branches for one commit", "[builder.x]\nhost = 'local'\nbuilds = [{ branch = 'a', target_branch = 'b', build = true }]", &[
        "3:43: builder.x.builds[0].target_branch: differs from `branch`; a commit has only one branch in this version (leave one of the two out)",
    ]),
    mistake("a builder that builds nothing", "[builder.x]\nhost = 'local'\nbuilds = [{ repo = 'wigdet', build = true }]", &[
        "3:1: builder.x: builds nothing: `builds` says no to every tracked branch (the repositories are: widget)",
    ]),
    mistake("a policy that extends nothing", "[policy.repos.x]\nextends = 'y'", &[
        "2:11: policy.repos.x.extends: no policy `y`; there are: x",
    ]),
    mistake("policies that extend each other", "[policy.repos.a]\nextends = 'b'\n[policy.repos.b]\nextends = 'a'", &[
        "1:15: policy.repos.a: extends itself: a -> b -> a (take one `extends` out)",
    ]),
    mistake("an issue of number zero", "[builder.x]\nhost = 'local'\nknown_issues = [0]", &[
        "3:17: builder.x.known_issues[0]: is not the number of an issue (wanted a number from 1, a link or text)",
    ]),
    mistake("helpers without snapshot", "[builder.x]\nhost = 'local'\nhelpers = 1\nsnapshot = false", &[
        "4:12: builder.x.snapshot: helpers start from a snapshot, which is switched off (take `snapshot = false` or the helpers out)",
    ]),
    mistake("an unknown choice", "[builder.x]\nhost = 'local'\npost_submit = 'newer'", &[
        "3:15: builder.x.post_submit: no choice `newer`; there are: always, never (did you mean `never`?)",
    ]),
    mistake("a recipe without steps", "[recipe.x]\nsource = 'src'", &[
        "1:9: recipe.x: no `steps` (add `steps = [{ name = \"test\", run = [\"make\", \"test\"] }]`)",
    ]),
    mistake("a recipe with an empty list of steps", "[recipe.x]\nsteps = []", &[
        "2:9: recipe.x.steps: has no steps (add `{ name = \"test\", run = [\"make\", \"test\"] }`)",
    ]),
    mistake("a step without name", "[recipe.x]\nsteps = [{ run = 'make' }]", &[
        "2:10: recipe.x.steps[0]: no `name` (add such as `name = \"test\"`)",
    ]),
    mistake("a step that runs nothing", "[recipe.x]\nsteps = [{ name = 'a' }]", &[
        "2:10: recipe.x.steps[0]: no `run` (add such as `run = [\"make\", \"test\"]`)",
    ]),
    mistake("two steps of one name", "[recipe.x]\nsteps = [{ name = 'a', run = 'x' }, { name = 'a', run = 'y' }]", &[
        "2:46: recipe.x.steps[1].name: two steps are called `a`: recipe.x.steps[0] is the other (give each step of a recipe its own name)",
    ]),
    mistake("an empty command", "[recipe.x]\nsteps = [{ name = 'a', run = [] }]", &[
        "2:30: recipe.x.steps[0].run: names no program (wanted `[\"program\", \"argument\"]`, or text for the shell)",
    ]),
    mistake("a command that is none", "[recipe.x]\nsteps = [{ name = 'a', run = 3 }]", &[
        "2:30: recipe.x.steps[0].run: is not something to run (wanted `[\"program\", \"argument\"]`, or text for the shell)",
    ]),
    mistake("an argument that is no text", "[recipe.x]\nsteps = [{ name = 'a', run = ['sleep', 3] }]", &[
        "2:40: recipe.x.steps[0].run[1]: wanted text in quotes, found a number",
    ]),
    mistake("a folder that leads out", "[recipe.x]\nsteps = [{ name = 'a', run = 'x', dir = 'src/../..' }]", &[
        "2:41: recipe.x.steps[0].dir: `src/../..` leads out of the working folder (wanted such as `src/tools`)",
    ]),
    mistake("an absolute folder", "[recipe.x]\nsteps = [{ name = 'a', run = 'x', dir = '/tmp' }]", &[
        "2:41: recipe.x.steps[0].dir: `/tmp` is not below the working folder (wanted such as `src/tools`, with `/` between names)",
    ]),
    mistake("a folder of another system", "[recipe.x]\nsource = 'C:src'\nsteps = [{ name = 'a', run = 'x' }]", &[
        "2:10: recipe.x.source: `C:src` is not below the working folder (wanted such as `src/tools`, with `/` between names)",
    ]),
    mistake("a step of a kind this version has not", "[recipe.x]\nsteps = [{ name = 'a', kind = 'shard', run = 'x' }]", &[
        "2:31: recipe.x.steps[0].kind: step kind `shard` is not available; there is: run (write one step that runs all tests)",
    ]),
    mistake("a step of an unknown kind", "[recipe.x]\nsteps = [{ name = 'a', kind = 'rnu', run = 'x' }]", &[
        "2:31: recipe.x.steps[0].kind: no step kind `rnu`; there are: run (did you mean `run`?)",
    ]),
    mistake("an alias to nothing", "[slowbots]\narm = 'linux-amr'", &[
        "2:7: slowbots.arm: no builder `linux-amr`; there are: linux-amd64 (did you mean `linux-amd64`?)",
    ]),
    mistake("a pattern of an alias that fits nothing", "[slowbots]\nlong = ['*-longtest']", &[
        "2:9: slowbots.long[0]: no builder `*-longtest`; there are: linux-amd64",
    ]),
];

#[test]
fn every_mistake_is_told_with_its_place_and_what_would_be_right() {
    let mut wrong = Vec::new();
    for Mistake { name, text, told } in MISTAKES {
        let found = match check(&format!("{text}\n{BASE}")) {
            Ok(_) => vec!["nothing".to_owned()],
            Err(problems) => lines(problems.list()),
        };
        let found: Vec<&str> = found
            .iter()
            .map(|line| line.trim_start_matches("burrow.toml:"))
            .collect();
        if found != *told {
            wrong.push(format!("{name}:\n  {}", found.join("\n  ")));
        }
    }
    assert!(
        wrong.is_empty(),
        "told otherwise than expected:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_mistake_in_base_would_be_seen() {
    assert!(check(BASE).is_ok());
}
