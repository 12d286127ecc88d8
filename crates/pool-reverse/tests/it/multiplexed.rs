//! Buildlets of before 2019, made of in-memory streams and the listener's side of version 1.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buildlet_api::{CallError, ExecSpec, Upload};
use pool_reverse::RegisterHead;
use revdial::v1::{ConnId, Event, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::farm::{Farm, head};

/// Bytes of an upload, and of its echo.
const BIG: usize = 3_000_000;

/// Registers and answers each request on the connection it came on.
fn start(farm: &Farm, answers: fn(&str) -> Vec<u8>) -> (JoinHandle<()>, Arc<Mutex<usize>>) {
    let (ours, theirs) = duplex(64 * 1024);
    let pool = farm.pool.clone();
    let head = RegisterHead {
        revdial_version: String::new(),
        version: "17".into(),
        ..head()
    };
    tokio::spawn(async move { pool.register(head, Box::new(ours)).await });
    let opened = Arc::new(Mutex::new(0));
    (tokio::spawn(serve(theirs, answers, opened.clone())), opened)
}

async fn serve(mut stream: DuplexStream, answers: fn(&str) -> Vec<u8>, opened: Arc<Mutex<usize>>) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    let (mut read, mut write) = tokio::io::split(stream);
    let mut session = Session::listener();
    let mut requests: BTreeMap<ConnId, Vec<u8>> = BTreeMap::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let n = read.read(&mut piece).await.unwrap_or(0);
        if n == 0 {
            return;
        }
        for event in session.receive(&piece[..n]).unwrap() {
            match event {
                Event::Opened(conn) => {
                    *opened.lock().unwrap() += 1;
                    requests.insert(conn, Vec::new());
                }
                Event::Ended(conn) => drop(session.close(conn)),
                Event::Data(conn, bytes) => {
                    let request = requests.get_mut(&conn).unwrap();
                    request.extend(bytes);
                    let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
                        continue;
                    };
                    let text = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
                    let length = text.split("content-length: ").nth(1);
                    let length = length.map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
                    if request.len() < end + 4 + length {
                        continue;
                    }
                    let answer = answers(text.split(' ').nth(1).unwrap());
                    request.clear();
                    if answer.is_empty() {
                        continue;
                    }
                    // A client that has gone does not need it.
                    if let Some(frames) = session.write(conn, &answer) {
                        write.write_all(&frames).await.unwrap();
                    }
                }
            }
        }
    }
}

fn answers(path: &str) -> Vec<u8> {
    match path.split('?').next().unwrap() {
        "/status" => b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"Version\":17}".to_vec(),
        "/write" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK".to_vec(),
        "/exec" => {
            let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            answer.extend(format!("{BIG:x}\r\n").bytes());
            answer.extend(vec![b'x'; BIG]);
            answer.extend(b"\r\n0\r\nProcess-State: ok\r\n\r\n");
            answer
        }
        // Never answered.
        "/workdir" => Vec::new(),
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_of_before_2019_comes_up_and_takes_what_it_is_sent() {
    let mut farm = Farm::new();
    let (buildlet, opened) = start(&farm, answers);
    let client = farm.up().await;
    assert_eq!(client.host().as_str(), "mac7");
    client
        .put_file("a", 0o644, Upload::Bytes(vec![b'y'; BIG].into()))
        .await
        .unwrap();
    let spec = ExecSpec {
        cmd: "x".into(),
        ..ExecSpec::default()
    };
    let mut output = 0;
    let state = client.exec(&spec, |piece| {
        output += piece.len();
        std::future::ready(())
    });
    assert!(state.await.unwrap().is_ok());
    assert_eq!(output, BIG);
    assert!(*opened.lock().unwrap() >= 2);
    buildlet.abort();
    assert_eq!(farm.event().await.0, "down mac7");
    assert!(matches!(client.status().await, Err(CallError::Gone { .. })));
}

#[tokio::test(start_paused = true)]
async fn one_call_that_waits_holds_no_other_up_and_ends_with_the_session() {
    let mut farm = Farm::new();
    let (buildlet, _) = start(&farm, answers);
    let client = farm.up().await;
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.work_dir().await });
    for _ in 0..3 {
        assert_eq!(client.status().await.unwrap().version, 17);
    }
    assert!(!waiting.is_finished());
    let began = Instant::now();
    buildlet.abort();
    let ended = waiting.await.unwrap();
    assert!(matches!(ended, Err(CallError::Gone { .. })), "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_buildlet_that_opens_connections_is_turned_away() {
    let farm = Farm::new();
    let (ours, mut theirs) = duplex(4096);
    let head = RegisterHead {
        revdial_version: String::new(),
        ..head()
    };
    theirs.write_all(b"N\0\0\0\x01\0\0").await.unwrap();
    let began = Instant::now();
    farm.pool.register(head, Box::new(ours)).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
