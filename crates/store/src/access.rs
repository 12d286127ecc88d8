use std::time::Duration;

use ids::{BuildId, HostType, Timestamp};
use sqlx::any::AnyRow;

use crate::apply::conflict;
use crate::read::{Intent, KeyRow, Role, TokenRow, Wish};
use crate::rows::{self, Columns, damaged, int};
use crate::{Store, StoreError, secret};

/// `last_used` is no more exact than this, so that reading with a token is not writing.
const USED_STEP: Duration = Duration::from_secs(60);

/// A new token and its secret, which is nowhere to be read again.
#[derive(Clone)]
pub struct CreatedToken {
    pub row: TokenRow,
    /// `bt_` and 32 letters and digits.
    pub secret: String,
}

/// A new key for machines and its secret, which is nowhere to be read again.
#[derive(Clone)]
pub struct CreatedKey {
    pub row: KeyRow,
    /// `bk_` and 32 letters and digits.
    pub secret: String,
}

macro_rules! tokens {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, role, created, expires, revoked, last_used FROM tokens ",
            $rest
        )
    };
}

macro_rules! keys {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, host_type, created, revoked, last_used FROM machine_keys ",
            $rest
        )
    };
}

impl Store {
    /// Notes what `by` asked for; its number. Done is it when [`farm::Write::IntentDone`] says so.
    pub async fn add_intent(&self, wish: Wish, by: &str, now: Timestamp) -> Result<i64, StoreError> {
        let (word, build) = match wish {
            Wish::Retry(build) => ("retry", build),
            Wish::Cancel(build) => ("cancel", build),
        };
        self.within(async {
            let mut tx = self.begin().await?;
            let row = sqlx::query(
                "INSERT INTO intents (at, by_who, wish, build, answer) VALUES ($1, $2, $3, $4, '') RETURNING id",
            )
            .bind(now.0)
            .bind(rows::text(by))
            .bind(word)
            .bind(int(build.0))
            .fetch_one(&mut *tx)
            .await?;
            self.commit(tx).await?;
            Columns::of(&row).int()
        })
        .await
    }

    /// Oldest first.
    pub async fn open_intents(&self) -> Result<Vec<Intent>, StoreError> {
        self.within(async {
            let found =
                sqlx::query("SELECT id, at, by_who, wish, build FROM intents WHERE done IS NULL ORDER BY id")
                    .fetch_all(&self.read)
                    .await?;
            found.iter().map(intent).collect()
        })
        .await
    }

    /// What became of a wish: `(when, answer)` once it is done, `None` while it is open or when there
    /// is none of this number.
    pub async fn intent_answer(&self, intent: i64) -> Result<Option<(Timestamp, String)>, StoreError> {
        self.within(async {
            let row = sqlx::query("SELECT done, answer FROM intents WHERE id = $1 AND done IS NOT NULL")
                .bind(intent)
                .fetch_optional(&self.read)
                .await?;
            row.map(|row| {
                let mut columns = Columns::of(&row);
                Ok((columns.time()?, columns.text()?))
            })
            .transpose()
        })
        .await
    }

