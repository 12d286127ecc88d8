//! The log of one step on a page: what failed first, then its lines, in windows if they are many.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use blobs::{LineIndex, LogStore, Seal};
use ids::StepId;
use maud::{Markup, html};
use serde::Serialize;
use store::read::{AttemptRow, StepRow};
use web::{Problem, bytes, plural};

use crate::ansi::{self, Look};
use crate::failing::is_failing;
use crate::part::plain;

/// A log with at most so many lines is shown whole.
const WHOLE: u64 = 2000;

/// Of a longer one: so many lines of the beginning and of the end, where failures are.
const HEAD: u64 = 200;
const TAIL: u64 = 800;

/// Lines of a window in between.
const WINDOW: u64 = 1000;

/// Lines before the one that a link to a window means.
const ABOVE: u64 = 20;

/// A line is shown up to here, in bytes. The raw log has the rest.
const LINE: usize = 2000;

/// Failing lines are looked for in so much of a log's end, in bytes.
const SEARCHED: u64 = 8 << 20;

/// So many failing lines are told of, and so many with what follows them.
const FAILING: usize = 100;
const QUOTED: usize = 6;

/// Words that are looked for, in characters, and lines that are shown for them.
const FIND: usize = 200;
const FOUND: usize = 200;

/// Lines of a quotation.
const QUOTE: usize = 6;

#[derive(Debug, Clone, Serialize)]
pub struct LogView {
    pub attempt: u32,
    pub step: u32,
    pub name: String,
    pub bytes: u64,
    pub lines: u64,
    /// It may grow.
    pub live: bool,
    /// It was deleted because of its age.
    pub deleted: bool,
    /// What of it is not as it was written, for people; null where nothing is known to be.
    pub damage: Option<String>,
    /// Where the step failed: what its log says of it, the likeliest first.
    pub failing: Vec<QuoteView>,
    /// How many lines look like that; counted up to 100.
    pub failing_lines: usize,
    /// What was looked for, and the lines that have it, up to 200.
    pub find: String,
    pub found: Vec<QuoteView>,
    /// Address of the text itself.
    pub raw: String,
    #[serde(skip)]
    build: u64,
    #[serde(skip)]
    shown: Vec<Shown>,
    #[serde(skip)]
    base: String,
    #[serde(skip)]
    follow: Option<String>,
}

/// Some lines of a log.
#[derive(Debug, Clone, Serialize)]
pub struct QuoteView {
    /// Number of the first one, from 1.
    pub line: u64,
    pub lines: Vec<String>,
}

#[derive(Debug, Clone)]
enum Shown {
    Lines(QuoteView),
    /// Lines that are not on this page: the first one's number, and how many.
    Left {
        line: u64,
        n: u64,
    },
}

/// What was found out about logs. Without it, every look would read the whole log again.
#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<BTreeMap<StepId, Digest>>>);

#[derive(Clone, Default)]
struct Digest {
    index: LineIndex,
    failing: Option<Vec<u64>>,
}

impl Known {
    /// Logs that are remembered; a digest of the longest takes some 100 KB.
    const ROOM: usize = 64;

    fn take(&self, step: StepId) -> Digest {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&step).unwrap_or_default()
    }

    fn put(&self, step: StepId, digest: Digest) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Known::ROOM {
            known.pop_first();
        }
        known.insert(step, digest);
    }
}

