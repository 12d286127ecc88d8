use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SESSION: DialerId = DialerId([0x0f; 16]);
const KEEP_ALIVE: &[u8] = b"{\"command\":\"keep-alive\"}\n";

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn nonce(n: u8) -> Nonce {
    Nonce([n; 16])
}

/// What a listener makes of `bytes`, as one line an event.
fn heard(bytes: &[u8]) -> Result<String, ProtocolError> {
    let events = Listener::new().receive(bytes)?;
    let lines: Vec<String> = events
        .into_iter()
        .map(|event| match event {
            ListenerEvent::KeepAlive => "keep-alive".to_owned(),
            ListenerEvent::Dial { path } => format!("dial {path}"),
        })
        .collect();
    Ok(lines.join("\n"))
}

/// Prints actions one a line: `send LINE`, `failed NONCE: WHY`.
fn shown(actions: &[Action]) -> String {
    let lines: Vec<String> = actions
        .iter()
        .map(|action| match action {
            Action::Send { line, .. } => format!("send {}", String::from_utf8_lossy(line).trim_end()),
            Action::Failed { dial, why } => format!("failed {}: {why}", dial.0[0]),
        })
        .collect();
    lines.join("\n")
}

fn opened(limits: DialerLimits) -> Dialer {
    let mut dialer = Dialer::new("/revdial", limits);
    dialer.open(secs(0), SESSION).unwrap();
    dialer
}

/// The path that the buildlet is told for this dial.
fn path_of(n: u8) -> String {
    format!(
        "/revdial?revdial.dialer={}&n={}",
        "0f".repeat(16),
        format!("{n:02x}").repeat(16)
    )
}

#[test]
fn the_session_of_the_original_is_understood() {
    let recorded = b"{\"command\":\"keep-alive\"}\n\
        {\"command\":\"conn-ready\",\"connPath\":\"/revdial?revdial.dialer=0f3ce1\"}\n\
        {\"command\":\"keep-alive\"}\n";
    let wanted = "keep-alive\ndial /revdial?revdial.dialer=0f3ce1\nkeep-alive";
    assert_eq!(heard(recorded).unwrap(), wanted);
}

#[test]
fn an_escaped_ampersand_in_a_path_is_an_ampersand() {
    let line = b"{\"command\":\"conn-ready\",\"connPath\":\"/r?a=1\\u0026b=2\"}\n";
    assert_eq!(heard(line).unwrap(), "dial /r?a=1&b=2");
}

#[test]
fn commands_nobody_knows_are_ignored() {
    let lines = b"{\"command\":\"dance\",\"connPath\":\"x\"}\n{}\n{\"command\":null}\n{\"other\":1}\n{\"command\":\"keep-alive\",\"more\":[]}\n";
    assert_eq!(heard(lines).unwrap(), "keep-alive");
}

#[test]
fn a_line_of_4096_bytes_is_taken_and_one_of_4097_ends_the_session() {
    let line = |length: usize| {
        let frame = "{\"command\":\"keep-alive\",\"err\":\"\"}\n";
        let padding = "x".repeat(length - frame.len());
        format!("{{\"command\":\"keep-alive\",\"err\":\"{padding}\"}}\n")
    };
    assert_eq!(line(4096).len(), 4096);
    assert_eq!(heard(line(4096).as_bytes()).unwrap(), "keep-alive");
    assert_eq!(heard(line(4097).as_bytes()), Err(ProtocolError::TooLong));

    let in_two = |text: String, at: usize| {
        let mut listener = Listener::new();
        listener.receive(&text.as_bytes()[..at])?;
        listener.receive(&text.as_bytes()[at..])
    };
    assert_eq!(in_two(line(4096), 4095), Ok(vec![ListenerEvent::KeepAlive]));
    assert_eq!(in_two(line(4097), 4095), Err(ProtocolError::TooLong));
}

#[test]
fn an_endless_line_is_refused_before_it_is_kept() {
    let mut listener = Listener::new();
    assert_eq!(listener.receive(&[b'x'; 4095]), Ok(vec![]));
    assert_eq!(listener.receive(b"x"), Err(ProtocolError::TooLong));
}

#[test]
fn what_is_no_json_object_ends_the_session() {
    for bad in [
        "\n",
        "keep-alive\n",
        "[]\n",
        "{\"command\":1}\n",
        "{\"command\":\"\u{1}\"}\n",
        "{\n",
        "null\n",
    ] {
        let result = heard(bad.as_bytes());
        assert!(
            matches!(result, Err(ProtocolError::NotJson { .. })),
            "{bad:?}: {result:?}"
        );
    }
    let error = heard(b"keep-alive\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "control line is no JSON object of strings: `keep-alive`"
    );
}

