//! What to run for a repository that brings no configuration, told from the files in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ids::{BranchName, BuilderName, HostType, RecipeName, RepoName};

use crate::check::{STEP_SILENCE, STEP_TIMEOUT};
use crate::checked::*;
use crate::{Checked, Defaults, SourceFile};

/// A recipe that fits the files of a repository.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    /// `cargo`, `go`, `npm`, `python`, `cmake` or `make`.
    pub recipe: RecipeName,
    pub steps: Vec<Step>,
    /// One sentence for the user: `chose cargo: Cargo.toml at the root; also saw package.json`.
    pub why: String,
}

/// Every recipe that fits, the one to use first; empty when none does, see [`nothing_detected`].
///
/// `files`: the paths at the root of the repository and one level below, `/` between names. `read`
/// gives the text of one of them. Files at the root count first; only if none is known there, those
/// in the folders below, and the steps run in that folder.
pub fn detect(files: &BTreeSet<String>, read: &dyn Fn(&str) -> Option<String>) -> Vec<Detected> {
    let mut folders: Vec<&str> = vec![""];
    let below: BTreeSet<&str> = files
        .iter()
        .filter_map(|path| Some(path.split_once('/')?.0))
        .collect();
    folders.extend(
        below
            .iter()
            .filter(|folder| !folder.starts_with('.') && !IGNORED.contains(folder)),
    );
    let mut found: Vec<(usize, Found)> = Vec::new();
    for folder in folders {
        if found.iter().all(|(_, found)| found.depth > 0) {
            let tree = Tree { files, read, folder };
            for (rank, (name, kind)) in KINDS.iter().enumerate() {
                if let Some((file, steps)) = kind(&tree) {
                    let depth = usize::from(!folder.is_empty());
                    found.push((
                        rank,
                        Found {
                            name,
                            file,
                            steps,
                            depth,
                            folder: folder.to_owned(),
                        },
                    ));
                }
            }
        }
    }
    found.sort_by_key(|(rank, found)| (found.depth, *rank));
    let seen: Vec<String> = found.iter().map(|(_, found)| found.path()).collect();
    found
        .into_iter()
        .enumerate()
        .filter_map(|(i, (_, found))| {
            let place = match found.depth {
                0 => format!("{} at the root", found.file),
                _ => found.path(),
            };
            let others: Vec<&str> = seen
                .iter()
                .enumerate()
                .filter(|(j, _)| *j != i)
                .map(|(_, s)| s.as_str())
                .collect();
            let also = match others.as_slice() {
                [] => String::new(),
                others => format!("; also saw {}", others.join(", ")),
            };
            let chose = if i == 0 { "chose" } else { "could be" };
            Some(Detected {
                recipe: RecipeName::parse(found.name).ok()?,
                steps: found.steps,
                why: format!("{chose} {}: {place}{also}", found.name),
            })
        })
        .collect()
}

/// What to tell the user of `repo` when [`detect()`] found nothing.
pub fn nothing_detected(repo: &str) -> String {
    let looked: Vec<&str> = LOOKED_FOR.to_vec();
    format!(
        "found nothing in `{repo}` that says how to build it; looked for: {}\n\
         write a burrow.toml that says what to run:\n\n\
         [repo.NAME]\nurl = \"{repo}\"\nrecipe = \"own\"\n\n\
         [host.local]\npool = \"local\"\n\n\
         [builder.local]\nhost = \"local\"\n\n\
         [recipe.own]\nsteps = [{{ name = \"test\", run = \"./run-tests.sh\" }}]\n",
        looked.join(", ")
    )
}

impl Config {
    /// The farm of one repository: a `local` host, one builder named after this machine's
    /// `os-arch`, the detected recipe. `url` is a URL or a path; `branch` the one to follow, `None`
    /// for the upstream's default.
    pub fn for_repository(
        name: &RepoName,
        url: &str,
        branch: Option<&BranchName>,
        detected: &Detected,
        defaults: &Defaults,
    ) -> Config {
        // An empty file is right, and gives the farm as it is when nothing is said.
        let empty = SourceFile {
            name: String::new(),
            text: String::new(),
        };
        let Checked { config: mut farm, .. } =
            Config::check(&[empty], defaults).expect("an empty file has no mistake in it");
        let host = HostType::parse("local").expect("`local` is a plain name");
        let builder_name = BuilderName::parse(&defaults.os_arch)
            .unwrap_or_else(|_| BuilderName::parse("local").expect("`local` is a plain name"));
        let group = builder_name
            .as_str()
            .split('-')
            .next()
            .unwrap_or_default()
            .to_owned();
        farm.farm.name = name.to_string();
        let repo = Repo {
            url: url.to_owned(),
            branches: branch.map(glob_of).into_iter().collect(),
            recipe: detected.recipe.clone(),
            poll: Duration::from_secs(30),
            backfill: 10,
        };
        let builder = Builder {
            host: host.clone(),
            builds: Policy::everything(),
            recipe: None,
            env: Vec::new(),
            max_at_once: None,
            time_scale: 1,
            group,
            order: 0,
            notes: String::new(),
            known_issues: Vec::new(),
        };
        let local = Host {
            pool: Pool::Local {
                slots: defaults.cpus.max(1),
            },
            env: Vec::new(),
            limits: ids::Limits::default(),
            owners: Vec::new(),
            notes: String::new(),
            ssh_user: crate::checked::SSH_USER.to_owned(),
        };
        let recipe = Recipe {
            source: SOURCE.to_owned(),
            steps: detected.steps.clone(),
        };
        Config {
            farm: farm.farm,
            repos: BTreeMap::from([(name.clone(), repo)]),
            hosts: BTreeMap::from([(host, local)]),
            builders: BTreeMap::from([(builder_name, builder)]),
            recipes: BTreeMap::from([(detected.recipe.clone(), recipe)]),
            maintner: Maintner::default(),
        }
    }
}

