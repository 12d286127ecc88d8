use std::fs;

use maintnerd::{ImportError, import};
use mutlog::{Folder, FolderDisk, Lease, TARGET, Writer};

use crate::farm::{FIRST, SECOND, contents};

/// What comes of taking over these daily files.
fn check(files: &[(&str, &[u8])]) -> Result<(u64, Vec<Vec<u8>>), ImportError> {
    let dirs = tempfile::tempdir().unwrap();
    let (from, to) = (dirs.path().join("from"), dirs.path().join("to"));
    fs::create_dir(&from).unwrap();
    for (name, bytes) in files {
        fs::write(from.join(name), bytes).unwrap();
    }
    let disk = FolderDisk::new(Folder::new(&to), Lease::take(&to).unwrap());
    let (mut writer, _) = Writer::open(disk, TARGET, 1).unwrap();
    let count = import(&from, &mut writer)?;
    Ok((count, contents(&to)))
}

fn record(payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::new();
    mutlog::put(&mut record, 0, payload);
    record
}

#[test]
fn daily_files_become_one_log_in_their_order() {
    let (count, log) = check(&[
        ("maintner-2018-06-02.mutlog", &record(SECOND)),
        ("maintner-2018-06-01.mutlog", &record(FIRST)),
    ])
    .unwrap();
    let mut whole = record(FIRST);
    mutlog::put(&mut whole, 43, SECOND);
    assert_eq!((count, log), (2, vec![whole]));
}

#[test]
fn a_damaged_file_is_told_with_its_place() {
    let check = |bytes: &[u8]| check(&[("maintner-2018-06-01.mutlog", bytes)]).unwrap_err();
    assert!(matches!(
        check(&record(FIRST)[..20]),
        ImportError::Torn { offset: 0, .. }
    ));
    assert!(matches!(check(b"REC@1+1=x"), ImportError::Damaged { .. }));
    assert!(matches!(
        check(&record(b"\0")),
        ImportError::NoMutation { offset: 8, .. }
    ));
}
