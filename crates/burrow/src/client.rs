use std::io::Write as _;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde_json::Value;

use crate::args::{Builds, Cancel, Global, Logs, Retry};
use crate::failure::{Exit, Failure};
use crate::server::{Build, Server};
use crate::show;

/// How often what is waited for is looked at.
const EVERY: Duration = Duration::from_millis(500);

pub async fn status(global: &Global) -> Result<Exit, Failure> {
    let server = Server::of(global)?;
    let page = server.json("/status", &[]).await?;
    if global.json {
        println!("{page}");
        return Ok(Exit::Done);
    }
    let running = server.builds(&[("status", "running".to_owned())]).await?;
    let waiting = server.builds(&[("status", "waiting".to_owned())]).await?;
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["WHAT", "STATE", "FOUND"]);
    for item in page.get("items").and_then(Value::as_array).into_iter().flatten() {
        let word = |key: &str| show::plain(item.get(key).and_then(Value::as_str).unwrap_or_default());
        let state = if item.get("ok") == Some(&Value::Bool(true)) {
            "ok"
        } else {
            "trouble"
        };
        table.add_row(vec![word("name"), state.to_owned(), word("text")]);
    }
    println!("{table}\n");
    println!("{} running, {} waiting", running.len(), waiting.len());
    if !running.is_empty() {
        println!("{}", show::builds(&running, global.color.on_stdout()));
    }
    Ok(Exit::Done)
}

pub async fn builds(global: &Global, asked: &Builds) -> Result<Exit, Failure> {
    let server = Server::of(global)?;
    let mut query = vec![("limit", asked.limit.to_string())];
    query.extend(asked.repo.as_ref().map(|name| ("repo", name.to_string())));
    query.extend(asked.builder.as_ref().map(|name| ("builder", name.to_string())));
    query.extend(asked.status.map(|status| ("status", status.as_str().to_owned())));
    let mut listed = server.builds(&query).await?;
    listed.truncate(usize::try_from(asked.limit).unwrap_or(usize::MAX));
    if asked.wait {
        let ids: Vec<u64> = listed.iter().map(|build| build.id).collect();
        return wait(global, &server, &ids).await;
    }
    if global.json {
        println!("{}", server.json("/builds", &query).await?);
    } else if listed.is_empty() {
        println!("no build matches");
    } else {
        println!("{}", show::builds(&listed, global.color.on_stdout()));
    }
    Ok(Exit::Done)
}

/// Prints logs byte for byte: a build's colours are its own.
pub async fn logs(global: &Global, asked: &Logs) -> Result<Exit, Failure> {
    let server = Server::of(global)?;
    let build = asked.build.0;
    // The attempt and step that is being printed, and how far. Only a later attempt begins anew.
    let mut at: Option<(u32, usize, u64)> = None;
    loop {
        // Asked for before its logs: what was printed when it said `done` is then all there.
        let detail = server.build(build).await?;
        let latest = detail.attempts.iter().max_by_key(|attempt| attempt.n);
        let attempt = match asked.attempt {
            None => latest,
            Some(n) => Some(
                detail
                    .attempts
                    .iter()
                    .find(|attempt| attempt.n == n)
                    .ok_or_else(|| {
                        Failure::new(format!(
                            "build {build} has no attempt {n}, it has {}",
                            detail.attempts.len()
                        ))
                    })?,
            ),
        };
        let Some(attempt) = attempt else {
            if asked.follow && !detail.build.is_done() {
                tokio::time::sleep(EVERY).await;
                continue;
            }
            return Err(Failure::new(format!(
                "build {build} is {} and has printed nothing",
                show::plain(&detail.build.status)
            ))
            .hint("`--follow` waits for it"));
        };
        let steps: Vec<_> = attempt
            .steps
            .iter()
            .filter(|step| asked.step.is_none_or(|wanted| wanted == step.index))
            .collect();
        if let (Some(step), true) = (asked.step, steps.is_empty()) {
            return Err(Failure::new(format!(
                "attempt {} of build {build} has no step {step}, it has {}",
                attempt.n,
                attempt.steps.len()
            )));
        }
        let (mut index, mut offset) = match at {
            Some((n, index, offset)) if n == attempt.n => (index, offset),
            _ => (0, 0),
        };
        while let Some(step) = steps.get(index).filter(|step| step.started.is_some()) {
            if offset == 0 && asked.step.is_none() && at != Some((attempt.n, index, 0)) {
                eprintln!("==> {}: {}", show::plain(&step.name), show::plain(&step.command));
            }
            offset += print_log(&server, build, attempt.n, step.index, offset).await?;
            if step.ended.is_none() && attempt.ended.is_none() {
                break;
            }
            (index, offset) = (index + 1, 0);
            at = None;
        }
        at = Some((attempt.n, index, offset));
        if detail.build.is_done() && Some(attempt.n) == latest.map(|latest| latest.n) {
            eprintln!("{}", show::built(&detail.build));
        }
        if !asked.follow {
            return Ok(Exit::Done);
        }
        if detail.build.is_done() {
            return Ok(if detail.build.passed() {
                Exit::Done
            } else {
                Exit::BuildFailed
            });
        }
        tokio::time::sleep(EVERY).await;
    }
}

