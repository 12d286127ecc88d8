//! What can be wrong with a SQLite file, and two handles on one.

use std::fs;
use std::io::{Seek, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sqlx::{Connection, Executor, SqliteConnection};
use store::{OpenError, Store, StoreError, StoreUrl};

use crate::world::*;

async fn open(path: &Path) -> Result<Store, OpenError> {
    Store::open(&StoreUrl::Sqlite(path.to_owned())).await
}

async fn refused(path: &Path) -> OpenError {
    let before = fs::read(path).ok();
    let Err(error) = open(path).await else {
        panic!("opened `{}`", path.display())
    };
    assert!(
        fs::read(path).ok() == before,
        "the refused `{}` was changed",
        path.display()
    );
    let told = error.to_string();
    assert!(told.contains(path.to_str().unwrap()), "{told}");
    error
}

async fn raw(path: &Path, sql: &'static str) {
    let mut conn = SqliteConnection::connect(&format!("sqlite:{}?mode=rwc", path.display()))
        .await
        .unwrap();
    conn.execute(sql).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn a_store_of_the_first_version_moves_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.db");
    let url = format!("sqlite:{}?mode=rwc", path.display());
    let mut conn = SqliteConnection::connect(&url).await.unwrap();
    let first = include_str!("../../migrations/sqlite/0001_farm.sql");
    first_migration(first).run(&mut conn).await.unwrap();
    conn.execute(ONE_ATTEMPT).await.unwrap();
    // What marks the file as a farm store.
    conn.execute("PRAGMA application_id = 1651864183").await.unwrap();
    conn.close().await.unwrap();
    keeps_its_attempt(open(&path).await.unwrap()).await;
}

/// A store with some history, closed.
async fn filled(path: &Path) {
    let store = open(path).await.unwrap();
    with_history(&store, 200).await;
    store.close().await;
}

#[tokio::test]
async fn a_store_is_there_after_it_was_closed_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a b#ü%?.db");
    filled(&path).await;
    assert!(path.is_file());
    {
        let store = open(&path).await.unwrap();
        store
            .apply(&[up("m1", 5), created(1, 0, "linux"), started(1, 1, "m1", 6)])
            .await
            .unwrap();
        // Dropped without a word, as by a kill.
    }
    let store = open(&path).await.unwrap();
    assert_eq!(
        store.unfinished().await.unwrap().builds[0]
            .running
            .as_ref()
            .unwrap()
            .attempt,
        attempt(1, 1)
    );
    store.health().await.unwrap();
    store.close().await;
    assert!(matches!(store.health().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(
        store.apply(&[up("m2", 5)]).await,
        Err(StoreError::Unavailable(_))
    ));
}

#[tokio::test]
async fn a_write_that_is_given_up_leaves_nothing_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("farm.db")).await.unwrap();
    with_history(&store, 300).await;
    let writes: Vec<_> = (1..=300).map(|n| created(n, n, "linux")).collect();
    for turns in 0..40 {
        let apply = store.apply(&writes);
        let mut apply = std::pin::pin!(apply);
        // Polls it a few times, then drops it.
        let mut polls = 0;
        std::future::poll_fn(|context| {
            polls += 1;
            match apply.as_mut().poll(context) {
                _ if polls > turns => std::task::Poll::Ready(()),
                std::task::Poll::Pending => std::task::Poll::Pending,
                std::task::Poll::Ready(_) => std::task::Poll::Ready(()),
            }
        })
        .await;
        let found = store.unfinished().await.unwrap().builds.len();
        assert!(found == 0 || found == 300, "{found}");
        if found == 300 {
            return;
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_serve_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);

    let none = path("no/farm.db");
    assert!(
        refused(&none)
            .await
            .to_string()
            .ends_with("its folder does not exist; make it")
    );
    fs::create_dir(path("folder")).unwrap();
    assert!(matches!(refused(&path("folder")).await, OpenError::Path { .. }));

    fs::write(
        path("text"),
        "not a database, but long enough to be looked at as one".repeat(100),
    )
    .unwrap();
    assert!(matches!(refused(&path("text")).await, OpenError::Damaged { .. }));

    raw(&path("other"), "CREATE TABLE notes (x)").await;
    assert!(matches!(
        refused(&path("other")).await,
        OpenError::NotAStore { .. }
    ));

    filled(&path("hole")).await;
    let mut file = fs::OpenOptions::new().write(true).open(path("hole")).unwrap();
    file.seek(SeekFrom::Start(5 * 4096)).unwrap();
    file.write_all(&[0xa5; 8 * 4096]).unwrap();
    let error = refused(&path("hole")).await;
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("latest backup"), "{error}");

    filled(&path("ro")).await;
    fs::set_permissions(path("ro"), fs::Permissions::from_mode(0o444)).unwrap();
    assert!(matches!(refused(&path("ro")).await, OpenError::ReadOnly { .. }));

    filled(&path("new")).await;
    raw(
        &path("new"),
        "UPDATE _sqlx_migrations SET version = 99 WHERE version = 2",
    )
    .await;
    assert!(matches!(
        refused(&path("new")).await,
        OpenError::Newer { found: 99, .. }
    ));

    filled(&path("foreign")).await;
    raw(&path("foreign"), "UPDATE _sqlx_migrations SET checksum = x'00'").await;
    assert!(matches!(
        refused(&path("foreign")).await,
        OpenError::Foreign { .. }
    ));
}

