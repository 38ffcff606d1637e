//! What a member reads from the log, because the topics lack it.

use std::sync::Arc;

use event_schemas::{Position, Timestamp};
use event_store::LogEntry;
use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::{Collected, Group, MAX_HELD, SIGN_OF_LIFE, before, is_newer};
use crate::kafka::gap::{self, Fill};
use crate::kafka::relay;
use crate::subscription::Batch;
use crate::{BusError, Checkpoint, Lag, PartitionKey, lag};

impl Group {
    /// Begins to read what a record has shown to be missing.
    pub(super) async fn open_gap(&mut self) -> Result<(), BusError> {
        let Some((key, after)) = self.gap else {
            return Ok(());
        };
        let relay = self.relay().await?;
        self.fill = gap::fill_gap(&self.owned, relay.as_ref(), key, after);
        self.gap = None;
        if self.fill.is_none() {
            // The relay vouches for it.
            self.complete(&[key], after);
        }
        Ok(())
    }

    /// How far the relay says it is.
    async fn relay(&self) -> Result<Option<Checkpoint>, BusError> {
        let relay = self.source.checkpoints.load(&relay::SUBSCRIBER.into()).await?;
        Ok(relay.filter(|relay| relay.log == self.log()))
    }

    /// What the relay has not brought is behind for everybody; what it has brought and this member has not acknowledged is
    /// behind here.
    pub(crate) async fn lag(&mut self, now: Timestamp) -> Result<Lag, BusError> {
        let relay = self.relay().await?;
        let relayed = relay.as_ref().map(Checkpoint::position).unwrap_or_default();
        let unsent = lag::of_log(&self.source.log, relayed, now).await?;
        let here = gap::behind_relay(&mut self.owned, relay.as_ref(), now);
        Ok(Lag {
            positions: unsent.positions + here.positions,
            seconds: unsent.seconds.max(here.seconds),
        })
    }

    /// Compares with the relay: what stays behind it while nothing comes has been lost.
    pub(super) async fn look(&mut self) {
        self.look_at = Instant::now() + self.source.kafka.options().idle_check;
        let relay = match self.relay().await {
            Ok(relay) => relay,
            Err(error) => {
                // The topics are read all the same.
                tracing::warn!(%error, subscriber = %self.subscriber, "the relay's place cannot be read");
                return;
            }
        };
        self.fill = gap::fill_idle(&mut self.owned, relay.as_ref());
        if let Some(fill) = &self.fill {
            tracing::warn!(
                subscriber = %self.subscriber, from = %fill.read, to = %fill.target, partitions = fill.keys.len(),
                "the topics lack events: reading them from the log"
            );
        }
    }

    /// Everything of `keys` up to `target` has been delivered.
    fn complete(&mut self, keys: &[PartitionKey], target: Position) {
        for key in keys {
            if let Some(owned) = self.owned.get_mut(key) {
                owned.delivered = owned.delivered.max(target);
            }
        }
    }

    /// The next page of the log, as far as it is lacking.
    pub(super) async fn read_log(&mut self, max: usize) -> Result<Batch, BusError> {
        let Some(Fill { read, target, .. }) = self.fill else {
            return Ok(self.empty());
        };
        let mut entries = self.source.log.read(read, max).await?;
        if entries.is_empty() {
            let head = self.source.log.head().await?;
            if head < target {
                return Err(BusError::BeyondHead {
                    subscriber: Arc::clone(&self.subscriber),
                    position: target,
                    head,
                });
            }
            return Ok(self.empty());
        }
        let full = entries.len() >= max / 2;
        entries.retain(|entry| entry.position() <= target);
        let keys = self.fill.take().map(|fill| fill.keys).unwrap_or_default();
        let mut collected = Collected::default();
        let mut read = entries.last().map_or(target, LogEntry::position);
        for entry in entries {
            let Some(key) = self.lacking(&keys, &entry) else {
                continue;
            };
            if is_newer(&entry) {
                if collected.entries.is_empty() {
                    self.fill = Some(Fill {
                        read: before(&entry),
                        target,
                        keys,
                    });
                    return Err(self.upgrade(&entry));
                }
                read = before(&entry);
                break;
            }
            self.complete(&[key], entry.position());
            collected.keys.insert(key);
            collected.entries.push(entry);
        }
        if read < target {
            self.fill = Some(Fill { read, target, keys });
        } else {
            self.complete(&keys, target);
            collected.keys.extend(keys);
        }
        let mut batch = self.batch(collected);
        batch.full = full;
        Ok(batch)
    }

    /// The partition that `entry` has to be delivered for.
    fn lacking(&self, keys: &[PartitionKey], entry: &LogEntry) -> Option<PartitionKey> {
        let stream = match entry {
            LogEntry::Event(event) => event.stream.clone(),
            LogEntry::Unreadable(event) => event.stream()?,
        };
        let key = self.partitioning().of(&stream);
        let place = self.owned.get(&key).filter(|_| keys.contains(&key))?;
        (entry.position() > place.delivered).then_some(key)
    }

    /// A member that reads the log for long is still one: it polls, now and then.
    pub(super) fn stay_alive(&mut self) {
        let now = Instant::now();
        if now < self.alive_at || self.held.len() >= MAX_HELD {
            return;
        }
        self.alive_at = now + SIGN_OF_LIFE;
        if let Ok(consumer) = self.member.consumer()
            && let Some(received) = consumer.recv().now_or_never()
            && let Err(error) = self.receive(received)
        {
            tracing::warn!(%error, "while reading the log");
        }
    }
}