/// Where the source of a detected recipe is, below the working folder.
const SOURCE: &str = "src";
/// Folders of other people's code and of build output.
const IGNORED: [&str; 5] = ["vendor", "node_modules", "third_party", "target", "testdata"];
const LOOKED_FOR: [&str; 6] = [
    "Cargo.toml",
    "go.mod",
    "package.json",
    "pyproject.toml",
    "CMakeLists.txt",
    "Makefile",
];

type Kind = fn(&Tree<'_>) -> Option<(&'static str, Vec<Step>)>;

/// The first that fits is chosen: what builds the whole of a project stands before what often only
/// comes along with it.
const KINDS: [(&str, Kind); 6] = [
    ("cargo", cargo),
    ("go", go),
    ("npm", npm),
    ("python", python),
    ("cmake", cmake),
    ("make", make),
];

struct Found {
    name: &'static str,
    file: &'static str,
    steps: Vec<Step>,
    depth: usize,
    folder: String,
}

impl Found {
    fn path(&self) -> String {
        match self.depth {
            0 => self.file.to_owned(),
            _ => format!("{}/{}", self.folder, self.file),
        }
    }
}

/// The files of one folder of the repository.
struct Tree<'a> {
    files: &'a BTreeSet<String>,
    read: &'a dyn Fn(&str) -> Option<String>,
    /// Empty for the root.
    folder: &'a str,
}

impl Tree<'_> {
    fn path(&self, name: &str) -> String {
        match self.folder {
            "" => name.to_owned(),
            folder => format!("{folder}/{name}"),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.files.contains(&self.path(name))
    }

    fn has_folder(&self, name: &str) -> bool {
        let inside = format!("{}/", self.path(name));
        self.has(name)
            || self
                .files
                .range(inside.clone()..)
                .next()
                .is_some_and(|path| path.starts_with(&inside))
    }

    fn any(&self, mut wanted: impl FnMut(&str) -> bool) -> bool {
        let prefix = self.path("");
        self.files
            .iter()
            .filter_map(|path| path.strip_prefix(&prefix))
            .any(&mut wanted)
    }

    fn text(&self, name: &str) -> String {
        (self.read)(&self.path(name)).unwrap_or_default()
    }

    fn step(&self, name: &str, run: Run) -> Step {
        let dir = match self.folder {
            "" => SOURCE.to_owned(),
            folder => format!("{SOURCE}/{folder}"),
        };
        Step {
            name: name.to_owned(),
            run,
            dir,
            env: Vec::new(),
            timeout: STEP_TIMEOUT,
            silence: STEP_SILENCE,
        }
    }

    fn args(&self, name: &str, args: &[&str]) -> Step {
        self.step(
            name,
            Run::Args(args.iter().map(|arg| (*arg).to_owned()).collect()),
        )
    }

    fn shell(&self, name: &str, line: impl Into<String>) -> Step {
        self.step(name, Run::Shell(line.into()))
    }
}

fn cargo(tree: &Tree<'_>) -> Option<(&'static str, Vec<Step>)> {
    if !tree.has("Cargo.toml") {
        return None;
    }
    let steps = if tree.has("Cargo.lock") {
        vec![
            tree.args("build", &["cargo", "build", "--locked"]),
            tree.args("test", &["cargo", "test", "--locked"]),
        ]
    } else {
        vec![
            tree.args("build", &["cargo", "build"]),
            tree.args("test", &["cargo", "test"]),
        ]
    };
    Some(("Cargo.toml", steps))
}

fn go(tree: &Tree<'_>) -> Option<(&'static str, Vec<Step>)> {
    tree.has("go.mod").then(|| {
        let steps = vec![
            tree.args("build", &["go", "build", "./..."]),
            tree.args("vet", &["go", "vet", "./..."]),
            tree.args("test", &["go", "test", "./..."]),
        ];
        ("go.mod", steps)
    })
}

