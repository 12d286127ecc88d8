//! What a cloud says about its machine: Kubernetes in the environment, GCE and EC2 by a server.

use std::time::{Duration, Instant};

use buildlet::trust::Trust;

use crate::fetch::{Fetcher, Url};
use crate::settings::{NAMES, Source, in_environment};

/// A value longer than this is none of ours.
const MAX_VALUE: u64 = 64 * 1024;

const LIMIT: Duration = Duration::from_secs(5);

pub fn kubernetes(env: impl Fn(&str) -> Option<String>) -> Source {
    Source::of_names(
        "META_* of the environment",
        |name| in_environment("META_BURROW_", name),
        env,
    )
}

/// Asks the server at this address, which both clouds have at 169.254.169.254, in both ways.
pub fn of_clouds(address: &str) -> Vec<Source> {
    [gce(address), ec2(address)]
        .into_iter()
        .filter(|source| !source.values.is_empty())
        .collect()
}

/// Source: golang/build's use of cloud.google.com/go/compute/metadata.
fn gce(address: &str) -> Source {
    let get = |name: &str| {
        let path = format!("/computeMetadata/v1/instance/attributes/burrow-{name}");
        get(address, &path, "Metadata-Flavor: Google\r\n")
    };
    // All of them are asked only where one is answered: elsewhere each takes its time.
    match get(NAMES[0]) {
        Some(_) => Source::of_names("GCE's metadata", str::to_owned, get),
        None => Source::default(),
    }
}

fn ec2(address: &str) -> Source {
    let text = get(address, "/latest/user-data", "").unwrap_or_default();
    of_user_data(&text)
}

/// Source of the form: golang/build `internal/cloud/aws.go`.
fn of_user_data(text: &str) -> Source {
    let values: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let ask = |name: &str| values[name].as_str().map(str::to_owned);
    Source::of_names(
        "EC2's user data",
        |name| format!("burrow_{}", name.replace('-', "_")),
        ask,
    )
}

fn get(address: &str, path: &str, headers: &str) -> Option<String> {
    let url = Url::parse(&format!("http://{address}{path}"))?;
    let fetcher = Fetcher {
        trust: Trust::PublicRoots,
        agent: "burrow-stage0".to_owned(),
    };
    let mut text = Vec::new();
    let deadline = Instant::now() + LIMIT;
    fetcher.get(&url, headers, MAX_VALUE, deadline, &mut text).ok()?;
    String::from_utf8(text).ok()
}
