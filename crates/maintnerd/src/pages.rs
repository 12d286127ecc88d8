//! How the log and its sources are doing: a page, JSON, metrics, health.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use maud::{DOCTYPE, Markup, html};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::watch;

use crate::follow::Snapshot;
use crate::keeper::Keeper;
use crate::serve::{Visible, total};
use crate::sources::{SourceStatus, Sources, State as Doing};

/// What there is to tell of. Cheap to clone.
#[derive(Clone)]
pub struct Shown {
    pub visible: Visible,
    pub snapshot: watch::Receiver<Option<Snapshot>>,
    /// `None`: the log is a copy of another's.
    pub own: Option<(Keeper, Sources)>,
}

/// The page as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct View {
    pub segments: usize,
    pub bytes: u64,
    /// Bytes of the log that are not yet in what is asked.
    pub behind: u64,
    /// Why the log takes no writes, while it does not.
    pub trouble: Option<String>,
    pub sources: Vec<SourceStatus>,
}

impl Shown {
    pub fn view(&self) -> View {
        let log = self.visible.borrow().clone().unwrap_or_default();
        let bytes = total(&log);
        let known = self
            .snapshot
            .borrow()
            .as_ref()
            .map_or(0, |snapshot| snapshot.size);
        let own = self.own.as_ref();
        View {
            segments: log.len(),
            bytes,
            behind: bytes.saturating_sub(known),
            trouble: own.and_then(|(keeper, _)| keeper.trouble()),
            sources: own.map(|(_, sources)| sources.status()).unwrap_or_default(),
        }
    }

    /// Adds what can be measured.
    pub fn measure(&self, registry: &mut Registry) {
        type Labels = Vec<(String, String)>;
        let view = self.view();
        let gauge = |registry: &mut Registry, name: &str, help: &str, value: u64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(value.cast_signed());
            registry.register(name, help, gauge);
        };
        gauge(registry, "log_bytes", "Bytes of the mutation log", view.bytes);
        gauge(
            registry,
            "log_segments",
            "Segments of the mutation log",
            view.segments as u64,
        );
        let help = "Bytes of the log that the corpus does not have yet";
        gauge(registry, "corpus_behind_bytes", help, view.behind);
        let help = "1 while the mutation log takes no writes";
        gauge(
            registry,
            "log_refuses_writes",
            help,
            u64::from(view.trouble.is_some()),
        );
        if view.sources.is_empty() {
            return;
        }
        let fresh = Family::<Labels, Gauge>::default();
        let failing = Family::<Labels, Gauge>::default();
        let looks = Family::<Labels, Counter>::default();
        let failures = Family::<Labels, Counter>::default();
        let told = Family::<Labels, Counter>::default();
        for source in &view.sources {
            let labels: Labels = vec![("source".to_owned(), source.name.clone())];
            if let Some(age) = source.fresh_secs_ago {
                fresh.get_or_create(&labels).set(age.cast_signed());
            }
            let bad = i64::from(source.state.trouble().is_some());
            failing.get_or_create(&labels).set(bad);
            looks.get_or_create(&labels).inc_by(source.looks);
            failures.get_or_create(&labels).inc_by(source.failures);
            told.get_or_create(&labels).inc_by(source.told);
        }
        registry.register(
            "source_fresh_seconds",
            "Since the last look at a source that went well",
            fresh,
        );
        registry.register("source_failing", "1 while looks at a source fail", failing);
        registry.register("source_looks", "Looks at a source that ended", looks);
        registry.register("source_failures", "Looks at a source that failed", failures);
        registry.register("source_mutations", "Mutations that a source told", told);
    }
}

