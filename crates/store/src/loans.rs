use farm::Loan;
use ids::{LoanId, Timestamp};
use sqlx::any::AnyRow;
use sqlx::{Any, Transaction};

use crate::apply::{conflict, expect_one};
use crate::read::LoanRow;
use crate::rows::{Columns, int, text};
use crate::{Store, StoreError};

macro_rules! loans {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, owner, builder, host_type, machine, started, expires, return_by, ended, why FROM loans ",
            $rest
        )
    };
}

impl Store {
    /// Machines that are lent, by the names of the loans.
    pub async fn loans(&self) -> Result<Vec<LoanRow>, StoreError> {
        self.within(async {
            let found = sqlx::query(loans!("WHERE ended IS NULL ORDER BY name"))
                .fetch_all(&self.read)
                .await?;
            found.iter().map(loan_row).collect()
        })
        .await
    }

    /// The latest loan of this name; it may have ended.
    pub async fn loan(&self, name: &str) -> Result<Option<LoanRow>, StoreError> {
        self.within(async {
            let found = sqlx::query(loans!("WHERE name = $1 ORDER BY id DESC LIMIT 1"))
                .bind(text(name))
                .fetch_optional(&self.read)
                .await?;
            found.as_ref().map(loan_row).transpose()
        })
        .await
    }

    /// Notes that `by` wants the loan to end. It ends when [`farm::Write::LoanEnded`] says so. `false`: it has ended, or
    /// was never there.
    pub async fn return_loan(&self, loan: LoanId, by: &str) -> Result<bool, StoreError> {
        self.within(async {
            let mut tx = self.begin().await?;
            let noted = sqlx::query(
                "UPDATE loans SET return_by = COALESCE(return_by, $2) WHERE id = $1 AND ended IS NULL",
            )
            .bind(int(loan.0))
            .bind(text(by))
            .execute(&mut *tx)
            .await?;
            self.commit(tx).await?;
            Ok(noted.rows_affected() == 1)
        })
        .await
    }

    /// `(loan, by)` of those that somebody wants to end and that have not.
    pub async fn returned_loans(&self) -> Result<Vec<(LoanId, String)>, StoreError> {
        self.within(async {
            let found = sqlx::query(
                "SELECT id, return_by FROM loans WHERE ended IS NULL AND return_by IS NOT NULL ORDER BY id",
            )
            .fetch_all(&self.read)
            .await?;
            let one = |row: &AnyRow| {
                let mut columns = Columns::of(row);
                Ok((LoanId(columns.count()?), columns.text()?))
            };
            found.iter().map(one).collect()
        })
        .await
    }
}

/// What a coordinator takes up, by number.
pub(crate) async fn restored(tx: &mut Transaction<'static, Any>) -> Result<Vec<Loan>, StoreError> {
    let found = sqlx::query(loans!("WHERE ended IS NULL ORDER BY id"))
        .fetch_all(&mut **tx)
        .await?;
    found.iter().map(|row| Ok(loan_row(row)?.loan)).collect()
}

pub(crate) async fn started(tx: &mut Transaction<'static, Any>, loan: &Loan) -> Result<(), StoreError> {
    let made = sqlx::query(
        "INSERT INTO loans (id, name, owner, builder, host_type, machine, started, expires, why) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '') ON CONFLICT DO NOTHING",
    )
    .bind(int(loan.loan.0))
    .bind(text(&loan.name))
    .bind(text(&loan.owner))
    .bind(loan.builder.as_str())
    .bind(loan.host_type.as_str())
    .bind(loan.machine.as_str())
    .bind(loan.since.0)
    .bind(loan.expires.0)
    .execute(&mut **tx)
    .await?;
    expect_one(made.rows_affected(), || {
        format!(
            "loan {} cannot begin: it, or another one called `{}`, is there",
            loan.loan, loan.name
        )
    })?;
    let leased =
        sqlx::query("INSERT INTO leases (machine, loan, taken) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
            .bind(loan.machine.as_str())
            .bind(int(loan.loan.0))
            .bind(loan.since.0)
            .execute(&mut **tx)
            .await?;
    expect_one(leased.rows_affected(), || {
        format!(
            "loan {} cannot have machine `{}`: it is somebody else's",
            loan.loan, loan.machine
        )
    })
}

pub(crate) async fn renewed(
    tx: &mut Transaction<'static, Any>,
    loan: LoanId,
    expires: Timestamp,
) -> Result<(), StoreError> {
    let renewed = sqlx::query("UPDATE loans SET expires = $2 WHERE id = $1 AND ended IS NULL")
        .bind(int(loan.0))
        .bind(expires.0)
        .execute(&mut **tx)
        .await?;
    expect_one(renewed.rows_affected(), || {
        format!("loan {loan} cannot go on: it has ended or is not there")
    })
}

pub(crate) async fn ended(
    tx: &mut Transaction<'static, Any>,
    loan: LoanId,
    at: Timestamp,
    why: &str,
) -> Result<(), StoreError> {
    if why.is_empty() {
        return Err(conflict(format!("loan {loan} cannot end without a reason")));
    }
    let ended = sqlx::query("UPDATE loans SET ended = $2, why = $3 WHERE id = $1 AND ended IS NULL")
        .bind(int(loan.0))
        .bind(at.0)
        .bind(text(why))
        .execute(&mut **tx)
        .await?;
    expect_one(ended.rows_affected(), || {
        format!("loan {loan} cannot end: it has, or is not there")
    })?;
    let freed = sqlx::query("DELETE FROM leases WHERE loan = $1")
        .bind(int(loan.0))
        .execute(&mut **tx)
        .await?;
    expect_one(freed.rows_affected(), || {
        format!("loan {loan} cannot end: it holds no machine")
    })
}

fn loan_row(row: &AnyRow) -> Result<LoanRow, StoreError> {
    let mut columns = Columns::of(row);
    let loan = Loan {
        loan: LoanId(columns.count()?),
        name: columns.text()?,
        owner: columns.text()?,
        builder: columns.name()?,
        host_type: columns.name()?,
        machine: columns.name()?,
        since: columns.time()?,
        expires: columns.time()?,
    };
    Ok(LoanRow {
        loan,
        return_by: columns.text_or_null()?,
        ended: columns.time_or_null()?,
        why: columns.text()?,
    })
}
