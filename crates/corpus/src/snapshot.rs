//! A corpus as a file that is used where it lies: mapped into memory, of which a query touches what it
//! needs. A cache of the log, made anew whenever it is not exactly what is wanted.
//!
//! The file is a row of sections, then a table of them, then a trailer of fixed length. Rows of commits,
//! texts and their sorted orders are read in place; issues and changes stand in pages of 128 numbers, of
//! which each is read when it is first asked for. Whole blocks of the file have digests in the table, the
//! table has one in the trailer: whoever opens the file compares all of them before he trusts it. Still
//! nothing here believes an offset: what does not fit is absent.
//!
//! Layout: docs/decisions/0008-snapshots.md.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use mutlog::{Segment, SegmentNumber, Sum};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use crate::apply::{Code, Corpus, Issues};
use crate::gerrit::{Gerrit, Project};
use crate::git::{CommitId, Git, Row, Sorted};
use crate::github::{GitHub, Label, Milestone, Named, Repo};
use crate::names::{Name, Names};
use crate::shared::{BaseLists, Lists, Numbered, Plain};
use crate::stored::{Stored, Take, put_len, put_piece, put_several};

/// Of layout and of meaning: raised whenever the same log would give another file.
pub const VERSION: u32 = 1;

/// Bytes at the end of the file, which [`Contents::read`] begins with.
const TRAILER: usize = 52;
const MAGIC: &[u8; 8] = b"burrow\0c";
/// Bytes that have a digest of their own.
const BLOCK: usize = 1 << 20;
const SECTIONS: usize = 19;
/// A table that is longer is none: a segment takes 40 bytes of it, a block 32.
const MAX_TABLE: u64 = 64 << 20;

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// What of the log was applied.
    pub log: Vec<Segment>,
    pub records: u64,
    pub bytes: u64,
    /// What was passed over: kind, how often, one of it in words.
    pub passed_over: Vec<(String, u64, String)>,
}

/// Why a file is of no use as a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum BadSnapshot {
    #[error("the file is no snapshot, or was cut")]
    None,
    #[error("the snapshot has format {found}; this burrow writes {VERSION}")]
    OtherVersion { found: u32 },
    #[error("the snapshot is not as it was written: {what} differs")]
    Damaged { what: String },
    #[error("cannot read the snapshot")]
    Io(#[from] io::Error),
}

/// What a file of a snapshot says that it holds.
#[derive(Debug)]
pub struct Contents {
    pub about: About,
    /// Where each section is.
    sections: Vec<(u64, u64)>,
    /// Commits of which only the name is known.
    unknown: u32,
    blocks: Vec<[u8; 32]>,
    body: u64,
}

/// Writes a snapshot of a corpus whose batches are all finished.
pub fn write(corpus: &Corpus, about: &About, out: impl Write) -> io::Result<()> {
    let mut out = Out {
        out,
        block: Vec::with_capacity(BLOCK),
        blocks: Vec::new(),
        len: 0,
        sections: Vec::new(),
    };
    let (issues, code) = (&corpus.issues, &corpus.code);
    put_names(&mut out, &issues.names)?;
    put_names(&mut out, &code.names)?;
    out.section(|out| out.write_all(issues.github.users.rows().as_bytes()))?;
    out.section(|out| out.write_all(issues.github.teams.rows().as_bytes()))?;
    let mut table = Vec::new();
    out.section(|out| put_repos(out, &issues.github.repos, &mut table))?;
    out.section(|out| out.write_all(&table))?;

    let git = &code.git;
    out.section(|out| git.all().try_for_each(|id| out.write_all(git.row(id).as_bytes())))?;
    let sorted = git.sorted();
    out.section(|out| out.write_all(&sorted.ends))?;
    out.section(|out| out.write_all(&sorted.ids))?;
    put_lists(&mut out, &git.more_parents)?;
    put_lists(&mut out, &git.issue_refs)?;
    let mut table = Vec::new();
    out.section(|out| put_projects(out, &code.gerrit.projects, &mut table))?;
    out.section(|out| out.write_all(&table))?;
    out.end(about, git.unknown())
}

/// Counts and digests what goes through it.
struct Out<W> {
    out: W,
    block: Vec<u8>,
    blocks: Vec<[u8; 32]>,
    len: u64,
    sections: Vec<(u64, u64)>,
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..len]);
        self.len += len as u64;
        if self.block.len() == BLOCK {
            self.flush()?;
        }
        Ok(len)
    }

    /// Ends the block.
    fn flush(&mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            self.blocks.push(blake3::hash(&self.block).into());
            self.out.write_all(&self.block)?;
            self.block.clear();
        }
        Ok(())
    }
}

