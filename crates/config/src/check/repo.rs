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
        let api = fields.get("api").and_then(|item| self.api(&item));
        match kind {
            "github" => {
                let base = if fields.has("git") {
                    git?
                } else {
                    "https://github.com".to_owned()
                };
                let token = self.token(&fields);
                Some(Forge {
                    git: ForgeGit::GitHub { base },
                    at: ForgeAt::GitHub {
                        api: api.unwrap_or_else(|| "https://api.github.com".to_owned()),
                        token,
                    },
                })
            }
            "gerrit" | "git" if !fields.has("git") => {
                self.read
                    .missing(&fields, "git", "the URL that its repositories are below")
            }
            "gerrit" => {
                let cookies = self.auth(&fields, &["cookies_file"]).and_then(|auth| {
                    let item = auth.get("cookies_file")?;
                    self.read.text(&item).map(PathBuf::from)
                });
                let base = git?;
                Some(Forge {
                    git: ForgeGit::Plain { base: base.clone() },
                    at: ForgeAt::Gerrit { base, cookies },
                })
            }
            "git" => {
                self.auth(&fields, &[]);
                let base = git?;
                Some(Forge {
                    git: ForgeGit::Plain { base: base.clone() },
                    at: ForgeAt::Git { base },
                })
            }
            _ => {
                let (message, hint) = no_such("kind of forge", kind, &["gerrit", "git", "github"]);
                self.read.refuse(&kind_item, message, hint)
            }
        }
    }

    pub(super) fn api(&mut self, item: &Item<'_>) -> Option<String> {
        let url = self.read.text(item)?;
        let rest = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '@');
        if rest.is_none_or(|rest| rest.is_empty() || rest.contains(odd)) {
            let shown = crate::mask::shown_url(url);
            let hint = "wanted such as `https://api.github.com`";
            return self
                .read
                .refuse(item, format!("`{shown}` is not the URL of an API"), hint);
        }
        Some(url.trim_end_matches('/').to_owned())
    }

    /// The table `auth`, in which of these keys alone those with an effect may be.
    fn auth<'t>(&mut self, fields: &Fields<'t>, usable: &[&str]) -> Option<Fields<'t>> {
        let auth = self.read.fields(&fields.get("auth")?, keys::AUTH)?;
        for key in ["token_file", "token_env", "cookies_file"] {
            if let Some(item) = auth.get(key).filter(|_| !usable.contains(&key)) {
                let hint = match usable {
                    [] => "put a login into the URL `git`".to_owned(),
                    usable => format!("wanted {}", usable.join(" or ")),
                };
                let message = "is not how to log in at this kind of forge";
                self.read.problem(item.head, &item.path, message, hint);
            }
        }
        Some(auth)
    }

    fn token(&mut self, fields: &Fields<'_>) -> Option<SecretAt> {
        let auth = self.auth(fields, &["token_file", "token_env"])?;
        match (auth.get("token_file"), auth.get("token_env")) {
            (Some(_), Some(env)) => {
                self.read.problem(
                    env.head,
                    &env.path,
                    "both `token_file` and `token_env`",
                    "keep one",
                );
                None
            }
            (Some(file), None) => Some(SecretAt::File(self.read.text(&file)?.into())),
            (None, Some(env)) => {
                let name = self.read.text(&env)?;
                let good = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                if !good || name.starts_with(|c: char| c.is_ascii_digit()) {
                    // It may be the token itself.
                    let message = "is not the name of a variable";
                    return self.read.refuse(&env, message, "wanted such as `GITHUB_TOKEN`");
                }
                Some(SecretAt::Env(name.to_owned()))
            }
            (None, None) => None,
        }
    }

    /// The name of a project on a forge.
    pub(super) fn project_name<'t>(&mut self, item: &Item<'t>, on_github: bool) -> Option<&'t str> {
        let project = self.read.text(item)?;
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '\\');
        let parts: Vec<&str> = project.split('/').collect();
        if project.contains(odd) || parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
            let message = format!("`{project}` is not the name of a project");
            return self.read.refuse(item, message, "wanted such as `acme/widget`");
        }
        if on_github && parts.len() != 2 {
            let message = format!("`{project}` is not the name of a project on GitHub");
            return self.read.refuse(item, message, "wanted `OWNER/NAME`");
        }
        Some(project)
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
        let project = fields.get("project");
        match (fields.get("url"), fields.get("forge")) {
            (Some(_), Some(forge)) => {
                self.read
                    .problem(forge.head, &fields.path, "both `url` and `forge`", HINT);
                None
            }
            (Some(url), None) => {
                if let Some(project) = project {
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
                let Some(item) = project else {
                    return self.read.missing(fields, "project", "its name on the forge");
                };
                let Some(known) = known.as_ref() else {
                    self.project_name(&item, false);
                    return None;
                };
                match &known.git {
                    ForgeGit::Plain { base } => {
                        let project = self.project_name(&item, false)?;
                        Some(format!("{base}/{project}"))
                    }
                    ForgeGit::GitHub { base } => {
                        let project = self.project_name(&item, true)?;
                        let project = project.strip_suffix(".git").unwrap_or(project);
                        Some(format!("{base}/{project}.git"))
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
