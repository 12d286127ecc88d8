use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use maintnerd::{Leader, Served, routes};
use mutlog::{Folder, LogReader, Segment, SegmentNumber, Sum};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::farm::{FIRST, SECOND, append, served};

async fn ask(
    router: &Router,
    method: &str,
    uri: &str,
    range: Option<&str>,
) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::builder().method(method).uri(uri);
    if let Some(range) = range {
        request = request.header("range", range);
    }
    let answer = router
        .clone()
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, body.escape_ascii().to_string())
}

async fn get(router: &Router, uri: &str) -> (StatusCode, HeaderMap, String) {
    ask(router, "GET", uri, None).await
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// A log with the records of the worked example in segments of at most `target` bytes.
async fn worked(target: u64) -> (tempfile::TempDir, Leader, Router) {
    let dir = tempfile::tempdir().unwrap();
    let leader = Leader::open_with_target(Folder::new(dir.path()), target).unwrap();
    append(&leader, vec![FIRST.to_vec(), SECOND.to_vec()]).await;
    let router = served(&leader, &CancellationToken::new());
    (dir, leader, router)
}

#[tokio::test]
async fn the_index_lists_segments_as_the_original_does() {
    let (_dir, _leader, router) = worked(1000).await;
    let (status, headers, body) = get(&router, "/logs?waitsizenot=0").await;
    let expect = "[\n\t{\n\t\t\"number\": 0,\n\t\t\"size\": 145,\n\t\t\"sha224\": \"a06711825da704f57b80ab3c42473ce6813bfaf50f8d3773f9047e1d\",\n\t\t\"url\": \"logs/0\"\n\t}\n]";
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::OK, &*expect.escape_default().to_string())
    );
    assert_eq!(
        (
            header(&headers, "content-type"),
            header(&headers, "x-sum-segment-size")
        ),
        ("application/json", "145")
    );
    let (status, _, body) = ask(&router, "HEAD", "/logs", None).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn an_index_can_begin_later_and_bad_numbers_are_told() {
    let (_dir, _leader, router) = worked(50).await;
    let count = |body: &str| body.matches("number").count();
    let (_, headers, body) = get(&router, "/logs?startseg=1").await;
    assert_eq!((count(&body), header(&headers, "x-sum-segment-size")), (1, "101"));
    for whole in ["/logs?startseg=7", "/logs?startseg=x", "/logs?waitsizenot="] {
        assert_eq!(count(&get(&router, whole).await.2), 2, "{whole}");
    }
    for (uri, why) in [
        ("/logs?startseg=-1", "bad startseg\\n"),
        ("/logs?waitsizenot=-1", "bad waitsizenot\\n"),
        ("/logs?waitsizenot=x", "bad waitsizenot\\n"),
        ("/logs/2", "no such segment\\n"),
        ("/logs/x", "no such segment\\n"),
        ("/logs/-1", "no such segment\\n"),
    ] {
        let (status, _, body) = get(&router, uri).await;
        assert_eq!((status, body.as_str()), (StatusCode::BAD_REQUEST, why), "{uri}");
    }
    for uri in ["/logs", "/logs/0"] {
        let (status, _, body) = ask(&router, "POST", uri, None).await;
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::BAD_REQUEST, "bad method\\n")
        );
    }
}

#[tokio::test]
async fn an_empty_log_is_an_empty_list() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Leader::open(Folder::new(dir.path())).unwrap();
    let router = served(&leader, &CancellationToken::new());
    let (status, _, body) = get(&router, "/logs").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "[]"));
}

fn one_segment(len: u64) -> Arc<[Segment]> {
    vec![Segment {
        number: SegmentNumber(0),
        len,
        sum: Sum::of(b""),
    }]
    .into()
}

