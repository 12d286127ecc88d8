use std::path::Path;

const GENERATED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/rpc/generated.rs");

/// With `BURROW_WRITE_GENERATED=1`, writes them.
#[test]
fn the_messages_of_the_service_are_those_of_the_schema() {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let compiled = protox::compile(["maintner_service.proto"], [proto]).expect("the schema compiles");
    let module = prost_build::Module::from_protobuf_package_name("apipb");
    let files = compiled.file.into_iter();
    let files = files.map(|file| (module.clone(), file)).collect();
    let made = prost_build::Config::new().generate(files);
    let made = made
        .expect("code is generated")
        .remove(&module)
        .expect("of our package");
    let made = format!(
        "// @generated from `proto/maintner_service.proto`; see the test of this crate's schema.\n#![cfg_attr(rustfmt, rustfmt_skip)]\n#![allow(clippy::all)]\n\n{made}"
    );
    if std::env::var("BURROW_WRITE_GENERATED").as_deref() == Ok("1") {
        std::fs::write(GENERATED, &made).unwrap();
    }
    let kept = std::fs::read_to_string(GENERATED).unwrap();
    assert!(
        kept == made,
        "src/rpc/generated.rs is not of this schema; run this test with BURROW_WRITE_GENERATED=1"
    );
}
