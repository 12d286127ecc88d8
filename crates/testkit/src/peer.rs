//! Go's own programs, as Go modules: what our side of a protocol is tested against.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Set where nothing may be skipped: a counterpart that cannot be had then fails the test.
pub const REQUIRE: &str = "BURROW_TEST_REQUIRE";

/// For whoever listens at the fixed port to be done.
const PORT_LIMIT: Duration = Duration::from_secs(180);

/// One of the three versions of `golang.org/x/build` that the module proxy serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// January 2019: all ten programs, revdial v1.
    Seed,
    /// November 2021: the mature farm, revdial v2.
    Mature,
    /// September 2026: buildlet, maintner and revdial v2 still live in it.
    Latest,
}

impl Era {
    pub fn version(self) -> &'static str {
        match self {
            Era::Seed => "v0.0.0-20190111050920-041ab4dc3f9d",
            Era::Mature => "v0.0.0-20211108163316-3ce30f35b9aa",
            Era::Latest => "v0.0.0-20260918145456-c0ee0fbd16a3",
        }
    }
}

/// Path of `cmd/NAME` of that version. Installed on first use, for all later runs on this machine, into
/// `golang-build/VERSION` of the user's cache folder; that takes minutes.
///
/// `None`, said aloud, where there is no Go toolchain.
///
/// # Panics
/// If it cannot be installed, and with [`REQUIRE`] set also without a toolchain.
pub fn go_program(name: &str, era: Era) -> Option<PathBuf> {
    if Command::new("go").arg("version").output().is_err() {
        assert!(
            std::env::var_os(REQUIRE).is_none(),
            "there is no `go`; install Go 1.25 or newer"
        );
        eprintln!("skipped: Go's {name} is not there, for there is no `go`");
        return None;
    }
    let version = era.version();
    let folder = cache().join("golang-build").join(version);
    fs::create_dir_all(&folder).expect("the cache folder can be made");
    // Tests run side by side; one installs, the others wait for it.
    let lock = File::create(folder.join(".lock")).expect("the cache folder can be written");
    lock.lock().expect("the cache folder can be locked");
    let program = folder.join(name);
    if !program.exists() {
        eprintln!("installing Go's {name} {version}");
        let out = Command::new("go")
            .args(["install", &format!("golang.org/x/build/cmd/{name}@{version}")])
            .env("GOBIN", &folder)
            .env("GOFLAGS", "")
            .output()
            .expect("go runs");
        assert!(
            out.status.success(),
            "go install of {name} {version}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    Some(program)
}

/// Waits for the right to listen at `localhost:8119`, where Go's programs of the first two eras look for a coordinator; it
/// ends with the value.
pub fn coordinators_port() -> File {
    let folder = cache().join("golang-build");
    fs::create_dir_all(&folder).expect("the cache folder can be made");
    let lock = File::create(folder.join("port-8119.lock")).expect("the cache folder can be written");
    lock.lock().expect("the cache folder can be locked");
    // Go's own programs know of no lock.
    let began = Instant::now();
    while let Err(why) = TcpListener::bind("127.0.0.1:8119") {
        assert!(
            began.elapsed() < PORT_LIMIT,
            "cannot listen at 127.0.0.1:8119: {why}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    lock
}

fn cache() -> PathBuf {
    let named = |key: &str| {
        std::env::var_os(key)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    named("XDG_CACHE_HOME")
        .or_else(|| named("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
}
