//! The front page, lists, one machine, one builder, one commit, the queue, status, search.

use std::sync::Arc;

use axum::http::{StatusCode, header};

use crate::world::*;

#[tokio::test]
async fn the_front_page_names_what_is_broken() {
    let world = farm(THEN).await;
    let json = world.json("/").await;
    let main = &json["repos"][0]["branches"][0];
    assert_eq!(main["name"], "main");
    let broken: Vec<_> = main["broken"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            format!(
                "{} {} {} {}",
                one["builder"], one["build"], one["in_a_row"], one["known_issue"]
            )
        })
        .collect();
    assert_eq!(broken, ["\"linux-race\" 20 2 false", "\"mac-arm64\" 15 5 true"]);
    assert_eq!(main["recent"][0]["worst"], "running");
    assert_eq!(
        (&main["recent"][1]["worst"], &main["recent"][1]["failed"]),
        (&"failed".into(), &1.into())
    );
    // A failure that is expected does not count.
    assert_eq!(
        (&main["recent"][3]["worst"], &main["recent"][3]["failed"]),
        (&"failed".into(), &1.into())
    );
    assert_eq!(
        (&main["recent"][6]["worst"], &main["recent"][6]["failed"]),
        (&"passed".into(), &0.into())
    );
    assert_eq!(
        (&json["machines"], &json["machines_expected"]),
        (&3.into(), &5.into())
    );
    world.page("/").await.has(&[
        "1 of 3",
        "<b>2</b>broken builders",
        "href=\"/build/20\"",
        "<b>1</b>running",
        "<b>2</b>waiting",
        " of 5",
        &format!("href=\"/commit/widget/{}\"", hash("main", 6)),
    ]);
}

#[tokio::test]
async fn an_empty_farm_says_what_to_do_next() {
    let world = World::new().await;
    world
        .page("/")
        .await
        .has(&["widget", "Being fetched for the first time"]);
    world.page("/builds").await.has(&["There is no such build"]);
    world
        .page("/queue")
        .await
        .has(&["Nothing waits", "Every commit has its builds"]);
    world
        .page("/machines")
        .await
        .has(&["2 missing", "3 missing", "burrow key new NAME --host-type mac"]);
    world
        .page("/builder/linux-race")
        .await
        .has(&["It has built nothing yet"]);
    world
        .page("/status")
        .await
        .has(&["not fetched yet", "in trouble", "0 of 3 connected"]);
    let answer = world.get("/repo/widget").await;
    assert_eq!(answer.status.as_u16(), 404);
    answer.has(&["widget has no tracked branch yet", "/status tells"]);

    let bare = World::with("[farm]\nname = \"bare\"\n", THEN).await;
    bare.page("/").await.has(&["No repository yet", "[repo.NAME]"]);
    bare.page("/builders").await.has(&["No builder yet"]);
    bare.page("/machines").await.has(&["No host type yet"]);
}

#[tokio::test]
async fn builds_are_listed_by_what_is_asked_and_in_pages() {
    let world = farm(THEN).await;
    let listed = async |query: &str| {
        let json = world.json(&format!("/builds?{query}")).await;
        let builds = json["builds"].as_array().unwrap();
        let ids: Vec<u64> = builds.iter().map(|build| build["id"].as_u64().unwrap()).collect();
        (ids, json["next"].as_str().map(str::to_owned))
    };
    assert_eq!(listed("status=running").await, (vec![22], None));
    assert_eq!(
        listed("status=failed&builder=linux-race").await,
        (vec![20, 17], None)
    );
    assert_eq!(listed("machine=mac7&status=infra").await, (vec![18], None));
    let (first, next) = listed("builder=mac-arm64&limit=3").await;
    assert_eq!(first, [24, 18, 15]);
    let next = next.unwrap();
    assert_eq!(next, "/builds?builder=mac-arm64&before=15&limit=3");
    assert_eq!(listed(next.split_once('?').unwrap().1).await.0, [12, 9, 6]);
    // Exactly as many as there are: no page after it.
    assert_eq!(listed("builder=mac-arm64&limit=7").await.1, None);
    let page = world.page("/builds?builder=mac-arm64&status=failed").await;
    page.has(&[
        "Builds that failed by mac-arm64",
        "href=\"/builds?status=passed&amp;builder=mac-arm64\"",
        "aria-current=\"page\"",
    ]);
}

