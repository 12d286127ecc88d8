//! Logs as bytes, by range and as they come.

use std::collections::VecDeque;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use ids::{AttemptId, StepId};
use maud::{Render, html};
use serde::Deserialize;
use web::{Problem, Uncompressed};

use crate::ansi::Look;
use crate::log;
use crate::routes::{Answer, App, attempt, detail};

/// How much of a log is read at once.
const PIECE: u64 = 1 << 20;

/// How much one event holds at most.
const EVENT: usize = 64 * 1024;

#[derive(Deserialize)]
pub struct RawQuery {
    attempt: Option<u32>,
    step: Option<u32>,
    offset: Option<u64>,
    download: Option<String>,
}

/// A part of what is answered.
enum Piece {
    Title(Bytes),
    Log { step: StepId, from: u64, len: u64 },
}

/// The text of an attempt's steps, one after another; of one step from a byte on with `step` and
/// `offset`. Takes a range, counted in what would be answered without one.
pub async fn text(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<RawQuery>,
    headers: HeaderMap,
) -> Answer {
    let detail = detail(&app, &id).await?;
    let attempt = attempt(&detail, query.attempt)?;
    let mut pieces = VecDeque::new();
    for step in &attempt.steps {
        if step.started.is_none() || query.step.is_some_and(|wanted| wanted != step.index) {
            continue;
        }
        if query.step.is_some() && !step.has_log {
            return Err(gone());
        }
        if query.step.is_none() {
            pieces.push_back(Piece::Title(
                format!("==> {}: {}\n", step.name, step.command).into(),
            ));
        }
        let step = StepId {
            attempt: attempt.attempt,
            index: step.index,
        };
        let from = query.offset.unwrap_or(0);
        let len = app.logs.len(step).await.map_err(Problem::internal)?.unwrap_or(0);
        let len = len.saturating_sub(from);
        pieces.push_back(Piece::Log { step, from, len });
    }
    if let (Some(step), true) = (query.step, pieces.is_empty()) {
        let what = format!("attempt {} has not begun a step {step}", attempt.attempt);
        return Err(Problem::not_found("no_step", what));
    }

    let len: u64 = pieces.iter().map(Piece::len).sum();
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let range = match asked.map(|asked| range(asked, len)) {
        None | Some(Range::Whole) => None,
        Some(Range::Part { first, last }) => Some((first, last)),
        Some(Range::Beyond) => {
            let problem = Problem::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "no_such_range",
                format!("the log has {len} bytes"),
            );
            let mut response = problem.into_response();
            set(&mut response, header::CONTENT_RANGE, &format!("bytes */{len}"));
            return Ok(response);
        }
    };
    let (skip, take) = range.map_or((0, len), |(first, last)| (first, last - first + 1));
    let mut response = Body::from_stream(send(app, cut(pieces, skip, take))).into_response();
    response.extensions_mut().insert(Uncompressed);
    if let Some((first, last)) = range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(
            &mut response,
            header::CONTENT_RANGE,
            &format!("bytes {first}-{last}/{len}"),
        );
    }
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::CONTENT_LENGTH, &take.to_string());
    set(&mut response, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    set(&mut response, header::CACHE_CONTROL, "private, no-cache");
    if query.download.is_some() {
        let step = query.step.map(|step| format!(".{step}")).unwrap_or_default();
        let name = format!("{}-build-{}{step}.log", detail.row.repo, attempt.attempt);
        let value = format!("attachment; filename=\"{name}\"");
        set(&mut response, header::CONTENT_DISPOSITION, &value);
    }
    Ok(response)
}

fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("names, numbers and words of ours");
    response.headers_mut().insert(name, value);
}

fn gone() -> Problem {
    Problem::new(
        StatusCode::GONE,
        "log_deleted",
        "this log was deleted because of its age",
    )
    .hint("`keep_logs` in the configuration says how long logs are kept. A retry makes another.")
}

#[derive(Debug, PartialEq)]
enum Range {
    Whole,
    /// Both included.
    Part {
        first: u64,
        last: u64,
    },
    Beyond,
}

