use std::sync::Arc;
use std::time::Duration;

use buildlet_api::{CallError, Client, ListOptions, TcpConnect, Upload};
use ids::MachineId;

use crate::server::Server;

const STATUS: &str = "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"Version\":27}\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";

fn shown<T>(result: Result<T, CallError>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn a_connection_is_used_again_and_a_stale_one_replaced() {
    let server = Server::play(&[&[STATUS, STATUS], &[STATUS]]).await;
    for _ in 0..3 {
        assert_eq!(server.client.status().await.unwrap().version, 27);
    }
    let requests = server.requests().await;
    assert_eq!(requests.len(), 3);
    let head = requests[0].to_ascii_lowercase();
    assert!(
        head.starts_with("get /status http/1.1\r\nhost: 127.0.0.1:"),
        "{head}"
    );
    assert!(
        head.contains("\r\nauthorization: basic z29tb3rlonb3\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn a_refusal_carries_its_status_and_reason() {
    let refusal = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 13\r\n\r\nnot allowed\n\n";
    let server = Server::play(&[&[refusal]]).await;
    let shown = shown(server.client.work_dir().await);
    assert_eq!(shown, "buildlet m1 answered 401 to GET /workdir: not allowed");
}

#[tokio::test]
async fn nothing_listening_is_gone() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = Client::new(
        Arc::new(TcpConnect(address)),
        MachineId::parse("m1").unwrap(),
        None,
    );
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, CallError::Gone { .. }), "{error}");
}

#[tokio::test]
async fn halting_gives_up_after_two_seconds() {
    // The connection is taken by the system, but nobody answers on it.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = Client::new(
        Arc::new(TcpConnect(address)),
        MachineId::parse("m1").unwrap(),
        None,
    );
    let began = std::time::Instant::now();
    let error = client.halt().await.unwrap_err();
    assert!(
        matches!(error, CallError::Timeout { limit, .. } if limit == Duration::from_secs(2)),
        "{error}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn an_answer_that_is_no_status_is_nonsense() {
    let server = Server::play(&[&["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnope"]]).await;
    let shown = shown(server.client.status().await);
    assert_eq!(
        shown,
        "buildlet m1 answered GET /status with `nope`; wanted the JSON of this call"
    );
}

#[tokio::test]
async fn uploads_carry_file_bytes_and_reader() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.tgz");
    std::fs::write(&file, "file").unwrap();
    let server = Server::play(&[&[OK], &[OK], &[OK]]).await;
    let client = &server.client;
    client.put_tgz("", Upload::File(file)).await.unwrap();
    client
        .put_file("a b", 0o755, Upload::Bytes("bytes".into()))
        .await
        .unwrap();
    let reader = Upload::Reader {
        reader: Box::new(&b"reader"[..]),
        size: None,
    };
    client.put_tgz("go1.4", reader).await.unwrap();
    let requests = server.requests().await;
    assert!(
        requests[0].starts_with("PUT /writetgz?dir= HTTP/1.1\r\n"),
        "{}",
        requests[0]
    );
    assert!(
        requests[0].ends_with("\r\n\r\n4\r\nfile\r\n0\r\n\r\n"),
        "{}",
        requests[0]
    );
    assert!(
        requests[1].starts_with("PUT /write?mode=493&path=a+b HTTP/1.1\r\n"),
        "{}",
        requests[1]
    );
    assert!(requests[1].ends_with("\r\n\r\nbytes"), "{}", requests[1]);
    assert!(
        requests[2].starts_with("PUT /writetgz?dir=go1.4 HTTP/1.1\r\n"),
        "{}",
        requests[2]
    );
    assert!(
        requests[2].ends_with("6\r\nreader\r\n0\r\n\r\n"),
        "{}",
        requests[2]
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_no_fault_of_the_buildlet() {
    let server = Server::play(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let error = server
        .client
        .put_tgz("", Upload::File(folder.path().join("none")))
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Local { .. }), "{error}");
    // Opens, but cannot be read.
    let server = Server::play(&[&[OK]]).await;
    let error = server
        .client
        .put_tgz("", Upload::File(folder.path().to_owned()))
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Local { .. }), "{error}");
}

#[tokio::test]
async fn a_listing_is_read_and_a_cut_one_is_an_error() {
    let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        11\r\ndrwxr-xr-x\tsrc/\n-\r\n1e\r\nrw-r--r--\ta\t3\t2018-06-13T21:27\r\n5\r\n:35Z\n\r\n0\r\n\r\n";
    let cut = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\ndrwxr-xr-x\tsrc/\n\r\n";
    let server = Server::play(&[&[whole], &[cut]]).await;
    let options = ListOptions {
        recursive: true,
        skip: vec!["x".into()],
        ..ListOptions::default()
    };
    let entries = server.client.ls("", &options, 100).await.unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1].file.as_ref().unwrap().size, 3);
    let error = server.client.ls("", &options, 100).await.unwrap_err();
    assert!(matches!(error, CallError::Gone { .. }), "{error}");
    let request = &server.requests().await[0];
    assert!(
        request.starts_with("GET /ls?digest=false&dir=&recursive=true&skip=x HTTP/1.1"),
        "{request}"
    );
}

#[tokio::test]
async fn an_archive_is_read_within_its_limit_and_a_cut_one_is_an_error() {
    let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let cut = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let server = Server::play(&[&[whole, cut], &[whole]]).await;
    let mut out = Vec::new();
    assert_eq!(server.client.tgz("", &mut out, 5).await.unwrap(), 5);
    assert_eq!(out, b"abcde");
    assert!(matches!(
        server.client.tgz("", &mut out, 5).await,
        Err(CallError::Gone { .. })
    ));
    assert!(matches!(
        server.client.tgz("", &mut out, 4).await,
        Err(CallError::Nonsense { .. })
    ));
    assert!(server.requests().await[0].starts_with("GET /tgz?dir=. HTTP/1.1"));
}

#[tokio::test]
async fn paths_to_remove_go_into_the_body_in_order() {
    let server = Server::play(&[&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]]).await;
    server.client.remove_all(&["b", "."]).await.unwrap();
    let request = &server.requests().await[0];
    assert!(request.starts_with("POST /removeall HTTP/1.1"), "{request}");
    assert!(request.ends_with("\r\n\r\npath=b&path=."), "{request}");
}
