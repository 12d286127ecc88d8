//! The pages in a real browser: what only its script does.

use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use futures_util::TryStreamExt;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use web::{Door, Limits, RawHandler, RawHead, RawStream, Server};

use crate::world::*;

struct NoRaw;

impl RawHandler for NoRaw {
    fn handle(&self, _: RawHead, _: RawStream) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

/// Chromium, or `None`, said aloud, where it is not installed.
fn chromium() -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join("chromium").is_file()) {
        return Some(Command::new("chromium"));
    }
    let missing = "no Chromium; install it with `apt-get install chromium`";
    assert!(
        std::env::var("BURROW_TEST_REQUIRE").as_deref() != Ok("1"),
        "{missing}"
    );
    eprintln!("SKIPPED: {missing}");
    None
}

/// Opens `path` of `world` in a browser. Gives the paths that it asks for, and `cells` for such an
/// event, one after the other, and
/// the browser, which prints the page as it is when nothing is left to come. Whatever the page has
/// then came by events of its own: loading it again gives nothing, nor is it told that it should.
async fn open(
    world: &World,
    path: &str,
    mut browser: Command,
) -> (mpsc::UnboundedReceiver<String>, Child, TempDir) {
    let (asked, paths) = mpsc::unbounded_channel();
    let page = path.to_owned();
    let loads = Arc::new(AtomicUsize::new(0));
    let watch = from_fn(move |request: Request, next: Next| {
        let path = request.uri().path().to_owned();
        let again = path == page && loads.fetch_add(1, Ordering::Relaxed) > 0;
        let asked = asked.clone();
        async move {
            let refused = again || path == "/events";
            let answer = if refused {
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            } else {
                next.run(request).await
            };
            // A stream has begun when its answer has. At the test's end nobody listens any more.
            let _ = asked.send(path);
            answer.map(|body| {
                Body::from_stream(body.into_data_stream().inspect_ok(move |piece| {
                    if piece.starts_with(b"event: cells") {
                        let _ = asked.send("cells".to_owned());
                    }
                }))
            })
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}{path}", listener.local_addr().unwrap());
    let server = Server {
        router: Router::new().fallback_service(world.router.clone()).layer(watch),
        raw_paths: Vec::new(),
        raw_header: None,
        raw: Arc::new(NoRaw),
        limits: Limits::default(),
    };
    let stop = world.stop.clone();
    tokio::spawn(async move { web::serve(vec![Door::Plain(listener)], server, stop).await });
    let profile = tempfile::tempdir().unwrap();
    let child = browser
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=5000", "--dump-dom", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    (paths, child, profile)
}

/// What a browser asks for, one after the other.
struct Asked(mpsc::UnboundedReceiver<String>);

impl Asked {
    async fn until(&mut self, wanted: &str) {
        while self.0.recv().await.expect("a request") != wanted {}
    }
}

/// Opens `path`, lets things happen, and gives the page as it is when it has asked for itself again.
async fn live(path: &str, meanwhile: impl AsyncFnOnce(&World, &mut Asked)) -> Option<String> {
    let browser = chromium()?;
    let world = farm(THEN).await;
    let test = async {
        let (paths, child, _profile) = open(&world, path, browser).await;
        let mut asked = Asked(paths);
        asked.until(path).await;
        meanwhile(&world, &mut asked).await;
        asked.until(path).await;
        world.stop.cancel();
        String::from_utf8(child.wait_with_output().await.unwrap().stdout).unwrap()
    };
    let limit = Duration::from_secs(60);
    Some(tokio::time::timeout(limit, test).await.expect("a page in 60 s"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_page_gets_the_lines_of_a_running_step_until_its_end() {
    let page = live("/build/22", async |world, asked| {
        asked.until("/build/22/log/events").await;
        world
            .print("22.1.0", b".c\nprinted while <it> was looked at\n")
            .await;
        let end = world.step_ended(attempt(22, 1), 0, 25_320, true);
        world.apply(&[end]).await;
    });
    let Some(page) = page.await else { return };
    assert!(page.contains("printed while &lt;it&gt; was looked at"), "{page}");
    // The line that had no end when the page was loaded is there once, whole.
    assert_eq!(page.matches("id=\"L2\"").count(), 1, "{page}");
    assert!(page.contains("<span>cc -c table.c</span>"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_grid_gets_its_cells_until_there_are_other_rows() {
    let page = live("/repo/widget/main", async |world, asked| {
        asked.until("/events/grid").await;
        world.apply(&world.ended(attempt(22, 1), 25_310, failed())).await;
        asked.until("cells").await;
        world.history("main", 8, |_| {}).await;
    });
    let Some(page) = page.await else { return };
    assert!(
        page.contains("class=\"cell failed\" href=\"/build/22\""),
        "{page}"
    );
}
