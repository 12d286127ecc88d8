use std::collections::BTreeMap;
use std::fmt;
use std::io;

use crate::account::frame;
use crate::disk::Disk;
use crate::folder::{ListError, SegmentFile, State, log_of};
use crate::place::{Place, Segment, SegmentNumber, Sum, Summer};
use crate::record::{BadRecord, MAX_PAYLOAD, Records, Split, put};

/// A segment is sealed before a record that would take it over this length.
///
/// Source: golang/build `maintner/maintnerd/gcslog/gcslog.go`.
pub const TARGET: u64 = 16 << 20;

/// The file that names the sealed segments whose sum was compared, and how they looked then.
const VERIFIED: &str = "verified";

/// The file that tells, a line for each commit, how far the growing segment is durable: `NNNN LENGTH
/// SUM`. What stands behind the last line was shown to nobody; what stands before it must be there.
const DURABLE: &str = "durable";

/// Appends to a log. The one writer of its folder.
///
/// What is appended is nothing yet; a [`Writer::commit`] makes it durable, and [`Writer::visible`]
/// then tells of it. After a commit that failed nobody knows what the disk holds: the writer takes
/// no more, and opening the log anew finds out.
pub struct Writer<D> {
    disk: D,
    sealed: Vec<Segment>,
    growing: SegmentNumber,
    /// Of the growing segment as far as it is durable.
    durable: Summer,
    /// What is to come: the rest of the growing segment, then whole segments after it.
    pending: Vec<Vec<u8>>,
    target: u64,
    failed: bool,
}

/// What a writer that died left behind its last whole record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    pub segment: SegmentNumber,
    /// Where the whole records end, and the segment does now.
    pub offset: u64,
    /// Bytes that were cut off.
    pub len: u64,
    /// The file they are kept in.
    pub kept: String,
}

/// The log cannot be written to. Whoever runs it must look.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    List(#[from] ListError),
    #[error("cannot {action} `{name}`")]
    Io {
        action: &'static str,
        name: String,
        source: io::Error,
    },
    #[error("segment {number} is damaged at offset {offset}: its content is {found}, and was {wanted}")]
    Damaged {
        number: SegmentNumber,
        offset: u64,
        found: Sum,
        wanted: Sum,
    },
    #[error("segment {number} is damaged amid its records")]
    DamagedAmid {
        number: SegmentNumber,
        source: BadRecord,
    },
}

/// The writer takes no more; open the log anew.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("cannot {action} segment {number}")]
    Io {
        action: &'static str,
        number: SegmentNumber,
        source: io::Error,
    },
    #[error("an earlier commit failed")]
    Failed,
}

/// More than [`MAX_PAYLOAD`] bytes: no reader would take it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a mutation of {0} bytes is over the limit of {MAX_PAYLOAD}")]
pub struct TooLong(pub usize);

impl<D: Disk> Writer<D> {
    /// Opens the log, or begins it. `target`: [`TARGET`] but in tests. `now`: unix seconds, for the
    /// name of what is cut off.
    pub fn open(mut disk: D, target: u64, now: u64) -> Result<(Writer<D>, Option<Torn>), OpenError> {
        let names = disk
            .names()
            .map_err(|source| failure("list", "the log", source))?;
        let mut files = log_of(names.iter().map(String::as_str))?;
        let last = files.pop_if(|file| file.state == State::Growing);
        let sealed = verify(&mut disk, &files)?;
        let growing = SegmentNumber(u32::try_from(sealed.len()).expect("numbers are 32 bits"));
        let (durable, torn) = match last {
            Some(file) => recover(&mut disk, &file, now)?,
            None => (Summer::default(), None),
        };
        let line = match durable.is_empty() {
            true => String::new(),
            false => durable_line(growing, &durable),
        };
        disk.replace(DURABLE, line.as_bytes())
            .map_err(|source| failure("write", DURABLE, source))?;
        let writer = Writer {
            disk,
            sealed,
            growing,
            durable,
            pending: vec![Vec::new()],
            target,
            failed: false,
        };
        Ok((writer, torn))
    }

    /// Takes a record in. Says where its payload will stand once it is committed.
    pub fn append(&mut self, payload: &[u8]) -> Result<Place, TooLong> {
        if payload.len() > MAX_PAYLOAD {
            return Err(TooLong(payload.len()));
        }
        let len = self.last_len();
        if len > 0 && len + payload.len() as u64 > self.target {
            self.pending.push(Vec::new());
        }
        let offset = self.last_len();
        let segment = self.pending.last_mut().expect("never empty");
        put(segment, offset, payload);
        let end = u32::try_from(self.last_len()).expect("a segment is below the target, or one record");
        let place = Place {
            segment: SegmentNumber(self.growing.0 + u32::try_from(self.pending.len()).expect("few") - 1),
            offset: end - u32::try_from(payload.len()).expect("checked above"),
        };
        Ok(place)
    }

    /// Bytes that wait for the next commit.
    pub fn pending(&self) -> usize {
        self.pending.iter().map(Vec::len).sum()
    }

