//! A payment provider for demonstrations, imports and tests. It has tables of its own (embedded: a file, `sandbox.db`),
//! as a real provider would: what it charged is there whatever becomes of our log, so the two can be compared.

mod store;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use database::{Database, DatabaseError, Session, params};
use event_schemas::{Clock, Code, PaymentId, Timestamp};
use sqlite_file::{Options, SqliteFile, Synchronous};
use tokio::time::Instant;

use super::{IdempotencyKey, Operation, Outcome, ProviderError, Report, Request};
use store::{
    AUTHORIZED, Attempt, DAMAGED, Decision, INSERT, STEPS, after, charge, declined, reference, report,
    report_from, row, stored,
};

/// The payment tokens, in the manner of test cards. Any other token is declined as `unknown-token`.
pub mod token {
    /// Authorizes and captures at once.
    pub const OK: &str = "tok_ok";
    /// Is declined when it is authorized, as `card-declined`.
    pub const DECLINED: &str = "tok_declined";
    /// Is authorized, and declined when it is captured, as `insufficient-funds`.
    pub const INSUFFICIENT_FUNDS: &str = "tok_insufficient_funds";
    /// Authorizes only after [`super::SandboxOptions::slow`]; until then the answer is "in progress".
    pub const SLOW: &str = "tok_slow";
    /// Authorizes and captures, but the first answer to each is lost: the caller sees a time-out and has to ask.
    pub const TIMEOUT_THEN_OK: &str = "tok_timeout_then_ok";
    /// Is authorized; the capture looks declined (`processing-error`), but the money is taken, and the provider reports
    /// the capture after [`super::SandboxOptions::late`].
    pub const CAPTURED_LATE: &str = "tok_captured_late";
}

/// How long the sandbox takes where a token says that it does.
#[derive(Debug, Clone, Copy)]
pub struct SandboxOptions {
    /// From a session's request with `tok_slow` to its authorization.
    pub slow: Duration,
    /// From a capture with `tok_captured_late` to its report.
    pub late: Duration,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            slow: Duration::from_secs(2),
            late: Duration::from_secs(2),
        }
    }
}

/// What a test makes the next call of an operation do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxFault {
    /// The call does not arrive: nothing happens.
    Down,
    /// The call is carried out and the answer is lost.
    LostAnswer,
    /// The call is declined with this code.
    Decline(Code),
}

/// How long the next report's time is believed where other processes may add reports.
const BELIEVED: Duration = Duration::from_millis(500);

/// The sandbox. Clones share its store.
#[derive(Debug, Clone)]
pub struct SandboxProvider {
    database: Database,
    clock: Clock,
    options: SandboxOptions,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Microseconds since the epoch; `i64::MAX` if no report is to come.
    next_report_at: AtomicI64,
    /// When that was last read.
    read_at: Mutex<Option<Instant>>,
    calls: AtomicU64,
    faults: Mutex<VecDeque<(&'static str, SandboxFault)>>,
}

impl SandboxProvider {
    /// Opens or creates the sandbox's store in a file of its own at `path`.
    pub async fn open(
        path: impl AsRef<Path>,
        clock: Clock,
        options: SandboxOptions,
    ) -> Result<Self, DatabaseError> {
        // It outlives a killed process; no machine's power loss needs to be survived by pretended money.
        let file = SqliteFile::open(
            path,
            Options {
                synchronous: Synchronous::Normal,
                readers: 1,
            },
        )?;
        Self::open_in(file, clock, options).await
    }

    /// The sandbox with its tables in `database`, which processes may share.
    pub async fn open_in(
        database: impl Into<Database>,
        clock: Clock,
        options: SandboxOptions,
    ) -> Result<Self, DatabaseError> {
        let database = database.into();
        database.migrate("sandbox", STEPS).await?;
        let shared = Shared {
            // Due at once: the first question finds out what there is.
            next_report_at: AtomicI64::new(0),
            read_at: Mutex::default(),
            calls: AtomicU64::new(0),
            faults: Mutex::default(),
        };
        Ok(Self {
            database,
            clock,
            options,
            shared: Arc::new(shared),
        })
    }

