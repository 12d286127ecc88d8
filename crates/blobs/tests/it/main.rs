//! Step logs over crashes, limits and resumes.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use blobs::{LineIndex, LogStore, Seal};
use ids::StepId;
use proptest::prelude::*;

const STEP: &str = "1017.2.0";

fn step() -> StepId {
    STEP.parse().unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(work)
}

async fn text(logs: &LogStore, step: StepId) -> Vec<u8> {
    logs.read(step, 0, usize::MAX).await.unwrap().unwrap()
}

/// Bytes of which every run of eight is different.
fn stream(len: usize) -> Vec<u8> {
    (0..len as u64 / 8 + 1)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .take(len)
        .collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir.join("1/1017"))
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    found.sort();
    found
}

/// The joined text must be a beginning of `whole`, then, if anything was left out, a mark with the
/// right number and an end of it.
fn check_text(text: &[u8], whole: &[u8], half: usize) {
    if text == whole {
        return;
    }
    let mark_at = text
        .windows(10)
        .position(|window| window == b"\n[burrow: ")
        .expect("a mark");
    let (head, rest) = text.split_at(mark_at);
    let mark_len = rest[1..].iter().position(|byte| *byte == b'\n').unwrap() + 2;
    let (mark, tail) = rest.split_at(mark_len);
    assert_eq!(head, &whole[..head.len()]);
    assert_eq!(tail, &whole[whole.len() - tail.len()..]);
    let left_out = whole.len() - head.len() - tail.len();
    assert_eq!(
        mark,
        format!("\n[burrow: {left_out} bytes left out here]\n").as_bytes()
    );
    assert!(
        head.len() == half && tail.len() >= half,
        "{} {} of {half}",
        head.len(),
        tail.len()
    );
}

#[tokio::test]
async fn a_log_grows_and_is_read_by_range() {
    let dir = tempfile::tempdir().unwrap();
    let logs = LogStore::open(&dir.path().join("logs")).await.unwrap();
    assert_eq!(logs.read(step(), 0, 10).await.unwrap(), None);
    assert_eq!(logs.len(step()).await.unwrap(), None);
    let mut changes = logs.changes(step());
    let mut writer = logs.writer(step(), 1 << 20).await.unwrap();
    assert_eq!(logs.read(step(), 0, 10).await.unwrap(), Some(vec![]));
    writer.append(b"hello ").await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.borrow_and_update();
    writer.append(b"").await.unwrap();
    assert!(!changes.has_changed().unwrap());
    writer.append(b"world").await.unwrap();
    writer.sync().await.unwrap();
    assert_eq!(writer.stream_offset(), 11);
    assert_eq!(logs.read(step(), 4, 4).await.unwrap().unwrap(), b"o wo");
    assert_eq!(logs.read(step(), 6, 100).await.unwrap().unwrap(), b"world");
    assert_eq!(logs.read(step(), 11, 100).await.unwrap().unwrap(), b"");
    assert_eq!(logs.read(step(), 9999, 100).await.unwrap().unwrap(), b"");
    assert_eq!(logs.len(step()).await.unwrap(), Some(11));
    assert!(dir.path().join("logs/1/1017/2-0.log").is_file());
    assert!(changes.has_changed().unwrap());
}

#[tokio::test]
async fn a_deleted_log_is_gone_and_its_neighbours_stay() {
    let dir = tempfile::tempdir().unwrap();
    let logs = LogStore::open(dir.path()).await.unwrap();
    let other: StepId = "1017.2.1".parse().unwrap();
    for (step, len) in [(step(), 9000), (other, 5)] {
        logs.writer(step, 2048)
            .await
            .unwrap()
            .append(&stream(len))
            .await
            .unwrap();
    }
    logs.delete(step()).await.unwrap();
    logs.delete(step()).await.unwrap();
    assert_eq!(logs.read(step(), 0, 10).await.unwrap(), None);
    assert_eq!(text(&logs, other).await, stream(5));
    logs.delete(other).await.unwrap();
    assert!(!dir.path().join("1/1017").exists());
}