    /// Makes durable, and visible, all that was appended.
    pub fn commit(&mut self) -> Result<(), CommitError> {
        self.guarded(|writer| {
            let mut pending = std::mem::replace(&mut writer.pending, vec![Vec::new()]).into_iter();
            writer.extend(&pending.next().expect("never empty"))?;
            for segment in pending {
                writer.seal()?;
                writer.extend(&segment)?;
            }
            Ok(())
        })
    }

    /// Where a copy of another log goes on: the segment that grows, and its length.
    pub fn end(&self) -> (SegmentNumber, u64) {
        (self.growing, self.durable.len())
    }

    /// For a copy of another log: takes in the next bytes of the segment that grows, if it then has the
    /// sum that the other says. Nothing is written if not. Not to be mixed with [`Writer::append`].
    pub fn copy(&mut self, bytes: &[u8], wanted: Sum) -> Result<bool, CommitError> {
        let mut next = self.durable.clone();
        next.add(bytes);
        if next.sum() != wanted {
            return Ok(false);
        }
        self.guarded(|writer| writer.extend(bytes))?;
        Ok(true)
    }

    /// For a copy of another log: the segment that grew is whole, unless there is none.
    pub fn seal_copy(&mut self) -> Result<(), CommitError> {
        match self.durable.is_empty() {
            true => Ok(()),
            false => self.guarded(Writer::seal),
        }
    }

    /// For a copy of another log that is not any more what it was: drops `first` and all after it.
    pub fn drop_from(&mut self, first: SegmentNumber) -> Result<(), CommitError> {
        self.guarded(|writer| {
            let dropped = |source| CommitError::Io {
                action: "drop",
                number: first,
                source,
            };
            writer.disk.replace(DURABLE, b"").map_err(dropped)?;
            // From the last on, so that what is left is a log whenever the process dies.
            while writer.growing >= first {
                let number = writer.growing;
                let state = match writer.sealed.get(number.0 as usize) {
                    Some(segment) => State::Sealed(segment.sum),
                    None => State::Growing,
                };
                writer
                    .disk
                    .remove(&SegmentFile { number, state }.to_string())
                    .map_err(dropped)?;
                writer.sealed.truncate(number.0 as usize);
                writer.durable = Summer::default();
                match number.0.checked_sub(1) {
                    Some(before) if number > first => writer.growing = SegmentNumber(before),
                    _ => break,
                }
            }
            Ok(())
        })
    }

    /// The log as far as it is durable: what readers may be told of.
    pub fn visible(&self) -> Vec<Segment> {
        let mut segments = self.sealed.clone();
        if !self.durable.is_empty() {
            segments.push(Segment {
                number: self.growing,
                len: self.durable.len(),
                sum: self.durable.sum(),
            });
        }
        segments
    }

    fn guarded(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(CommitError::Failed);
        }
        work(self)?;
        self.failed = false;
        Ok(())
    }

    /// Of the last segment, all that is to come included.
    fn last_len(&self) -> u64 {
        let before = if self.pending.len() == 1 {
            self.durable.len()
        } else {
            0
        };
        before + self.pending.last().map_or(0, |segment| segment.len() as u64)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), CommitError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let number = self.growing;
        let name = SegmentFile {
            number,
            state: State::Growing,
        }
        .to_string();
        let io = |action| {
            move |source| CommitError::Io {
                action,
                number,
                source,
            }
        };
        self.disk.append(&name, bytes).map_err(io("append to"))?;
        self.disk.sync(&name).map_err(io("sync"))?;
        self.durable.add(bytes);
        let line = durable_line(number, &self.durable);
        self.disk
            .append(DURABLE, line.as_bytes())
            .map_err(io("note the end of"))?;
        self.disk.sync(DURABLE).map_err(io("note the end of"))
    }

    fn seal(&mut self) -> Result<(), CommitError> {
        let (number, sum) = (self.growing, self.durable.sum());
        let from = SegmentFile {
            number,
            state: State::Growing,
        }
        .to_string();
        let to = SegmentFile {
            number,
            state: State::Sealed(sum),
        }
        .to_string();
        self.disk.rename(&from, &to).map_err(|source| CommitError::Io {
            action: "seal",
            number,
            source,
        })?;
        self.sealed.push(Segment {
            number,
            len: self.durable.len(),
            sum,
        });
        self.growing = number.next();
        self.durable = Summer::default();
        Ok(())
    }
}

