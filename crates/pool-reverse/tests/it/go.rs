//! Go's own buildlets of three eras, dialling in.
//!
//! They show a name with its port in the TLS handshake, which no server here takes, unless the port is 443: so that
//! is where the farm listens, one test at a time.

use std::fs::File;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use buildlet_api::{ExecSpec, ProcessState, Upload};

use crate::real::{Buildlet, Farm};

/// Golang/build of January 2019, of 2021, of today.
const VERSIONS: [&str; 3] = [
    "v0.0.0-20190111050920-041ab4dc3f9d",
    "v0.0.0-20211108163316-3ce30f35b9aa",
    "v0.0.0-20260918145456-c0ee0fbd16a3",
];

/// A word about why not; a failure where nothing may be left out.
fn skipped(why: &str) {
    assert!(std::env::var_os("BURROW_TEST_REQUIRE").is_none(), "{why}");
    eprintln!("skipped: {why}");
}

fn built(version: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(version);
    let install = Command::new("go")
        .args(["install", &format!("golang.org/x/build/cmd/buildlet@{version}")])
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
            Some(folder.join("buildlet"))
        }
        Err(_) => {
            skipped("no `go` to build Go's own buildlets with");
            None
        }
    }
}

#[tokio::test]
async fn gos_buildlets_of_three_eras_register_and_work() {
    for version in VERSIONS {
        let Some(program) = built(version) else { return };
        // Whoever wants the port waits.
        let lock = File::create(std::env::temp_dir().join("burrow-port-443.lock")).unwrap();
        lock.lock().unwrap();
        let mut farm = match tokio::net::TcpListener::bind("127.0.0.1:443").await {
            Ok(listener) => Farm::at(listener),
            Err(why) => return skipped(&format!("cannot listen at 127.0.0.1:443: {why}")),
        };
        let master = buildlet_api::MasterKey::parse(b"gophers rule").unwrap();
        *farm.good_key.lock().unwrap() = master.builder_key("host-test");
        let mut command = Command::new(program);
        command
            .args([
                "-coordinator=localhost:443",
                "-reverse-type=host-test",
                "-hostname=mac7",
                "-halt=false",
            ])
            .env("TMPDIR", farm.path(""))
            .stderr(Stdio::null());
        // The first that listen for health do so at a fixed port.
        if version != VERSIONS[0] {
            command.arg("-health-addr=127.0.0.1:0");
        }
        let mut buildlet = Buildlet(command.spawn().unwrap());
        let client = farm.up_of(false).await.1;
        client
            .put_file("d/f", 0o644, Upload::Bytes(vec![b'x'; 500_000].into()))
            .await
            .unwrap();
        let spec = ExecSpec {
            cmd: "/bin/sh".into(),
            args: vec!["-c".into(), "wc -c < d/f; exit 3".into()],
            system: true,
            ..ExecSpec::default()
        };
        let mut output = Vec::new();
        let state = client.exec(&spec, |piece| {
            output.extend_from_slice(&piece);
            ready(())
        });
        assert_eq!(
            state.await.unwrap(),
            ProcessState::Failed("exit status 3".to_owned()),
            "{version}"
        );
        assert_eq!(String::from_utf8(output).unwrap().trim(), "500000", "{version}");
        let mut archive = Vec::new();
        client.tgz("d", &mut archive, 1 << 20).await.unwrap();
        assert!(archive.starts_with(&[0x1f, 0x8b]));
        client.remove_all(&["."]).await.unwrap();
        client.halt().await.unwrap();
        // It acts a second after its answer.
        let ended = tokio::task::spawn_blocking(move || buildlet.0.wait().unwrap().code());
        assert_eq!(ended.await.unwrap(), Some(0), "{version}");
    }
}