#[test]
fn a_path_that_could_break_out_of_a_request_line_ends_the_session() {
    for bad in ["", "revdial", "/a b", "/a\\r\\nX: y", "/a\\u0000", "/a\\u0085"] {
        let line = format!("{{\"command\":\"conn-ready\",\"connPath\":\"{bad}\"}}\n");
        let result = heard(line.as_bytes());
        assert!(
            matches!(result, Err(ProtocolError::BadPath { .. })),
            "{bad}: {result:?}"
        );
    }
    assert!(heard(b"{\"command\":\"conn-ready\"}\n").is_err());
}

#[test]
fn a_failed_pickup_says_which_and_why() {
    let line = pickup_failed_line("/revdial?revdial.dialer=1", "dial tcp: no\nroute");
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"command\":\"pickup-failed\",\"connPath\":\"/revdial?revdial.dialer=1\",\"err\":\"dial tcp: no route\"}\n"
    );
}

#[test]
fn a_failed_pickup_always_fits_a_line() {
    for (path, err) in [
        ("/p".to_owned(), "\"\\".repeat(5000)),
        ("/p".to_owned(), "\u{1}".repeat(5000)),
        ("/p".to_owned(), "ü".repeat(5000)),
        (format!("/{}", "p".repeat(3990)), "\"".repeat(5000)),
        (format!("/{}", "p".repeat(9000)), "no route".to_owned()),
    ] {
        let line = pickup_failed_line(&path, &err);
        assert!(line.len() <= LINE_LIMIT, "{}", line.len());
        let text = String::from_utf8(line).unwrap();
        assert!(
            text.contains("pickup-failed") && text.contains("\"err\":\""),
            "{text}"
        );
    }
    let long = pickup_failed_line("/p", &"z".repeat(5000));
    assert_eq!(long.iter().filter(|&&b| b == b'z').count(), 1024);
}

#[test]
fn a_session_begins_with_a_keep_alive_and_a_dial_names_itself() {
    let mut dialer = Dialer::new("/revdial", DialerLimits::default());
    let first = dialer.open(secs(0), SESSION).unwrap();
    assert_eq!(
        first,
        [Action::Send {
            session: SESSION,
            line: KEEP_ALIVE.to_vec()
        }]
    );
    let dial = dialer.dial(secs(1), SESSION, nonce(0xab)).unwrap();
    let wanted = format!(
        "send {{\"command\":\"conn-ready\",\"connPath\":\"{}\"}}\nsend {{\"command\":\"keep-alive\"}}",
        path_of(0xab)
    );
    assert_eq!(shown(&dial), wanted);
}

#[test]
fn keep_alives_are_due_30_s_after_the_last_message() {
    let mut dialer = opened(DialerLimits::default());
    assert_eq!(dialer.next_deadline(), Some(secs(30)));
    assert_eq!(dialer.next_deadline_of(SESSION), Some(secs(30)));
    assert_eq!(dialer.next_deadline_of(DialerId([1; 16])), None);
    assert_eq!(shown(&dialer.tick(secs(29))), "");
    assert_eq!(shown(&dialer.tick(secs(30))), "send {\"command\":\"keep-alive\"}");
    dialer.dial(secs(50), SESSION, nonce(1)).unwrap();
    dialer.pickup(&path_of(1)).unwrap();
    assert_eq!(dialer.next_deadline(), Some(secs(80)));
    assert_eq!(shown(&dialer.tick(secs(79))), "");
}

#[test]
fn a_pickup_finds_its_own_dial_once() {
    let mut dialer = opened(DialerLimits::default());
    dialer.dial(secs(0), SESSION, nonce(1)).unwrap();
    dialer.dial(secs(0), SESSION, nonce(2)).unwrap();
    assert_eq!(dialer.pickup(&path_of(2)), Ok(nonce(2)));
    assert_eq!(dialer.pickup(&path_of(2)), Err(PickupError::UnknownDial));
    assert_eq!(dialer.pickup(&path_of(1)), Ok(nonce(1)));
}

#[test]
fn a_dial_nobody_picks_up_expires_and_its_late_comer_is_refused() {
    let mut dialer = opened(DialerLimits::default());
    dialer.dial(secs(5), SESSION, nonce(1)).unwrap();
    assert_eq!(shown(&dialer.tick(secs(34))), "");
    assert_eq!(
        shown(&dialer.tick(secs(35))),
        "send {\"command\":\"keep-alive\"}\nfailed 1: the buildlet did not dial back within 30 s"
    );
    assert_eq!(dialer.pickup(&path_of(1)), Err(PickupError::UnknownDial));
}

