//! A log in memory.

use corpus::{Corpus, Span, Texts};
use maintpb::borrowed::{Mutation, View};
use mutlog::{Place, SegmentNumber};
use sync::{Project, Tree};

/// The payloads of a log, each as if it were a segment.
#[derive(Debug, Clone, Default)]
pub struct Log(pub Vec<Vec<u8>>);

/// A log that takes so many mutations, then fails.
pub struct Room<'a> {
    pub log: &'a mut Log,
    pub left: usize,
}

impl sync::Log for Room<'_> {
    type Error = &'static str;

    async fn append(&mut self, mutations: &[Vec<u8>]) -> Result<(), Self::Error> {
        let fit = mutations.len().min(self.left);
        self.log.0.extend_from_slice(&mutations[..fit]);
        self.left -= fit;
        if fit < mutations.len() {
            Err("full")
        } else {
            Ok(())
        }
    }
}

impl Log {
    pub fn with_room(&mut self, left: usize) -> Room<'_> {
        Room { log: self, left }
    }
}

impl Texts for Log {
    type Error = std::convert::Infallible;

    fn read(&self, span: Span) -> Result<Vec<u8>, Self::Error> {
        let payload = &self.0[span.at.segment.0 as usize];
        let from = span.at.offset as usize;
        Ok(payload[from..from + span.len as usize].to_vec())
    }
}

/// A corpus of this log, which must be without troubles.
pub fn corpus(log: &Log) -> Corpus {
    let mut corpus = Corpus::default();
    for (at, payload) in log.0.iter().enumerate() {
        let segment = SegmentNumber(u32::try_from(at).unwrap());
        let troubles = corpus
            .apply_record(Place { segment, offset: 0 }, payload)
            .unwrap();
        assert_eq!(troubles, [], "mutation {at}");
    }
    assert_eq!(corpus.finish(), []);
    corpus
}

/// As after a restart.
pub fn project(name: &str, log: &Log) -> Project {
    let mut project = Project::new(name);
    for payload in &log.0 {
        if let Some(told) = Mutation::decode(payload).unwrap().gerrit {
            project.apply(&told);
        }
    }
    project
}

/// As after a restart.
pub fn tree(mut tree: Tree, log: &Log) -> Tree {
    for payload in &log.0 {
        if let Some(told) = Mutation::decode(payload).unwrap().git {
            tree.apply(&told);
        }
    }
    tree
}

pub fn dump(log: &Log) -> Vec<String> {
    let mut lines = Vec::new();
    let done = corpus::dump(&corpus(log), log, &mut |line: &str| lines.push(line.to_owned()));
    done.unwrap_or_else(|never| match never {});
    lines
}
