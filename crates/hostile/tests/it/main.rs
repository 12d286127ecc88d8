//! The seeds and what becomes of them: the same bytes each time.

use std::fs;
use std::path::Path;

use testkit::Random;

/// Mutations of the seeds of one target; fewer where each costs files.
fn rounds(target: &str) -> u64 {
    match target {
        "tar" | "tar_gz" => 400,
        "manifest" => 600,
        _ => 4_000,
    }
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut seeds: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|why| panic!("{}: {why}", folder.display()))
        .map(|entry| {
            let entry = entry.unwrap();
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 3, "{target} has seeds");
    seeds
}

/// One to four changes: a bit, a byte that means something, a piece gone, a piece twice, a piece of another seed.
fn mutated(random: &mut Random, mut bytes: Vec<u8>, other: &[u8]) -> Vec<u8> {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let end = (at + random.below(64) as usize).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => {
                bytes[at] = b"\0\r\n\"\\/.-09aNWC{}\x7f\x80\xff"[random.below(19) as usize];
            }
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, piece));
            }
            4 if !other.is_empty() => {
                let from = random.below(other.len() as u64) as usize;
                let to = (from + random.below(64) as usize).min(other.len());
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Runs one target on bytes, and says which they were if it panics.
fn run(target: &str, body: fn(&[u8]), what: &str, bytes: &[u8]) {
    let done = std::panic::catch_unwind(|| body(bytes));
    assert!(done.is_ok(), "{target}: {what}: {}", bytes.escape_ascii());
}

fn all(target: &str) {
    let (_, body) = hostile::TARGETS
        .into_iter()
        .find(|(name, _)| *name == target)
        .unwrap();
    let seeds = seeds(target);
    for (name, bytes) in &seeds {
        run(target, body, name, bytes);
    }
    let mut random = Random::new(2018);
    for round in 0..rounds(target) {
        let pick = |random: &mut Random| &seeds[random.below(seeds.len() as u64) as usize].1;
        let (seed, other) = (pick(&mut random).clone(), pick(&mut random).clone());
        let bytes = mutated(&mut random, seed, &other);
        run(target, body, &format!("mutation {round}"), &bytes);
    }
}

#[test]
fn http_heads_and_bodies() {
    all("http_request");
    all("http_answer");
}

#[test]
fn forms() {
    all("form");
}

#[test]
fn reverse_dialling_of_both_versions() {
    all("revdial_v1");
    all("revdial_v2");
}

#[test]
fn archives() {
    all("tar");
    all("tar_gz");
}

#[test]
fn manifests() {
    all("manifest");
}

#[test]
fn each_target_has_its_fuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for (target, _) in hostile::TARGETS {
        let text = fs::read_to_string(folder.join(format!("fuzz_targets/{target}.rs"))).unwrap();
        assert!(text.contains(&format!("hostile::{target}(data)")), "{target}");
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
    }
}
