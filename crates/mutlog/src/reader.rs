use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::folder::{Folder, SegmentFile, State};
use crate::place::{Place, SegmentNumber, Span};
use crate::record::MAX_PAYLOAD;

/// Reads the segments of a folder while they are written to. Cheap to clone.
///
/// Knows nothing of what is durable: ask it only for what the writer has made visible.
#[derive(Clone)]
pub struct LogReader {
    folder: Folder,
    /// Sealing renames a file; an open one goes on.
    files: Arc<Mutex<BTreeMap<SegmentNumber, Arc<File>>>>,
}

impl LogReader {
    pub fn new(folder: Folder) -> LogReader {
        LogReader {
            folder,
            files: Arc::default(),
        }
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Fails for more than any record has, before it takes room.
    pub fn read(&self, span: Span) -> io::Result<Vec<u8>> {
        if span.len as usize > MAX_PAYLOAD {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut bytes = vec![0; span.len as usize];
        self.read_into(span.at, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from `at`; a segment that ends before is an error.
    pub fn read_into(&self, at: Place, bytes: &mut [u8]) -> io::Result<()> {
        self.file(at.segment)?.read_exact_at(bytes, u64::from(at.offset))
    }

    /// Opens all files anew, those of all clones too: the log is not any more what it was.
    pub fn forget(&self) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn file(&self, number: SegmentNumber) -> io::Result<Arc<File>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(&number) {
            return Ok(file.clone());
        }
        let file = Arc::new(self.open(number)?);
        files.insert(number, file.clone());
        Ok(file)
    }

    fn open(&self, number: SegmentNumber) -> io::Result<File> {
        let growing = SegmentFile {
            number,
            state: State::Growing,
        };
        match File::open(self.folder.path(&growing)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        let names = self.folder.names()?;
        let sealed = names.iter().filter_map(|name| SegmentFile::parse(name));
        match sealed.into_iter().find(|file| file.number == number) {
            Some(file) => File::open(self.folder.path(&file)),
            None => Err(ErrorKind::NotFound.into()),
        }
    }
}
