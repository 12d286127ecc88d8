//! Commits by builders: one branch, newest first.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Path, Query, RawQuery, State};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Redirect};
use config::{Config, Glob};
use futures_util::stream;
use ids::{BranchName, BuilderName, GitHash, RepoName, Timestamp};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use store::read::Status;
use tokio::sync::OnceCell;
use web::{Page, Problem, Section, Visit, Wants, icon, plural, segment};

use crate::part::{self, *};
use crate::routes::{Answer, App, default_branch, known_repo, parsed};
use crate::view::*;

/// Commits of a page. Source: the original's 30.
const ROWS: usize = 30;
const MOST_ROWS: usize = 200;

/// Builders of a page; those after them are on the next. A page has at most so many cells: fewer commits where there
/// are many builders and more rows were asked for.
const COLUMNS: usize = 250;
const MOST_CELLS: usize = 20_000;

/// With so many builders there is room for more than a sign in a cell.
const ROOMY: usize = 8;

/// What is committed within this time goes out as one event.
const QUIET: Duration = Duration::from_millis(300);

#[derive(Debug, Clone, Serialize)]
pub struct GridView {
    pub repo: String,
    pub branch: String,
    /// By name, up to 200 and this one.
    pub branches: Vec<String>,
    pub branches_in_all: usize,
    pub filter: Filter,
    /// Of all builders of the branch, filtered or not; up to 200.
    pub groups: Vec<String>,
    pub builders: Vec<ColumnView>,
    /// How many builders match the filter: those of `builders` and of the pages beside.
    pub builders_in_all: usize,
    /// Cursors of the page with the builders after these, and of that with those before them.
    pub columns_next: Option<usize>,
    pub columns_before: Option<usize>,
    pub rows: Vec<RowView>,
    /// Cursor of the next page: the hash of the last row.
    pub before: Option<String>,
    /// There are newer commits than the first row.
    pub newer: bool,
    /// Why the mirror is behind, if it is.
    pub trouble: Option<String>,
}

/// A filter as it stands in the address. All that are given must hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Filter {
    #[serde(default)]
    pub group: String,
    /// Patterns as in the configuration, separated by commas or blanks.
    #[serde(default)]
    pub builder: String,
    /// Commits with these words in the title or the author.
    #[serde(default)]
    pub q: String,
    /// `1`: only builders that failed on this page.
    #[serde(default)]
    pub failing: String,
    #[serde(default)]
    pub before: String,
    pub limit: Option<usize>,
    /// How many builders to pass over.
    pub columns: Option<usize>,
}

#[derive(Debug, Clone, Hash, Serialize)]
pub struct ColumnView {
    #[serde(flatten)]
    pub builder: BuilderView,
    /// What its newest finished result on this page says, and how many in a row say so.
    pub newest: Option<&'static str>,
    pub in_a_row: usize,
}

#[derive(Debug, Clone, Serialize)]
pub struct RowView {
    pub commit: CommitView,
    pub depth: u64,
    /// One for each builder of the page, in order.
    pub cells: Vec<Option<CellView>>,
}

pub async fn repo(
    State(app): State<App>,
    visit: Visit,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let name = known_repo(&app, &name)?;
    let branches = app.store.branches(Some(&name)).await?;
    let default = default_branch(&app, &name).await?;
    let there = || branches.iter().filter(|row| !row.gone);
    let first = there()
        .find(|row| Some(&row.branch) == default.as_ref())
        .or(there().next())
        .or(branches.first());
    match first {
        Some(row) => {
            let mut to = repo_link(name.as_str(), row.branch.as_str());
            if visit.wants == Wants::Json {
                to.push_str(".json");
            }
            if let Some(query) = query {
                to = format!("{to}?{query}");
            }
            Ok(Redirect::to(&to).into_response())
        }
        None => Err(
            Problem::not_found("no_branch", format!("{name} has no tracked branch yet"))
                .hint("It is being fetched, is empty, or cannot be reached: /status tells."),
        ),
    }
}

