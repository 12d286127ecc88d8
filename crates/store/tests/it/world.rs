//! Short names for what the cases store.

use std::time::Duration;

use farm::{Loan, MachineFacts, NewBuild, Write};
use ids::{
    AttemptId, BranchName, BuildId, BuilderName, GitHash, HostType, LoanId, MachineId, RepoName, StepId,
    Timestamp,
};
use runner::{Command, InfraCause, Outcome, Plan, StepPlan};
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use store::read::CommitRow;
use store::{Store, StoreError};

pub fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

pub fn repo() -> RepoName {
    RepoName::parse("widget").unwrap()
}

pub fn branch(name: &str) -> BranchName {
    BranchName::parse(name).unwrap()
}

pub fn builder(name: &str) -> BuilderName {
    BuilderName::parse(name).unwrap()
}

pub fn host() -> HostType {
    HostType::parse("linux").unwrap()
}

pub fn machine(name: &str) -> MachineId {
    MachineId::parse(name).unwrap()
}

/// `fork`: commits of different forks have different hashes at the same depth.
pub fn hash(depth: u64, fork: u64) -> GitHash {
    GitHash::parse(&format!("{:040x}", (fork << 32) | (depth + 0x1000))).unwrap()
}

pub fn commit(depth: u64, fork: u64, forked_at: u64) -> CommitRow {
    let of = |depth| hash(depth, if depth < forked_at { 0 } else { fork });
    CommitRow {
        repo: repo(),
        hash: of(depth),
        parents: depth.checked_sub(1).map(of).into_iter().collect(),
        author_name: "Ada Ünder".to_owned(),
        author_email: "ada@example.org".to_owned(),
        author_time: at(depth as i64 - 1),
        commit_time: at(depth as i64),
        title: format!("area: 100% of change_{depth}"),
        message: format!("area: 100% of change_{depth}\n\nbody\0"),
    }
}

/// Commits `lowest..=head`, newest first; from `forked_at` on they are of another history.
pub fn line(lowest: u64, head: u64, fork: u64, forked_at: u64) -> Vec<CommitRow> {
    (lowest..=head)
        .rev()
        .map(|depth| commit(depth, fork, forked_at))
        .collect()
}

pub fn plan() -> Plan {
    let step = |name: &str| StepPlan {
        name: name.to_owned(),
        command: Command::Args(vec!["make".to_owned(), name.to_owned()]),
        dir: "src".to_owned(),
        env: vec![("A".to_owned(), "1".to_owned())],
        timeout: Duration::from_secs(60),
        silence: Duration::from_secs(10),
        limits: ids::Limits::default(),
    };
    Plan {
        source_dir: "src".to_owned(),
        steps: vec![step("build"), step("test")],
        limit: Duration::from_secs(3600),
    }
}

/// The schema of the first release, as its migrator left it.
pub fn first_migration(sql: &'static str) -> Migrator {
    let simple = MigrationType::Simple;
    let first = Migration::new(1, "farm".into(), simple, sql.into_sql_str(), false);
    Migrator::with_migrations(vec![first])
}

/// Build 1 runs as attempt 1.1 on m1, in the tables of the first release.
pub const ONE_ATTEMPT: &str = r#"
    INSERT INTO commits VALUES ('widget', '0000000000000000000000000000000000001000', '', 'A', 'a@b', 0, 0, 't', 't', 't');
    INSERT INTO builds (id, repo, commit_hash, builder, requested, state, since, why, tries_left, machine, attempts,
        asked_after, passed, failed, took, outcome_detail)
        VALUES (1, 'widget', '0000000000000000000000000000000000001000', 'linux', 0, 'running', 0, '', 3, 'm1', 1, 0, 0, 0, 0, '');
    INSERT INTO attempts (build, n, machine, host_type, started, plan, outcome_detail)
        VALUES (1, 1, 'm1', 'linux', 0, '{"source_dir":"src","limit_ms":1,"steps":[]}', '');
    INSERT INTO leases VALUES ('m1', 1, 1, 0);
    UPDATE build_counts SET n = 1 WHERE state = 'running';
"#;

