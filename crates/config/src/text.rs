use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::check::{STEP_SILENCE, STEP_TIMEOUT};
use crate::checked::*;
use crate::units::{format_duration, format_size};
use crate::written::quoted_key;

/// `config` as a `burrow.toml`: checking that text gives the same [`Config`] again.
///
/// The one thing left out is the address of a PostgreSQL store, which may hold a password: a
/// comment stands in its place.
pub fn to_toml(config: &Config) -> String {
    let mut out = String::new();
    farm(&mut out, &config.farm);
    for (name, repo) in &config.repos {
        head(&mut out, "repo", name.as_str());
        line(&mut out, "url", text(&repo.url));
        if !repo.branches.is_empty() {
            line(&mut out, "branches", globs(&repo.branches));
        }
        line(&mut out, "recipe", text(repo.recipe.as_str()));
        line(&mut out, "poll", text(&format_duration(repo.poll)));
        line(&mut out, "backfill", repo.backfill);
    }
    for (name, host) in &config.hosts {
        head(&mut out, "host", name.as_str());
        match &host.pool {
            Pool::Local { slots } => {
                line(&mut out, "pool", text("local"));
                line(&mut out, "slots", slots);
            }
            Pool::Reverse {
                expect,
                development_key,
            } => {
                line(&mut out, "pool", text("reverse"));
                line(&mut out, "expect", expect);
                if *development_key {
                    line(&mut out, "accept_development_keys", true);
                }
            }
        }
        env(&mut out, &host.env);
        let limits = &host.limits;
        let sizes = [("memory_limit", limits.memory), ("output_limit", limits.output)];
        for (key, bytes) in sizes.iter().filter_map(|(key, bytes)| Some((*key, (*bytes)?))) {
            line(&mut out, key, text(&format_size(bytes)));
        }
        if let Some(processes) = limits.processes {
            line(&mut out, "process_limit", processes);
        }
        if limits.no_network {
            line(&mut out, "network", false);
        }
        if limits.confined {
            line(&mut out, "confine", true);
        }
        if !host.owners.is_empty() {
            line(&mut out, "owners", texts(&host.owners));
        }
        notes(&mut out, &host.notes);
        if host.ssh_user != crate::checked::SSH_USER {
            line(&mut out, "ssh_user", text(&host.ssh_user));
        }
    }
    for (name, builder) in &config.builders {
        head(&mut out, "builder", name.as_str());
        write_builder(&mut out, builder);
    }
    for (name, recipe) in &config.recipes {
        head(&mut out, "recipe", name.as_str());
        line(&mut out, "source", text(&recipe.source));
        out.push_str("steps = [\n");
        for step in &recipe.steps {
            let _ = writeln!(out, "  {{ {} }},", write_step(step, &recipe.source));
        }
        out.push_str("]\n");
    }
    maintner(&mut out, &config.maintner);
    out
}

/// With the forges that it names, and no others: repositories have their URLs.
fn maintner(out: &mut String, maintner: &Maintner) {
    if *maintner == Maintner::default() {
        return;
    }
    let forges: BTreeMap<&str, &ForgeAt> = maintner
        .watches
        .values()
        .map(|watch| (watch.forge.as_str(), &watch.at))
        .collect();
    for (name, at) in forges {
        head(out, "forge", name);
        let path = |path: &Path| text(&path.to_string_lossy());
        match at {
            ForgeAt::Git { base } => {
                line(out, "kind", text("git"));
                line(out, "git", text(base));
            }
            ForgeAt::Gerrit { base, cookies } => {
                line(out, "kind", text("gerrit"));
                line(out, "git", text(base));
                if let Some(cookies) = cookies {
                    line(out, "auth", format!("{{ cookies_file = {} }}", path(cookies)));
                }
            }
            ForgeAt::GitHub { api, token } => {
                line(out, "kind", text("github"));
                line(out, "api", text(api));
                match token {
                    None => {}
                    Some(SecretAt::File(file)) => {
                        line(out, "auth", format!("{{ token_file = {} }}", path(file)));
                    }
                    Some(SecretAt::Env(name)) => {
                        line(out, "auth", format!("{{ token_env = {} }}", text(name)));
                    }
                }
            }
        }
    }
    out.push_str("\n[maintner]\n");
    line(out, "public", maintner.public);
    if let Some(pubsub) = &maintner.pubsub {
        line(out, "pubsub", text(pubsub));
    }
    line(out, "github_rate", maintner.github_rate);
    for (name, watch) in &maintner.watches {
        head(out, "maintner.watch", name);
        line(out, "forge", text(&watch.forge));
        line(out, "projects", texts(&watch.projects));
        line(out, "poll", text(&format_duration(watch.poll)));
    }
}

