//! Pieces that several pages are drawn from.

use std::borrow::Cow;

use ids::Timestamp;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use web::{Moment, Page, Section, ago, duration, icon, segment};

use crate::view::*;

pub fn page(title: impl Into<String>, here: Section, live: bool, body: Markup) -> Page {
    Page {
        title: title.into(),
        here,
        body,
        live,
    }
}

pub fn when(now: Timestamp, micros: i64) -> Markup {
    ago(now, Moment(Timestamp(micros)))
}

pub fn short(hash: &str) -> &str {
    hash.get(..7).unwrap_or(hash)
}

/// Time from one moment to another in words.
pub fn span(from: i64, to: i64) -> String {
    duration((to - from).max(0) as u64 / 1000)
}

/// Text from elsewhere without what would reorder or hide the text around it.
pub fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unseen) {
        Cow::Owned(
            text.chars()
                .map(|c| if is_unseen(c) { '\u{fffd}' } else { c })
                .collect(),
        )
    } else {
        Cow::Borrowed(text)
    }
}

/// Controls, and what changes the direction of text or has no width.
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}')
}

pub fn link(path: &str, name: &str) -> String {
    format!("{path}{}", segment(name))
}

pub fn repo_link(repo: &str, branch: &str) -> String {
    format!("/repo/{}/{}", segment(repo), segment(branch))
}

pub fn commit_link(repo: &str, hash: &str) -> String {
    format!("/commit/{}/{hash}", segment(repo))
}

/// A sign, a word and a colour for each state: none of them alone.
pub fn chip(status: &str) -> Markup {
    html! { span class={"state chip " (status)} { (icon(status)) (status) } }
}

pub fn state(status: &str) -> Markup {
    html! { span class={"state " (status)} { (icon(status)) (status) } }
}

pub fn flaky() -> Markup {
    html! { span.flaky title="Attempts at the same commit both passed and failed" { "flaky" } }
}

pub fn issues(builder: &BuilderView) -> Markup {
    html! {
        @for issue in &builder.known_issues {
            p.note { strong { "Known issue: " }
                @if issue.starts_with("https://") || issue.starts_with("http://") { a href=(issue) rel="nofollow" { (plain(issue)) } }
                @else { (plain(issue)) } }
        }
    }
}

/// What hovering over a cell says, and what a screen reader does.
fn told(cell: &CellView, about: &str) -> String {
    let mut text = format!("{about}: {}", cell.status);
    if cell.took_ms > 0 {
        text.push_str(if cell.status == "passed" {
            " in "
        } else {
            ", took "
        });
        text.push_str(&duration(cell.took_ms));
    }
    if cell.flaky {
        text.push_str("; attempts disagree");
    }
    if !cell.reason.is_empty() {
        text.push_str("; ");
        text.push_str(&plain(&cell.reason));
    }
    text
}

/// One build as a coloured sign that leads to it; `about` says of what.
pub fn cell(cell: Option<&CellView>, about: &str, known_issue: bool, words: bool) -> Markup {
    let Some(cell) = cell else {
        return html! { span.cell.none title={(about) ": no build"} { "·" } };
    };
    let known = known_issue && cell.status == "failed";
    html! {
        a.cell.(cell.status).flake[cell.flaky].known[known] href={"/build/" (cell.id)} title=(told(cell, about)) {
            (icon(cell.status))
            @if words && cell.took_ms > 0 { (duration(cell.took_ms)) }
        }
    }
}

/// What a page says when there is nothing: that, and what to do about it.
pub fn empty(what: &str, next: Markup) -> Markup {
    html! { div.empty { strong { (what) } div { (next) } } }
}

/// A table that scrolls by itself when the screen is too narrow for it.
pub fn table(heads: &[&str], rows: Markup) -> Markup {
    html! {
        div.scroll tabindex="0" {
            table.list {
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody { (rows) }
            }
        }
    }
}

pub fn builds(builds: &[BuildView], now: Timestamp) -> Markup {
    table(
        &[
            "Build", "State", "Builder", "Commit", "Since", "Took", "Tries", "Why",
        ],
        html! {
            @for build in builds {
                tr {
                    th scope="row" { a href={"/build/" (build.cell.id)} { (build.cell.id) } }
                    td { (state(build.cell.status)) @if build.cell.flaky { " " (flaky()) } }
                    td.nowrap { a href=(link("/builder/", &build.builder)) { (build.builder) } }
                    td.nowrap { (build.repo) " " a.hash href=(commit_link(&build.repo, &build.commit)) { (short(&build.commit)) } }
                    td.nowrap { (when(now, build.cell.since)) }
                    td.num { @if build.cell.took_ms > 0 { (duration(build.cell.took_ms)) } }
                    td.num { (build.attempts) }
                    td.clip title=(plain(&build.cell.reason)) { (plain(&build.cell.reason)) }
                }
            }
        },
    )
}

/// Rows of a page of a list that may be long.
pub const ROWS: usize = 200;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Window {
    /// How many to pass over.
    pub from: Option<usize>,
}

/// Which part of a list a page has.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Extent {
    pub in_all: usize,
    /// How many are before those here.
    pub from: usize,
    /// `from` of the next page.
    pub next: Option<usize>,
}

impl Window {
    /// Cuts out the part that is asked for.
    pub fn cut<T>(self, mut list: Vec<T>) -> (Extent, Vec<T>) {
        let in_all = list.len();
        let from = self.from.unwrap_or(0).min(in_all);
        list.truncate(from.saturating_add(ROWS));
        let next = (list.len() < in_all).then_some(list.len());
        list.drain(..from);
        (Extent { in_all, from, next }, list)
    }
}

/// Links to the parts before and after; `address` ends where `from=N` can stand.
pub fn extent(address: &str, extent: &Extent, here: usize) -> Markup {
    html! {
        @if extent.in_all > here {
            nav.pager aria-label="Pages" {
                @if extent.from > 0 { a.button href={(address) "from=" (extent.from.saturating_sub(ROWS))} rel="prev" { "← before" } }
                span.dim { @if here > 0 { (extent.from + 1) " to " (extent.from + here) " of " } (extent.in_all) }
                @if let Some(next) = extent.next { a.button href={(address) "from=" (next)} rel="next" { "after →" } }
            }
        }
    }
}

/// `in 4 min`, or that nobody can say.
pub fn starts(now: Timestamp, starts: Option<i64>) -> Markup {
    match starts {
        Some(at) if at <= now.0 => html! { "any moment" },
        Some(at) => when(now, at),
        None => html! { span.dim { "unknown" } },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unseen_gets_on_a_page() {
        assert_eq!(
            plain("fix \u{202e}txt.exe\u{7}\u{200b}"),
            "fix \u{fffd}txt.exe\u{fffd}\u{fffd}"
        );
        assert_eq!(plain("naïve – 日本 ✓"), "naïve – 日本 ✓");
    }
}
