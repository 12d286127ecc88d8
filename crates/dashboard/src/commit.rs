//! One commit and all that was built of it, and the address of a cell that outlives its builds.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use ids::{BuilderName, GitHash, RepoName, Timestamp};
use maud::html;
use serde::Serialize;
use store::read::{BuildFilter, CommitRow};
use web::{Page, Problem, Section, Visit, duration, segment};

use crate::part::{self, *};
use crate::routes::{Answer, App, parsed};
use crate::view::*;

/// More builders than a farm has.
const BUILDS: usize = 20_000;

#[derive(Debug, Clone, Serialize)]
pub struct CommitPage {
    pub repo: String,
    pub commit: CommitView,
    pub message: String,
    pub parents: Vec<String>,
    /// Branches whose first-parent history holds it, up to 200.
    pub branches: Vec<String>,
    #[serde(flatten)]
    pub extent: Extent,
    /// Those that build it, or did; what needs a look comes first.
    pub builders: Vec<CommitBuilderView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct CommitBuilderView {
    #[serde(flatten)]
    pub builder: BuilderView,
    pub attempts: u32,
    pub build: Option<CellView>,
}

/// The commit that `hash` means, or begins; several or none are a problem.
async fn find(app: &App, repo: &RepoName, hash: &str) -> Result<CommitRow, Problem> {
    let mut found = match GitHash::parse(hash) {
        Ok(hash) => app.store.commit_row(repo, &hash).await?.into_iter().collect(),
        Err(_) => app.store.commits_by_prefix(hash, 100).await?,
    };
    found.retain(|commit| &commit.repo == repo);
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Problem::not_found(
            "no_commit",
            format!("the farm knows no commit `{hash}` of {repo}"),
        )
        .hint(
            "It knows commits of tracked branches, once they are fetched. A hash has at least 4 digits here.",
        )),
        n => Err(Problem::not_found(
            "many_commits",
            format!("{n} commits of {repo} begin with `{hash}`"),
        )
        .hint(format!("Give more digits, or see /search?q={hash}"))),
    }
}

pub async fn commit(
    State(app): State<App>,
    visit: Visit,
    Path((repo, hash)): Path<(String, String)>,
    Query(window): Query<Window>,
) -> Answer {
    let repo: RepoName = parsed(&repo, "repository")?;
    let row = find(&app, &repo, &hash).await?;
    if row.hash.as_str() != hash {
        return Ok(visit.redirect(&commit_link(repo.as_str(), row.hash.as_str())));
    }
    let config = app.live.config();
    let branches = app.store.branches_with(&repo, &row.hash).await?;
    let filter = BuildFilter {
        repo: Some(repo.clone()),
        commit: Some(row.hash.clone()),
        ..BuildFilter::default()
    };
    let builds = app.store.builds(&filter, BUILDS).await?;
    let mut builders: BTreeMap<BuilderName, Option<_>> = BTreeMap::new();
    for branch in &branches {
        let wanted = config.builders_for(&repo, branch);
        builders.extend(wanted.into_iter().map(|name| (name.clone(), None)));
    }
    builders.extend(builds.iter().map(|build| (build.builder.clone(), Some(build))));
    let mut builders: Vec<CommitBuilderView> = builders
        .into_iter()
        .map(|(name, build)| CommitBuilderView {
            builder: BuilderView::new(&config, &name),
            attempts: build.map_or(0, |build| build.attempts),
            build: build.map(CellView::from),
        })
        .collect();
    // What needs a look comes first.
    let rank = |one: &CommitBuilderView| match one.build.as_ref().map(|build| build.status) {
        Some("failed") => 0,
        Some("infra") => 1,
        Some("running" | "waiting") => 2,
        _ => 3,
    };
    builders.sort_by_key(rank);
    let (extent, builders) = window.cut(builders);
    let view = CommitPage {
        repo: repo.to_string(),
        message: row.message.clone(),
        parents: row.parents.iter().map(|hash| hash.to_string()).collect(),
        branches: branches
            .iter()
            .take(ROWS)
            .map(|branch| branch.to_string())
            .collect(),
        commit: (&row).into(),
        extent,
        builders,
    };
    Ok(visit.answer(&view, |view| draw(view, visit.now)))
}

