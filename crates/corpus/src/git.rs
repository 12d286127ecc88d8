use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use ids::Timestamp;
use maintpb::borrowed::{self, View};
use mutlog::{Place, SegmentNumber, Span};
use zerocopy::little_endian::{I16, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::apply::Corpus;
use crate::commit::{BadCommit, CommitText, FileStat, Person, is_latin1, parse};
use crate::names::{Name, Names};
use crate::notedb::{Facts, facts};
use crate::original::{self, IssueRef};
use crate::shared::{Index, Lists, Rows, rows};
use crate::stored::{Stored, Take};
use crate::text::Texts;

/// The name of a git object: SHA-1.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct Hash([u8; 20]);

/// A commit of the corpus, which may be one of which only the name is known.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct CommitId(U32);

#[derive(Clone, Default)]
pub(crate) struct Git {
    pub rows: Rows<Row>,
    /// Of the rows of the base.
    sorted: Sorted,
    /// Of all others.
    index: Index,
    /// Of the few commits with more than one.
    pub more_parents: Lists<CommitId>,
    pub issue_refs: Lists<IssueRef>,
    unknown: u32,
}

/// The rows of a base in the order of their hashes.
#[derive(Clone, Default)]
pub(crate) struct Sorted {
    /// For each of the first two bytes of a hash, how many rows have those or smaller ones, as [`U32`].
    pub ends: Bytes,
    /// [`CommitId`]s.
    pub ids: Bytes,
}

/// A commit. There are millions, so it is in memory as it is in a snapshot, which is mapped.
#[derive(Debug, Clone, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Row {
    pub hash: Hash,
    /// How many parents: 0, 1, or 2 for more.
    parents: u8,
    facts: u8,
    /// The one parent, or the list of more.
    parent: CommitId,
    /// The message of the log that tells of it; empty as long as only its name is known.
    told: [U32; 3],
    pub author: Name,
    pub committer: Name,
    pub author_time: I64,
    pub commit_time: I64,
    pub author_zone: I16,
    pub commit_zone: I16,
    branch: Name,
    /// The issues that its message names: `NONE` or a list.
    issue_refs: U32,
}

const NONE: U32 = U32::MAX_VALUE;

impl Hash {
    /// 40 hex digits.
    pub fn parse(hex: &[u8]) -> Option<Hash> {
        let hex: &[u8; 40] = hex.try_into().ok()?;
        let (mut hash, mut all) = ([0; 20], 0);
        for (byte, two) in hash.iter_mut().zip(hex.as_chunks::<2>().0) {
            let [high, low] = two.map(|digit| DIGITS[usize::from(digit)]);
            all |= high | low;
            *byte = high << 4 | low & 15;
        }
        (all < 16).then_some(Hash(hash))
    }

    /// Its bytes are as good as random already.
    fn spread(self) -> u64 {
        u64::from_le_bytes(self.0[..8].try_into().expect("8 of 20"))
    }
}

/// What each byte is as a digit; [`NO_DIGIT`] for all others. A log has a hash for each kilobyte.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        digits[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

const NO_DIGIT: u8 = 0xff;

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Stored for Hash {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn read(from: &mut Take) -> Option<Hash> {
        from.sha1().map(Hash)
    }
}

impl CommitId {
    pub(crate) fn new(number: u32) -> CommitId {
        CommitId(U32::new(number))
    }

    pub(crate) fn number(self) -> u32 {
        self.0.get()
    }
}

impl Git {
    /// Takes a commit in; if it is known, for the better. `told`: where `commit` stands in the log.
    pub fn add(
        &mut self,
        names: &mut Names,
        commit: &borrowed::GitCommit<'_>,
        told: Span,
    ) -> Result<(), BadCommit> {
        let hash = Hash::parse(commit.sha1.0).ok_or(BadCommit::BadName)?;
        let parsed = parse(commit.raw)?;
        let (parents, parent) = match &parsed.parents[..] {
            [] => (0, CommitId(U32::ZERO)),
            [one] => (1, self.find_or_name(*one)),
            more => {
                let more = more.iter().map(|hash| self.find_or_name(*hash)).collect();
                (2, CommitId::new(self.more_parents.push(more)))
            }
        };
        let facts = facts(names, parsed.message);
        let refs = match facts.is_meta {
            true => Box::default(),
            false => original::issue_refs(names, parsed.message),
        };
        let mut row = Row::named(hash);
        (row.parents, row.parent) = (parents, parent);
        row.told = [told.at.segment.0, told.at.offset, told.len].map(U32::new);
        (row.facts, row.branch) = (facts.packed(), facts.branch);
        if let Some(author) = parsed.author {
            row.author = names.intern(author.who);
            (row.author_time, row.author_zone) = (author.time.into(), author.zone.into());
        }
        if let Some(committer) = parsed.committer {
            row.committer = names.intern(committer.who);
            (row.commit_time, row.commit_zone) = (committer.time.into(), committer.zone.into());
        }
        if !refs.is_empty() {
            row.issue_refs = U32::new(self.issue_refs.push(refs));
        }
        match self.find(hash).and_then(|known| self.rows.get_mut(known.0.get())) {
            Some(known) => {
                self.unknown -= u32::from(!known.is_known());
                *known = row;
            }
            None => {
                self.insert(row);
            }
        }
        Ok(())
    }

