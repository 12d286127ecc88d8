//! A log that was made up, of the shape of a real one: for tests and measurements.
//!
//! The same seed makes the same log. Kinds of records, their sizes and their order are those of the log
//! of a project with ninety thousand issues and 125 thousand changes; what people write is noise. Commits
//! have their true names.

use std::collections::BTreeMap;

use maintpb::*;
use sha1::{Digest, Sha1};

/// How often each kind of record comes, in thousands, in the log that was taken for a model.
const KINDS: [(Kind, u64); 13] = [
    (Kind::Issue, 90),
    (Kind::Delta, 1080),
    (Kind::Comments, 500),
    (Kind::CommentEdit, 45),
    (Kind::CommentStatus, 1000),
    (Kind::Events, 1100),
    (Kind::Reviews, 60),
    (Kind::Definitions, 2),
    (Kind::History, 31),
    (Kind::PatchSet, 412),
    (Kind::Meta, 2900),
    (Kind::Refs, 750),
    (Kind::DeletedRefs, 3),
];

#[derive(Clone, Copy)]
enum Kind {
    Issue,
    Delta,
    Comments,
    CommentEdit,
    CommentStatus,
    Events,
    Reviews,
    Definitions,
    History,
    PatchSet,
    Meta,
    Refs,
    DeletedRefs,
}

const REPOS: [(&str, &str); 5] = [
    ("golang", "go"),
    ("golang", "vscode-go"),
    ("golang", "tools"),
    ("golang", "net"),
    ("golang", "vulndb"),
];
const PROJECTS: [&str; 5] = [
    "go.googlesource.com/go",
    "go.googlesource.com/tools",
    "go.googlesource.com/build",
    "go.googlesource.com/net",
    "go.googlesource.com/website",
];
const SERVER: &str = "62eb7196-b449-3ce5-99f1-c037f21e1705";
/// Changes that are worked on at the same time, in one project.
const ACTIVE: usize = 200;
/// When it begins: 2015-01-01.
const START: i64 = 1_420_070_400;

/// Makes mutations, one after the other, for ever.
pub struct Synthetic {
    rng: Rng,
    now: i64,
    /// Of every kind of number that must not come twice.
    next_id: i64,
    repos: Vec<Vec<Issue>>,
    projects: Vec<Project>,
    next_change: u32,
}

struct Issue {
    comments: Vec<i64>,
}

#[derive(Default)]
struct Project {
    active: Vec<Change>,
    head: Option<String>,
    /// Refs that moved, and were not told.
    moved: BTreeMap<String, String>,
    branches: u32,
}

struct Change {
    number: u32,
    patch_sets: u32,
    commit: String,
    meta: Option<String>,
}

impl Synthetic {
    pub fn new(seed: u64) -> Synthetic {
        Synthetic {
            rng: Rng(seed),
            now: START,
            next_id: 1000,
            repos: REPOS.iter().map(|_| Vec::new()).collect(),
            projects: PROJECTS.iter().map(|_| Project::default()).collect(),
            next_change: 2000,
        }
    }

    fn id(&mut self) -> i64 {
        self.next_id += 1 + self.rng.below(9).cast_signed();
        self.next_id
    }

    fn time(&self) -> Option<Timestamp> {
        Some(Timestamp {
            seconds: self.now,
            nanos: 0,
        })
    }

    fn kind(&mut self) -> Kind {
        let mut at = self.rng.below(KINDS.iter().map(|(_, weight)| weight).sum());
        for (kind, weight) in KINDS {
            if at < weight {
                return kind;
            }
            at -= weight;
        }
        unreachable!("less than the sum of all")
    }

    fn user(&mut self) -> GithubUser {
        // A few write most.
        let id = (self.rng.below(60_000) * self.rng.below(60_000) / 60_000).cast_signed() + 1;
        GithubUser {
            id,
            login: format!("user{id}"),
        }
    }

    /// A delta of an issue that is there, most often of the newer ones, with only its name set. Which
    /// one it is comes too. `None`: there is none yet.
    fn some_issue(&mut self) -> Option<(usize, usize, GithubIssueMutation)> {
        let repo = self.rng.main(REPOS.len());
        let count = self.repos[repo].len() as u64;
        if count == 0 {
            return None;
        }
        let back = self.rng.below(count).min(self.rng.below(count));
        let at = usize::try_from(count - 1 - back).expect("an index");
        Some((repo, at, named(repo, at)))
    }

