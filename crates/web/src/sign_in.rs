use axum::Router;
use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use maud::html;
use serde::{Deserialize, Serialize};

use crate::page::{Page, Section};
use crate::problem::Problem;
use crate::site::Site;
use crate::table::{Table, router};
use crate::visit::{Visit, Who, role_name};

/// Holds the token itself: it is as revocable as the token, and a script cannot read it.
pub(crate) const COOKIE: &str = "burrow_token";

/// 30 days, in seconds; the token may end before.
const COOKIE_AGE: u64 = 30 * 86_400;

/// Longer than any token.
const LONGEST_TOKEN: usize = 200;

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct SignIn {
    #[serde(default)]
    token: String,
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct SignOut {
    #[serde(default)]
    proof: String,
}

#[derive(Serialize)]
struct SignInView {
    /// The token's name; `null` for nobody.
    name: Option<String>,
    role: Option<&'static str>,
    #[serde(skip)]
    next: String,
}

pub(crate) fn routes(site: Site) -> Router {
    router(table()).with_state(site)
}

fn table() -> Table<Site> {
    vec![
        ("/signin", get(show).post(sign_in)),
        ("/signout", axum::routing::post(sign_out)),
    ]
}

pub(crate) fn paths() -> Vec<String> {
    table().into_iter().map(|(path, _)| path.to_owned()).collect()
}

async fn show(visit: Visit, Query(wanted): Query<Wanted>) -> Response {
    let (name, role) = match &visit.who {
        Who::Nobody => (None, None),
        Who::Token { name, role, .. } => (Some(name.clone()), Some(role_name(*role))),
    };
    let view = SignInView {
        name,
        role,
        next: local(&wanted.next).to_owned(),
    };
    visit.answer(&view, |view| Page {
        title: "Sign in".to_owned(),
        here: Section::Elsewhere,
        live: false,
        body: html! {
            section.narrow {
                h1 { "Sign in" }
                p { "A token lets you retry and cancel builds. Whoever runs the farm hands them out." }
                form.stack method="post" action="/signin" {
                    input type="hidden" name="next" value=(view.next);
                    label for="token" { "Token" }
                    input #token type="password" name="token" required autofocus autocomplete="current-password"
                        spellcheck="false" maxlength=(LONGEST_TOKEN);
                    button.primary type="submit" { "Sign in" }
                }
                p.dim { "For operators: " code { "burrow token new NAME --role contributor" } " prints one." }
            }
        },
    })
}

async fn sign_in(
    State(site): State<Site>,
    visit: Visit,
    headers: HeaderMap,
    Form(form): Form<SignIn>,
) -> Response {
    let token = form.token.trim();
    let plain = !token.is_empty() && token.len() <= LONGEST_TOKEN && token.bytes().all(is_cookie_byte);
    let found = if plain {
        site.tokens.check(visit.client, token, visit.now).await
    } else {
        Ok(None)
    };
    match found {
        Err(fault) => Problem::from(fault).into_response(),
        Ok(None) => Problem::new(StatusCode::UNAUTHORIZED, "bad_token", "there is no such token")
            .hint("It may have been revoked or have expired, or not have been copied whole. Go back and try again.")
            .into_response(),
        Ok(Some(_)) => {
            let secure = if is_https(&headers, &visit) { "; Secure" } else { "" };
            let cookie = format!(
                "{COOKIE}={token}; Path=/; Max-Age={COOKIE_AGE}; HttpOnly; SameSite=Strict{secure}"
            );
            with_cookie(Redirect::to(local(&form.next)).into_response(), &cookie)
        }
    }
}

async fn sign_out(visit: Visit, Form(form): Form<SignOut>) -> Response {
    // A sign-out forged by another site would do little harm; it is refused like any other form.
    if let Who::Token { .. } = visit.who
        && let Err(problem) = visit.authorise(store::read::Role::Reader, Some(&form.proof))
    {
        return problem.into_response();
    }
    let cookie = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    with_cookie(Redirect::to("/").into_response(), &cookie)
}

/// The cookie's value, if the request has one that could be a token.
pub(crate) fn token_in_cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == COOKIE && !value.is_empty())
        .map(|(_, value)| value)
}

/// Where to go on: a path of ours, never another site's.
fn local(next: &str) -> &str {
    let ours = next.starts_with('/')
        && !next.starts_with("//")
        && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if ours { next } else { "/" }
}

fn is_https(headers: &HeaderMap, visit: &Visit) -> bool {
    visit.tls
        || headers
            .get("x-forwarded-proto")
            .is_some_and(|proto| proto == "https")
}

fn is_cookie_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    match HeaderValue::from_str(cookie) {
        Ok(cookie) => {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            response
        }
        Err(fault) => Problem::internal(fault).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_in_leads_only_to_our_own_pages() {
        for ours in ["/", "/build/7?step=1", "/repo/a/release/1.2"] {
            assert_eq!(local(ours), ours);
        }
        for foreign in [
            "",
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "build",
            "/a b",
            "/a\r\nX: y",
        ] {
            assert_eq!(local(foreign), "/", "{foreign:?}");
        }
    }

    #[test]
    fn the_token_is_found_among_other_cookies() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::COOKIE,
            HeaderValue::from_static("a=b; burrow_token=bt_1; c=d"),
        );
        assert_eq!(token_in_cookie(&headers), Some("bt_1"));
        headers.clear();
        headers.append(header::COOKIE, HeaderValue::from_static("burrow_token="));
        assert_eq!(token_in_cookie(&headers), None);
    }
}
