//! One field that finds builds, builders, machines, branches and commits.

use axum::extract::{Query, State};
use ids::{BuildId, Timestamp};
use maud::html;
use serde::{Deserialize, Serialize};
use web::{Page, Section, Visit};

use crate::part::*;
use crate::routes::{Answer, App};
use crate::view::*;

/// Most of each kind.
const FOUND: usize = 50;

#[derive(Debug, Clone, Serialize)]
pub struct SearchPage {
    pub query: String,
    pub builders: Vec<String>,
    pub machines: Vec<String>,
    pub branches: Vec<BranchFound>,
    /// Newest first.
    pub commits: Vec<CommitFound>,
}

#[derive(Debug, Clone, Serialize)]
pub struct BranchFound {
    pub repo: String,
    pub branch: String,
    pub gone: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct CommitFound {
    pub repo: String,
    #[serde(flatten)]
    pub commit: CommitView,
}

#[derive(Deserialize)]
pub struct SearchQuery {
    #[serde(default)]
    q: String,
}

pub async fn search(
    State(app): State<App>,
    visit: Visit,
    Query(SearchQuery { q }): Query<SearchQuery>,
) -> Answer {
    let words = q.trim();
    let number = words.strip_prefix('#').unwrap_or(words);
    if let Ok(id) = number.parse::<BuildId>()
        && app.store.build(id).await?.is_some()
    {
        return Ok(visit.redirect(&format!("/build/{id}")));
    }
    let config = app.live.config();
    if let Some((name, _)) = config.builders.iter().find(|(name, _)| name.as_str() == words) {
        return Ok(visit.redirect(&link("/builder/", name.as_str())));
    }
    let mut commits = app
        .store
        .commits_by_prefix(&words.to_ascii_lowercase(), FOUND)
        .await?;
    if let [only] = &commits[..] {
        let to = commit_link(only.repo.as_str(), only.hash.as_str());
        return Ok(visit.redirect(&to));
    }
    commits.extend(app.store.search_commits(words, FOUND).await?);
    let needle = words.to_lowercase();
    let holds = |name: &str| !needle.is_empty() && name.to_lowercase().contains(&needle);
    let branches = app.store.branches(None).await?;
    let view = SearchPage {
        builders: config
            .builders
            .keys()
            .map(|name| name.to_string())
            .filter(|name| holds(name))
            .take(FOUND)
            .collect(),
        machines: app
            .store
            .machines()
            .await?
            .iter()
            .map(|row| row.machine.to_string())
            .filter(|name| holds(name))
            .take(FOUND)
            .collect(),
        branches: branches
            .iter()
            .filter(|row| holds(row.branch.as_str()) || holds(row.repo.as_str()))
            .take(FOUND)
            .map(|row| BranchFound {
                repo: row.repo.to_string(),
                branch: row.branch.to_string(),
                gone: row.gone,
            })
            .collect(),
        commits: commits
            .iter()
            .map(|row| CommitFound {
                repo: row.repo.to_string(),
                commit: row.into(),
            })
            .collect(),
        query: words.to_owned(),
    };
    Ok(visit.answer(&view, |view| draw(view, visit.now)))
}

fn draw(view: &SearchPage, now: Timestamp) -> Page {
    let nothing = view.builders.is_empty()
        && view.machines.is_empty()
        && view.branches.is_empty()
        && view.commits.is_empty();
    let body = html! {
        h1 { @if view.query.is_empty() { "Search" } @else { "“" (plain(&view.query)) "”" } }
        @if view.query.is_empty() {
            (empty("What do you look for?", html! { "A commit by the beginning of its hash or words of its title or author, a build by its number, a builder, a machine or a branch by a part of its name." }))
        } @else if nothing {
            (empty("Nothing was found", html! { "Commits are found by at least 4 digits of their hash, or words of the title or author as they stand there, once a tracked branch has them." }))
        }
        @if !view.branches.is_empty() || !view.builders.is_empty() || !view.machines.is_empty() {
            div.found {
                @for found in &view.branches { a.button href=(repo_link(&found.repo, &found.branch)) { (found.repo) " " (found.branch) span.dim { @if found.gone { "branch, gone" } @else { "branch" } } } }
                @for name in &view.builders { a.button href=(link("/builder/", name)) { (name) span.dim { "builder" } } }
                @for name in &view.machines { a.button href=(link("/machine/", name)) { (name) span.dim { "machine" } } }
            }
        }
        @if !view.commits.is_empty() {
            (table(&["Commit", "Repository", "Title", "Author", "When"], html! {
                @for found in &view.commits {
                    tr {
                        th scope="row" { a.hash href=(commit_link(&found.repo, &found.commit.hash)) { (short(&found.commit.hash)) } }
                        td.nowrap { (found.repo) }
                        td.clip title=(plain(&found.commit.title)) { (plain(&found.commit.title)) }
                        td.nowrap { (plain(&found.commit.author)) }
                        td.nowrap { (when(now, found.commit.time)) }
                    }
                }
            }))
        }
    };
    page("Search", Section::Elsewhere, false, body)
}
