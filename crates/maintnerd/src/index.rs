//! The list of segments that a server gives, and what a copy must do to be like it.

use mutlog::{Segment, SegmentNumber};
use serde::{Deserialize, Serialize};

/// A segment in the index. Names and meanings are the original's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub number: u32,
    pub size: u64,
    pub sha224: String,
    /// Absolute, or relative to the index.
    pub url: String,
}

/// What a copy must do to become the log that is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// It is that already.
    Nothing,
    /// Go on where it ends.
    GoOn,
    /// From this segment on it has what the log does not have.
    DropFrom(SegmentNumber),
}

/// Segments as an index. `prefix`: of the URLs, before the number.
pub(crate) fn listed(segments: &[Segment], prefix: &str) -> Vec<Listed> {
    let one = |segment: &Segment| Listed {
        number: segment.number.0,
        size: segment.len,
        sha224: segment.sum.to_string(),
        url: format!("{prefix}{}", segment.number.0),
    };
    segments.iter().map(one).collect()
}

/// An index as segments. The error says what is wrong with it.
pub(crate) fn segments(listed: &[Listed]) -> Result<Vec<Segment>, String> {
    let one = |(at, listed): (u32, &Listed)| {
        if listed.number != at {
            return Err(format!("segment {} is listed as number {at}", listed.number));
        }
        if listed.size == 0 {
            return Err(format!("segment {at} is listed with no bytes"));
        }
        let sum = listed
            .sha224
            .parse()
            .map_err(|bad| format!("segment {at}: {bad}"))?;
        Ok(Segment {
            number: SegmentNumber(at),
            len: listed.size,
            sum,
        })
    };
    (0..).zip(listed).map(one).collect()
}

/// Compares what a copy has with what is listed. Only its last segment can have grown; whether what it
/// grew by goes with what it had shows when that is there.
pub fn plan(have: &[Segment], listed: &[Segment]) -> Plan {
    for (at, had) in have.iter().enumerate() {
        let last = at + 1 == have.len();
        match listed.get(at) {
            Some(now) if now == had => {}
            Some(now) if last && now.len > had.len => {}
            _ => return Plan::DropFrom(had.number),
        }
    }
    if have == listed { Plan::Nothing } else { Plan::GoOn }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutlog::Sum;

    /// Segments of these contents.
    fn log(contents: &[&str]) -> Vec<Segment> {
        let one = |(at, content): (u32, &&str)| Segment {
            number: SegmentNumber(at),
            len: content.len() as u64,
            sum: Sum::of(content.as_bytes()),
        };
        (0..).zip(contents).map(one).collect()
    }

    #[test]
    fn a_copy_goes_on_or_drops_what_is_not_the_logs() {
        let check = |have: &[&str], listed: &[&str], expect| {
            assert_eq!(plan(&log(have), &log(listed)), expect, "{have:?} {listed:?}");
        };
        check(&[], &[], Plan::Nothing);
        check(&["a", "b"], &["a", "b"], Plan::Nothing);
        check(&[], &["a"], Plan::GoOn);
        check(&["a", "b"], &["a", "bc"], Plan::GoOn);
        check(&["a", "b"], &["a", "b", "c"], Plan::GoOn);
        let drop = |number| Plan::DropFrom(SegmentNumber(number));
        check(&["a", "b"], &["a", "c"], drop(1));
        check(&["a", "bc"], &["a", "b"], drop(1));
        check(&["a", "b"], &["ax", "b"], drop(0));
        check(&["a", "b"], &["a"], drop(1));
        check(&["a", "b"], &[], drop(0));
    }

    #[test]
    fn an_index_that_is_no_log_is_refused() {
        let whole = listed(&log(&["a", "b"]), "logs/");
        assert_eq!(segments(&whole), Ok(log(&["a", "b"])));
        let check = |spoil: fn(&mut Vec<Listed>), expect: &str| {
            let mut listed = whole.clone();
            spoil(&mut listed);
            assert_eq!(segments(&listed), Err(expect.to_owned()));
        };
        check(|listed| drop(listed.remove(0)), "segment 1 is listed as number 0");
        check(|listed| listed[1].size = 0, "segment 1 is listed with no bytes");
        check(
            |listed| listed[1].sha224 = "x".into(),
            "segment 1: `x` is no SHA-224; wanted 56 lower-case hex digits",
        );
    }
}
