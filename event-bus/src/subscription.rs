//! Reading the stream from where one stopped.

use std::sync::Arc;
use std::time::Duration;

use event_schemas::{LogIdentity, Position, RecordedEvent};
use event_store::{Log, LogEntry, UnreadableReason};
use tokio::sync::watch;

use crate::{BusError, Checkpoint, Checkpoints};

/// One subscriber's place in the stream.
///
/// Every event comes at least once, in order per aggregate. What has been delivered comes again after a restart unless
/// it was acknowledged, so handlers must take repeats.
pub struct Subscription {
    subscriber: Arc<str>,
    log: Log,
    head: watch::Receiver<Position>,
    /// Where acknowledgements are kept; none if the caller keeps them itself.
    checkpoints: Option<Checkpoints>,
    delivered: Position,
    acknowledged: Position,
}

/// What came next, in order; empty if nothing came in time.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Events, and entries that this binary cannot read because they fit no schema: those are for the dead letters.
    pub entries: Vec<LogEntry>,
    /// What acknowledging this batch says.
    checkpoint: Checkpoint,
}

impl Batch {
    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The readable events.
    pub fn events(&self) -> impl Iterator<Item = &Arc<RecordedEvent>> {
        self.entries.iter().filter_map(LogEntry::event)
    }

    /// For callers that store their checkpoint together with what they made of the batch.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

impl Subscription {
    /// Goes on from the durable checkpoint of `subscriber`, or from the beginning of the log if it has none.
    pub async fn open(log: &Log, checkpoints: &Checkpoints, subscriber: &str) -> Result<Self, BusError> {
        let mut subscription = Self::resume_at(log, subscriber, None).await?;
        let checkpoint = checkpoints.load(&subscription.subscriber).await?;
        if let Some(checkpoint) = checkpoint {
            subscription = Self::resume_at(log, subscriber, Some(checkpoint)).await?;
        }
        subscription.checkpoints = Some(checkpoints.clone());
        Ok(subscription)
    }

    /// Goes on from a checkpoint that the caller keeps (none: from the beginning), such as beside the documents of a
    /// view in one transaction. [`Subscription::ack`] then stores nothing.
    pub async fn resume_at(
        log: &Log,
        subscriber: &str,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Self, BusError> {
        let subscriber: Arc<str> = subscriber.into();
        let position = match checkpoint {
            None => Position(0),
            Some(checkpoint) if checkpoint.log != log.identity() => {
                let (found, log) = (checkpoint.log, log.identity());
                return Err(BusError::ForeignCheckpoint {
                    subscriber,
                    found,
                    log,
                });
            }
            Some(checkpoint) => {
                let (position, head) = (checkpoint.position(), log.head().await?);
                if position > head {
                    return Err(BusError::BeyondHead {
                        subscriber,
                        position,
                        head,
                    });
                }
                position
            }
        };
        Ok(Self {
            subscriber,
            log: log.clone(),
            head: log.watch(),
            checkpoints: None,
            delivered: position,
            acknowledged: position,
        })
    }

    /// The subscriber's name.
    pub fn subscriber(&self) -> &Arc<str> {
        &self.subscriber
    }

    /// Which log this reads.
    pub fn log(&self) -> LogIdentity {
        self.log.identity()
    }

    /// Everything up to here has been acknowledged.
    pub fn acknowledged(&self) -> Position {
        self.acknowledged
    }

    /// The next entries, at most `max` (at least 1). Returns at once if there are any, as soon as some are committed
    /// otherwise, and with an empty batch after `wait`. Can be cancelled without losing anything.
    ///
    /// An entry newer than this binary ends the batch before it; once it is the next one, [`BusError::Upgrade`].
    pub async fn next_batch(&mut self, max: usize, wait: Duration) -> Result<Batch, BusError> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            // Taken note of before reading, so that a commit in between wakes us.
            let head = *self.head.borrow_and_update();
            let mut entries = Vec::new();
            if head > self.delivered {
                entries = self.log.read(self.delivered, max.max(1)).await?;
            }
            if !entries.is_empty() {
                return self.deliver(entries);
            }
            match tokio::time::timeout_at(deadline, self.head.changed()).await {
                Ok(Ok(())) => {}
                // The log has been closed: nothing will come any more. The next read says so.
                Ok(Err(_)) => {
                    tokio::time::sleep_until(deadline).await;
                    return self.deliver(entries);
                }
                Err(_elapsed) => return self.deliver(entries),
            }
        }
    }

    fn deliver(&mut self, mut entries: Vec<LogEntry>) -> Result<Batch, BusError> {
        let newer = entries.iter().position(|entry| match entry {
            LogEntry::Event(_) => false,
            LogEntry::Unreadable(event) => event.reason == UnreadableReason::Newer,
        });
        if let Some(LogEntry::Unreadable(event)) = newer
            .and_then(|index| entries.get(index))
            .filter(|_| newer == Some(0))
        {
            return Err(BusError::Upgrade {
                subscriber: Arc::clone(&self.subscriber),
                position: event.position,
                event_type: event.event_type.clone(),
                event_version: event.event_version.clone(),
            });
        }
        entries.truncate(newer.unwrap_or(entries.len()));
        if let Some(last) = entries.last() {
            self.delivered = last.position();
        }
        Ok(Batch {
            entries,
            checkpoint: Checkpoint::at(self.log.identity(), self.delivered),
        })
    }

    /// Everything up to and with `batch` has been handled: durable once it resolves, if this subscription keeps its own
    /// checkpoint. Acknowledging an older batch again changes nothing.
    pub async fn ack(&mut self, batch: &Batch) -> Result<(), BusError> {
        let position = batch.checkpoint.position();
        if position <= self.acknowledged {
            return Ok(());
        }
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints
                .save(&self.subscriber, batch.checkpoint.clone())
                .await?;
        }
        self.acknowledged = position;
        Ok(())
    }

    /// Delivers again what has not been acknowledged, as a restart would.
    pub fn rewind(&mut self) {
        self.delivered = self.acknowledged;
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("subscriber", &self.subscriber)
            .field("delivered", &self.delivered)
            .field("acknowledged", &self.acknowledged)
            .finish_non_exhaustive()
    }
}
