use axum::http::header;

use crate::world::*;

#[tokio::test]
async fn a_failed_build_begins_with_what_failed() {
    let world = farm(THEN).await;
    let page = world.page("/build/7").await;
    let text = page.text();
    let excerpt = text.find("What failed in test").expect("an excerpt");
    assert!(excerpt < text.find("Attempts").unwrap() && excerpt < text.find("Log of test").unwrap());
    page.has(&[
        "--- FAIL: table",
        "table_test.c:41: got 3 columns, want 4",
        "id=\"L5\"",
        "href=\"#L4\"",
        "href=\"/build/7?attempt=1&amp;step=1#L4\"",
        "step <code>test</code>: exit status 2",
    ]);
    let json = world.json("/build/7").await;
    let failing = &json["log"]["failing"];
    assert_eq!(failing[0]["line"], 4);
    assert_eq!(
        failing[0]["lines"][1],
        "    table_test.c:41: got 3 columns, want 4"
    );
    assert_eq!(json["log"]["failing_lines"], 3);
    assert_eq!(
        (&json["log"]["lines"], &json["log"]["live"]),
        (&7.into(), &false.into())
    );
}

#[tokio::test]
async fn the_range_in_which_it_broke_is_named() {
    let world = farm(THEN).await;
    // linux-amd64 fails at depths 2, 3 and 4.
    let json = world.json("/build/13").await;
    let breakage = &json["breakage"];
    assert_eq!(breakage["last_pass"]["build"]["id"], 4);
    assert_eq!(breakage["first_fail"]["build"]["id"], 7);
    assert_eq!(breakage["mended"]["build"]["id"], 16);
    assert_eq!(breakage["suspects"].as_array().unwrap().len(), 1);
    world.page("/build/13").await.has(&[
        "Failed on main since",
        "href=\"/build/7\"",
        "passed last at",
        "href=\"/build/4\"",
        "mended by",
        "href=\"/build/16\"",
    ]);

    // linux-race has no build at depth 4: of two commits either may have broken it.
    let json = world.json("/build/20").await;
    let suspects: Vec<_> = json["breakage"]["suspects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["hash"])
        .collect();
    assert_eq!(suspects, [hash("main", 5).as_str(), hash("main", 4).as_str()]);
    assert_eq!(json["breakage"]["mended"], serde_json::Value::Null);
    world
        .page("/build/20")
        .await
        .has(&["Fails on main since", "One of these 2 commits broke it"]);

    // mac-arm64 never passed; a lost build says nothing of the code.
    let json = world.json("/build/15").await;
    assert_eq!(json["breakage"]["last_pass"], serde_json::Value::Null);
    assert_eq!(json["breakage"]["first_fail"]["build"]["id"], 3);
    world
        .page("/build/15")
        .await
        .has(&["no pass among the last 200 commits"]);
    assert_eq!(world.json("/build/16").await["breakage"], serde_json::Value::Null);
    assert_eq!(world.json("/build/18").await["breakage"], serde_json::Value::Null);
}

#[tokio::test]
async fn every_attempt_is_shown_with_its_machine_and_outcome() {
    let world = farm(THEN).await;
    world.page("/build/1").await.has(&[
        "flaky",
        "href=\"/build/1?attempt=2\"",
        "Attempt 3",
        "href=\"/machine/local-2\"",
        "Log of test",
    ]);
    world
        .page("/build/1?attempt=2")
        .await
        .has(&["Attempt 2", "exit status 2"]);
    world
        .page("/build/1?attempt=2&step=0")
        .await
        .has(&["Log of build", "it is missing on the farm"]);
    let json = world.json("/build/1").await;
    let outcomes: Vec<_> = json["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["status"])
        .collect();
    assert_eq!(outcomes, ["passed", "failed", "passed"]);
    assert_eq!(json["build"]["flaky"], true);
    assert_eq!(json["attempts"][1]["steps"][1]["state"], "exit status 2");
}

#[tokio::test]
async fn a_lost_build_blames_the_farm() {
    let world = farm(THEN).await;
    world.page("/build/18").await.has(&[
        "The farm is at fault, not the code",
        "machine mac7 is gone: connection reset",
        "Known issue",
        "href=\"https://example.org/issue/5\"",
    ]);
}

#[tokio::test]
async fn a_waiting_build_says_what_it_waits_for() {
    let world = farm(THEN).await;
    world.page("/build/23").await.has(&[
        "all 2 machines of type linux are at work",
        "It is next.",
        "href=\"/queue#w23\"",
    ]);
    world
        .page("/build/24")
        .await
        .has(&["no machine of type mac is connected", "unknown"]);
    let json = world.json("/build/23").await;
    assert_eq!(
        json["waiting"]["reason"],
        "all 2 machines of type linux are at work"
    );
    assert_eq!(json["waiting"]["starts"], world.at(25_400).0);
    assert_eq!(json["log"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_page_that_did_not_change_is_not_sent_again() {
    let world = farm(THEN).await;
    for accept in ["text/html", "application/json"] {
        let first = world.get_with("/build/7", &[("accept", accept)]).await;
        let tag = first.header(header::ETAG).to_owned();
        let again = world
            .get_with("/build/7", &[("accept", accept), ("if-none-match", &tag)])
            .await;
        // A minute may begin in between, with other words for how long ago it was.
        if again.header(header::ETAG) == tag {
            assert_eq!((again.status.as_u16(), again.body.len()), (304, 0), "{accept}");
        }
        world
            .again(7, 2 + u32::from(accept != "text/html"), 30_000, passed())
            .await;
        let changed = world
            .get_with("/build/7", &[("accept", accept), ("if-none-match", &tag)])
            .await;
        assert_eq!(changed.status.as_u16(), 200, "{accept}");
    }
}
