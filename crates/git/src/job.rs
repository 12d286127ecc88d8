//! One running git: what it prints, when it is given up, and that nothing of it stays.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;

use crate::address::redact;

/// Of what git says on stderr this much of the beginning and of the end is kept.
const SAID_HEAD: usize = 2 * 1024;
const SAID_TAIL: usize = 6 * 1024;

/// Why git gave no usable answer; each is somebody else's to mend.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("git cannot be run: {0}; install it, as with `apt-get install git`")]
    NoGit(std::io::Error),
    /// The upstream is not there, or not for us.
    #[error("the repository `{url}` cannot be read: {said}")]
    Upstream { url: String, said: String },
    /// Malformed: no revision of any repository.
    #[error("`{rev}` is not a revision; wanted a full hash, a branch, a tag or a full ref name")]
    BadRev { rev: String },
    #[error("there is no revision `{rev}` in the mirror")]
    NoRev { rev: String },
    #[error("git {command} failed: {said}")]
    Failed { command: String, said: String },
    /// It did not end in time, whoever's fault that is.
    #[error("git {command} was given up: {why}")]
    GivenUp { command: String, why: String },
    #[error("the mirror `{}` is damaged ({what}), and cannot be made anew", dir.display())]
    Damaged {
        dir: PathBuf,
        what: String,
        source: Box<GitError>,
    },
    #[error("cannot {what} `{}`", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
}

/// When a command is given up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub total: Duration,
    /// Without a byte printed.
    pub silence: Duration,
}

/// For what only reads the disk. Source: golang/build `cmd/gitmirror/gitmirror.go` (2023), 10 min.
pub(crate) const LOCAL: Limits = Limits {
    total: Duration::from_secs(600),
    silence: Duration::from_secs(600),
};

/// For what talks to an upstream: progress is asked for, so one that works prints every second. A first
/// copy of a large repository takes its time.
pub(crate) const UPSTREAM: Limits = Limits {
    total: Duration::from_secs(2 * 3600),
    silence: Duration::from_secs(120),
};

/// For an archive, whose output somebody else reads.
pub const ARCHIVE: Limits = LOCAL;

/// A running git. Dropped before its end, it is killed with all that it started.
#[derive(Debug)]
pub struct Job {
    child: Child,
    name: String,
    /// Until the leader has been waited for its number is nobody else's.
    group: Option<Pid>,
}

/// What a command that went well printed.
#[derive(Debug)]
pub struct Printed {
    pub out: Vec<u8>,
    /// On stderr: its beginning and its end.
    pub said: String,
}

