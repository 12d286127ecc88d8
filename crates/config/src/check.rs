//! From the written form to the checked form. One function per kind of table; each goes on after a
//! problem, so that one run shows every mistake.

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

enum Forge {
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
        let config = Config {
            farm,
            repos,
            hosts,
            builders,
            recipes,
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

    fn farm(&mut self, root: &Table, names: &Names<'_>) -> Farm {
        let fields = root.get("farm").and_then(|entry| {
            let item = Item {
                node: &entry.node,
                path: "farm".to_owned(),
                head: entry.key_at,
            };
            self.read.fields(&item, keys::FARM)
        });
        let mut farm = Farm {
            name: "burrow".to_owned(),
            public_url: None,
            state_dir: self.defaults.state_dir.clone(),
            listen_http: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            listen_https: None,
            tls: None,
            store: StoreUrl::Embedded,
            // Enough for a source, its build and the log of one more build on most projects.
            disk_floor: 1 << 30,
            keep_logs: Duration::from_secs(90 * 86_400),
            max_log: 32 << 20,
            wait_limit: Duration::from_secs(86_400),
        };
        let Some(fields) = fields else {
            return farm;
        };
        let text = |check: &mut Self, key| {
            let item = fields.get(key)?;
            check.read.text(&item).map(str::to_owned)
        };
        if let Some(name) = text(self, "name") {
            farm.name = name;
        }
        if let Some(dir) = text(self, "state_dir") {
            farm.state_dir = dir.into();
        }
        farm.public_url = fields.get("public_url").and_then(|item| self.public_url(&item));
        if let Some(item) = fields.get("environment") {
            if let Some(name) = self.read.text(&item) {
                self.must_be(&item, "environment", name, &names.environments);
            }
            self.read.notice(item.head, &item.path, NO_EFFECT);
        }
        if let Some(store) = fields.get("store").and_then(|item| self.store(&item)) {
            farm.store = store;
        }
        self.listen(&fields, &mut farm);
        for (key, into) in [
            ("disk_floor", &mut farm.disk_floor),
            ("max_log", &mut farm.max_log),
        ] {
            if let Some(size) = fields.get(key).and_then(|item| self.read.size(&item)) {
                *into = size;
            }
        }
        if farm.max_log == 0
            && let Some(item) = fields.get("max_log")
        {
            self.read.problem(
                item.node.at,
                &item.path,
                "no log could be kept",
                "wanted such as `32MiB`",
            );
        }
        for (key, into) in [
            ("keep_logs", &mut farm.keep_logs),
            ("wait_limit", &mut farm.wait_limit),
        ] {
            if let Some(duration) = fields.get(key).and_then(|item| self.read.duration(&item)) {
                *into = duration;
            }
        }
        farm
    }

    fn public_url(&mut self, item: &Item<'_>) -> Option<String> {
        const HINT: &str = "wanted such as `https://farm.example.org/`";
        let url = self.read.text(item)?;
        let host = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        match host {
            Some(rest)
                if rest.contains(['?', '#', ' ', '"', '<', '>', '@'])
                    || rest.chars().any(char::is_control) =>
            {
                self.read.refuse(item, "holds more than a host and a path", HINT)
            }
            Some(rest) if !rest.is_empty() && !rest.starts_with(['/', ':']) => {
                let slash = if url.ends_with('/') { "" } else { "/" };
                Some(format!("{url}{slash}"))
            }
            _ => {
                let shown = crate::mask::shown_url(url);
                self.read.refuse(
                    item,
                    format!("`{shown}` is no `http://` or `https://` address"),
                    HINT,
                )
            }
        }
    }

    /// The message never holds what was found: it may be a password.
    fn store(&mut self, item: &Item<'_>) -> Option<StoreUrl> {
        let url = self.read.text(item)?;
        if url == "embedded" {
            Some(StoreUrl::Embedded)
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Some(StoreUrl::Postgres(SecretUrl::new(url.to_owned())))
        } else {
            let hint = "wanted `embedded` or an address that begins with `postgres://`";
            self.read.refuse(item, "no such store", hint)
        }
    }

    fn listen(&mut self, fields: &Fields<'_>, farm: &mut Farm) {
        let insecure = fields.get("insecure_http").and_then(|item| self.read.bool(&item));
        if let Some(item) = fields.get("listen")
            && let Some(address) = self.address(&item, "127.0.0.1:8080")
        {
            farm.listen_http = address;
            if !address.ip().is_loopback() && insecure != Some(true) {
                let message = format!("`{address}` can be reached from other machines without TLS");
                let hint = "listen on 127.0.0.1 and give `listen_https`, or say `insecure_http = true`";
                self.read.problem(item.node.at, &item.path, message, hint);
            }
        }
        if let Some(item) = fields.get("listen_https") {
            farm.listen_https = self.address(&item, "0.0.0.0:8443");
            if farm.listen_https == Some(farm.listen_http) && farm.listen_http.port() != 0 {
                self.read.problem(
                    item.node.at,
                    &item.path,
                    "is the same as `listen`",
                    "give each its own port",
                );
            }
        }
        let file = |check: &mut Self, key| {
            let item = fields.get(key)?;
            check.read.text(&item).map(PathBuf::from)
        };
        let (cert, key) = (file(self, "tls_cert"), file(self, "tls_key"));
        match (fields.get("tls_cert"), fields.get("tls_key")) {
            (Some(item), Some(_)) if !fields.has("listen_https") => {
                let hint = "add such as `listen_https = \"0.0.0.0:8443\"`";
                self.read
                    .problem(item.head, &item.path, "nothing listens over TLS", hint);
            }
            (Some(item), None) => {
                let hint = "add `tls_key`, the file with its private key";
                self.read
                    .problem(item.head, &item.path, "a certificate without its key", hint);
            }
            (None, Some(item)) => {
                let hint = "add `tls_cert`, the file with its certificate";
                self.read
                    .problem(item.head, &item.path, "a key without its certificate", hint);
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        farm.tls = cert.zip(key).map(|(cert, key)| TlsFiles { cert, key });
    }

    fn address(&mut self, item: &Item<'_>, example: &str) -> Option<SocketAddr> {
        let text = self.read.text(item)?;
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let message = format!("`{text}` is not an address and a port");
                self.read
                    .refuse(item, message, format!("wanted such as `{example}`"))
            }
        }
    }

    fn environments(&mut self, root: &Table) {
        let known: Vec<&str> = keys::ENVIRONMENT.iter().map(|key| key.name).collect();
        self.named(root, "environment", plain_name, |check, item| {
            let table = check.read.table(&item)?;
            check.read.refuse_unknown(table, &item.path, &known);
            check.read.notice(item.head, &item.path, NO_EFFECT);
            Some(())
        });
    }

    /// `None`: there is such a forge, but it is not right.
    fn forge(&mut self, item: &Item<'_>) -> Option<Forge> {
        let fields = self.read.fields(item, keys::FORGE)?;
        let git = fields.get("git").and_then(|item| self.fetch_url(&item));
        let git = git.map(|url| url.trim_end_matches('/').to_owned());
        let Some(kind_item) = fields.get("kind") else {
            return self.read.missing(&fields, "kind", "one of: gerrit, git, github");
        };
        let kind = self.read.text(&kind_item)?;
        match kind {
            "github" => {
                let base = if fields.has("git") {
                    git?
                } else {
                    "https://github.com".to_owned()
                };
                Some(Forge::GitHub { base })
            }
            "gerrit" | "git" if !fields.has("git") => {
                self.read
                    .missing(&fields, "git", "the URL that its repositories are below")
            }
            "gerrit" | "git" => Some(Forge::Plain { base: git? }),
            _ => {
                let (message, hint) = no_such("kind of forge", kind, &["gerrit", "git", "github"]);
                self.read.refuse(&kind_item, message, hint)
            }
        }
    }

    fn repo(&mut self, item: &Item<'_>, names: &Names<'_>) -> Option<Repo> {
        let fields = self.read.fields(item, keys::REPO)?;
        let url = self.repo_url(&fields, names);
        let branches = match fields.get("branches") {
            Some(item) => self.globs(&item, GlobOf::Branch),
            None => Some(Vec::new()),
        };
        let recipe = match fields.get("recipe") {
            Some(item) => self.recipe_name(&item, names),
            None => {
                let own = item.path.strip_prefix("repo.").unwrap_or_default();
                if names.recipes.contains(&own) {
                    RecipeName::parse(own).ok()
                } else {
                    let known = names.recipes.join(", ");
                    let hint = match known.as_str() {
                        "" => "write a `[recipe.NAME]` and name it here".to_owned(),
                        known => format!("there are: {known}"),
                    };
                    self.read.missing(&fields, "recipe", hint)
                }
            }
        };
        let poll = fields.get("poll").and_then(|item| self.read.duration(&item));
        let backfill = fields
            .get("backfill")
            .and_then(|item| self.read.count(&item, 0, 10_000));
        Some(Repo {
            url: url?,
            branches: branches?,
            recipe: recipe?,
            poll: poll.unwrap_or(Duration::from_secs(30)),
            backfill: backfill.unwrap_or(10),
        })
    }

    fn repo_url(&mut self, fields: &Fields<'_>, names: &Names<'_>) -> Option<String> {
        const HINT: &str = "give `url`, or `forge` and `project`";
        let project = match fields.get("project") {
            Some(item) => Some((self.read.text(&item)?, item)),
            None => None,
        };
        match (fields.get("url"), fields.get("forge")) {
            (Some(_), Some(forge)) => {
                self.read
                    .problem(forge.head, &fields.path, "both `url` and `forge`", HINT);
                None
            }
            (Some(url), None) => {
                if let Some((_, project)) = project {
                    self.read
                        .problem(project.head, &fields.path, "`project` without `forge`", HINT);
                }
                self.fetch_url(&url)
            }
            (None, None) => self.read.missing(fields, "url", HINT),
            (None, Some(forge)) => {
                let name = self.read.text(&forge)?;
                let Some(known) = names.forges.get(name) else {
                    let known: Vec<&str> = names.forges.keys().map(String::as_str).collect();
                    self.must_be(&forge, "forge", name, &known);
                    return None;
                };
                let Some((project, item)) = project else {
                    return self.read.missing(fields, "project", "its name on the forge");
                };
                let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '\\');
                let parts: Vec<&str> = project.split('/').collect();
                if project.contains(odd) || parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
                    let message = format!("`{project}` is not the name of a project");
                    return self.read.refuse(&item, message, "wanted such as `acme/widget`");
                }
                match known.as_ref()? {
                    Forge::Plain { base } => Some(format!("{base}/{project}")),
                    Forge::GitHub { base } if parts.len() == 2 => {
                        let project = project.strip_suffix(".git").unwrap_or(project);
                        Some(format!("{base}/{project}.git"))
                    }
                    Forge::GitHub { .. } => {
                        let message = format!("`{project}` is not the name of a project on GitHub");
                        self.read.refuse(&item, message, "wanted `OWNER/NAME`")
                    }
                }
            }
        }
    }

    /// An address for `git fetch`: no option in disguise, no transport that runs a program.
    fn fetch_url(&mut self, item: &Item<'_>) -> Option<String> {
        const HINT: &str = "wanted such as `https://git.example.org/widget.git` or `/srv/git/widget.git`";
        let url = self.read.text(item)?;
        let shown = crate::mask::shown_url(url);
        let scheme = url.split_once("::").map(|(scheme, _)| scheme);
        let helper =
            scheme.is_some_and(|scheme| scheme.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
        if url.starts_with('-') || url.chars().any(char::is_control) || helper || url.trim() != url {
            return self.read.refuse(
                item,
                format!("`{shown}` is not a URL or path to fetch from"),
                HINT,
            );
        }
        Some(url.to_owned())
    }

    fn recipe_name(&mut self, item: &Item<'_>, names: &Names<'_>) -> Option<RecipeName> {
        let name = self.read.text(item)?;
        if BUILT_IN_RECIPES.contains(&name) && !names.recipes.contains(&name) {
            let message = format!("recipe `{name}` is not available in this version");
            let hint = format!("write its steps as `[recipe.{name}]`");
            return self.read.refuse(item, message, hint);
        }
        self.must_be(item, "recipe", name, &names.recipes)?;
        RecipeName::parse(name).ok()
    }

    /// A problem with all that would be right unless `name` is among `known`.
    fn must_be(&mut self, item: &Item<'_>, what: &str, name: &str, known: &[&str]) -> Option<()> {
        if known.contains(&name) {
            return Some(());
        }
        let (message, hint) = no_such(what, name, known);
        self.read.refuse(item, message, hint)
    }

    /// `[policy.repos.NAME]`, each with the rules it extends put first.
    fn policies(&mut self, root: &Table) -> BTreeMap<String, Policy> {
        let mut out = BTreeMap::new();
        let Some(entry) = root.get("policy") else {
            return out;
        };
        let item = Item {
            node: &entry.node,
            path: "policy".to_owned(),
            head: entry.key_at,
        };
        let Some(fields) = self.read.fields(&item, keys::POLICY) else {
            return out;
        };
        if let Some(table) = fields.get("tests").and_then(|item| self.read.table(&item)) {
            self.policy_tests(table);
        }
        let Some(table) = fields.get("repos").and_then(|item| self.read.table(&item)) else {
            return out;
        };
        let mut own: BTreeMap<&str, (Vec<Rule>, Option<String>)> = BTreeMap::new();
        let known: Vec<&str> = table.keys().map(String::as_str).collect();
        for (name, entry) in table {
            let item = Item {
                node: &entry.node,
                path: join("policy.repos", name),
                head: entry.key_at,
            };
            if let Err(bad) = plain_name(name) {
                self.read
                    .problem(entry.key_at, &item.path, bad.to_string(), None::<&str>);
            }
            let Some(fields) = self.read.fields(&item, keys::POLICY_REPOS) else {
                own.insert(name, (Vec::new(), None));
                continue;
            };
            let rules = fields
                .get("rules")
                .and_then(|item| self.rules(&item))
                .unwrap_or_default();
            let extends = fields.get("extends").and_then(|item| {
                let base = self.read.text(&item)?;
                self.must_be(&item, "policy", base, &known)?;
                Some(base.to_owned())
            });
            own.insert(name, (rules, extends));
        }
        for name in own.keys() {
            let mut chain = vec![*name];
            while let Some((_, Some(base))) = chain.last().and_then(|last| own.get(last)) {
                if let Some(at) = chain.iter().position(|seen| seen == base) {
                    // Each cycle is told once, by its first name.
                    let cycle = &chain[at..];
                    if at == 0 && cycle.iter().min() == Some(name) {
                        let path = join("policy.repos", name);
                        let message = format!("extends itself: {} -> {name}", cycle.join(" -> "));
                        let head = table.get(*name).map(|entry| entry.key_at).unwrap_or_default();
                        self.read.problem(head, &path, message, "take one `extends` out");
                    }
                    break;
                }
                chain.push(base);
            }
            let rules = chain
                .iter()
                .rev()
                .filter_map(|name| own.get(name))
                .flat_map(|(rules, _)| rules.clone());
            out.insert(
                (*name).to_owned(),
                Policy {
                    rules: rules.collect(),
                },
            );
        }
        out
    }

    fn policy_tests(&mut self, table: &Table) {
        let known: Vec<&str> = keys::POLICY_TESTS.iter().map(|key| key.name).collect();
        for (name, entry) in table {
            let item = Item {
                node: &entry.node,
                path: join("policy.tests", name),
                head: entry.key_at,
            };
            let Some(table) = self.read.table(&item) else {
                continue;
            };
            self.read.refuse_unknown(table, &item.path, &known);
            self.read.notice(item.head, &item.path, NO_EFFECT);
            let Some(rules) = table.get("rules") else {
                continue;
            };
            let rules = Item {
                node: &rules.node,
                path: join(&item.path, "rules"),
                head: rules.key_at,
            };
            for rule in self.read.list(&rules).unwrap_or_default() {
                if let Some(table) = self.read.table(&rule) {
                    self.read
                        .refuse_unknown(table, &rule.path, &keys::POLICY_TESTS_RULE);
                }
            }
        }
    }

    fn rules(&mut self, item: &Item<'_>) -> Option<Vec<Rule>> {
        let list = self.read.list(item)?;
        Some(list.iter().filter_map(|item| self.rule(item)).collect())
    }

    fn rule(&mut self, item: &Item<'_>) -> Option<Rule> {
        let fields = self.read.fields(item, keys::RULE)?;
        for key in ["at_least", "at_most", "path"] {
            if let Some(item) = fields.get(key) {
                let message = format!("`{key}` is not available in this version");
                self.read.problem(
                    item.head,
                    &item.path,
                    message,
                    "there are: repo, branch, target_branch",
                );
            }
        }
        let mut globs = |key, of| fields.get(key).and_then(|item| self.globs(&item, of));
        let repo = globs("repo", GlobOf::Repo).unwrap_or_default();
        let branch = globs("branch", GlobOf::Branch);
        let target = globs("target_branch", GlobOf::Branch);
        if let (Some(branch), Some(target), Some(item)) = (&branch, &target, fields.get("target_branch"))
            && branch != target
        {
            let message = "differs from `branch`; a commit has only one branch in this version";
            self.read
                .problem(item.node.at, &item.path, message, "leave one of the two out");
        }
        let build = match fields.get("build") {
            Some(item) => self.read.bool(&item),
            None => self
                .read
                .missing(&fields, "build", "add `build = true` or `build = false`"),
        };
        Some(Rule {
            repo,
            branch: branch.or(target).unwrap_or_default(),
            build: build?,
        })
    }

    fn globs(&mut self, item: &Item<'_>, of: GlobOf) -> Option<Vec<Glob>> {
        let list = self.read.one_or_list(item)?;
        Some(list.iter().filter_map(|item| self.glob(item, of)).collect())
    }

    fn glob(&mut self, item: &Item<'_>, of: GlobOf) -> Option<Glob> {
        const HINT: &str = "`*` is any run of characters, `?` any one; `!` in front takes away";
        let text = self.read.text(item)?;
        let pattern = text.strip_prefix('!').unwrap_or(text);
        if let Some(branch) = pattern.strip_prefix("refs/heads/")
            && of == GlobOf::Branch
        {
            let message = format!("`{text}` is a ref, not a branch");
            return self.read.refuse(item, message, format!("write `{branch}`"));
        }
        // What is no wildcard must be able to stand in a name.
        let plain: String = pattern.replace(['*', '?'], "x");
        let good = match of {
            GlobOf::Branch => BranchName::parse(&plain).is_ok() && !plain.starts_with('!'),
            GlobOf::Repo => RepoName::parse(&plain).is_ok(),
        };
        if good {
            return Some(Glob(text.to_owned()));
        }
        let what = match of {
            GlobOf::Branch => "branch",
            GlobOf::Repo => "repository",
        };
        self.read
            .refuse(item, format!("`{text}` matches no name of a {what}"), HINT)
    }

    fn host(&mut self, item: &Item<'_>) -> Option<Host> {
        let fields = self.read.fields(item, keys::HOST)?;
        let pool = self.pool(&fields);
        let env = self.env(&fields);
        let owners = match fields.get("owners") {
            Some(item) => self.texts(&item),
            None => Vec::new(),
        };
        let notes = self.notes(&fields);
        Some(Host {
            pool: pool?,
            env,
            owners,
            notes,
        })
    }

    fn pool(&mut self, fields: &Fields<'_>) -> Option<Pool> {
        let slots = fields
            .get("slots")
            .and_then(|item| self.read.count(&item, 1, 1000));
        let expect = fields
            .get("expect")
            .and_then(|item| self.read.count(&item, 0, 10_000));
        let key = fields
            .get("accept_development_keys")
            .and_then(|item| self.read.bool(&item));
        let Some(item) = fields.get("pool") else {
            return self.read.missing(fields, "pool", "one of: local, reverse");
        };
        let pool = self.read.text(&item)?;
        if OTHER_POOLS.contains(&pool) {
            let message = format!("pool `{pool}` is not available; there are: local, reverse");
            return self.read.refuse(&item, message, None::<&str>);
        }
        self.must_be(&item, "pool", pool, &["local", "reverse"])?;
        let foreign: &[&str] = if pool == "local" {
            &["expect", "accept_development_keys", "vm_image", "container_image"]
        } else {
            &["slots", "vm_image", "container_image"]
        };
        for key in foreign {
            if let Some(item) = fields.get(key) {
                let message = format!("pool `{pool}` has no `{key}`");
                self.read.problem(
                    item.head,
                    &item.path,
                    message,
                    "take the key out, or choose the other pool",
                );
            }
        }
        Some(match pool {
            "local" => Pool::Local {
                slots: slots.unwrap_or(self.defaults.cpus.max(1)),
            },
            _ => Pool::Reverse {
                expect: expect.unwrap_or(0),
                development_key: key.unwrap_or(false),
            },
        })
    }

    /// `repos`: to tell whether it builds anything; `None` when they are not known for certain.
    fn builder(
        &mut self,
        item: &Item<'_>,
        names: &Names<'_>,
        repos: Option<&BTreeMap<RepoName, Repo>>,
    ) -> Option<Builder> {
        let fields = self.read.fields(item, keys::BUILDER)?;
        let name = item.path.strip_prefix("builder.").unwrap_or_default();
        let host = match fields.get("host") {
            Some(item) => self.read.text(&item).and_then(|name| {
                self.must_be(&item, "host type", name, &names.hosts)?;
                HostType::parse(name).ok()
            }),
            None => {
                let known = names.hosts.join(", ");
                self.read.missing(&fields, "host", format!("there are: {known}"))
            }
        };
        self.helpers(&fields);
        let env = self.env(&fields);
        let before = self.read.problem_count();
        let builds = match fields.get("builds") {
            None => Some(Policy::everything()),
            Some(item) => self.builds(&item, names),
        };
        let builds_read = self.read.problem_count() == before;
        let submitted = self.post_submit(&fields);
        let recipe = fields
            .get("recipe")
            .and_then(|item| self.recipe_name(&item, names));
        let max_at_once = fields
            .get("max_at_once")
            .and_then(|item| self.read.count(&item, 0, 10_000));
        let time_scale = match fields.get("time_scale") {
            Some(item) => self.read.count(&item, 1, 1000),
            None => {
                let host = host.as_ref().map(HostType::as_str);
                let of_host = host.and_then(|host| names.host_scales.get(host).copied());
                timeout_scale(&env).or(of_host)
            }
        };
        let group = fields.get("group").and_then(|item| self.read.text(&item));
        let group = group.unwrap_or(name.split('-').next().unwrap_or(name)).to_owned();
        let order = fields
            .get("order")
            .and_then(|item| self.read.integer(&item, -1_000_000, 1_000_000));
        let notes = self.notes(&fields);
        let known_issues = fields.get("known_issues").map(|item| self.known_issues(&item));
        let mut builder = Builder {
            host: host?,
            builds: builds?,
            recipe,
            env,
            max_at_once: max_at_once.filter(|n| *n > 0),
            time_scale: time_scale.unwrap_or(1),
            group,
            order: order.unwrap_or(0),
            notes,
            known_issues: known_issues.unwrap_or_default(),
        };
        if !submitted {
            builder.builds = Policy {
                rules: vec![Rule {
                    repo: Vec::new(),
                    branch: Vec::new(),
                    build: false,
                }],
            };
        } else if let (Some(repos), true) = (repos, builds_read)
            && !repos.iter().any(|(name, repo)| can_build(&builder, name, repo))
        {
            let known: Vec<&str> = repos.keys().map(RepoName::as_str).collect();
            let (message, hint) = match known.as_slice() {
                [] => (
                    "there is no repository to build".to_owned(),
                    "write a `[repo.NAME]` with its `url`".to_owned(),
                ),
                known => (
                    "builds nothing: `builds` says no to every tracked branch".to_owned(),
                    format!("the repositories are: {}", known.join(", ")),
                ),
            };
            let head = fields.get("builds").map_or(fields.head, |item| item.head);
            self.read.problem(head, &fields.path, message, hint);
        }
        Some(builder)
    }

    fn builds(&mut self, item: &Item<'_>, names: &Names<'_>) -> Option<Policy> {
        match &item.node.value {
            Value::Text(name) => {
                let known: Vec<&str> = names.policies.keys().map(String::as_str).collect();
                self.must_be(item, "policy", name, &known)?;
                names.policies.get(name).cloned()
            }
            Value::List(_) => self.rules(item).map(|rules| Policy { rules }),
            Value::Table(_) => {
                let hint = "put the rule into brackets: `builds = [{ repo = \"widget\", build = true }]`";
                self.read.refuse(
                    item,
                    "wanted the name of a policy or a list of rules, found a table",
                    hint,
                )
            }
            Value::Integer(_) | Value::Float | Value::Bool(_) | Value::Datetime => self.read.refuse(
                item,
                "wanted the name of a policy or a list of rules",
                None::<&str>,
            ),
        }
    }

    fn post_submit(&mut self, fields: &Fields<'_>) -> bool {
        let Some(item) = fields.get("post_submit") else {
            return true;
        };
        match self.read.text(&item) {
            Some("never") => {
                let message = "builds nothing in this version: proposed changes are not built yet";
                self.read.notice(item.head, &item.path, message);
                false
            }
            Some("always") | None => true,
            Some(other) => {
                let (message, hint) = no_such("choice", other, &["always", "never"]);
                self.read.problem(item.node.at, &item.path, message, hint);
                true
            }
        }
    }

    /// Without effect; but a combination that the original refuses is refused.
    fn helpers(&mut self, fields: &Fields<'_>) {
        let mut helpers = 0;
        for key in ["helpers", "try_helpers"] {
            if let Some(item) = fields.get(key) {
                helpers += self.read.count(&item, 0, 100).unwrap_or(0);
                self.read.notice(item.head, &item.path, NO_EFFECT);
            }
        }
        if let Some(item) = fields.get("snapshot") {
            let snapshot = self.read.bool(&item);
            self.read.notice(item.head, &item.path, NO_EFFECT);
            if snapshot == Some(false) && helpers > 0 {
                let message = "helpers start from a snapshot, which is switched off";
                self.read.problem(
                    item.node.at,
                    &item.path,
                    message,
                    "take `snapshot = false` or the helpers out",
                );
            }
        }
    }

    fn known_issues(&mut self, item: &Item<'_>) -> Vec<String> {
        let list = self.read.list(item).unwrap_or_default();
        list.iter()
            .filter_map(|item| match &item.node.value {
                Value::Integer(Some(n)) if *n > 0 => Some(n.to_string()),
                Value::Integer(_) => self.read.refuse(
                    item,
                    "is not the number of an issue",
                    "wanted a number from 1, a link or text",
                ),
                _ => self.read.text(item).map(str::to_owned),
            })
            .collect()
    }

    fn recipe(&mut self, item: &Item<'_>) -> Option<Recipe> {
        let fields = self.read.fields(item, keys::RECIPE)?;
        let source = match fields.get("source") {
            Some(item) => self.folder(&item)?,
            None => "src".to_owned(),
        };
        let Some(item) = fields.get("steps") else {
            let hint = "add `steps = [{ name = \"test\", run = [\"make\", \"test\"] }]`";
            return self.read.missing(&fields, "steps", hint);
        };
        let list = self.read.list(&item)?;
        if list.is_empty() {
            return self.read.refuse(
                &item,
                "has no steps",
                "add `{ name = \"test\", run = [\"make\", \"test\"] }`",
            );
        }
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        let steps = list
            .iter()
            .filter_map(|item| self.step(item, &source, &mut seen))
            .collect();
        Some(Recipe { source, steps })
    }

    fn step(&mut self, item: &Item<'_>, source: &str, seen: &mut BTreeMap<String, String>) -> Option<Step> {
        let fields = self.read.fields(item, keys::STEP)?;
        let name = match fields.get("name") {
            Some(item) => self.step_name(&item, &fields.path, seen),
            None => self
                .read
                .missing(&fields, "name", "add such as `name = \"test\"`"),
        };
        let mut available = true;
        if let Some(item) = fields.get("kind")
            && let Some(kind) = self.read.text(&item)
            && kind != "run"
        {
            available = false;
            if OTHER_KINDS.contains(&kind) {
                let message = format!("step kind `{kind}` is not available; there is: run");
                self.read.problem(
                    item.node.at,
                    &item.path,
                    message,
                    "write one step that runs all tests",
                );
            } else {
                let (message, hint) = no_such("step kind", kind, &["run"]);
                self.read.problem(item.node.at, &item.path, message, hint);
            }
        }
        let run = match fields.get("run") {
            Some(item) => self.run(&item),
            None => self
                .read
                .missing(&fields, "run", "add such as `run = [\"make\", \"test\"]`"),
        };
        let dir = match fields.get("dir") {
            Some(item) => self.folder(&item),
            None => Some(source.to_owned()),
        };
        let env = self.env(&fields);
        let timeout = fields.get("timeout").and_then(|item| self.read.duration(&item));
        let silence = fields.get("no_output").and_then(|item| self.read.duration(&item));
        if !available {
            return None;
        }
        Some(Step {
            name: name?,
            run: run?,
            dir: dir?,
            env,
            timeout: timeout.unwrap_or(STEP_TIMEOUT),
            silence: silence.unwrap_or(STEP_SILENCE),
        })
    }

    fn step_name(
        &mut self,
        item: &Item<'_>,
        path: &str,
        seen: &mut BTreeMap<String, String>,
    ) -> Option<String> {
        let name = self.read.text(item)?;
        if name.len() > 100 || name.chars().any(char::is_control) || name.trim() != name {
            let hint = "wanted 1 to 100 characters on one line, without blanks around them";
            return self.read.refuse(item, "is not the name of a step", hint);
        }
        if let Some(first) = seen.insert(name.to_owned(), path.to_owned()) {
            let message = format!("two steps are called `{name}`: {first} is the other");
            return self
                .read
                .refuse(item, message, "give each step of a recipe its own name");
        }
        Some(name.to_owned())
    }

    fn run(&mut self, item: &Item<'_>) -> Option<Run> {
        const HINT: &str = "wanted `[\"program\", \"argument\"]`, or text for the shell";
        match &item.node.value {
            Value::Text(text) if text.contains('\0') => self.read.refuse(item, "holds a NUL", HINT),
            Value::Text(_) => self.read.text(item).map(|text| Run::Shell(text.to_owned())),
            Value::List(_) => {
                let list = self.read.list(item)?;
                let args: Option<Vec<String>> = list
                    .iter()
                    .map(|item| self.read.any_text(item).map(str::to_owned))
                    .collect();
                let args = args?;
                if args.first().is_none_or(|program| program.trim().is_empty()) {
                    return self.read.refuse(item, "names no program", HINT);
                }
                if args.iter().any(|arg| arg.contains('\0')) {
                    return self.read.refuse(item, "holds a NUL", HINT);
                }
                Some(Run::Args(args))
            }
            Value::Integer(_) | Value::Float | Value::Bool(_) | Value::Datetime | Value::Table(_) => {
                self.read.refuse(item, "is not something to run", HINT)
            }
        }
    }

    /// A folder below the working folder, on any system: `/` between names, no way out.
    fn folder(&mut self, item: &Item<'_>) -> Option<String> {
        let text = self.read.text(item)?;
        let hint = "wanted such as `src/tools`";
        if text.starts_with('/') || text.contains(['\\', ':', '\0']) {
            let message = format!("`{text}` is not below the working folder");
            return self
                .read
                .refuse(item, message, format!("{hint}, with `/` between names"));
        }
        if text.split('/').any(|part| part == "..") {
            return self
                .read
                .refuse(item, format!("`{text}` leads out of the working folder"), hint);
        }
        let parts: Vec<&str> = text
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        Some(if parts.is_empty() {
            ".".to_owned()
        } else {
            parts.join("/")
        })
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
