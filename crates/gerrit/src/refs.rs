//! What `git ls-remote` prints, and what the names in it mean.

/// A ref of a server and the object it is at, as 40 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ref<'a> {
    /// In full; `HEAD`; or `refs/tags/T^{}`, which is what the tag `T` is of.
    pub name: &'a str,
    pub hash: &'a str,
}

/// What a ref is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The newest step of a change.
    Meta {
        change: u32,
    },
    PatchSet {
        change: u32,
        number: u32,
    },
    /// A branch, a tag, `HEAD`, a note.
    Other,
    /// The server's own: accounts, settings, robots' comments, edits that are not published.
    Internal,
}

/// The whole listing is refused: half of one would look as if the other half were deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the listing of refs is `{found}`; wanted 40 hex digits, a tab and a name")]
pub struct BadListing {
    pub line: usize,
    pub found: String,
}

/// Reads a listing. Names that git would not have made are left out.
pub fn listing(printed: &[u8]) -> Result<Vec<Ref<'_>>, BadListing> {
    let mut refs = Vec::new();
    for (at, line) in printed.split(|b| *b == b'\n').enumerate() {
        if line.is_empty() || line.starts_with(b"From ") {
            continue;
        }
        let bad = || BadListing {
            line: at + 1,
            found: String::from_utf8_lossy(&line[..line.len().min(100)]).into_owned(),
        };
        let (hash, name) = line.split_at_checked(40).ok_or_else(bad)?;
        let name = name.strip_prefix(b"\t").ok_or_else(bad)?;
        let hash = str::from_utf8(hash)
            .ok()
            .filter(|hash| is_hash(hash))
            .ok_or_else(bad)?;
        if let Ok(name) = str::from_utf8(name)
            && is_name(name)
        {
            refs.push(Ref { name, hash });
        }
    }
    Ok(refs)
}

fn is_hash(hash: &str) -> bool {
    hash.bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// As git's `check-ref-format` has it, where it matters for a command line.
fn is_name(name: &str) -> bool {
    let name = name.strip_suffix("^{}").unwrap_or(name);
    let odd = |c: char| c.is_ascii_control() || " ~^:?*[\\".contains(c);
    name == "HEAD" || name.starts_with("refs/") && !name.contains(odd) && !name.contains("..")
}

/// Source: golang/build `maintner/gerrit.go` for what is internal.
pub fn kind(name: &str) -> Kind {
    if let Some(rest) = name.strip_prefix("refs/changes/") {
        return change(rest).unwrap_or(Kind::Internal);
    }
    let internal = ["refs/users/", "refs/meta/", "refs/cache-automerge/"];
    match internal.iter().any(|prefix| name.starts_with(prefix)) {
        true => Kind::Internal,
        false => Kind::Other,
    }
}

/// `34/1234/5` or `34/1234/meta`.
fn change(rest: &str) -> Option<Kind> {
    let (_shard, rest) = rest.split_once('/')?;
    let (change, last) = rest.split_once('/')?;
    let change = number(change)?;
    Some(match last {
        "meta" => Kind::Meta { change },
        number => Kind::PatchSet {
            change,
            number: self::number(number)?,
        },
    })
}

/// From 1 to 2^31 - 1, which is what the log has room for.
fn number(digits: &str) -> Option<u32> {
    let number: u32 = digits.parse().ok()?;
    let all = digits.bytes().all(|b| b.is_ascii_digit());
    Some(number).filter(|number| all && *number > 0 && i32::try_from(*number).is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "51ca4ffe073a68d32f44af9e87f6ed1249b6de2f";

    #[test]
    fn a_listing_is_hashes_and_names() {
        let printed =
            format!("From https://x\n{HASH}\tHEAD\n{HASH}\trefs/tags/a^{{}}\n{HASH}\trefs/heads/a b\n");
        let names: Vec<&str> = listing(printed.as_bytes())
            .unwrap()
            .iter()
            .map(|r| r.name)
            .collect();
        assert_eq!(names, ["HEAD", "refs/tags/a^{}"]);
        assert_eq!(listing(b"").unwrap(), []);
    }

    #[test]
    fn a_torn_listing_is_refused() {
        for bad in [
            &HASH[..39],
            HASH,
            "x\ty",
            &format!("{HASH} refs/heads/a"),
            &format!("{}\ta", HASH.to_uppercase()),
        ] {
            let printed = format!("{HASH}\tHEAD\n{bad}");
            assert_eq!(listing(printed.as_bytes()).unwrap_err().line, 2, "{bad}");
        }
    }

    #[test]
    fn names_tell_what_a_ref_is_for() {
        let check = |name: &str, expect: Kind| assert_eq!(kind(name), expect, "{name}");
        check("refs/changes/34/1234/meta", Kind::Meta { change: 1234 });
        check(
            "refs/changes/34/1234/10",
            Kind::PatchSet {
                change: 1234,
                number: 10,
            },
        );
        check("HEAD", Kind::Other);
        check("refs/heads/refs/changes/01/1/1", Kind::Other);
        check("refs/tags/go1^{}", Kind::Other);
        for internal in [
            "refs/changes/34/1234/robot-comments",
            "refs/changes/34/1234/0",
            "refs/changes/34/1234/+1",
            "refs/changes/34/2147483648/1",
            "refs/changes/34/x/1",
            "refs/changes/34/1234/meta/x",
            "refs/changes/34",
            "refs/users/01/1/edit-1/1",
            "refs/meta/config",
            "refs/cache-automerge/ab/cd",
        ] {
            check(internal, Kind::Internal);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_git_prints_makes_it_panic(printed in "[0-9a-f\t\nHEADrefs/ .^{}é]{0,200}") {
            if let Ok(refs) = listing(printed.as_bytes()) {
                for found in refs {
                    kind(found.name);
                }
            }
        }
    }
}