pub async fn grid(
    State(app): State<App>,
    visit: Visit,
    Path((repo, branch)): Path<(String, String)>,
    Query(filter): Query<Filter>,
) -> Answer {
    let (repo, branch) = (parsed(&repo, "repository")?, parsed(&branch, "branch")?);
    let shown = shown(&app, &repo, &branch, filter).await?;
    Ok(visit.answer(&shown.view, |view| draw(view, &shown.seen, visit.now)))
}

/// A grid, and the marks of what it looks like.
struct Shown {
    view: GridView,
    seen: Seen,
}

/// Grids as they were a moment ago, by address: those who watch the same one share the work.
#[derive(Clone, Default)]
pub struct Grids(Arc<Mutex<BTreeMap<String, Recent>>>);

struct Recent {
    /// Commits to the store, and which configuration.
    version: (u64, usize),
    at: Instant,
    shown: Arc<OnceCell<Arc<Shown>>>,
}

impl Grids {
    /// Addresses that are remembered; a large grid takes some 2 MB.
    const ROOM: usize = 32;

    /// Other processes may write to the store, and are not counted.
    const FRESH: Duration = Duration::from_secs(2);

    fn at(&self, address: String, version: (u64, usize)) -> Arc<OnceCell<Arc<Shown>>> {
        let mut grids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        grids.retain(|_, recent| recent.version == version && recent.at.elapsed() < Grids::FRESH);
        if grids.len() >= Grids::ROOM {
            grids.clear();
        }
        let recent = grids.entry(address).or_insert_with(|| Recent {
            version,
            at: Instant::now(),
            shown: Arc::default(),
        });
        recent.shown.clone()
    }
}

async fn shown(
    app: &App,
    repo: &RepoName,
    branch: &BranchName,
    filter: Filter,
) -> Result<Arc<Shown>, Problem> {
    let config = Arc::as_ptr(&app.live.config()) as usize;
    let version = *app.store.changes().borrow();
    let address = format!(
        "{}{}",
        repo_link(repo.as_str(), branch.as_str()),
        filter.query(&filter.before)
    );
    let cell = app.grids.at(address, (version, config));
    let make = || async {
        let view = load(app, repo, branch, filter).await?;
        let seen = Seen::of(&view);
        Ok(Arc::new(Shown { view, seen }))
    };
    cell.get_or_try_init(make).await.cloned()
}

