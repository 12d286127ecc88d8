use comfy_table::{Cell, Color, Table, presets};
use ids::Timestamp;

use crate::server::Build;

/// `built widget 1a2b3c4 on linux-amd64: failed in 3.2 s, step `test`: exit status 1`
pub fn built(build: &Build) -> String {
    let flaky = if build.flaky { ", flaky" } else { "" };
    let verb = if build.status == "cancelled" {
        "stopped"
    } else {
        "built"
    };
    let reason = if build.reason.is_empty() {
        String::new()
    } else {
        format!(", {}", plain(&build.reason))
    };
    format!(
        "{verb} {}: {} in {}{flaky}{reason}",
        short(build),
        plain(&build.status),
        took(seconds(build))
    )
}

/// `widget 1a2b3c4 on linux-amd64`
pub fn short(build: &Build) -> String {
    let commit: String = build.commit.chars().take(7).collect();
    format!(
        "{} {} on {}",
        plain(&build.repo),
        plain(&commit),
        plain(&build.builder)
    )
}

pub fn builds(builds: &[Build], color: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["BUILD", "STATUS", "REPO", "COMMIT", "BUILDER", "TOOK", "TRIES"]);
    for build in builds {
        let status = Cell::new(plain(&build.status));
        let status = match build.status.as_str() {
            _ if !color => status,
            "passed" => status.fg(Color::Green),
            "failed" => status.fg(Color::Red),
            "infra" => status.fg(Color::Magenta),
            "running" => status.fg(Color::Blue),
            _ => status,
        };
        let tries = format!("{}{}", build.attempts, if build.flaky { " flaky" } else { "" });
        table.add_row(vec![
            Cell::new(build.id),
            status,
            Cell::new(plain(&build.repo)),
            Cell::new(plain(&build.commit.chars().take(7).collect::<String>())),
            Cell::new(plain(&build.builder)),
            Cell::new(if build.is_done() {
                took(seconds(build))
            } else {
                "-".to_owned()
            }),
            Cell::new(tries),
        ]);
    }
    table
}

fn seconds(build: &Build) -> f64 {
    build.took_ms.map_or(f64::NAN, |ms| ms as f64 / 1000.0)
}

/// `3.2 s`, `4 min 5 s`, `1 h 2 min`
pub fn took(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        ..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// RFC 3339 to the second, UTC.
pub fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.as_secs())
        .map_or_else(|_| at.as_secs().to_string(), |time| time.to_string())
}

/// Text from elsewhere without what steers a terminal.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        for (seconds, words) in [
            (0.04, "0.0 s"),
            (3.24, "3.2 s"),
            (65.0, "1 min 5 s"),
            (3720.0, "1 h 2 min"),
            (f64::NAN, "?"),
            (-1.0, "?"),
        ] {
            assert_eq!(took(seconds), words);
        }
    }

    #[test]
    fn nothing_from_elsewhere_steers_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb\r"), "a\u{fffd}[2Jb\u{fffd}");
    }

    #[test]
    fn times_are_utc_to_the_second() {
        assert_eq!(time(Timestamp::from_secs(0)), "1970-01-01T00:00:00Z");
    }
}
