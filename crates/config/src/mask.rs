//! Hides what may be a secret in a text that is about to be printed.
//!
//! Works on lines, not on parsed values, since a file with a syntax error is printed too. It hides
//! rather too much: a masked harmless value costs a look into the file, a printed key costs a key.

/// Words that, before a `=`, make what follows a secret.
const WORDS: [&str; 8] = [
    "password",
    "passwd",
    "secret",
    "token",
    "private_key",
    "api_key",
    "access_key",
    "credential",
];

/// `text` with the same bytes of length and the same lines, secrets overwritten with `*`.
///
/// Hidden are the user part of every URL (`scheme://USER:PASSWORD@host`), what follows `=` after a
/// word such as `password` up to the end of its string, and whole multi-line strings after such a
/// word. A reference `secret:NAME` stays: it names a secret and holds none.
pub(crate) fn mask(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    mask_urls(text, &mut bytes);
    mask_named(text, &mut bytes);
    // Only whole characters are overwritten, each byte with one `*`.
    String::from_utf8(bytes).unwrap_or_else(|_| "*".repeat(text.len()))
}

/// A URL as it may be shown: without its user part.
pub(crate) fn shown_url(url: &str) -> String {
    match user_part(url, 0) {
        Some((start, end)) => format!("{}…{}", &url[..start], &url[end..]),
        None => url.to_owned(),
    }
}

fn mask_urls(text: &str, bytes: &mut [u8]) {
    let mut from = 0;
    while let Some(at) = text[from..].find("://") {
        let at = from + at;
        if let Some((start, end)) = user_part(text, at) {
            bytes[start..end].fill(b'*');
        }
        from = at + 3;
    }
}

/// Where the user part stands of the URL whose `://` is at or after `from`, if it has one.
fn user_part(text: &str, from: usize) -> Option<(usize, usize)> {
    let start = from + text[from..].find("://")? + 3;
    let rest = &text[start..];
    let end = rest
        .find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace())
        .unwrap_or(rest.len());
    // A password may hold an `@`, or a `/` that was not escaped: look on to the end of the string.
    let string_end = rest
        .find(|c: char| matches!(c, '"' | '\'') || c.is_whitespace())
        .unwrap_or(rest.len());
    let at = match rest[..end].rfind('@') {
        Some(at) => at,
        None if rest[..end].contains(':') => rest[..string_end].rfind('@')?,
        None => return None,
    };
    Some((start, start + at))
}

fn mask_named(text: &str, bytes: &mut [u8]) {
    let lower = text.to_ascii_lowercase();
    for word in WORDS {
        let mut from = 0;
        while let Some(at) = lower[from..].find(word) {
            from += at + word.len();
            let rest = &lower[from..];
            let name_end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || "_-.\"' \t".contains(c)))
                .unwrap_or(rest.len());
            if !rest[name_end..].starts_with('=') {
                continue;
            }
            mask_value(text, from + name_end + 1, bytes);
        }
    }
}

/// Masks the string, or what is left of one, that begins at `from`.
fn mask_value(text: &str, from: usize, bytes: &mut [u8]) {
    let rest = &text[from..];
    let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
    let value = &rest[blank..];
    let (open, close): (usize, &str) = if value.starts_with("\"\"\"") {
        (3, "\"\"\"")
    } else if value.starts_with("'''") {
        (3, "'''")
    } else if value.starts_with('"') {
        (1, "\"")
    } else if value.starts_with('\'') {
        (1, "'")
    } else {
        (0, "")
    };
    let inner = &value[open..];
    if inner.starts_with("secret:") {
        return;
    }
    let line_end = inner.find('\n').unwrap_or(inner.len());
    let len = match (open, close) {
        (0, _) => inner[..line_end].find(['"', '\'', ',']).unwrap_or(line_end),
        (3, close) => inner.find(close).unwrap_or(inner.len()),
        (_, close) => inner[..line_end].rfind(close).unwrap_or(line_end),
    };
    let start = from + blank + open;
    for byte in &mut bytes[start..start + len] {
        if *byte != b'\n' {
            *byte = b'*';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_the_rest_stays_in_place() {
        for (text, masked) in [
            (
                r#"store = "postgres://u:pw@db/x""#,
                r#"store = "postgres://****@db/x""#,
            ),
            (r#"url = "https://h/x@y""#, r#"url = "https://h/x@y""#),
            (r#"u = "s://a:p/w@h/x""#, r#"u = "s://*****@h/x""#),
            (r#"auth = { password = "p" }"#, r#"auth = { password = "*" }"#),
            (r#"password = "secret:name""#, r#"password = "secret:name""#),
            (
                r#"env = ["API_TOKEN=abc", "X=1"]"#,
                r#"env = ["API_TOKEN=***", "X=1"]"#,
            ),
            ("private_key = '''a\nb''' # c", "private_key = '''*\n*''' # c"),
            ("password = \"unclosed", "password = \"********"),
            ("tokens per day = many", "tokens per day = ****"),
        ] {
            assert_eq!(mask(text).len(), text.len(), "{text}");
            assert_eq!(mask(text), masked, "{text}");
        }
    }

    #[test]
    fn shown_urls_have_no_user_part() {
        assert_eq!(shown_url("https://u:p@h/x"), "https://…@h/x");
        assert_eq!(shown_url("https://h/x"), "https://h/x");
        assert_eq!(shown_url("/srv/git/x"), "/srv/git/x");
    }
}