async fn load(app: &App, repo: &RepoName, branch: &BranchName, filter: Filter) -> Result<GridView, Problem> {
    let limit = filter.limit.unwrap_or(ROWS).clamp(1, MOST_ROWS);
    let before = match &*filter.before {
        "" => None,
        hash => Some(depth_of(app, repo, branch, hash).await?),
    };
    let found = app
        .store
        .grid_rows(repo, branch, before, &filter.q, limit)
        .await?;
    let Some(mut found) = found else {
        let known = known_repo(app, repo.as_str())?;
        return Err(
            Problem::not_found("no_branch", format!("{repo} has no branch `{branch}`")).hint(format!(
                "Only tracked branches are shown; /repo/{known} leads to one."
            )),
        );
    };
    let config = app.live.config();
    // Configured and seen on the page: a builder that is gone keeps its column on old pages.
    let mut names: BTreeSet<BuilderName> = config.builders_for(repo, branch).into_iter().cloned().collect();
    // As a rule all fit on a page, and one question brings all there is to know.
    let all = names.len() <= COLUMNS && app.store.fill_grid(repo, &mut found, None, MOST_CELLS).await?;
    if all {
        let seen = found.rows.iter().flat_map(|row| &row.cells);
        names.extend(seen.map(|cell| cell.builder.clone()));
    } else {
        names.extend(app.store.grid_builders(repo, &found, false).await?);
    }
    let mut builders: Vec<BuilderView> = names.iter().map(|name| BuilderView::new(&config, name)).collect();
    builders.sort_by_cached_key(|builder| place(&config, builder));
    let mut groups: Vec<String> = builders.iter().map(|builder| builder.group.clone()).collect();
    groups.dedup();
    groups.truncate(part::ROWS);
    builders.retain(|builder| filter.shows(builder));

    if filter.failing() {
        let failed = if all {
            let cells = found.rows.iter().flat_map(|row| &row.cells);
            let failed = cells.filter(|cell| cell.state.status() == Status::Failed);
            failed.map(|cell| cell.builder.clone()).collect()
        } else {
            app.store.grid_builders(repo, &found, true).await?
        };
        let failed: BTreeSet<&str> = failed.iter().map(BuilderName::as_str).collect();
        builders.retain(|builder| failed.contains(&*builder.name));
    }
    let builders_in_all = builders.len();
    let from = filter.columns.unwrap_or(0).min(builders_in_all);
    let builders: Vec<BuilderView> = builders.into_iter().skip(from).take(COLUMNS).collect();
    let columns_next = (from + builders.len() < builders_in_all).then_some(from + builders.len());
    let columns_before = (from > 0).then(|| from.saturating_sub(COLUMNS));
    if !all {
        let most = (MOST_CELLS / builders.len().max(1)).max(1);
        found.older |= found.rows.len() > most;
        found.rows.truncate(most);
        let names: Vec<BuilderName> = builders
            .iter()
            .filter_map(|builder| builder.name.parse().ok())
            .collect();
        app.store
            .fill_grid(repo, &mut found, Some(&names), MOST_CELLS)
            .await?;
    }
    let rows: Vec<RowView> = found
        .rows
        .iter()
        .map(|row| RowView::new(row, &builders))
        .collect();
    let column = |(at, builder): (usize, BuilderView)| {
        let newest = verdict(rows.iter().filter_map(|row| row.cells[at].as_ref()));
        ColumnView {
            builder,
            newest: newest.map(|(status, _)| status),
            in_a_row: newest.map_or(0, |(_, n)| n),
        }
    };
    let builders = builders.into_iter().enumerate().map(column).collect();
    let branches = app.store.branches(Some(repo)).await?;
    let states = app.store.repos().await?;
    Ok(GridView {
        repo: repo.to_string(),
        branch: branch.to_string(),
        branches_in_all: branches.iter().filter(|row| !row.gone).count(),
        branches: branches
            .iter()
            .filter(|row| !row.gone)
            .enumerate()
            .filter(|(n, row)| *n < part::ROWS || &row.branch == branch)
            .map(|(_, row)| row.branch.to_string())
            .collect(),
        before: rows
            .last()
            .filter(|_| found.older)
            .map(|row| row.commit.hash.clone()),
        newer: found.newer,
        trouble: states
            .into_iter()
            .find(|row| &row.repo == repo)
            .and_then(|row| row.error),
        filter,
        groups,
        builders,
        builders_in_all,
        columns_next,
        columns_before,
        rows,
    })
}

async fn depth_of(app: &App, repo: &RepoName, branch: &BranchName, hash: &str) -> Result<u64, Problem> {
    let parsed = GitHash::parse(hash).map_err(|wrong| {
        Problem::bad_request("bad_cursor", wrong.to_string()).hint("`before` takes a hash of the branch.")
    })?;
    let depth = app.store.depth_of(repo, branch, &parsed).await?;
    depth.ok_or_else(|| {
        let what = format!("commit {} is not on `{branch}`", parsed.short());
        Problem::not_found("not_on_branch", what).hint(format!(
            "The branch may have been rewritten since. {} begins at its newest commit.",
            repo_link(repo.as_str(), branch.as_str())
        ))
    })
}

/// Groups by name, retired builders last; in a group as the configuration orders them.
fn place(config: &Config, builder: &BuilderView) -> (bool, String, i64, String) {
    let name: Option<BuilderName> = builder.name.parse().ok();
    let conf = name.and_then(|name| config.builders.get(&name));
    let order = conf.map_or(0, |conf| conf.order);
    (
        builder.retired,
        builder.group.clone(),
        order,
        builder.name.clone(),
    )
}

