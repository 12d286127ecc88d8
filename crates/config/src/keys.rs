//! Every key of the file: what it takes, its default, what it means, and whether it has an effect.
//!
//! The checker refuses what is not listed here, and the tables of `docs/config.md` are made from
//! these lists.

/// One key of one kind of table.
pub(crate) struct Key {
    pub name: &'static str,
    /// Its type and form, for the documentation.
    pub takes: &'static str,
    /// As one would write it; `-` when the key must be given.
    pub default: &'static str,
    pub meaning: &'static str,
    pub effect: Effect,
}

pub(crate) enum Effect {
    Yes,
    /// Accepted with a notice. The keys its table may hold, if it may be a table with known keys.
    None {
        inner: &'static [&'static str],
    },
}

const fn key(name: &'static str, takes: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        takes,
        default,
        meaning,
        effect: Effect::Yes,
    }
}

const fn idle(name: &'static str, meaning: &'static str) -> Key {
    Key {
        name,
        takes: "any",
        default: "",
        meaning,
        effect: Effect::None { inner: &[] },
    }
}

const fn idle_table(name: &'static str, meaning: &'static str, inner: &'static [&'static str]) -> Key {
    Key {
        name,
        takes: "table",
        default: "",
        meaning,
        effect: Effect::None { inner },
    }
}

/// Keys of a rule of a policy, and of a selector (`try`).
pub(crate) const SELECTOR: [&str; 6] = ["repo", "branch", "target_branch", "at_least", "at_most", "path"];

pub(crate) const ROOT: &[Key] = &[
    key("farm", "table", "", "The farm as a whole"),
    key(
        "environment",
        "tables `[environment.NAME]`",
        "",
        "Cloud projects; accepted without effect",
    ),
    key(
        "forge",
        "tables `[forge.NAME]`",
        "",
        "Where repositories are hosted",
    ),
    key("repo", "tables `[repo.NAME]`", "", "What is watched and built"),
    key(
        "policy",
        "tables `[policy.repos.NAME]`",
        "",
        "Named answers to \"which branches does a builder build\"",
    ),
    key("host", "tables `[host.NAME]`", "", "Kinds of machines"),
    key(
        "builder",
        "tables `[builder.NAME]`",
        "",
        "Rows of the build matrix",
    ),
    key("recipe", "tables `[recipe.NAME]`", "", "What to run"),
    key(
        "maintner",
        "table",
        "",
        "What the log of issues, changes and commits is told of",
    ),
    key(
        "slowbots",
        "table",
        "",
        "Names for builders that can be asked for; accepted without effect",
    ),
];

pub(crate) const FARM: &[Key] = &[
    key("name", "text", "`\"burrow\"`", "Head of every page"),
    key(
        "public_url",
        "`http://` or `https://` URL",
        "none",
        "What links in notices begin with; a slash is put at its end",
    ),
    key(
        "state_dir",
        "folder",
        "given by the command",
        "Where the store, logs and working folders are",
    ),
    key(
        "listen",
        "address and port",
        "`\"127.0.0.1:8080\"`",
        "Pages, JSON and hooks over plain HTTP. Anything but loopback needs `insecure_http = true`",
    ),
    key(
        "insecure_http",
        "true or false",
        "`false`",
        "Allows `listen` on an address that others reach without TLS",
    ),
    key(
        "listen_https",
        "address and port",
        "none",
        "The same over TLS, and the door for machines that dial in",
    ),
    key(
        "listen_ssh",
        "address and port",
        "none",
        "Where lent machines can be had with ssh: `ssh -p PORT INSTANCE@HOST`",
    ),
    key(
        "tls_cert",
        "file",
        "a certificate of its own making",
        "Certificate chain, PEM. Together with `tls_key`",
    ),
    key("tls_key", "file", "", "Its private key, PEM"),
    key(
        "names",
        "list of host names",
        "none",
        "Names that the farm answers to besides that of `public_url`, `localhost` and addresses; any other gets 421",
    ),
    key(
        "reading",
        "`\"open\"` or `\"closed\"`",
        "`\"open\"`",
        "Who reads pages, logs and metrics: anybody, or holders of a token",
    ),
    key(
        "secrets",
        "folder",
        "`secrets` in `state_dir`",
        "A file for each secret; `env = [\"TOKEN=secret:NAME\"]` gives a step what is in the file NAME",
    ),
    key(
        "store",
        "`\"embedded\"` or `postgres://` URL",
        "`\"embedded\"`",
        "Where builds and results are kept. The URL is never printed",
    ),
    key(
        "disk_floor",
        "size",
        "`\"1GiB\"`",
        "With less free space in `state_dir` no build starts",
    ),
    key(
        "keep_logs",
        "duration",
        "`\"90d\"`",
        "Older logs are deleted; results stay",
    ),
    key(
        "max_log",
        "size",
        "`\"32MiB\"`",
        "Most that is kept of one step's log: head and tail stay",
    ),
    key(
        "wait_limit",
        "duration",
        "`\"24h\"`",
        "A build that no machine took for so long ends as infra",
    ),
    idle("dashboard", "Where another dashboard is"),
    key(
        "environment",
        "name of an `[environment.NAME]`",
        "none",
        "Must exist; accepted without effect",
    ),
    idle("max_slowbots", "Most builders one request may name"),
];