    pub fn find(&self, hash: Hash) -> Option<CommitId> {
        let found = self
            .index
            .find(hash.spread(), |at| self.row(CommitId::new(*at)).hash == hash);
        found.map(CommitId::new).or_else(|| self.find_in_base(hash))
    }

    fn find_in_base(&self, hash: Hash) -> Option<CommitId> {
        let ends: &[U32] = rows(&self.sorted.ends);
        let ids: &[CommitId] = rows(&self.sorted.ids);
        let bucket = usize::from(u16::from_be_bytes([hash.0[0], hash.0[1]]));
        let end = |bucket: usize| ends.get(bucket).map(|end| end.get() as usize);
        let from = bucket.checked_sub(1).map_or(Some(0), end)?;
        let ids = ids.get(from..end(bucket)?)?;
        let at = ids.binary_search_by(|id| self.row(*id).hash.cmp(&hash)).ok()?;
        Some(ids[at])
    }

    pub fn row(&self, commit: CommitId) -> &Row {
        // Only a damaged snapshot names one that there is not.
        self.rows.get(commit.0.get()).unwrap_or(&NOBODY)
    }

    /// All commits, also those of which only the name is known.
    pub fn all(&self) -> impl Iterator<Item = CommitId> + use<> {
        (0..self.rows.len()).map(CommitId::new)
    }

    /// All commits by their hashes.
    pub fn sorted(&self) -> Sorted {
        let first = |id: CommitId| u64::from_be_bytes(self.row(id).hash.0[..8].try_into().expect("8 of 20"));
        let mut ids: Vec<(u64, CommitId)> = self.all().map(|id| (first(id), id)).collect();
        ids.sort_unstable_by_key(|(first, id)| (*first, self.row(*id).hash));
        let mut ends = vec![U32::ZERO; 1 << 16];
        for (at, (first, _)) in (1..).zip(&ids) {
            ends[(first >> 48) as usize] = U32::new(at);
        }
        let mut last = U32::ZERO;
        for end in &mut ends {
            last = last.max(*end);
            *end = last;
        }
        let ids: Vec<CommitId> = ids.into_iter().map(|(_, id)| id).collect();
        Sorted {
            ends: Bytes::copy_from_slice(ends.as_bytes()),
            ids: Bytes::copy_from_slice(ids.as_bytes()),
        }
    }

    /// `sorted`: all rows of the base; `unknown`: how many have only a name.
    pub fn over(
        rows: Bytes,
        sorted: Sorted,
        more_parents: Lists<CommitId>,
        issue_refs: Lists<IssueRef>,
        unknown: u32,
    ) -> Git {
        Git {
            rows: Rows::over(rows),
            sorted,
            index: Index::default(),
            more_parents,
            issue_refs,
            unknown,
        }
    }

    pub fn parents(&self, commit: CommitId) -> &[CommitId] {
        let row = self.row(commit);
        match row.parents {
            0 => &[],
            1 => std::slice::from_ref(&row.parent),
            _ => self.more_parents.get(row.parent.0.get()),
        }
    }

    pub fn issue_refs(&self, commit: CommitId) -> &[IssueRef] {
        match self.row(commit).issue_refs {
            NONE => &[],
            list => self.issue_refs.get(list.get()),
        }
    }

    pub fn len(&self) -> u32 {
        self.rows.len()
    }

    /// Commits that others have as parents, and of which nothing else is known.
    pub fn unknown(&self) -> u32 {
        self.unknown
    }

    fn find_or_name(&mut self, hash: Hash) -> CommitId {
        self.find(hash).unwrap_or_else(|| {
            self.unknown += 1;
            self.insert(Row::named(hash))
        })
    }

    fn insert(&mut self, row: Row) -> CommitId {
        let hash = row.hash.spread();
        let at = self.rows.push(row);
        let rows = &self.rows;
        let spread = |at: &u32| rows.get(*at).map_or(0, |row| row.hash.spread());
        self.index.insert(hash, at, spread);
        CommitId::new(at)
    }
}

