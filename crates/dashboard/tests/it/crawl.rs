//! What holds for every page there is: found by following every link.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use axum::http::{StatusCode, header};
use blobs::LogStore;

use crate::world::*;

/// Every page that is reached from the front page, by its address.
async fn every_page(world: &World) -> BTreeMap<String, Answer> {
    let mut pages = BTreeMap::new();
    let mut seen = BTreeSet::from(["/".to_owned()]);
    let mut queue = VecDeque::from(["/".to_owned()]);
    while let Some(path) = queue.pop_front() {
        assert!(pages.len() < 600, "pages lead to ever more pages: {path}");
        let answer = world.get(&path).await;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::SEE_OTHER => {
                let to = answer.header(header::LOCATION).to_owned();
                if seen.insert(to.clone()) {
                    queue.push_back(to);
                }
                continue;
            }
            status => panic!("{path}: {status}\n{}", answer.text()),
        }
        if answer.header(header::CONTENT_TYPE).starts_with("text/html") {
            for link in links(&answer.text()) {
                if seen.insert(link.clone()) {
                    queue.push_back(link);
                }
            }
            pages.insert(path, answer);
        }
    }
    pages
}

/// Where a page leads on this farm, without fragments.
fn links(html: &str) -> Vec<String> {
    html.split(" href=\"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(link, _)| link.split('#').next().unwrap().replace("&amp;", "&"))
        .filter(|link| link.starts_with('/') && !link.starts_with("/signin"))
        .collect()
}

#[tokio::test]
async fn every_link_leads_to_a_page_and_every_page_is_json_too() {
    let world = farm(THEN).await;
    let pages = every_page(&world).await;
    for wanted in [
        "/",
        "/queue",
        "/status",
        "/machines",
        "/machine/mac8",
        "/builders",
        "/builder/linux-race",
        "/builds",
    ] {
        assert!(pages.contains_key(wanted), "{wanted} is not reached");
    }
    assert!(pages.keys().any(|path| path.starts_with("/commit/widget/")));
    for path in pages.keys() {
        let json = world.json(path).await;
        assert!(json.is_object(), "{path}");
    }
}

#[tokio::test]
async fn no_page_relies_on_script_and_no_id_is_there_twice() {
    let world = farm(THEN).await;
    for (path, answer) in every_page(&world).await {
        let html = answer.text();
        assert_eq!(html.matches("<script").count(), 1, "{path}");
        for inline in ["javascript:", " onclick=", " style=\"", "<style"] {
            assert!(!html.contains(inline), "{path} has {inline}");
        }
        let live = html.contains("<body data-live");
        assert_eq!(
            html.contains("<noscript><meta http-equiv=\"refresh\""),
            live,
            "{path}"
        );
        // Whatever is done is a form or a link; the one button without a form is the theme's.
        let buttons = html.matches("<button").count() - html.matches("<button type=\"submit\"").count();
        assert_eq!(buttons, 1, "{path}");
        let mut ids = BTreeSet::new();
        for id in html
            .split(" id=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
        {
            assert!(ids.insert(id), "{path} has the id {id} twice");
        }
    }
}

/// Somebody who writes commits, machines and logs, and means no good.
async fn hostile() -> World {
    let world = World::new().await;
    world
        .history("main", 2, |commit| {
            commit.title = "<script>alert(1)</script> \u{202e}fdp.exe\u{200b}".to_owned();
            commit.message =
                "<script>alert(1)</script>\n\n</pre><script>alert(2)</script>\u{1b}[2J".to_owned();
            commit.author_name = "\"><img src=x onerror=alert(1)>".to_owned();
        })
        .await;
    let tell = |text: &str| runner::Outcome::Failed {
        step: 1,
        reason: format!("{text}<script>alert(3)</script>\u{202e}\u{1b}]0;x\u{7}"),
    };
    world
        .apply(&[world.up("mac'7<b>", "mac", 1), world.up("local-1", "linux", 1)])
        .await;
    let down = farm::Write::MachineDown {
        machine: "mac'7<b>".parse().unwrap(),
        at: world.at(2),
        why: "<script>alert(4)</script>".to_owned(),
    };
    world.apply(&[down]).await;
    world
        .built(1, hash("main", 2), "linux-amd64", 100, tell("step `test`: "))
        .await;
    let log: &[u8] = b"<script>alert(5)</script>\nerror: <img src=x>\xff\xfe\n\x1b]8;;http://evil.example\x1b\\link\n\xe2\x80\xaeright to left\n\x1b[31mred\x1b[2J\x00\nerror: last";
    world.print("1.1.1", log).await;
    let trouble = Some("fatal: <script>alert(6)</script>");
    world
        .store
        .record_repo_state(&repo(), None, trouble, world.at(300))
        .await
        .unwrap();
    world
}

#[tokio::test]
async fn what_outsiders_write_is_shown_and_never_obeyed() {
    let world = hostile().await;
    let pages = every_page(&world).await;
    for (path, answer) in &pages {
        let html = answer.text();
        for bad in [
            "<script>alert",
            "<img",
            "7<b>",
            "</pre><script",
            "\u{202e}",
            "\u{200b}",
            "\u{1b}",
            "evil.example",
            "\0",
        ] {
            assert!(!html.contains(bad), "{path} has {bad:?}");
        }
    }
    let build = &pages["/build/1"];
    build.has(&[
        "&lt;script&gt;alert(5)&lt;/script&gt;",
        "error: &lt;img src=x&gt;\u{fffd}\u{fffd}",
        "U+202E</span>right to left",
        "<span class=\"a-1\">red",
    ]);
    // JSON says it as it is: escaping is for whoever shows it.
    let json = world.json("/build/1").await;
    assert!(json["commit"]["title"].as_str().unwrap().starts_with("<script>"));
    // Nothing but our own files is loaded, and nothing inline.
    let policy = build.header(header::CONTENT_SECURITY_POLICY);
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe-inline"),
        "{policy}"
    );
}

#[tokio::test]
async fn odd_addresses_are_answered_with_what_to_do() {
    let world = farm(THEN).await;
    let nothing = hash("main", 99);
    for (path, status, told) in [
        ("/nowhere", 404, "there is no page <code>/nowhere</code>"),
        ("/build/999", 404, "there is no build 999"),
        ("/build/x", 404, "there is no build <code>x</code>"),
        (
            "/build/%3Cscript%3E",
            404,
            "there is no build <code>&lt;script&gt;</code>",
        ),
        ("/build/7?attempt=9", 404, "build 7 has no attempt 9, it has 1"),
        ("/build/7?step=9", 404, "attempt 7.1 has not begun a step 9"),
        ("/build/7?step=x", 400, "step: invalid digit"),
        ("/build/24/log", 404, "build 24 has not begun"),
        ("/repo/gadget", 404, "There are: widget."),
        ("/repo/widget/nope", 404, "widget has no branch <code>nope</code>"),
        (
            "/repo/widget/main?before=x",
            400,
            "<code>x</code> is not a full git hash",
        ),
        (
            &format!("/repo/widget/main?before={nothing}"),
            404,
            "is not on <code>main</code>",
        ),
        (
            "/commit/widget/ffff",
            404,
            "the farm knows no commit <code>ffff</code> of widget",
        ),
        (
            "/commit/widget/zz",
            404,
            "the farm knows no commit <code>zz</code> of widget",
        ),
        (
            &format!("/cell/widget/{}/nobody", hash("main", 1)),
            404,
            "nobody has no build of widget",
        ),
        ("/builder/nobody", 404, "there is no builder <code>nobody</code>"),
        (
            "/machine/nobody",
            404,
            "no machine <code>nobody</code> was ever connected",
        ),
        (
            "/builds?status=odd",
            400,
            "<code>odd</code> is no state; there are: waiting, running",
        ),
        (
            "/builds?commit=abc",
            400,
            "<code>abc</code> is no full commit hash",
        ),
    ] {
        let answer = world.get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
        answer.has(&[told, "href=\"/status\""]);
        let json = world.json(path).await;
        assert!(json["error"]["code"].is_string(), "{path}");
    }
}

#[tokio::test]
async fn a_store_that_is_out_of_reach_is_told_as_that() {
    let world = farm(THEN).await;
    world.store.close().await;
    for path in [
        "/",
        "/builds",
        "/build/1",
        "/repo/widget/main",
        "/status",
        "/machines",
    ] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(answer.header(header::RETRY_AFTER), "5", "{path}");
        answer.has(&["the farm's store does not answer at present", "Builds go on"]);
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_our_fault_and_says_where_to_look() {
    let mut world = farm(THEN).await;
    // A folder where the log should be.
    let broken = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(broken.path().join("0/7/7.log")).unwrap();
    std::fs::create_dir_all(broken.path().join("0/7/1-1.log")).unwrap();
    let logs = LogStore::open(broken.path()).await.unwrap();
    let site = web::Site::new(world.store.clone(), world.live.clone(), world.stop.clone());
    let routes = dashboard::routes(dashboard::Dashboard {
        store: world.store.clone(),
        logs,
        live: world.live.clone(),
        site: site.clone(),
    });
    world.router = site.wrap(routes);
    let answer = world.get("/build/7").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    answer.has(&["something went wrong on our side", "Request <code>"]);
    answer.lacks(&["1-1.log"]);
}
