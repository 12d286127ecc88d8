use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

use crate::StoreError;

const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// 190 bits of chance in letters that survive copying.
const LENGTH: usize = 32;

/// `prefix` and 32 random letters and digits.
pub(crate) fn make(prefix: &str) -> Result<String, StoreError> {
    let mut secret = prefix.to_owned();
    let random = SystemRandom::new();
    let mut bytes = [0; 64];
    while secret.len() < prefix.len() + LENGTH {
        random
            .fill(&mut bytes)
            .map_err(|_| StoreError::Unavailable("the system gave no random numbers".into()))?;
        // 248 is 4 * 62: bytes above it would make some letters likelier than others.
        let fair = bytes.iter().filter(|byte| **byte < 248);
        let room = prefix.len() + LENGTH - secret.len();
        secret.extend(
            fair.take(room)
                .map(|byte| char::from(LETTERS[usize::from(byte % 62)])),
        );
    }
    Ok(secret)
}

/// What is stored of a secret: its SHA-256 in hex. Looking it up by this tells a guesser nothing
/// about how near the guess was.
pub(crate) fn hash(secret: &str) -> String {
    let digest = digest::digest(&digest::SHA256, secret.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_differ() {
        let (one, two) = (make("bt_").unwrap(), make("bt_").unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 3 + LENGTH);
        assert!(
            one.starts_with("bt_") && one[3..].bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "{one}"
        );
    }

    #[test]
    fn a_hash_is_sha256() {
        assert_eq!(
            hash("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
