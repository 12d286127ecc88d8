use std::fmt;
use std::str::FromStr;

/// Why a text is no name of the kind that was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a {kind}; {rule}")]
pub struct BadName {
    pub kind: &'static str,
    pub found: String,
    pub rule: &'static str,
}

const PLAIN_RULE: &str =
    "wanted 1 to 100 of letters, digits, `.`, `_`, `-`, beginning with a letter or digit";

fn is_plain(text: &str) -> bool {
    text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && !text.contains("..")
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $rule:expr, $ok:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Box<str>);

        impl $type {
            pub fn parse(text: &str) -> Result<$type, BadName> {
                let ok: fn(&str) -> bool = $ok;
                if ok(text) {
                    Ok($type(text.into()))
                } else {
                    let found = text.chars().take(120).collect();
                    Err(BadName { kind: $kind, found, rule: $rule })
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = BadName;
            fn from_str(text: &str) -> Result<$type, BadName> {
                $type::parse(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// One row of the build matrix: `linux-amd64-race`.
    BuilderName, "builder name", PLAIN_RULE, is_plain
);
name!(
    /// A kind of machine: `linux-std`, `host-linux-arm5spacemonkey`.
    HostType, "host type", PLAIN_RULE, is_plain
);
name!(
    /// A repository as the farm calls it: `widget`.
    RepoName, "repository name", PLAIN_RULE, is_plain
);
name!(
    /// What to run for a repository: a table `[recipe.NAME]`.
    RecipeName, "recipe name", PLAIN_RULE, is_plain
);
name!(
    /// One machine, stable over reconnects where its buildlet can tell: `local-1`, `mac7.4f2a`.
    MachineId, "machine name",
    "wanted 1 to 200 printable ASCII characters without spaces or `/`",
    |text| {
        !text.is_empty()
            && text.len() <= 200
            && text.chars().all(|c| c.is_ascii_graphic() && c != '/')
    }
);
name!(
    /// A branch without `refs/heads/`: `master`, `release/1.2`. The rules are git's
    /// (`git check-ref-format --branch`).
    BranchName, "branch name",
    "wanted what `git check-ref-format --branch` takes, such as `main` or `release/1.2`",
    is_branch
);

fn is_branch(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 250
        && !text.starts_with('-')
        && text != "@"
        && text != "HEAD"
        && !text.ends_with('.')
        && !text.contains("..")
        && !text.contains("@{")
        && text
            .chars()
            .all(|c| !c.is_control() && !matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\'))
        && text
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names() {
        for good in ["a", "linux-amd64-13_0", "host-linux-arm5spacemonkey", "x.y"] {
            assert_eq!(BuilderName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "a..b", "ä", "<b>"] {
            assert!(BuilderName::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            RepoName::parse("a b").unwrap_err().to_string(),
            format!("`a b` is not a repository name; {PLAIN_RULE}")
        );
    }

    #[test]
    fn branch_names_follow_git() {
        for good in ["master", "release/1.2", "dev.x", "ünï", "a-b"] {
            assert!(BranchName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "", "-x", "a..b", "a b", "a~1", "@{1}", "@", "a.lock", "a//b", "/a", "a/", ".a", "a\n",
        ] {
            assert!(BranchName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
