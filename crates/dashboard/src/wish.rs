//! What people ask for: noted durably, done by the coordinator.

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, State};
use axum::response::{IntoResponse, Redirect};
use ids::BuildId;
use serde::Deserialize;
use store::read::{Role, Wish};
use web::{Visit, Wants};

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
    let build = detail(app, id).await?.row.build;
    let intent = app.store.add_intent(wish(build), by, visit.now).await?;
    Ok(match visit.wants {
        Wants::Json => axum::Json(serde_json::json!({ "intent": intent, "build": build.0 })).into_response(),
        Wants::Html => Redirect::to(&format!("/build/{build}")).into_response(),
    })
}
