use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use futures_util::stream;
use mutlog::{LogReader, Place, Segment, SegmentNumber};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::index::listed;

/// How long a request waits for the log to change. The original's clients expect an answer within a
/// minute.
///
/// Source: golang/build `maintner/maintnerd/gcslog/gcslog.go`.
const LONGEST_WAIT: Duration = Duration::from_secs(55);

/// A body is read from disk in pieces of this length, one at a time.
const PIECE: u64 = 128 << 10;

/// What followers may see of a log; `None` while that is not known yet.
pub type Visible = watch::Receiver<Option<Arc<[Segment]>>>;

/// A log to be served.
#[derive(Clone)]
pub struct Served {
    pub visible: Visible,
    pub reader: LogReader,
    /// Those who wait are sent away when it is cancelled.
    pub stop: CancellationToken,
}

/// `/logs`, the index, which can be waited for to change, and `/logs/N`, the bytes of a segment.
///
/// Source: golang/build `maintner/maintnerd/gcslog/gcslog.go`. Differs: every segment is served under
/// its own URL, also when it is whole; a range that ends before it begins is no range, since clients
/// of 2018 send such and give up for ever at a 416.
pub fn routes(served: Served) -> Router {
    web::router(table()).with_state(served)
}

pub(crate) fn table() -> web::Table<Served> {
    vec![("/logs", any(index)), ("/logs/{number}", any(segment))]
}

async fn index(State(served): State<Served>, method: Method, RawQuery(query): RawQuery) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return refuse(StatusCode::BAD_REQUEST, "bad method");
    }
    let query = query.unwrap_or_default();
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .into_iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    };
    let wait_while = match parameter("waitsizenot").filter(|size| !size.is_empty()) {
        None => None,
        Some(size) => match size.parse::<i64>().ok().and_then(|size| u64::try_from(size).ok()) {
            Some(size) => Some(size),
            None => return refuse(StatusCode::BAD_REQUEST, "bad waitsizenot"),
        },
    };
    // What is no number means the whole, as in the original.
    let from = parameter("startseg")
        .and_then(|from| from.parse::<i64>().ok())
        .unwrap_or(0);
    let Ok(from) = usize::try_from(from) else {
        return refuse(StatusCode::BAD_REQUEST, "bad startseg");
    };

    let mut visible = served.visible.clone();
    let other = |log: &Option<Arc<[Segment]>>| log.as_ref().is_none_or(|log| Some(total(log)) != wait_while);
    let changed = timeout(LONGEST_WAIT, visible.wait_for(other));
    let log = tokio::select! {
        () = served.stop.cancelled() => return refuse(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        changed = changed => match changed {
            Err(_) => return StatusCode::NOT_MODIFIED.into_response(),
            Ok(Err(_)) => return refuse(StatusCode::SERVICE_UNAVAILABLE, "the log is closed"),
            Ok(Ok(log)) => log.clone(),
        },
    };
    let Some(log) = log else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "starting");
    };
    let log = log.get(from..).unwrap_or(&log);
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (
            header::HeaderName::from_static("x-sum-segment-size"),
            total(log).to_string(),
        ),
    ];
    (headers, json(log)).into_response()
}

/// Bytes of a log.
pub(crate) fn total(log: &[Segment]) -> u64 {
    log.iter().map(|segment| segment.len).sum()
}

/// Indented by tabs; URLs relative to that of the index, so that they hold behind any prefix.
fn json(log: &[Segment]) -> Vec<u8> {
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut json = serde_json::Serializer::with_formatter(Vec::new(), format);
    listed(log, "logs/")
        .serialize(&mut json)
        .expect("strings and numbers are JSON");
    json.into_inner()
}

