//! Builders: all of them, and how one does on each branch.

use axum::extract::{Path, Query, State};
use ids::{BuilderName, RepoName, Timestamp};
use maud::{Markup, html};
use serde::Serialize;
use store::read::BuildFilter;
use web::{Page, Problem, Section, Visit, duration, plural};

use crate::build::PlaceView;
use crate::part::{self, *};
use crate::routes::{Answer, App, parsed};
use crate::view::*;

/// Commits of each branch that are looked at.
const LOOKED_AT: usize = 50;

/// Branches of a page; those after them are found by their builds.
const BRANCHES: usize = 50;

/// Builds of the list below.
const LISTED: usize = 20;

#[derive(Debug, Clone, Serialize)]
pub struct BuildersPage {
    #[serde(flatten)]
    pub extent: Extent,
    /// By group and name.
    pub builders: Vec<BuilderLine>,
}

#[derive(Debug, Clone, Serialize)]
pub struct BuilderLine {
    #[serde(flatten)]
    pub builder: BuilderView,
    /// Its newest builds, newest first.
    pub recent: Vec<CellView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct BuilderPage {
    pub builder: BuilderView,
    pub notes: String,
    /// Instead of the repository's recipe.
    pub recipe: Option<String>,
    pub max_at_once: Option<u32>,
    pub branches: Vec<LineView>,
    pub builds: Vec<BuildView>,
}

/// How a builder does on one branch, over its newest 50 commits.
#[derive(Debug, Clone, Serialize)]
pub struct LineView {
    pub repo: String,
    pub branch: String,
    /// What the newest finished result says, and how many in a row say so.
    pub newest: Option<&'static str>,
    pub in_a_row: usize,
    pub passed: usize,
    pub failed: usize,
    /// Builds whose attempts disagree.
    pub flaky: usize,
    /// Of those that passed; null if none did.
    pub median_ms: Option<u64>,
    /// Newest first.
    pub results: Vec<PlaceView>,
}

pub async fn builders(State(app): State<App>, visit: Visit, Query(window): Query<Window>) -> Answer {
    let config = app.live.config();
    let mut names: Vec<_> = config.builders.iter().collect();
    names.sort_by(|(_, one), (_, other)| one.group.cmp(&other.group));
    let (extent, names) = window.cut(names);
    let mut builders = Vec::new();
    for (name, _) in names {
        let filter = BuildFilter {
            builder: Some(name.clone()),
            ..BuildFilter::default()
        };
        let recent = app.store.builds(&filter, LISTED).await?;
        builders.push(BuilderLine {
            builder: BuilderView::new(&config, name),
            recent: recent.iter().map(CellView::from).collect(),
        });
    }
    let view = BuildersPage { extent, builders };
    Ok(visit.answer(&view, draw_all))
}

pub async fn builder(State(app): State<App>, visit: Visit, Path(name): Path<String>) -> Answer {
    let name: BuilderName = parsed(&name, "builder")?;
    let config = app.live.config();
    let filter = BuildFilter {
        builder: Some(name.clone()),
        ..BuildFilter::default()
    };
    let builds = app.store.builds(&filter, LISTED).await?;
    let conf = config.builders.get(&name);
    if conf.is_none() && builds.is_empty() {
        return Err(
            Problem::not_found("no_builder", format!("there is no builder `{name}`")).hint(
                "/builders has those of the configuration; those that are gone are found by their builds.",
            ),
        );
    }
    let mut branches = Vec::new();
    for row in app.store.branches(None).await? {
        if row.gone || conf.is_some_and(|conf| !conf.builds.decides(&row.repo, &row.branch)) {
            continue;
        }
        if branches.len() == BRANCHES {
            break;
        }
        let line = line(&app, &name, &row.repo, &row.branch).await?;
        branches.extend(
            line.results
                .iter()
                .any(|place| place.build.is_some())
                .then_some(line),
        );
    }
    let view = BuilderPage {
        builder: BuilderView::new(&config, &name),
        notes: conf.map(|conf| conf.notes.clone()).unwrap_or_default(),
        recipe: conf
            .and_then(|conf| conf.recipe.as_ref())
            .map(|recipe| recipe.to_string()),
        max_at_once: conf.and_then(|conf| conf.max_at_once),
        branches,
        builds: builds.iter().map(BuildView::from).collect(),
    };
    Ok(visit.answer(&view, |view| draw(view, visit.now)))
}

async fn line(
    app: &App,
    builder: &BuilderName,
    repo: &RepoName,
    branch: &ids::BranchName,
) -> Result<LineView, Problem> {
    let rows = app
        .store
        .builder_history(repo, builder, branch, None, LOOKED_AT)
        .await?;
    let results: Vec<PlaceView> = rows.iter().map(PlaceView::from).collect();
    let builds = || results.iter().filter_map(|place| place.build.as_ref());
    let count = |status: &str| builds().filter(|build| build.status == status).count();
    let newest = verdict(builds());
    let mut took: Vec<u64> = builds()
        .filter(|build| build.status == "passed")
        .map(|build| build.took_ms)
        .collect();
    took.sort_unstable();
    Ok(LineView {
        repo: repo.to_string(),
        branch: branch.to_string(),
        newest: newest.map(|(status, _)| status),
        in_a_row: newest.map_or(0, |(_, n)| n),
        passed: count("passed"),
        failed: count("failed"),
        flaky: builds().filter(|build| build.flaky).count(),
        median_ms: took.get(took.len() / 2).copied(),
        results,
    })
}

fn draw_all(view: &BuildersPage) -> Page {
    let body = html! {
        h1 { "Builders" }
        @if view.builders.is_empty() {
            (empty("No builder yet", html! { "Add a table " code { "[builder.NAME]" } " with its " code { "host" } " to burrow.toml." }))
        } @else {
            (table(&["Builder", "Group", "Host type", "State", "Newest builds", "Known issue"], html! {
                @for line in &view.builders {
                    @let builder = &line.builder;
                    tr {
                        th.nowrap scope="row" { a href=(link("/builder/", &builder.name)) { (builder.name) } }
                        td { (builder.group) }
                        td.nowrap { a href={"/machines#" (builder.host_type)} { (builder.host_type) } }
                        td.nowrap { @match verdict(&line.recent) { Some((status, _)) => (state(status)), None => span.dim { "no result yet" } } }
                        td { div.strip { @for build in &line.recent { (cell(Some(build), &builder.name, !builder.known_issues.is_empty(), false)) } } }
                        td.grow { @for issue in &builder.known_issues { (plain(issue)) " " } }
                    }
                }
            }))
            (part::extent("/builders?", &view.extent, view.builders.len()))
        }
    };
    page("Builders", Section::Builders, true, body)
}

fn draw(view: &BuilderPage, now: Timestamp) -> Page {
    let builder = &view.builder;
    let body = html! {
        div.head {
            p.crumbs { a href="/builders" { "Builders" } " / " (builder.group) }
            h1 { (builder.name) }
            @if builder.retired { p.note { "It is no more in the configuration; its results stay." } }
            @if !view.notes.is_empty() { p { (plain(&view.notes)) } }
        }
        (issues(builder))
        @if !builder.retired {
            dl.facts {
                div { dt { "Host type" } dd { a href={"/machines#" (builder.host_type)} { (builder.host_type) } } }
                div { dt { "Recipe" } dd { (view.recipe.as_deref().unwrap_or("the repository's")) } }
                div { dt { "At once" } dd { @match view.max_at_once { Some(max) => { "at most " (max) } None => "as many as there are machines" } } }
            }
        }
        @for line in &view.branches { (draw_line(builder, line)) }
        section {
            h2 { "Newest builds" }
            @if view.builds.is_empty() { (empty("It has built nothing yet", html! { a href="/queue" { "The queue" } " tells what it waits for." })) }
            @else {
                (part::builds(&view.builds, now))
                p { a href={"/builds?builder=" (builder.name)} { "All builds by " (builder.name) } }
            }
        }
    };
    page(format!("builder {}", builder.name), Section::Builders, true, body)
}

fn draw_line(builder: &BuilderView, line: &LineView) -> Markup {
    let told = line.passed + line.failed;
    html! {
        section {
            div.bar {
                h2 { a href=(repo_link(&line.repo, &line.branch)) { (line.repo) " " (line.branch) } }
                @if let Some(newest) = line.newest { (state(newest)) span.dim { (line.in_a_row) " in a row" } }
            }
            p.dim {
                @if told > 0 { (line.passed * 100 / told) " % of " (plural(told as u64, "result")) " passed" }
                @if line.flaky > 0 { ", " (line.flaky) " flaky" }
                @if let Some(ms) = line.median_ms { ", usually takes " (duration(ms)) }
            }
            div.strip {
                @for place in &line.results {
                    @let about = format!("{} {}", short(&place.commit.hash), plain(&place.commit.title));
                    (cell(place.build.as_ref(), &about, !builder.known_issues.is_empty(), false))
                }
            }
            (durations(line))
        }
    }
}

/// How long each result took, oldest first, as bars on one scale.
fn durations(line: &LineView) -> Markup {
    let bars: Vec<(&CellView, &PlaceView)> = line
        .results
        .iter()
        .rev()
        .filter_map(|place| Some((place.build.as_ref()?, place)))
        .filter(|(build, _)| matches!(build.status, "passed" | "failed"))
        .collect();
    let Some(longest) = bars
        .iter()
        .map(|(build, _)| build.took_ms)
        .max()
        .filter(|ms| *ms > 0)
    else {
        return html! {};
    };
    html! {
        @if bars.len() > 2 {
            svg.bars viewBox={"0 0 " (bars.len() * 8) " 40"} width=(bars.len() * 8) height="40" role="img" aria-label={"Time taken, oldest first, up to " (duration(longest))} {
                @for (at, (build, place)) in bars.iter().enumerate() {
                    @let height = (build.took_ms * 38 / longest).max(1);
                    rect.(build.status) x=(at * 8) y=(40 - height) width="6" height=(height) { title { (short(&place.commit.hash)) ": " (build.status) ", " (duration(build.took_ms)) } }
                }
            }
            p.dim { "Time taken, oldest commit first; the highest bar is " (duration(longest)) "." }
        }
    }
}
