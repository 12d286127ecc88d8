use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;

use crate::machine::{Machine, form, read};

#[test]
fn output_is_one_stream_and_the_state_is_a_trailer() {
    let machine = Machine::start();
    let answer = machine.sh("printf out; printf err >&2; cat; exit 3");
    assert_eq!(answer.text(), "outerr");
    assert_eq!(answer.state(), "exit status 3");
    let announced = answer.header("trailer").unwrap();
    assert!(announced.starts_with("Process-State"), "{announced}");
    for (script, wanted) in [
        ("exit 0", "ok"),
        ("kill -9 $$", "signal: killed"),
        ("kill -TERM $$", "signal: terminated"),
        ("kill -ABRT $$; sleep 9", "signal: aborted"),
        ("kill -USR2 $$", "signal: user defined signal 2"),
    ] {
        let state = machine.sh(script).state().to_owned();
        assert_eq!(state.trim_end_matches(" (core dumped)"), wanted, "{script}");
    }
}

#[test]
fn what_cannot_be_started_says_so_as_go_does() {
    let machine = Machine::start();
    fs::write(machine.work("plain"), "x").unwrap();
    let work = machine.work("").display().to_string();
    let work = work.trim_end_matches('/');
    for (fields, wanted) in [
        (
            &[("cmd", "none/x")][..],
            format!("200 fork/exec {work}/none/x: no such file or directory"),
        ),
        (
            &[("cmd", "./plain"), ("dir", ".")],
            format!("200 fork/exec {work}/plain: permission denied"),
        ),
        (
            &[("cmd", "sh"), ("dir", "gone")],
            format!("200 chdir {work}/gone: no such file or directory"),
        ),
        (
            &[("cmd", "sh"), ("dir", "plain")],
            format!("200 chdir {work}/plain: not a directory"),
        ),
        (
            &[("cmd", "no-such-program")],
            "422 invalid 'cmd' parameter: command \"no-such-program\" not found".into(),
        ),
        (
            &[("cmd", "a/b"), ("mode", "sys")],
            "400 invalid 'cmd' parameter: 'sys' mode requires absolute or system 'cmd' path".into(),
        ),
        (&[], "400 requires 'cmd' parameter".into()),
    ] {
        let answer = machine.post("/exec", fields);
        let found = match answer.trailer("process-state") {
            Some(state) => format!("{} {state}", answer.status),
            None => answer.shown(),
        };
        // A folder that is missing hides the program that is missing in it.
        let found = found.replace(
            &format!("chdir {work}/none:"),
            &format!("fork/exec {work}/none/x:"),
        );
        assert_eq!(found, wanted, "{fields:?}");
    }
}

