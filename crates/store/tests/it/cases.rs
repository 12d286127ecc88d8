use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use farm::Write;
use ids::{BuildId, HostType, LoanId, RepoName};
use runner::{InfraCause, Outcome};
use store::read::{BuildFilter, BuildState, Role, Status, Wish};
use store::{BranchChange, CreatedEnrolment, Enrolled, Store, StoreError};

use crate::world::*;

pub type Case = fn(Store) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub const ALL: &[(&str, Case)] = &[$((stringify!($name), |store| Box::pin($name(store)))),*];
    };
}

cases![
    an_empty_store_answers,
    a_build_goes_its_way_and_is_found_again,
    a_broken_invariant_is_refused_whole,
    machines_come_and_go,
    infra_machines_are_avoided_until_somebody_asks,
    a_branch_grows_is_rewritten_and_goes,
    commits_must_be_a_line,
    missing_builds_are_found_newest_first,
    a_grid_is_paged_by_depth,
    builds_are_listed_by_what_is_asked,
    usual_times_are_medians,
    commits_are_found_by_hash_and_words,
    repositories_tell_how_fresh_they_are,
    wishes_are_kept_until_done,
    a_lent_machine_is_nobody_elses_until_it_is_given_back,
    tokens_open_until_revoked_or_expired,
    keys_open_for_one_host_type,
    a_token_makes_one_machine_known_and_names_are_told_apart,
    logs_expire_after_their_attempt,
    every_commit_wakes_who_waits,
    a_thousand_builds_in_one_go,
];

#[track_caller]
fn conflict<T: std::fmt::Debug>(result: Result<T, StoreError>, told: &str) {
    match result {
        Err(StoreError::Conflict(found)) => assert!(found.contains(told), "{found}"),
        other => panic!("wanted a conflict about `{told}`, got {other:?}"),
    }
}

async fn apply(store: &Store, writes: &[Write]) {
    store.apply(writes).await.unwrap();
}