#[tokio::test]
async fn what_the_machine_dropped_is_marked_and_the_offset_stays_exact() {
    let dir = tempfile::tempdir().unwrap();
    let logs = LogStore::open(dir.path()).await.unwrap();
    let mut writer = logs.writer(step(), 1 << 20).await.unwrap();
    writer.append(b"abc").await.unwrap();
    writer.gap(10).await.unwrap();
    assert_eq!(writer.stream_offset(), 10);
    writer.gap(9).await.unwrap();
    drop(writer);
    let mut writer = logs.writer(step(), 1 << 20).await.unwrap();
    assert_eq!(writer.stream_offset(), 10);
    writer.append(b"xyz").await.unwrap();
    assert_eq!(writer.stream_offset(), 13);
    assert_eq!(
        text(&logs, step()).await,
        b"abc\n[burrow: 7 bytes left out here]\nxyz"
    );
}

#[tokio::test]
async fn many_gaps_make_no_heap_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let logs = LogStore::open(dir.path()).await.unwrap();
    let mut writer = logs.writer(step(), 1 << 20).await.unwrap();
    for at in 1..200 {
        writer.append(b"a").await.unwrap();
        writer.gap(at * 10).await.unwrap();
    }
    assert!(files(dir.path()).len() <= 65, "{}", files(dir.path()).len());
    assert_eq!(writer.stream_offset(), 1990);
}

#[tokio::test]
async fn a_disk_that_fails_is_told_with_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let logs = LogStore::open(dir.path()).await.unwrap();
    fs::write(dir.path().join("1"), "in the way").unwrap();
    let Err(error) = logs.writer(step(), 100).await else {
        panic!("opened")
    };
    assert!(error.to_string().starts_with("cannot open the log `"), "{error}");
    assert!(error.to_string().ends_with("1/1017/2-0.log`"), "{error}");
    assert!(LogStore::open(&dir.path().join("1")).await.is_err());
    assert!(blobs::disk_free(dir.path()).unwrap() > 0);
    assert!(blobs::disk_free(&dir.path().join("nowhere")).is_err());
}

#[tokio::test]
async fn page_a_hundred_of_a_big_log_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let logs = LogStore::open(dir.path()).await.unwrap();
    let mut writer = logs.writer(step(), 1 << 30).await.unwrap();
    let mut index = LineIndex::default();
    assert_eq!(
        logs.lines("9.9.9".parse().unwrap(), &mut index, 0, 5)
            .await
            .unwrap(),
        None
    );
    let page = logs.lines(step(), &mut index, 0, 5).await.unwrap().unwrap();
    assert_eq!((page.lines.len(), page.total), (0, 0));
    let big: String = (0..250_000).map(|n| format!("line {n}\n")).collect();
    writer.append(big.as_bytes()).await.unwrap();
    writer.append(b"no end yet").await.unwrap();
    for first in [0, 1, 999, 1000, 1001, 123_456, 249_999] {
        let page = logs.lines(step(), &mut index, first, 3).await.unwrap().unwrap();
        assert_eq!(page.total, 250_001);
        let wanted: Vec<Vec<u8>> = (first..first + 3)
            .take_while(|n| *n <= 250_000)
            .map(|n| {
                if n < 250_000 {
                    format!("line {n}").into()
                } else {
                    b"no end yet".to_vec()
                }
            })
            .collect();
        assert_eq!(page.lines, wanted, "{first}");
    }
    writer.append(b" but now\nlast").await.unwrap();
    let page = logs.lines(step(), &mut index, 250_000, 9).await.unwrap().unwrap();
    assert_eq!(page.lines, [b"no end yet but now".to_vec(), b"last".to_vec()]);
    let page = logs.lines(step(), &mut index, 300_000, 9).await.unwrap().unwrap();
    assert_eq!((page.lines.len(), page.total), (0, 250_002));
    let len = logs.len(step()).await.unwrap().unwrap();
    assert_eq!((page.complete, page.ended_at), (250_001, len - 4));
}

