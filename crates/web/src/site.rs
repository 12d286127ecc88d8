use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use ids::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tracing::{Instrument, error, info, info_span};

use crate::events::{EVENT_LIMIT, Listeners};
use crate::fence::{bearer, fortify};
use crate::guesses::Client;
use crate::listen::ConnectionInfo;
use crate::page::{Page, Section, Surroundings, render};
use crate::problem::Problem;
use crate::tokens::{TokenError, Tokens};
use crate::visit::{Visit, Wants, Who, form_proof};
use crate::{assets, sign_in};

/// Longest body of a form or JSON request, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// What frames every page, read anew for each.
pub trait Frame: Send + Sync + 'static {
    /// The farm's name.
    fn farm(&self) -> String;
    /// What everyone should know at once: `Nothing is started: the disk is nearly full`.
    fn alarm(&self) -> Option<String>;
    /// Whether the farm is read with a token only.
    fn closed(&self) -> bool {
        false
    }
    /// Under which names it answers, besides `localhost` and addresses.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What goes around every route of one service.
#[derive(Clone)]
pub struct Site {
    pub(crate) tokens: Tokens,
    pub(crate) frame: Arc<dyn Frame>,
    stop: CancellationToken,
    event_room: Arc<Semaphore>,
    listeners: Listeners,
    requests: Arc<AtomicU64>,
}

/// Put into a response's extensions, keeps it from being compressed: for what is streamed.
#[derive(Debug, Clone, Copy)]
pub struct Uncompressed;

impl Site {
    /// `stop`: ends event streams.
    pub fn new(tokens: impl Into<Tokens>, frame: Arc<dyn Frame>, stop: CancellationToken) -> Site {
        let event_room = Arc::new(Semaphore::new(EVENT_LIMIT));
        Site {
            tokens: tokens.into(),
            frame,
            stop,
            event_room,
            listeners: Listeners::default(),
            requests: Arc::default(),
        }
    }

    /// An answer of server-sent events, see [`crate::events`].
    pub fn events<S>(&self, stream: S) -> Response
    where
        S: futures_util::Stream<Item = axum::response::sse::Event> + Send + 'static,
    {
        crate::events(&self.event_room, &self.stop, stream)
    }

    /// For streams that must end with the service.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Puts around `routes` what every page needs, and adds sign-in, the stylesheet and the like.
    ///
    /// Routes see a path without `.json` and without `/api/v1`, and find a [`Visit`] in the
    /// extensions. A request that changes something must come from our own pages or carry a
    /// bearer token; what role it needs is the route's to ask, by [`Visit::authorise`].
    pub fn wrap(&self, routes: Router) -> Router {
        let inner = routes
            .merge(sign_in::routes(self.clone()))
            .merge(assets::routes())
            .fallback(no_such_page)
            .method_not_allowed_fallback(no_such_method)
            .layer(DefaultBodyLimit::max(BODY_LIMIT));
        // Around the router, not in it: the path is changed before it is routed by.
        let compress = SizeAbove::new(512)
            .and(NotForContentType::const_new("text/event-stream"))
            .and(NotForContentType::const_new("image/png"))
            .and(Streamed);
        Router::new()
            .fallback_service(inner)
            .layer(from_fn_with_state(self.clone(), around))
            .layer(CompressionLayer::new().compress_when(compress))
    }
}

#[derive(Debug, Clone, Copy)]
struct Streamed;

impl Predicate for Streamed {
    fn should_compress<B: http_body::Body>(&self, response: &http::Response<B>) -> bool {
        response.extensions().get::<Uncompressed>().is_none()
    }
}

async fn around(State(site): State<Site>, request: Request, next: Next) -> Response {
    let number = site.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let started = Instant::now();
    let method = request.method().clone();
    // Without the query: old clients put keys there.
    let path = request.uri().path().to_owned();
    let span = info_span!("request", request.id = number, %method, path);
    let mut response = visit(&site, request, next, number).instrument(span.clone()).await;
    span.in_scope(|| {
        let (status, ms) = (response.status().as_u16(), started.elapsed().as_millis() as u64);
        info!(
            http.status = status,
            wait_ms = ms,
            "{method} {path}: {status} in {ms} ms"
        );
    });
    fortify(response.headers_mut());
    response
        .headers_mut()
        .insert("x-request-id", HeaderValue::from(number));
    response
}

