//! Which configuration a command uses, and where the farm's state is.

use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use config::{Config, Defaults, SourceFile};
use ids::{BranchName, RepoName};

use crate::args::Global;
use crate::failure::{Failure, at_path};
use crate::git;

/// The configuration that is used when none is named.
pub const NAME: &str = "burrow.toml";
const STATE_DIR: &str = ".burrow";

/// A configuration and how it was come by.
pub struct Found {
    pub config: Config,
    /// The file or folder to watch for changes.
    pub reload: Option<PathBuf>,
    /// For the user, one sentence or two lines.
    pub why: String,
    pub notices: Vec<config::Problem>,
}

/// What this machine and the command line say. The state folder is absolute.
pub fn defaults(global: &Global) -> Result<Defaults, Failure> {
    Ok(Defaults {
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        os_arch: config::os_arch(std::env::consts::OS, std::env::consts::ARCH),
        state_dir: absolute(global.state_dir.as_deref().unwrap_or(Path::new(STATE_DIR)))?,
    })
}

/// The configuration at `path`, a file or a folder.
pub fn load(path: &Path, global: &Global, defaults: &Defaults) -> Result<Found, Failure> {
    let files = read(&[path.to_owned()])?;
    let checked = Config::check(&files, defaults).map_err(|problems| {
        Failure::new(format!(
            "the configuration `{}` has mistakes\n{}",
            path.display(),
            problems.render(false)
        ))
    })?;
    let mut config = checked.config;
    config.farm.state_dir = match &global.state_dir {
        Some(dir) => absolute(dir)?,
        None => absolute(&config.farm.state_dir)?,
    };
    Ok(Found {
        config,
        reload: Some(absolute(path)?),
        why: format!("using {}", path.display()),
        notices: checked.notices,
    })
}

/// The farm of the git repository around the current folder.
pub fn here(defaults: &Defaults) -> Result<Found, Failure> {
    let dir = current_dir()?;
    let root = git::line(&dir, &["rev-parse", "--show-toplevel"]).map_err(|failure| {
        if failure.message.contains("cannot run git") {
            return failure;
        }
        Failure::new(format!(
            "there is no {NAME} in `{}`, and it is in no git repository",
            dir.display()
        ))
        .hint(
            "`burrow up --demo` shows a farm at work; `burrow up --repo PATH_OR_URL` builds another \
             repository; `git init` and a commit make this folder one",
        )
    })?;
    local(Path::new(&root), defaults)
}

/// The farm of the repository at `place`, a path or anything that `git fetch` takes.
pub fn of_repository(place: &str, defaults: &Defaults) -> Result<Found, Failure> {
    let path = Path::new(place);
    if path.is_dir() {
        git::git(path, &["rev-parse", "--git-dir"]).map_err(|failure| {
            failure.hint(format!(
                "`{place}` is a folder but no git repository; name another or `git init` there"
            ))
        })?;
        return local(&absolute(path)?, defaults);
    }
    let address = place.contains("://") || place.contains(':');
    if !address {
        return Err(Failure::new(format!("there is no folder `{place}`"))
            .hint("wanted a path or an address of a git repository"));
    }
    if place.starts_with('-') || place.starts_with("ext::") {
        return Err(Failure::usage(format!(
            "`{place}` is not an address of a git repository"
        )));
    }
    make_state_dir(&defaults.state_dir)?;
    let copy = defaults.state_dir.join("look");
    let _ = std::fs::remove_dir_all(&copy);
    let shown = copy.to_string_lossy().into_owned();
    let upstream = ::git::Upstream::new(place);
    let args = [
        "clone",
        "--quiet",
        "--bare",
        "--depth",
        "1",
        "--",
        upstream.address(),
        &shown,
    ];
    let found = git::git_as(&defaults.state_dir, &args, upstream.environment())
        .map_err(|failure| {
            failure.hint("is the address right, and may this user read it without a password?")
        })
        .and_then(|_| detect(&copy, place, None, defaults));
    let _ = std::fs::remove_dir_all(&copy);
    found
}

/// The texts of the named files, and of all `*.toml` in the named folders by name.
pub fn read(paths: &[PathBuf]) -> Result<Vec<SourceFile>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|error| at_path("read", path, &error))?;
        let mut inside = Vec::new();
        for entry in entries {
            let file = entry.map_err(|error| at_path("read", path, &error))?.path();
            let hidden = file
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if !hidden && file.extension().is_some_and(|ext| ext == "toml") {
                inside.push(file);
            }
        }
        if inside.is_empty() {
            return Err(Failure::new(format!("no *.toml file in `{}`", path.display())));
        }
        inside.sort();
        files.append(&mut inside);
    }
    let text = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let failure = at_path("read", path, &error);
            match error.kind() {
                std::io::ErrorKind::NotFound => {
                    failure.hint("`burrow check --print-detected` writes one to begin with")
                }
                _ => failure,
            }
        })?;
        Ok(SourceFile {
            name: path.display().to_string(),
            text,
        })
    };
    files.iter().map(text).collect()
}

/// Where state is, for commands that only want to know that: the flag, what `config` or
/// ./burrow.toml says, the default.
pub fn state_dir(global: &Global) -> Result<PathBuf, Failure> {
    let defaults = defaults(global)?;
    if global.state_dir.is_none() && Path::new(NAME).exists() {
        // A file with mistakes is no reason not to reach a running farm.
        if let Ok(found) = load(Path::new(NAME), global, &defaults) {
            return Ok(found.config.farm.state_dir);
        }
    }
    Ok(defaults.state_dir)
}

