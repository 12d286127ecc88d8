//! Where this machine belongs, put together from what its owner wrote and what its cloud says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use buildlet::dial::parse_address;
use buildlet::trust::{Trust, parse_fingerprint};

use crate::fetch::Url;
use crate::manifest::PublicKey;

/// Every name there is, as the file and GCE's metadata spell it. `BURROW_…` in the environment,
/// `META_BURROW_…` there for Kubernetes, and `burrow_…` in EC2's user data.
pub const NAMES: [&str; 11] = [
    "coordinator",
    "host-type",
    "enroll",
    "identity",
    "hostname",
    "public-keys",
    "manifest",
    "fingerprint",
    "ca-file",
    "state-dir",
    "network-wait-s",
];

/// Values by the names of [`NAMES`], and how to speak of where they stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    pub place: String,
    pub values: BTreeMap<&'static str, String>,
}

pub struct Settings {
    pub manifest: Url,
    /// How the manifest's server is known; what it sends is believed for its signature.
    pub trust: Trust,
    pub public_keys: Vec<PublicKey>,
    pub state_dir: PathBuf,
    pub network_wait: Duration,
    /// Put before the arguments that the owner gives.
    pub buildlet_args: Vec<String>,
}

impl Source {
    /// The lines `name = value` of a file; `#` begins a comment.
    pub fn of_file(place: String, text: &str) -> Result<Source, Vec<String>> {
        let (mut values, mut problems) = (BTreeMap::new(), Vec::new());
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = format!("{place}:{}", n + 1);
            let Some((name, value)) = line.split_once('=') else {
                problems.push(format!("{at}: `{line}` is no setting; wanted `name = value`"));
                continue;
            };
            match NAMES.iter().find(|known| **known == name.trim()) {
                Some(name) => drop(values.insert(*name, value.trim().to_owned())),
                None => problems.push(format!(
                    "{at}: there is no setting `{}`; there are {}",
                    name.trim(),
                    NAMES.join(", ")
                )),
            }
        }
        if problems.is_empty() {
            Ok(Source { place, values })
        } else {
            Err(problems)
        }
    }

    /// What `ask` knows by the names as `spell` writes them. An empty value is none.
    pub fn of_names(
        place: &str,
        spell: impl Fn(&str) -> String,
        ask: impl Fn(&str) -> Option<String>,
    ) -> Source {
        let asked = NAMES.iter().map(|name| (*name, ask(&spell(name))));
        let known = asked.filter_map(|(name, value)| Some((name, value?.trim().to_owned())));
        Source {
            place: place.to_owned(),
            values: known.filter(|(_, value)| !value.is_empty()).collect(),
        }
    }
}

