use std::fmt;
use std::str::FromStr;

/// The full name of a git object: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GitHash(Box<str>);

/// What is no full git hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a full git hash; wanted 40 or 64 lower-case hex digits")]
pub struct BadHash(pub String);

impl GitHash {
    pub fn parse(text: &str) -> Result<GitHash, BadHash> {
        let hex = text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex && (text.len() == 40 || text.len() == 64) {
            Ok(GitHash(text.into()))
        } else {
            Err(BadHash(text.chars().take(80).collect()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first seven digits: what pages and messages show.
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}

impl FromStr for GitHash {
    type Err = BadHash;
    fn from_str(text: &str) -> Result<GitHash, BadHash> {
        GitHash::parse(text)
    }
}

impl fmt::Display for GitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_lower_case_hex_is_a_hash() {
        let sha1 = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(GitHash::parse(sha1).unwrap().as_str(), sha1);
        assert_eq!(GitHash::parse(sha1).unwrap().short(), "0123456");
        let sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        assert!(GitHash::parse(sha256).is_ok());
        for bad in ["", "0123456", "HEAD", &sha1.to_uppercase(), &sha1[1..]] {
            assert_eq!(GitHash::parse(bad), Err(BadHash(bad.to_owned())));
        }
    }
}
