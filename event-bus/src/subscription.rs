//! Reading the stream from where one stopped.

use std::sync::Arc;
use std::time::Duration;

use event_schemas::{AggregateType, LogIdentity, RecordedEvent, StreamId, Timestamp};
use event_store::{Log, LogEntry};

#[cfg(feature = "cluster")]
use crate::kafka::{Group, Positions, StreamSource};
use crate::log_tail::LogTail;
use crate::{BusError, Checkpoint, Checkpoints, Lag, PartitionKey, Partitioning};

/// One subscriber's place in the stream.
///
/// Every event comes at least once, in order per aggregate. What has been delivered comes again after a restart unless
/// it was acknowledged, so handlers must take repeats.
pub struct Subscription {
    subscriber: Arc<str>,
    source: Source,
}

enum Source {
    Log(LogTail),
    #[cfg(feature = "cluster")]
    Kafka(Box<Group>),
}

/// Where a consumer group reads on in each partition.
pub(crate) type Offsets = Vec<(PartitionKey, i64)>;

/// What came next, in order per aggregate; empty if nothing came in time.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Events, and entries that this binary cannot read because they fit no schema: those are for the dead letters.
    pub entries: Vec<LogEntry>,
    /// What acknowledging this batch says.
    checkpoint: Checkpoint,
    offsets: Offsets,
    pub(crate) reassigned: bool,
    pub(crate) full: bool,
}

impl Batch {
    pub(crate) fn of(entries: Vec<LogEntry>, checkpoint: Checkpoint, offsets: Offsets) -> Self {
        Self {
            entries,
            checkpoint,
            offsets,
            reassigned: false,
            full: false,
        }
    }

    /// Whether nothing came. A batch without events may still say how far partitions have come: it is to be stored and
    /// acknowledged as any other, so that a part of the log that holds nothing for them is not read again.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.checkpoint.positions().is_empty()
    }

    /// The readable events.
    pub fn events(&self) -> impl Iterator<Item = &Arc<RecordedEvent>> {
        self.entries.iter().filter_map(LogEntry::event)
    }

    /// Whether about as much was read for it as was asked for, so that more is likely to wait. It may hold less, or nothing:
    /// what others are to handle was left out.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// How far the batch goes, in the partitions that it is of: for callers that store it together with what they made
    /// of the batch.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Whether partitions were given to this subscriber since the batch before: another process may have handled them
    /// until then, so what is known of them (such as parked scopes) has to be read again before this batch is handled.
    pub fn reassigned(&self) -> bool {
        self.reassigned
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn offsets(&self) -> &Offsets {
        &self.offsets
    }
}

impl Subscription {
    /// Goes on from the durable checkpoint of `subscriber`, or from the beginning of the log if it has none.
    pub async fn open(log: &Log, checkpoints: &Checkpoints, subscriber: &str) -> Result<Self, BusError> {
        let subscriber: Arc<str> = subscriber.into();
        let checkpoint = checkpoints.load(&subscriber).await?;
        let mut tail = LogTail::resume_at(log, Arc::clone(&subscriber), checkpoint).await?;
        tail.checkpoints = Some(checkpoints.clone());
        let source = Source::Log(tail);
        Ok(Self { subscriber, source })
    }

