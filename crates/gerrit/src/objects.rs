use std::path::Path;
use std::time::Duration;

use git::{Git, GitError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::process::{Child, ChildStdin, ChildStdout};

/// A commit of a larger size is nobody's. Source: the largest of golang/go is below 100 KiB.
const MAX_COMMIT: usize = 16 << 20;

/// Longest that git may take for one answer.
const LIMIT: Duration = Duration::from_secs(600);

/// A commit as git has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Of the commit, which is not what was asked for if that is a tag of it.
    pub hash: String,
    pub raw: Vec<u8>,
}

/// What a commit did to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// In git's quotes if there are odd bytes in it.
    pub file: String,
    /// `None`: the file is not text.
    pub lines: Option<(i64, i64)>,
}

/// What `diff-tree` prints back at once, after all that it was asked before.
const MARK: &str = "=asked";

/// Reads commits of a repository, many at a time, by two gits that stay.
#[derive(Debug)]
pub struct Objects {
    git: Git,
    contents: Talk,
    /// Started when it is first asked.
    stats: Option<Talk>,
}

/// A git that answers as long as it is asked.
#[derive(Debug)]
struct Talk {
    /// Ends with this.
    _child: Child,
    input: BufWriter<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Talk {
    fn start(git: &Git, args: &[&str]) -> Result<Talk, GitError> {
        let mut child = git
            .command(args)
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(GitError::NoGit)?;
        let input = BufWriter::new(child.stdin.take().expect("stdin is piped"));
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Ok(Talk {
            _child: child,
            input,
            output,
        })
    }
}

impl Objects {
    pub fn open(repository: &Path) -> Result<Objects, GitError> {
        let git = Git::new(repository);
        let contents = Talk::start(&git, &["cat-file", "--batch-command", "--buffer"])?;
        Ok(Objects {
            git,
            contents,
            stats: None,
        })
    }

    /// The commits that these hashes name, tags followed; `None` where there is none. Not cancel safe:
    /// after a call that was dropped or failed the reader is of no use.
    pub async fn commits(&mut self, hashes: &[&str]) -> Result<Vec<Option<Object>>, GitError> {
        let Objects { git, contents, .. } = self;
        let Talk { input, output, .. } = contents;
        let broken = |source| GitError::Io {
            what: "read commits of",
            path: git.dir().to_owned(),
            source,
        };
        let ask = async {
            for hash in hashes {
                input
                    .write_all(format!("contents {hash}^{{commit}}\n").as_bytes())
                    .await?;
            }
            input.write_all(b"flush\n").await?;
            input.flush().await
        };
        let answer = async {
            let mut found = Vec::with_capacity(hashes.len());
            for _ in hashes {
                found.push(read_object(output).await?);
            }
            Ok(found)
        };
        // Git waits for us to read while it answers.
        let both = async { tokio::try_join!(ask, answer) };
        match tokio::time::timeout(LIMIT, both).await {
            Ok(done) => done.map(|((), found)| found).map_err(broken),
            Err(_) => Err(late("cat-file")),
        }
    }

    /// What each of these commits did to files, in their order; nothing for commits with no parent or
    /// more than one. Not cancel safe, as [`Objects::commits`].
    pub async fn stats(&mut self, commits: &[&str]) -> Result<Vec<Vec<Stat>>, GitError> {
        let failed = |said: String| GitError::Failed {
            command: "diff-tree".to_owned(),
            said,
        };
        // Names in quotes are what the original stores.
        let args = ["-c", "core.quotePath=true", "diff-tree", "--stdin", "--numstat"];
        let mut talk = match self.stats.take() {
            Some(talk) => talk,
            None => Talk::start(&self.git, &args)?,
        };
        let Talk { input, output, .. } = &mut talk;
        let ask = async {
            for commit in commits {
                input.write_all(format!("{commit}\n").as_bytes()).await?;
            }
            input.write_all(format!("{MARK}\n").as_bytes()).await?;
            input.flush().await
        };
        let answer = async {
            let mut printed = Vec::new();
            loop {
                let before = printed.len();
                if output.read_until(b'\n', &mut printed).await? == 0 {
                    return Err(std::io::Error::other("it ended"));
                }
                if printed[before..].trim_ascii() == MARK.as_bytes() {
                    printed.truncate(before);
                    return Ok(printed);
                }
            }
        };
        let both = async { tokio::try_join!(ask, answer) };
        let ((), printed) = tokio::time::timeout(LIMIT, both)
            .await
            .map_err(|_| late("diff-tree"))?
            .map_err(|why| failed(why.to_string()))?;
        // After an error it is left behind, and the next question starts another.
        self.stats = Some(talk);
        stats(&printed, commits).map_err(failed)
    }
}

fn late(command: &str) -> GitError {
    GitError::GivenUp {
        command: command.to_owned(),
        why: format!("it took longer than {} s", LIMIT.as_secs()),
    }
}

async fn read_object(output: &mut BufReader<ChildStdout>) -> std::io::Result<Option<Object>> {
    let mut line = Vec::new();
    output.read_until(b'\n', &mut line).await?;
    let Some(head) = Head::parse(&line) else {
        let found = String::from_utf8_lossy(&line[..line.len().min(100)]).into_owned();
        return Err(std::io::Error::other(format!(
            "git printed `{}`",
            found.trim_end()
        )));
    };
    let Head::Commit { hash, size } = head else {
        return Ok(None);
    };
    let mut raw = vec![0; size + 1];
    output.read_exact(&mut raw).await?;
    raw.pop();
    Ok(Some(Object { hash, raw }))
}

/// What stands before an object that `cat-file` prints.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    Commit { hash: String, size: usize },
    Missing,
}

