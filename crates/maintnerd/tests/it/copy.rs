use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use maintnerd::{CopyError, Following, Leader, Outcome, Served, Snapshot, follow, routes};
use mutlog::Folder;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::farm::{PATIENCE, Server, append, bind_again, contents, copy_of, issue, served, update};

/// Segments of a few records.
const TARGET: u64 = 100;

struct Farm {
    dirs: tempfile::TempDir,
    leader: Leader,
    server: Server,
}

impl Farm {
    async fn start() -> Farm {
        Farm::behind(|router| router).await
    }

    /// With something between server and clients.
    async fn behind(between: impl FnOnce(Router) -> Router) -> Farm {
        let dirs = tempfile::tempdir().unwrap();
        let leader = Leader::open_with_target(Folder::new(dirs.path().join("log")), TARGET).unwrap();
        let server = Server::start(|stop| between(served(&leader, stop))).await;
        Farm { dirs, leader, server }
    }

    async fn append(&self, titles: &[&str]) {
        for (number, title) in (1..).zip(titles) {
            append(&self.leader, vec![issue(number, title)]).await;
        }
    }

    fn copy(&self) -> maintnerd::Copy {
        copy_of(&self.server.url, &self.dirs.path().join("copy"))
    }

    fn check_same(&self) {
        let [log, copy] = ["log", "copy"].map(|dir| contents(&self.dirs.path().join(dir)));
        assert!(!log.is_empty());
        assert_eq!(copy, log);
    }
}

#[tokio::test]
async fn a_copy_follows_growth_and_new_segments() {
    let farm = Farm::start().await;
    farm.append(&["a"]).await;
    let mut copy = farm.copy();
    assert_eq!(update(&mut copy).await, Outcome::Grown);
    farm.check_same();
    farm.append(&["b", "c", "d", "e", "f", "g"]).await;
    assert_eq!(update(&mut copy).await, Outcome::Grown);
    farm.check_same();
    assert!(contents(&farm.dirs.path().join("copy")).len() > 2);
}

#[tokio::test]
async fn a_copy_goes_on_where_it_was_when_it_stopped() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let farm = Farm::behind(move |router| {
        router.layer(middleware::from_fn(move |request: Request<Body>, next: Next| {
            if request.uri().path().starts_with("/logs/") {
                count.fetch_add(1, Ordering::Relaxed);
            }
            next.run(request)
        }))
    })
    .await;
    farm.append(&["a", "b", "c", "d", "e", "f", "g"]).await;
    update(&mut farm.copy()).await;
    let before = asked.load(Ordering::Relaxed);
    assert_eq!(before, contents(&farm.dirs.path().join("log")).len());
    farm.append(&["h"]).await;
    let mut copy = farm.copy();
    assert_eq!(update(&mut copy).await, Outcome::Grown);
    assert!(asked.load(Ordering::Relaxed) <= before + 2);
    farm.check_same();
}

#[tokio::test]
async fn a_log_that_went_another_way_replaces_the_copy_and_is_told() {
    let farm = Farm::start().await;
    farm.append(&["a", "b", "c", "d", "e", "f", "g"]).await;
    let mut copy = farm.copy();
    update(&mut copy).await;
    // Another log, of which only the first segment is the same.
    let other = Farm::start().await;
    other.append(&["a", "b", "X", "d"]).await;
    drop(copy);
    let mut copy = copy_of(&other.server.url, &farm.dirs.path().join("copy"));
    assert_eq!(update(&mut copy).await, Outcome::Split);
    assert_eq!(
        contents(&farm.dirs.path().join("copy")),
        contents(&other.dirs.path().join("log"))
    );
    other.append(&["Y"]).await;
    assert_eq!(update(&mut copy).await, Outcome::Grown);
}

#[tokio::test]
async fn a_last_segment_that_grew_from_something_else_is_a_split() {
    let farm = Farm::start().await;
    farm.append(&["a"]).await;
    update(&mut farm.copy()).await;
    let other = Farm::start().await;
    other.append(&["X", "Y"]).await;
    let mut copy = copy_of(&other.server.url, &farm.dirs.path().join("copy"));
    assert_eq!(update(&mut copy).await, Outcome::Split);
    assert_eq!(
        contents(&farm.dirs.path().join("copy")),
        contents(&other.dirs.path().join("log"))
    );
}

