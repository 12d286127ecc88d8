use corpus::{ChangeView, Status, Trouble};
use maintpb::*;

use crate::git::{commit, hash, name};
use crate::log::{Log, ok};

const PROJECT: &str = "go.googlesource.com/go";

fn of_gerrit(gerrit: GerritMutation) -> Mutation {
    let gerrit = GerritMutation {
        project: PROJECT.into(),
        ..gerrit
    };
    Mutation {
        gerrit: Some(gerrit),
        ..Default::default()
    }
}

fn refs(refs: &[(&str, u32)]) -> Mutation {
    let refs = refs.iter().map(|(at, commit)| GitRef {
        r#ref: (*at).into(),
        sha1: name(*commit),
    });
    of_gerrit(GerritMutation {
        refs: refs.collect(),
        ..Default::default()
    })
}

fn commits(commits: Vec<GitCommit>) -> Mutation {
    of_gerrit(GerritMutation {
        commits,
        ..Default::default()
    })
}

fn meta(footers: &str) -> String {
    format!("Update patch set 1\n\n{footers}\n")
}

const META: &str = "refs/changes/42/42/meta";

/// A log that has change 42 with a patch set 1, and these metas, each a batch of its own.
fn change(metas: &[&str]) -> Log {
    let mut log = Log::default();
    assert_eq!(
        log.apply(commits(vec![commit(
            900,
            &[],
            "net: fix\nit\n\nFixes #5, golang/go#5, x/y#6\n"
        )])),
        []
    );
    assert_eq!(log.apply(refs(&[("refs/changes/42/42/1", 900)])), []);
    for (n, text) in (1..).zip(metas) {
        let parents = if n == 1 { vec![] } else { vec![n - 1] };
        assert_eq!(log.apply(commits(vec![commit(n, &parents, &meta(text))])), []);
        assert_eq!(log.apply(refs(&[(META, n)])), []);
    }
    log
}

