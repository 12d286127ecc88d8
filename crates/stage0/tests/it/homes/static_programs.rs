use std::path::PathBuf;
use std::process::Command;

use super::counterparts::{has_foreign_std, has_program, output, project, recipe_cargo, there_is};

/// The folder with `buildlet` and `stage0` as one file each, made by `env/static/`.
pub fn static_programs() -> Option<PathBuf> {
    let packages = "rustc-web rust-web-src musl-tools";
    if !there_is(
        "compiler that makes static programs",
        packages,
        has_foreign_std() && has_program("musl-gcc"),
    ) {
        return None;
    }
    let mut build = recipe_cargo("build", "static/linux-amd64.toml");
    build.args(["--profile", "buildlet", "-p", "buildlet", "-p", "stage0"]);
    output(&mut build);
    Some(project().join("target/x86_64-unknown-linux-musl/buildlet"))
}

#[test]
fn the_static_programs_need_nothing_and_are_small() {
    let Some(folder) = static_programs() else { return };
    for (name, largest) in [("buildlet", 3 << 20), ("stage0", 3 << 20)] {
        let program = folder.join(name);
        let size = std::fs::metadata(&program).expect("made").len();
        eprintln!("{name}: {size} bytes");
        assert!(
            size <= largest,
            "{name} has {size} bytes; wanted at most {largest}"
        );
        let headers = output(
            Command::new("readelf")
                .args(["--program-headers", "--wide"])
                .arg(&program),
        );
        assert!(
            headers.contains("LOAD") && !headers.contains("INTERP"),
            "{headers}"
        );
        let version = output(Command::new(&program).arg("--version"));
        assert!(version.starts_with(name), "{version}");
    }
}

/// 8 MB: what a machine of the smallest kind can spare.
#[test]
fn the_static_buildlet_rests_in_a_few_megabytes() {
    use std::io::BufReader;
    let Some(folder) = static_programs() else { return };
    let mut buildlet = Command::new(folder.join("buildlet"))
        .arg("-listen=127.0.0.1:0")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    let told = BufReader::new(buildlet.stderr.take().expect("piped"));
    let address = super::guest::listening_at(told);
    super::guest::answers_and_runs(&address, None, "/proc/self/exe");
    let status = std::fs::read_to_string(format!("/proc/{}/status", buildlet.id())).expect("it lives");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("Linux tells");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    buildlet.kill().expect("killed");
    buildlet.wait().expect("waited for");
    eprintln!("resident at most: {peak} kB");
    assert!(peak <= 8 * 1024, "{peak} kB");
}
