//! Which patch sets somebody wants built, by the votes in the corpus.

use std::io;

use corpus::{ChangeView, Corpus, ProjectView, Texts};
use tracing::info;

use super::answers::project;
use super::{
    GerritTryWorkItem, GoFindTryWorkResponse, GoRelease, MAIN, MajorMinor, Refusal, SERVER, releases,
};

/// Whoever votes 1 wants it built, and who votes on the other label has built it.
const WANTED: &str = "Run-TryBot";
const DONE: &str = "TryBot-Result";

/// What waits. Differs: the original asks the review server by REST, and passes on what comments beside
/// the votes say; the log does not have those.
pub(super) fn find<T: Texts<Error = io::Error>>(
    corpus: &Corpus,
    texts: &T,
) -> Result<GoFindTryWorkResponse, Refusal> {
    let main = project(corpus, MAIN);
    let main = main.ok_or_else(|| Refusal::Other("go gerrit project not found".to_owned()))?;
    let supported = releases::supported(main)?;
    let mut waiting = Vec::new();
    for project in corpus.projects() {
        let Some(name) = project
            .key
            .strip_prefix(SERVER)
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            continue;
        };
        for change in project.open_changes() {
            if !is_wanted(change, texts)? {
                continue;
            }
            match item(name, change, main, &supported, texts) {
                Ok(item) => waiting.push(item),
                Err(Refusal::NotFound(why)) => {
                    info!("change {} of {name} is passed over: {why}", change.number)
                }
                Err(why) => return Err(why),
            }
        }
    }
    waiting.sort_by(|a, b| a.commit.cmp(&b.commit));
    Ok(GoFindTryWorkResponse { waiting })
}

fn is_wanted<T: Texts<Error = io::Error>>(change: ChangeView<'_>, texts: &T) -> Result<bool, Refusal> {
    let votes = change.votes(texts)?;
    let wanted = votes
        .get(WANTED)
        .is_some_and(|votes| votes.values().any(|vote| vote.value == 1));
    Ok(wanted && !votes.contains_key(DONE))
}

fn item<T: Texts<Error = io::Error>>(
    name: &str,
    change: ChangeView<'_>,
    main: ProjectView<'_>,
    supported: &[GoRelease],
    texts: &T,
) -> Result<GerritTryWorkItem, Refusal> {
    let gone = |what: &str| Refusal::NotFound(format!("branch {what:?} doesn't exist"));
    let (version, _) = change.newest().ok_or_else(|| gone("of the change"))?;
    let commit = change.commit().ok_or_else(|| gone("of the change"))?;
    let branch = change.branch_name();
    let with = built_with(name, &branch, supported);
    let mut item = GerritTryWorkItem {
        project: name.to_owned(),
        change_id: change_id(&commit.message(texts)?).unwrap_or_default(),
        commit: commit.hash().to_string(),
        version,
        author_email: change
            .patch_set(1)
            .map(|first| first.author().email().to_owned())
            .unwrap_or_default(),
        branch,
        ..GerritTryWorkItem::default()
    };
    for (branch, version) in with {
        if name != MAIN {
            let head = main.commit_at(&format!("refs/heads/{branch}"));
            let head = head.ok_or_else(|| gone(&branch))?;
            item.go_commit.push(head.hash().to_string());
            item.go_branch.push(branch);
        }
        item.go_version.push(version);
    }
    Ok(item)
}

/// Branches of the main project, and which version each is of; of the main project itself, its own.
///
/// Source: golang/build `maintner/maintnerd/maintapi/api.go`.
fn built_with(project: &str, branch: &str, supported: &[GoRelease]) -> Vec<(String, MajorMinor)> {
    let newest = supported.first();
    let devel = MajorMinor {
        major: newest.map_or(1, |release| release.major),
        minor: newest.map_or(0, |release| release.minor + 1),
    };
    let version = |(major, minor)| MajorMinor { major, minor };
    if project == MAIN {
        let own = releases::of_branch(branch).map_or(devel, version);
        return vec![(branch.to_owned(), own)];
    }
    if let Some((major, minor)) = releases::of_internal_branch(branch) {
        let of = format!("release-branch.go{major}.{minor}");
        return vec![(of, version((major, minor)))];
    }
    let mut with = vec![("master".to_owned(), devel)];
    if branch == "master" || project == "tools" && branch.starts_with("gopls-release-branch.") {
        let release = |release: &GoRelease| {
            let of = version((release.major, release.minor));
            (release.branch_name.clone(), of)
        };
        with.extend(supported.iter().map(release));
    }
    with
}

/// `I` and 40 more, in a line of its own.
fn change_id(message: &str) -> Option<String> {
    let value = message.lines().find_map(|line| line.strip_prefix("Change-Id:"))?;
    let value = value.trim();
    (value.len() == 41 && value.starts_with('I')).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_built_with_what_its_branch_is_for() {
        let release = |minor: i32| GoRelease {
            major: 1,
            minor,
            branch_name: format!("release-branch.go1.{minor}"),
            ..GoRelease::default()
        };
        let check = |project: &str, branch: &str, expect: &str| {
            let found = built_with(project, branch, &[release(17), release(16)]);
            let found: Vec<String> = found
                .iter()
                .map(|(branch, version)| format!("{branch} {}.{}", version.major, version.minor))
                .collect();
            assert_eq!(found.join(", "), expect, "{project} {branch}");
        };
        check("go", "master", "master 1.18");
        check("go", "release-branch.go1.16", "release-branch.go1.16 1.16");
        check("go", "dev.link", "dev.link 1.18");
        check(
            "net",
            "master",
            "master 1.18, release-branch.go1.17 1.17, release-branch.go1.16 1.16",
        );
        check(
            "tools",
            "gopls-release-branch.0.8",
            "master 1.18, release-branch.go1.17 1.17, release-branch.go1.16 1.16",
        );
        check("net", "gopls-release-branch.0.8", "master 1.18");
        check(
            "net",
            "internal-branch.go1.16-vendor",
            "release-branch.go1.16 1.16",
        );
        check("net", "dev.go2go", "master 1.18");
    }

    #[test]
    fn a_change_id_has_40_digits() {
        let id = "I0123456789012345678901234567890123456789";
        assert_eq!(change_id(&format!("a\n\nChange-Id: {id}\n")).as_deref(), Some(id));
        assert_eq!(change_id("a\n\nChange-Id: I12\n"), None);
        assert_eq!(change_id("a\n"), None);
    }
}
