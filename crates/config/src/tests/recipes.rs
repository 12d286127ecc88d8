use std::collections::BTreeMap;

use super::*;

/// What is detected in a repository with these files: the reasons, and the steps of the first.
fn detected(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let texts: BTreeMap<String, String> = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect();
    let found = detect(&texts.keys().cloned().collect(), &|path| texts.get(path).cloned());
    let steps = found.first().map(|first| first.steps.iter().map(shown).collect());
    (
        found.into_iter().map(|found| found.why).collect(),
        steps.unwrap_or_default(),
    )
}

fn shown(step: &Step) -> String {
    let run = match &step.run {
        Run::Args(args) => args.join(" "),
        Run::Shell(line) => format!("$ {line}"),
    };
    if step.dir == "src" {
        run
    } else {
        format!("{}: {run}", step.dir)
    }
}

#[test]
fn each_kind_of_project_gets_its_own_steps() {
    for (files, why, steps) in [
        (
            &[("Cargo.toml", ""), ("Cargo.lock", "")][..],
            "chose cargo: Cargo.toml at the root",
            &["cargo build --locked", "cargo test --locked"][..],
        ),
        (
            &[("Cargo.toml", "")],
            "chose cargo: Cargo.toml at the root",
            &["cargo build", "cargo test"],
        ),
        (
            &[("go.mod", "")],
            "chose go: go.mod at the root",
            &["go build ./...", "go vet ./...", "go test ./..."],
        ),
        (
            &[
                ("package.json", r#"{"scripts":{"test":"jest"}}"#),
                ("package-lock.json", ""),
            ],
            "chose npm: package.json at the root",
            &["npm ci", "npm run build --if-present", "npm test"],
        ),
        (
            &[(
                "package.json",
                r#"{"scripts":{"test":"echo \"Error: no test specified\" && exit 1"}}"#,
            )],
            "chose npm: package.json at the root",
            &["npm install", "npm run build --if-present"],
        ),
        (
            &[("package.json", "not json")],
            "chose npm: package.json at the root",
            &["npm install", "npm run build --if-present"],
        ),
        (
            &[
                (
                    "pyproject.toml",
                    "[project]\nname='x'\n[project.optional-dependencies]\ntest=[]\ndev=[]",
                ),
                ("tests/test_x.py", ""),
            ],
            "chose python: pyproject.toml at the root",
            &[
                "python3 -m venv --system-site-packages .venv",
                "$ .venv/bin/python -m pip install -e '.[test,dev]'\n.venv/bin/python -c 'import pytest' 2>/dev/null || .venv/bin/python -m pip install pytest",
                "$ .venv/bin/python -m pytest",
            ],
        ),
        (
            &[(
                "pyproject.toml",
                "[project]\nname='x'\n[tool.pytest.ini_options]\n",
            )],
            "chose python: pyproject.toml at the root",
            &[
                "python3 -m venv --system-site-packages .venv",
                "$ .venv/bin/python -m pip install -e .\n.venv/bin/python -c 'import pytest' 2>/dev/null || .venv/bin/python -m pip install pytest",
                "$ .venv/bin/python -m pytest",
            ],
        ),
        (
            &[("pyproject.toml", "[tool.black]"), ("test_x.py", "")],
            "chose python: pyproject.toml at the root",
            &[
                "python3 -m venv --system-site-packages .venv",
                r"$ .venv/bin/python -m compileall -q -x '/\.venv/' .",
                "$ .venv/bin/python -m unittest",
            ],
        ),
        (
            &[("CMakeLists.txt", "")],
            "chose cmake: CMakeLists.txt at the root",
            &[
                "cmake -B build",
                "cmake --build build",
                "ctest --test-dir build --output-on-failure",
            ],
        ),
        (
            &[("Makefile", "all: x\nx test: y\n\techo\n")],
            "chose make: Makefile at the root",
            &["make", "make test"],
        ),
        (
            &[("GNUmakefile", "check::\n")],
            "chose make: GNUmakefile at the root",
            &["make", "make check"],
        ),
        (
            &[("Makefile", "test := x\ncheck := y\n")],
            "chose make: Makefile at the root",
            &["make"],
        ),
    ] {
        let (whys, found) = detected(files);
        assert_eq!(whys, [why]);
        assert_eq!(found, steps, "{why}");
    }
}

#[test]
fn of_several_the_first_is_chosen_and_the_others_are_told() {
    let (whys, steps) = detected(&[
        ("Makefile", "test:\n"),
        ("package.json", "{}"),
        ("Cargo.toml", ""),
        ("sub/go.mod", ""),
    ]);
    assert_eq!(
        whys,
        [
            "chose cargo: Cargo.toml at the root; also saw package.json, Makefile",
            "could be npm: package.json at the root; also saw Cargo.toml, Makefile",
            "could be make: Makefile at the root; also saw Cargo.toml, package.json",
        ]
    );
    assert_eq!(steps, ["cargo build", "cargo test"]);
}

#[test]
fn a_project_one_level_below_is_built_there() {
    let (whys, steps) = detected(&[
        ("README", ""),
        ("web/package.json", "{}"),
        ("srv/go.mod", ""),
        ("vendor/Cargo.toml", ""),
    ]);
    assert_eq!(whys[0], "chose go: srv/go.mod; also saw web/package.json");
    assert_eq!(steps[0], "src/srv: go build ./...");
}

#[test]
fn where_nothing_is_known_the_user_is_told_what_to_write() {
    assert_eq!(detected(&[("README.md", "")]).0, Vec::<String>::new());
    let told = nothing_detected("/srv/x");
    assert!(told.contains("Cargo.toml, go.mod, package.json"));
    let (_, text) = told.split_once("\n\n").unwrap();
    good(&text.replace("NAME", "x"));
}

#[test]
fn the_farm_of_one_repository_can_be_saved_as_a_file() {
    let files: BTreeMap<&str, &str> = BTreeMap::from([("go.mod", ""), ("Makefile", "")]);
    let names = files.keys().map(|path| (*path).to_owned()).collect();
    let found = detect(&names, &|path| files.get(path).map(|text| (*text).to_owned()));
    let name = RepoName::parse("x").unwrap();
    for branch in [
        None,
        Some(BranchName::parse("main").unwrap()),
        Some(BranchName::parse("!odd").unwrap()),
    ] {
        let config = Config::for_repository(&name, "/srv/x y", branch.as_ref(), &found[0], &defaults());
        let builder = config.builders.keys().next().unwrap();
        assert_eq!(builder.as_str(), "linux-amd64");
        assert_eq!(good(&to_toml(&config)), config);
        if let Some(branch) = branch {
            assert!(config.repos[&name].tracks(&branch, None));
        }
    }
}
