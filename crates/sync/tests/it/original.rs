//! The same repositories synced by the original's leader, of 2026 and of 2019: `tests/go`, built with a
//! Go toolchain. What differs is in `docs/maintner-differences.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use maintpb::borrowed::{Mutation, View};
use mutlog::{Records, Split};

use crate::log::{self, Log};
use crate::server::{HOST, STAGES, Server, Syncer};

/// A program of Go's: the folder of its sources under `crates`, and its module file. `None`: there is no
/// Go here, which was said.
fn program(sources: &str, module: &str) -> Option<PathBuf> {
    // One build at a time; Go's own cache makes all but the first quick.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let program =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{module}", sources.replace('/', "-")));
    let built = Command::new("go")
        .args(["build", "-mod=readonly"])
        .arg(format!("-modfile={module}"))
        .arg("-o")
        .arg(&program)
        .arg(".")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(sources))
        .output();
    match built {
        Ok(built) => {
            assert!(
                built.status.success(),
                "{}",
                String::from_utf8_lossy(&built.stderr)
            );
            Some(program)
        }
        Err(why) => {
            let missing = format!("there is no Go to build the original with: {why}");
            assert!(std::env::var_os(testkit::peer::REQUIRE).is_none(), "{missing}");
            eprintln!("skipped: {missing}");
            None
        }
    }
}

/// The original, and where it keeps what it knows.
struct Original {
    program: PathBuf,
    dir: PathBuf,
    name: String,
}

impl Original {
    fn new(server: &Server, module: &str, name: &str) -> Option<Original> {
        let dir = server.folder.path().join("original");
        fs::create_dir_all(dir.join("log")).unwrap();
        fs::create_dir_all(dir.join("work")).unwrap();
        let here = server.repository.display();
        let config = format!("[url \"{here}\"]\n\tinsteadOf = https://{name}\n");
        fs::write(dir.join("gitconfig"), config).unwrap();
        Some(Original {
            program: program("sync/tests/go", module)?,
            dir,
            name: name.to_owned(),
        })
    }

