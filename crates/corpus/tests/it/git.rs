use corpus::{BadCommit, Hash, Trouble};
use maintpb::*;

use crate::log::{Log, ok};

pub fn name(n: u32) -> String {
    format!("{n:040x}")
}

pub fn hash(n: u32) -> Hash {
    Hash::parse(name(n).as_bytes()).unwrap()
}

/// Commit `n` with these parents.
pub fn commit(n: u32, parents: &[u32], message: &str) -> GitCommit {
    let parents: String = parents
        .iter()
        .map(|parent| format!("parent {}\n", name(*parent)))
        .collect();
    let raw = format!(
        "tree {}\n{parents}author Gerrit User 5 <5@srv> {n} +0200\ncommitter Gerrit <g@srv> {} +0000\n\n{message}",
        name(1000 + n),
        n + 1
    );
    GitCommit {
        sha1: name(n),
        raw: raw.into_bytes(),
        diff_tree: None,
    }
}

fn of_git(commit: GitCommit) -> Mutation {
    let git = GitMutation {
        repo: Some(GitRepo { go_repo: "go".into() }),
        commit: Some(commit),
    };
    Mutation {
        git: Some(git),
        ..Default::default()
    }
}

fn history(commits: &[(u32, &[u32])]) -> Log {
    let mut log = Log::default();
    for (n, parents) in commits {
        assert_eq!(log.apply(of_git(commit(*n, parents, "subject\n\nbody\n"))), []);
    }
    log
}

#[test]
fn a_commit_has_what_its_text_says() {
    let mut log = Log::default();
    let file = |name: &str| GitDiffTreeFile {
        file: name.into(),
        added: 1,
        deleted: 2,
        binary: false,
    };
    let diff_tree = Some(GitDiffTree {
        file: vec![file("b"), file("a")],
    });
    log.apply(of_git(GitCommit {
        diff_tree,
        ..commit(7, &[6], "subject \n\nbody\n")
    }));
    let seen = log.corpus.commit(hash(7)).unwrap();
    assert_eq!(
        (seen.author().name().to_owned(), seen.author().email().to_owned()),
        ("Gerrit User 5".into(), "5@srv".into())
    );
    assert_eq!(
        (
            seen.author_time().as_secs(),
            seen.commit_time().as_secs(),
            seen.zones()
        ),
        (7, 8, (120, 0))
    );
    let text = ok(seen.text(&log.payloads)).unwrap();
    assert_eq!((text.tree, text.summary()), (Some(hash(1007)), "subject".into()));
    assert_eq!(
        text.files.iter().map(|file| &file.name[..]).collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert!(text.same_stat(&text.clone()));
    let parent = seen.parents().next().unwrap();
    assert_eq!(
        (parent.hash(), parent.is_known(), ok(parent.text(&log.payloads))),
        (hash(6), false, None)
    );
}

#[test]
fn a_message_is_read_as_what_it_says_it_is_written_in() {
    let check = |encoding: &str, expect: &str| {
        let mut log = Log::default();
        let made = commit(7, &[], "na");
        let raw = String::from_utf8(made.raw)
            .unwrap()
            .replacen("\n\n", &format!("\n{encoding}\n"), 1);
        let raw = [raw.as_bytes(), b"\xefve\n"].concat();
        log.apply(of_git(GitCommit {
            sha1: made.sha1,
            raw,
            diff_tree: None,
        }));
        let seen = log.corpus.commit(hash(7)).unwrap();
        assert_eq!(
            ok(seen.text(&log.payloads)).unwrap().summary(),
            expect,
            "{encoding}"
        );
        assert_eq!(ok(seen.message(&log.payloads)).trim_end(), expect, "{encoding}");
    };
    check("encoding ISO-8859-1\n", "naïve");
    check("encoding latin1\n", "naïve");
    check("encoding koi8\n", "na\u{fffd}ve");
    check("", "na\u{fffd}ve");
}

#[test]
fn a_parent_that_comes_later_is_filled_in() {
    let mut log = history(&[(3, &[2, 1]), (2, &[1])]);
    assert_eq!(log.corpus.commits(), (2, 1));
    assert_eq!(log.apply(of_git(commit(1, &[], "root"))), []);
    assert_eq!(log.corpus.commits(), (3, 0));
    let tip = log.corpus.commit(hash(3)).unwrap();
    let parents: Vec<_> = tip
        .parents()
        .map(|parent| ok(parent.message(&log.payloads)))
        .collect();
    assert_eq!(parents, ["subject\n\nbody\n", "root"]);
}

#[test]
fn ancestors_are_found_through_every_parent_and_no_commit_is_its_own() {
    let log = history(&[(1, &[]), (2, &[1]), (3, &[1]), (4, &[2, 3]), (5, &[4]), (6, &[2])]);
    let check = |commit: u32, ancestor: u32, expect: bool| {
        let [commit, ancestor] = [commit, ancestor].map(|n| log.corpus.commit(hash(n)).unwrap());
        assert_eq!(
            commit.has_ancestor(ancestor),
            expect,
            "{:?} {:?}",
            commit.hash(),
            ancestor.hash()
        );
    };
    check(5, 1, true);
    check(5, 3, true);
    check(5, 5, false);
    check(6, 3, false);
    check(1, 5, false);
}

#[test]
fn what_is_no_commit_is_passed_over_and_told() {
    let mut log = Log::default();
    let raw = b"tree x".to_vec();
    let bad = GitCommit {
        raw,
        ..commit(1, &[], "")
    };
    assert_eq!(
        log.apply(of_git(bad)),
        [Trouble::BadCommit {
            commit: name(1),
            why: BadCommit::NoMessage
        }]
    );
    let bad = GitCommit {
        sha1: "1234".into(),
        ..commit(1, &[], "")
    };
    assert_eq!(
        log.apply(of_git(bad)),
        [Trouble::BadCommit {
            commit: "1234".into(),
            why: BadCommit::BadName
        }]
    );
    assert_eq!(log.corpus.commits(), (0, 0));
}

#[test]
fn a_time_beyond_all_calendars_is_the_end_of_time() {
    let mut log = Log::default();
    let mut odd = commit(1, &[], "m");
    let raw = String::from_utf8(odd.raw.clone()).unwrap();
    let line = raw.lines().find(|line| line.starts_with("committer ")).unwrap();
    odd.raw = raw
        .replace(line, "committer A <a@b> 9223372036854775807 +0000")
        .into_bytes();
    assert_eq!(log.apply(of_git(odd)), []);
    let found = log.corpus.commit(hash(1)).unwrap();
    assert_eq!(found.commit_time().0, i64::MAX);
}
