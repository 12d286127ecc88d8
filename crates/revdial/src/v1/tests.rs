use proptest::prelude::*;

use super::*;

const ONE: ConnId = ConnId(1);

/// Events as text: `opened 1`, `data 1 hi`, `ended 1`.
fn shown(events: Result<Vec<Event>, ProtocolError>) -> String {
    let one = |event: Event| match event {
        Event::Opened(conn) => format!("opened {}", conn.0),
        Event::Data(conn, bytes) => format!("data {} {}", conn.0, String::from_utf8_lossy(&bytes)),
        Event::Ended(conn) => format!("ended {}", conn.0),
    };
    match events {
        Ok(events) => events.into_iter().map(one).collect::<Vec<_>>().join(", "),
        Err(why) => format!("error: {why}"),
    }
}

#[test]
fn frames_are_those_of_the_original() {
    let mut dialer = Session::dialer();
    assert_eq!(dialer.open(), (ONE, b"\x4e\0\0\0\x01\0\0".to_vec()));
    assert_eq!(dialer.write(ONE, b"hi"), Some(b"\x57\0\0\0\x01\0\x02hi".to_vec()));
    assert_eq!(dialer.write(ONE, b""), Some(Vec::new()));
    assert_eq!(dialer.close(ONE), Some(b"\x43\0\0\0\x01\0\0".to_vec()));
    assert_eq!((dialer.close(ONE), dialer.write(ONE, b"x")), (None, None));
}

#[test]
fn a_long_write_is_split_and_arrives_in_order() {
    let (mut dialer, mut listener) = (Session::dialer(), Session::listener());
    let long = vec![b'a'; 2 * PAYLOAD_MAX + 1];
    let (conn, mut bytes) = dialer.open();
    bytes.extend(dialer.write(conn, &long).expect("open"));
    assert_eq!(bytes.len(), long.len() + 4 * HEAD);
    let events = listener.receive(&bytes).expect("frames");
    let lengths: Vec<usize> = events
        .iter()
        .filter_map(|event| match event {
            Event::Data(_, bytes) => Some(bytes.len()),
            _ => None,
        })
        .collect();
    assert_eq!(lengths, [PAYLOAD_MAX, PAYLOAD_MAX, 1]);
}

#[test]
fn each_side_closes_for_itself() {
    let (mut dialer, mut listener) = (Session::dialer(), Session::listener());
    let (conn, opened) = dialer.open();
    assert_eq!(shown(listener.receive(&opened)), "opened 1");
    // The coordinator closes: the buildlet reads to the end, closes too, and the number is free.
    let closed = dialer.close(conn).expect("open");
    assert_eq!(shown(listener.receive(&closed)), "ended 1");
    assert_eq!(listener.write(conn, b"late"), None);
    let closed = listener.close(conn).expect("not closed here");
    assert_eq!(shown(dialer.receive(&closed)), "");
    assert_eq!(shown(listener.receive(&opened)), "opened 1");
    // The buildlet closes: what the coordinator has sent meanwhile is late.
    assert!(listener.close(conn).is_some());
    assert_eq!((listener.close(conn), listener.write(conn, b"x")), (None, None));
    assert_eq!(shown(listener.receive(b"\x57\0\0\0\x01\0\x02hi")), "");
    assert_eq!(
        shown(listener.receive(&opened)),
        "error: connection 1 was opened twice"
    );
    let mut listener = Session::listener();
    listener.receive(&opened).expect("a frame");
    listener.close(conn).expect("open");
    assert_eq!(shown(listener.receive(b"\x43\0\0\0\x01\0\0")), "");
    assert_eq!(shown(listener.receive(&opened)), "opened 1");
}

#[test]
fn what_is_unknown_is_passed_over_and_what_is_wrong_ends_the_session() {
    let mut listener = Session::listener();
    assert_eq!(
        shown(listener.receive(b"X\0\0\0\x01\0\x03abcW\0\0\0\x09\0\x01aC\0\0\0\x09\0\0N\0\0\0\x02\0\0")),
        "opened 2"
    );
    assert_eq!(
        shown(listener.receive(b"N\0\0\0\x02\0\0")),
        "error: connection 2 was opened twice"
    );
    let mut dialer = Session::dialer();
    let wanted = "error: the buildlet opened connection 1, which only the coordinator does";
    assert_eq!(shown(dialer.receive(b"N\0\0\0\x01\0\0")), wanted);
}

#[test]
fn numbers_wrap_and_skip_those_in_use() {
    let mut dialer = Session::dialer();
    let (first, _) = dialer.open();
    dialer.last = u32::MAX;
    let (zero, _) = dialer.open();
    let (next, _) = dialer.open();
    assert_eq!((first, zero, next), (ConnId(1), ConnId(0), ConnId(2)));
}

proptest! {
    #[test]
    fn events_are_the_same_however_the_bytes_are_cut(
        writes in prop::collection::vec((0u32..3, prop::collection::vec(any::<u8>(), 0..300)), 0..20),
        size in 1usize..50,
    ) {
        let mut dialer = Session::dialer();
        let conns: Vec<(ConnId, Vec<u8>)> = (0..3).map(|_| dialer.open()).collect();
        let mut bytes: Vec<u8> = conns.iter().flat_map(|(_, opened)| opened.clone()).collect();
        for (n, written) in &writes {
            bytes.extend(dialer.write(conns[*n as usize].0, written).expect("open"));
        }
        bytes.extend(dialer.close(conns[0].0).expect("open"));
        let whole = Session::listener().receive(&bytes).expect("frames");
        let mut listener = Session::listener();
        let cut: Vec<Event> = bytes.chunks(size).flat_map(|piece| listener.receive(piece).expect("frames")).collect();
        prop_assert_eq!(&cut, &whole);
        prop_assert_eq!(listener.unfinished.len(), 0);
    }
}
