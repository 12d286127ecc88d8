use std::collections::BTreeMap;
use std::sync::mpsc;
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

/// The log cannot be replayed. Whoever runs it must look; nothing behind the place was applied.
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
    ///
    /// Reads on a thread of its own, a segment ahead.
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
        thread::scope(|scope| {
            let (send, pieces) = mpsc::sync_channel(1);
            let (give_back, spare) = mpsc::channel::<Vec<u8>>();
            let reader = reader.clone();
            scope.spawn(move || {
                for (segment, from) in news {
                    let bytes = spare.try_recv().unwrap_or_default();
                    if send.send(read(&reader, &segment, from, bytes)).is_err() {
                        return;
                    }
                }
            });
            for piece in pieces {
                let piece = piece?;
                self.apply(&piece)?;
                // The other side has ended if it does not want it.
                let _ = give_back.send(piece.bytes);
            }
            Ok(())
        })?;
        let troubles = self.corpus.finish();
        self.note(troubles);
        self.applied = log.to_vec();
        Ok(())
    }

    fn apply(&mut self, piece: &Piece) -> Result<(), ReplayError> {
        let number = piece.number;
        let mut records = Records::new(&piece.bytes, piece.offset);
        for (offset, payload) in records.by_ref() {
            let at = Place {
                segment: number,
                offset: u32::try_from(offset).expect("a segment is below 4 GiB"),
            };
            let applied = self.corpus.apply_record(at, payload);
            let troubles = applied.map_err(|source| ReplayError::NoMutation {
                number,
                offset,
                source,
            })?;
            self.note(troubles);
            self.counts.records += 1;
        }
        self.counts.bytes += records.offset() - piece.offset;
        match records.end() {
            Split::End => Ok(()),
            Split::Bad(source) => Err(ReplayError::Damaged { number, source }),
            Split::Short | Split::Record { .. } => Err(ReplayError::Torn {
                number,
                offset: records.offset(),
            }),
        }
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
