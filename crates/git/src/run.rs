use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

/// Longest a git command may take. Source: golang/build `cmd/gitmirror/gitmirror.go` (2023), 10 min.
const LIMIT: Duration = Duration::from_secs(600);

/// Most of what git says on stderr that is kept.
const STDERR_MAX: usize = 8 * 1024;

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
    #[error("git {command} took longer than {} s", limit.as_secs())]
    Timeout { command: String, limit: Duration },
    #[error("git {command} failed: {said}")]
    Failed { command: String, said: String },
    #[error("cannot {what} `{}`", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
}

/// A git program with our settings for one repository.
#[derive(Debug, Clone)]
pub struct Git {
    dir: PathBuf,
}

impl Git {
    /// Runs in the bare repository `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Git {
        Git { dir: dir.into() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The command with nothing inherited but PATH and what reaches the network and the user's keys.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.env_clear();
        let kept = [
            "PATH",
            "HOME",
            "SSH_AUTH_SOCK",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "HTTPS_PROXY",
            "NO_PROXY",
        ];
        for key in kept {
            if let Some(value) = std::env::var_os(key) {
                command.env(key, value);
            }
        }
        command
            .env("GIT_DIR", &self.dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("LC_ALL", "C")
            .args([
                "-c",
                "protocol.version=2",
                "-c",
                "protocol.ext.allow=never",
                "-c",
                "safe.directory=*",
            ])
            .args(["-c", "gc.auto=0", "-c", "core.quotePath=false"])
            .args(args)
            .current_dir(self.dir.parent().unwrap_or(Path::new("/")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Standard output of a command that must succeed.
    pub async fn output(&self, args: &[&str]) -> Result<Vec<u8>, GitError> {
        let name = args
            .iter()
            .find(|arg| !arg.starts_with('-'))
            .unwrap_or(&"")
            .to_string();
        let mut child = self.command(args).spawn().map_err(GitError::NoGit)?;
        let mut stdout = child.stdout.take().expect("stdout is piped");
        let mut out = Vec::new();
        let work = async {
            let (read, said) = tokio::join!(stdout.read_to_end(&mut out), stderr(&mut child));
            read.map_err(|source| GitError::Io {
                what: "read from git in",
                path: self.dir.clone(),
                source,
            })?;
            let status = child.wait().await.map_err(GitError::NoGit)?;
            if status.success() {
                Ok(())
            } else {
                Err(GitError::Failed {
                    command: name.clone(),
                    said,
                })
            }
        };
        match tokio::time::timeout(LIMIT, work).await {
            Ok(done) => done.map(|()| out),
            Err(_) => {
                kill(&child);
                Err(GitError::Timeout {
                    command: name,
                    limit: LIMIT,
                })
            }
        }
    }
}

/// What the child says on stderr, to its end; bounded, without passwords.
pub(crate) async fn stderr(child: &mut Child) -> String {
    let mut said = Vec::new();
    if let Some(mut pipe) = child.stderr.take() {
        let mut piece = [0; 4096];
        while let Ok(n) = pipe.read(&mut piece).await
            && n > 0
        {
            let room = STDERR_MAX.saturating_sub(said.len());
            said.extend_from_slice(&piece[..n.min(room)]);
        }
    }
    let text = String::from_utf8_lossy(&said);
    let text = text.trim().lines().map(str::trim).collect::<Vec<_>>().join("; ");
    redact(if text.is_empty() { "it said nothing" } else { &text })
}

/// Ends the child with all that it started.
fn kill(child: &Child) {
    let pid = child
        .id()
        .and_then(|id| rustix::process::Pid::from_raw(id as i32));
    if let Some(pid) = pid {
        // Gone already is as good.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

/// `https://user:password@host` as `https://…@host`.
pub(crate) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c == '/' || c == '\'' || c.is_whitespace())
            .unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(user) => {
                out.push('…');
                rest = &after[user..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn passwords_in_addresses_are_hidden() {
        assert_eq!(
            redact("fatal: 'https://me:se@cret@host/x' and ssh://git@h"),
            "fatal: 'https://…@host/x' and ssh://…@h"
        );
        assert_eq!(redact("no address: a@b"), "no address: a@b");
    }
}