#[tokio::test]
async fn lines_are_found_by_what_is_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let logs = LogStore::open(dir.path()).await.unwrap();
    let mut writer = logs.writer(step(), 1 << 30).await.unwrap();
    let text: String = (0..5_000).map(|n| format!("line {n}\n")).collect();
    writer.append(text.as_bytes()).await.unwrap();
    writer.append(b"line open77").await.unwrap();
    let ends_in_77 = |line: &[u8]| line.ends_with(b"77");
    let find = async |within: u64, most: usize| {
        let mut index = LineIndex::default();
        let found = logs.find(step(), &mut index, ends_in_77, within, most).await;
        let found = found.unwrap().unwrap();
        for (n, line) in &found {
            let wanted = format!("line {n}").replace("5000", "open77");
            assert_eq!(String::from_utf8_lossy(line), wanted);
        }
        found.into_iter().map(|(n, _)| n).collect::<Vec<_>>()
    };
    assert_eq!(find(u64::MAX, 3).await, [77, 177, 277]);
    assert_eq!(find(u64::MAX, 999).await.len(), 51);
    // The last thousand lines begin at a place that is known.
    assert_eq!(find(500, 2).await, [4077, 4177]);
    assert_eq!(find(0, 9).await, [5000]);
    let (nothing, mut index) = ("9.9.9".parse().unwrap(), LineIndex::default());
    let none = logs.find(nothing, &mut index, ends_in_77, 9, 9).await;
    assert_eq!(none.unwrap(), None);
}

fn small(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

proptest! {
    #![proptest_config(small(60))]

    /// Each piece is followed by a restart or not, with this or another limit.
    #[test]
    fn head_and_tail_are_the_streams(
        max in 0_u64..9000,
        pieces in prop::collection::vec((1_usize..4000, any::<bool>()), 1..20),
    ) {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let logs = LogStore::open(dir.path()).await.unwrap();
            let whole = stream(pieces.iter().map(|(len, _)| len).sum());
            let mut writer = logs.writer(step(), max).await.unwrap();
            let mut at = 0;
            for (len, restart) in pieces {
                if restart {
                    drop(writer);
                    writer = logs.writer(step(), max).await.unwrap();
                    assert_eq!(writer.stream_offset(), at as u64);
                }
                writer.append(&whole[at..at + len]).await.unwrap();
                at += len;
                assert_eq!(writer.stream_offset(), at as u64);
                let half = (max / 2).max(1024) as usize;
                let joined = text(&logs, step()).await;
                check_text(&joined, &whole[..at], half);
                let on_disk: u64 = files(dir.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
                assert!(on_disk <= 3 * half as u64, "{on_disk} of {half}");
                assert_eq!(logs.len(step()).await.unwrap(), Some(joined.len() as u64));
            }
        });
    }

    /// A loss of power takes unsynced bytes off the end of the last file.
    #[test]
    fn after_a_crash_the_stream_goes_on_where_the_file_ends(
        pieces in prop::collection::vec((1_usize..3000, 0_u64..2000), 1..15),
    ) {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let logs = LogStore::open(dir.path()).await.unwrap();
            let whole = stream(60_000);
            let mut at = 0;
            for (len, lost) in pieces {
                let mut writer = logs.writer(step(), 8192).await.unwrap();
                assert_eq!(writer.stream_offset(), at as u64);
                writer.append(&whole[at..at + len]).await.unwrap();
                drop(writer);
                let starts = |path: &PathBuf| path.extension().unwrap().to_str().unwrap().parse().unwrap_or(0_u64);
                let last = files(dir.path()).into_iter().max_by_key(starts).unwrap();
                let kept = last.metadata().unwrap().len();
                OpenOptions::new().write(true).open(&last).unwrap().set_len(kept.saturating_sub(lost)).unwrap();
                at = at + len - lost.min(kept) as usize;
                check_text(&text(&logs, step()).await, &whole[..at], 4096);
            }
        });
    }

    #[test]
    fn lines_are_those_of_the_text(text in prop::collection::vec("[a-c]{0,3}", 0..3000), first in 0_usize..3100, ended: bool) {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let logs = LogStore::open(dir.path()).await.unwrap();
            let mut writer = logs.writer(step(), 1 << 20).await.unwrap();
            let mut whole = text.join("\n");
            if ended && !text.is_empty() {
                whole.push('\n');
            }
            writer.append(whole.as_bytes()).await.unwrap();
            let page = logs.lines(step(), &mut LineIndex::default(), first as u64, 7).await.unwrap().unwrap();
            let wanted: Vec<Vec<u8>> = whole.lines().skip(first).take(7).map(|line| line.into()).collect();
            assert_eq!(page.lines, wanted);
            assert_eq!(page.total, whole.lines().count() as u64);
        });
    }
}

