use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::response::sse::Event;
use axum::routing::{get, post};
use blobs::LogStore;
use futures_util::stream;
use ids::{BranchName, BuildId, RepoName};
use store::Store;
use store::read::{AttemptRow, BuildDetail};
use web::{Problem, Site};

use crate::{Dashboard, Live};
use crate::{build, builder, builds, commit, farm, grid, log, machine, queue, raw, search, status, wish};

pub type Answer = Result<Response, Problem>;

/// What the pages are made from, and what was found out while making them.
#[derive(Clone)]
pub struct App {
    pub store: Store,
    pub logs: LogStore,
    pub live: Arc<dyn Live>,
    pub site: Site,
    pub known: log::Known,
    pub grids: grid::Grids,
}

/// Every address there is. `docs/api.md` tells what each answers; a test holds the two together.
fn table() -> web::Table<App> {
    vec![
        ("/", get(farm::farm)),
        ("/repo/{repo}", get(grid::repo)),
        ("/repo/{repo}/{*branch}", get(grid::grid)),
        ("/commit/{repo}/{hash}", get(commit::commit)),
        ("/cell/{repo}/{hash}/{builder}", get(commit::cell)),
        ("/builds", get(builds::builds)),
        ("/build/{id}", get(build::build)),
        ("/build/{id}/log", get(raw::text)),
        ("/build/{id}/log/events", get(raw::events)),
        ("/build/{id}/retry", post(wish::retry)),
        ("/build/{id}/cancel", post(wish::cancel)),
        ("/builders", get(builder::builders)),
        ("/builder/{name}", get(builder::builder)),
        ("/machines", get(machine::machines)),
        ("/machine/{name}", get(machine::machine)),
        ("/queue", get(queue::queue)),
        ("/status", get(status::status)),
        ("/search", get(search::search)),
        ("/events", get(events)),
        ("/events/grid", get(grid::events)),
    ]
}

/// The paths of [`routes`], as the router has them.
pub fn paths() -> Vec<&'static str> {
    table().into_iter().map(|(path, _)| path).collect()
}

/// Every page. To be put into [`web::Site::wrap`].
pub fn routes(dashboard: Dashboard) -> Router {
    let app = App {
        store: dashboard.store,
        logs: dashboard.logs,
        live: dashboard.live,
        site: dashboard.site,
        known: log::Known::default(),
        grids: grid::Grids::default(),
    };
    web::router(table()).with_state(app)
}

/// A name or number in an address.
pub fn parsed<T: std::str::FromStr>(text: &str, kind: &str) -> Result<T, Problem> {
    text.parse()
        .map_err(|_| Problem::not_found("not_found", format!("there is no {kind} `{text}`")))
}

pub fn known_repo(app: &App, name: &str) -> Result<RepoName, Problem> {
    let config = app.live.config();
    let known = name.parse().ok().filter(|name| config.repos.contains_key(name));
    known.ok_or_else(|| {
        let names: Vec<&str> = config.repos.keys().map(RepoName::as_str).collect();
        let there = match &names[..] {
            [] => "The configuration has none yet.".to_owned(),
            names => format!("There are: {}.", names.join(", ")),
        };
        Problem::not_found("no_repo", format!("there is no repository `{name}`")).hint(there)
    })
}

pub async fn default_branch(app: &App, repo: &RepoName) -> Result<Option<BranchName>, Problem> {
    let states = app.store.repos().await?;
    let state = states.into_iter().find(|row| &row.repo == repo);
    Ok(state.and_then(|row| row.default_branch))
}

pub async fn detail(app: &App, id: &str) -> Result<BuildDetail, Problem> {
    let id: BuildId = parsed(id, "build")?;
    let found = app.store.build(id).await?;
    found.ok_or_else(|| {
        Problem::not_found("no_build", format!("there is no build {id}"))
            .hint("Builds are counted from 1; /builds has the newest.")
    })
}

/// The latest attempt, or the one with a number.
pub fn attempt(detail: &BuildDetail, n: Option<u32>) -> Result<&AttemptRow, Problem> {
    let found = match n {
        None => detail.attempts.last(),
        Some(n) => detail.attempts.iter().find(|attempt| attempt.attempt.n == n),
    };
    found.ok_or_else(|| {
        let (build, there) = (detail.row.build, detail.attempts.len());
        let what = match n {
            None => format!("build {build} has not begun"),
            Some(n) => format!("build {build} has no attempt {n}, it has {there}"),
        };
        Problem::not_found("no_attempt", what)
    })
}

/// `changed`, each time anything was committed: a page that is looked at loads itself again.
async fn events(State(app): State<App>) -> Response {
    let changes = app.store.changes();
    app.site.events(stream::unfold(changes, |mut changes| async move {
        changes.changed().await.ok()?;
        let version = *changes.borrow_and_update();
        let event = Event::default().event("changed").data(version.to_string());
        Some((event, changes))
    }))
}
