use std::collections::BTreeSet;

use corpus::Hash;
use maintpb::borrowed::GitCommit;

/// The commits that the log tells of, for one project or tree.
#[derive(Debug, Clone, Default)]
pub struct Known {
    commits: BTreeSet<Hash>,
    /// Parents of known commits that are not known themselves: a log of the original has some.
    needed: BTreeSet<Hash>,
}

impl Known {
    pub fn has(&self, commit: Hash) -> bool {
        self.commits.contains(&commit)
    }

    pub fn needed(&self) -> impl Iterator<Item = Hash> {
        self.needed.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.commits.len()
    }

    pub fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    pub(crate) fn learn(&mut self, commit: &GitCommit<'_>) {
        let Some(hash) = Hash::parse(commit.sha1.0) else {
            return;
        };
        self.commits.insert(hash);
        self.needed.remove(&hash);
        for parent in parents(commit.raw) {
            if !self.commits.contains(&parent) {
                self.needed.insert(parent);
            }
        }
    }
}

/// The parents that the header of a commit names.
pub(crate) fn parents(raw: &[u8]) -> Vec<Hash> {
    raw.split(|b| *b == b'\n')
        .take_while(|line| !line.is_empty())
        .filter_map(|line| Hash::parse(line.strip_prefix(b"parent ")?))
        .collect()
}
