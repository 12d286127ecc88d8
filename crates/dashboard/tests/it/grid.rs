use crate::log::Events;
use crate::world::*;

fn ids(json: &serde_json::Value) -> Vec<Vec<Option<u64>>> {
    let rows = json["rows"].as_array().unwrap().iter();
    rows.map(|row| {
        row["cells"]
            .as_array()
            .unwrap()
            .iter()
            .map(|cell| cell["id"].as_u64())
            .collect()
    })
    .collect()
}

fn names(json: &serde_json::Value) -> Vec<&str> {
    let builders = json["builders"].as_array().unwrap().iter();
    builders
        .map(|builder| builder["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn the_grid_has_a_cell_for_each_commit_and_builder() {
    let world = farm(THEN).await;
    let json = world.json("/repo/widget/main").await;
    assert_eq!(names(&json), ["linux-amd64", "linux-race", "mac-arm64"]);
    let all = ids(&json);
    assert_eq!(all[0], [Some(22), Some(23), Some(24)]);
    assert_eq!(all[3], [Some(13), None, Some(15)]);
    assert_eq!(all.len(), 8);
    assert_eq!(json["builders"][1]["newest"], "failed");
    assert_eq!(json["builders"][1]["in_a_row"], 2);
    assert_eq!(json["builders"][0]["newest"], "passed");

    let page = world.page("/repo/widget/main").await;
    for row in &all {
        for id in row.iter().flatten() {
            page.has(&[&format!("href=\"/build/{id}\"")]);
        }
    }
    page.has(&[
        // A sign, a colour and words for each state.
        "class=\"cell failed\" href=\"/build/7\" title=\"linux-amd64 at",
        "href=\"#i-failed\"",
        "failed, took 10 s; step `test`: exit status 2",
        // Attempts that disagree, a known issue, a builder that is broken.
        "class=\"cell passed flake\" href=\"/build/1\"",
        "class=\"cell failed known\" href=\"/build/3\"",
        "linux-race: failed the last 2 times",
        "mac-arm64: failed the last 5 times; known issue: https://example.org/issue/5",
        "title=\"linux-race at",
        ": no build\"",
        // Groups, branches, commits.
        "scope=\"colgroup\" title=\"mac\"",
        "href=\"/repo/widget/release/1.0\"",
        &format!("href=\"/commit/widget/{}\"", hash("main", 7)),
        "Tom Okoro",
    ]);
}

#[tokio::test]
async fn a_grid_is_filtered_by_what_stands_in_its_address() {
    let world = farm(THEN).await;
    let filtered = async |query: &str| world.json(&format!("/repo/widget/main?{query}")).await;
    assert_eq!(names(&filtered("group=mac").await), ["mac-arm64"]);
    assert_eq!(
        names(&filtered("builder=linux*").await),
        ["linux-amd64", "linux-race"]
    );
    assert_eq!(names(&filtered("builder=linux,!race").await), ["linux-amd64"]);
    assert_eq!(names(&filtered("failing=1&limit=2").await), ["linux-race"]);
    let json = filtered("failing=1&limit=2").await;
    assert_eq!(ids(&json), [vec![Some(23)], vec![Some(20)]]);
    assert_eq!(json["builders"][0]["newest"], "failed");
    let by_tom = filtered("q=OKORO").await;
    let authors: Vec<_> = by_tom["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["commit"]["author"])
        .collect();
    assert_eq!(authors, ["Tom Okoro"; 3]);

    let page = world.page("/repo/widget/main?builder=race&q=okoro&limit=2").await;
    page.has(&[
        "value=\"race\"",
        "value=\"okoro\"",
        &format!(
            "href=\"/repo/widget/main?builder=race&amp;q=okoro&amp;limit=2&amp;before={}\"",
            hash("main", 4)
        ),
    ]);
    page.lacks(&["mac-arm64 at"]);
    world
        .page("/repo/widget/main?builder=nothing")
        .await
        .has(&["No builder matches", "Show all builders"]);
    world
        .page("/repo/widget/main?q=nobody")
        .await
        .has(&["No commit of this branch matches"]);
    world
        .page("/repo/widget/main?failing=1&builder=linux-amd64&limit=2")
        .await
        .has(&["No builder failed here"]);
}

#[tokio::test]
async fn pages_go_on_from_a_commit_whatever_is_pushed_meanwhile() {
    let world = farm(THEN).await;
    let first = world.json("/repo/widget/main?limit=3").await;
    let before = first["before"].as_str().unwrap().to_owned();
    assert_eq!(before, hash("main", 5).as_str());
    world.history("main", 9, |_| {}).await;
    let second = world
        .json(&format!("/repo/widget/main?limit=3&before={before}"))
        .await;
    let depths: Vec<_> = second["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["depth"])
        .collect();
    assert_eq!(depths, [4, 3, 2]);
    assert_eq!((&second["newer"], &first["newer"]), (&true.into(), &false.into()));
    let last = world
        .json(&format!("/repo/widget/main?limit=3&before={}", hash("main", 2)))
        .await;
    assert_eq!(last["before"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_builder_that_is_gone_keeps_its_column() {
    let world = farm(THEN).await;
    let less = CONFIG.split("[builder.mac-arm64]").next().unwrap().to_owned()
        + "[recipe.make]\nsteps = [{ name = \"build\", run = [\"make\"] }]\n";
    *world.live.config.lock().unwrap() = std::sync::Arc::new(read(&less));
    let json = world.json("/repo/widget/main").await;
    assert_eq!(names(&json), ["linux-amd64", "linux-race", "mac-arm64"]);
    assert_eq!(
        (&json["builders"][2]["group"], &json["builders"][2]["retired"]),
        (&"retired".into(), &true.into())
    );
    world
        .page("/builder/mac-arm64")
        .await
        .has(&["It is no more in the configuration"]);
}

#[tokio::test]
async fn cells_change_on_an_open_page_without_loading_it_again() {
    let world = farm(THEN).await;
    let page = world.page("/repo/widget/main").await.text();
    let (_, rest) = page.split_once("data-cells=\"").unwrap();
    let address = rest.split('"').next().unwrap().replace("&amp;", "&");
    let mut events = Events::open(&world, &address, &[]).await;
    world.apply(&world.ended(attempt(22, 1), 25_310, failed())).await;
    let (event, _, data) = events.next().await;
    assert_eq!(event, "cells");
    let cells: Vec<(String, String)> = serde_json::from_str(&data).unwrap();
    // The cell, and its builder's head: that is broken now.
    let changed: Vec<&str> = cells.iter().map(|(id, _)| id.as_str()).collect();
    let cell_id = format!("{}-linux-amd64", &hash("main", 7).as_str()[..10]);
    assert_eq!(changed, ["b-linux-amd64", &cell_id]);
    assert!(cells[1].1.contains("cell failed"), "{data}");
    // What is sent is what the page has at that place.
    let now = world.page("/repo/widget/main").await;
    for (_, html) in &cells {
        now.has(&[html]);
    }

    // A commit more is another page.
    world.history("main", 8, |_| {}).await;
    assert_eq!(events.next().await.0, "changed");
    // Whoever comes back with what they had then is behind.
    let mut late = Events::open(&world, &address, &[]).await;
    assert_eq!(late.next().await.0, "changed");
}

#[tokio::test]
async fn a_repository_leads_to_its_default_branch_and_tells_of_trouble() {
    let world = farm(THEN).await;
    let answer = world.get("/repo/widget").await;
    assert_eq!(answer.header(axum::http::header::LOCATION), "/repo/widget/main");
    let gone = "fatal: could not read from remote repository";
    world
        .store
        .record_repo_state(&repo(), None, Some(gone), world.at(99))
        .await
        .unwrap();
    for path in ["/repo/widget/main", "/"] {
        world
            .page(path)
            .await
            .has(&["The mirror is behind", "could not read from remote"]);
    }
    assert_eq!(world.json("/repo/widget/main").await["trouble"], gone);
}
