use std::time::Duration;

use buildlet_api::{CallError, Client, ExecSpec, FollowError, ProcessState};

use crate::server::Server;

const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn spec() -> ExecSpec {
    ExecSpec {
        cmd: "x".into(),
        ..ExecSpec::default()
    }
}

/// Runs the classic call against one answer: the output, and how it ended.
async fn exec(answer: &str) -> (String, Result<ProcessState, CallError>) {
    let server = Server::play(&[&[answer]]).await;
    let mut output = Vec::new();
    let result = server
        .client
        .exec(&spec(), |piece| {
            output.extend_from_slice(&piece);
            std::future::ready(())
        })
        .await;
    (String::from_utf8(output).unwrap(), result)
}

/// Follows from `offset`: the pieces with their offsets, and how it ended.
async fn follow(client: &Client, offset: u64) -> (String, Result<buildlet_api::ExecEnd, FollowError>) {
    let mut output = String::new();
    let result = client
        .follow_exec("17.2.0", offset, |at, piece| {
            output.push_str(&format!("{at}:{} ", String::from_utf8_lossy(&piece)));
            std::future::ready(())
        })
        .await;
    (output, result)
}

#[tokio::test]
async fn a_trailer_counts_whether_announced_or_not() {
    for head in [
        HEAD.to_owned(),
        HEAD.replace("Transfer", "Trailer: Process-State\r\nTransfer"),
    ] {
        let (output, result) = exec(&format!(
            "{head}6\r\nhello\n\r\n0\r\nProcess-State: exit status 1\r\n\r\n"
        ))
        .await;
        assert_eq!(output, "hello\n");
        assert_eq!(result.unwrap(), ProcessState::Failed("exit status 1".into()));
    }
}

#[tokio::test]
async fn a_trailer_with_letters_beyond_ascii_is_taken() {
    let (_, result) = exec(&format!("{HEAD}0\r\nProcess-State: chdir /wörk: nope\r\n\r\n")).await;
    assert_eq!(result.unwrap(), ProcessState::Failed("chdir /wörk: nope".into()));
}

