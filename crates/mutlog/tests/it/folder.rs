use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use mutlog::{
    Folder, FolderDisk, GroupCommit, Lease, LeaseError, LogReader, OpenError, Place, Records, SegmentNumber,
    Span, Sum, TARGET, Torn, Writer, day_files,
};

fn open(dir: &Path, target: u64) -> Result<(Writer<FolderDisk>, Option<Torn>), OpenError> {
    let disk = FolderDisk::new(Folder::new(dir), Lease::take(dir).unwrap());
    Writer::open(disk, target, 1_800_000_000)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names = Folder::new(dir).names().unwrap();
    names.sort();
    names
}

/// All payloads of the log in `dir`, as text.
fn payloads(dir: &Path) -> Vec<String> {
    let folder = Folder::new(dir);
    let mut found = Vec::new();
    for file in folder.log().unwrap() {
        let bytes = fs::read(folder.path(&file)).unwrap();
        found
            .extend(Records::new(&bytes, 0).map(|(_, payload)| String::from_utf8(payload.to_vec()).unwrap()));
    }
    found
}

#[test]
fn records_are_invisible_until_they_are_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, torn) = open(dir.path(), TARGET).unwrap();
    assert_eq!(torn, None);
    let place = writer.append(b"one").unwrap();
    assert_eq!((place.segment, place.offset), (SegmentNumber(0), 8));
    assert_eq!((writer.visible(), payloads(dir.path())), (vec![], vec![]));
    writer.commit().unwrap();
    assert_eq!(
        (writer.visible()[0].len, payloads(dir.path())),
        (11, vec!["one".to_owned()])
    );
    let span = Span { at: place, len: 3 };
    assert_eq!(
        LogReader::new(Folder::new(dir.path())).read(span).unwrap(),
        b"one"
    );
}

#[test]
fn a_segment_is_sealed_before_the_record_that_would_pass_the_target() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), 30).unwrap();
    // 8 + 11 bytes; then 11 more are exactly the target, to which the header is not counted.
    for payload in ["aaaaaaaaaaa", "bbbbbbbbbbb", "c", &"d".repeat(50), "e"] {
        writer.append(payload.as_bytes()).unwrap();
    }
    let reader = LogReader::new(Folder::new(dir.path()));
    writer.commit().unwrap();
    let lengths: Vec<u64> = writer.visible().iter().map(|segment| segment.len).collect();
    assert_eq!(lengths, [39, 9, 59, 9]);
    let names = names(dir.path());
    assert!(
        names[0].starts_with("0000.") && names[2].starts_with("0002."),
        "{names:?}"
    );
    assert_eq!(names[3], "0003.growing.mutlog");
    // What was opened while it grew is read on after it was sealed.
    let at = Place {
        segment: SegmentNumber(3),
        offset: 8,
    };
    assert_eq!(reader.read(Span { at, len: 1 }).unwrap(), b"e");
    writer.append(&[b'f'; 40]).unwrap();
    writer.commit().unwrap();
    assert_eq!(reader.read(Span { at, len: 1 }).unwrap(), b"e");
    drop(writer);
    let (writer, torn) = open(dir.path(), 30).unwrap();
    assert_eq!((writer.visible().len(), torn), (5, None));
}

#[test]
fn a_torn_tail_is_cut_kept_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), TARGET).unwrap();
    writer.append(b"one").unwrap();
    writer.commit().unwrap();
    drop(writer);
    let path = dir.path().join("0000.growing.mutlog");
    OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"REC@b+5=tw")
        .unwrap();
    let (mut writer, torn) = open(dir.path(), TARGET).unwrap();
    assert_eq!(
        torn.unwrap().to_string(),
        "segment 0000 ended inside a record: cut 10 bytes at offset 11, kept in `0000.torn-1800000000.bin`"
    );
    assert_eq!(
        fs::read(dir.path().join("0000.torn-1800000000.bin")).unwrap(),
        b"REC@b+5=tw"
    );
    writer.append(b"two").unwrap();
    writer.commit().unwrap();
    assert_eq!(payloads(dir.path()), ["one", "two"]);
    drop(writer);
    // Zeros, as a file system may leave them.
    OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(&[0; 100])
        .unwrap();
    let (writer, torn) = open(dir.path(), TARGET).unwrap();
    assert_eq!((torn.unwrap().len, writer.visible()[0].len), (100, 22));
}

