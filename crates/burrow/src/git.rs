use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::Failure;

/// Runs git and gives what it printed. It asks nobody for passwords and reads no configuration of
/// a repository it does not stand in.
pub fn git(dir: &Path, args: &[&str]) -> Result<Vec<u8>, Failure> {
    run(dir, args, None, Vec::new())
}

/// The same with further variables: a login, which nobody else is to see.
pub fn git_as(dir: &Path, args: &[&str], login: Vec<(&'static str, String)>) -> Result<Vec<u8>, Failure> {
    run(dir, args, None, login)
}

/// The same with `input` on standard input.
pub fn git_with_input(dir: &Path, args: &[&str], input: &[u8]) -> Result<Vec<u8>, Failure> {
    run(dir, args, Some(input), Vec::new())
}

fn run(
    dir: &Path,
    args: &[&str],
    input: Option<&[u8]>,
    further: Vec<(&'static str, String)>,
) -> Result<Vec<u8>, Failure> {
    let cannot = |error: std::io::Error| {
        let failure = Failure::new(format!("cannot run git: {error}"));
        match error.kind() {
            std::io::ErrorKind::NotFound => {
                failure.hint("install git, version 2.31 or newer, and put it in PATH")
            }
            _ => failure,
        }
    };
    let mut child = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=20")
        .env("LC_ALL", "C")
        .envs(further)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // When git goes away early, its exit status says more than the broken pipe.
        let _ = stdin.write_all(input);
    }
    let done = child.wait_with_output().map_err(cannot)?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    let stderr = String::from_utf8_lossy(&done.stderr);
    let line = stderr
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it printed nothing");
    let what = args
        .iter()
        .find(|arg| !arg.starts_with('-'))
        .copied()
        .unwrap_or_default();
    Err(Failure::new(format!(
        "`git {what}` in `{}` failed: {line}",
        dir.display()
    )))
}

/// The one line that git printed.
pub fn line(dir: &Path, args: &[&str]) -> Result<String, Failure> {
    Ok(String::from_utf8_lossy(&git(dir, args)?).trim_end().to_owned())
}
