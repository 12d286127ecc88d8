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
