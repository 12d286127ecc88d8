//! `[host]`, `[builder]`.

use super::*;

impl Check<'_> {
    pub(super) fn host(&mut self, item: &Item<'_>) -> Option<Host> {
        let fields = self.read.fields(item, keys::HOST)?;
        let pool = self.pool(&fields);
        let env = self.env(&fields);
        let limits = self.limits(&fields);
        let owners = match fields.get("owners") {
            Some(item) => self.texts(&item),
            None => Vec::new(),
        };
        let notes = self.notes(&fields);
        let ssh_user = fields
            .get("ssh_user")
            .and_then(|item| self.read.text(&item).map(str::to_owned));
        Some(Host {
            pool: pool?,
            env,
            limits,
            owners,
            notes,
            ssh_user: ssh_user.unwrap_or_else(|| SSH_USER.to_owned()),
        })
    }

    fn limits(&mut self, fields: &Fields<'_>) -> ids::Limits {
        let mut size = |key| {
            let item = fields.get(key)?;
            match self.read.size(&item)? {
                0 => self.read.refuse(
                    &item,
                    "nothing runs with so little",
                    "leave the key out for no limit",
                ),
                size => Some(size),
            }
        };
        let (memory, output) = (size("memory_limit"), size("output_limit"));
        let processes = fields.get("process_limit");
        let network = fields.get("network").and_then(|item| self.read.bool(&item));
        let confined = fields.get("confine").and_then(|item| self.read.bool(&item));
        ids::Limits {
            memory,
            processes: processes.and_then(|item| self.read.count(&item, 1, 10_000_000)),
            output,
            no_network: network == Some(false),
            confined: confined == Some(true),
        }
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
    pub(super) fn builder(
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
}