    /// How many calls that may move money or set it aside were made; look-ups are not counted.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// Minor units that were taken for `payment`, over all attempts.
    pub async fn charged(&self, payment: PaymentId) -> Result<i64, DatabaseError> {
        self.sum(
            "SELECT CAST(coalesce(sum(amount), 0) AS BIGINT) FROM sandbox_charges WHERE payment_id = ?1",
            payment,
        )
        .await
    }

    /// Minor units that were given back for `payment`, over all attempts.
    pub async fn refunded(&self, payment: PaymentId) -> Result<i64, DatabaseError> {
        self.sum(
            "SELECT CAST(coalesce(sum(amount), 0) AS BIGINT) FROM sandbox_refunds WHERE payment_id = ?1",
            payment,
        )
        .await
    }

    async fn sum(&self, sql: &'static str, payment: PaymentId) -> Result<i64, DatabaseError> {
        self.database
            .read(move |session| session.query_one(sql, &params![payment.to_string()], |row| row.get(0)))
            .await
    }

    /// Makes the next call of `operation` (`session`, `capture`, `void`, `refund` or `lookup`) fail: for tests.
    pub fn fail_next(&self, operation: &'static str, fault: SandboxFault) {
        self.shared
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back((operation, fault));
    }

    fn fault(&self, operation: &'static str) -> Option<SandboxFault> {
        let mut faults = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let index = faults.iter().position(|(at, _)| *at == operation)?;
        faults.remove(index).map(|(_, fault)| fault)
    }

    pub(super) async fn session(&self, request: Request) -> Result<Outcome, ProviderError> {
        let Some(token) = &request.token else {
            return Err(ProviderError::Misused("a session needs a token"));
        };
        let token = token.expose().to_owned();
        let fault = self.arrive("session")?;
        let now = self.clock.now();
        let outcome = match token.as_str() {
            token::OK | token::INSUFFICIENT_FUNDS | token::TIMEOUT_THEN_OK | token::CAPTURED_LATE => {
                AUTHORIZED
            }
            token::SLOW => Decision {
                ready_at: after(now, self.options.slow),
                ..AUTHORIZED
            },
            token::DECLINED => declined("card-declined"),
            _ => declined("unknown-token"),
        };
        let decision = decreed(fault.as_ref()).unwrap_or_else(|| Decision {
            lost_answer: token == token::TIMEOUT_THEN_OK,
            token: Some(token),
            ..outcome
        });
        // It depends on nothing that was done before, so the key alone says whether it is the first call.
        let (begun, values) = row("session", &request, &decision);
        let first = self.database.execute(INSERT, values).await? > 0;
        let answer = if first {
            begun.outcome(now)?
        } else {
            let known = self.database.read(move |store| stored(store, &request.key));
            known.await?.ok_or(DAMAGED)?.outcome(now)?
        };
        if fault == Some(SandboxFault::LostAnswer) || (first && decision.lost_answer) {
            return Err(ProviderError::Unknown);
        }
        Ok(answer)
    }

