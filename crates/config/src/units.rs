use std::time::Duration;

/// What a duration in the file looks like, for messages.
pub(crate) const DURATION: &str = "`90s`, `40m`, `2h`, `7d` or `1h30m`";
/// What a size in the file looks like, for messages.
pub(crate) const SIZE: &str = "`512MiB`, `8GiB` or `100MB`";

const DURATIONS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];
/// Longer than any limit one could mean, and small enough that a `time_scale` cannot overflow it.
const LONGEST_MS: u64 = 3650 * 86_400_000;

/// Parses `1h30m`: numbers with the units `d`, `h`, `m`, `s`, `ms`, each at most once and the
/// larger first. At most 3650 days. `Err` says what is wrong with it.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let mut total: u64 = 0;
    let mut rest = text;
    let mut next_unit = 0;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |n| digits + n);
        let (number, unit) = (&rest[..digits], &rest[digits..unit_end]);
        if unit.is_empty() && !number.is_empty() {
            return Err("has no unit");
        }
        let Some(found) = DURATIONS.iter().position(|(name, _)| *name == unit) else {
            return Err("is not a duration");
        };
        if number.is_empty() || found < next_unit {
            return Err("is not a duration");
        }
        next_unit = found + 1;
        let part = number
            .parse()
            .ok()
            .and_then(|n: u64| n.checked_mul(DURATIONS[found].1));
        total = match part.and_then(|part| part.checked_add(total)) {
            Some(sum) if sum <= LONGEST_MS => sum,
            _ => return Err("is longer than 3650 days"),
        };
        rest = &rest[unit_end..];
    }
    Ok(Duration::from_millis(total))
}

/// What [`parse_duration`] reads as `duration`, in the largest units; finer than a millisecond is
/// cut off.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut out = String::new();
    for (unit, size) in DURATIONS {
        if ms >= size {
            out.push_str(&format!("{}{unit}", ms / size));
            ms %= size;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

/// Parses `512MiB`: a whole number and `B`, `kB`/`KB`, `MB`, `GB`, `TB` (powers of 1000) or `KiB`,
/// `MiB`, `GiB`, `TiB` (powers of 1024). `Err` says what is wrong with it.
pub(crate) fn parse_size(text: &str) -> Result<u64, &'static str> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start_matches(' ');
    if number.is_empty() {
        return Err("is not a size");
    }
    if unit.is_empty() {
        return Err("has no unit");
    }
    let unit = if unit == "KB" { "kB" } else { unit };
    let Some((_, factor)) = SIZES.iter().find(|(name, _)| *name == unit) else {
        return Err("is not a size");
    };
    number
        .parse()
        .ok()
        .and_then(|n: u64| n.checked_mul(*factor))
        .filter(|size| i64::try_from(*size).is_ok())
        .ok_or("is too large")
}

/// What [`parse_size`] reads as `size`, in the largest unit that divides it.
pub(crate) fn format_size(size: u64) -> String {
    for (unit, factor) in SIZES {
        if size > 0 && size.is_multiple_of(factor) {
            return format!("{}{unit}", size / factor);
        }
    }
    "0B".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed_back() {
        for (text, ms, printed) in [
            ("90s", 90_000, "1m30s"),
            ("40m", 2_400_000, "40m"),
            ("2h", 7_200_000, "2h"),
            ("7d", 604_800_000, "7d"),
            ("1h30m", 5_400_000, "1h30m"),
            ("250ms", 250, "250ms"),
            ("0s", 0, "0s"),
        ] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
            assert_eq!(format_duration(duration), printed);
            assert_eq!(parse_duration(printed), Ok(duration));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for (text, error) in [
            ("90", "has no unit"),
            ("1h30", "has no unit"),
            ("", "is not a duration"),
            ("h", "is not a duration"),
            ("1 h", "is not a duration"),
            ("1x", "is not a duration"),
            ("-1s", "is not a duration"),
            ("1.5h", "is not a duration"),
            ("1m1h", "is not a duration"),
            ("1h1h", "is not a duration"),
            ("99999999999999999999s", "is longer than 3650 days"),
            ("3651d", "is longer than 3650 days"),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_printed_back() {
        for (text, bytes, printed) in [
            ("512MiB", 512 << 20, "512MiB"),
            ("8GiB", 8 << 30, "8GiB"),
            ("100MB", 100_000_000, "100MB"),
            ("8KB", 8000, "8kB"),
            ("1025B", 1025, "1025B"),
            ("0B", 0, "0B"),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(format_size(bytes), printed);
            assert_eq!(parse_size(printed), Ok(bytes));
        }
        for (text, error) in [
            ("512", "has no unit"),
            ("", "is not a size"),
            ("MiB", "is not a size"),
            ("1mib", "is not a size"),
            ("99999999TiB", "is too large"),
        ] {
            assert_eq!(parse_size(text), Err(error), "{text}");
        }
    }
}