fn check(log: &Log, see: impl FnOnce(ChangeView<'_>)) {
    see(log
        .corpus
        .project(PROJECT)
        .unwrap()
        .change(42)
        .expect("the change is complete"));
}

#[test]
fn a_change_is_seen_when_its_history_and_a_patch_set_are_there() {
    let log = change(&[]);
    assert!(log.corpus.project(PROJECT).unwrap().change(42).is_none());
    let mut log = Log::default();
    log.apply(commits(vec![commit(1, &[], &meta("Patch-set: 1"))]));
    log.apply(refs(&[(META, 1)]));
    assert!(log.corpus.project(PROJECT).unwrap().change(42).is_none());
    let log = change(&["Patch-set: 1\nBranch: refs/heads/master"]);
    check(&log, |change| {
        assert_eq!(
            (change.status, &change.branch_name()[..], change.owner_id()),
            (Status::New, "master", Some(5))
        );
        assert_eq!(change.created.as_secs(), 2);
        assert_eq!(ok(change.subject(&log.payloads)), "net: fix it");
        assert_eq!(
            change.issue_refs(None),
            [("golang".into(), "go".into(), 5), ("x".into(), "y".into(), 6)]
        );
        let go = ("golang".into(), "go".into(), 5);
        assert_eq!(
            change.issue_refs(Some(("golang", "go"))),
            [go, ("x".into(), "y".into(), 6)]
        );
    });
}

#[test]
fn the_newest_footer_holds_and_what_people_write_is_none() {
    let log = change(&[
        "Patch-set: 1\nPrivate: true\nWork-in-progress: true",
        "Patch-set: 1\nPrivate: false\nStatus: merged",
        "Patch Set 1:\n\nStatus: abandoned\nPrivate: true\n\nPatch-set: 1",
    ]);
    check(&log, |change| {
        assert_eq!(
            (change.status, change.private, change.work_in_progress),
            (Status::Merged, false, true)
        );
        let said = ok(change.messages(&log.payloads));
        assert_eq!(said.len(), 1);
        assert_eq!((said[0].patch_set, &said[0].author[..]), (1, "5@srv"));
        assert_eq!(said[0].text, "Patch Set 1:\n\nStatus: abandoned\nPrivate: true");
    });
    let open = |log: &Log| log.corpus.project(PROJECT).unwrap().open_changes().count();
    assert_eq!((open(&log), open(&change(&["Patch-set: 1"]))), (0, 1));
    assert_eq!(open(&change(&["Patch-set: 1\nPrivate: true"])), 0);
}

#[test]
fn the_version_is_the_highest_patch_set_whatever_came_last() {
    let mut log = change(&["Patch-set: 1"]);
    log.apply(commits(vec![
        commit(901, &[900], "two"),
        commit(910, &[900], "ten"),
    ]));
    log.apply(refs(&[
        ("refs/changes/42/42/10", 910),
        ("refs/changes/42/42/2", 901),
    ]));
    check(&log, |change| {
        assert_eq!(change.newest().unwrap().0, 10);
        assert_eq!(
            (change.commit().unwrap().hash(), change.last_told),
            (hash(910), 2)
        );
        assert_eq!(change.patch_set(2).unwrap().hash(), hash(901));
        assert!(change.patch_set(3).is_none());
    });
}

#[test]
fn a_history_that_was_rewritten_is_read_anew() {
    let mut log = change(&["Patch-set: 1\nStatus: abandoned", "Patch-set: 1\nHashtags: a"]);
    log.apply(commits(vec![commit(
        51,
        &[1],
        &meta("Patch-set: 1\nStatus: new\nHashtags: b"),
    )]));
    log.apply(refs(&[(META, 51)]));
    check(&log, |change| {
        assert_eq!((change.status, change.metas.len()), (Status::New, 2));
        assert_eq!(
            ok(change.hashtags(&log.payloads)).into_iter().collect::<Vec<_>>(),
            ["b"]
        );
    });
}

#[test]
fn metas_that_are_not_known_leave_a_change_as_it_was() {
    let mut log = change(&["Patch-set: 1"]);
    let trouble = Trouble::NoHistory {
        project: PROJECT.into(),
        change: 42,
    };
    log.apply(commits(vec![commit(
        60,
        &[59],
        &meta("Patch-set: 1\nStatus: merged"),
    )]));
    assert_eq!(log.apply(refs(&[(META, 60)])), std::slice::from_ref(&trouble));
    check(&log, |change| {
        assert_eq!((change.status, change.metas.len()), (Status::New, 1))
    });
    log.apply(commits(vec![commit(
        61,
        &[1, 60],
        &meta("Patch-set: 1\nStatus: merged"),
    )]));
    assert_eq!(log.apply(refs(&[(META, 61)])), [trouble]);
    check(&log, |change| assert_eq!(change.status, Status::New));
}

#[test]
fn votes_are_those_that_hold_now() {
    let log = change(&[
        "Patch-set: 1\nLabel: Code-Review=+1\nLabel: Verified=+1 Gerrit User 6 <6@srv>",
        "Patch-set: 1\nLabel: -Code-Review",
    ]);
    check(&log, |change| {
        let votes = ok(change.votes(&log.payloads));
        assert_eq!(votes.keys().collect::<Vec<_>>(), ["Verified"]);
        assert_eq!(votes["Verified"]["6@srv"].value, 1);
    });
}

#[test]
fn refs_that_are_of_no_change_are_kept_by_name_and_can_be_deleted() {
    let mut log = change(&[]);
    log.apply(refs(&[
        ("HEAD", 900),
        ("refs/heads/master", 900),
        ("refs/meta/config", 900),
        ("refs/changes/42/42/robot-comments", 900),
    ]));
    let names = |log: &Log| {
        log.corpus
            .project(PROJECT)
            .unwrap()
            .refs()
            .map(|(name, _)| name.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&log),
        ["HEAD", "refs/changes/42/42/robot-comments", "refs/heads/master"]
    );
    log.apply(of_gerrit(GerritMutation {
        deleted_refs: vec!["HEAD".into()],
        ..Default::default()
    }));
    assert_eq!(
        names(&log),
        ["refs/changes/42/42/robot-comments", "refs/heads/master"]
    );
    let project = log
        .corpus
        .project("https://go-review.googlesource.com/go")
        .unwrap();
    assert_eq!(project.commit_at("refs/heads/master").unwrap().hash(), hash(900));
}

#[test]
fn a_ref_to_a_commit_that_is_not_known_is_passed_over_and_told() {
    let mut log = change(&["Patch-set: 1"]);
    let unknown = |at: &str, commit: String| Trouble::UnknownCommit {
        name: at.into(),
        commit,
    };
    assert_eq!(
        log.apply(refs(&[("HEAD", 77), (META, 77), ("refs/meta/x", 77)])),
        [unknown("HEAD", name(77)), unknown(META, name(77))]
    );
    check(&log, |change| assert_eq!(change.metas.len(), 1));
    assert!(log.corpus.project(PROJECT).unwrap().commit_at("HEAD").is_none());
}

#[test]
fn a_change_whose_refs_are_gone_is_deleted_and_kept() {
    let mut log = change(&["Patch-set: 1"]);
    log.apply(of_gerrit(GerritMutation {
        deleted_change_refs: vec![META.into()],
        ..Default::default()
    }));
    check(&log, |change| assert!(change.deleted));
    assert_eq!(log.corpus.project(PROJECT).unwrap().open_changes().count(), 0);
}

#[test]
fn a_batch_is_whole_only_when_it_is_finished() {
    let mut log = change(&["Patch-set: 1"]);
    log.apply(commits(vec![commit(
        2,
        &[1],
        &meta("Patch-set: 1\nStatus: merged"),
    )]));
    let payload = refs(&[(META, 2)]).encode_to_vec();
    let segment = mutlog::SegmentNumber(log.payloads.0.len() as u32);
    log.corpus
        .apply_record(mutlog::Place { segment, offset: 0 }, &payload)
        .unwrap();
    check(&log, |change| assert_eq!(change.status, Status::New));
    log.corpus.finish();
    check(&log, |change| assert_eq!(change.status, Status::Merged));
}

#[test]
fn a_history_that_bites_its_tail_is_passed_over() {
    let mut log = Log::default();
    let metas = vec![
        commit(1, &[2], &meta("Patch-set: 1")),
        commit(2, &[1], &meta("Patch-set: 1")),
    ];
    assert_eq!(log.apply(commits(metas)), []);
    let no_history = Trouble::NoHistory {
        project: PROJECT.to_owned(),
        change: 42,
    };
    assert_eq!(log.apply(refs(&[(META, 1)])), [no_history]);
}

#[test]
fn the_last_comments_on_the_lines_of_a_patch_set_are_the_ones() {
    let mut log = change(&["Patch-set: 1"]);
    let told = |cl: i32, revision: String, json: &str| {
        of_gerrit(GerritMutation {
            inline_comments: vec![GerritInlineComment {
                cl,
                revision,
                json: json.as_bytes().to_vec(),
            }],
            ..Default::default()
        })
    };
    assert_eq!(log.apply(told(42, name(900), "{\"comments\":1}")), []);
    assert_eq!(log.apply(told(42, name(901), "x")), []);
    assert_eq!(log.apply(told(42, name(900), "{\"comments\":2}")), []);
    // All comments of one were deleted.
    assert_eq!(log.apply(told(42, name(901), "")), []);
    check(&log, |change| {
        let found = ok(change.inline_comments(&log.payloads));
        assert_eq!(found, [(hash(900), b"{\"comments\":2}".to_vec())]);
    });
    let odd = log.apply(told(42, "x".to_owned(), "{}"));
    assert!(matches!(&odd[..], [Trouble::UnknownCommit { .. }]), "{odd:?}");
}

#[test]
fn what_changed_between_two_corpora_is_told_by_name() {
    let mut log = change(&["Patch-set: 1"]);
    log.apply(refs(&[("refs/heads/a", 900), ("refs/heads/b", 900)]));
    let before = log.corpus.clone();
    assert!(log.corpus.changed_since(&before).is_empty());
    log.apply(refs(&[("refs/heads/a", 1), ("refs/heads/c", 1)]));
    log.apply(of_gerrit(GerritMutation {
        deleted_refs: vec!["refs/heads/b".into()],
        ..Default::default()
    }));
    log.apply(refs(&[("refs/changes/42/42/2", 900)]));
    log.apply(commits(vec![commit(901, &[900], "more")]));
    let changed = log.corpus.changed_since(&before);
    let names: Vec<&str> = changed.refs.iter().map(|found| &found.name[..]).collect();
    assert_eq!(names, ["refs/heads/a", "refs/heads/b", "refs/heads/c"]);
    let changes: Vec<(&str, i32)> = changed
        .changes
        .iter()
        .map(|found| (&found.project[..], found.number))
        .collect();
    assert_eq!(changes, [(PROJECT, 42)]);
    assert_eq!(changed.issues, []);
    // All of it is new to one who knew nothing.
    let all = log.corpus.changed_since(&corpus::Corpus::default());
    assert_eq!((all.refs.len(), all.changes.len()), (2, 1));
}
