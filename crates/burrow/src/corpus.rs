mod ask;

use std::sync::Arc;

use ::corpus::{ChangeView, Corpus, IssueView, Status, Texts, UserId};
use anyhow::Context;
use corpus_sql::Source;
use ids::Timestamp;
use maintpb::Message as _;
use mutlog::{FaultKind, Folder, LogReader};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use web::Door;

use crate::args::{CorpusArgs, CorpusCommand, Global, Maintnerd};
use crate::failure::{Exit, Failure};
use crate::show::plain;
use crate::up::stop_on_signals;
use crate::{farm_file, logging};

pub use ask::AsOf;

/// Mutations of an example that are written at once.
const BATCH: usize = 4000;

pub async fn maintnerd(global: &Global, args: &Maintnerd) -> Result<Exit, Failure> {
    logging::start(global, "info")?;
    let follow = args.follow.as_deref().map(str::parse).transpose();
    let follow = follow.map_err(|error| Failure::usage(format!("`--follow` is no URL: {error}")))?;
    let found = match &args.config {
        Some(path) => Some(farm_file::load(path, global, &farm_file::defaults(global)?)?.config),
        None => None,
    };
    let of_config = found
        .as_ref()
        .map(|config| config.farm.state_dir.join("maintner"));
    let folder = args.log.clone().or(of_config).context("no folder for the log")?;
    let maintner = found.map(|config| config.maintner).unwrap_or_default();
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signals(stop.clone(), Arc::default())?);
    let listener = tokio::net::TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("listen at {}", args.listen))?;
    let address = listener.local_addr().context("listen")?;
    println!("serving the log at http://{address}/logs");
    let config = maintnerd::Config {
        folder,
        follow,
        maintner,
    };
    maintnerd::run(config, Door::Plain(listener), stop).await?;
    signals.abort();
    Ok(Exit::Done)
}

pub fn corpus(global: &Global, args: &CorpusArgs) -> Result<Exit, Failure> {
    let folder = Folder::new(&args.log);
    match &args.command {
        CorpusCommand::Tables => return ask::tables(global),
        CorpusCommand::Query {
            table,
            filters,
            columns,
            limit,
            format,
        } => {
            let source = ask::source(&folder, args.as_of)?;
            return ask::query(
                global,
                source,
                table,
                filters,
                columns,
                *limit,
                format.map(Into::into),
            );
        }
        CorpusCommand::Sql { query, format } => {
            return ask::sql(
                global,
                ask::source(&folder, args.as_of)?,
                query,
                format.map(Into::into),
            );
        }
        CorpusCommand::Export { tables, to, format } => {
            return ask::export(
                &ask::source(&folder, args.as_of)?,
                tables,
                to.as_deref(),
                (*format).into(),
            );
        }
        CorpusCommand::Example { records } => {
            let leader = maintnerd::Leader::open(folder)?;
            if leader
                .visible
                .borrow()
                .as_ref()
                .is_some_and(|log| !log.is_empty())
            {
                return Err(Failure::new(
                    "the folder holds a log already; an example wants one of its own",
                ));
            }
            let mut mutations = maintnerd::synthetic::Synthetic::new(1).take(*records);
            loop {
                let batch = mutations.by_ref().take(BATCH);
                let batch: Vec<Vec<u8>> = batch.map(|mutation| mutation.encode_to_vec()).collect();
                if batch.is_empty() {
                    break;
                }
                leader.appender.append(batch).context("write the example")?;
            }
            leader.close().context("end the log")?;
            say(global, &json!({ "records": records }));
        }
        CorpusCommand::Stats => {
            let replay = ask::started(&folder, args.as_of)?.replay;
            let counts = replay.counts();
            let troubles = counts.troubles.iter().map(|(kind, (count, one))| {
                let trouble = json!({ "count": count, "for_example": one });
                ((*kind).to_owned(), trouble)
            });
            let summary = json!({
                "records": counts.records,
                "bytes": counts.bytes,
                "repos": repos(replay.corpus()),
                "projects": projects(replay.corpus()),
                "commits": replay.corpus().commits().0,
                "passed_over": troubles.collect::<serde_json::Map<_, _>>(),
            });
            say(global, &summary);
        }
        CorpusCommand::Issue { repo, number } => {
            let Source { corpus, texts } = ask::source(&folder, args.as_of)?;
            let wanted = || format!("the log has no issue {repo}#{number}");
            let (owner, name) = repo.split_once('/').context("wanted OWNER/REPO")?;
            let found = corpus.repo(owner, name).and_then(|repo| repo.issue(*number));
            say(global, &issue(&corpus, found.with_context(wanted)?, &texts)?);
        }
        CorpusCommand::Change { project, number } => {
            let Source { corpus, texts } = ask::source(&folder, args.as_of)?;
            let wanted = || format!("the log has no change {number} of {project}");
            let found = corpus
                .project(project)
                .and_then(|project| project.change(*number));
            say(global, &change(found.with_context(wanted)?, &texts)?);
        }
        CorpusCommand::Fsck => return fsck(global, &folder),
        CorpusCommand::Import { from } => {
            let count = maintnerd::import_into(from, &folder)?;
            say(global, &json!({ "imported": count }));
        }
    }
    Ok(Exit::Done)
}

