//! A PostgreSQL server for as long as a test runs.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use store::{OpenError, PgUrl, Store, StoreUrl};
use tempfile::TempDir;

use crate::world::{ONE_ATTEMPT, first_migration, keeps_its_attempt};

const BIN: &str = "/usr/lib/postgresql/15/bin";

pub struct Cluster {
    server: Child,
    port: u16,
    _dir: TempDir,
}

impl Cluster {
    /// `None`, said aloud, where PostgreSQL is not installed.
    pub async fn start() -> Option<Cluster> {
        if !Path::new(BIN).join("postgres").exists() {
            let missing = format!("no PostgreSQL in {BIN}; install it with `apt-get install postgresql`");
            assert!(
                std::env::var("BURROW_TEST_REQUIRE").as_deref() != Ok("1"),
                "{missing}"
            );
            eprintln!("SKIPPED: {missing}");
            return None;
        }
        let dir = tempfile::Builder::new()
            .permissions(PermissionsExt::from_mode(0o755))
            .tempdir()
            .unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        // PostgreSQL refuses to run as root.
        let user = (number("-u", &[]) == Some(0)).then(|| {
            let user = (
                number("-u", &["postgres"]).unwrap(),
                number("-g", &["postgres"]).unwrap(),
            );
            std::os::unix::fs::chown(&data, Some(user.0), Some(user.1)).unwrap();
            user
        });
        let program = |name: &str| {
            let mut command = Command::new(Path::new(BIN).join(name));
            command
                .arg("-D")
                .arg(&data)
                .current_dir(&data)
                .stdout(Stdio::null());
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        let made = program("initdb")
            .args([
                "-U",
                "farm",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ])
            .status()
            .unwrap();
        assert!(made.success(), "initdb: {made}");
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = program("postgres")
            .args([
                "-p",
                &port.to_string(),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "fsync=off",
            ])
            .arg("-k")
            .arg(&data)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let cluster = Cluster {
            server,
            port,
            _dir: dir,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = PgConnection::connect(&cluster.url("postgres")).await {
            assert!(Instant::now() < deadline, "PostgreSQL does not answer: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(cluster)
    }

    /// Makes an empty database; its address.
    pub async fn database(&self, name: &str) -> String {
        let mut conn = PgConnection::connect(&self.url("postgres")).await.unwrap();
        conn.execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .await
            .unwrap();
        self.url(name)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://farm:unused@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Cluster {
    /// SIGINT: fast shutdown.
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .args(["-INT", &self.server.id().to_string()])
            .status();
        let _ = self.server.wait();
    }
}

/// A store as the first release left it keeps what it holds.
pub async fn a_store_of_the_first_version_moves_on(cluster: &Cluster) {
    let url = cluster.database("old").await;
    let mut conn = PgConnection::connect(&url).await.unwrap();
    let first = include_str!("../../migrations/postgres/0001_farm.sql");
    first_migration(first).run(&mut conn).await.unwrap();
    conn.execute(ONE_ATTEMPT).await.unwrap();
    drop(conn);
    let store = Store::open(&StoreUrl::Postgres(PgUrl::new(url))).await.unwrap();
    keeps_its_attempt(store).await;
}

pub async fn opens_and_refuses(cluster: &Cluster) {
    let url = cluster.database("other").await;
    let open = async |url: &str| Store::open(&StoreUrl::Postgres(PgUrl::new(url.to_owned()))).await;
    open(&url).await.unwrap().close().await;
    open(&url).await.unwrap().close().await;

    let mut conn = PgConnection::connect(&url).await.unwrap();
    conn.execute("UPDATE _sqlx_migrations SET checksum = 'x' WHERE version = 1")
        .await
        .unwrap();
    let Err(error @ OpenError::Foreign { .. }) = open(&url).await else {
        panic!("opened")
    };
    assert!(
        error
            .to_string()
            .contains("/other` was set up by migrations that differ"),
        "{error}"
    );
    conn.execute("UPDATE _sqlx_migrations SET version = 99 WHERE version = 2")
        .await
        .unwrap();
    let Err(error @ OpenError::Newer { found: 99, .. }) = open(&url).await else {
        panic!("opened")
    };
    assert!(
        error.to_string().contains("run the version that wrote it"),
        "{error}"
    );

    let Err(error @ OpenError::Unavailable { .. }) = open(&cluster.url("nowhere")).await else {
        panic!("opened")
    };
    let told = format!("{error} {error:?}");
    assert!(told.contains("/nowhere`") && !told.contains("unused"), "{told}");
    assert!(matches!(open("mysql://x").await, Err(OpenError::Address)));
    assert!(matches!(open("postgres://a b:c").await, Err(OpenError::Address)));
}

fn number(which: &str, of: &[&str]) -> Option<u32> {
    let out = Command::new("id").arg(which).args(of).output().ok()?;
    String::from_utf8(out.stdout).ok()?.trim().parse().ok()
}
