//! Which releases there are, by the names of tags and branches.

use std::collections::BTreeMap;

use corpus::ProjectView;

use super::{GoRelease, Refusal};

/// A number of three digits at most, as one writes it.
fn number(text: &str) -> Option<i32> {
    let written = text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
    let written = written && (text.len() == 1 || !text.starts_with('0'));
    written.then(|| text.parse().ok()).flatten()
}

/// `go1`, `go1.21`, `go1.21.3`: major, minor, patch.
pub(super) fn of_tag(tag: &str) -> Option<(i32, i32, i32)> {
    let mut parts = tag.strip_prefix("go")?.split('.');
    let major = number(parts.next()?).filter(|major| *major > 0)?;
    let minor = parts.next().map_or(Some(0), number)?;
    let patch = parts.next().map_or(Some(0), number)?;
    parts.next().is_none().then_some((major, minor, patch))
}

/// `release-branch.go1`, `release-branch.go1.21`; a minor number 0 is not written.
pub(super) fn of_branch(branch: &str) -> Option<(i32, i32)> {
    let version = branch.strip_prefix("release-branch.")?;
    let (major, minor, _) = of_tag(version).filter(|_| version.matches('.').count() < 2)?;
    (!version.ends_with(".0")).then_some((major, minor))
}

/// `internal-branch.go1.21-vendor`.
pub(super) fn of_internal_branch(branch: &str) -> Option<(i32, i32)> {
    let (version, suffix) = branch.strip_prefix("internal-branch.")?.split_once('-')?;
    let (major, minor, _) = of_tag(version).filter(|(_, _, patch)| *patch == 0 && !suffix.is_empty())?;
    Some((major, minor))
}

/// The two newest that have a tag and a branch, the newer first.
pub(super) fn supported(project: ProjectView<'_>) -> Result<Vec<GoRelease>, Refusal> {
    let refs = project
        .refs()
        .map(|(name, commit)| (name, commit.hash().to_string()));
    let mut found = among(refs);
    if found.len() < 2 {
        let why = "there was a problem finding supported Go releases";
        return Err(Refusal::Other(why.to_owned()));
    }
    found.truncate(2);
    Ok(found)
}

fn among<'a>(refs: impl Iterator<Item = (&'a str, String)>) -> Vec<GoRelease> {
    let mut releases: BTreeMap<(i32, i32), GoRelease> = BTreeMap::new();
    for (name, commit) in refs {
        if let Some((tag, (major, minor, patch))) = name
            .strip_prefix("refs/tags/")
            .and_then(|tag| Some((tag, of_tag(tag)?)))
        {
            let known = releases.entry((major, minor)).or_default();
            if known.tag_name.is_empty() || patch > known.patch {
                (known.major, known.minor, known.patch) = (major, minor, patch);
                (known.tag_name, known.tag_commit) = (tag.to_owned(), commit);
            }
        } else if let Some((branch, version)) = name
            .strip_prefix("refs/heads/")
            .and_then(|branch| Some((branch, of_branch(branch)?)))
        {
            let known = releases.entry(version).or_default();
            (known.branch_name, known.branch_commit) = (branch.to_owned(), commit);
        }
    }
    let whole = |release: &GoRelease| !release.tag_name.is_empty() && !release.branch_name.is_empty();
    releases.into_values().rev().filter(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_versions_as_they_are_written() {
        let tag = |text: &str| of_tag(text).map(|(a, b, c)| format!("{a}.{b}.{c}"));
        for (text, expect) in [
            ("go1", Some("1.0.0")),
            ("go1.21", Some("1.21.0")),
            ("go1.21.3", Some("1.21.3")),
            ("go999.999.999", Some("999.999.999")),
            ("go1.2.3.4", None),
            ("go1.2rc1", None),
            ("go1.02", None),
            ("go0.1", None),
            ("go1000", None),
            ("go", None),
            ("1.2", None),
            ("go1.", None),
            ("go+1", None),
        ] {
            assert_eq!(tag(text).as_deref(), expect, "{text}");
        }
        assert_eq!(of_branch("release-branch.go1"), Some((1, 0)));
        assert_eq!(of_branch("release-branch.go1.21"), Some((1, 21)));
        for odd in [
            "release-branch.go1.0",
            "release-branch.go1.2.3",
            "release-branch.r60",
            "go1.2",
        ] {
            assert_eq!(of_branch(odd), None, "{odd}");
        }
        assert_eq!(of_internal_branch("internal-branch.go1.16-vendor"), Some((1, 16)));
        for odd in [
            "internal-branch.go1.16",
            "internal-branch.go1.16-",
            "internal-branch.go1.16.1-x",
        ] {
            assert_eq!(of_internal_branch(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_release_has_a_tag_and_a_branch_and_its_newest_patch() {
        let refs = [
            "refs/heads/release-branch.go1.9",
            "refs/heads/release-branch.go1.10",
            "refs/heads/release-branch.go1.12",
            "refs/tags/go1.10",
            "refs/tags/go1.10.10",
            "refs/tags/go1.10.9",
            "refs/tags/go1.11",
            "refs/tags/go1.9.2",
            "refs/tags/go1.12rc1",
        ];
        let found = among(refs.iter().map(|name| (*name, format!("of {name}"))));
        let tags: Vec<&str> = found.iter().map(|release| &release.tag_name[..]).collect();
        assert_eq!(tags, ["go1.10.10", "go1.9.2"]);
        assert_eq!(found[0].tag_commit, "of refs/tags/go1.10.10");
        assert_eq!(found[0].branch_commit, "of refs/heads/release-branch.go1.10");
    }
}
