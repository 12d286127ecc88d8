use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, Path, Query, State};
use axum::http::header;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use config::Pool;
use futures_util::stream;
use ids::{AttemptId, BranchName, BuildId, BuilderName, RepoName, StepId};
use serde::Deserialize;
use store::StoreError;
use store::read::{BuildDetail, BuildFilter, Role, Status, Wish};
use web::{Problem, Uncompressed, Visit};

use crate::view::*;
use crate::{Dashboard, draw};

/// Commits on a page of the grid. Source: the original's 30.
const ROWS: usize = 30;

/// Rows of a list.
const LISTED: usize = 100;

/// How much of a step's log a page shows: its end, where failures are.
const LOG_SHOWN: u64 = 256 * 1024;

/// How long a page that follows what happens is left as it is.
const EVENT_EVERY: std::time::Duration = std::time::Duration::from_secs(2);

type Answer = Result<Response, Problem>;

/// Every page. To be put into [`web::Site::wrap`].
pub fn routes(dashboard: Dashboard) -> Router {
    Router::new()
        .route("/", get(farm))
        .route("/repo/{repo}", get(repo))
        .route("/repo/{repo}/{*branch}", get(grid))
        .route("/builds", get(builds))
        .route("/build/{id}", get(build))
        .route("/build/{id}/log", get(log))
        .route("/build/{id}/log/events", get(log_events))
        .route("/build/{id}/retry", post(retry))
        .route("/build/{id}/cancel", post(cancel))
        .route("/builder/{name}", get(builder))
        .route("/builders", get(builders))
        .route("/machines", get(machines))
        .route("/queue", get(queue))
        .route("/status", get(status))
        .route("/search", get(search))
        .route("/events", get(events))
        .with_state(dashboard)
}

fn trouble(why: StoreError) -> Problem {
    Problem::internal(why)
}

fn parsed<T: std::str::FromStr>(text: &str, kind: &str) -> Result<T, Problem> {
    text.parse()
        .map_err(|_| Problem::not_found("not_found", format!("there is no {kind} `{text}`")))
}

async fn farm(State(app): State<Dashboard>, Extension(visit): Extension<Visit>) -> Answer {
    let config = app.live.config();
    let (states, branches) = (
        app.store.repos().await.map_err(trouble)?,
        app.store.branches(None).await.map_err(trouble)?,
    );
    let mut repos = Vec::new();
    for name in config.repos.keys() {
        let state = states.iter().find(|row| &row.repo == name);
        let mut shown = Vec::new();
        for branch in branches.iter().filter(|row| &row.repo == name && !row.gone) {
            let grid = app
                .store
                .grid(name, &branch.branch, None, 1)
                .await
                .map_err(trouble)?;
            let Some(row) = grid.and_then(|grid| grid.rows.into_iter().next()) else {
                continue;
            };
            shown.push(BranchView {
                name: branch.branch.to_string(),
                head: (&row.commit).into(),
                cells: row.cells.iter().map(BuildView::from).collect(),
            });
        }
        repos.push(RepoView {
            name: name.to_string(),
            fetched: state.and_then(|row| row.fetched).map(|at| at.0),
            error: state.and_then(|row| row.error.clone()),
            branches: shown,
        });
    }
    let counts = app.store.counts().await.map_err(trouble)?;
    let count = |status| counts.get(&status).copied().unwrap_or(0);
    let machines = app.store.machines().await.map_err(trouble)?;
    let view = FarmPage {
        repos,
        waiting: count(Status::Waiting),
        running: count(Status::Running),
        machines: machines.iter().filter(|machine| machine.connected).count(),
    };
    Ok(visit.answer(&view, |view| draw::farm(view, visit.now)))
}