impl Filter {
    fn failing(&self) -> bool {
        matches!(&*self.failing, "1" | "on" | "true")
    }

    fn shows(&self, builder: &BuilderView) -> bool {
        let words = self.builder.split([',', ' ']).filter(|word| !word.is_empty());
        let (unwanted, wanted): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with('!'));
        let matches = |word: &&str| glob(word).matches(&builder.name);
        (self.group.is_empty() || self.group == builder.group)
            && unwanted.iter().all(matches)
            && (wanted.is_empty() || wanted.iter().any(matches))
    }

    fn is_set(&self) -> bool {
        self.failing() || !(self.group.is_empty() && self.builder.is_empty() && self.q.is_empty())
    }

    /// The rest of an address with this filter, from `before` on.
    fn query(&self, before: &str) -> String {
        self.address(before, self.columns)
    }

    /// The same with other builders.
    fn address(&self, before: &str, columns: Option<usize>) -> String {
        let limit = self.limit.map(|limit| limit.to_string()).unwrap_or_default();
        let columns = columns.filter(|columns| *columns > 0);
        let columns = columns.map(|columns| columns.to_string()).unwrap_or_default();
        let failing = if self.failing() { "1" } else { "" };
        let set: Vec<String> = [
            ("group", &*self.group),
            ("builder", &self.builder),
            ("q", &self.q),
            ("failing", failing),
            ("limit", &limit),
            ("columns", &columns),
            ("before", before),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{key}={}", query_value(value)))
        .collect();
        if set.is_empty() {
            String::new()
        } else {
            format!("?{}", set.join("&"))
        }
    }
}

/// A word without wildcards may stand anywhere in a name.
fn glob(word: &str) -> Glob {
    let (not, word) = match word.strip_prefix('!') {
        Some(rest) => ("!", rest),
        None => ("", word),
    };
    Glob(if word.contains(['*', '?']) {
        format!("{not}{word}")
    } else {
        format!("{not}*{word}*")
    })
}

fn query_value(value: &str) -> String {
    segment(value).replace('+', "%2B")
}

impl RowView {
    fn new(row: &store::read::GridRow, builders: &[BuilderView]) -> RowView {
        // Cells are sorted by builder.
        let cell = |builder: &BuilderView| {
            let found = row
                .cells
                .binary_search_by(|cell| cell.builder.as_str().cmp(&builder.name));
            found.ok().map(|at| CellView::from(&row.cells[at]))
        };
        RowView {
            commit: (&row.commit).into(),
            depth: row.depth,
            cells: builders.iter().map(cell).collect(),
        }
    }
}

/// Where a live page gets what changes in it. `tag` tells whether it is already behind.
#[derive(Deserialize)]
pub struct EventsQuery {
    repo: String,
    branch: String,
    tag: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    builder: String,
    #[serde(default)]
    q: String,
    #[serde(default)]
    failing: String,
    #[serde(default)]
    before: String,
    // A number behind `flatten` is not read by the form of an address: all fields stand here.
    limit: Option<usize>,
    columns: Option<usize>,
}

/// `cells`: what of the page changed, as `[[id, html], …]`; `changed`: it has other rows or columns.
pub async fn events(State(app): State<App>, Query(query): Query<EventsQuery>) -> Answer {
    let (repo, branch) = (
        parsed(&query.repo, "repository")?,
        parsed(&query.branch, "branch")?,
    );
    let filter = Filter {
        group: query.group,
        builder: query.builder,
        q: query.q,
        failing: query.failing,
        before: query.before,
        limit: query.limit,
        columns: query.columns,
    };
    // Subscribed to before it is looked at.
    let changes = app.store.changes();
    let had = shown(&app, &repo, &branch, filter.clone()).await?;
    let behind = had.seen.tag() != query.tag;
    let state = (app.clone(), had, changes, behind);
    Ok(app.site.events(stream::unfold(
        state,
        move |(app, mut had, mut changes, behind)| {
            let (repo, branch, filter) = (repo.clone(), branch.clone(), filter.clone());
            async move {
                if behind {
                    return Some((
                        Event::default().event("changed").data("{}"),
                        (app, had, changes, false),
                    ));
                }
                loop {
                    changes.changed().await.ok()?;
                    tokio::time::sleep(QUIET).await;
                    changes.mark_unchanged();
                    // A store in trouble is looked at again when it takes something.
                    let Ok(now) = shown(&app, &repo, &branch, filter.clone()).await else {
                        continue;
                    };
                    let event = had.seen.event(&now);
                    had = now;
                    if let Some(event) = event {
                        return Some((event, (app, had, changes, false)));
                    }
                }
            }
        },
    )))
}

