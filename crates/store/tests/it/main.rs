//! One contract, two engines. Each case is run on SQLite and on PostgreSQL.

mod backup;
mod cases;
mod cluster;
mod files;
mod model;
mod world;

use store::{PgUrl, Store, StoreUrl};

/// Runs every case on a store of its own; `url` gives the address of the next one.
async fn run_all(engine: &str, mut url: impl AsyncFnMut() -> StoreUrl) {
    for (name, case) in cases::ALL {
        let url = url().await;
        let store = Store::open(&url).await.expect("open an empty store");
        eprintln!("{engine}: {name}");
        case(store.clone()).await;
        store.close().await;
    }
    for seed in 0..6 {
        let store = Store::open(&url().await).await.expect("open an empty store");
        eprintln!("{engine}: any writes give what the model says, run {seed}");
        model::run(&store, seed).await;
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let mut n = 0;
    run_all("sqlite", async || {
        n += 1;
        StoreUrl::Sqlite(dir.path().join(format!("{n}.db")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_postgres() {
    let Some(cluster) = cluster::Cluster::start().await else {
        return;
    };
    let mut n = 0;
    run_all("postgres", async || {
        n += 1;
        StoreUrl::Postgres(PgUrl::new(cluster.database(&format!("farm{n}")).await))
    })
    .await;
    cluster::opens_and_refuses(&cluster).await;
    cluster::a_store_of_the_first_version_moves_on(&cluster).await;
}
