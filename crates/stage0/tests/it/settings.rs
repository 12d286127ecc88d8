use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::world::{Answer, World, finish, stage0, text};

/// stage0 without a file of settings, run to its end: what it told.
fn run(world: &World, mut command: Command) -> String {
    world.publish("1.0.0", 1, "1.0.0", "exit 0");
    let none = world.path("none.conf");
    fs::write(&none, "").expect("written");
    command.arg("--config").arg(none);
    let out = finish(command);
    text(&out.stderr)
}

/// The settings by their names, spelled by `spell`.
fn spelled(world: &World, spell: impl Fn(&str) -> String) -> Vec<(String, String)> {
    let manifest = format!("http://{}/b/manifest", world.address);
    let state = world.path("state").display().to_string();
    let settings = [
        ("coordinator", "farm:1"),
        ("manifest", manifest.as_str()),
        ("public-keys", world.public_key.as_str()),
        ("state-dir", state.as_str()),
        ("host-type", "t"),
    ];
    settings
        .into_iter()
        .map(|(name, value)| (spell(name), value.to_owned()))
        .collect()
}

#[test]
fn settings_come_from_the_environment_as_kubernetes_has_it() {
    for prefix in ["BURROW_", "META_BURROW_"] {
        let world = World::new();
        let mut command = stage0();
        command.envs(spelled(&world, |name| {
            format!("{prefix}{}", name.to_uppercase().replace('-', "_"))
        }));
        let told = run(&world, command);
        assert_eq!(
            world.ran(),
            ["1.0.0 -coordinator=farm:1 -reverse-type=t"],
            "{told}"
        );
    }
}

#[test]
fn settings_come_from_the_metadata_of_gce() {
    let world = World::new();
    for (name, value) in spelled(&world, str::to_owned) {
        let path = format!("/computeMetadata/v1/instance/attributes/burrow-{name}");
        let mut answers = world.answers.lock().expect("no panic");
        answers.insert(path, Answer::Whole(value.into_bytes()));
    }
    let mut command = stage0();
    command.env("GCE_METADATA_HOST", &world.address);
    let told = run(&world, command);
    assert_eq!(
        world.ran(),
        ["1.0.0 -coordinator=farm:1 -reverse-type=t"],
        "{told}"
    );
}

#[test]
fn settings_come_from_the_user_data_of_ec2() {
    let world = World::new();
    let pairs = spelled(&world, |name| format!("\"burrow_{}\"", name.replace('-', "_")));
    let lines: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}:\"{value}\""))
        .collect();
    let json = format!("{{{}}}", lines.join(","));
    let mut answers = world.answers.lock().expect("no panic");
    answers.insert("/latest/user-data".to_owned(), Answer::Whole(json.into_bytes()));
    drop(answers);
    let mut command = stage0();
    command.env("GCE_METADATA_HOST", &world.address);
    let told = run(&world, command);
    assert_eq!(
        world.ran(),
        ["1.0.0 -coordinator=farm:1 -reverse-type=t"],
        "{told}"
    );
}

#[test]
fn arguments_behind_the_dashes_are_the_buildlets() {
    let world = World::new();
    world.publish("1.0.0", 1, "1.0.0", "exit 0");
    let mut command = world.machine();
    command.args(["--", "-workdir=/x", "--config"]);
    assert_eq!(finish(command).status.code(), Some(0));
    assert_eq!(world.ran(), ["1.0.0 -workdir=/x --config"]);
}

#[test]
fn wrong_settings_and_flags_have_codes_of_their_own() {
    let world = World::new();
    let mut command = stage0();
    command
        .env("BURROW_PUBLIC_KEYS", "12")
        .env("GCE_METADATA_HOST", &world.address);
    command.env("BURROW_COORDINATOR", "a b");
    let out = finish(command);
    assert_eq!(out.status.code(), Some(78));
    assert_eq!(
        text(&out.stderr),
        "stage0: environment: coordinator: `a b` is no address; wanted HOST:PORT\n\
         stage0: environment: public-keys: `12` is no Ed25519 key; wanted 64 hex digits\n"
    );
    let mut command = stage0();
    command.arg("--colour");
    assert_eq!(finish(command).status.code(), Some(2));
}

/// Has stage0 unpack an archive of one link and one file.
fn untar(dir: &Path, link_to: &str) -> (Option<i32>, String) {
    let archive = dir.join("a.tar.gz");
    let gzip =
        flate2::write::GzEncoder::new(File::create(&archive).expect("made"), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/tool", &b"hi"[..])
        .expect("added");
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "bin/link", link_to).expect("added");
    tar.into_inner().expect("whole").finish().expect("written");
    let mut command = stage0();
    command.arg("--untar-file").arg(&archive);
    command.arg("--untar-dest-dir").arg(dir.join("out"));
    let out = finish(command);
    (out.status.code(), text(&out.stderr))
}

#[test]
fn an_archive_is_unpacked_and_nothing_beside_it() {
    let world = World::new();
    assert_eq!(untar(world.dir.path(), "tool"), (Some(0), String::new()));
    assert_eq!(fs::read(world.path("out/bin/link")).expect("unpacked"), b"hi");
    let (code, told) = untar(world.dir.path(), "../../secret");
    assert_eq!(code, Some(1));
    assert!(told.contains("leads out"), "{told}");
}
