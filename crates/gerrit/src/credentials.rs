//! Who we are to a server: from `.gitcookies` or `.netrc`.

use ids::Timestamp;

/// What goes into the header of a request. Not shown, not printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Cookie(String),
    Basic { user: String, password: String },
}

/// Reads a file of cookies as curl writes it: those for `host` that hold at `now`, in one header.
pub fn from_gitcookies(text: &str, host: &str, now: Timestamp) -> Option<Credentials> {
    let cookies: Vec<String> = text
        .lines()
        .map(|line| line.strip_prefix("#HttpOnly_").unwrap_or(line))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [domain, _subdomains, _path, _secure, expires, name, value] = fields[..] else {
                return None;
            };
            let expires: i64 = expires.parse().ok()?;
            let ours = match domain.strip_prefix('.') {
                Some(parent) => host == parent || host.ends_with(domain),
                None => host == domain,
            };
            let holds = expires == 0 || expires > now.as_secs();
            (ours && holds).then(|| format!("{name}={value}"))
        })
        .collect();
    (!cookies.is_empty()).then(|| Credentials::Cookie(cookies.join("; ")))
}

/// Reads a `.netrc`: the entry for `host`, else the default.
pub fn from_netrc(text: &str, host: &str) -> Option<Credentials> {
    let mut words = text
        .lines()
        .map(|line| line.split(" #").next().unwrap_or_default())
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace);
    let mut ours = false;
    let (mut user, mut password) = (None, None);
    while let Some(word) = words.next() {
        let next = match word {
            "machine" => words.next()? == host,
            "default" => true,
            "login" | "user" => {
                let value = words.next()?;
                user = Some(value).filter(|_| ours).or(user);
                continue;
            }
            "password" => {
                let value = words.next()?;
                password = Some(value).filter(|_| ours).or(password);
                continue;
            }
            _ => continue,
        };
        if ours {
            break;
        }
        ours = next;
    }
    Some(Credentials::Basic {
        user: user?.to_owned(),
        password: password?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(credentials: Option<Credentials>) -> String {
        match credentials {
            Some(Credentials::Cookie(header)) => header,
            Some(Credentials::Basic { user, password }) => format!("{user}:{password}"),
            None => "-".to_owned(),
        }
    }

    #[test]
    fn cookies_are_those_of_the_host_that_have_not_expired() {
        let file = "# note\n\
            a.example\tFALSE\t/\tTRUE\t200\to\tgit-me=secret\n\
            .example\tTRUE\t/\tTRUE\t0\tp\tq\n\
            #HttpOnly_a.example\tFALSE\t/\tTRUE\t100\told\tx\n\
            b.example\tFALSE\t/\tTRUE\t0\to\tother\n\
            torn\tline\n";
        let check = |host: &str, expect: &str| {
            let found = from_gitcookies(file, host, Timestamp::from_secs(150));
            assert_eq!(shown(found), expect, "{host}");
        };
        check("a.example", "o=git-me=secret; p=q");
        check("b.example", "p=q; o=other");
        check("example", "p=q");
        check("badexample", "-");
    }

    #[test]
    fn a_netrc_has_one_entry_for_a_host() {
        let file = "# mine\nmachine a.example login me password s#cret # why\nmachine b.example\n  password p\n  login you\nmachine c.example login x\ndefault login any password thing\n";
        let check = |host: &str, expect: &str| assert_eq!(shown(from_netrc(file, host)), expect, "{host}");
        check("a.example", "me:s#cret");
        check("b.example", "you:p");
        check("c.example", "-");
        check("d.example", "any:thing");
        assert_eq!(shown(from_netrc("machine", "a")), "-");
    }
}