pub(crate) const ENVIRONMENT: &[Key] = &[
    idle("project", "Cloud project"),
    idle("project_number", "Its number"),
    idle("go_project", "Project of the dashboard's data"),
    idle("production", "Whether its pools are the real ones"),
    idle("region", "Region of the machines"),
    idle("zone", "Zone of the machines"),
    idle("zones", "Zones of the machines"),
    idle("zones_to_clean", "Zones swept for lost machines"),
    idle("static_ip", "Address of the coordinator"),
    idle("coordinator_name", "Name of the coordinator's machine"),
    idle("coordinator_url", "Address of its binary"),
    idle("machine_type", "Type of its machine"),
    idle("kube_build", "Cluster of the buildlets"),
    idle("kube_tools", "Cluster of the tools"),
    idle("kube_services", "Cluster of the services"),
    idle("prefer_containers_on_cos", "Containers on machines of their own"),
    idle("dash_url", "Dashboard"),
    idle("perf_data_url", "Benchmark store"),
    idle("buckets", "Object stores"),
    idle("autocert_bucket", "Cache of certificates"),
    idle("max_builds", "Most builds at once"),
    idle("cos_service_account", "Account of container machines"),
    idle("aws_region", "Region at AWS"),
    idle("aws_security_group", "Security group at AWS"),
    idle("iap_service_ids", "Services behind the proxy"),
    idle("gomote_transfer_bucket", "Object store for gomote"),
];

pub(crate) const FORGE: &[Key] = &[
    key(
        "kind",
        "`\"gerrit\"`, `\"github\"` or `\"git\"`",
        "-",
        "What it speaks",
    ),
    key(
        "git",
        "URL",
        "`https://github.com` for `github`",
        "Where its repositories are fetched from: a repository's URL is this, a slash and its `project` (with `.git` for `github`)",
    ),
    key(
        "api",
        "`http://` or `https://` URL",
        "`https://api.github.com` for `github`",
        "Its API: where `[maintner]` asks for issues. Without effect for `gerrit` and `git`",
    ),
    key(
        "auth",
        "table of `token_file` or `token_env` for `github`, `cookies_file` for `gerrit`",
        "nobody",
        "Who we are there: a file with the token, the name of a variable with it, or a file as `.gitcookies`. Read when it is used, never printed",
    ),
    idle("labels", "Labels that are read and voted"),
    idle("try_directive", "Word in a comment that asks for builders"),
    idle("may_try", "Who may start try builds"),
];

pub(crate) const AUTH: &[Key] = &[
    key("token_file", "file", "", "A file with the token"),
    key("token_env", "name of a variable", "", "The token"),
    key("cookies_file", "file", "", "Cookies as git reads them"),
    idle("account", "Account"),
    idle("password", "Its password"),
    idle("app_id", "Number of an app"),
    idle("private_key", "Its key"),
    idle("token", "Reference to a token"),
];