#[test]
fn the_body_alone_gives_arguments_and_variables() {
    let machine = Machine::with(
        &[],
        &[("META_SECRET", "x"), ("GO_BUILD_KEY_PATH", "/x"), ("SEEN", "own")],
    );
    let query = form(&[
        ("cmd", "/bin/sh"),
        ("mode", "sys"),
        ("env", "A=query"),
        ("cmdArg", "query"),
    ]);
    let body = [
        ("cmdArg", "-c"),
        ("cmdArg", "env; pwd"),
        ("env", "A=body"),
        ("env", "TMPDIR=/x"),
        ("path", "$WORKDIR/bin"),
        ("path", "$PATH"),
    ];
    let answer = machine.post(&format!("/exec?{query}"), &body);
    assert_eq!(answer.state(), "ok");
    let text = answer.text();
    let work = machine.work("").display().to_string();
    let work = work.trim_end_matches('/');
    for line in [
        "A=body",
        "SEEN=own",
        &format!("WORKDIR={work}"),
        &format!("TMPDIR={work}/tmp"),
        &format!("GOCACHE={work}/gocache"),
        &format!("PWD={work}"),
        work,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(text.contains(&format!("PATH={work}/bin:")), "{text}");
    assert!(
        !text.contains("META_") && !text.contains("GO_BUILD_KEY"),
        "{text}"
    );
    assert!(machine.work("tmp").is_dir() && machine.work("goplscache").is_dir());
}

#[test]
fn debug_prints_the_command_first() {
    let machine = Machine::start();
    let answer = machine.post(
        "/exec",
        &[("cmd", "echo"), ("cmdArg", "a b"), ("debug", "T"), ("dir", "/")],
    );
    let text = answer.text();
    assert!(text.starts_with(":: Running /"), "{text}");
    assert!(text.contains("echo\" \"a b\"] and env [\""), "{text}");
    assert!(text.ends_with("] in dir /\n\na b\n"), "{text}");
}

#[test]
fn a_client_that_leaves_takes_its_command_along() {
    let mut machine = Machine::start();
    let body = form(&[
        ("cmd", "/bin/sh"),
        ("mode", "sys"),
        ("cmdArg", "-c"),
        (
            "cmdArg",
            "trap 'echo > ended; exit' TERM; echo > begun; while :; do sleep 0.01; done",
        ),
    ]);
    let mut stream = machine.connect();
    write!(
        stream,
        "POST /exec HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let (begun, ended) = (machine.work("begun"), machine.work("ended"));
    machine.until("it begins", |_| begun.exists());
    drop(stream);
    machine.until("it is told to end", |_| ended.exists());
}

#[test]
fn a_gigabyte_for_a_slow_reader_stays_out_of_memory() {
    let machine = Machine::start();
    let body = form(&[
        ("cmd", "head"),
        ("cmdArg", "-c"),
        ("cmdArg", "1073741824"),
        ("cmdArg", "/dev/zero"),
    ]);
    let mut stream = machine.connect();
    write!(
        stream,
        "POST /exec HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut read = 0u64;
    let mut piece = vec![0; 1 << 20];
    let mut tail = Vec::new();
    loop {
        let n = stream.read(&mut piece).unwrap();
        if n == 0 {
            break;
        }
        read += n as u64;
        tail.extend_from_slice(&piece[..n]);
        tail.drain(..tail.len().saturating_sub(200));
    }
    assert!(read > 1 << 30);
    let tail = String::from_utf8_lossy(&tail).into_owned();
    assert!(tail.contains("Process-State: ok\r\n"), "{tail}");
    let status = fs::read_to_string(format!("/proc/{}/status", machine.child.id())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 64 * 1024, "{peak}");
}

#[test]
fn output_that_cannot_be_kept_is_the_machines_failure_and_no_result() {
    let machine = Machine::start();
    // As a disk that is full.
    symlink("/dev/full", machine.folder.path().join("state/execs/1.1.0")).unwrap();
    let script = [
        ("cmd", "/bin/sh"),
        ("mode", "sys"),
        ("cmdArg", "-c"),
        ("cmdArg", "echo lost; sleep 1000"),
    ];
    assert_eq!(
        machine.post("/burrow/exec?id=1.1.0", &script).shown(),
        "200 {\"id\":\"1.1.0\",\"started\":true}"
    );
    let answer = machine.get("/burrow/exec/1.1.0");
    assert_eq!((answer.status, answer.whole), (200, true));
    assert_eq!(answer.trailer("process-state"), None);
    let why = "its output cannot be kept on this machine: no space left on device";
    assert_eq!(answer.trailer("burrow-error"), Some(why));
}

#[test]
fn a_command_that_prints_too_much_is_killed_for_it() {
    let machine = Machine::with(&["-max-output=1000"], &[]);
    let answer = machine.sh("yes");
    let said = "\nburrow: killed: it printed more than 1000 bytes\n";
    assert_eq!(answer.text(), "y\n".repeat(500) + said);
    assert_eq!(answer.state(), "signal: killed (it printed more than 1000 bytes)");
}

#[test]
fn a_command_past_its_time_is_killed_for_it() {
    let machine = Machine::start();
    let script = [
        ("cmd", "/bin/sleep"),
        ("mode", "sys"),
        ("cmdArg", "1000"),
        ("wall_s", "1"),
    ];
    machine.post("/burrow/exec?id=a", &script);
    let answer = machine.get("/burrow/exec/a");
    assert_eq!(answer.state(), "signal: killed (it ran for more than 1 s)");
    assert!(
        answer.text().contains("burrow: killed: it ran for more than 1 s"),
        "{}",
        answer.text()
    );
    let detail: serde_json::Value = serde_json::from_str(answer.trailer("burrow-exec").unwrap()).unwrap();
    assert_eq!(
        (&detail["exit"], &detail["signal"]),
        (&serde_json::Value::Null, &serde_json::json!(9))
    );
}

#[test]
fn a_command_is_followed_from_any_byte_by_whoever_asks() {
    let machine = Machine::start();
    let script = [
        ("cmd", "/bin/sh"),
        ("mode", "sys"),
        ("cmdArg", "-c"),
        (
            "cmdArg",
            "printf abcdef; while [ ! -e gate ]; do sleep 0.01; done",
        ),
    ];
    machine.post("/burrow/exec?id=17.1.0", &script);
    assert_eq!(
        machine.post("/burrow/exec?id=17.1.0", &script).shown(),
        "200 {\"id\":\"17.1.0\",\"started\":false}"
    );
    let mut stream = machine.connect();
    stream
        .write_all(b"GET /burrow/exec/17.1.0?offset=4 HTTP/1.1\r\nConnection: close\r\n\r\n")
        .unwrap();
    machine.put("/write?path=gate&mode=420", b"");
    let answer = read(&mut stream);
    assert_eq!(
        (answer.text().as_str(), answer.header("burrow-offset")),
        ("ef", Some("4"))
    );
    assert_eq!(
        machine.get("/burrow/exec").text(),
        "[{\"bytes\":6,\"id\":\"17.1.0\",\"running\":false}]\n"
    );
    assert_eq!(
        machine.request("DELETE", "/burrow/exec/17.1.0", "", b"").shown(),
        "200 "
    );
    assert_eq!(
        machine.get("/burrow/exec/17.1.0").shown(),
        "404 there is no command `17.1.0`"
    );
    assert_eq!(machine.get("/burrow/exec").text(), "[]\n");
    for id in ["", "..", ".a", "a b", "a:b", "a/b"] {
        let id = form(&[("id", id)]);
        assert!(
            machine
                .post(&format!("/burrow/exec?{id}"), &script)
                .shown()
                .starts_with("400 "),
            "{id}"
        );
    }
}
