//! One build: what failed, since when, how each attempt went, what it printed.

use axum::extract::{Path, Query, State};
use ids::{BranchName, Timestamp};
use maud::{Markup, html};
use runner::{Outcome, REATTACH};
use serde::{Deserialize, Serialize};
use store::read::{AttemptRow, BuildDetail, BuildState, HistoryRow, Role};
use web::{Page, Problem, Section, Visit, duration, icon, plural, ticked};

use crate::log::{self, LogView};
use crate::part::*;
use crate::routes::{Answer, App, attempt, default_branch, detail};
use crate::view::*;

/// Commits of the builder's history that are looked at, newer and older than the one shown.
const NEWER: u64 = 12;
const OLDER: u64 = 200;

/// Of them so many are drawn.
const STRIP: usize = 40;

/// Commits that may have broken it are listed up to here.
const SUSPECTS: usize = 20;

#[derive(Debug, Clone, Serialize)]
pub struct BuildPage {
    pub build: BuildView,
    pub builder: BuilderView,
    pub commit: CommitView,
    pub branches: Vec<String>,
    /// Oldest first.
    pub attempts: Vec<AttemptView>,
    /// Why it waits, if it does.
    pub waiting: Option<WaitView>,
    /// The machine that it runs on, while that is out of reach.
    pub away: Option<AwayView>,
    /// Since when it fails, if it does.
    pub breakage: Option<BreakageView>,
    pub history: Option<HistoryView>,
    /// The log that is shown: of the step that failed, or that was started last.
    pub log: Option<LogView>,
    #[serde(skip)]
    may_act: bool,
    #[serde(skip)]
    proof: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct AwayView {
    pub machine: String,
    pub since: i64,
    pub why: String,
    /// When it is given up.
    pub until: i64,
}

#[derive(Debug, Clone, Serialize)]
pub struct AttemptView {
    pub n: u32,
    pub machine: String,
    pub host_type: String,
    pub started: i64,
    pub ended: Option<i64>,
    pub status: &'static str,
    pub reason: String,
    /// What is to be known of its source besides.
    pub notes: Vec<String>,
    pub steps: Vec<StepView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct StepView {
    pub index: u32,
    pub name: String,
    pub command: String,
    pub started: Option<i64>,
    pub ended: Option<i64>,
    pub ok: Option<bool>,
    /// As the machine says it: `ok`, `exit status 1`.
    pub state: String,
}

/// The builder's results along a branch, newest first.
#[derive(Debug, Clone, Serialize)]
pub struct HistoryView {
    pub branch: String,
    pub rows: Vec<PlaceView>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlaceView {
    pub commit: CommitView,
    pub build: Option<CellView>,
}

/// Between which commits of a branch a builder's result turned.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BreakageView {
    pub branch: String,
    /// Null: none among the last 200 commits.
    pub last_pass: Option<PlaceView>,
    pub first_fail: PlaceView,
    /// The commits after the last pass up to the first failure, newest first; one of them broke it.
    pub suspects: Vec<CommitView>,
    /// The first pass after it, if there is one already.
    pub mended: Option<PlaceView>,
}

#[derive(Deserialize)]
pub struct BuildQuery {
    attempt: Option<u32>,
    step: Option<u32>,
    /// Number of the line at which a window of the log begins.
    from: Option<u64>,
    /// Words to look for in the log.
    #[serde(default)]
    find: String,
}

pub async fn build(
    State(app): State<App>,
    visit: Visit,
    Path(id): Path<String>,
    Query(query): Query<BuildQuery>,
) -> Answer {
    let detail = detail(&app, &id).await?;
    let shown = match query.attempt {
        None => detail.attempts.last(),
        n => Some(attempt(&detail, n)?),
    };
    let log = match shown {
        None => None,
        Some(attempt) => log_of(&app, attempt, &query).await?,
    };
    let mut attempts: Vec<AttemptView> = detail.attempts.iter().map(AttemptView::from).collect();
    if let Some(shown) = shown
        && let Some(view) = attempts.iter_mut().find(|view| view.n == shown.attempt.n)
    {
        let notes = app.logs.notes(shown.attempt).await.map_err(Problem::internal)?;
        view.notes = notes.lines().map(str::to_owned).collect();
    }
    let history = history(&app, &detail).await?;
    let config = app.live.config();
    let away = match &detail.row.state {
        BuildState::Running { machine, .. } => app.store.machine(machine).await?,
        BuildState::Waiting { .. } | BuildState::Done { .. } => None,
    };
    let away = away.filter(|machine| !machine.connected).map(|machine| AwayView {
        machine: machine.machine.to_string(),
        since: machine.changed.0,
        why: machine.why_gone,
        until: machine.changed.0.saturating_add(REATTACH.as_micros() as i64),
    });
    let view = BuildPage {
        away,
        breakage: history.as_ref().and_then(|(branch, rows)| {
            let here = rows.iter().position(|row| row.commit.hash == detail.row.commit)?;
            breakage(branch, rows, here)
        }),
        history: history.map(|(branch, rows)| HistoryView {
            branch: branch.to_string(),
            rows: rows.iter().take(STRIP).map(PlaceView::from).collect(),
        }),
        build: (&detail.row).into(),
        builder: BuilderView::new(&config, &detail.row.builder),
        commit: (&detail.commit).into(),
        branches: detail.branches.iter().map(|branch| branch.to_string()).collect(),
        attempts,
        waiting: WaitView::of(&app.live.queue().waiting, detail.row.build),
        log,
        may_act: visit.may(Role::Contributor),
        proof: visit.form_proof().to_owned(),
    };
    Ok(visit.answer(&view, |view| draw(view, visit.now)))
}

async fn log_of(app: &App, attempt: &AttemptRow, query: &BuildQuery) -> Result<Option<LogView>, Problem> {
    let begun = || attempt.steps.iter().filter(|step| step.started.is_some());
    let step = match query.step {
        Some(index) => {
            let found = begun().find(|step| step.index == index);
            Some(found.ok_or_else(|| {
                let what = format!("attempt {} has not begun a step {index}", attempt.attempt);
                Problem::not_found("no_step", what)
            })?)
        }
        None => begun()
            .find(|step| step.ok == Some(false))
            .or(begun().next_back()),
    };
    match step {
        None => Ok(None),
        Some(step) => Ok(Some(
            log::load(&app.logs, &app.known, attempt, step, query.from, &query.find).await?,
        )),
    }
}

/// What the builder said of the commits around, on the branch that matters most.
async fn history(app: &App, detail: &BuildDetail) -> Result<Option<(BranchName, Vec<HistoryRow>)>, Problem> {
    let (repo, row) = (&detail.row.repo, &detail.row);
    let default = default_branch(app, repo).await?;
    let branch = detail
        .branches
        .iter()
        .find(|branch| Some(*branch) == default.as_ref());
    let Some(branch) = branch.or(detail.branches.first()) else {
        return Ok(None);
    };
    let Some(depth) = app.store.depth_of(repo, branch, &row.commit).await? else {
        return Ok(None);
    };
    let rows = app
        .store
        .builder_history(
            repo,
            &row.builder,
            branch,
            Some(depth + NEWER + 1),
            (NEWER + OLDER) as usize,
        )
        .await?;
    Ok(Some((branch.clone(), rows)))
}

/// `rows`: newest first; `here`: which of them is asked about.
fn breakage(branch: &BranchName, rows: &[HistoryRow], here: usize) -> Option<BreakageView> {
    let told = |row: &HistoryRow| {
        let cell = row.build.as_ref().map(CellView::from);
        verdict(cell.as_ref()).map(|(status, _)| status)
    };
    if told(rows.get(here)?) != Some("failed") {
        return None;
    }
    let (mut first_fail, mut last_pass) = (here, None);
    for (at, row) in rows.iter().enumerate().skip(here + 1) {
        match told(row) {
            Some("failed") => first_fail = at,
            Some(_) => {
                last_pass = Some(at);
                break;
            }
            None => {}
        }
    }
    let mended = rows[..here].iter().rev().find(|row| told(row) == Some("passed"));
    Some(BreakageView {
        branch: branch.to_string(),
        last_pass: last_pass.map(|at| (&rows[at]).into()),
        first_fail: (&rows[first_fail]).into(),
        suspects: last_pass.map_or(Vec::new(), |last_pass| {
            let range = &rows[first_fail..last_pass];
            range.iter().map(|row| (&row.commit).into()).collect()
        }),
        mended: mended.map(PlaceView::from),
    })
}

impl From<&HistoryRow> for PlaceView {
    fn from(row: &HistoryRow) -> PlaceView {
        PlaceView {
            commit: (&row.commit).into(),
            build: row.build.as_ref().map(CellView::from),
        }
    }
}

impl From<&AttemptRow> for AttemptView {
    fn from(row: &AttemptRow) -> AttemptView {
        AttemptView {
            n: row.attempt.n,
            machine: row.machine.to_string(),
            host_type: row.host_type.to_string(),
            started: row.started.0,
            ended: row.ended.map(|at| at.0),
            status: match &row.outcome {
                None => "running",
                Some(Outcome::Passed) => "passed",
                Some(Outcome::Failed { .. }) => "failed",
                Some(Outcome::Infra { .. }) => "infra",
                Some(Outcome::Cancelled { .. }) => "cancelled",
            },
            reason: row.outcome.as_ref().map(reason).unwrap_or_default(),
            notes: Vec::new(),
            steps: row
                .steps
                .iter()
                .map(|step| StepView {
                    index: step.index,
                    name: step.name.clone(),
                    command: step.command.clone(),
                    started: step.started.map(|at| at.0),
                    ended: step.ended.map(|at| at.0),
                    ok: step.ok,
                    state: step.state.clone(),
                })
                .collect(),
        }
    }
}

impl BuildPage {
    fn is_done(&self) -> bool {
        !matches!(self.build.cell.status, "waiting" | "running")
    }

