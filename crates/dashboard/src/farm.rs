//! The front page: each branch in a line.

use std::collections::BTreeMap;

use axum::extract::State;
use config::Config;
use ids::{BuilderName, RepoName, Timestamp};
use maud::{Markup, html};
use serde::Serialize;
use store::read::{BranchRow, Grid, Status};
use web::{Page, Problem, Section, Visit, icon, plural};

use crate::machine::expected;
use crate::part::*;
use crate::routes::{Answer, App};
use crate::view::*;

/// Branches of a repository; its own page leads to the rest.
const BRANCHES: usize = 30;

/// Commits of a branch that are looked at.
const LOOKED_AT: usize = 20;

/// Builds of a branch that are looked at, if there are builders enough.
const MOST_CELLS: usize = 10_000;

/// Broken builders that a branch names.
const NAMED: usize = 6;

#[derive(Debug, Clone, Serialize)]
pub struct FarmPage {
    pub repos: Vec<RepoView>,
    pub waiting: u64,
    pub running: u64,
    /// Connected machines, and how many the configuration expects.
    pub machines: usize,
    pub machines_expected: usize,
}

#[derive(Debug, Clone, Serialize)]
pub struct RepoView {
    pub name: String,
    pub fetched: Option<i64>,
    pub error: Option<String>,
    /// The default one first, up to 30.
    pub branches: Vec<BranchView>,
    pub branches_in_all: usize,
}

