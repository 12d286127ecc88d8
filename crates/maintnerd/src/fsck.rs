use std::fs;

use maintpb::borrowed::{Mutation, View};
use mutlog::{Account, Folder, ListError, SegmentFile, State, Sum, examine};

/// What is in the file of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub file: SegmentFile,
    pub len: u64,
    pub account: Account,
    /// What its content has in place of the sum in its name.
    pub wrong_sum: Option<Sum>,
}

impl Checked {
    pub fn is_good(&self) -> bool {
        self.wrong_sum.is_none() && self.account.faults.is_empty()
    }
}

/// Reads all of a log and tells everything that is wrong with it. Changes nothing, and wants no lease:
/// of a log that is written to, the last record may look torn.
pub fn fsck(folder: &Folder) -> Result<Vec<Checked>, ListError> {
    let is_mutation = |payload: &[u8]| Mutation::decode(payload).map(drop).map_err(|why| why.to_string());
    let check = |file: SegmentFile| {
        let bytes = fs::read(folder.path(&file));
        let bytes = bytes.map_err(|source| ListError::Io {
            dir: folder.path(&file),
            source,
        })?;
        let wrong_sum = match file.state {
            State::Sealed(wanted) => Some(Sum::of(&bytes)).filter(|found| *found != wanted),
            State::Growing => None,
        };
        let account = examine(&bytes, is_mutation);
        Ok(Checked {
            len: bytes.len() as u64,
            file,
            account,
            wrong_sum,
        })
    };
    folder.log()?.into_iter().map(check).collect()
}