/// One request from who asks to an answer in the form that was asked for.
async fn visit(site: &Site, mut request: Request, next: Next, number: u64) -> Response {
    let by_path = match strip(request.uri()) {
        Some(uri) => {
            *request.uri_mut() = uri;
            true
        }
        None => false,
    };
    let headers = request.headers();
    let wants = if by_path || prefers_json(headers) {
        Wants::Json
    } else {
        Wants::Html
    };
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str())
        .to_owned();
    let query = if request.uri().path() == "/search" {
        search_words(request.uri())
    } else {
        String::new()
    };
    let info = request.extensions().get::<ConnectionInfo>().copied();
    let client = Client::of(info.map_or(IpAddr::from([0; 4]), |info| info.peer.ip()), headers);
    let mut visit = Visit {
        who: Who::Nobody,
        wants,
        now: now(),
        tls: info.is_some_and(|info| info.tls),
        suffix: by_path,
        client,
        surroundings: Surroundings {
            farm: site.frame.farm(),
            alarm: site.frame.alarm(),
            who: Who::Nobody,
            target: target.clone(),
            query,
        },
        target,
        if_none_match: text(headers, header::IF_NONE_MATCH).to_owned(),
    };
    let answer = async {
        match who(site, client, request.headers(), visit.now).await {
            Ok(who) => {
                if who == Who::Nobody && site.frame.closed() {
                    visit.surroundings.alarm = None;
                }
                visit.surroundings.who = who.clone();
                visit.who = who;
            }
            Err(problem) => return problem.into_response(),
        }
        if let Err(problem) = guard(&request) {
            return problem.into_response();
        }
        request.extensions_mut().insert(visit.clone());
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => site.listeners.count(client, response),
            Err(_) => Problem::internal("a request panicked").into_response(),
        }
    };
    let mut response = answer.await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        if let Some(cause) = problem.cause() {
            error!(error = %chain(cause), "request {number} failed: {}", problem.message);
        }
        return dress(response, &visit, &problem, number);
    }
    if response.status().is_client_error() && is_bare(&response) {
        return dress_bare(response, &visit, number).await;
    }
    response
}

/// Gives a problem the form that was asked for; keeps its headers.
fn dress(response: Response, visit: &Visit, problem: &Problem, number: u64) -> Response {
    let (parts, _) = response.into_parts();
    let mut dressed = match visit.wants {
        Wants::Json => axum::Json(problem.json()).into_response(),
        Wants::Html => {
            let page = Page {
                title: problem.message.clone(),
                here: Section::Elsewhere,
                body: problem.page(&number.to_string()),
                live: false,
            };
            render(&visit.surroundings, &page)
        }
    };
    *dressed.status_mut() = problem.status;
    for (name, value) in &parts.headers {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH {
            dressed.headers_mut().insert(name, value.clone());
        }
    }
    dressed
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    dressed
}

/// The router's own refusals: a query or form that does not parse, a body that is too long.
fn is_bare(response: &Response) -> bool {
    text(response.headers(), header::CONTENT_TYPE).starts_with("text/plain")
        && matches!(
            response.status(),
            StatusCode::BAD_REQUEST
                | StatusCode::PAYLOAD_TOO_LARGE
                | StatusCode::UNSUPPORTED_MEDIA_TYPE
                | StatusCode::UNPROCESSABLE_ENTITY
        )
}

async fn dress_bare(response: Response, visit: &Visit, number: u64) -> Response {
    let (parts, body) = response.into_parts();
    let words = axum::body::to_bytes(body, 4096).await.unwrap_or_default();
    let words = String::from_utf8_lossy(&words).trim_end_matches('.').to_owned();
    let problem = Problem::new(parts.status, "bad_request", words);
    dress(
        Response::from_parts(parts, Body::empty()),
        visit,
        &problem,
        number,
    )
}

/// The path without what only says that JSON is wanted. `None`: it says no such thing.
fn strip(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let short = path
        .strip_prefix("/api/v1")
        .filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let bare = short.unwrap_or(path);
    let bare = match bare.strip_suffix(".json") {
        Some(bare) => bare,
        None if short.is_some() => bare,
        None => return None,
    };
    let bare = if matches!(bare, "" | "/" | "/index") {
        "/"
    } else {
        bare
    };
    let target = match uri.query() {
        Some(query) => format!("{bare}?{query}"),
        None => bare.to_owned(),
    };
    target.parse().ok()
}

