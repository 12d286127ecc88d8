//! Builds in a list, newest first, by what is asked.

use axum::extract::{Query, State};
use ids::Timestamp;
use maud::html;
use serde::{Deserialize, Serialize};
use store::read::{BuildFilter, Status};
use web::{Page, Problem, Section, Visit, icon, segment};

use crate::part::{self, *};
use crate::routes::{Answer, App};
use crate::view::*;

/// Rows of a page.
const ROWS: usize = 100;
const MOST_ROWS: usize = 1000;

#[derive(Debug, Clone, Serialize)]
pub struct BuildsPage {
    /// What is listed, in words.
    pub heading: String,
    pub builds: Vec<BuildView>,
    /// Address of the next page.
    pub next: Option<String>,
    #[serde(skip)]
    query: BuildsQuery,
}

#[derive(Debug, Clone, Deserialize, Default)]
pub struct BuildsQuery {
    #[serde(default)]
    repo: String,
    #[serde(default)]
    builder: String,
    #[serde(default)]
    commit: String,
    #[serde(default)]
    machine: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    before: String,
    limit: Option<usize>,
}

impl BuildsQuery {
    fn fields(&self) -> [(&'static str, &str); 5] {
        [
            ("status", &self.status),
            ("repo", &self.repo),
            ("builder", &self.builder),
            ("commit", &self.commit),
            ("machine", &self.machine),
        ]
    }

    /// The same list in another state.
    fn with(&self, status: &str) -> String {
        let query = BuildsQuery {
            status: status.to_owned(),
            ..self.clone()
        };
        let set = query.fields().into_iter().filter(|(_, value)| !value.is_empty());
        let set: Vec<String> = set
            .map(|(key, value)| format!("{key}={}", segment(value)))
            .collect();
        format!(
            "/builds{}{}",
            if set.is_empty() { "" } else { "?" },
            set.join("&")
        )
    }
}

fn one<T: std::str::FromStr>(text: &str, what: &str) -> Result<Option<T>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    let found = text.parse().map(Some);
    found.map_err(|_| Problem::bad_request("bad_filter", format!("`{text}` is no {what}")))
}

pub async fn builds(State(app): State<App>, visit: Visit, Query(query): Query<BuildsQuery>) -> Answer {
    let status = match &*query.status {
        "" => None,
        word => Some(Status::parse(word).ok_or_else(|| {
            let known: Vec<_> = Status::ALL.iter().map(|status| status.as_str()).collect();
            let what = format!("`{word}` is no state; there are: {}", known.join(", "));
            Problem::bad_request("bad_filter", what)
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
    let limit = query.limit.unwrap_or(ROWS).clamp(1, MOST_ROWS);
    let mut rows = app.store.builds(&filter, limit + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|last| {
        let address = query.with(&query.status);
        let sign = if address.contains('?') { '&' } else { '?' };
        format!("{address}{sign}before={}&limit={limit}", last.build)
    });
    let view = BuildsPage {
        heading: heading(&query),
        builds: rows.iter().map(BuildView::from).collect(),
        next,
        query,
    };
    Ok(visit.answer(&view, |view| draw(view, visit.now)))
}

fn heading(query: &BuildsQuery) -> String {
    let mut words = match &*query.status {
        "" => "Builds".to_owned(),
        status => format!("Builds that are {status}")
            .replace("are failed", "failed")
            .replace("are passed", "passed"),
    };
    for (joint, value) in [
        (" of ", &*query.repo),
        (" by ", &query.builder),
        (" at ", short(&query.commit)),
        (" on ", &query.machine),
    ] {
        if !value.is_empty() {
            words.push_str(joint);
            words.push_str(value);
        }
    }
    words
}

fn draw(view: &BuildsPage, now: Timestamp) -> Page {
    let query = &view.query;
    let body = html! {
        h1 { (view.heading) }
        nav.tabs aria-label="States" {
            a href=(query.with("")) aria-current=[query.status.is_empty().then_some("page")] { "all" }
            @for status in Status::ALL {
                a href=(query.with(status.as_str())) aria-current=[(query.status == status.as_str()).then_some("page")] { (icon(status.as_str())) (status.as_str()) }
            }
        }
        @if view.builds.is_empty() {
            (empty("There is no such build", html! { @if query.fields().iter().all(|(_, value)| value.is_empty()) { "Builds are made when a commit of a tracked branch is fetched; " a href="/status" { "status" } " tells when that was last." } @else { a href="/builds" { "Show all builds" } } }))
        } @else { (part::builds(&view.builds, now)) }
        @if let Some(next) = &view.next { nav.pager { a.button href=(next) rel="next" { "older →" } } }
    };
    page(view.heading.clone(), Section::Builds, true, body)
}