fn repos(corpus: &Corpus) -> Value {
    let repo = |repo: ::corpus::RepoView<'_>| {
        let name = format!("{}/{}", repo.owner(), repo.name());
        let (mut issues, mut open, mut comments) = (0, 0, 0);
        for issue in repo.issues().filter(|issue| !issue.not_exist) {
            issues += 1;
            open += u32::from(!issue.closed);
            comments += issue.comments.len();
        }
        (
            name,
            json!({ "issues": issues, "open": open, "comments": comments }),
        )
    };
    Value::Object(corpus.repos().map(repo).collect())
}

fn projects(corpus: &Corpus) -> Value {
    let project = |project: ::corpus::ProjectView<'_>| {
        let (changes, open) = (project.changes().count(), project.open_changes().count());
        (
            project.key.to_owned(),
            json!({ "changes": changes, "open": open }),
        )
    };
    Value::Object(corpus.projects().map(project).collect())
}

fn issue(corpus: &Corpus, issue: IssueView<'_>, texts: &LogReader) -> anyhow::Result<Value> {
    let user = |user: Option<UserId>| user.and_then(|user| corpus.login(user));
    let comment = |comment: &::corpus::Comment| {
        anyhow::Ok(json!({
            "user": user(comment.user),
            "created": comment.created.map(time),
            "body": texts.text(comment.body)?,
        }))
    };
    let comments: anyhow::Result<Vec<Value>> = issue.comments_by_time().into_iter().map(comment).collect();
    let state = match (issue.not_exist, issue.closed) {
        (true, _) => "gone",
        (false, true) => "closed",
        (false, false) => "open",
    };
    Ok(json!({
        "issue": format!("{}/{}#{}", issue.repo.owner(), issue.repo.name(), issue.number),
        "title": &*issue.title,
        "state": state,
        "pull_request": issue.pull_request,
        "user": user(issue.user),
        "created": issue.created.map(time),
        "updated": issue.updated.map(time),
        "labels": issue.label_names().collect::<Vec<_>>(),
        "body": issue.body(texts)?,
        "comments": comments?,
    }))
}

fn change(change: ChangeView<'_>, texts: &LogReader) -> anyhow::Result<Value> {
    let status = match change.status {
        Status::New => "new",
        Status::Draft => "draft",
        Status::Merged => "merged",
        Status::Abandoned => "abandoned",
    };
    let votes = change.votes(texts)?.into_iter().map(|(label, voters)| {
        let voters = voters
            .into_iter()
            .map(|(voter, vote)| (voter, Value::from(vote.value)));
        (label, Value::Object(voters.collect()))
    });
    let messages = change.messages(texts)?.into_iter().map(|message| {
        json!({
            "author": message.author,
            "created": time(message.time),
            "patch_set": message.patch_set,
            "text": message.text,
        })
    });
    Ok(json!({
        "change": format!("{}~{}", change.project.key, change.number),
        "subject": change.subject(texts)?,
        "status": status,
        "work_in_progress": change.work_in_progress,
        "private": change.private,
        "branch": change.branch_name(),
        "patch_set": change.newest().map(|(number, _)| number),
        "commit": change.commit().map(|commit| commit.hash().to_string()),
        "created": time(change.created),
        "hashtags": change.hashtags(texts)?,
        "votes": votes.collect::<serde_json::Map<_, _>>(),
        "messages": messages.collect::<Vec<_>>(),
    }))
}