/// The log of `step`. `from`: number of the line at which a window of a long log begins.
pub async fn load(
    logs: &LogStore,
    known: &Known,
    attempt: &AttemptRow,
    step: &StepRow,
    from: Option<u64>,
    find: &str,
) -> Result<LogView, Problem> {
    let id = StepId {
        attempt: attempt.attempt,
        index: step.index,
    };
    let query = format!("attempt={}&step={}", id.attempt.n, id.index);
    let live = step.ended.is_none() && attempt.ended.is_none();
    let failed = step.ok == Some(false) || (step.ok.is_none() && attempt.ended.is_some());
    let mut view = LogView {
        attempt: id.attempt.n,
        step: id.index,
        name: step.name.clone(),
        bytes: 0,
        lines: 0,
        live,
        deleted: !step.has_log,
        damage: None,
        failing: Vec::new(),
        failing_lines: 0,
        find: find.chars().take(FIND).collect(),
        found: Vec::new(),
        raw: format!("/build/{}/log?{query}", id.attempt.build),
        build: id.attempt.build.0,
        shown: Vec::new(),
        base: format!("/build/{}?{query}", id.attempt.build),
        follow: None,
    };
    let mut digest = known.take(id);
    let found = logs.lines(id, &mut digest.index, 0, 0).await;
    // What was not started before each step had a log may have none.
    let is_sealed = step.ended.is_some() && step.has_log && !step.state.starts_with("could not be started");
    if is_sealed {
        view.damage = damage(logs, id, matches!(found, Ok(Some(_)))).await?;
    }
    let Some(found) = found.map_err(Problem::internal)? else {
        return Ok(view);
    };
    view.lines = found.total;
    view.bytes = logs.len(id).await.map_err(Problem::internal)?.unwrap_or(0);
    let parts = parts(found.total, from);
    if live && !matches!(parts.last(), Some(Part::Left { .. })) {
        let (at, line) = (found.ended_at, found.complete);
        let events = format!("/build/{}/log/events?{query}", id.attempt.build);
        view.follow = Some(format!("{events}&offset={at}&line={line}"));
    }
    for part in parts {
        view.shown.push(match part {
            Part::Left { first, n } => Shown::Left { line: first + 1, n },
            Part::Lines { first, n } => Shown::Lines(quote(logs, id, &mut digest.index, first, n).await?),
        });
    }
    if failed && digest.failing.is_none() {
        let found = logs.find(id, &mut digest.index, is_failing, SEARCHED, FAILING);
        let found = found.await.map_err(Problem::internal)?.unwrap_or_default();
        digest.failing = Some(found.into_iter().map(|(n, _)| n).collect());
    }
    if failed {
        let failing = digest.failing.clone().unwrap_or_default();
        view.failing_lines = failing.len();
        let mut told_to = 0;
        for first in failing {
            if first >= told_to && view.failing.len() < QUOTED {
                let quote = quote(logs, id, &mut digest.index, first, QUOTE as u64)
                    .await?
                    .paragraph();
                told_to = first + quote.lines.len() as u64;
                view.failing.push(quote);
            }
        }
    }
    known.put(id, digest);
    if !view.find.is_empty() {
        let found = logs.search(id, view.find.as_bytes(), FOUND).await;
        let found = found.map_err(Problem::internal)?.unwrap_or_default();
        view.found = found
            .iter()
            .map(|(line, found)| QuoteView {
                line: line + 1,
                lines: vec![text(found)],
            })
            .collect();
    }
    Ok(view)
}

/// Of a step that has ended: each has a log, if only an empty one.
async fn damage(logs: &LogStore, id: StepId, is_there: bool) -> Result<Option<String>, Problem> {
    if !is_there {
        return Ok(Some("it is missing on the farm's disk".to_owned()));
    }
    Ok(match logs.check(id).await.map_err(Problem::internal)? {
        Seal::Broken(why) => Some(why),
        Seal::Whole | Seal::None => None,
    })
}

async fn quote(
    logs: &LogStore,
    id: StepId,
    index: &mut LineIndex,
    first: u64,
    n: u64,
) -> Result<QuoteView, Problem> {
    let found = logs
        .lines(id, index, first, n as usize)
        .await
        .map_err(Problem::internal)?;
    let lines = found.map(|found| found.lines).unwrap_or_default();
    Ok(QuoteView {
        line: first + 1,
        lines: lines.iter().map(|line| text(line)).collect(),
    })
}

/// A line as it is shown: what is no UTF-8 is replaced, what is too long is cut.
pub fn text(line: &[u8]) -> String {
    match line.get(..LINE) {
        None => String::from_utf8_lossy(line).into_owned(),
        Some(start) => format!(
            "{} [{} more bytes]",
            String::from_utf8_lossy(start),
            line.len() - LINE
        ),
    }
}

#[derive(Debug, PartialEq)]
enum Part {
    Lines { first: u64, n: u64 },
    Left { first: u64, n: u64 },
}