#[test]
fn one_sessions_tick_is_its_own_alone() {
    let mut dialer = opened(DialerLimits::default());
    let other = DialerId([1; 16]);
    dialer.open(secs(0), other).unwrap();
    dialer.dial(secs(1), SESSION, nonce(1)).unwrap();
    dialer.dial(secs(1), other, nonce(2)).unwrap();
    assert_eq!(dialer.tick_of(secs(30), SESSION), []);
    assert_eq!(
        shown(&dialer.tick_of(secs(31), SESSION)),
        "send {\"command\":\"keep-alive\"}\nfailed 1: the buildlet did not dial back within 30 s"
    );
    assert_eq!(dialer.next_deadline_of(SESSION), Some(secs(61)));
    assert_eq!(
        dialer.next_deadline_of(other),
        Some(secs(31)),
        "nothing of the other was done"
    );
    let all: Vec<_> = dialer
        .tick(secs(31))
        .iter()
        .map(|action| shown(std::slice::from_ref(action)))
        .collect();
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(dialer.tick_of(secs(100), DialerId([9; 16])), []);
}

#[test]
fn strangers_pick_up_nothing() {
    let mut dialer = opened(DialerLimits::default());
    let other = DialerId([0xee; 16]);
    dialer.open(secs(0), other).unwrap();
    dialer.dial(secs(0), SESSION, nonce(1)).unwrap();
    let dialer_id = "0f".repeat(16);
    for (path, error) in [
        ("/revdial".to_owned(), PickupError::UnknownDialer),
        ("/revdial?revdial.dialer=".to_owned(), PickupError::UnknownDialer),
        (
            format!("/revdial?revdial.dialer=+{}", &dialer_id[1..]),
            PickupError::UnknownDialer,
        ),
        (path_of(1).replace("0f0f", "0f00"), PickupError::UnknownDialer),
        (
            format!("/revdial?revdial.dialer={dialer_id}"),
            PickupError::UnknownDial,
        ),
        (path_of(7), PickupError::UnknownDial),
        // A live session of somebody else, with our dial's nonce.
        (path_of(1).replace("0f", "ee"), PickupError::UnknownDial),
    ] {
        assert_eq!(dialer.pickup(&path), Err(error), "{path}");
    }
    assert_eq!(dialer.pickup(&path_of(1)), Ok(nonce(1)));
}

#[test]
fn a_failed_pickup_fails_its_own_dial_alone() {
    let mut dialer = opened(DialerLimits::default());
    let other = DialerId([0xee; 16]);
    dialer.open(secs(0), other).unwrap();
    dialer.dial(secs(0), SESSION, nonce(1)).unwrap();
    dialer.dial(secs(0), SESSION, nonce(2)).unwrap();
    let line = pickup_failed_line(&path_of(2), "connection refused");
    assert_eq!(dialer.receive(other, &line), Ok(vec![]));
    assert_eq!(
        shown(&dialer.receive(SESSION, &line).unwrap()),
        "failed 2: the buildlet could not dial back: connection refused"
    );
    assert_eq!(dialer.receive(SESSION, &line), Ok(vec![]));
    assert_eq!(
        dialer.receive(SESSION, &pickup_failed_line("/revdial", "x")),
        Ok(vec![])
    );
    assert_eq!(dialer.pickup(&path_of(1)), Ok(nonce(1)));
}

#[test]
fn a_listener_that_sends_keep_alives_or_unknown_commands_is_let_be() {
    let mut dialer = opened(DialerLimits::default());
    assert_eq!(dialer.receive(SESSION, KEEP_ALIVE), Ok(vec![]));
    assert_eq!(dialer.receive(SESSION, b"{\"command\":\"dance\"}\n"), Ok(vec![]));
    assert_eq!(
        dialer.receive(SESSION, &[b' '; 5000]),
        Err(ProtocolError::TooLong)
    );
}

#[test]
fn the_end_of_a_session_fails_its_dials() {
    let mut dialer = opened(DialerLimits::default());
    dialer.dial(secs(0), SESSION, nonce(1)).unwrap();
    assert_eq!(
        shown(&dialer.close(SESSION)),
        "failed 1: the buildlet's control connection ended"
    );
    assert_eq!(dialer.close(SESSION), []);
    assert_eq!(dialer.dial(secs(0), SESSION, nonce(2)), Err(DialError::Closed));
    assert_eq!(dialer.pickup(&path_of(1)), Err(PickupError::UnknownDialer));
    assert_eq!(dialer.receive(SESSION, b"nonsense\n"), Ok(vec![]));
    assert_eq!(dialer.next_deadline(), None);
}

