//! What the tests here need of the machine they run on.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The project's folder.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate lies two below")
        .to_owned()
}

/// The recipe at this path of `env/`.
pub fn recipe(path: &str) -> PathBuf {
    project().join("env").join(path)
}

/// Set where images of hosts are built and started: minutes, and packages that change the machine.
const HOMES: &str = "BURROW_TEST_HOMES";

/// Whether there is what a test needs. If not that is said aloud, and is a failure where [`HOMES`] is set; without it
/// nothing is looked for.
pub fn there_is(what: &str, package: &str, found: bool) -> bool {
    if std::env::var_os(HOMES).is_none() {
        eprintln!("skipped: {HOMES} is not set, so no {what} is used");
        return false;
    }
    assert!(
        found,
        "there is no {what}; install it with: apt-get install {package}"
    );
    true
}

/// Whether the program is on the path.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Runs a command that has to go well: its standard output.
pub fn output(command: &mut Command) -> String {
    let out = command.output().expect("it runs");
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {told}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Whether there is a compiler with the source of its standard library, as the recipes for other targets need.
pub fn has_foreign_std() -> bool {
    Path::new("/usr/lib/rustlib/src/rust/library/std").is_dir()
}

/// cargo with the configuration at this path of `env/`.
pub fn recipe_cargo(what: &str, config: &str) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").expect("tests are run by cargo"));
    // What the tests' own cargo has set is for another compiler.
    for name in [
        "RUSTC",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
    ] {
        cargo.env_remove(name);
    }
    cargo.current_dir(project()).env("RUSTC_BOOTSTRAP", "1");
    cargo
        .args([what, "--locked", "--quiet", "--config"])
        .arg(recipe(config));
    cargo
}
