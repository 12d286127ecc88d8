use std::collections::BTreeSet;
use std::path::PathBuf;

use config::{Config, ForgeAt, SecretAt};

use crate::args::{Check, Global};
use crate::failure::{Exit, Failure};
use crate::farm_file;

pub fn check(global: &Global, check: &Check) -> Result<Exit, Failure> {
    let defaults = farm_file::defaults(global)?;
    if check.print_detected {
        let found = farm_file::here(&defaults)?;
        eprintln!("{}", found.why);
        print!("{}", config::to_toml(&found.config));
        return Ok(Exit::Done);
    }
    let paths = match check.files.as_slice() {
        [] => vec![PathBuf::from(farm_file::NAME)],
        files => files.to_vec(),
    };
    let files = farm_file::read(&paths)?;
    match Config::check(&files, &defaults) {
        Ok(checked) => {
            if global.json && unread(&checked.config).is_empty() {
                let notices: Vec<_> = checked.notices.iter().map(problem).collect();
                println!(
                    "{}",
                    serde_json::json!({ "ok": true, "problems": [], "notices": notices })
                );
                return Ok(Exit::Done);
            }
            let unread = unread(&checked.config);
            if !unread.is_empty() {
                return Err(
                    Failure::new(unread.join("\n")).hint("`burrow check` looks from here, as this user")
                );
            }
            for notice in &checked.notices {
                println!("note: {notice}");
            }
            let farm = &checked.config;
            println!(
                "good: {}, {}, {}, {}",
                count(farm.repos.len(), "repository", "repositories"),
                count(farm.builders.len(), "builder", "builders"),
                count(farm.hosts.len(), "host type", "host types"),
                count(farm.recipes.len(), "recipe", "recipes"),
            );
            Ok(Exit::Done)
        }
        Err(problems) => {
            if global.json {
                let list: Vec<_> = problems.list().iter().map(problem).collect();
                println!(
                    "{}",
                    serde_json::json!({ "ok": false, "problems": list, "notices": [] })
                );
            } else {
                eprint!("{}", problems.render(global.color.on_stderr()));
            }
            Ok(Exit::Error)
        }
    }
}

/// What forges need to know us by and that cannot be read here, one sentence each.
fn unread(config: &Config) -> Vec<String> {
    let file = |name: &str, what: &str, path: &std::path::Path| {
        let read = std::fs::File::open(path).err();
        read.map(|why| format!("forge.{name}: cannot read {what} `{}`: {why}", path.display()))
    };
    let watches = config.maintner.watches.values();
    let troubles = watches.filter_map(|watch| match &watch.at {
        ForgeAt::Gerrit {
            cookies: Some(path), ..
        } => file(&watch.forge, "the cookies in", path),
        ForgeAt::GitHub {
            token: Some(SecretAt::File(path)),
            ..
        } => file(&watch.forge, "the token in", path),
        ForgeAt::GitHub {
            token: Some(SecretAt::Env(name)),
            ..
        } => {
            let unset = std::env::var_os(name).is_none();
            unset.then(|| format!("forge.{}: the token in ${name} is not set", watch.forge))
        }
        ForgeAt::Git { .. } | ForgeAt::Gerrit { .. } | ForgeAt::GitHub { .. } => None,
    });
    let troubles: BTreeSet<String> = troubles.collect();
    troubles.into_iter().collect()
}

fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn problem(problem: &config::Problem) -> serde_json::Value {
    serde_json::json!({
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "path": problem.path,
        "message": problem.message,
        "hint": problem.hint,
    })
}