#[test]
fn a_writer_that_another_has_followed_writes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let logs = LogStore::open(dir.path()).await.unwrap();
        let mut first = logs.writer(step(), 1 << 20).await.unwrap();
        first.append(b"one ").await.unwrap();
        let mut second = logs.writer(step(), 1 << 20).await.unwrap();
        assert_eq!(second.stream_offset(), 4);
        let refused = first.append(b"two ").await.unwrap_err();
        assert_eq!(
            std::error::Error::source(&refused).unwrap().to_string(),
            "another writer has taken it over"
        );
        second.append(b"two").await.unwrap();
        assert_eq!(text(&logs, step()).await, b"one two");
        assert_eq!(first.stream_offset(), 4);
    });
}

#[test]
fn a_finished_log_that_is_not_what_was_written_says_so() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let logs = LogStore::open(dir.path()).await.unwrap();
        let whole = stream(5 << 20);
        let mut writer = logs.writer(step(), 4 << 20).await.unwrap();
        writer.append(&whole).await.unwrap();
        assert_eq!(
            logs.check(step()).await.unwrap(),
            Seal::None,
            "it is not finished"
        );
        writer.finish().await.unwrap();
        assert_eq!(logs.check(step()).await.unwrap(), Seal::Whole);
        let is_broken = async |what: &str, wanted: &str| match logs.check(step()).await.unwrap() {
            Seal::Broken(why) => assert!(why.contains(wanted), "{what}: {why}"),
            other => panic!("{what}: {other:?}"),
        };
        let mut parts: Vec<PathBuf> = files(dir.path());
        parts.retain(|path| path.extension().is_none_or(|end| end != "seal"));
        assert_eq!(parts.len(), 3);
        for path in &parts {
            let good = fs::read(path).unwrap();
            let mut bad = good.clone();
            // Its time may be the same as before: a clock that ticks slowly.
            let last = bad.len() - 1;
            bad[last] ^= 1;
            fs::write(path, &bad).unwrap();
            let other = std::time::SystemTime::UNIX_EPOCH;
            fs::File::options()
                .append(true)
                .open(path)
                .unwrap()
                .set_modified(other)
                .unwrap();
            is_broken("a bit turned", "is not what was written").await;
            fs::write(path, &good[..last]).unwrap();
            is_broken("cut short", "it has").await;
            fs::remove_file(path).unwrap();
            is_broken("gone", "it has").await;
            fs::write(path, &good).unwrap();
            assert_eq!(logs.check(step()).await.unwrap(), Seal::Whole);
        }
        // One that is taken up again is not finished, and neither is a torn seal a seal.
        let mut again = logs.writer(step(), 4 << 20).await.unwrap();
        assert_eq!(logs.check(step()).await.unwrap(), Seal::None);
        again.append(b"more").await.unwrap();
        again.finish().await.unwrap();
        assert_eq!(logs.check(step()).await.unwrap(), Seal::Whole);
        let seal = dir.path().join("1/1017/2-0.seal");
        let text = fs::read(&seal).unwrap();
        fs::write(&seal, &text[..text.len() - 7]).unwrap();
        assert_eq!(logs.check(step()).await.unwrap(), Seal::None);
        logs.note(step().attempt, "a note").await.unwrap();
        assert_eq!(logs.notes(step().attempt).await.unwrap(), "a note");
        logs.delete(step()).await.unwrap();
        assert!(files(dir.path()).is_empty(), "nothing is left behind");
        assert_eq!(logs.notes(step().attempt).await.unwrap(), "");
    });
}

/// Lines 0 to `n`, each with its number; every thousandth says `needle` and one before the last has no end for long.
fn numbered(n: usize) -> Vec<u8> {
    (0..n)
        .flat_map(|n| {
            let what = if n % 1000 == 7 {
                "the needle is here"
            } else {
                "some line of some length to fill a log"
            };
            format!("{n} {what}\n").into_bytes()
        })
        .collect()
}