/// Makes the folder if it is not there, with a note for git to leave it alone.
pub fn make_state_dir(dir: &Path) -> Result<(), Failure> {
    let known = dir.is_dir();
    // Keys, tokens' hashes and logs are for its owner.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| at_path("make the state folder", dir, &error))?;
    let ignore = dir.join(".gitignore");
    if !known && !ignore.exists() {
        std::fs::write(&ignore, "*\n").map_err(|error| at_path("write", &ignore, &error))?;
    }
    Ok(())
}

pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| at_path("find", path, &error))
}

/// The farm of a repository on this disk, as it is checked out.
fn local(root: &Path, defaults: &Defaults) -> Result<Found, Failure> {
    let shown = root.to_string_lossy();
    let head = git::line(root, &["symbolic-ref", "--quiet", "--short", "HEAD"]).map_err(|_| {
        Failure::new(format!(
            "no branch is checked out in `{shown}`: its HEAD is detached"
        ))
        .hint("`git switch BRANCH`, or name the branches to build in a burrow.toml")
    })?;
    let branch = BranchName::parse(&head).map_err(|bad| {
        Failure::new(format!(
            "the branch that is checked out in `{shown}` cannot be built: {bad}"
        ))
        .hint("`git branch -m NAME` gives it another name")
    })?;
    if git::line(root, &["rev-parse", "--is-shallow-repository"])? == "true" {
        return Err(Failure::new(format!(
            "the repository `{shown}` is a shallow clone: its history is cut off"
        ))
        .hint("`git fetch --unshallow` there makes it whole"));
    }
    let mut found = detect(root, &shown, Some(branch), defaults)?;
    // A bare repository has nothing that could be uncommitted.
    let changed = git::git(root, &["status", "--porcelain", "-z", "--untracked-files=normal"]);
    let changed = changed.map_or(0, |list| {
        list.split(|byte| *byte == 0)
            .filter(|entry| !entry.is_empty())
            .count()
    });
    if changed > 0 {
        let files = if changed == 1 {
            "1 file differs"
        } else {
            &format!("{changed} files differ")
        };
        found.why += &format!("\n{files} from the last commit: only what is committed is built");
    }
    Ok(found)
}

/// Looks at the tree of HEAD in the repository at `dir`, which the farm will know as `url`.
fn detect(dir: &Path, url: &str, branch: Option<BranchName>, defaults: &Defaults) -> Result<Found, Failure> {
    let upstream = ::git::Upstream::new(url);
    let shown = upstream.address();
    if git::git(dir, &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).is_err() {
        return Err(
            Failure::new(format!("the repository `{shown}` has no commit yet"))
                .hint("commit something first"),
        );
    }
    let listed = git::git(
        dir,
        &["ls-tree", "-r", "-z", "--name-only", "--full-tree", "HEAD"],
    )?;
    let files: BTreeSet<String> = String::from_utf8_lossy(&listed)
        .split('\0')
        .filter(|path| !path.is_empty() && path.matches('/').count() <= 1)
        .map(str::to_owned)
        .collect();
    let read = |path: &str| {
        let text = git::git(dir, &["cat-file", "blob", &format!("HEAD:{path}")]).ok()?;
        String::from_utf8(text).ok()
    };
    let all = config::detect(&files, &read);
    let Some(first) = all.first() else {
        let told = config::nothing_detected(shown);
        let (message, hint) = told.split_once('\n').unwrap_or((&told, ""));
        return Err(Failure::new(message).hint(hint));
    };
    let name = repo_name(shown);
    let config = Config::for_repository(&name, url, branch.as_ref(), first, defaults);
    let steps: Vec<&str> = first.steps.iter().map(|step| step.name.as_str()).collect();
    let follows = branch.map_or("its default branch".to_owned(), |branch| {
        format!("branch {branch}")
    });
    let mut why = format!(
        "building {shown}, {follows}; {}\nsteps: {} (`burrow check --print-detected` prints this as a {NAME})",
        first.why,
        steps.join(", ")
    );
    for program in missing_programs(&first.steps) {
        why += &format!(
            "\nthis machine has no `{program}`: the steps that run it will fail until it is installed"
        );
    }
    Ok(Found {
        config,
        reload: None,
        why,
        notices: Vec::new(),
    })
}

/// Programs of the steps that are not to be found in PATH, each once.
fn missing_programs(steps: &[config::Step]) -> BTreeSet<&str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |program: &str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    let programs = steps.iter().filter_map(|step| match &step.run {
        config::Run::Args(args) => args.first().map(String::as_str),
        config::Run::Shell(_) => None,
    });
    programs
        .filter(|program| !program.contains('/') && !there(program))
        .collect()
}

/// The last part of a path or address, as far as it makes a name.
fn repo_name(url: &str) -> RepoName {
    let last = url
        .trim_end_matches('/')
        .rsplit(['/', ':', '\\'])
        .next()
        .unwrap_or_default();
    let last = last.strip_suffix(".git").unwrap_or(last);
    let plain: String = last
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') {
                c
            } else {
                '-'
            }
        })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .take(100)
        .collect();
    RepoName::parse(&plain).unwrap_or_else(|_| RepoName::parse("repository").expect("a plain word is a name"))
}

fn current_dir() -> Result<PathBuf, Failure> {
    std::env::current_dir().map_err(|error| Failure::new(format!("cannot tell the current folder: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_called_after_the_end_of_its_address() {
        for (url, name) in [
            ("/home/amy/widget", "widget"),
            ("https://example.org/acme/widget.git", "widget"),
            ("git@example.org:widget.git/", "widget"),
            ("/srv/.dotfiles", "dotfiles"),
            ("/srv/a b", "a-b"),
            ("/", "repository"),
        ] {
            assert_eq!(repo_name(url).as_str(), name, "{url}");
        }
    }
}
