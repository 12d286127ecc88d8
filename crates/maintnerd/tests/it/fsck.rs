use std::fs;

use maintnerd::{Leader, fsck};
use mutlog::{FaultKind, Folder};

use crate::farm::{append, issue};

#[tokio::test]
async fn a_log_is_checked_whole_and_all_its_damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path());
    let leader = Leader::open_with_target(folder.clone(), 100).unwrap();
    append(&leader, (1..6).map(|number| issue(number, "title")).collect()).await;
    append(&leader, vec![b"\0".to_vec()]).await;
    leader.close().unwrap();
    let files = folder.log().unwrap();
    let whole = fsck(&folder).unwrap();
    assert_eq!(whole.len(), files.len());
    assert!(whole[..whole.len() - 1].iter().all(|checked| checked.is_good()));
    let last = whole.last().unwrap();
    assert!(!last.is_good());
    assert!(
        matches!(last.account.faults[0].kind, FaultKind::BadPayload { .. }),
        "{last:?}"
    );

    let path = folder.path(&files[0]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let damaged = &fsck(&folder).unwrap()[0];
    assert_eq!(
        (damaged.wrong_sum, damaged.account.good_end),
        (Some(mutlog::Sum::of(&bytes)), 0)
    );
}