    fn new_issue(&mut self) -> Mutation {
        let repo = self.rng.main(REPOS.len());
        let at = self.repos[repo].len();
        self.repos[repo].push(Issue { comments: Vec::new() });
        let labels = self.rng.below(3);
        let issue = GithubIssueMutation {
            user: Some(self.user()),
            created: self.time(),
            updated: self.time(),
            title: self.rng.text(60),
            body_change: Some(StringChange {
                val: self.rng.log_normal(700.0, 1.3),
            }),
            no_milestone: true,
            closed: Some(BoolChange { val: false }),
            pull_request: self.rng.below(16) == 0,
            add_label: (0..labels).map(|_| self.rng.label()).collect(),
            ..named(repo, at)
        };
        of_issue(issue)
    }

    fn delta(&mut self) -> Option<Mutation> {
        let (_, _, mut issue) = self.some_issue()?;
        issue.updated = self.time();
        match self.rng.below(100) {
            0..45 => {}
            45..75 if self.rng.below(4) == 0 => issue.remove_label = vec![self.rng.label().id],
            45..75 => issue.add_label = vec![self.rng.label()],
            75..90 => {
                let val = self.rng.below(3) > 0;
                issue.closed = Some(BoolChange { val });
                issue.closed_at = self.time().filter(|_| val);
            }
            90..95 => {
                let id = self.rng.below(120).cast_signed() + 1;
                issue.milestone_id = id;
                issue.milestone_num = id;
                issue.milestone_title = format!("Go1.{id}");
            }
            95..97 => issue.assignees = vec![self.user()],
            97..99 => issue.title = self.rng.text(60),
            _ => issue.locked = Some(BoolChange { val: true }),
        }
        Some(of_issue(issue))
    }

    fn comments(&mut self) -> Option<Mutation> {
        let (repo, at, mut issue) = self.some_issue()?;
        let count = if self.rng.below(100) == 0 {
            self.rng.below(18) + 1
        } else {
            1
        };
        for _ in 0..count {
            let comment = GithubIssueCommentMutation {
                id: self.id(),
                user: Some(self.user()),
                body: self.rng.log_normal(250.0, 1.35),
                created: self.time(),
                updated: self.time(),
            };
            self.repos[repo][at].comments.push(comment.id);
            issue.comment.push(comment);
        }
        issue.comment_status = Some(GithubIssueSyncStatus {
            server_date: self.time(),
        });
        Some(of_issue(issue))
    }

    fn comment_edit(&mut self) -> Option<Mutation> {
        let (repo, at, mut issue) = self.some_issue()?;
        let id = *self.repos[repo][at].comments.last()?;
        let body = self.rng.log_normal(250.0, 1.35);
        let updated = self.time();
        issue.comment = vec![GithubIssueCommentMutation {
            id,
            body,
            updated,
            ..Default::default()
        }];
        Some(of_issue(issue))
    }

    fn events(&mut self) -> Option<Mutation> {
        let (.., mut issue) = self.some_issue()?;
        let count = [0, 0, 1, 1, 2][self.rng.index(5)];
        for _ in 0..count {
            let mut event = GithubIssueEvent {
                id: self.id(),
                actor_id: self.user().id,
                created: self.time(),
                ..Default::default()
            };
            let (kind, label) = match self.rng.below(100) {
                0..30 => ("labeled", true),
                30..50 => ("subscribed", false),
                50..63 => ("mentioned", false),
                63..72 => ("closed", false),
                72..81 => ("milestoned", false),
                81..89 => ("referenced", false),
                89..94 => ("unlabeled", true),
                94..98 => ("locked", false),
                _ => ("renamed", false),
            };
            event.event_type = kind.into();
            if label {
                event.label = Some(GithubLabel {
                    id: 0,
                    name: self.rng.label().name,
                });
            }
            match kind {
                "milestoned" => {
                    event.milestone = Some(GithubMilestone {
                        title: "Go1.20".into(),
                        ..Default::default()
                    })
                }
                "referenced" => {
                    let commit_id = self.rng.hex(40);
                    event.commit = Some(GithubCommit {
                        owner: "golang".into(),
                        repo: "go".into(),
                        commit_id,
                    });
                }
                "renamed" => (event.rename_from, event.rename_to) = (self.rng.text(40), self.rng.text(40)),
                _ => {}
            }
            issue.event.push(event);
        }
        issue.event_status = Some(GithubIssueSyncStatus {
            server_date: self.time(),
        });
        Some(of_issue(issue))
    }

