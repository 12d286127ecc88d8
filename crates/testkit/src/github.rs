//! A GitHub with state, as far as its REST API is asked for issues: one repository, its clock in the hands
//! of the test.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};
use serde_json::{Value, json};

/// Where it listens, and what it holds.
pub struct GitHub {
    pub base: String,
    world: Arc<Mutex<World>>,
    server: tokio::task::JoinHandle<()>,
}

/// Called before each answer.
type Meddle = Box<dyn FnMut(&mut World, &str) + Send>;

#[derive(Default)]
pub struct World {
    /// Seconds since 1970.
    pub now: i64,
    pub issues: BTreeMap<i64, Issue>,
    pub labels: BTreeMap<i64, String>,
    /// Title and whether it is closed.
    pub milestones: BTreeMap<i64, (String, bool)>,
    /// Where issues went: owner, name, number.
    pub transferred: BTreeMap<i64, (String, String, i64)>,
    pub deleted: BTreeSet<i64>,
    /// Issues whose events are not found, though they are there.
    pub broken: BTreeSet<i64>,
    /// Issues are disabled.
    pub disabled: bool,
    /// Answers that say that it was too much come first.
    pub limited: u32,
    /// The token that must be shown, if one must.
    pub wanted_token: Option<String>,
    /// Nothing may be asked for so many seconds, which every answer says.
    pub exhausted: Option<i64>,
    /// What was asked: status and address.
    pub asked: Vec<(u16, String)>,
    /// What each question said of who asked.
    pub tokens: Vec<Option<String>>,
    /// Most items on a page.
    pub page: usize,
    meddle: Option<Meddle>,
    last_id: i64,
    base: String,
}

#[derive(Debug, Clone, Default)]
pub struct Issue {
    pub title: String,
    pub body: Option<String>,
    pub user: i64,
    pub closed: bool,
    pub locked: bool,
    pub pull_request: bool,
    pub labels: BTreeSet<i64>,
    pub milestone: Option<i64>,
    pub assignees: BTreeSet<i64>,
    pub created: i64,
    pub updated: i64,
    pub closed_at: Option<i64>,
    /// In the order in which they came.
    pub comments: BTreeMap<i64, Comment>,
    pub events: BTreeMap<i64, Value>,
    pub reviews: BTreeMap<i64, Value>,
}

#[derive(Debug, Clone, Default)]
pub struct Comment {
    pub body: String,
    pub user: i64,
    pub created: i64,
    pub updated: i64,
}

impl GitHub {
    /// The repository `o/r`, empty.
    pub async fn start() -> GitHub {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let base = format!("http://{}", listener.local_addr().expect("it listens"));
        let world = World {
            now: 1_600_000_000,
            page: 100,
            base: base.clone(),
            ..World::default()
        };
        let world = Arc::new(Mutex::new(world));
        let app = Router::new().fallback(answer).with_state(world.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        GitHub { base, world, server }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test panics with it")
    }
}

impl Drop for GitHub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl World {
    /// `meddle` is called before each answer, with the address asked.
    pub fn meddle(&mut self, meddle: impl FnMut(&mut World, &str) + Send + 'static) {
        self.meddle = Some(Box::new(meddle));
    }

    fn id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    /// The number of a new issue.
    pub fn open(&mut self, title: &str, body: &str) -> i64 {
        let gone = self.deleted.iter().chain(self.transferred.keys());
        let number = self.issues.keys().chain(gone).max().unwrap_or(&0) + 1;
        let issue = Issue {
            title: title.to_owned(),
            body: Some(body.to_owned()).filter(|body| !body.is_empty()),
            user: 1,
            created: self.now,
            updated: self.now,
            ..Issue::default()
        };
        self.issues.insert(number, issue);
        number
    }

    pub fn edit(&mut self, number: i64, edit: impl FnOnce(&mut Issue)) {
        let now = self.now;
        let issue = self.issues.get_mut(&number).expect("the test knows its issues");
        edit(issue);
        issue.updated = now;
    }

    pub fn comment(&mut self, number: i64, body: &str) -> i64 {
        let (id, now) = (self.id(), self.now);
        let comment = Comment {
            body: body.to_owned(),
            user: 2,
            created: now,
            updated: now,
        };
        self.edit(number, |issue| drop(issue.comments.insert(id, comment)));
        id
    }

