use std::collections::BTreeMap;
use std::fmt::Display;

use crate::checked::{Config, Farm, Pool, WatchForge};

/// What a reload changes, one line each, for the log: `builder linux-386 added`, `repo widget: url
/// changed`. Values are told only where they cannot hold a secret. Empty when nothing changes.
pub fn diff(old: &Config, new: &Config) -> Vec<String> {
    let mut lines = farm(&old.farm, &new.farm);
    table(&mut lines, "repo", &old.repos, &new.repos, |old, new| {
        vec![
            ("url", old.url != new.url, None),
            ("branches", old.branches != new.branches, None),
            (
                "recipe",
                old.recipe != new.recipe,
                from_to(&old.recipe, &new.recipe),
            ),
            ("poll", old.poll != new.poll, None),
            (
                "backfill",
                old.backfill != new.backfill,
                from_to(old.backfill, new.backfill),
            ),
        ]
    });
    table(&mut lines, "host", &old.hosts, &new.hosts, |old, new| {
        let slots = match (&old.pool, &new.pool) {
            (Pool::Local { slots: a }, Pool::Local { slots: b }) => Some((*a, *b)),
            _ => None,
        };
        vec![
            (
                "slots",
                slots.is_some_and(|(a, b)| a != b),
                slots.and_then(|(a, b)| from_to(a, b)),
            ),
            ("pool", slots.is_none() && old.pool != new.pool, None),
            ("env", old.env != new.env, None),
            ("limits", old.limits != new.limits, None),
            ("owners", old.owners != new.owners, None),
            ("notes", old.notes != new.notes, None),
            ("ssh_user", old.ssh_user != new.ssh_user, None),
        ]
    });
    table(&mut lines, "builder", &old.builders, &new.builders, |old, new| {
        let scale = from_to(old.time_scale, new.time_scale);
        vec![
            ("host", old.host != new.host, from_to(&old.host, &new.host)),
            ("builds", old.builds != new.builds, None),
            ("recipe", old.recipe != new.recipe, None),
            ("env", old.env != new.env, None),
            ("max_at_once", old.max_at_once != new.max_at_once, None),
            ("time_scale", old.time_scale != new.time_scale, scale),
            ("group", old.group != new.group, from_to(&old.group, &new.group)),
            ("order", old.order != new.order, None),
            ("notes", old.notes != new.notes, None),
            ("known_issues", old.known_issues != new.known_issues, None),
        ]
    });
    table(&mut lines, "recipe", &old.recipes, &new.recipes, |old, new| {
        vec![
            (
                "source",
                old.source != new.source,
                from_to(&old.source, &new.source),
            ),
            ("steps", old.steps != new.steps, None),
        ]
    });
    let same = |old: &WatchForge, new: &WatchForge| {
        vec![
            ("forge", old.at != new.at || old.forge != new.forge, None),
            ("projects", old.projects != new.projects, None),
            ("poll", old.poll != new.poll, None),
        ]
    };
    table(
        &mut lines,
        "maintner.watch",
        &old.maintner.watches,
        &new.maintner.watches,
        same,
    );
    let (old, new) = (&old.maintner, &new.maintner);
    if (old.public, &old.pubsub, old.github_rate) != (new.public, &new.pubsub, new.github_rate) {
        lines.push("maintner: changed".to_owned());
    }
    lines
}

/// A field, whether it changed, and `from A to B` where that may be told.
type Change = (&'static str, bool, Option<String>);

fn farm(old: &Farm, new: &Farm) -> Vec<String> {
    // What is opened once at the start.
    let restart = Some(", takes effect at the next start".to_owned());
    let changes: Vec<Change> = vec![
        ("name", old.name != new.name, None),
        ("public_url", old.public_url != new.public_url, None),
        ("state_dir", old.state_dir != new.state_dir, restart.clone()),
        ("listen", old.listen_http != new.listen_http, restart.clone()),
        (
            "listen_https",
            old.listen_https != new.listen_https,
            restart.clone(),
        ),
        ("listen_ssh", old.listen_ssh != new.listen_ssh, restart.clone()),
        ("tls_cert and tls_key", old.tls != new.tls, restart.clone()),
        ("names", old.names != new.names, None),
        ("reading", old.closed != new.closed, None),
        ("secrets", old.secrets != new.secrets, None),
        ("store", old.store != new.store, restart),
        ("disk_floor", old.disk_floor != new.disk_floor, None),
        ("keep_logs", old.keep_logs != new.keep_logs, None),
        ("max_log", old.max_log != new.max_log, None),
        ("wait_limit", old.wait_limit != new.wait_limit, None),
    ];
    told("farm", changes)
}

fn table<N: Ord + Display, T>(
    lines: &mut Vec<String>,
    kind: &str,
    old: &BTreeMap<N, T>,
    new: &BTreeMap<N, T>,
    changes: impl Fn(&T, &T) -> Vec<Change>,
) {
    for name in old.keys().filter(|name| !new.contains_key(name)) {
        lines.push(format!("{kind} {name} removed"));
    }
    for (name, value) in new {
        match old.get(name) {
            None => lines.push(format!("{kind} {name} added")),
            Some(was) => lines.extend(told(&format!("{kind} {name}"), changes(was, value))),
        }
    }
}

fn told(what: &str, changes: Vec<Change>) -> Vec<String> {
    changes
        .into_iter()
        .filter(|(_, changed, _)| *changed)
        .map(|(field, _, more)| format!("{what}: {field} changed{}", more.unwrap_or_default()))
        .collect()
}

fn from_to(old: impl Display, new: impl Display) -> Option<String> {
    Some(format!(" from {old} to {new}"))
}
