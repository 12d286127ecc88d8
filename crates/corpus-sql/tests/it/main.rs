//! The tables over a made-up log: what the handbook says, and each table against the corpus itself.

mod handbook;
mod tables;

use std::path::Path;
use std::sync::Arc;

use corpus_sql::{Source, Sql};
use maintnerd::Leader;
use maintnerd::synthetic::Synthetic;
use maintpb::{Message, Mutation};
use mutlog::Folder;

/// The corpus of a log in `dir` that has these mutations.
pub fn source(dir: &Path, mutations: impl Iterator<Item = Mutation>) -> Source {
    let folder = Folder::new(dir);
    let leader = Leader::open(folder.clone()).unwrap();
    let payloads: Vec<Vec<u8>> = mutations.map(|mutation| mutation.encode_to_vec()).collect();
    leader.appender.append(payloads).unwrap();
    leader.close().unwrap();
    let started = maintnerd::load_from(&folder).unwrap();
    Source {
        corpus: Arc::new(started.replay.corpus().clone()),
        texts: started.reader,
    }
}

pub fn example(dir: &Path, records: usize) -> Source {
    source(dir, Synthetic::new(1).take(records))
}

pub fn sql(source: &Source) -> Sql {
    Sql::open(source.clone()).unwrap()
}
