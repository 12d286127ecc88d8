use ids::{HostType, Timestamp};
use sqlx::any::AnyRow;

use crate::read::{EnrolmentRow, IdentityRow};
use crate::rows::{self, Columns};
use crate::{Store, StoreError, secret};

/// How many machines of one name are told apart by number.
const NAMESAKES_MAX: usize = 10_000;

/// A new enrolment token and its secret, which is nowhere to be read again.
#[derive(Clone)]
pub struct CreatedEnrolment {
    pub row: EnrolmentRow,
    /// `be_` and 32 letters and digits.
    pub secret: String,
}

/// What came of showing an enrolment token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolled {
    /// The machine is known from now on, or was already by this very token and key.
    Known(IdentityRow),
    NoSuchToken,
    /// When, and by which machine.
    Used(Timestamp, String),
    Expired(Timestamp),
    Revoked(Timestamp),
    /// Another token, or one that was revoked, has made this key known.
    KeyTaken,
}

macro_rules! identities {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, host_type, public_key, created, revoked, last_used FROM identities ",
            $rest
        )
    };
}

macro_rules! enrolments {
    ($rest:literal) => {
        concat!(
            "SELECT e.id, e.name, e.host_type, e.created, e.expires, e.revoked, e.used, i.name \
             FROM enrolments e LEFT JOIN identities i ON i.id = e.identity ",
            $rest
        )
    };
}

