use maud::{Markup, html};

use crate::part::is_unseen;

/// How text looks, as a log's escapes have set it. Carried from line to line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    ink: Option<u8>,
    ground: Option<u8>,
    bold: bool,
    dim: bool,
    italic: bool,
    underlined: bool,
}

impl Look {
    /// Takes in the numbers of one `ESC [ … m`. Colours beyond the sixteen that have names are left out.
    fn set(&mut self, codes: &[u32]) {
        let mut codes = codes.iter().copied();
        while let Some(code) = codes.next() {
            match code {
                0 => *self = Look::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                4 => self.underlined = true,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                24 => self.underlined = false,
                30..=37 | 90..=97 => self.ink = Some((code % 10) as u8),
                39 => self.ink = None,
                40..=47 | 100..=107 => self.ground = Some((code % 10) as u8),
                49 => self.ground = None,
                // `5;N` or `2;R;G;B` belong to it.
                38 | 48 => match codes.next() {
                    Some(5) => drop(codes.next()),
                    Some(2) => drop(codes.nth(2)),
                    _ => {}
                },
                _ => {}
            }
        }
    }

    fn classes(self) -> String {
        let mut classes = Vec::new();
        classes.extend(self.ink.map(|n| format!("a-{n}")));
        classes.extend(self.ground.map(|n| format!("g-{n}")));
        for (set, class) in [
            (self.bold, "a-b"),
            (self.dim, "a-d"),
            (self.italic, "a-i"),
            (self.underlined, "a-u"),
        ] {
            if set {
                classes.push(class.to_owned());
            }
        }
        classes.join(" ")
    }
}

/// One line of a log. Colours become classes; every other escape is left out, as is what a carriage
/// return overwrites; control and direction characters are shown by their numbers. Always escaped.
pub fn line(text: &str, look: &mut Look) -> Markup {
    let text = text.trim_end_matches('\r');
    let shown = text.rsplit('\r').find(|part| !part.is_empty()).unwrap_or("");
    html! {
        @for (codes, piece) in pieces(shown) {
            @if let Some(codes) = codes { ({ look.set(&codes); "" }) }
            @let classes = look.classes();
            @if classes.is_empty() { (seen(&piece)) } @else if !piece.is_empty() { span class=(classes) { (seen(&piece)) } }
        }
    }
}

fn seen(text: &str) -> Markup {
    html! {
        @for part in text.split_inclusive(is_odd) {
            @match part.chars().next_back().filter(|last| is_odd(*last)) {
                Some(last) => { (&part[..part.len() - last.len_utf8()]) span.odd { (format!("U+{:04X}", u32::from(last))) } }
                None => (part),
            }
        }
    }
}

fn is_odd(c: char) -> bool {
    c != '\t' && is_unseen(c)
}

/// The text without its escapes.
pub fn strip(text: &str) -> String {
    pieces(text).into_iter().map(|(_, piece)| piece).collect()
}

/// Runs of text, each with the numbers of the colour escape that stands before it.
fn pieces(text: &str) -> Vec<(Option<Vec<u32>>, String)> {
    let mut pieces = vec![(None, String::new())];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            // A bell or a backspace means nothing on a page.
            if !matches!(c, '\u{7}' | '\u{8}') {
                pieces.last_mut().expect("never empty").1.push(c);
            }
            continue;
        }
        match chars.next() {
            Some('[') => {
                let mut codes = String::new();
                let end = loop {
                    match chars.next() {
                        Some(c) if ('\u{40}'..='\u{7e}').contains(&c) => break Some(c),
                        Some(c) => codes.push(c),
                        None => break None,
                    }
                };
                if end == Some('m') {
                    let codes = codes
                        .split([';', ':'])
                        .map(|code| code.parse().unwrap_or(0))
                        .collect();
                    pieces.push((Some(codes), String::new()));
                }
            }
            // A title or a link: up to BEL or the string terminator.
            Some(']') => {
                while let Some(c) = chars.next() {
                    if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                        break;
                    }
                }
            }
            _ => {}
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_classes_and_nothing_else_gets_through() {
        let check = |text: &str, wanted: &str| {
            assert_eq!(line(text, &mut Look::default()).into_string(), wanted, "{text:?}");
        };
        check("a\u{1b}[31mb\u{1b}[0mc", "a<span class=\"a-1\">b</span>c");
        check(
            "\u{1b}[1;42mx\u{1b}[22my",
            "<span class=\"g-2 a-b\">x</span><span class=\"g-2\">y</span>",
        );
        check("\u{1b}[38;5;196mx\u{1b}[38;2;1;31;2my", "xy");
        check(
            "<script>&\u{1b}[2J\u{1b}]0;title\u{7}x\u{8}",
            "&lt;script&gt;&amp;x",
        );
        check("\u{1b}[31", "");
        check("\u{1b}]8;;http://evil\u{1b}\\link", "link");
        check(
            "a\u{202e}b\0",
            "a<span class=\"odd\">U+202E</span>b<span class=\"odd\">U+0000</span>",
        );
        check("10%\r20%\r30%\r", "30%");
    }

    #[test]
    fn a_colour_goes_on_in_the_next_line() {
        let mut look = Look::default();
        line("\u{1b}[33mone", &mut look);
        assert_eq!(
            line("two", &mut look).into_string(),
            "<span class=\"a-3\">two</span>"
        );
    }
}
