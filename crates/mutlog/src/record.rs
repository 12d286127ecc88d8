use std::fmt;

/// The longest body of a record that is believed: far over any mutation, and a bound for readers.
pub const MAX_PAYLOAD: usize = 256 << 20;

const MAGIC: &[u8] = b"REC@";

/// The longest header that is believed, `=` included.
const MAX_HEADER: usize = 40;

/// What stands at the beginning of some bytes of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A whole record. `len`: bytes of header and payload together.
    Record { payload: &'a [u8], len: usize },
    /// No bytes: between two records, where a segment may end.
    End,
    /// The bytes end inside the record: a writer died, or more is coming. The caller knows which.
    Short,
    /// No record begins like this, whatever may follow.
    Bad(BadRecord),
}

/// Why bytes are no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// Where it stands in its segment.
    pub offset: u64,
    pub reason: Reason,
    /// Up to 64 of the bytes there.
    pub seen: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// 40 bytes, and the header does not end.
    Overlong,
    Malformed,
    /// The header belongs at another offset: the file was cut or put together.
    WrongOffset {
        says: u64,
    },
    TooLong {
        payload: u64,
    },
}

/// Takes the first record off `input`, whose first byte stands at `offset` in its segment.
///
/// A record is `REC@`, the offset in hex, `+`, the payload's length in hex, `=`, then the payload:
/// no footer, no checksum. `REC@1f+3=abc` at offset 31. Read are also upper-case digits and leading
/// zeros; neither is written.
///
/// Differs: the original takes a negative length for zero and then reads on amid the payload; here
/// a sign is malformed, and so is a payload of more than [`MAX_PAYLOAD`] bytes.
///
/// Source: golang/build `maintner/reclog/reclog.go`.
pub fn split(input: &[u8], offset: u64) -> Split<'_> {
    match header(input) {
        Head::End => Split::End,
        Head::Short => Split::Short,
        Head::Bad(reason) => bad(input, offset, reason),
        Head::Whole(head) if head.offset != offset => {
            let says = head.offset;
            bad(input, offset, Reason::WrongOffset { says })
        }
        Head::Whole(head) => {
            let payload = head.payload;
            match usize::try_from(payload) {
                Ok(len) if len <= MAX_PAYLOAD => match input[head.len..].get(..len) {
                    Some(payload) => Split::Record {
                        payload,
                        len: head.len + len,
                    },
                    None => Split::Short,
                },
                _ => bad(input, offset, Reason::TooLong { payload }),
            }
        }
    }
}

/// Appends to `segment`, which ends at `offset`, a record that holds `payload`.
pub fn put(segment: &mut Vec<u8>, offset: u64, payload: &[u8]) {
    segment.extend_from_slice(format!("REC@{offset:x}+{:x}=", payload.len()).as_bytes());
    segment.extend_from_slice(payload);
}

/// The whole records at the beginning of some bytes of a segment, each with its payload's offset in
/// the segment.
pub struct Records<'a> {
    rest: &'a [u8],
    offset: u64,
}

impl<'a> Records<'a> {
    /// `bytes` begin at `offset` of their segment.
    pub fn new(bytes: &'a [u8], offset: u64) -> Records<'a> {
        Records { rest: bytes, offset }
    }

    /// Where the records given so far end in the segment.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How the bytes go on where the iterator ended: never [`Split::Record`].
    pub fn end(&self) -> Split<'a> {
        split(self.rest, self.offset)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<(u64, &'a [u8])> {
        let Split::Record { payload, len } = split(self.rest, self.offset) else {
            return None;
        };
        let at = self.offset + (len - payload.len()) as u64;
        self.rest = &self.rest[len..];
        self.offset += len as u64;
        Some((at, payload))
    }
}

pub(crate) struct Header {
    pub offset: u64,
    pub payload: u64,
    /// Of the header itself.
    pub len: usize,
}

pub(crate) enum Head {
    Whole(Header),
    End,
    Short,
    Bad(Reason),
}

/// Reads a header, wherever it says that it stands.
pub(crate) fn header(input: &[u8]) -> Head {
    let window = &input[..input.len().min(MAX_HEADER)];
    let magic = window.len().min(MAGIC.len());
    if window.is_empty() {
        return Head::End;
    }
    if window[..magic] != MAGIC[..magic] {
        return Head::Bad(Reason::Malformed);
    }
    let Some(end) = window.iter().position(|b| *b == b'=') else {
        let digits = |b: &u8| b.is_ascii_hexdigit() || *b == b'+';
        return match window.len() {
            MAX_HEADER => Head::Bad(Reason::Overlong),
            _ if window[magic..].iter().all(digits) => Head::Short,
            _ => Head::Bad(Reason::Malformed),
        };
    };
    let mut numbers = window[MAGIC.len()..end].split(|b| *b == b'+').map(hex);
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(Some(offset)), Some(Some(payload)), None) => Head::Whole(Header {
            offset,
            payload,
            len: end + 1,
        }),
        _ => Head::Bad(Reason::Malformed),
    }
}

/// Non-negative, below 2^63 as in the original.
fn hex(digits: &[u8]) -> Option<u64> {
    let digit = |n: Option<u64>, b: &u8| {
        let value = (*b as char).to_digit(16)?;
        n?.checked_mul(16)?.checked_add(u64::from(value))
    };
    let number = digits.iter().fold(Some(0), digit)?;
    (!digits.is_empty() && i64::try_from(number).is_ok()).then_some(number)
}

fn bad(input: &[u8], offset: u64, reason: Reason) -> Split<'_> {
    Split::Bad(BadRecord {
        offset,
        reason,
        seen: input[..input.len().min(64)].to_vec(),
    })
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Overlong => write!(f, "a header of more than {MAX_HEADER} bytes")?,
            Reason::Malformed => write!(f, "no record")?,
            Reason::WrongOffset { says } => write!(f, "a record that belongs at offset {says}")?,
            Reason::TooLong { payload } => write!(f, "a record of {payload} bytes, over {MAX_PAYLOAD}")?,
        }
        write!(f, " at offset {}: `{}`", self.offset, self.seen.escape_ascii())
    }
}

impl std::error::Error for BadRecord {}

#[cfg(test)]
mod tests;