/// JSON is preferred when it is named before HTML, quality left aside: browsers name HTML first.
pub(crate) fn prefers_json(headers: &HeaderMap) -> bool {
    let accept = text(headers, header::ACCEPT);
    match (accept.find("application/json"), accept.find("text/html")) {
        (Some(json), Some(html)) => json < html,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// A bearer token that is no good is refused; a cookie that is no good means nobody.
async fn who(site: &Site, client: Client, headers: &HeaderMap, now: Timestamp) -> Result<Who, Problem> {
    if let Some(secret) = bearer(headers) {
        return match site.tokens.check(client, secret, now).await? {
            Some(token) => Ok(Who::Token {
                name: token.name,
                role: token.role,
                form_proof: None,
            }),
            None => Err(
                Problem::new(StatusCode::UNAUTHORIZED, "bad_token", "there is no such token")
                    .hint("It may have been revoked or have expired. `burrow token new NAME` makes another."),
            ),
        };
    }
    let Some(secret) = sign_in::token_in_cookie(headers) else {
        return Ok(Who::Nobody);
    };
    match site.tokens.check(client, secret, now).await {
        Ok(Some(token)) => Ok(Who::Token {
            name: token.name,
            role: token.role,
            form_proof: Some(form_proof(secret)),
        }),
        Ok(None) | Err(TokenError::TooMany) => Ok(Who::Nobody),
        Err(TokenError::Store(why)) => Err(why.into()),
    }
}

/// Refuses what another site made a browser send. Bearer tokens are never sent by themselves.
fn guard(request: &Request) -> Result<(), Problem> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let headers = request.headers();
    if headers.contains_key(header::AUTHORIZATION) {
        return Ok(());
    }
    let host = match text(headers, header::HOST) {
        "" => request
            .uri()
            .authority()
            .map_or("", |authority| authority.as_str()),
        host => host,
    };
    let ours = match (
        text(headers, HeaderName::from_static("sec-fetch-site")),
        text(headers, header::ORIGIN),
    ) {
        ("", "") => true, // no browser of today; the proof in the form still counts
        ("", origin) => origin.split_once("://").is_some_and(|(_, from)| from == host),
        (site, _) => matches!(site, "same-origin" | "none"),
    };
    if ours {
        return Ok(());
    }
    Err(
        Problem::forbidden("foreign_request", "this request came from another site")
            .hint("Send it from the farm's own pages, or with `Authorization: Bearer TOKEN`."),
    )
}

async fn no_such_page(visit: Visit) -> Problem {
    let path = visit
        .target
        .split('?')
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect::<String>();
    Problem::not_found("no_such_page", format!("there is no page `{path}`"))
        .hint("Addresses look like /repo/NAME/BRANCH, /build/NUMBER, /builder/NAME, /commit/REPO/HASH.")
}

async fn no_such_method(method: Method, visit: Visit) -> Problem {
    let path = visit
        .target
        .split('?')
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect::<String>();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "no_such_method",
        format!("`{path}` does not take {method}"),
    )
    .hint("The Allow header names what it takes.")
}

fn search_words(uri: &Uri) -> String {
    #[derive(serde::Deserialize)]
    struct Words {
        #[serde(default)]
        q: String,
    }
    axum::extract::Query::<Words>::try_from_uri(uri)
        .map(|words| words.0.q)
        .unwrap_or_default()
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

pub(crate) fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        source = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_asked_for_by_suffix_or_prefix() {
        let check = |path: &str, wanted: Option<&str>| {
            let stripped = strip(&path.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(stripped.as_deref(), wanted, "{path}");
        };
        check("/builds", None);
        check("/builds.json?limit=3", Some("/builds?limit=3"));
        check("/api/v1/builds", Some("/builds"));
        check("/api/v1/builds.json", Some("/builds"));
        check("/api/v1", Some("/"));
        check("/api/v1/", Some("/"));
        check("/.json", Some("/"));
        check("/index.json", Some("/"));
        check("/api/v12/builds", None);
        check("/repo/a/odd%2Ejson", None);
    }

    #[test]
    fn browsers_get_pages_and_programs_json() {
        let check = |accept: &'static str, json: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(prefers_json(&headers), json, "{accept}");
        };
        check(
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            false,
        );
        check("application/json", true);
        check("application/json, text/html;q=0.5", true);
        check("*/*", false);
        check("", false);
    }
}
