//! Logs: in windows, by range, and as they come.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode, header};
use futures_util::StreamExt;
use tower::ServiceExt;

use crate::world::*;

async fn long() -> World {
    let world = farm(THEN).await;
    let text: String = (1..=5000)
        .map(|n| {
            if n == 2500 {
                "error: in the middle\n".to_owned()
            } else {
                format!("line {n}\n")
            }
        })
        .collect();
    world.print("4.1.1", text.as_bytes()).await;
    world.built(90, hash("main", 6), "mac-x", 50_000, failed()).await;
    world.print("90.1.1", text.as_bytes()).await;
    world
}

#[tokio::test]
async fn a_long_log_is_shown_by_its_beginning_and_end_and_on_demand_in_between() {
    let world = long().await;
    let page = world.page("/build/90").await;
    page.has(&[
        "id=\"L1\"",
        "id=\"L200\"",
        "id=\"L4201\"",
        "id=\"L5000\"",
        "4000 lines not shown",
    ]);
    page.lacks(&["id=\"L201\"", "id=\"L4200\""]);
    // What failed is quoted though it is not shown, with a link that shows it.
    page.has(&[
        "error: in the middle",
        "href=\"/build/90?attempt=1&amp;step=1&amp;from=2480#L2500\"",
    ]);
    let window = world.page("/build/90?attempt=1&step=1&from=2480").await;
    window.has(&[
        "id=\"L2480\"",
        "id=\"L2500\"",
        "id=\"L3479\"",
        "class=\"l hit\" id=\"L2500\"",
    ]);
    window.lacks(&["id=\"L2479\"", "id=\"L3480\""]);
    assert!(page.body.len() < 400_000, "{}", page.body.len());
}

#[tokio::test]
async fn words_are_found_anywhere_in_a_long_log_with_links_to_their_lines() {
    let world = long().await;
    let page = world.page("/build/90?attempt=1&step=1&find=in+the").await;
    page.has(&[
        "1 line has <code>in the</code>",
        "href=\"/build/90?attempt=1&amp;step=1&amp;from=2480#L2500\"",
        "value=\"in the\"",
    ]);
    let json = world.json("/build/90?attempt=1&step=1&find=line+4").await;
    assert_eq!(
        json["log"]["found"].as_array().unwrap().len(),
        200,
        "at most so many"
    );
    assert_eq!(json["log"]["found"][1]["line"], 40);
    let page = world.page("/build/90?attempt=1&step=1&find=%3Cb%3E").await;
    page.has(&["No line has <code>&lt;b&gt;</code>"]).lacks(&["<b>&"]);
}

#[tokio::test]
async fn a_line_of_a_megabyte_does_not_make_a_page_of_it() {
    let world = farm(THEN).await;
    world.print("4.1.1", &[b'x'; 1 << 20]).await;
    let page = world.page("/build/4").await;
    page.has(&["more bytes]"]);
    assert!(page.body.len() < 100_000, "{}", page.body.len());
}

