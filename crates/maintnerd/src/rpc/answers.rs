//! What is answered, of a corpus.

use corpus::{CommitView, Corpus, Hash, ProjectView, Texts};
use mutlog::LogReader;

use super::{
    DashCommit, DashRepoHead, DashboardRequest, DashboardResponse, GetRefRequest, GetRefResponse, GoRelease,
    HasAncestorRequest, HasAncestorResponse, MAIN, Refusal, SERVER, releases,
};

/// Most commits of a page, and how many if nobody says. Source: golang/build
/// `maintner/maintnerd/maintapi/api.go`, as for all that is refused here.
const MOST: usize = 1000;
const USUAL: usize = 30;
const USUAL_MIXED: usize = 500;
/// Commits that may be skipped.
const FARTHEST: usize = 10_000;

/// A project of the server whose projects are asked for by name alone.
pub(super) fn project<'a>(corpus: &'a Corpus, name: &str) -> Option<ProjectView<'a>> {
    corpus.project(&format!("{SERVER}/{name}"))
}

pub(super) fn has_ancestor(
    corpus: &Corpus,
    asked: &HasAncestorRequest,
) -> Result<HasAncestorResponse, Refusal> {
    for (hash, what) in [
        (&asked.commit, "invalid Commit"),
        (&asked.ancestor, "invalid Ancestor"),
    ] {
        if hash.len() != 40 {
            return Err(Refusal::Other(what.to_owned()));
        }
    }
    let commit = |hash: &str| corpus.commit(Hash::parse(hash.as_bytes())?);
    let Some(of) = commit(&asked.commit) else {
        return Ok(HasAncestorResponse {
            has_ancestor: false,
            unknown_commit: true,
        });
    };
    let ancestor = commit(&asked.ancestor);
    Ok(HasAncestorResponse {
        has_ancestor: ancestor.is_some_and(|ancestor| of.has_ancestor(ancestor)),
        unknown_commit: false,
    })
}

