//! Containers whose clones share what neither has changed since. Those with a base begin with what a
//! snapshot holds, read from its bytes where they are; what is new or changed lies over it.
//!
//! The base may be damaged: what it cannot give is then absent or empty, and nothing here panics.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::stored::{Stored, Take};

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
}

/// What stands in a snapshot as it does in memory.
pub(crate) trait Plain: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Clone {}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Clone> Plain for T {}

/// The rows that are in `bytes`, without what does not fill one.
pub(crate) fn rows<T: Plain>(bytes: &[u8]) -> &[T] {
    let whole = bytes.len() - bytes.len() % size_of::<T>();
    <[T]>::ref_from_bytes(&bytes[..whole]).unwrap_or_default()
}

/// [`Pages`] of plain rows, with a base.
#[derive(Clone)]
pub(crate) struct Rows<T> {
    base: Bytes,
    len: u32,
    /// `None`: as in the base.
    pages: Vec<Option<Arc<Vec<T>>>>,
}

impl<T> Default for Rows<T> {
    fn default() -> Rows<T> {
        Rows {
            base: Bytes::new(),
            len: 0,
            pages: Vec::new(),
        }
    }
}

impl<T: Plain> Rows<T> {
    pub fn over(base: Bytes) -> Rows<T> {
        let len = rows::<T>(&base).len();
        Rows {
            base,
            len: u32::try_from(len).unwrap_or(u32::MAX),
            pages: vec![None; len.div_ceil(PAGE)],
        }
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn push(&mut self, value: T) -> u32 {
        let at = self.len;
        if at as usize == self.pages.len() * PAGE {
            self.pages.push(Some(Arc::new(Vec::with_capacity(PAGE))));
        }
        self.page_mut(at as usize / PAGE).push(value);
        self.len += 1;
        at
    }

    /// `None`: there is none, which only a damaged base asks for.
    pub fn get(&self, at: u32) -> Option<&T> {
        match self.pages.get(at as usize / PAGE)? {
            Some(page) => page.get(at as usize % PAGE),
            None => rows(&self.base).get(at as usize),
        }
    }

    pub fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        match at < self.len {
            true => self.page_mut(at as usize / PAGE).get_mut(at as usize % PAGE),
            false => None,
        }
    }

    fn page_mut(&mut self, page: usize) -> &mut Vec<T> {
        let base = &self.base;
        let slot = self.pages[page].get_or_insert_with(|| {
            let rows = rows(base);
            let end = rows.len().min((page + 1) * PAGE);
            let mut copy = Vec::with_capacity(PAGE);
            copy.extend_from_slice(&rows[page * PAGE..end]);
            Arc::new(copy)
        });
        Arc::make_mut(slot)
    }
}

/// Short lists of plain things, each with a number; with a base.
#[derive(Clone)]
pub(crate) struct Lists<T> {
    base: BaseLists,
    added: Pages<Box<[T]>>,
}

/// Lists in the bytes of a snapshot: where each ends, as [`U32`], and all of their things.
#[derive(Clone, Default)]
pub(crate) struct BaseLists {
    pub ends: Bytes,
    pub things: Bytes,
}

impl BaseLists {
    pub fn len(&self) -> u32 {
        u32::try_from(rows::<U32>(&self.ends).len()).unwrap_or(u32::MAX)
    }

    /// Empty if there is none.
    pub fn get<T: Plain>(&self, at: u32) -> &[T] {
        let ends = rows::<U32>(&self.ends);
        let end = |at: u32| ends.get(at as usize).map(|end| end.get() as usize);
        let from = at.checked_sub(1).map_or(Some(0), end);
        let things = from.zip(end(at));
        things
            .and_then(|(from, to)| rows(&self.things).get(from..to))
            .unwrap_or_default()
    }
}

impl<T> Default for Lists<T> {
    fn default() -> Lists<T> {
        Lists {
            base: BaseLists::default(),
            added: Pages::default(),
        }
    }
}

impl<T: Plain> Lists<T> {
    pub fn over(base: BaseLists) -> Lists<T> {
        Lists {
            base,
            added: Pages::default(),
        }
    }

    pub fn len(&self) -> u32 {
        self.base.len() + self.added.len()
    }

    pub fn push(&mut self, list: Box<[T]>) -> u32 {
        self.base.len() + self.added.push(list)
    }

