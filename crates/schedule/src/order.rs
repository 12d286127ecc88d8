use std::cmp::{Ordering, Reverse};

use ids::{BuildId, Timestamp};

use crate::Class;

/// Where a waiting build stands among those of its host type. The derived order, field after field,
/// is the order of service; the build's number makes it total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    class: Class,
    late: Late,
    /// The commit's time for a post-submit build in good time; the same for all others.
    newest: Reverse<Timestamp>,
    place: Timestamp,
    pub build: BuildId,
}

/// Whether a build has waited for longer than [`crate::Limits::max_wait`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Late {
    Overdue,
    InTime,
}

/// A post-submit build's place by the age of its request, for the grants that go to the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age {
    late: Late,
    place: Timestamp,
    build: BuildId,
    newest: Reverse<Timestamp>,
}

/// Who is next: by rank, or, when that is a post-submit build, the oldest of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Ranked,
    Oldest,
}

impl Rank {
    pub fn new(class: Class, late: Late, commit_time: Timestamp, place: Timestamp, build: BuildId) -> Rank {
        let newest = match (class, late) {
            (Class::PostSubmit, Late::InTime) => commit_time,
            (Class::PostSubmit, Late::Overdue) => Timestamp(0),
            (Class::Urgent | Class::Interactive | Class::Try, Late::Overdue | Late::InTime) => Timestamp(0),
        };
        Rank {
            class,
            late,
            newest: Reverse(newest),
            place,
            build,
        }
    }

    /// `None` for the classes that go by age anyway.
    pub fn age(&self) -> Option<Age> {
        let Rank {
            class,
            late,
            newest,
            place,
            build,
        } = *self;
        (class == Class::PostSubmit).then_some(Age {
            late,
            place,
            build,
            newest,
        })
    }
}

impl Age {
    pub fn rank(&self) -> Rank {
        let Age {
            late,
            place,
            build,
            newest,
        } = *self;
        Rank {
            class: Class::PostSubmit,
            late,
            newest,
            place,
            build,
        }
    }
}

impl Turn {
    /// `grants` is how many post-submit grants the host type has had; every `oldest_every`-th one
    /// goes to the oldest, none if that is zero.
    pub fn after(grants: u32, oldest_every: u32) -> Turn {
        match oldest_every {
            0 => Turn::Ranked,
            n if grants % n == n - 1 => Turn::Oldest,
            _ => Turn::Ranked,
        }
    }

    pub fn compare(self, a: &Rank, b: &Rank) -> Ordering {
        match (self, a.age(), b.age()) {
            (Turn::Oldest, Some(a), Some(b)) => a.cmp(&b),
            _ => a.cmp(b),
        }
    }
}