pub(crate) const MAINTNER: &[Key] = &[
    key(
        "public",
        "true or false",
        "`false`",
        "Whether everybody may read `/logs` and ask the RPC service. Otherwise programs on this machine, and who shows a token",
    ),
    key(
        "pubsub",
        "`http://` or `https://` URL",
        "none",
        "A pubsubhelper, as of golang/build: what it says has changed is looked at at once",
    ),
    key(
        "github_rate",
        "0 to 1000",
        "`10`",
        "Most questions a second with one token; 0 leaves it to GitHub",
    ),
    key(
        "watch",
        "tables `[maintner.watch.NAME]`",
        "",
        "What is followed beside the repositories of the farm",
    ),
];

pub(crate) const MAINTNER_WATCH: &[Key] = &[
    key("forge", "name of a `[forge.NAME]`", "-", "Where it is"),
    key(
        "projects",
        "list of text",
        "-",
        "Its projects: `OWNER/NAME` on GitHub, whose issues are followed; on Gerrit changes, branches and tags are; of plain git branches and tags",
    ),
    key(
        "poll",
        "duration",
        "`\"5m\"`, for `github` `\"15m\"`",
        "How often to look without being told",
    ),
];

pub(crate) const REPO: &[Key] = &[
    key(
        "url",
        "URL or path",
        "-, or `forge` and `project`",
        "Anything `git fetch` takes",
    ),
    key(
        "forge",
        "name of a `[forge.NAME]`",
        "-, or `url`",
        "Where it is hosted",
    ),
    key("project", "text", "-, or `url`", "Its name there"),
    key(
        "branches",
        "glob or list of globs",
        "the upstream's default branch",
        "Branches to follow. `*` is any run of characters, `?` any one; `!` in front takes away",
    ),
    key(
        "recipe",
        "name of a `[recipe.NAME]`",
        "the recipe of the same name",
        "What to run for it",
    ),
    key(
        "poll",
        "duration",
        "`\"30s\"`",
        "How often to look without being told",
    ),
    key(
        "backfill",
        "0 to 10000",
        "`10`",
        "How many of its newest commits are built when a branch is first seen",
    ),
    idle("import_path", "Import path of a Go module"),
    idle("toolchain", "Repository of the toolchain it is built with"),
    idle("against", "Branches of the toolchain"),
];

pub(crate) const POLICY: &[Key] = &[
    key(
        "repos",
        "tables `[policy.repos.NAME]`",
        "",
        "Which branches a builder builds",
    ),
    key(
        "tests",
        "tables `[policy.tests.NAME]`",
        "",
        "Which tests it runs; accepted without effect",
    ),
];

pub(crate) const POLICY_REPOS: &[Key] = &[
    key(
        "extends",
        "name of a `[policy.repos.NAME]`",
        "none",
        "Its rules come first",
    ),
    key(
        "rules",
        "list of rules",
        "`[]`",
        "In order; the last that matches decides; none matching means no",
    ),
];

pub(crate) const POLICY_TESTS: &[Key] = &[
    idle("extends", "Its rules come first"),
    idle("rules", "List of `run`, `repo`, `branch`, `test`, `skip`"),
];

pub(crate) const POLICY_TESTS_RULE: [&str; 9] = [
    "run",
    "test",
    "skip",
    "repo",
    "branch",
    "target_branch",
    "at_least",
    "at_most",
    "path",
];

pub(crate) const RULE: &[Key] = &[
    key("repo", "glob or list of globs", "any", "Repositories it is about"),
    key("branch", "glob or list of globs", "any", "Branches it is about"),
    key(
        "target_branch",
        "glob or list of globs",
        "any",
        "The same as `branch`: a commit has no other",
    ),
    key("build", "true or false", "-", "The answer"),
    key("at_least", "version", "", "Not available"),
    key("at_most", "version", "", "Not available"),
    key("path", "glob", "", "Not available"),
];

