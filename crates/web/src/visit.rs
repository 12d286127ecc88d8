use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use ids::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use store::read::Role;

use crate::guesses::Client;
use crate::page::{Page, Surroundings, render};
use crate::problem::Problem;

/// One request as pages see it: who asks, for what, in which form. In the extensions of every
/// request behind [`crate::Site::wrap`].
#[derive(Debug, Clone)]
pub struct Visit {
    pub who: Who,
    pub wants: Wants,
    /// Path and query as asked, `.json` and `/api/v1` already off.
    pub target: String,
    pub now: Timestamp,
    /// Whether it came in over TLS.
    pub tls: bool,
    /// Whether JSON was asked for by the address, which is therefore not the whole of [`Visit::target`].
    pub(crate) suffix: bool,
    pub(crate) client: Client,
    pub(crate) surroundings: Surroundings,
    pub(crate) if_none_match: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    Html,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    Nobody,
    /// A good token, by `Authorization: Bearer` or, with the proof that a form was ours, by cookie.
    Token {
        name: String,
        role: Role,
        form_proof: Option<String>,
    },
}

impl Visit {
    /// The view as JSON, or as the page that is drawn from it. Answers 304 if the asker has it.
    pub fn answer<V: Serialize>(&self, view: &V, draw: impl FnOnce(&V) -> Page) -> Response {
        let json = match serde_json::to_vec(view) {
            Ok(json) => json,
            Err(fault) => return Problem::internal(fault).into_response(),
        };
        let tag = self.tag(&json);
        if self.if_none_match.split(',').any(|one| one.trim() == tag) {
            return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
        }
        let mut response = match self.wants {
            Wants::Json => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
            Wants::Html => render(&self.surroundings, &draw(view)).into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-cache"),
        );
        headers.insert(
            header::VARY,
            HeaderValue::from_static("accept, cookie, authorization"),
        );
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        response
    }

    /// To another of our pages, in the form that was asked for: JSON asked for by address stays so. `to` is a path,
    /// perhaps with a query.
    pub fn redirect(&self, to: &str) -> Response {
        let to = match (self.suffix, to.split_once('?')) {
            (false, _) => to.to_owned(),
            (true, None) => format!("{to}.json"),
            (true, Some((path, query))) => format!("{path}.json?{query}"),
        };
        Redirect::to(&to).into_response()
    }

    /// Lets nobody pass whose token has a lesser role, and no form that was not ours.
    pub fn authorise(&self, least: Role, proof: Option<&str>) -> Result<&str, Problem> {
        let Who::Token {
            name,
            role,
            form_proof,
        } = &self.who
        else {
            return Err(
                Problem::new(StatusCode::UNAUTHORIZED, "not_signed_in", "this needs a token")
                    .hint("Sign in at /signin, or send `Authorization: Bearer TOKEN`."),
            );
        };
        if *role < least {
            return Err(Problem::forbidden(
                "role_too_low",
                format!(
                    "the token `{name}` may not do this; it is for {}",
                    role_name(*role)
                ),
            )
            .hint(format!("Wanted a token of role {} or higher.", role_name(least))));
        }
        match form_proof {
            Some(wanted) if proof.is_none_or(|proof| !same(proof, wanted)) => Err(Problem::forbidden(
                "form_expired",
                "this form was not made for your session",
            )
            .hint("Reload the page and send the form again.")),
            _ => Ok(name),
        }
    }

    /// Whether to show what needs `least`.
    pub fn may(&self, least: Role) -> bool {
        matches!(&self.who, Who::Token { role, .. } if *role >= least)
    }

    /// What a form must carry in its hidden field `proof`; empty when nobody is signed in.
    pub fn form_proof(&self) -> &str {
        match &self.who {
            Who::Token {
                form_proof: Some(proof),
                ..
            } => proof,
            _ => "",
        }
    }

    /// Weak: what is shown is the same, down to the minute of "3 min ago".
    fn tag(&self, json: &[u8]) -> String {
        let mut digest = Sha256::new();
        digest.update(json);
        if self.wants == Wants::Html {
            digest.update(self.surroundings.fingerprint());
            digest.update(self.now.as_secs().div_euclid(60).to_be_bytes());
        }
        format!("W/\"{}\"", hex(&digest.finalize()[..12]))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Visit, Problem> {
        let visit = parts.extensions.get::<Visit>().cloned();
        visit.ok_or_else(|| Problem::internal("a page is served without what `Site::wrap` puts around it"))
    }
}

/// Derived from the token, so that it needs no store and dies with it; tells nothing of the token.
pub(crate) fn form_proof(secret: &str) -> String {
    hex(&Sha256::digest(format!("burrow form proof\0{secret}").as_bytes())[..16])
}

pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Reader => "readers",
        Role::Contributor => "contributors",
        Role::Admin => "admins",
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares hashes, so that time tells nothing about the texts.
fn same(one: &str, other: &str) -> bool {
    Sha256::digest(one.as_bytes()) == Sha256::digest(other.as_bytes())
}