#[tokio::test]
async fn the_raw_log_is_all_of_it_and_takes_ranges() {
    let world = farm(THEN).await;
    let whole = world.page("/build/7/log").await;
    let text = whole.text();
    assert!(
        text.starts_with("==> build: make\ncc -c slug.c\n") && text.ends_with("exit status 2\n"),
        "{text}"
    );
    assert!(text.contains("\n==> test: make test\n=== RUN"), "{text}");
    assert_eq!(whole.header(header::CONTENT_LENGTH), text.len().to_string());
    assert_eq!(whole.header(header::CONTENT_TYPE), "text/plain; charset=utf-8");
    assert_eq!(whole.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
    // The tenth byte from the front, over the border between two steps, the end, all but the front.
    let border = text.find("==> test").unwrap();
    for (asked, from, to) in [
        ("bytes=10-10".to_owned(), 10, 11),
        (
            format!("bytes={}-{}", border - 5, border + 4),
            border - 5,
            border + 5,
        ),
        ("bytes=-14".to_owned(), text.len() - 14, text.len()),
        (format!("bytes={border}-"), border, text.len()),
        ("bytes=0-999999".to_owned(), 0, text.len()),
    ] {
        let part = world.get_with("/build/7/log", &[("range", &asked)]).await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{asked}");
        assert_eq!(part.text(), text[from..to], "{asked}");
        let told = format!("bytes {from}-{}/{}", to - 1, text.len());
        assert_eq!(part.header(header::CONTENT_RANGE), told, "{asked}");
    }
    let beyond = world.get_with("/build/7/log", &[("range", "bytes=9999-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(
        beyond.header(header::CONTENT_RANGE),
        format!("bytes */{}", text.len())
    );
    let odd = world
        .get_with("/build/7/log", &[("range", "bytes=0-1,4-5")])
        .await;
    assert_eq!((odd.status, odd.body.len()), (StatusCode::OK, text.len()));
}

#[tokio::test]
async fn one_step_is_read_from_a_byte_on_and_downloaded_under_a_name() {
    let world = farm(THEN).await;
    let rest = world.page("/build/7/log?attempt=1&step=0&offset=13").await;
    assert_eq!(rest.text(), "cc -o widget slug.o\n");
    let file = world.page("/build/7/log?attempt=1&step=0&download=1").await;
    assert_eq!(
        file.header(header::CONTENT_DISPOSITION),
        "attachment; filename=\"widget-build-7.1.0.log\""
    );
    assert_eq!(
        world.get("/build/7/log?step=5").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        world.get("/build/7/log?attempt=5").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_log_that_was_deleted_is_told_as_that() {
    let world = farm(THEN).await;
    let steps: Vec<ids::StepId> = ["7.1.0", "7.1.1"]
        .iter()
        .map(|step| step.parse().unwrap())
        .collect();
    for step in &steps {
        world.logs.delete(*step).await.unwrap();
    }
    world.store.mark_log_deleted(&steps).await.unwrap();
    world
        .page("/build/7")
        .await
        .has(&["This log was deleted because of its age", "keep_logs"]);
    assert_eq!(world.json("/build/7").await["log"]["deleted"], true);
    let answer = world.get("/build/7/log?step=1").await;
    assert_eq!(answer.status, StatusCode::GONE);
    answer.has(&["this log was deleted"]);
}

/// A stream of events, read one by one.
pub struct Events {
    body: BodyDataStream,
    text: String,
}

impl Events {
    pub async fn open(world: &World, path: &str, headers: &[(&str, &str)]) -> Events {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = world.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Events {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    /// `(event, id, data)`. Comments, which come all the time, are no events.
    pub async fn next(&mut self) -> (String, String, String) {
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, self.wait())
            .await
            .expect("an event in 20 s")
    }

    async fn wait(&mut self) -> (String, String, String) {
        loop {
            let Some((event, rest)) = self.text.split_once("\n\n") else {
                let more = self.body.next().await.expect("no end of the stream").unwrap();
                self.text.push_str(std::str::from_utf8(&more).unwrap());
                continue;
            };
            let field = |name: &str| {
                let line = event.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_default().trim_start().to_owned()
            };
            let found = (field("event:"), field("id:"), field("data:"));
            self.text = rest.to_owned();
            if !found.0.is_empty() {
                return found;
            }
        }
    }
}

/// Where the page of a running build follows its log.
fn follow(page: &Answer) -> String {
    let text = page.text();
    let (_, rest) = text.split_once("data-follow=\"").expect("a log that is followed");
    rest.split('"').next().unwrap().replace("&amp;", "&")
}

#[tokio::test]
async fn a_running_step_is_followed_line_by_line_to_its_end() {
    let world = farm(THEN).await;
    let page = world.page("/build/22").await;
    page.has(&[
        "It is running",
        "id=\"L2\"",
        "cc -c table",
        "<noscript><meta http-equiv=\"refresh\"",
    ]);
    let address = follow(&page);
    let mut events = Events::open(&world, &address, &[]).await;
    // The line that has no end is sent again, under its number.
    let (event, id, data) = events.next().await;
    assert_eq!((&*event, &*id), ("lines", "13.1"));
    let data: serde_json::Value = serde_json::from_str(&data).unwrap();
    assert_eq!(data["line"], 2);
    assert!(data["html"].as_str().unwrap().contains("id=\"L2\""), "{data}");

    world
        .print("22.1.0", b".c <b>\n\x1b[31mtable.c:7: error: x\n")
        .await;
    let (_, id, data) = events.next().await;
    let html = serde_json::from_str::<serde_json::Value>(&data).unwrap()["html"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        html.contains("cc -c table.c &lt;b&gt;") && html.contains("class=\"l hit\" id=\"L3\""),
        "{html}"
    );
    let len = "cc -c slug.c\ncc -c table.c <b>\n\x1b[31mtable.c:7: error: x\n".len();
    assert_eq!(id, format!("{len}.3"));

    // A connection that was lost goes on from the id of its last event.
    drop(events);
    world.print("22.1.0", b"after\n").await;
    let mut events = Events::open(&world, &address, &[("last-event-id", &id)]).await;
    let (_, _, data) = events.next().await;
    assert!(
        data.contains("id=\\\"L4\\\"") && data.contains("after") && !data.contains("error"),
        "{data}"
    );

    world.print("22.1.0", b"the end\n").await;
    world.apply(&world.ended(attempt(22, 1), 25_310, passed())).await;
    let (event, _, data) = events.next().await;
    assert!(event == "lines" && data.contains("the end"), "{event} {data}");
    assert_eq!(events.next().await.0, "end");
    world.page("/build/22").await.lacks(&["data-follow", "data-live"]);
}

#[tokio::test]
async fn a_follower_whose_log_became_shorter_is_told_to_look_again() {
    let world = farm(THEN).await;
    let mut events = Events::open(&world, "/build/22/log/events?step=0&offset=99999&line=7", &[]).await;
    assert_eq!(events.next().await.0, "reset");
}