impl<W: Write> Out<W> {
    fn section(&mut self, fill: impl FnOnce(&mut Out<W>) -> io::Result<()>) -> io::Result<()> {
        let from = self.len;
        fill(self)?;
        self.sections.push((from, self.len - from));
        Ok(())
    }

    fn end(mut self, about: &About, unknown: u32) -> io::Result<()> {
        self.flush()?;
        let mut table = Vec::new();
        put_several(&mut table, &about.log, |out, segment| {
            segment.number.0.put(out);
            out.extend_from_slice(&segment.len.to_le_bytes());
            out.extend_from_slice(&segment.sum.bytes());
        });
        table.extend_from_slice(&about.records.to_le_bytes());
        table.extend_from_slice(&about.bytes.to_le_bytes());
        put_several(&mut table, &about.passed_over, |out, (kind, count, one)| {
            put_piece(out, kind.as_bytes());
            out.extend_from_slice(&count.to_le_bytes());
            put_piece(out, one.as_bytes());
        });
        put_several(&mut table, &self.sections, |out, (from, len)| {
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
        });
        unknown.put(&mut table);
        put_several(&mut table, &self.blocks, |out, digest| {
            out.extend_from_slice(digest)
        });
        self.out.write_all(&table)?;
        let mut trailer = Vec::with_capacity(TRAILER);
        trailer.extend_from_slice(blake3::hash(&table).as_bytes());
        trailer.extend_from_slice(&(table.len() as u64).to_le_bytes());
        trailer.extend_from_slice(&VERSION.to_le_bytes());
        trailer.extend_from_slice(MAGIC);
        self.out.write_all(&trailer)?;
        self.out.flush()
    }
}

fn put_names<W: Write>(out: &mut Out<W>, names: &Names) -> io::Result<()> {
    let mut end = 0_u32;
    out.section(|out| {
        names.all().try_for_each(|name| {
            end = grown(end, names.bytes(name).len())?;
            out.write_all(&end.to_le_bytes())
        })
    })?;
    out.section(|out| names.all().try_for_each(|name| out.write_all(names.bytes(name))))?;
    let mut sorted: Vec<Name> = names.all().collect();
    sorted.sort_unstable_by_key(|name| names.bytes(*name));
    out.section(|out| out.write_all(sorted.as_bytes()))
}

fn put_lists<W: Write, T: Plain>(out: &mut Out<W>, lists: &Lists<T>) -> io::Result<()> {
    let mut end = 0_u32;
    out.section(|out| {
        (0..lists.len()).try_for_each(|at| {
            end = grown(end, lists.get(at).len())?;
            out.write_all(&end.to_le_bytes())
        })
    })?;
    out.section(|out| (0..lists.len()).try_for_each(|at| out.write_all(lists.get(at).as_bytes())))
}

fn grown(end: u32, by: usize) -> io::Result<u32> {
    let grown = u32::try_from(by).ok().and_then(|by| end.checked_add(by));
    grown.ok_or_else(|| io::Error::other("more than a snapshot can count"))
}

/// The pages themselves to `out`; to `table` where each is.
fn put_pages<V: Stored + Clone>(
    out: &mut Out<impl Write>,
    from: u64,
    pages: &Numbered<V>,
    table: &mut Vec<u8>,
) -> io::Result<()> {
    let mut found = Vec::new();
    for (number, page) in pages.pages() {
        found.push((number, out.len - from, page.len()));
        out.write_all(&page)?;
    }
    put_several(table, &found, |table, (number, at, len)| {
        number.put(table);
        table.extend_from_slice(&at.to_le_bytes());
        put_len(table, *len);
    });
    Ok(())
}

fn take_pages<V: Stored + Clone>(take: &mut Take, pages: &Bytes) -> Option<Numbered<V>> {
    let mut numbered = Numbered::default();
    for _ in 0..take.u32()? {
        let (number, at, len) = (take.u32()?, take.u64()?, take.u32()?);
        numbered.add_page(number, part(pages, at, u64::from(len))?);
    }
    Some(numbered)
}

