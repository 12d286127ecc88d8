use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use http::{HeaderName, HeaderValue, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;

/// Most event streams at once, over all pages.
pub const EVENT_LIMIT: usize = 1000;

/// Proxies and browsers give up on silence; a comment goes out this often.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// An answer of server-sent events: a comment every 15 seconds, and an end when `stop` is cancelled,
/// upon which browsers come back by themselves. Answers 503 when too many are open.
pub fn events<S>(room: &Arc<Semaphore>, stop: &CancellationToken, stream: S) -> Response
where
    S: Stream<Item = Event> + Send + 'static,
{
    let Ok(permit) = room.clone().try_acquire_owned() else {
        return Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_listeners",
            "too many live pages are open",
        )
        .hint("The page itself works; it does not follow by itself.")
        .into_response();
    };
    let stop = stop.clone().cancelled_owned();
    let stream = stream.take_until(stop).map(move |event| {
        let _held: &OwnedSemaphorePermit = &permit;
        Ok::<_, Infallible>(event)
    });
    let mut response = Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(COMMENT_EVERY))
        .into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}
