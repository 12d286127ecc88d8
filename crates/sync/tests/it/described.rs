//! GitHub as it describes itself, and as it was recorded: what our reading and our fake are held against.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use github::Answer;
use github::model::{Issue, Label};
use serde_json::{Value, json};
use testkit::github as fake;

/// Files of a package of npm, fetched once. `None`: there is no npm here, which was said.
fn package(name: &str, files: &[&str]) -> Option<PathBuf> {
    static FETCHING: Mutex<()> = Mutex::new(());
    let _fetching = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name.replace('/', "-"));
    if files
        .iter()
        .all(|file| folder.join("package").join(file).exists())
    {
        return Some(folder.join("package"));
    }
    fs::create_dir_all(&folder).unwrap();
    let packed = Command::new("npm")
        .args(["pack", "--silent", name])
        .current_dir(&folder)
        .output();
    let packed = match packed {
        Ok(packed) if packed.status.success() => packed,
        failed => {
            assert!(
                std::env::var_os(testkit::peer::REQUIRE).is_none(),
                "npm has no {name}: {failed:?}"
            );
            eprintln!("skipped: npm has no {name}: {failed:?}");
            return None;
        }
    };
    let archive = String::from_utf8(packed.stdout).unwrap();
    let wanted = files.iter().map(|file| format!("package/{file}"));
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(archive.trim())
        .args(wanted)
        .current_dir(&folder)
        .status();
    assert!(unpacked.unwrap().success());
    Some(folder.join("package"))
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn what_github_answered_is_understood() {
    let scenario = |name: &str| format!("scenarios/api.github.com/{name}/raw-fixture.json");
    let files = ["paginate-issues", "labels", "add-labels-to-issue"].map(scenario);
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let Some(package) = package("@octokit/fixtures@23.1.2", &files) else {
        return;
    };
    let (mut issues, mut labels, mut pages) = (0, 0, Vec::new());
    for file in files {
        for exchange in read(&package.join(file)).as_array().unwrap() {
            let path = exchange["path"].as_str().unwrap().split('?').next().unwrap();
            let is_list = exchange["method"] == "get" && path.ends_with("/issues");
            let headers: Vec<&str> = exchange["rawHeaders"]
                .as_array()
                .unwrap()
                .iter()
                .map(|text| text.as_str().unwrap())
                .collect();
            let answer = Answer::new(200, Vec::new(), |name| {
                headers
                    .chunks(2)
                    .find(|pair| pair[0].eq_ignore_ascii_case(name))
                    .map(|pair| pair[1])
            });
            assert!(
                answer.date.is_some() && answer.remaining.is_some() && answer.reset > answer.date,
                "{headers:?}"
            );
            let response = exchange["response"].clone();
            if is_list {
                let page: Vec<Issue> = serde_json::from_value(response).unwrap();
                pages.push((page.len(), answer.next.is_some()));
            } else if path.ends_with("/issues") {
                let issue: Issue = serde_json::from_value(response).unwrap();
                assert!(
                    issue.user.is_some() && issue.repository_url.contains("/repos/octokit-fixture-org/"),
                    "{issue:?}"
                );
                issues += 1;
            } else if path.contains("/labels") && response.is_array() {
                labels += serde_json::from_value::<Vec<Label>>(response).unwrap().len();
            }
        }
    }
    assert_eq!(pages, [(3, true), (3, true), (3, true), (3, true), (1, false)]);
    assert!(issues == 14 && labels > 5, "{issues} issues, {labels} labels");
}

/// GitHub's description of its API.
struct Description(Value);

impl Description {
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(to) => self.resolve(self.0.pointer(&to[1..]).expect("it refers to what is there")),
            None => schema,
        }
    }

    /// What the answer 200 to a question looks like.
    fn answer(&self, path: &str) -> &Value {
        let path = &self.0["paths"][format!("/repos/{{owner}}/{{repo}}/{path}")];
        let schema = &path["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{path}");
        schema
    }

    /// Why the value cannot be an answer of this form: a member of another name or type. One that is
    /// missing is none: our fake says less than GitHub does.
    fn refuses(&self, schema: &Value, value: &Value, at: &str) -> Option<String> {
        let schema = self.resolve(schema);
        for kind in ["anyOf", "oneOf"] {
            if let Some(some) = schema[kind].as_array() {
                let nullable =
                    value.is_null() && some.iter().any(|one| self.resolve(one)["nullable"] == true);
                let fits = nullable || some.iter().any(|one| self.refuses(one, value, at).is_none());
                return (!fits).then(|| format!("{at} fits none of {kind}: {value}"));
            }
        }
        if let Some(all) = schema["allOf"].as_array() {
            return all.iter().find_map(|one| self.refuses(one, value, at));
        }
        let fits = match (schema["type"].as_str(), value) {
            (_, Value::Null) => return (schema["nullable"] != true).then(|| format!("{at} is null")),
            (Some("array"), Value::Array(items)) => {
                let mut items = items.iter().enumerate();
                return items
                    .find_map(|(n, item)| self.refuses(&schema["items"], item, &format!("{at}[{n}]")));
            }
            (Some("object"), Value::Object(members)) if schema["properties"].is_object() => {
                return members
                    .iter()
                    .find_map(|(key, value)| match &schema["properties"][key] {
                        Value::Null => Some(format!("{at}.{key} is not described")),
                        schema => self.refuses(schema, value, &format!("{at}.{key}")),
                    });
            }
            (Some("integer"), Value::Number(number)) => number.is_i64(),
            (Some("string"), Value::String(text)) => {
                let known = schema["enum"]
                    .as_array()
                    .is_none_or(|known| known.contains(value));
                known && (schema["format"] != "date-time" || github::model::Time::parse(text).is_some())
            }
            (Some("object"), Value::Object(_)) | (Some("boolean"), Value::Bool(_)) | (None, _) => true,
            _ => false,
        };
        (!fits).then(|| format!("{at} is {value}, and should be {}", schema["type"]))
    }
}

#[tokio::test]
async fn our_github_answers_as_github_describes_itself() {
    const FILE: &str = "generated/api.github.com.json";
    let Some(package) = package("@octokit/openapi@23.0.2", &[FILE]) else {
        return;
    };
    let description = Description(read(&package.join(FILE)));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = fake::GitHub::start().await;
    {
        let mut world = server.world();
        let (number, label, milestone) = (world.open("a", "b"), world.label("bug"), world.milestone("1.0"));
        world.edit(number, |issue| {
            issue.labels.insert(label);
            issue.milestone = Some(milestone);
            issue.assignees.insert(5);
            issue.pull_request = true;
        });
        world.comment(number, "said");
        world.event(
            number,
            "labeled",
            json!({"label": {"name": "bug", "color": "fff"}}),
        );
        world.event(number, "renamed", json!({"rename": {"from": "x", "to": "y"}}));
        world.review(number, "APPROVED");
        world.open("plain", "");
    }
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let client = github::Client::new(http, &server.base, None);
    for (path, ours) in [
        ("issues", "issues?state=all"),
        ("issues/{issue_number}", "issues/1"),
        ("issues/{issue_number}/comments", "issues/1/comments"),
        ("issues/{issue_number}/events", "issues/1/events"),
        ("pulls/{pull_number}/reviews", "pulls/1/reviews"),
        ("labels", "labels"),
        ("milestones", "milestones"),
    ] {
        let answer = client.ask(&format!("/repos/o/r/{ours}"), None).await.unwrap();
        let value: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(
            value.as_array().is_none_or(|all| !all.is_empty()),
            "{path}: {value}"
        );
        assert_eq!(description.refuses(description.answer(path), &value, path), None);
    }
}