#[tokio::test]
async fn a_stream_without_a_state_or_an_end_is_a_machine_failure() {
    for (rest, wanted) in [
        ("6\r\nhello\n\r\n0\r\n\r\n", "missing Process-State trailer"),
        ("0\r\nProcess-State: \r\n\r\n", "missing Process-State trailer"),
        ("6\r\nhello\n\r\n", ""),
        ("6\r\nhel", ""),
        ("0\r\nProcess-State: ok\r\n", ""),
    ] {
        let (_, result) = exec(&format!("{HEAD}{rest}")).await;
        match result {
            Err(CallError::Gone { source, .. }) => {
                assert!(source.to_string().contains(wanted), "{rest:?}: {source}");
            }
            other => panic!("{rest:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_machine_that_failed_a_command_says_why_and_is_not_asked_again() {
    let why = "its output cannot be kept on this machine: no space left on device";
    let answer = format!("{HEAD}2\r\nab\r\n0\r\nBurrow-Error: {why}\r\nBurrow-Exec: {{}}\r\n\r\n");
    let (output, result) = exec(&answer).await;
    assert_eq!(output, "ab");
    assert!(matches!(result, Err(CallError::Failed { why: said, .. }) if said == why));
    let server = Server::play(&[&[&answer]]).await;
    let (_, result) = follow(&server.client, 0).await;
    let Err(FollowError::Call(error @ CallError::Failed { .. })) = result else {
        panic!("{result:?}")
    };
    assert_eq!(
        error.to_string(),
        format!("buildlet m1 failed the command: {why}")
    );
}

#[tokio::test]
async fn a_command_refused_before_its_start_says_why() {
    let body = "invalid 'cmd' parameter: command \"x\" not found\n";
    let answer = format!(
        "HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (_, result) = exec(&answer).await;
    assert!(
        matches!(&result, Err(CallError::Refused { status: 422, body: found, .. }) if found == body.trim())
    );
}

#[tokio::test]
async fn a_command_is_never_sent_twice() {
    let status = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"Version\":27}";
    // The first connection looks idle but has nothing more to say; the second dies on the command.
    let server = Server::play(&[&[status], &[""]]).await;
    server.client.status().await.unwrap();
    let result = server.client.exec(&spec(), |_| std::future::ready(())).await;
    assert!(matches!(result, Err(CallError::Gone { .. })), "{result:?}");
    let requests = server.requests().await;
    assert_eq!(requests.len(), 2);
    assert!(
        requests[1].ends_with("cmd=x&debug=false&dir=&mode="),
        "{}",
        requests[1]
    );
}

#[tokio::test]
async fn starting_says_whether_it_started_now() {
    let answer = |started: bool| {
        let body = format!("{{\"id\":\"17.2.0\",\"started\":{started}}}");
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let server = Server::play(&[&[&answer(true), &answer(false)]]).await;
    let wall = Some(Duration::from_secs(90));
    assert!(server.client.start_exec("17.2.0", &spec(), wall).await.unwrap());
    assert!(!server.client.start_exec("17.2.0", &spec(), None).await.unwrap());
    let requests = server.requests().await;
    assert!(
        requests[0].starts_with("POST /burrow/exec?id=17.2.0 HTTP/1.1\r\n"),
        "{}",
        requests[0]
    );
    assert!(requests[0].ends_with("mode=&wall_s=90"), "{}", requests[0]);
    assert!(requests[1].ends_with("mode="), "{}", requests[1]);
}

#[tokio::test]
async fn a_command_is_followed_over_a_cut_from_where_the_pieces_ended() {
    let head = HEAD.replace("Transfer", "Burrow-Offset: 0\r\nTransfer");
    let cut = format!("{head}3\r\nabc\r\n");
    // The spool has dropped two bytes meanwhile.
    let head = HEAD.replace("Transfer", "Burrow-Offset: 5\r\nTransfer");
    let end = r#"{"exit":3,"signal":null,"wall_ms":1500,"strays":0,"bytes":8}"#;
    let rest = format!("{head}3\r\nfgh\r\n0\r\nProcess-State: exit status 3\r\nBurrow-Exec: {end}\r\n\r\n");
    let server = Server::play(&[&[&cut], &[&rest]]).await;
    let (output, result) = follow(&server.client, 0).await;
    assert_eq!(output, "0:abc ");
    assert!(
        matches!(result, Err(FollowError::Call(CallError::Gone { .. }))),
        "{result:?}"
    );
    let (output, result) = follow(&server.client, 3).await;
    assert_eq!(output, "5:fgh ");
    let end = result.unwrap();
    assert_eq!(end.state, ProcessState::Failed("exit status 3".into()));
    assert_eq!(
        (end.bytes, end.exit, end.wall),
        (8, Some(3), Some(Duration::from_millis(1500)))
    );
    let requests = server.requests().await;
    assert!(
        requests[1].starts_with("GET /burrow/exec/17.2.0?offset=3 HTTP/1.1\r\n"),
        "{}",
        requests[1]
    );
}

#[tokio::test]
async fn a_body_that_begins_before_what_was_asked_for_is_nonsense() {
    let answer = HEAD.replace("Transfer", "Burrow-Offset: 2\r\nTransfer");
    let server = Server::play(&[&[&answer]]).await;
    let (_, result) = follow(&server.client, 3).await;
    assert!(
        matches!(result, Err(FollowError::Call(CallError::Nonsense { .. }))),
        "{result:?}"
    );
}

#[tokio::test]
async fn commands_nobody_knows_are_told_apart() {
    let unknown = "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n";
    let killed = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let server = Server::play(&[&[unknown, unknown, killed]]).await;
    let (_, result) = follow(&server.client, 0).await;
    assert!(matches!(result, Err(FollowError::UnknownId)), "{result:?}");
    assert!(!server.client.kill_exec("17.2.0").await.unwrap());
    assert!(server.client.kill_exec("17.2.0").await.unwrap());
    assert!(server.requests().await[2].starts_with("DELETE /burrow/exec/17.2.0 HTTP/1.1\r\n"));
}

#[tokio::test]
async fn the_commands_a_buildlet_knows_are_listed() {
    let body = r#"[{"id":"17.2.0","running":true,"bytes":7}]"#;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let server = Server::play(&[&[&answer]]).await;
    let known = server.client.list_execs().await.unwrap();
    assert_eq!(
        (known[0].id.as_str(), known[0].running, known[0].bytes),
        ("17.2.0", true, 7)
    );
}
