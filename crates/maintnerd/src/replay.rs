use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::{fs, io, thread};

use anyhow::Context;
use corpus::{Corpus, Trouble};
use maintpb::Malformed;
use mutlog::{BadRecord, Folder, LogReader, Place, Records, Segment, SegmentNumber, Split, State, Sum};

/// A corpus, and how far into the log it has come.
#[derive(Default)]
pub struct Replay {
    corpus: Corpus,
    applied: Vec<Segment>,
    counts: Counts,
}

/// What was applied so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    pub records: u64,
    pub bytes: u64,
    /// What was passed over: how often each kind, and one of it in words.
    pub troubles: BTreeMap<&'static str, (u64, String)>,
}

/// The log cannot be replayed. Whoever runs it must look.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("cannot read segment {number}")]
    Io {
        number: SegmentNumber,
        source: io::Error,
    },
    #[error("segment {number} is damaged")]
    Damaged {
        number: SegmentNumber,
        source: BadRecord,
    },
    #[error("segment {number} ends inside a record at offset {offset}")]
    Torn { number: SegmentNumber, offset: u64 },
    #[error("the record at offset {offset} of segment {number} is no mutation")]
    NoMutation {
        number: SegmentNumber,
        offset: u64,
        source: Malformed,
    },
}

/// New bytes of a segment.
struct Piece {
    number: SegmentNumber,
    offset: u64,
    bytes: Vec<u8>,
}

/// Replays the log in a folder as far as it is whole, whoever writes it: for looking into it.
pub fn load(folder: &Folder) -> anyhow::Result<(Replay, LogReader)> {
    let mut log = Vec::new();
    for file in folder.log()? {
        let path = folder.path(&file);
        let read = || format!("read `{}`", path.display());
        let (len, sum) = match file.state {
            State::Sealed(sum) => (fs::metadata(&path).with_context(read)?.len(), sum),
            State::Growing => {
                let bytes = fs::read(&path).with_context(read)?;
                let mut records = Records::new(&bytes, 0);
                records.by_ref().for_each(drop);
                let len = records.offset();
                (len, Sum::of(&bytes[..usize::try_from(len)?]))
            }
        };
        log.push(Segment {
            number: file.number,
            len,
            sum,
        });
    }
    let reader = LogReader::new(folder.clone());
    let mut replay = Replay::default();
    replay.advance(&reader, &log)?;
    Ok((replay, reader))
}

impl Replay {
    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Applies what `log` has beyond what was applied before, as one batch. `log` must begin with that.
    /// When it fails, some of it was applied, and the replay is of no more use.
    ///
    /// One thread reads ahead, and each half of the corpus has one that applies.
    pub fn advance(&mut self, reader: &LogReader, log: &[Segment]) -> Result<(), ReplayError> {
        let news: Vec<(Segment, u64)> = log
            .iter()
            .enumerate()
            .map(|(at, segment)| {
                (
                    segment.clone(),
                    self.applied.get(at).map_or(0, |applied| applied.len),
                )
            })
            .filter(|(segment, from)| *from < segment.len)
            .collect();
        let (issues, code) = self.corpus.halves();
        let (of_issues, of_code) = thread::scope(|scope| {
            let (give_back, spare) = mpsc::channel();
            let (to_issues, for_issues) = mpsc::sync_channel::<Arc<Piece>>(1);
            let (to_code, for_code) = mpsc::sync_channel::<Arc<Piece>>(1);
            let reading = scope.spawn(move || {
                for (segment, from) in news {
                    let bytes = spare.try_recv().unwrap_or_default();
                    let piece = Arc::new(read(reader, &segment, from, bytes)?);
                    // A half that ended says why itself.
                    if to_issues.send(piece.clone()).is_err() || to_code.send(piece).is_err() {
                        break;
                    }
                }
                Ok(())
            });
            let back = give_back.clone();
            let of_issues =
                scope.spawn(move || apply(for_issues, back, |at, payload| issues.apply_record(at, payload)));
            let of_code = apply(for_code, give_back, |at, payload| code.apply_record(at, payload));
            let of_issues = of_issues.join().unwrap_or_else(|panic| resume_unwind(panic));
            let read = reading.join().unwrap_or_else(|panic| resume_unwind(panic));
            read.and(of_issues.and_then(|of_issues| Ok((of_issues, of_code?))))
        })?;
        self.counts.records += of_code.records;
        self.counts.bytes += of_code.bytes;
        let troubles = self.corpus.finish();
        self.note(of_issues.troubles);
        self.note(of_code.troubles);
        self.note(troubles);
        self.applied = log.to_vec();
        Ok(())
    }

    fn note(&mut self, troubles: Vec<Trouble>) {
        for trouble in troubles {
            let kind = match &trouble {
                Trouble::BadCommit { .. } => "bad commit",
                Trouble::UnknownCommit { .. } => "ref to an unknown commit",
                Trouble::NoHistory { .. } => "change without a history",
                Trouble::NoProject => "no project",
                Trouble::NoRepo => "no repository",
                Trouble::NoIssueNumber { .. } => "no issue number",
                Trouble::NoCreationTime { .. } => "no creation time",
            };
            let noted = self
                .counts
                .troubles
                .entry(kind)
                .or_insert_with(|| (0, trouble.to_string()));
            noted.0 += 1;
        }
    }
}

#[derive(Default)]
struct Applied {
    records: u64,
    bytes: u64,
    troubles: Vec<Trouble>,
}

/// Applies all records of all pieces, and gives their memory back.
fn apply(
    pieces: Receiver<Arc<Piece>>,
    give_back: Sender<Vec<u8>>,
    mut apply: impl FnMut(Place, &[u8]) -> Result<Vec<Trouble>, Malformed>,
) -> Result<Applied, ReplayError> {
    let mut done = Applied::default();
    for piece in pieces {
        let number = piece.number;
        let mut records = Records::new(&piece.bytes, piece.offset);
        for (offset, payload) in records.by_ref() {
            let at = Place {
                segment: number,
                offset: u32::try_from(offset).expect("a segment is below 4 GiB"),
            };
            let applied = apply(at, payload);
            let no_mutation = |source| ReplayError::NoMutation {
                number,
                offset,
                source,
            };
            done.troubles.extend(applied.map_err(no_mutation)?);
            done.records += 1;
        }
        done.bytes += records.offset() - piece.offset;
        match records.end() {
            Split::End => {}
            Split::Bad(source) => return Err(ReplayError::Damaged { number, source }),
            Split::Short | Split::Record { .. } => {
                let offset = records.offset();
                return Err(ReplayError::Torn { number, offset });
            }
        }
        if let Some(piece) = Arc::into_inner(piece) {
            // The reader has ended if it does not want it.
            let _ = give_back.send(piece.bytes);
        }
    }
    Ok(done)
}

fn read(reader: &LogReader, segment: &Segment, from: u64, mut bytes: Vec<u8>) -> Result<Piece, ReplayError> {
    let number = segment.number;
    let io = |source| ReplayError::Io { number, source };
    let limit = |n: u64| u32::try_from(n).map_err(|_| io(io::ErrorKind::FileTooLarge.into()));
    bytes.resize(limit(segment.len - from)? as usize, 0);
    let at = Place {
        segment: number,
        offset: limit(from)?,
    };
    reader.read_into(at, &mut bytes).map_err(io)?;
    Ok(Piece {
        number,
        offset: from,
        bytes,
    })
}