    /// One round; all that its log holds then.
    fn round(&self) -> Log {
        let out = Command::new(&self.program)
            .args([self.dir.to_str().unwrap(), &self.name])
            .env("HOME", &self.dir)
            .env("GIT_CONFIG_GLOBAL", self.dir.join("gitconfig"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let files = fs::read_dir(self.dir.join("log")).unwrap();
        let files: BTreeSet<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        let mut log = Log::default();
        for file in files {
            let bytes = fs::read(file).unwrap();
            let mut records = Records::new(&bytes, 0);
            log.0
                .extend(records.by_ref().map(|(_, payload)| payload.to_vec()));
            assert!(matches!(records.end(), Split::End));
        }
        log
    }
}

/// What some mutations tell, line by line, whatever their order.
fn told(payloads: &[Vec<u8>], name: &str) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut say = |line: String| assert!(lines.insert(line.clone()), "{line}: told twice");
    for payload in payloads {
        let mutation = Mutation::decode(payload).unwrap().copied();
        let gerrit = mutation.gerrit.expect("all is about Gerrit");
        assert_eq!(gerrit.project, name);
        let kinds = [
            gerrit.commits.len(),
            gerrit.refs.len(),
            gerrit.deleted_refs.len() + gerrit.deleted_change_refs.len(),
        ];
        assert_eq!(
            kinds.iter().filter(|of| **of > 0).count(),
            1,
            "a mutation is of one kind"
        );
        for commit in gerrit.commits {
            let raw = commit.raw.escape_ascii();
            let files = commit.diff_tree.expect("it is always there").file;
            say(format!("commit {} {raw} {files:?}", commit.sha1));
        }
        for told in gerrit.refs {
            say(format!("ref {} {}", told.r#ref, told.sha1));
        }
        gerrit
            .deleted_refs
            .iter()
            .for_each(|name| say(format!("deleted {name}")));
        gerrit
            .deleted_change_refs
            .iter()
            .for_each(|name| say(format!("gone {name}")));
    }
    lines
}

/// Stage by stage, what both write, and in the end the corpora.
async fn check(module: &str, project: &str) {
    let Some(recorded) = testkit::recorded::recorded("gerrit") else {
        return;
    };
    let server = Server::new();
    let name = format!("{HOST}/{project}");
    let Some(original) = Original::new(&server, module, &name) else {
        return;
    };
    let mut syncer = Syncer::new(&server, &name).await;
    let mut theirs = Log::default();
    let mut gone = BTreeSet::new();
    for stage in STAGES {
        server.move_to(&recorded.join(stage), project);
        let (ours_before, theirs_before) = (syncer.log.0.len(), theirs.0.len());
        syncer.round().await;
        theirs = original.round();
        let mut ours_told = told(&syncer.log.0[ours_before..], &name);
        let theirs_told = told(&theirs.0[theirs_before..], &name);
        let is = |line: &str, kind: &str| line.starts_with(kind);
        // Differs: the original never tells that a change is gone.
        gone.extend(ours_told.extract_if(.., |line| is(line, "gone ")));
        // Differs: that of 2019 tells nothing of refs that are gone.
        if module == "go.2019.mod" {
            ours_told.retain(|line| !is(line, "deleted "));
        }
        let only_ours: Vec<&String> = ours_told.difference(&theirs_told).collect();
        let only_theirs: Vec<&String> = theirs_told.difference(&ours_told).collect();
        assert!(
            only_ours.is_empty() && only_theirs.is_empty(),
            "{stage}\nours {only_ours:#?}\ntheirs {only_theirs:#?}"
        );
    }
    let (ours_dump, mut theirs_dump) = (log::dump(&syncer.log), log::dump(&theirs));
    match module {
        "go.2019.mod" => {
            // What it still takes for a branch or a tag.
            let stale = ["ref refs/heads/dev.doomed ", "ref refs/tags/go1.10 "];
            theirs_dump.retain(|line| !stale.iter().any(|stale| line.starts_with(stale)));
            assert_eq!(ours_dump, theirs_dump);
        }
        _ => {
            assert_eq!(ours_dump, theirs_dump);
            check_read(&server, "days", &syncer.log, &ours_dump);
            check_read(&server, "theirs", &theirs, &ours_dump);
        }
    }
    let expect: &[&str] = match project {
        "burrow-demo" => &["gone refs/changes/27/27/1", "gone refs/changes/27/27/meta"],
        _ => &[],
    };
    assert_eq!(gone.iter().map(String::as_str).collect::<Vec<_>>(), expect);
}

/// What the original's corpus of this log is, line by line.
fn check_read(server: &Server, folder: &str, log: &Log, expect: &[String]) {
    let program = program("maintnerd/tests/go/2026", "go.mod").expect("Go was there before");
    let days = server.folder.path().join(folder);
    fs::create_dir(&days).unwrap();
    let mut bytes = Vec::new();
    for payload in &log.0 {
        let offset = bytes.len() as u64;
        mutlog::put(&mut bytes, offset, payload);
    }
    fs::write(days.join("maintner-0000.mutlog"), bytes).unwrap();
    let dump = days.join("dump");
    let out = Command::new(program)
        .arg("read")
        .arg(&days)
        .arg(&dump)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    let read = fs::read_to_string(dump).unwrap();
    let read: Vec<&str> = read.lines().collect();
    assert!(read.len() > 100, "{}", read.len());
    assert_eq!(read, expect);
}

#[tokio::test]
async fn the_original_of_2026_writes_what_we_write() {
    check("go.mod", "burrow-demo").await;
    check("go.mod", "tools").await;
}

#[tokio::test]
async fn the_original_of_2019_writes_what_we_write() {
    check("go.2019.mod", "burrow-demo").await;
    check("go.2019.mod", "tools").await;
}