/// What a `Range` header asks of `len` bytes. More ranges than one, or none we know, mean all of it.
fn range(asked: &str, len: u64) -> Range {
    let Some((first, last)) = asked.strip_prefix("bytes=").and_then(|rest| rest.split_once('-')) else {
        return Range::Whole;
    };
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), _) if first >= len => Range::Beyond,
        (Ok(first), Ok(last)) if last >= first => Range::Part {
            first,
            last: last.min(len - 1),
        },
        (Ok(first), Err(_)) if last.trim().is_empty() => Range::Part { first, last: len - 1 },
        (Err(_), Ok(end)) if first.trim().is_empty() => match end.min(len) {
            0 => Range::Beyond,
            end => Range::Part {
                first: len - end,
                last: len - 1,
            },
        },
        _ => Range::Whole,
    }
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Piece::Title(text) => text.len() as u64,
            Piece::Log { len, .. } => *len,
        }
    }
}

/// The `take` bytes after the first `skip`.
fn cut(pieces: VecDeque<Piece>, mut skip: u64, mut take: u64) -> VecDeque<Piece> {
    let mut kept = VecDeque::new();
    for piece in pieces {
        let (from, to) = (skip.min(piece.len()), piece.len().min(skip.saturating_add(take)));
        skip -= from;
        take -= to - from;
        match piece {
            _ if from == to => {}
            Piece::Title(text) => kept.push_back(Piece::Title(text.slice(from as usize..to as usize))),
            Piece::Log { step, from: at, .. } => kept.push_back(Piece::Log {
                step,
                from: at + from,
                len: to - from,
            }),
        }
    }
    kept
}

/// Piece by piece: a log may be larger than memory.
fn send(app: App, pieces: VecDeque<Piece>) -> impl stream::Stream<Item = std::io::Result<Bytes>> {
    stream::try_unfold((app, pieces), async |(app, mut pieces)| {
        let (step, from, len) = match pieces.pop_front() {
            None => return Ok(None),
            Some(Piece::Title(text)) => return Ok(Some((text, (app, pieces)))),
            Some(Piece::Log { step, from, len }) => (step, from, len),
        };
        let read = app.logs.read(step, from, len.min(PIECE) as usize).await;
        let text = read.map_err(std::io::Error::other)?.unwrap_or_default();
        if text.is_empty() {
            // Deleted since, or its middle was left out: the length that was promised cannot be kept.
            return Err(std::io::Error::other("the log became shorter"));
        }
        let sent = text.len() as u64;
        if sent < len {
            pieces.push_front(Piece::Log {
                step,
                from: from + sent,
                len: len - sent,
            });
        }
        Ok(Some((Bytes::from(text), (app, pieces))))
    })
}

#[derive(Deserialize)]
pub struct EventsQuery {
    attempt: Option<u32>,
    #[serde(default)]
    step: u32,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    line: u64,
}

/// How far a follower has come: all lines up to `line` are sent, and end at byte `offset`.
struct Follower {
    app: App,
    step: StepId,
    offset: u64,
    line: u64,
    /// What of the line without its end was sent, in bytes.
    open: usize,
    look: Look,
    grown: tokio::sync::watch::Receiver<u64>,
    stored: tokio::sync::watch::Receiver<u64>,
}

