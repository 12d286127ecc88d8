use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::shared::{BaseLists, Index, Pages, rows};

/// A short text that occurs often: a person, a label, a branch. Equal texts have equal names.
///
/// The default is [`Name::EMPTY`], the empty text.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Name(U32);

/// Each text once. [`Name::EMPTY`] is the empty one.
#[derive(Clone, Default)]
pub(crate) struct Names {
    base: BaseLists,
    /// The names of the base, as [`U32`], sorted by their texts.
    sorted: Bytes,
    texts: Pages<Arc<[u8]>>,
    index: Index,
    hasher: RandomState,
    /// The last two that were asked for, which are likely to be asked for again: one server commits what
    /// many write.
    recent: [Name; 2],
}

impl Name {
    pub(crate) fn new(number: u32) -> Name {
        Name(U32::new(number))
    }

    pub(crate) fn number(self) -> u32 {
        self.0.get()
    }

    pub const EMPTY: Name = Name(U32::ZERO);
}

impl Names {
    pub fn intern(&mut self, text: &[u8]) -> Name {
        if text.is_empty() {
            return Name::EMPTY;
        }
        let known = self.recent.into_iter().find(|name| self.bytes(*name) == text);
        let name = known.unwrap_or_else(|| self.find_or_add(text));
        if self.recent[1] != name {
            self.recent = [self.recent[1], name];
        }
        name
    }

    fn find_or_add(&mut self, text: &[u8]) -> Name {
        if let Some(found) = self.find(text) {
            return found;
        }
        let hash = self.hasher.hash_one(text);
        let at = self.texts.push(text.into());
        let (texts, hasher) = (&self.texts, &self.hasher);
        self.index
            .insert(hash, at, |at| hasher.hash_one(&**texts.get(*at)));
        Name::new(self.base.len() + at + 1)
    }

    /// `None`: nothing has this text.
    pub fn find(&self, text: &[u8]) -> Option<Name> {
        if text.is_empty() {
            return Some(Name::EMPTY);
        }
        let sorted: &[Name] = rows(&self.sorted);
        if let Ok(at) = sorted.binary_search_by(|name| self.bytes(*name).cmp(text)) {
            return Some(sorted[at]);
        }
        let found = self
            .index
            .find(self.hasher.hash_one(text), |at| **self.texts.get(*at) == *text);
        found.map(|at| Name::new(self.base.len() + at + 1))
    }

    pub fn bytes(&self, name: Name) -> &[u8] {
        let Some(at) = name.number().checked_sub(1) else {
            return b"";
        };
        match at.checked_sub(self.base.len()) {
            None => self.base.get(at),
            Some(at) if at < self.texts.len() => self.texts.get(at),
            // Only a damaged snapshot names one that there is not.
            Some(_) => b"",
        }
    }

    /// All but the empty one.
    pub fn all(&self) -> impl Iterator<Item = Name> {
        (1..=self.base.len() + self.texts.len()).map(Name::new)
    }

    /// `sorted`: all that are in `base`, by their texts.
    pub fn over(base: BaseLists, sorted: Bytes) -> Names {
        Names {
            base,
            sorted,
            ..Names::default()
        }
    }

    /// What is no UTF-8 is replaced.
    pub fn text(&self, name: Name) -> Cow<'_, str> {
        String::from_utf8_lossy(self.bytes(name))
    }
}
