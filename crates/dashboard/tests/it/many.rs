//! More of everything than a page can show: each list shows a part, says how much there is, and leads to the rest.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use farm::Write;
use ids::MachineId;
use serde_json::Value;

use crate::world::*;

const BUILDERS: usize = 600;
const MACHINES: usize = 500;
const BRANCHES: usize = 300;

/// No list of an answer is longer, but for `/builds` and the queue, which say so.
const LONGEST: usize = 250;
const LONGEST_OF_BUILDS: usize = 1000;

/// What a page may take, in bytes.
const LARGEST: usize = 2 << 20;

async fn crowd() -> World {
    let mut config = CONFIG.split("[builder.").next().expect("a head").to_owned();
    for n in 0..BUILDERS {
        writeln!(config, "[builder.b{n:03}]\nhost = \"mac\"").unwrap();
    }
    config += "[recipe.make]\nsteps = [{ name = \"build\", run = [\"make\"] }]\n";
    let world = World::with(&config, THEN).await;
    world.history("main", 39, |_| ()).await;
    for n in 0..BRANCHES {
        world.history(&format!("release/{n:03}"), 0, |_| ()).await;
    }
    let mut writes: Vec<Write> = (0..MACHINES)
        .map(|n| world.up(&format!("m{n:03}"), "mac", 1))
        .collect();
    let mut build = 0;
    for depth in 30..40 {
        for n in 0..BUILDERS {
            build += 1;
            writes.push(world.created(build, hash("main", depth), &format!("b{n:03}"), 2));
        }
    }
    world.apply(&writes).await;
    let busy = schedule::Reason::AllBusy { machines: MACHINES };
    let waiting = (1..=build).map(|n| world.wait(n, "b000", "mac", n as usize - 1, busy.clone()));
    world.live.queue.lock().unwrap().waiting = Arc::new(waiting.collect());
    world
}

/// The longest list in it.
fn longest(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(longest).max().unwrap_or(0).max(list.len()),
        Value::Object(fields) => fields.values().map(longest).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[tokio::test]
async fn no_page_shows_more_than_it_can() {
    let world = crowd().await;
    for path in dashboard::paths() {
        let newest = hash("main", 39);
        let path = path
            .replace("{repo}", "widget")
            .replace("{*branch}", "main")
            .replace("{hash}", newest.as_str())
            .replace("{id}", "1")
            .replace("/builder/{name}", "/builder/b000")
            .replace("/machine/{name}", "/machine/m000");
        // What is one result, no list, or a stream.
        let no_list = ["/cell/", "/events", "/retry", "/cancel", "/log"];
        if no_list.iter().any(|part| path.contains(part)) {
            continue;
        }
        let asked: Vec<String> = match path.as_str() {
            "/search" => vec![
                "/search?q=b0".to_owned(),
                "/search?q=m".to_owned(),
                "/search?q=step".to_owned(),
            ],
            "/builds" => vec!["/builds".to_owned(), "/builds?limit=1000000".to_owned()],
            "/repo/widget" => continue, // leads to a branch
            path if path.starts_with("/repo/") => vec![path.to_owned(), format!("{path}?limit=200")],
            path => vec![path.to_owned()],
        };
        for path in asked {
            let json = world.json(&path).await;
            let most = if path.starts_with("/builds") || path == "/queue" {
                LONGEST_OF_BUILDS
            } else {
                LONGEST
            };
            assert!(longest(&json) <= most, "{path}: a list of {}", longest(&json));
            let page = world.get(&path).await;
            assert!(page.status.is_success(), "{path}: {}", page.status);
            // 20,000 cells take more than any other page.
            let most = if path.starts_with("/repo/") {
                6 * LARGEST
            } else {
                LARGEST
            };
            assert!(page.body.len() <= most, "{path}: {} bytes", page.body.len());
        }
    }
}

/// Walks a list by its `next` and names what it finds.
async fn walk(world: &World, path: &str, list: &str, name: &str) -> BTreeSet<String> {
    let (mut found, mut at) = (BTreeSet::new(), Some(0));
    while let Some(from) = at {
        let page = world.json(&format!("{path}from={from}")).await;
        let page = page.pointer("/host_types/0").unwrap_or(&page).clone();
        for one in page[list].as_array().expect("a list") {
            assert!(
                found.insert(one[name].as_str().expect("a name").to_owned()),
                "twice: {one}"
            );
        }
        at = page["next"].as_u64();
        assert!(at.is_none_or(|next| next > from), "{path}: it goes on");
    }
    found
}

#[tokio::test]
async fn the_parts_of_a_list_are_all_of_it() {
    let world = crowd().await;
    let builders: BTreeSet<String> = (0..BUILDERS).map(|n| format!("b{n:03}")).collect();
    assert_eq!(walk(&world, "/builders?", "builders", "name").await, builders);
    let commit = format!("/commit/widget/{}?", hash("main", 39));
    assert_eq!(walk(&world, &commit, "builders", "name").await, builders);
    let machines = (0..MACHINES).map(|n| format!("m{n:03}").parse::<MachineId>().unwrap().to_string());
    assert_eq!(
        walk(&world, "/machines?host=mac&", "machines", "name").await,
        machines.collect::<BTreeSet<_>>()
    );

    // The grid's builders, and all cells of its rows.
    let (mut found, mut cells, mut at) = (BTreeSet::new(), 0, Some(0));
    while let Some(columns) = at {
        let page = world
            .json(&format!("/repo/widget/main?limit=5&columns={columns}"))
            .await;
        let names = page["builders"].as_array().expect("builders");
        for one in names {
            assert!(
                found.insert(one["name"].as_str().expect("a name").to_owned()),
                "twice: {one}"
            );
        }
        for row in page["rows"].as_array().expect("rows") {
            let row = row["cells"].as_array().expect("cells");
            assert_eq!(row.len(), names.len());
            cells += row.iter().filter(|cell| !cell.is_null()).count();
        }
        assert_eq!(page["builders_in_all"], BUILDERS);
        at = page["columns_next"].as_u64();
    }
    assert_eq!((found, cells), (builders, 5 * BUILDERS));
    let page = world.get("/repo/widget/main").await;
    page.has(&["builders 1 to 250 of 600", "columns=250"]);
}