async fn an_empty_store_answers(store: Store) {
    store.health().await.unwrap();
    assert_eq!(store.unfinished().await.unwrap(), farm::Restored::default());
    assert_eq!(
        store.grid(&repo(), &branch("main"), None, "", 10).await.unwrap(),
        None
    );
    assert_eq!(store.build(BuildId(1)).await.unwrap(), None);
    assert_eq!(store.restored_build(BuildId(1)).await.unwrap(), None);
    assert_eq!(
        store
            .build_of(&repo(), &hash(1, 0), &builder("linux"))
            .await
            .unwrap(),
        None
    );
    assert!(
        store
            .builds(&BuildFilter::default(), 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(store.machines().await.unwrap().is_empty());
    assert!(
        store
            .missing(&repo(), &branch("main"), &[builder("linux")], 9)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        store.counts().await.unwrap(),
        BTreeMap::from(Status::ALL.map(|status| (status, 0)))
    );
    store.apply(&[]).await.unwrap();
}

async fn a_build_goes_its_way_and_is_found_again(store: Store) {
    with_history(&store, 3).await;
    apply(&store, &[up("m1", 5), created(1, 2, "linux")]).await;
    let row = store.builds(&BuildFilter::default(), 9).await.unwrap().remove(0);
    let waits = BuildState::Waiting {
        since: at(1001),
        not_before: None,
        why: String::new(),
    };
    assert_eq!((row.state, row.attempts, row.took), (waits, 0, Duration::ZERO));

    apply(&store, &[started(1, 1, "m1", 1010)]).await;
    apply(&store, &[step_started(step(1, 1, 0), 1011)]).await;
    let restored = store.unfinished().await.unwrap();
    assert_eq!(restored.last_build, 1);
    let build = &restored.builds[0];
    assert_eq!(
        (
            build.commit_time,
            build.requested,
            build.tries_left,
            build.attempts
        ),
        (at(2), at(1001), 3, 1)
    );
    let running = build.running.as_ref().unwrap();
    assert_eq!(
        (running.attempt, running.started, &running.plan),
        (attempt(1, 1), at(1010), &plan())
    );
    assert_eq!(
        running.steps,
        [farm::RestoredStep {
            started: at(1011),
            ended: None
        }]
    );
    assert_eq!(
        store.machine(&machine("m1")).await.unwrap().unwrap().running,
        Some(attempt(1, 1))
    );

    apply(
        &store,
        &[
            step_ended(step(1, 1, 0), 1020, true),
            step_started(step(1, 1, 1), 1020),
        ],
    )
    .await;
    let writes = [
        step_ended(step(1, 1, 1), 1030, false),
        ended(1, 1, 1030, failed()),
        done(1, 1031, failed()),
    ];
    apply(&store, &writes).await;
    assert!(store.unfinished().await.unwrap().builds.is_empty());
    assert_eq!(
        store.machine(&machine("m1")).await.unwrap().unwrap().running,
        None
    );

    let detail = store.build(BuildId(1)).await.unwrap().unwrap();
    assert_eq!(
        detail.row.state,
        BuildState::Done {
            at: at(1031),
            outcome: failed()
        }
    );
    assert_eq!(
        (detail.row.took, detail.row.flaky),
        (Duration::from_secs(20), false)
    );
    assert_eq!(detail.branches, [branch("main")]);
    assert_eq!(detail.commit.message, "area: 100% of change_2\n\nbody\u{fffd}");
    assert_eq!(detail.commit.parents, [hash(1, 0)]);
    let attempt = &detail.attempts[0];
    assert_eq!(
        (attempt.ended, attempt.outcome.as_ref()),
        (Some(at(1030)), Some(&failed()))
    );
    let steps: Vec<_> = attempt
        .steps
        .iter()
        .map(|step| (step.command.as_str(), step.ok, &*step.state))
        .collect();
    assert_eq!(
        steps,
        [
            ("make build", Some(true), "ok"),
            ("make test", Some(false), "exit status 1")
        ]
    );

    // Retried by hand, on the second try it passes: a flake.
    apply(&store, &[waiting(1, 2000, 3), started(1, 2, "m1", 2001)]).await;
    apply(
        &store,
        &[ended(1, 2, 2011, Outcome::Passed), done(1, 2011, Outcome::Passed)],
    )
    .await;
    let detail = store.build(BuildId(1)).await.unwrap().unwrap();
    assert_eq!(
        detail.row.state,
        BuildState::Done {
            at: at(2011),
            outcome: Outcome::Passed
        }
    );
    assert!(detail.row.flaky);
    assert_eq!((detail.row.attempts, detail.attempts.len()), (2, 2));
    assert_eq!(detail.attempts[1].steps[0].started, None);
    assert_eq!(
        store
            .build_of(&repo(), &hash(2, 0), &builder("linux"))
            .await
            .unwrap(),
        Some(BuildId(1))
    );
}

async fn a_broken_invariant_is_refused_whole(store: Store) {
    with_history(&store, 3).await;
    apply(
        &store,
        &[
            created(1, 1, "linux"),
            created(2, 2, "linux"),
            started(1, 1, "m1", 10),
        ],
    )
    .await;
    apply(&store, &[step_started(step(1, 1, 0), 11)]).await;
    let refused = async |write: Write, told: &str| {
        let before = (store.unfinished().await.unwrap(), store.counts().await.unwrap());
        // What stands before it in the same transaction goes with it.
        conflict(
            store.apply(&[up("m9", 1), created(7, 3, "linux"), write]).await,
            told,
        );
        assert_eq!(
            (store.unfinished().await.unwrap(), store.counts().await.unwrap()),
            before
        );
        assert!(store.machine(&machine("m9")).await.unwrap().is_none());
    };
    refused(
        created(8, 1, "linux"),
        "build 8 of `widget` 0000000 on `linux` cannot be created: build 1 is there",
    )
    .await;
    refused(created(1, 3, "other"), "build 1").await;
    refused(created(7, 3, "linux"), "created twice").await;
    refused(created(8, 99, "linux"), "a commit that is not recorded").await;
    refused(started(2, 1, "m1", 12), "attempt 2.1 cannot have machine `m1`").await;
    refused(started(1, 2, "m2", 12), "attempt 1.2 cannot start").await;
    refused(started(2, 2, "m2", 12), "attempt 2.2 cannot start").await;
    refused(started(5, 1, "m2", 12), "attempt 5.1 cannot start").await;
    refused(step_started(step(1, 1, 0), 12), "step 1.1.0 cannot start").await;
    refused(step_started(step(1, 1, 1), 12), "step 1.1.1 cannot start").await;
    refused(step_started(step(2, 1, 0), 12), "step 2.1.0 cannot start").await;
    refused(step_ended(step(1, 1, 1), 12, true), "step 1.1.1 cannot end").await;
    refused(ended(2, 1, 12, Outcome::Passed), "attempt 2.1 cannot end").await;
    refused(waiting(1, 12, 3), "build 1 cannot wait").await;
    refused(waiting(5, 12, 3), "build 5 cannot wait").await;
    refused(done(1, 12, Outcome::Passed), "build 1 cannot be done").await;
    refused(down("m7", 12), "machine `m7` cannot go").await;
    let at = at(12);
    refused(
        Write::IntentDone {
            intent: 3,
            at,
            answer: String::new(),
        },
        "wish 3 cannot be done",
    )
    .await;
}

async fn machines_come_and_go(store: Store) {
    apply(&store, &[up("m1", 5), up("m2", 5)]).await;
    apply(&store, &[down("m1", 9)]).await;
    let machines = store.machines().await.unwrap();
    assert_eq!(
        (
            machines[0].connected,
            machines[0].why_gone.as_str(),
            machines[0].changed
        ),
        (false, "unplugged", at(9))
    );
    assert!(machines[1].connected && machines[1].facts.resumable);
    apply(&store, &[up("m1", 20)]).await;
    let one = store.machine(&machine("m1")).await.unwrap().unwrap();
    assert_eq!(
        (one.first_seen, one.changed, one.why_gone.as_str()),
        (at(5), at(20), "")
    );
    store.machines_unknown(at(30), "restart").await.unwrap();
    let machines = store.machines().await.unwrap();
    assert!(
        machines
            .iter()
            .all(|machine| !machine.connected && machine.why_gone == "restart")
    );
}

async fn infra_machines_are_avoided_until_somebody_asks(store: Store) {
    with_history(&store, 3).await;
    apply(&store, &[created(1, 1, "linux")]).await;
    let causes = [
        InfraCause::MachineLost,
        InfraCause::CoordinatorRestart,
        InfraCause::MachineRefused,
    ];
    for (n, cause) in (1..).zip(causes) {
        let on = format!("m{n}");
        apply(
            &store,
            &[
                started(1, n, &on, 10),
                ended(1, n, 11, lost(cause)),
                waiting(1, 12, 3 - n),
            ],
        )
        .await;
    }
    let build = store.unfinished().await.unwrap().builds.remove(0);
    assert_eq!(build.avoid, [machine("m1"), machine("m3")]);
    assert_eq!(
        (build.requested, build.not_before, build.tries_left),
        (at(12), Some(at(72)), 0)
    );
    let why = lost(InfraCause::NoMachine);
    apply(&store, &[done(1, 13, why)]).await;
    assert_eq!(
        store
            .restored_build(BuildId(1))
            .await
            .unwrap()
            .unwrap()
            .avoid
            .len(),
        2
    );
    apply(&store, &[waiting(1, 20, 3)]).await;
    assert_eq!(store.unfinished().await.unwrap().builds[0].avoid, []);
    apply(
        &store,
        &[
            started(1, 4, "m4", 21),
            ended(1, 4, 22, lost(InfraCause::MachineLost)),
        ],
    )
    .await;
    assert_eq!(store.unfinished().await.unwrap().builds[0].avoid, [machine("m4")]);
}

async fn depths(store: &Store) -> Vec<(u64, ids::GitHash)> {
    let grid = store
        .grid(&repo(), &branch("main"), None, "", 100)
        .await
        .unwrap()
        .unwrap();
    grid.rows
        .into_iter()
        .map(|row| (row.depth, row.commit.hash))
        .collect()
}

async fn a_branch_grows_is_rewritten_and_goes(store: Store) {
    let record = async |commits: &[store::read::CommitRow], head: u64| {
        store
            .record_branch(&repo(), &branch("main"), commits, head, 2, at(head as i64))
            .await
            .unwrap()
    };
    let none = BranchChange::default();
    let first = record(&line(0, 4, 0, 0), 4).await;
    assert_eq!(
        first,
        BranchChange {
            new: true,
            moved: true,
            added: 5,
            ..none
        }
    );
    let row = store.branches(None).await.unwrap().remove(0);
    assert_eq!(
        (row.head, row.head_depth, row.build_from, row.seen, row.gone),
        (hash(4, 0), 4, 3, at(4), false)
    );

    assert_eq!(record(&line(4, 4, 0, 0), 4).await, none);
    // Handed in with more than is new, and with just what is new.
    assert_eq!(
        record(&line(3, 6, 0, 0), 6).await,
        BranchChange {
            moved: true,
            added: 2,
            ..none
        }
    );
    assert_eq!(
        record(&line(7, 7, 0, 0), 7).await,
        BranchChange {
            moved: true,
            added: 1,
            ..none
        }
    );
    assert_eq!(store.branches(Some(&repo())).await.unwrap()[0].build_from, 3);

    // A force push from depth 5 on, to a shorter history.
    let forced = record(&line(5, 6, 1, 5), 6).await;
    assert_eq!(
        forced,
        BranchChange {
            moved: true,
            replaced: 3,
            ..none
        }
    );
    let wanted: Vec<_> = (0..=6)
        .rev()
        .map(|n| (n, hash(n, if n < 5 { 0 } else { 1 })))
        .collect();
    assert_eq!(depths(&store).await, wanted);
    // The commits that are no more on it are still known.
    assert!(store.commit_row(&repo(), &hash(6, 0)).await.unwrap().is_some());

    // Another history altogether, of which only the end was looked at.
    let other = record(&line(9, 10, 2, 0), 10).await;
    assert_eq!(
        other,
        BranchChange {
            moved: true,
            added: 2,
            forgotten: 7,
            ..none
        }
    );
    assert_eq!(depths(&store).await, [(10, hash(10, 2)), (9, hash(9, 2))]);
    // Rewritten to almost nothing: the newest two are built again.
    assert_eq!(
        record(&line(0, 1, 3, 0), 1).await,
        BranchChange {
            moved: true,
            added: 2,
            replaced: 2,
            ..none
        }
    );
    assert_eq!(store.branches(None).await.unwrap()[0].build_from, 0);

    store
        .mark_branch_gone(&repo(), &branch("main"), at(50))
        .await
        .unwrap();
    store
        .mark_branch_gone(&repo(), &branch("never"), at(50))
        .await
        .unwrap();
    assert!(store.branches(None).await.unwrap()[0].gone);
    assert!(
        store
            .missing(&repo(), &branch("main"), &[builder("linux")], 9)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        record(&line(0, 1, 3, 0), 1).await,
        BranchChange { moved: true, ..none }
    );
    assert!(!store.branches(None).await.unwrap()[0].gone);
}

async fn commits_must_be_a_line(store: Store) {
    let record = async |commits: &[store::read::CommitRow], head: u64| {
        store
            .record_branch(&repo(), &branch("main"), commits, head, 2, at(1))
            .await
    };
    conflict(record(&[], 3).await, "no commits");
    conflict(
        record(&[commit(3, 0, 0), commit(1, 0, 0)], 3).await,
        "is not the first parent of",
    );
    conflict(
        record(&line(0, 4, 0, 0), 3).await,
        "5 commits do not fit a head at depth 3",
    );
    let mut stranger = commit(0, 0, 0);
    stranger.repo = RepoName::parse("gadget").unwrap();
    conflict(record(&[stranger], 0).await, "is of `gadget`");
    assert!(store.branches(None).await.unwrap().is_empty());
}

async fn missing_builds_are_found_newest_first(store: Store) {
    let main = branch("main");
    store
        .record_branch(&repo(), &main, &line(0, 9, 0, 0), 9, 4, at(1))
        .await
        .unwrap();
    let (linux, mac) = (builder("linux"), builder("mac"));
    let missing = async |builders: &[ids::BuilderName], limit: usize| {
        let found = store.missing(&repo(), &main, builders, limit).await.unwrap();
        let shown = found.into_iter().map(|(commit, builders)| {
            let names: Vec<String> = builders.iter().map(|builder| builder.to_string()).collect();
            format!("{}:{}", commit.commit_time.as_secs(), names.join("+"))
        });
        shown.collect::<Vec<_>>().join(" ")
    };
    let both = [mac.clone(), linux.clone(), mac.clone()];
    assert_eq!(
        missing(&both, 9).await,
        "9:linux+mac 8:linux+mac 7:linux+mac 6:linux+mac"
    );
    assert_eq!(missing(&both, 2).await, "9:linux+mac 8:linux+mac");
    assert_eq!(missing(&[], 9).await, "");
    apply(
        &store,
        &[
            created(1, 9, "linux"),
            created(2, 7, "linux"),
            created(3, 7, "mac"),
            created(4, 6, "bsd"),
        ],
    )
    .await;
    assert_eq!(missing(&both, 9).await, "9:mac 8:linux+mac 6:linux+mac");
    apply(&store, &[created(5, 6, "mac"), created(6, 6, "linux")]).await;
    assert_eq!(missing(&both, 9).await, "9:mac 8:linux+mac");
    apply(
        &store,
        &[created(7, 8, "mac"), created(8, 8, "linux"), created(9, 9, "mac")],
    )
    .await;
    assert_eq!(missing(&both, 9).await, "");
    assert_eq!(missing(&both, 9).await, "");
    // What was complete is so no more when the history, the builders or the beginning change.
    assert_eq!(missing(&[builder("bsd")], 9).await, "9:bsd 8:bsd 7:bsd");
    store
        .record_branch(&repo(), &main, &line(7, 10, 1, 8), 10, 4, at(1))
        .await
        .unwrap();
    assert_eq!(missing(&both, 9).await, "10:linux+mac 9:linux+mac 8:linux+mac");
    store
        .record_branch(&repo(), &main, &line(0, 1, 2, 0), 1, 4, at(1))
        .await
        .unwrap();
    assert_eq!(missing(&both, 9).await, "1:linux+mac 0:linux+mac");
}

async fn a_grid_is_paged_by_depth(store: Store) {
    with_history(&store, 9).await;
    let writes = [
        created(1, 9, "mac"),
        created(2, 9, "linux"),
        created(3, 7, "linux"),
        created(4, 2, "linux"),
    ];
    apply(&store, &writes).await;
    let page_with = async |words: &'static str, before: Option<u64>, limit: usize| {
        let grid = store
            .grid(&repo(), &branch("main"), before, words, limit)
            .await
            .unwrap()
            .unwrap();
        let row = |row: &store::read::GridRow| {
            let cells: Vec<String> = row.cells.iter().map(|cell| format!("{}", cell.build)).collect();
            format!("{}[{}]", row.depth, cells.join(","))
        };
        let rows: Vec<String> = grid.rows.iter().map(row).collect();
        format!(
            "{}{}{}",
            if grid.newer { "< " } else { "" },
            rows.join(" "),
            if grid.older { " >" } else { "" }
        )
    };
    let page = async |before, limit| page_with("", before, limit).await;
    assert_eq!(page(None, 4).await, "9[2,1] 8[] 7[3] 6[] >");
    assert_eq!(page(Some(6), 4).await, "< 5[] 4[] 3[] 2[4] >");
    assert_eq!(page(Some(2), 4).await, "< 1[] 0[]");
    assert_eq!(page(Some(2), 2).await, "< 1[] 0[]");
    assert_eq!(page(Some(0), 2).await, "< ");
    assert_eq!(page(Some(u64::MAX), 1).await, "9[2,1] >");
    // By words of title and author, the rows in between left out.
    assert_eq!(page_with(" ADA ", None, 2).await, "9[2,1] 8[] >");
    assert_eq!(page_with("change_2", None, 4).await, "2[4]");
    assert_eq!(page_with("change_2", Some(2), 4).await, "< ");
    assert_eq!(page_with("change%2", None, 4).await, "");

    for (hash, depth) in [(hash(7, 0), Some(7)), (hash(7, 1), None)] {
        let found = store.depth_of(&repo(), &branch("main"), &hash).await.unwrap();
        assert_eq!(found, depth);
        let branches = store.branches_with(&repo(), &hash).await.unwrap();
        assert_eq!(
            branches,
            depth.map(|_| branch("main")).into_iter().collect::<Vec<_>>()
        );
    }
    let elsewhere = store.depth_of(&repo(), &branch("other"), &hash(7, 0)).await;
    assert_eq!(elsewhere.unwrap(), None);
    let history = store
        .builder_history(&repo(), &builder("linux"), &branch("main"), Some(9), 3)
        .await
        .unwrap();
    let builds: Vec<_> = history
        .iter()
        .map(|row| (row.depth, row.build.as_ref().map(|b| b.build.0)))
        .collect();
    assert_eq!(builds, [(8, None), (7, Some(3)), (6, None)]);
}

async fn builds_are_listed_by_what_is_asked(store: Store) {
    with_history(&store, 9).await;
    apply(
        &store,
        &[
            created(1, 1, "linux"),
            created(2, 2, "linux"),
            created(3, 2, "mac"),
            created(4, 3, "mac"),
        ],
    )
    .await;
    apply(
        &store,
        &[
            started(2, 1, "m1", 10),
            ended(2, 1, 11, Outcome::Passed),
            done(2, 11, Outcome::Passed),
        ],
    )
    .await;
    apply(&store, &[started(3, 1, "m1", 12)]).await;
    apply(
        &store,
        &[done(4, 12, Outcome::Cancelled { by: "ada".to_owned() })],
    )
    .await;
    let list = async |filter: BuildFilter, limit: usize| {
        store
            .builds(&filter, limit)
            .await
            .unwrap()
            .iter()
            .map(|row| row.build.0)
            .collect::<Vec<_>>()
    };
    let all = BuildFilter::default;
    assert_eq!(list(all(), 9).await, [4, 3, 2, 1]);
    assert_eq!(list(all(), 2).await, [4, 3]);
    assert_eq!(
        list(
            BuildFilter {
                before: Some(BuildId(3)),
                ..all()
            },
            9
        )
        .await,
        [2, 1]
    );
    assert_eq!(
        list(
            BuildFilter {
                builder: Some(builder("mac")),
                ..all()
            },
            9
        )
        .await,
        [4, 3]
    );
    assert_eq!(
        list(
            BuildFilter {
                commit: Some(hash(2, 0)),
                ..all()
            },
            9
        )
        .await,
        [3, 2]
    );
    assert_eq!(
        list(
            BuildFilter {
                machine: Some(machine("m1")),
                ..all()
            },
            9
        )
        .await,
        [3, 2]
    );
    assert_eq!(
        list(
            BuildFilter {
                repo: Some(repo()),
                ..all()
            },
            1
        )
        .await,
        [4]
    );
    for (status, wanted) in [
        (Status::Waiting, vec![1]),
        (Status::Running, vec![3]),
        (Status::Passed, vec![2]),
        (Status::Failed, vec![]),
        (Status::Cancelled, vec![4]),
    ] {
        assert_eq!(
            list(
                BuildFilter {
                    status: Some(status),
                    ..all()
                },
                9
            )
            .await,
            wanted,
            "{status:?}"
        );
        assert_eq!(
            store.counts().await.unwrap()[&status],
            wanted.len() as u64,
            "{status:?}"
        );
    }
    let mixed = BuildFilter {
        machine: Some(machine("m1")),
        status: Some(Status::Passed),
        repo: Some(repo()),
        ..all()
    };
    assert_eq!(list(mixed, 9).await, [2]);
    let unfinished: Vec<u64> = store
        .waiting_and_running()
        .await
        .unwrap()
        .iter()
        .map(|row| row.build.0)
        .collect();
    assert_eq!(unfinished, [1, 3]);
}

async fn usual_times_are_medians(store: Store) {
    with_history(&store, 40).await;
    let run = async |build: u64, name: &str, secs: i64, outcome: Outcome| {
        let writes = [
            created(build, build, name),
            started(build, 1, "m1", 100),
            ended(build, 1, 100 + secs, outcome.clone()),
            done(build, 100 + secs, outcome),
        ];
        apply(&store, &writes).await;
    };
    for (build, secs) in (1..).zip([10, 30, 20]) {
        run(build, "linux", secs, Outcome::Passed).await;
    }
    run(4, "linux", 999, failed()).await;
    run(5, "mac", 999, failed()).await;
    let usual = async || {
        store
            .usual_times(&[builder("linux"), builder("mac")])
            .await
            .unwrap()
    };
    assert_eq!(
        usual().await,
        BTreeMap::from([((repo(), builder("linux")), Duration::from_secs(20))])
    );
    assert_eq!(
        store.usual_times(&[builder("mac")]).await.unwrap(),
        BTreeMap::new()
    );
    // Only the last twenty count.
    for build in 6..26 {
        run(build, "linux", 7, Outcome::Passed).await;
    }
    run(26, "linux", 1000, Outcome::Passed).await;
    assert_eq!(usual().await[&(repo(), builder("linux"))], Duration::from_secs(7));
}

async fn commits_are_found_by_hash_and_words(store: Store) {
    with_history(&store, 20).await;
    let found = store
        .commits_by_prefix(&hash(3, 0).as_str()[..39], 50)
        .await
        .unwrap();
    assert_eq!(found.len(), 16);
    let found = store.commits_by_prefix(hash(3, 0).as_str(), 50).await.unwrap();
    assert_eq!(found[0].hash, hash(3, 0));
    for none in ["000", "zzzz", "0000%", "ABCD", "", "ffff"] {
        assert!(
            store.commits_by_prefix(none, 50).await.unwrap().is_empty(),
            "{none}"
        );
    }
    let search = async |words: &str| {
        let found = store.search_commits(words, 3).await.unwrap();
        found
            .iter()
            .map(|commit| commit.commit_time.as_secs())
            .collect::<Vec<_>>()
    };
    assert_eq!(search("AREA: 100% of").await, [20, 19, 18]);
    assert_eq!(search(" change_17 ").await, [17]);
    assert_eq!(search("ünder").await, [20, 19, 18]);
    assert_eq!(search("ADA@example").await, [20, 19, 18]);
    for none in ["changeX17", "100_", r"\", "", "  ", "body"] {
        assert!(search(none).await.is_empty(), "{none}");
    }
}

async fn repositories_tell_how_fresh_they_are(store: Store) {
    let main = branch("main");
    let row = async || store.repos().await.unwrap().remove(0);
    store
        .record_repo_state(&repo(), None, Some("no route"), at(1))
        .await
        .unwrap();
    let first = row().await;
    assert_eq!(
        (
            first.default_branch,
            first.fetched,
            first.error.as_deref(),
            first.since
        ),
        (None, None, Some("no route"), at(1))
    );
    store
        .record_repo_state(&repo(), Some(&main), None, at(2))
        .await
        .unwrap();
    store.record_repo_state(&repo(), None, None, at(3)).await.unwrap();
    let fresh = row().await;
    assert_eq!(
        (fresh.default_branch, fresh.fetched, fresh.error, fresh.since),
        (Some(main), Some(at(3)), None, at(2))
    );
    store
        .record_repo_state(&repo(), None, Some("gone"), at(4))
        .await
        .unwrap();
    store
        .record_repo_state(&repo(), None, Some("still gone"), at(5))
        .await
        .unwrap();
    let stale = row().await;
    assert_eq!(
        (stale.fetched, stale.error.as_deref(), stale.since),
        (Some(at(3)), Some("still gone"), at(4))
    );
}

async fn wishes_are_kept_until_done(store: Store) {
    let one = store
        .add_intent(Wish::Retry(BuildId(1)), "ada", at(1))
        .await
        .unwrap();
    let two = store
        .add_intent(Wish::Cancel(BuildId(2)), "bob", at(2))
        .await
        .unwrap();
    let open = store.open_intents().await.unwrap();
    assert_eq!(
        open.iter().map(|intent| intent.id).collect::<Vec<_>>(),
        [one, two]
    );
    assert_eq!(
        (open[1].by.as_str(), open[1].wish, open[1].at),
        ("bob", Wish::Cancel(BuildId(2)), at(2))
    );
    assert_eq!(store.intent_answer(one).await.unwrap(), None);
    let answer = |intent| {
        [Write::IntentDone {
            intent,
            at: at(3),
            answer: "cancelled".to_owned(),
        }]
    };
    apply(&store, &answer(one)).await;
    conflict(store.apply(&answer(one)).await, "is done or not there");
    assert_eq!(store.open_intents().await.unwrap()[0].id, two);
    assert_eq!(
        store.intent_answer(one).await.unwrap(),
        Some((at(3), "cancelled".to_owned()))
    );
}

async fn a_lent_machine_is_nobody_elses_until_it_is_given_back(store: Store) {
    with_history(&store, 1).await;
    apply(&store, &[created(1, 0, "linux"), lent(2, "m1", 1)]).await;
    let restored = store.unfinished().await.unwrap();
    assert_eq!(restored.last_build, 2, "builds and loans are counted together");
    assert_eq!(
        vec![lent(2, "m1", 1)],
        [Write::LoanStarted(restored.loans[0].clone())]
    );
    conflict(store.apply(&[started(1, 1, "m1", 2)]).await, "machine `m1`");
    conflict(store.apply(&[lent(3, "m1", 2)]).await, "it is somebody else's");
    conflict(store.apply(&[lent(4, "m2", 2)]).await, "another one called");
    apply(&store, &[lent(5, "m2", 2), renewed(2, 60)]).await;
    let names = async || {
        let rows = store.loans().await.unwrap();
        rows.into_iter()
            .map(|row| (row.loan.name, row.loan.expires, row.return_by))
            .collect::<Vec<_>>()
    };
    let (even, odd) = ("user-amy-linux-0".to_owned(), "user-amy-linux-1".to_owned());
    assert_eq!(
        names().await,
        [(even, at(1860), None), (odd.clone(), at(1802), None)]
    );

    // Wanted back first by ann: hers is the name that is kept.
    assert!(store.return_loan(LoanId(2), "ann").await.unwrap());
    assert!(store.return_loan(LoanId(2), "bob").await.unwrap());
    assert_eq!(
        store.returned_loans().await.unwrap(),
        [(LoanId(2), "ann".to_owned())]
    );
    apply(&store, &[given_back(2, 70)]).await;
    assert!(!store.return_loan(LoanId(2), "ann").await.unwrap());
    assert_eq!(store.returned_loans().await.unwrap(), []);
    assert_eq!(names().await, [(odd, at(1802), None)]);
    let row = store.loan("user-amy-linux-0").await.unwrap().unwrap();
    assert_eq!((row.ended, row.why.as_str()), (Some(at(70)), "given back by amy"));
    assert_eq!(store.loan("user-bob-linux-0").await.unwrap(), None);
    conflict(store.apply(&[renewed(2, 80)]).await, "it has ended");
    conflict(store.apply(&[given_back(2, 80)]).await, "it has");
    apply(&store, &[started(1, 1, "m1", 80)]).await;
}

async fn tokens_open_until_revoked_or_expired(store: Store) {
    let made = store
        .create_token("ada", Role::Contributor, Some(at(100)), at(1))
        .await
        .unwrap();
    assert!(made.secret.starts_with("bt_") && made.secret.len() == 35);
    conflict(
        store
            .create_token("ada", Role::Admin, None, at(1))
            .await
            .map(|_| ()),
        "`ada` is there",
    );
    let bob = store.create_token("bob", Role::Admin, None, at(1)).await.unwrap();
    let check = async |secret: &str, secs: i64| {
        store
            .check_token(secret, at(secs))
            .await
            .unwrap()
            .map(|token| (token.name, token.role))
    };
    assert_eq!(
        check(&made.secret, 99).await,
        Some(("ada".to_owned(), Role::Contributor))
    );
    assert_eq!(check(&made.secret, 100).await, None);
    assert_eq!(
        check(&bob.secret, 9999).await,
        Some(("bob".to_owned(), Role::Admin))
    );
    for wrong in ["", "bt_", &made.secret[..34], &made.secret.to_lowercase()] {
        assert_eq!(check(wrong, 5).await, None, "{wrong}");
    }
    let used = async || store.tokens().await.unwrap()[1].last_used;
    assert_eq!(used().await, Some(at(9999)));
    check(&bob.secret, 10_020).await;
    assert_eq!(used().await, Some(at(9999)));
    check(&bob.secret, 10_060).await;
    assert_eq!(used().await, Some(at(10_060)));
    assert!(store.revoke_token(bob.row.id, at(10_061)).await.unwrap());
    assert!(!store.revoke_token(bob.row.id, at(10_062)).await.unwrap());
    assert_eq!(check(&bob.secret, 10_063).await, None);
    assert_eq!(store.tokens().await.unwrap()[1].revoked, Some(at(10_061)));
    store
        .create_token("bob", Role::Reader, None, at(10_064))
        .await
        .unwrap();
    assert_eq!(store.tokens().await.unwrap().len(), 3);
}

async fn keys_open_for_one_host_type(store: Store) {
    let mac = HostType::parse("mac").unwrap();
    let made = store.create_key("attic", &mac, at(1)).await.unwrap();
    assert!(made.secret.starts_with("bk_"));
    conflict(
        store.create_key("attic", &host(), at(1)).await.map(|_| ()),
        "`attic` is there",
    );
    let found = store.check_key(&mac, &made.secret, at(2)).await.unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.last_used), ("attic", None));
    assert_eq!(store.keys().await.unwrap()[0].last_used, Some(at(2)));
    assert!(
        store
            .check_key(&host(), &made.secret, at(2))
            .await
            .unwrap()
            .is_none()
    );
    assert!(store.check_key(&mac, "bk_", at(2)).await.unwrap().is_none());
    assert!(store.revoke_key(made.row.id, at(3)).await.unwrap());
    assert!(
        store
            .check_key(&mac, &made.secret, at(4))
            .await
            .unwrap()
            .is_none()
    );
}

