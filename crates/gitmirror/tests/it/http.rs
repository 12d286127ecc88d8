//! The routes, over a socket.

use crate::world::*;

#[tokio::test]
async fn archives_come_as_from_the_original() {
    let mut world = World::start().await;
    let client = world.serve().await;
    let up = world.upstream.path();
    let (commit, tree) = (
        git(up, &["rev-parse", "HEAD"]),
        git(up, &["rev-parse", "HEAD^{tree}"]),
    );
    let time: u64 = git(up, &["log", "-1", "--format=%ct"]).parse().expect("a time");

    let path = gitmirror::own_path("/widget.tar.gz").expect("the original's path");
    let answer = client.ask(&format!("GET {path}?rev=main")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("content-type"), "application/x-compressed");
    assert_eq!(answer.field("content-length"), answer.body.len().to_string());
    assert_eq!(answer.field("x-burrow-commit"), commit);
    assert_eq!(answer.field("x-burrow-tree"), tree);
    assert_eq!(answer.field("x-burrow-ref"), "refs/heads/main");
    assert_eq!(answer.field("cache-control"), "no-cache");
    assert_eq!(unpacked(&answer.body), [("one".to_owned(), time)]);

    let whole = client
        .ask(&format!("GET /v1/repos/widget/archive/{commit}.tar.gz"))
        .await;
    assert_eq!((whole.status, &whole.body), (200, &answer.body));
    assert_eq!(whole.field("content-type"), "application/gzip");
    assert!(whole.field("cache-control").contains("immutable"));

    let head = client.ask(&format!("HEAD {path}?rev={commit}")).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.field("content-length"), answer.body.len().to_string());
    let tag = answer.field("etag");
    let again = client
        .ask(&format!("GET {path}?rev=main\nIf-None-Match: \"x\", {tag}"))
        .await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.field("x-burrow-commit"), commit);
    world.stop().await;
}

#[test]
fn only_an_archive_at_the_root_is_the_originals_path() {
    for other in [
        "/",
        "/builders",
        "/a/widget.tar.gz",
        "/widget.tar",
        "widget.tar.gz",
    ] {
        assert_eq!(gitmirror::own_path(other), None, "{other}");
    }
}

#[tokio::test]
async fn what_is_no_archive_says_why() {
    let mut world = World::start().await;
    let client = world.serve().await;
    for (request, status, word) in [
        ("GET /archive/widget.tar.gz", 400, "`rev` is missing"),
        ("GET /archive/widget.tar.gz?rev=", 400, "is not a revision"),
        (
            "GET /archive/widget.tar.gz?rev=--upload-pack=touch%20x",
            400,
            "is not a revision",
        ),
        ("GET /archive/widget.tar.gz?rev=main~1", 400, "is not a revision"),
        ("GET /archive/widget.tar.gz?rev=nothere", 404, "`nothere`"),
        ("GET /archive/gadget.tar.gz?rev=main", 404, "`gadget`"),
        ("GET /archive/.._..tar.gz?rev=main", 404, "no repository"),
        ("GET /archive/widget.zip?rev=main", 404, "`.tar.gz`"),
        ("GET /v1/repos/widget/archive/main.zip", 400, "`.tar.gz`"),
        (
            "GET /v1/repos/widget/archive/a..b.tar.gz",
            400,
            "is not a revision",
        ),
    ] {
        let answer = client.ask(request).await;
        assert_eq!(answer.status, status, "{request}: {}", answer.text());
        assert!(answer.text().contains(word), "{request}: {}", answer.text());
    }
    let answer = client
        .ask("POST /archive/widget.tar.gz?rev=main\nContent-Length: 0")
        .await;
    assert_eq!((answer.status, answer.field("allow")), (405, "get,head"));

    // Not known here, and nobody to ask.
    let away = world.upstream.path().with_extension("away");
    std::fs::rename(world.upstream.path(), &away).expect("moved");
    let answer = client
        .ask(&format!("GET /archive/widget.tar.gz?rev={}", "0".repeat(40)))
        .await;
    assert_eq!((answer.status, answer.field("retry-after")), (503, "10"));
    assert!(
        answer
            .text()
            .contains(world.upstream.path().to_str().expect("a path"))
    );
    // What the mirror has is served all the same.
    assert_eq!(
        client.ask("GET /archive/widget.tar.gz?rev=main").await.status,
        200
    );
    std::fs::rename(&away, world.upstream.path()).expect("moved");
    world.stop().await;
}

#[tokio::test]
async fn hooks_make_it_look_at_once() {
    let mut world = World::start().await;
    let client = world.serve().await;
    for (path, looks) in [("/hook/widget", 2), ("/hook", 3)] {
        let answer = client.ask(&format!("POST {path}\nContent-Length: 0")).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        world.until(|look| look.count == looks).await;
    }
    let answer = client.ask("POST /hook/gadget\nContent-Length: 0").await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (404, "there is no repository of that name\n")
    );
    assert_eq!(client.ask("GET /hook").await.status, 405);
    world.stop().await;
}

#[tokio::test]
async fn the_status_page_is_what_the_original_reads() {
    let mut world = World::start().await;
    let client = world.serve().await;
    let line = |words: &str| {
        format!(
            "<html><body><pre><a href='/debug/watcher/widget'>widget</a> - {words}\n</pre></body></html>\n"
        )
    };
    assert_eq!(client.ask("GET /mirror/").await.text(), line("ok"));
    let away = world.upstream.path().with_extension("away");
    std::fs::rename(world.upstream.path(), &away).expect("moved");
    world.service.poke_all();
    world.until(|look| look.error.is_some()).await;
    let text = client.ask("GET /mirror/").await.text();
    assert!(text.contains("widget</a> - broken for "), "{text}");
    let json = client.ask("GET /mirror/status.json").await;
    let json: serde_json::Value = serde_json::from_slice(&json.body).expect("JSON");
    let error = json["repos"][0]["error"].as_str().expect("an error");
    assert!(error.contains("cannot be read"), "{error}");
    std::fs::rename(&away, world.upstream.path()).expect("moved");
    world.stop().await;
}
