use ids::Timestamp;
use maintpb::Malformed;
use maintpb::borrowed::{self, Mutation, View};
use memchr::memmem;

use crate::commit::parse;
use crate::github::time;

/// When a mutation was written to the log, as far as it tells: not earlier than this. `None`: it does not.
///
/// A mutation may say it itself. Else it was after GitHub's clock when it answered and after what it says
/// that changed, after Gerrit made a step of a change, and after a commit of a tree without Gerrit was made.
/// What people's own clocks say of the commits that they offer counts for nothing.
pub fn seen_at(payload: &[u8]) -> Result<Option<Timestamp>, Malformed> {
    let mutation = Mutation::decode(payload)?;
    let mut seen = time(&mutation.observed_at);
    if let Some(issue) = &mutation.github_issue {
        let statuses = [&issue.comment_status, &issue.event_status, &issue.review_status];
        let dates = statuses
            .into_iter()
            .flatten()
            .map(|status| time(&status.server_date));
        seen = dates.fold(seen.max(time(&issue.updated)), Option::max);
    }
    let of_tree = mutation.git.as_ref().and_then(|git| git.commit.as_ref());
    let of_gerrit = mutation.gerrit.iter().flat_map(|gerrit| &gerrit.commits);
    let commits = of_gerrit.filter(|commit| is_step(commit)).chain(of_tree);
    Ok(commits.map(committed).fold(seen, Option::max))
}

/// Whether it is of a change's history.
fn is_step(commit: &borrowed::GitCommit<'_>) -> bool {
    memmem::rfind(commit.raw, b"\n\n").is_some_and(|at| {
        let footers = &commit.raw[at + 1..];
        memmem::find(footers, b"\nPatch-set: ").is_some()
    })
}

fn committed(commit: &borrowed::GitCommit<'_>) -> Option<Timestamp> {
    let committer = parse(commit.raw).ok()?.committer?;
    Some(Timestamp(committer.time.saturating_mul(1_000_000)))
}
