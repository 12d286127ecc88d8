use std::io;
use std::path::Path;

use ids::StepId;

use crate::layout::Layout;
use crate::{LogError, LogStore};

/// A place is kept for every so many lines.
const EVERY: u64 = 1000;

/// How much is scanned at once.
const CHUNK: usize = 1 << 20;

/// A line longer than this is shown in part.
const MAX_LINE: usize = 64 << 10;

/// Where the lines of a log begin, as far as it was scanned. Kept by whoever shows the log in
/// pages; asking again goes on where the last scan ended.
#[derive(Debug, Clone, Default)]
pub struct LineIndex {
    /// Where the files of the log began when it was scanned: another list is another text.
    starts: Vec<u64>,
    /// Offset of line 0, 1000, 2000, ...
    places: Vec<u64>,
    /// How many line ends were seen.
    ends: u64,
    /// Behind the last line end.
    ended_at: u64,
    /// Up to where the text was scanned.
    scanned: u64,
}

/// Some lines of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    /// Number of the first one, counted from 0.
    pub first: u64,
    /// Without their line ends; a line is cut after 64 KiB.
    pub lines: Vec<Vec<u8>>,
    /// How many lines the log has so far; one without its end yet counts.
    pub total: u64,
    /// How many lines have their ends, and their length in bytes: where a follower goes on.
    pub complete: u64,
    pub ended_at: u64,
}

impl LogStore {
    /// At most `count` lines from line `first` on; empty past the end. `None`: there is no such log.
    /// Scans what `index` has not seen yet: the first time the whole log, about 1 GB/s.
    pub async fn lines(
        &self,
        step: StepId,
        index: &mut LineIndex,
        first: u64,
        count: usize,
    ) -> Result<Option<Lines>, LogError> {
        let known = index.clone();
        let found = self
            .with_layout(step, move |dir, layout| {
                let mut index = known.clone();
                index.scan(dir, step, layout)?;
                let lines = index.read(dir, step, layout, first, count)?;
                Ok((index, lines))
            })
            .await?;
        Ok(found.map(|(scanned, lines)| {
            *index = scanned;
            lines
        }))
    }

    /// The first `most` of the lines that are `wanted`, each with its number counted from 0. Looks at
    /// the last `within` bytes, or a thousand lines more. `None`: there is no such log.
    pub async fn find(
        &self,
        step: StepId,
        index: &mut LineIndex,
        wanted: fn(&[u8]) -> bool,
        within: u64,
        most: usize,
    ) -> Result<Option<Vec<(u64, Vec<u8>)>>, LogError> {
        let known = index.clone();
        let found = self
            .with_layout(step, move |dir, layout| {
                let mut index = known.clone();
                index.scan(dir, step, layout)?;
                let floor = index.scanned.saturating_sub(within);
                let place = index.places.partition_point(|place| *place <= floor);
                let first = place.saturating_sub(1) as u64 * EVERY;
                let mut found = Vec::new();
                index.walk(dir, step, layout, first, |n, line| {
                    if found.len() < most && wanted(&line) {
                        found.push((n, line));
                    }
                    found.len() < most
                })?;
                Ok((index, found))
            })
            .await?;
        Ok(found.map(|(scanned, found)| {
            *index = scanned;
            found
        }))
    }
}

impl LineIndex {
    fn scan(&mut self, dir: &Path, step: StepId, layout: &Layout) -> io::Result<()> {
        let starts: Vec<u64> = layout.segments.iter().map(|segment| segment.start).collect();
        // One more file at the end leaves what was scanned where it was.
        if !starts.starts_with(&self.starts) || layout.text_len() < self.scanned {
            *self = LineIndex::default();
        }
        self.starts = starts;
        if self.places.is_empty() {
            self.places.push(0);
        }
        loop {
            let chunk = layout.read(dir, step, self.scanned, CHUNK)?;
            if chunk.is_empty() {
                return Ok(());
            }
            for (at, _) in chunk.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                self.ends += 1;
                self.ended_at = self.scanned + at as u64 + 1;
                if self.ends.is_multiple_of(EVERY) {
                    self.places.push(self.ended_at);
                }
            }
            self.scanned += chunk.len() as u64;
        }
    }

    fn read(&self, dir: &Path, step: StepId, layout: &Layout, first: u64, count: usize) -> io::Result<Lines> {
        let total = self.ends + u64::from(self.ended_at < self.scanned);
        let wanted = count.min(usize::try_from(total.saturating_sub(first)).unwrap_or(usize::MAX));
        let mut lines = Vec::new();
        if wanted > 0 {
            self.walk(dir, step, layout, first, |_, line| {
                lines.push(line);
                lines.len() < wanted
            })?;
        }
        Ok(Lines {
            first,
            lines,
            total,
            complete: self.ends,
            ended_at: self.ended_at,
        })
    }

    /// Hands out the lines from `first` on, each with its number, until `each` says no.
    fn walk(
        &self,
        dir: &Path,
        step: StepId,
        layout: &Layout,
        first: u64,
        mut each: impl FnMut(u64, Vec<u8>) -> bool,
    ) -> io::Result<()> {
        let place = (first / EVERY) as usize;
        let Some(&from) = self.places.get(place) else {
            return Ok(());
        };
        let (mut at, mut n) = (from, place as u64 * EVERY);
        let mut line = Vec::new();
        while at < self.scanned {
            let len = CHUNK.min((self.scanned - at) as usize);
            let chunk = layout.read(dir, step, at, len)?;
            if chunk.is_empty() {
                break;
            }
            at += chunk.len() as u64;
            for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
                let (text, ended) = match piece.strip_suffix(b"\n") {
                    Some(text) => (text, true),
                    None => (piece, false),
                };
                if n >= first {
                    let room = MAX_LINE - line.len();
                    line.extend(&text[..text.len().min(room)]);
                }
                if ended {
                    if n >= first && !each(n, std::mem::take(&mut line)) {
                        return Ok(());
                    }
                    n += 1;
                }
            }
        }
        if n >= first && self.ended_at < self.scanned {
            each(n, line);
        }
        Ok(())
    }
}