    /// The attempt that is shown.
    fn attempt(&self) -> Option<&AttemptView> {
        let n = self.log.as_ref().map(|log| log.attempt);
        let shown = self.attempts.iter().find(|attempt| Some(attempt.n) == n);
        shown.or(self.attempts.last())
    }
}

fn draw(view: &BuildPage, now: Timestamp) -> Page {
    let (build, cell) = (&view.build, &view.build.cell);
    let body = html! {
        (head(view, now))
        div.build {
            div.about {
                (words(view, now))
                (issues(&view.builder))
                @if let Some(log) = &view.log { (log::excerpt(log)) }
                @if let Some(breakage) = &view.breakage { (broke(view, breakage, now)) }
                @if let Some(history) = &view.history { (strip(view, history)) }
                (attempts(view, now))
            }
            div.told { @if let Some(log) = &view.log { (log::draw(log)) } }
        }
    };
    let title = format!("{} {} {}", cell.status, build.builder, short(&build.commit));
    page(title, Section::Builds, !view.is_done(), body)
}

fn head(view: &BuildPage, now: Timestamp) -> Markup {
    let (build, cell) = (&view.build, &view.build.cell);
    html! {
        div.head {
            p.crumbs {
                a href=(link("/repo/", &build.repo)) { (build.repo) }
                @for branch in view.branches.iter().take(3) { " / " a href=(repo_link(&build.repo, branch)) { (branch) } }
                " / " a.hash href=(commit_link(&build.repo, &build.commit)) { (short(&build.commit)) }
            }
            div.bar {
                h1 { a href=(link("/builder/", &build.builder)) { (build.builder) } " " span.dim { "#" (cell.id) } }
                (chip(cell.status)) @if cell.flaky { (flaky()) }
                div.end { (buttons(view)) }
            }
            p { (plain(&view.commit.title)) " " span.dim { (plain(&view.commit.author)) ", " (when(now, view.commit.time)) } }
        }
    }
}

fn buttons(view: &BuildPage) -> Markup {
    let (id, done) = (view.build.cell.id, view.is_done());
    let (verb, name) = if done {
        ("retry", "Retry")
    } else {
        ("cancel", "Cancel")
    };
    html! {
        @if view.may_act {
            form method="post" action={"/build/" (id) "/" (verb)} {
                input type="hidden" name="proof" value=(view.proof);
                button type="submit" { (name) }
            }
        } @else {
            a.dim href={"/signin?next=/build/" (id)} { "Sign in to " (verb) }
        }
    }
}

/// Its state in a sentence.
fn words(view: &BuildPage, now: Timestamp) -> Markup {
    let cell = &view.build.cell;
    html! {
        @match cell.status {
            "waiting" => { p.note.waiting {
                @match &view.waiting {
                    Some(wait) => {
                        "Waits since " (when(now, wait.requested)) ": " (ticked(&plain(&wait.reason))) ". "
                        @match wait.after {
                            Some(after) => { (plural(wait.ahead as u64, "build")) " before it, " a href={"/build/" (after)} { "#" (after) } " last. " }
                            None => "It is next. ",
                        }
                        "Should start: " (starts(now, wait.starts)) ". " a href={"/queue#w" (cell.id)} { "In the queue" }
                    }
                    None => { "Waits since " (when(now, cell.since)) "." }
                }
                @if !cell.reason.is_empty() { " Tried before: " (plain(&cell.reason)) }
            } }
            "running" => { p.note.running {
                "Runs since " (when(now, cell.since))
                @if let Some(machine) = &view.build.machine { " on " a href=(link("/machine/", machine)) { (machine) } } "."
                @if let Some(away) = &view.away {
                    " " strong { "That machine is out of reach since " (when(now, away.since)) } @if !away.why.is_empty() { ": " (plain(&away.why)) }
                    ". Its commands may go on there; if it is not back " (when(now, away.until)) ", the build is tried elsewhere."
                }
            } }
            "failed" => { p.note.failed { strong { (ticked(&plain(&cell.reason))) } " " span.dim { (when(now, cell.since)) ", after " (duration(cell.took_ms)) } } }
            "infra" => { p.note.infra {
                strong { "The farm is at fault, not the code: " } (ticked(&plain(&cell.reason))) " "
                span.dim { "All tries are used up, " (when(now, cell.since)) "; a retry gives it new ones." }
            } }
            "cancelled" => { p.note { (plain(&cell.reason)) " " span.dim { (when(now, cell.since)) } } }
            _ => { p.note.passed { "Passed " (when(now, cell.since)) ", after " (duration(cell.took_ms)) "." } }
        }
    }
}

fn broke(view: &BuildPage, breakage: &BreakageView, now: Timestamp) -> Markup {
    let repo = &view.build.repo;
    let place = |place: &PlaceView| {
        html! {
            @match &place.build {
                Some(build) => a.hash href={"/build/" (build.id)} { (short(&place.commit.hash)) },
                None => a.hash href=(commit_link(repo, &place.commit.hash)) { (short(&place.commit.hash)) },
            }
        }
    };
    let first = &breakage.first_fail;
    let here = first.commit.hash == view.commit.hash;
    html! {
        section {
            h2 { "Since when" }
            p {
                @if breakage.mended.is_some() { "Failed" } @else { "Fails" } " on " (breakage.branch) " since "
                @if here { "this commit" } @else { (place(first)) " " span.dim { (plain(&first.commit.title)) } }
                @match &breakage.last_pass {
                    Some(pass) => { "; passed last at " (place(pass)) }
                    None => { "; no pass among the last " (OLDER) " commits" }
                }
                @if let Some(mended) = &breakage.mended { "; mended by " (place(mended)) " " span.dim { (plain(&mended.commit.title)) } }
                "."
            }
            // One that is this commit was named above.
            @if breakage.suspects.len() > usize::from(here) {
                p.dim { @match breakage.suspects.len() { 1 => "It was broken by", n => { "One of these " (n) " commits broke it" } } ":" }
                ul.commits {
                    @for commit in breakage.suspects.iter().take(SUSPECTS) {
                        li { a.hash href=(commit_link(repo, &commit.hash)) { (short(&commit.hash)) } span.title { (plain(&commit.title)) } span.dim { (plain(&commit.author)) ", " (when(now, commit.time)) } }
                    }
                    @if breakage.suspects.len() > SUSPECTS { li.dim { "and " (breakage.suspects.len() - SUSPECTS) " older ones" } }
                }
            }
        }
    }
}

fn strip(view: &BuildPage, history: &HistoryView) -> Markup {
    html! {
        section {
            h2 { (view.build.builder) " on " (history.branch) }
            div.strip {
                @for row in &history.rows {
                    @let about = format!("{} {}", short(&row.commit.hash), plain(&row.commit.title));
                    span.here[row.commit.hash == view.commit.hash] { (cell(row.build.as_ref(), &about, false, false)) }
                }
            }
            p.dim { "Newest commit first; the one with a frame is this." }
        }
    }
}

fn attempts(view: &BuildPage, now: Timestamp) -> Markup {
    let Some(shown) = view.attempt() else {
        return html! {};
    };
    let id = view.build.cell.id;
    let shown_step = view.log.as_ref().map(|log| log.step);
    html! {
        section {
            h2 { "Attempts" }
            @if view.attempts.len() > 1 {
                nav.tabs aria-label="Attempts" {
                    @for attempt in &view.attempts {
                        a href={"/build/" (id) "?attempt=" (attempt.n)} aria-current=[(attempt.n == shown.n).then_some("true")] {
                            (icon(attempt.status)) (attempt.n) ": " (attempt.status)
                        }
                    }
                }
            }
            p {
                "Attempt " (shown.n) " " (state(shown.status)) " on " a href=(link("/machine/", &shown.machine)) { (shown.machine) }
                ", started " (when(now, shown.started))
                @if let Some(ended) = shown.ended { ", took " (span(shown.started, ended)) }
                @if !shown.reason.is_empty() && shown.reason != view.build.cell.reason { ". " (plain(&shown.reason)) }
            }
            @for note in &shown.notes { p.note { (ticked(&plain(note))) } }
            div.scroll tabindex="0" { table.list.steps {
                thead { tr { th scope="col" { "Step" } th scope="col" { "State" } th.num scope="col" { "Took" } th.wide scope="col" { "Command" } } }
                tbody {
                    @for step in &shown.steps {
                        tr aria-current=[(Some(step.index) == shown_step).then_some("true")] {
                            th scope="row" {
                                @if step.started.is_some() { a href={"/build/" (id) "?attempt=" (shown.n) "&step=" (step.index) "#log"} { (step.name) } }
                                @else { span.dim { (step.name) } }
                            }
                            td.nowrap {
                                @match (step.ok, step.started, shown.ended) {
                                    (Some(true), ..) => span.state.passed { (icon("passed")) (plain(&step.state)) },
                                    (Some(false), ..) => span.state.failed { (icon("failed")) (plain(&step.state)) },
                                    (None, Some(_), None) => (state("running")),
                                    (None, Some(_), Some(_)) => span.state { (icon("cancelled")) "not ended" },
                                    (None, None, _) => span.dim { "not run" },
                                }
                            }
                            td.num { @match (step.started, step.ended) {
                                (Some(from), Some(to)) => (span(from, to)),
                                (Some(from), None) if shown.ended.is_none() => (when(now, from)),
                                _ => "",
                            } }
                            td.clip.wide title=(plain(&step.command)) { code { (plain(&step.command)) } }
                        }
                    }
                }
            } }
        }
    }
}
