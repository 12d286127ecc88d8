use std::path::Path;
use std::sync::Arc;

use mutlog::{Folder, LogReader, Place, Segment, Writer};
use mutlog_object::{Store, open};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::dying::Dying;

/// Segments of a few records.
const TARGET: u64 = 60;

pub fn writer(dir: &Path, store: Arc<dyn ObjectStore>) -> anyhow::Result<Writer<mutlog_object::Mirror>> {
    let mirror = open(&Folder::new(dir), Store::new(store, "a/log")?)?;
    Ok(Writer::open(mirror, TARGET, 1)?.0)
}

/// Commits one record after another, and says after each what is visible.
fn work(writer: &mut Writer<mutlog_object::Mirror>, from: u32, count: u32, told: &mut Vec<Segment>) -> bool {
    (from..from + count).all(|n| {
        writer.append(format!("record {n}").as_bytes()).unwrap();
        let committed = writer.commit().is_ok();
        if committed {
            *told = writer.visible();
        }
        committed
    })
}

pub fn content(dir: &Path, log: &[Segment]) -> Vec<u8> {
    let reader = LogReader::new(Folder::new(dir));
    let read = |segment: &Segment| {
        let mut bytes = vec![0; usize::try_from(segment.len).unwrap()];
        let (segment, offset) = (segment.number, 0);
        reader.read_into(Place { segment, offset }, &mut bytes).unwrap();
        bytes
    };
    log.iter().flat_map(read).collect()
}

#[test]
fn what_was_told_is_there_whenever_the_store_dies_here_and_on_a_new_machine() {
    let mut deaths = 0;
    for calls in 0.. {
        let (here, there, late) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        let memory = Arc::new(InMemory::new());
        let dying = Dying::new(memory.clone(), calls);
        let mut told = Vec::new();
        let done = match writer(here.path(), Arc::new(dying.clone())) {
            Ok(mut writer) => work(&mut writer, 0, 9, &mut told),
            Err(_) => false,
        };
        assert_eq!(done, !dying.is_dead(), "{calls} calls");
        let before = content(here.path(), &told);

        // The machine is lost, or it starts again; both go on, one after the other.
        for dir in [there.path(), here.path(), late.path()] {
            let mut again =
                writer(dir, memory.clone()).unwrap_or_else(|error| panic!("{calls} calls: {error:#}"));
            let found = content(dir, &again.visible());
            assert!(found.starts_with(&before), "{calls} calls, in {}", dir.display());
            assert!(work(&mut again, 100, 5, &mut told), "{calls} calls");
            assert_eq!(told, again.visible());
            assert!(content(dir, &told).ends_with(b"record 104"));
        }
        if done {
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 30, "{deaths}");
}

#[test]
fn a_writer_that_was_followed_by_another_writes_no_more() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let memory = Arc::new(InMemory::new());
    let mut told = Vec::new();
    let mut first = writer(one.path(), memory.clone()).unwrap();
    assert!(work(&mut first, 0, 3, &mut told));
    let mut second = writer(other.path(), memory.clone()).unwrap();
    assert_eq!(second.visible(), told);
    first.append(b"too late").unwrap();
    let why = anyhow::Error::from(first.commit().unwrap_err());
    assert!(format!("{why:#}").contains("another writer took over"), "{why:#}");
    assert!(work(&mut second, 10, 3, &mut told));
    assert!(!String::from_utf8_lossy(&content(other.path(), &told)).contains("too late"));
}

#[test]
fn a_folder_that_was_there_before_goes_into_an_empty_store() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folder = Folder::new(dir.path());
    let disk = mutlog::FolderDisk::new(folder.clone(), mutlog::Lease::take(dir.path()).unwrap());
    let (mut plain, _) = Writer::open(disk, TARGET, 1).unwrap();
    for n in 0..7 {
        plain.append(format!("record {n}").as_bytes()).unwrap();
        plain.commit().unwrap();
    }
    let log = plain.visible();
    drop(plain);
    // Also when the first upload is cut off anywhere.
    for calls in 0..12 {
        let memory = Arc::new(InMemory::new());
        let _ = writer(dir.path(), Arc::new(Dying::new(memory.clone(), calls)));
        let whole = writer(dir.path(), memory.clone()).unwrap();
        assert_eq!(whole.visible(), log, "{calls} calls");
        drop(whole);
        let copied = writer(&copy.path().join(calls.to_string()), memory).unwrap();
        assert_eq!(copied.visible(), log, "{calls} calls");
    }
}

#[test]
fn another_log_and_a_store_that_lost_something_are_refused() {
    let refused = |spoil: &dyn Fn(&Path, &Arc<InMemory>), reason: &str| {
        let dir = tempfile::tempdir().unwrap();
        let memory = Arc::new(InMemory::new());
        let mut told = Vec::new();
        assert!(work(
            &mut writer(dir.path(), memory.clone()).unwrap(),
            0,
            8,
            &mut told
        ));
        spoil(dir.path(), &memory);
        let why = writer(dir.path(), memory).err().expect("it is refused");
        assert!(format!("{why:#}").contains(reason), "{why:#}; wanted: {reason}");
    };
    let objects = |memory: &Arc<InMemory>| Store::new(memory.clone(), "").unwrap().names().unwrap();
    let delete = |memory: &Arc<InMemory>, part: &str| {
        let found = objects(memory);
        let name = found
            .iter()
            .rfind(|name| name.contains(part))
            .expect("there is one");
        Store::new(memory.clone(), "").unwrap().remove(name).unwrap();
    };
    refused(
        &|dir, _| {
            let other = tempfile::tempdir().unwrap();
            let mut told = Vec::new();
            let memory = Arc::new(InMemory::new());
            work(&mut writer(other.path(), memory).unwrap(), 50, 8, &mut told);
            std::fs::remove_dir_all(dir).unwrap();
            std::fs::rename(other.path(), dir).unwrap();
        },
        "another log than the object store's",
    );
    refused(
        &|_, memory| delete(memory, "growing/"),
        "the object store lost the end of segment",
    );
    refused(
        &|_, memory| delete(memory, "0000."),
        "segment 0000 is missing in the object store",
    );
}
