//! Times, durations, sizes and addresses as people read them. Pure.

use ids::Timestamp;
use maud::{Markup, Render, html};
use serde::{Serialize, Serializer};

/// A moment in a view: RFC 3339 in JSON, `2026-03-01 12:00:05 UTC` as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub Timestamp);

impl Moment {
    pub fn rfc3339(self) -> String {
        self.jiff().to_string()
    }

    fn jiff(self) -> jiff::Timestamp {
        // Out of range means a clock gone mad; the nearest that can be printed says as much.
        jiff::Timestamp::from_microsecond(self.0.0).unwrap_or(if self.0.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        })
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.jiff().strftime("%Y-%m-%d %H:%M:%S UTC"))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.rfc3339())
    }
}

/// `3 min ago`, the moment itself on hover; the script keeps it true.
pub fn ago(now: Timestamp, then: Moment) -> Markup {
    let words = distance(now, then.0);
    html! { time datetime=(then.rfc3339()) title=(then) { (words) } }
}

fn distance(now: Timestamp, then: Timestamp) -> String {
    let (secs, past) = match now.as_secs() - then.as_secs() {
        secs if secs >= 0 => (secs, true),
        secs => (-secs, false),
    };
    let words = match secs {
        0..45 => return if past { "just now" } else { "in a moment" }.to_owned(),
        45..5_400 => format!("{} min", (secs + 30) / 60),
        5_400..129_600 => format!("{} h", (secs + 1_800) / 3_600),
        129_600..5_184_000 => format!("{} d", (secs + 43_200) / 86_400),
        _ => return Moment(then).jiff().strftime("%Y-%m-%d").to_string(),
    };
    if past {
        format!("{words} ago")
    } else {
        format!("in {words}")
    }
}

/// `0.4 s`, `12 s`, `3 m 05 s`, `1 h 02 m`.
pub fn duration(ms: u64) -> String {
    let secs = ms / 1000;
    match ms {
        0..10_000 => format!("{}.{} s", secs, ms % 1000 / 100),
        10_000..60_000 => format!("{secs} s"),
        60_000..3_600_000 => format!("{} m {:02} s", secs / 60, secs % 60),
        _ => format!("{} h {:02} m", secs / 3600, secs / 60 % 60),
    }
}

/// `812 B`, `64 KiB`, `3.2 MiB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{} KiB", n / 1024),
        _ => format!("{}.{} MiB", n / 1_048_576, n % 1_048_576 * 10 / 1_048_576),
    }
}

/// `1 build`, `3 builds`.
pub fn plural(n: u64, one: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        _ => match one.strip_suffix('y') {
            Some(stem) => format!("{n} {stem}ies"),
            None if one.ends_with("ch") => format!("{n} {one}es"),
            None => format!("{n} {one}s"),
        },
    }
}

/// Text in which names stand between backticks, as our messages have them: those as code.
pub fn ticked(text: &str) -> Markup {
    let mut parts: Vec<&str> = text.split('`').collect();
    // A last tick without another is one of the text's own.
    let rest = parts.len().is_multiple_of(2).then(|| parts.pop()).flatten();
    html! {
        @for (n, part) in parts.iter().enumerate() { @if !n.is_multiple_of(2) { code { (part) } } @else { (part) } }
        @if let Some(rest) = rest { "`" (rest) }
    }
}

/// A name as part of a path. Slashes stay, so that branches read well; a last `.json` is hidden from
/// [`crate::Site::wrap`], which takes it for the wish to have JSON.
pub fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b'+' | b'@' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    match out.strip_suffix(".json") {
        Some(start) => format!("{start}%2Ejson"),
        None => out,
    }
}

impl Render for Moment {
    fn render(&self) -> Markup {
        html! { (self.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_read_as_people_say_them() {
        let now = Timestamp::from_secs(10_000_000);
        let check = |secs: i64, wanted: &str| {
            assert_eq!(
                distance(now, Timestamp::from_secs(10_000_000 - secs)),
                wanted,
                "{secs}"
            );
        };
        check(0, "just now");
        check(44, "just now");
        check(45, "1 min ago");
        check(3_600, "60 min ago");
        check(7_200, "2 h ago");
        check(172_800, "2 d ago");
        check(-30, "in a moment");
        check(-600, "in 10 min");
        check(9_999_999, "1970-01-01");
    }

    #[test]
    fn durations_and_sizes() {
        assert_eq!(duration(430), "0.4 s");
        assert_eq!(duration(59_999), "59 s");
        assert_eq!(duration(185_000), "3 m 05 s");
        assert_eq!(duration(3_720_000), "1 h 02 m");
        assert_eq!(bytes(812), "812 B");
        assert_eq!(bytes(65_536), "64 KiB");
        assert_eq!(bytes(3_400_000), "3.2 MiB");
        assert_eq!(
            (plural(1, "build"), plural(2, "branch")),
            ("1 build".into(), "2 branches".into())
        );
    }

    #[test]
    fn moments_are_rfc_3339_even_if_absurd() {
        let moment = Moment(Timestamp::from_secs(1_700_000_000));
        assert_eq!(
            serde_json::to_string(&moment).unwrap(),
            "\"2023-11-14T22:13:20Z\""
        );
        assert_eq!(moment.to_string(), "2023-11-14 22:13:20 UTC");
        assert!(Moment(Timestamp(i64::MAX)).rfc3339().starts_with("9999"));
        assert!(Moment(Timestamp(i64::MIN)).rfc3339().starts_with("-"));
    }

    #[test]
    fn names_in_backticks_become_code() {
        for (text, wanted) in [
            ("step `a<b`: exit", "step <code>a&lt;b</code>: exit"),
            ("`x` and `y`", "<code>x</code> and <code>y</code>"),
            ("a ` b", "a ` b"),
            ("`a` b` c", "<code>a</code> b` c"),
            ("", ""),
        ] {
            assert_eq!(ticked(text).into_string(), wanted, "{text}");
        }
    }

    #[test]
    fn names_survive_in_paths() {
        assert_eq!(segment("release/1.2"), "release/1.2");
        assert_eq!(segment("fix#1 50%"), "fix%231%2050%25");
        assert_eq!(segment("odd.json"), "odd%2Ejson");
        assert_eq!(segment("ä\"<"), "%C3%A4%22%3C");
    }
}