#[derive(Debug, Clone, Serialize)]
pub struct BranchView {
    pub name: String,
    pub head: CommitView,
    /// Builders that have results here.
    pub builders: usize,
    /// Those of them whose newest result is a failure, those with a known issue last.
    pub broken: Vec<BrokenView>,
    /// The newest commits with the worst of each one's results, newest first.
    pub recent: Vec<RecentView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct BrokenView {
    pub builder: String,
    /// Its newest failure, and how many there are in a row.
    pub build: u64,
    pub in_a_row: usize,
    /// Expected: it counts for nothing else on this page.
    pub known_issue: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct RecentView {
    pub commit: CommitView,
    /// `failed`, `infra`, `running`, `waiting`, `cancelled`, `passed`; null without builds.
    pub worst: Option<&'static str>,
    /// How many builds of it failed.
    pub failed: usize,
}

pub async fn farm(State(app): State<App>, visit: Visit) -> Answer {
    let config = app.live.config();
    let (states, branches) = (app.store.repos().await?, app.store.branches(None).await?);
    let mut repos = Vec::new();
    for name in config.repos.keys() {
        let state = states.iter().find(|row| &row.repo == name);
        let default = state.and_then(|row| row.default_branch.as_ref());
        let mut rows: Vec<&BranchRow> = branches
            .iter()
            .filter(|row| &row.repo == name && !row.gone)
            .collect();
        rows.sort_by_key(|row| Some(&row.branch) != default);
        let mut shown = Vec::new();
        let branches_in_all = rows.len();
        for row in rows.into_iter().take(BRANCHES) {
            shown.extend(branch(&app, name, row).await?);
        }
        repos.push(RepoView {
            name: name.to_string(),
            fetched: state.and_then(|row| row.fetched).map(|at| at.0),
            error: state.and_then(|row| row.error.clone()),
            branches: shown,
            branches_in_all,
        });
    }
    let counts = app.store.counts().await?;
    let count = |status| counts.get(&status).copied().unwrap_or(0);
    let machines = app.store.machines().await?;
    let view = FarmPage {
        repos,
        waiting: count(Status::Waiting),
        running: count(Status::Running),
        machines: machines.iter().filter(|machine| machine.connected).count(),
        machines_expected: config.hosts.values().map(expected).sum(),
    };
    Ok(visit.answer(&view, |view| draw(view, visit.now)))
}

async fn branch(app: &App, repo: &RepoName, row: &BranchRow) -> Result<Option<BranchView>, Problem> {
    let grid = app
        .store
        .grid_rows(repo, &row.branch, None, "", LOOKED_AT)
        .await?;
    let Some(mut grid) = grid.filter(|grid| !grid.rows.is_empty()) else {
        return Ok(None);
    };
    // With thousands of builders fewer commits say as much.
    while !app.store.fill_grid(repo, &mut grid, None, MOST_CELLS).await? {
        let fewer = grid.rows.len() / 2;
        if fewer == 0 {
            app.store.fill_grid(repo, &mut grid, None, usize::MAX).await?;
            break;
        }
        grid.rows.truncate(fewer);
    }
    let config = app.live.config();
    let wanted = config.builders_for(repo, &row.branch);
    let mut columns: BTreeMap<&BuilderName, Vec<CellView>> = BTreeMap::new();
    for cell in grid.rows.iter().flat_map(|row| &row.cells) {
        columns.entry(&cell.builder).or_default().push(cell.into());
    }
    let mut broken = Vec::new();
    let mut builders = 0;
    for builder in wanted {
        let cells = columns.remove(builder).unwrap_or_default();
        builders += usize::from(!cells.is_empty());
        if let Some(("failed", in_a_row)) = verdict(&cells)
            && let Some(newest) = cells.iter().find(|cell| cell.status == "failed")
        {
            broken.push(BrokenView {
                builder: builder.to_string(),
                build: newest.id,
                in_a_row,
                known_issue: is_known(&config, builder),
            });
        }
    }
    broken.sort_by_key(|one| one.known_issue);
    Ok(Some(BranchView {
        name: row.branch.to_string(),
        head: (&grid.rows[0].commit).into(),
        builders,
        broken,
        recent: recent(&grid, &config),
    }))
}

fn is_known(config: &Config, builder: &BuilderName) -> bool {
    let conf = config.builders.get(builder);
    conf.is_some_and(|conf| !conf.known_issues.is_empty())
}

fn recent(grid: &Grid, config: &Config) -> Vec<RecentView> {
    const WORST: [Status; 6] = [
        Status::Failed,
        Status::Infra,
        Status::Running,
        Status::Waiting,
        Status::Cancelled,
        Status::Passed,
    ];
    let one = |row: &store::read::GridRow| {
        let told = row
            .cells
            .iter()
            .filter(|cell| cell.state.status() != Status::Failed || !is_known(config, &cell.builder));
        let told: Vec<Status> = told.map(|cell| cell.state.status()).collect();
        let count = |status: &Status| told.iter().filter(|one| *one == status).count();
        RecentView {
            commit: (&row.commit).into(),
            worst: WORST
                .into_iter()
                .find(|status| count(status) > 0)
                .map(Status::as_str),
            failed: count(&Status::Failed),
        }
    };
    grid.rows.iter().map(one).collect()
}

impl BranchView {
    /// How many are broken for no reason that is known.
    fn unexpected(&self) -> usize {
        self.broken.iter().filter(|one| !one.known_issue).count()
    }
}

fn draw(view: &FarmPage, now: Timestamp) -> Page {
    let branches = view.repos.iter().flat_map(|repo| &repo.branches);
    let broken: usize = branches.map(BranchView::unexpected).sum();
    let missing = view.machines < view.machines_expected;
    let body = html! {
        h1.sr { "Farm" }
        div.stats {
            a.bad[broken > 0] href="/builds?status=failed" { b { (broken) } "broken " (if broken == 1 { "builder" } else { "builders" }) }
            a href="/builds?status=running" { b { (view.running) } "running" }
            a href="/queue" { b { (view.waiting) } "waiting" }
            a.bad[missing] href="/machines" { b { (view.machines) @if missing { small { " of " (view.machines_expected) } } } "machines connected" }
        }
        @if view.repos.is_empty() {
            (empty("No repository yet", html! { "Add a table " code { "[repo.NAME]" } " with a " code { "url" } " to burrow.toml; it is read again as soon as it changes." }))
        }
        @for repo in &view.repos { (draw_repo(repo, now)) }
    };
    page("Farm", Section::Farm, true, body)
}

fn draw_repo(repo: &RepoView, now: Timestamp) -> Markup {
    html! {
        section {
            div.bar {
                h2 { a href=(link("/repo/", &repo.name)) { (repo.name) } }
                @if repo.error.is_none() && let Some(at) = repo.fetched { span.dim { "looked at " (when(now, at)) } }
            }
            @if let Some(error) = &repo.error {
                p.note.infra { strong { "The mirror is behind: " } (plain(error)) @if let Some(at) = repo.fetched { " " span.dim { "Last fetched " (when(now, at)) "." } } }
            }
            @if repo.branches.is_empty() {
                @if repo.fetched.is_some() {
                    (empty("No commit on a tracked branch", html! { "Push one, or name other branches in " code { "branches" } " of " code { "[repo." (repo.name) "]" } "." }))
                } @else if repo.error.is_none() {
                    (empty("Being fetched for the first time", html! { "Commits appear as soon as that is done." }))
                }
            } @else {
                (table(&["Branch", "State", "Recent commits", "Newest commit", ""], html! {
                    @for branch in &repo.branches {
                        tr {
                            th.nowrap scope="row" { a href=(repo_link(&repo.name, &branch.name)) { (branch.name) } }
                            td { (standing(branch)) }
                            td { div.strip { @for one in &branch.recent { (mark(&repo.name, one)) } } }
                            td { a.hash href=(commit_link(&repo.name, &branch.head.hash)) { (short(&branch.head.hash)) } }
                            td.clip title=(plain(&branch.head.title)) { (plain(&branch.head.title)) " " span.dim { (plain(&branch.head.author)) ", " (when(now, branch.head.time)) } }
                        }
                    }
                }))
                @if repo.branches_in_all > repo.branches.len() {
                    p.dim { "And " (plural((repo.branches_in_all - repo.branches.len()) as u64, "more branch")) ": each is at " code { (link("/repo/", &repo.name)) "/BRANCH" } }
                }
            }
        }
    }
}

fn standing(branch: &BranchView) -> Markup {
    if branch.builders == 0 {
        return html! { span.dim { "no build yet" } };
    }
    let unexpected = branch.unexpected();
    html! {
        div.standing {
            @if unexpected == 0 { span.state.passed { (icon("passed")) "all of " (plural(branch.builders as u64, "builder")) } }
            @else { span.state.failed { (icon("failed")) (unexpected) " of " (branch.builders) } }
            @for one in branch.broken.iter().take(NAMED) {
                a.nowrap.known[one.known_issue] href={"/build/" (one.build)} title={(one.in_a_row) " failures in a row" @if one.known_issue { ", a known issue" }} { (one.builder) }
            }
            @if branch.broken.len() > NAMED { span.dim { "and " (branch.broken.len() - NAMED) " more" } }
        }
    }
}

fn mark(repo: &str, one: &RecentView) -> Markup {
    let worst = one.worst.unwrap_or("none");
    let mut title = format!("{} {}: ", short(&one.commit.hash), plain(&one.commit.title));
    match one.failed {
        0 => title.push_str(one.worst.unwrap_or("no build")),
        n => title.push_str(&format!("{} failed", plural(n as u64, "build"))),
    }
    html! {
        a.cell.(worst) href=(commit_link(repo, &one.commit.hash)) title=(title) {
            @match (one.failed, one.worst) {
                (2.., _) => (one.failed),
                (_, Some(worst)) => (icon(worst)),
                (_, None) => "·",
            }
        }
    }
}