/// Compares each sealed segment with its name, once as long as it is not touched.
fn verify(disk: &mut impl Disk, files: &[SegmentFile]) -> Result<Vec<Segment>, OpenError> {
    let known = read_if_there(disk, VERIFIED)?.unwrap_or_default();
    let known = String::from_utf8_lossy(&known);
    let known: BTreeMap<&str, &str> = known.lines().filter_map(|line| line.split_once(' ')).collect();
    let mut seen = String::new();
    let mut all_known = true;
    let mut segments = Vec::new();
    for file in files {
        let State::Sealed(wanted) = file.state else {
            unreachable!("only the last is growing, and it was taken off")
        };
        let (name, number) = (file.to_string(), file.number);
        let stamp = disk
            .stamp(&name)
            .map_err(|source| failure("look at", &name, source))?;
        let len = if known.get(name.as_str()) == Some(&stamp.as_str()) {
            stamp
                .split(' ')
                .next()
                .and_then(|len| len.parse().ok())
                .unwrap_or(0)
        } else {
            all_known = false;
            let bytes = disk
                .read(&name)
                .map_err(|source| failure("read", &name, source))?;
            let found = Sum::of(&bytes);
            if found != wanted {
                let mut records = Records::new(&bytes, 0);
                records.by_ref().for_each(drop);
                let offset = records.offset();
                return Err(OpenError::Damaged {
                    number,
                    offset,
                    found,
                    wanted,
                });
            }
            bytes.len() as u64
        };
        seen.push_str(&format!("{name} {stamp}\n"));
        segments.push(Segment {
            number,
            len,
            sum: wanted,
        });
    }
    if !all_known {
        disk.replace(VERIFIED, seen.as_bytes())
            .map_err(|source| failure("write", VERIFIED, source))?;
    }
    Ok(segments)
}

/// Cuts the growing segment back to what is known to be durable.
fn recover(disk: &mut impl Disk, file: &SegmentFile, now: u64) -> Result<(Summer, Option<Torn>), OpenError> {
    let name = file.to_string();
    let bytes = disk
        .read(&name)
        .map_err(|source| failure("read", &name, source))?;
    let mut summer = Summer::default();
    let good = match read_if_there(disk, DURABLE)? {
        Some(lines) => durable_len(&lines, file.number, &bytes)?,
        None => whole_len(file.number, &bytes)?,
    };
    summer.add(&bytes[..good]);
    let rest = &bytes[good..];
    let torn = if rest.is_empty() {
        None
    } else {
        let kept = format!("{}.torn-{now}.bin", file.number);
        disk.replace(&kept, rest)
            .map_err(|source| failure("keep what is torn in", &kept, source))?;
        disk.truncate(&name, good as u64)
            .map_err(|source| failure("cut", &name, source))?;
        Some(Torn {
            segment: file.number,
            offset: good as u64,
            len: rest.len() as u64,
            kept,
        })
    };
    Ok((summer, torn))
}

/// By the notes of the commits.
fn durable_len(lines: &[u8], number: SegmentNumber, bytes: &[u8]) -> Result<usize, OpenError> {
    let lines = String::from_utf8_lossy(lines);
    let parse = |line: &str| {
        let mut words = line.strip_suffix('\n')?.split(' ');
        let (of, len, sum) = (words.next()?, words.next()?, words.next()?);
        let len: usize = len.parse().ok()?;
        Some((len, sum.parse::<Sum>().ok()?)).filter(|_| of == number.to_string())
    };
    let Some((len, wanted)) = lines.split_inclusive('\n').filter_map(parse).next_back() else {
        return Ok(0);
    };
    let held = bytes.get(..len).unwrap_or(bytes);
    let found = Sum::of(held);
    if found == wanted {
        return Ok(len);
    }
    let mut records = Records::new(held, 0);
    records.by_ref().for_each(drop);
    let offset = records.offset();
    Err(OpenError::Damaged {
        number,
        offset,
        found,
        wanted,
    })
}

/// Of a folder that no writer had before: up to the first thing that is no record. That is torn only
/// if nothing good follows; else it is damage that a person must see.
fn whole_len(number: SegmentNumber, bytes: &[u8]) -> Result<usize, OpenError> {
    let mut records = Records::new(bytes, 0);
    records.by_ref().for_each(drop);
    let good = usize::try_from(records.offset()).expect("within what was read");
    match records.end() {
        Split::Bad(source) if follows(&bytes[good..], records.offset()) => {
            Err(OpenError::DamagedAmid { number, source })
        }
        _ => Ok(good),
    }
}

fn durable_line(number: SegmentNumber, durable: &Summer) -> String {
    format!("{number} {} {}\n", durable.len(), durable.sum())
}

fn read_if_there(disk: &impl Disk, name: &'static str) -> Result<Option<Vec<u8>>, OpenError> {
    match disk.read(name) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failure("read", name, error)),
    }
}

/// Whether a whole record stands in its own place anywhere in `rest`.
fn follows(rest: &[u8], offset: u64) -> bool {
    (0..rest.len()).any(|at| {
        rest[at..].starts_with(b"REC@")
            && frame(&rest[at..]).is_some_and(|(says, ..)| says == offset + at as u64)
    })
}

fn failure(action: &'static str, name: &str, source: io::Error) -> OpenError {
    OpenError::Io {
        action,
        name: name.to_owned(),
        source,
    }
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "segment {} ended inside a record: cut {} bytes at offset {}, kept in `{}`",
            self.segment, self.len, self.offset, self.kept
        )
    }
}
