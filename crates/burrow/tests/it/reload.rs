//! A configuration that changes under a running farm.

use std::fs;

use crate::dial_in::get;
use crate::peers::Farm;
use crate::until;

#[test]
fn machines_come_and_go_with_the_configuration_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = |slots: u32, more: &str| {
        format!("[farm]\nlisten = \"127.0.0.1:0\"\n[host.one]\npool = \"local\"\nslots = {slots}\n{more}")
    };
    let farm = Farm::serve(folder.path(), &text(1, ""));
    let config = folder.path().join("burrow.toml");
    until("the first machine is up", || {
        (connected(&farm) == ["one-1"]).then_some(())
    });

    fs::write(&config, text(2, "[host.two]\npool = \"local\"\nslots = 1\n")).expect("a file");
    farm.signal("-HUP");
    until("all machines are up", || {
        (connected(&farm) == ["one-1", "one-2", "two-1"]).then_some(())
    });

    fs::write(&config, "[host.one]\npool = \"lcoal\"\n").expect("a file");
    farm.signal("-HUP");
    farm.signal("-HUP");
    fs::write(&config, text(1, "")).expect("a file");
    farm.signal("-HUP");
    until("the others are gone", || {
        (connected(&farm) == ["one-1"]).then_some(())
    });
    // No signal but this one ends it.
    farm.end();
}

/// Names of the machines that are connected, sorted.
fn connected(farm: &Farm) -> Vec<String> {
    let page = get(&farm.state, "/machines.json").unwrap_or_default();
    let body = page.split("\r\n\r\n").nth(1).unwrap_or_default();
    let page: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let machines = page["host_types"].as_array().into_iter().flatten();
    let machines = machines.flat_map(|kind| kind["machines"].as_array().into_iter().flatten());
    let mut names: Vec<String> = machines
        .filter(|machine| machine["connected"] == true)
        .map(|machine| machine["name"].as_str().expect("text").to_owned())
        .collect();
    names.sort();
    names
}
