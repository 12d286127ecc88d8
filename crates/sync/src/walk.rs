use std::collections::{BTreeMap, BTreeSet};

use corpus::Hash;
use gerrit::Object;

use crate::known::{Known, parents};

/// Finds the commits that are new: from where the refs are, along all parents, to what is known.
///
/// Ask for what it [wants](Walk::wants) and [give](Walk::take) it, until it wants no more.
#[derive(Debug)]
pub struct Walk<'a> {
    known: &'a Known,
    wanted: BTreeSet<Hash>,
    found: BTreeMap<Hash, Found>,
    /// All that was ever wanted.
    asked: BTreeSet<Hash>,
}

/// A commit that the log does not tell of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Under which it was asked for: a tag of a commit has a hash of its own.
    pub hash: Hash,
    pub object: Object,
    pub parents: Vec<Hash>,
}

impl<'a> Walk<'a> {
    pub fn new(known: &'a Known, from: impl IntoIterator<Item = Hash>) -> Walk<'a> {
        let wanted: BTreeSet<Hash> = from.into_iter().filter(|hash| !known.has(*hash)).collect();
        Walk {
            known,
            asked: wanted.clone(),
            wanted,
            found: BTreeMap::new(),
        }
    }

    /// What to read next; empty when all is there.
    pub fn wants(&mut self) -> Vec<Hash> {
        std::mem::take(&mut self.wanted).into_iter().collect()
    }

    /// `object`: `None` if there is none.
    pub fn take(&mut self, hash: Hash, object: Option<Object>) {
        let Some(object) = object else {
            return;
        };
        let parents = parents(&object.raw);
        for parent in &parents {
            if !self.known.has(*parent) && self.asked.insert(*parent) {
                self.wanted.insert(*parent);
            }
        }
        self.found.insert(
            hash,
            Found {
                hash,
                object,
                parents,
            },
        );
    }

    /// The new commits, each after its parents; none of which anything before it is missing.
    pub fn finish(mut self) -> Vec<Found> {
        let mut order = Vec::with_capacity(self.found.len());
        // By hand and not by recursion: histories are long.
        let mut done: BTreeMap<Hash, bool> = BTreeMap::new();
        for start in self.found.keys() {
            let mut stack = vec![*start];
            while let Some(hash) = stack.last().copied() {
                if done.contains_key(&hash) {
                    stack.pop();
                    continue;
                }
                let found = &self.found[&hash];
                let before = || {
                    found
                        .parents
                        .iter()
                        .filter(|parent| self.found.contains_key(*parent))
                };
                let next: Vec<Hash> = before()
                    .filter(|parent| !done.contains_key(*parent))
                    .copied()
                    .collect();
                if next.is_empty() {
                    let whole = found
                        .parents
                        .iter()
                        .all(|parent| self.known.has(*parent) || done.get(parent).copied().unwrap_or(false));
                    done.insert(hash, whole);
                    if whole {
                        order.push(hash);
                    }
                    stack.pop();
                } else {
                    stack.extend(next);
                }
            }
        }
        let found = &mut self.found;
        order.into_iter().filter_map(|hash| found.remove(&hash)).collect()
    }
}

#[cfg(test)]
mod tests {
    use maintpb::borrowed::{GitCommit, Text};
    use proptest::prelude::*;

    use super::*;

    /// Hashes are in no order.
    fn name(n: usize) -> String {
        format!("{:08x}{n:032x}", n.wrapping_mul(2_654_435_761) % (1 << 32))
    }

    fn hash(n: usize) -> Hash {
        Hash::parse(name(n).as_bytes()).unwrap()
    }

    fn raw(parents: &BTreeSet<usize>) -> Vec<u8> {
        let parents: String = parents.iter().map(|n| format!("parent {}\n", name(*n))).collect();
        format!("tree {}\n{parents}\nparent {}\n", name(0), name(999)).into_bytes()
    }

    proptest! {
        #[test]
        fn each_new_commit_comes_once_and_after_its_parents(
            // Of each commit its parents, all of them before it; and whether it is known, or missing.
            history in prop::collection::vec((prop::collection::btree_set(0_usize..40, 0..3), 0..8_u8), 1..40),
            from in prop::collection::btree_set(0_usize..40, 1..4),
        ) {
            let history: Vec<(BTreeSet<usize>, u8)> = history
                .into_iter()
                .enumerate()
                .map(|(n, (parents, state))| (parents.into_iter().filter(|parent| *parent < n).collect(), state))
                .collect();
            // What is known is known with all before it, as a log of ours has it.
            let mut known_set = BTreeSet::new();
            let mut known = Known::default();
            for (n, (parents, state)) in history.iter().enumerate() {
                if *state < 3 && parents.is_subset(&known_set) {
                    known_set.insert(n);
                    let (name, raw) = (name(n), raw(parents));
                    known.learn(&GitCommit { sha1: Text(name.as_bytes()), raw: &raw, ..GitCommit::default() });
                }
            }
            let missing = |n: usize| !known_set.contains(&n) && history[n].1 == 7;
            let from: Vec<usize> = from.into_iter().filter(|n| *n < history.len()).collect();
            let mut walk = Walk::new(&known, from.iter().map(|n| hash(*n)));
            let mut asked = BTreeSet::new();
            loop {
                let wants = walk.wants();
                if wants.is_empty() {
                    break;
                }
                for want in wants {
                    prop_assert!(asked.insert(want), "{want} is asked for twice");
                    let n = (0..history.len()).find(|n| hash(*n) == want).unwrap();
                    let object = Object { hash: name(n), raw: raw(&history[n].0) };
                    walk.take(want, (!missing(n)).then_some(object));
                }
            }
            let found: Vec<usize> = walk
                .finish()
                .iter()
                .map(|found| (0..history.len()).find(|n| hash(*n) == found.hash).unwrap())
                .collect();
            let mut there = known_set.clone();
            for n in &found {
                prop_assert!(history[*n].0.is_subset(&there), "{n} comes before its parents");
                prop_assert!(there.insert(*n), "{n} comes twice");
            }
            // And all that can be had are there.
            let mut whole = known_set.clone();
            let mut reached: BTreeSet<usize> = from.into_iter().collect();
            for n in (0..history.len()).rev() {
                if reached.contains(&n) && !whole.contains(&n) && !missing(n) {
                    reached.extend(&history[n].0);
                }
            }
            for (n, (parents, _)) in history.iter().enumerate() {
                if reached.contains(&n) && !missing(n) && parents.is_subset(&whole) {
                    whole.insert(n);
                }
            }
            prop_assert_eq!(there, whole);
        }
    }

    #[test]
    fn a_long_history_needs_no_deep_stack() {
        let known = Known::default();
        let mut walk = Walk::new(&known, [hash(30_000)]);
        for n in (0..=30_000).rev() {
            assert_eq!(walk.wants(), [hash(n)]);
            let parents = n.checked_sub(1).into_iter().collect();
            walk.take(
                hash(n),
                Some(Object {
                    hash: name(n),
                    raw: raw(&parents),
                }),
            );
        }
        assert_eq!(walk.finish().len(), 30_001);
    }
}
