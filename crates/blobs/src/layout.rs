use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ids::{AttemptId, StepId};

/// One file of a log: `2-0.log` begins with the stream, `2-0.log.4096` at byte 4096 of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where in the step's output it begins, in bytes.
    pub start: u64,
    pub len: u64,
}

impl Segment {
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// The files of one log in order of their place in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    pub segments: Vec<Segment>,
}

enum Piece {
    Mark(Vec<u8>),
    Segment(Segment),
}

/// `dir/<build / 1000>/<build>`
pub(crate) fn folder(dir: &Path, step: StepId) -> PathBuf {
    let build = step.attempt.build.0;
    dir.join((build / 1000).to_string()).join(build.to_string())
}

pub(crate) fn file(dir: &Path, step: StepId, start: u64) -> PathBuf {
    let name = format!("{}-{}.log", step.attempt.n, step.index);
    folder(dir, step).join(if start == 0 {
        name
    } else {
        format!("{name}.{start}")
    })
}

/// What a finished log must be.
pub(crate) fn seal(dir: &Path, step: StepId) -> PathBuf {
    folder(dir, step).join(format!("{}-{}.seal", step.attempt.n, step.index))
}

/// What is to be said of an attempt besides what it printed.
pub(crate) fn notes(dir: &Path, attempt: AttemptId) -> PathBuf {
    let step = StepId { attempt, index: 0 };
    folder(dir, step).join(format!("{}-notes", attempt.n))
}

impl Layout {
    /// Empty when there is no such log.
    pub fn find(dir: &Path, step: StepId) -> io::Result<Layout> {
        let name = format!("{}-{}.log", step.attempt.n, step.index);
        let entries = match fs::read_dir(folder(dir, step)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Layout::default()),
            entries => entries?,
        };
        let mut segments = Vec::new();
        for entry in entries {
            let entry = entry?;
            let found = entry.file_name();
            let Some(rest) = found.to_str().and_then(|found| found.strip_prefix(&name)) else {
                continue;
            };
            let start = match rest.strip_prefix('.').map(str::parse) {
                None if rest.is_empty() => 0,
                Some(Ok(start)) => start,
                _ => continue,
            };
            match entry.metadata() {
                Ok(file) => segments.push(Segment {
                    start,
                    len: file.len(),
                }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        segments.sort_by_key(|segment| segment.start);
        Ok(Layout { segments })
    }

    /// Length of the joined text.
    pub fn text_len(&self) -> u64 {
        self.pieces().iter().map(Piece::len).sum()
    }

    /// Of the joined text, at most `len` bytes from `offset`.
    pub fn read(&self, dir: &Path, step: StepId, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(len.min(self.text_len().saturating_sub(offset) as usize));
        let mut at = 0;
        for piece in self.pieces() {
            let wanted = len - text.len();
            let from = offset.max(at) - at;
            let there = piece.len().saturating_sub(from).min(wanted as u64);
            if wanted == 0 {
                break;
            }
            if there > 0 {
                match &piece {
                    Piece::Mark(mark) => text.extend(&mark[from as usize..(from + there) as usize]),
                    Piece::Segment(segment) => {
                        let mut file = File::open(file(dir, step, segment.start))?;
                        file.seek(SeekFrom::Start(from))?;
                        file.take(there).read_to_end(&mut text)?;
                    }
                }
            }
            at += piece.len();
        }
        Ok(text)
    }

    fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut end = 0;
        for segment in &self.segments {
            if segment.start > end {
                let gap = segment.start - end;
                pieces.push(Piece::Mark(
                    format!("\n[burrow: {gap} bytes left out here]\n").into_bytes(),
                ));
            }
            end = segment.end();
            pieces.push(Piece::Segment(segment.clone()));
        }
        pieces
    }
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Piece::Mark(mark) => mark.len() as u64,
            Piece::Segment(segment) => segment.len,
        }
    }
}