    pub(super) async fn capture(&self, request: Request) -> Result<Outcome, ProviderError> {
        let late = self.options.late;
        let shared = Arc::clone(&self.shared);
        self.carry_out("capture", request, move |store, attempt, now, request| {
            let key = request.key;
            let session = attempt.authorized_session()?;
            if session.amount < request.amount.amount()
                || session.currency != request.amount.currency().code()
            {
                return Err(ProviderError::Misused("a capture beyond what was authorized"));
            }
            let void = attempt.take(Operation::Void);
            if void.is_some_and(|void| void.outcome == "voided") {
                return Ok(declined("voided"));
            }
            if session.token == token::INSUFFICIENT_FUNDS {
                return Ok(declined("insufficient-funds"));
            }
            let provider_ref = reference(&key);
            charge(store, &key, request.amount, &provider_ref)?;
            Ok(match session.token.as_str() {
                token::CAPTURED_LATE => {
                    let due_at = after(now, late);
                    report(store, due_at, request, &provider_ref)?;
                    shared.next_report_at.fetch_min(due_at, Ordering::SeqCst);
                    declined("processing-error")
                }
                token::TIMEOUT_THEN_OK => Decision {
                    lost_answer: true,
                    ..Decision::now("captured")
                },
                _ => Decision::now("captured"),
            })
        })
        .await
    }

    pub(super) async fn void(&self, request: Request) -> Result<Outcome, ProviderError> {
        self.carry_out("void", request, |store, attempt, _, request| {
            attempt.authorized_session()?;
            let charged = store.query_opt(
                "SELECT 1 FROM sandbox_charges WHERE payment_id = ?1 AND attempt = ?2",
                &params![request.key.payment.to_string(), request.key.attempt],
                |_| Ok::<_, ProviderError>(()),
            )?;
            Ok(Decision::now(if charged.is_some() {
                "captured"
            } else {
                "voided"
            }))
        })
        .await
    }

    pub(super) async fn refund(&self, request: Request) -> Result<Outcome, ProviderError> {
        self.carry_out("refund", request, |store, _, _, request| {
            let IdempotencyKey { payment, attempt, .. } = request.key;
            let left: i64 = store.query_one(
                "SELECT CAST(
                     coalesce((SELECT sum(amount) FROM sandbox_charges WHERE payment_id = ?1 AND attempt = ?2), 0)
                     - coalesce((SELECT sum(amount) FROM sandbox_refunds WHERE payment_id = ?1 AND attempt = ?2), 0)
                 AS BIGINT)",
                &params![payment.to_string(), attempt],
                |row| Ok::<_, ProviderError>(row.get(0)?),
            )?;
            if request.amount.amount() > left {
                return Ok(declined("refund-exceeds-charge"));
            }
            store.execute(
                "INSERT INTO sandbox_refunds (payment_id, attempt, provider_ref, amount) VALUES (?1, ?2, ?3, ?4)",
                &params![payment.to_string(), attempt, reference(&request.key), request.amount.amount()],
            )?;
            Ok(Decision::now("refunded"))
        })
        .await
    }

    pub(super) async fn lookup(&self, key: IdempotencyKey) -> Result<Option<Outcome>, ProviderError> {
        if self.fault("lookup").is_some() {
            return Err(ProviderError::Down);
        }
        let now = self.clock.now();
        self.database
            .read(move |store| stored(store, &key)?.map(|stored| stored.outcome(now)).transpose())
            .await
    }

    pub(super) async fn reports(&self, max: usize) -> Result<Vec<Report>, ProviderError> {
        let now = self.clock.now().as_microsecond();
        self.database
            .read(move |store| {
                store.query(
                    "SELECT id, payment_id, order_id, attempt, provider_ref, amount, currency FROM sandbox_reports
                     WHERE due_at <= ?1 ORDER BY due_at, id LIMIT ?2",
                    &params![now, max],
                    report_from,
                )
            })
            .await
    }

    pub(super) async fn acknowledge(&self, id: i64) -> Result<(), ProviderError> {
        self.database
            .write(move |store| {
                // It does not come again: whoever asks from now on is told what really happened.
                store.execute(
                    "UPDATE sandbox_operations SET outcome = 'captured', code = NULL
                     WHERE key = (SELECT payment_id || '/' || attempt || '/capture'
                         FROM sandbox_reports WHERE id = ?1)",
                    &params![id],
                )?;
                store.execute("DELETE FROM sandbox_reports WHERE id = ?1", &params![id])?;
                Ok::<_, ProviderError>(())
            })
            .await?;
        // Stale now; whoever asks next looks.
        self.shared.next_report_at.store(0, Ordering::SeqCst);
        Ok(())
    }

