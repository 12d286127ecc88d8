//! Hides secrets in what a step prints. Pure.

/// Shorter ones would turn half a log into stars.
pub const SECRET_MIN: usize = 8;

/// What must not be printed: each value, and each line of one that has several.
#[derive(Clone, Default)]
pub struct Secrets {
    /// The longest first: where one begins with another, all of it goes.
    needles: Vec<Vec<u8>>,
    first: Vec<bool>,
}

impl Secrets {
    pub fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Secrets {
        let mut needles: Vec<Vec<u8>> = Vec::new();
        for value in values {
            let lines = value.split(|byte| *byte == b'\n');
            let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            needles.extend(lines.filter(|line| line.len() >= SECRET_MIN).map(<[u8]>::to_vec));
        }
        needles.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        needles.dedup();
        let mut first = vec![false; 256];
        needles
            .iter()
            .for_each(|needle| first[usize::from(needle[0])] = true);
        Secrets { needles, first }
    }

    pub fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }
}

/// A stream in which secrets are overwritten with `*`, byte for byte, so that places in it stay what they are.
#[derive(Default)]
pub struct Mask {
    secrets: Secrets,
    /// The end of what came, while it may be the beginning of a secret.
    held: Vec<u8>,
}

impl Mask {
    pub fn new(secrets: Secrets) -> Mask {
        Mask {
            secrets,
            held: Vec::new(),
        }
    }

    /// Bytes that came and were not given out yet.
    pub fn held(&self) -> u64 {
        self.held.len() as u64
    }

    /// What may be written now that `piece` came.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(piece);
        let mut at = 0;
        while at < bytes.len() {
            if !self.secrets.first[usize::from(bytes[at])] {
                at += 1;
                continue;
            }
            let rest = &bytes[at..];
            let whole = self
                .secrets
                .needles
                .iter()
                .find(|needle| rest.starts_with(needle));
            let longer = |needle: &&Vec<u8>| needle.len() > rest.len() && needle.starts_with(rest);
            if self.secrets.needles.iter().any(|needle| longer(&needle)) {
                // More may come that makes it a secret, or a longer one.
                break;
            }
            let Some(len) = whole.map(Vec::len) else {
                at += 1;
                continue;
            };
            bytes[at..at + len].fill(b'*');
            at += len;
        }
        self.held = bytes.split_off(at);
        bytes
    }

    /// What is left when nothing more comes.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.held);
        // A secret that is the beginning of another waited for the rest of that.
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let whole = self
                .secrets
                .needles
                .iter()
                .find(|needle| rest.starts_with(needle));
            match whole.map(Vec::len) {
                Some(len) => {
                    bytes[at..at + len].fill(b'*');
                    at += len;
                }
                None => at += 1,
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(secrets: &[&str], pieces: &[&[u8]]) -> String {
        let mut mask = Mask::new(Secrets::new(secrets.iter().map(|secret| secret.as_bytes())));
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(mask.feed(piece));
        }
        out.extend(mask.finish());
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_secret_is_hidden_wherever_it_is_cut_and_nothing_moves() {
        let secrets = ["hunter2-hunter2", "abcabcabd"];
        let text = "a hunter2-hunter2b abcabcabcabd hunter2-hunter hunter2-hunter2hunter2-hunter2\nabcabcab";
        let wanted =
            "a ***************b abc********* hunter2-hunter ******************************\nabcabcab";
        for cut in 0..=text.len() {
            for second in cut..=text.len() {
                let bytes = text.as_bytes();
                let pieces = [&bytes[..cut], &bytes[cut..second], &bytes[second..]];
                assert_eq!(masked(&secrets, &pieces), wanted, "cut at {cut} and {second}");
            }
        }
        let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(masked(&secrets, &single), wanted);
    }

    #[test]
    fn what_was_given_out_never_ends_within_a_secret() {
        let secret = b"correct horse battery";
        let mut mask = Mask::new(Secrets::new([&secret[..]]));
        for end in 1..secret.len() {
            let mut own = Mask::new(Secrets::new([&secret[..]]));
            assert_eq!(own.feed(&secret[..end]), b"", "{end}");
            assert_eq!(own.held(), end as u64);
        }
        assert_eq!(
            mask.feed(b"so: correct horse batterX"),
            b"so: correct horse batterX"
        );
        assert_eq!(mask.held(), 0);
    }

    #[test]
    fn of_two_that_begin_alike_the_longer_goes_and_the_shorter_too() {
        let secrets = ["password", "password-and-more"];
        assert_eq!(masked(&secrets, &[b"password-and-more"]), "*****************");
        assert_eq!(masked(&secrets, &[b"password-and-less"]), "********-and-less");
        assert_eq!(masked(&secrets, &[b"password"]), "********");
        assert_eq!(masked(&secrets, &[b"password-and", b"-m"]), "********-and-m");
    }

    #[test]
    fn a_key_of_several_lines_is_hidden_line_by_line() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n\nab\n-----END KEY-----\n";
        let shown = masked(&[key], &[b"x MIIEvQIBADANBg y\r\n-----END KEY-----\r\nab"]);
        assert_eq!(shown, "x ************** y\r\n*****************\r\nab");
    }

    #[test]
    fn without_secrets_nothing_is_hidden() {
        assert!(Secrets::new([&b"short"[..], b""]).is_empty());
    }
}
