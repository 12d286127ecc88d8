use std::io::{Read, Write};

use crate::machine::{Machine, form, read};

#[test]
fn wrong_requests_are_refused_in_the_originals_words() {
    let machine = Machine::start();
    for (method, target, wanted) in [
        ("GET", "/nothing", "404 404 page not found"),
        ("POST", "/status", "400 requires GET method"),
        ("DELETE", "/workdir", "400 requires GET method"),
        ("GET", "/exec", "400 requires POST method"),
        ("GET", "/writetgz", "400 requires PUT or POST method"),
        ("GET", "/write", "400 requires PUT method"),
        ("PUT", "/removeall", "400 requires POST method"),
        ("GET", "/halt", "400 requires POST method"),
        ("POST", "/ls", "400 requires GET method"),
        ("PUT", "/burrow/exec", "400 requires POST or GET method"),
        (
            "GET",
            "/burrow/exec/1.1.0?offset=x",
            "404 there is no command `1.1.0`",
        ),
    ] {
        let answer = machine.request(method, target, "", b"");
        assert_eq!(answer.shown(), wanted, "{method} {target}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn what_is_no_http_is_answered_and_closed() {
    let machine = Machine::start();
    for (bytes, status) in [
        (&b"nonsense\r\n\r\n"[..], 400),
        (
            b"PUT /write?path=a&mode=420 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        (
            b"PUT /write?path=a&mode=420 HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            400,
        ),
        (b"POST /exec HTTP/1.0\r\nContent-Length: 0\r\n\r\n", 400),
        (b"GET /status HTTP/1.0\r\n\r\n", 200),
        (
            &[b"GET / HTTP/1.1\r\nX: ", &[b'a'; 70_000][..], b"\r\n\r\n"].concat(),
            400,
        ),
    ] {
        let mut stream = machine.connect();
        let _ = stream.write_all(bytes);
        let answer = read(&mut stream);
        assert_eq!(
            answer.status,
            status,
            "{}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
        );
    }
    assert!(!machine.work("a").exists());
}

#[test]
fn a_form_beyond_its_limit_is_named_too_large() {
    let machine = Machine::start();
    let body = form(&[("cmd", &"x".repeat(10 << 20)), ("dir", "")]);
    let answer = machine.request("POST", "/exec", "", body.as_bytes());
    assert_eq!(answer.shown(), "413 the form is longer than 10485760 bytes");
}

#[test]
fn one_connection_takes_one_request_after_another() {
    let machine = Machine::start();
    let mut stream = machine.connect();
    stream
        .write_all(
            b"PUT /write?path=a&mode=420 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n\
              GET /healthz HTTP/1.1\r\n\r\nGET /debug/x?n=3 HTTP/1.1\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{text}");
    assert!(text.ends_with("\r\n\r\nXXX"), "{text}");
    assert_eq!(std::fs::read(machine.work("a")).unwrap(), b"onetwo");
}

#[test]
fn a_buildlet_says_who_it_is() {
    let machine = Machine::start();
    let first = machine.get("/debug/goroutines").text();
    assert_eq!(first, "1 connections, 1 requests under way\n");
    let status: serde_json::Value = serde_json::from_slice(&machine.get("/status").body).unwrap();
    assert_eq!(status["Version"], 27);
    assert_eq!(
        status["Features"],
        serde_json::json!(["exec2", "facts", "limits"])
    );
    assert_eq!(
        machine.get("/").text(),
        format!(
            "buildlet running on linux-{}\n",
            match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
        )
    );
    assert_eq!(
        machine.get("/workdir").text(),
        machine.work("").display().to_string().trim_end_matches('/')
    );
    assert_eq!(machine.get("/debug/x?n=99999999").body.len(), 1 << 20);
    assert_eq!(machine.get("/debug/x?n=-1").status, 400);
}

#[test]
fn a_working_directory_that_went_away_is_made_anew() {
    let machine = Machine::start();
    std::fs::remove_dir_all(machine.work("")).unwrap();
    assert_eq!(machine.sh("pwd").state(), "ok");
    std::fs::remove_dir_all(machine.work("")).unwrap();
    assert_eq!(machine.get("/ls?dir=").shown(), "200 ");
}
