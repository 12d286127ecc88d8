use maud::{Markup, PreEscaped, html};

/// Whether a line is likely what made the step fail, by the words that build tools use.
pub fn is_failure(line: &str) -> bool {
    const STARTS: [&str; 8] = [
        "error:",
        "error[",
        "--- FAIL",
        "FAIL",
        "panic:",
        "fatal:",
        "Traceback",
        "make: ***",
    ];
    const WITHIN: [&str; 6] = [
        "panicked at",
        ": error:",
        " FAILED",
        "Error: ",
        "AssertionError",
        "assertion failed",
    ];
    let plain = strip(line);
    let text = plain.trim_start();
    STARTS.iter().any(|word| text.starts_with(word)) || WITHIN.iter().any(|word| text.contains(word))
}

/// One line of a log. Colours become classes; every other escape, and every control byte, is left out.
/// The text itself is always escaped.
pub fn line(text: &str) -> Markup {
    let mut out = String::new();
    let mut class: Option<&'static str> = None;
    for (codes, piece) in pieces(text) {
        for code in codes {
            class = match code {
                0 | 39 => None,
                31 | 91 => Some("red"),
                32 | 92 => Some("green"),
                33 | 93 => Some("yellow"),
                34 | 94 => Some("blue"),
                35 | 95 => Some("magenta"),
                36 | 96 => Some("cyan"),
                1 => class.or(Some("bold")),
                _ => class,
            };
        }
        if piece.is_empty() {
            continue;
        }
        let markup = match class {
            None => html! { (piece) },
            Some(class) => html! { span class=(class) { (piece) } },
        };
        out.push_str(&markup.into_string());
    }
    PreEscaped(out)
}

fn strip(text: &str) -> String {
    pieces(text).into_iter().map(|(_, piece)| piece).collect()
}

/// Runs of printable text, each with the colour codes that stand before it.
fn pieces(text: &str) -> Vec<(Vec<u32>, String)> {
    let mut pieces = vec![(Vec::new(), String::new())];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            if c == '\t' || !c.is_control() {
                pieces.last_mut().expect("never empty").1.push(c);
            }
            continue;
        }
        match chars.peek() {
            Some('[') => {
                chars.next();
                let mut codes = String::new();
                let end = loop {
                    match chars.next() {
                        Some(c) if ('\u{40}'..='\u{7e}').contains(&c) => break Some(c),
                        Some(c) => codes.push(c),
                        None => break None,
                    }
                };
                if end == Some('m') {
                    let codes = codes.split(';').map(|code| code.parse().unwrap_or(0)).collect();
                    pieces.push((codes, String::new()));
                }
            }
            Some(']') => {
                // A title or a link: up to BEL or the string terminator.
                while let Some(c) = chars.next() {
                    if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                        break;
                    }
                }
            }
            _ => {
                chars.next();
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_classes_and_nothing_gets_through() {
        let drawn = |text| line(text).into_string();
        assert_eq!(drawn("a\u{1b}[31mb\u{1b}[0mc"), "a<span class=\"red\">b</span>c");
        assert_eq!(
            drawn("<script>&\u{1b}[2J\u{1b}]0;title\u{7}x\u{8}"),
            "&lt;script&gt;&amp;x"
        );
        assert_eq!(drawn("\u{1b}[31"), "");
        assert_eq!(drawn("\u{1b}]8;;http://evil\u{1b}\\link"), "link");
    }

    #[test]
    fn failing_lines_are_found() {
        for bad in [
            "error[E0308]: mismatched",
            "--- FAIL: TestX",
            "thread 'x' panicked at src",
            "a.c:1:2: error: x",
            "\u{1b}[31merror:\u{1b}[0m y",
        ] {
            assert!(is_failure(bad), "{bad}");
        }
        for good in ["0 errors", "test result: ok. 0 failed", "no error"] {
            assert!(!is_failure(good), "{good}");
        }
    }
}
