use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use corpus::{ChangeView, Corpus, Status};
use gerrit::rest::{self, ChangeInfo};
use maintpb::borrowed::{Mutation, View};
use sync::Round;

use crate::log::{self, Log};
use crate::server::{HOST, PROJECTS, STAGES, Server, Syncer};

/// What both sides must say of a change, as lines.
fn ours(change: ChangeView<'_>, log: &Log) -> BTreeSet<String> {
    let mut said = BTreeSet::new();
    let status = match change.status {
        Status::New => "NEW",
        Status::Draft => "DRAFT",
        Status::Merged => "MERGED",
        Status::Abandoned => "ABANDONED",
    };
    let account = |email: &str| email.split('@').next().unwrap().to_owned();
    said.insert(format!(
        "status {status} {} {}",
        change.private, change.work_in_progress
    ));
    said.insert(format!(
        "branch {}",
        change.branch_name().trim_start_matches("refs/")
    ));
    said.insert(format!("subject {}", change.subject(log).unwrap()));
    said.insert(format!(
        "owner {} created {}",
        change.owner_id().unwrap(),
        change.created.0
    ));
    said.extend(
        change
            .hashtags(log)
            .unwrap()
            .iter()
            .map(|tag| format!("hashtag {tag}")),
    );
    said.extend(
        change
            .patch_sets
            .keys()
            .map(|number| format!("patch set {number} {}", change.patch_set(*number).unwrap().hash())),
    );
    for (label, votes) in change.votes(log).unwrap() {
        said.extend(
            votes
                .iter()
                .map(|(who, vote)| format!("vote {label} {} {:+}", account(who), vote.value)),
        );
    }
    let metas = change.metas(log).unwrap();
    let newest = metas.last().unwrap().commit.hash();
    said.insert(format!("meta {newest}"));
    let messages = change.messages(log).unwrap();
    said.extend(messages.iter().enumerate().map(|(at, message)| {
        format!(
            "message {at} ps{} {} {} {:?}",
            message.patch_set,
            account(&message.author),
            message.time.0,
            message.text
        )
    }));
    said
}

fn theirs(change: &ChangeInfo) -> BTreeSet<String> {
    let mut said = BTreeSet::new();
    said.insert(format!(
        "status {} {} {}",
        change.status, change.is_private, change.work_in_progress
    ));
    said.insert(format!("branch {}", change.branch.trim_start_matches("refs/")));
    said.insert(format!("subject {}", change.subject));
    said.insert(format!(
        "owner {} created {}",
        change.owner.id.unwrap(),
        change.created.0
    ));
    said.insert(format!("meta {}", change.meta_rev_id.as_ref().unwrap()));
    said.extend(change.hashtags.iter().map(|tag| format!("hashtag {tag}")));
    said.extend(
        change
            .revisions
            .iter()
            .map(|(commit, set)| format!("patch set {} {commit}", set.number)),
    );
    for (label, info) in &change.labels {
        let votes = info.all.iter().filter(|vote| vote.value != 0);
        said.extend(votes.map(|vote| format!("vote {label} {} {:+}", vote.id, vote.value)));
    }
    said.extend(change.messages.iter().enumerate().map(|(at, message)| {
        let author = message.author.as_ref().and_then(|who| who.id).unwrap();
        format!(
            "message {at} ps{} {author} {} {:?}",
            message.patch_set.unwrap(),
            message.date.0,
            message.message.trim()
        )
    }));
    said
}

/// The corpus of the log against what the server answered at that moment.
fn check(corpus: &Corpus, log: &Log, name: &str, stage: &Path, file: &str) {
    let answer = std::fs::read(stage.join(format!("rest/changes.{file}.all-options.json"))).unwrap();
    let answer: Vec<ChangeInfo> = rest::read(&answer).unwrap();
    let answer: BTreeMap<u32, ChangeInfo> = answer.into_iter().map(|info| (info.number, info)).collect();
    let project = corpus.project(name).unwrap();
    let there = project.changes().filter(|change| !change.deleted);
    let there: Vec<u32> = there.map(|change| change.number.cast_unsigned()).collect();
    assert_eq!(there, answer.keys().copied().collect::<Vec<_>>(), "{name}");
    for change in project.changes().filter(|change| !change.deleted) {
        let (ours, theirs) = (ours(change, log), theirs(&answer[&change.number.cast_unsigned()]));
        let only_ours: Vec<&String> = ours.difference(&theirs).collect();
        let only_theirs: Vec<&String> = theirs.difference(&ours).collect();
        assert!(
            only_ours.is_empty() && only_theirs.is_empty(),
            "{} {name} {}:\nours {only_ours:#?}\ntheirs {only_theirs:#?}",
            stage.display(),
            change.number
        );
    }
}

