use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corpus::Hash;
use gerrit::refs::{Kind, Ref, kind};
use maintpb::borrowed::GerritMutation;

use crate::known::Known;

/// Refs of one mutation. Source: golang/build `maintner/gerrit.go`.
const BATCH: usize = 250;

/// More than this part of the refs is not taken for deleted on the word of one listing: a server that
/// lost its credentials or its disk lists little, too.
const DOUBT: usize = 10;

/// When a listing that is doubted is asked for again.
const DOUBT_PAUSE: Duration = Duration::from_secs(60);

/// What the log knows of a project.
#[derive(Debug, Clone)]
pub struct Project {
    name: String,
    pub(crate) known: Known,
    /// By name, those of changes too.
    refs: BTreeMap<String, Hash>,
    /// Refs that a listing lacked, too many to believe it, and when that was.
    doubted: Option<(Duration, BTreeSet<String>)>,
}

/// A ref that is new or elsewhere than the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub name: String,
    pub hash: Hash,
}

/// What there is to do.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// First of all; `None`: nothing is gone.
    pub deleted: Option<maintpb::GerritMutation>,
    /// Each is fetched, its new commits are written, then its refs.
    pub batches: Vec<Vec<Moved>>,
    /// Refs that seem to be gone, and are not believed to be; ask again after a minute.
    pub doubted: usize,
}

