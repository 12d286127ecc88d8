use std::convert::Infallible;

use corpus::{Corpus, Span, Texts, Trouble};
use maintpb::{Message, Mutation};
use mutlog::{Place, SegmentNumber};

/// A log in memory, a segment for each mutation, and the corpus that it gives.
#[derive(Default)]
pub struct Log {
    pub payloads: Payloads,
    pub corpus: Corpus,
}

#[derive(Default)]
pub struct Payloads(pub Vec<Vec<u8>>);

impl Texts for Payloads {
    type Error = Infallible;

    fn read(&self, span: Span) -> Result<Vec<u8>, Infallible> {
        let (from, len) = (span.at.offset as usize, span.len as usize);
        Ok(self.0[span.at.segment.0 as usize][from..from + len].to_vec())
    }
}

impl Log {
    /// Applies a mutation as a batch of its own.
    pub fn apply(&mut self, mutation: Mutation) -> Vec<Trouble> {
        let payload = mutation.encode_to_vec();
        let segment = SegmentNumber(self.payloads.0.len() as u32);
        let mut troubles = self
            .corpus
            .apply_record(Place { segment, offset: 0 }, &payload)
            .unwrap();
        self.payloads.0.push(payload);
        troubles.extend(self.corpus.finish());
        troubles
    }
}

pub fn ok<T>(found: Result<T, Infallible>) -> T {
    let Ok(found) = found;
    found
}
