//! Go's own buildlets of three eras, dialling in.
//!
//! They show a name with its port in the TLS handshake, which no server here takes, unless the port is 443: so that
//! is where the farm listens.

use std::future::ready;
use std::process::{Command, Stdio};

use buildlet_api::{ExecSpec, ProcessState, Upload};
use testkit::peer::{Era, go_program};

use crate::real::{Buildlet, Farm};

#[tokio::test]
async fn gos_buildlets_of_three_eras_register_and_work() {
    // Each at an address of its own: that of the one before is not free at once.
    for (n, era) in [Era::Seed, Era::Mature, Era::Latest].into_iter().enumerate() {
        let Some(program) = go_program("buildlet", era) else {
            return;
        };
        let (door, version) = (format!("127.77.19.{}:443", n + 1), era.version());
        let listener = tokio::net::TcpListener::bind(&door).await;
        let mut farm = Farm::at(listener.expect("nobody else uses this address, and root may use the port"));
        let master = buildlet_api::MasterKey::parse(b"gophers rule").unwrap();
        *farm.good_key.lock().unwrap() = master.builder_key("host-test");
        let mut command = Command::new(program);
        command
            .args([
                &format!("-coordinator={door}"),
                "-reverse-type=host-test",
                "-hostname=mac7",
                "-halt=false",
            ])
            .env("TMPDIR", farm.path(""))
            .stderr(Stdio::null());
        // The first that listen for health do so at a fixed port.
        if era != Era::Seed {
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
