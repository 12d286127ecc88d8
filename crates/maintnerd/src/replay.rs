use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::{io, thread};

use corpus::snapshot::About;
use corpus::{Corpus, Trouble};
use maintpb::Malformed;
use mutlog::{BadRecord, Folder, LogReader, Place, Records, Segment, SegmentNumber, Split};
use tracing::debug;

use crate::snapshot::load_from;

/// A corpus, and how far into the log it has come.
#[derive(Default)]
pub struct Replay {
    corpus: Corpus,
    applied: Vec<Segment>,
    counts: Counts,
    /// Bytes of the log that a snapshot has.
    saved: u64,
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
    let started = load_from(folder)?;
    if let Some(why) = &started.not_used {
        debug!("replayed the whole log: {why}");
    }
    if let Some(why) = &started.not_saved {
        debug!("the next start will take as long as this one: {why}");
    }
    Ok((started.replay, started.reader))
}

/// What [`Counts::troubles`] calls the kinds.
const KINDS: [&str; 7] = [
    "bad commit",
    "ref to an unknown commit",
    "change without a history",
    "no project",
    "no repository",
    "no issue number",
    "no creation time",
];

impl Replay {
    /// What a snapshot says. `None`: it says something that no replay does.
    pub(crate) fn resume(corpus: Corpus, about: About) -> Option<Replay> {
        let mut troubles = BTreeMap::new();
        for (kind, count, one) in about.passed_over {
            let kind = KINDS.iter().find(|known| **known == kind)?;
            troubles.insert(*kind, (count, one));
        }
        let counts = Counts {
            records: about.records,
            bytes: about.bytes,
            troubles,
        };
        Some(Replay {
            corpus,
            applied: about.log,
            saved: counts.bytes,
            counts,
        })
    }

    /// Bytes of the log that were applied since the last snapshot.
    pub fn unsaved(&self) -> u64 {
        self.counts.bytes - self.saved
    }

    pub(crate) fn saved(&mut self) {
        self.saved = self.counts.bytes;
    }

    /// What of the log was applied.
    pub fn applied(&self) -> &[Segment] {
        &self.applied
    }

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
                Trouble::BadCommit { .. } => KINDS[0],
                Trouble::UnknownCommit { .. } => KINDS[1],
                Trouble::NoHistory { .. } => KINDS[2],
                Trouble::NoProject => KINDS[3],
                Trouble::NoRepo => KINDS[4],
                Trouble::NoIssueNumber { .. } => KINDS[5],
                Trouble::NoCreationTime { .. } => KINDS[6],
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

/// Gives all records of a log to `take`, in order.
pub(crate) fn each(
    reader: &LogReader,
    log: &[Segment],
    mut take: impl FnMut(Place, &[u8]) -> Result<(), Malformed>,
) -> Result<(), ReplayError> {
    let mut bytes = Vec::new();
    for segment in log.iter().filter(|segment| segment.len > 0) {
        let piece = read(reader, segment, 0, bytes)?;
        let number = piece.number;
        let mut records = Records::new(&piece.bytes, 0);
        for (offset, payload) in records.by_ref() {
            let at = Place {
                segment: number,
                offset: u32::try_from(offset).expect("a segment is below 4 GiB"),
            };
            take(at, payload).map_err(|source| ReplayError::NoMutation {
                number,
                offset,
                source,
            })?;
        }
        match records.end() {
            Split::End => {}
            Split::Bad(source) => return Err(ReplayError::Damaged { number, source }),
            Split::Short | Split::Record { .. } => {
                let offset = records.offset();
                return Err(ReplayError::Torn { number, offset });
            }
        }
        bytes = piece.bytes;
    }
    Ok(())
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