async fn a_token_makes_one_machine_known_and_names_are_told_apart(store: Store) {
    let token = async |name: &str| {
        let made = store
            .create_enrolment(name, &host(), at(100), at(1))
            .await
            .unwrap();
        assert!(made.secret.starts_with("be_"));
        made
    };
    let known = |came: Enrolled| match came {
        Enrolled::Known(row) => row.name,
        other => panic!("{other:?}"),
    };
    let enrol = async |token: &CreatedEnrolment, key: &str, when: i64| {
        let came = store.enrol(&token.secret, key, "rack", at(when)).await;
        came.unwrap()
    };
    let (first, second, named) = (token("").await, token("").await, token("attic").await);
    assert_eq!(known(enrol(&first, "k1", 2).await), "rack");
    assert_eq!(known(enrol(&second, "k2", 3).await), "rack-2");
    assert_eq!(known(enrol(&named, "k3", 3).await), "attic");
    // The answer may have been lost; another machine is not let in by it.
    assert_eq!(known(enrol(&first, "k1", 200).await), "rack");
    assert_eq!(
        enrol(&first, "k4", 4).await,
        Enrolled::Used(at(2), "rack".to_owned())
    );
    let (late, taken_back) = (token("").await, token("").await);
    assert_eq!(enrol(&late, "k1", 4).await, Enrolled::KeyTaken);
    assert_eq!(enrol(&late, "k4", 100).await, Enrolled::Expired(at(100)));
    assert!(store.revoke_enrolment(taken_back.row.id, at(5)).await.unwrap());
    assert!(!store.revoke_enrolment(taken_back.row.id, at(6)).await.unwrap());
    assert_eq!(enrol(&taken_back, "k4", 6).await, Enrolled::Revoked(at(5)));
    assert!(
        !store.revoke_enrolment(first.row.id, at(6)).await.unwrap(),
        "what is used is the machine's matter"
    );
    let unknown = store.enrol("be_", "k4", "rack", at(6)).await.unwrap();
    assert_eq!(unknown, Enrolled::NoSuchToken);

    let machine = store.identity("k1").await.unwrap().unwrap();
    assert_eq!((machine.host_type.clone(), machine.last_used), (host(), None));
    store.identity_used(&machine, at(7)).await;
    assert!(store.revoke_identity(machine.id, at(8)).await.unwrap());
    let machine = store.identity("k1").await.unwrap().unwrap();
    assert_eq!((machine.last_used, machine.revoked), (Some(at(7)), Some(at(8))));
    assert_eq!(
        enrol(&first, "k1", 9).await,
        Enrolled::KeyTaken,
        "a revoked key stays so"
    );
    assert_eq!(known(enrol(&late, "k4", 9).await), "rack", "its name is free");
    assert_eq!(store.identity("k9").await.unwrap(), None);
    let states: Vec<_> = store
        .enrolments()
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.used.map(|(_, by)| by))
        .collect();
    let by = |name: &str| Some(name.to_owned());
    assert_eq!(states, [by("rack"), by("rack-2"), by("attic"), by("rack"), None]);
    assert_eq!(store.identities().await.unwrap().len(), 4);
}