/// Every ref that the log should have, as the server has it.
fn check_refs(corpus: &Corpus, server: &Server, name: &str) {
    let printed = crate::server::git(&server.repository, &["ls-remote", "."]);
    let tracked = printed
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|(_, name)| {
            let internal = [
                "refs/changes/",
                "refs/users/",
                "refs/meta/",
                "refs/cache-automerge/",
            ];
            !internal.iter().any(|prefix| name.starts_with(prefix))
        });
    let expect: BTreeMap<String, String> = tracked
        .map(|(hash, name)| (name.to_owned(), hash.to_owned()))
        .collect();
    let refs = corpus.project(name).unwrap();
    let refs: BTreeMap<String, String> = refs
        .refs()
        .map(|(name, at)| (name.to_owned(), at.hash().to_string()))
        .collect();
    assert_eq!(refs, expect);
}

/// Hashes of the commits that mutations tell of, in order.
fn told(log: &Log) -> Vec<String> {
    let commits = log.0.iter().flat_map(|payload| {
        let told = Mutation::decode(payload).unwrap().gerrit.unwrap();
        told.commits
            .iter()
            .map(|commit| commit.sha1.lossy().into_owned())
            .collect::<Vec<_>>()
    });
    commits.collect()
}

#[tokio::test]
async fn in_one_go_the_corpus_is_what_the_server_answers() {
    let Some(recorded) = testkit::recorded::recorded("gerrit") else {
        return;
    };
    for (file, project) in PROJECTS {
        let server = Server::new();
        server.move_to(&recorded.join("stage3"), file);
        let name = format!("{HOST}/{project}");
        let mut syncer = Syncer::new(&server, &name).await;
        let round = syncer.round().await;
        assert_eq!((round.left.len(), round.doubted), (0, 0), "{round:?}");
        let corpus = log::corpus(&syncer.log);
        check(&corpus, &syncer.log, &name, &recorded.join("stage3"), file);
        check_refs(&corpus, &server, &name);
        assert_eq!(
            syncer.round().await,
            Round::default(),
            "a second look finds nothing"
        );
    }
}

#[tokio::test]
async fn moment_by_moment_the_corpus_is_what_the_server_answers() {
    let Some(recorded) = testkit::recorded::recorded("gerrit") else {
        return;
    };
    for (file, project) in PROJECTS {
        let server = Server::new();
        let name = format!("{HOST}/{project}");
        let mut syncer = Syncer::new(&server, &name).await;
        for stage in STAGES.map(|stage| recorded.join(stage)) {
            server.move_to(&stage, file);
            let round = syncer.round().await;
            assert!(round.left.is_empty() && round.doubted == 0, "{round:?}");
            let corpus = log::corpus(&syncer.log);
            check(&corpus, &syncer.log, &name, &stage, file);
            check_refs(&corpus, &server, &name);
            // After a restart nothing is told twice.
            syncer.project = log::project(&name, &syncer.log);
            assert_eq!(syncer.round().await, Round::default());
        }
        let told = told(&syncer.log);
        let once: BTreeSet<&String> = told.iter().collect();
        assert_eq!(told.len(), once.len(), "a commit is told of twice");
        if project == "burrow-demo" {
            let corpus = log::corpus(&syncer.log);
            let change = corpus.project(&name).unwrap().change(27).unwrap();
            assert!(change.deleted && change.is_complete(), "what was is kept");
        }
    }
}

#[tokio::test]
async fn a_sync_that_dies_anywhere_is_finished_by_the_next() {
    let Some(recorded) = testkit::recorded::recorded("gerrit") else {
        return;
    };
    let (file, project) = PROJECTS[1];
    let name = format!("{HOST}/{project}");
    let server = Server::new();
    server.move_to(&recorded.join("stage3"), file);
    let mut whole = Syncer::new(&server, &name).await;
    whole.round().await;
    let mutations = whole.log.0.len();
    assert!(mutations > 40, "{mutations}");
    for room in 0..mutations {
        let mut syncer = Syncer::new(&server, &name).await;
        syncer.round_with(room).await.expect_err("the log was full");
        syncer.project = log::project(&name, &syncer.log);
        syncer.round().await;
        assert_eq!(syncer.log.0, whole.log.0, "after {room} mutations");
    }
}