#[test]
fn sessions_and_waiting_dials_are_bounded() {
    let limits = DialerLimits {
        sessions: 1,
        dials_per_session: 2,
        ..DialerLimits::default()
    };
    let mut dialer = opened(limits);
    assert_eq!(
        dialer.open(secs(0), DialerId([1; 16])),
        Err(OpenError::TooMany { limit: 1 })
    );
    dialer.dial(secs(0), SESSION, nonce(1)).unwrap();
    assert_eq!(dialer.dial(secs(0), SESSION, nonce(1)), Err(DialError::Taken));
    dialer.dial(secs(0), SESSION, nonce(2)).unwrap();
    assert_eq!(
        dialer.dial(secs(0), SESSION, nonce(3)),
        Err(DialError::TooMany { limit: 2 })
    );
    // Each way a dial can end makes room for another.
    dialer.pickup(&path_of(1)).unwrap();
    dialer.dial(secs(0), SESSION, nonce(4)).unwrap();
    dialer.forget(nonce(4));
    dialer.dial(secs(0), SESSION, nonce(5)).unwrap();
    dialer
        .receive(SESSION, &pickup_failed_line(&path_of(5), "x"))
        .unwrap();
    dialer.dial(secs(0), SESSION, nonce(6)).unwrap();
    dialer.tick(secs(30));
    dialer.dial(secs(30), SESSION, nonce(7)).unwrap();
    dialer.dial(secs(30), SESSION, nonce(8)).unwrap();
    assert_eq!(
        dialer.dial(secs(30), SESSION, nonce(9)),
        Err(DialError::TooMany { limit: 2 })
    );
}

#[test]
fn two_sessions_cannot_share_a_name() {
    let mut dialer = opened(DialerLimits::default());
    assert_eq!(dialer.open(secs(0), SESSION), Err(OpenError::Taken));
}

#[test]
fn secrets_are_not_printed_whole() {
    assert_eq!(format!("{SESSION:?} {:?}", nonce(1)), "0f0f0f.. 010101..");
}

proptest! {
    #[test]
    fn how_the_stream_is_cut_does_not_matter(
        cuts in proptest::collection::vec(1usize..40, 1..40),
        paths in proptest::collection::vec("/[a-z?&=é\"\\\\]{0,20}", 0..8),
    ) {
        let mut bytes = Vec::new();
        let mut wanted = Vec::new();
        for path in paths {
            let message = lines::Message {
                conn_path: Some(path.clone()),
                ..lines::Message::command("conn-ready")
            };
            bytes.extend(message.to_line());
            bytes.extend_from_slice(KEEP_ALIVE);
            wanted.extend([ListenerEvent::Dial { path }, ListenerEvent::KeepAlive]);
        }
        let mut listener = Listener::new();
        let mut events = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            events.extend(listener.receive(piece).unwrap());
            rest = after;
        }
        prop_assert_eq!(events, wanted);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
        let _ = Listener::new().receive(&bytes);
        let _ = opened(DialerLimits::default()).receive(SESSION, &bytes);
        let _ = opened(DialerLimits::default()).pickup(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_failed_pickup_fits_and_is_read_back(path in "/[a-f0-9?&=]{0,300}", err in any::<String>()) {
        let line = pickup_failed_line(&path, &err);
        prop_assert!(line.len() <= LINE_LIMIT);
        let message = lines::Lines::default().receive(&line).unwrap().remove(0);
        prop_assert_eq!(message.conn_path.as_deref(), Some(path.as_str()));
    }

    /// Each dial ends exactly once, whatever order things happen in, and no slot leaks.
    #[test]
    fn every_dial_ends_once(steps in proptest::collection::vec((0u8..5, 0u8..12, 0u64..20), 0..200)) {
        let limits = DialerLimits { dials_per_session: 4, ..DialerLimits::default() };
        let mut dialer = opened(limits);
        let mut waiting = std::collections::BTreeSet::new();
        let mut now = secs(0);
        for (step, n, later) in steps {
            now += secs(later);
            let actions = match step {
                0 => match dialer.dial(now, SESSION, nonce(n)) {
                    Ok(_) => { prop_assert!(waiting.insert(n)); vec![] }
                    Err(DialError::Taken) => { prop_assert!(waiting.contains(&n)); vec![] }
                    Err(DialError::TooMany { .. }) => { prop_assert_eq!(waiting.len(), 4); vec![] }
                    Err(DialError::Closed) => unreachable!("the session is open"),
                },
                1 => { prop_assert_eq!(dialer.pickup(&path_of(n)).is_ok(), waiting.remove(&n)); vec![] }
                2 => { dialer.forget(nonce(n)); waiting.remove(&n); vec![] }
                3 => dialer.receive(SESSION, &pickup_failed_line(&path_of(n), "x")).unwrap(),
                _ => dialer.tick(now),
            };
            for action in actions {
                if let Action::Failed { dial, .. } = action {
                    prop_assert!(waiting.remove(&dial.0[0]));
                }
            }
        }
        dialer.tick(now + secs(31));
        for n in 100..104 {
            prop_assert!(dialer.dial(now, SESSION, nonce(n)).is_ok());
        }
    }
}
