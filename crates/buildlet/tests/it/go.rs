//! Against Go's own programs: its client and its reverse dialer of three eras, and its buildlet as the measure.
//!
//! Built with `go` into the target folder; without `go` the tests say that they were skipped, and fail with
//! BURROW_TEST_REQUIRE=1.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use crate::machine::Machine;

/// The module file of each era, and what it stands for.
const TODAY: &str = "go.mod";
const YEAR_2021: &str = "go_2021.mod";
const YEAR_2019: &str = "go_2019.mod";
const ERAS: [&str; 3] = [TODAY, YEAR_2021, YEAR_2019];

/// What `go build` makes of a package in the module of an era; nothing, and a word about it, without `go`.
fn built(era: &str, package: &str) -> Option<PathBuf> {
    // Two builds at once would write the same module file.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if Command::new("go").arg("version").output().is_err() {
        let why = "no `go` to build Go's own client and buildlet with";
        assert!(std::env::var_os("BURROW_TEST_REQUIRE").is_none(), "{why}");
        eprintln!("skipped: {why}");
        return None;
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/go");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(era);
    std::fs::create_dir_all(&folder).unwrap();
    let glue = if era == YEAR_2019 { "old.go" } else { "today.go" };
    for source in ["main.go", glue] {
        std::fs::copy(sources.join(source), folder.join(source)).unwrap();
    }
    if !folder.join("go.mod").exists() {
        std::fs::copy(sources.join(era), folder.join("go.mod")).unwrap();
    }
    let program = folder.join(package.rsplit('/').next().unwrap().replace('.', "peer"));
    let build = Command::new("go")
        .args(["build", "-o"])
        .args([program.as_os_str(), package.as_ref()])
        .env("GOFLAGS", "-mod=mod")
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(
        build.status.success(),
        "{}",
        String::from_utf8_lossy(&build.stderr)
    );
    Some(program)
}

/// Runs the peer to its end: what it saw.
fn seen(peer: &Path, args: &[&str]) -> String {
    let output = Command::new(peer).args(args).output().unwrap();
    let (seen, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{seen}\n{said}");
    seen.into_owned()
}

/// What every buildlet shows, whoever wrote it and whichever way it was reached.
const EXPECTED: &str = r##"workdir true
exec go/bin/tool: "from put\n$WORKDIR/go/bin\n" remote=none failed=none
exec /bin/sh: "out\nerr\n" remote="exit status 1" failed=none
exec /bin/sh: "" remote="signal: killed" failed=none
exec sh: "2 $WORKDIR/go/bin\n$WORKDIR/go\n" remote=none failed=none
exec go/none: "" remote="fork/exec $WORKDIR/go/none: no such file or directory" failed=none
exec no-such-program: "" remote=none failed="buildlet: HTTP status 422 Unprocessable Entity: invalid 'cmd' parameter: command \"no-such-program\" not found"
ls drwxr-xr-x bin/ 
ls -rwxr-xr-x bin/tool 41aadc42d092cc66a314bc43e3d3f9a134c1683b
ls drwxr-xr-x src/ 
ls -rw-r--r-- src/hello f572d396fae9206628714fb2ce00f72e94f2258f
tgz bin/ drwxr-xr-x 0
tgz bin/tool -rwxr-xr-x 29
tgz src/ drwxr-xr-x 0
tgz src/hello -rw-r--r-- 6
bad tar: "400 Bad Request; body: 
bad path: "400 Bad Request; body: invalid 'path' parameter: 
left 0
done
"##;

/// What came of the calls, without what may differ: the version and the reasons of refusals.
fn compare(seen: &str) {
    let mut lines = seen.lines().skip_while(|line| !line.starts_with("workdir"));
    for wanted in EXPECTED.lines() {
        let found = lines.next().unwrap_or("nothing");
        let alike = if wanted.starts_with("bad ") {
            found.starts_with(wanted)
        } else {
            found == wanted
        };
        assert!(alike, "wanted {wanted}\n found {found}\n in {seen}");
    }
}

#[test]
fn gos_client_of_three_eras_sees_what_it_expects() {
    for era in ERAS {
        let Some(peer) = built(era, ".") else { return };
        let mut machine = Machine::start();
        let seen = seen(&peer, &["client", &machine.address]);
        assert!(seen.starts_with("version 27\n"), "{seen}");
        compare(&seen);
        assert_eq!(machine.code(), Some(0));
    }
}

#[test]
fn gos_own_buildlet_shows_the_same() {
    let (Some(peer), Some(buildlet)) = (built(TODAY, "."), built(TODAY, "golang.org/x/build/cmd/buildlet"))
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    std::fs::create_dir(&work).unwrap();
    // It takes no port 0, so one that is free as far as anybody can tell.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let child = Command::new(buildlet)
        .arg(format!("-listen={address}"))
        .arg(format!("-workdir={}", work.display()))
        .arg("-halt=false")
        .stderr(Stdio::null())
        .spawn();
    let mut original = Machine {
        child: child.unwrap(),
        folder,
        address,
    };
    let address = original.address.clone();
    original.until("it listens", |_| TcpStream::connect(&address).is_ok());
    compare(&seen(&peer, &["client", &address]));
}

#[test]
fn gos_client_with_its_own_key_pair_and_password() {
    for era in ERAS {
        let Some(peer) = built(era, ".") else { return };
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (cert, key) = (path("cert.pem"), path("key.pem"));
        let password = seen(&peer, &["keypair", &cert, &key]);
        let env = [
            ("META_tls_cert", format!("@{cert}")),
            ("META_tls_key", format!("@{key}")),
            ("META_password", password.trim().to_owned()),
        ];
        let machine = Machine::with(&[], &env.each_ref().map(|(name, value)| (*name, value.as_str())));
        compare(&seen(&peer, &["client", &machine.address, &cert, &key]));
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

#[test]
fn gos_reverse_dialer_reaches_a_buildlet_that_dials_in() {
    for era in ERAS {
        let Some(peer) = built(era, ".") else { return };
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (cert, key) = (path("cert.pem"), path("key.pem"));
        seen(&peer, &["keypair", &cert, &key]);
        let coordinator = Command::new(&peer)
            .args(["coordinator", &cert, &key])
            .stdout(Stdio::piped())
            .spawn();
        let mut coordinator = Process(coordinator.unwrap());
        let mut output = BufReader::new(coordinator.0.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening ").unwrap();
        let buildlet = Command::new(env!("CARGO_BIN_EXE_buildlet"))
            .args(["-reverse-type=host-test", "-hostname=mac7", "-insecure-dev"])
            .arg(format!("-coordinator={address}"))
            .arg(format!("-workdir={}", path("work")))
            .arg(format!("-state-dir={}", path("state")))
            .stderr(Stdio::null())
            .spawn();
        let mut buildlet = Process(buildlet.unwrap());
        let mut seen = String::new();
        output.read_to_string(&mut seen).unwrap();
        let registered = "registered mac7 host-test 23b7aaf3a8eda20c9e3182c17b2ce9ed 27 2\nversion 27\n";
        assert!(seen.starts_with(registered), "{seen}");
        compare(&seen);
        assert!(seen.ends_with("done\nsession ended\n"), "{seen}");
        assert_eq!(buildlet.0.wait().unwrap().code(), Some(0));
    }
}
