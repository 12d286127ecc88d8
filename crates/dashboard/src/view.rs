//! What several pages show, as JSON has it. Times are microseconds since 1970 in UTC.

use runner::Outcome;
use serde::Serialize;
use store::read::{BuildRow, BuildState, CommitRow, MachineRow};

#[derive(Debug, Clone, Serialize)]
pub struct BuildView {
    pub repo: String,
    pub commit: String,
    pub builder: String,
    pub requested: i64,
    pub machine: Option<String>,
    pub attempts: u32,
    #[serde(flatten)]
    pub cell: CellView,
}

/// A build where its place already says of what and by whom.
#[derive(Debug, Clone, PartialEq, Hash, Serialize)]
pub struct CellView {
    pub id: u64,
    pub status: &'static str,
    /// Since when it has been in this state.
    pub since: i64,
    /// Of the latest attempt that ended; 0 before.
    pub took_ms: u64,
    /// Passed and failed attempts both.
    pub flaky: bool,
    /// Why it waits, failed, was lost or cancelled; empty if there is nothing to say.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CommitView {
    pub hash: String,
    pub title: String,
    pub author: String,
    pub time: i64,
}

#[derive(Debug, Clone, Hash, Serialize)]
pub struct BuilderView {
    pub name: String,
    pub group: String,
    pub host_type: String,
    pub known_issues: Vec<String>,
    /// No more in the configuration; its results stay.
    pub retired: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct WaitView {
    pub build: u64,
    pub builder: String,
    pub repo: String,
    pub host_type: String,
    pub requested: i64,
    /// How many of the same host type are before it.
    pub ahead: usize,
    /// The one that is right before it.
    pub after: Option<u64>,
    pub reason: String,
    /// When it should start; null when nothing can be said.
    pub starts: Option<i64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct MachineView {
    pub name: String,
    pub host_type: String,
    pub pool: String,
    pub software: String,
    pub address: String,
    pub connected: bool,
    pub first_seen: i64,
    /// When it last came or went.
    pub changed: i64,
    pub why_gone: String,
    /// The attempt it is at, or that waits for it to come back: `17.2`.
    pub running: Option<String>,
    /// Under which name it is lent.
    pub lent: Option<String>,
}

impl From<&BuildRow> for CellView {
    fn from(row: &BuildRow) -> CellView {
        let (since, reason) = match &row.state {
            BuildState::Waiting { since, why, .. } => (*since, why.clone()),
            BuildState::Running { since, .. } => (*since, String::new()),
            BuildState::Done { at, outcome } => (*at, reason(outcome)),
        };
        CellView {
            id: row.build.0,
            status: row.state.status().as_str(),
            since: since.0,
            took_ms: row.took.as_millis() as u64,
            flaky: row.flaky,
            reason,
        }
    }
}

impl From<&BuildRow> for BuildView {
    fn from(row: &BuildRow) -> BuildView {
        let machine = match &row.state {
            BuildState::Running { machine, .. } => Some(machine.to_string()),
            BuildState::Waiting { .. } | BuildState::Done { .. } => None,
        };
        BuildView {
            repo: row.repo.to_string(),
            commit: row.commit.to_string(),
            builder: row.builder.to_string(),
            requested: row.requested.0,
            machine,
            attempts: row.attempts,
            cell: row.into(),
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

impl BuilderView {
    pub fn new(config: &config::Config, name: &ids::BuilderName) -> BuilderView {
        let conf = config.builders.get(name);
        BuilderView {
            name: name.to_string(),
            group: conf.map_or("retired".to_owned(), |conf| conf.group.clone()),
            host_type: conf.map(|conf| conf.host.to_string()).unwrap_or_default(),
            known_issues: conf.map(|conf| conf.known_issues.clone()).unwrap_or_default(),
            retired: conf.is_none(),
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
            host_type: row.host_type.to_string(),
            pool: row.facts.pool.clone(),
            software: format!("{software} (protocol {})", row.facts.version),
            address: row.facts.address.clone(),
            connected: row.connected,
            first_seen: row.first_seen.0,
            changed: row.changed.0,
            why_gone: row.why_gone.clone(),
            running: row.running.map(|attempt| attempt.to_string()),
            lent: None,
        }
    }
}

impl WaitView {
    /// All that waits, in order.
    pub fn all(waiting: &[schedule::Waiting]) -> Vec<WaitView> {
        let mut views: Vec<WaitView> = Vec::with_capacity(waiting.len());
        for wait in waiting {
            let before = views.last().filter(|_| wait.ahead > 0).map(|view| view.build);
            views.push(WaitView::new(wait, before));
        }
        views
    }

    /// Of one build, if it waits.
    pub fn of(waiting: &[schedule::Waiting], build: ids::BuildId) -> Option<WaitView> {
        let at = waiting.iter().position(|wait| wait.build == build)?;
        let (wait, before) = (
            &waiting[at],
            at.checked_sub(1).map(|before| waiting[before].build.0),
        );
        Some(WaitView::new(wait, before.filter(|_| wait.ahead > 0)))
    }

    fn new(wait: &schedule::Waiting, after: Option<u64>) -> WaitView {
        use schedule::Reason::*;
        let host = &wait.host_type;
        let reason = match &wait.reason {
            NoMachine => format!("no machine of type {host} is connected"),
            AllBusy { machines: 1 } => format!("the one machine of type {host} is at work"),
            AllBusy { machines } => format!("all {machines} machines of type {host} are at work"),
            BackOff { .. } => "it was lost before and is tried again after a pause".to_owned(),
            BuilderLimit { running, max } => format!("its builder runs {running} at once and may run {max}"),
            Avoiding { .. } => "the free machines have lost it before; another is waited for".to_owned(),
            Paused { why } => format!("nothing is started: {why}"),
        };
        WaitView {
            build: wait.build.0,
            builder: wait.builder.to_string(),
            repo: wait.repo.to_string(),
            host_type: host.to_string(),
            requested: wait.requested.0,
            ahead: wait.ahead,
            after,
            reason,
            starts: wait.starts.map(|at| at.0),
        }
    }
}

/// Of results newest first: what the newest finished one says, and how many in a row say so.
/// Lost and cancelled builds say nothing of the code.
pub fn verdict<'a>(results: impl IntoIterator<Item = &'a CellView>) -> Option<(&'static str, usize)> {
    let mut told = results
        .into_iter()
        .map(|cell| cell.status)
        .filter(|status| matches!(*status, "passed" | "failed"));
    let newest = told.next()?;
    Some((newest, 1 + told.take_while(|status| *status == newest).count()))
}