impl Job {
    pub(crate) fn start(mut command: Command, name: &str) -> Result<Job, GitError> {
        let child = command
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(GitError::NoGit)?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Job {
            child,
            name: name.to_owned(),
            group,
        })
    }

    /// For who reads the output as it comes; [`Job::end`] must run meanwhile.
    pub fn take_stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("it is piped and taken once")
    }

    /// Waits for the end, which must be a good one.
    pub async fn end(self, limits: Limits) -> Result<(), GitError> {
        self.printed(limits).await.map(|_| ())
    }

    pub(crate) async fn printed(mut self, limits: Limits) -> Result<Printed, GitError> {
        let (mut stdout, mut stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (mut out, mut said, mut piece) = (Vec::new(), Said::default(), [0; 4096]);
        let deadline = Instant::now() + limits.total;
        // A pipe that is open is read, and one that cannot be read is at its end.
        while stdout.is_some() || stderr.is_some() {
            let silence = tokio::time::sleep(limits.silence);
            tokio::select! {
                read = async { stdout.as_mut().expect("guarded").read_buf(&mut out).await }, if stdout.is_some() => {
                    if !matches!(read, Ok(1..)) {
                        stdout = None;
                    }
                }
                read = async { stderr.as_mut().expect("guarded").read(&mut piece).await }, if stderr.is_some() => {
                    match read {
                        Ok(n @ 1..) => said.take(&piece[..n]),
                        _ => stderr = None,
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    return Err(self.given_up(format!("it took longer than {} s", limits.total.as_secs()), &said));
                }
                () = silence => {
                    let why = format!("it printed nothing for {} s", limits.silence.as_secs());
                    return Err(self.given_up(why, &said));
                }
            }
        }
        let status = match tokio::time::timeout_at(deadline, self.child.wait()).await {
            Ok(status) => status.map_err(GitError::NoGit)?,
            Err(_) => {
                let why = format!("it took longer than {} s", limits.total.as_secs());
                return Err(self.given_up(why, &said));
            }
        };
        self.group = None;
        let said = said.text();
        if status.success() {
            return Ok(Printed { out, said });
        }
        let said = if said.is_empty() {
            "it said nothing".to_owned()
        } else {
            said
        };
        Err(GitError::Failed {
            command: self.name.clone(),
            said,
        })
    }

    fn given_up(&self, why: String, said: &Said) -> GitError {
        let said = said.text();
        GitError::GivenUp {
            command: self.name.clone(),
            why: if said.is_empty() {
                why
            } else {
                format!("{why}; it said before: {said}")
            },
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // Gone already is as good.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

/// The beginning and the end of what was said.
#[derive(Debug, Default)]
struct Said {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: bool,
}

impl Said {
    fn take(&mut self, piece: &[u8]) {
        let room = SAID_HEAD.saturating_sub(self.head.len()).min(piece.len());
        self.head.extend_from_slice(&piece[..room]);
        self.tail.extend(&piece[room..]);
        let over = self.tail.len().saturating_sub(SAID_TAIL);
        self.left_out |= over > 0;
        self.tail.drain(..over);
    }

    /// On one line, without progress and passwords.
    fn text(&self) -> String {
        let mut bytes = self.head.clone();
        if self.left_out {
            bytes.extend_from_slice("\n…\n".as_bytes());
        }
        bytes.extend(&self.tail);
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.split(['\n', '\r']).map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.contains("% ("));
        redact(&lines.collect::<Vec<_>>().join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    fn shell(script: &str) -> Job {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Job::start(command, "sh").expect("a shell")
    }

    fn limits(total: u64, silence: u64) -> Limits {
        Limits {
            total: Duration::from_millis(total),
            silence: Duration::from_millis(silence),
        }
    }

    fn runs(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A zombie has ended; its parent may be slow to notice.
        !stat.is_empty() && !stat.contains(") Z ")
    }

    async fn until_gone(pid: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while runs(pid) {
            assert!(Instant::now() < deadline, "process {pid} still runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The script's child, which it prints the number of.
    async fn first_line(file: &std::path::Path) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            if let Some(line) = text.strip_suffix('\n') {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "it wrote nothing");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_command_that_is_given_up_ends_with_its_children() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = folder.path().join("pid");
        // Its first process has ended, and the second keeps the pipes open.
        let script = format!("sleep 1000 & echo $! > '{}'", told.display());
        let error = shell(&script)
            .end(limits(60_000, 2_000))
            .await
            .expect_err("silent");
        assert_eq!(
            error.to_string(),
            "git sh was given up: it printed nothing for 2 s"
        );
        until_gone(&first_line(&told).await).await;
    }

    #[tokio::test]
    async fn a_command_that_nobody_waits_for_any_more_ends_with_its_children() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = folder.path().join("pid");
        let job = shell(&format!("sleep 1000 & echo $! > '{}'; wait", told.display()));
        let child = first_line(&told).await;
        assert!(runs(&child));
        drop(job);
        until_gone(&child).await;
    }

    #[tokio::test]
    async fn a_command_that_prints_may_take_long_but_not_for_ever() {
        let script = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done";
        let printed = shell(script)
            .printed(limits(60_000, 2_000))
            .await
            .expect("it ends well");
        assert_eq!(printed.out, b"1\n2\n3\n4\n5\n6\n");
        let endless = shell("while echo x; do sleep 0.05; done").end(limits(500, 60_000));
        let endless = tokio::time::timeout(Duration::from_secs(20), endless)
            .await
            .expect("it is given up");
        let error = endless.expect_err("too long").to_string();
        assert!(error.contains("longer than 0 s"), "{error}");
    }

    #[tokio::test]
    async fn both_ends_of_what_was_said_are_kept() {
        let script = "echo first https://u:pw@h/ >&2; yes 'Receiving objects: 7% (1/9)' | head -c 900000 >&2; \
                      yes middle | head -c 20000 >&2; echo >&2; echo the reason >&2; exit 3";
        let error = shell(script).end(LOCAL).await.expect_err("it failed").to_string();
        assert!(
            error.starts_with("git sh failed: first https://…@h/; "),
            "{error}"
        );
        assert!(error.ends_with("; the reason"), "{error}");
        assert!(error.len() < 10_000 && error.contains("…") && !error.contains("% ("));
    }
}