/// What a live page has: for each piece a mark of what it is drawn from. To draw all to see what has changed would cost as
/// much as the page.
struct Seen(Vec<(String, u64)>);

impl Seen {
    fn of(view: &GridView) -> Seen {
        let mark = |piece: Piece| {
            let mut hasher = DefaultHasher::new();
            match piece {
                Piece::Head(column) => column.hash(&mut hasher),
                Piece::Cell(_, column, cell) => (&column.builder.known_issues, cell).hash(&mut hasher),
            }
            (piece.id(), hasher.finish())
        };
        Seen(pieces(view).map(mark).collect())
    }

    fn tag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    /// What is to be told to a page that looks like this, if anything.
    fn event(&self, now: &Shown) -> Option<Event> {
        let (old, new) = (&self.0, &now.seen.0);
        if old.len() != new.len() || old.iter().zip(new).any(|(old, new)| old.0 != new.0) {
            return Some(Event::default().event("changed").data("{}"));
        }
        let changed: Vec<(String, String)> = pieces(&now.view)
            .zip(old.iter().zip(new))
            .filter(|(_, (old, new))| old.1 != new.1)
            .map(|(piece, (_, (id, _)))| (id.clone(), piece.draw(&now.view).into_string()))
            .collect();
        if changed.is_empty() {
            return None;
        }
        let data = serde_json::to_string(&changed).expect("pairs of texts");
        Some(Event::default().event("cells").data(data))
    }
}

/// Something that changes while rows and columns stay.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Head(&'a ColumnView),
    Cell(&'a RowView, &'a ColumnView, Option<&'a CellView>),
}

impl Piece<'_> {
    fn id(self) -> String {
        match self {
            Piece::Head(column) => head_id(column),
            Piece::Cell(row, column, _) => cell_id(row, column),
        }
    }

    fn draw(self, view: &GridView) -> Markup {
        match self {
            Piece::Head(column) => head(column),
            Piece::Cell(row, column, cell) => square(view, row, column, cell),
        }
    }
}

/// All of them.
fn pieces(view: &GridView) -> impl Iterator<Item = Piece<'_>> {
    let heads = view.builders.iter().map(Piece::Head);
    let cells = view.rows.iter().flat_map(move |row| {
        let cells = row.cells.iter().zip(&view.builders);
        cells.map(move |(cell, column)| Piece::Cell(row, column, cell.as_ref()))
    });
    heads.chain(cells)
}

fn head_id(column: &ColumnView) -> String {
    format!("b-{}", column.builder.name)
}

fn cell_id(row: &RowView, column: &ColumnView) -> String {
    format!(
        "{}-{}",
        row.commit.hash.get(..10).unwrap_or_default(),
        column.builder.name
    )
}

fn head(column: &ColumnView) -> Markup {
    let builder = &column.builder;
    let broken = column.newest == Some("failed");
    let mut title = builder.name.clone();
    if broken {
        title.push_str(&format!(
            ": failed the last {}",
            plural(column.in_a_row as u64, "time")
        ));
    }
    if let Some(issue) = builder.known_issues.first() {
        title.push_str(&format!("; known issue: {}", plain(issue)));
    }
    html! {
        th id=(head_id(column)) scope="col" .broken[broken] .retired[builder.retired] .known[!builder.known_issues.is_empty()] title=(title) {
            a href=(link("/builder/", &builder.name)) { span { (builder.name) } @if broken { b { (icon("failed")) (column.in_a_row) } } }
        }
    }
}

