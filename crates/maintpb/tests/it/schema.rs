use std::path::Path;

use prost_types::FileDescriptorSet;

const GENERATED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/generated.rs");

pub fn compiled() -> FileDescriptorSet {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    protox::compile(["maintner.proto"], [proto]).expect("the schema compiles")
}

/// With `BURROW_WRITE_GENERATED=1`, writes them.
#[test]
fn the_messages_are_those_of_the_schema() {
    let mut config = prost_build::Config::new();
    let module = prost_build::Module::from_protobuf_package_name("maintpb");
    let files = compiled()
        .file
        .into_iter()
        .map(|file| (module.clone(), file))
        .collect();
    let made = config
        .generate(files)
        .expect("code is generated")
        .remove(&module)
        .expect("of our package");
    let made = format!(
        "// @generated from `proto/maintner.proto`; see the test of this crate's schema.\n#![cfg_attr(rustfmt, rustfmt_skip)]\n#![allow(clippy::all)]\n\n{made}"
    );
    if std::env::var("BURROW_WRITE_GENERATED").as_deref() == Ok("1") {
        std::fs::write(GENERATED, &made).unwrap();
    }
    let kept = std::fs::read_to_string(GENERATED).unwrap();
    assert!(
        kept == made,
        "src/generated.rs is not of this schema; run this test with BURROW_WRITE_GENERATED=1"
    );
}