/// Changes each answer of a segment.
fn spoil(
    router: Router,
    how: impl Fn(usize, Response) -> futures_util::future::BoxFuture<'static, Response>
    + Clone
    + Send
    + Sync
    + 'static,
) -> Router {
    let asked = Arc::new(AtomicUsize::new(0));
    router.layer(middleware::from_fn(move |request: Request<Body>, next: Next| {
        let is_segment = request.uri().path().starts_with("/logs/");
        let (how, asked) = (how.clone(), asked.clone());
        async move {
            let answer = next.run(request).await;
            match is_segment {
                true => how(asked.fetch_add(1, Ordering::Relaxed), answer).await,
                false => answer,
            }
        }
    }))
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_followed() {
    let farm = Farm::behind(|router| {
        router.layer(middleware::from_fn(|mut request: Request<Body>, next: Next| {
            request.headers_mut().remove(header::RANGE);
            next.run(request)
        }))
    })
    .await;
    let mut copy = farm.copy();
    for title in ["a", "b", "c"] {
        farm.append(&[title]).await;
        assert_eq!(update(&mut copy).await, Outcome::Grown);
        farm.check_same();
    }
}

#[tokio::test]
async fn a_segment_may_be_somewhere_else() {
    let farm = Farm::start().await;
    farm.append(&["a", "b", "c", "d"]).await;
    let target = farm.server.url.clone();
    let redirecting = served(&farm.leader, &CancellationToken::new()).layer(middleware::from_fn(
        move |request: Request<Body>, next: Next| {
            let path = request.uri().path().to_owned();
            let there = target.join(&path).unwrap().to_string();
            async move {
                match path.starts_with("/logs/") {
                    true => (StatusCode::FOUND, [(header::LOCATION, there)]).into_response(),
                    false => next.run(request).await,
                }
            }
        },
    ));
    let server = Server::start(|_| redirecting).await;
    let mut copy = copy_of(&server.url, &farm.dirs.path().join("copy"));
    assert_eq!(update(&mut copy).await, Outcome::Grown);
    farm.check_same();
}

#[tokio::test]
async fn what_was_spoilt_on_the_way_is_fetched_again_and_never_kept() {
    let flip = |answer: Response| async move {
        let (head, body) = answer.into_parts();
        let mut bytes = body.collect().await.unwrap().to_bytes().to_vec();
        bytes[20] ^= 1;
        Response::from_parts(head, Body::from(bytes))
    };
    let once = Farm::behind(move |router| {
        spoil(router, move |n, answer| {
            Box::pin(async move { if n == 0 { flip(answer).await } else { answer } })
        })
    })
    .await;
    once.append(&["a", "b", "c", "d"]).await;
    assert_eq!(update(&mut once.copy()).await, Outcome::Grown);
    once.check_same();

    let always = Farm::behind(move |router| spoil(router, move |_, answer| Box::pin(flip(answer)))).await;
    always.append(&["a"]).await;
    let mut copy = always.copy();
    let error = timeout(PATIENCE, copy.update()).await.unwrap().unwrap_err();
    assert!(matches!(error, CopyError::Corrupt { .. }), "{error}");
    assert_eq!(contents(&always.dirs.path().join("copy")), Vec::<Vec<u8>>::new());
}

#[tokio::test]
async fn a_split_is_told_even_if_fetching_failed_in_between() {
    let other = Farm::behind(|router| {
        spoil(router, |n, answer| {
            Box::pin(async move {
                if n == 0 {
                    StatusCode::BAD_GATEWAY.into_response()
                } else {
                    answer
                }
            })
        })
    })
    .await;
    other.append(&["X", "Y"]).await;
    let farm = Farm::start().await;
    farm.append(&["a", "b", "c", "d"]).await;
    update(&mut farm.copy()).await;
    let mut copy = copy_of(&other.server.url, &farm.dirs.path().join("copy"));
    let error = timeout(PATIENCE, copy.update()).await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            CopyError::Status {
                status: StatusCode::BAD_GATEWAY,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(update(&mut copy).await, Outcome::Split);
    assert_eq!(
        contents(&farm.dirs.path().join("copy")),
        contents(&other.dirs.path().join("log"))
    );
}

#[tokio::test]
async fn what_is_no_server_of_logs_is_told() {
    let farm = Farm::start().await;
    let dir = farm.dirs.path().join("copy");
    let check = async |router: Router, expect: &str| {
        let server = Server::start(|_| router).await;
        let error = timeout(PATIENCE, copy_of(&server.url, &dir).update())
            .await
            .unwrap()
            .unwrap_err();
        let error = error.to_string().replace(server.url.as_str(), "URL");
        assert!(error.contains(expect), "{error}");
    };
    check(Router::new(), "answered 404").await;
    let page = Router::new().route("/logs", axum::routing::get(async || "<html>"));
    check(page, "the index at `URL?waitsizenot=0` is none: expected value").await;
}

async fn shown(snapshot: &mut watch::Receiver<Option<Snapshot>>, number: i32, title: &str) {
    let is = |snapshot: &Option<Snapshot>| {
        let issue = snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.corpus.repo("golang", "go")?.issue(number));
        issue.is_some_and(|issue| &*issue.title == title)
    };
    timeout(PATIENCE, snapshot.wait_for(is))
        .await
        .expect("the corpus follows")
        .unwrap();
}

#[tokio::test]
async fn a_corpus_follows_a_log_over_a_restart_of_the_server_and_a_split() {
    let farm = Farm::start().await;
    farm.append(&["a"]).await;
    let stop = CancellationToken::new();
    let (
        Following {
            mut snapshot,
            visible,
            reader,
        },
        run,
    ) = follow(farm.copy(), stop.clone());
    let run = tokio::spawn(run);
    shown(&mut snapshot, 1, "a").await;
    farm.append(&["b", "c", "d", "e", "f"]).await;
    shown(&mut snapshot, 5, "f").await;
    let old = snapshot.borrow().clone().unwrap();
    let served_on = Server::start(|stop| {
        let (visible, stop) = (visible.clone(), stop.clone());
        routes(Served {
            visible,
            reader,
            stop,
        })
    })
    .await;
    let mut third = copy_of(&served_on.url, &farm.dirs.path().join("third"));
    update(&mut third).await;

    // The server is gone for a while, and comes back with another log.
    let address = farm.server.stop();
    let other = Farm::start().await;
    other.append(&["X", "Y"]).await;
    let _server = Server::on(bind_again(address).await, |stop| served(&other.leader, stop));
    shown(&mut snapshot, 1, "X").await;
    let new = snapshot.borrow().clone().unwrap();
    assert!(new.corpus.repo("golang", "go").unwrap().issue(5).is_none());
    assert!(old.corpus.repo("golang", "go").unwrap().issue(5).is_some());
    assert_eq!(update(&mut third).await, Outcome::Split);
    assert_eq!(
        contents(&farm.dirs.path().join("third")),
        contents(&other.dirs.path().join("log"))
    );
    stop.cancel();
    timeout(PATIENCE, run).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_follower_of_an_empty_log_shows_that_it_is_empty() {
    let asked = Arc::new(AtomicUsize::new(0));
    let unchanged_once = async move || {
        if asked.fetch_add(1, Ordering::Relaxed) > 0 {
            std::future::pending::<()>().await;
        }
        StatusCode::NOT_MODIFIED
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Router::new().route("/logs", axum::routing::get(unchanged_once))).await;
    let stop = CancellationToken::new();
    let (mut following, run) = follow(copy_of(&server.url, dir.path()), stop.clone());
    let run = tokio::spawn(run);
    timeout(PATIENCE, following.snapshot.wait_for(Option::is_some))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(following.visible.borrow().as_deref(), Some(&[][..]));
    stop.cancel();
    timeout(PATIENCE, run).await.unwrap().unwrap().unwrap();
}