#[test]
fn damage_to_what_was_visible_is_never_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), TARGET).unwrap();
    for payload in ["one", "two", "three"] {
        writer.append(payload.as_bytes()).unwrap();
    }
    writer.commit().unwrap();
    drop(writer);
    let path = dir.path().join("0000.growing.mutlog");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let Err(OpenError::Damaged { offset, .. }) = open(dir.path(), TARGET) else {
            panic!("opened")
        };
        assert!(offset <= 36, "{offset}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_growing_segment_from_elsewhere_is_taken_up_to_its_torn_tail() {
    let whole = b"REC@0+3=oneREC@b+3=twoREC@16+5=three";
    let check = |bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("0000.growing.mutlog"), bytes).unwrap();
        open(dir.path(), TARGET)
            .map(|(_, torn)| (payloads(dir.path()).len(), torn.map_or(0, |torn| torn.len)))
    };
    assert_eq!(check(whole).unwrap(), (3, 0));
    assert_eq!(check(&whole[..30]).unwrap(), (2, 8));
    assert_eq!(check(&[&whole[..22], &[0; 14]].concat()).unwrap(), (2, 14));
    let Err(OpenError::DamagedAmid { number, source }) = check(&[&whole[..11], b"X", &whole[12..]].concat())
    else {
        panic!("opened")
    };
    assert_eq!((number, source.offset), (SegmentNumber(0), 11));
}

#[test]
fn a_sealed_segment_that_changed_is_refused_with_place_and_both_sums() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), 10).unwrap();
    writer.append(b"first").unwrap();
    writer.append(b"second").unwrap();
    writer.commit().unwrap();
    drop(writer);
    drop(open(dir.path(), 10).unwrap());
    let sealed = dir.path().join(&names(dir.path())[0]);
    fs::write(&sealed, b"REC@0+5=fir").unwrap();
    let Err(OpenError::Damaged {
        number,
        offset,
        found,
        wanted,
    }) = open(dir.path(), 10)
    else {
        panic!("opened")
    };
    assert_eq!((number, offset), (SegmentNumber(0), 0));
    assert_ne!(found, wanted);
    assert!(sealed.to_str().unwrap().contains(&wanted.to_string()));
}

#[test]
fn a_copy_takes_only_what_has_the_right_sum() {
    let dir = tempfile::tempdir().unwrap();
    let (mut copy, _) = open(dir.path(), TARGET).unwrap();
    let (first, second) = (b"REC@0+3=one", b"REC@b+3=two");
    assert!(!copy.copy(first, Sum::of(b"other")).unwrap());
    assert_eq!(
        (copy.end(), names(dir.path())),
        ((SegmentNumber(0), 0), vec!["durable".into(), "lease".into()])
    );
    assert!(copy.copy(first, Sum::of(first)).unwrap());
    assert!(
        copy.copy(second, Sum::of(&[&first[..], second].concat()))
            .unwrap()
    );
    copy.seal_copy().unwrap();
    assert_eq!((copy.end(), copy.visible()[0].len), ((SegmentNumber(1), 0), 22));
    copy.seal_copy().unwrap();
    assert_eq!(copy.end().0, SegmentNumber(1));
    assert_eq!(payloads(dir.path()), ["one", "two"]);
}

#[test]
fn a_copy_can_drop_what_the_other_log_does_not_have_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let (mut copy, _) = open(dir.path(), TARGET).unwrap();
    for bytes in [b"REC@0+1=a", b"REC@0+1=b", b"REC@0+1=c"] {
        copy.seal_copy().unwrap();
        assert!(copy.copy(bytes, Sum::of(bytes)).unwrap());
    }
    copy.drop_from(SegmentNumber(1)).unwrap();
    assert_eq!(
        (copy.end(), payloads(dir.path())),
        ((SegmentNumber(1), 0), vec!["a".to_owned()])
    );
    assert!(copy.copy(b"REC@0+1=d", Sum::of(b"REC@0+1=d")).unwrap());
    assert_eq!(payloads(dir.path()), ["a", "d"]);
    copy.drop_from(SegmentNumber(0)).unwrap();
    assert_eq!(
        (copy.end(), payloads(dir.path())),
        ((SegmentNumber(0), 0), vec![])
    );
    drop(copy);
    assert_eq!(open(dir.path(), TARGET).unwrap().0.visible(), []);
}

