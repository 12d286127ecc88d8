//! From the written form to the checked form. One function per kind of table; each goes on after a
//! problem, so that one run shows every mistake.

mod builder; // `[host]`, `[builder]`
mod farm; // `[farm]`, `[environment]`
mod maintner; // `[maintner]`
mod policy; // `[policy]` and rules
mod recipe; // `[recipe]` and its steps
mod repo; // `[forge]`, `[repo]`

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ids::{BadName, BranchName, BuilderName, HostType, RecipeName, RepoName};

use crate::checked::*;
use crate::decide::can_build;
use crate::keys;
use crate::nearest::no_such;
use crate::problem::{Problem, Problems, SourceFile};
use crate::written::{At, Fields, Item, NO_EFFECT, Reader, Table, Value, join};

/// What the file need not say because the caller knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Processors of this machine: the slots of a `local` host.
    pub cpus: u32,
    /// `linux-amd64`, see [`os_arch`]: the builder of a farm without a file is named so.
    pub os_arch: String,
    /// Where state is when `state_dir` is not given.
    pub state_dir: PathBuf,
}

/// A configuration without mistakes.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    pub config: Config,
    /// What was accepted without effect, or looks forgotten. For the log; nothing is wrong.
    pub notices: Vec<Problem>,
}

/// `linux-amd64`: the names that builders bear, from the names that Rust gives
/// (`std::env::consts::OS` and `ARCH`).
pub fn os_arch(os: &str, arch: &str) -> String {
    let os = match os {
        "macos" => "darwin",
        other => other,
    };
    let arch = match arch {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64",
        other => other,
    };
    format!("{os}-{arch}")
}

/// Recipes the original has built in; a file may define its own of that name.
const BUILT_IN_RECIPES: [&str; 4] = ["go-toolchain", "go-module", "go-bench", "cross"];
const OTHER_POOLS: [&str; 5] = ["gce", "ec2", "kube", "docker", "qemu"];
const OTHER_KINDS: [&str; 2] = ["list-tests", "shard"];

impl Config {
    /// Checks all of `files`, which together are one configuration, before it answers.
    ///
    /// `Err` holds every mistake there is. Only when a file is no TOML at all, its mistakes (and
    /// those of that sort in the other files) are all that is told: the rest would be guesses.
    pub fn check(files: &[SourceFile], defaults: &Defaults) -> Result<Checked, Problems> {
        let mut check = Check {
            read: Reader::new(files),
            defaults,
        };
        let config = check.read.parse().map(|root| check.root(&root));
        let (problems, notices) = check.read.finish();
        match config {
            Some(config) if problems.is_empty() => Ok(Checked { config, notices }),
            _ => Err(Problems::new(problems, files)),
        }
    }
}

struct Check<'f> {
    read: Reader<'f>,
    defaults: &'f Defaults,
}

/// The names that other tables may refer to, whether or not what they name is right.
struct Names<'t> {
    environments: Vec<&'t str>,
    forges: BTreeMap<String, Option<Forge>>,
    policies: BTreeMap<String, Policy>,
    hosts: Vec<&'t str>,
    recipes: Vec<&'t str>,
    builders: Vec<&'t str>,
    /// `GO_TEST_TIMEOUT_SCALE` of each host that sets one.
    host_scales: BTreeMap<String, u32>,
}

struct Forge {
    git: ForgeGit,
    at: ForgeAt,
}

/// Where its repositories are fetched from.
enum ForgeGit {
    /// `BASE/PROJECT`
    Plain { base: String },
    /// `BASE/OWNER/NAME.git`
    GitHub { base: String },
}

