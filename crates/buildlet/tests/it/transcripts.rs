//! Byte for byte what the original's programs send and expect, where no live one shows it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};

use crate::machine::{Machine, form};

#[test]
fn an_exec_without_te_has_its_trailer_and_an_empty_host_is_fine() {
    let machine = Machine::start();
    // Source: golang/build `buildlet/buildletclient.go`, over a connection from revdial.
    let body = form(&[
        ("cmd", "/bin/sh"),
        ("cmdArg", "-c"),
        ("cmdArg", "printf hello; exit 1"),
        ("debug", "false"),
        ("dir", ""),
        ("mode", "sys"),
    ]);
    let mut stream = machine.connect();
    write!(
        stream,
        "POST /exec HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nAccept-Encoding: gzip\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") || !seen.windows(5).any(|five| five == b"\r\n0\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    let seen = String::from_utf8(seen).unwrap();
    let (head, rest) = seen.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nTransfer-Encoding: chunked"), "{head}");
    assert!(head.contains("\r\nTrailer: Process-State"), "{head}");
    let wanted = "5\r\nhello\r\n0\r\nProcess-State: exit status 1\r\nBurrow-Exec: {";
    assert!(rest.starts_with(wanted), "{rest}");
    assert!(rest.ends_with("}\r\n\r\n"), "{rest}");
    // The connection is there for the next.
    stream
        .write_all(b"GET /status HTTP/1.1\r\nHost: \r\n\r\n")
        .unwrap();
    let mut next = [0; 17];
    stream.read_exact(&mut next).unwrap();
    assert_eq!(&next, b"HTTP/1.1 200 OK\r\n");
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

fn head(stream: &mut Tls) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn the_registration_is_that_of_the_original() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accept = || {
        let (tcp, _) = listener.accept().unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), tcp)
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let buildlet = Command::new(env!("CARGO_BIN_EXE_buildlet"))
        .args(["-reverse-type=host-test", "-hostname=mac7", "-insecure-dev"])
        .arg(format!("-coordinator={address}"))
        .args([
            format!("-workdir={}", path("work")),
            format!("-state-dir={}", path("state")),
        ])
        .stderr(Stdio::null())
        .spawn();
    let _buildlet = Process(buildlet.unwrap());

    let mut control = accept();
    let asked = head(&mut control);
    assert!(asked.starts_with("GET /reverse HTTP/1.1\r\n"), "{asked}");
    for line in [
        "X-Go-Builder-Hostname: mac7",
        "X-Go-Builder-Key: 23b7aaf3a8eda20c9e3182c17b2ce9ed",
        "X-Go-Builder-Version: 27",
        "X-Go-Host-Type: host-test",
        "X-Revdial-Version: 2",
    ] {
        assert!(asked.contains(&format!("\r\n{line}\r\n")), "{line}: {asked}");
    }
    // All in one record: the answer without a version, a sign of life, and a path that is nobody's business, which
    // makes a line of as many bytes as a line may have.
    let start = r#"{"command":"conn-ready","connPath":"/revdial?revdial.dialer=0f3c"#;
    let path = format!("{}\"}}\n", "e".repeat(4096 - start.len() - 3));
    let line = format!("{start}{path}");
    assert_eq!(line.len(), 4096);
    let together = format!("HTTP/0.0 101 Switching Protocols\r\n\r\n{{\"command\":\"keep-alive\"}}\n{line}");
    control.write_all(together.as_bytes()).unwrap();
    control.flush().unwrap();

    let mut picked = accept();
    let asked = head(&mut picked);
    let wanted = format!(
        "GET /revdial?revdial.dialer=0f3c{} HTTP/1.1\r\n",
        "e".repeat(4096 - start.len() - 3)
    );
    assert!(asked.starts_with(&wanted), "{asked}");
    assert!(!asked.to_lowercase().contains("\r\nupgrade"), "{asked}");
    // The first request comes in the record of the answer.
    picked
        .write_all(b"HTTP/0.0 101 Switching Protocols\r\n\r\nGET /status HTTP/1.1\r\nHost: \r\n\r\n")
        .unwrap();
    picked.flush().unwrap();
    assert!(head(&mut picked).starts_with("HTTP/1.1 200 OK\r\n"));

    // One byte more ends the session, and the buildlet registers anew.
    let long = line.replacen("0f3c", "0f3ce", 1);
    control.write_all(long.as_bytes()).unwrap();
    control.flush().unwrap();
    assert!(head(&mut accept()).starts_with("GET /reverse HTTP/1.1\r\n"));
}
