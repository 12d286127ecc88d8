use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha224};

/// Segments are numbered from 0 without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentNumber(pub u32);

/// A byte of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    pub segment: SegmentNumber,
    pub offset: u32,
}

/// Some bytes of a log, all in one segment: how a long text is held without holding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    pub at: Place,
    pub len: u32,
}

/// A segment as far as it is visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub number: SegmentNumber,
    pub len: u64,
    /// Of exactly these bytes.
    pub sum: Sum,
}

/// SHA-224, which names a segment's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sum([u8; 28]);

/// What is no [`Sum`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no SHA-224; wanted 56 lower-case hex digits")]
pub struct BadSum(String);

/// Makes the [`Sum`] of bytes that come in pieces.
#[derive(Clone, Default)]
pub struct Summer {
    hash: Sha224,
    len: u64,
}

impl SegmentNumber {
    pub fn next(self) -> SegmentNumber {
        SegmentNumber(self.0 + 1)
    }
}

impl Sum {
    pub fn of(bytes: &[u8]) -> Sum {
        Sum(Sha224::digest(bytes).into())
    }

    pub fn bytes(self) -> [u8; 28] {
        self.0
    }
}

impl From<[u8; 28]> for Sum {
    fn from(bytes: [u8; 28]) -> Sum {
        Sum(bytes)
    }
}

impl Summer {
    pub fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
    }

    /// Of all bytes added so far.
    pub fn sum(&self) -> Sum {
        Sum(self.hash.clone().finalize().into())
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Four digits, more when needed: as in file names.
impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}", self.0)
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sum {
    type Err = BadSum;

    fn from_str(text: &str) -> Result<Sum, BadSum> {
        let bad = || BadSum(text.chars().take(80).collect());
        let mut sum = [0; 28];
        if text.len() != 56 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        for (byte, digits) in sum.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = str::from_utf8(digits).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Sum(sum))
    }
}
