//! What stands around every address of a farm, pages or not: under which names it answers, who may read it, and what
//! browsers are told of every answer.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use store::read::Role;

use crate::guesses::Client;
use crate::listen::ConnectionInfo;
use crate::page::{POLICY, query_escape};
use crate::problem::Problem;
use crate::site::{Site, now, prefers_json, text};
use crate::tokens::TokenError;
use crate::{assets, sign_in};

#[derive(Clone)]
struct Fence {
    site: Site,
    open: Arc<[String]>,
}

impl Site {
    /// Puts the fence around `router`, the whole of what the farm answers. `open`: paths that ask for credentials by
    /// themselves, or need none even where reading does; one that ends in a slash stands for all below it. Sign-in and
    /// what its page links to are always open.
    pub fn fence(&self, router: Router, open: &[&str]) -> Router {
        let own = sign_in::paths().into_iter().chain(assets::paths());
        let fence = Fence {
            site: self.clone(),
            open: own.chain(open.iter().map(|path| (*path).to_owned())).collect(),
        };
        Router::new()
            .fallback_service(router)
            .layer(from_fn_with_state(fence, around))
    }
}

async fn around(State(fence): State<Fence>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let mut response = match fence.lets_in(&head).await {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(refusal) => refusal,
    };
    fortify(response.headers_mut());
    response
}

/// What browsers are told of every answer: nothing inline, nothing foreign, no frames, no guessing of types.
pub(crate) fn fortify(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::SERVER, "burrow"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), geolocation=(), microphone=()",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

impl Fence {
    async fn lets_in(&self, head: &Parts) -> Result<(), Response> {
        let names = self.site.frame.names();
        if let Some(foreign) = hosts(head).find(|host| !is_ours(host, &names)) {
            return Err(misdirected(foreign));
        }
        let path = head.uri.path();
        let is_open = |open: &String| open == path || (open.ends_with('/') && path.starts_with(open));
        if !self.site.frame.closed() || self.open.iter().any(is_open) {
            return Ok(());
        }
        self.known(head).await.map_err(|problem| ask(head, &problem))
    }

    /// Whether the asker has shown a token, by header or cookie: any may read.
    async fn known(&self, head: &Parts) -> Result<(), Problem> {
        let headers = &head.headers;
        let peer = head.extensions.get::<ConnectionInfo>();
        let client = Client::of(peer.map_or(IpAddr::from([0; 4]), |info| info.peer.ip()), headers);
        let Some(secret) = bearer(headers).or_else(|| sign_in::token_in_cookie(headers)) else {
            return Err(
                Problem::new(StatusCode::UNAUTHORIZED, "not_signed_in", "this farm is read with a token only")
                    .hint("Sign in at /signin, or send `Authorization: Bearer TOKEN`; whoever runs the farm hands tokens out."),
            );
        };
        match self.site.tokens.check(client, secret, now()).await {
            Ok(Some(token)) if token.role >= Role::Reader => Ok(()),
            Ok(_) => Err(
                Problem::new(StatusCode::UNAUTHORIZED, "bad_token", "there is no such token")
                    .hint("It may have been revoked or have expired. `burrow token new NAME` makes another."),
            ),
            Err(why @ (TokenError::TooMany | TokenError::Store(_))) => Err(why.into()),
        }
    }
}

/// The secret of `Authorization: Bearer SECRET`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = text(headers, header::AUTHORIZATION).split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

/// People are led to the sign-in, programs are told.
fn ask(head: &Parts, problem: &Problem) -> Response {
    let headers = &head.headers;
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    let person = text(headers, header::ACCEPT).contains("text/html") && !prefers_json(headers);
    if reads && person && problem.status == StatusCode::UNAUTHORIZED {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        return Redirect::to(&format!("/signin?next={}", query_escape(target))).into_response();
    }
    let mut response = (problem.status, axum::Json(problem.json())).into_response();
    let way = HeaderValue::from_static("Bearer realm=\"burrow\"");
    if problem.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, way);
    }
    response
}

/// Every name that the request says it is for.
fn hosts(head: &Parts) -> impl Iterator<Item = &str> {
    let written = head.headers.get_all(header::HOST).iter();
    // What is no text is no name of ours.
    let written = written.map(|host| host.to_str().unwrap_or("?"));
    written.chain(head.uri.authority().map(|authority| authority.as_str()))
}

/// Without its port, its brackets and the dot of the root.
fn bare(host: &str) -> &str {
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// Whether we answer to a name. To addresses always: a page of another site can make a browser call us by a *name* of
/// its own that it lets point here, and is then of the same origin; it cannot do so by an address. No name at all is
/// no browser.
fn is_ours(host: &str, names: &[String]) -> bool {
    let host = bare(host);
    host.is_empty()
        || host.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

fn misdirected(host: &str) -> Response {
    let shown: String = bare(host)
        .chars()
        .take(100)
        .map(|c| {
            if c.is_ascii_graphic() && !matches!(c, '<' | '>' | '&' | '`') {
                c
            } else {
                '?'
            }
        })
        .collect();
    let why = format!(
        "this farm does not answer to the name `{shown}`; if it is one of its names, add it to `names` in [farm] of the configuration, or set `public_url`\n"
    );
    (StatusCode::MISDIRECTED_REQUEST, why).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_that_point_here_are_not_ours() {
        let names = ["farm.example.org".to_owned(), "rack".to_owned()];
        for ours in [
            "",
            "localhost",
            "LocalHost:8080",
            "127.0.0.1:8080",
            "127.0.0.1",
            "[::1]:8080",
            "10.1.2.3:81",
            "farm.example.org",
            "FARM.example.org:8443",
            "farm.example.org.",
            "rack:80",
        ] {
            assert!(is_ours(ours, &names), "{ours}");
        }
        for foreign in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "farm.example.org.evil.example",
            "127.0.0.1.evil.example:8080",
            "xfarm.example.org",
            "localhost@evil.example",
            "farm.example.org:80:evil.example",
            "?",
        ] {
            assert!(!is_ours(foreign, &names), "{foreign}");
        }
    }

    #[test]
    fn a_name_is_told_back_as_plain_text() {
        let told = misdirected("<script>`x`\u{7}.example:81");
        assert_eq!(told.status(), StatusCode::MISDIRECTED_REQUEST);
        let kind = text(told.headers(), header::CONTENT_TYPE);
        assert!(kind.starts_with("text/plain"), "{kind}");
    }
}