fn farm(out: &mut String, farm: &Farm) {
    out.push_str("[farm]\n");
    line(out, "name", text(&farm.name));
    if let Some(url) = &farm.public_url {
        line(out, "public_url", text(url));
    }
    line(out, "state_dir", text(&farm.state_dir.to_string_lossy()));
    line(out, "listen", text(&farm.listen_http.to_string()));
    if !farm.listen_http.ip().is_loopback() {
        line(out, "insecure_http", true);
    }
    if let Some(address) = farm.listen_https {
        line(out, "listen_https", text(&address.to_string()));
    }
    if let Some(address) = farm.listen_ssh {
        line(out, "listen_ssh", text(&address.to_string()));
    }
    if let Some(tls) = &farm.tls {
        line(out, "tls_cert", text(&tls.cert.to_string_lossy()));
        line(out, "tls_key", text(&tls.key.to_string_lossy()));
    }
    if !farm.names.is_empty() {
        line(out, "names", texts(&farm.names));
    }
    if farm.closed {
        line(out, "reading", text("closed"));
    }
    if let Some(folder) = &farm.secrets {
        line(out, "secrets", text(&folder.to_string_lossy()));
    }
    match &farm.store {
        StoreUrl::Embedded => {}
        StoreUrl::Postgres(_) => out.push_str("# store = \"postgres://…\": the address is left out here\n"),
    }
    line(out, "disk_floor", text(&format_size(farm.disk_floor)));
    line(out, "keep_logs", text(&format_duration(farm.keep_logs)));
    line(out, "max_log", text(&format_size(farm.max_log)));
    line(out, "wait_limit", text(&format_duration(farm.wait_limit)));
}

fn write_builder(out: &mut String, builder: &Builder) {
    line(out, "host", text(builder.host.as_str()));
    match builder.builds.rules.as_slice() {
        [rule] if rule.repo.is_empty() && rule.branch.is_empty() => {
            if !rule.build {
                line(out, "post_submit", text("never"));
            }
        }
        rules => {
            let rules: Vec<String> = rules.iter().map(write_rule).collect();
            line(out, "builds", format!("[{}]", rules.join(", ")));
        }
    }
    if let Some(recipe) = &builder.recipe {
        line(out, "recipe", text(recipe.as_str()));
    }
    env(out, &builder.env);
    if let Some(most) = builder.max_at_once {
        line(out, "max_at_once", most);
    }
    line(out, "time_scale", builder.time_scale);
    line(out, "group", text(&builder.group));
    line(out, "order", builder.order);
    notes(out, &builder.notes);
    if !builder.known_issues.is_empty() {
        line(out, "known_issues", texts(&builder.known_issues));
    }
}

fn write_rule(rule: &Rule) -> String {
    let mut parts = Vec::new();
    if !rule.repo.is_empty() {
        parts.push(format!("repo = {}", globs(&rule.repo)));
    }
    if !rule.branch.is_empty() {
        parts.push(format!("branch = {}", globs(&rule.branch)));
    }
    parts.push(format!("build = {}", rule.build));
    format!("{{ {} }}", parts.join(", "))
}

fn write_step(step: &Step, source: &str) -> String {
    let run = match &step.run {
        Run::Args(args) => texts(args),
        Run::Shell(line) => text(line),
    };
    let mut parts = vec![format!("name = {}", text(&step.name)), format!("run = {run}")];
    if step.dir != source {
        parts.push(format!("dir = {}", text(&step.dir)));
    }
    if !step.env.is_empty() {
        parts.push(format!("env = {}", texts(&entries(&step.env))));
    }
    if step.timeout != STEP_TIMEOUT {
        parts.push(format!("timeout = {}", text(&format_duration(step.timeout))));
    }
    if step.silence != STEP_SILENCE {
        parts.push(format!("no_output = {}", text(&format_duration(step.silence))));
    }
    parts.join(", ")
}

fn env(out: &mut String, env: &[(String, String)]) {
    if !env.is_empty() {
        line(out, "env", texts(&entries(env)));
    }
}

fn notes(out: &mut String, notes: &str) {
    if !notes.is_empty() {
        line(out, "notes", text(notes));
    }
}

fn entries(env: &[(String, String)]) -> Vec<String> {
    env.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn globs(globs: &[Glob]) -> String {
    texts(&globs.iter().map(|glob| glob.0.clone()).collect::<Vec<_>>())
}

fn texts(list: &[String]) -> String {
    let list: Vec<String> = list.iter().map(|item| text(item)).collect();
    format!("[{}]", list.join(", "))
}

/// In quotes, escaped as TOML wants it.
fn text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn head(out: &mut String, kind: &str, name: &str) {
    let _ = write!(out, "\n[{kind}.{}]\n", quoted_key(name));
}

fn line(out: &mut String, key: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "{key} = {value}");
}