async fn repo(State(app): State<Dashboard>, Path(name): Path<String>) -> Answer {
    let name: RepoName = parsed(&name, "repository")?;
    if !app.live.config().repos.contains_key(&name) {
        return Err(Problem::not_found(
            "no_repo",
            format!("there is no repository `{name}`"),
        ));
    }
    let branches = app.store.branches(Some(&name)).await.map_err(trouble)?;
    let states = app.store.repos().await.map_err(trouble)?;
    let default = states
        .into_iter()
        .find(|row| row.repo == name)
        .and_then(|row| row.default_branch);
    let first = branches
        .iter()
        .find(|row| Some(&row.branch) == default.as_ref())
        .or(branches.first());
    match first {
        Some(row) => Ok(
            Redirect::to(&format!("/repo/{}/{}", web::segment(name.as_str()), row.branch)).into_response(),
        ),
        None => Err(
            Problem::not_found("no_branch", format!("{name} has no tracked branch yet"))
                .hint("It may still be fetched, or be empty; the status page tells."),
        ),
    }
}

#[derive(Deserialize)]
struct GridQuery {
    before: Option<u64>,
    limit: Option<usize>,
}

async fn grid(
    State(app): State<Dashboard>,
    Extension(visit): Extension<Visit>,
    Path((name, branch)): Path<(String, String)>,
    Query(query): Query<GridQuery>,
) -> Answer {
    let (name, branch): (RepoName, BranchName) = (parsed(&name, "repository")?, parsed(&branch, "branch")?);
    let limit = query.limit.unwrap_or(ROWS).clamp(1, 200);
    let found = app
        .store
        .grid(&name, &branch, query.before, limit)
        .await
        .map_err(trouble)?;
    let Some(found) = found else {
        return Err(Problem::not_found(
            "no_branch",
            format!("{name} has no branch `{branch}`"),
        ));
    };
    let config = app.live.config();
    // Configured and seen on the page: a builder that is gone keeps its column on old pages.
    let mut names: BTreeSet<BuilderName> = config.builders_for(&name, &branch).into_iter().cloned().collect();
    names.extend(
        found
            .rows
            .iter()
            .flat_map(|row| row.cells.iter().map(|cell| cell.builder.clone())),
    );
    let mut builders: Vec<BuilderView> = names.iter().map(|name| builder_view(&config, name)).collect();
    builders.sort_by_key(|builder| {
        let order = builder
            .name
            .parse()
            .ok()
            .and_then(|name| config.builders.get(&name))
            .map_or(0, |conf| conf.order);
        (builder.group.clone(), order, builder.name.clone())
    });
    let branches = app.store.branches(Some(&name)).await.map_err(trouble)?;
    let states = app.store.repos().await.map_err(trouble)?;
    let view = GridView {
        rows: found
            .rows
            .iter()
            .map(|row| RowView::new(row, &builders))
            .collect(),
        before: if found.older {
            found.rows.last().map(|row| row.depth)
        } else {
            None
        },
        newer: found.newer,
        trouble: states
            .into_iter()
            .find(|row| row.repo == name)
            .and_then(|row| row.error),
        branches: branches
            .iter()
            .filter(|row| !row.gone)
            .map(|row| row.branch.to_string())
            .collect(),
        repo: name.to_string(),
        branch: branch.to_string(),
        builders,
    };
    Ok(visit.answer(&view, |view| draw::grid(view, visit.now)))
}

fn builder_view(config: &config::Config, name: &BuilderName) -> BuilderView {
    let conf = config.builders.get(name);
    BuilderView {
        name: name.to_string(),
        group: conf.map_or("retired".to_owned(), |conf| conf.group.clone()),
        host_type: conf.map(|conf| conf.host.to_string()).unwrap_or_default(),
        known_issue: conf.and_then(|conf| conf.known_issues.first().cloned()),
    }
}

async fn detail(app: &Dashboard, id: &str) -> Result<BuildDetail, Problem> {
    let id: BuildId = parsed(id, "build")?;
    let found = app.store.build(id).await.map_err(trouble)?;
    found.ok_or_else(|| Problem::not_found("no_build", format!("there is no build {id}")))
}

