use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::job::{Job, LOCAL, Printed, UPSTREAM};
use crate::{GitError, Upstream};

/// Of our own environment git gets these: what reaches the network and the user's keys.
const KEPT: [&str; 13] = [
    "PATH",
    "HOME",
    "SSH_AUTH_SOCK",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "http_proxy",
    "ALL_PROXY",
    "NO_PROXY",
    "no_proxy",
];

const SETTINGS: [&str; 7] = [
    "protocol.version=2",
    "gc.auto=0",
    "maintenance.auto=false",
    "core.quotePath=false",
    "fetch.writeCommitGraph=true",
    // A server that sends less than this for so long is given up.
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
];

/// A git program with our settings for one bare repository.
#[derive(Debug, Clone)]
pub struct Git {
    dir: PathBuf,
}

impl Git {
    pub fn new(dir: impl Into<PathBuf>) -> Git {
        Git { dir: dir.into() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Not started, and with no limits: for a git that is talked to. [`Git::start`] has them.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.env_clear().env(
            "GIT_SSH_COMMAND",
            "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15",
        );
        let kept = KEPT.iter().filter_map(|key| Some((key, std::env::var_os(key)?)));
        command
            .envs(kept)
            .env("GIT_DIR", &self.dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("LC_ALL", "C")
            .args(SETTINGS.iter().flat_map(|setting| ["-c", *setting]))
            .args(args)
            .current_dir(self.dir.parent().unwrap_or(Path::new("/")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn start(&self, args: &[&str]) -> Result<Job, GitError> {
        let verb = args
            .iter()
            .find(|arg| !arg.starts_with('-') && !arg.contains('='));
        Job::start(self.command(args), verb.unwrap_or(&""))
    }

    /// Standard output of a command that must succeed.
    pub async fn output(&self, args: &[&str]) -> Result<Vec<u8>, GitError> {
        Ok(self.start(args)?.printed(LOCAL).await?.out)
    }

    /// Runs `verb` (with `options`) on the upstream, for `rest`.
    pub async fn upstream(
        &self,
        upstream: &Upstream,
        verb: &str,
        options: &[&str],
        rest: &[&str],
    ) -> Result<Printed, GitError> {
        let command = self.asking(upstream, verb, options, rest);
        let done = Job::start(command, verb)?.printed(UPSTREAM).await;
        done.map_err(|why| match why {
            GitError::Failed { said, .. } | GitError::GivenUp { why: said, .. } => GitError::Upstream {
                url: upstream.address().to_owned(),
                said,
            },
            other => other,
        })
    }

    fn asking(&self, upstream: &Upstream, verb: &str, options: &[&str], rest: &[&str]) -> Command {
        let upload_pack = upstream
            .upload_pack()
            .map(|command| format!("--upload-pack={command}"));
        let mut args = vec![verb];
        args.extend(upload_pack.as_deref());
        args.extend(options);
        args.extend(["--end-of-options", upstream.address()]);
        args.extend(rest);
        let mut command = self.command(&args);
        command.envs(upstream.environment());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_up(dir: &Path, args: &[&str]) {
        let git = std::process::Command::new("git")
            .args(args)
            .current_dir(dir)
            .output()
            .expect("git runs");
        assert!(git.status.success(), "{args:?}");
    }

    #[tokio::test]
    async fn a_repository_of_another_user_is_read_if_it_is_the_one_that_was_named() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["named", "other"] {
            set_up(folder.path(), &["init", "-q", name]);
        }
        let git = Git::new(folder.path().join("m"));
        git.output(&["init", "-q", "--bare"]).await.expect("a mirror");
        let named = folder.path().join("named");
        let named = Upstream::new(named.to_str().expect("a path"));
        let of_another = async |mut command: Command| {
            command.env("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1");
            Job::start(command, "ls-remote").expect("git").end(LOCAL).await
        };
        of_another(git.asking(&named, "ls-remote", &[], &[]))
            .await
            .expect("it was named");
        let trusted = format!(
            "--upload-pack={}",
            named.upload_pack().expect("it is on this disk")
        );
        let other = folder.path().join("other");
        let other = git.command(&["ls-remote", &trusted, other.to_str().expect("a path")]);
        let error = of_another(other).await.expect_err("it was not").to_string();
        assert!(error.contains("dubious ownership"), "{error}");
    }
}
