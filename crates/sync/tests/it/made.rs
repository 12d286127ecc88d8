//! Repositories with what is rare.

use std::fs;
use std::path::Path;

use maintpb::borrowed::{Mutation, View};
use sync::{Round, Tree};

use crate::log::{self, Log};
use crate::server::{Server, Syncer, git};

/// Odd names, a file that is not text, a merge, two roots, tags of commits, of tags and of a tree.
fn made(server: &Server) {
    let work = server.folder.path().join("work");
    fs::create_dir(&work).unwrap();
    git(&work, &["init", "--quiet", "-b", "main"]);
    fs::create_dir(work.join("d")).unwrap();
    fs::write(work.join("d/Þ foo\t.go"), "a\nb\n").unwrap();
    fs::write(work.join("with blank"), "a\n").unwrap();
    commit(&work, "root");
    fs::write(work.join("d/Þ foo\t.go"), "a\nc\nd\n").unwrap();
    fs::write(work.join("with blank"), "").unwrap();
    fs::write(work.join("binary"), b"\0\x01\xff").unwrap();
    commit(&work, "change");
    git(&work, &["commit", "--quiet", "--allow-empty", "-m", "nothing"]);
    git(&work, &["checkout", "--quiet", "-b", "side", "HEAD~2"]);
    git(&work, &["mv", "with blank", "moved"]);
    commit(&work, "move");
    git(&work, &["merge", "--quiet", "-m", "merge", "main", "-X", "ours"]);
    git(&work, &["checkout", "--quiet", "--orphan", "other"]);
    commit(&work, "another root");
    git(&work, &["tag", "-a", "-m", "tag", "annotated", "main"]);
    git(&work, &["tag", "-a", "-m", "tag of tag", "nested", "annotated"]);
    git(&work, &["tag", "plain", "main"]);
    git(&work, &["tag", "tree", "main^{tree}"]);
    git(
        &work,
        &["push", "--quiet", "--mirror", server.repository.to_str().unwrap()],
    );
    git(&server.repository, &["symbolic-ref", "HEAD", "refs/heads/main"]);
}

fn commit(work: &Path, message: &str) {
    git(work, &["add", "--all"]);
    git(work, &["commit", "--quiet", "-m", message]);
}

/// Each commit as the original asks git for it, one by one.
fn check_commits(repository: &Path, log: &Log) -> usize {
    let mut commits = 0;
    for payload in &log.0 {
        let mutation = Mutation::decode(payload).unwrap();
        let of_gerrit = mutation.gerrit.iter().flat_map(|told| told.commits.clone());
        let of_tree = mutation.git.iter().filter_map(|told| told.commit.clone());
        for commit in of_gerrit.chain(of_tree) {
            let hash = commit.sha1.lossy().into_owned();
            assert_eq!(
                String::from_utf8_lossy(commit.raw),
                git(repository, &["cat-file", "commit", &hash])
            );
            let files = commit.diff_tree.unwrap().file;
            let lines = files.iter().map(|file| match file.binary {
                true => format!("-\t-\t{}", file.file.lossy()),
                false => format!("{}\t{}\t{}", file.added, file.deleted, file.file.lossy()),
            });
            let lines: Vec<String> = lines.collect();
            let printed = git(repository, &["diff-tree", "--no-commit-id", "--numstat", &hash]);
            let mut printed: Vec<&str> = printed.lines().collect();
            printed.sort_by_key(|line| line.rsplit('\t').next());
            assert_eq!(lines, printed, "{hash}");
            commits += 1;
        }
    }
    commits
}

#[tokio::test]
async fn commits_are_told_as_the_original_tells_them() {
    let server = Server::new();
    made(&server);
    let mut syncer = Syncer::new(&server, "h/p").await;
    let round = syncer.round().await;
    // A tag of a tree is of no commit.
    assert_eq!(round.left, ["refs/tags/tree"]);
    // Six commits, and two tags that are told as the commit they are of.
    assert_eq!(check_commits(&server.repository, &syncer.log), 8);
    let all: String = log::dump(&syncer.log).join("\n");
    assert!(all.contains(r"d/\303\236%20foo\t.go"), "{all}");
}

