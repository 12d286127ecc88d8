//! `burrow up` for somebody who has a repository and has read nothing.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use crate::farm::{Process, git, refused, repository};

const UP: [&str; 4] = ["up", "--open-nothing", "--listen", "127.0.0.1:0"];

fn is_here(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Stands in a repository of these files and runs `burrow up`: it says what it chose, and the commit
/// passes; or it says which of the `tools` is not there.
fn check(chosen: &str, tools: &[&str], files: &[(&str, &str)]) {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("widget");
    repository(&place, files);
    let farm = Process::start(folder.path(), &place, &UP);
    assert!(farm.said().contains(chosen), "{}", farm.said());
    let missing: Vec<_> = tools.iter().filter(|tool| !is_here(tool)).collect();
    for tool in &missing {
        let told = format!("this machine has no `{tool}`");
        assert!(farm.said().contains(&told), "{}", farm.said());
    }
    let build = farm.done("widget");
    if missing.is_empty() {
        let log = String::from_utf8_lossy(&farm.log(&build)).into_owned();
        assert_eq!(build["status"], "passed", "{build}: {log}");
    } else {
        eprintln!("{chosen}: not built here, for want of {missing:?}");
        assert_eq!(build["status"], "failed", "{build}");
    }
}

#[test]
fn a_rust_project_is_built_and_tested() {
    check(
        "chose cargo: Cargo.toml at the root",
        &["cargo"],
        &[
            (
                "Cargo.toml",
                "[package]\nname = \"widget\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
            ),
            (
                "Cargo.lock",
                "version = 3\n\n[[package]]\nname = \"widget\"\nversion = \"0.1.0\"\n",
            ),
            (
                "src/lib.rs",
                "pub fn two() -> u32 { 2 }\n#[test]\nfn it_is() { assert_eq!(two(), 2) }\n",
            ),
        ],
    );
}

#[test]
fn a_go_module_is_built_and_tested() {
    check(
        "chose go: go.mod at the root",
        &["go"],
        &[
            ("go.mod", "module example.org/widget\n\ngo 1.20\n"),
            ("widget.go", "package widget\n\nfunc Two() int { return 2 }\n"),
            (
                "widget_test.go",
                "package widget\n\nimport \"testing\"\n\nfunc TestTwo(t *testing.T) {\n\tif Two() != 2 {\n\t\tt.Fatal()\n\t}\n}\n",
            ),
        ],
    );
}

#[test]
fn a_makefile_is_made_and_its_tests_are_run() {
    check(
        "chose make: Makefile at the root",
        &["make"],
        &[
            (
                "Makefile",
                "widget: widget.c\n\tcc -o widget widget.c\ntest: widget\n\t./widget\n.PHONY: test\n",
            ),
            ("widget.c", "int main(void) { return 0; }\n"),
        ],
    );
}

#[test]
fn a_cmake_project_is_configured_built_and_tested() {
    check(
        "chose cmake: CMakeLists.txt at the root",
        &["cmake", "ctest"],
        &[
            (
                "CMakeLists.txt",
                "cmake_minimum_required(VERSION 3.10)\nproject(widget C)\nenable_testing()\nadd_executable(widget widget.c)\n\
             add_test(NAME widget COMMAND widget)\n",
            ),
            ("widget.c", "int main(void) { return 0; }\n"),
        ],
    );
}

#[test]
fn a_python_project_is_compiled_and_its_tests_are_run() {
    check(
        "chose python: pyproject.toml at the root",
        &["python3"],
        &[
            ("pyproject.toml", "[tool.ruff]\nline-length = 100\n"),
            ("widget.py", "def two():\n    return 2\n"),
            (
                "test_widget.py",
                "import unittest, widget\n\nclass Two(unittest.TestCase):\n    def test_two(self):\n        self.assertEqual(widget.two(), 2)\n",
            ),
        ],
    );
}

#[test]
fn an_npm_package_is_built_and_tested() {
    check(
        "chose npm: package.json at the root",
        &["npm"],
        &[
            (
                "package.json",
                "{ \"name\": \"widget\", \"version\": \"1.0.0\", \"scripts\": { \"test\": \"node test.js\" } }\n",
            ),
            ("test.js", "require('assert').strictEqual(1 + 1, 2);\n"),
        ],
    );
}

#[test]
fn a_project_with_pytest_is_told_from_its_files() {
    let folder = tempfile::tempdir().expect("a folder");
    repository(
        folder.path(),
        &[
            (
                "pyproject.toml",
                "[project]\nname = \"widget\"\nversion = \"1\"\n[tool.pytest.ini_options]\n",
            ),
            ("tests/test_two.py", "def test_two():\n    assert 1 + 1 == 2\n"),
        ],
    );
    let (code, said) = refused(folder.path(), &["check", "--print-detected"]);
    assert!(code == 0 && said.contains("python -m pytest"), "{said}");
}

#[test]
fn a_program_that_this_machine_lacks_is_named_before_and_after() {
    let folder = tempfile::tempdir().expect("a folder");
    let (place, bin) = (folder.path().join("widget"), folder.path().join("bin"));
    repository(&place, &[("Makefile", "all:\n\ttrue\n")]);
    fs::create_dir(&bin).expect("a folder");
    let path = std::env::var_os("PATH").expect("a path");
    let git = std::env::split_paths(&path)
        .map(|dir| dir.join("git"))
        .find(|git| git.is_file());
    std::os::unix::fs::symlink(git.expect("git is installed"), bin.join("git")).expect("a link");
    let only = [("PATH", bin.to_str().expect("a path"))];
    let farm = Process::start_with(folder.path(), &place, &UP, &only);
    assert!(
        farm.said().contains("this machine has no `make`"),
        "{}",
        farm.said()
    );
    let build = farm.done("widget");
    assert_eq!(build["status"], "failed");
    assert!(
        build["reason"].as_str().expect("a reason").contains("make"),
        "{build}"
    );
}

#[test]
fn what_is_not_committed_is_said_not_to_be_built() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("widget");
    repository(&place, &[("Makefile", "all:\n\ttrue\n")]);
    let said = refused(&place, &["check", "--print-detected"]).1;
    assert!(!said.contains("only what is committed"), "{said}");
    fs::write(place.join("Makefile"), "all:\n\tfalse\n").expect("a file");
    let farm = Process::start(folder.path(), &place, &UP);
    let said = farm.said();
    assert!(
        said.contains("1 file differs from the last commit: only what is committed is built"),
        "{said}"
    );
}

