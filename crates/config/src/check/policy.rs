//! `[policy.repos]`, `[policy.tests]`, and the rules in them.

use super::*;

impl Check<'_> {
    /// `[policy.repos.NAME]`, each with the rules it extends put first.
    pub(super) fn policies(&mut self, root: &Table) -> BTreeMap<String, Policy> {
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

    pub(super) fn rules(&mut self, item: &Item<'_>) -> Option<Vec<Rule>> {
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

    pub(super) fn globs(&mut self, item: &Item<'_>, of: GlobOf) -> Option<Vec<Glob>> {
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
}
