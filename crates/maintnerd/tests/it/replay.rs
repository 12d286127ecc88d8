use std::sync::Arc;

use maintnerd::{Leader, Replay, ReplayError};
use mutlog::{Folder, LogReader, Segment, SegmentNumber, Sum};

use crate::farm::{append, issue};

fn visible(leader: &Leader) -> Arc<[Segment]> {
    leader.visible.borrow().clone().unwrap()
}

#[tokio::test]
async fn only_what_is_new_is_applied_and_what_is_odd_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let leader = Leader::open_with_target(Folder::new(dir.path()), 100).unwrap();
    let mut replay = Replay::default();
    append(
        &leader,
        vec![issue(1, "a"), issue(2, "b"), issue(3, "c"), issue(0, "odd")],
    )
    .await;
    replay.advance(&leader.reader, &visible(&leader)).unwrap();
    append(&leader, vec![issue(1, "d"), issue(0, "odd")]).await;
    replay.advance(&leader.reader, &visible(&leader)).unwrap();
    replay.advance(&leader.reader, &visible(&leader)).unwrap();
    let bytes: u64 = visible(&leader).iter().map(|segment| segment.len).sum();
    assert_eq!((replay.counts().records, replay.counts().bytes), (6, bytes));
    let troubles: Vec<_> = replay.counts().troubles.iter().collect();
    assert_eq!(
        troubles,
        [(
            &"no issue number",
            &(2, "a mutation of an issue has the number 0".to_owned())
        )]
    );
    assert_eq!(
        &*replay
            .corpus()
            .repo("golang", "go")
            .unwrap()
            .issue(1)
            .unwrap()
            .title,
        "d"
    );
}

#[test]
fn a_log_that_cannot_be_replayed_is_told_with_the_place() {
    let check = |bytes: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("0000.growing.mutlog"), bytes).unwrap();
        let segment = Segment {
            number: SegmentNumber(0),
            len: bytes.len() as u64,
            sum: Sum::of(bytes),
        };
        Replay::default()
            .advance(&LogReader::new(Folder::new(dir.path())), &[segment])
            .unwrap_err()
    };
    assert!(matches!(check(b"REC@0+1="), ReplayError::Torn { offset: 0, .. }));
    assert!(matches!(check(b"REC@0+0=REC@0+0="), ReplayError::Damaged { .. }));
    assert!(matches!(
        check(b"REC@0+1=\0"),
        ReplayError::NoMutation { offset: 8, .. }
    ));
}