/// Which of `total` lines to show, counted from 0; `from` counts from 1.
fn parts(total: u64, from: Option<u64>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = 0;
    let mut show = |first: u64, end: u64| {
        let first = first.max(at);
        if first > at {
            parts.push(Part::Left {
                first: at,
                n: first - at,
            });
        }
        if end > first {
            parts.push(Part::Lines {
                first,
                n: end - first,
            });
        }
        at = end.max(first);
    };
    match from {
        None if total <= WHOLE => show(0, total),
        None => {
            show(0, HEAD);
            show(total - TAIL, total);
        }
        Some(from) => {
            let first = from.saturating_sub(1).min(total);
            show(first, (first + WINDOW).min(total));
            show(total, total);
        }
    }
    parts
}

impl QuoteView {
    /// Its first line and what belongs to that: lines that stand further in, or say more of it.
    fn paragraph(mut self) -> QuoteView {
        let indent = |line: &str| line.len() - line.trim_start().len();
        let first = self.lines.first().map_or(0, |line| indent(line));
        let belongs =
            |line: &String| !line.trim().is_empty() && (indent(line) > first || is_failing(line.as_bytes()));
        let rest = self.lines.iter().skip(1).take_while(|line| belongs(line)).count();
        self.lines.truncate(1 + rest);
        self
    }
}

impl LogView {
    fn is_shown(&self, line: u64) -> bool {
        self.shown.iter().any(|shown| match shown {
            Shown::Lines(quote) => (quote.line..quote.line + quote.lines.len() as u64).contains(&line),
            Shown::Left { .. } => false,
        })
    }

    /// Where a line is: for ever, however long the log becomes.
    fn place(&self, line: u64) -> String {
        place(&self.base, line, self.live || self.lines > WHOLE)
    }

    /// On this page if it is there.
    fn jump(&self, line: u64) -> String {
        if self.is_shown(line) {
            format!("#L{line}")
        } else {
            self.place(line)
        }
    }
}

fn place(base: &str, line: u64, long: bool) -> String {
    if long && line > HEAD {
        format!("{base}&from={}#L{line}", line.saturating_sub(ABOVE).max(1))
    } else {
        format!("{base}#L{line}")
    }
}

/// One line with its number, which is a link to itself.
pub fn row(base: &str, line: u64, text: &str, long: bool, look: &mut Look) -> Markup {
    let shown = ansi::line(text, look);
    html! {
        div.l.hit[is_failing(text.as_bytes())] id={"L" (line)} { a href=(place(base, line, long)) { (line) } span { (shown) } }
    }
}

/// What failed, by the log's own words.
pub fn excerpt(log: &LogView) -> Markup {
    html! {
        @if !log.failing.is_empty() {
            section.failing {
                div.bar {
                    h2 { "What failed in " (log.name) }
                    span.dim { (plural(log.failing_lines as u64, "line")) " like these; " kbd { "n" } " and " kbd { "p" } " go through them" }
                }
                div.excerpt {
                    @for quote in &log.failing {
                        @let mut look = Look::default();
                        @for (n, text) in quote.lines.iter().enumerate() {
                            @let line = quote.line + n as u64;
                            @let shown = ansi::line(text, &mut look);
                            a.hit[n == 0] href=(log.jump(line)) { span.n { (line) } span.t { (shown) } }
                        }
                    }
                }
            }
        }
    }
}