fn square(view: &GridView, row: &RowView, column: &ColumnView, one: Option<&CellView>) -> Markup {
    let builder = &column.builder;
    let about = format!("{} at {}", builder.name, short(&row.commit.hash));
    let roomy = view.builders.len() <= ROOMY;
    html! { td id=(cell_id(row, column)) { (cell(one, &about, !builder.known_issues.is_empty(), roomy)) } }
}

fn draw(view: &GridView, seen: &Seen, now: Timestamp) -> Page {
    let body = html! {
        div.bar {
            h1 { (view.repo) }
            nav.tabs aria-label="Branches" {
                @for branch in &view.branches {
                    a href=(repo_link(&view.repo, branch)) aria-current=[(branch == &view.branch).then_some("page")] { (branch) }
                }
                @if view.branches_in_all > view.branches.len() { span.dim { "and " (view.branches_in_all - view.branches.len()) " more, at " (link("/repo/", &view.repo)) "/BRANCH" } }
            }
        }
        @if let Some(trouble) = &view.trouble {
            p.note.infra { strong { "The mirror is behind: " } (plain(trouble)) ". What is shown may be old; " a href="/status" { "status" } " tells since when." }
        }
        (filters(view))
        @if view.rows.is_empty() && view.filter.q.is_empty() {
            (empty("No commit here yet", html! { "Commits appear as soon as the branch is fetched; " a href="/status" { "status" } " tells when it was looked at last." }))
        } @else if view.rows.is_empty() {
            (empty("No commit of this branch matches", html! { a href=(repo_link(&view.repo, &view.branch)) { "Show all commits" } }))
        } @else if view.builders.is_empty() && view.filter.is_set() {
            (empty(if view.filter.failing() { "No builder failed here" } else { "No builder matches" }, html! { a href=(repo_link(&view.repo, &view.branch)) { "Show all builders" } }))
        } @else {
            (board(view, seen, now))
        }
        nav.pager aria-label="Pages" {
            @if view.newer { a.button href={(repo_link(&view.repo, &view.branch)) (view.filter.query(""))} { "← newest" } }
            @if let Some(before) = &view.before { a.button href={(repo_link(&view.repo, &view.branch)) (view.filter.query(before))} rel="next" { "older →" } }
            @if view.builders_in_all > view.builders.len() {
                @let here = &view.filter.before;
                @let first = view.filter.columns.unwrap_or(0);
                @if let Some(columns) = view.columns_before { a.button href={(repo_link(&view.repo, &view.branch)) (view.filter.address(here, Some(columns)))} { "← builders" } }
                span.dim { "builders " (first + 1) " to " (first + view.builders.len()) " of " (view.builders_in_all) }
                @if let Some(columns) = view.columns_next { a.button href={(repo_link(&view.repo, &view.branch)) (view.filter.address(here, Some(columns)))} { "more builders →" } }
            }
        }
        (legend())
    };
    page(
        format!("{} {}", view.repo, view.branch),
        Section::Farm,
        true,
        body,
    )
}

fn filters(view: &GridView) -> Markup {
    let filter = &view.filter;
    html! {
        form.filters action=(repo_link(&view.repo, &view.branch)) role="search" aria-label="Filter" {
            @if view.groups.len() > 1 || !filter.group.is_empty() {
                label { "Group" select name="group" {
                    option value="" { "all" }
                    @for group in &view.groups { option selected[group == &filter.group] { (group) } }
                } }
            }
            label { "Builder" input type="text" name="builder" value=(filter.builder) placeholder="linux*, !*race" maxlength="200"; }
            label { "Commit" input type="text" name="q" value=(filter.q) placeholder="title or author" maxlength="200"; }
            label { input type="checkbox" name="failing" value="1" checked[filter.failing()]; "failing only" }
            button type="submit" { "Filter" }
            @if filter.is_set() { a href=(repo_link(&view.repo, &view.branch)) { "clear" } }
        }
    }
}