pub(super) fn get_ref(corpus: &Corpus, asked: &GetRefRequest) -> Result<GetRefResponse, Refusal> {
    let project = corpus.project(&format!("{}/{}", asked.gerrit_server, asked.gerrit_project));
    let project = project.ok_or_else(|| Refusal::Other("unknown gerrit project".to_owned()))?;
    let at = project.commit_at(&asked.r#ref);
    Ok(GetRefResponse {
        value: at.map(|commit| commit.hash().to_string()).unwrap_or_default(),
    })
}

pub(super) fn dashboard(
    corpus: &Corpus,
    texts: &LogReader,
    asked: DashboardRequest,
) -> Result<DashboardResponse, Refusal> {
    let main = project(corpus, MAIN);
    let main = main.ok_or_else(|| Refusal::Other("go gerrit project not found".to_owned()))?;
    let name = project_of(&asked.repo)?;
    let of = project(corpus, name);
    let of = of.ok_or_else(|| Refusal::NotFound(format!("repo project {name:?} not found")))?;
    let heads: Vec<(&str, CommitView<'_>)> = main
        .refs()
        .filter_map(|(name, commit)| Some((name.strip_prefix("refs/heads/")?, commit)))
        .collect();
    let branch = match &asked.branch[..] {
        "" => "master",
        branch => branch,
    };
    let mixed = branch == "mixed";
    if !mixed && !heads.iter().any(|(name, _)| *name == branch) {
        return Err(Refusal::NotFound(format!("unknown branch {branch:?}")));
    }
    let (size, skip) = page(&asked, mixed, heads.len())?;
    let branches: Vec<&str> = match mixed {
        true => heads.iter().map(|(name, _)| *name).collect(),
        false => vec![branch],
    };
    let Listed {
        commits,
        truncated,
        oldest_skipped,
    } = list(of, &branches, size, skip);
    let told = |(branch, commit): &(&str, CommitView<'_>)| -> Result<DashCommit, Refusal> {
        Ok(DashCommit {
            branch: (*branch).to_owned(),
            ..dash_commit(*commit, texts)?
        })
    };
    let mut told: Vec<DashCommit> = commits.iter().map(told).collect::<Result<_, _>>()?;
    if name != MAIN {
        add_main_commits(main, oldest_skipped, &mut told);
    }
    let mut repo_heads = Vec::new();
    for project in corpus.projects() {
        let Some(name) = project
            .key
            .strip_prefix(SERVER)
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            continue;
        };
        if let Some(head) = project.commit_at("refs/heads/master") {
            repo_heads.push(DashRepoHead {
                gerrit_project: name.to_owned(),
                commit: Some(dash_commit(head, texts)?),
            });
        }
    }
    let master = heads.iter().find(|(name, _)| *name == "master");
    let mut releases = vec![GoRelease {
        branch_name: "master".to_owned(),
        branch_commit: master
            .map(|(_, commit)| commit.hash().to_string())
            .unwrap_or_default(),
        ..GoRelease::default()
    }];
    releases.extend(releases::supported(main)?);
    Ok(DashboardResponse {
        commits: told,
        repo_heads,
        branches: heads.iter().map(|(name, _)| (*name).to_owned()).collect(),
        releases,
        commits_truncated: truncated,
    })
}

/// The project that an import path means.
fn project_of(repo: &str) -> Result<&str, Refusal> {
    if matches!(repo, "" | "go") {
        return Ok(MAIN);
    }
    let name = repo.strip_prefix("golang.org/x/");
    name.filter(|name| !name.is_empty()).ok_or_else(|| {
        let why = format!(r#"unknown repo {repo:?}; must be empty, "go", or "golang.org/*""#);
        Refusal::NotFound(why)
    })
}

/// How many commits, after how many.
fn page(asked: &DashboardRequest, mixed: bool, branches: usize) -> Result<(usize, usize), Refusal> {
    let invalid = |why: String| Err(Refusal::Invalid(why));
    let size = match usize::try_from(asked.max_commits) {
        Err(_) => return invalid("negative max commits".to_owned()),
        Ok(0) if mixed => USUAL_MIXED,
        Ok(0) => USUAL,
        Ok(size) => size.min(MOST),
    };
    if mixed && size < branches {
        return invalid(format!("page size too small for `mixed`: {size} < {branches}"));
    }
    let page = match usize::try_from(asked.page) {
        Err(_) => return invalid("invalid page".to_owned()),
        Ok(page) if page > 0 && mixed => {
            return invalid("branch=mixed does not support pagination".to_owned());
        }
        Ok(page) => page,
    };
    match page.saturating_mul(size) {
        skip if skip < FARTHEST => Ok((size, skip)),
        _ => invalid("too far back".to_owned()),
    }
}

struct Listed<'a> {
    /// With the branch that each was found on.
    commits: Vec<(&'a str, CommitView<'a>)>,
    /// There are more.
    truncated: bool,
    /// Unix seconds.
    oldest_skipped: Option<i64>,
}

/// A commit and its first parents, as far as they are known.
fn first_parents(head: Option<CommitView<'_>>) -> impl Iterator<Item = CommitView<'_>> {
    let known = |commit: &CommitView<'_>| commit.is_known();
    std::iter::successors(head.filter(known), move |commit| {
        commit.parents().next().filter(known)
    })
}

fn time(commit: CommitView<'_>) -> i64 {
    commit.commit_time().as_secs()
}

/// The commits of branches, newest first. Of more than one those are taken that are not older than the
/// oldest that is kept of the ones before.
fn list<'a>(project: ProjectView<'a>, branches: &[&'a str], size: usize, skip: usize) -> Listed<'a> {
    let mut listed = Listed {
        commits: Vec::new(),
        truncated: false,
        oldest_skipped: None,
    };
    let mut oldest = i64::MIN;
    for branch in branches {
        let Some(head) = project.commit_at(&format!("refs/heads/{branch}")) else {
            continue;
        };
        let mut line = first_parents(Some(head)).take_while(|commit| time(*commit) >= oldest);
        for skipped in line.by_ref().take(skip) {
            listed.oldest_skipped = Some(time(skipped));
        }
        let found = line.by_ref().take(size).map(|commit| (*branch, commit));
        listed.commits.extend(found);
        if branches.len() == 1 {
            listed.truncated = line.next().is_some();
            break;
        }
        listed
            .commits
            .sort_by_key(|(_, commit)| std::cmp::Reverse(time(*commit)));
        if listed.commits.len() > size {
            listed.commits.truncate(size);
            listed.truncated = true;
        }
        oldest = listed.commits.last().map_or(oldest, |(_, commit)| time(*commit));
    }
    listed
}

/// With what each could be built: the main project as it was then, and as it was just before the next.
fn add_main_commits(main: ProjectView<'_>, oldest_skipped: Option<i64>, commits: &mut [DashCommit]) {
    let Some(oldest) = commits.last().map(|commit| commit.commit_time_sec) else {
        return;
    };
    // Back to the first that is older than all of the page.
    let mut line: Vec<CommitView<'_>> = Vec::new();
    for commit in first_parents(main.commit_at("refs/heads/master")) {
        line.push(commit);
        if time(commit) < oldest {
            break;
        }
    }
    for at in (0..commits.len()).rev() {
        let next = match at.checked_sub(1) {
            Some(newer) => Some(commits[newer].commit_time_sec),
            None => oldest_skipped,
        };
        let last = |line: &[CommitView<'_>]| line.last().map(|commit| commit.hash().to_string());
        commits[at].go_commit_at_time = last(&line).unwrap_or_default();
        while line.len() >= 2 && next.is_some_and(|next| time(line[line.len() - 2]) < next) {
            line.pop();
        }
        commits[at].go_commit_latest = last(&line).unwrap_or_default();
    }
}

fn dash_commit<T: Texts<Error = std::io::Error>>(
    commit: CommitView<'_>,
    texts: &T,
) -> Result<DashCommit, Refusal> {
    let message = commit.message(texts)?;
    Ok(DashCommit {
        commit: commit.hash().to_string(),
        author_name: commit.author().name().to_owned(),
        author_email: commit.author().email().to_owned(),
        commit_time_sec: time(commit),
        title: message.lines().next().unwrap_or_default().trim().to_owned(),
        ..DashCommit::default()
    })
}
