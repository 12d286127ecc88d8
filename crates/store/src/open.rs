use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Any, AnyPool, ConnectOptions, Connection, Executor, SqlSafeStr, Transaction};
use tokio::sync::watch;

use crate::{Engine, OpenError, Shared, Store, StoreError};

/// Schema changes in order. A released one is never edited, only followed.
const MIGRATIONS: [Schema; 3] = [
    Schema {
        version: 1,
        about: "farm",
        sqlite: include_str!("../migrations/sqlite/0001_farm.sql"),
        postgres: include_str!("../migrations/postgres/0001_farm.sql"),
    },
    Schema {
        version: 2,
        about: "loans",
        sqlite: include_str!("../migrations/sqlite/0002_loans.sql"),
        postgres: include_str!("../migrations/postgres/0002_loans.sql"),
    },
    Schema {
        version: 3,
        about: "identities",
        sqlite: include_str!("../migrations/sqlite/0003_identities.sql"),
        postgres: include_str!("../migrations/postgres/0003_identities.sql"),
    },
];

/// The newest schema.
pub(crate) const SCHEMA: i64 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// Marks a SQLite file as a farm store: `burw`.
const APPLICATION_ID: i64 = 0x6275_7277;

/// No call takes longer: a store that hangs is a store out of reach.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long SQLite waits for another process that writes, and PostgreSQL for a free connection.
const BUSY: Duration = Duration::from_secs(10);

/// Larger files are not read through before use: a start must not take minutes.
const CHECKED_SIZE: u64 = 256 << 20;

const READERS: u32 = 4;
const PG_CONNECTIONS: u32 = 8;

struct Schema {
    version: i64,
    about: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file; made if it is not there. Its folder must be.
    Sqlite(PathBuf),
    Postgres(PgUrl),
}

/// `postgres://USER:PASSWORD@HOST/DATABASE`. Never printed whole.
#[derive(Clone, PartialEq, Eq)]
pub struct PgUrl(String);

impl PgUrl {
    pub fn new(url: String) -> PgUrl {
        PgUrl(url)
    }

    /// Without user, password and parameters: `db.example/farm`.
    fn shown(&self) -> String {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        let rest = rest.split(['?', '#']).next().unwrap_or("");
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        format!("PostgreSQL at `{place}`")
    }
}

impl std::fmt::Debug for PgUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PgUrl({})", self.shown())
    }
}

impl Store {
    /// Opens the store and brings its schema up to date. A store of a newer schema, a damaged file
    /// and a file that cannot be written are refused and left as they are.
    pub async fn open(url: &StoreUrl) -> Result<Store, OpenError> {
        open_at(url, SCHEMA).await
    }

    /// Waits for what is being done and closes all connections.
    pub async fn close(&self) {
        self.write.close().await;
        self.read.close().await;
    }

    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(match self.engine {
            Engine::Sqlite => match self.write.begin_with("BEGIN IMMEDIATE").await {
                // SQLite has rolled back by itself what could not be committed, as on a disk that is full; the
                // connection counts it as open for ever.
                Err(sqlx::Error::InvalidSavePointStatement) => {
                    self.write.acquire().await?.close().await?;
                    self.write.begin_with("BEGIN IMMEDIATE").await?
                }
                begun => begun?,
            },
            Engine::Postgres => self.write.begin().await?,
        })
    }

    /// Several reads that see the same moment.
    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, Any>, StoreError> {
        Ok(match self.engine {
            Engine::Sqlite => self.read.begin().await?,
            Engine::Postgres => {
                self.read
                    .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await?
            }
        })
    }

    pub(crate) async fn commit(&self, tx: Transaction<'static, Any>) -> Result<(), StoreError> {
        tx.commit().await?;
        self.shared.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    pub(crate) async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(DEADLINE, work).await {
            Ok(done) => done,
            Err(late) => Err(StoreError::Unavailable(Box::new(late))),
        }
    }
}

