//! Under the coordinator that burrow grew from, driven by its own gomote: golang/build of January 2019, which
//! multiplexes over the registered connection.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const VERSION: &str = "v0.0.0-20190111050920-041ab4dc3f9d";
const BUILDER: &str = "linux-arm-arm5spacemonkey";
/// Where its development mode listens, and nowhere else.
const ADDRESS: &str = "localhost:8119";

/// The folder with its programs; nothing, and a word about it, without `go`.
fn programs() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("seed");
    let package = |name: &str| format!("golang.org/x/build/cmd/{name}@{VERSION}");
    let install = Command::new("go")
        .args(["install", &package("coordinator"), &package("gomote")])
        .env("GOBIN", &folder)
        .env("GOFLAGS", "")
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .output();
    match install {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            Some(folder)
        }
        Err(_) => {
            let why = "no `go` to build the first coordinator and its gomote with";
            assert!(std::env::var_os("BURROW_TEST_REQUIRE").is_none(), "{why}");
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// Killed when it goes out of sight.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, happened: impl Fn() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_first_coordinator_and_its_gomote_work_with_this_buildlet() {
    let Some(programs) = programs() else { return };
    // One at a time on this machine, whoever runs it.
    let lock = File::create(std::env::temp_dir().join("burrow-port-8119.lock")).unwrap();
    lock.lock().unwrap();
    until("the port is free", || TcpStream::connect(ADDRESS).is_err());
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let coordinator = Command::new(programs.join("coordinator"))
        .arg("-mode=dev")
        .env("HOME", home.path())
        .current_dir(home.path())
        .stderr(Stdio::null())
        .spawn();
    let _coordinator = Process(coordinator.unwrap());
    until("it listens", || TcpStream::connect(ADDRESS).is_ok());
    let buildlet = Command::new(env!("CARGO_BIN_EXE_buildlet"))
        .args([
            "-reverse-type=host-linux-arm5spacemonkey",
            "-hostname=mac7",
            "-insecure-dev",
        ])
        .args([
            format!("-coordinator={ADDRESS}"),
            format!("-workdir={}", path("work")),
            format!("-state-dir={}", path("state")),
        ])
        .stderr(Stdio::null())
        .spawn();
    let mut buildlet = Process(buildlet.unwrap());

    std::fs::create_dir_all(path(".config/gomote")).unwrap();
    std::fs::write(path(".config/gomote/user-demo.token"), "anything").unwrap();
    let gomote = |args: &[&str]| {
        let output = Command::new(programs.join("gomote"))
            .args(["-localdev", "-user=demo"])
            .args(args)
            .env("HOME", home.path())
            .output()
            .unwrap();
        (
            output.status.success(),
            output.stdout,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (created, name, said) = gomote(&["create", BUILDER]);
    let name = String::from_utf8(name).unwrap();
    let name = name.trim();
    assert!(created, "{said}");
    let sh = |script: &str| {
        let (ended, output, said) = gomote(&["run", "-system", name, "/bin/sh", "-c", script]);
        (ended, String::from_utf8(output).unwrap(), said)
    };
    assert_eq!(
        sh("echo hello; echo there >&2"),
        (true, "hello\nthere\n".to_owned(), String::new())
    );
    let (ended, _, said) = sh("exit 3");
    assert!(!ended && said.contains("exit status 3"), "{said}");

    // More than fits a frame, both ways.
    let big: Vec<u8> = (0..5_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(path("big"), &big).unwrap();
    let (put, _, said) = gomote(&["put", name, &path("big"), "d/big"]);
    assert!(put, "{said}");
    assert_eq!(std::fs::read(path("work/d/big")).unwrap(), big);
    let (listed, lines, said) = gomote(&["ls", name, "d"]);
    assert!(listed, "{said}");
    let lines = String::from_utf8(lines).unwrap();
    assert!(
        lines.starts_with("-rw") && lines.contains("\tbig\t5000000\t"),
        "{lines}"
    );
    let (got, archive, said) = gomote(&["gettar", "-dir=d", name]);
    assert!(got, "{said}");
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(&archive[..]));
    let mut content = Vec::new();
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
    assert!(content == big);

    let (destroyed, _, said) = gomote(&["destroy", name]);
    assert!(destroyed, "{said}");
    assert_eq!(buildlet.0.wait().unwrap().code(), Some(0));
}
