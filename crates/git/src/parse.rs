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

/// The format that [`commits`] reads: each field ends with NUL, which none of them can hold.
pub(crate) const FORMAT: &str = "--format=tformat:%H%x00%T%x00%P%x00%an%x00%ae%x00%at%x00%ct%x00%B%x00";

const FIELDS: usize = 8;

/// Parses what `git log` prints by [`FORMAT`]; what cannot be a commit is an error that quotes it.
pub(crate) fn commits(bytes: &[u8]) -> Result<Vec<Commit>, String> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let mut fields: Vec<&[u8]> = bytes.split(|b| *b == 0).collect();
    // Behind the last NUL is the line end after the last commit.
    let rest = fields.pop().unwrap_or_default();
    if !rest.trim_ascii().is_empty() || !fields.len().is_multiple_of(FIELDS) {
        return Err(text(&rest[..rest.len().min(80)]));
    }
    let read = |record: &[&[u8]]| {
        let mut record: Vec<String> = record.iter().map(|field| text(field)).collect();
        // The line end after the commit before.
        record[0] = record[0].trim_start_matches('\n').to_owned();
        commit(&record).ok_or_else(|| record[0].clone())
    };
    fields.chunks(FIELDS).map(read).collect()
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
        bytes.extend(b"caf\xe9 title\n\nbody\n\0\n");
        bytes.extend(format!("{hash}\0{hash}\0{hash}\0\x1eA\0\x1ea@b\01\02\0\x1e odd\0\n").into_bytes());
        let read = commits(&bytes).expect("a commit");
        assert_eq!(read.len(), 2);
        // Control bytes are text like any other.
        assert_eq!(
            (read[1].author_email.as_str(), read[1].title.as_str()),
            ("\u{1e}a@b", "\u{1e} odd")
        );
        assert_eq!(read[0].title, "caf\u{fffd} title");
        assert_eq!(read[0].author_time, Timestamp(0));
        assert_eq!(read[0].commit_time.as_secs(), 253_402_300_799);
        assert!(commits(b"nonsense\0").is_err());
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