/// Opens the store and brings its schema up to number `schema`; one that is past it is refused as newer.
pub(crate) async fn open_at(url: &StoreUrl, schema: i64) -> Result<Store, OpenError> {
    sqlx::any::install_default_drivers();
    let (write, read, engine) = match url {
        StoreUrl::Sqlite(path) => {
            prepare_file(path, schema).await?;
            let (write, read) = sqlite_pools(path).await?;
            (write, read, Engine::Sqlite)
        }
        StoreUrl::Postgres(url) => {
            let pool = postgres_pool(url, schema).await?;
            (pool.clone(), pool, Engine::Postgres)
        }
    };
    let shared = Shared {
        changes: watch::Sender::new(0),
        complete: Mutex::new(BTreeMap::new()),
    };
    Ok(Store {
        write,
        read,
        engine,
        shared: Arc::new(shared),
    })
}

/// All that can be wrong with a file is found here, on one connection of its own.
async fn prepare_file(path: &Path, schema: i64) -> Result<(), OpenError> {
    let bad_path = |why| OpenError::Path {
        path: path.to_owned(),
        why,
    };
    if path.to_str().is_none() {
        return Err(bad_path("it is not UTF-8"));
    }
    let size = match tokio::fs::metadata(path).await {
        Ok(file) if file.is_dir() => return Err(bad_path("it is a folder; name a file in it")),
        Ok(file) if file.permissions().readonly() => {
            return Err(OpenError::ReadOnly {
                path: path.to_owned(),
            });
        }
        Ok(file) => file.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if !folder.is_none_or(Path::is_dir) {
                return Err(bad_path("its folder does not exist; make it"));
            }
            0
        }
        Err(error) => {
            let store = format!("`{}`", path.display());
            return Err(OpenError::Unavailable {
                store,
                source: error.into(),
            });
        }
    };
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .busy_timeout(BUSY)
        .disable_statement_logging();
    let in_words = |error| file_error(path, error);
    let mut conn = SqliteConnection::connect_with(&options).await.map_err(in_words)?;
    let result = check_file(&mut conn, path, size, schema).await;
    // A refused file is closed without a trace; what else could be said about it is said already.
    let _ = conn.close().await;
    result
}

async fn check_file(
    conn: &mut SqliteConnection,
    path: &Path,
    size: u64,
    schema: i64,
) -> Result<(), OpenError> {
    let in_words = |error| file_error(path, error);
    let tables: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_schema")
        .fetch_one(&mut *conn)
        .await
        .map_err(in_words)?;
    let mark: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut *conn)
        .await
        .map_err(in_words)?;
    if tables > 0 && mark != APPLICATION_ID {
        return Err(OpenError::NotAStore {
            path: path.to_owned(),
        });
    }
    if size > 0 && size <= CHECKED_SIZE {
        let found: String = sqlx::query_scalar("PRAGMA quick_check(1)")
            .fetch_one(&mut *conn)
            .await
            .map_err(in_words)?;
        if found != "ok" {
            return Err(OpenError::Damaged {
                path: path.to_owned(),
                found,
            });
        }
    }
    // Finds a file system or a file that takes no writes.
    conn.execute("BEGIN IMMEDIATE; ROLLBACK")
        .await
        .map_err(in_words)?;
    if mark != APPLICATION_ID {
        conn.execute("PRAGMA application_id = 1651864183")
            .await
            .map_err(in_words)?;
    }
    let store = format!("`{}`", path.display());
    match migrator(Engine::Sqlite, schema).run(&mut *conn).await {
        Ok(()) => {}
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            return Err(file_error(path, error));
        }
        Err(error) => return Err(migration_error(store, error)),
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode = WAL")
        .fetch_one(&mut *conn)
        .await
        .map_err(in_words)?;
    if mode != "wal" {
        return Err(OpenError::Path {
            path: path.to_owned(),
            why: "its file system cannot hold a write-ahead log (shared memory is missing); use a local disk",
        });
    }
    Ok(())
}

async fn sqlite_pools(path: &Path) -> Result<(AnyPool, AnyPool), OpenError> {
    let url = format!("sqlite:{}?mode=rw", url_path(&path.to_string_lossy()));
    let options = any_options(&url)?;
    let pool = |readers: Option<u32>| {
        AnyPoolOptions::new()
            .max_connections(readers.unwrap_or(1))
            .min_connections(1)
            .acquire_timeout(DEADLINE)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    conn.execute("PRAGMA busy_timeout = 10000").await?;
                    conn.execute("PRAGMA synchronous = FULL").await?;
                    conn.execute("PRAGMA foreign_keys = ON").await?;
                    conn.execute("PRAGMA cache_size = -32768").await?;
                    conn.execute("PRAGMA temp_store = MEMORY").await?;
                    if readers.is_some() {
                        conn.execute("PRAGMA query_only = ON").await?;
                    }
                    Ok(())
                })
            })
    };
    let in_words = |error| file_error(path, error);
    let write = pool(None).connect_with(options.clone()).await.map_err(in_words)?;
    let read = pool(Some(READERS))
        .connect_with(options)
        .await
        .map_err(in_words)?;
    Ok((write, read))
}

