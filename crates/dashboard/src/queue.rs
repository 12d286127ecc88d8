//! What waits, in order, why, and until when; and what runs.

use axum::extract::State;
use ids::Timestamp;
use maud::html;
use serde::Serialize;
use store::read::{BuildFilter, Status};
use web::{Page, Section, Visit, plural};

use crate::part::{self, *};
use crate::routes::{Answer, App};
use crate::view::*;

/// Rows of each list.
const WAITING: usize = 1000;
const RUNNING: usize = 200;

#[derive(Debug, Clone, Serialize)]
pub struct QueuePage {
    /// As of when.
    pub at: i64,
    /// Why nothing is started at present.
    pub paused: Option<String>,
    /// How many wait in all; at most 1000 are listed.
    pub waiting_in_all: usize,
    pub waiting: Vec<WaitView>,
    pub running: Vec<BuildView>,
}

pub async fn queue(State(app): State<App>, visit: Visit) -> Answer {
    let live = app.live.queue();
    let filter = BuildFilter {
        status: Some(Status::Running),
        ..BuildFilter::default()
    };
    let running = app.store.builds(&filter, RUNNING).await?;
    let listed = live.waiting.len().min(WAITING);
    let view = QueuePage {
        at: live.at.0,
        paused: live.paused.clone(),
        waiting_in_all: live.waiting.len(),
        waiting: WaitView::all(&live.waiting[..listed]),
        running: running.iter().map(BuildView::from).collect(),
    };
    Ok(visit.answer(&view, |view| draw(view, visit.now)))
}

fn draw(view: &QueuePage, now: Timestamp) -> Page {
    let body = html! {
        h1 { "Queue" }
        @if let Some(why) = &view.paused { p.note.infra { strong { "Nothing is started: " } (plain(why)) } }
        @if view.waiting.is_empty() {
            (empty("Nothing waits", html! { @if view.running.is_empty() { "Every commit has its builds." } @else { "All that is wanted is at work." } }))
        }
        @for of_type in view.waiting.chunk_by(|one, next| one.host_type == next.host_type) {
            section {
                div.bar {
                    h2 { a href={"/machines#" (of_type[0].host_type)} { (of_type[0].host_type) } }
                    span { (plural(of_type.len() as u64, "build")) " waiting" }
                }
                (table(&["", "Build", "Builder", "Asked for", "Should start", "Why it waits"], html! {
                    @for wait in of_type {
                        tr id={"w" (wait.build)} {
                            td.num.dim { (wait.ahead + 1) }
                            th scope="row" { a href={"/build/" (wait.build)} { (wait.build) } }
                            td.nowrap { a href=(link("/builder/", &wait.builder)) { (wait.builder) } span.dim { " of " (wait.repo) } }
                            td.nowrap { (when(now, wait.requested)) }
                            td.nowrap { (part::starts(now, wait.starts)) }
                            td.grow { (plain(&wait.reason)) }
                        }
                    }
                }))
            }
        }
        @if view.waiting_in_all > view.waiting.len() { p { "And " (view.waiting_in_all - view.waiting.len()) " more." } }
        section {
            div.bar { h2 { "At work" } span { (plural(view.running.len() as u64, "build")) } }
            @if view.running.is_empty() { p.dim { "Nothing runs." } } @else {
                (table(&["Build", "Builder", "Commit", "Machine", "Since", "Try"], html! {
                    @for build in &view.running {
                        tr {
                            th scope="row" { a href={"/build/" (build.cell.id)} { (build.cell.id) } }
                            td.nowrap { a href=(link("/builder/", &build.builder)) { (build.builder) } span.dim { " of " (build.repo) } }
                            td { a.hash href=(commit_link(&build.repo, &build.commit)) { (short(&build.commit)) } }
                            td.nowrap { @if let Some(machine) = &build.machine { a href=(link("/machine/", machine)) { (machine) } } }
                            td.nowrap { (when(now, build.cell.since)) }
                            td.num { (build.attempts) }
                        }
                    }
                }))
            }
        }
        p.dim { "In the order in which they should start, as of " (when(now, view.at)) "." }
    };
    page("Queue", Section::Queue, true, body)
}