async fn build(
    State(app): State<Dashboard>,
    Extension(visit): Extension<Visit>,
    Path(id): Path<String>,
) -> Answer {
    let detail = detail(&app, &id).await?;
    let mut view = BuildPage::new(&detail);
    let queue = app.live.queue();
    view.waiting = queue
        .waiting
        .iter()
        .find(|wait| wait.build == detail.row.build)
        .map(WaitView::from);
    view.may_act = visit.may(Role::Contributor);
    view.proof = visit.form_proof().to_owned();
    if let Some(attempt) = detail.attempts.last() {
        for step in attempt.steps.iter().filter(|step| step.started.is_some()) {
            let id = StepId {
                attempt: attempt.attempt,
                index: step.index,
            };
            let len = app.logs.len(id).await.map_err(Problem::internal)?.unwrap_or(0);
            let skipped = len.saturating_sub(LOG_SHOWN);
            let text = app
                .logs
                .read(id, skipped, LOG_SHOWN as usize)
                .await
                .map_err(Problem::internal)?;
            view.logs.push(LogView {
                step: step.name.clone(),
                index: step.index,
                text: String::from_utf8_lossy(&text.unwrap_or_default()).into_owned(),
                skipped,
                len,
                live: step.ended.is_none() && attempt.ended.is_none(),
            });
        }
    }
    Ok(visit.answer(&view, |view| draw::build(view, visit.now)))
}

#[derive(Deserialize)]
struct LogQuery {
    attempt: Option<u32>,
    step: Option<u32>,
    offset: Option<u64>,
    download: Option<String>,
}