impl Project {
    /// `name`: `host/project`, as the log has it.
    pub fn new(name: &str) -> Project {
        Project {
            name: name.to_owned(),
            known: Known::default(),
            refs: BTreeMap::new(),
            doubted: None,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Takes in a mutation of the log; those of other projects change nothing.
    pub fn apply(&mut self, told: &GerritMutation<'_>) {
        if told.project.0 != self.name.as_bytes() {
            return;
        }
        told.commits.iter().for_each(|commit| self.known.learn(commit));
        for name in told.deleted_refs.iter().chain(&told.deleted_change_refs) {
            self.refs.remove(&*name.lossy());
        }
        for told in &told.refs {
            // To a commit that is not known a reader pays no heed; so it is told again.
            if let Some(hash) = Hash::parse(told.sha1.0).filter(|hash| self.known.has(*hash)) {
                self.refs.insert(told.r#ref.lossy().into_owned(), hash);
            }
        }
    }

    /// Sets a listing of the server against what is known. `now`: by a clock that never jumps.
    ///
    /// What vanishes is deleted as far as we may see. A change that becomes private vanishes for those
    /// who may not see it, and should no longer be shown as open; if it comes back, it is there again.
    pub fn compare(&mut self, now: Duration, listing: &[Ref<'_>]) -> Plan {
        let listed = listing.iter().filter(|found| kind(found.name) != Kind::Internal);
        let listed: BTreeMap<&str, Hash> = listed
            .filter_map(|found| Some((found.name, Hash::parse(found.hash.as_bytes())?)))
            .collect();
        let mut gone = self.gone(&listed, |_| true);
        let mut doubted = 0;
        if gone.len() * DOUBT > self.refs.len() {
            let since = match self.doubted.take() {
                Some((since, before)) if now >= since + DOUBT_PAUSE => {
                    gone.retain(|name| before.contains(name));
                    None
                }
                Some((since, _)) => Some(since),
                None => Some(now),
            };
            if let Some(since) = since {
                doubted = gone.len();
                self.doubted = Some((since, std::mem::take(&mut gone)));
            }
        } else {
            self.doubted = None;
        }
        Plan {
            doubted,
            ..self.plan(listed, gone)
        }
    }

    /// As [`Project::compare`], with what somebody has fetched: branches, tags and `HEAD` that are not
    /// among it are gone. Of other refs it says nothing.
    pub fn believe(&self, listing: &[Ref<'_>]) -> Plan {
        let listed: BTreeMap<&str, Hash> = listing
            .iter()
            .filter(|found| is_plain(found.name))
            .filter_map(|found| Some((found.name, Hash::parse(found.hash.as_bytes())?)))
            .collect();
        let gone = self.gone(&listed, is_plain);
        self.plan(listed, gone)
    }

    fn gone(&self, listed: &BTreeMap<&str, Hash>, ours: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let gone = self.refs.keys().filter(|name| !listed.contains_key(&name[..]));
        gone.filter(|name| ours(name)).cloned().collect()
    }

    fn plan(&self, listed: BTreeMap<&str, Hash>, gone: BTreeSet<String>) -> Plan {
        let mut moved: Vec<Moved> = listed
            .into_iter()
            .filter(|(name, hash)| self.refs.get(*name) != Some(hash))
            .map(|(name, hash)| Moved {
                name: name.to_owned(),
                hash,
            })
            .collect();
        moved.sort_by_key(|moved| order(&moved.name));
        Plan {
            deleted: self.deleted(gone),
            batches: moved.chunks(BATCH).map(<[Moved]>::to_vec).collect(),
            doubted: 0,
        }
    }

    fn deleted(&self, gone: BTreeSet<String>) -> Option<maintpb::GerritMutation> {
        if gone.is_empty() {
            return None;
        }
        let (others, changes) = gone.into_iter().partition(|name| kind(name) == Kind::Other);
        Some(maintpb::GerritMutation {
            project: self.name.clone(),
            deleted_refs: others,
            deleted_change_refs: changes,
            ..maintpb::GerritMutation::default()
        })
    }
}

/// A branch, a tag or `HEAD`.
pub(crate) fn is_plain(name: &str) -> bool {
    name == "HEAD" || name.starts_with("refs/heads/") || name.starts_with("refs/tags/")
}

/// Change after change, so that each is soon whole; its history first, so that votes come before what
/// they are about; patch sets by number, since the original takes the last for the newest. Then the
/// rest: a branch moves when the change that moved it is told.
fn order(name: &str) -> (u32, u32) {
    match kind(name) {
        Kind::Meta { change } => (change, 0),
        Kind::PatchSet { change, number } => (change, number),
        Kind::Other | Kind::Internal => (u32::MAX, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\nroot\n";

    /// `1` is the hash of 40 ones.
    fn hash(digit: &str) -> String {
        digit.repeat(40)
    }

    fn listing(refs: &[(String, String)]) -> Vec<Ref<'_>> {
        refs.iter().map(|(name, hash)| Ref { name, hash }).collect()
    }

    /// `NAME DIGIT`, …
    fn refs(lines: &[&str]) -> Vec<(String, String)> {
        let pair = |line: &&str| {
            let (name, digit) = line.split_once(' ').unwrap();
            (name.to_owned(), hash(digit))
        };
        lines.iter().map(pair).collect()
    }

    /// A project whose log tells of these refs and their commits.
    fn project(lines: &[&str]) -> Project {
        let mut project = Project::new("h/p");
        tell(&mut project, lines);
        project
    }

    fn tell(project: &mut Project, lines: &[&str]) {
        let refs = refs(lines);
        let mut told = GerritMutation {
            project: maintpb::borrowed::Text(b"h/p"),
            ..GerritMutation::default()
        };
        for (name, hash) in &refs {
            told.commits.push(maintpb::borrowed::GitCommit {
                sha1: maintpb::borrowed::Text(hash.as_bytes()),
                raw: ROOT.as_bytes(),
                ..maintpb::borrowed::GitCommit::default()
            });
            told.refs.push(maintpb::borrowed::GitRef {
                r#ref: maintpb::borrowed::Text(name.as_bytes()),
                sha1: maintpb::borrowed::Text(hash.as_bytes()),
                ..maintpb::borrowed::GitRef::default()
            });
        }
        project.apply(&told);
    }

    #[test]
    fn what_was_fetched_is_believed_and_says_nothing_of_changes() {
        let project = project(&[
            "HEAD 1",
            "refs/heads/a 1",
            "refs/tags/t 1",
            "refs/changes/01/1/meta 1",
        ]);
        let plan = project.believe(&listing(&refs(&[
            "HEAD 1",
            "refs/heads/a 2",
            "refs/changes/02/2/meta 1",
        ])));
        assert_eq!(names(&plan), [["refs/heads/a"]]);
        assert_eq!(plan.deleted.unwrap().deleted_refs, ["refs/tags/t"]);
        assert_eq!(plan.doubted, 0);
    }

    fn names(plan: &Plan) -> Vec<Vec<&str>> {
        let batch = |batch: &'_ Vec<Moved>| batch.iter().map(|moved| moved.name.len()).sum::<usize>();
        assert!(
            plan.batches.iter().all(|moved| batch(moved) > 0),
            "an empty batch"
        );
        plan.batches
            .iter()
            .map(|batch| batch.iter().map(|moved| &moved.name[..]).collect())
            .collect()
    }

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn what_is_known_is_not_told_again() {
        let mut project = project(&["HEAD 1", "refs/heads/a 1"]);
        let now = refs(&[
            "HEAD 1",
            "refs/heads/a 2",
            "refs/heads/b 1",
            "refs/meta/config 3",
            "refs/changes/01/1/robot-comments 4",
        ]);
        let plan = project.compare(NOW, &listing(&now));
        assert_eq!(names(&plan), [["refs/heads/a", "refs/heads/b"]]);
        assert_eq!((plan.deleted, plan.doubted), (None, 0));
        tell(&mut project, &["refs/heads/a 2", "refs/heads/b 1"]);
        assert_eq!(project.compare(NOW, &listing(&now)), Plan::default());
    }

    #[test]
    fn a_ref_whose_commit_the_log_lacks_is_told_again() {
        let mut project = Project::new("h/p");
        let hash = hash("1");
        let told = GerritMutation {
            project: maintpb::borrowed::Text(b"h/p"),
            refs: vec![maintpb::borrowed::GitRef {
                r#ref: maintpb::borrowed::Text(b"HEAD"),
                sha1: maintpb::borrowed::Text(hash.as_bytes()),
                ..maintpb::borrowed::GitRef::default()
            }],
            ..GerritMutation::default()
        };
        project.apply(&told);
        let plan = project.compare(NOW, &listing(&refs(&["HEAD 1"])));
        assert_eq!(names(&plan), [["HEAD"]]);
    }

    #[test]
    fn mutations_of_other_projects_are_not_ours() {
        let mut ours = project(&["HEAD 1"]);
        ours.name = "h/q".to_owned();
        tell(&mut ours, &["HEAD 2"]);
        let plan = ours.compare(NOW, &listing(&refs(&["HEAD 1"])));
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn changes_come_whole_and_their_patch_sets_by_number() {
        let now = refs(&[
            "HEAD 1",
            "refs/changes/02/2/1 1",
            "refs/changes/02/2/10 1",
            "refs/changes/02/2/9 1",
            "refs/changes/02/2/meta 1",
            "refs/changes/10/10/meta 1",
            "refs/changes/03/3/meta 1",
        ]);
        let plan = Project::new("h/p").compare(NOW, &listing(&now));
        assert_eq!(
            names(&plan),
            [[
                "refs/changes/02/2/meta",
                "refs/changes/02/2/1",
                "refs/changes/02/2/9",
                "refs/changes/02/2/10",
                "refs/changes/03/3/meta",
                "refs/changes/10/10/meta",
                "HEAD"
            ]]
        );
    }

    #[test]
    fn a_mutation_holds_at_most_250_refs() {
        let lines: Vec<String> = (0..501).map(|n| format!("refs/heads/b{n} 1")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let plan = Project::new("h/p").compare(NOW, &listing(&refs(&lines)));
        let sizes: Vec<usize> = plan.batches.iter().map(Vec::len).collect();
        assert_eq!(sizes, [250, 250, 1]);
    }

    /// Ten branches, of which the listing has these.
    fn ten(has: std::ops::Range<usize>) -> Vec<(String, String)> {
        has.map(|n| (format!("refs/heads/b{n}"), hash("1"))).collect()
    }

    fn project_of_ten() -> Project {
        let lines: Vec<String> = (0..10).map(|n| format!("refs/heads/b{n} 1")).collect();
        project(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn check(
        project: &mut Project,
        now: Duration,
        has: std::ops::Range<usize>,
        deleted: usize,
        doubted: usize,
    ) {
        let plan = project.compare(now, &listing(&ten(has)));
        let found = plan.deleted.map_or(0, |told| told.deleted_refs.len());
        assert_eq!((found, plan.doubted), (deleted, doubted));
    }

    #[test]
    fn a_tenth_may_go_at_once() {
        check(&mut project_of_ten(), NOW, 0..9, 1, 0);
    }

    #[test]
    fn more_go_when_a_minute_later_they_are_still_gone() {
        let mut project = project_of_ten();
        let second = Duration::from_secs(1);
        check(&mut project, NOW, 0..0, 0, 10);
        check(&mut project, NOW + 59 * second, 0..2, 0, 8);
        check(&mut project, NOW + 60 * second, 0..0, 8, 0);
    }

    #[test]
    fn a_listing_that_was_wrong_deletes_nothing() {
        let mut project = project_of_ten();
        let hour = Duration::from_secs(3600);
        check(&mut project, NOW, 0..0, 0, 10);
        check(&mut project, NOW + hour, 0..10, 0, 0);
        check(&mut project, NOW + 2 * hour, 0..0, 0, 10);
    }

    #[test]
    fn refs_of_changes_are_deleted_in_a_field_of_their_own() {
        let mut lines = vec!["refs/changes/01/1/1 1".to_owned(), "refs/heads/gone 1".to_owned()];
        lines.extend((0..20).map(|n| format!("refs/heads/b{n} 1")));
        let mut project = project(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let plan = project.compare(
            NOW,
            &listing(
                &ten(0..10)
                    .into_iter()
                    .chain((10..20).map(|n| (format!("refs/heads/b{n}"), hash("1"))))
                    .collect::<Vec<_>>(),
            ),
        );
        let deleted = plan.deleted.unwrap();
        assert_eq!(
            (
                &deleted.project[..],
                deleted.deleted_refs,
                deleted.deleted_change_refs
            ),
            (
                "h/p",
                vec!["refs/heads/gone".to_owned()],
                vec!["refs/changes/01/1/1".to_owned()]
            )
        );
    }
}
