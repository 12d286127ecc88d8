//! The client against a server that is there.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use gerrit::credentials::Credentials;
use gerrit::rest::{Client, RestError};

#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

/// A page of changes as a server writes it.
fn page(numbers: &[u32], more: bool) -> String {
    let changes: Vec<String> = numbers
        .iter()
        .map(|number| {
            let more = if more && numbers.last() == Some(number) { r#","_more_changes":true"# } else { "" };
            format!(
                r#"{{"project":"p","branch":"master","_number":{number},"change_id":"I","subject":"s","status":"NEW","created":"2026-11-23 10:48:25.000000000","updated":"2026-11-23 10:48:25.000000000","owner":{{"_account_id":5}}{more}}}"#
            )
        })
        .collect();
    format!(")]}}'\n[{}]", changes.join(","))
}

async fn answer(State(seen): State<Arc<Seen>>, headers: HeaderMap, uri: Uri) -> (StatusCode, String) {
    let who = ["authorization", "cookie"]
        .iter()
        .find_map(|name| headers.get(*name));
    let who = who.map_or("-", |who| who.to_str().unwrap());
    seen.0.lock().unwrap().push(format!("{uri} {who}"));
    match uri.path() {
        "/gone" => (StatusCode::NOT_FOUND, "Not found\n".to_owned()),
        "/busy" => (StatusCode::SERVICE_UNAVAILABLE, "x".repeat(100_000)),
        "/page" => (StatusCode::OK, "<html>".to_owned()),
        // While it is read, a change comes in at the top: 2 is seen twice.
        path if path.ends_with("/changes/") => match uri.query().unwrap_or_default().contains("S=2") {
            false => (StatusCode::OK, page(&[3, 2], true)),
            true => (StatusCode::OK, page(&[2, 1], false)),
        },
        _ => (StatusCode::OK, ")]}'\n7".to_owned()),
    }
}

async fn server() -> (String, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(answer).with_state(seen.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (base, seen)
}

fn http() -> reqwest::Client {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn a_query_is_read_to_its_last_page() {
    let (base, seen) = server().await;
    let client = Client::new(http(), &base, None);
    let found = client
        .changes("project:p is:open", &["MESSAGES", "LABELS"])
        .await
        .unwrap();
    let numbers: Vec<u32> = found.iter().map(|change| change.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(
        *seen.0.lock().unwrap(),
        [
            "/changes/?o=MESSAGES&o=LABELS&q=project%3Ap+is%3Aopen -",
            "/changes/?o=MESSAGES&o=LABELS&q=project%3Ap+is%3Aopen&S=2 -"
        ]
    );
}

#[tokio::test]
async fn with_credentials_the_other_door_is_taken() {
    let (base, seen) = server().await;
    let basic = Credentials::Basic {
        user: "me".into(),
        password: "pw".into(),
    };
    let cookie = Credentials::Cookie("o=git-me=x".into());
    for credentials in [basic, cookie] {
        let client = Client::new(http(), &base, Some(credentials));
        assert_eq!(client.get::<u32>("/accounts/self", &[]).await.unwrap(), 7);
    }
    assert_eq!(
        *seen.0.lock().unwrap(),
        ["/a/accounts/self Basic bWU6cHc=", "/a/accounts/self o=git-me=x"]
    );
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_that_says_so() {
    let (base, _) = server().await;
    let client = Client::new(http(), &base, None);
    let gone = client.get::<u32>("/gone", &[]).await.unwrap_err();
    assert!(matches!(gone, RestError::NotFound { .. }), "{gone}");
    let busy = client.get::<u32>("/busy", &[]).await.unwrap_err();
    assert!(
        matches!(&busy, RestError::Refused { status: 503, said, .. } if said.len() == 4096),
        "{busy}"
    );
    let page = client.get::<u32>("/page", &[]).await.unwrap_err();
    assert!(matches!(page, RestError::Malformed { .. }), "{page}");
}
