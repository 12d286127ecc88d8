//! The mutation log: every change to the outside world that was seen, in order, for ever.
//!
//! A log is a row of segments; a segment is a file of records; a record is a header and the bytes
//! of one mutation, which mean nothing here. [`split`] and [`examine`] touch no file. A [`Folder`]
//! holds the segments of one log, [`Lease`] makes its one [`Writer`], and [`LogReader`] reads what
//! the writer has made durable. What is appended becomes visible only when it is on stable storage,
//! so that what was once shown never changes and never shrinks.
//!
//! Start at [`split`], then [`Writer::append`] and [`Writer::commit`].

mod account; // what is wrong with a damaged segment
mod disk; // the little that a writer asks of a file system
mod folder;
mod group; // many appenders, few syncs
mod lease;
mod place;
mod reader;
mod record;
mod writer;

pub use account::{Account, Fault, FaultKind, examine};
pub use disk::{Disk, FolderDisk};
pub use folder::{Folder, ListError, SegmentFile, State, day_files};
pub use group::{Appender, Ended, GroupCommit};
pub use lease::{Lease, LeaseError, Owner};
pub use place::{BadSum, Place, Segment, SegmentNumber, Span, Sum, Summer};
pub use reader::LogReader;
pub use record::{BadRecord, MAX_PAYLOAD, Reason, Records, Split, put, split};
pub use writer::{CommitError, OpenError, TARGET, TooLong, Torn, Writer};
