use std::path::PathBuf;

/// Why a store could not be opened. Each says what the operator can do; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store's path `{}` cannot be used: {why}", path.display())]
    Path { path: PathBuf, why: &'static str },
    #[error(
        "the store `{}` cannot be written; give this user write access to the file and its folder",
        path.display()
    )]
    ReadOnly { path: PathBuf },
    #[error(
        "the store `{}` is damaged or no SQLite file: {found}; move it away and put the latest backup in its place",
        path.display()
    )]
    Damaged { path: PathBuf, found: String },
    #[error("`{}` is a SQLite file, but not a farm store; name another file", path.display())]
    NotAStore { path: PathBuf },
    #[error(
        "the store {store} has schema {found}, this program knows schemas up to {ours}; run the version that wrote it, or a newer one"
    )]
    Newer { store: String, found: i64, ours: i64 },
    #[error("the store {store} was set up by migrations that differ from this program's: {found}")]
    Foreign { store: String, found: String },
    #[error("the store's address is not usable; wanted `postgres://USER:PASSWORD@HOST/DATABASE`")]
    Address,
    #[error("cannot reach the store {store}")]
    Unavailable { store: String, source: sqlx::Error },
}

/// Why a call gave nothing. A failed write changed nothing, or, where the connection broke while it
/// was being committed, everything.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An invariant would have been broken: the caller's idea of the store is wrong. Trying again
    /// does not help; reading the store anew does.
    #[error("the store refused the change: {0}")]
    Conflict(String),
    /// What is stored contradicts itself: someone must look.
    #[error("the store holds what it must not: {0}")]
    Damaged(String),
    /// Try again.
    #[error("the store is out of reach")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        match &error {
            sqlx::Error::Database(db)
                if db.is_unique_violation() || db.is_foreign_key_violation() || db.is_check_violation() =>
            {
                StoreError::Conflict(db.message().to_owned())
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                StoreError::Damaged(error.to_string())
            }
            _ => StoreError::Unavailable(Box::new(error)),
        }
    }
}
