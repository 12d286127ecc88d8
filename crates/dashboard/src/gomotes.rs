//! Machines lent to people: who has what, until when, and who waits for one and why.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use ids::Timestamp;
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use store::Store;
use store::read::{LoanRow, Role};
use web::{Moment, Page, Problem, Section, Visit, Wants, Who, ago, duration, segment};

/// What the page is made from.
#[derive(Clone)]
pub struct Gomotes {
    pub store: Store,
    /// Those who wait, in order, with the reason in words.
    pub waiting: Arc<dyn Fn() -> Vec<WaitingLoan> + Send + Sync>,
}

/// Somebody who waits for a machine.
#[derive(Debug, Clone, Serialize)]
pub struct WaitingLoan {
    pub owner: String,
    pub builder: String,
    pub host_type: String,
    pub asked: i64,
    /// How many of the same host type are before them.
    pub ahead: usize,
    pub why: String,
    pub starts: Option<i64>,
}

/// Times are microseconds since 1970, as on all pages.
#[derive(Serialize)]
struct GomotesPage {
    lent: Vec<LentView>,
    waiting: Vec<WaitingLoan>,
    #[serde(skip)]
    proof: String,
}

#[derive(Serialize)]
struct LentView {
    name: String,
    owner: String,
    builder: String,
    host_type: String,
    machine: String,
    connected: bool,
    since: i64,
    expires: i64,
    /// Who wants it to end.
    return_by: Option<String>,
    /// Whether the asker may end it.
    may_end: bool,
}

/// To be merged into what [`web::Site::wrap`] wraps.
pub fn gomotes(gomotes: Gomotes) -> Router {
    web::router(table()).with_state(gomotes)
}

fn table() -> web::Table<Gomotes> {
    vec![
        ("/gomotes", get(list)),
        ("/gomotes/{name}/destroy", post(destroy)),
    ]
}

/// The paths of [`gomotes`].
pub fn gomote_paths() -> Vec<&'static str> {
    table().into_iter().map(|(path, _)| path).collect()
}

/// Their owner may end loans, and so may admins.
fn may_end(visit: &Visit, row: &LoanRow) -> bool {
    match &visit.who {
        Who::Nobody => false,
        Who::Token {
            role: Role::Admin, ..
        } => true,
        Who::Token { name, role, .. } => {
            *role >= Role::Contributor && row.loan.owner == format!("user-{name}")
        }
    }
}

async fn list(State(app): State<Gomotes>, Extension(visit): Extension<Visit>) -> Result<Response, Problem> {
    let (loans, machines) = (app.store.loans().await?, app.store.machines().await?);
    let lent = loans.into_iter().map(|row| LentView {
        may_end: may_end(&visit, &row),
        connected: machines
            .iter()
            .any(|machine| machine.machine == row.loan.machine && machine.connected),
        name: row.loan.name,
        owner: row.loan.owner,
        builder: row.loan.builder.to_string(),
        host_type: row.loan.host_type.to_string(),
        machine: row.loan.machine.to_string(),
        since: row.loan.since.0,
        expires: row.loan.expires.0,
        return_by: row.return_by,
    });
    let view = GomotesPage {
        lent: lent.collect(),
        waiting: (app.waiting)(),
        proof: visit.form_proof().to_owned(),
    };
    Ok(visit.answer(&view, |view| draw(view, visit.now)))
}

#[derive(Deserialize)]
struct Proof {
    proof: Option<String>,
}

async fn destroy(
    State(app): State<Gomotes>,
    Extension(visit): Extension<Visit>,
    Path(name): Path<String>,
    form: Result<Form<Proof>, FormRejection>,
) -> Result<Response, Problem> {
    // A call by a program has no form.
    let proof = form.ok().and_then(|Form(form)| form.proof);
    let by = visit.authorise(Role::Contributor, proof.as_deref())?;
    let row = app.store.loan(&name).await?.filter(|row| row.ended.is_none());
    let row = row.ok_or_else(|| {
        Problem::not_found("no_gomote", format!("no machine is lent as `{name}`"))
            .hint("It may have been given back meanwhile; /gomotes shows those that are lent.")
    })?;
    if !may_end(&visit, &row) {
        return Err(
            Problem::forbidden("not_yours", format!("`{name}` is {}'s", row.loan.owner))
                .hint("Its owner ends it, or an admin."),
        );
    }
    app.store.return_loan(row.loan.loan, by).await?;
    Ok(match visit.wants {
        Wants::Json => axum::Json(serde_json::json!({ "name": name })).into_response(),
        Wants::Html => Redirect::to("/gomotes").into_response(),
    })
}

fn draw(view: &GomotesPage, now: Timestamp) -> Page {
    let body = html! {
        h1 { "Lent machines" }
        p.say { "Anybody with a contributor's token can borrow one: " code { "burrow gomote create BUILDER" } "." }
        h2 { (view.lent.len()) " lent" }
        @if view.lent.is_empty() { p.empty { "No machine is lent." } } @else {
            table.list {
                thead { tr { th scope="col" { "Gomote" } th scope="col" { "Owner" } th scope="col" { "Machine" } th scope="col" { "Since" } th scope="col" { "Until, if unused" } th scope="col" { "" } } }
                tbody { @for lent in &view.lent { (row(lent, &view.proof, now)) } }
            }
        }
        h2 { (view.waiting.len()) " waiting" }
        @if view.waiting.is_empty() { p.empty { "Nobody waits for one." } } @else {
            table.list {
                thead { tr { th scope="col" { "Owner" } th scope="col" { "Builder" } th scope="col" { "Waits" } th scope="col" { "Why" } th scope="col" { "Before it" } th scope="col" { "Should start" } } }
                tbody {
                    @for wait in &view.waiting {
                        tr {
                            th scope="row" { (wait.owner) }
                            td { (wait.builder) }
                            td { (when(now, wait.asked)) }
                            td { (wait.why) }
                            td { (wait.ahead) }
                            td { @match wait.starts { Some(at) => { "in " (left(now, at)) } None => "unknown" } }
                        }
                    }
                }
            }
        }
    };
    Page {
        title: "Lent machines".to_owned(),
        here: Section::Machines,
        body,
        live: true,
    }
}

fn row(lent: &LentView, proof: &str, now: Timestamp) -> Markup {
    html! {
        tr {
            th scope="row" { (lent.name) }
            td { (lent.owner) }
            td { (lent.machine) " (" (lent.host_type) ")" @if !lent.connected { strong.failed { " · out of reach" } } }
            td { (when(now, lent.since)) }
            td { "in " (left(now, lent.expires)) }
            td {
                @if let Some(by) = &lent.return_by { "ending, for " (by) }
                @else if lent.may_end {
                    form method="post" action={ "/gomotes/" (segment(&lent.name)) "/destroy" } {
                        input type="hidden" name="proof" value=(proof);
                        button { "End it" }
                    }
                }
            }
        }
    }
}

fn when(now: Timestamp, micros: i64) -> Markup {
    ago(now, Moment(Timestamp(micros)))
}

fn left(now: Timestamp, micros: i64) -> Markup {
    html! { (duration(u64::try_from((micros - now.0) / 1000).unwrap_or(0))) }
}