fn board(view: &GridView, seen: &Seen, now: Timestamp) -> Markup {
    let tag = seen.tag();
    let query = view.filter.query(&view.filter.before);
    let events = format!(
        "/events/grid?repo={}&branch={}&tag={tag}{}",
        query_value(&view.repo),
        query_value(&view.branch),
        query.replacen('?', "&", 1)
    );
    let dense = view.builders.len() > ROOMY;
    html! {
        div.grid-box tabindex="0" {
            table.grid .dense[dense] .roomy[!dense] data-cells=(events) {
                thead {
                    tr.groups {
                        th.corner rowspan="2" scope="col" { "Commit" }
                        @for columns in view.builders.chunk_by(|one, next| one.builder.group == next.builder.group) {
                            @let group = &columns[0].builder.group;
                            th colspan=(columns.len()) scope="colgroup" title=(group) { a href={(repo_link(&view.repo, &view.branch)) (Filter { group: group.clone(), columns: None, ..view.filter.clone() }.query(""))} { (group) } }
                        }
                    }
                    tr.names { @for column in &view.builders { (head(column)) } }
                }
                tbody {
                    @for row in &view.rows {
                        tr id={"r-" (row.commit.hash.get(..10).unwrap_or_default())} {
                            th.commit scope="row" {
                                div {
                                    a.hash href=(commit_link(&view.repo, &row.commit.hash)) { (short(&row.commit.hash)) }
                                    span.title title=(plain(&row.commit.title)) { (plain(&row.commit.title)) }
                                    span.by { (plain(&row.commit.author)) ", " (when(now, row.commit.time)) }
                                }
                            }
                            @for (one, column) in row.cells.iter().zip(&view.builders) { (square(view, row, column, one.as_ref())) }
                        }
                    }
                }
            }
        }
    }
}

fn legend() -> Markup {
    html! {
        div.legend {
            @for status in store::read::Status::ALL {
                span { span class={"cell " (status.as_str())} { (icon(status.as_str())) } (status.as_str()) }
            }
            span { span.cell.failed.flake { (icon("failed")) } "attempts disagree" }
            span { span.cell.failed.known { (icon("failed")) } "known issue" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builders_are_chosen_by_pattern_word_and_group() {
        let check = |group: &str, builder: &str, wanted: &[&str]| {
            let filter = Filter {
                group: group.to_owned(),
                builder: builder.to_owned(),
                ..Filter::default()
            };
            let shown: Vec<&str> = ["linux-amd64", "linux-amd64-race", "mac-arm64"]
                .into_iter()
                .filter(|name| {
                    filter.shows(&BuilderView {
                        name: (*name).to_owned(),
                        group: name.split('-').next().unwrap().to_owned(),
                        host_type: String::new(),
                        known_issues: Vec::new(),
                        retired: false,
                    })
                })
                .collect();
            assert_eq!(shown, wanted, "{group} {builder}");
        };
        check("", "", &["linux-amd64", "linux-amd64-race", "mac-arm64"]);
        check("linux", "", &["linux-amd64", "linux-amd64-race"]);
        check("", "amd64", &["linux-amd64", "linux-amd64-race"]);
        check("", "*amd64", &["linux-amd64"]);
        check("", "linux*, !*race", &["linux-amd64"]);
        check("", "!race", &["linux-amd64", "mac-arm64"]);
        check("", "race mac !arm64", &["linux-amd64-race"]);
        check("mac", "linux", &[]);
    }

    #[test]
    fn a_filter_stays_in_the_address() {
        let filter = Filter {
            builder: "linux*, !race".to_owned(),
            q: "a&b+c".to_owned(),
            failing: "on".to_owned(),
            ..Filter::default()
        };
        assert_eq!(
            filter.query("f00d"),
            "?builder=linux%2A%2C%20%21race&q=a%26b%2Bc&failing=1&before=f00d"
        );
        assert_eq!(Filter::default().query(""), "");
    }
}
