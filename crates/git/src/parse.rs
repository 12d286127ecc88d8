use ids::{GitHash, Timestamp};

/// A commit as the farm stores it. Bytes that are no UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub hash: GitHash,
    pub tree: GitHash,
    /// First parent first.
    pub parents: Vec<GitHash>,
    pub author_name: String,
    pub author_email: String,
    pub author_time: Timestamp,
    pub commit_time: Timestamp,
    /// First line of the message.
    pub title: String,
    pub message: String,
}

/// The format that [`commits`] reads: fields end with NUL, commits with a record separator.
pub(crate) const FORMAT: &str = "--format=tformat:%H%x00%T%x00%P%x00%an%x00%ae%x00%at%x00%ct%x00%B%x00%x1e";

/// Parses what `git log` prints by [`FORMAT`]; what cannot be a commit is an error that quotes it.
pub(crate) fn commits(bytes: &[u8]) -> Result<Vec<Commit>, String> {
    let mut commits = Vec::new();
    // The separator is looked for behind a NUL, which no field can hold.
    let mut rest = bytes;
    while let Some(end) = rest.windows(2).position(|pair| pair == [0, 0x1e]) {
        let record = &rest[..end];
        rest = &rest[end + 2..];
        let record = record.strip_prefix(b"\n").unwrap_or(record);
        let fields: Vec<String> = record
            .split(|b| *b == 0)
            .map(|field| String::from_utf8_lossy(field).into_owned())
            .collect();
        commits.push(commit(&fields).ok_or_else(|| fields.first().cloned().unwrap_or_default())?);
    }
    Ok(commits)
}

fn commit(fields: &[String]) -> Option<Commit> {
    let [hash, tree, parents, name, email, author, committed, message] = fields else {
        return None;
    };
    let time = |text: &str| Timestamp::from_secs(text.parse::<i64>().unwrap_or(0).clamp(0, 253_402_300_799));
    Some(Commit {
        hash: hash.parse().ok()?,
        tree: tree.parse().ok()?,
        parents: parents
            .split_whitespace()
            .map(|hash| hash.parse().ok())
            .collect::<Option<_>>()?,
        author_name: name.clone(),
        author_email: email.clone(),
        author_time: time(author),
        commit_time: time(committed),
        title: message.lines().next().unwrap_or_default().to_owned(),
        message: message.trim_end().to_owned(),
    })
}

/// Whether a revision from outside may be shown to git at all: a full hash, a ref name or a short
/// name, nothing that means an option, a range or a path to it.
/// Source: spec pubsubhelper-and-gitmirror B16.
pub fn is_safe_rev(rev: &str) -> bool {
    rev.len() <= 255
        && rev.starts_with(|c: char| c.is_ascii_alphanumeric())
        && rev
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._/+-".contains(c))
        && !rev.contains("..")
        && !rev.contains("//")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_commits_are_read_and_not_refused() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        let mut bytes = format!("{hash}\0{hash}\0\0A\0a@b\0-5\099999999999999\0").into_bytes();
        bytes.extend(b"caf\xe9 \x1e title\n\nbody\n\0\x1e\n");
        let read = commits(&bytes).expect("a commit");
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].title, "caf\u{fffd} \u{1e} title");
        assert_eq!(read[0].author_time, Timestamp(0));
        assert_eq!(read[0].commit_time.as_secs(), 253_402_300_799);
        assert!(commits(b"nonsense\0\x1e").is_err());
    }

    #[test]
    fn revisions_that_mean_more_than_a_name_are_unsafe() {
        for good in ["main", "release/1.2", "refs/heads/x", "v1.0", "0123456"] {
            assert!(is_safe_rev(good), "{good}");
        }
        for bad in [
            "",
            "--upload-pack=x",
            "a..b",
            "a b",
            "HEAD~1",
            "@{1}",
            "a:b",
            "/etc",
            "a//b",
            "é",
        ] {
            assert!(!is_safe_rev(bad), "{bad}");
        }
    }
}