async fn segment(
    State(served): State<Served>,
    method: Method,
    Path(number): Path<String>,
    headers: HeaderMap,
) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return refuse(StatusCode::BAD_REQUEST, "bad method");
    }
    let Some(log) = served.visible.borrow().clone() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "starting");
    };
    let Some(segment) = number.parse().ok().and_then(|number: usize| log.get(number)) else {
        return refuse(StatusCode::BAD_REQUEST, "no such segment");
    };
    let (status, range) = match range(headers.get(header::RANGE), segment.len) {
        Ranged::Whole => (StatusCode::OK, 0..segment.len),
        Ranged::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Ranged::Nothing => {
            let whole = [(header::CONTENT_RANGE, format!("bytes */{}", segment.len))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, whole).into_response();
        }
    };
    let mut answer = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_LENGTH, range.end - range.start);
    if status == StatusCode::PARTIAL_CONTENT {
        let part = format!("bytes {}-{}/{}", range.start, range.end - 1, segment.len);
        answer = answer.header(header::CONTENT_RANGE, part);
    }
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        body(served.reader.clone(), segment.number, range)
    };
    answer.body(body).expect("the headers are made of numbers")
}

/// The bytes of a segment, read as the client takes them.
fn body(reader: LogReader, segment: SegmentNumber, range: Range<u64>) -> Body {
    Body::from_stream(stream::try_unfold(range, move |left| {
        let reader = reader.clone();
        async move {
            if left.is_empty() {
                return Ok(None);
            }
            let end = left.end.min(left.start + PIECE);
            let read = tokio::task::spawn_blocking(move || {
                let offset = u32::try_from(left.start).map_err(std::io::Error::other)?;
                let mut piece = vec![0; usize::try_from(end - left.start).expect("a short piece")];
                reader.read_into(Place { segment, offset }, &mut piece)?;
                Ok(piece)
            });
            match read
                .await
                .unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)))
            {
                Ok(piece) => Ok(Some((Bytes::from(piece), end..left.end))),
                Err(error) => {
                    warn!(%segment, %error, "cannot read segment {segment} for a follower");
                    Err(error)
                }
            }
        }
    }))
}

#[derive(Debug, PartialEq, Eq)]
enum Ranged {
    Whole,
    Part(Range<u64>),
    /// It begins behind the end.
    Nothing,
}

/// Which bytes of `len` are asked for. More than one range, and what is none, asks for all.
fn range(asked: Option<&HeaderValue>, len: u64) -> Ranged {
    let asked = asked
        .and_then(|asked| asked.to_str().ok())
        .and_then(|asked| asked.strip_prefix("bytes="));
    let Some((first, last)) = asked.and_then(|asked| asked.split_once('-')) else {
        return Ranged::Whole;
    };
    match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if last < first => Ranged::Whole,
        (Ok(first), _) if last.is_empty() && first < len => Ranged::Part(first..len),
        (Ok(first), Ok(last)) if first < len => Ranged::Part(first..last.saturating_add(1).min(len)),
        (Ok(_), Ok(_)) => Ranged::Nothing,
        (Ok(_), Err(_)) if last.is_empty() => Ranged::Nothing,
        (Err(_), Ok(0)) if first.is_empty() => Ranged::Nothing,
        (Err(_), Ok(last)) if first.is_empty() => Ranged::Part(len.saturating_sub(last)..len),
        _ => Ranged::Whole,
    }
}

fn refuse(status: StatusCode, why: &'static str) -> Response {
    (status, format!("{why}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_what_is_none_asks_for_all() {
        let check = |asked: &str, expect| {
            assert_eq!(
                range(Some(&HeaderValue::from_str(asked).unwrap()), 100),
                expect,
                "{asked}"
            );
        };
        check("bytes=0-42", Ranged::Part(0..43));
        check("bytes=43-144", Ranged::Part(43..100));
        check("bytes=99-", Ranged::Part(99..100));
        check("bytes=-10", Ranged::Part(90..100));
        check("bytes=-1000", Ranged::Part(0..100));
        check("bytes=26-12", Ranged::Whole);
        check("bytes=145-144", Ranged::Whole);
        check("bytes=100-", Ranged::Nothing);
        check("bytes=100-200", Ranged::Nothing);
        check("bytes=-0", Ranged::Nothing);
        check("bytes=0-1,5-6", Ranged::Whole);
        check("lines=0-1", Ranged::Whole);
        check("bytes=x-1", Ranged::Whole);
        assert_eq!(range(None, 100), Ranged::Whole);
    }
}