/// To the build of this commit by this builder. A build is for ever, so this address is too.
pub async fn cell(
    State(app): State<App>,
    visit: Visit,
    Path((repo, hash, name)): Path<(String, String, String)>,
) -> Answer {
    let (repo, builder): (RepoName, BuilderName) = (parsed(&repo, "repository")?, parsed(&name, "builder")?);
    let commit = find(&app, &repo, &hash).await?.hash;
    match app.store.build_of(&repo, &commit, &builder).await? {
        Some(build) => Ok(visit.redirect(&format!("/build/{build}"))),
        None => Err(Problem::not_found(
            "no_build",
            format!("{builder} has no build of {repo} {}", commit.short()),
        )
        .hint(format!(
            "It may be to come, or not be wanted: {} has what there is.",
            commit_link(repo.as_str(), commit.as_str())
        ))),
    }
}

fn draw(view: &CommitPage, now: Timestamp) -> Page {
    let commit = &view.commit;
    let open = |one: &CommitBuilderView| {
        matches!(
            one.build.as_ref().map(|build| build.status),
            None | Some("waiting" | "running")
        )
    };
    let body = html! {
        div.head {
            p.crumbs {
                a href=(link("/repo/", &view.repo)) { (view.repo) }
                @for branch in view.branches.iter().take(20) { " / " a href=(repo_link(&view.repo, branch)) { (branch) } }
            }
            h1 { (plain(&commit.title)) }
            p { (plain(&commit.author)) ", " (when(now, commit.time)) " " span.hash.dim { (commit.hash) } }
        }
        @if view.branches.is_empty() { p.note { "It is on no tracked branch any more; its results stay." } }
        @if view.message.trim() != commit.title.trim() {
            pre.message { @for line in view.message.lines().skip(1).skip_while(|line| line.trim().is_empty()) { (plain(line)) "\n" } }
        }
        p.dim { "After " @for parent in &view.parents { a.hash href=(commit_link(&view.repo, parent)) { (short(parent)) } " " } @if view.parents.is_empty() { "nothing: it is the first commit" } }
        @if view.builders.is_empty() {
            (empty("No builder wants this commit", html! { "Which builders build which branches is said by " code { "builds" } " in " code { "[builder.NAME]" } " of the configuration." }))
        } @else {
            (table(&["Builder", "State", "Took", "Tries", "Why"], html! {
                @for one in &view.builders {
                    tr {
                        th.nowrap scope="row" { a href=(link("/builder/", &one.builder.name)) { (one.builder.name) } " " span.dim { (one.builder.group) } }
                        td.nowrap { @match &one.build {
                            Some(build) => { a href={"/build/" (build.id)} { (state(build.status)) } @if build.flaky { " " (flaky()) } }
                            None => span.dim { "not asked for yet" },
                        } }
                        td.num { @if let Some(build) = &one.build && build.took_ms > 0 { (duration(build.took_ms)) } }
                        td.num { @if one.attempts > 0 { (one.attempts) } }
                        td.grow { @if let Some(build) = &one.build { (plain(&build.reason)) } }
                    }
                }
            }))
            (part::extent(&format!("{}?", commit_link(&view.repo, &commit.hash)), &view.extent, view.builders.len()))
            p.dim { "A lasting address of one result: " code { "/cell/" (segment(&view.repo)) "/" (short(&commit.hash)) "/BUILDER" } }
        }
    };
    page(
        format!("{} {}", view.repo, short(&commit.hash)),
        Section::Farm,
        view.builders.iter().any(open),
        body,
    )
}
