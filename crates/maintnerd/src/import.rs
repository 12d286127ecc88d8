use std::path::{Path, PathBuf};
use std::{fs, io};

use maintpb::Malformed;
use maintpb::borrowed::{Mutation, View};
use mutlog::{BadRecord, CommitError, Disk, Folder, Records, Split, TARGET, Writer, day_files};

use crate::leader::open_writer;

/// Bytes between two commits.
const BATCH: usize = 4 << 20;

/// Another log was not taken over, or only a beginning of it.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("cannot read `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{}` is damaged", path.display())]
    Damaged { path: PathBuf, source: BadRecord },
    #[error("`{}` ends inside a record at offset {offset}", path.display())]
    Torn { path: PathBuf, offset: u64 },
    #[error("the record at offset {offset} of `{}` is no mutation", path.display())]
    NoMutation {
        path: PathBuf,
        offset: u64,
        source: Malformed,
    },
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// As [`import`], to the end of the log in a folder, which is made if it is not there.
pub fn import_into(from: &Path, folder: &Folder) -> anyhow::Result<u64> {
    let (mut writer, _) = open_writer(folder, TARGET)?;
    Ok(import(from, &mut writer)?)
}

/// Appends all records that the original's disk logger wrote in `from`. Returns how many. Payloads are
/// taken over as they are.
pub fn import<D: Disk>(from: &Path, into: &mut Writer<D>) -> Result<u64, ImportError> {
    let read = |path: &Path, read: io::Result<Vec<u8>>| {
        read.map_err(|source| ImportError::Io {
            path: path.to_owned(),
            source,
        })
    };
    let files = day_files(from).map_err(|source| ImportError::Io {
        path: from.to_owned(),
        source,
    })?;
    let mut count = 0;
    for path in files {
        let bytes = read(&path, fs::read(&path))?;
        let mut records = Records::new(&bytes, 0);
        for (offset, payload) in records.by_ref() {
            if let Err(source) = Mutation::decode(payload) {
                return Err(ImportError::NoMutation { path, offset, source });
            }
            into.append(payload)
                .expect("a record that was read is not too long");
            count += 1;
            if into.pending() > BATCH {
                into.commit()?;
            }
        }
        match records.end() {
            Split::End => {}
            Split::Bad(source) => return Err(ImportError::Damaged { path, source }),
            Split::Short | Split::Record { .. } => {
                return Err(ImportError::Torn {
                    path,
                    offset: records.offset(),
                });
            }
        }
    }
    into.commit()?;
    Ok(count)
}
