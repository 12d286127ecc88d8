//! Who may ask for what, and that no other site can ask for them.

use axum::body::Body;
use axum::http::{Request, header};
use store::read::{Role, Wish};

use crate::world::*;

async fn post(world: &World, path: &str, headers: &[(&str, &str)], form: &str) -> Answer {
    let mut request = Request::post(path)
        .header("host", "farm.example")
        .header("content-type", "application/x-www-form-urlencoded");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world
        .send(request.body(Body::from(form.to_owned())).unwrap())
        .await
}

#[tokio::test]
async fn a_retry_by_a_program_needs_a_token_of_a_contributor() {
    let world = farm(THEN).await;
    let (reader, amy) = (
        world.token("bob", Role::Reader).await,
        world.token("amy", Role::Contributor).await,
    );
    let accept = ("accept", "application/json");
    let code = |answer: &Answer| {
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        (
            answer.status.as_u16(),
            json["error"]["code"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let nobody = post(&world, "/build/7/retry", &[accept], "").await;
    assert_eq!(code(&nobody), (401, "not_signed_in".to_owned()));
    let wrong = post(
        &world,
        "/build/7/retry",
        &[accept, ("authorization", "Bearer bt_wrong")],
        "",
    )
    .await;
    assert_eq!(code(&wrong), (401, "bad_token".to_owned()));
    let bearer = format!("Bearer {reader}");
    let reader = post(
        &world,
        "/build/7/retry",
        &[accept, ("authorization", &bearer)],
        "",
    )
    .await;
    assert_eq!(code(&reader), (403, "role_too_low".to_owned()));
    assert!(world.store.open_intents().await.unwrap().is_empty());

    let bearer = format!("Bearer {amy}");
    let amy = post(
        &world,
        "/build/7/retry",
        &[accept, ("authorization", &bearer)],
        "",
    )
    .await;
    assert_eq!(
        (amy.status.as_u16(), amy.text()),
        (200, "{\"build\":7,\"intent\":1}".to_owned())
    );
    let cancel = post(
        &world,
        "/build/22/cancel",
        &[accept, ("authorization", &bearer)],
        "",
    )
    .await;
    assert_eq!(cancel.status.as_u16(), 200);
    let none = post(
        &world,
        "/build/999/cancel",
        &[accept, ("authorization", &bearer)],
        "",
    )
    .await;
    assert_eq!(code(&none), (404, "no_build".to_owned()));
    // Nothing would come of either: it is said at once, and not noted.
    for pointless in ["/build/7/cancel", "/build/22/retry"] {
        let answer = post(&world, pointless, &[accept, ("authorization", &bearer)], "").await;
        assert_eq!(code(&answer), (409, "pointless".to_owned()), "{pointless}");
    }
    let wishes = world.store.open_intents().await.unwrap();
    let wishes: Vec<_> = wishes
        .iter()
        .map(|intent| (intent.by.as_str(), intent.wish))
        .collect();
    let id = ids::BuildId;
    assert_eq!(
        wishes,
        [("amy", Wish::Retry(id(7))), ("amy", Wish::Cancel(id(22)))]
    );
}

#[tokio::test]
async fn buttons_are_for_those_who_are_signed_in_and_only_our_own_forms_are_taken() {
    let world = farm(THEN).await;
    let amy = world.token("amy", Role::Contributor).await;
    world
        .page("/build/7")
        .await
        .has(&["Sign in to retry", "/signin?next=/build/7"])
        .lacks(&["name=\"proof\""]);
    let signed_in = post(&world, "/signin", &[], &format!("token={amy}&next=/build/7")).await;
    assert_eq!(signed_in.header(header::LOCATION), "/build/7");
    let cookie = signed_in
        .header(header::SET_COOKIE)
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    assert!(
        signed_in
            .header(header::SET_COOKIE)
            .contains("HttpOnly; SameSite=Strict")
    );
    let page = world.get_with("/build/7", &[("cookie", &cookie)]).await;
    page.has(&["action=\"/build/7/retry\"", ">Retry</button>"]);
    world
        .get_with("/build/22", &[("cookie", &cookie)])
        .await
        .has(&["action=\"/build/22/cancel\"", ">Cancel</button>"]);
    let text = page.text();
    let (_, form) = text.split_once("action=\"/build/7/retry\"").unwrap();
    let proof = form.split("value=\"").nth(1).unwrap().split('"').next().unwrap();

    let cookie = ("cookie", &*cookie);
    let form = format!("proof={proof}");
    for (headers, form, what) in [
        (
            vec![cookie, ("sec-fetch-site", "cross-site")],
            &*form,
            "another site, with the proof",
        ),
        (
            vec![cookie, ("origin", "https://evil.example")],
            &form,
            "another origin",
        ),
        (vec![cookie, ("sec-fetch-site", "same-origin")], "", "no proof"),
        (
            vec![cookie, ("sec-fetch-site", "same-origin")],
            "proof=0000",
            "a wrong proof",
        ),
    ] {
        let answer = post(&world, "/build/7/retry", &headers, form).await;
        assert_eq!(answer.status.as_u16(), 403, "{what}");
        assert!(world.store.open_intents().await.unwrap().is_empty(), "{what}");
    }
    let headers = [
        cookie,
        ("sec-fetch-site", "same-origin"),
        ("origin", "http://farm.example"),
    ];
    let done = post(&world, "/build/7/retry", &headers, &form).await;
    assert_eq!(
        (done.status.as_u16(), done.header(header::LOCATION)),
        (303, "/build/7")
    );
    assert_eq!(world.store.open_intents().await.unwrap().len(), 1);
    // A link cannot do it.
    assert_eq!(
        world.get_with("/build/7/retry", &[cookie]).await.status.as_u16(),
        405
    );
}

#[tokio::test]
async fn commands_on_pages_are_those_that_there_are() {
    let world = farm(THEN).await;
    world
        .page("/signin")
        .await
        .has(&["burrow token new NAME --role contributor"]);
    let bad = world.get_with("/", &[("authorization", "Bearer bt_wrong")]).await;
    bad.has(&["burrow token new NAME"]);
}
