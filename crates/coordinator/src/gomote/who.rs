use buildlet_api::MasterKey;
use store::StoreError;
use store::read::{Role, TokenRow};
use web::{Client, ConnectionInfo, TokenError, Tokens};

use super::wire::{Refusal, refusal};
use crate::engine;

/// Whose machines a request is about: `user-amy`.
///
/// A person shows `Authorization: Basic` with `user-NAME` and either the original's key of that name or a burrow token
/// called NAME, or `Authorization: Bearer` with a token. Never over a wire that others can read.
pub async fn owner(
    authorization: &str,
    client: Client,
    connection: ConnectionInfo,
    master: &MasterKey,
    tokens: &Tokens,
) -> Result<String, Refusal> {
    let shown = shown(authorization).ok_or_else(|| refusal(400, "missing required authentication"))?;
    if !connection.tls && !connection.peer.ip().is_loopback() {
        return Err(refusal(400, "https required"));
    }
    let (user, secret) = match &shown {
        Shown::Basic(user, secret) => (Some(user.as_str()), secret.as_str()),
        Shown::Bearer(secret) => (None, secret.as_str()),
    };
    let name = user.map(|user| user.strip_prefix("user-").unwrap_or_default());
    if name.is_some_and(|name| !is_plain(name)) {
        return Err(refusal(401, "bad username or password"));
    }
    // The name belongs to the guess: a key is derived from it.
    let look = async {
        if let Some(user) = user.filter(|user| master.accepts(user, secret)) {
            return Ok(Some(Known::Key(user.to_owned())));
        }
        let token = tokens.store().check_token(secret, engine::wall()).await?;
        let token = token.filter(|token| name.is_none_or(|name| name == token.name));
        Ok::<_, StoreError>(token.map(Known::Token))
    };
    let known = tokens.counted(client, authorization, look).await;
    let known = known.map_err(|why| match why {
        TokenError::TooMany => refusal(429, why.to_string()),
        TokenError::Store(why) => refusal(503, format!("{:#}", anyhow::Error::from(why))),
    })?;
    match known {
        None => Err(refusal(401, "bad username or password")),
        Some(Known::Key(user)) => Ok(user),
        Some(Known::Token(token)) if token.role < Role::Contributor => {
            Err(refusal(401, "this token only reads; a contributor's is needed"))
        }
        Some(Known::Token(token)) if !is_plain(&token.name) => Err(refusal(
            401,
            "this token's name cannot name machines; make one called with letters, digits and `-` only",
        )),
        Some(Known::Token(token)) => Ok(format!("user-{}", token.name)),
    }
}

/// What somebody has shown that is good.
enum Known {
    Key(String),
    Token(TokenRow),
}

/// What can stand in the name of a loan.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=60).contains(&name.len()) && name.chars().all(plain)
}

#[derive(Debug, PartialEq)]
enum Shown {
    Basic(String, String),
    Bearer(String),
}

fn shown(authorization: &str) -> Option<Shown> {
    let (scheme, rest) = authorization.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Shown::Bearer(rest.trim().to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = String::from_utf8(base64(rest.trim())?).ok()?;
    let (user, secret) = plain.split_once(':')?;
    Some(Shown::Basic(user.to_owned(), secret.to_owned()))
}

/// The bytes that `text` stands for, with padding or without.
fn base64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut word = 0u32;
        for digit in group {
            let value = DIGITS.iter().position(|known| known == digit)?;
            word = word << 6 | u32::try_from(value).ok()?;
        }
        word <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len().max(1)]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_show_is_read() {
        let basic = |user: &str, secret: &str| Some(Shown::Basic(user.to_owned(), secret.to_owned()));
        assert_eq!(shown("Basic dXNlci1hbXk6a2V5"), basic("user-amy", "key"));
        assert_eq!(shown("basic dXNlci1hbXk6a2U="), basic("user-amy", "ke"));
        assert_eq!(shown("Basic dXNlci1hbXk6a2V5Og=="), basic("user-amy", "key:"));
        assert_eq!(shown("Bearer  bt_x"), Some(Shown::Bearer("bt_x".to_owned())));
        for bad in ["", "Basic", "Basic dXNlcg==", "Basic *", "Digest x=y"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_of_people_can_stand_in_a_header() {
        for good in ["amy", "amy-b", "a.b_c9"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["", "a b", "ä", "a/b", "a\n"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
