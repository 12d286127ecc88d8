//! Containers whose clones share what neither has changed since.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};

const PAGE: usize = 1024;
const SHARDS: usize = 64;
const KEYS: u32 = 128;

/// A list that grows at its end.
#[derive(Clone)]
pub(crate) struct Pages<T>(Vec<Arc<Vec<T>>>);

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages(Vec::new())
    }
}

impl<T: Clone> Pages<T> {
    pub fn len(&self) -> u32 {
        let last = self.0.last().map_or(0, |page| page.len());
        u32::try_from(self.0.len().saturating_sub(1) * PAGE + last).expect("fewer than 2^32")
    }

    pub fn push(&mut self, value: T) -> u32 {
        let at = self.len();
        if self.0.last().is_none_or(|page| page.len() == PAGE) {
            self.0.push(Arc::new(Vec::with_capacity(PAGE)));
        }
        Arc::make_mut(self.0.last_mut().expect("pushed above")).push(value);
        at
    }

    pub fn get(&self, at: u32) -> &T {
        &self.0[at as usize / PAGE][at as usize % PAGE]
    }

    pub fn get_mut(&mut self, at: u32) -> &mut T {
        &mut Arc::make_mut(&mut self.0[at as usize / PAGE])[at as usize % PAGE]
    }
}

/// A map that is only asked, never walked.
#[derive(Clone)]
pub(crate) struct Shards<K, V> {
    shards: Vec<Arc<HashMap<K, V, RandomState>>>,
    hasher: RandomState,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Shards<K, V> {
        let hasher = RandomState::default();
        let shard = || Arc::new(HashMap::with_hasher(hasher.clone()));
        let shards = (0..SHARDS).map(|_| shard()).collect();
        Shards { shards, hasher }
    }
}

impl<K: Hash + Eq + Clone, V: Clone + PartialEq> Shards<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        self.shards[shard(self.hasher.hash_one(key))].get(key)
    }

    pub fn set(&mut self, key: K, value: V) {
        let shard = &mut self.shards[shard(self.hasher.hash_one(&key))];
        if shard.get(&key) != Some(&value) {
            Arc::make_mut(shard).insert(key, value);
        }
    }
}

/// Finds rows of [`Pages`] by something in them.
#[derive(Clone)]
pub(crate) struct Index {
    shards: Vec<Arc<HashTable<u32>>>,
}

impl Default for Index {
    fn default() -> Index {
        Index {
            shards: vec![Arc::default(); SHARDS],
        }
    }
}

impl Index {
    pub fn find(&self, hash: u64, is: impl FnMut(&u32) -> bool) -> Option<u32> {
        self.shards[shard(hash)].find(hash, is).copied()
    }

    /// `row` must not be in it. `hash_of` gives the hash of any row that is.
    pub fn insert(&mut self, hash: u64, row: u32, hash_of: impl Fn(&u32) -> u64) {
        Arc::make_mut(&mut self.shards[shard(hash)]).insert_unique(hash, row, hash_of);
    }
}

/// The tables use the low and the top bits themselves.
fn shard(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

/// An ordered map of numbers that have gaps, but mostly small ones.
#[derive(Clone)]
pub(crate) struct Numbered<V>(BTreeMap<u32, Arc<Vec<Option<V>>>>);

impl<V> Default for Numbered<V> {
    fn default() -> Numbered<V> {
        Numbered(BTreeMap::new())
    }
}

impl<V: Clone> Numbered<V> {
    pub fn get(&self, key: u32) -> Option<&V> {
        self.0.get(&(key / KEYS))?[(key % KEYS) as usize].as_ref()
    }

    pub fn get_or_insert_with(&mut self, key: u32, make: impl FnOnce() -> V) -> &mut V {
        let page = self.0.entry(key / KEYS);
        let page = page.or_insert_with(|| Arc::new(vec![None; KEYS as usize]));
        Arc::make_mut(page)[(key % KEYS) as usize].get_or_insert_with(make)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.values().flat_map(|page| page.iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_clone_never_changes(before in prop::collection::vec(0..300_u32, 0..3000), after in prop::collection::vec(0..300_u32, 0..50)) {
            let (mut pages, mut shards, mut numbered) = (Pages::default(), Shards::default(), Numbered::default());
            let mut model = BTreeMap::new();
            for (at, key) in (0..).zip(&before) {
                prop_assert_eq!(pages.push(*key), at);
                shards.set(*key, at);
                *numbered.get_or_insert_with(*key * 77, || 0) = at;
                model.insert(*key, at);
            }
            let (old_pages, old_shards, old_numbered) = (pages.clone(), shards.clone(), numbered.clone());
            for key in &after {
                pages.push(*key);
                if let Some(at) = pages.len().checked_sub(20) {
                    *pages.get_mut(at) = 1000;
                }
                shards.set(*key, 1_000_000);
                *numbered.get_or_insert_with(*key * 77, || 0) = 1_000_000;
            }
            prop_assert_eq!(old_pages.len() as usize, before.len());
            prop_assert!((0..).map(|at| old_pages.get(at)).take(before.len()).eq(&before));
            prop_assert!(old_numbered.values().eq(model.values()));
            for key in 0..300 {
                prop_assert_eq!(old_shards.get(&key), model.get(&key));
                prop_assert_eq!(old_numbered.get(key * 77), model.get(&key));
                let changed = after.contains(&key).then_some(&1_000_000);
                prop_assert_eq!(shards.get(&key), changed.or(model.get(&key)));
                prop_assert_eq!(numbered.get(key * 77), changed.or(model.get(&key)));
            }
        }
    }
}
