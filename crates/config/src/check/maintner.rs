//! `[maintner]` and what it watches.

use super::*;

impl Check<'_> {
    pub(super) fn maintner(&mut self, root: &Table, names: &Names<'_>) -> Maintner {
        let mut maintner = Maintner::default();
        let fields = root.get("maintner").and_then(|entry| {
            let item = Item {
                node: &entry.node,
                path: "maintner".to_owned(),
                head: entry.key_at,
            };
            self.read.fields(&item, keys::MAINTNER)
        });
        let Some(fields) = fields else {
            return maintner;
        };
        let public = fields.get("public").and_then(|item| self.read.bool(&item));
        maintner.public = public.unwrap_or(maintner.public);
        let rate = fields
            .get("github_rate")
            .and_then(|item| self.read.count(&item, 0, 1000));
        maintner.github_rate = rate.unwrap_or(maintner.github_rate);
        maintner.pubsub = fields.get("pubsub").and_then(|item| self.api(&item));
        let table = fields.get("watch").and_then(|item| self.read.table(&item));
        for (name, entry) in table.into_iter().flatten() {
            let item = Item {
                node: &entry.node,
                path: join("maintner.watch", name),
                head: entry.key_at,
            };
            if let Err(bad) = plain_name(name) {
                self.read
                    .problem(entry.key_at, &item.path, bad.to_string(), None::<&str>);
            }
            if let Some(watch) = self.watch(&item, names) {
                maintner.watches.insert(name.clone(), watch);
            }
        }
        maintner
    }

    fn watch(&mut self, item: &Item<'_>, names: &Names<'_>) -> Option<WatchForge> {
        let fields = self.read.fields(item, keys::MAINTNER_WATCH)?;
        let poll = fields.get("poll").and_then(|item| self.read.duration(&item));
        let projects = match fields.get("projects") {
            Some(item) => self.read.list(&item).map(|list| (item, list)),
            None => self
                .read
                .missing(&fields, "projects", "a list of their names on the forge"),
        };
        let Some(forge_item) = fields.get("forge") else {
            let hint = "wanted the name of a `[forge.NAME]`";
            return self.read.missing(&fields, "forge", hint);
        };
        let forge = self.read.text(&forge_item)?;
        let Some(known) = names.forges.get(forge) else {
            let known: Vec<&str> = names.forges.keys().map(String::as_str).collect();
            self.must_be(&forge_item, "forge", forge, &known);
            return None;
        };
        let at = known.as_ref().map(|forge| forge.at.clone());
        let on_github = matches!(at, Some(ForgeAt::GitHub { .. }));
        let (item, list) = projects?;
        if list.is_empty() {
            return self
                .read
                .refuse(&item, "names no project", "name one, or take the table out");
        }
        let mut seen = BTreeSet::new();
        for item in &list {
            let Some(project) = self.project_name(item, on_github) else {
                continue;
            };
            if !seen.insert(project) {
                let message = format!("`{project}` is named twice");
                self.read
                    .problem(item.node.at, &item.path, message, "keep one of them");
            }
        }
        // Source: golang/build `maintner/gerrit.go`, `maintner/github.go`.
        let usual = if on_github { 15 * 60 } else { 5 * 60 };
        Some(WatchForge {
            forge: forge.to_owned(),
            at: at?,
            projects: seen.into_iter().map(str::to_owned).collect(),
            poll: poll.unwrap_or(Duration::from_secs(usual)),
        })
    }
}
