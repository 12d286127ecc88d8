//! What a real Gerrit wrote into git, read by us, beside what it answered by REST at the same moment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use gerrit::notedb::{AccountId, Person, Status, Step};
use gerrit::refs::{self, Kind};
use gerrit::rest::{self, AttentionInfo, ChangeInfo};
use gerrit::{Change, Objects, Part, Remote};
use ids::Timestamp;

const PROJECTS: [&str; 3] = ["burrow-demo", "tools", "infra%2Fsub.repo"];
const STAGES: [&str; 3] = ["stage1", "stage2", "stage3"];

/// A step of a change: the commit, who, when, and what.
struct Told {
    commit: String,
    author: Option<AccountId>,
    time: Timestamp,
    step: Step,
}

/// The header and the message of a commit.
fn parts(raw: &[u8]) -> (String, &[u8]) {
    let end = raw.windows(2).position(|two| two == b"\n\n").unwrap();
    (String::from_utf8_lossy(&raw[..end]).into_owned(), &raw[end + 2..])
}

fn field<'a>(head: &'a str, key: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}

/// The steps of a change from its newest on, oldest first.
async fn history(objects: &mut Objects, newest: &str) -> Vec<Told> {
    let mut steps = Vec::new();
    let mut next = Some(newest.to_owned());
    while let Some(hash) = next {
        let object = objects.commits(&[&hash]).await.unwrap().remove(0).unwrap();
        let (head, message) = parts(&object.raw);
        let author = field(&head, "author").unwrap();
        let seconds = author.rsplit(' ').nth(1).unwrap().parse().unwrap();
        let step = Step::parse(message).unwrap_or_else(|why| panic!("{hash}: {why}"));
        assert!(step.unread.is_empty(), "{hash}: {:?}", step.unread);
        steps.push(Told {
            commit: hash,
            author: gerrit::notedb::account(author),
            time: Timestamp::from_secs(seconds),
            step,
        });
        next = field(&head, "parent").map(str::to_owned);
    }
    steps.reverse();
    steps
}

/// What both sides must say, as lines, so that a difference is seen at a glance.
fn ours(change: &Change, steps: &[Told]) -> BTreeSet<String> {
    let mut said = BTreeSet::new();
    let status = match change.status.unwrap_or(Status::New) {
        Status::New => "NEW",
        Status::Draft => "DRAFT",
        Status::Merged => "MERGED",
        Status::Abandoned => "ABANDONED",
    };
    let (newest, patch_set) = change.patch_sets.last_key_value().unwrap();
    said.insert(format!(
        "status {status}, current {newest}, meta {}",
        steps.last().unwrap().commit
    ));
    said.insert(format!(
        "branch {}",
        change.branch.trim_start_matches("refs/heads/")
    ));
    said.insert(format!("id {}", change.change_id));
    said.insert(format!("subject {}", change.subject));
    said.insert(format!("topic {}", change.topic));
    said.insert(format!(
        "private {} wip {}",
        change.private, change.work_in_progress
    ));
    said.insert(format!(
        "owner {:?} {} {}",
        change.owner.map(|a| a.0),
        change.created.0,
        change.updated.0
    ));
    said.insert(format!(
        "submitted {:?} {:?}",
        change.submitted_by.map(|(who, at)| (who.0, at.0)),
        change.submission_id
    ));
    said.insert(format!(
        "revert {:?} pick {:?}",
        change.revert_of, change.cherry_pick_of
    ));
    said.extend(change.hashtags.iter().map(|tag| format!("hashtag {tag}")));
    said.extend(
        change
            .custom_keyed_values
            .iter()
            .map(|(key, value)| format!("value {key} {value}")),
    );
    said.extend(change.people.iter().map(|(person, part)| {
        let person = match person {
            Person::Account(id) => id.to_string(),
            Person::Email(email) => email.clone(),
        };
        format!("{} {person}", if *part == Part::Cc { "CC" } else { "REVIEWER" })
    }));
    said.extend(
        patch_set
            .votes
            .iter()
            .map(|((label, who), vote)| format!("vote {label} {who} {:+}", vote.value)),
    );
    said.extend(change.attention.iter().map(|(who, attention)| {
        format!(
            "attention {} {who} {} {}",
            attention.asked, attention.since.0, attention.reason
        )
    }));
    said.extend(change.patch_sets.iter().map(|(number, set)| {
        format!(
            "patch set {number} {} {:?} {} {}",
            set.commit,
            set.uploader.map(|a| a.0),
            set.uploaded.0,
            set.description
        )
    }));
    let tellers = steps.iter().filter(|told| told.step.message.is_some());
    said.extend(
        tellers
            .zip(&change.messages)
            .enumerate()
            .map(|(at, (told, message))| {
                let real = message.real_author.or(message.author).map(|a| a.0);
                format!(
                    "message {at} {} ps{} {:?} {real:?} {} {:?} {:?}",
                    told.commit,
                    message.patch_set,
                    message.author.map(|a| a.0),
                    message.time.0,
                    message.tag,
                    message.text
                )
            }),
    );
    said
}

