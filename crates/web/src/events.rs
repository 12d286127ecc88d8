use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use http::{HeaderName, HeaderValue, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::guesses::Client;
use crate::problem::Problem;

/// Most event streams at once, over all pages.
pub const EVENT_LIMIT: usize = 1000;

/// Of them for one client, who may be many people behind one address.
const OF_ONE: usize = 100;

/// Proxies and browsers give up on silence; a comment goes out this often.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// An answer of server-sent events: a comment every 15 seconds, and an end when `stop` is cancelled,
/// upon which browsers come back by themselves. Answers 503 when too many are open.
pub fn events<S>(room: &Arc<Semaphore>, stop: &CancellationToken, stream: S) -> Response
where
    S: Stream<Item = Event> + Send + 'static,
{
    let Ok(permit) = room.clone().try_acquire_owned() else {
        return too_many("too many live pages are open");
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

fn too_many(what: &str) -> Response {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_listeners", what)
        .hint("The page itself works; it does not follow by itself.")
        .into_response()
}

/// Who listens, and to how many streams.
#[derive(Clone, Default)]
pub(crate) struct Listeners(Arc<Mutex<BTreeMap<Client, usize>>>);

/// One stream of a client, while it is open.
pub(crate) struct Listening {
    all: Listeners,
    client: Client,
}

impl Listeners {
    /// `response` as it is unless it is a stream; that is counted until it ends, and refused to who has too many.
    pub fn count(&self, client: Client, response: Response) -> Response {
        let kind = response.headers().get(header::CONTENT_TYPE);
        if kind.is_none_or(|kind| !kind.as_bytes().starts_with(b"text/event-stream")) {
            return response;
        }
        let Some(listening) = self.enter(client) else {
            return too_many("too many live pages are open from this address");
        };
        let (head, body) = response.into_parts();
        let counted = body.into_data_stream().map(move |piece| {
            let _held: &Listening = &listening;
            piece
        });
        Response::from_parts(head, Body::from_stream(counted))
    }

    fn enter(&self, client: Client) -> Option<Listening> {
        let mut open = self.open();
        let streams = open.entry(client).or_default();
        if *streams >= OF_ONE {
            return None;
        }
        *streams += 1;
        drop(open);
        let all = self.clone();
        Some(Listening { all, client })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<Client, usize>> {
        self.0.lock().expect("no holder panics")
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut open = self.all.open();
        if let Some(streams) = open.get_mut(&self.client) {
            *streams -= 1;
            if *streams == 0 {
                open.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn one_client_does_not_take_every_live_page() {
        let all = Listeners::default();
        let client = |n: u8| Client::from(IpAddr::from([10, 0, 0, n]));
        let mut streams: Vec<_> = (0..OF_ONE).map(|_| all.enter(client(1)).expect("room")).collect();
        assert!(all.enter(client(1)).is_none());
        assert!(all.enter(client(2)).is_some());
        streams.pop();
        streams.push(all.enter(client(1)).expect("room again"));
        let stream = || {
            let kind = [(header::CONTENT_TYPE, "text/event-stream")];
            (
                kind,
                Body::from_stream(futures_util::stream::pending::<Result<String, Infallible>>()),
            )
                .into_response()
        };
        assert_eq!(
            all.count(client(1), stream()).status(),
            StatusCode::SERVICE_UNAVAILABLE
        );
        let open = all.count(client(3), stream());
        assert_eq!(all.open().get(&client(3)), Some(&1));
        drop((open, streams));
        assert!(all.open().is_empty());
    }
}
