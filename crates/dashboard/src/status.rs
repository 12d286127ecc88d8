//! Whether all parts of the farm are well, and how fresh what they know is.

use axum::extract::State;
use ids::Timestamp;
use maud::html;
use serde::Serialize;
use store::read::BuildFilter;
use web::{Page, Section, Visit, icon};

use crate::machine::expected;
use crate::part::*;
use crate::routes::{Answer, App};

/// The scheduler's view is made anew each second or so; older than this is trouble. Microseconds.
const STALE: i64 = 60_000_000;

#[derive(Debug, Clone, Serialize)]
pub struct StatusPage {
    pub items: Vec<ItemView>,
    /// How many builds are in each state.
    pub counts: Vec<(String, u64)>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ItemView {
    pub name: String,
    pub ok: bool,
    pub text: String,
    /// When it was last seen to be so, or since when it is in trouble.
    pub at: Option<i64>,
    /// Where to look.
    pub link: Option<String>,
}

pub async fn status(State(app): State<App>, visit: Visit) -> Answer {
    let health = app.live.health().into_iter().map(|item| ItemView {
        name: item.name,
        ok: item.ok,
        text: item.text,
        at: None,
        link: None,
    });
    let mut items: Vec<ItemView> = health.collect();
    let queue = app.live.queue();
    let stale = visit.now.0 - queue.at.0 > STALE;
    items.push(ItemView {
        name: "scheduler".to_owned(),
        ok: !stale,
        text: if stale {
            "has not looked at the queue for too long"
        } else {
            "looks at the queue"
        }
        .to_owned(),
        at: (queue.at.0 > 0).then_some(queue.at.0),
        link: Some("/queue".to_owned()),
    });
    let config = app.live.config();
    let states = app.store.repos().await?;
    for name in config.repos.keys() {
        let state = states.iter().find(|row| &row.repo == name);
        let (ok, text, at) = match state {
            None => (true, "not fetched yet".to_owned(), None),
            Some(row) => match &row.error {
                Some(error) => (false, error.clone(), Some(row.since.0)),
                None => (true, "fetched".to_owned(), row.fetched.map(|at| at.0)),
            },
        };
        let (name, there) = (format!("repository {name}"), Some(link("/repo/", name.as_str())));
        match items.iter_mut().find(|item| item.name == name) {
            // Its mirror has told already, and newer.
            Some(item) => (item.at, item.link) = (at, there),
            None => items.push(ItemView {
                name,
                ok,
                text,
                at,
                link: there,
            }),
        }
    }
    let machines = app.store.machines().await?;
    for (name, host) in &config.hosts {
        let there = machines
            .iter()
            .filter(|row| &row.host_type == name && row.connected)
            .count();
        let expected = expected(host).max(there);
        let last = machines
            .iter()
            .filter(|row| &row.host_type == name)
            .map(|row| row.changed.0)
            .max();
        items.push(ItemView {
            name: format!("machines {name}"),
            ok: there == expected,
            text: format!("{there} of {expected} connected"),
            at: last,
            link: Some(format!("/machines#{name}")),
        });
    }
    let newest = app.store.builds(&BuildFilter::default(), 1).await?;
    items.push(ItemView {
        name: "newest build".to_owned(),
        ok: true,
        text: newest.first().map_or("there is none yet".to_owned(), |row| {
            format!("#{} of {} on {}", row.build, row.repo, row.builder)
        }),
        at: newest.first().map(|row| row.requested.0),
        link: newest.first().map(|row| format!("/build/{}", row.build)),
    });
    let counts = app.store.counts().await?;
    let counts = counts
        .into_iter()
        .map(|(status, n)| (status.as_str().to_owned(), n))
        .collect();
    let view = StatusPage { items, counts };
    Ok(visit.answer(&view, |view| draw(view, visit.now)))
}

fn draw(view: &StatusPage, now: Timestamp) -> Page {
    let bad = view.items.iter().filter(|item| !item.ok).count();
    let body = html! {
        div.bar {
            h1 { "Status" }
            @if bad == 0 { span.state.chip.passed { (icon("passed")) "all is well" } }
            @else { span.state.chip.failed { (icon("failed")) (bad) " in trouble" } }
        }
        (table(&["Part", "State", "What is known", "As of"], html! {
            @for item in &view.items {
                tr {
                    th.nowrap scope="row" { @if let Some(link) = &item.link { a href=(link) { (item.name) } } @else { (item.name) } }
                    td.nowrap { @if item.ok { span.state.passed { (icon("passed")) "ok" } } @else { span.state.failed { (icon("failed")) "trouble" } } }
                    td.grow { (plain(&item.text)) }
                    td.nowrap { @if let Some(at) = item.at { @if !item.ok { "since " } (when(now, at)) } }
                }
            }
        }))
        section {
            h2 { "Builds by state" }
            div.stats { @for (name, count) in &view.counts { a href={"/builds?status=" (name)} { b { (count) } (name) } } }
        }
        p.dim { "For machines: " code { "/healthz" } ", " code { "/readyz" } ", " code { "/metrics" } "." }
    };
    page("Status", Section::Status, true, body)
}
