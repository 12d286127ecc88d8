use std::time::Duration;

use config::{Config, Run};
use ids::{BuilderName, GitHash, RepoName};
use runner::{Command, Plan, StepPlan};

/// What an attempt of `builder` at `commit` of `repo` runs by this configuration. `None` if the
/// configuration has no such repository or builder any more.
///
/// The environment, later wins: what burrow tells, the host's, the builder's, the step's.
pub fn plan(config: &Config, repo: &RepoName, builder: &BuilderName, commit: &GitHash) -> Option<Plan> {
    let (repo_conf, builder_conf) = (config.repos.get(repo)?, config.builders.get(builder)?);
    let recipe = config
        .recipes
        .get(builder_conf.recipe.as_ref().unwrap_or(&repo_conf.recipe))?;
    let host = config.hosts.get(&builder_conf.host)?;
    let told = [
        ("CI", "true"),
        ("BURROW", "1"),
        ("BURROW_BUILDER", builder.as_str()),
        ("BURROW_REPO", repo.as_str()),
        ("BURROW_COMMIT", commit.as_str()),
        ("GO_BUILDER_NAME", builder.as_str()),
    ];
    let told: Vec<(String, String)> = told.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let scale = builder_conf.time_scale.max(1);
    let steps: Vec<StepPlan> = recipe
        .steps
        .iter()
        .map(|step| StepPlan {
            name: step.name.clone(),
            command: match &step.run {
                Run::Args(args) => Command::Args(args.clone()),
                Run::Shell(text) => Command::Shell(text.clone()),
            },
            dir: step.dir.clone(),
            env: [&told, &host.env, &builder_conf.env, &step.env]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            timeout: step.timeout * scale,
            silence: step.silence * scale,
            limits: host.limits,
        })
        .collect();
    // The steps limit themselves; this only catches what lies between them.
    let limit = steps.iter().map(|step| step.timeout).sum::<Duration>() + Duration::from_secs(3600);
    Some(Plan {
        source_dir: recipe.source.clone(),
        steps,
        limit,
    })
}