async fn logs_expire_after_their_attempt(store: Store) {
    with_history(&store, 3).await;
    apply(&store, &[created(1, 1, "linux"), created(2, 2, "linux")]).await;
    for build in [1, 2] {
        let on = format!("m{build}");
        apply(
            &store,
            &[started(build, 1, &on, 1), step_started(step(build, 1, 0), 2)],
        )
        .await;
    }
    let expired = store.expire_logs(at(i64::from(u32::MAX)), 9).await.unwrap();
    assert_eq!(expired, [], "they are written still");
    for (build, secs) in [(1, 20), (2, 10)] {
        apply(&store, &[ended(build, 1, secs, Outcome::Passed)]).await;
    }
    let has_log = async || {
        let steps = store
            .build(BuildId(2))
            .await
            .unwrap()
            .unwrap()
            .attempts
            .remove(0)
            .steps;
        steps.iter().map(|step| step.has_log).collect::<Vec<_>>()
    };
    assert_eq!(store.expire_logs(at(10), 9).await.unwrap(), []);
    assert_eq!(has_log().await, [true, false]);
    // No page points to it before it is deleted; whoever dies in between finds it again.
    assert_eq!(store.expire_logs(at(21), 1).await.unwrap(), [step(2, 1, 0)]);
    assert_eq!(has_log().await, [false, false]);
    let both = [step(1, 1, 0), step(2, 1, 0)];
    assert_eq!(store.expire_logs(at(21), 1).await.unwrap(), both);
    store.mark_log_deleted(&both[1..]).await.unwrap();
    assert_eq!(store.expire_logs(at(21), 9).await.unwrap(), both[..1]);
}