#[tokio::test]
async fn a_machine_tells_its_story_and_missing_ones_are_shown_as_missing() {
    let world = farm(THEN).await;
    world.page("/machine/local-1").await.has(&[
        "at work on #22",
        "href=\"/build/22\"",
        "Connected since",
        "192.0.2.7:41212",
    ]);
    world.page("/machine/mac8").await.has(&[
        "Gone since",
        "unplugged",
        "Last seen",
        "dials in again",
        "Cared for by",
        "amy@example.org",
    ]);
    let json = world.json("/machine/mac7").await;
    assert_eq!(json["machine"]["connected"], true);
    assert_eq!(json["builds"].as_array().unwrap().len(), 6);
    assert_eq!(
        world.json("/machine/mac8").await["machine"]["why_gone"],
        "unplugged"
    );

    let json = world.json("/machines").await;
    let types: Vec<_> = json["host_types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| {
            (
                &host["name"],
                &host["connected"],
                &host["expected"],
                &host["busy"],
                &host["waiting"],
            )
        })
        .map(|(name, connected, expected, busy, waiting)| {
            format!("{name} {connected}/{expected} {busy} {waiting}")
        })
        .collect();
    assert_eq!(types, ["\"linux\" 2/2 1 1", "\"mac\" 1/3 0 1"]);
    world.page("/machines").await.has(&[
        "2 missing",
        "In the cellar",
        "burrow key new NAME --host-type mac",
        "free",
        "href=\"/builder/mac-arm64\"",
    ]);
}

#[tokio::test]
async fn a_builder_tells_how_it_does_on_each_branch() {
    let world = farm(THEN).await;
    let json = world.json("/builder/linux-amd64").await;
    let line = &json["branches"][0];
    assert_eq!(
        (&line["passed"], &line["failed"], &line["flaky"]),
        (&4.into(), &3.into(), &1.into())
    );
    assert_eq!(
        (&line["newest"], &line["in_a_row"], &line["median_ms"]),
        (&"passed".into(), &2.into(), &10_000.into())
    );
    world.page("/builder/linux-amd64").await.has(&[
        "57 % of 7 results passed",
        "1 flaky",
        "usually takes 10 s",
        "svg class=\"bars\"",
        "href=\"/build/22\"",
    ]);
    world.page("/builder/linux-race").await.has(&["at most 1"]);
    world.page("/builders").await.has(&[
        "href=\"/builder/mac-arm64\"",
        "https://example.org/issue/5",
        "href=\"/build/20\"",
    ]);
}

