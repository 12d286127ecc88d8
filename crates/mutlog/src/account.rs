use std::collections::BTreeMap;

use crate::place::Sum;
use crate::record::{Head, MAX_PAYLOAD, header};

/// What a segment holds and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Whole records, those out of place included.
    pub records: usize,
    /// All before this is whole and in place; the length of the segment if nothing is wrong.
    pub good_end: u64,
    /// In the order of their places.
    pub faults: Vec<Fault>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Offset in the segment.
    pub at: u64,
    pub kind: FaultKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// Bytes that belong to no record, up to the next one or the end: overwritten, or flipped bits.
    Unreadable { len: u64 },
    /// The segment ends inside the record that begins here.
    Torn { len: u64 },
    /// Before this record are bytes too few: it belongs further back.
    Missing { bytes: u64 },
    /// The record stands in the segment already, at the offset that it names.
    Duplicate { of: u64 },
    /// The record belongs before the ones that stand before it.
    OutOfOrder { belongs: u64 },
    /// The frame is whole, but not what it holds.
    BadPayload { why: String },
}

/// Looks at a whole segment and tells everything that is wrong with it, not only the first thing.
/// `check` says whether a payload is one. Bits flipped inside a payload show only by `check` or by
/// the segment's [`Sum`].
pub fn examine(segment: &[u8], check: impl Fn(&[u8]) -> Result<(), String>) -> Account {
    let mut faults = Vec::new();
    let mut seen: BTreeMap<u64, Sum> = BTreeMap::new();
    let mut records = 0;
    // How far records stand before the place that they name, since bytes were lost.
    let mut lost = 0_i128;
    let mut at = 0;
    while at < segment.len() {
        let rest = &segment[at..];
        let place = at as u64;
        let mut fault = |kind| faults.push(Fault { at: place, kind });
        let Some((says, head, payload)) = frame(rest) else {
            let next = (at + 1..segment.len())
                .find(|from| segment[*from..].starts_with(b"REC@") && frame(&segment[*from..]).is_some());
            let len = (next.unwrap_or(segment.len()) - at) as u64;
            let torn = next.is_none() && !matches!(header(rest), Head::Bad(_));
            fault(if torn {
                FaultKind::Torn { len }
            } else {
                FaultKind::Unreadable { len }
            });
            at += usize::try_from(len).expect("within the segment");
            continue;
        };
        let due = place as i128 + lost;
        let sum = Sum::of(&rest[..head + payload.len()]);
        if i128::from(says) > due {
            let bytes = u64::try_from(i128::from(says) - due).expect("a positive 64-bit number");
            fault(FaultKind::Missing { bytes });
            lost = i128::from(says) - place as i128;
        } else if i128::from(says) < due {
            fault(match seen.get(&says) {
                Some(known) if *known == sum => FaultKind::Duplicate { of: says },
                _ => FaultKind::OutOfOrder { belongs: says },
            });
            // What follows is due where this one stood.
            lost -= (head + payload.len()) as i128;
        }
        if let Err(why) = check(payload) {
            fault(FaultKind::BadPayload { why });
        }
        seen.insert(says, sum);
        records += 1;
        at += head + payload.len();
    }
    let good_end = faults.first().map_or(segment.len() as u64, |fault| fault.at);
    Account {
        records,
        good_end,
        faults,
    }
}

/// A whole record at the beginning of `rest`: the offset it names, its header's length, its payload.
pub(crate) fn frame(rest: &[u8]) -> Option<(u64, usize, &[u8])> {
    let Head::Whole(head) = header(rest) else {
        return None;
    };
    let len = usize::try_from(head.payload)
        .ok()
        .filter(|len| *len <= MAX_PAYLOAD)?;
    Some((head.offset, head.len, rest[head.len..].get(..len)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::put;

    /// Five records of 20 bytes at 0, 20, 40, 60, 80.
    fn records() -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        for n in 0..5_u8 {
            let offset = whole.len() as u64;
            put(&mut whole, offset, &[b'a' + n; 12][usize::from(n > 0)..]);
        }
        assert_eq!(whole.len(), 100);
        whole.chunks(20).map(<[u8]>::to_vec).collect()
    }

    fn faults(segment: &[u8]) -> Vec<(u64, FaultKind)> {
        let account = examine(segment, |payload| {
            match payload.windows(2).all(|two| two[0] == two[1]) {
                true => Ok(()),
                false => Err("uneven".to_owned()),
            }
        });
        assert_eq!(
            account.good_end,
            account
                .faults
                .first()
                .map_or(segment.len() as u64, |fault| fault.at)
        );
        account
            .faults
            .into_iter()
            .map(|fault| (fault.at, fault.kind))
            .collect()
    }

    #[test]
    fn a_whole_segment_has_no_faults() {
        assert_eq!(faults(&records().concat()), []);
        assert_eq!(examine(&records().concat(), |_| Ok(())).records, 5);
        assert_eq!(faults(b""), []);
    }

    #[test]
    fn a_torn_tail_is_told_with_its_length() {
        let whole = records().concat();
        for end in 81..100 {
            assert_eq!(
                faults(&whole[..end]),
                [(80, FaultKind::Torn { len: end as u64 - 80 })]
            );
        }
        let zeros = [&whole[..80], &[0; 20]].concat();
        assert_eq!(faults(&zeros), [(80, FaultKind::Unreadable { len: 20 })]);
    }

    #[test]
    fn a_cut_is_told_once_and_what_follows_is_still_counted() {
        let [a, _, c, d, e] = &records()[..] else { panic!() };
        let cut = [&a[..], &c[..], &d[..], &e[..]].concat();
        assert_eq!(faults(&cut), [(20, FaultKind::Missing { bytes: 20 })]);
        assert_eq!(examine(&cut, |_| Ok(())).records, 4);
    }

    #[test]
    fn a_duplicate_is_told_from_a_record_out_of_order() {
        let [a, b, c, d, e] = &records()[..] else { panic!() };
        let twice = [&a[..], &b[..], &a[..], &c[..], &d[..], &e[..]].concat();
        assert_eq!(faults(&twice), [(40, FaultKind::Duplicate { of: 0 })]);
        let swapped = [&a[..], &c[..], &b[..], &d[..], &e[..]].concat();
        assert_eq!(
            faults(&swapped),
            [
                (20, FaultKind::Missing { bytes: 20 }),
                (40, FaultKind::OutOfOrder { belongs: 20 })
            ]
        );
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_found_and_the_rest_is_read() {
        let whole = records().concat();
        // Flipped, bit 61 makes the length `B` of `b`, which reads the same.
        for bit in (0..9 * 8).filter(|bit| *bit != 61) {
            let mut flipped = whole.clone();
            flipped[40 + bit / 8] ^= 1 << (bit % 8);
            let found = faults(&flipped);
            let first = found.first().map(|fault| fault.0);
            assert!(
                first.is_some_and(|at| (40..80).contains(&at)),
                "bit {bit}: {found:?}"
            );
            assert!(examine(&flipped, |_| Ok(())).records >= 4, "bit {bit}");
        }
    }

    #[test]
    fn a_flipped_bit_of_a_payload_is_found_by_what_the_payload_means() {
        let mut flipped = records().concat();
        flipped[55] ^= 1;
        assert_eq!(
            faults(&flipped),
            [(
                40,
                FaultKind::BadPayload {
                    why: "uneven".to_owned()
                }
            )]
        );
    }
}