/// A server of a log that the test says the length of.
fn told() -> (watch::Sender<Option<Arc<[Segment]>>>, CancellationToken, Router) {
    let (send, visible) = watch::channel(None);
    let stop = CancellationToken::new();
    let reader = LogReader::new(Folder::new("/nowhere"));
    let router = routes(Served {
        visible,
        reader,
        stop: stop.clone(),
    });
    (send, stop, router)
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_for_another_size_for_55_seconds() {
    let (log, _, router) = told();
    log.send_replace(Some(one_segment(10)));
    let start = Instant::now();
    let (status, _, body) = get(&router, "/logs?waitsizenot=10").await;
    assert_eq!(
        (status, body.as_str(), start.elapsed()),
        (StatusCode::NOT_MODIFIED, "", Duration::from_secs(55))
    );
    let start = Instant::now();
    assert_eq!(get(&router, "/logs?waitsizenot=0").await.0, StatusCode::OK);
    assert_eq!(start.elapsed(), Duration::ZERO);
    let waiting = tokio::spawn(async move { get(&router, "/logs?waitsizenot=10").await });
    tokio::time::sleep(Duration::from_secs(20)).await;
    log.send_replace(Some(one_segment(10)));
    tokio::time::sleep(Duration::from_secs(20)).await;
    log.send_replace(Some(one_segment(11)));
    let (status, headers, _) = waiting.await.unwrap();
    assert_eq!(
        (status, header(&headers, "x-sum-segment-size")),
        (StatusCode::OK, "11")
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_starts_or_stops_asks_for_patience() {
    let (log, stop, router) = told();
    for uri in ["/logs", "/logs/0", "/logs?waitsizenot=0"] {
        assert_eq!(
            get(&router, uri).await.0,
            StatusCode::SERVICE_UNAVAILABLE,
            "{uri}"
        );
    }
    log.send_replace(Some(one_segment(10)));
    let waiting = tokio::spawn(async move { get(&router, "/logs?waitsizenot=10").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.cancel();
    assert_eq!(waiting.await.unwrap().0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn every_segment_is_served_whole_and_by_range() {
    let (_dir, _leader, router) = worked(50).await;
    let (status, headers, body) = get(&router, "/logs/0").await;
    assert_eq!(
        (status, header(&headers, "content-length")),
        (StatusCode::OK, "43")
    );
    assert!(body.starts_with("REC@0+22=\\n \\n\\x06golang"), "{body}");
    assert_eq!(
        (header(&headers, "etag"), header(&headers, "last-modified")),
        ("", "")
    );
    assert!(get(&router, "/logs/1").await.2.starts_with("REC@0+5c="));

    let (status, headers, body) = ask(&router, "GET", "/logs/0", Some("bytes=2-7")).await;
    assert_eq!((status, body.as_str()), (StatusCode::PARTIAL_CONTENT, "C@0+22"));
    assert_eq!(
        (
            header(&headers, "content-range"),
            header(&headers, "content-length")
        ),
        ("bytes 2-7/43", "6")
    );
    // What a client of 2018 asks for when it has all.
    let (status, headers, _) = ask(&router, "GET", "/logs/0", Some("bytes=43-42")).await;
    assert_eq!(
        (status, header(&headers, "content-length")),
        (StatusCode::OK, "43")
    );
    let (status, headers, _) = ask(&router, "GET", "/logs/0", Some("bytes=43-44")).await;
    assert_eq!(
        (status, header(&headers, "content-range")),
        (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */43")
    );
    let (status, headers, body) = ask(&router, "HEAD", "/logs/0", None).await;
    assert_eq!(
        (status, header(&headers, "content-length"), body.as_str()),
        (StatusCode::OK, "43", "")
    );
}

#[tokio::test]
async fn a_long_segment_comes_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Leader::open(Folder::new(dir.path())).unwrap();
    append(&leader, vec![vec![b'x'; 700_000]]).await;
    let router = served(&leader, &CancellationToken::new());
    let (_, _, body) = ask(&router, "GET", "/logs/0", Some("bytes=100-699999")).await;
    assert_eq!((body.len(), body.bytes().all(|b| b == b'x')), (699_900, true));
}
