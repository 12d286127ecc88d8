//! Step logs over real files.

use blobs::LogStore;
use ids::StepId;
use proptest::prelude::*;

fn step() -> StepId {
    "17.2.0".parse().expect("a step number")
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(work)
}

#[test]
fn a_log_is_byte_for_byte_what_was_appended() {
    let dir = tempfile::tempdir().expect("a folder");
    let logs = LogStore::open(dir.path()).expect("a log store");
    run(async {
        assert_eq!(logs.read(step(), 0, 10).await.expect("read"), None);
        assert_eq!(logs.len(step()).await.expect("len"), None);
        let mut log = logs.writer(step(), 1 << 20).await.expect("a writer");
        let mut changes = logs.changes();
        log.append(b"one\n").await.expect("append");
        assert!(changes.has_changed().expect("the store lives"));
        changes.mark_unchanged();
        log.append(b"\xff\x00two").await.expect("append");
        log.sync().await.expect("sync");
        assert_eq!(
            logs.read(step(), 0, 100).await.expect("read").expect("there"),
            b"one\n\xff\x00two"
        );
        assert_eq!(
            logs.read(step(), 5, 3).await.expect("read").expect("there"),
            b"\x00tw"
        );
        assert_eq!(logs.read(step(), 99, 3).await.expect("read").expect("there"), b"");
        logs.delete(step()).await.expect("delete");
        logs.delete(step()).await.expect("deleting twice is fine");
        assert_eq!(logs.len(step()).await.expect("len"), None);
    });
}

#[test]
fn what_the_machine_dropped_is_marked() {
    let dir = tempfile::tempdir().expect("a folder");
    let logs = LogStore::open(dir.path()).expect("a log store");
    run(async {
        let mut log = logs.writer(step(), 1 << 20).await.expect("a writer");
        log.append(b"head").await.expect("append");
        log.gap(100).await.expect("gap");
        log.append(b"tail").await.expect("append");
        assert_eq!(log.stream_offset(), 104);
        let text = logs.read(step(), 0, 1000).await.expect("read").expect("there");
        assert_eq!(text, b"head\n[burrow: 96 bytes left out here]\ntail");
    });
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("taken");
    std::fs::write(&file, "x").expect("a file");
    let error = LogStore::open(file.join("logs"))
        .err()
        .expect("refused")
        .to_string();
    assert!(error.contains("taken/logs"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written in whatever pieces, with the writer dying in between: the offset counts
    /// every byte, head and tail are the stream's, and nothing is doubled.
    #[test]
    fn head_and_tail_are_the_streams(
        pieces in prop::collection::vec((0usize..3000, any::<bool>()), 1..30),
        max in 4096u64..12_000,
    ) {
        let dir = tempfile::tempdir().expect("a folder");
        let logs = LogStore::open(dir.path()).expect("a log store");
        run(async {
            let mut stream = Vec::new();
            let mut log = logs.writer(step(), max).await.expect("a writer");
            for (len, dies) in pieces {
                let piece: Vec<u8> = (0..len).map(|n| b'a' + ((stream.len() + n) % 23) as u8).collect();
                log.append(&piece).await.expect("append");
                stream.extend(piece);
                assert_eq!(log.stream_offset(), stream.len() as u64);
                if dies {
                    log = logs.writer(step(), max).await.expect("a writer");
                    assert_eq!(log.stream_offset(), stream.len() as u64);
                }
            }
            let len = logs.len(step()).await.expect("len").expect("there");
            let text = logs.read(step(), 0, usize::MAX >> 1).await.expect("read").expect("there");
            assert_eq!(text.len() as u64, len);
            let mark = text.windows(9).position(|window| window == b"\n[burrow:");
            match mark {
                None => assert_eq!(text, stream),
                Some(at) => {
                    assert!(at as u64 >= max / 2 - 1);
                    assert_eq!(text[..at], stream[..at]);
                    let after = at + 1 + text[at + 1..].iter().position(|b| *b == b'\n').expect("the mark's end") + 1;
                    let tail = &text[after..];
                    assert!(tail.len() as u64 >= max / 4);
                    assert_eq!(tail, &stream[stream.len() - tail.len()..]);
                    assert!(text.len() as u64 <= max + 100);
                }
            }
        });
    }
}
