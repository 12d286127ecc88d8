//! What must be written so that the store knows the branches that a mirror has. Pure: level, not edge.

use std::collections::BTreeMap;

use ids::{BranchName, GitHash};
use store::read::BranchRow;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The branch is new, has moved, or is back.
    Record {
        branch: BranchName,
        head: GitHash,
        /// Its head as stored, with its depth, if it is.
        stored: Option<(GitHash, u64)>,
    },
    /// It is no more upstream.
    Gone { branch: BranchName },
}

/// Compares `heads`, all that the upstream has, with the `stored` branches of the repository. Branches
/// that are not `tracked` are not recorded; what is gone is gone, tracked or not. `first` is the branch
/// whose newcomers wait for least.
pub fn plan(
    heads: &BTreeMap<BranchName, GitHash>,
    stored: &[BranchRow],
    tracked: impl Fn(&BranchName) -> bool,
    first: Option<&BranchName>,
) -> Vec<Step> {
    let known: BTreeMap<&BranchName, &BranchRow> = stored.iter().map(|row| (&row.branch, row)).collect();
    let gone = stored
        .iter()
        .filter(|row| !row.gone && !heads.contains_key(&row.branch))
        .map(|row| Step::Gone {
            branch: row.branch.clone(),
        });
    let record = |(branch, head): (&BranchName, &GitHash)| {
        let row = known.get(branch);
        let same = row.is_some_and(|row| row.head == *head && !row.gone);
        (!same && tracked(branch)).then(|| Step::Record {
            branch: branch.clone(),
            head: head.clone(),
            stored: row.map(|row| (row.head.clone(), row.head_depth)),
        })
    };
    let (front, rest): (Vec<_>, Vec<_>) = heads.iter().partition(|(branch, _)| Some(*branch) == first);
    gone.chain(front.into_iter().chain(rest).filter_map(record))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ids::Timestamp;

    fn hash(digit: char) -> GitHash {
        digit.to_string().repeat(40).parse().expect("a hash")
    }

    /// `upstream`, `stored`: `main=1 side=2`, `old=3!` for a branch that is marked gone. Branches with an
    /// `x` are not tracked; `main` goes first.
    fn check(upstream: &str, stored: &str, wanted: &str) {
        let split = |text: &str| -> Vec<(BranchName, char, bool)> {
            let one = |word: &str| {
                let (name, rest) = word.split_once('=').expect("a pair");
                let digit = rest.chars().next().expect("a digit");
                (name.parse().expect("a branch"), digit, rest.ends_with('!'))
            };
            text.split_whitespace().map(one).collect()
        };
        let heads = split(upstream)
            .into_iter()
            .map(|(name, digit, _)| (name, hash(digit)))
            .collect();
        let row = |(branch, digit, gone)| BranchRow {
            repo: "widget".parse().expect("a name"),
            branch,
            head: hash(digit),
            head_depth: u64::from(digit.to_digit(10).expect("a digit")),
            build_from: 0,
            seen: Timestamp(0),
            gone,
        };
        let stored: Vec<BranchRow> = split(stored).into_iter().map(row).collect();
        let tracked = |branch: &BranchName| !branch.as_str().contains('x');
        let first = "main".parse().expect("a branch");
        let steps = plan(&heads, &stored, tracked, Some(&first));
        let told: Vec<String> = steps
            .iter()
            .map(|step| match step {
                Step::Gone { branch } => format!("-{branch}"),
                Step::Record { branch, head, stored } => {
                    let depth = stored
                        .as_ref()
                        .map_or("new".to_owned(), |(_, depth)| depth.to_string());
                    format!("{branch}={}({depth})", &head.as_str()[..1])
                }
            })
            .collect();
        assert_eq!(told.join(" "), wanted);
    }

    #[test]
    fn what_is_as_stored_needs_nothing() {
        check("main=1 side=2", "main=1 side=2 old=3!", "");
    }

    #[test]
    fn branches_that_are_new_or_moved_or_back_are_recorded_the_default_one_first() {
        check(
            "a=1 main=2 moved=3 old=4",
            "moved=2 old=4!",
            "main=2(new) a=1(new) moved=3(2) old=4(4)",
        );
    }

    #[test]
    fn stored_branches_that_upstream_lacks_are_gone_whatever_was_seen_before() {
        check("main=1", "main=1 side=2 axe=3", "-side -axe");
    }

    #[test]
    fn branches_that_are_not_tracked_are_not_recorded() {
        check("axe=1 main=2", "main=2 box=1", "-box");
    }
}