impl Head {
    fn parse(line: &[u8]) -> Option<Head> {
        let line = str::from_utf8(line).ok()?.strip_suffix('\n')?;
        if line.ends_with(" missing") || line.ends_with(" ambiguous") {
            return Some(Head::Missing);
        }
        let (hash, rest) = line.split_once(' ')?;
        let size = rest.strip_prefix("commit ")?.parse().ok()?;
        (size <= MAX_COMMIT).then(|| Head::Commit {
            hash: hash.to_owned(),
            size,
        })
    }
}

/// Reads what `diff-tree` prints: of each commit its hash, then its files; nothing of commits that did
/// nothing to files.
fn stats(printed: &[u8], commits: &[&str]) -> Result<Vec<Vec<Stat>>, String> {
    let text = str::from_utf8(printed).map_err(|_| "it printed what is no text".to_owned())?;
    let mut all = vec![Vec::new(); commits.len()];
    let mut at = None;
    for line in text.lines() {
        let odd = || format!("it printed `{}`", line.chars().take(100).collect::<String>());
        let Some((added, rest)) = line.split_once('\t') else {
            let from = at.map_or(0, |at| at + 1);
            let next = commits[from..].iter().position(|commit| *commit == line);
            at = Some(from + next.ok_or_else(odd)?);
            continue;
        };
        let (deleted, file) = rest.split_once('\t').ok_or_else(odd)?;
        let lines = match (added, deleted) {
            ("-", "-") => None,
            _ => Some(added.parse().ok().zip(deleted.parse().ok()).ok_or_else(odd)?),
        };
        let file = file.to_owned();
        all[at.ok_or_else(odd)?].push(Stat { file, lines });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_head_of_an_object_is_read_or_refused() {
        let check =
            |line: &str, expect: Option<Head>| assert_eq!(Head::parse(line.as_bytes()), expect, "{line}");
        let hash = "ab".to_owned();
        check("ab commit 12\n", Some(Head::Commit { hash, size: 12 }));
        check("ab^{commit} missing\n", Some(Head::Missing));
        check("ab commit 12", None);
        check("ab blob 12\n", None);
        check("ab commit -1\n", None);
        check("ab commit 99999999999\n", None);
        check("", None);
    }

    #[test]
    fn files_belong_to_the_commit_before_them() {
        let printed = b"b\n1\t2\tx\n-\t-\t\"d/\\303\\236.go\"\nc\n0\t9\ty\n";
        let stat = |file: &str, lines| Stat {
            file: file.to_owned(),
            lines,
        };
        let expect = vec![
            vec![],
            vec![stat("x", Some((1, 2))), stat("\"d/\\303\\236.go\"", None)],
            vec![stat("y", Some((0, 9)))],
        ];
        assert_eq!(stats(printed, &["a", "b", "c"]), Ok(expect));
        for odd in ["z\n", "1\t2\tx\n", "a\n1\t2\n", "a\nx\ty\tz\n", "b\na\n"] {
            assert!(stats(odd.as_bytes(), &["a", "b"]).is_err(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_git_prints_makes_it_panic(printed in "[ab0-9\t\n -]{0,80}") {
            let _ = stats(printed.as_bytes(), &["a", "b"]);
            let _ = Head::parse(printed.as_bytes());
        }
    }
}
