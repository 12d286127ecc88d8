//! What of a corpus is another than in an earlier one.

use std::sync::Arc;

use crate::apply::Corpus;

/// What differs between two corpora; also what one of them does not have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed {
    pub issues: Vec<IssueName>,
    pub changes: Vec<ChangeName>,
    pub refs: Vec<RefName>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IssueName {
    pub owner: String,
    pub repo: String,
    pub number: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeName {
    pub project: String,
    pub number: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefName {
    pub project: String,
    pub name: String,
}

impl Changed {
    pub fn is_empty(&self) -> bool {
        self.issues.is_empty() && self.changes.is_empty() && self.refs.is_empty()
    }
}

impl Corpus {
    /// Costs little if this one came from `before` by applying more of the log: what both share is not
    /// looked at. Of two that have nothing in common, more may be told than differs.
    pub fn changed_since(&self, before: &Corpus) -> Changed {
        let mut changed = Changed::default();
        let (now, then) = (&self.issues.github, &before.issues.github);
        for repo in &now.repos {
            let known = then.find(&repo.owner, &repo.name).ok().map(|at| &then.repos[at]);
            let numbers = repo.issues.differing(known.map(|known| &known.issues));
            changed.issues.extend(numbers.into_iter().map(|number| IssueName {
                owner: repo.owner.clone(),
                repo: repo.name.clone(),
                number: number.cast_signed(),
            }));
        }
        let (now, then) = (&self.code, &before.code);
        for (key, project) in &now.gerrit.projects {
            let known = then.gerrit.projects.get(key);
            let numbers = project.changes.differing(known.map(|known| &known.changes));
            changed
                .changes
                .extend(numbers.into_iter().map(|number| ChangeName {
                    project: key.clone(),
                    number: number.cast_signed(),
                }));
            if known.is_some_and(|known| Arc::ptr_eq(&known.refs, &project.refs)) {
                continue;
            }
            let was = |name: &String| {
                known
                    .and_then(|known| known.refs.get(name))
                    .map(|id| then.git.row(*id).hash)
            };
            let is = |name: &String| project.refs.get(name).map(|id| now.git.row(*id).hash);
            let gone = known.into_iter().flat_map(|known| known.refs.keys());
            let gone = gone.filter(|name| !project.refs.contains_key(*name));
            let names = project
                .refs
                .keys()
                .chain(gone)
                .filter(|name| was(name) != is(name));
            changed.refs.extend(names.map(|name| RefName {
                project: key.clone(),
                name: name.clone(),
            }));
        }
        changed.refs.sort();
        changed
    }
}
