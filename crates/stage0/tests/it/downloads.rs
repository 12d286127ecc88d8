use std::fs;

use crate::world::{Answer, World, certificate, finish, kill, nobody, text};

/// A machine that has run 1.0.0 to its good end, while 1.1.0 has come out on the server.
fn with_last_good() -> World {
    let world = World::new();
    world.publish("1.0.0", 1, "1.0.0", "exit 0");
    assert_eq!(world.run().1, ["1.0.0"]);
    world.publish("1.1.0", 2, "1.0.0", "exit 0");
    world
}

/// Runs it; 1.0.0 ran, and stage0 told why it was not 1.1.0.
fn falls_back(world: &World, why: &str) {
    let (told, ran) = world.run();
    assert_eq!(ran, ["1.0.0"], "{told}");
    assert!(told.contains(why), "{told}");
}

#[test]
fn what_is_signed_is_fetched_once_and_run() {
    let world = with_last_good();
    let (told, ran) = world.run();
    assert_eq!(ran, ["1.1.0"]);
    assert!(told.contains("fetching buildlet 1.1.0"), "{told}");
    let (told, ran) = world.run();
    assert_eq!(ran, ["1.1.0"]);
    assert!(!told.contains("fetching"), "{told}");
}

#[test]
fn a_manifest_that_another_has_signed_is_refused() {
    let world = with_last_good();
    world.new_key("foreign");
    world.publish_by("foreign", "6.6.6", 3, "1.0.0", "exit 0");
    falls_back(&world, "none of the keys given has signed it");
}

#[test]
fn a_signer_may_be_replaced_by_a_machine_that_believes_both() {
    let mut world = with_last_good();
    let next = world.new_key("next");
    world.public_key = format!("{} {next}", world.public_key);
    world.publish_by("next", "1.2.0", 3, "1.0.0", "exit 0");
    assert_eq!(world.run().1, ["1.2.0"]);
}

#[test]
fn a_download_cut_short_is_not_kept() {
    let world = with_last_good();
    let whole = world.binary();
    let half = whole.len() / 2;
    world.answer(&world.binary_name(), Answer::Cut(whole.clone(), half));
    falls_back(&world, "ended in the middle");
    // Without a length that says so.
    world.answer(&world.binary_name(), Answer::Whole(whole[..half].to_vec()));
    falls_back(&world, "bytes; wanted");
    world.answer(&world.binary_name(), Answer::Whole(whole));
    assert_eq!(world.run().1, ["1.1.0"]);
}

#[test]
fn a_binary_that_was_exchanged_is_not_run() {
    let world = with_last_good();
    let mut other = world.binary();
    let last = other.len() - 2;
    other[last] ^= 1;
    world.answer(&world.binary_name(), Answer::Whole(other.clone()));
    falls_back(&world, "which is not the one signed");
    other.extend_from_slice(b"more");
    world.answer(&world.binary_name(), Answer::Whole(other));
    falls_back(&world, "is longer than");
}

#[test]
fn an_old_manifest_does_not_bring_an_old_buildlet_back() {
    let world = with_last_good();
    assert_eq!(world.run().1, ["1.1.0"]);
    world.publish("1.0.0", 1, "1.0.0", "exit 0");
    let (told, ran) = world.run();
    assert_eq!(ran, ["1.1.0"], "{told}");
    assert!(told.contains("it is an old one"), "{told}");
}

#[test]
fn the_last_good_one_runs_while_the_server_is_down() {
    let mut world = with_last_good();
    world.address = nobody();
    falls_back(&world, "no answer from");
}

#[test]
fn an_error_page_is_never_taken_for_a_buildlet_or_manifest() {
    let page = "<html>Bad Gateway</html>";
    for answer in [Answer::Status(502, page), Answer::Status(404, page)] {
        let world = with_last_good();
        world.answer(&world.binary_name(), answer.clone());
        falls_back(&world, "wanted 200");
        world.answer("manifest", answer);
        falls_back(&world, "wanted 200");
    }
    let world = with_last_good();
    world.answer(&world.binary_name(), Answer::Status(200, page));
    falls_back(&world, "bytes; wanted");
    world.answer("manifest", Answer::Status(200, page));
    falls_back(&world, "it begins `<html>Bad Gateway</html>`");
}