#[tokio::test]
async fn a_long_log_is_indexed_at_its_end_and_searched() {
    const LINES: usize = 250_000;
    let dir = tempfile::tempdir().unwrap();
    let logs = LogStore::open(dir.path()).await.unwrap();
    let mut writer = logs.writer(step(), 1 << 30).await.unwrap();
    writer.append(&numbered(LINES)).await.unwrap();
    writer.sync().await.unwrap();
    let stored = dir.path().join("1/1017/2-0.lines");
    let good = fs::read(&stored).unwrap();

    // Whatever is stored, the lines are those of the log.
    let damage: [fn(&mut Vec<u8>); 5] = [
        |_| {},
        |bytes| bytes.truncate(100),
        |bytes| bytes.truncate(99),
        |bytes| bytes.clear(),
        |bytes| bytes[4] ^= 1,
    ];
    for damage in damage {
        let mut bytes = good.clone();
        damage(&mut bytes);
        fs::write(&stored, bytes).unwrap();
        let mut index = LineIndex::default();
        let lines = logs.lines(step(), &mut index, 200_000, 2).await.unwrap().unwrap();
        assert_eq!(lines.total, LINES as u64);
        assert!(lines.lines[0].starts_with(b"200000 ") && lines.lines[1].starts_with(b"200001 "));
    }
    // It is the stored one that is used: of one that speaks of another log only what that one has is told.
    let mut lying = good.clone();
    let ends = u64::from_le_bytes(lying[16..24].try_into().unwrap());
    lying[16..24].copy_from_slice(&(ends + 1).to_le_bytes());
    fs::write(&stored, &lying).unwrap();
    let lines = logs.lines(step(), &mut LineIndex::default(), 0, 0).await.unwrap();
    assert_eq!(lines.unwrap().total, LINES as u64 + 1);
    fs::write(&stored, &good).unwrap();

    let found = logs.search(step(), b"needle", 1000).await.unwrap().unwrap();
    assert_eq!(found.len(), LINES / 1000);
    for (n, (line, text)) in found.iter().enumerate() {
        assert_eq!(*line, n as u64 * 1000 + 7);
        assert_eq!(text, format!("{line} the needle is here").as_bytes());
    }
    let two = logs.search(step(), b"needle", 2).await.unwrap().unwrap();
    assert_eq!(two, found[..2]);
    assert_eq!(logs.search(step(), b"no such", 2).await.unwrap().unwrap(), []);
    assert_eq!(logs.search(step(), b"", 2).await.unwrap().unwrap(), []);
    // It went round for ever.
    assert_eq!(logs.search(step(), b"\n8 some", 2).await.unwrap().unwrap(), []);

    // More is printed after all: the index is of a part, and the rest is scanned.
    writer.append(b"one more\n").await.unwrap();
    let lines = logs
        .lines(step(), &mut LineIndex::default(), LINES as u64, 5)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(lines.lines, [b"one more"]);
    logs.delete(step()).await.unwrap();
    assert!(!stored.exists());
    assert_eq!(logs.search(step(), b"needle", 2).await.unwrap(), None);
}

#[tokio::test]
async fn words_are_found_across_pieces_and_in_a_line_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let logs = LogStore::open(dir.path()).await.unwrap();
    // Around the sizes in which it is read and searched.
    for at in [
        0,
        (1 << 20) - 3,
        (4 << 20) + (1 << 20) - 3,
        (5 << 20) - 6,
        5 << 20,
        9 << 20,
    ] {
        let mut text = vec![b'x'; 11 << 20];
        text[at..at + 6].copy_from_slice(b"needle");
        let mut writer = logs.writer(step(), 1 << 30).await.unwrap();
        writer.append(b"first\n").await.unwrap();
        writer.append(&text).await.unwrap();
        let found = logs.search(step(), b"needle", 10).await.unwrap().unwrap();
        assert_eq!(
            found.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [1],
            "at {at}"
        );
        logs.delete(step()).await.unwrap();
    }
}
