//! How issues and changes stand in a snapshot: one after the other, every number with its length.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use bytes::{Buf, Bytes};
use ids::Timestamp;

/// What can be put into a snapshot and taken out of it again.
pub trait Stored: Sized {
    fn put(&self, out: &mut Vec<u8>);

    /// `None`: there is none, or a damaged one.
    fn read(from: &mut Take) -> Option<Self>;
}

/// Bytes of which pieces are taken. Each piece is `None` if it is not there whole.
pub struct Take(pub(crate) Bytes);

impl Take {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<Bytes> {
        (len <= self.0.len()).then(|| self.0.split_to(len))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let array = *self.0.first_chunk()?;
        self.0.advance(N);
        Some(array)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn hash(&mut self) -> Option<[u8; 32]> {
        self.array()
    }

    pub(crate) fn sha1(&mut self) -> Option<[u8; 20]> {
        self.array()
    }

    pub(crate) fn sum(&mut self) -> Option<[u8; 28]> {
        self.array()
    }

    /// After its length.
    pub(crate) fn piece(&mut self) -> Option<Bytes> {
        let len = self.u32()?;
        self.bytes(len as usize)
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.piece()?.into()).ok()
    }

    /// As many as a number before them says; that may be wrong, and is not believed for room.
    pub(crate) fn several<T>(&mut self, mut one: impl FnMut(&mut Take) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        let mut list = Vec::with_capacity((count as usize).min(self.0.len()));
        for _ in 0..count {
            list.push(one(self)?);
        }
        Some(list)
    }
}

pub(crate) fn put_piece(out: &mut Vec<u8>, piece: &[u8]) {
    put_len(out, piece.len());
    out.extend_from_slice(piece);
}

pub(crate) fn put_len(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("a piece of a snapshot is far below 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
}

pub(crate) fn put_several<T>(out: &mut Vec<u8>, list: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    put_len(out, list.len());
    list.iter().for_each(|one| put(out, one));
}

impl Stored for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn read(from: &mut Take) -> Option<i64> {
        from.i64()
    }
}

impl Stored for i32 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn read(from: &mut Take) -> Option<i32> {
        from.i32()
    }
}

impl Stored for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn read(from: &mut Take) -> Option<u32> {
        from.u32()
    }
}

impl Stored for Timestamp {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn read(from: &mut Take) -> Option<Timestamp> {
        from.i64().map(Timestamp)
    }
}

impl Stored for mutlog::Span {
    fn put(&self, out: &mut Vec<u8>) {
        self.at.segment.0.put(out);
        self.at.offset.put(out);
        self.len.put(out);
    }

    fn read(from: &mut Take) -> Option<mutlog::Span> {
        let at = mutlog::Place {
            segment: mutlog::SegmentNumber(from.u32()?),
            offset: from.u32()?,
        };
        Some(mutlog::Span { at, len: from.u32()? })
    }
}

impl<T: Stored> Stored for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(it) = self {
            it.put(out);
        }
    }

    fn read(from: &mut Take) -> Option<Option<T>> {
        match from.u8()? {
            0 => Some(None),
            1 => T::read(from).map(Some),
            _ => None,
        }
    }
}

impl<T: Stored> Stored for Arc<T> {
    fn put(&self, out: &mut Vec<u8>) {
        T::put(self, out);
    }

    fn read(from: &mut Take) -> Option<Arc<T>> {
        T::read(from).map(Arc::new)
    }
}

/// A list that is read from the snapshot when it is first looked at. Otherwise as good as a slice.
pub struct List<T>(Kept<T>);

enum Kept<T> {
    Here(Vec<T>),
    There(Box<There<T>>),
}

struct There<T> {
    count: u32,
    bytes: Bytes,
    list: OnceLock<Vec<T>>,
}

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List(Kept::Here(Vec::new()))
    }
}

impl<T> List<T> {
    /// Without looking at any of them.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Here(list) => list.len(),
            Kept::There(there) => there.count as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Stored + Clone> List<T> {
    pub(crate) fn make_mut(&mut self) -> &mut Vec<T> {
        if let Kept::There(_) = &self.0 {
            self.0 = Kept::Here(self.to_vec());
        }
        match &mut self.0 {
            Kept::Here(list) => list,
            Kept::There(_) => unreachable!("put here above"),
        }
    }
}

impl<T: Stored> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Kept::Here(list) => list,
            Kept::There(there) => there.list.get_or_init(|| {
                let mut take = Take(there.bytes.clone());
                let mut list = Vec::with_capacity((there.count as usize).min(there.bytes.len()));
                list.extend((0..there.count).map_while(|_| T::read(&mut take)));
                list
            }),
        }
    }
}

impl<T: Stored> Stored for List<T> {
    fn put(&self, out: &mut Vec<u8>) {
        let mut bytes = Vec::new();
        self.iter().for_each(|one| one.put(&mut bytes));
        put_len(out, self.iter().len());
        put_piece(out, &bytes);
    }

    fn read(from: &mut Take) -> Option<List<T>> {
        let (count, bytes) = (from.u32()?, from.piece()?);
        // Nothing that is kept in lists takes no room.
        if count as usize > bytes.len() {
            return None;
        }
        let list = OnceLock::new();
        Some(match count {
            0 => List::default(),
            _ => List(Kept::There(Box::new(There { count, bytes, list }))),
        })
    }
}

impl<T: Clone> Clone for List<T> {
    fn clone(&self) -> List<T> {
        List(match &self.0 {
            Kept::Here(list) => Kept::Here(list.clone()),
            Kept::There(there) => Kept::There(Box::new(There {
                count: there.count,
                bytes: there.bytes.clone(),
                list: there.list.clone(),
            })),
        })
    }
}

impl<'a, T: Stored> IntoIterator for &'a List<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Stored + PartialEq> PartialEq for List<T> {
    fn eq(&self, other: &List<T>) -> bool {
        self[..] == other[..]
    }
}

impl<T: Stored + Eq> Eq for List<T> {}

impl<T: Stored + fmt::Debug> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