impl Store {
    /// `name`: what the machine is to be called; empty: as it calls itself.
    pub async fn create_enrolment(
        &self,
        name: &str,
        host_type: &HostType,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<CreatedEnrolment, StoreError> {
        let secret = secret::make("be_")?;
        self.within(async {
            let mut tx = self.begin().await?;
            let made = sqlx::query(
                "INSERT INTO enrolments (name, host_type, hash, created, expires) VALUES ($1, $2, $3, $4, $5) RETURNING id",
            )
            .bind(rows::text(name))
            .bind(host_type.as_str())
            .bind(secret::hash(&secret))
            .bind(now.0)
            .bind(expires.0)
            .fetch_one(&mut *tx)
            .await?;
            self.commit(tx).await?;
            let row = EnrolmentRow {
                id: Columns::of(&made).int()?,
                name: rows::text(name),
                host_type: host_type.clone(),
                created: now,
                expires,
                revoked: None,
                used: None,
            };
            Ok(CreatedEnrolment {
                row,
                secret: secret.clone(),
            })
        })
        .await
    }

    /// Makes the holder of `public_key` known as a machine, once for each token. Asked again by who did so it
    /// answers the same, so that an answer may get lost.
    ///
    /// The machine is called as the token says, else `hostname`, with a number behind it where the name is taken.
    pub async fn enrol(
        &self,
        secret: &str,
        public_key: &str,
        hostname: &str,
        now: Timestamp,
    ) -> Result<Enrolled, StoreError> {
        self.within(async {
            let mut tx = self.begin().await?;
            let found = sqlx::query(enrolments!("WHERE e.hash = $1"))
                .bind(secret::hash(secret))
                .fetch_optional(&mut *tx)
                .await?;
            let Some(token) = found.map(|row| enrolment(&row)).transpose()? else {
                return Ok(Enrolled::NoSuchToken);
            };
            let known = sqlx::query(identities!("WHERE public_key = $1"))
                .bind(public_key)
                .fetch_optional(&mut *tx)
                .await?;
            let known = known.map(|row| identity(&row)).transpose()?;
            match (known, &token) {
                // The name alone does not tell: names are free again once they are revoked.
                (Some(known), token) => {
                    let by = sqlx::query("SELECT id FROM enrolments WHERE identity = $1")
                        .bind(known.id)
                        .fetch_optional(&mut *tx)
                        .await?;
                    let by = by.map(|row| Columns::of(&row).int()).transpose()?;
                    return Ok(match by == Some(token.id) && known.revoked.is_none() {
                        true => Enrolled::Known(known),
                        false => Enrolled::KeyTaken,
                    });
                }
                (None, EnrolmentRow { used: Some((at, by)), .. }) => {
                    return Ok(Enrolled::Used(*at, by.clone()));
                }
                (None, EnrolmentRow { revoked: Some(at), .. }) => return Ok(Enrolled::Revoked(*at)),
                (None, EnrolmentRow { expires, .. }) if *expires <= now => {
                    return Ok(Enrolled::Expired(*expires));
                }
                (None, _) => {}
            }
            let wanted = if token.name.is_empty() { hostname } else { &token.name };
            let mut made = None;
            for n in 1..=NAMESAKES_MAX {
                let name = match n {
                    1 => rows::text(wanted),
                    n => format!("{}-{n}", rows::text(wanted)),
                };
                let row = sqlx::query(
                    "INSERT INTO identities (name, host_type, public_key, created) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT DO NOTHING RETURNING id",
                )
                .bind(&name)
                .bind(token.host_type.as_str())
                .bind(public_key)
                .bind(now.0)
                .fetch_optional(&mut *tx)
                .await?;
                if let Some(row) = row {
                    made = Some((Columns::of(&row).int()?, name));
                    break;
                }
            }
            let Some((id, name)) = made else {
                return Err(crate::apply::conflict(format!(
                    "{NAMESAKES_MAX} machines are called `{wanted}`"
                )));
            };
            let used = sqlx::query(
                "UPDATE enrolments SET used = $1, identity = $2 WHERE id = $3 AND used IS NULL AND revoked IS NULL",
            )
            .bind(now.0)
            .bind(id)
            .bind(token.id)
            .execute(&mut *tx)
            .await?;
            if used.rows_affected() != 1 {
                // Somebody else was faster since the look above; nothing of this is kept.
                return Ok(Enrolled::Used(now, "another machine".to_owned()));
            }
            self.commit(tx).await?;
            Ok(Enrolled::Known(IdentityRow {
                id,
                name,
                host_type: token.host_type,
                public_key: public_key.to_owned(),
                created: now,
                revoked: None,
                last_used: None,
            }))
        })
        .await
    }

    /// The machine with this key, one that was revoked too.
    pub async fn identity(&self, public_key: &str) -> Result<Option<IdentityRow>, StoreError> {
        self.within(async {
            let found = sqlx::query(identities!("WHERE public_key = $1"))
                .bind(public_key)
                .fetch_optional(&self.read)
                .await?;
            found.map(|row| identity(&row)).transpose()
        })
        .await
    }

    /// Notes that the machine has shown its key.
    pub async fn identity_used(&self, row: &IdentityRow, now: Timestamp) {
        const USED: &str = "UPDATE identities SET last_used = $1 WHERE id = $2";
        self.note_use(USED, row.id, row.last_used, now).await;
    }

    /// All that ever were, oldest first.
    pub async fn identities(&self) -> Result<Vec<IdentityRow>, StoreError> {
        self.within(async {
            let found = sqlx::query(identities!("ORDER BY id"))
                .fetch_all(&self.read)
                .await?;
            found.iter().map(identity).collect()
        })
        .await
    }

    /// Whether there was such a machine.
    pub async fn revoke_identity(&self, id: i64, now: Timestamp) -> Result<bool, StoreError> {
        self.revoke(
            "UPDATE identities SET revoked = $1 WHERE id = $2 AND revoked IS NULL",
            id,
            now,
        )
        .await
    }

    /// All that ever were, oldest first.
    pub async fn enrolments(&self) -> Result<Vec<EnrolmentRow>, StoreError> {
        self.within(async {
            let found = sqlx::query(enrolments!("ORDER BY e.id"))
                .fetch_all(&self.read)
                .await?;
            found.iter().map(enrolment).collect()
        })
        .await
    }

    /// Whether there was such a token, not used yet.
    pub async fn revoke_enrolment(&self, id: i64, now: Timestamp) -> Result<bool, StoreError> {
        self.revoke(
            "UPDATE enrolments SET revoked = $1 WHERE id = $2 AND revoked IS NULL AND used IS NULL",
            id,
            now,
        )
        .await
    }
}

fn identity(row: &AnyRow) -> Result<IdentityRow, StoreError> {
    let mut columns = Columns::of(row);
    Ok(IdentityRow {
        id: columns.int()?,
        name: columns.text()?,
        host_type: columns.name()?,
        public_key: columns.text()?,
        created: columns.time()?,
        revoked: columns.time_or_null()?,
        last_used: columns.time_or_null()?,
    })
}

fn enrolment(row: &AnyRow) -> Result<EnrolmentRow, StoreError> {
    let mut columns = Columns::of(row);
    let (id, name, host_type) = (columns.int()?, columns.text()?, columns.name()?);
    let (created, expires, revoked) = (columns.time()?, columns.time()?, columns.time_or_null()?);
    let (used, by) = (columns.time_or_null()?, columns.text_or_null()?);
    let used = match (used, by) {
        (None, None) => None,
        (Some(at), Some(by)) => Some((at, by)),
        _ => return Err(rows::damaged(format!("enrolment {id} is used by no machine"))),
    };
    Ok(EnrolmentRow {
        id,
        name,
        host_type,
        created,
        expires,
        revoked,
        used,
    })
}
