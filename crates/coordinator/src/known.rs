//! Who may have what is no page: source archives, and a look at an upstream.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use store::read::Role;
use web::{Client, ConnectionInfo, TokenError, Tokens};

use crate::engine;

/// Who may pass.
#[derive(Clone)]
pub struct Least {
    pub tokens: Tokens,
    pub role: Role,
}

/// Lets pass who asks from this machine, and who shows a token of at least that role. Where reading needs a token, the
/// fence has asked for one before.
pub async fn known(State(least): State<Least>, request: Request, next: Next) -> Result<Response, Response> {
    let refuse = |status: StatusCode, why: &str| (status, format!("{why}\n")).into_response();
    let peer = request.extensions().get::<ConnectionInfo>();
    let peer = peer.map_or(IpAddr::from([0; 4]), |info| info.peer.ip());
    let client = Client::of(peer, request.headers());
    match bearer(request.headers()) {
        Some(secret) => match least.tokens.check(client, secret, engine::wall()).await {
            Ok(Some(token)) if token.role >= least.role => {}
            Ok(Some(token)) => {
                let why = format!(
                    "the token `{}` may not do this; wanted one of role {} or higher",
                    token.name,
                    word(least.role)
                );
                return Err(refuse(StatusCode::FORBIDDEN, &why));
            }
            Ok(None) => {
                let why = "there is no such token; it may have been revoked or have expired";
                return Err(refuse(StatusCode::UNAUTHORIZED, why));
            }
            Err(why @ TokenError::TooMany) => {
                return Err(refuse(StatusCode::TOO_MANY_REQUESTS, &why.to_string()));
            }
            Err(TokenError::Store(_)) => {
                return Err(refuse(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the store does not answer",
                ));
            }
        },
        None => {
            if !is_local(peer, request.headers()) {
                let why = format!(
                    "from elsewhere than the farm's own machine this needs a token of role {} or higher: \
                     send `Authorization: Bearer TOKEN`; `burrow token new NAME` makes one",
                    word(least.role)
                );
                let mut response = refuse(StatusCode::UNAUTHORIZED, &why);
                let ask = header::HeaderValue::from_static("Bearer");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
                return Err(response);
            }
        }
    }
    Ok(next.run(request).await)
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Contributor => "contributor",
        Role::Admin => "admin",
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

/// Whether a program on this machine asks for itself: no proxy for somebody else, and no browser for
/// a page of another site, which may call this machine by any name.
fn is_local(peer: IpAddr, headers: &HeaderMap) -> bool {
    let foreign = ["forwarded", "x-forwarded-for", "x-real-ip", "via", "origin"];
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    if !matches!(site, None | Some(b"same-origin" | b"none")) {
        return false;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Uri>().ok());
    let host = host.as_ref().and_then(|uri| uri.host()).unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let named = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    peer.to_canonical().is_loopback() && named && !foreign.iter().any(|name| headers.contains_key(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_or_a_browser_on_this_machine_does_not_make_its_asker_local() {
        let check = |peer: &str, fields: &[(&'static str, &str)], wanted: bool| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.insert(*name, value.parse().expect("a value"));
            }
            assert_eq!(
                is_local(peer.parse().expect("an address"), &headers),
                wanted,
                "{peer} {fields:?}"
            );
        };
        check("127.0.0.1", &[("host", "127.0.0.1:8080")], true);
        check("127.0.0.9", &[("host", "localhost:8080")], true);
        check("::1", &[("host", "[::1]:8080")], true);
        check("::ffff:127.0.0.1", &[("host", "localhost")], true);
        check("10.0.0.1", &[("host", "localhost")], false);
        check("127.0.0.1", &[], false);
        check("127.0.0.1", &[("host", "farm.example.org")], false);
        check(
            "127.0.0.1",
            &[("host", "localhost"), ("x-forwarded-for", "10.0.0.1")],
            false,
        );
        check(
            "127.0.0.1",
            &[("host", "localhost"), ("forwarded", "for=10.0.0.1")],
            false,
        );
        check(
            "127.0.0.1",
            &[("host", "localhost"), ("origin", "https://elsewhere.example")],
            false,
        );
        check(
            "127.0.0.1",
            &[("host", "localhost"), ("sec-fetch-site", "cross-site")],
            false,
        );
        check(
            "127.0.0.1",
            &[("host", "localhost"), ("sec-fetch-site", "none")],
            true,
        );
    }
}