    /// Goes on from a checkpoint that the caller keeps (none: from the beginning), such as beside the documents of a
    /// view in one transaction. [`Subscription::ack`] then stores nothing.
    pub async fn resume_at(
        log: &Log,
        subscriber: &str,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Self, BusError> {
        let subscriber: Arc<str> = subscriber.into();
        let source = Source::Log(LogTail::resume_at(log, Arc::clone(&subscriber), checkpoint).await?);
        Ok(Self { subscriber, source })
    }

    /// As [`Subscription::resume_at`], of aggregates of these types only. What others have newer than this binary does not
    /// stop it.
    pub async fn resume_at_of(
        log: &Log,
        subscriber: &str,
        types: &'static [AggregateType],
        checkpoint: Option<Checkpoint>,
    ) -> Result<Self, BusError> {
        let subscriber: Arc<str> = subscriber.into();
        let mut tail = LogTail::resume_at(log, Arc::clone(&subscriber), checkpoint).await?;
        tail.types = types;
        let source = Source::Log(tail);
        Ok(Self { subscriber, source })
    }

    /// As a member of the consumer group of `subscriber`: the members share the partitions. Each goes on from the
    /// positions that are stored of those it is given; without one, from the beginning.
    ///
    /// Kafka may be away: it is waited for, and [`Subscription::next_batch`] says so.
    #[cfg(feature = "cluster")]
    pub async fn kafka(
        source: &StreamSource,
        subscriber: &str,
        positions: Positions,
    ) -> Result<Self, BusError> {
        Self::kafka_of(source, subscriber, &AggregateType::ALL, positions).await
    }

    /// As [`Subscription::kafka`], of aggregates of these types only: the other topics are not read. All members of a
    /// group have to name the same.
    #[cfg(feature = "cluster")]
    pub async fn kafka_of(
        source: &StreamSource,
        subscriber: &str,
        types: &'static [AggregateType],
        positions: Positions,
    ) -> Result<Self, BusError> {
        let subscriber: Arc<str> = subscriber.into();
        let group = Group::open(source, Arc::clone(&subscriber), types, positions).await?;
        let source = Source::Kafka(Box::new(group));
        Ok(Self { subscriber, source })
    }

    /// The subscriber's name.
    pub fn subscriber(&self) -> &Arc<str> {
        &self.subscriber
    }

    /// Which log this reads.
    pub fn log(&self) -> LogIdentity {
        match &self.source {
            Source::Log(tail) => tail.log.identity(),
            #[cfg(feature = "cluster")]
            Source::Kafka(group) => group.log(),
        }
    }

    /// How the stream that this reads is split.
    pub fn partitioning(&self) -> Partitioning {
        match &self.source {
            Source::Log(_) => Partitioning::Log,
            #[cfg(feature = "cluster")]
            Source::Kafka(group) => group.partitioning(),
        }
    }

    /// Whether events of `stream` come to this subscription, as far as it knows: of the log all do, of a consumer group
    /// those of the partitions that this member has been given.
    pub fn owns(&self, stream: &StreamId) -> bool {
        match &self.source {
            Source::Log(_) => {
                let _ = stream;
                true
            }
            #[cfg(feature = "cluster")]
            Source::Kafka(group) => group.owns(stream),
        }
    }

    /// Everything up to here has been acknowledged, or was stored when the partition was given. In a consumer group: of
    /// the partitions that this member has.
    pub fn acknowledged(&self) -> Checkpoint {
        match &self.source {
            Source::Log(tail) => tail.acknowledged(),
            #[cfg(feature = "cluster")]
            Source::Kafka(group) => group.acknowledged(),
        }
    }

    /// How far it is behind what the log has, at `now`: also when nothing comes because the relay, or Kafka, is away.
    /// Reads the database, so not for every batch.
    pub async fn lag(&mut self, now: Timestamp) -> Result<Lag, BusError> {
        match &mut self.source {
            Source::Log(tail) => tail.lag(now).await,
            #[cfg(feature = "cluster")]
            Source::Kafka(group) => group.lag(now).await,
        }
    }

    /// The next entries, at most `max` (at least 1). Returns at once if there are any, as soon as some are committed
    /// otherwise, and with an empty batch after `wait`. Can be cancelled without losing anything.
    ///
    /// An entry newer than this binary ends the batch before it; once it is the next one, [`BusError::Upgrade`].
    pub async fn next_batch(&mut self, max: usize, wait: Duration) -> Result<Batch, BusError> {
        match &mut self.source {
            Source::Log(tail) => tail.next_batch(max, wait).await,
            #[cfg(feature = "cluster")]
            Source::Kafka(group) => group.next_batch(max, wait).await,
        }
    }

    /// Everything up to and with `batch` has been handled and, if the caller keeps its checkpoint, stored. Durable once
    /// it resolves, if this subscription keeps it. Acknowledging an older batch again changes nothing.
    pub async fn ack(&mut self, batch: &Batch) -> Result<(), BusError> {
        match &mut self.source {
            Source::Log(tail) => tail.ack(batch).await,
            #[cfg(feature = "cluster")]
            Source::Kafka(group) => group.ack(batch).await,
        }
    }

    /// Leaves its consumer group, so that others are given its partitions at once, and waits for that for at most a few
    /// seconds. Of a subscription that is dropped instead, the same goes on behind it, as far as the process lasts.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(clippy::unused_async, reason = "only servers are waited for")
    )]
    pub async fn close(self) {
        match self.source {
            Source::Log(_) => {}
            #[cfg(feature = "cluster")]
            Source::Kafka(mut group) => group.close().await,
        }
    }

    /// Delivers again what has not been acknowledged, as a restart would.
    pub fn rewind(&mut self) {
        match &mut self.source {
            Source::Log(tail) => tail.rewind(),
            #[cfg(feature = "cluster")]
            Source::Kafka(group) => group.rewind(),
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("subscriber", &self.subscriber)
            .field("acknowledged", &self.acknowledged())
            .finish_non_exhaustive()
    }
}