    /// [`StoreError::Conflict`]: a token of this name is in use.
    pub async fn create_token(
        &self,
        name: &str,
        role: Role,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<CreatedToken, StoreError> {
        let secret = secret::make("bt_")?;
        self.within(async {
            let mut tx = self.begin().await?;
            let made = sqlx::query(
                "INSERT INTO tokens (name, role, hash, created, expires) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT DO NOTHING RETURNING id",
            )
            .bind(rows::text(name))
            .bind(rows::role_word(role))
            .bind(secret::hash(&secret))
            .bind(now.0)
            .bind(expires.map(|at| at.0))
            .fetch_optional(&mut *tx)
            .await?;
            let Some(made) = made else {
                return Err(conflict(format!(
                    "a token called `{name}` is there; revoke it or choose another name"
                )));
            };
            self.commit(tx).await?;
            let (id, name) = (Columns::of(&made).int()?, rows::text(name));
            let row = TokenRow {
                id,
                name,
                role,
                created: now,
                expires,
                revoked: None,
                last_used: None,
            };
            Ok(CreatedToken {
                row,
                secret: secret.clone(),
            })
        })
        .await
    }

    /// The token with this secret, unless it was revoked or has expired.
    pub async fn check_token(&self, secret: &str, now: Timestamp) -> Result<Option<TokenRow>, StoreError> {
        self.within(async {
            let found = sqlx::query(tokens!(
                "WHERE hash = $1 AND revoked IS NULL AND (expires IS NULL OR expires > $2)"
            ))
            .bind(secret::hash(secret))
            .bind(now.0)
            .fetch_optional(&self.read)
            .await?;
            let token = found.map(|row| token(&row)).transpose()?;
            if let Some(token) = &token {
                const USED: &str = "UPDATE tokens SET last_used = $1 WHERE id = $2";
                self.note_use(USED, token.id, token.last_used, now).await;
            }
            Ok(token)
        })
        .await
    }

    /// Whether there was such a token in use.
    pub async fn revoke_token(&self, id: i64, now: Timestamp) -> Result<bool, StoreError> {
        self.revoke(
            "UPDATE tokens SET revoked = $1 WHERE id = $2 AND revoked IS NULL",
            id,
            now,
        )
        .await
    }

    /// All that ever were, oldest first.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        self.within(async {
            sqlx::query(tokens!("ORDER BY id"))
                .fetch_all(&self.read)
                .await?
                .iter()
                .map(token)
                .collect()
        })
        .await
    }

    /// [`StoreError::Conflict`]: a key of this name is in use.
    pub async fn create_key(
        &self,
        name: &str,
        host_type: &HostType,
        now: Timestamp,
    ) -> Result<CreatedKey, StoreError> {
        let secret = secret::make("bk_")?;
        self.within(async {
            let mut tx = self.begin().await?;
            let made = sqlx::query(
                "INSERT INTO machine_keys (name, host_type, hash, created) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT DO NOTHING RETURNING id",
            )
            .bind(rows::text(name))
            .bind(host_type.as_str())
            .bind(secret::hash(&secret))
            .bind(now.0)
            .fetch_optional(&mut *tx)
            .await?;
            let Some(made) = made else {
                return Err(conflict(format!(
                    "a key called `{name}` is there; revoke it or choose another name"
                )));
            };
            self.commit(tx).await?;
            let (id, name) = (Columns::of(&made).int()?, rows::text(name));
            let host_type = host_type.clone();
            let row = KeyRow {
                id,
                name,
                host_type,
                created: now,
                revoked: None,
                last_used: None,
            };
            Ok(CreatedKey {
                row,
                secret: secret.clone(),
            })
        })
        .await
    }

    /// The key with this secret, if it is for this host type and was not revoked.
    pub async fn check_key(
        &self,
        host_type: &HostType,
        secret: &str,
        now: Timestamp,
    ) -> Result<Option<KeyRow>, StoreError> {
        self.within(async {
            let found = sqlx::query(keys!("WHERE hash = $1 AND host_type = $2 AND revoked IS NULL"))
                .bind(secret::hash(secret))
                .bind(host_type.as_str())
                .fetch_optional(&self.read)
                .await?;
            let key = found.map(|row| key(&row)).transpose()?;
            if let Some(key) = &key {
                const USED: &str = "UPDATE machine_keys SET last_used = $1 WHERE id = $2";
                self.note_use(USED, key.id, key.last_used, now).await;
            }
            Ok(key)
        })
        .await
    }

    /// Whether there was such a key in use.
    pub async fn revoke_key(&self, id: i64, now: Timestamp) -> Result<bool, StoreError> {
        self.revoke(
            "UPDATE machine_keys SET revoked = $1 WHERE id = $2 AND revoked IS NULL",
            id,
            now,
        )
        .await
    }

    /// All that ever were, oldest first.
    pub async fn keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        self.within(async {
            sqlx::query(keys!("ORDER BY id"))
                .fetch_all(&self.read)
                .await?
                .iter()
                .map(key)
                .collect()
        })
        .await
    }

    pub(crate) async fn revoke(
        &self,
        sql: &'static str,
        id: i64,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.within(async {
            let mut tx = self.begin().await?;
            let revoked = sqlx::query(sql).bind(now.0).bind(id).execute(&mut *tx).await?;
            self.commit(tx).await?;
            Ok(revoked.rows_affected() == 1)
        })
        .await
    }

    /// A use that cannot be noted is a use all the same.
    pub(crate) async fn note_use(&self, sql: &'static str, id: i64, last: Option<Timestamp>, now: Timestamp) {
        if last.is_some_and(|last| now.since(last) < USED_STEP) {
            return;
        }
        if let Err(error) = sqlx::query(sql).bind(now.0).bind(id).execute(&self.write).await {
            tracing::warn!(error = %error, "could not note the last use of a token or key");
        }
    }
}

fn intent(row: &AnyRow) -> Result<Intent, StoreError> {
    let mut columns = Columns::of(row);
    let (id, at, by) = (columns.int()?, columns.time()?, columns.text()?);
    let (word, build): (String, BuildId) = (columns.text()?, columns.build_id()?);
    let wish = match word.as_str() {
        "retry" => Wish::Retry(build),
        "cancel" => Wish::Cancel(build),
        _ => return Err(damaged(format!("wish {id} is for `{word}`"))),
    };
    Ok(Intent { id, at, by, wish })
}

fn token(row: &AnyRow) -> Result<TokenRow, StoreError> {
    let mut columns = Columns::of(row);
    Ok(TokenRow {
        id: columns.int()?,
        name: columns.text()?,
        role: rows::role(&columns.text()?)?,
        created: columns.time()?,
        expires: columns.time_or_null()?,
        revoked: columns.time_or_null()?,
        last_used: columns.time_or_null()?,
    })
}

fn key(row: &AnyRow) -> Result<KeyRow, StoreError> {
    let mut columns = Columns::of(row);
    Ok(KeyRow {
        id: columns.int()?,
        name: columns.text()?,
        host_type: columns.name()?,
        created: columns.time()?,
        revoked: columns.time_or_null()?,
        last_used: columns.time_or_null()?,
    })
}
