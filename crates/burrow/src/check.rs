use std::path::PathBuf;

use config::Config;

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
            if global.json {
                let notices: Vec<_> = checked.notices.iter().map(problem).collect();
                println!(
                    "{}",
                    serde_json::json!({ "ok": true, "problems": [], "notices": notices })
                );
                return Ok(Exit::Done);
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