/// `host-type` as `BURROW_HOST_TYPE` or `META_BURROW_HOST_TYPE`.
pub fn in_environment(prefix: &str, name: &str) -> String {
    format!("{prefix}{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// Whether these say enough that no metadata server need be asked.
pub fn is_enough(sources: &[Source]) -> bool {
    let known = |name| sources.iter().any(|source| source.values.contains_key(name));
    known("public-keys") && (known("coordinator") || known("manifest"))
}

/// Earlier sources go before later ones. All problems at once, each with its place.
pub fn check(sources: &[Source]) -> Result<Settings, Vec<String>> {
    let mut problems = Vec::new();
    let of = |name: &str| {
        sources
            .iter()
            .find_map(|source| Some((source.values.get(name)?.as_str(), source.place.as_str())))
    };
    let text = |name: &str| of(name).map(|(value, _)| value);
    let coordinator = text("coordinator");
    let parsed = coordinator.map(parse_address);
    if let (Some(None), Some((value, place))) = (&parsed, of("coordinator")) {
        problems.push(format!(
            "{place}: coordinator: `{value}` is no address; wanted HOST:PORT"
        ));
    }
    let manifest = match (of("manifest"), parsed.flatten()) {
        (Some((value, place)), _) => {
            let url = Url::parse(value);
            if url.is_none() {
                problems.push(format!(
                    "{place}: manifest: `{value}` is no URL; wanted https://HOST/PATH"
                ));
            }
            url
        }
        (None, Some((host, port))) => Some(Url::new(true, host, port, "/buildlet/manifest")),
        (None, None) => {
            if coordinator.is_none() {
                problems.push(
                    "`coordinator` is not set, nor is `manifest`; wanted HOST:PORT of the farm".to_owned(),
                );
            }
            None
        }
    };
    let mut public_keys = Vec::new();
    match of("public-keys") {
        None => problems.push(
            "`public-keys` is not set; wanted what `stage0 new-key` printed for who signs the buildlets"
                .to_owned(),
        ),
        Some((value, place)) => {
            for word in value.split_whitespace() {
                match PublicKey::parse(word) {
                    Some(key) => public_keys.push(key),
                    None => problems.push(format!(
                        "{place}: public-keys: `{word}` is no Ed25519 key; wanted 64 hex digits"
                    )),
                }
            }
        }
    }
    let trust = match (of("fingerprint"), of("ca-file")) {
        (Some((_, place)), Some(_)) => {
            problems.push(format!("{place}: `fingerprint` and `ca-file` exclude each other"));
            Trust::PublicRoots
        }
        (Some((value, place)), None) => {
            parse_fingerprint(value)
                .map(Trust::Fingerprint)
                .unwrap_or_else(|| {
                    problems.push(format!(
                        "{place}: fingerprint: `{value}` is none; wanted the 64 hex digits of a SHA-256"
                    ));
                    Trust::PublicRoots
                })
        }
        (None, Some((value, _))) => Trust::CaFile(value.into()),
        (None, None) => Trust::PublicRoots,
    };
    // An installer may hold Windows' network up for minutes. Source: golang/build `stage0.go`.
    let mut network_wait = Duration::from_secs(if cfg!(windows) { 300 } else { 30 });
    if let Some((value, place)) = of("network-wait-s") {
        match value.parse() {
            Ok(seconds) => network_wait = Duration::from_secs(seconds),
            Err(_) => problems.push(format!(
                "{place}: network-wait-s: `{value}` is no number of seconds"
            )),
        }
    }
    let mut buildlet_args = Vec::new();
    let mut pass = |flag: &str, value: &str| buildlet_args.push(format!("-{flag}={value}"));
    let dials = ["host-type", "enroll", "identity"]
        .into_iter()
        .find(|name| text(name).is_some());
    if let Some(why) = dials {
        match coordinator {
            Some(coordinator) => pass("coordinator", coordinator),
            None => problems.push(format!("`{why}` needs a `coordinator` to dial")),
        }
        if let Some(host_type) = text("host-type") {
            pass("reverse-type", host_type);
        }
        for name in ["enroll", "identity", "hostname", "fingerprint", "ca-file"] {
            if let Some(value) = text(name) {
                pass(name, value);
            }
        }
    }
    let state_dir = text("state-dir").unwrap_or(if cfg!(windows) {
        r"C:\ProgramData\burrow\stage0"
    } else {
        "/var/lib/burrow/stage0"
    });
    match manifest {
        Some(manifest) if problems.is_empty() => Ok(Settings {
            manifest,
            trust,
            public_keys,
            state_dir: state_dir.into(),
            network_wait,
            buildlet_args,
        }),
        _ => Err(problems),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";

    fn file(text: &str) -> Source {
        Source::of_file("f".to_owned(), text).expect("a file")
    }

    #[test]
    fn the_coordinator_and_a_key_are_enough() {
        let own = file(&format!(
            "# ours\ncoordinator = farm:8443\n\npublic-keys = {KEY}  {KEY}\nhost-type = t\n"
        ));
        assert!(is_enough(std::slice::from_ref(&own)));
        let settings = check(&[own]).map_err(|why| why.join("\n")).expect("fine");
        assert_eq!(
            settings.manifest.to_string(),
            "https://farm:8443/buildlet/manifest"
        );
        assert_eq!(settings.public_keys.len(), 2);
        assert_eq!(
            settings.buildlet_args,
            ["-coordinator=farm:8443", "-reverse-type=t"]
        );
    }

    #[test]
    fn a_machine_with_a_key_of_its_own_needs_no_host_type() {
        let own = file(&format!(
            "coordinator = farm\npublic-keys = {KEY}\nenroll = be_x\nidentity = /var/id"
        ));
        let settings = check(&[own]).map_err(|why| why.join("\n")).expect("fine");
        let wanted = ["-coordinator=farm", "-enroll=be_x", "-identity=/var/id"];
        assert_eq!(settings.buildlet_args, wanted);
    }

    #[test]
    fn the_environment_goes_before_the_file_and_the_cloud_comes_last() {
        let ask = |name: &str| (name == "META_BURROW_HOST_TYPE").then(|| "cloud".to_owned());
        let cloud = Source::of_names("META_*", |name| in_environment("META_BURROW_", name), ask);
        let own = file(&format!(
            "coordinator = farm\npublic-keys = {KEY}\nfingerprint = {KEY}"
        ));
        let ask = |name: &str| (name == "BURROW_COORDINATOR").then(|| " other ".to_owned());
        let environment = Source::of_names("environment", |name| in_environment("BURROW_", name), ask);
        let settings = check(&[environment, own, cloud])
            .map_err(|why| why.join("\n"))
            .expect("fine");
        let wanted = [
            "-coordinator=other",
            "-reverse-type=cloud",
            &format!("-fingerprint={KEY}"),
        ];
        assert_eq!(settings.buildlet_args, wanted);
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_place() {
        let wrong = "coordinator = https://x\npublic-keys = 12 zz\nfingerprint = 1\nnetwork-wait-s = soon";
        let problems = check(&[file(wrong)]).err().expect("wrong");
        assert_eq!(
            problems.join("\n"),
            "\
f: coordinator: `https://x` is no address; wanted HOST:PORT
f: public-keys: `12` is no Ed25519 key; wanted 64 hex digits
f: public-keys: `zz` is no Ed25519 key; wanted 64 hex digits
f: fingerprint: `1` is none; wanted the 64 hex digits of a SHA-256
f: network-wait-s: `soon` is no number of seconds"
        );
        let problems = check(&[file(
            "fingerprint = 1\nca-file = x\nmanifest = ftp://x\nhost-type = t",
        )]);
        assert_eq!(
            problems.err().expect("wrong").join("\n"),
            "\
f: manifest: `ftp://x` is no URL; wanted https://HOST/PATH
`public-keys` is not set; wanted what `stage0 new-key` printed for who signs the buildlets
f: `fingerprint` and `ca-file` exclude each other
`host-type` needs a `coordinator` to dial"
        );
        let problems = Source::of_file("f".to_owned(), "hello\ncolour = red").expect_err("wrong");
        assert_eq!(problems[0], "f:1: `hello` is no setting; wanted `name = value`");
        assert!(problems[1].starts_with("f:2: there is no setting `colour`; there are coordinator, "));
    }
}