fn npm(tree: &Tree<'_>) -> Option<(&'static str, Vec<Step>)> {
    if !tree.has("package.json") {
        return None;
    }
    let package: serde_json::Value = serde_json::from_str(&tree.text("package.json")).unwrap_or_default();
    let locked = tree.has("package-lock.json") || tree.has("npm-shrinkwrap.json");
    let install: &[&str] = if locked {
        &["npm", "ci"]
    } else {
        &["npm", "install"]
    };
    let mut steps = vec![
        tree.args("install", install),
        tree.args("build", &["npm", "run", "build", "--if-present"]),
    ];
    let test = package
        .pointer("/scripts/test")
        .and_then(|script| script.as_str());
    // `npm init` writes a script that fails, for want of one that tests.
    if test.is_some_and(|script| !script.trim().is_empty() && !script.contains("no test specified")) {
        steps.push(tree.args("test", &["npm", "test"]));
    }
    Some(("package.json", steps))
}

fn python(tree: &Tree<'_>) -> Option<(&'static str, Vec<Step>)> {
    if !tree.has("pyproject.toml") {
        return None;
    }
    let project: toml::Table = tree.text("pyproject.toml").parse().unwrap_or_default();
    let at = |path: &[&str]| lookup(&project, path);
    let tests = tree.has_folder("tests") || tree.has_folder("test");
    let configured = at(&["tool", "pytest"]).is_some() || tree.has("pytest.ini") || tree.has("conftest.py");
    let pytest = tests || configured;
    let declared = at(&["project", "optional-dependencies"]).and_then(toml::Value::as_table);
    let extras: Vec<&str> = ["test", "tests", "dev"]
        .into_iter()
        .filter(|extra| declared.is_some_and(|declared| declared.contains_key(*extra)))
        .collect();
    let package = project.contains_key("project")
        || project.contains_key("build-system")
        || at(&["tool", "poetry"]).is_some()
        || tree.has("setup.py")
        || tree.has("setup.cfg");

    let mut wanted = Vec::new();
    if package {
        wanted.push(match extras.as_slice() {
            [] => "-e .".to_owned(),
            extras => format!("-e '.[{}]'", extras.join(",")),
        });
    }
    if tree.has("requirements.txt") && !package {
        wanted.push("-r requirements.txt".to_owned());
    }
    let install =
        (!wanted.is_empty()).then(|| format!(".venv/bin/python -m pip install {}", wanted.join(" ")));
    // What the machine has is seen, so that nothing is fetched that is there.
    let venv = ["python3", "-m", "venv", "--system-site-packages", ".venv"];
    let mut steps = vec![tree.args("venv", &venv)];
    let with_pytest = pytest.then(|| {
        ".venv/bin/python -c 'import pytest' 2>/dev/null || .venv/bin/python -m pip install pytest".to_owned()
    });
    let install: Vec<String> = install.into_iter().chain(with_pytest).collect();
    if !install.is_empty() {
        steps.push(tree.shell("install", install.join("\n")));
    }
    if pytest {
        steps.push(tree.shell("test", ".venv/bin/python -m pytest"));
    } else {
        steps.push(tree.shell("compile", r".venv/bin/python -m compileall -q -x '/\.venv/' ."));
        let test_file = |path: &str| !path.contains('/') && path.starts_with("test") && path.ends_with(".py");
        if tree.any(test_file) {
            steps.push(tree.shell("test", ".venv/bin/python -m unittest"));
        }
    }
    Some(("pyproject.toml", steps))
}

fn lookup<'t>(table: &'t toml::Table, path: &[&str]) -> Option<&'t toml::Value> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(table.get(*first)?, |value, key| value.get(*key))
}

fn cmake(tree: &Tree<'_>) -> Option<(&'static str, Vec<Step>)> {
    tree.has("CMakeLists.txt").then(|| {
        let steps = vec![
            tree.args("configure", &["cmake", "-B", "build"]),
            tree.args("build", &["cmake", "--build", "build"]),
            tree.args("test", &["ctest", "--test-dir", "build", "--output-on-failure"]),
        ];
        ("CMakeLists.txt", steps)
    })
}

fn make(tree: &Tree<'_>) -> Option<(&'static str, Vec<Step>)> {
    // In the order in which GNU make looks.
    let name = ["GNUmakefile", "makefile", "Makefile"]
        .into_iter()
        .find(|name| tree.has(name))?;
    let text = tree.text(name);
    let mut steps = vec![tree.args("build", &["make"])];
    if let Some(target) = ["test", "check"]
        .into_iter()
        .find(|target| has_target(&text, target))
    {
        steps.push(tree.args(target, &["make", target]));
    }
    Some((name, steps))
}

/// Whether a makefile has a rule for `target`: a line that begins with it, among others perhaps,
/// before a `:` that is no assignment.
fn has_target(makefile: &str, target: &str) -> bool {
    makefile.lines().any(|line| match line.split_once(':') {
        Some((targets, rest)) if !line.starts_with(['\t', '#']) && !targets.contains('=') => {
            let assigns = rest.starts_with('=') || rest.starts_with(":=");
            !assigns && targets.split_whitespace().any(|found| found == target)
        }
        _ => false,
    })
}

/// The pattern that is this branch. One whose name begins with `!` is matched by a `?` there, since
/// `!` would negate.
fn glob_of(branch: &BranchName) -> Glob {
    Glob(match branch.as_str().strip_prefix('!') {
        Some(rest) => format!("?{rest}"),
        None => branch.to_string(),
    })
}
