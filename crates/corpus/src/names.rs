use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::shared::{Index, Pages};

/// A short text that occurs often: a person, a label, a branch. Equal texts have equal names.
///
/// The default is [`Name::EMPTY`], the empty text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Name(u32);

/// Each text once. [`Name::EMPTY`] is the empty one.
#[derive(Clone, Default)]
pub(crate) struct Names {
    texts: Pages<Arc<[u8]>>,
    index: Index,
    hasher: RandomState,
    /// The last two that were asked for, which are likely to be asked for again: one server commits what
    /// many write.
    recent: [Name; 2],
}

impl Name {
    pub const EMPTY: Name = Name(0);
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
        let hash = self.hasher.hash_one(text);
        let texts = &self.texts;
        if let Some(found) = self.index.find(hash, |at| **texts.get(*at) == *text) {
            return Name(found + 1);
        }
        let at = self.texts.push(text.into());
        let (texts, hasher) = (&self.texts, &self.hasher);
        self.index
            .insert(hash, at, |at| hasher.hash_one(&**texts.get(*at)));
        Name(at + 1)
    }

    /// `None`: nothing has this text.
    pub fn find(&self, text: &[u8]) -> Option<Name> {
        if text.is_empty() {
            return Some(Name::EMPTY);
        }
        let found = self
            .index
            .find(self.hasher.hash_one(text), |at| **self.texts.get(*at) == *text);
        found.map(|at| Name(at + 1))
    }

    pub fn bytes(&self, name: Name) -> &[u8] {
        match name.0 {
            0 => b"",
            at => self.texts.get(at - 1),
        }
    }

    /// What is no UTF-8 is replaced.
    pub fn text(&self, name: Name) -> Cow<'_, str> {
        String::from_utf8_lossy(self.bytes(name))
    }
}
