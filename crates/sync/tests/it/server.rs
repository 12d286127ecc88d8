//! A project as a server has it: a bare repository that others fetch from.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gerrit::Remote;
use sync::{Gerrit, Project, Round, SyncError};
use tempfile::TempDir;

use crate::log::Log;

pub const HOST: &str = "review.example.org";
pub const STAGES: [&str; 3] = ["stage1", "stage2", "stage3"];
/// As in the names of the recorded files, and as the server names them.
pub const PROJECTS: [(&str, &str); 3] = [
    ("burrow-demo", "burrow-demo"),
    ("tools", "tools"),
    ("infra%2Fsub.repo", "infra/sub.repo"),
];

pub fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .envs(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|key| (key, "Zoë")))
        .envs(["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|key| (key, "zoe@example.org")))
        .args(args)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub struct Server {
    pub folder: TempDir,
    pub repository: PathBuf,
}

impl Server {
    /// With nothing in it.
    pub fn new() -> Server {
        let folder = tempfile::tempdir().unwrap();
        git(folder.path(), &["init", "--quiet", "--bare", "server.git"]);
        let repository = folder.path().join("server.git");
        Server { folder, repository }
    }

    /// Makes it what the project was at that moment.
    pub fn move_to(&self, stage: &Path, project: &str) {
        let bundle = stage.join(format!("git/{project}.bundle"));
        let bundle = bundle.to_str().unwrap();
        git(
            &self.repository,
            &["fetch", "--quiet", "--prune", bundle, "+refs/*:refs/*"],
        );
    }
}

/// What syncs a project, its log, and what it knows of it.
pub struct Syncer {
    pub project: Project,
    pub log: Log,
    gerrit: Gerrit,
    now: Duration,
}

impl Syncer {
    pub async fn new(server: &Server, name: &str) -> Syncer {
        let dir = server.folder.path().join("copy.git");
        let remote = Remote::open(&dir, server.repository.to_str().unwrap(), None)
            .await
            .unwrap();
        Syncer {
            project: Project::new(name),
            log: Log::default(),
            gerrit: Gerrit::new(remote),
            now: Duration::ZERO,
        }
    }

    /// An hour after the last one. `room`: the log takes that many mutations, then fails.
    pub async fn round_with(&mut self, room: usize) -> Result<Round, SyncError<&'static str>> {
        self.now += Duration::from_secs(3600);
        let mut log = self.log.with_room(room);
        self.gerrit.round(&mut self.project, self.now, &mut log).await
    }

    pub async fn round(&mut self) -> Round {
        self.round_with(usize::MAX / 2).await.unwrap()
    }
}
