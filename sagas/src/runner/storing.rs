//! The write of a batch: its timers, effects and how far the stream has been handled, in one.

use std::sync::Arc;

use database::DatabaseError;
use event_bus::{Batch, Checkpoint, Checkpoints};
use event_schemas::Position;
use sqlite_file::SqliteError;
use tokio::sync::oneshot;

use super::{Runner, Stop};
use crate::dispatch::Stopped;
use crate::trouble::{ends_the_stream, lasting};
use crate::work::{self, Change, Table};

/// A write that has been handed in.
pub(crate) struct Storing {
    changes: Arc<[Change]>,
    /// Without its entries.
    batch: Batch,
    /// How often it has failed.
    tries: u32,
    answer: oneshot::Receiver<Result<(), DatabaseError>>,
}

/// The furthest position that the checkpoint names in any partition.
pub(crate) fn furthest(checkpoint: &Checkpoint) -> Position {
    let positions = checkpoint.positions().iter().map(|(_, position)| *position);
    positions.max().unwrap_or(Position(0))
}

impl Runner {
    /// Hands in the write of a batch. Once it is durable, its effects go to the worker and its position is shown.
    pub(super) async fn store(
        &mut self,
        changes: Arc<[Change]>,
        batch: Batch,
        tries: u32,
    ) -> Result<(), Stop> {
        let subscriber = Arc::clone(self.subscription.subscriber());
        let effects = changes
            .iter()
            .filter(|change| {
                matches!(
                    change,
                    Change::Add {
                        table: Table::Effects,
                        ..
                    }
                )
            })
            .count();
        // No room at the worker: then the rows are for whoever looks for due ones.
        let room = self.handoff.room_for(effects);
        let lease_until = room.as_ref().map(|_| self.clock.now());
        let lease_until = lease_until.map(|now| now.checked_add(self.config.lease).unwrap_or(now));
        let (reply, answer) = oneshot::channel();
        let (work, handled) = (self.work.clone(), self.handled.clone());
        let (rows, any) = (Arc::clone(&changes), !changes.is_empty());
        let saved = batch.checkpoint().clone();
        let position = furthest(&saved);
        let submitted = self.work.database().submit(
            move |session| {
                let leased = work::apply(session, &rows, lease_until)?;
                Checkpoints::save_in(session, &subscriber, &saved)?;
                Ok::<_, DatabaseError>(leased)
            },
            move |outcome| {
                let stored = outcome.map(|leased| {
                    if let Some(room) = room {
                        room.hand_over(leased);
                    }
                    if any {
                        work.ring();
                    }
                    handled.send_modify(|handled| *handled = position.max(*handled));
                });
                // The runner may have been cancelled meanwhile.
                let _ = reply.send(stored);
            },
        );
        submitted.await?;
        self.storing = Some(Storing {
            changes,
            batch,
            tries,
            answer,
        });
        Ok(())
    }

    pub(super) async fn stored(storing: &mut Option<Storing>) -> Result<(), DatabaseError> {
        match storing {
            Some(storing) => (&mut storing.answer)
                .await
                .unwrap_or(Err(SqliteError::Closed.into())),
            None => std::future::pending().await,
        }
    }

    /// The last batch's write is durable: it need not come again.
    pub(super) async fn is_stored(&mut self) -> Result<(), Stop> {
        let Some(storing) = self.storing.take() else {
            return Ok(());
        };
        if storing.tries > 0 {
            self.trouble.over();
        }
        match self.subscription.ack(&storing.batch).await {
            // What was not acknowledged comes again, and its positions say that it is done.
            Err(error) if !ends_the_stream(&error) => {
                tracing::warn!(%error, "a batch was not acknowledged");
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    /// Hands in a write again that failed; once more if that must be the last time, since all of it comes again after a
    /// restart.
    pub(super) async fn store_again(&mut self, error: DatabaseError) -> Result<(), Stop> {
        let Some(storing) = self.storing.take() else {
            return Ok(());
        };
        if lasting(&error) {
            return Err(error.into());
        }
        if self.cancel.is_cancelled() && storing.tries > 0 {
            return Err(Stopped::Cancelled.into());
        }
        tracing::warn!(%error, "timers, effects and checkpoint were not stored; trying again");
        let tries = storing.tries + 1;
        self.pause(&error, tries).await;
        self.store(storing.changes, storing.batch, tries).await
    }

    pub(super) async fn finish_store(&mut self) -> Result<(), Stop> {
        while self.storing.is_some() {
            match Self::stored(&mut self.storing).await {
                Ok(()) => self.is_stored().await?,
                Err(error) => self.store_again(error).await?,
            }
        }
        Ok(())
    }
}