/// A running step's lines, then `end`. Each event's id says from where to go on.
pub async fn events(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Answer {
    let detail = detail(&app, &id).await?;
    let attempt = attempt(&detail, query.attempt)?.attempt;
    let step = StepId {
        attempt,
        index: query.step,
    };
    let last = headers.get("last-event-id").and_then(|id| {
        let (offset, line) = id.to_str().ok()?.split_once('.')?;
        Some((offset.parse().ok()?, line.parse().ok()?))
    });
    let (offset, line) = last.unwrap_or((query.offset, query.line));
    let follower = Follower {
        grown: app.logs.changes(step),
        stored: app.store.changes(),
        app: app.clone(),
        step,
        offset,
        line,
        open: 0,
        look: Look::default(),
    };
    Ok(app.site.events(stream::unfold(Some(follower), async |follower| {
        let mut follower = follower?;
        let (event, goes_on) = follower.next().await;
        Some((event, goes_on.then_some(follower)))
    })))
}

impl Follower {
    /// The next event, and whether there is one after it.
    async fn next(&mut self) -> (Event, bool) {
        loop {
            self.grown.mark_unchanged();
            self.stored.mark_unchanged();
            // The end is asked for before the text: what is printed up to it is then there.
            let over = is_over(&self.app, self.step).await;
            let len = self.app.logs.len(self.step).await.ok().flatten();
            if len.unwrap_or(0) < self.offset {
                // Its middle was left out since: lines have other places.
                return (Event::default().event("reset").data("{}"), false);
            }
            let read = self.app.logs.read(self.step, self.offset, EVENT).await;
            let text = read.ok().flatten().unwrap_or_default();
            if let Some(event) = self.lines(&text) {
                return (event, true);
            }
            if over {
                return (Event::default().event("end").data("{}"), false);
            }
            tokio::select! {
                _ = self.grown.changed() => {}
                _ = self.stored.changed() => {}
            }
        }
    }

    /// What of `text`, which stands at `offset`, was not sent yet.
    fn lines(&mut self, text: &[u8]) -> Option<Event> {
        // A line longer than what is read at once is taken for one.
        let whole = match text.iter().rposition(|byte| *byte == b'\n') {
            Some(last) => last + 1,
            None if text.len() == EVENT => EVENT,
            None => 0,
        };
        let (whole, open) = text.split_at(whole);
        if whole.is_empty() && open.len() == self.open {
            return None;
        }
        let base = format!(
            "/build/{}?attempt={}&step={}",
            self.step.attempt.build, self.step.attempt.n, self.step.index
        );
        let first = self.line + 1;
        let mut rows = Vec::new();
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            self.line += 1;
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            rows.push(log::row(&base, self.line, &log::text(line), true, &mut self.look));
        }
        if !open.is_empty() {
            rows.push(log::row(
                &base,
                self.line + 1,
                &log::text(open),
                true,
                &mut self.look.clone(),
            ));
        }
        self.offset += whole.len() as u64;
        self.open = open.len();
        let html = html! { @for row in rows { (row) } }.render().into_string();
        let data = serde_json::json!({ "line": first, "html": html });
        let id = format!("{}.{}", self.offset, self.line);
        Some(Event::default().event("lines").id(id).data(data.to_string()))
    }
}

/// A store that does not answer is no end: the follower waits for it.
async fn is_over(app: &App, step: StepId) -> bool {
    let Ok(detail) = app.store.build(step.attempt.build).await else {
        return false;
    };
    let attempt: AttemptId = step.attempt;
    let row = detail.and_then(|detail| detail.attempts.into_iter().find(|row| row.attempt == attempt));
    row.is_none_or(|row| {
        let ended = |index: u32| {
            row.steps
                .iter()
                .any(|step| step.index == index && step.ended.is_some())
        };
        row.ended.is_some() || ended(step.index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_has_them() {
        let part = |first, last| Range::Part { first, last };
        for (asked, wanted) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=2-", part(2, 9)),
            ("bytes=2-99", part(2, 9)),
            ("bytes=-3", part(7, 9)),
            ("bytes=-99", part(0, 9)),
            ("bytes=9-", part(9, 9)),
            ("bytes=10-", Range::Beyond),
            ("bytes=-0", Range::Beyond),
            ("bytes=3-2", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("lines=0-1", Range::Whole),
            ("bytes=x-y", Range::Whole),
            ("bytes=-", Range::Whole),
        ] {
            assert_eq!(range(asked, 10), wanted, "{asked}");
        }
        assert_eq!(range("bytes=0-", 0), Range::Beyond);
        assert_eq!(range("bytes=-5", 0), Range::Beyond);
    }
}