#[tokio::test]
async fn a_server_that_lists_nothing_is_asked_again_before_it_is_believed() {
    let server = Server::new();
    made(&server);
    let mut syncer = Syncer::new(&server, "h/p").await;
    syncer.round().await;
    let before = log::dump(&syncer.log);
    let away = server.folder.path().join("away.git");
    fs::rename(&server.repository, &away).unwrap();
    git(server.folder.path(), &["init", "--quiet", "--bare", "server.git"]);
    let round = syncer.round().await;
    assert_eq!((round.written, round.doubted), (0, 9));
    fs::remove_dir_all(&server.repository).unwrap();
    fs::rename(&away, &server.repository).unwrap();
    let round = syncer.round().await;
    assert_eq!((round.written, round.doubted), (0, 0));
    assert_eq!(log::dump(&syncer.log), before);
}

#[tokio::test]
async fn a_branch_may_take_the_place_of_a_folder_of_branches() {
    let server = Server::new();
    made(&server);
    let mut syncer = Syncer::new(&server, "h/p").await;
    git(&server.repository, &["update-ref", "refs/heads/a/b", "main"]);
    syncer.round().await;
    git(&server.repository, &["update-ref", "-d", "refs/heads/a/b"]);
    git(&server.repository, &["update-ref", "refs/heads/a", "other"]);
    syncer.round().await;
    let corpus = log::corpus(&syncer.log);
    let project = corpus.project("h/p").unwrap();
    let names: Vec<&str> = project
        .refs()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("refs/heads/a"))
        .collect();
    assert_eq!(names, ["refs/heads/a"]);
}

#[tokio::test]
async fn commits_that_a_log_lacks_are_filled_in() {
    let server = Server::new();
    made(&server);
    let mut syncer = Syncer::new(&server, "h/p").await;
    syncer.round().await;
    // As the original left its log at times: the root of `main` is not told.
    let root = git(&server.repository, &["rev-list", "--max-parents=0", "main"]);
    syncer.log.0.retain(|payload| {
        let told = Mutation::decode(payload).unwrap().gerrit.unwrap();
        told.commits
            .iter()
            .all(|commit| commit.sha1.lossy() != root.trim())
    });
    syncer.project = log::project("h/p", &syncer.log);
    assert_eq!(syncer.project.known().needed().count(), 1);
    // It comes with the next ref that moves.
    git(&server.repository, &["update-ref", "refs/heads/new", "main"]);
    syncer.round().await;
    assert_eq!(syncer.project.known().needed().count(), 0);
    assert_eq!(log::corpus(&syncer.log).commits().1, 0);
}

#[tokio::test]
async fn a_tree_is_followed_on_all_its_branches() {
    let server = Server::new();
    made(&server);
    let mut log = Log::default();
    let mut tree = Tree::new("go", &server.repository);
    let round = tree.round(&mut log.with_room(usize::MAX)).await.unwrap();
    assert_eq!(round.written, 6);
    assert_eq!(check_commits(&server.repository, &log), 6);
    let mut tree = log::tree(Tree::new("go", &server.repository), &log);
    let work = server.folder.path().join("work");
    git(&work, &["checkout", "--quiet", "side"]);
    git(&work, &["commit", "--quiet", "--allow-empty", "-m", "later"]);
    git(
        &work,
        &["push", "--quiet", server.repository.to_str().unwrap(), "side"],
    );
    let round = tree.round(&mut log.with_room(usize::MAX)).await.unwrap();
    assert_eq!(
        round,
        Round {
            written: 1,
            ..Round::default()
        }
    );
    assert_eq!(log::corpus(&log).commits(), (7, 0));
}
