use std::fmt;
use std::path::Path;

/// Answers git's question for a login from two variables, which only this user's processes can read.
const HELPER: &str = "!f() { test \"$1\" = get || exit 0; \
                      printf 'username=%s\\npassword=%s\\n' \"$BURROW_GIT_USER\" \"$BURROW_GIT_PASSWORD\"; }; f";

/// Where a mirror is fetched from: anything that git fetches from. A login in it is kept apart and
/// reaches git by its environment, so that neither the process list nor a message shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    address: String,
    login: Option<Login>,
}

#[derive(Clone, PartialEq, Eq)]
struct Login {
    /// `https://host:port`: nobody else is told.
    place: String,
    user: String,
    password: String,
}

impl Upstream {
    /// Any text is an address; whether it leads anywhere shows when it is fetched from.
    pub fn new(url: &str) -> Upstream {
        let plain = || Upstream {
            address: url.to_owned(),
            login: None,
        };
        let Some((scheme, rest)) = url.split_once("://") else {
            return plain();
        };
        let Some((user_part, place)) = split_user(rest) else {
            return plain();
        };
        let (user, password) = user_part.split_once(':').unwrap_or((user_part, ""));
        if !matches!(scheme, "http" | "https") {
            // ssh asks keys, never an address, for a password.
            return Upstream {
                address: format!("{scheme}://{user}@{place}"),
                login: None,
            };
        }
        let host = place.split(['/', '?', '#']).next().unwrap_or_default();
        Upstream {
            address: format!("{scheme}://{place}"),
            login: Some(Login {
                place: format!("{scheme}://{host}"),
                user: decoded(user),
                password: decoded(password),
            }),
        }
    }

    /// What git is given, and what may be shown: without password.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The environment in which git can log in; empty without a login.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let Some(login) = &self.login else {
            return Vec::new();
        };
        vec![
            ("GIT_CONFIG_COUNT", "1".to_owned()),
            ("GIT_CONFIG_KEY_0", format!("credential.{}.helper", login.place)),
            ("GIT_CONFIG_VALUE_0", HELPER.to_owned()),
            ("BURROW_GIT_USER", login.user.clone()),
            ("BURROW_GIT_PASSWORD", login.password.clone()),
        ]
    }

    /// What makes git serve a repository on this disk that belongs to another user: its name is in the
    /// configuration, so it and no other is trusted. `None` for an upstream elsewhere.
    pub(crate) fn upload_pack(&self) -> Option<String> {
        let path = Path::new(self.address.strip_prefix("file://").unwrap_or(&self.address));
        if !path.is_absolute() {
            return None;
        }
        let real = std::fs::canonicalize(path).ok();
        let mut command = "git".to_owned();
        for place in std::iter::once(path).chain(real.as_deref().filter(|real| *real != path)) {
            for place in [place.to_owned(), place.join(".git")] {
                let quoted = place.to_string_lossy().replace('\'', r"'\''");
                command += &format!(" -c safe.directory='{quoted}'");
            }
        }
        Some(command + " upload-pack")
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// The user part of what follows `://`, and what follows its `@`. A password may hold an `@`, and a `/`
/// that nobody escaped: then what would be the port is no number.
fn split_user(rest: &str) -> Option<(&str, &str)> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let at = match rest[..end].rfind('@') {
        Some(at) => at,
        None => {
            let (_, port) = rest[..end].split_once(':')?;
            let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
            rest.rfind('@').filter(|_| !is_port && !rest.starts_with('['))?
        }
    };
    Some((&rest[..at], &rest[at + 1..]))
}

/// Without percent signs. What would be no line of text stays as it is written: git reads lines.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let code = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match code.filter(|_| *first == b'%') {
            Some(code) => {
                bytes.push(code);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|decoded| !decoded.chars().any(char::is_control))
        .unwrap_or_else(|| text.to_owned())
}

/// `https://user:password@host` as `https://…@host`, wherever it stands in a text.
pub(crate) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c == '/' || c == '\'' || c.is_whitespace())
            .unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(user) => {
                out.push('…');
                rest = &after[user..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_taken_out_of_the_address() {
        for (url, address, login) in [
            ("https://h/x", "https://h/x", None),
            ("https://h:81/x@y", "https://h:81/x@y", None),
            ("https://[::1]:81/x@y", "https://[::1]:81/x@y", None),
            ("/srv/a@b:c", "/srv/a@b:c", None),
            ("git@h:x.git", "git@h:x.git", None),
            ("file:///srv/a@b", "file:///srv/a@b", None),
            (
                "https://u:p@h:81/x",
                "https://h:81/x",
                Some(("https://h:81", "u", "p")),
            ),
            (
                "https://token@h/x",
                "https://h/x",
                Some(("https://h", "token", "")),
            ),
            ("http://u:p%40%2f%@h", "http://h", Some(("http://h", "u", "p@/%"))),
            (
                "https://u:p@q@h/x",
                "https://h/x",
                Some(("https://h", "u", "p@q")),
            ),
            (
                "https://u:p/q@h/x",
                "https://h/x",
                Some(("https://h", "u", "p/q")),
            ),
            (
                "https://u:p%0aq@h/x",
                "https://h/x",
                Some(("https://h", "u", "p%0aq")),
            ),
            ("ssh://git:secret@h/x", "ssh://git@h/x", None),
            ("ssh://git@h/x", "ssh://git@h/x", None),
        ] {
            let upstream = Upstream::new(url);
            assert_eq!(upstream.address(), address, "{url}");
            assert_eq!(format!("{upstream:?}"), address, "{url}");
            let found = upstream.login.as_ref();
            let found = found.map(|l| (l.place.as_str(), l.user.as_str(), l.password.as_str()));
            assert_eq!(found, login, "{url}");
        }
    }

    #[test]
    fn only_a_repository_on_this_disk_is_trusted_by_name() {
        assert_eq!(Upstream::new("https://h/x").upload_pack(), None);
        assert_eq!(
            Upstream::new("file:///no/it's").upload_pack().as_deref(),
            Some(r"git -c safe.directory='/no/it'\''s' -c safe.directory='/no/it'\''s/.git' upload-pack")
        );
    }

    #[test]
    fn passwords_in_addresses_are_hidden() {
        assert_eq!(
            redact("fatal: 'https://me:se@cret@host/x' and ssh://git@h"),
            "fatal: 'https://…@host/x' and ssh://…@h"
        );
        assert_eq!(redact("no address: a@b"), "no address: a@b");
    }
}
