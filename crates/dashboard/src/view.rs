//! What pages show, as JSON has it. Times are microseconds since 1970 in UTC.

use runner::Outcome;
use serde::Serialize;
use store::read::{AttemptRow, BuildDetail, BuildRow, BuildState, CommitRow, GridRow, MachineRow};

#[derive(Debug, Clone, Serialize)]
pub struct BuildView {
    pub id: u64,
    pub repo: String,
    pub commit: String,
    pub builder: String,
    pub status: &'static str,
    pub requested: i64,
    /// Since when it has been in this state.
    pub since: i64,
    pub machine: Option<String>,
    /// Why it waits, failed, was lost or cancelled; empty if there is nothing to say.
    pub reason: String,
    pub attempts: u32,
    pub flaky: bool,
    pub took_ms: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct CommitView {
    pub hash: String,
    pub title: String,
    pub author: String,
    pub time: i64,
}

#[derive(Debug, Clone, Serialize)]
pub struct GridView {
    pub repo: String,
    pub branch: String,
    pub branches: Vec<String>,
    pub builders: Vec<BuilderView>,
    pub rows: Vec<RowView>,
    /// Cursor of the next page.
    pub before: Option<u64>,
    pub newer: bool,
    /// Why the mirror is behind, if it is.
    pub trouble: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct BuilderView {
    pub name: String,
    pub group: String,
    pub host_type: String,
    pub known_issue: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct RowView {
    pub commit: CommitView,
    pub depth: u64,
    /// One for each builder of the page, in order.
    pub cells: Vec<Option<BuildView>>,
}

#[derive(Debug, Clone, Serialize)]
pub struct BuildPage {
    pub build: BuildView,
    pub commit: CommitView,
    pub branches: Vec<String>,
    pub attempts: Vec<AttemptView>,
    pub waiting: Option<WaitView>,
    #[serde(skip)]
    pub may_act: bool,
    #[serde(skip)]
    pub proof: String,
    /// The log that is shown, by step.
    #[serde(skip)]
    pub logs: Vec<LogView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct AttemptView {
    pub n: u32,
    pub machine: String,
    pub started: i64,
    pub ended: Option<i64>,
    pub status: &'static str,
    pub reason: String,
    pub steps: Vec<StepView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct StepView {
    pub index: u32,
    pub name: String,
    pub command: String,
    pub started: Option<i64>,
    pub ended: Option<i64>,
    pub ok: Option<bool>,
    pub state: String,
}

#[derive(Debug, Clone)]
pub struct LogView {
    pub step: String,
    pub index: u32,
    /// The end of it, if it is long.
    pub text: String,
    pub skipped: u64,
    pub len: u64,
    pub live: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct WaitView {
    pub build: u64,
    pub builder: String,
    pub repo: String,
    pub host_type: String,
    pub requested: i64,
    pub ahead: usize,
    pub reason: String,
    pub starts: Option<i64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct QueuePage {
    pub paused: Option<String>,
    pub waiting: Vec<WaitView>,
    pub running: Vec<BuildView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct BuildsPage {
    pub heading: String,
    pub builds: Vec<BuildView>,
    /// Address of the next page.
    pub next: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct MachinesPage {
    pub host_types: Vec<HostTypeView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct HostTypeView {
    pub name: String,
    pub pool: String,
    pub connected: usize,
    pub expected: usize,
    pub machines: Vec<MachineView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct MachineView {
    pub name: String,
    pub software: String,
    pub address: String,
    pub connected: bool,
    pub changed: i64,
    pub why_gone: String,
    pub running: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct BuildersPage {
    pub builders: Vec<BuilderView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct StatusPage {
    pub items: Vec<crate::HealthItem>,
    pub counts: Vec<(String, u64)>,
}

#[derive(Debug, Clone, Serialize)]
pub struct FarmPage {
    pub repos: Vec<RepoView>,
    pub waiting: u64,
    pub running: u64,
    pub machines: usize,
}

#[derive(Debug, Clone, Serialize)]
pub struct RepoView {
    pub name: String,
    pub fetched: Option<i64>,
    pub error: Option<String>,
    pub branches: Vec<BranchView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct BranchView {
    pub name: String,
    pub head: CommitView,
    pub cells: Vec<BuildView>,
}

#[derive(Debug, Clone, Serialize)]
pub struct SearchPage {
    pub query: String,
    pub commits: Vec<(String, CommitView)>,
}

impl From<&BuildRow> for BuildView {
    fn from(row: &BuildRow) -> BuildView {
        let (since, machine, reason) = match &row.state {
            BuildState::Waiting { since, why, .. } => (*since, None, why.clone()),
            BuildState::Running { since, machine } => (*since, Some(machine.to_string()), String::new()),
            BuildState::Done { at, outcome } => (*at, None, reason(outcome)),
        };
        BuildView {
            id: row.build.0,
            repo: row.repo.to_string(),
            commit: row.commit.to_string(),
            builder: row.builder.to_string(),
            status: row.state.status().as_str(),
            requested: row.requested.0,
            since: since.0,
            machine,
            reason,
            attempts: row.attempts,
            flaky: row.flaky,
            took_ms: row.took.as_millis() as u64,
        }
    }
}

pub fn reason(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Passed => String::new(),
        Outcome::Failed { reason, .. } => reason.clone(),
        Outcome::Infra { detail, .. } => detail.clone(),
        Outcome::Cancelled { by } => format!("cancelled by {by}"),
    }
}

impl From<&CommitRow> for CommitView {
    fn from(row: &CommitRow) -> CommitView {
        CommitView {
            hash: row.hash.to_string(),
            title: row.title.clone(),
            author: row.author_name.clone(),
            time: row.commit_time.0,
        }
    }
}

impl RowView {
    pub fn new(row: &GridRow, builders: &[BuilderView]) -> RowView {
        let cell = |builder: &BuilderView| {
            row.cells
                .iter()
                .find(|cell| cell.builder.as_str() == builder.name)
        };
        RowView {
            commit: (&row.commit).into(),
            depth: row.depth,
            cells: builders
                .iter()
                .map(|builder| cell(builder).map(BuildView::from))
                .collect(),
        }
    }
}

impl From<&AttemptRow> for AttemptView {
    fn from(row: &AttemptRow) -> AttemptView {
        AttemptView {
            n: row.attempt.n,
            machine: row.machine.to_string(),
            started: row.started.0,
            ended: row.ended.map(|at| at.0),
            status: match &row.outcome {
                None => "running",
                Some(Outcome::Passed) => "passed",
                Some(Outcome::Failed { .. }) => "failed",
                Some(Outcome::Infra { .. }) => "infra",
                Some(Outcome::Cancelled { .. }) => "cancelled",
            },
            reason: row.outcome.as_ref().map(reason).unwrap_or_default(),
            steps: row
                .steps
                .iter()
                .map(|step| StepView {
                    index: step.index,
                    name: step.name.clone(),
                    command: step.command.clone(),
                    started: step.started.map(|at| at.0),
                    ended: step.ended.map(|at| at.0),
                    ok: step.ok,
                    state: step.state.clone(),
                })
                .collect(),
        }
    }
}

impl BuildPage {
    pub fn new(detail: &BuildDetail) -> BuildPage {
        BuildPage {
            build: (&detail.row).into(),
            commit: (&detail.commit).into(),
            branches: detail.branches.iter().map(|branch| branch.to_string()).collect(),
            attempts: detail.attempts.iter().map(AttemptView::from).collect(),
            waiting: None,
            may_act: false,
            proof: String::new(),
            logs: Vec::new(),
        }
    }
}

impl From<&MachineRow> for MachineView {
    fn from(row: &MachineRow) -> MachineView {
        let software = if row.facts.software.is_empty() {
            "Go's buildlet"
        } else {
            &row.facts.software
        };
        MachineView {
            name: row.machine.to_string(),
            software: format!("{software} (protocol {})", row.facts.version),
            address: row.facts.address.clone(),
            connected: row.connected,
            changed: row.changed.0,
            why_gone: row.why_gone.clone(),
            running: row.running.map(|attempt| attempt.to_string()),
        }
    }
}

impl From<&schedule::Waiting> for WaitView {
    fn from(wait: &schedule::Waiting) -> WaitView {
        use schedule::Reason::*;
        let reason = match &wait.reason {
            NoMachine => format!("no machine of type {} is connected", wait.host_type),
            AllBusy { machines } => format!("all {machines} machines of type {} are at work", wait.host_type),
            BackOff { .. } => "it was lost before and is tried again after a pause".to_owned(),
            BuilderLimit { running, max } => format!("its builder runs {running} at once and may run {max}"),
            Avoiding { .. } => "the free machines have lost it before; another is waited for".to_owned(),
            Paused { why } => format!("nothing is started: {why}"),
        };
        WaitView {
            build: wait.build.0,
            builder: wait.builder.to_string(),
            repo: wait.repo.to_string(),
            host_type: wait.host_type.to_string(),
            requested: wait.requested.0,
            ahead: wait.ahead,
            reason,
            starts: wait.starts.map(|at| at.0),
        }
    }
}
