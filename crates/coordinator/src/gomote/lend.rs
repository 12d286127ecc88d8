//! `/buildlet/create` and `/buildlet/list`.

use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use config::Pool;
use futures_util::stream;
use ids::{BuilderName, MachineId};
use schedule::{Reason, Waiting};
use serde::Deserialize;
use tokio::time::{Instant, Interval, interval_at};
use web::{Client, ConnectionInfo};

use super::desk::Ask;
use super::wire::{Line, OLDEST_VERSION, Refusal, RemoteBuildlet, STREAM_VERSION, refusal};
use super::{Gomotes, who};
use crate::{current, engine};

/// How often who waits is told about it. Source: golang/build `cmd/coordinator/remote.go`.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Until then who need not wait has not waited, and what waits has been explained.
const STATUS_FIRST: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    version: String,
    #[serde(default, rename = "builderType")]
    builder_type: String,
}

pub async fn create(
    State(app): State<Gomotes>,
    Extension(connection): Extension<ConnectionInfo>,
    method: Method,
    headers: HeaderMap,
    form: Result<Form<Asked>, FormRejection>,
) -> Result<Response, Refusal> {
    let owner = app.owner(&headers, connection).await?;
    if method != Method::POST {
        return Err(refusal(400, "POST required"));
    }
    let Form(asked) = form.map_err(|why| refusal(400, why.body_text()))?;
    if asked.version.as_str() < OLDEST_VERSION {
        let text = format!(
            "gomote client version \"{}\" is too old; the oldest that is served is \"{OLDEST_VERSION}\"",
            asked.version
        );
        return Err(refusal(400, text));
    }
    if asked.builder_type.is_empty() {
        return Err(refusal(400, "missing 'builderType' parameter"));
    }
    let config = current(&app.config);
    let builder = asked.builder_type.parse::<BuilderName>().ok();
    let Some((builder, conf)) = builder.and_then(|name| config.builders.get(&name).map(|conf| (name, conf)))
    else {
        return Err(refusal(400, "unknown builder type in 'builderType' parameter"));
    };
    let hello = app.machines_of(conf).await;
    let ask = app.desk.ask(&app.inputs, owner, builder).await;
    let mut ask = ask.ok_or_else(|| refusal(503, "the coordinator stops"))?;
    let head = [("x-supported-version", STREAM_VERSION), ("connection", "close")];
    let json = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    if asked.version.as_str() < STREAM_VERSION {
        let loan = ask.answer().await.map_err(|why| refusal(500, why))?;
        return Ok((head, json, pretty(&RemoteBuildlet::from(&loan))).into_response());
    }
    let lines = Lines {
        app,
        ask,
        every: interval_at(Instant::now() + STATUS_FIRST, STATUS_EVERY),
        hello,
    };
    let lines = stream::unfold(Some(lines), next_line);
    Ok((head, json, Body::from_stream(lines)).into_response())
}

pub async fn list(
    State(app): State<Gomotes>,
    Extension(connection): Extension<ConnectionInfo>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let owner = app.owner(&headers, connection).await?;
    if method != Method::GET {
        return Err(refusal(400, "GET required"));
    }
    let loans = app.store.loans().await;
    let loans = loans.map_err(|why| refusal(503, format!("{:#}", anyhow::Error::from(why))))?;
    let own = loans.iter().filter(|row| row.loan.owner == owner);
    let list: Vec<RemoteBuildlet> = own.map(|row| (&row.loan).into()).collect();
    let json = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    // The next request of a Go client may be for a machine, and is then to come on a connection of its own.
    Ok(([("connection", "close")], json, pretty(&list)).into_response())
}

fn pretty(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_string_pretty(value).expect("texts make JSON");
    format!("{json}\n")
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let head = [
            ("content-type", "text/plain; charset=utf-8".to_owned()),
            ("x-content-type-options", "nosniff".to_owned()),
            ("burrow-error", self.header()),
            ("connection", "close".to_owned()),
        ];
        (status, head, format!("{}\n", self.text)).into_response()
    }
}

impl Gomotes {
    pub(super) async fn owner(
        &self,
        headers: &HeaderMap,
        connection: ConnectionInfo,
    ) -> Result<String, Refusal> {
        let shown = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let client = Client::of(connection.peer.ip(), headers);
        who::owner(
            shown.unwrap_or_default(),
            client,
            connection,
            &self.master,
            &self.tokens,
        )
        .await
    }

    /// What the original says at first of machines that cannot be made.
    async fn machines_of(&self, builder: &config::Builder) -> Option<String> {
        let config = current(&self.config);
        let Pool::Reverse { expect, .. } = config.hosts.get(&builder.host)?.pool else {
            return None;
        };
        let (machines, loans) = (self.store.machines().await.ok()?, self.store.loans().await.ok()?);
        let connected = machines
            .iter()
            .filter(|row| row.host_type == builder.host && row.connected);
        let lent = |machine: &MachineId| loans.iter().any(|row| row.loan.machine == *machine);
        let busy = connected
            .clone()
            .filter(|row| row.running.is_some() || lent(&row.machine))
            .count();
        let host = &builder.host;
        Some(match connected.count() {
            0 => format!("host type \"{host}\" is not elastic; no machines are connected"),
            n => {
                format!(
                    "host type \"{host}\" is not elastic; {n} of {expect} machines connected, {busy} busy"
                )
            }
        })
    }

    fn status(&self, ask: &Ask) -> Line<'static> {
        let board = engine::read(&self.board);
        let Some(found) = board.loans.iter().find(|loan| loan.ticket == ask.ticket) else {
            return Line::Status {
                message: String::new(),
                ahead: 0,
            };
        };
        let waiting = &found.waiting;
        let starts = waiting.starts.map(|at| {
            let minutes = at.since(engine::wall()).as_secs().div_ceil(60);
            format!("; should start in {minutes} min")
        });
        let (why, ahead) = (why(waiting), waiting.ahead);
        Line::Status {
            message: format!("{why}; {ahead} before you{}", starts.unwrap_or_default()),
            ahead,
        }
    }
}

/// Why somebody waits, in words.
pub fn why(waiting: &Waiting) -> String {
    let host = &waiting.host_type;
    match &waiting.reason {
        Reason::NoMachine => format!("no machine of type {host} is connected"),
        Reason::AllBusy { machines } => format!("all {machines} machines of type {host} are at work"),
        Reason::BuilderLimit { running, max } => {
            format!("its builder runs {running} at once and may run {max}")
        }
        Reason::Paused { why } => format!("nothing is started: {why}"),
        // Of builds that are tried again only.
        Reason::BackOff { .. } | Reason::Avoiding { .. } => "it waits".to_owned(),
    }
}

/// The answer to a create that is told line by line.
struct Lines {
    app: Gomotes,
    ask: Ask,
    every: Interval,
    /// Said first.
    hello: Option<String>,
}

async fn next_line(lines: Option<Lines>) -> Option<(std::io::Result<Bytes>, Option<Lines>)> {
    let mut lines = lines?;
    if let Some(message) = lines.hello.take() {
        let line = Line::Status { message, ahead: 0 };
        return Some((Ok(line.text().into()), Some(lines)));
    }
    let line = tokio::select! {
        biased;
        answer = lines.ask.answer() => {
            let line = match &answer {
                Ok(loan) => Line::Buildlet(loan.into()).text(),
                Err(why) => Line::Error(why.clone()).text(),
            };
            return Some((Ok(line.into()), None));
        }
        _ = lines.every.tick() => lines.app.status(&lines.ask).text(),
    };
    Some((Ok(line.into()), Some(lines)))
}
