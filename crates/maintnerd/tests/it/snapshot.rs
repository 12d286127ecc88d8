//! A corpus that starts from a snapshot is the corpus of the whole log, whatever happens to the file.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use corpus::snapshot::{BadSnapshot, Contents};
use corpus::{Corpus, Hash};
use maintnerd::synthetic::Synthetic;
use maintnerd::{
    Leader, NotUsed, Replay, SNAPSHOT, Started, log_in, open_snapshot, save_snapshot, start, until,
};
use maintpb::Message;
use mutlog::{Folder, LogReader, Place, SegmentNumber};

/// A log of `count` records in segments of 256 KiB.
fn write_log(dir: &Path, log: &mut Synthetic, count: usize) {
    let leader = Leader::open_with_target(Folder::new(dir), 1 << 18).unwrap();
    let payloads: Vec<Vec<u8>> = log.take(count).map(|mutation| mutation.encode_to_vec()).collect();
    leader.appender.append(payloads).unwrap();
    leader.close().unwrap();
}

/// As a process starts that finds a snapshot worth it however little is new.
fn started(dir: &Path) -> Started {
    let folder = Folder::new(dir);
    let log = log_in(&folder).unwrap();
    start(&folder, log, 1).unwrap()
}

fn cold(dir: &Path) -> Replay {
    let folder = Folder::new(dir);
    let mut replay = Replay::default();
    let log = log_in(&folder).unwrap();
    replay.advance(&LogReader::new(folder), &log).unwrap();
    replay
}

fn summary(corpus: &Corpus, dir: &Path) -> String {
    corpus::summary(corpus, &LogReader::new(Folder::new(dir))).unwrap()
}

fn bytes_of(dir: &Path, replay: &Replay) -> Vec<u8> {
    save_snapshot(dir, replay).unwrap();
    fs::read(dir.join(SNAPSHOT)).unwrap()
}

#[test]
fn over_a_snapshot_and_the_tail_stands_what_the_whole_log_says() {
    for seed in 1..=2 {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut log = Synthetic::new(seed);
        let mut last = 0;
        for (round, count) in [1200, 1, 700].into_iter().enumerate() {
            write_log(dir, &mut log, count);
            let started = started(dir);
            assert_eq!((started.not_used, started.not_saved), (None, None));
            assert_eq!(started.from_snapshot, last, "seed {seed}, round {round}");
            last = started.replay.counts().bytes;
            let cold = cold(dir);
            assert_eq!(started.replay.counts(), cold.counts());
            let found = summary(started.replay.corpus(), dir);
            assert_eq!(found, summary(cold.corpus(), dir), "seed {seed}, round {round}");
            // Every corner of both, in one spelling.
            let (ours, theirs) = (bytes_of(dir, &started.replay), bytes_of(dir, &cold));
            assert!(ours == theirs, "seed {seed}, round {round}: {} bytes", ours.len());
        }
    }
}

#[test]
fn a_clone_of_what_stands_over_a_snapshot_does_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut log = Synthetic::new(9);
    write_log(dir, &mut log, 2000);
    let (mut started, before) = (started(dir).replay, started(dir).replay.corpus().clone());
    let expect = summary(&before, dir);
    let clone = started.corpus().clone();
    write_log(dir, &mut log, 2000);
    let folder = Folder::new(dir);
    started
        .advance(&LogReader::new(folder.clone()), &log_in(&folder).unwrap())
        .unwrap();
    assert_eq!(summary(&clone, dir), expect);
    assert_ne!(summary(started.corpus(), dir), expect);
}

/// Changes the snapshot of a log and starts: it must not be used, for the reason given, and do no harm.
fn check_not_used(change: impl FnOnce(&Path), reason: &str) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_log(dir, &mut Synthetic::new(5), 600);
    started(dir);
    change(dir);
    let again = started(dir);
    assert_eq!(again.from_snapshot, 0, "{reason}");
    let not_used = again.not_used.expect("it was changed");
    assert!(not_used.contains(reason), "{not_used}; wanted: {reason}");
    assert_eq!(
        summary(again.replay.corpus(), dir),
        summary(cold(dir).corpus(), dir)
    );
    // And a good one is there now.
    let last = started(dir);
    assert_eq!(
        (last.not_used, last.from_snapshot),
        (None, last.replay.counts().bytes)
    );
}