pub(crate) const HOST: &[Key] = &[
    key(
        "pool",
        "`\"local\"` or `\"reverse\"`",
        "-",
        "Where such machines come from: children of the coordinator, or machines that dial in",
    ),
    key(
        "slots",
        "1 to 1000",
        "the machine's processors",
        "`local`: how many builds at once",
    ),
    key(
        "expect",
        "0 to 10000",
        "`0`",
        "`reverse`: how many machines should be connected; fewer are shown as missing",
    ),
    key(
        "accept_development_keys",
        "true or false",
        "`false`",
        "`reverse`: machines with the public development key may dial in; only for a closed network",
    ),
    key(
        "env",
        "list of `KEY=VALUE`",
        "`[]`",
        "Environment of every build on it",
    ),
    key(
        "memory_limit",
        "size",
        "none",
        "Most memory of a command with all it started; more ends it",
    ),
    key(
        "process_limit",
        "1 to 10000000",
        "none",
        "Most processes and threads of a command at once",
    ),
    key(
        "output_limit",
        "size",
        "none",
        "A command that prints more is killed",
    ),
    key(
        "network",
        "true or false",
        "`true`",
        "`false`: commands reach nothing but themselves",
    ),
    key(
        "confine",
        "true or false",
        "`false`",
        "Commands write below the working directory and nowhere else",
    ),
    key("owners", "list of text", "`[]`", "Whom to ask about it"),
    key("notes", "text", "`\"\"`", "Shown with it"),
    key("ssh_user", "text", "`root`", "Who logs in on a lent machine"),
    key("vm_image", "text", "", "Refused: no available pool has images"),
    key(
        "container_image",
        "text",
        "",
        "Refused: no available pool has images",
    ),
    idle("arch", "`GOOS-GOARCH` of the machine"),
    idle("buildlet_url", "Where its buildlet is fetched from"),
    idle("bootstrap", "Version of the bootstrap tree"),
    idle("bootstrap_url", "Where it is fetched from"),
    idle("machine_type", "Type of the machine"),
    idle("disk_type", "Type of its disk"),
    idle("disk_gb", "Size of its disk"),
    idle("min_cpu", "Least processor"),
    idle("nested_virt", "Virtual machines inside"),
    idle("container_vm_image", "Image under the container"),
    idle("cos_family", "Family of that image"),
    idle("max_lifetime", "How long one may live"),
    idle("hermetic", "A fresh environment per connection"),
    idle("isolation", "How builds are kept apart"),
    idle("trusted", "Run by the operator"),
    idle("aliases", "Older names a machine may dial in with"),
];

pub(crate) const BUILDER: &[Key] = &[
    key("host", "name of a `[host.NAME]`", "-", "The machines it runs on"),
    key(
        "builds",
        "name of a `[policy.repos.NAME]`, or list of rules",
        "every repository and branch",
        "What it builds after submit",
    ),
    key(
        "recipe",
        "name of a `[recipe.NAME]`",
        "the repository's",
        "Instead of the repository's",
    ),
    key(
        "env",
        "list of `KEY=VALUE`",
        "`[]`",
        "Environment, after the host's: the later wins",
    ),
    key(
        "max_at_once",
        "0 to 10000",
        "`0`",
        "Most builds of it at once; 0 is no limit",
    ),
    key(
        "time_scale",
        "1 to 1000",
        "`GO_TEST_TIMEOUT_SCALE` of its or its host's `env`, else `1`",
        "Every time limit of its steps, times this",
    ),
    key(
        "group",
        "text",
        "its name up to the first `-`",
        "Builders of one group stand under one head",
    ),
    key("order", "whole number", "`0`", "Smaller stand first in the group"),
    key("notes", "text", "`\"\"`", "Shown with it"),
    key(
        "known_issues",
        "list of issue numbers, links or text",
        "`[]`",
        "Its results are shown grey",
    ),
    key(
        "post_submit",
        "`\"always\"` or `\"never\"`",
        "`\"always\"`",
        "`never`: it builds no commits",
    ),
    key(
        "snapshot",
        "true or false",
        "`true`",
        "Without effect, but refused as `false` together with helpers",
    ),
    key("helpers", "0 to 100", "`0`", "Without effect"),
    key("try_helpers", "0 to 100", "`0`", "Without effect"),
    idle("target", "`os/arch` it builds for"),
    idle_table("try", "Which proposed changes it builds", &SELECTOR),
    idle("tests", "Name of a `[policy.tests.NAME]`"),
    idle_table(
        "limits",
        "What a build may use",
        &["memory", "cpu", "disk", "network"],
    ),
    idle("min_version", "Least Go version"),
    idle("compile_only", "Tests are built, not run"),
    idle("stop_after", "Step to stop after"),
    idle("race_packages", "Packages built with the race detector"),
    idle("requires_commits", "Commits that must be ancestors"),
    idle("flaky_net", "Its network is unreliable"),
    idle("module_proxy", "Module proxy preset on the machine"),
    idle("restricted", "Only privileged people may borrow it"),
    idle("make_args", "Arguments of the make script"),
    idle("all_args", "Arguments of the all script"),
];