#[tokio::test]
async fn a_commit_shows_all_its_builders_and_a_cell_has_a_lasting_address() {
    let world = farm(THEN).await;
    let commit = hash("main", 5);
    let page = world.page(&format!("/commit/widget/{commit}")).await;
    page.has(&[
        commit.as_str(),
        "href=\"/build/17\"",
        "href=\"/build/16\"",
        "href=\"/build/18\"",
        "It was not good enough.",
        hash("main", 4).as_str(),
        "href=\"/repo/widget/main\"",
    ]);
    let json = world.json(&format!("/commit/widget/{commit}")).await;
    let order: Vec<_> = json["builders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["build"]["status"])
        .collect();
    assert_eq!(order, ["failed", "infra", "passed"]);
    // Commit 1 of a release branch: no builds, all builders wanted.
    let page = world
        .page(&format!("/commit/widget/{}", hash("release/1.0", 3)))
        .await;
    page.has(&["not asked for yet", "linux-race"]);

    let short = &commit.as_str()[..7];
    let to = |answer: Answer| answer.header(header::LOCATION).to_owned();
    assert_eq!(
        to(world.get(&format!("/commit/widget/{short}")).await),
        format!("/commit/widget/{commit}")
    );
    assert_eq!(
        to(world.get(&format!("/cell/widget/{short}/linux-race")).await),
        "/build/17"
    );
    assert_eq!(
        to(world.get(&format!("/cell/widget/{commit}/mac-arm64")).await),
        "/build/18"
    );
}

#[tokio::test]
async fn the_queue_says_who_is_before_whom_and_why() {
    let world = farm(THEN).await;
    {
        let mut queue = world.live.queue.lock().unwrap();
        let limit = schedule::Reason::BuilderLimit { running: 1, max: 1 };
        let second = world.wait(25, "linux-race", "linux", 1, limit);
        Arc::make_mut(&mut queue.waiting).insert(1, second);
        queue.paused = Some("the disk is nearly full".to_owned());
    }
    let json = world.json("/queue").await;
    let waiting: Vec<_> = json["waiting"]
        .as_array()
        .unwrap()
        .iter()
        .map(|wait| (&wait["build"], &wait["ahead"], &wait["after"]))
        .collect();
    assert_eq!(
        waiting,
        [
            (&23.into(), &0.into(), &serde_json::Value::Null),
            (&25.into(), &1.into(), &23.into()),
            (&24.into(), &0.into(), &serde_json::Value::Null),
        ]
    );
    assert_eq!(json["running"][0]["machine"], "local-1");
    world.page("/queue").await.has(&[
        "Nothing is started: </strong>the disk is nearly full",
        "its builder runs 1 at once and may run 1",
        "no machine of type mac is connected",
        "id=\"w25\"",
        "href=\"/machine/local-1\"",
    ]);
}

#[tokio::test]
async fn the_status_page_tells_how_fresh_everything_is() {
    let world = farm(THEN).await;
    let json = world.json("/status").await;
    let items: Vec<_> = json["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["name"].as_str().unwrap(), item["ok"].as_bool().unwrap()))
        .collect();
    assert_eq!(
        items,
        [
            ("store", true),
            ("scheduler", false),
            ("repository widget", true),
            ("machines linux", true),
            ("machines mac", false),
            ("newest build", true),
        ]
    );
    world.page("/status").await.has(&[
        "has not looked at the queue for too long",
        "1 of 3 connected",
        "2 in trouble",
        "takes writes",
    ]);
    *world.live.alarm.lock().unwrap() = Some("Nothing is started: the disk is full".to_owned());
    world
        .page("/builds")
        .await
        .has(&["role=\"status\"", "Nothing is started: the disk is full"]);
}

#[tokio::test]
async fn everything_is_found_by_one_field() {
    let world = farm(THEN).await;
    let to = async |words: &str| {
        let answer = world.get(&format!("/search?q={words}")).await;
        answer.header(header::LOCATION).to_owned()
    };
    assert_eq!(to("17").await, "/build/17");
    assert_eq!(to("%2317").await, "/build/17");
    assert_eq!(to("linux-race").await, "/builder/linux-race");
    let commit = hash("main", 5);
    assert_eq!(
        to(&commit.as_str()[..8]).await,
        format!("/commit/widget/{commit}")
    );
    let json = world.json("/search?q=release").await;
    assert_eq!(json["branches"][0]["branch"], "release/1.0");
    let json = world.json("/search?q=mac").await;
    assert_eq!(
        (&json["machines"][0], &json["builders"][0]),
        (&"mac7".into(), &"mac-arm64".into())
    );
    let json = world.json("/search?q=okoro").await;
    assert_eq!(json["commits"].as_array().unwrap().len(), 3);
    world
        .page("/search?q=okoro")
        .await
        .has(&["Tom Okoro", "value=\"okoro\"", "make it better"]);
    world
        .page("/search?q=%3Cb%3E")
        .await
        .has(&["“&lt;b&gt;”", "Nothing was found"]);
    world.page("/search").await.has(&["What do you look for?"]);
}

#[tokio::test]
async fn a_machine_that_is_lost_with_a_build_is_not_at_work_and_its_build_says_so() {
    let world = farm(THEN).await;
    let busy = async || {
        let page = world.json("/machines").await;
        let types = page["host_types"].as_array().unwrap().clone();
        types.iter().find(|host| host["name"] == "linux").unwrap()["busy"].clone()
    };
    assert_eq!(busy().await, 1);
    assert_eq!(world.json("/build/22").await["away"], serde_json::Value::Null);
    world.apply(&[world.down("local-1", 9_500)]).await;
    assert_eq!(busy().await, 0);
    world
        .page("/machine/local-1")
        .await
        .has(&["gone", "#22 waits for it"]);
    world.page("/build/22").await.has(&[
        "That machine is out of reach since",
        "unplugged",
        "the build is tried elsewhere",
    ]);
    let away = world.json("/build/22").await["away"].clone();
    assert_eq!(away["machine"], "local-1");
    let time = |field: &str| away[field].as_i64().unwrap();
    assert_eq!(time("until") - time("since"), 300_000_000);
}

#[tokio::test]
async fn a_machine_that_is_lent_is_not_free() {
    let world = farm(THEN).await;
    world.page("/machine/local-2").await.has(&["free"]);
    let loan = farm::Loan {
        loan: ids::LoanId(900),
        name: "user-amy-linux-amd64-0".to_owned(),
        owner: "user-amy".to_owned(),
        builder: "linux-amd64".parse().unwrap(),
        host_type: "linux".parse().unwrap(),
        machine: "local-2".parse().unwrap(),
        since: world.at(9_500),
        expires: world.at(9_900),
    };
    world.apply(&[farm::Write::LoanStarted(loan)]).await;
    let page = world.page("/machine/local-2").await;
    page.has(&["lent as user-amy-linux-amd64-0", "href=\"/gomotes\""]);
    let json = world.json("/machine/local-2").await;
    assert_eq!(json["machine"]["lent"], "user-amy-linux-amd64-0");
}

#[tokio::test]
async fn who_asked_for_json_by_the_address_is_led_to_json() {
    let world = farm(THEN).await;
    let commit = hash("main", 5);
    let short = &commit.as_str()[..7];
    for (from, to) in [
        (format!("/cell/widget/{commit}/linux-race"), "/build/"),
        (format!("/commit/widget/{short}"), "/commit/widget/"),
        ("/search?q=linux-amd64".to_owned(), "/builder/linux-amd64"),
        ("/search?q=22".to_owned(), "/build/22"),
        (format!("/search?q={short}"), "/commit/widget/"),
    ] {
        let (path, query) = from
            .split_once('?')
            .map_or((from.as_str(), String::new()), |(path, query)| {
                (path, format!("?{query}"))
            });
        let place = async |path: String| {
            let answer = world.get(&path).await;
            assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}: {}", answer.text());
            answer.header(header::LOCATION).to_owned()
        };
        let page = place(from.clone()).await;
        assert!(page.starts_with(to) && !page.contains(".json"), "{from}: {page}");
        for asked in [format!("{path}.json{query}"), format!("/api/v1{path}{query}")] {
            assert_eq!(place(asked.clone()).await, format!("{page}.json"), "{asked}");
        }
    }
}