fn theirs(change: &ChangeInfo) -> BTreeSet<String> {
    let mut said = BTreeSet::new();
    let current = &change.revisions[change.current_revision.as_ref().unwrap()];
    let meta = change.meta_rev_id.as_ref().unwrap();
    said.insert(format!(
        "status {}, current {}, meta {meta}",
        change.status, current.number
    ));
    said.insert(format!("branch {}", change.branch));
    said.insert(format!("id {}", change.change_id));
    said.insert(format!("subject {}", change.subject));
    said.insert(format!("topic {}", change.topic.as_deref().unwrap_or_default()));
    said.insert(format!(
        "private {} wip {}",
        change.is_private, change.work_in_progress
    ));
    said.insert(format!(
        "owner {:?} {} {}",
        change.owner.id, change.created.0, change.updated.0
    ));
    let submitted = change
        .submitter
        .as_ref()
        .and_then(|who| who.id)
        .zip(change.submitted.map(|at| at.0));
    said.insert(format!("submitted {submitted:?} {:?}", change.submission_id));
    let pick = change.cherry_pick_of_change.zip(change.cherry_pick_of_patch_set);
    said.insert(format!("revert {:?} pick {pick:?}", change.revert_of));
    said.extend(change.hashtags.iter().map(|tag| format!("hashtag {tag}")));
    said.extend(
        change
            .custom_keyed_values
            .iter()
            .map(|(key, value)| format!("value {key} {value}")),
    );
    for (part, people) in &change.reviewers {
        said.extend(people.iter().map(|person| match (person.id, &person.email) {
            (Some(id), _) => format!("{part} {id}"),
            (None, email) => format!("{part} {}", email.as_deref().unwrap()),
        }));
    }
    for (label, info) in &change.labels {
        let votes = info.all.iter().filter(|vote| vote.value != 0);
        said.extend(votes.map(|vote| format!("vote {label} {} {:+}", vote.id, vote.value)));
    }
    let mut attention = |asked: bool, set: &BTreeMap<u32, AttentionInfo>| {
        said.extend(
            set.iter()
                .map(|(who, info)| format!("attention {asked} {who} {} {}", info.last_update.0, info.reason)),
        );
    };
    attention(true, &change.attention_set);
    attention(false, &change.removed_from_attention_set);
    said.extend(change.revisions.iter().map(|(commit, set)| {
        let description = set.description.as_deref().unwrap_or_default();
        format!(
            "patch set {} {commit} {:?} {} {description}",
            set.number, set.uploader.id, set.created.0
        )
    }));
    said.extend(change.messages.iter().enumerate().map(|(at, message)| {
        let author = message.author.as_ref().and_then(|who| who.id);
        let real = message.real_author.as_ref().map_or(author, |who| who.id);
        format!(
            "message {at} {} ps{} {author:?} {real:?} {} {:?} {:?}",
            message.id,
            message.patch_set.unwrap(),
            message.date.0,
            message.tag,
            message.message
        )
    }));
    said
}

