use std::collections::{BTreeMap, BTreeSet, VecDeque};

use github::Answer;
use github::model::{self, Open, Time};
use maintpb::{GithubIssueMutation, IssuePlace, Mutation};
use serde::de::DeserializeOwned;

use super::differ;
use super::known::Repo;

/// How often an issue is followed to where it went.
const MAX_HOPS: u8 = 3;

/// How far a round looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// At what changed.
    Recent,
    /// At all issues: also for what is gone.
    Full,
}

/// What to ask: the address from the slash on, or whole; and the answer we have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub address: String,
    pub etag: Option<String>,
}

/// The round ends; the next begins where this one was.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Somebody must say so in the configuration.
    #[error("`{owner}/{name}` is at `{location}`")]
    Moved {
        owner: String,
        name: String,
        location: String,
    },
    #[error("`{owner}/{name}` has no issues: they are disabled")]
    Disabled { owner: String, name: String },
    #[error("GitHub answered {status} to `{address}`")]
    Refused { address: String, status: u16 },
    #[error("the answer to `{address}` is not what GitHub answers")]
    Malformed {
        address: String,
        source: serde_json::Error,
    },
}

/// The sync of a repository of GitHub.
#[derive(Debug)]
pub struct Poll {
    repo: Repo,
    /// By address; may be kept over a restart, with the log.
    pub etags: BTreeMap<String, String>,
    /// Of this round; they hold when all that they stand for is logged.
    new_etags: BTreeMap<String, String>,
    round: Round,
    state: State,
    /// Issues of the last page, still to be completed.
    queue: VecDeque<Pending>,
    /// Where the list goes on when they are.
    list: Option<List>,
    /// Issues that are to be asked for one by one.
    lookups: VecDeque<i32>,
    /// Issues that were completed in this round, as of when they had changed.
    done: BTreeSet<(i32, Time)>,
    /// Issues that the list had.
    listed: BTreeSet<i32>,
    /// Issues of which something was not there; they were asked for themselves, once.
    doubted: BTreeSet<i32>,
}

#[derive(Debug)]
enum State {
    Idle,
    Labels {
        address: String,
        found: Vec<model::Label>,
    },
    Milestones {
        address: String,
        found: Vec<model::Milestone>,
    },
    Issues(List),
    Part {
        pending: Pending,
        part: Part,
        address: String,
    },
    Lookup {
        number: i32,
        address: String,
        hops: u8,
    },
}

#[derive(Debug, Clone)]
struct List {
    since: i64,
    address: String,
}

/// An issue of which something is to be told.
#[derive(Debug)]
struct Pending {
    told: GithubIssueMutation,
    /// As the list says.
    updated: Option<Time>,
    comments: Option<usize>,
    /// All comments are asked for, not only those that changed.
    all: bool,
    /// Of comments.
    found: BTreeSet<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Comments,
    Events,
    Reviews,
}

impl Poll {
    /// `repo`: what the log knows.
    pub fn new(repo: Repo) -> Poll {
        Poll {
            repo,
            etags: BTreeMap::new(),
            new_etags: BTreeMap::new(),
            round: Round::Recent,
            state: State::Idle,
            queue: VecDeque::new(),
            list: None,
            lookups: VecDeque::new(),
            done: BTreeSet::new(),
            listed: BTreeSet::new(),
            doubted: BTreeSet::new(),
        }
    }

    pub fn repo(&self) -> &Repo {
        &self.repo
    }

    /// What is known, for the next one.
    pub fn into_repo(self) -> Repo {
        self.repo
    }

    /// Begins a round; what is left of the last one is given up.
    pub fn start(&mut self, round: Round) {
        self.round = round;
        self.new_etags.clear();
        self.queue.clear();
        self.list = None;
        self.lookups.clear();
        self.done.clear();
        self.listed.clear();
        self.doubted.clear();
        let address = self.address("labels?per_page=100");
        self.state = State::Labels {
            address,
            found: Vec::new(),
        };
    }

    /// What to ask; `None`: the round is over, and to be [finished](Poll::finish).
    pub fn ask(&self) -> Option<Question> {
        let address = match &self.state {
            State::Idle => return None,
            State::Labels { address, .. }
            | State::Milestones { address, .. }
            | State::Issues(List { address, .. })
            | State::Part { address, .. }
            | State::Lookup { address, .. } => address,
        };
        // A full round does not trust what it was told before.
        let etag = self.etags.get(address).filter(|_| self.round == Round::Recent);
        Some(Question {
            address: address.clone(),
            etag: etag.cloned(),
        })
    }

