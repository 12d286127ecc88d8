//! Our client against Go's own buildlets of three eras, which listen.

use std::future::ready;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use buildlet_api::{CallError, Client, ExecSpec, ListOptions, ProcessState, TcpConnect, Upload};
use bytes::Bytes;
use ids::MachineId;
use testkit::peer::{Era, go_program};

/// Killed when it goes out of sight.
struct Buildlet(Child);

impl Drop for Buildlet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sh(script: &str) -> ExecSpec {
    ExecSpec {
        cmd: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        system: true,
        ..ExecSpec::default()
    }
}

async fn run(client: &Client, spec: &ExecSpec) -> (String, String) {
    let mut output = Vec::new();
    let state = client.exec(spec, |piece| {
        output.extend_from_slice(&piece);
        ready(())
    });
    let state = match state.await {
        Ok(ProcessState::Ok) => "ok".to_owned(),
        Ok(ProcessState::Failed(how)) => how,
        Err(CallError::Refused { status, body, .. }) => format!("{status} {body}"),
        Err(why) => panic!("{why:?}"),
    };
    (String::from_utf8(output).unwrap(), state)
}

#[tokio::test]
async fn gos_buildlets_of_three_eras_answer_every_call() {
    for era in [Era::Seed, Era::Mature, Era::Latest] {
        let Some(program) = go_program("buildlet", era) else {
            return;
        };
        let version = era.version();
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path().join("work");
        std::fs::create_dir(&work).unwrap();
        // It takes no port 0, so one that is free as far as anybody can tell.
        let address: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(program)
            .arg(format!("-listen={address}"))
            .arg(format!("-workdir={}", work.display()))
            .arg("-halt=false")
            .stderr(Stdio::null())
            .spawn();
        let mut buildlet = Buildlet(child.unwrap());
        let client = Client::new(
            Arc::new(TcpConnect(address)),
            MachineId::parse("go").unwrap(),
            None,
        );
        let began = Instant::now();
        let status = loop {
            match client.status().await {
                Ok(status) => break status,
                Err(why) => assert!(began.elapsed() < Duration::from_secs(60), "{version}: {why}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(
            status.version >= 18 && !status.resumable(),
            "{version}: {status:?}"
        );
        assert_eq!(client.work_dir().await.unwrap(), work.display().to_string());

        let tool = b"#!/bin/sh\necho tool; pwd\n";
        client
            .put_file("go/bin/tool", 0o755, Upload::Bytes(Bytes::from_static(tool)))
            .await
            .unwrap();
        let mut archive = Vec::new();
        assert!(client.tgz("go", &mut archive, 1 << 20).await.unwrap() > 0);
        client
            .put_tgz("again", Upload::Bytes(archive.into()))
            .await
            .unwrap();
        let options = ListOptions {
            recursive: true,
            digest: true,
            skip: vec![],
        };
        let listing = client.ls("again", &options, 100).await.unwrap();
        let lines: Vec<_> = listing
            .iter()
            .map(|entry| format!("{} {}", entry.mode, entry.path))
            .collect();
        assert_eq!(lines, ["drwxr-xr-x bin/", "-rwxr-xr-x bin/tool"], "{version}");
        let file = listing[1].file.as_ref().unwrap();
        assert_eq!(
            (file.size, file.sha1.as_ref().map(String::len)),
            (25, Some(40)),
            "{version}"
        );

        let tool = ExecSpec {
            cmd: "again/bin/tool".into(),
            ..ExecSpec::default()
        };
        let place = work.join("again/bin").canonicalize().unwrap();
        assert_eq!(
            run(&client, &tool).await,
            (format!("tool\n{}\n", place.display()), "ok".into())
        );
        for (spec, output, state) in [
            (
                sh("echo out; echo err >&2; exit 1"),
                "out\nerr\n",
                "exit status 1".to_owned(),
            ),
            (sh("kill -9 $$"), "", "signal: killed".to_owned()),
            (
                ExecSpec {
                    env: vec![("A".into(), "1".into()), ("A".into(), "2".into())],
                    ..sh("echo $A")
                },
                "2\n",
                "ok".to_owned(),
            ),
            (
                ExecSpec {
                    cmd: "go/none".into(),
                    ..ExecSpec::default()
                },
                "",
                format!("fork/exec {}/go/none: no such file or directory", work.display()),
            ),
        ] {
            assert_eq!(run(&client, &spec).await, (output.to_owned(), state), "{version}");
        }
        let missing = ExecSpec {
            cmd: "no-such-program".into(),
            system: true,
            ..ExecSpec::default()
        };
        let (_, how) = run(&client, &missing).await;
        // Before 2023 it is the command's end, since then a refusal.
        assert!(
            how.contains("no-such-program") && how.contains("not found"),
            "{version}: {how}"
        );

        let refused = client.remove_all(&["../x"]).await;
        assert!(
            matches!(refused, Err(CallError::Refused { status: 400, .. })),
            "{version}: {refused:?}"
        );
        let refused = client
            .put_tgz("", Upload::Bytes(Bytes::from_static(b"nonsense")))
            .await;
        assert!(
            matches!(refused, Err(CallError::Refused { status: 400, .. })),
            "{version}: {refused:?}"
        );
        // What goes wrong midway comes as a stream that is cut, or not at all.
        let none = client.tgz("none", &mut Vec::new(), 1 << 20).await;
        assert!(matches!(none, Err(CallError::Gone { .. })), "{version}: {none:?}");
        client.remove_all(&["."]).await.unwrap();
        let left = client
            .ls(
                "",
                &ListOptions {
                    recursive: true,
                    digest: false,
                    skip: vec![],
                },
                100,
            )
            .await
            .unwrap();
        assert!(
            left.iter().all(|entry| entry.file.is_none()),
            "{version}: {left:?}"
        );
        client.halt().await.unwrap();
        let ended = tokio::task::spawn_blocking(move || buildlet.0.wait().unwrap().code());
        assert_eq!(ended.await.unwrap(), Some(0), "{version}");
    }
}