#[tokio::test]
async fn what_contradicts_itself_is_told_not_guessed() {
    for (sql, told) in [
        (
            "UPDATE builds SET outcome_detail = 'x'",
            "build 1: its outcome columns do not fit `passed`",
        ),
        (
            "UPDATE builds SET commit_hash = 'x'",
            "`x` is not a full git hash",
        ),
        (
            "UPDATE attempts SET plan = '{'",
            "the plan of attempt 1.1 is not readable",
        ),
        (
            "UPDATE steps SET idx = 1",
            "step 1.1.1 does not fit its attempt's plan",
        ),
        (
            "UPDATE attempts SET outcome_cause = 'moon'",
            "attempt 1.1: `moon` is no cause",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("farm.db");
        let store = open(&path).await.unwrap();
        with_history(&store, 1).await;
        let passed = runner::Outcome::Passed;
        store
            .apply(&[
                created(1, 0, "linux"),
                started(1, 1, "m1", 6),
                step_started(step(1, 1, 0), 7),
                ended(1, 1, 8, passed.clone()),
                done(1, 8, passed),
            ])
            .await
            .unwrap();
        store.close().await;
        let mut conn = SqliteConnection::connect(&format!("sqlite:{}", path.display()))
            .await
            .unwrap();
        conn.execute("PRAGMA foreign_keys = OFF").await.unwrap();
        conn.execute("INSERT INTO commits SELECT repo, 'x', parents, author_name, author_email, author_time, commit_time, title, message, search FROM commits WHERE title LIKE '%_0'").await.unwrap();
        conn.execute(sql).await.unwrap();
        conn.close().await.unwrap();
        let store = open(&path).await.unwrap();
        match store.build(ids::BuildId(1)).await {
            Err(StoreError::Damaged(found)) => assert!(found.contains(told), "{found}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_on_one_file_do_not_lease_a_machine_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farm.db");
    let (one, two) = (open(&path).await.unwrap(), open(&path).await.unwrap());
    with_history(&one, 40).await;
    one.apply(&(0..40).map(|n| created(n + 1, n, "linux")).collect::<Vec<_>>())
        .await
        .unwrap();
    for n in (1..=40).step_by(2) {
        let (a, b) = ([started(n, 1, "m1", 9)], [started(n + 1, 1, "m1", 9)]);
        let (a, b) = tokio::join!(one.apply(&a), two.apply(&b));
        let (winner, loser) = if a.is_ok() { (n, b) } else { (n + 1, a) };
        assert!(matches!(loser, Err(StoreError::Conflict(_))), "{loser:?}");
        one.apply(&[ended(winner, 1, 10, runner::Outcome::Passed)])
            .await
            .unwrap();
    }
}
