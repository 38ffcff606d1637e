//! The sandbox's rows: what was done under which key, what was taken and given back, what is still to be reported.

use std::time::Duration;

use database::{DatabaseError, Row, Session, Value, params};
use event_schemas::{Code, Currency, Money, ProviderRef, Timestamp, derive_uuid};

use crate::provider::{IdempotencyKey, Operation, Outcome, ProviderError, Report, Request};

/// The names begin with `sandbox_` since the store may share a database with the log.
pub(super) const STEPS: &[&str] = &[
    "CREATE TABLE operations (
     key TEXT NOT NULL PRIMARY KEY,
     payment_id TEXT NOT NULL,
     attempt INTEGER NOT NULL,
     operation TEXT NOT NULL,
     amount INTEGER NOT NULL,
     currency TEXT NOT NULL,
     token TEXT NOT NULL,
     outcome TEXT NOT NULL,
     code TEXT,
     provider_ref TEXT NOT NULL,
     ready_at INTEGER NOT NULL
 ) STRICT, WITHOUT ROWID;
 CREATE TABLE charges (
     payment_id TEXT NOT NULL,
     attempt INTEGER NOT NULL,
     provider_ref TEXT NOT NULL,
     amount INTEGER NOT NULL,
     currency TEXT NOT NULL,
     PRIMARY KEY (payment_id, attempt)
 ) STRICT, WITHOUT ROWID;
 CREATE TABLE refunds (
     payment_id TEXT NOT NULL,
     attempt INTEGER NOT NULL,
     provider_ref TEXT NOT NULL,
     amount INTEGER NOT NULL,
     PRIMARY KEY (payment_id, attempt, provider_ref)
 ) STRICT, WITHOUT ROWID;
 CREATE TABLE reports (
     id INTEGER PRIMARY KEY,
     due_at INTEGER NOT NULL,
     payment_id TEXT NOT NULL,
     order_id TEXT NOT NULL,
     attempt INTEGER NOT NULL,
     provider_ref TEXT NOT NULL,
     amount INTEGER NOT NULL,
     currency TEXT NOT NULL
 ) STRICT;
 CREATE INDEX reports_by_due ON reports (due_at)",
    "ALTER TABLE operations RENAME TO sandbox_operations;
 ALTER TABLE charges RENAME TO sandbox_charges;
 ALTER TABLE refunds RENAME TO sandbox_refunds;
 ALTER TABLE reports RENAME TO sandbox_reports",
];

/// What a first call comes to.
pub(super) struct Decision {
    pub(super) outcome: &'static str,
    pub(super) code: Option<Code>,
    pub(super) token: Option<String>,
    /// Microseconds; 0 for at once.
    pub(super) ready_at: i64,
    pub(super) lost_answer: bool,
}

impl Decision {
    pub(super) const fn now(outcome: &'static str) -> Self {
        Self {
            outcome,
            code: None,
            token: None,
            ready_at: 0,
            lost_answer: false,
        }
    }
}

pub(super) const AUTHORIZED: Decision = Decision::now("authorized");

pub(super) fn declined(code: &str) -> Decision {
    Decision {
        code: Code::new(code).ok(),
        ..Decision::now("declined")
    }
}

/// A row of `operations`.
pub(super) struct Stored {
    pub(super) outcome: String,
    pub(super) code: Option<String>,
    pub(super) provider_ref: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) token: String,
    pub(super) ready_at: i64,
}

impl Stored {
    pub(super) fn outcome(&self, now: Timestamp) -> Result<Outcome, ProviderError> {
        let wait = self.ready_at.saturating_sub(now.as_microsecond());
        if wait > 0 {
            return Ok(Outcome::InProgress {
                ask_again_after: Duration::from_micros(wait.unsigned_abs()),
            });
        }
        let provider_ref = provider_ref(&self.provider_ref)?;
        let amount = money(self.amount, &self.currency)?;
        Ok(match self.outcome.as_str() {
            "authorized" => Outcome::Authorized { provider_ref, amount },
            "captured" => Outcome::Captured { provider_ref, amount },
            "voided" => Outcome::Voided { provider_ref },
            "refunded" => Outcome::Refunded { provider_ref, amount },
            _ => {
                let code = self.code.as_deref().unwrap_or("declined");
                Outcome::Declined {
                    code: Code::new(code).map_err(|_| DAMAGED)?,
                }
            }
        })
    }
}

pub(super) const DAMAGED: ProviderError =
    ProviderError::Misused("the sandbox's store holds a value that the sandbox never wrote");

/// The provider's name for what a key stands for. A void that came too late names the capture.
pub(super) fn reference(key: &IdempotencyKey) -> String {
    format!(
        "sbx_{}",
        derive_uuid("omisys/sandbox", &[key.to_string().as_bytes()]).simple()
    )
}

pub(super) fn provider_ref(text: &str) -> Result<ProviderRef, ProviderError> {
    ProviderRef::new(text).map_err(|_| DAMAGED)
}

pub(super) fn money(amount: i64, currency: &str) -> Result<Money, ProviderError> {
    Money::new(amount, Currency::from_code(currency).ok_or(DAMAGED)?).map_err(|_| DAMAGED)
}

pub(super) fn after(now: Timestamp, wait: Duration) -> i64 {
    now.as_microsecond()
        .saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
}

/// What was done under `key`, if anything.
pub(super) fn stored(session: &Session<'_>, key: &IdempotencyKey) -> Result<Option<Stored>, ProviderError> {
    Ok(Attempt::read(session, *key, &[key.operation])?.take(key.operation))
}