fn fsck(global: &Global, folder: &Folder) -> Result<Exit, Failure> {
    let checked = maintnerd::fsck(folder).map_err(anyhow::Error::from)?;
    let good = checked.iter().all(maintnerd::Checked::is_good);
    let segment = |segment: &maintnerd::Checked| {
        let sum = segment
            .wrong_sum
            .map(|found| format!("its content is {found}, not as its name says"));
        let faults = segment
            .account
            .faults
            .iter()
            .map(|fault| format!("offset {}: {}", fault.at, words(&fault.kind)));
        json!({
            "segment": segment.file.number.0,
            "bytes": segment.len,
            "records": segment.account.records,
            "wrong": sum.into_iter().chain(faults).collect::<Vec<_>>(),
        })
    };
    say(
        global,
        &json!({ "good": good, "segments": checked.iter().map(segment).collect::<Vec<_>>() }),
    );
    Ok(if good { Exit::Done } else { Exit::Error })
}

fn words(fault: &FaultKind) -> String {
    match fault {
        FaultKind::Unreadable { len } => format!("{len} bytes that are no record"),
        FaultKind::Torn { len } => format!("the segment ends inside a record, after {len} bytes of it"),
        FaultKind::Missing { bytes } => format!("{bytes} bytes are missing before this record"),
        FaultKind::Duplicate { of } => format!("the record of offset {of} once more"),
        FaultKind::OutOfOrder { belongs } => format!("a record that belongs at offset {belongs}"),
        FaultKind::BadPayload { why } => format!("a record that is no mutation: {why}"),
    }
}

fn time(time: Timestamp) -> String {
    let known = jiff::Timestamp::from_microsecond(time.0);
    known.map_or_else(|_| "?".to_owned(), |time| time.to_string())
}

/// As JSON, or as lines `key: value`, indented, without what a terminal would take for commands.
fn say(global: &Global, value: &Value) {
    if global.json {
        println!("{value}");
    } else {
        let mut out = String::new();
        lines(&mut out, value, 0);
        print!("{out}");
    }
}

fn lines(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    let mut entry = |head: &str, value: &Value| match value {
        Value::Null => {}
        Value::Object(_) | Value::Array(_) => {
            out.push_str(&format!("{indent}{head}\n"));
            lines(out, value, depth + 1);
        }
        Value::String(text) if text.contains('\n') => {
            out.push_str(&format!("{indent}{head}\n"));
            for line in text.lines() {
                out.push_str(&format!("{indent}  {}\n", plain(line)));
            }
        }
        Value::String(text) => out.push_str(&format!("{indent}{head} {}\n", plain(text))),
        other => out.push_str(&format!("{indent}{head} {other}\n")),
    };
    match value {
        Value::Object(entries) => {
            entries
                .iter()
                .for_each(|(key, value)| entry(&format!("{}:", plain(key)), value));
        }
        Value::Array(list) => list.iter().for_each(|value| entry("-", value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => entry("-", value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_lines_for_people_without_what_terminals_obey() {
        let mut out = String::new();
        let value =
            json!({ "title": "a\u{1b}[2Jb", "body": "one\ntwo", "open": 3, "labels": ["x"], "none": null });
        lines(&mut out, &value, 0);
        for line in [
            "title: a\u{fffd}[2Jb",
            "body:\n  one\n  two",
            "open: 3",
            "labels:\n  - x",
        ] {
            assert!(out.contains(&format!("{line}\n")), "{out}");
        }
        assert!(!out.contains("none"), "{out}");
    }
}
