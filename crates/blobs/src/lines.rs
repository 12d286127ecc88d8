use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ids::StepId;

use crate::layout::{self, Layout};
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
                let mut index = known.or_stored(dir, step);
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
                let mut index = known.or_stored(dir, step);
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

/// What a stored index begins with: its form.
const MAGIC: u64 = u64::from_le_bytes(*b"blines01");

/// Of a shorter log no index is stored: it is scanned in a moment.
const STORED_FROM: u64 = 8 << 20;

/// A line without an end is searched in pieces of this size.
const PIECE: usize = 4 << 20;

impl LogStore {
    /// The first `most` lines that have `words` in them, each with its number counted from 0, cut as by
    /// [`LogStore::lines`]. Reads the whole log if need be, about 2 GB/s; memory is bounded whatever a line's length.
    /// `None`: there is no such log. No words are nowhere.
    pub async fn search(
        &self,
        step: StepId,
        words: &[u8],
        most: usize,
    ) -> Result<Option<Vec<(u64, Vec<u8>)>>, LogError> {
        let words = words.to_vec();
        self.with_layout(step, move |dir, layout| search(dir, step, layout, &words, most))
            .await
    }
}

fn search(
    dir: &Path,
    step: StepId,
    layout: &Layout,
    words: &[u8],
    most: usize,
) -> io::Result<Vec<(u64, Vec<u8>)>> {
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    let finder = memchr::memmem::Finder::new(words);
    // `have` begins somewhere in line `n`, `at` is behind it in the text.
    let (mut have, mut n, mut at): (Vec<u8>, u64, u64) = (Vec::new(), 0, 0);
    // A line has no line's end in it.
    while !words.is_empty() && !words.contains(&b'\n') && found.len() < most {
        let chunk = layout.read(dir, step, at, CHUNK)?;
        at += chunk.len() as u64;
        have.extend_from_slice(&chunk);
        let whole = match memchr::memrchr(b'\n', &have) {
            _ if chunk.is_empty() => have.len(),
            Some(end) => end + 1,
            None if have.len() > PIECE => have.len(),
            None => continue,
        };
        let text = &have[..whole];
        let (mut from, mut counted) = (0, 0);
        while let Some(place) = finder.find(&text[from..]).map(|place| from + place) {
            n += memchr::memchr_iter(b'\n', &text[counted..place]).count() as u64;
            let start = memchr::memrchr(b'\n', &text[..place]).map_or(0, |end| end + 1);
            let end = memchr::memchr(b'\n', &text[place..]).map_or(whole, |end| place + end);
            // Of a line in several pieces the first one that has it.
            if found.last().is_none_or(|(last, _)| *last != n) {
                found.push((n, text[start..end.min(start + MAX_LINE)].to_vec()));
            }
            (from, counted) = (end, place);
            if found.len() == most {
                return Ok(found);
            }
        }
        n += memchr::memchr_iter(b'\n', &text[counted..]).count() as u64;
        // Words may begin in one piece of a line and end in the next.
        let cut = text.last() != Some(&b'\n') && !chunk.is_empty();
        let kept = if cut {
            whole - (words.len() - 1).min(whole)
        } else {
            whole
        };
        have.drain(..kept);
        if chunk.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// Beside the log; `2-0.lines` for `2-0.log`.
pub(crate) fn index_file(dir: &Path, step: StepId) -> PathBuf {
    layout::file(dir, step, 0).with_extension("lines")
}

impl LineIndex {
    /// Stores where the lines of a log are that has come to its end. Only a help: what is wrong or gone is found out by
    /// scanning.
    pub(crate) fn store(dir: &Path, step: StepId) -> io::Result<()> {
        let layout = Layout::find(dir, step)?;
        if layout.text_len() < STORED_FROM {
            return Ok(());
        }
        let mut index = LineIndex::default();
        index.scan(dir, step, &layout)?;
        let LineIndex {
            starts,
            places,
            ends,
            ended_at,
            scanned,
        } = &index;
        let head = [MAGIC, starts.len() as u64, *ends, *ended_at, *scanned];
        let words = head.iter().chain(starts).chain(places);
        fs::write(
            index_file(dir, step),
            words.flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>(),
        )
    }

    /// This one, or if it has seen nothing the stored one.
    fn or_stored(&self, dir: &Path, step: StepId) -> LineIndex {
        if self.scanned > 0 {
            return self.clone();
        }
        let stored = fs::read(index_file(dir, step)).ok();
        stored
            .and_then(|bytes| LineIndex::read_stored(&bytes))
            .unwrap_or_default()
    }

    fn read_stored(bytes: &[u8]) -> Option<LineIndex> {
        let (words, rest) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let [MAGIC, starts, ends, ended_at, scanned, lists @ ..] = &words[..] else {
            return None;
        };
        let (starts, places) = lists.split_at_checked(usize::try_from(*starts).ok()?)?;
        let whole = rest.is_empty()
            && places.first() == Some(&0)
            && places.len() as u64 == ends / EVERY + 1
            && places.is_sorted()
            && places.last() <= Some(ended_at)
            && ended_at <= scanned;
        whole.then(|| LineIndex {
            starts: starts.to_vec(),
            places: places.to_vec(),
            ends: *ends,
            ended_at: *ended_at,
            scanned: *scanned,
        })
    }

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
            for at in memchr::memchr_iter(b'\n', &chunk) {
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
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let (text, ended) = match memchr::memchr(b'\n', rest) {
                    Some(end) => (&rest[..end], true),
                    None => (rest, false),
                };
                rest = &rest[text.len() + usize::from(ended)..];
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
