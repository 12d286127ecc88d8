//! Step logs on disk: appended while the step runs, read by range while it does, bounded.
//!
//! A log is a few files, each named with the place in the step's output where it begins; their
//! lengths are the whole truth, so that nothing is lost or doubled over a crash. Of output longer
//! than its limit, the first and the last half of the limit are kept. All file work is done off the
//! async runtime. What a log means, and when it may go, is not known here.
//!
//! Start at [`LogStore::writer`] and [`LogStore::read`].

mod layout; // which files a log has, and how they read as one text
mod lines;
mod seal; // whether a finished log is what was written
mod store;
mod writer;

pub use lines::{LineIndex, Lines};
pub use seal::Seal;
pub use store::{LogError, LogStore, disk_free};
pub use writer::LogWriter;