/// The raw text of an attempt's steps, one after another; of one step from a byte on with `step` and `offset`.
async fn log(State(app): State<Dashboard>, Path(id): Path<String>, Query(query): Query<LogQuery>) -> Answer {
    let detail = detail(&app, &id).await?;
    let attempt = match query.attempt {
        None => detail.attempts.last(),
        Some(n) => detail.attempts.iter().find(|attempt| attempt.attempt.n == n),
    };
    let attempt =
        attempt.ok_or_else(|| Problem::not_found("no_attempt", format!("build {id} has no such attempt")))?;
    let steps: Vec<(StepId, String)> = attempt
        .steps
        .iter()
        .filter(|step| step.started.is_some() && query.step.is_none_or(|wanted| wanted == step.index))
        .map(|step| {
            let title = if query.step.is_some() {
                String::new()
            } else {
                format!("==> {}: {}\n", step.name, step.command)
            };
            (
                StepId {
                    attempt: attempt.attempt,
                    index: step.index,
                },
                title,
            )
        })
        .collect();
    let offset = query.offset.unwrap_or(0);
    let logs = app.logs.clone();
    // Piece by piece: a log may be larger than memory.
    let body = stream::unfold(
        (steps.into_iter(), None::<(StepId, u64)>),
        move |(mut steps, mut at)| {
            let logs = logs.clone();
            async move {
                loop {
                    let (step, from) = match at.take() {
                        Some(at) => at,
                        None => {
                            let (step, title) = steps.next()?;
                            let next = (steps, Some((step, offset)));
                            if title.is_empty() {
                                (steps, at) = next;
                                continue;
                            }
                            return Some((Ok::<_, std::io::Error>(Bytes::from(title)), next));
                        }
                    };
                    match logs.read(step, from, 1 << 20).await {
                        Ok(Some(bytes)) if !bytes.is_empty() => {
                            let next = Some((step, from + bytes.len() as u64));
                            return Some((Ok(bytes.into()), (steps, next)));
                        }
                        Ok(_) => {}
                        Err(why) => return Some((Err(std::io::Error::other(why)), (steps, None))),
                    }
                }
            }
        },
    );
    let mut response = Body::from_stream(body).into_response();
    response.extensions_mut().insert(Uncompressed);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if query.download.is_some()
        && let Ok(value) = format!("attachment; filename=\"build-{}.log\"", attempt.attempt).parse()
    {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// A running step's output from a byte on, then `end`. Each event's id is the offset to go on from.
async fn log_events(
    State(app): State<Dashboard>,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
    headers: axum::http::HeaderMap,
) -> Answer {
    let detail = detail(&app, &id).await?;
    let attempt = detail.attempts.last().map(|attempt| attempt.attempt);
    let attempt =
        attempt.ok_or_else(|| Problem::not_found("no_attempt", format!("build {id} has not begun")))?;
    let step = StepId {
        attempt,
        index: query.step.unwrap_or(0),
    };
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let offset = last.or(query.offset).unwrap_or(0);
    let (grown, stored) = (app.logs.changes(step), app.store.changes());
    let site = app.site.clone();
    let events = stream::unfold(Some((offset, grown, stored)), move |state| {
        let app = app.clone();
        async move {
            let (at, mut grown, mut stored) = state?;
            loop {
                grown.mark_unchanged();
                stored.mark_unchanged();
                // The end is asked for before the text: what is printed up to it is then there.
                let over = step_over(&app, attempt, step.index).await;
                let text = app
                    .logs
                    .read(step, at, 64 * 1024)
                    .await
                    .ok()
                    .flatten()
                    .unwrap_or_default();
                if !text.is_empty() {
                    let next = at + text.len() as u64;
                    let shown = String::from_utf8_lossy(&text).replace('\r', "");
                    let event = Event::default().id(next.to_string()).event("log").data(shown);
                    return Some((
                        Ok::<_, std::convert::Infallible>(event),
                        Some((next, grown, stored)),
                    ));
                }
                if over {
                    return Some((Ok(Event::default().event("end").data("")), None));
                }
                tokio::select! {
                    _ = grown.changed() => {}
                    _ = stored.changed() => {}
                }
            }
        }
    });
    Ok(
        site.events(futures_util::StreamExt::map(events, |event| match event {
            Ok(event) => event,
            Err(never) => match never {},
        })),
    )
}

async fn step_over(app: &Dashboard, attempt: AttemptId, index: u32) -> bool {
    let Ok(Some(detail)) = app.store.build(attempt.build).await else {
        return true;
    };
    let row = detail.attempts.into_iter().find(|row| row.attempt == attempt);
    row.is_none_or(|row| {
        row.ended.is_some()
            || row
                .steps
                .iter()
                .any(|step| step.index == index && step.ended.is_some())
    })
}

#[derive(Deserialize)]
struct Proof {
    proof: Option<String>,
}

async fn retry(
    State(app): State<Dashboard>,
    Extension(visit): Extension<Visit>,
    Path(id): Path<String>,
    form: Result<Form<Proof>, FormRejection>,
) -> Answer {
    wish(&app, &visit, &id, form, Wish::Retry).await
}

async fn cancel(
    State(app): State<Dashboard>,
    Extension(visit): Extension<Visit>,
    Path(id): Path<String>,
    form: Result<Form<Proof>, FormRejection>,
) -> Answer {
    wish(&app, &visit, &id, form, Wish::Cancel).await
}

async fn wish(
    app: &Dashboard,
    visit: &Visit,
    id: &str,
    form: Result<Form<Proof>, FormRejection>,
    wish: fn(BuildId) -> Wish,
) -> Answer {
    // A call by a program has no form.
    let proof = form.ok().and_then(|Form(form)| form.proof);
    let by = visit.authorise(Role::Contributor, proof.as_deref())?;
    let detail = detail(app, id).await?;
    let build = detail.row.build;
    let intent = app
        .store
        .add_intent(wish(build), by, visit.now)
        .await
        .map_err(trouble)?;
    match visit.wants {
        web::Wants::Json => {
            Ok(axum::Json(serde_json::json!({ "intent": intent, "build": build.0 })).into_response())
        }
        web::Wants::Html => Ok(Redirect::to(&format!("/build/{build}")).into_response()),
    }
}

#[derive(Deserialize, Default)]
struct BuildsQuery {
    repo: Option<String>,
    builder: Option<String>,
    commit: Option<String>,
    machine: Option<String>,
    status: Option<String>,
    before: Option<String>,
    limit: Option<usize>,
}

async fn builds(
    State(app): State<Dashboard>,
    Extension(visit): Extension<Visit>,
    Query(query): Query<BuildsQuery>,
) -> Answer {
    let heading = query
        .status
        .as_ref()
        .map_or("Builds".to_owned(), |status| format!("Builds: {status}"));
    list(&app, &visit, query, heading).await
}

async fn builder(
    State(app): State<Dashboard>,
    Extension(visit): Extension<Visit>,
    Path(name): Path<String>,
) -> Answer {
    let parsed_name: BuilderName = parsed(&name, "builder")?;
    let query = BuildsQuery {
        builder: Some(name),
        ..BuildsQuery::default()
    };
    list(&app, &visit, query, format!("Builder {parsed_name}")).await
}

async fn list(app: &Dashboard, visit: &Visit, query: BuildsQuery, heading: String) -> Answer {
    fn one<T: std::str::FromStr>(text: &Option<String>, what: &str) -> Result<Option<T>, Problem> {
        let wrong = |text: &String| Problem::bad_request("bad_filter", format!("`{text}` is no {what}"));
        text.as_ref()
            .filter(|text| !text.is_empty())
            .map(|text| text.parse().map_err(|_| wrong(text)))
            .transpose()
    }
    let status = match &query.status {
        None => None,
        Some(word) => Some(Status::parse(word).ok_or_else(|| {
            let known: Vec<_> = Status::ALL.iter().map(|status| status.as_str()).collect();
            Problem::bad_request(
                "bad_filter",
                format!("`{word}` is no state; there are: {}", known.join(", ")),
            )
        })?),
    };
    let filter = BuildFilter {
        repo: one(&query.repo, "repository")?,
        builder: one(&query.builder, "builder")?,
        commit: one(&query.commit, "full commit hash")?,
        machine: one(&query.machine, "machine")?,
        status,
        before: one(&query.before, "build number")?,
    };
    let limit = query.limit.unwrap_or(LISTED).clamp(1, 1000);
    let rows = app.store.builds(&filter, limit).await.map_err(trouble)?;
    let next = (rows.len() == limit).then(|| rows.last()).flatten().map(|last| {
        let mut address = format!("/builds?before={}&limit={limit}", last.build);
        for (key, value) in [
            ("repo", &query.repo),
            ("builder", &query.builder),
            ("commit", &query.commit),
            ("machine", &query.machine),
            ("status", &query.status),
        ] {
            if let Some(value) = value {
                address += &format!("&{key}={}", web::segment(value));
            }
        }
        address
    });
    let view = BuildsPage {
        heading,
        builds: rows.iter().map(BuildView::from).collect(),
        next,
    };
    Ok(visit.answer(&view, |view| draw::builds(view, visit.now)))
}

async fn builders(State(app): State<Dashboard>, Extension(visit): Extension<Visit>) -> Answer {
    let config = app.live.config();
    let view = BuildersPage {
        builders: config
            .builders
            .keys()
            .map(|name| builder_view(&config, name))
            .collect(),
    };
    Ok(visit.answer(&view, draw::builders))
}

async fn machines(State(app): State<Dashboard>, Extension(visit): Extension<Visit>) -> Answer {
    let (config, rows) = (app.live.config(), app.store.machines().await.map_err(trouble)?);
    let one = |(name, host): (&ids::HostType, &config::Host)| {
        let (pool, expected) = match host.pool {
            Pool::Local { slots } => ("local", slots),
            Pool::Reverse { expect, .. } => ("reverse", expect),
        };
        let machines: Vec<MachineView> = rows
            .iter()
            .filter(|row| &row.host_type == name)
            .map(MachineView::from)
            .collect();
        let connected = machines.iter().filter(|machine| machine.connected).count();
        let expected = (expected as usize).max(connected);
        HostTypeView {
            name: name.to_string(),
            pool: pool.to_owned(),
            connected,
            expected,
            machines,
        }
    };
    let view = MachinesPage {
        host_types: config.hosts.iter().map(one).collect(),
    };
    Ok(visit.answer(&view, |view| draw::machines(view, visit.now)))
}

async fn queue(State(app): State<Dashboard>, Extension(visit): Extension<Visit>) -> Answer {
    let live = app.live.queue();
    let filter = BuildFilter {
        status: Some(Status::Running),
        ..BuildFilter::default()
    };
    let running = app.store.builds(&filter, LISTED).await.map_err(trouble)?;
    let view = QueuePage {
        paused: live.paused.clone(),
        waiting: live.waiting.iter().take(1000).map(WaitView::from).collect(),
        running: running.iter().map(BuildView::from).collect(),
    };
    Ok(visit.answer(&view, |view| draw::queue(view, visit.now)))
}

async fn status(State(app): State<Dashboard>, Extension(visit): Extension<Visit>) -> Answer {
    let mut items = app.live.health();
    for repo in app.store.repos().await.map_err(trouble)? {
        let text = match (&repo.error, repo.fetched) {
            (Some(error), _) => error.clone(),
            (None, Some(at)) => format!("fetched {}", web::Moment(at).rfc3339()),
            (None, None) => "not fetched yet".to_owned(),
        };
        items.push(crate::HealthItem {
            name: format!("repository {}", repo.repo),
            ok: repo.error.is_none(),
            text,
        });
    }
    let counts = app.store.counts().await.map_err(trouble)?;
    let counts = counts
        .into_iter()
        .map(|(status, n)| (status.as_str().to_owned(), n))
        .collect();
    let view = StatusPage { items, counts };
    Ok(visit.answer(&view, draw::status))
}

#[derive(Deserialize)]
struct SearchQuery {
    #[serde(default)]
    q: String,
}

async fn search(
    State(app): State<Dashboard>,
    Extension(visit): Extension<Visit>,
    Query(SearchQuery { q }): Query<SearchQuery>,
) -> Answer {
    let words = q.trim().to_owned();
    if let Ok(id) = words.parse::<BuildId>()
        && app.store.build(id).await.map_err(trouble)?.is_some()
    {
        return Ok(Redirect::to(&format!("/build/{id}")).into_response());
    }
    if let Ok(name) = words.parse::<BuilderName>()
        && app.live.config().builders.contains_key(&name)
    {
        return Ok(Redirect::to(&format!("/builder/{}", web::segment(name.as_str()))).into_response());
    }
    let mut found = Vec::new();
    if words.len() >= 4 && words.bytes().all(|b| b.is_ascii_hexdigit()) {
        found = app
            .store
            .commits_by_prefix(&words.to_ascii_lowercase(), LISTED)
            .await
            .map_err(trouble)?;
    }
    if let [only] = &found[..] {
        return Ok(Redirect::to(&format!("/builds?commit={}", only.hash)).into_response());
    }
    if !words.is_empty() {
        found.extend(app.store.search_commits(&words, LISTED).await.map_err(trouble)?);
    }
    let commits = found
        .iter()
        .map(|row| (row.repo.to_string(), CommitView::from(row)))
        .collect();
    let view = SearchPage {
        query: words,
        commits,
    };
    Ok(visit.answer(&view, |view| draw::search(view, visit.now)))
}

/// `builds`, each time anything was committed, and every other second for what grows meanwhile: a page that is
/// looked at loads itself again, which costs nothing when it is the same.
async fn events(State(app): State<Dashboard>) -> Response {
    let changes = app.store.changes();
    let site = app.site.clone();
    site.events(stream::unfold(changes, |mut changes| async move {
        if let Ok(changed) = tokio::time::timeout(EVENT_EVERY, changes.changed()).await {
            changed.ok()?;
        }
        let version = *changes.borrow_and_update();
        Some((
            Event::default().event("builds").data(version.to_string()),
            changes,
        ))
    }))
}