pub async fn retry(global: &Global, asked: &Retry) -> Result<Exit, Failure> {
    let server = Server::of(global)?;
    let ids: Vec<u64> = asked.builds.iter().map(|build| build.0).collect();
    let mut before = Vec::new();
    for id in &ids {
        before.push(server.build(*id).await?.build.attempts);
    }
    wish(global, &server, &ids, "retry").await?;
    if !asked.wait {
        return Ok(Exit::Done);
    }
    // Until the farm has taken the wish up, the old result is still there.
    for (id, attempts) in ids.iter().zip(before) {
        while let build = server.build(*id).await?.build
            && build.is_done()
            && build.attempts <= attempts
        {
            tokio::time::sleep(EVERY).await;
        }
    }
    wait(global, &server, &ids).await
}

pub async fn cancel(global: &Global, asked: &Cancel) -> Result<Exit, Failure> {
    let server = Server::of(global)?;
    let ids: Vec<u64> = asked.builds.iter().map(|build| build.0).collect();
    wish(global, &server, &ids, "cancel").await?;
    Ok(Exit::Done)
}

async fn wish(global: &Global, server: &Server, ids: &[u64], verb: &str) -> Result<(), Failure> {
    for id in ids {
        let answer = server.post(&format!("/build/{id}/{verb}")).await?;
        if global.json {
            println!("{answer}");
        } else {
            println!("{verb} of build {id} noted");
        }
    }
    Ok(())
}

/// Waits until all are done and says how each ended.
async fn wait(global: &Global, server: &Server, ids: &[u64]) -> Result<Exit, Failure> {
    let mut ended: Vec<Build> = Vec::new();
    for id in ids {
        let build = loop {
            let build = server.build(*id).await?.build;
            if build.is_done() {
                break build;
            }
            tokio::time::sleep(EVERY).await;
        };
        if !global.json {
            println!("{}", show::built(&build));
        }
        ended.push(build);
    }
    if global.json {
        let list: Vec<Value> = ended
            .iter()
            .map(|build| serde_json::json!({ "build": build.id, "state": build.status }))
            .collect();
        println!("{}", Value::from(list));
    }
    Ok(if ended.iter().all(Build::passed) {
        Exit::Done
    } else {
        Exit::BuildFailed
    })
}

/// Prints what there is of a log from `offset` on; how many bytes that was.
async fn print_log(
    server: &Server,
    build: u64,
    attempt: u32,
    step: u32,
    offset: u64,
) -> Result<u64, Failure> {
    let mut answer = server.log(build, attempt, step, offset).await?;
    let mut out = std::io::stdout().lock();
    let mut printed = 0;
    while let Some(piece) = answer.chunk().await.map_err(|error| server.broke(&error))? {
        if let Err(error) = out.write_all(&piece) {
            // `burrow logs 17 | head` has what it wanted.
            if error.kind() == std::io::ErrorKind::BrokenPipe {
                std::process::exit(0);
            }
            return Err(Failure::new(format!("cannot print: {error}")));
        }
        printed += piece.len() as u64;
    }
    let _ = out.flush();
    Ok(printed)
}
