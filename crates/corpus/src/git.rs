use std::collections::BTreeSet;
use std::fmt;

use ids::Timestamp;
use maintpb::borrowed::{self, View};
use mutlog::Span;

use crate::apply::Corpus;
use crate::commit::{BadCommit, CommitText, FileStat, Person, is_latin1, parse};
use crate::names::{Name, Names};
use crate::notedb::{Facts, facts};
use crate::original::{self, IssueRef};
use crate::shared::{Index, Pages};
use crate::text::Texts;

/// The name of a git object: SHA-1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 20]);

/// A commit of the corpus, which may be one of which only the name is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitId(u32);

#[derive(Clone, Default)]
pub(crate) struct Git {
    rows: Pages<Row>,
    index: Index,
    /// Of the few commits with more than one.
    more_parents: Pages<Box<[CommitId]>>,
    issue_refs: Pages<Box<[IssueRef]>>,
    unknown: u32,
}

/// A commit. There are millions.
#[derive(Clone)]
pub(crate) struct Row {
    pub hash: Hash,
    parents: Parents,
    /// The message of the log that tells of it; empty as long as only its name is known.
    told: Span,
    pub author: Name,
    pub committer: Name,
    pub author_time: i64,
    pub commit_time: i64,
    pub author_zone: i16,
    pub commit_zone: i16,
    pub facts: Facts,
    /// The issues that its message names; `NONE` or a row.
    issue_refs: u32,
}

#[derive(Clone, Copy)]
enum Parents {
    None,
    One(CommitId),
    /// A row.
    More(u32),
}

const NONE: u32 = u32::MAX;

impl Hash {
    /// 40 hex digits.
    pub fn parse(hex: &[u8]) -> Option<Hash> {
        let mut hash = [0; 20];
        if hex.len() != 40 {
            return None;
        }
        for (byte, two) in hash.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(two[0])? << 4 | digit(two[1])?;
        }
        Some(Hash(hash))
    }

    /// Its bytes are as good as random already.
    fn spread(self) -> u64 {
        u64::from_le_bytes(self.0[..8].try_into().expect("8 of 20"))
    }
}

#[inline]
fn digit(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        b'A'..=b'F' => Some(hex - b'A' + 10),
        _ => None,
    }
}

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
        let parents = match &parsed.parents[..] {
            [] => Parents::None,
            [one] => Parents::One(self.find_or_name(*one)),
            more => {
                let more = more.iter().map(|hash| self.find_or_name(*hash)).collect();
                Parents::More(self.more_parents.push(more))
            }
        };
        let facts = facts(names, parsed.message);
        let refs = match facts.is_meta {
            true => Box::default(),
            false => original::issue_refs(names, parsed.message),
        };
        let mut row = Row::named(hash);
        row.parents = parents;
        row.told = told;
        row.facts = facts;
        if let Some(author) = parsed.author {
            row.author = names.intern(author.who);
            (row.author_time, row.author_zone) = (author.time, author.zone);
        }
        if let Some(committer) = parsed.committer {
            row.committer = names.intern(committer.who);
            (row.commit_time, row.commit_zone) = (committer.time, committer.zone);
        }
        if !refs.is_empty() {
            row.issue_refs = self.issue_refs.push(refs);
        }
        match self.find(hash) {
            Some(known) => {
                let known = self.rows.get_mut(known.0);
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
        let rows = &self.rows;
        self.index
            .find(hash.spread(), |at| rows.get(*at).hash == hash)
            .map(CommitId)
    }

    pub fn row(&self, commit: CommitId) -> &Row {
        self.rows.get(commit.0)
    }

    pub fn parents(&self, commit: CommitId) -> &[CommitId] {
        match &self.row(commit).parents {
            Parents::None => &[],
            Parents::One(one) => std::slice::from_ref(one),
            Parents::More(row) => self.more_parents.get(*row),
        }
    }

    pub fn issue_refs(&self, commit: CommitId) -> &[IssueRef] {
        match self.row(commit).issue_refs {
            NONE => &[],
            row => self.issue_refs.get(row),
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
        self.index.insert(hash, at, |at| rows.get(*at).hash.spread());
        CommitId(at)
    }
}

impl Row {
    fn named(hash: Hash) -> Row {
        Row {
            hash,
            parents: Parents::None,
            told: Span::default(),
            author: Name::EMPTY,
            committer: Name::EMPTY,
            author_time: 0,
            commit_time: 0,
            author_zone: 0,
            commit_zone: 0,
            facts: Facts::default(),
            issue_refs: NONE,
        }
    }

    pub fn is_known(&self) -> bool {
        self.told.len > 0
    }
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
        Timestamp::from_secs(self.row().author_time)
    }

    pub fn commit_time(self) -> Timestamp {
        Timestamp::from_secs(self.row().commit_time)
    }

    /// Of author and committer, in minutes east of Greenwich.
    pub fn zones(self) -> (i16, i16) {
        (self.row().author_zone, self.row().commit_zone)
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
        let told = self.row().told;
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
