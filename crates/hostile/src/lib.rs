//! Each function takes bytes as a stranger might send them to one of the readers of this project, and panics where
//! the reader does what it must not: panics itself, reads differently when the bytes come in other pieces, takes more
//! than it was given, writes outside of where it may.
//!
//! The same functions run in two ways: `fuzz/` hands them to cargo-fuzz, which needs a nightly compiler; `tests/it`
//! hands them the seeds in `seeds/` and thousands of mutations of these, the same each time, in the ordinary tests.

use std::path::Path;
use std::time::Duration;

use http1::{AnswerHead, BodyDecoder, BodyError, Decoded, RequestHead};
use revdial::{v1, v2};

/// A name, which its seeds' folder has too, and what it is the name of.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 8] = [
    ("http_request", http_request),
    ("http_answer", http_answer),
    ("form", form),
    ("revdial_v1", revdial_v1),
    ("revdial_v2", revdial_v2),
    ("tar", tar),
    ("tar_gz", tar_gz),
    ("manifest", manifest),
];

/// How a stream may be cut into pieces.
const CUTS: [usize; 3] = [1, 7, 1000];

/// A request's head and its body.
pub fn http_request(data: &[u8]) {
    let Ok(Some((head, used))) = RequestHead::parse(data) else {
        return;
    };
    assert!(used <= data.len(), "more was read than there is");
    // What is a head stays one however much follows, and nothing shorter is.
    assert_eq!(RequestHead::parse(&data[..used]), Ok(Some((head.clone(), used))));
    assert!(!matches!(RequestHead::parse(&data[..used - 1]), Ok(Some(_))));
    let _ = (
        head.path(),
        head.query(),
        head.expects_continue(),
        head.keeps_alive(),
    );
    if let Ok(decoder) = BodyDecoder::new(&head) {
        body(&decoder, &data[used..]);
    }
}

/// The answer of a coordinator or of a server that an archive is fetched from.
pub fn http_answer(data: &[u8]) {
    let Ok(Some((head, used))) = AnswerHead::parse(data) else {
        return;
    };
    assert!(used <= data.len(), "more was read than there is");
    assert_eq!(AnswerHead::parse(&data[..used]), Ok(Some((head.clone(), used))));
    if let Ok(decoder) = BodyDecoder::of_answer(&head) {
        body(&decoder, &data[used..]);
    }
}

