use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::machine::{Machine, request};

#[test]
fn a_password_keeps_all_but_signs_of_life() {
    let machine = Machine::with(&[], &[("META_password", "secret")]);
    for (target, authorization, status) in [
        ("/", "", 200),
        ("/healthz", "", 200),
        ("/debug/x?n=1", "", 200),
        ("/nothing", "", 404),
        ("/status", "", 403),
        ("/debug/goroutines", "", 403),
        ("/status", "Authorization: Basic Z29tb3RlOnNlY3JldA==\r\n", 200),
        ("/status", "Authorization: Basic Z29tb3RlOnNlY3JldHM=\r\n", 403),
        ("/status", "Authorization: Basic ?\r\n", 403),
    ] {
        let answer = machine.request("GET", target, authorization, b"");
        assert_eq!(answer.status, status, "{target} {authorization}");
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert_eq!(machine.get("/status").shown(), "403 invalid password");
}

#[test]
fn tls_is_spoken_with_the_certificate_of_the_environment() {
    let pair = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&pair).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    std::fs::write(&key, pair.serialize_pem()).unwrap();
    let machine = Machine::with(
        &[],
        &[
            ("META_tls_cert", &certificate.pem()),
            ("META_TLS_KEY", &format!("@{}", key.display())),
        ],
    );
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let secured = || {
        let name = "localhost".try_into().unwrap();
        StreamOwned::new(
            ClientConnection::new(config.clone(), name).unwrap(),
            machine.connect(),
        )
    };
    let answer = request(secured(), "GET", "/status", "", b"");
    assert_eq!(answer.status, 200);
    let answer = request(secured(), "POST", "/exec", "", b"cmd=echo&cmdArg=hello");
    assert_eq!((answer.text().as_str(), answer.state()), ("hello\n", "ok"));
    // Whoever does not speak TLS is closed, and the next is served.
    let mut plain = machine.connect();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut text = Vec::new();
    let _ = plain.read_to_end(&mut text);
    assert!(!text.starts_with(b"HTTP/"));
    assert_eq!(request(secured(), "GET", "/healthz", "", b"").text(), "ok\n");
}

#[test]
fn a_halt_ends_the_process_a_second_later_with_its_commands() {
    let mut machine = Machine::start();
    let sleeping = [("cmd", "/bin/sleep"), ("mode", "sys"), ("cmdArg", "74001")];
    machine.post("/burrow/exec?id=a", &sleeping);
    assert_eq!(machine.post("/halt", &[]).shown(), "200 ");
    // It still says who it is, and takes no work.
    assert_eq!(machine.get("/status").status, 200);
    assert_eq!(machine.sh("true").shown(), "503 this buildlet is ending");
    assert_eq!(machine.code(), Some(0));
    assert!(TcpStream::connect(&machine.address).is_err());
}

#[test]
fn a_signal_ends_commands_and_lets_their_followers_know() {
    let mut machine = Machine::start();
    let mut stream = machine.connect();
    let body = "cmd=/bin/sh&mode=sys&cmdArg=-c&cmdArg=echo+begun;exec+sleep+75001";
    write!(
        stream,
        "POST /exec HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"begun\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    let pid = Pid::from_child(&machine.child);
    kill_process(pid, Signal::TERM).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("Process-State: signal: terminated\r\n"), "{rest}");
    assert_eq!(machine.code(), Some(0));
}

#[test]
fn health_has_a_door_of_its_own() {
    // A port that is free, as far as anybody can tell.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let _machine = Machine::with(&[&format!("-health-addr={free}")], &[("META_PASSWORD", "secret")]);
    let get = |target: &str| request(TcpStream::connect(&free).unwrap(), "GET", target, "", b"").shown();
    assert_eq!(get("/healthz"), "200 ok");
    assert_eq!(get("/status"), "404 404 page not found");
}

#[test]
fn an_orphan_ends_itself() {
    let mut machine = Machine::with(&["-orphan-timeout=1s"], &[]);
    assert_eq!(machine.code(), Some(0));
}

/// A cloud's metadata server that answers these paths; what it was asked is kept.
fn cloud(
    answers: &'static [(&'static str, &'static str, &'static str)],
) -> (String, std::sync::mpsc::Receiver<String>) {
    use std::io::{BufRead, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let lines = std::io::BufReader::new(&stream).lines().map(Result::unwrap);
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let head = head.join("\n");
            let found = answers
                .iter()
                .find(|(start, header, _)| head.starts_with(&format!("{start} ")) && head.contains(header));
            let (status, text) = found.map_or(("404 Not Found", ""), |found| ("200 OK", found.2));
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            let _ = (&stream).write_all(answer.as_bytes());
            // Nobody may listen any more.
            let _ = sender.send(head);
        }
    });
    (address, asked)
}

#[test]
fn clouds_tell_the_password() {
    let (address, asked) = cloud(&[(
        "GET /computeMetadata/v1/instance/attributes/password",
        "Metadata-Flavor: Google",
        "of gce\n",
    )]);
    let machine = Machine::with(&[], &[("GCE_METADATA_HOST", &address)]);
    assert_eq!(machine.get("/status").shown(), "403 invalid password");
    let auth = "Authorization: Basic OjpvZiBnY2U=\r\n";
    assert_eq!(machine.request("GET", "/status", auth, b"").status, 403);
    // `x:of gce`
    let auth = "Authorization: Basic eDpvZiBnY2U=\r\n";
    assert_eq!(machine.request("GET", "/status", auth, b"").status, 200);
    let asked: Vec<String> = asked.try_iter().collect();
    for key in ["password", "tls-cert", "tls-key"] {
        let asks = |head: &&String| head.contains(&format!("/attributes/{key} "));
        assert_eq!(asked.iter().filter(asks).count(), 1, "{asked:?}");
    }
    // What the environment says goes before, and a pod has no machine's metadata.
    let env = [
        ("GCE_METADATA_HOST", address.as_str()),
        ("META_PASSWORD", "of env"),
    ];
    let machine = Machine::with(&[], &env);
    assert_eq!(machine.request("GET", "/status", auth, b"").status, 403);
    let env = [
        ("GCE_METADATA_HOST", address.as_str()),
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
    ];
    assert_eq!(Machine::with(&[], &env).get("/status").status, 200);

    let (address, asked) = cloud(&[
        ("PUT /latest/api/token", "ttl-seconds: 60", "TOKEN"),
        (
            "GET /latest/user-data",
            "X-aws-ec2-metadata-token: TOKEN",
            r#"{"tls_password": "of ec2", "tls_cert": "", "metadata": {}}"#,
        ),
    ]);
    let endpoint = format!("http://{address}");
    let machine = Machine::with(&[], &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)]);
    // `x:of ec2`
    let auth = "Authorization: Basic eDpvZiBlYzI=\r\n";
    assert_eq!(machine.get("/status").status, 403);
    assert_eq!(machine.request("GET", "/status", auth, b"").status, 200);
    assert_eq!(asked.try_iter().count(), 2);
}

#[test]
fn a_cloud_that_cannot_be_asked_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = listener.local_addr().unwrap().to_string();
    drop(listener);
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_buildlet"))
        .arg("-listen=127.0.0.1:0")
        .env("GCE_METADATA_HOST", &free)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{text}");
    let wanted = format!("buildlet: cannot ask GCE's metadata server `{free}` for `password`: ");
    assert!(text.starts_with(&wanted), "{text}");
}
