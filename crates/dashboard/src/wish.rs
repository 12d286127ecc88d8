//! What people ask for: noted durably, done by the coordinator.

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use ids::BuildId;
use serde::Deserialize;
use store::read::{Role, Status, Wish};
use web::{Problem, Visit, Wants};

use crate::routes::{Answer, App, detail};

#[derive(Deserialize)]
pub struct Proof {
    proof: Option<String>,
}

pub async fn retry(
    State(app): State<App>,
    visit: Visit,
    Path(id): Path<String>,
    form: Result<Form<Proof>, FormRejection>,
) -> Answer {
    wish(&app, &visit, &id, form, Wish::Retry).await
}

pub async fn cancel(
    State(app): State<App>,
    visit: Visit,
    Path(id): Path<String>,
    form: Result<Form<Proof>, FormRejection>,
) -> Answer {
    wish(&app, &visit, &id, form, Wish::Cancel).await
}

async fn wish(
    app: &App,
    visit: &Visit,
    id: &str,
    form: Result<Form<Proof>, FormRejection>,
    wish: fn(BuildId) -> Wish,
) -> Answer {
    // A call by a program has no form.
    let proof = form.ok().and_then(|Form(form)| form.proof);
    let by = visit.authorise(Role::Contributor, proof.as_deref())?;
    let row = detail(app, id).await?.row;
    let (build, wish) = (row.build, wish(row.build));
    if let Some(why) = pointless(wish, row.state.status()) {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "pointless",
            format!("build {build} {why}"),
        ));
    }
    let intent = app.store.add_intent(wish, by, visit.now).await?;
    Ok(match visit.wants {
        Wants::Json => axum::Json(serde_json::json!({ "intent": intent, "build": build.0 })).into_response(),
        Wants::Html => Redirect::to(&format!("/build/{build}")).into_response(),
    })
}

/// Why nothing would come of a wish. The build may change before the coordinator sees the wish, which then answers it.
fn pointless(wish: Wish, status: Status) -> Option<&'static str> {
    match (wish, status) {
        (Wish::Retry(_), Status::Running) => Some("runs; wait for its end, or cancel it first"),
        (Wish::Cancel(_), Status::Passed | Status::Failed | Status::Infra | Status::Cancelled) => {
            Some("has ended already")
        }
        (Wish::Retry(_) | Wish::Cancel(_), _) => None,
    }
}