/// What a body is must not depend on how it comes.
fn body(decoder: &BodyDecoder, data: &[u8]) {
    let whole = decoded(decoder.clone(), data, data.len().max(1));
    for cut in CUTS {
        assert_eq!(decoded(decoder.clone(), data, cut), whole, "in pieces of {cut}");
    }
    if let Ok(body) = whole {
        assert!(body.bytes.len() + body.left <= data.len(), "bytes were made up");
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Read {
    bytes: Vec<u8>,
    /// What follows the body; `None` of it is known until it has ended.
    left: usize,
    ended: bool,
}

fn decoded(mut decoder: BodyDecoder, data: &[u8], cut: usize) -> Result<Read, BodyError> {
    let (mut bytes, mut have, mut pieces) = (Vec::new(), Vec::new(), data.chunks(cut));
    loop {
        match decoder.decode(&have)? {
            Decoded::Data { skip, take } => {
                assert!(take > 0, "it would be asked for ever");
                bytes.extend_from_slice(&have[skip..skip + take]);
                have.drain(..skip + take);
            }
            Decoded::More { used } => {
                have.drain(..used);
                assert!(have.len() <= 8192, "it keeps what it cannot use");
                match pieces.next() {
                    Some(piece) => have.extend_from_slice(piece),
                    None => {
                        return Ok(Read {
                            bytes,
                            left: 0,
                            ended: false,
                        });
                    }
                }
            }
            Decoded::End { used } => {
                have.drain(..used);
                let left = have.len() + pieces.map(<[u8]>::len).sum::<usize>();
                return Ok(Read {
                    bytes,
                    left,
                    ended: true,
                });
            }
        }
    }
}

/// The first line is the `Content-Type`, what follows is the body.
pub fn form(data: &[u8]) {
    let end = data.iter().position(|&b| b == b'\n').unwrap_or(0);
    let kind = String::from_utf8_lossy(&data[..end]);
    let body = data.get(end + 1..).unwrap_or_default();
    let fields = buildlet::form::parse_body(&kind, body);
    let size: usize = fields.iter().map(|(key, value)| key.len() + value.len()).sum();
    // A byte that is no UTF-8 becomes a character of three.
    assert!(size <= 3 * body.len(), "fields were made up");
}

/// Bytes to either side of a session of before 2019.
pub fn revdial_v1(data: &[u8]) {
    for opens in [true, false] {
        let side = || {
            if opens {
                v1::Session::dialer()
            } else {
                v1::Session::listener()
            }
        };
        let events = |cut: usize| {
            let mut session = side();
            let opened = opens.then(|| session.open().0);
            let mut events = Vec::new();
            for piece in data.chunks(cut) {
                match session.receive(piece) {
                    Ok(more) => events.extend(more),
                    Err(why) => return (events, Some(why)),
                }
            }
            let bytes: usize = events
                .iter()
                .map(|event| match event {
                    v1::Event::Data(conn, bytes) => {
                        // Whatever it was told, it can answer or close.
                        let _ = (session.write(*conn, b"x"), session.close(*conn));
                        bytes.len()
                    }
                    v1::Event::Opened(_) | v1::Event::Ended(_) => 0,
                })
                .sum();
            assert!(bytes <= data.len(), "bytes were made up");
            let _ = opened.map(|conn| session.close(conn));
            (events, None)
        };
        let (whole, failed) = events(data.len().max(1));
        for cut in CUTS {
            let (pieces, again) = events(cut);
            assert_eq!(again, failed, "in pieces of {cut}");
            // Before a fault, pieces give what came before it; the whole at once gives nothing.
            assert!(failed.is_some() || pieces == whole, "in pieces of {cut}");
        }
    }
}

/// Lines to either side of a control connection since 2019.
pub fn revdial_v2(data: &[u8]) {
    let heard = |cut: usize| {
        let mut listener = v2::Listener::new();
        let mut events = Vec::new();
        for piece in data.chunks(cut) {
            match listener.receive(piece) {
                Ok(more) => events.extend(more),
                Err(why) => return (events, Some(why)),
            }
        }
        (events, None)
    };
    let (whole, failed) = heard(data.len().max(1));
    for event in &whole {
        if let v2::ListenerEvent::Dial { path } = event {
            assert!(
                path.starts_with('/') && !path.contains([' ', '\r', '\n']),
                "`{path}` breaks out of its line"
            );
            assert!(v2::pickup_failed_line(path, &String::from_utf8_lossy(data)).len() <= 4096);
        }
    }
    for cut in CUTS {
        let (pieces, again) = heard(cut);
        // A line too long is refused before it is there whole, so by another word perhaps.
        assert_eq!(again.is_some(), failed.is_some(), "in pieces of {cut}");
        assert!(failed.is_some() || pieces == whole, "in pieces of {cut}");
    }
    let mut dialer = v2::Dialer::new("/revdial", v2::DialerLimits::default());
    let session = v2::DialerId([1; 16]);
    if dialer.open(Duration::ZERO, session).is_ok() {
        let _ = dialer.dial(Duration::ZERO, session, v2::Nonce([2; 16]));
        let _ = dialer.receive(session, data);
        let _ = dialer.pickup(&String::from_utf8_lossy(data));
        let _ = dialer.tick(Duration::from_secs(3600));
    }
}

/// A tar, before it is compressed.
pub fn tar(data: &[u8]) {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    std::io::Write::write_all(&mut gzip, data).expect("memory takes it");
    tar_gz(&gzip.finish().expect("memory takes it"));
}

/// A tar.gz is unpacked below a folder, and nothing beside it changes.
pub fn tar_gz(data: &[u8]) {
    let around = tempfile::tempdir().expect("a folder");
    let (work, beside) = (around.path().join("work"), around.path().join("beside"));
    std::fs::create_dir(&work).expect("made");
    std::fs::create_dir(&beside).expect("made");
    std::fs::write(beside.join("kept"), "kept").expect("written");
    // What a command may have left there.
    std::os::unix::fs::symlink("../beside", work.join("out")).expect("linked");
    std::os::unix::fs::symlink(&beside, work.join("away")).expect("linked");
    let root = buildlet::beneath::Root::open(&work).expect("opened");
    // 16 MiB are enough to see whether a limit holds.
    let _ = buildlet::files::unpack_within(&root, Path::new(""), data, 16 << 20);
    let names = |folder: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .expect("read")
            .map(|entry| entry.expect("read").file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(around.path()), ["beside", "work"]);
    assert_eq!(names(&beside), ["kept"]);
    assert_eq!(std::fs::read(beside.join("kept")).expect("read"), b"kept");
    // Whatever was made can be removed by what removes it.
    buildlet::files::remove_all(&root, &["."]).expect("removed");
    assert!(names(&work).is_empty());
}

/// The lines of a manifest of buildlets, with a good signature.
pub fn manifest(data: &[u8]) {
    use stage0::manifest::{self, PublicKey, Version, open, public_hex, sign};
    let key = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let version = Version::parse("1.0.0").expect("a version");
    let first = sign(&key, 1, version, version, &[]);
    let end = first.iter().position(|&b| b == b'\n').expect("a line") + 1;
    let mut text = [&first[..end], data].concat();
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let signature = key.sign(&text);
    text.extend(format!("signature {}\n", manifest::hex(signature.as_ref())).bytes());
    let keys = [PublicKey::parse(&public_hex(&key)).expect("a key")];
    let target = manifest::Target::parse("linux-amd64").expect("a target");
    let signed = open(&text, &keys, &target);
    // One bit less and nobody has signed it, whatever it says.
    let last = text.len() - 3;
    text[last] ^= 1;
    assert!(open(&text, &keys, &target).is_err());
    let _ = (signed, open(data, &keys, &target));
}
