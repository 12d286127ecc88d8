//! `[recipe]` and its steps.

use super::*;

impl Check<'_> {
    pub(super) fn recipe(&mut self, item: &Item<'_>) -> Option<Recipe> {
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
}