pub(crate) const RECIPE: &[Key] = &[
    key(
        "source",
        "folder",
        "`\"src\"`",
        "Where the source goes, below the working folder",
    ),
    key(
        "steps",
        "list of steps",
        "-",
        "What to run, in order; the first that fails ends the build",
    ),
];

pub(crate) const STEP: &[Key] = &[
    key("name", "text", "-", "Unlike the others of the recipe"),
    key(
        "run",
        "list: program and arguments; text: a line for the machine's shell",
        "-",
        "What to run",
    ),
    key(
        "dir",
        "folder below the working folder",
        "the recipe's `source`",
        "Where to run it",
    ),
    key(
        "env",
        "list of `KEY=VALUE`",
        "`[]`",
        "Environment, after the builder's: the later wins",
    ),
    key(
        "timeout",
        "duration",
        "`\"60m\"`",
        "It may run so long, times the builder's `time_scale`",
    ),
    key(
        "no_output",
        "duration",
        "`\"30m\"`",
        "It may be silent so long, times the builder's `time_scale`",
    ),
    key(
        "kind",
        "`\"run\"`",
        "`\"run\"`",
        "`list-tests` and `shard` are not available",
    ),
    idle("snapshot_after", "Pack the tree after it"),
    idle("merge_prefix", "Of a sharded step"),
    idle("merge_target", "Of a sharded step"),
];

/// Every key there is, as the Markdown tables of `docs/config.md`.
pub fn key_reference() -> String {
    let mut out = String::new();
    for (head, keys) in TABLES {
        out.push_str(&format!("### {head}\n\n"));
        out.push_str("| key | takes | default | meaning |\n|---|---|---|---|\n");
        let (with_effect, idle): (Vec<&Key>, Vec<&Key>) =
            keys.iter().partition(|key| matches!(key.effect, Effect::Yes));
        for key in with_effect {
            let (name, takes, default, meaning) = (key.name, key.takes, key.default, key.meaning);
            let default = match default {
                "-" => "required",
                other => other,
            };
            out.push_str(&format!("| `{name}` | {takes} | {default} | {meaning} |\n"));
        }
        for key in &idle {
            out.push_str(&format!(
                "| `{}` | | | *No effect in this version.* {} |\n",
                key.name, key.meaning
            ));
        }
        out.push('\n');
    }
    out
}

/// The kinds of tables, in the order of the documentation.
const TABLES: &[(&str, &[Key])] = &[
    ("`[farm]`", FARM),
    ("`[forge.NAME]`", FORGE),
    ("`[repo.NAME]`", REPO),
    ("`[policy.repos.NAME]`", POLICY_REPOS),
    ("Rules of a policy, and of `builds`", RULE),
    ("`[host.NAME]`", HOST),
    ("`[builder.NAME]`", BUILDER),
    ("`[recipe.NAME]`", RECIPE),
    ("`steps` of a recipe", STEP),
    ("`[maintner]`", MAINTNER),
    ("`[maintner.watch.NAME]`", MAINTNER_WATCH),
    ("`[environment.NAME]`", ENVIRONMENT),
    ("`[policy.tests.NAME]`", POLICY_TESTS),
];