/// `/`, `/status.json`, `/metrics`, `/healthz`, `/readyz` of a process of its own.
pub fn pages(shown: Shown) -> Router {
    Router::new()
        .route("/", get(async |State(shown): State<Shown>| page(&shown.view())))
        .route("/status.json", get(status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(shown)
}

/// `/maintner` and `/maintner.json`, for a process that has more to tell of.
pub fn page_of(shown: Shown) -> Router {
    web::router(table()).with_state(shown)
}

pub(crate) fn table() -> web::Table<Shown> {
    vec![
        (
            "/maintner",
            get(async |State(shown): State<Shown>| page(&shown.view())),
        ),
        ("/maintner.json", get(status)),
    ]
}

/// `POST /hook` and `POST /hook/NAME` wake all sources, or those of a name or topic: `github:acme/widget`.
/// Who may is the caller's to ask.
pub fn hooks(sources: Sources) -> Router {
    Router::new()
        .route("/hook", post(hook_all))
        .route("/hook/{*topic}", post(hook))
        .with_state(sources)
}

async fn hook_all(State(sources): State<Sources>) -> impl IntoResponse {
    sources.wake_all();
    (StatusCode::ACCEPTED, "looking at every source\n")
}

async fn hook(State(sources): State<Sources>, Path(topic): Path<String>) -> impl IntoResponse {
    match sources.wake(&topic) {
        0 => {
            let why = "there is no source of that name; wanted such as `github:OWNER/NAME` or `gerrit:HOST/PROJECT`\n";
            (StatusCode::NOT_FOUND, why.to_owned())
        }
        _ => (StatusCode::ACCEPTED, format!("looking at {topic}\n")),
    }
}

async fn status(State(shown): State<Shown>) -> Json<View> {
    Json(shown.view())
}

async fn ready(State(shown): State<Shown>) -> impl IntoResponse {
    let view = shown.view();
    match view.trouble {
        Some(why) => {
            let why = format!("the log takes no writes: {why}\n");
            (StatusCode::SERVICE_UNAVAILABLE, why)
        }
        None if shown.snapshot.borrow().is_none() => {
            (StatusCode::SERVICE_UNAVAILABLE, "reading the log\n".to_owned())
        }
        None => (StatusCode::OK, "ok\n".to_owned()),
    }
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let mut registry = Registry::with_prefix("burrow");
    shown.measure(&mut registry);
    let mut text = String::new();
    if let Err(why) = encode(&mut text, &registry) {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

fn page(view: &View) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "The log of issues, changes and commits" }
            }
            body {
                h1 { "The log of issues, changes and commits" }
                p {
                    (view.bytes) " bytes in " (view.segments) " segments, at " a href="logs" { "/logs" } ". "
                    @if view.behind > 0 { (view.behind) " bytes of it are still being read." }
                }
                @if let Some(why) = &view.trouble {
                    p role="alert" { strong { "It takes no writes: " } (why) }
                }
                @if view.sources.is_empty() {
                    p { "Nothing is followed: " code { "[maintner.watch.NAME]" } " in the configuration says what is." }
                } @else {
                    table {
                        thead { tr { th { "source" } th { "state" } th { "fresh" } th { "news" } th { "told" } th { "looks" } } }
                        tbody { @for source in &view.sources { (row(source)) } }
                    }
                }
            }
        }
    }
}

fn row(source: &SourceStatus) -> Markup {
    let age = |secs: Option<u64>| secs.map_or("never".to_owned(), |secs| format!("{} ago", spelled(secs)));
    html! {
        tr {
            td { (source.name) }
            td { (words(source)) }
            td { (age(source.fresh_secs_ago)) }
            td { (age(source.news_secs_ago)) }
            td { (source.told) }
            td {
                (source.looks)
                @if source.failures > 0 { ", " (source.failures) " failed" }
            }
        }
    }
}

/// How a source is doing, in a sentence.
pub fn words(source: &SourceStatus) -> String {
    let mut words = match &source.state {
        Doing::Starting => "not looked at yet".to_owned(),
        Doing::Looking => "being looked at".to_owned(),
        Doing::Good => "good".to_owned(),
        Doing::Failing {
            why,
            for_secs,
            again_in_secs,
        } => {
            let (since, again) = (spelled(*for_secs), spelled(*again_in_secs));
            format!("failing for {since}: {why}; tried again in {again}")
        }
        Doing::Limited { .. } => source.state.trouble().unwrap_or_default(),
    };
    if source.doubted > 0 {
        words += &format!(
            "; {} refs seem to be gone, which is looked at again",
            source.doubted
        );
    }
    if !source.left.is_empty() {
        words += &format!("; without a commit: {}", source.left.join(", "));
    }
    words
}

fn spelled(secs: u64) -> String {
    match secs {
        0..=119 => format!("{secs} s"),
        120..=7199 => format!("{} min", secs / 60),
        7200..=172_799 => format!("{} h", secs / 3600),
        _ => format!("{} d", secs / 86_400),
    }
}