    fn reviews(&mut self) -> Option<Mutation> {
        let (.., mut issue) = self.some_issue()?;
        if self.rng.below(8) == 0 {
            issue.review.push(GithubReview {
                id: self.id(),
                actor_id: self.user().id,
                created: self.time(),
                body: self.rng.text(120),
                state: "APPROVED".into(),
                commit_id: self.rng.hex(40),
                actor_association: "MEMBER".into(),
                other_json: Vec::new(),
            });
        }
        issue.review_status = Some(GithubIssueSyncStatus {
            server_date: self.time(),
        });
        Some(of_issue(issue))
    }

    fn definitions(&mut self) -> Mutation {
        let (owner, repo) = REPOS[self.rng.main(REPOS.len())];
        let number = self.rng.below(120).cast_signed() + 1;
        let closed = Some(BoolChange {
            val: self.rng.below(2) == 0,
        });
        let github = GithubMutation {
            owner: owner.into(),
            repo: repo.into(),
            labels: vec![self.rng.label()],
            milestones: vec![GithubMilestone {
                id: number,
                number,
                title: format!("Go1.{number}"),
                closed,
            }],
            ..Default::default()
        };
        Mutation {
            github: Some(github),
            ..Default::default()
        }
    }

    /// A commit of a branch, of a patch set or of the history before.
    fn code_commit(&mut self, parent: Option<&str>, footer: &str) -> GitCommit {
        let account = self.rng.below(6000);
        let who = format!("Dev Eloper{account} <dev{account}@example.org>");
        let issue = if self.rng.below(3) == 0 {
            format!("Fixes #{}\n\n", self.rng.below(70_000))
        } else {
            String::new()
        };
        let message = format!(
            "{}: {}\n\n{}\n\n{issue}{footer}",
            self.rng.word(),
            self.rng.text(40),
            self.rng.log_normal(250.0, 0.7)
        );
        let files = 1 + self.rng.below(3) * self.rng.below(3);
        let file = |rng: &mut Rng| GitDiffTreeFile {
            file: format!("src/{}/{}/{}.go", rng.word(), rng.word(), rng.word()),
            added: rng.below(100).cast_signed(),
            deleted: rng.below(40).cast_signed(),
            binary: false,
        };
        let file = (0..files).map(|_| file(&mut self.rng)).collect();
        self.commit(parent, &who, "-0400", &message, file)
    }

    fn commit(
        &mut self,
        parent: Option<&str>,
        who: &str,
        zone: &str,
        message: &str,
        file: Vec<GitDiffTreeFile>,
    ) -> GitCommit {
        let parent = parent.map_or(String::new(), |parent| format!("parent {parent}\n"));
        let raw = format!(
            "tree {}\n{parent}author {who} {} {zone}\ncommitter Gerrit Code Review <noreply-gerritcodereview@google.com> {} +0000\n\n{message}",
            self.rng.hex(40),
            self.now - 60,
            self.now,
        );
        let mut name = Sha1::new();
        name.update(format!("commit {}\0", raw.len()));
        name.update(&raw);
        let sha1 = name.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        GitCommit {
            sha1,
            raw: raw.into_bytes(),
            diff_tree: Some(GitDiffTree { file }),
        }
    }

    fn history(&mut self) -> Mutation {
        let project = self.rng.main(PROJECTS.len());
        let head = self.projects[project].head.take();
        let commit = self.code_commit(head.as_deref(), "");
        let state = &mut self.projects[project];
        state.head = Some(commit.sha1.clone());
        state
            .moved
            .insert("refs/heads/master".into(), commit.sha1.clone());
        of_commit(project, commit)
    }

    fn patch_set(&mut self) -> Mutation {
        let project = self.rng.main(PROJECTS.len());
        let active = self.projects[project].active.len();
        let is_new = active == 0 || self.rng.below(33) < 10;
        let head = self.projects[project].head.clone();
        let change_id = self.rng.hex(40);
        let commit = self.code_commit(head.as_deref(), &format!("Change-Id: I{change_id}\n"));
        let at = if is_new {
            self.next_change += 1 + u32::try_from(self.rng.below(11)).expect("small");
            let number = self.next_change;
            let active = &mut self.projects[project].active;
            if active.len() == ACTIVE {
                active.remove(0);
            }
            active.push(Change {
                number,
                patch_sets: 0,
                commit: String::new(),
                meta: None,
            });
            active.len() - 1
        } else {
            self.rng.index(active)
        };
        let state = &mut self.projects[project];
        let change = &mut state.active[at];
        change.patch_sets += 1;
        change.commit.clone_from(&commit.sha1);
        let name = format!(
            "refs/changes/{:02}/{}/{}",
            change.number % 100,
            change.number,
            change.patch_sets
        );
        state.moved.insert(name, commit.sha1.clone());
        of_commit(project, commit)
    }

