//! Rows as lines: from one engine to another and back, all or none.

use ids::{HostType, Timestamp};
use store::backup::{LoadError, load};
use store::read::Role;
use store::{PgUrl, Store, StoreUrl};

use crate::{cluster, model};

async fn lines(store: &Store) -> Vec<String> {
    let mut text = Vec::new();
    let dumped = store.dump(|line| {
        text.extend_from_slice(line);
        Ok(())
    });
    dumped.await.unwrap();
    let text = String::from_utf8(text).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// A store in which much has happened.
async fn used(url: &StoreUrl) -> Store {
    let store = Store::open(url).await.unwrap();
    model::run(&store, 1).await;
    let made = store
        .create_token("ann", Role::Admin, None, Timestamp(1))
        .await
        .unwrap();
    assert_eq!(made.row.id, 1);
    let host_type = HostType::parse("rack").unwrap();
    let token = store
        .create_enrolment("", &host_type, Timestamp(9), Timestamp(1))
        .await
        .unwrap();
    store
        .enrol(&token.secret, "0f", "rack", Timestamp(2))
        .await
        .unwrap();
    store
}

async fn loaded(url: &StoreUrl, lines: &[String]) -> Result<(), LoadError> {
    load(url, Store::SCHEMA, lines.iter().cloned().map(Ok)).await
}

async fn is_the_same(url: &StoreUrl, wanted: &[String]) {
    let store = Store::open(url).await.unwrap();
    let (mut found, mut wanted) = (lines(&store).await, wanted.to_vec());
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    // What numbers itself goes on behind what was loaded.
    let made = store
        .create_token("bob", Role::Reader, None, Timestamp(2))
        .await
        .unwrap();
    assert_eq!(made.row.id, 2);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_one_engine_becomes_one_of_the_other_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| StoreUrl::Sqlite(dir.path().join(name));
    let store = used(&file("used.db")).await;
    let there = lines(&store).await;
    assert!(there.len() > 40, "{}", there.len());
    loaded(&file("copy.db"), &there).await.unwrap();
    is_the_same(&file("copy.db"), &there).await;

    let Some(cluster) = cluster::Cluster::start().await else {
        return;
    };
    let server = StoreUrl::Postgres(PgUrl::new(cluster.database("moved").await));
    loaded(&server, &there).await.unwrap();
    let moved = Store::open(&server).await.unwrap();
    loaded(&file("back.db"), &lines(&moved).await).await.unwrap();
    moved.close().await;
    is_the_same(&server, &there).await;
    is_the_same(&file("back.db"), &there).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_filled_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let url = StoreUrl::Sqlite(dir.path().join("farm.db"));
    let store = used(&url).await;
    let there = lines(&store).await;
    assert!(matches!(loaded(&url, &there).await, Err(LoadError::NotEmpty)));
    assert_eq!(lines(&store).await, there, "nothing is changed");

    let fresh = StoreUrl::Sqlite(dir.path().join("fresh.db"));
    let mut torn = there.clone();
    torn.last_mut().unwrap().pop();
    let cases = [
        (torn, there.len()),
        (vec![r#"{"table":"nothing","columns":[]}"#.to_owned()], 1),
        (
            vec![r#"{"table":"repos","columns":[["colour","text"]]}"#.to_owned()],
            1,
        ),
        (vec!["[1]".to_owned()], 1),
        (Vec::new(), 1),
    ];
    for (bad, place) in cases {
        match loaded(&fresh, &bad).await {
            Err(LoadError::Line { line, .. }) => assert_eq!(line, place),
            other => panic!("{other:?}"),
        }
    }
    let empty = Store::open(&fresh).await.unwrap();
    assert!(empty.repos().await.unwrap().is_empty() && empty.tokens().await.unwrap().is_empty());
    empty.close().await;
    loaded(&fresh, &there).await.unwrap();
}
