//! Against moto, a server of S3 from PyPI. With `BURROW_TEST_REQUIRE=1` it must be there.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mutlog::Segment;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};

use crate::crash::{content, writer};

struct Moto {
    child: Child,
    url: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Python that has it: the system's, else one of our own that is made now. `None`: neither is to be had.
fn python() -> Option<PathBuf> {
    let has_moto = |python: &Path| {
        let there = Command::new(python)
            .args(["-c", "import moto.server, flask"])
            .output();
        there.is_ok_and(|there| there.status.success())
    };
    let system = PathBuf::from("python3");
    if has_moto(&system) {
        return Some(system);
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto");
    let own = dir.join("bin/python3");
    if !has_moto(&own) {
        // What they say stands in the output of a test that fails.
        let _ = Command::new(&system).args(["-m", "venv"]).arg(&dir).status();
        let _ = Command::new(&own)
            .args(["-m", "pip", "install", "--quiet", "moto[server]"])
            .status();
    }
    Some(own).filter(|own| has_moto(own))
}

/// `None`: it is not to be had, which was said.
fn moto() -> Option<Moto> {
    let Some(python) = python() else {
        let required = std::env::var("BURROW_TEST_REQUIRE").as_deref() == Ok("1");
        assert!(
            !required,
            "there is no moto, and it cannot be installed: pip install 'moto[server]'"
        );
        eprintln!("SKIPPED: there is no moto to test against: pip install 'moto[server]'");
        return None;
    };
    // Its port 0 is not told; a free one is.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut child = Command::new(python)
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let running = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("Running on"));
    assert!(running, "moto ended at once");
    // It writes a line for each request.
    std::thread::spawn(move || lines.for_each(drop));
    let url = format!("http://127.0.0.1:{port}");
    Some(Moto { child, url })
}

#[test]
fn a_real_server_keeps_a_log_and_knows_one_writer_from_another() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(moto) = moto() else { return };
    let made = Command::new("python3")
        .args([
            "-c",
            "import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], method='PUT'))",
        ])
        .arg(format!("{}/bucket", moto.url))
        .status();
    assert!(made.unwrap().success());
    let store = AmazonS3Builder::new()
        .with_endpoint(&moto.url)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name("bucket")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(object_store::RetryConfig {
            retry_timeout: Duration::from_secs(20),
            ..Default::default()
        })
        .build()
        .unwrap();
    let store = Arc::new(store);
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = writer(one.path(), store.clone()).unwrap();
    for n in 0..12 {
        first.append(format!("record {n}").as_bytes()).unwrap();
        first.commit().unwrap();
    }
    let log: Vec<Segment> = first.visible();
    assert!(log.len() > 2);
    let second = writer(other.path(), store).unwrap();
    assert_eq!(second.visible(), log);
    assert_eq!(content(other.path(), &log), content(one.path(), &log));
    first.append(b"too late").unwrap();
    let why = anyhow::Error::from(first.commit().unwrap_err());
    assert!(format!("{why:#}").contains("another writer took over"), "{why:#}");
}