fn rewrite(dir: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = dir.join(SNAPSHOT);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_snapshot_that_is_not_exactly_what_is_wanted_is_made_anew() {
    check_not_used(|dir| rewrite(dir, Vec::clear), "no snapshot, or was cut");
    check_not_used(
        |dir| rewrite(dir, |bytes| bytes.truncate(40)),
        "no snapshot, or was cut",
    );
    check_not_used(
        |dir| rewrite(dir, |bytes| bytes.truncate(bytes.len() - 1)),
        "no snapshot, or was cut",
    );
    check_not_used(
        |dir| rewrite(dir, |bytes| bytes.fill(0)),
        "no snapshot, or was cut",
    );
    check_not_used(
        |dir| rewrite(dir, |bytes| drop(bytes.drain(100..200))),
        "not as it was written",
    );
    check_not_used(
        |dir| {
            rewrite(dir, |bytes| {
                let at = bytes.len() - 12;
                bytes[at] ^= 0xff;
            });
        },
        "has format 254; this burrow writes 1",
    );
    check_not_used(|dir| rewrite(dir, |bytes| bytes[77] ^= 1), "block 0 differs");
    // Another log, as long in every segment.
    check_not_used(
        |dir| {
            let snapshot = fs::read(dir.join(SNAPSHOT)).unwrap();
            fs::remove_dir_all(dir).unwrap();
            write_log(dir, &mut Synthetic::new(6), 600);
            fs::write(dir.join(SNAPSHOT), snapshot).unwrap();
        },
        "of another log: segment 0000 differs",
    );
    // The log lost its last segment.
    check_not_used(
        |dir| {
            let growing = |entry: &io::Result<fs::DirEntry>| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .contains("growing")
            };
            let last = fs::read_dir(dir).unwrap().find(growing).unwrap().unwrap();
            fs::remove_file(last.path()).unwrap();
            fs::remove_file(dir.join("durable")).unwrap();
        },
        "of more than is there of the log",
    );
}

#[test]
fn any_flipped_bit_of_a_snapshot_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_log(dir, &mut Synthetic::new(5), 300);
    started(dir);
    let folder = Folder::new(dir);
    let (reader, log) = (LogReader::new(folder.clone()), log_in(&folder).unwrap());
    let good = fs::read(dir.join(SNAPSHOT)).unwrap();
    let mut seed = 1_u64;
    // The last bytes tell of all others: each of their bits, and some of everywhere.
    let bits = (good.len() - 60..good.len()).flat_map(|at| (0..8).map(move |bit| (at, bit)));
    let some = (0..100).map(|_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((seed >> 20) as usize % good.len(), (seed >> 60) % 8)
    });
    for (at, bit) in bits.chain(some) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << bit;
        fs::write(dir.join(SNAPSHOT), bytes).unwrap();
        let opened = open_snapshot(&reader, dir, &log);
        let bad = matches!(
            opened,
            Err(NotUsed::Bad(
                BadSnapshot::None | BadSnapshot::Damaged { .. } | BadSnapshot::OtherVersion { .. }
            ))
        );
        assert!(bad, "bit {bit} of byte {at}");
    }
}

/// Texts of a log in memory; an error where a damaged place points nowhere.
struct Memory(Vec<Vec<u8>>);

impl corpus::Texts for Memory {
    type Error = ();

    fn read(&self, span: corpus::Span) -> Result<Vec<u8>, ()> {
        let segment = self.0.get(span.at.segment.0 as usize).ok_or(())?;
        let from = span.at.offset as usize;
        let bytes = segment.get(from..from.saturating_add(span.len as usize));
        bytes.map(<[u8]>::to_vec).ok_or(())
    }
}

#[test]
fn damage_that_came_after_the_check_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_log(dir, &mut Synthetic::new(5), 1500);
    started(dir);
    let folder = Folder::new(dir);
    let log = folder.log().unwrap();
    let texts = Memory(
        log.iter()
            .map(|file| fs::read(folder.path(file)).unwrap())
            .collect(),
    );
    let good = fs::read(dir.join(SNAPSHOT)).unwrap();
    let read = |at: u64, room: &mut [u8]| {
        let at = usize::try_from(at).unwrap();
        room.copy_from_slice(&good[at..at + room.len()]);
        Ok(())
    };
    let contents = Contents::read(good.len() as u64, read).unwrap();
    // What is behind the last block is the table, which was read before.
    let body = good.len() - 4096.min(good.len());
    let (mut seed, mut opened) = (7_u64, 0);
    for round in 0..36 {
        let mut bytes = good.clone();
        for _ in 0..1_u32 << (round % 12) {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes[(seed >> 20) as usize % body] ^= (seed >> 56) as u8;
        }
        let Ok(mut corpus) = contents.corpus(&Bytes::from(bytes)) else {
            continue;
        };
        opened += 1;
        // It says anything, or that it does not know.
        let _ = corpus::summary(&corpus, &texts);
        for project in corpus.projects() {
            let heads: Vec<_> = project.refs().map(|(_, commit)| commit).collect();
            for two in heads.windows(2) {
                let _ = two[0].has_ancestor(two[1]);
            }
            for change in project.open_changes().take(20) {
                let _ = (change.owner_id(), change.issue_refs(None), change.votes(&texts));
            }
        }
        assert!(corpus.commit(Hash::parse(&[b'0'; 40]).unwrap()).is_none());
        for mutation in Synthetic::new(6).take(300) {
            let payload = mutation.encode_to_vec();
            corpus.apply_record(Place::default(), &payload).unwrap();
        }
        corpus.finish();
    }
    assert!(opened > 10, "{opened}");
}