    fn meta(&mut self) -> Option<Mutation> {
        let project = self.rng.main(PROJECTS.len());
        let active = self.projects[project].active.len();
        if active == 0 {
            return None;
        }
        let at = self.rng.index(active);
        let Change {
            number,
            patch_sets,
            commit,
            meta,
        } = &self.projects[project].active[at];
        let (number, patch_sets, commit, parent) = (*number, *patch_sets, commit.clone(), meta.clone());
        let account = 5000 + self.rng.below(6000);
        let who = format!("Gerrit User {account} <{account}@{SERVER}>");
        let attention = |what: &str| {
            format!(
                "Attention: {{\"person_ident\":\"Gerrit User {account} \\u003c{account}@{SERVER}\\u003e\",\"operation\":\"{what}\",\"reason\":\"someone replied on the change\"}}\n"
            )
        };
        let mut file = Vec::new();
        let message = match (parent.is_some(), self.rng.below(100)) {
            (false, _) => format!(
                "Create change\n\nUploaded patch set 1.\n\nPatch-set: 1\nChange-id: I{}\nSubject: {}\nBranch: refs/heads/master\nStatus: new\nTopic: \nCommit: {commit}\nTag: autogenerated:gerrit:newPatchSet\nGroups: {commit}\nPrivate: false\nWork-in-progress: false\n",
                self.rng.hex(40),
                self.rng.text(60),
            ),
            (true, 0..45) => {
                let (label, value) = [
                    ("Code-Review", "+2"),
                    ("Run-TryBot", "+1"),
                    ("TryBot-Result", "-1"),
                    ("Trust", "+1"),
                ][self.rng.index(4)];
                format!(
                    "Update patch set {patch_sets}\n\nPatch Set {patch_sets}: {label}{value}\n\n{}\n\nPatch-set: {patch_sets}\nReviewer: {who}\nLabel: {label}={value}\n{}{}",
                    self.rng.text(120),
                    attention("ADD"),
                    attention("REMOVE"),
                )
            }
            (true, 45..60) => format!(
                "Create patch set {patch_sets}\n\nUploaded patch set {patch_sets}.\n\nPatch-set: {patch_sets}\nCommit: {commit}\nTag: autogenerated:gerrit:newPatchSet\nSubject: {}\n{}",
                self.rng.text(60),
                attention("REMOVE"),
            ),
            (true, 60..96) => {
                let name = commit.clone();
                file.push(GitDiffTreeFile {
                    file: name,
                    added: 20,
                    deleted: 1,
                    binary: false,
                });
                format!(
                    "Update patch set {patch_sets}\n\nPatch Set {patch_sets}:\n\n({} comments)\n\n{}\n\nPatch-set: {patch_sets}\nTag: autogenerated:gerrit:comment\n{}",
                    self.rng.below(9) + 1,
                    self.rng.log_normal(160.0, 0.8),
                    attention("ADD"),
                )
            }
            (true, 96..98) => format!(
                "Update change\n\nHashtag added: {0}\n\nPatch-set: {patch_sets}\nHashtags: {0}\nTag: autogenerated:gerrit:setHashtag\n",
                self.rng.word(),
            ),
            (true, _) => format!(
                "Submit patch set {patch_sets}\n\nChange has been successfully cherry-picked\n\nPatch-set: {patch_sets}\nStatus: merged\nTag: autogenerated:gerrit:merged\nReviewer: {who}\nLabel: SUBM=+1\nSubmission-id: {number}-1\nSubmitted-with: OK\nSubmitted-with: OK: Code-Review: {who}\n",
            ),
        };
        let commit = self.commit(parent.as_deref(), &who, "+0000", &message, file);
        let state = &mut self.projects[project];
        state.active[at].meta = Some(commit.sha1.clone());
        state.moved.insert(
            format!("refs/changes/{:02}/{number}/meta", number % 100),
            commit.sha1.clone(),
        );
        Some(of_commit(project, commit))
    }