#[test]
fn a_kill_in_the_middle_of_a_download_harms_nothing() {
    let mut world = with_last_good();
    let whole = world.binary();
    world.answer(&world.binary_name(), Answer::Held(whole.clone(), whole.len() / 2));
    let stage0 = world.machine().spawn().expect("it runs");
    world.until_asked(&world.binary_name());
    kill(stage0);
    assert_eq!(world.ran(), [""; 0]);
    // Without the server the last good one runs, with it the new one.
    let server = std::mem::replace(&mut world.address, nobody());
    assert_eq!(world.run().1, ["1.0.0"]);
    world.address = server;
    world.answer(&world.binary_name(), Answer::Whole(whole));
    assert_eq!(world.run().1, ["1.1.0"]);
}

#[test]
fn what_is_below_the_minimum_stays_off_even_across_a_kill() {
    let world = with_last_good();
    world.publish("2.0.0", 3, "2.0.0", "exit 0");
    world.answer(&world.binary_name(), Answer::Status(404, ""));
    for _ in 0..2 {
        let stage0 = world.machine().spawn().expect("it runs");
        // The second time shows that it went round without running anything.
        world.until_asked("manifest");
        world.until_asked("manifest");
        kill(stage0);
        assert_eq!(world.ran(), [""; 0]);
    }
}

#[test]
fn a_kept_binary_that_was_damaged_is_fetched_anew() {
    let world = with_last_good();
    assert_eq!(world.run().1, ["1.1.0"]);
    let digest = ring::digest::digest(&ring::digest::SHA256, &world.binary());
    let kept = world.path("state").join(stage0::manifest::hex(digest.as_ref()));
    fs::write(&kept, "#!/bin/sh\nexit 9\n").expect("it was kept there");
    let (told, ran) = world.run();
    assert_eq!(ran, ["1.1.0"]);
    assert!(told.contains("fetching"), "{told}");
}

#[test]
fn a_buildlet_that_lost_its_coordinator_is_run_again() {
    let world = World::new();
    let flag = world.path("flag");
    let flag = flag.display();
    world.publish(
        "1.0.0",
        1,
        "1.0.0",
        &format!("test -e {flag} && exit 0; touch {flag}; exit 75"),
    );
    assert_eq!(world.run().1, ["1.0.0", "1.0.0"]);
}

#[test]
fn one_that_falls_again_and_again_gives_way_to_the_last_good_one() {
    let world = with_last_good();
    world.publish("1.2.0", 3, "1.0.0", "kill -9 $$");
    let (told, ran) = world.run();
    assert_eq!(ran, ["1.2.0", "1.2.0", "1.2.0", "1.0.0"]);
    assert!(
        told.contains("buildlet 1.2.0 ended: killed by signal 9"),
        "{told}"
    );
}

#[test]
fn a_server_without_an_authority_is_known_by_its_fingerprint() {
    let (tls, fingerprint) = certificate();
    let mut world = World::with_tls(Some(tls));
    world.publish("1.0.0", 1, "1.0.0", "exit 0");
    let manifest = format!("https://{}/b/manifest", world.address);
    world.more = format!("fingerprint = {fingerprint}");
    let mut machine = world.machine();
    machine.env("BURROW_MANIFEST", &manifest);
    let out = finish(machine);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(world.ran(), ["1.0.0"]);
    world.publish("1.1.0", 2, "1.0.0", "exit 0");
    world.more = format!("fingerprint = {}", "0".repeat(64));
    let mut machine = world.machine();
    machine.env("BURROW_MANIFEST", &manifest);
    let told = text(&finish(machine).stderr);
    assert!(told.contains(&fingerprint), "{told}");
    assert_eq!(world.ran(), ["1.0.0"]);
}

#[test]
fn a_state_folder_has_one_stage0() {
    let world = World::new();
    let first = world.machine().spawn().expect("it runs");
    world.until_asked("manifest");
    let out = finish(world.machine());
    kill(first);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("another stage0 is at work in it"));
}