impl Check<'_> {
    fn root(&mut self, root: &Table) -> Config {
        let known: Vec<&str> = keys::ROOT.iter().map(|key| key.name).collect();
        self.read.refuse_unknown(root, "", &known);

        let mut names = Names {
            environments: names_in(root, "environment"),
            forges: BTreeMap::new(),
            policies: BTreeMap::new(),
            hosts: names_in(root, "host"),
            recipes: names_in(root, "recipe"),
            builders: names_in(root, "builder"),
            host_scales: BTreeMap::new(),
        };
        let farm = self.farm(root, &names);
        self.environments(root);
        names.forges = self.named(root, "forge", plain_name, |check, item| Some(check.forge(&item)));
        let before = self.read.problem_count();
        names.policies = self.policies(root);
        let repos = self.named(root, "repo", RepoName::parse, |check, item| {
            check.repo(&item, &names)
        });
        let certain = self.read.problem_count() == before;
        let hosts: BTreeMap<HostType, Host> =
            self.named(root, "host", HostType::parse, |check, item| check.host(&item));
        for (name, host) in &hosts {
            if let Some(scale) = timeout_scale(&host.env) {
                names.host_scales.insert(name.to_string(), scale);
            }
        }
        let reach = certain.then_some(&repos);
        let builders = self.named(root, "builder", BuilderName::parse, |check, item| {
            check.builder(&item, &names, reach)
        });
        let recipes = self.named(root, "recipe", RecipeName::parse, |check, item| {
            check.recipe(&item)
        });
        self.slowbots(root, &names);
        let maintner = self.maintner(root, &names);
        let config = Config {
            farm,
            repos,
            hosts,
            builders,
            recipes,
            maintner,
        };
        if self.read.problem_count() == 0 {
            self.forgotten(root, &config);
        }
        config
    }

    /// Every table `[KIND.NAME]`, its name parsed. One that could not be read is left out.
    fn named<N: Ord, T>(
        &mut self,
        root: &Table,
        kind: &str,
        parse: fn(&str) -> Result<N, BadName>,
        mut read: impl FnMut(&mut Self, Item<'_>) -> Option<T>,
    ) -> BTreeMap<N, T> {
        let mut out = BTreeMap::new();
        let Some(table) = self.table_of(root, kind) else {
            return out;
        };
        for (name, entry) in table {
            let path = join(kind, name);
            let parsed = parse(name);
            if let Err(bad) = &parsed {
                self.read
                    .problem(entry.key_at, &path, bad.to_string(), None::<&str>);
            }
            let value = read(
                self,
                Item {
                    node: &entry.node,
                    path,
                    head: entry.key_at,
                },
            );
            if let (Ok(name), Some(value)) = (parsed, value) {
                out.insert(name, value);
            }
        }
        out
    }

    fn table_of<'t>(&mut self, root: &'t Table, kind: &str) -> Option<&'t Table> {
        let entry = root.get(kind)?;
        let item = Item {
            node: &entry.node,
            path: kind.to_owned(),
            head: entry.key_at,
        };
        match &entry.node.value {
            Value::List(_) => {
                let hint = format!("write `[{kind}.NAME]`, not `[[{kind}]]`");
                self.read
                    .refuse(&item, "wanted tables with names, found a list", hint)
            }
            _ => self.read.table(&item),
        }
    }

    /// A problem with all that would be right unless `name` is among `known`.
    fn must_be(&mut self, item: &Item<'_>, what: &str, name: &str, known: &[&str]) -> Option<()> {
        if known.contains(&name) {
            return Some(());
        }
        let (message, hint) = no_such(what, name, known);
        self.read.refuse(item, message, hint)
    }

    /// The `env` of a table. What stands after `=` is in no message: it may be a secret.
    fn env(&mut self, fields: &Fields<'_>) -> Vec<(String, String)> {
        let Some(item) = fields.get("env") else {
            return Vec::new();
        };
        let list = self.read.list(&item).unwrap_or_default();
        list.iter()
            .filter_map(|item| {
                let entry = self.read.text(item)?;
                let bad =
                    |key: &str| key.is_empty() || key.contains(|c: char| c.is_whitespace() || c.is_control());
                match entry.split_once('=') {
                    Some((_, value)) if bad_secret(value) => self.read.refuse(
                        item,
                        "names no secret that there could be",
                        "wanted `KEY=secret:NAME`, the name of letters, digits, `-`, `_` and `.`",
                    ),
                    Some((key, value)) if !bad(key) && !value.contains('\0') => {
                        Some((key.to_owned(), value.to_owned()))
                    }
                    _ => self
                        .read
                        .refuse(item, "is not `KEY=VALUE`", "wanted such as `\"CGO_ENABLED=0\"`"),
                }
            })
            .collect()
    }

    fn texts(&mut self, item: &Item<'_>) -> Vec<String> {
        let list = self.read.list(item).unwrap_or_default();
        list.iter()
            .filter_map(|item| self.read.text(item).map(str::to_owned))
            .collect()
    }

    fn notes(&mut self, fields: &Fields<'_>) -> String {
        let notes = fields.get("notes").and_then(|item| self.read.any_text(&item));
        notes.unwrap_or_default().to_owned()
    }

    /// `TERM = "builder"`, or a list of names and globs. An empty text records a builder that is
    /// known to be missing, as in the original.
    fn slowbots(&mut self, root: &Table, names: &Names<'_>) {
        let Some(table) = self.table_of(root, "slowbots") else {
            return;
        };
        if let Some(entry) = root.get("slowbots") {
            self.read.notice(entry.key_at, "slowbots", NO_EFFECT);
        }
        for (term, entry) in table {
            let item = Item {
                node: &entry.node,
                path: join("slowbots", term),
                head: entry.key_at,
            };
            for target in self.read.one_or_list(&item).unwrap_or_default() {
                let Some(name) = self.read.any_text(&target) else {
                    continue;
                };
                let glob = Glob(name.to_owned());
                let found = match glob.literal() {
                    Some(name) => name.is_empty() || names.builders.contains(&name),
                    None => names.builders.iter().any(|builder| glob.matches(builder)),
                };
                if !found {
                    self.must_be(&target, "builder", name, &names.builders);
                }
            }
        }
    }

    /// What is right in itself but leads nowhere.
    fn forgotten(&mut self, root: &Table, config: &Config) {
        let key_at = |kind: &str, name: &str| -> At {
            match root.get(kind).map(|entry| &entry.node.value) {
                Some(Value::Table(table)) => table.get(name).map(|entry| entry.key_at).unwrap_or_default(),
                _ => At::default(),
            }
        };
        for (name, repo) in &config.repos {
            if !config
                .builders
                .values()
                .any(|builder| can_build(builder, name, repo))
            {
                let path = join("repo", name.as_str());
                self.read
                    .notice(key_at("repo", name.as_str()), &path, "no builder builds it");
            }
        }
        for name in config.hosts.keys() {
            if !config.builders.values().any(|builder| builder.host == *name) {
                let path = join("host", name.as_str());
                self.read
                    .notice(key_at("host", name.as_str()), &path, "no builder uses it");
            }
        }
        let of_repos = config.repos.values().map(|repo| &repo.recipe);
        let of_builders = config
            .builders
            .values()
            .filter_map(|builder| builder.recipe.as_ref());
        let used: BTreeSet<&RecipeName> = of_repos.chain(of_builders).collect();
        for name in config.recipes.keys().filter(|name| !used.contains(name)) {
            let path = join("recipe", name.as_str());
            self.read
                .notice(key_at("recipe", name.as_str()), &path, "nothing uses it");
        }
    }
}

