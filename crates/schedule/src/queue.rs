use std::collections::{BTreeMap, BTreeSet};

use ids::BuilderName;

use crate::order::{Age, Rank, Turn};

/// The builds of one host type that take any machine of it, one line for each builder.
///
/// A line is closed while its builder is at its limit. Only the heads of the open lines are compared
/// with each other, so that opening and closing a line costs the same however long it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    lines: BTreeMap<BuilderName, Line>,
    /// The first of each open line.
    heads: BTreeSet<Rank>,
    /// The oldest post-submit build of each open line.
    oldest: BTreeSet<Age>,
}

/// Never empty.
#[derive(Debug, Clone)]
struct Line {
    open: bool,
    ranks: BTreeSet<Rank>,
    /// Of the post-submit builds in `ranks`.
    ages: BTreeSet<Age>,
}

impl Queue {
    /// `open` tells whether the builder may start a build, as [`Queue::set_open`] does.
    pub fn insert(&mut self, builder: &BuilderName, open: bool, rank: Rank) {
        if !self.lines.contains_key(builder) {
            let line = Line {
                open,
                ranks: BTreeSet::new(),
                ages: BTreeSet::new(),
            };
            self.lines.insert(builder.clone(), line);
        }
        self.change(builder, |line| {
            line.open = open;
            line.ranks.insert(rank);
            line.ages.extend(rank.age());
        });
    }

    pub fn remove(&mut self, builder: &BuilderName, rank: &Rank) {
        self.change(builder, |line| {
            line.ranks.remove(rank);
            if let Some(age) = rank.age() {
                line.ages.remove(&age);
            }
        });
    }

    /// Nothing for a builder without a line.
    pub fn set_open(&mut self, builder: &BuilderName, open: bool) {
        self.change(builder, |line| line.open = open);
    }

    pub fn open_all(&mut self) {
        for line in self.lines.values_mut() {
            line.open = true;
            self.heads.extend(line.ranks.first());
            self.oldest.extend(line.ages.first());
        }
    }

    /// The build that goes next, of those whose lines are open.
    pub fn first(&self, turn: Turn) -> Option<Rank> {
        let head = *self.heads.first()?;
        match (turn, head.age()) {
            (Turn::Oldest, Some(_)) => self.oldest.first().map(Age::rank),
            (Turn::Oldest, None) | (Turn::Ranked, _) => Some(head),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Keeps `heads`, `oldest` and the absence of empty lines true over a change of one line.
    fn change(&mut self, builder: &BuilderName, change: impl FnOnce(&mut Line)) {
        let Some(line) = self.lines.get_mut(builder) else {
            return;
        };
        if line.open {
            if let Some(first) = line.ranks.first() {
                self.heads.remove(first);
            }
            if let Some(first) = line.ages.first() {
                self.oldest.remove(first);
            }
        }
        change(line);
        if line.open {
            self.heads.extend(line.ranks.first());
            self.oldest.extend(line.ages.first());
        }
        if line.ranks.is_empty() {
            self.lines.remove(builder);
        }
    }
}