    pub fn event(&mut self, number: i64, kind: &str, more: Value) {
        let (id, now) = (self.id(), self.now);
        let mut event = json!({
            "id": id, "node_id": "x", "url": "https://x", "event": kind, "actor": user(3), "created_at": time(now),
            "commit_id": null, "commit_url": null,
        });
        merge(&mut event, more);
        self.edit(number, |issue| drop(issue.events.insert(id, event)));
    }

    pub fn review(&mut self, number: i64, state: &str) {
        let (id, now) = (self.id(), self.now);
        let review = json!({
            "id": id, "node_id": "x", "user": user(4), "body": "looks good", "state": state, "commit_id": "abc",
            "author_association": "MEMBER", "submitted_at": time(now), "html_url": "https://x", "_links": {}
        });
        self.edit(number, |issue| drop(issue.reviews.insert(id, review)));
    }

    pub fn label(&mut self, name: &str) -> i64 {
        let id = self.id();
        self.labels.insert(id, name.to_owned());
        id
    }

    pub fn milestone(&mut self, title: &str) -> i64 {
        let id = self.id();
        self.milestones.insert(id, (title.to_owned(), false));
        id
    }

    fn issue(&self, number: i64, issue: &Issue) -> Value {
        let labels = issue
            .labels
            .iter()
            .filter_map(|id| Some(label(*id, self.labels.get(id)?)));
        let milestone = issue
            .milestone
            .and_then(|id| Some(milestone(id, self.milestones.get(&id)?)));
        let mut value = json!({
            "id": 9_000_000 + number,
            "node_id": "x",
            "url": format!("{}/repos/o/r/issues/{number}", self.base),
            "repository_url": format!("{}/repos/o/r", self.base),
            "number": number,
            "title": issue.title,
            "body": issue.body,
            "user": user(issue.user),
            "state": if issue.closed { "closed" } else { "open" },
            "locked": issue.locked,
            "labels": labels.collect::<Vec<_>>(),
            "milestone": milestone,
            "assignees": issue.assignees.iter().map(|id| user(*id)).collect::<Vec<_>>(),
            "comments": issue.comments.len(),
            "created_at": time(issue.created),
            "updated_at": time(issue.updated),
            "closed_at": issue.closed_at.map(time),
            "author_association": "NONE",
        });
        if issue.pull_request {
            merge(&mut value, json!({"pull_request": {"url": "https://x"}}));
        }
        value
    }