fn put_repos(out: &mut Out<impl Write>, repos: &[Repo], table: &mut Vec<u8>) -> io::Result<()> {
    let from = out.len;
    put_len(table, repos.len());
    for repo in repos {
        put_piece(table, repo.owner.as_bytes());
        put_piece(table, repo.name.as_bytes());
        let labels: Vec<(&i64, &Label)> = repo.labels.iter().collect();
        put_several(table, &labels, |table, (id, label)| {
            id.put(table);
            put_piece(table, label.name.as_bytes());
        });
        let milestones: Vec<(&i64, &Milestone)> = repo.milestones.iter().collect();
        put_several(table, &milestones, |table, (id, milestone)| {
            id.put(table);
            put_piece(table, milestone.title.as_bytes());
            milestone.number.put(table);
            table.push(u8::from(milestone.closed));
        });
        put_several(table, repo.renamed_from.as_slice(), |table, from| {
            put_piece(table, from.as_bytes());
        });
        put_pages(out, from, &repo.issues, table)?;
    }
    Ok(())
}

fn take_repos(take: &mut Take, pages: &Bytes) -> Option<Vec<Repo>> {
    take.several(|take| {
        let (owner, name) = (take.text()?, take.text()?);
        let label = |take: &mut Take| Some((take.i64()?, Label { name: take.text()? }));
        let labels: BTreeMap<i64, Label> = take.several(label)?.into_iter().collect();
        let milestone = |take: &mut Take| {
            let id = take.i64()?;
            let (title, number, closed) = (take.text()?, take.i64()?, take.u8()? > 0);
            let milestone = Milestone {
                title,
                number,
                closed,
            };
            Some((id, milestone))
        };
        let milestones: BTreeMap<i64, Milestone> = take.several(milestone)?.into_iter().collect();
        let renamed_from = take.several(Take::text)?.pop();
        Some(Repo {
            owner,
            name,
            issues: take_pages(take, pages)?,
            labels: Arc::new(labels),
            milestones: Arc::new(milestones),
            renamed_from,
        })
    })
}

fn put_projects(
    out: &mut Out<impl Write>,
    projects: &BTreeMap<String, Project>,
    table: &mut Vec<u8>,
) -> io::Result<()> {
    let from = out.len;
    put_len(table, projects.len());
    for (key, project) in projects {
        if !project.dirty.is_empty() {
            return Err(io::Error::other("a batch of mutations is not finished"));
        }
        put_piece(table, key.as_bytes());
        let refs: Vec<(&String, &CommitId)> = project.refs.iter().collect();
        put_several(table, &refs, |table, (name, id)| {
            put_piece(table, name.as_bytes());
            id.number().put(table);
        });
        put_pages(out, from, &project.changes, table)?;
    }
    Ok(())
}

fn take_projects(take: &mut Take, pages: &Bytes) -> Option<BTreeMap<String, Project>> {
    let projects = take.several(|take| {
        let key = take.text()?;
        let one = |take: &mut Take| Some((take.text()?, CommitId::new(take.u32()?)));
        let refs: BTreeMap<String, CommitId> = take.several(one)?.into_iter().collect();
        let project = Project {
            changes: take_pages(take, pages)?,
            refs: Arc::new(refs),
            dirty: Vec::new(),
        };
        Some((key, project))
    })?;
    Some(projects.into_iter().collect())
}

fn part(bytes: &Bytes, from: u64, len: u64) -> Option<Bytes> {
    let (from, len) = (usize::try_from(from).ok()?, usize::try_from(len).ok()?);
    let to = from.checked_add(len).filter(|to| *to <= bytes.len())?;
    Some(bytes.slice(from..to))
}

fn damaged(what: impl Into<String>) -> BadSnapshot {
    BadSnapshot::Damaged { what: what.into() }
}

