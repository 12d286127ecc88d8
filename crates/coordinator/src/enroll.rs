//! Makes a machine known that shows an enrolment token: `POST /burrow/enroll`.

use axum::Extension;
use axum::extract::rejection::FormRejection;
use axum::extract::{DefaultBodyLimit, Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing;
use ids::MachineId;
use pool_reverse::identity::PublicKey;
use revdial::proof;
use serde::{Deserialize, Serialize};
use store::{Enrolled, Store};
use tracing::{info, warn};
use web::{ConnectionInfo, Table};

use crate::engine;

const BODY_MAX: usize = 16 * 1024;

#[derive(Deserialize)]
struct Asked {
    token: String,
    public_key: String,
    hostname: String,
    proof: String,
}

#[derive(Serialize)]
struct Known {
    name: String,
    host_type: String,
}

pub fn table() -> Table<Store> {
    let enroll = routing::post(enroll).layer(DefaultBodyLimit::max(BODY_MAX));
    vec![(proof::ENROL, enroll)]
}

async fn enroll(
    State(store): State<Store>,
    Extension(connection): Extension<ConnectionInfo>,
    form: Result<Form<Asked>, FormRejection>,
) -> Result<Json<Known>, Response> {
    let refuse = |status: StatusCode, why: String| (status, format!("{why}\n")).into_response();
    let bad = |why: &str| refuse(StatusCode::BAD_REQUEST, why.to_owned());
    if !connection.tls && !connection.peer.ip().is_loopback() {
        return Err(bad("machines are enrolled over TLS only"));
    }
    let Form(asked) = form.map_err(|why| refuse(why.status(), why.body_text()))?;
    let key = PublicKey::parse(&asked.public_key);
    let key = key.ok_or_else(|| bad("`public_key` is no key; wanted 64 hex digits in lower case"))?;
    let hostname =
        plain(&asked.hostname).ok_or_else(|| bad("`hostname` is empty or longer than 100 characters"))?;
    let signed = proof::enrolment(&asked.token, &asked.public_key, &asked.hostname);
    if !key.has_signed(&signed, &asked.proof) {
        return Err(bad("`proof` is not by the key that is to be enrolled"));
    }
    let peer = connection.peer;
    let came = store
        .enrol(&asked.token, &asked.public_key, &hostname, engine::wall())
        .await
        .map_err(|why| {
            warn!(%peer, "cannot enrol a machine from {peer}: {:#}", anyhow::Error::from(why));
            refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "the store does not answer".to_owned(),
            )
        })?;
    let day = |at: ids::Timestamp| crate::gomote::time(at);
    let why = match came {
        Enrolled::Known(row) => {
            let (name, host_type) = (row.name, row.host_type.to_string());
            info!(%peer, name, host_type, "enrolled {name} ({host_type}) from {peer}");
            return Ok(Json(Known { name, host_type }));
        }
        Enrolled::NoSuchToken => "there is no such enrolment token".to_owned(),
        Enrolled::Used(at, by) => format!(
            "this token was used at {} by {by}; each is for one machine",
            day(at)
        ),
        Enrolled::Expired(at) => format!("this token expired at {}; ask for a new one", day(at)),
        Enrolled::Revoked(at) => format!("this token was taken back at {}", day(at)),
        Enrolled::KeyTaken => "this key is known by another token, or was revoked; make a new one".to_owned(),
    };
    warn!(%peer, hostname, "refused to enrol `{hostname}` from {peer}: {why}");
    Err(refuse(StatusCode::FORBIDDEN, why))
}

/// What a machine can be called: its host name without what does not belong into names.
fn plain(hostname: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let plain: String = hostname.chars().map(|c| if fits(c) { c } else { '-' }).collect();
    let ok = (1..=100).contains(&plain.len()) && MachineId::parse(&plain).is_ok();
    ok.then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_machine_is_called_as_its_host_in_plain_letters() {
        assert_eq!(plain("rack-7.example.org").as_deref(), Some("rack-7.example.org"));
        assert_eq!(plain("a b/ü\n").as_deref(), Some("a-b---"));
        assert_eq!(plain(""), None);
        assert_eq!(plain(&"x".repeat(101)), None);
    }
}