    /// Status, all items of a list or one thing, and where it went.
    fn find(&self, path: &str, query: &BTreeMap<String, String>) -> (u16, Value, Option<String>) {
        let not_found = (404, json!({"message": "Not Found"}), None);
        let since = query
            .get("since")
            .and_then(|since| since.parse::<jiff::Timestamp>().ok());
        let since = since.map_or(0, jiff::Timestamp::as_second);
        if let Some(rest) = path.strip_prefix("/repos/elsewhere/there/issues/") {
            let repository = format!("{}/repos/elsewhere/there", self.base);
            let mut issue = self.issue(rest.parse().unwrap_or(0), &Issue::default());
            merge(&mut issue, json!({"repository_url": repository}));
            return (200, issue, None);
        }
        let Some(rest) = path.strip_prefix("/repos/o/r/") else {
            return not_found;
        };
        let parts: Vec<&str> = rest.split('/').collect();
        if let [_, number, ..] = parts[..]
            && let Ok(number) = number.parse::<i64>()
        {
            if let Some((owner, name, number)) = self.transferred.get(&number) {
                let there = format!("{}/repos/{owner}/{name}/issues/{number}", self.base);
                return (301, json!({"message": "Moved Permanently"}), Some(there));
            }
            if self.deleted.contains(&number) {
                return (410, json!({"message": "This issue was deleted"}), None);
            }
            let Some(issue) = self.issues.get(&number) else {
                return not_found;
            };
            let list = match parts[..] {
                ["issues", _] => return (200, self.issue(number, issue), None),
                ["issues", _, "comments"] => issue
                    .comments
                    .iter()
                    .filter(|(_, comment)| comment.updated >= since)
                    .map(|(id, comment)| {
                        json!({
                            "id": id, "node_id": "x", "user": user(comment.user), "body": comment.body,
                            "created_at": time(comment.created), "updated_at": time(comment.updated),
                        })
                    })
                    .collect(),
                ["issues", _, "events"] if self.broken.contains(&number) => return not_found,
                ["issues", _, "events"] => issue.events.values().cloned().collect(),
                ["pulls", _, "reviews"] if issue.pull_request => issue.reviews.values().cloned().collect(),
                _ => return not_found,
            };
            return (200, Value::Array(list), None);
        }
        match rest {
            "issues" if self.disabled => (410, json!({"message": "Issues are disabled for this repo"}), None),
            "issues" => {
                let mut found: Vec<(&i64, &Issue)> = self
                    .issues
                    .iter()
                    .filter(|(_, issue)| issue.updated >= since)
                    .collect();
                found.sort_by_key(|(number, issue)| (issue.updated, **number));
                let found = found
                    .into_iter()
                    .map(|(number, issue)| self.issue(*number, issue));
                (200, found.collect(), None)
            }
            "labels" => (
                200,
                self.labels.iter().map(|(id, name)| label(*id, name)).collect(),
                None,
            ),
            "milestones" => (
                200,
                self.milestones
                    .iter()
                    .map(|(id, of)| milestone(*id, of))
                    .collect(),
                None,
            ),
            _ => not_found,
        }
    }
}

async fn answer(State(world): State<Arc<Mutex<World>>>, headers: HeaderMap, uri: Uri) -> Response<Body> {
    let mut world = world.lock().expect("no test panics with it");
    let address = uri.to_string();
    let token = headers.get("authorization").and_then(|token| token.to_str().ok());
    world.tokens.push(token.map(str::to_owned));
    if let Some(mut meddle) = world.meddle.take() {
        meddle(&mut world, &address);
        world.meddle = world.meddle.take().or(Some(meddle));
    }
    let query: BTreeMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.replace("%3A", ":")))
        .collect();
    let mut response = Response::builder().header("date", http_date(world.now));
    if world.limited > 0 {
        world.limited -= 1;
        world.asked.push((403, address));
        let response = response.status(403).header("retry-after", "0");
        return response.body(Body::from("{}")).expect("it is an answer");
    }
    let shown = world.tokens.last().cloned().flatten();
    if let Some(wanted) = &world.wanted_token
        && shown != Some(format!("Bearer {wanted}"))
    {
        world.asked.push((401, address));
        let body = Body::from(r#"{"message":"Bad credentials"}"#);
        return response.status(401).body(body).expect("it is an answer");
    }
    if let Some(wait) = world.exhausted {
        let reset = world.now + wait;
        world.asked.push((403, address));
        let response = response.status(403).header("x-ratelimit-remaining", "0");
        let response = response.header("x-ratelimit-reset", reset);
        return response.body(Body::from("{}")).expect("it is an answer");
    }
    let (mut status, mut found, location) = world.find(uri.path(), &query);
    let number = |key: &str, or: usize| query.get(key).and_then(|value| value.parse().ok()).unwrap_or(or);
    let (size, page) = (number("per_page", 30).min(world.page), number("page", 1).max(1));
    if let Value::Array(all) = &mut found {
        let rest = all.split_off(all.len().min((page - 1) * size));
        let more = rest.len() > size;
        *all = rest.into_iter().take(size).collect();
        if more {
            let others = query.iter().filter(|(key, _)| *key != "page");
            let others: String = others.map(|(key, value)| format!("{key}={value}&")).collect();
            let next = format!(
                "<{}{}?{others}page={}>; rel=\"next\"",
                world.base,
                uri.path(),
                page + 1
            );
            response = response.header("link", next);
        }
    }
    if let Some(location) = location {
        response = response.header("location", location);
    }
    let mut body = found.to_string();
    let mut sum = DefaultHasher::new();
    body.hash(&mut sum);
    let etag = format!("W/\"{:x}\"", sum.finish());
    if status == 200
        && headers
            .get("if-none-match")
            .is_some_and(|known| known.as_bytes() == etag.as_bytes())
    {
        (status, body) = (304, String::new());
    }
    world.asked.push((status, address));
    let response = response
        .status(status)
        .header("etag", etag)
        .header("x-ratelimit-remaining", "4999");
    response.body(Body::from(body)).expect("it is an answer")
}

fn merge(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}

fn user(id: i64) -> Value {
    json!({"id": id, "login": format!("user{id}"), "node_id": "x", "type": "User"})
}

fn label(id: i64, name: &str) -> Value {
    json!({"id": id, "node_id": "x", "name": name, "color": "fff", "default": false})
}

fn milestone(id: i64, of: &(String, bool)) -> Value {
    let (title, closed) = of;
    json!({"id": id, "number": id + 10, "title": title, "state": if *closed { "closed" } else { "open" }})
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .expect("a time of a test")
        .to_string()
}

fn http_date(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).expect("a time of a test");
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