async fn postgres_pool(url: &PgUrl, schema: i64) -> Result<AnyPool, OpenError> {
    let store = url.shown();
    if !(url.0.starts_with("postgres://") || url.0.starts_with("postgresql://")) {
        return Err(OpenError::Address);
    }
    let pool = AnyPoolOptions::new()
        .max_connections(PG_CONNECTIONS)
        .acquire_timeout(BUSY)
        .after_connect(|conn, _| {
            Box::pin(async move {
                conn.execute("SET statement_timeout = '25s'").await?;
                conn.execute("SET lock_timeout = '10s'").await?;
                conn.execute("SET idle_in_transaction_session_timeout = '60s'")
                    .await?;
                Ok(())
            })
        })
        .connect_with(any_options(&url.0)?)
        .await;
    let pool = pool.map_err(|source| OpenError::Unavailable {
        store: store.clone(),
        source,
    })?;
    match migrator(Engine::Postgres, schema).run(&pool).await {
        Ok(()) => Ok(pool),
        Err(error) => {
            pool.close().await;
            Err(match error {
                MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                    OpenError::Unavailable { store, source }
                }
                error => migration_error(store, error),
            })
        }
    }
}

fn any_options(url: &str) -> Result<AnyConnectOptions, OpenError> {
    // The source of this error may quote the address, with the password in it.
    let options: AnyConnectOptions = url.parse().map_err(|_| OpenError::Address)?;
    Ok(options.disable_statement_logging())
}

fn migrator(engine: Engine, upto: i64) -> Migrator {
    let migration = |schema: &Schema| {
        let sql = match engine {
            Engine::Sqlite => schema.sqlite,
            Engine::Postgres => schema.postgres,
        };
        let simple = MigrationType::Simple;
        Migration::new(
            schema.version,
            schema.about.into(),
            simple,
            sql.into_sql_str(),
            false,
        )
    };
    let wanted = MIGRATIONS.iter().filter(|schema| schema.version <= upto);
    Migrator::with_migrations(wanted.map(migration).collect())
}

fn migration_error(store: String, error: MigrateError) -> OpenError {
    let newest = SCHEMA;
    match error {
        MigrateError::VersionMissing(found) if found > newest => OpenError::Newer {
            store,
            found,
            ours: newest,
        },
        error => OpenError::Foreign {
            store,
            found: error.to_string(),
        },
    }
}

/// Primary result codes: <https://sqlite.org/rescode.html>.
fn file_error(path: &Path, error: sqlx::Error) -> OpenError {
    let code = error
        .as_database_error()
        .and_then(|db| db.code()?.parse::<u32>().ok());
    let path = path.to_owned();
    match code.map(|code| code & 0xff) {
        Some(8) => OpenError::ReadOnly { path },
        Some(11 | 26) => OpenError::Damaged {
            path,
            found: error.to_string(),
        },
        _ => OpenError::Unavailable {
            store: format!("`{}`", path.display()),
            source: error,
        },
    }
}

/// A path as it stands in an address.
fn url_path(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    path.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_address_is_shown_without_its_password() {
        let shown = |url: &str| format!("{:?}", PgUrl::new(url.to_owned()));
        assert_eq!(
            shown("postgres://me:s3@cret@db:5432/farm?x=s3cret"),
            "PgUrl(PostgreSQL at `db:5432/farm`)"
        );
        assert_eq!(shown("postgres://db/farm"), "PgUrl(PostgreSQL at `db/farm`)");
        assert_eq!(shown("s3cret"), "PgUrl(PostgreSQL at ``)");
    }

    #[test]
    fn odd_paths_survive_an_address() {
        assert_eq!(url_path("/a b/ü?#%.db"), "/a%20b/%C3%BC%3F%23%25.db");
    }
}