/// How long a step may run that says nothing of it.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// How long it may be silent.
pub(crate) const STEP_SILENCE: Duration = Duration::from_secs(30 * 60);

#[derive(Clone, Copy, PartialEq, Eq)]
enum GlobOf {
    Repo,
    Branch,
}

fn names_in<'t>(root: &'t Table, kind: &str) -> Vec<&'t str> {
    match root.get(kind).map(|entry| &entry.node.value) {
        Some(Value::Table(table)) => table.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether a value refers to a secret by a name that could be no file's in a folder.
fn bad_secret(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    value
        .strip_prefix("secret:")
        .is_some_and(|name| name.is_empty() || name.starts_with('.') || !name.chars().all(plain))
}

/// Names of what has no type of its own: forges, policies, environments. The rule is that of
/// recipes.
fn plain_name(text: &str) -> Result<String, BadName> {
    match RecipeName::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(bad) => Err(BadName { kind: "name", ..bad }),
    }
}

/// Source: golang/build `dashboard/builders.go`, `GoTestTimeoutScale`.
fn timeout_scale(env: &[(String, String)]) -> Option<u32> {
    let (_, value) = env.iter().find(|(key, _)| key == "GO_TEST_TIMEOUT_SCALE")?;
    value.parse().ok().filter(|scale| (1..=1000).contains(scale))
}
