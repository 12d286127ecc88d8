/// What is to be done with a piece of a step's output to keep its log whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Up to here the output is lost; to be noted before the piece is taken.
    pub gap_to: Option<u64>,
    /// So many bytes of the piece are in the log already.
    pub skip: usize,
}

/// Where a piece of `len` bytes that begins at byte `at` of a step's output goes in a log that stands at `have`.
pub fn place(have: u64, at: u64, len: usize) -> Place {
    let known = usize::try_from(have.saturating_sub(at)).unwrap_or(usize::MAX);
    Place {
        gap_to: (at > have).then_some(at),
        skip: known.min(len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_has_is_skipped_and_what_it_lacks_is_a_gap() {
        for (have, at, gap_to, skip) in [
            (0, 0, None, 0),
            (10, 10, None, 0),
            (10, 7, None, 3),
            (10, 5, None, 5),
            (10, 0, None, 5),
            (10, 11, Some(11), 0),
        ] {
            assert_eq!(place(have, at, 5), Place { gap_to, skip }, "{have} {at}");
        }
    }
}
