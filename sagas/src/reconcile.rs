//! After a log was restored or imported: what happened at the provider that this log does not know of?
//!
//! The copy may be older than the provider's memory. So no timer and no effect runs in a new epoch before every call
//! that the log holds open has been asked for under its key, and what had happened has been recorded. That is done once
//! an epoch; killed halfway, it is done again, and the ids of its commands absorb the repeat.

use std::collections::BTreeSet;
use std::time::Duration;

use aggregates::audit::Audit;
use database::{Database, DatabaseError, params};
use event_schemas::{EventId, LogIdentity, Position, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::dispatch::{Cause, Failure, Stopped};
use crate::effects::{Call, record};
use crate::fault;
use crate::provider::Outcome;
use crate::work::{Handed, open_effects, read_event};
use crate::worker::Worker;

/// The epochs that need not be asked about any more.
pub(crate) const STEP: &str = "CREATE TABLE reconciled (
    log_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    reconciled_at INTEGER NOT NULL,
    PRIMARY KEY (log_id, epoch)
) STRICT, WITHOUT ROWID";

/// Events read together.
const PAGE: usize = 5_000;
/// Between two tries, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Why it is not done yet.
enum NotYet {
    Later(String),
    Stopped(Stopped),
}

impl<E: std::error::Error> From<E> for NotYet {
    fn from(error: E) -> Self {
        Self::Later(error.to_string())
    }
}

/// What those who watch are told first; none for a log that is no copy.
pub(crate) fn due(log: LogIdentity) -> Option<String> {
    (log.epoch > 1).then(|| "the provider is asked what happened to open payments".to_owned())
}

impl Worker {
    /// Reconciles if that is due, telling what it waits for, and then runs until it is cancelled.
    pub(crate) async fn reconcile_and_run(
        self,
        handed: mpsc::UnboundedReceiver<Handed>,
        waiting: &watch::Sender<Option<String>>,
        cancel: CancellationToken,
    ) -> Result<(), Stopped> {
        self.reconcile(waiting, &cancel).await?;
        self.run(handed, cancel).await
    }

    async fn reconcile(
        &self,
        waiting: &watch::Sender<Option<String>>,
        cancel: &CancellationToken,
    ) -> Result<(), Stopped> {
        let mut tries = 0;
        let mut open = None;
        while waiting.borrow().is_some() {
            match self.try_to_reconcile(&mut open).await {
                Ok(()) => {
                    waiting.send_replace(None);
                }
                Err(NotYet::Stopped(stopped)) => return Err(stopped),
                Err(NotYet::Later(reason)) => {
                    tries += 1;
                    tracing::warn!(reason, "open payments cannot be reconciled yet; trying again");
                    waiting.send_replace(Some(format!("open payments are not reconciled yet: {reason}")));
                    let wait = self.config.effect_backoff.after(tries).min(LONGEST_WAIT);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = cancel.cancelled() => return Err(Stopped::Cancelled),
                    }
                }
            }
        }
        Ok(())
    }

    async fn try_to_reconcile(&self, found: &mut Option<BTreeSet<EventId>>) -> Result<(), NotYet> {
        let log = self.log.identity();
        if is_reconciled(self.work.database(), log).await? {
            return Ok(());
        }
        if found.is_none() {
            *found = Some(self.intents().await?);
        }
        let mut recorded = 0;
        for intent in found.iter().flatten() {
            recorded += u32::from(self.ask_what_happened(intent).await?);
        }
        self.faults.visit(fault::BEFORE_DONE).map_err(stopped)?;
        mark_reconciled(self.work.database(), log, self.clock.now()).await?;
        tracing::info!(
            asked = found.as_ref().map_or(0, BTreeSet::len),
            recorded,
            "open payments are reconciled with the provider"
        );
        Ok(())
    }

    /// The intents that are open, or may be: as the log says, and as the rows beside it do.
    async fn intents(&self) -> Result<BTreeSet<EventId>, NotYet> {
        let rows = open_effects(self.work.database()).await?;
        let (mut audit, mut position, head) = (Audit::new(), Position(0), self.log.head().await?);
        while position < head {
            let page = self.log.read(position, PAGE).await?;
            let Some(last) = page.last() else { break };
            position = last.position();
            for event in page.iter().filter_map(event_store::LogEntry::event) {
                audit.observe(event);
            }
        }
        let open = audit.open_intents().into_iter().map(|intent| intent.event);
        Ok(rows.into_iter().chain(open).collect())
    }

    /// Asks what came of one intent, if it is open, and records it. Calls nothing. Says whether there was something.
    async fn ask_what_happened(&self, intent: &EventId) -> Result<bool, NotYet> {
        let recorded = read_event(&self.log, intent).await?;
        let Some(call) = Call::of(&recorded) else {
            return Ok(false);
        };
        let Some(open) = self.open(call).await.map_err(NotYet::Later)? else {
            return Ok(false);
        };
        let Some(provider) = &self.provider else {
            return Err(NotYet::Later(format!(
                "no payment provider is configured, and {} is open",
                call.key()
            )));
        };
        if open.method.provider.as_str() != provider.name() {
            // The effect says so, to those who look after dead letters.
            return Ok(false);
        }
        let found = tokio::time::timeout(self.config.provider_timeout, provider.lookup(call.key())).await;
        let found = found.map_err(|_| NotYet::Later("the provider does not answer".to_owned()))??;
        self.faults.visit(fault::AFTER_PROVIDER).map_err(stopped)?;
        // What the provider has never seen, is still at, or declines to give back is the effect's to deal with: under the
        // same key it gets the same answer.
        let Some(outcome) = found.filter(|outcome| !matches!(outcome, Outcome::InProgress { .. })) else {
            return Ok(false);
        };
        if call.is_refund() && matches!(outcome, Outcome::Declined { .. }) {
            return Ok(false);
        }
        let Some(fact) = call.fact(outcome) else {
            return Ok(false);
        };
        let command = record(&recorded, call.payment, fact);
        match self.dispatcher.run(&Cause::from(&*recorded), command).await {
            Ok(()) => Ok(true),
            Err(Failure::Later(reason) | Failure::Upgrade(reason)) => Err(NotYet::Later(reason)),
            Err(Failure::Unforeseen(reason)) => {
                // The effect meets the same refusal, and becomes a dead letter.
                tracing::error!(event = %intent, reason, "what the provider did cannot be recorded");
                Ok(false)
            }
            Err(Failure::Stopped(stopped)) => Err(NotYet::Stopped(stopped)),
        }
    }
}

fn stopped(died: fault::Died) -> NotYet {
    NotYet::Stopped(died.into())
}

async fn is_reconciled(database: &Database, log: LogIdentity) -> Result<bool, DatabaseError> {
    let read = database.read(move |session| {
        session.query_opt(
            "SELECT 1 FROM reconciled WHERE log_id = ?1 AND epoch = ?2",
            &params![log.log_id.to_string(), log.epoch],
            |_| Ok::<_, DatabaseError>(()),
        )
    });
    Ok(read.await?.is_some())
}

async fn mark_reconciled(database: &Database, log: LogIdentity, now: Timestamp) -> Result<(), DatabaseError> {
    let write = database.write(move |session| {
        session.execute(
            "INSERT INTO reconciled (log_id, epoch, reconciled_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            &params![log.log_id.to_string(), log.epoch, now.as_microsecond()],
        )
    });
    write.await.map(|_| ())
}