    pub(super) async fn next_report_at(&self) -> Result<Option<Timestamp>, ProviderError> {
        self.forget_what_others_may_have_changed();
        let known = self.shared.next_report_at.load(Ordering::SeqCst);
        let micros = if known == 0 {
            let next = self.database.read(|store| {
                store.query_one("SELECT min(due_at) FROM sandbox_reports", &[], |row| {
                    Ok::<_, ProviderError>(row.get::<Option<i64>>(0)?)
                })
            });
            let found = next.await?.unwrap_or(i64::MAX);
            // A report that was added meanwhile has lowered the value below what was found.
            let _ = self
                .shared
                .next_report_at
                .compare_exchange(0, found, Ordering::SeqCst, Ordering::SeqCst);
            found
        } else {
            known
        };
        Ok(if micros == i64::MAX {
            None
        } else {
            Timestamp::from_microsecond(micros).ok()
        })
    }

    fn forget_what_others_may_have_changed(&self) {
        if matches!(self.database, Database::Sqlite(_)) {
            return;
        }
        let mut read_at = self.shared.read_at.lock().unwrap_or_else(PoisonError::into_inner);
        if read_at.is_none_or(|at| at.elapsed() >= BELIEVED) {
            *read_at = Some(Instant::now());
            self.shared.next_report_at.store(0, Ordering::SeqCst);
        }
    }

    /// A call that may move money or set it aside; what a test makes of it.
    fn arrive(&self, operation: &'static str) -> Result<Option<SandboxFault>, ProviderError> {
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        match self.fault(operation) {
            Some(SandboxFault::Down) => Err(ProviderError::Down),
            fault => Ok(fault),
        }
    }

    /// Carries out `request` once: a key that is known gets its first outcome.
    async fn carry_out(
        &self,
        operation: &'static str,
        request: Request,
        decide: impl FnOnce(&Session<'_>, &mut Attempt, Timestamp, &Request) -> Result<Decision, ProviderError>
        + Send
        + 'static,
    ) -> Result<Outcome, ProviderError> {
        let fault = self.arrive(operation)?;
        let lose_answer = fault == Some(SandboxFault::LostAnswer);
        let now = self.clock.now();
        let (answer, lost_by_token): (_, bool) = self
            .database
            .write(move |store| {
                // What is decided depends on what was done to the payment before.
                store.lock(&format!("sandbox/{}", request.key.payment))?;
                let own = request.key.operation;
                let known: &[Operation] = match own {
                    Operation::Session | Operation::Refund(_) => &[own],
                    Operation::Capture => &[own, Operation::Session, Operation::Void],
                    Operation::Void => &[own, Operation::Session],
                };
                let mut attempt = Attempt::read(store, request.key, known)?;
                if let Some(stored) = attempt.take(own) {
                    return Ok::<_, ProviderError>((stored.outcome(now)?, false));
                }
                let decision = match decreed(fault.as_ref()) {
                    Some(declined) => declined,
                    None => decide(store, &mut attempt, now, &request)?,
                };
                let (stored, values) = row(operation, &request, &decision);
                if store.execute(INSERT, &values)? == 0 {
                    // Not under the lock.
                    return Err(DAMAGED);
                }
                Ok((stored.outcome(now)?, decision.lost_answer))
            })
            .await?;
        if lost_by_token || lose_answer {
            Err(ProviderError::Unknown)
        } else {
            Ok(answer)
        }
    }
}

/// What a fault decides, whatever else would be.
fn decreed(fault: Option<&SandboxFault>) -> Option<Decision> {
    match fault {
        Some(SandboxFault::Decline(code)) => Some(Decision {
            code: Some(code.clone()),
            ..Decision::now("declined")
        }),
        _ => None,
    }
}