#[test]
fn a_folder_of_the_originals_client_is_sealed_but_for_its_last_segment() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..3 {
        fs::write(
            dir.path().join(format!("000{number}.growing.mutlog")),
            b"REC@0+1=a",
        )
        .unwrap();
    }
    let folder = Folder::new(dir.path());
    let lease = Lease::take(dir.path()).unwrap();
    fs::write(dir.path().join("0001.growing.mutlog"), b"REC@0+1=").unwrap();
    folder.seal_all_but_last(&lease).unwrap();
    let sealed = format!("0000.{}.mutlog", Sum::of(b"REC@0+1=a"));
    assert_eq!(
        names(dir.path()),
        [&sealed[..], "0001.growing.mutlog", "0002.growing.mutlog", "lease"]
    );
    fs::write(dir.path().join("0001.growing.mutlog"), b"REC@0+1=b").unwrap();
    folder.seal_all_but_last(&lease).unwrap();
    assert_eq!(folder.log().unwrap().len(), 3);
}

#[test]
fn the_originals_daily_files_are_found_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "maintner-2018-06-02.mutlog",
        "maintner-0000.ab.mutlog",
        "maintner-2018-06-01.mutlog",
        "x.mutlog",
        "maintner-1",
    ] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    fs::create_dir(dir.path().join("maintner-2.mutlog")).unwrap();
    let files = day_files(dir.path()).unwrap();
    let names: Vec<_> = files
        .iter()
        .map(|file| file.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "maintner-0000.ab.mutlog",
            "maintner-2018-06-01.mutlog",
            "maintner-2018-06-02.mutlog"
        ]
    );
}

#[test]
fn a_log_has_one_writer_and_says_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let first = Lease::take(dir.path()).unwrap();
    let Err(LeaseError::Held { owner }) = Lease::take(dir.path()) else {
        panic!("two writers")
    };
    assert_eq!(
        (&owner, owner.pid, owner.counter),
        (first.owner(), std::process::id(), 1)
    );
    drop(first);
    assert_eq!(Lease::take(dir.path()).unwrap().owner().counter, 2);
}

#[test]
fn a_writer_that_was_followed_by_another_writes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), TARGET).unwrap();
    writer.append(b"one").unwrap();
    writer.commit().unwrap();
    // A file system whose locks do not hold lets another in.
    fs::remove_file(dir.path().join("lease")).unwrap();
    fs::write(dir.path().join("lease"), "elsewhere 7 2\n").unwrap();
    writer.append(b"two").unwrap();
    let error = writer.commit().unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "process 7 on `elsewhere` has taken the log over");
    assert_eq!(payloads(dir.path()), ["one"]);
    assert_eq!(
        writer.commit().unwrap_err().to_string(),
        "an earlier commit failed"
    );
}

#[test]
fn many_appenders_share_a_commit_and_each_is_visible_before_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, _) = open(dir.path(), TARGET).unwrap();
    let visible = Arc::new(Mutex::new((0, 0)));
    let told = visible.clone();
    let (commits, appender) = GroupCommit::start(writer, move |segments| {
        let mut told = told.lock().unwrap();
        *told = (told.0 + 1, segments[0].len);
    });
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let (appender, visible) = (appender.clone(), visible.clone());
            scope.spawn(move || {
                for n in 0..5 {
                    let pair = vec![
                        format!("{thread} {n} a").into_bytes(),
                        format!("{thread} {n} b").into_bytes(),
                    ];
                    let places = appender.append(pair).unwrap();
                    assert!(u64::from(places[1].offset) + 5 <= visible.lock().unwrap().1);
                }
            });
        }
    });
    drop(appender);
    commits.join().unwrap();
    let payloads = payloads(dir.path());
    assert_eq!(payloads.len(), 80);
    for pair in payloads.chunks(2) {
        assert_eq!(pair[0].strip_suffix('a'), pair[1].strip_suffix('b'));
    }
    assert!(
        visible.lock().unwrap().0 < 40,
        "each append had a commit of its own"
    );
}