    /// The round is over, and all that it told is logged: so what was answered need not be read again.
    pub fn finish(&mut self) {
        self.etags.append(&mut self.new_etags);
    }

    /// Takes in a mutation of the log: those of others, and those that it made.
    pub fn apply(&mut self, told: &maintpb::borrowed::Mutation<'_>) {
        if let Some(issue) = &told.github_issue {
            self.repo.apply_issue(issue);
        }
        if let Some(github) = &told.github {
            self.repo.apply(github);
        }
    }

    /// Takes in the answer to what was asked. `Some`: to be logged and [applied](Poll::apply) before
    /// anything else is asked.
    pub fn answer(&mut self, answer: &Answer) -> Result<Option<Mutation>, Trouble> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => Ok(None),
            State::Labels { address, found } => self.labels(answer, address, found),
            State::Milestones { address, found } => self.milestones(answer, address, found),
            State::Issues(list) => self.issues(answer, list),
            State::Part {
                pending,
                part,
                address,
            } => self.part(answer, pending, part, &address),
            State::Lookup {
                number,
                address,
                hops,
            } => self.lookup(answer, number, &address, hops),
        }
    }

    fn labels(
        &mut self,
        answer: &Answer,
        address: String,
        mut found: Vec<model::Label>,
    ) -> Result<Option<Mutation>, Trouble> {
        let mut told = None;
        if self.changed(answer, &address)? {
            found.extend(read::<Vec<model::Label>>(answer, &address)?);
            if let Some(address) = answer.next.clone() {
                self.state = State::Labels { address, found };
                return Ok(None);
            }
            told = differ::labels(&self.repo, &found);
        }
        let address = self.address("milestones?state=all&per_page=100");
        self.state = State::Milestones {
            address,
            found: Vec::new(),
        };
        Ok(told.map(of_repo))
    }

    fn milestones(
        &mut self,
        answer: &Answer,
        address: String,
        mut found: Vec<model::Milestone>,
    ) -> Result<Option<Mutation>, Trouble> {
        let mut told = None;
        if self.changed(answer, &address)? {
            found.extend(read::<Vec<model::Milestone>>(answer, &address)?);
            if let Some(address) = answer.next.clone() {
                self.state = State::Milestones { address, found };
                return Ok(None);
            }
            told = differ::milestones(&self.repo, &found);
        }
        let newest = self.repo.issues.values().filter_map(|issue| issue.updated).max();
        self.state = State::Issues(match (self.round, newest) {
            (Round::Recent, Some(newest)) => self.list_since(newest),
            (Round::Full, _) | (_, None) => self.list_since(0),
        });
        Ok(told.map(of_repo))
    }

    /// Whether GitHub has another answer than before; or why it has none.
    fn changed(&mut self, answer: &Answer, address: &str) -> Result<bool, Trouble> {
        let (owner, name) = (self.repo.owner.clone(), self.repo.name.clone());
        match answer.status {
            200 => {
                if let Some(etag) = &answer.etag {
                    self.new_etags.insert(address.to_owned(), etag.clone());
                }
                Ok(true)
            }
            304 => Ok(false),
            301 | 302 | 307 | 308 => Err(Trouble::Moved {
                owner,
                name,
                location: answer.location.clone().unwrap_or_default(),
            }),
            410 => Err(Trouble::Disabled { owner, name }),
            _ => Err(refused(answer, address)),
        }
    }

    fn issues(&mut self, answer: &Answer, list: List) -> Result<Option<Mutation>, Trouble> {
        if self.changed(answer, &list.address)? {
            let page: Vec<model::Issue> = read(answer, &list.address)?;
            for issue in &page {
                self.listed.insert(issue.number);
                self.consider(issue);
            }
            // While it is read issues change and leave their page, and what is behind them moves up: so
            // the next page begins at the time where this one ended.
            let last = page.last().map_or(0, |issue| issue.updated_at.0);
            self.list = match &answer.next {
                None => None,
                Some(_) if last - 1 > list.since => Some(self.list_since(last)),
                Some(next) => Some(List {
                    since: list.since,
                    address: next.clone(),
                }),
            };
        }
        self.go_on();
        Ok(None)
    }

    /// Notes an issue if there is something to tell of it.
    fn consider(&mut self, issue: &model::Issue) {
        if self.done.contains(&(issue.number, issue.updated_at)) {
            return;
        }
        let known = self.repo.issues.get(&issue.number);
        let told = differ::issue(&self.repo, issue);
        let comments = known.map_or(0, |known| known.comments.len());
        let stale = known.is_some_and(|known| known.is_stale());
        if told.is_some() || stale || comments != issue.comments || self.round == Round::Full {
            self.queue.push_back(Pending {
                told: told.unwrap_or_else(|| differ::place(&self.repo, issue)),
                updated: Some(issue.updated_at),
                comments: Some(issue.comments),
                all: self.round == Round::Full || issue.comments < comments,
                found: BTreeSet::new(),
            });
        }
    }

    /// To what was doubted, the next issue, the next page, what is stale, and what the list lacks.
    fn go_on(&mut self) {
        if let Some(number) = self.lookups.pop_front() {
            let address = self.address(&format!("issues/{number}"));
            self.state = State::Lookup {
                number,
                address,
                hops: 0,
            };
        } else if let Some(pending) = self.queue.pop_front() {
            self.begin(pending);
        } else if let Some(list) = self.list.take() {
            self.state = State::Issues(list);
        } else if let Some(number) = self.next_stale() {
            let known = &self.repo.issues[&number];
            let told = GithubIssueMutation {
                pull_request: known.pull_request,
                ..differ::numbered(&self.repo, number)
            };
            self.done.insert((number, Time(known.updated.unwrap_or(0))));
            self.begin(Pending {
                told,
                updated: None,
                comments: None,
                all: true,
                found: BTreeSet::new(),
            });
        } else if self.round == Round::Full && !self.listed.is_empty() {
            let highest = self.repo.issues.keys().next_back().copied().unwrap_or(0);
            let gone = |number: &i32| self.repo.issues.get(number).is_some_and(|issue| issue.not_exist);
            self.lookups = (1..=highest)
                .filter(|number| !self.listed.contains(number) && !gone(number))
                .collect();
            self.listed.clear();
            self.go_on();
        }
    }

    /// An issue of an older log whose parts may be incomplete.
    fn next_stale(&self) -> Option<i32> {
        let done = |number: &i32| {
            self.done
                .range((*number, Time(i64::MIN))..=(*number, Time(i64::MAX)))
                .next()
                .is_some()
        };
        let stale = self.repo.issues.iter().filter(|(_, issue)| issue.is_stale());
        stale.map(|(number, _)| *number).find(|number| !done(number))
    }

    fn begin(&mut self, pending: Pending) {
        let known = self.repo.issues.get(&pending.told.number);
        let newest = known.and_then(|known| known.comments.values().map(|comment| comment.updated).max());
        let since = match newest {
            Some(newest) if !pending.all => format!("&since={}", Time(newest - 1)),
            _ => String::new(),
        };
        let address = self.address(&format!(
            "issues/{}/comments?per_page=100{since}",
            pending.told.number
        ));
        self.state = State::Part {
            pending,
            part: Part::Comments,
            address,
        };
    }

    fn part(
        &mut self,
        answer: &Answer,
        mut pending: Pending,
        part: Part,
        address: &str,
    ) -> Result<Option<Mutation>, Trouble> {
        let gone = matches!(answer.status, 301 | 302 | 307 | 308 | 404 | 410);
        if gone {
            // The issue went away while we looked, and is asked where to. If it is there after all, what
            // can be had is told, and the rest is asked for in the next round: one odd issue stops no other.
            let number = pending.told.number;
            let first = self.doubted.insert(number);
            if first {
                self.lookups.push_front(number);
            } else {
                self.done.extend(pending.updated.map(|updated| (number, updated)));
            }
            self.go_on();
            return Ok((!first).then(|| of_issue(pending.told)));
        }
        if answer.status != 200 {
            return Err(refused(answer, address));
        }
        let number = pending.told.number;
        let known = self.repo.issues.get(&number);
        match part {
            Part::Comments => {
                for comment in read::<Vec<model::Comment>>(answer, address)? {
                    if pending.found.insert(comment.id) {
                        pending.told.comment.extend(differ::comment(known, &comment));
                    }
                }
            }
            Part::Events => {
                let has = |id: i64, told: &GithubIssueMutation| {
                    known.is_some_and(|known| known.events.contains(&id))
                        || told.event.iter().any(|event| event.id == id)
                };
                for event in read::<Vec<Open>>(answer, address)?
                    .into_iter()
                    .filter_map(differ::event)
                {
                    if !has(event.id, &pending.told) {
                        pending.told.event.push(event);
                    }
                }
            }
            Part::Reviews => {
                let has = |id: i64, told: &GithubIssueMutation| {
                    known.is_some_and(|known| known.reviews.contains(&id))
                        || told.review.iter().any(|review| review.id == id)
                };
                for review in read::<Vec<Open>>(answer, address)?
                    .into_iter()
                    .filter_map(differ::review)
                {
                    if !has(review.id, &pending.told) {
                        pending.told.review.push(review);
                    }
                }
            }
        }
        if let Some(address) = answer.next.clone() {
            self.state = State::Part {
                pending,
                part,
                address,
            };
            return Ok(None);
        }
        let first = |known: usize| format!("per_page=100&page={}", 1 + known / 100);
        let next = match part {
            Part::Comments => {
                let known: BTreeSet<i64> = known
                    .map(|known| known.comments.keys().copied().collect())
                    .unwrap_or_default();
                let there = known.union(&pending.found).count();
                if !pending.all && pending.comments.is_some_and(|count| count != there) {
                    // Some are gone, or came in unseen.
                    pending.all = true;
                    pending.found.clear();
                    pending.told.comment.clear();
                    self.begin(pending);
                    return Ok(None);
                }
                if pending.all {
                    pending.told.deleted_comments = known.difference(&pending.found).copied().collect();
                }
                pending.told.comment_status = differ::status(answer.date);
                let known = self
                    .repo
                    .issues
                    .get(&number)
                    .map_or(0, |known| known.events.len());
                Some((Part::Events, format!("issues/{number}/events?{}", first(known))))
            }
            Part::Events => {
                pending.told.event_status = differ::status(answer.date);
                let known = known.map_or(0, |known| known.reviews.len());
                let reviews = (Part::Reviews, format!("pulls/{number}/reviews?{}", first(known)));
                Some(reviews).filter(|_| pending.told.pull_request)
            }
            Part::Reviews => {
                pending.told.review_status = differ::status(answer.date);
                None
            }
        };
        if let Some((part, address)) = next {
            let address = self.address(&address);
            self.state = State::Part {
                pending,
                part,
                address,
            };
            return Ok(None);
        }
        self.done.extend(pending.updated.map(|updated| (number, updated)));
        self.go_on();
        Ok(Some(of_issue(pending.told)))
    }

    fn lookup(
        &mut self,
        answer: &Answer,
        number: i32,
        address: &str,
        hops: u8,
    ) -> Result<Option<Mutation>, Trouble> {
        let gone = GithubIssueMutation {
            not_exist: true,
            ..differ::numbered(&self.repo, number)
        };
        let told = match (answer.status, &answer.location) {
            (200, _) => {
                let issue: model::Issue = read(answer, address)?;
                let ours = self.address("");
                let ours = ours.trim_end_matches('/');
                if hops == 0
                    || issue
                        .repository_url
                        .to_lowercase()
                        .ends_with(&ours.to_lowercase())
                {
                    self.consider(&issue);
                    if let Some(found) = self.queue.pop_back_if(|found| found.told.number == number) {
                        self.queue.push_front(found);
                    }
                    None
                } else {
                    let (owner, repo) = differ::repo_of(&issue.repository_url).unwrap_or_default();
                    Some(GithubIssueMutation {
                        transferred_to: Some(IssuePlace {
                            owner,
                            repo,
                            number: issue.number,
                        }),
                        ..gone
                    })
                }
            }
            (301 | 302 | 307 | 308, Some(location)) if hops < MAX_HOPS => {
                self.state = State::Lookup {
                    number,
                    address: location.clone(),
                    hops: hops + 1,
                };
                return Ok(None);
            }
            (404 | 410, _) => Some(gone),
            _ => return Err(refused(answer, address)),
        };
        self.go_on();
        Ok(told.map(of_issue))
    }

    fn address(&self, rest: &str) -> String {
        format!("/repos/{}/{}/{rest}", self.repo.owner, self.repo.name)
    }

    /// From this second on, and a second before, whatever GitHub takes `since` for.
    fn list_since(&self, since: i64) -> List {
        let since = (since - 1).max(0);
        let rest = format!(
            "issues?state=all&sort=updated&direction=asc&per_page=100&since={}",
            Time(since)
        );
        List {
            since,
            address: self.address(&rest),
        }
    }
}

fn read<T: DeserializeOwned>(answer: &Answer, address: &str) -> Result<T, Trouble> {
    serde_json::from_slice(&answer.body).map_err(|source| Trouble::Malformed {
        address: address.to_owned(),
        source,
    })
}

fn refused(answer: &Answer, address: &str) -> Trouble {
    Trouble::Refused {
        address: address.to_owned(),
        status: answer.status,
    }
}

fn of_repo(told: maintpb::GithubMutation) -> Mutation {
    Mutation {
        github: Some(told),
        ..Mutation::default()
    }
}

fn of_issue(told: GithubIssueMutation) -> Mutation {
    Mutation {
        github_issue: Some(told),
        ..Mutation::default()
    }
}
