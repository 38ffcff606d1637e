//! The stream as the log itself, tailed by position.

use std::sync::Arc;
use std::time::Duration;

use event_schemas::{AggregateType, Position, StreamId, Timestamp};
use event_store::{Log, LogEntry, UnreadableReason};
use tokio::sync::watch;

use crate::subscription::{Batch, Offsets};
use crate::{BusError, Checkpoint, Checkpoints, Lag, PartitionKey, lag};

pub(crate) struct LogTail {
    subscriber: Arc<str>,
    pub(crate) log: Log,
    head: watch::Receiver<Position>,
    /// Where acknowledgements are kept; none if the caller keeps them itself.
    pub(crate) checkpoints: Option<Checkpoints>,
    /// Whose events are delivered. Others are passed over, also those that this binary is too old for.
    pub(crate) types: &'static [AggregateType],
    delivered: Position,
    acknowledged: Position,
}

impl LogTail {
    pub(crate) async fn resume_at(
        log: &Log,
        subscriber: Arc<str>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Self, BusError> {
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
            types: &AggregateType::ALL,
            delivered: position,
            acknowledged: position,
        })
    }

    pub(crate) async fn next_batch(&mut self, max: usize, wait: Duration) -> Result<Batch, BusError> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            // Taken note of before reading, so that a commit in between wakes us.
            let head = *self.head.borrow_and_update();
            let mut entries = Vec::new();
            if head > self.delivered {
                entries = self.log.read(self.delivered, max.max(1)).await?;
            }
            if !entries.is_empty() {
                let full = entries.len() >= max / 2;
                let mut batch = self.deliver(entries)?;
                batch.full = full;
                return Ok(batch);
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
            LogEntry::Unreadable(event) => {
                event.reason == UnreadableReason::Newer && self.may_concern(event.stream().as_ref())
            }
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
        let mut checkpoint = Checkpoint::start(self.log.identity());
        if let Some(last) = entries.last() {
            self.delivered = last.position();
            checkpoint.advance(PartitionKey::Log, self.delivered);
        }
        if self.types.len() < AggregateType::ALL.len() {
            entries.retain(|entry| match entry {
                LogEntry::Event(event) => self.types.contains(&event.stream.aggregate_type),
                LogEntry::Unreadable(event) => self.may_concern(event.stream().as_ref()),
            });
        }
        Ok(Batch::of(entries, checkpoint, Offsets::new()))
    }

    /// Whether an event of `stream` is to be delivered; one without a stream is of an aggregate type that came after this
    /// binary, which only who reads all of them has to know.
    fn may_concern(&self, stream: Option<&StreamId>) -> bool {
        match stream {
            Some(stream) => self.types.contains(&stream.aggregate_type),
            None => self.types.len() == AggregateType::ALL.len(),
        }
    }

    pub(crate) async fn ack(&mut self, batch: &Batch) -> Result<(), BusError> {
        let position = batch.checkpoint().position();
        if position <= self.acknowledged {
            return Ok(());
        }
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints
                .save(&self.subscriber, batch.checkpoint().clone())
                .await?;
        }
        self.acknowledged = position;
        Ok(())
    }

    pub(crate) fn acknowledged(&self) -> Checkpoint {
        Checkpoint::at(self.log.identity(), self.acknowledged)
    }

    pub(crate) async fn lag(&self, now: Timestamp) -> Result<Lag, BusError> {
        lag::of_log(&self.log, self.acknowledged, now).await
    }

    pub(crate) fn rewind(&mut self) {
        self.delivered = self.acknowledged;
    }
}
