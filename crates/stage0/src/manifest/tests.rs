use proptest::prelude::*;

use super::*;

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed of 32 bytes")
}

fn public(seed: u8) -> PublicKey {
    PublicKey::parse(&public_hex(&key(seed))).expect("a key")
}

fn target(text: &str) -> Target {
    Target::parse(text).expect("a target")
}

fn version(text: &str) -> Version {
    Version::parse(text).expect("a version")
}

fn binary(size: u64) -> Binary {
    Binary {
        size,
        sha256: [0xab; 32],
        name: format!("buildlet.{size}"),
    }
}

fn signed() -> Vec<u8> {
    let binaries = [
        (target("linux-amd64"), binary(7)),
        (target("linux-arm-7"), binary(8)),
    ];
    sign(&key(1), 12, version("0.10.0"), version("0.9.3"), &binaries)
}

#[test]
fn the_bytes_of_a_manifest_are_these() {
    let text = String::from_utf8(signed()).expect("text");
    // Ed25519 signatures are the same at each signing; this one was checked with `openssl pkeyutl -verify`.
    assert_eq!(text, include_str!("golden.manifest"));
}

#[test]
fn a_machine_reads_its_own_line() {
    let offer = open(&signed(), &[public(2), public(1)], &target("linux-arm-7")).expect("signed");
    let release = Release {
        serial: 12,
        version: version("0.10.0"),
        binary: binary(8),
    };
    let minimum = version("0.9.3");
    assert_eq!(offer, Offer { release, minimum });
    let other = open(&signed(), &[public(1)], &target("plan9-386"));
    assert_eq!(other, Err(ManifestError::NoBinary("plan9-386".to_owned())));
}

#[test]
fn a_manifest_that_another_has_signed_is_refused() {
    for keys in [&[][..], &[public(2)]] {
        let refused = open(&signed(), keys, &target("linux-amd64"));
        assert_eq!(refused, Err(ManifestError::Signature));
    }
}

#[test]
fn versions_compare_by_their_numbers() {
    assert!(version("0.10.0") > version("0.9.3"));
    for bad in [
        "",
        "1",
        "1.2",
        "1.2.3.4",
        "1.2.x",
        "1.2.-3",
        "1.2.+3",
        "1.2.99999999999",
    ] {
        assert_eq!(Version::parse(bad), None, "{bad}");
    }
}

#[test]
fn an_error_page_is_named_as_what_it_is() {
    let page = b"<html><title>502 Bad Gateway</title>\n</html>";
    let why = open(page, &[public(1)], &target("linux-amd64")).expect_err("no manifest");
    assert_eq!(
        why.to_string(),
        "it is no manifest of buildlets: it begins `<html><title>502 Bad Gateway</title>`; wanted `burrow-buildlets 1`"
    );
}

/// What a signed text of these lines behind the first is taken for.
fn read_lines(lines: &str) -> String {
    let text = format!("{FIRST_LINE}\n{lines}");
    let signature = hex(key(1).sign(text.as_bytes()).as_ref());
    let whole = format!("{text}signature {signature}\n");
    match open(whole.as_bytes(), &[public(1)], &target("linux-amd64")) {
        Ok(_) => "fine".to_owned(),
        Err(why) => why.to_string(),
    }
}

#[test]
fn each_fault_of_a_signed_manifest_is_named() {
    let hash = "ab".repeat(32);
    let good = format!("binary linux-amd64 7 {hash} b\n");
    let head = "serial 1\nversion 1.0.0\nminimum 1.0.0\n";
    assert_eq!(read_lines(&format!("{head}{good}")), "fine");
    for (lines, why) in [
        (
            format!("version 1.0.0\nminimum 1.0.0\n{good}"),
            "it has no `serial`",
        ),
        (format!("serial 1\nminimum 1.0.0\n{good}"), "it has no `version`"),
        (format!("serial 1\nversion 1.0.0\n{good}"), "it has no `minimum`"),
        (
            format!("serial 1\nversion 1.0.0\nminimum 1.0.1\n{good}"),
            "version 1.0.0 is below its own minimum 1.0.1",
        ),
        (format!("{head}more\n"), "`more` is no line of a manifest"),
        (
            format!("{head}serial -1\n"),
            "`serial -1` is no line of a manifest",
        ),
        (
            format!("{head}binary linux-amd64 268435457 {hash} b\n"),
            &*format!("`binary linux-amd64 268435457 {hash} b` is no line of a manifest"),
        ),
        (
            format!("{head}binary linux-amd64 7 ab b\n"),
            "`binary linux-amd64 7 ab b` is no line of a manifest",
        ),
        (
            format!("{head}binary linux-amd64 7 {hash} ../b\n"),
            &*format!("`binary linux-amd64 7 {hash} ../b` is no line of a manifest"),
        ),
        (
            format!("{head}binary linux-amd64 7 {hash} .\n"),
            &*format!("`binary linux-amd64 7 {hash} .` is no line of a manifest"),
        ),
    ] {
        assert_eq!(
            read_lines(&lines),
            format!("it is no manifest of buildlets: {why}")
        );
    }
}

proptest! {
    #[test]
    fn a_manifest_damaged_anywhere_is_refused(at in 0..signed().len(), to: u8, cut: bool) {
        let mut bytes = signed();
        if cut {
            bytes.truncate(at);
        } else {
            prop_assume!(!bytes[at].eq_ignore_ascii_case(&to));
            bytes[at] = to;
        }
        prop_assert!(open(&bytes, &[public(1)], &target("linux-amd64")).is_err());
    }
}
