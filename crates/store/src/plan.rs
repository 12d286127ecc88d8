//! The stored form of [`runner::Plan`]: JSON, one version of it for as long as attempts are kept.
//! Fields are added with a default, never renamed.

use std::time::Duration;

use ids::Limits;
use runner::{Command, Plan, StepPlan};
use serde::{Deserialize, Serialize};

use crate::StoreError;

#[derive(Serialize, Deserialize)]
struct PlanJson {
    source_dir: String,
    steps: Vec<StepJson>,
    limit_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct StepJson {
    name: String,
    command: CommandJson,
    dir: String,
    env: Vec<(String, String)>,
    timeout_ms: u64,
    silence_ms: u64,
    #[serde(default, skip_serializing_if = "LimitsJson::is_none")]
    limits: LimitsJson,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct LimitsJson {
    memory_bytes: Option<u64>,
    processes: Option<u32>,
    output_bytes: Option<u64>,
    no_network: bool,
    confined: bool,
}

impl LimitsJson {
    fn is_none(&self) -> bool {
        *self == LimitsJson::default()
    }
}

impl From<Limits> for LimitsJson {
    fn from(limits: Limits) -> LimitsJson {
        LimitsJson {
            memory_bytes: limits.memory,
            processes: limits.processes,
            output_bytes: limits.output,
            no_network: limits.no_network,
            confined: limits.confined,
        }
    }
}

impl From<LimitsJson> for Limits {
    fn from(json: LimitsJson) -> Limits {
        Limits {
            memory: json.memory_bytes,
            processes: json.processes,
            output: json.output_bytes,
            no_network: json.no_network,
            confined: json.confined,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CommandJson {
    Args(Vec<String>),
    Shell(String),
}

/// Durations are kept to the millisecond.
pub(crate) fn to_json(plan: &Plan) -> Result<String, StoreError> {
    let steps = plan.steps.iter().map(|step| StepJson {
        name: step.name.clone(),
        command: match &step.command {
            Command::Args(args) => CommandJson::Args(args.clone()),
            Command::Shell(text) => CommandJson::Shell(text.clone()),
        },
        dir: step.dir.clone(),
        env: step.env.clone(),
        timeout_ms: millis(step.timeout),
        silence_ms: millis(step.silence),
        limits: step.limits.into(),
    });
    let plan = PlanJson {
        source_dir: plan.source_dir.clone(),
        steps: steps.collect(),
        limit_ms: millis(plan.limit),
    };
    serde_json::to_string(&plan)
        .map_err(|error| StoreError::Conflict(format!("a plan that is no JSON: {error}")))
}

pub(crate) fn from_json(text: &str) -> Result<Plan, serde_json::Error> {
    let plan: PlanJson = serde_json::from_str(text)?;
    let steps = plan.steps.into_iter().map(|step| StepPlan {
        name: step.name,
        command: match step.command {
            CommandJson::Args(args) => Command::Args(args),
            CommandJson::Shell(text) => Command::Shell(text),
        },
        dir: step.dir,
        env: step.env,
        timeout: Duration::from_millis(step.timeout_ms),
        silence: Duration::from_millis(step.silence_ms),
        limits: step.limits.into(),
    });
    Ok(Plan {
        source_dir: plan.source_dir,
        steps: steps.collect(),
        limit: Duration::from_millis(plan.limit_ms),
    })
}

/// As people would type it: `go test ./...`, `echo 'a b'`.
pub(crate) fn typed(command: &Command) -> String {
    match command {
        Command::Shell(text) => text.clone(),
        Command::Args(args) => args.iter().map(|arg| quoted(arg)).collect::<Vec<_>>().join(" "),
    }
}

fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%^".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        arg.to_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