async fn every_commit_wakes_who_waits(store: Store) {
    let mut changes = store.clone().changes();
    let mut changed = || {
        let changed = changes.has_changed().unwrap();
        changes.borrow_and_update();
        changed
    };
    assert!(!changed());
    with_history(&store, 2).await;
    assert!(changed());
    apply(&store, &[created(1, 1, "linux")]).await;
    assert!(changed());
    assert!(store.apply(&[created(1, 1, "linux")]).await.is_err());
    assert!(!changed());
    store
        .add_intent(Wish::Retry(BuildId(1)), "ada", at(1))
        .await
        .unwrap();
    assert!(changed());
}

async fn a_thousand_builds_in_one_go(store: Store) {
    with_history(&store, 120).await;
    let mut writes = vec![up("m1", 1)];
    writes.extend((0..1017).map(|n| created(n + 1, n % 113, &format!("b{}", n / 113))));
    writes.push(started(1017, 1, "m1", 2));
    apply(&store, &writes).await;
    let counts = store.counts().await.unwrap();
    assert_eq!((counts[&Status::Waiting], counts[&Status::Running]), (1016, 1));
    let restored = store.unfinished().await.unwrap();
    assert_eq!((restored.last_build, restored.builds.len()), (1017, 1017));
    let cell = store.build(BuildId(500)).await.unwrap().unwrap();
    assert_eq!(
        (cell.row.commit, cell.row.builder),
        (hash(499 % 113, 0), builder("b4"))
    );
}
