/// Keys and values of an urlencoded query or body, in order. What is wrongly escaped stays as it is.
pub fn parse(text: &[u8]) -> Vec<(String, String)> {
    let pairs = text.split(|b| *b == b'&').filter(|pair| !pair.is_empty());
    let pair = |pair: &[u8]| {
        let mut parts = pair.splitn(2, |b| *b == b'=');
        (
            decode(parts.next().unwrap_or_default()),
            decode(parts.next().unwrap_or_default()),
        )
    };
    pairs.map(pair).collect()
}

/// Keys and values of a body, by what its `Content-Type` says of it. Files in a multipart body are no fields and are
/// passed over, as are parts without a name; a multipart body that is cut has the fields up to there.
pub fn parse_body(kind: &str, body: &[u8]) -> Vec<(String, String)> {
    match boundary(kind) {
        Some(boundary) => parse_multipart(&boundary, body),
        None => parse(body),
    }
}

/// The boundary of `multipart/form-data`; `None` for anything else. Source: RFC 7578, RFC 2046 5.1.1.
fn boundary(kind: &str) -> Option<String> {
    let (kind, parameters) = kind.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    (1..=70).contains(&boundary.len()).then_some(boundary)
}

/// One of `; name=value; name="value"`.
fn parameter(text: &str, wanted: &str) -> Option<String> {
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches(|c: char| c == ';' || c.is_ascii_whitespace());
        let (value, next) = match after.strip_prefix('"') {
            None => after.split_once(';').unwrap_or((after, "")),
            Some(quoted) => {
                let end = quoted
                    .char_indices()
                    .scan(false, |escaped, (at, c)| {
                        let ends = c == '"' && !*escaped;
                        *escaped = c == '\\' && !*escaped;
                        Some((at, ends))
                    })
                    .find_map(|(at, ends)| ends.then_some(at))?;
                (&quoted[..end], &quoted[end + 1..])
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value.trim().replace("\\\"", "\"").replace("\\\\", "\\"));
        }
        rest = next;
    }
    None
}

fn parse_multipart(boundary: &str, body: &[u8]) -> Vec<(String, String)> {
    // The first boundary needs no line end before it.
    let body = [b"\r\n", body].concat();
    let delimiter = format!("\r\n--{boundary}");
    let mut fields = Vec::new();
    let mut parts = split(&body, delimiter.as_bytes()).into_iter();
    // What stands before the first boundary is nobody's.
    parts.next();
    for part in parts {
        if part.starts_with(b"--") {
            break;
        }
        let Some(start) = find(part, b"\r\n") else {
            continue;
        };
        let part = &part[start..];
        let Some(end) = find(part, b"\r\n\r\n") else {
            continue;
        };
        let (head, value) = (String::from_utf8_lossy(&part[..end]), &part[end + 4..]);
        let disposition = head.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim()
                .eq_ignore_ascii_case("content-disposition")
                .then_some(value)
        });
        let Some((_, parameters)) = disposition.and_then(|value| value.split_once(';')) else {
            continue;
        };
        if let (Some(name), None) = (parameter(parameters, "name"), parameter(parameters, "filename")) {
            fields.push((name, String::from_utf8_lossy(value).into_owned()));
        }
    }
    fields
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

fn split<'a>(text: &'a [u8], delimiter: &[u8]) -> Vec<&'a [u8]> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = find(rest, delimiter) {
        parts.push(&rest[..at]);
        rest = &rest[at + delimiter.len()..];
    }
    parts.push(rest);
    parts
}

/// The first value of a key.
pub fn get<'a>(form: &'a [(String, String)], key: &str) -> Option<&'a str> {
    form.iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
}

/// All values of a key, in order.
pub fn all<'a>(form: &'a [(String, String)], key: &str) -> impl Iterator<Item = &'a str> {
    form.iter()
        .filter(move |(name, _)| name == key)
        .map(|(_, value)| value.as_str())
}

/// Keys and values as a body.
pub fn encode(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (key, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(key);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    out
}

/// Go's booleans; anything else is false.
pub fn is_true(text: Option<&str>) -> bool {
    matches!(text, Some("1" | "t" | "T" | "TRUE" | "true" | "True"))
}

fn decode(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let hex = |b: Option<&u8>| b.and_then(|b| (*b as char).to_digit(16));
        match (text[at], hex(text.get(at + 1)), hex(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            (b'+', _, _) => out.push(b' '),
            (byte, _, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipart_bodies_are_forms_too() {
        let kind = "multipart/form-data; charset=x; boundary=\"a b\"";
        let body = b"preamble\r\n--a b\r\nContent-Disposition: form-data; name=\"cmd\"\r\n\r\n/bin/x\r\n\
            --a b \r\ncontent-disposition: form-data; name=cmdArg\r\nX: y\r\n\r\na\r\n--a\r\n--a b\r\n\
            Content-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nfile\r\n\
            --a b\r\nContent-Disposition: form-data; name=\"q\\\"q\"\r\n\r\n\r\n--a b--\r\nepilogue\r\n--a b\r\n";
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            parse_body(kind, body),
            [
                pair("cmd", "/bin/x"),
                pair("cmdArg", "a\r\n--a"),
                pair("q\"q", "")
            ]
        );
        // Cut anywhere, it gives what came whole or in part, and no more.
        for end in 0..body.len() {
            assert!(parse_body(kind, &body[..end]).len() <= 3);
        }
        assert_eq!(parse_body("multipart/form-data", b"a=b"), [pair("a", "b")]);
        assert_eq!(parse_body("", b"a=b"), [pair("a", "b")]);
        assert_eq!(parse_body(kind, b"--a b\r\n\r\n\r\nx"), []);
    }

    #[test]
    fn forms_keep_order_and_repeats() {
        let form = parse(b"cmd=bin%2Fx&cmdArg=a+b&cmdArg=%zz&env=K%3DV&empty");
        assert_eq!(get(&form, "cmd"), Some("bin/x"));
        assert_eq!(all(&form, "cmdArg").collect::<Vec<_>>(), ["a b", "%zz"]);
        assert_eq!(get(&form, "empty"), Some(""));
        let pairs = [("host", "a&b=c d%"), ("more", "")];
        let back: Vec<_> = pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        assert_eq!(parse(encode(&pairs).as_bytes()), back);
        assert!(is_true(Some("T")) && !is_true(Some("yes")) && !is_true(None));
    }
}
