use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::lease::Lease;
use crate::place::{SegmentNumber, Sum};
use crate::record::{Records, Split};

/// A folder of segments: the log of a writer, or the copy of a log that a client keeps.
///
/// `NNNN.<sha224>.mutlog` is sealed and never changes, `NNNN.growing.mutlog` is appended to. These
/// are the names that the original's client gives its copies, so that both can use one folder.
///
/// Source: golang/build `maintner/netsource.go`.
#[derive(Debug, Clone)]
pub struct Folder {
    dir: PathBuf,
}

/// A file of a segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentFile {
    pub number: SegmentNumber,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Sealed(Sum),
    Growing,
}

/// The folder does not hold a log. Whoever runs it must look.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("cannot list `{}`", dir.display())]
    Io { dir: PathBuf, source: io::Error },
    #[error("segment {0} is missing, though later ones are there")]
    Gap(SegmentNumber),
    #[error("`{0}` and `{1}` are of the same segment; one log has one")]
    TwoOfOne(SegmentFile, SegmentFile),
    #[error("`{0}` is not the last segment, but not sealed")]
    GrowingAmid(SegmentFile),
}

impl Folder {
    pub fn new(dir: impl Into<PathBuf>) -> Folder {
        Folder { dir: dir.into() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, file: &SegmentFile) -> PathBuf {
        self.dir.join(file.to_string())
    }

    /// The files of the log, in order.
    pub fn log(&self) -> Result<Vec<SegmentFile>, ListError> {
        let names = self.names().map_err(|source| ListError::Io {
            dir: self.dir.clone(),
            source,
        })?;
        log_of(names.iter().map(String::as_str))
    }

    /// Gives the name of a sealed segment to each that is not the last and holds whole records, as in a
    /// folder of the original's client, which seals none. A torn one keeps its name.
    pub fn seal_all_but_last(&self, _: &Lease) -> io::Result<()> {
        let names = self.names()?;
        let mut files: Vec<SegmentFile> = names.iter().filter_map(|name| SegmentFile::parse(name)).collect();
        files.sort();
        let last = files.pop();
        for file in files.iter().filter(|file| {
            file.state == State::Growing && Some(file.number) != last.as_ref().map(|last| last.number)
        }) {
            let bytes = fs::read(self.path(file))?;
            let mut records = Records::new(&bytes, 0);
            records.by_ref().for_each(drop);
            if records.end() == Split::End {
                let state = State::Sealed(Sum::of(&bytes));
                fs::rename(
                    self.path(file),
                    self.path(&SegmentFile {
                        number: file.number,
                        state,
                    }),
                )?;
            }
        }
        Ok(())
    }

    /// Those of its names that are text.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }
}

/// The files of a log as the original's disk logger keeps it, a file for each day, in the order in which
/// they are read.
///
/// Source: golang/build `maintner/logger.go`.
pub fn day_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name
            .to_str()
            .is_some_and(|name| name.starts_with("maintner-") && name.ends_with(".mutlog"));
        if ours && !entry.file_type()?.is_dir() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Which of these names are the files of one log, in order.
pub(crate) fn log_of<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<SegmentFile>, ListError> {
    let mut files: Vec<SegmentFile> = names.filter_map(SegmentFile::parse).collect();
    files.sort();
    for two in files.windows(2) {
        if two[0].number == two[1].number {
            return Err(ListError::TwoOfOne(two[0].clone(), two[1].clone()));
        }
        if two[0].state == State::Growing {
            return Err(ListError::GrowingAmid(two[0].clone()));
        }
    }
    match (0..).zip(&files).find(|(at, file)| file.number.0 != *at) {
        Some((missing, _)) => Err(ListError::Gap(SegmentNumber(missing))),
        None => Ok(files),
    }
}

impl SegmentFile {
    /// `None`: no name of a segment's file.
    pub fn parse(name: &str) -> Option<SegmentFile> {
        let (number, state) = name.strip_suffix(".mutlog")?.split_once('.')?;
        let state = match state {
            "growing" => State::Growing,
            sum => State::Sealed(sum.parse().ok()?),
        };
        let digits = number.len() >= 4 && number.bytes().all(|b| b.is_ascii_digit());
        let file = SegmentFile {
            number: SegmentNumber(number.parse().ok().filter(|_| digits)?),
            state,
        };
        (file.to_string() == name).then_some(file)
    }
}

impl std::fmt::Display for SegmentFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.state {
            State::Sealed(sum) => write!(f, "{}.{sum}.mutlog", self.number),
            State::Growing => write!(f, "{}.growing.mutlog", self.number),
        }
    }
}

/// By number; of one number, sealed first.
impl Ord for State {
    fn cmp(&self, other: &State) -> std::cmp::Ordering {
        matches!(self, State::Growing).cmp(&matches!(other, State::Growing))
    }
}

impl PartialOrd for State {
    fn partial_cmp(&self, other: &State) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "a06711825da704f57b80ab3c42473ce6813bfaf50f8d3773f9047e1d";

    #[test]
    fn only_the_originals_names_are_segments() {
        for name in [
            format!("0000.{A}.mutlog"),
            "0012.growing.mutlog".into(),
            "12345.growing.mutlog".into(),
        ] {
            assert_eq!(SegmentFile::parse(&name).map(|file| file.to_string()), Some(name));
        }
        let upper = format!("0000.{}.mutlog", A.to_uppercase());
        for name in [
            "",
            "0000.mutlog",
            "000.growing.mutlog",
            "00012.growing.mutlog",
            "+000.growing.mutlog",
            "tempseg1",
            &upper,
        ] {
            assert_eq!(SegmentFile::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_folder_that_holds_no_log_is_refused_with_the_reason() {
        let (first, second) = (format!("0000.{A}.mutlog"), format!("0001.{A}.mutlog"));
        let check = |names: &[&str]| match log_of(names.iter().copied()) {
            Ok(files) => format!("{} segments", files.len()),
            Err(error) => error.to_string(),
        };
        assert_eq!(check(&["lease", "0001.growing.mutlog", &first]), "2 segments");
        assert_eq!(
            check(&[&second]),
            "segment 0000 is missing, though later ones are there"
        );
        assert!(
            check(&[&first, "0000.growing.mutlog"]).ends_with("are of the same segment; one log has one")
        );
        assert_eq!(
            check(&["0000.growing.mutlog", &second]),
            "`0000.growing.mutlog` is not the last segment, but not sealed"
        );
    }
}