    /// Empty if there is none.
    pub fn get(&self, at: u32) -> &[T] {
        match at.checked_sub(self.base.len()) {
            None => self.base.get(at),
            Some(at) if at < self.added.len() => self.added.get(at),
            Some(_) => &[],
        }
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

    /// In no order.
    pub fn all(&self) -> impl Iterator<Item = (K, V)> {
        self.shards
            .iter()
            .flat_map(|shard| shard.iter().map(|(key, value)| (key.clone(), value.clone())))
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

/// An ordered map of numbers that have gaps, but mostly small ones; with a base, of which a page is
/// read when it is first asked for.
#[derive(Clone)]
pub(crate) struct Numbered<V>(BTreeMap<u32, Arc<Page<V>>>);

struct Page<V> {
    values: OnceLock<Vec<Option<V>>>,
    /// Empty if it never was in a snapshot.
    base: Bytes,
}

impl<V> Default for Numbered<V> {
    fn default() -> Numbered<V> {
        Numbered(BTreeMap::new())
    }
}

impl<V: Clone> Clone for Page<V> {
    fn clone(&self) -> Page<V> {
        Page {
            values: self.values.clone(),
            base: self.base.clone(),
        }
    }
}

impl<V: Stored + Clone> Page<V> {
    fn values(&self) -> &Vec<Option<V>> {
        self.values.get_or_init(|| page_from(&self.base))
    }
}

/// Its values, each after its place in the page.
fn page_from<V: Stored + Clone>(base: &Bytes) -> Vec<Option<V>> {
    let mut values = vec![None; KEYS as usize];
    let mut take = Take(base.clone());
    while let Some(at) = take.u8() {
        let value = V::read(&mut take);
        match values.get_mut(usize::from(at)) {
            Some(place) if value.is_some() => *place = value,
            _ => break,
        }
    }
    values
}

impl<V: Stored + Clone> Numbered<V> {
    pub fn get(&self, key: u32) -> Option<&V> {
        self.0.get(&(key / KEYS))?.values()[(key % KEYS) as usize].as_ref()
    }

    pub fn get_or_insert_with(&mut self, key: u32, make: impl FnOnce() -> V) -> &mut V {
        let page = self.0.entry(key / KEYS);
        let page = page.or_insert_with(|| {
            let (values, base) = (OnceLock::new(), Bytes::new());
            Arc::new(Page { values, base })
        });
        page.values();
        let page = Arc::make_mut(page);
        let values = page.values.get_mut().expect("made above");
        values[(key % KEYS) as usize].get_or_insert_with(make)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.values().flat_map(|page| page.values().iter().flatten())
    }

    /// The keys whose values are not the same in `other`, ascending, also those that only one has.
    pub fn differing(&self, other: Option<&Numbered<V>>) -> Vec<u32>
    where
        V: PartialEq,
    {
        let mut keys = Vec::new();
        let mut compare = |number: u32, ours: Option<&Arc<Page<V>>>, theirs: Option<&Arc<Page<V>>>| {
            if let (Some(ours), Some(theirs)) = (ours, theirs)
                && Arc::ptr_eq(ours, theirs)
            {
                return;
            }
            let value =
                |page: Option<&'_ Arc<Page<V>>>, at: usize| page.and_then(|page| page.values()[at].clone());
            for at in 0..KEYS {
                if value(ours, at as usize) != value(theirs, at as usize) {
                    keys.push(number * KEYS + at);
                }
            }
        };
        let theirs = |number: &u32| other.and_then(|other| other.0.get(number));
        let gone = other.into_iter().flat_map(|other| other.0.keys());
        let gone = gone.filter(|number| !self.0.contains_key(number));
        let numbers: std::collections::BTreeSet<u32> = self.0.keys().chain(gone).copied().collect();
        for number in numbers {
            compare(number, self.0.get(&number), theirs(&number));
        }
        keys
    }

    /// For [`Numbered::add_page`]: the number of each page, and what is in it.
    pub fn pages(&self) -> impl Iterator<Item = (u32, Bytes)> {
        self.0.iter().map(|(number, page)| {
            let Some(values) = page.values.get() else {
                return (*number, page.base.clone());
            };
            let mut bytes = Vec::new();
            for (at, value) in (0..).zip(values) {
                if let Some(value) = value {
                    bytes.push(at);
                    value.put(&mut bytes);
                }
            }
            (*number, bytes.into())
        })
    }

    pub fn add_page(&mut self, number: u32, base: Bytes) {
        let values = OnceLock::new();
        self.0.insert(number, Arc::new(Page { values, base }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_over_a_base_are_as_rows_without_one(base in prop::collection::vec(any::<u32>(), 0..3000), steps in prop::collection::vec((any::<bool>(), any::<u32>()), 0..60)) {
            let bytes: Vec<u8> = base.iter().flat_map(|n| n.to_le_bytes()).collect();
            let mut rows: Rows<U32> = Rows::over(bytes.into());
            let mut model = base;
            for (is_new, n) in steps {
                match (is_new, rows.get_mut(n % 4000)) {
                    (false, Some(row)) => {
                        *row = U32::new(n);
                        model[n as usize % 4000] = n;
                    }
                    _ => {
                        prop_assert_eq!(rows.push(U32::new(n)) as usize, model.len());
                        model.push(n);
                    }
                }
            }
            prop_assert_eq!(rows.len() as usize, model.len());
            for at in 0..4200 {
                prop_assert_eq!(rows.get(at).map(|n| n.get()), model.get(at as usize).copied());
            }
        }

        #[test]
        fn a_clone_never_changes(before in prop::collection::vec(0..300_u32, 0..3000), after in prop::collection::vec(0..300_u32, 0..50)) {
            let (mut pages, mut shards, mut numbered) = (Rows::default(), Shards::default(), Numbered::default());
            let word = |n: u32| U32::new(n);
            let mut model = BTreeMap::new();
            for (at, key) in (0..).zip(&before) {
                prop_assert_eq!(pages.push(word(*key)), at);
                shards.set(*key, at);
                *numbered.get_or_insert_with(*key * 77, || 0) = at;
                model.insert(*key, at);
            }
            let (old_pages, old_shards, old_numbered) = (pages.clone(), shards.clone(), numbered.clone());
            for key in &after {
                pages.push(word(*key));
                if let Some(row) = pages.len().checked_sub(20).and_then(|at| pages.get_mut(at)) {
                    *row = word(1000);
                }
                shards.set(*key, 1_000_000);
                *numbered.get_or_insert_with(*key * 77, || 0) = 1_000_000;
            }
            prop_assert_eq!(old_pages.len() as usize, before.len());
            prop_assert!((0..).map(|at| old_pages.get(at).unwrap().get()).take(before.len()).eq(before.iter().copied()));
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
