//! The disk keeps what was synced, and of the rest any beginning: each place where power can go is
//! tried.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::rc::Rc;

use mutlog::{Disk, Records, Segment, Writer};
use proptest::prelude::*;

#[derive(Default, Clone)]
struct Bytes {
    synced: Vec<u8>,
    unsynced: Vec<u8>,
    /// Whether the folder holds the file for certain.
    held: bool,
}

#[derive(Default, Clone)]
struct State {
    files: BTreeMap<String, Bytes>,
    /// Operations until the power goes.
    left: usize,
}

#[derive(Clone)]
struct FrailDisk(Rc<RefCell<State>>);

impl FrailDisk {
    fn new(left: usize) -> FrailDisk {
        FrailDisk(Rc::new(RefCell::new(State {
            left,
            ..State::default()
        })))
    }

    /// Runs one operation, or fails if the power goes before it.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.borrow_mut();
        match state.left {
            0 => Err(io::Error::other("no power")),
            _ => {
                state.left -= 1;
                work(&mut state)
            }
        }
    }

    /// The disk when power is back, for `left` operations more. `kept` of 256 parts of what was not
    /// synced was written all the same, `garbage` in place of the rest of it.
    fn after_power_loss(&self, kept: usize, garbage: bool, left: usize) -> FrailDisk {
        let mut state = self.0.borrow().clone();
        state.left = left;
        state.files.retain(|_, file| file.held || kept > 0);
        for file in state.files.values_mut() {
            let unsynced = std::mem::take(&mut file.unsynced);
            let keep = unsynced.len() * kept / 256;
            file.synced.extend_from_slice(&unsynced[..keep]);
            if garbage {
                file.synced.resize(file.synced.len() + unsynced.len() - keep, 0);
            }
            file.held = true;
        }
        FrailDisk(Rc::new(RefCell::new(state)))
    }
}

impl Disk for FrailDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        self.with(|state| Ok(state.files.keys().cloned().collect()))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.with(|state| {
            let file = state.files.get(name).ok_or(ErrorKind::NotFound)?;
            Ok([&file.synced[..], &file.unsynced[..]].concat())
        })
    }

    fn stamp(&self, name: &str) -> io::Result<String> {
        Ok(format!("{} 0", self.read(name)?.len()))
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        // Two operations: the power may go in the middle of a write.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for half in [first, second] {
            self.with(|state| {
                state
                    .files
                    .entry(name.to_owned())
                    .or_default()
                    .unsynced
                    .extend_from_slice(half);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.with(|state| {
            let file = state.files.get_mut(name).ok_or(ErrorKind::NotFound)?;
            let unsynced = std::mem::take(&mut file.unsynced);
            file.synced.extend(unsynced);
            file.held = true;
            Ok(())
        })
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.with(|state| {
            let file = state.files.get_mut(name).ok_or(ErrorKind::NotFound)?;
            file.synced.truncate(usize::try_from(len).unwrap());
            Ok(())
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.with(|state| {
            let file = state.files.remove(from).ok_or(ErrorKind::NotFound)?;
            state.files.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.with(|state| {
            state.files.remove(name);
            Ok(())
        })
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.with(|state| {
            let file = Bytes {
                synced: bytes.to_vec(),
                unsynced: Vec::new(),
                held: true,
            };
            state.files.insert(name.to_owned(), file);
            Ok(())
        })
    }
}

const TARGET: u64 = 60;

fn payload(n: usize) -> Vec<u8> {
    format!("{n} ").repeat(1 + n * 7 % 11).into_bytes()
}

/// Opens the log, appends records numbered from the number it holds on, commits every third, until
/// there are `total`. Returns how many were committed for certain, and what was visible then.
fn write(disk: FrailDisk, total: usize) -> (usize, Vec<Segment>) {
    let Ok((mut writer, _)) = Writer::open(disk.clone(), TARGET, 1) else {
        return (0, Vec::new());
    };
    let mut sure = (count(&disk), writer.visible());
    for n in sure.0..total {
        writer.append(&payload(n)).unwrap();
        if n % 3 == 2 || n + 1 == total {
            if writer.commit().is_err() {
                break;
            }
            sure = (n + 1, writer.visible());
        }
    }
    sure
}

/// Records on the disk, all of which must be the ones that were appended, in their order.
fn count(disk: &FrailDisk) -> usize {
    let state = disk.0.borrow();
    let segments = state.files.iter().filter(|(name, _)| name.ends_with(".mutlog"));
    let mut n = 0;
    for (_, file) in segments {
        for (_, found) in Records::new(&file.synced, 0) {
            assert_eq!(found, payload(n), "record {n}");
            n += 1;
        }
    }
    n
}

/// What was visible may have grown since, but is not changed.
fn check_extends(before: &[Segment], after: &[Segment], disk: &FrailDisk) {
    for (n, old) in before.iter().enumerate() {
        let new = &after[n];
        assert!(
            new.len >= old.len && (n + 1 == before.len() || new == old),
            "segment {n} shrank"
        );
        let state = disk.0.borrow();
        let file = state
            .files
            .iter()
            .find(|(name, _)| name.starts_with(&format!("{n:04}.")));
        let bytes = &file.unwrap().1.synced[..usize::try_from(old.len).unwrap()];
        assert_eq!(mutlog::Sum::of(bytes), old.sum);
    }
}

/// Loses power after `first` operations, then `second` operations into the recovery.
fn check(first: usize, second: usize, kept: usize, garbage: bool) -> bool {
    let disk = FrailDisk::new(first);
    let (sure, visible) = write(disk.clone(), 20);
    if disk.0.borrow().left > 0 {
        return false;
    }
    let disk = disk.after_power_loss(kept, garbage, second);
    let _ = Writer::open(disk.clone(), TARGET, 1);
    let disk = disk.after_power_loss(kept, garbage, usize::MAX);
    let (mut writer, _) = Writer::open(disk.clone(), TARGET, 2).expect("a log always opens after power loss");
    let found = count(&disk);
    assert!(found >= sure, "{sure} records were durable, {found} are there");
    check_extends(&visible, &writer.visible(), &disk);
    for n in found..20 {
        writer.append(&payload(n)).unwrap();
    }
    writer.commit().unwrap();
    assert_eq!(count(&disk), 20);
    true
}

#[test]
fn power_loss_at_any_point_loses_nothing_that_was_durable() {
    for kept in [0, 1, 100, 200, 256] {
        for garbage in [false, true] {
            let mut first = 0;
            while check(first, usize::MAX, kept, garbage) {
                first += 1;
            }
            assert!(first > 40, "the workload has {first} operations");
        }
    }
}

proptest! {
    #[test]
    fn power_loss_during_recovery_is_recovered_from(first in 0..80_usize, second in 0..12_usize, kept in 0..=256_usize, garbage: bool) {
        check(first, second, kept, garbage);
    }
}