impl Contents {
    /// Reads what the end of the file says. `read` fills its buffer from an offset of the file, which has
    /// `len` bytes.
    pub fn read(
        len: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> Result<Contents, BadSnapshot> {
        let mut trailer = [0; TRAILER];
        let at = len.checked_sub(TRAILER as u64).ok_or(BadSnapshot::None)?;
        read(at, &mut trailer)?;
        let mut take = Take(Bytes::copy_from_slice(&trailer));
        let parts = (take.hash(), take.u64(), take.u32());
        let (Some(digest), Some(table), Some(version)) = parts else {
            return Err(BadSnapshot::None);
        };
        if take.0 != MAGIC[..] {
            return Err(BadSnapshot::None);
        }
        if version != VERSION {
            return Err(BadSnapshot::OtherVersion { found: version });
        }
        let body = at.checked_sub(table).filter(|_| table <= MAX_TABLE);
        let body = body.ok_or_else(|| damaged("the length of its table"))?;
        let mut bytes = vec![0; usize::try_from(table).map_err(|_| damaged("the length of its table"))?];
        read(body, &mut bytes)?;
        if blake3::hash(&bytes) != digest {
            return Err(damaged("its table"));
        }
        Contents::parse(body, bytes.into()).ok_or_else(|| damaged("its table"))
    }

    fn parse(body: u64, table: Bytes) -> Option<Contents> {
        let mut take = Take(table);
        let log = take.several(|take| {
            Some(Segment {
                number: SegmentNumber(take.u32()?),
                len: take.u64()?,
                sum: Sum::from(take.sum()?),
            })
        })?;
        let (records, bytes) = (take.u64()?, take.u64()?);
        let passed_over = take.several(|take| Some((take.text()?, take.u64()?, take.text()?)))?;
        let sections = take.several(|take| Some((take.u64()?, take.u64()?)))?;
        let unknown = take.u32()?;
        let blocks = take.several(Take::hash)?;
        let whole = take.0.is_empty() && blocks.len() as u64 == body.div_ceil(BLOCK as u64);
        let about = About {
            log,
            records,
            bytes,
            passed_over,
        };
        Some(Contents {
            about,
            sections,
            unknown,
            blocks,
            body,
        })
        .filter(|_| whole)
    }

    /// How many blocks [`Contents::check`] can compare.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Compares a block with its digest. `room` is for reading into, and may be used again.
    pub fn check(
        &self,
        block: usize,
        room: &mut Vec<u8>,
        read: impl FnOnce(u64, &mut [u8]) -> io::Result<()>,
    ) -> Result<(), BadSnapshot> {
        let from = block as u64 * BLOCK as u64;
        let len = self.body.saturating_sub(from).min(BLOCK as u64);
        room.resize(usize::try_from(len).unwrap_or(BLOCK), 0);
        read(from, room)?;
        match self.blocks.get(block) {
            Some(digest) if blake3::hash(room) == *digest => Ok(()),
            _ => Err(damaged(format!("block {block}"))),
        }
    }

    /// The corpus that is in `file`: the whole file, whose blocks were compared.
    pub fn corpus(&self, file: &Bytes) -> Result<Corpus, BadSnapshot> {
        self.corpus_in(file).ok_or_else(|| damaged("what its table says"))
    }

    fn corpus_in(&self, file: &Bytes) -> Option<Corpus> {
        let sections: Option<Vec<Bytes>> = self
            .sections
            .iter()
            .map(|(from, len)| part(file, *from, *len))
            .collect();
        let sections: [Bytes; SECTIONS] = sections?.try_into().ok()?;
        let [
            a,
            b,
            c,
            d,
            e,
            f,
            users,
            teams,
            issues,
            repos,
            rows,
            ends,
            ids,
            g,
            h,
            i,
            j,
            changes,
            projects,
        ] = sections;
        let count =
            |bytes: &Bytes, size: usize| bytes.len().is_multiple_of(size).then_some(bytes.len() / size);
        let lists = |ends: Bytes, things: Bytes| BaseLists { ends, things };
        let names = |ends: Bytes, texts: Bytes, sorted: Bytes| {
            let whole = count(&ends, size_of::<U32>())? == count(&sorted, size_of::<Name>())?;
            whole.then(|| Names::over(lists(ends, texts), sorted))
        };
        if count(&rows, size_of::<Row>())? != count(&ids, size_of::<CommitId>())? {
            return None;
        }
        let repos = take_repos(&mut Take(repos), &issues)?;
        let github = GitHub::over(repos, Named::over(users), Named::over(teams));
        let gerrit = Gerrit {
            projects: take_projects(&mut Take(projects), &changes)?,
        };
        let (more_parents, issue_refs) = (Lists::over(lists(g, h)), Lists::over(lists(i, j)));
        let git = Git::over(rows, Sorted { ends, ids }, more_parents, issue_refs, self.unknown);
        Some(Corpus {
            issues: Issues {
                names: names(a, b, c)?,
                github,
            },
            code: Code {
                names: names(d, e, f)?,
                git,
                gerrit,
            },
        })
    }
}