/// What was done for one attempt of a payment.
pub(super) struct Attempt {
    key: IdempotencyKey,
    done: Vec<(String, Stored)>,
}

impl Attempt {
    /// Reads what was done of `operations` for the attempt that `key` is of.
    pub(super) fn read(
        session: &Session<'_>,
        key: IdempotencyKey,
        operations: &[Operation],
    ) -> Result<Self, ProviderError> {
        let keys = operations.iter().map(|operation| key_of(key, *operation));
        let keys: Vec<_> = keys.map(Value::from).collect();
        // One look each, whatever a planner knows of the table: a list of keys may be read as all of it.
        let looks = (1..=keys.len()).map(|number| {
            format!(
                "SELECT outcome, code, provider_ref, amount, currency, token, ready_at, key FROM sandbox_operations
                 WHERE key = ?{number}"
            )
        });
        let sql = looks.collect::<Vec<_>>().join(" UNION ALL ");
        let done = session.query(&sql, &keys, |row| {
            let stored = Stored {
                outcome: row.get(0)?,
                code: row.get(1)?,
                provider_ref: row.get(2)?,
                amount: row.get(3)?,
                currency: row.get(4)?,
                token: row.get(5)?,
                ready_at: row.get(6)?,
            };
            Ok::<_, ProviderError>((row.get(7)?, stored))
        })?;
        Ok(Self { key, done })
    }

    pub(super) fn take(&mut self, operation: Operation) -> Option<Stored> {
        let key = key_of(self.key, operation);
        let index = self.done.iter().position(|(done, _)| *done == key)?;
        Some(self.done.swap_remove(index).1)
    }

    pub(super) fn authorized_session(&mut self) -> Result<Stored, ProviderError> {
        self.take(Operation::Session)
            .filter(|stored| stored.outcome == "authorized")
            .ok_or(ProviderError::Misused("the attempt has not been authorized"))
    }
}

fn key_of(key: IdempotencyKey, operation: Operation) -> String {
    IdempotencyKey { operation, ..key }.to_string()
}

/// A first call's row; another one under its key changes nothing.
pub(super) const INSERT: &str = "INSERT INTO sandbox_operations
         (key, payment_id, attempt, operation, amount, currency, token, outcome, code, provider_ref, ready_at)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (key) DO NOTHING";

/// What is to be stored, and its values for [`INSERT`].
pub(super) fn row(
    operation: &'static str,
    request: &Request,
    decision: &Decision,
) -> (Stored, Vec<Value<'static>>) {
    let late_void = operation == "void" && decision.outcome == "captured";
    let named = if late_void {
        IdempotencyKey {
            operation: Operation::Capture,
            ..request.key
        }
    } else {
        request.key
    };
    let stored = Stored {
        outcome: decision.outcome.to_owned(),
        code: decision.code.as_ref().map(|code| code.as_str().to_owned()),
        provider_ref: reference(&named),
        amount: request.amount.amount(),
        currency: request.amount.currency().code().to_owned(),
        token: decision.token.clone().unwrap_or_default(),
        ready_at: decision.ready_at,
    };
    let values = params![
        request.key.to_string(),
        request.key.payment.to_string(),
        request.key.attempt,
        operation,
        stored.amount,
        stored.currency.clone(),
        stored.token.clone(),
        stored.outcome.clone(),
        stored.code.clone(),
        stored.provider_ref.clone(),
        stored.ready_at,
    ];
    (stored, values.into())
}

pub(super) fn charge(
    session: &Session<'_>,
    key: &IdempotencyKey,
    amount: Money,
    provider_ref: &str,
) -> Result<(), ProviderError> {
    session.execute(
        "INSERT INTO sandbox_charges (payment_id, attempt, provider_ref, amount, currency) VALUES (?1, ?2, ?3, ?4, ?5)",
        &params![
            key.payment.to_string(),
            key.attempt,
            provider_ref,
            amount.amount(),
            amount.currency().code(),
        ],
    )?;
    Ok(())
}

/// One report per attempt, whose id follows from it.
pub(super) fn report(
    session: &Session<'_>,
    due_at: i64,
    request: &Request,
    provider_ref: &str,
) -> Result<(), ProviderError> {
    let (payment, attempt) = (request.key.payment.to_string(), request.key.attempt);
    let id = derive_uuid(
        "omisys/sandbox/report",
        &[payment.as_bytes(), &attempt.to_be_bytes()],
    );
    let id = (id.as_u64_pair().0 >> 1).cast_signed();
    session.execute(
        "INSERT INTO sandbox_reports (id, due_at, payment_id, order_id, attempt, provider_ref, amount, currency)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        &params![
            id,
            due_at,
            payment,
            request.order.to_string(),
            attempt,
            provider_ref,
            request.amount.amount(),
            request.amount.currency().code(),
        ],
    )?;
    Ok(())
}

pub(super) fn report_from(row: &Row<'_>) -> Result<Report, ProviderError> {
    let (reference, currency): (String, String) = (row.get(4)?, row.get(6)?);
    Ok(Report {
        id: row.get(0)?,
        payment: row.parse(1)?,
        order: row.parse(2)?,
        attempt: row.get(3)?,
        outcome: Outcome::Captured {
            provider_ref: provider_ref(&reference)?,
            amount: money(row.get(5)?, &currency)?,
        },
    })
}

/// The sandbox's own store failed: from outside, a call whose outcome is unknown.
impl From<DatabaseError> for ProviderError {
    fn from(error: DatabaseError) -> Self {
        tracing::warn!(%error, "the sandbox's store failed");
        Self::Unknown
    }
}