#[test]
fn a_part_of_the_log_is_what_was_known_then() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut log = Synthetic::new(11);
    write_log(dir, &mut log, 1000);
    let folder = Folder::new(dir);
    let (reader, then) = (LogReader::new(folder.clone()), log_in(&folder).unwrap());
    let expect = summary(started(dir).replay.corpus(), dir);
    write_log(dir, &mut log, 1000);
    started(dir);
    let whole = log_in(&folder).unwrap();
    let last = then.last().unwrap();
    let end = Place {
        segment: last.number,
        offset: u32::try_from(last.len).unwrap(),
    };
    let part = until(&reader, &whole, end).unwrap();
    assert_eq!(part, then);
    let found = start(&folder, part, u64::MAX).unwrap();
    assert_eq!(summary(found.replay.corpus(), dir), expect);
    // Amid the record after that is as well.
    let amid = Place {
        offset: end.offset + 3,
        ..end
    };
    assert_eq!(until(&reader, &whole, amid).unwrap(), then);
    let nothing = until(&reader, &whole, Place::default()).unwrap();
    assert_eq!(nothing.iter().map(|segment| segment.len).sum::<u64>(), 0);
    let beyond = Place {
        segment: SegmentNumber(9999),
        offset: 0,
    };
    assert_eq!(until(&reader, &whole, beyond).unwrap(), whole);
}

/// If this fails because a snapshot of the same log is meant to look or mean otherwise than before, raise
/// `corpus::snapshot::VERSION` and take the sum over: what an older burrow wrote must not be used.
#[test]
fn the_same_log_gives_the_same_file_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_log(dir, &mut Synthetic::new(1), 500);
    let file = bytes_of(dir, &cold(dir));
    const SUM: &str = "6ca285dd5f513ac76cf6f28869274a685f83859b00f5e0f26284eed5";
    assert_eq!(corpus::snapshot::VERSION, 1);
    assert_eq!(mutlog::Sum::of(&file).to_string(), SUM);
}

#[test]
fn a_time_is_where_the_log_first_tells_of_a_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_log(dir, &mut Synthetic::new(12), 800);
    let folder = Folder::new(dir);
    let (reader, log) = (LogReader::new(folder.clone()), log_in(&folder).unwrap());
    let mut times = Vec::new();
    for file in folder.log().unwrap() {
        let bytes = fs::read(folder.path(&file)).unwrap();
        times.extend(mutlog::Records::new(&bytes, 0).map(|(_, payload)| corpus::seen_at(payload).unwrap()));
    }
    assert!(times.iter().flatten().count() > 400);
    let known: Vec<_> = times.iter().flatten().copied().collect();
    for time in known.iter().step_by(97) {
        let expect = times.iter().take_while(|seen| **seen <= Some(*time)).count() as u64;
        let place = maintnerd::place_at(&reader, &log, *time).unwrap();
        let mut replay = Replay::default();
        replay
            .advance(&reader, &until(&reader, &log, place).unwrap())
            .unwrap();
        assert_eq!(replay.counts().records, expect, "{time:?}");
    }
    let late = corpus::Timestamp(i64::MAX);
    let end = maintnerd::place_at(&reader, &log, late).unwrap();
    assert_eq!(until(&reader, &log, end).unwrap(), log);
    // What tells no time is of the time before it, also at the beginning.
    let start = maintnerd::place_at(&reader, &log, corpus::Timestamp(0)).unwrap();
    let mut replay = Replay::default();
    replay
        .advance(&reader, &until(&reader, &log, start).unwrap())
        .unwrap();
    let timeless = times.iter().take_while(|seen| seen.is_none()).count() as u64;
    assert_eq!(replay.counts().records, timeless);
}
