//! `[forge]`, `[repo]`.

use super::*;

impl Check<'_> {
    /// `None`: there is such a forge, but it is not right.
    pub(super) fn forge(&mut self, item: &Item<'_>) -> Option<Forge> {
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

    pub(super) fn repo(&mut self, item: &Item<'_>, names: &Names<'_>) -> Option<Repo> {
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

    pub(super) fn recipe_name(&mut self, item: &Item<'_>, names: &Names<'_>) -> Option<RecipeName> {
        let name = self.read.text(item)?;
        if BUILT_IN_RECIPES.contains(&name) && !names.recipes.contains(&name) {
            let message = format!("recipe `{name}` is not available in this version");
            let hint = format!("write its steps as `[recipe.{name}]`");
            return self.read.refuse(item, message, hint);
        }
        self.must_be(item, "recipe", name, &names.recipes)?;
        RecipeName::parse(name).ok()
    }
}
