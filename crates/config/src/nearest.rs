/// Which of `known` was probably meant by `found`: the one fewest typing mistakes away, if that is
/// at most a third of its length.
pub(crate) fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (distance(found, name), name))
        .filter(|(far, name)| {
            let length = name.chars().count().max(found.chars().count());
            *far <= (length / 3).max(1) && *far < length
        })
        .min_by_key(|(far, _)| *far)
        .map(|(_, name)| name)
}

/// `no host type `x`; there are: a, b`, and the nearest of them as the hint.
pub(crate) fn no_such(what: &str, found: &str, known: &[&str]) -> (String, Option<String>) {
    /// More would hide the message.
    const SHOWN: usize = 20;
    let message = if known.is_empty() {
        format!("no {what} `{found}`; there are none")
    } else {
        let more = match known.len().saturating_sub(SHOWN) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let shown = &known[..known.len().min(SHOWN)];
        format!("no {what} `{found}`; there are: {}{more}", shown.join(", "))
    };
    let hint = nearest(found, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
    (message, hint)
}

/// Insertions, deletions, changes and swaps of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(200).collect();
    let b: Vec<char> = b.chars().take(200).collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let known = ["a", "host", "builds", "time_scale", "max_at_once"];
        for (found, near) in [
            ("hots", Some("host")),
            ("build", Some("builds")),
            ("timescale", Some("time_scale")),
            ("max-at-once", Some("max_at_once")),
            ("colour", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(found, known), near, "{found}");
        }
    }

    #[test]
    fn a_long_list_of_names_is_cut() {
        let names: Vec<String> = (10..40).map(|n| format!("b{n}")).collect();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let (message, _) = no_such("builder", "x", &known);
        assert!(message.ends_with("b28, b29 and 10 more"), "{message}");
    }
}