#[test]
fn places_that_cannot_be_built_say_what_would_help() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let check = |name: &str, words: [&str; 2]| {
        let (code, said) = refused(&at(name), &UP);
        assert!(
            code == 1 && words.iter().all(|word| said.contains(word)),
            "{name}: {said}"
        );
    };
    fs::create_dir(at("none")).expect("a folder");
    check("none", ["it is in no git repository", "burrow up --demo"]);
    fs::create_dir(at("empty")).expect("a folder");
    git(&at("empty"), &["init", "-q"]);
    check("empty", ["has no commit yet", "commit something"]);
    repository(&at("plain"), &[("notes.txt", "x")]);
    check("plain", ["looked for: Cargo.toml", "[recipe.own]"]);
    repository(&at("detached"), &[("Makefile", "all:\n")]);
    git(&at("detached"), &["checkout", "-q", "--detach"]);
    check("detached", ["HEAD is detached", "git switch"]);
    repository(&at("deep"), &[("Makefile", "all:\n")]);
    git(&at("deep"), &["commit", "-q", "--allow-empty", "-m", "two"]);
    let url = format!("file://{}", at("deep").display());
    git(folder.path(), &["clone", "-q", "--depth", "1", &url, "shallow"]);
    check("shallow", ["is a shallow clone", "git fetch --unshallow"]);
    no_password_is_said(folder.path());
}

/// Neither to the user nor, by git's command line, to others on the machine.
fn no_password_is_said(dir: &Path) {
    const PASSWORD: &str = "pa55-of-amy";
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = server.local_addr().expect("an address");
    let asked = std::thread::spawn(move || {
        // It waits for an answer, and gets none.
        let _asker = server.accept().expect("git asks");
        let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
        let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
        let git = lines.filter(|line| line.starts_with("git") || line.contains("/git"));
        git.filter(|line| line.contains(PASSWORD)).collect::<Vec<_>>()
    });
    let url = format!("http://amy:{PASSWORD}@{address}/w");
    let (code, said) = refused(dir, &["up", "--open-nothing", "--repo", &url]);
    assert!(code == 1 && said.contains(&address.to_string()), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
    assert_eq!(asked.join().expect("no panic"), Vec::<String>::new());
}
