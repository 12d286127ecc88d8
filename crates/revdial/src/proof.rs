//! What a machine with a key of its own signs, and how the headers are called that carry it.
//!
//! A machine registers with [`IDENTITY`] in place of a builder key. The coordinator answers 401 with a fresh
//! [`CHALLENGE`]; the machine asks again on the same connection with [`PROOF`], its signature of
//! [`registration`]. Enrolment is one request that is signed over its token. All in Ed25519.

/// Header of `/reverse`: the machine's public key, 64 hex digits.
pub const IDENTITY: &str = "x-burrow-identity";
/// Header of the answer that asks for a proof: 64 hex digits that were never used before.
pub const CHALLENGE: &str = "burrow-challenge";
/// Header of the second request: a signature, 128 hex digits.
pub const PROOF: &str = "x-burrow-proof";
/// Where a machine shows its enrolment token: `POST` of a form with `token`, `public_key`, `hostname`, `proof`.
pub const ENROL: &str = "/burrow/enroll";

/// What is signed at a registration. Nothing of it can hold a line's end: header values have none.
pub fn registration(challenge: &str, identity: &str, hostname: &str, instance: &str) -> String {
    format!("burrow-register 1\n{challenge}\n{identity}\n{hostname}\n{instance}\n")
}

/// What is signed at an enrolment.
pub fn enrolment(token: &str, identity: &str, hostname: &str) -> String {
    format!("burrow-enroll 1\n{token}\n{identity}\n{hostname}\n")
}

/// Lower-case digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of exactly `N` bytes, in lower case: one key has one spelling.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_stays_as_it_is() {
        assert_eq!(
            registration("c", "i", "h", "n"),
            "burrow-register 1\nc\ni\nh\nn\n"
        );
        assert_eq!(enrolment("t", "i", "h"), "burrow-enroll 1\nt\ni\nh\n");
    }

    #[test]
    fn hex_is_of_one_length_and_case() {
        assert_eq!(unhex::<2>("0fa0"), Some([15, 160]));
        assert_eq!(hex(&[15, 160]), "0fa0");
        for bad in ["", "0fa", "0fa00", "0FA0", "0fg0", "äa"] {
            assert_eq!(unhex::<2>(bad), None, "{bad}");
        }
    }
}
