//! What a log was when it was finished, so that one that is not so any more is not shown as if it were.
//!
//! Beside the files of a finished log is its seal: for each file its place in the stream, its length, and a digest of
//! each MiB of it. It is written once the log is durable, and not synced: a seal that a loss of power took is none.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::SystemTime;

use ids::StepId;
use sha2::{Digest, Sha256};

use crate::layout::{self, Layout, Segment};

/// The first line of a seal.
const FORMAT: &str = "burrow log seal 1";

const BLOCK: u64 = 1 << 20;

/// Of a file longer than twice this its beginning and its end are compared, so that a look stays quick. Blocks.
const COMPARED: usize = 64;

/// Whether a log is what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seal {
    /// There is none: the log is not finished, or from before there were seals.
    None,
    Whole,
    /// What differs, for people.
    Broken(String),
}

/// By which a log that was looked at is known to be unchanged since.
pub(crate) type Stamp = Vec<(u64, u64, Option<SystemTime>)>;

pub(crate) fn stamp(dir: &Path, step: StepId) -> io::Result<Stamp> {
    let segments = Layout::find(dir, step)?.segments;
    let one = |segment: &Segment| {
        let meta = fs::metadata(layout::file(dir, step, segment.start));
        (
            segment.start,
            segment.len,
            meta.and_then(|meta| meta.modified()).ok(),
        )
    };
    let mut stamp: Stamp = segments.iter().map(one).collect();
    let seal = fs::metadata(layout::seal(dir, step)).ok();
    stamp.push((
        0,
        seal.as_ref().map_or(0, |seal| seal.len()),
        seal.and_then(|seal| seal.modified().ok()),
    ));
    Ok(stamp)
}

pub(crate) fn write(dir: &Path, step: StepId) -> io::Result<()> {
    let mut text = format!("{FORMAT}\n");
    for segment in Layout::find(dir, step)?.segments {
        let _ = write!(text, "{} {}", segment.start, segment.len);
        let mut file = File::open(layout::file(dir, step, segment.start))?;
        let mut left = segment.len;
        while left > 0 {
            let _ = write!(text, " {}", digest(&mut file, left.min(BLOCK))?);
            left -= left.min(BLOCK);
        }
        text.push('\n');
    }
    let path = layout::seal(dir, step);
    let temporary = path.with_extension("seal.tmp");
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

pub(crate) fn check(dir: &Path, step: StepId) -> io::Result<Seal> {
    let text = match fs::read(layout::seal(dir, step)) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Seal::None),
        text => text?,
    };
    let Some(sealed) = std::str::from_utf8(&text).ok().and_then(parse) else {
        // Torn by a loss of power, as a rule: it says nothing of the log.
        return Ok(Seal::None);
    };
    let there = Layout::find(dir, step)?.segments;
    let was: Vec<Segment> = sealed.iter().map(|(segment, _)| segment.clone()).collect();
    if there != was {
        let bytes = |all: &[Segment]| all.iter().map(|segment| segment.len).sum::<u64>();
        return Ok(Seal::Broken(format!(
            "it has {} bytes in {} files, and was {} bytes in {}",
            bytes(&there),
            there.len(),
            bytes(&was),
            was.len()
        )));
    }
    for (segment, digests) in sealed {
        let mut file = File::open(layout::file(dir, step, segment.start))?;
        for (n, wanted) in digests.iter().enumerate() {
            if n >= COMPARED && n + COMPARED < digests.len() {
                continue;
            }
            let from = n as u64 * BLOCK;
            file.seek(SeekFrom::Start(from))?;
            let len = (segment.len - from).min(BLOCK);
            if digest(&mut file, len)? != *wanted {
                let (from, to) = (segment.start + from, segment.start + from + len);
                return Ok(Seal::Broken(format!(
                    "what it has of bytes {from} to {to} of the output is not what was written"
                )));
            }
        }
    }
    Ok(Seal::Whole)
}

/// `None`: it is not whole.
fn parse(text: &str) -> Option<Vec<(Segment, Vec<String>)>> {
    let rest = text.strip_suffix('\n')?.strip_prefix(FORMAT)?;
    let mut sealed = Vec::new();
    for line in rest.lines().skip(1) {
        let mut words = line.split(' ');
        let start = words.next()?.parse().ok()?;
        let len: u64 = words.next()?.parse().ok()?;
        let digests: Vec<String> = words.map(str::to_owned).collect();
        if digests.len() as u64 != len.div_ceil(BLOCK) || digests.iter().any(|one| one.len() != 32) {
            return None;
        }
        sealed.push((Segment { start, len }, digests));
    }
    Some(sealed)
}

/// 128 bits of a SHA-256, in hex: against accidents, not against forgers, who could write the seal as well.
fn digest(file: &mut File, len: u64) -> io::Result<String> {
    let mut block = Vec::with_capacity(len as usize);
    file.take(len).read_to_end(&mut block)?;
    let digest = Sha256::digest(&block);
    Ok(digest[..16].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