    fn refs(&mut self) -> Option<Mutation> {
        let project = self.rng.main(PROJECTS.len());
        let moved = &mut self.projects[project].moved;
        let mut refs = Vec::new();
        for _ in 0..=self.rng.below(4) {
            let Some((name, sha1)) = moved.pop_first() else {
                break;
            };
            refs.push(GitRef { r#ref: name, sha1 });
        }
        (!refs.is_empty()).then(|| {
            of_gerrit(
                project,
                GerritMutation {
                    refs,
                    ..Default::default()
                },
            )
        })
    }

    fn deleted_refs(&mut self) -> Option<Mutation> {
        let project = self.rng.main(PROJECTS.len());
        let state = &mut self.projects[project];
        let sha1 = state.head.clone()?;
        state.branches += 1;
        let name = |n: u32| format!("refs/heads/dev.{n}");
        let gerrit = GerritMutation {
            refs: vec![GitRef {
                r#ref: name(state.branches),
                sha1,
            }],
            deleted_refs: vec![name(state.branches - 1)],
            ..Default::default()
        };
        Some(of_gerrit(project, gerrit))
    }
}

impl Iterator for Synthetic {
    type Item = Mutation;

    fn next(&mut self) -> Option<Mutation> {
        loop {
            self.now += self.rng.below(80).cast_signed();
            let made = match self.kind() {
                Kind::Issue => Some(self.new_issue()),
                Kind::Delta => self.delta(),
                Kind::Comments => self.comments(),
                Kind::CommentEdit => self.comment_edit(),
                Kind::CommentStatus => self.some_issue().map(|(.., mut issue)| {
                    issue.comment_status = Some(GithubIssueSyncStatus {
                        server_date: self.time(),
                    });
                    of_issue(issue)
                }),
                Kind::Events => self.events(),
                Kind::Reviews => self.reviews(),
                Kind::Definitions => Some(self.definitions()),
                Kind::History => Some(self.history()),
                Kind::PatchSet => Some(self.patch_set()),
                Kind::Meta => self.meta(),
                Kind::Refs => self.refs(),
                Kind::DeletedRefs => self.deleted_refs(),
            };
            if made.is_some() {
                return made;
            }
        }
    }
}

fn named(repo: usize, at: usize) -> GithubIssueMutation {
    let (owner, repo) = REPOS[repo];
    let number = i32::try_from(at).expect("few issues") + 1;
    GithubIssueMutation {
        owner: owner.into(),
        repo: repo.into(),
        number,
        ..Default::default()
    }
}

fn of_issue(issue: GithubIssueMutation) -> Mutation {
    Mutation {
        github_issue: Some(issue),
        ..Default::default()
    }
}

fn of_commit(project: usize, commit: GitCommit) -> Mutation {
    of_gerrit(
        project,
        GerritMutation {
            commits: vec![commit],
            ..Default::default()
        },
    )
}

fn of_gerrit(project: usize, gerrit: GerritMutation) -> Mutation {
    let gerrit = GerritMutation {
        project: PROJECTS[project].into(),
        ..gerrit
    };
    Mutation {
        gerrit: Some(gerrit),
        ..Default::default()
    }
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// Of several, the first one seven times in ten.
    fn main(&mut self, len: usize) -> usize {
        if self.below(10) < 7 { 0 } else { self.index(len) }
    }

    fn label(&mut self) -> GithubLabel {
        let id = (self.below(250) * self.below(250) / 250).cast_signed() + 1;
        GithubLabel {
            id,
            name: format!("label-{id}"),
        }
    }

    fn hex(&mut self, digits: usize) -> String {
        let mut hex = String::new();
        while hex.len() < digits {
            hex.push_str(&format!("{:016x}", self.next()));
        }
        hex.truncate(digits);
        hex
    }

    /// A word that is written often.
    fn word(&mut self) -> &'static str {
        const WORDS: [&str; 32] = [
            "the",
            "of",
            "compiler",
            "runtime",
            "net",
            "http",
            "crash",
            "when",
            "reading",
            "from",
            "a",
            "slice",
            "map",
            "channel",
            "test",
            "fails",
            "on",
            "linux",
            "arm64",
            "build",
            "error",
            "panic",
            "nil",
            "pointer",
            "goroutine",
            "stack",
            "memory",
            "time",
            "zone",
            "parse",
            "file",
            "path",
        ];
        WORDS[self.index(WORDS.len())]
    }

    /// Words, about `len` bytes of them.
    fn text(&mut self, len: usize) -> String {
        let mut text = String::with_capacity(len + 10);
        while text.len() < len {
            text.push_str(self.word());
            text.push(' ');
        }
        text.truncate(len.max(1));
        text
    }

    /// Text whose length is log-normal.
    fn log_normal(&mut self, median: f64, sigma: f64) -> String {
        let mut unit = || ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let normal = (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
        let len = (median * (sigma * normal).exp()).clamp(1.0, 60_000.0);
        self.text(len as usize)
    }
}