pub fn draw(log: &LogView) -> Markup {
    html! {
        section #log {
            div.bar {
                h2 { "Log of " (log.name) }
                span.dim { (plural(log.lines, "line")) ", " (bytes(log.bytes)) @if log.live { " so far" } }
                @if log.bytes > 0 {
                    form.filters action={"/build/" (log.build) "#log"} role="search" aria-label="Find in the log" {
                        input type="hidden" name="attempt" value=(log.attempt);
                        input type="hidden" name="step" value=(log.step);
                        label { "Find" input type="text" name="find" value=(log.find) maxlength=(FIND); }
                        button type="submit" { "Find" }
                    }
                    div.end {
                        a href=(log.raw) { "Raw" }
                        a href={(log.raw) "&download=1"} { "Download" }
                    }
                }
            }
            @if let Some(damage) = &log.damage {
                p.note.infra { strong { "This log is not as it was written: " } (plain(damage)) ". The result stands; a retry makes a new log." }
            }
            @if !log.find.is_empty() && log.found.is_empty() { p.note { "No line has " code { (plain(&log.find)) } "." } }
            @if !log.found.is_empty() {
                p.dim { (plural(log.found.len() as u64, "line")) @if log.found.len() == FOUND { " and maybe more" } @if log.found.len() == 1 { " has " } @else { " have " } code { (plain(&log.find)) } }
                div.excerpt {
                    @let mut look = Look::default();
                    @for quote in &log.found {
                        @for line in &quote.lines {
                            a href=(log.jump(quote.line)) { span.n { (quote.line) } span.t { (ansi::line(line, &mut look)) } }
                        }
                    }
                }
            }
            @if log.deleted {
                p.note { "This log was deleted because of its age; " code { "keep_logs" } " in the configuration says how long logs are kept." }
            } @else if log.lines == 0 && !log.live && log.damage.is_none() {
                p.dim { "It printed nothing." }
            } @else {
                div.log id={"log-" (log.attempt) "-" (log.step)} data-follow=[log.follow.as_deref()] {
                    @let mut look = Look::default();
                    @for shown in &log.shown {
                        @match shown {
                            Shown::Left { line, n } => { (left(log, *line, *n)) }
                            Shown::Lines(quote) => {
                                div.lines {
                                    @for (n, text) in quote.lines.iter().enumerate() {
                                        @let line = row(&log.base, quote.line + n as u64, text, log.live || log.lines > WHOLE, &mut look);
                                        (line)
                                    }
                                }
                            }
                        }
                    }
                    @if log.live && log.lines == 0 { p.more { "Nothing printed yet." } }
                }
                @if log.live { p.dim.following { "It is running: lines are added as they come." } }
            }
        }
    }
}

fn left(log: &LogView, line: u64, n: u64) -> Markup {
    let last_window = (line + n).saturating_sub(WINDOW).max(line);
    html! {
        div.more {
            (plural(n, "line")) " not shown: "
            a href={(log.base) "&from=" (line) "#L" (line)} { "from " (line) }
            @if last_window > line { " · " a href={(log.base) "&from=" (last_window) "#L" (line + n - 1)} { "up to " (line + n - 1) } }
            " · " a href={(log.base) "#log"} { "beginning and end" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_shown_in_parts() {
        let check = |total: u64, from: Option<u64>, wanted: &str| {
            let shown: Vec<String> = parts(total, from)
                .iter()
                .map(|part| match part {
                    Part::Lines { first, n } => format!("{first}+{n}"),
                    Part::Left { first, n } => format!("({first}+{n})"),
                })
                .collect();
            assert_eq!(shown.join(" "), wanted, "{total} {from:?}");
        };
        check(0, None, "");
        check(2000, None, "0+2000");
        check(2001, None, "0+200 (200+1001) 1201+800");
        check(1_000_000_000, None, "0+200 (200+999999000) 999999200+800");
        check(5000, Some(1), "0+1000 (1000+4000)");
        check(5000, Some(3001), "(0+3000) 3000+1000 (4000+1000)");
        check(5000, Some(4900), "(0+4899) 4899+101");
        check(5000, Some(9000), "(0+5000)");
        check(0, Some(7), "");
    }

    #[test]
    fn a_quotation_ends_where_something_else_begins() {
        let check = |text: &str, wanted: usize| {
            let lines = text.lines().map(str::to_owned).collect();
            assert_eq!(
                QuoteView { line: 1, lines }.paragraph().lines.len(),
                wanted,
                "{text}"
            );
        };
        check("", 0);
        check("error: x\nnext", 1);
        check(
            "a.c:1: error: x\n  1 | foo\n    | ^\nmake: *** [all] Error 1\nleaving",
            4,
        );
        check("    FAIL it\n      wanted: 1\n    ok that", 2);
        check("panicked at x:\n\n  left: 1", 1);
    }

    #[test]
    fn a_line_that_is_too_long_says_so() {
        assert_eq!(text(b"caf\xe9"), "caf\u{fffd}");
        assert!(text(&[b'x'; 3000]).ends_with("xx [1000 more bytes]"));
    }
}