/// A repository of ours with all that the bundle of the project holds.
async fn fetched(folder: &Path, stage: &Path, project: &str) -> (Remote, Vec<u8>) {
    let bundle: PathBuf = stage.join(format!("git/{project}.bundle"));
    let remote = Remote::open(folder, bundle.to_str().unwrap(), None)
        .await
        .unwrap();
    let printed = remote.list().await.unwrap();
    let names: Vec<&str> = refs::listing(&printed)
        .unwrap()
        .iter()
        .map(|found| found.name)
        .collect();
    remote.fetch(&names).await.unwrap();
    (remote, printed)
}

#[tokio::test]
async fn each_field_is_what_the_server_answers() {
    let Some(recorded) = testkit::recorded::recorded("gerrit") else {
        return;
    };
    for stage in STAGES.map(|stage| recorded.join(stage)) {
        let mut compared = 0;
        for project in PROJECTS {
            let folder = tempfile::tempdir().unwrap();
            let (remote, printed) = fetched(folder.path(), &stage, project).await;
            let mut objects = Objects::open(remote.dir()).unwrap();
            let answer =
                std::fs::read(stage.join(format!("rest/changes.{project}.all-options.json"))).unwrap();
            let answer: Vec<ChangeInfo> = rest::read(&answer).unwrap();
            let mut answer: BTreeMap<u32, ChangeInfo> =
                answer.into_iter().map(|info| (info.number, info)).collect();
            for found in refs::listing(&printed).unwrap() {
                let Kind::Meta { change: number } = refs::kind(found.name) else {
                    continue;
                };
                let steps = history(&mut objects, found.hash).await;
                let mut change = Change::default();
                steps
                    .iter()
                    .for_each(|told| change.apply(told.author, told.time, &told.step));
                let info = answer.remove(&number).expect("the server answers all changes");
                let (ours, theirs) = (ours(&change, &steps), theirs(&info));
                let only_ours: Vec<&String> = ours.difference(&theirs).collect();
                let only_theirs: Vec<&String> = theirs.difference(&ours).collect();
                assert!(
                    only_ours.is_empty() && only_theirs.is_empty(),
                    "{} {project} {number}:\nours {only_ours:#?}\ntheirs {only_theirs:#?}",
                    stage.display()
                );
                compared += 1;
            }
            assert!(answer.is_empty(), "{:?}", answer.keys());
        }
        assert!(compared > 20, "{compared}");
    }
}

#[tokio::test]
async fn commits_are_read_as_git_has_them() {
    let Some(recorded) = testkit::recorded::recorded("gerrit") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (remote, printed) = fetched(folder.path(), &recorded.join("stage3"), "burrow-demo").await;
    let mut objects = Objects::open(remote.dir()).unwrap();
    let listed = refs::listing(&printed).unwrap();
    let mut hashes: Vec<&str> = listed.iter().map(|found| found.hash).collect();
    let absent = "0123456789012345678901234567890123456789";
    hashes.push(absent);
    let found = objects.commits(&hashes).await.unwrap();
    let git = git::Git::new(remote.dir());
    for (hash, object) in hashes.iter().zip(&found) {
        let Some(object) = object else {
            assert_eq!(*hash, absent);
            continue;
        };
        let raw = git.output(&["cat-file", "commit", hash]).await.unwrap();
        assert_eq!(object.raw, raw, "{hash}");
    }
    let commits: Vec<&str> = found.iter().flatten().map(|object| &object.hash[..]).collect();
    let stats = objects.stats(&commits).await.unwrap();
    let mut files = 0;
    for (commit, stats) in commits.iter().zip(&stats) {
        let args = [
            "-c",
            "core.quotePath=true",
            "diff-tree",
            "--no-commit-id",
            "--numstat",
            commit,
        ];
        let printed = git.output(&args).await.unwrap();
        let lines: Vec<String> = stats
            .iter()
            .map(|stat| match stat.lines {
                Some((added, deleted)) => format!("{added}\t{deleted}\t{}\n", stat.file),
                None => format!("-\t-\t{}\n", stat.file),
            })
            .collect();
        assert_eq!(lines.concat(), String::from_utf8(printed).unwrap(), "{commit}");
        files += lines.len();
    }
    assert!(files > 50, "{files}");
}
