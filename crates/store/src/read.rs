//! What readers of the store get: rows as values, already decoded.

use ids::{AttemptId, BranchName, BuildId, BuilderName, GitHash, HostType, MachineId, RepoName, Timestamp};
use runner::Outcome;

/// What a cell of the grid shows, derived from the build and its latest attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildState {
    /// In line; `not_before` when it waits for a back-off, `why` when it has been tried before.
    Waiting {
        since: Timestamp,
        not_before: Option<Timestamp>,
        why: String,
    },
    Running {
        since: Timestamp,
        machine: MachineId,
    },
    Done {
        at: Timestamp,
        outcome: Outcome,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRow {
    pub build: BuildId,
    pub repo: RepoName,
    pub commit: GitHash,
    pub builder: BuilderName,
    pub requested: Timestamp,
    pub state: BuildState,
    /// How many attempts there are, the running one included.
    pub attempts: u32,
    /// Finished attempts do not all agree (passed and failed): the mark of a flake.
    pub flaky: bool,
    /// From the start of the latest attempt to its end; zero if none ended.
    pub took: std::time::Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRow {
    pub repo: RepoName,
    pub hash: GitHash,
    /// First parent first.
    pub parents: Vec<GitHash>,
    pub author_name: String,
    pub author_email: String,
    pub author_time: Timestamp,
    pub commit_time: Timestamp,
    /// First line.
    pub title: String,
    /// The whole message.
    pub message: String,
}

/// One branch as last fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchRow {
    pub repo: RepoName,
    pub branch: BranchName,
    pub head: GitHash,
    /// First-parent depth of the head: the root has 0.
    pub head_depth: u64,
    /// Commits at this depth and deeper are built.
    pub build_from: u64,
    pub seen: Timestamp,
    /// Deleted upstream; kept for its history.
    pub gone: bool,
}

/// A page of the grid: newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    pub rows: Vec<GridRow>,
    /// Whether there are older commits than the last row.
    pub older: bool,
    /// Whether there are newer commits than the first row.
    pub newer: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GridRow {
    pub commit: CommitRow,
    /// First-parent depth on the branch asked for: the cursor.
    pub depth: u64,
    /// By builder, sorted; builders without a build of this commit are absent.
    pub cells: Vec<BuildRow>,
}

/// One commit of a branch with one builder's build of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    pub depth: u64,
    pub commit: CommitRow,
    pub build: Option<BuildRow>,
}

/// How fresh what is known of a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoRow {
    pub repo: RepoName,
    pub default_branch: Option<BranchName>,
    /// When it was last fetched without error.
    pub fetched: Option<Timestamp>,
    /// Why the last look at it failed; `None` if it did not.
    pub error: Option<String>,
    /// Since when looks at it fail, or do not.
    pub since: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildDetail {
    pub row: BuildRow,
    pub commit: CommitRow,
    /// Branches whose first-parent history holds the commit.
    pub branches: Vec<BranchName>,
    /// Oldest first.
    pub attempts: Vec<AttemptRow>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRow {
    pub attempt: AttemptId,
    pub machine: MachineId,
    pub host_type: HostType,
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
    pub outcome: Option<Outcome>,
    /// In order of the plan; those never started have no `started`.
    pub steps: Vec<StepRow>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRow {
    pub index: u32,
    pub name: String,
    /// The command as people would type it.
    pub command: String,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub ok: Option<bool>,
    /// As the machine says it: `ok`, `exit status 1`, `signal: killed`.
    pub state: String,
    /// Started, and its log has not expired.
    pub has_log: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineRow {
    pub machine: MachineId,
    pub host_type: HostType,
    pub facts: farm::MachineFacts,
    pub first_seen: Timestamp,
    /// When it last came up or went down.
    pub changed: Timestamp,
    pub connected: bool,
    /// Why it is gone; empty while connected.
    pub why_gone: String,
    pub running: Option<AttemptId>,
}

/// One machine lent, at present or once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoanRow {
    pub loan: farm::Loan,
    /// Who wants it to end.
    pub return_by: Option<String>,
    pub ended: Option<Timestamp>,
    /// Why it ended; empty until then.
    pub why: String,
}

/// Which builds to list; all that are given must hold.
#[derive(Debug, Clone, Default)]
pub struct BuildFilter {
    pub repo: Option<RepoName>,
    pub builder: Option<BuilderName>,
    pub commit: Option<GitHash>,
    pub machine: Option<MachineId>,
    pub status: Option<Status>,
    /// Only builds with a smaller number: the cursor of a page.
    pub before: Option<BuildId>,
}

/// The word for a build's state in URLs, JSON and the CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Waiting,
    Running,
    Passed,
    Failed,
    Infra,
    Cancelled,
}

impl Status {
    pub const ALL: [Status; 6] = [
        Status::Waiting,
        Status::Running,
        Status::Passed,
        Status::Failed,
        Status::Infra,
        Status::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Waiting => "waiting",
            Status::Running => "running",
            Status::Passed => "passed",
            Status::Failed => "failed",
            Status::Infra => "infra",
            Status::Cancelled => "cancelled",
        }
    }

    pub fn parse(word: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

impl BuildState {
    pub fn status(&self) -> Status {
        match self {
            BuildState::Waiting { .. } => Status::Waiting,
            BuildState::Running { .. } => Status::Running,
            BuildState::Done { outcome, .. } => match outcome {
                Outcome::Passed => Status::Passed,
                Outcome::Failed { .. } => Status::Failed,
                Outcome::Infra { .. } => Status::Infra,
                Outcome::Cancelled { .. } => Status::Cancelled,
            },
        }
    }
}

/// What a token lets its holder do; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read what a closed farm shows.
    Reader,
    /// Retry and cancel builds.
    Contributor,
    /// All: machines, keys, tokens.
    Admin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    pub id: i64,
    pub name: String,
    pub role: Role,
    pub created: Timestamp,
    pub expires: Option<Timestamp>,
    pub revoked: Option<Timestamp>,
    pub last_used: Option<Timestamp>,
}

/// A key with which machines of one host type register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    pub id: i64,
    pub name: String,
    pub host_type: HostType,
    pub created: Timestamp,
    pub revoked: Option<Timestamp>,
    pub last_used: Option<Timestamp>,
}

/// A machine with a key of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityRow {
    pub id: i64,
    /// No other that is not revoked has it.
    pub name: String,
    pub host_type: HostType,
    /// Ed25519, in hex.
    pub public_key: String,
    pub created: Timestamp,
    pub revoked: Option<Timestamp>,
    pub last_used: Option<Timestamp>,
}

/// A token by which one machine gets to be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentRow {
    pub id: i64,
    /// What the machine is to be called; empty: as it calls itself.
    pub name: String,
    pub host_type: HostType,
    pub created: Timestamp,
    pub expires: Timestamp,
    pub revoked: Option<Timestamp>,
    /// When it was used, and the name of the machine that did.
    pub used: Option<(Timestamp, String)>,
}

/// What a person asked for; durable before it is acknowledged, done by the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub id: i64,
    pub at: Timestamp,
    /// The token's name.
    pub by: String,
    pub wish: Wish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Retry(BuildId),
    Cancel(BuildId),
}