static NOBODY: Row = Row::named(Hash([0; 20]));

impl Row {
    const fn named(hash: Hash) -> Row {
        Row {
            hash,
            parents: 0,
            facts: 0,
            parent: CommitId(U32::ZERO),
            told: [U32::ZERO; 3],
            author: Name::EMPTY,
            committer: Name::EMPTY,
            author_time: I64::ZERO,
            commit_time: I64::ZERO,
            author_zone: I16::ZERO,
            commit_zone: I16::ZERO,
            branch: Name::EMPTY,
            issue_refs: NONE,
        }
    }

    pub fn is_known(&self) -> bool {
        self.told[2] > U32::ZERO
    }

    pub fn told(&self) -> Span {
        let [segment, offset, len] = self.told.map(U32::get);
        let segment = SegmentNumber(segment);
        Span {
            at: Place { segment, offset },
            len,
        }
    }

    pub fn author_time(&self) -> Timestamp {
        time(self.author_time)
    }

    pub fn commit_time(&self) -> Timestamp {
        time(self.commit_time)
    }

    pub fn facts(&self) -> Facts {
        Facts::unpacked(self.facts, self.branch)
    }
}

/// Commits say any time they like.
fn time(seconds: I64) -> Timestamp {
    Timestamp(seconds.get().saturating_mul(1_000_000))
}

/// A commit, to be asked.
#[derive(Clone, Copy)]
pub struct CommitView<'a> {
    pub(crate) corpus: &'a Corpus,
    pub id: CommitId,
}

impl<'a> CommitView<'a> {
    fn row(self) -> &'a Row {
        self.corpus.code.git.row(self.id)
    }

    pub fn hash(self) -> Hash {
        self.row().hash
    }

    /// Whether more than its name is known.
    pub fn is_known(self) -> bool {
        self.row().is_known()
    }

    /// First parent first.
    pub fn parents(self) -> impl Iterator<Item = CommitView<'a>> {
        let corpus = self.corpus;
        corpus
            .code
            .git
            .parents(self.id)
            .iter()
            .map(|id| CommitView { corpus, id: *id })
    }

    pub fn author(self) -> Person<'a> {
        Person(self.corpus.code.names.text(self.row().author))
    }

    pub fn committer(self) -> Person<'a> {
        Person(self.corpus.code.names.text(self.row().committer))
    }

    pub fn author_time(self) -> Timestamp {
        self.row().author_time()
    }

    pub fn commit_time(self) -> Timestamp {
        self.row().commit_time()
    }

    /// Of author and committer, in minutes east of Greenwich.
    pub fn zones(self) -> (i16, i16) {
        (self.row().author_zone.get(), self.row().commit_zone.get())
    }

    /// Whether `ancestor` is among its parents, their parents and so on. No commit is its own ancestor.
    pub fn has_ancestor(self, ancestor: CommitView<'_>) -> bool {
        let git = &self.corpus.code.git;
        let mut seen = BTreeSet::new();
        let mut next = git.parents(self.id).to_vec();
        while let Some(commit) = next.pop() {
            if commit == ancestor.id {
                return true;
            }
            if seen.insert(commit) {
                next.extend(git.parents(commit));
            }
        }
        false
    }

    /// Its message and files. `None`: only its name is known.
    pub fn text<T: Texts>(self, texts: &T) -> Result<Option<CommitText>, T::Error> {
        let told = self.row().told();
        if told.len == 0 {
            return Ok(None);
        }
        let bytes = texts.read(told)?;
        Ok(read_text(&bytes))
    }

    /// Its message; empty if only its name is known.
    pub fn message<T: Texts>(self, texts: &T) -> Result<String, T::Error> {
        let text = self.text(texts)?;
        Ok(text.map(|text| text.text().into_owned()).unwrap_or_default())
    }
}

/// What [`Git::add`] took in once reads again, unless the log was changed under us.
fn read_text(told: &[u8]) -> Option<CommitText> {
    let commit = borrowed::GitCommit::decode(told).ok()?;
    let parsed = parse(commit.raw).ok()?;
    let files = commit.diff_tree.unwrap_or_default().file;
    let mut files: Vec<FileStat> = files
        .iter()
        .map(|file| FileStat {
            name: file.file.lossy().into_owned(),
            added: file.added,
            deleted: file.deleted,
            binary: file.binary,
        })
        .collect();
    files.sort();
    Some(CommitText {
        tree: parsed.tree,
        message: parsed.message.to_vec(),
        is_latin1: is_latin1(parsed.encoding),
        files,
    })
}