/// Of [`ONE_ATTEMPT`]: it is taken up, and its machine is not to be had.
pub async fn keeps_its_attempt(store: Store) {
    let restored = store.unfinished().await.unwrap();
    let running = restored.builds[0].running.as_ref().expect("it runs");
    assert_eq!(
        (running.attempt, &running.machine),
        (attempt(1, 1), &machine("m1"))
    );
    assert!(matches!(
        store.apply(&[lent(9, "m1", 1)]).await,
        Err(StoreError::Conflict(_))
    ));
    store.apply(&[ended(1, 1, 1, Outcome::Passed)]).await.unwrap();
    store.apply(&[lent(9, "m1", 1)]).await.unwrap();
    store.close().await;
}

/// A loan of `on` to `user-amy`; odd and even ones have a name each.
pub fn lent(loan: u64, on: &str, secs: i64) -> Write {
    Write::LoanStarted(Loan {
        loan: LoanId(loan),
        name: format!("user-amy-linux-{}", loan % 2),
        owner: "user-amy".to_owned(),
        builder: builder("linux"),
        host_type: host(),
        machine: machine(on),
        since: at(secs),
        expires: at(secs + 1800),
    })
}

pub fn renewed(loan: u64, secs: i64) -> Write {
    Write::LoanRenewed {
        loan: LoanId(loan),
        expires: at(secs + 1800),
    }
}

pub fn given_back(loan: u64, secs: i64) -> Write {
    Write::LoanEnded {
        loan: LoanId(loan),
        at: at(secs),
        why: "given back by amy".to_owned(),
    }
}

pub fn attempt(build: u64, n: u32) -> AttemptId {
    AttemptId {
        build: BuildId(build),
        n,
    }
}

pub fn step(build: u64, n: u32, index: u32) -> StepId {
    StepId {
        attempt: attempt(build, n),
        index,
    }
}

pub fn created(build: u64, depth: u64, name: &str) -> Write {
    Write::BuildCreated(NewBuild {
        build: BuildId(build),
        repo: repo(),
        commit: hash(depth, 0),
        builder: builder(name),
        requested: at(1000 + build as i64),
        tries_left: 3,
    })
}

pub fn started(build: u64, n: u32, on: &str, secs: i64) -> Write {
    let attempt = attempt(build, n);
    Write::AttemptStarted {
        attempt,
        machine: machine(on),
        host_type: host(),
        at: at(secs),
        plan: plan(),
    }
}

pub fn step_started(step: StepId, secs: i64) -> Write {
    Write::StepStarted { step, at: at(secs) }
}

pub fn step_ended(step: StepId, secs: i64, ok: bool) -> Write {
    let state = if ok { "ok" } else { "exit status 1" };
    Write::StepEnded {
        step,
        at: at(secs),
        ok,
        state: state.to_owned(),
    }
}

pub fn ended(build: u64, n: u32, secs: i64, outcome: Outcome) -> Write {
    Write::AttemptEnded {
        attempt: attempt(build, n),
        at: at(secs),
        outcome,
    }
}

pub fn waiting(build: u64, secs: i64, tries_left: u32) -> Write {
    let (not_before, why) = (Some(at(secs + 60)), "lost".to_owned());
    Write::BuildWaiting {
        build: BuildId(build),
        since: at(secs),
        not_before,
        tries_left,
        why,
    }
}

pub fn done(build: u64, secs: i64, outcome: Outcome) -> Write {
    Write::BuildDone {
        build: BuildId(build),
        at: at(secs),
        outcome,
    }
}

pub fn up(name: &str, secs: i64) -> Write {
    let facts = MachineFacts {
        pool: "local".to_owned(),
        version: 27,
        software: "burrow 0.1.0".to_owned(),
        address: "[::1]:1".to_owned(),
        resumable: true,
    };
    Write::MachineUp {
        machine: machine(name),
        host_type: host(),
        at: at(secs),
        facts,
    }
}

pub fn down(name: &str, secs: i64) -> Write {
    Write::MachineDown {
        machine: machine(name),
        at: at(secs),
        why: "unplugged".to_owned(),
    }
}

pub fn failed() -> Outcome {
    Outcome::Failed {
        step: 1,
        reason: "step `test`: exit status 1".to_owned(),
    }
}

pub fn lost(cause: InfraCause) -> Outcome {
    Outcome::Infra {
        cause,
        detail: "the machine is\0gone".to_owned(),
    }
}

/// Commits 0 to `head` on `main`, all of them to be built.
pub async fn with_history(store: &Store, head: u64) {
    store
        .record_branch(
            &repo(),
            &branch("main"),
            &line(0, head, 0, 0),
            head,
            head + 1,
            at(1),
        )
        .await
        .unwrap();
}
