//! The stream as a member of a consumer group.
//!
//! Offsets only say where to read on; what has been handled is said by positions, which the subscriber stores with what
//! it made of the events. So offsets may be lost, topics cut, deleted or made again, and partitions may move between
//! members at any moment: a member loads the positions of what it is given, drops what is at or below them, and reads
//! from the log what the topic lacks. See [`super::gap`].

mod from_log;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use event_schemas::{AggregateType, LogIdentity, Position, StreamId};
use event_store::{Log, LogEntry, UnreadableReason};
use futures_util::FutureExt as _;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode;
use tokio::time::Instant;

use super::Kafka;
use super::gap::{Fill, Owned};
use super::member::{Change, Member};
use super::positions::Positions;
use super::record::{self, Record};
use crate::subscription::{Batch, Offsets};
use crate::{BusError, Checkpoint, Checkpoints, PartitionKey, Partitioning};

/// Payload bytes after which a batch ends.
const MAX_BATCH_BYTES: usize = 8 << 20;

/// How often a member is seen alive while it reads the log.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Records that may wait while the log is read; one comes in with each sign of life.
const MAX_HELD: usize = 1_000;

/// How long a seek may take.
const SEEK: Duration = Duration::from_secs(10);

/// What a subscription in a consumer group reads from.
#[derive(Clone)]
pub struct StreamSource {
    pub kafka: Kafka,
    /// For what the topics lack.
    pub log: Log,
    /// Those of the log's database: the relay's is among them.
    pub checkpoints: Checkpoints,
    /// How long a broker may gather events before it sends them. For a subscriber that handles many at once and is not
    /// waited for: each answer to each subscriber costs the broker about as much as taking the events in.
    pub gather: Duration,
}

pub(crate) struct Group {
    subscriber: Arc<str>,
    source: StreamSource,
    /// Whose topics are read.
    types: &'static [AggregateType],
    positions: Positions,
    member: Member,
    topics_checked: bool,
    owned: BTreeMap<PartitionKey, Owned>,
    /// Given, but their positions have not been loaded.
    fresh: BTreeSet<PartitionKey>,
    /// Received and not delivered.
    held: VecDeque<Record>,
    /// A record was preceded by another one, which has not been seen.
    gap: Option<(PartitionKey, Position)>,
    fill: Option<Fill>,
    rewinding: bool,
    /// The next batch is the first since partitions were given.
    reassigned: bool,
    /// Of a record that must not be read; the member stops.
    foreign: Option<LogIdentity>,
    look_at: Instant,
    alive_at: Instant,
}

impl Group {
    pub(crate) async fn open(
        source: &StreamSource,
        subscriber: Arc<str>,
        types: &'static [AggregateType],
        positions: Positions,
    ) -> Result<Self, BusError> {
        let now = Instant::now();
        let group = Self {
            subscriber,
            source: source.clone(),
            types,
            positions,
            member: Member::default(),
            topics_checked: false,
            owned: BTreeMap::new(),
            fresh: BTreeSet::new(),
            held: VecDeque::new(),
            gap: None,
            fill: None,
            rewinding: false,
            reassigned: false,
            foreign: None,
            look_at: now,
            alive_at: now,
        };
        // A checkpoint that must not be used is heard of now.
        group.load().await?;
        Ok(group)
    }

    pub(crate) fn log(&self) -> LogIdentity {
        self.source.log.identity()
    }

    pub(crate) fn partitioning(&self) -> Partitioning {
        self.source.kafka.partitioning()
    }

    pub(crate) fn owns(&self, stream: &StreamId) -> bool {
        self.owned.contains_key(&self.partitioning().of(stream))
    }

    pub(crate) async fn next_batch(&mut self, max: usize, wait: Duration) -> Result<Batch, BusError> {
        let (max, deadline) = (max.max(1), Instant::now() + wait);
        loop {
            self.settle().await?;
            self.open_gap().await?;
            if self.fill.is_some() {
                let batch = self.read_log(max).await?;
                self.stay_alive();
                if !batch.is_empty() {
                    return Ok(batch);
                }
                continue;
            }
            let batch = self.drain(max)?;
            if !batch.is_empty() {
                return Ok(batch);
            }
            if self.gap.is_some() || self.member.changed() {
                continue;
            }
            let consumer = self.member.consumer()?;
            tokio::select! {
                received = consumer.recv() => self.receive(received)?,
                () = tokio::time::sleep_until(deadline.min(self.look_at)) => {
                    if Instant::now() >= self.look_at {
                        self.look().await;
                    } else {
                        return Ok(self.empty());
                    }
                }
            }
        }
    }

    fn empty(&self) -> Batch {
        Batch::of(Vec::new(), Checkpoint::start(self.log()), Offsets::new())
    }

    /// Takes over what the group has decided, and goes back if that was asked for.
    async fn settle(&mut self) -> Result<(), BusError> {
        if let Some(found) = self.foreign {
            return Err(self.foreign_record(found));
        }
        if !self.topics_checked {
            self.source.kafka.ensure_topics().await?;
            self.topics_checked = true;
        }
        if !self.member.has_joined() {
            self.member = Member::join(&self.source, &self.subscriber, self.types)?;
        }
        loop {
            self.apply_changes();
            if self.fresh.is_empty() {
                break;
            }
            let stored = self.load().await?;
            if self.member.changed() {
                continue;
            }
            for key in std::mem::take(&mut self.fresh) {
                let position = stored
                    .as_ref()
                    .map_or(Position(0), |stored| stored.position_of(key));
                self.owned.insert(key, Owned::at(position));
            }
            self.reassigned = true;
            self.look_at = Instant::now() + self.source.kafka.options().idle_check;
        }
        if self.rewinding {
            self.seek_back().await?;
        }
        Ok(())
    }

    fn apply_changes(&mut self) {
        for change in self.member.changes() {
            match change {
                Change::Assigned(keys) => {
                    tracing::info!(subscriber = %self.subscriber, partitions = keys.len(), "partitions given");
                    for key in keys {
                        // Held already: what came with the news.
                        self.owned.remove(&key);
                        self.fresh.insert(key);
                    }
                }
                Change::Revoked(keys) => {
                    tracing::info!(subscriber = %self.subscriber, partitions = keys.len(), "partitions taken away");
                    self.give_up(&keys);
                }
                Change::RevokedAll => {
                    let keys: Vec<PartitionKey> = self.owned.keys().chain(&self.fresh).copied().collect();
                    self.give_up(&keys);
                }
            }
        }
    }

    /// What is known of `keys` is another's from now on, and so is what of them was not delivered.
    fn give_up(&mut self, keys: &[PartitionKey]) {
        for key in keys {
            self.owned.remove(key);
            self.fresh.remove(key);
        }
        self.held.retain(|record| !keys.contains(&record.partition));
        self.gap = self.gap.filter(|(key, _)| !keys.contains(key));
        if let Some(fill) = &mut self.fill {
            fill.keys.retain(|key| !keys.contains(key));
        }
        self.fill = self.fill.take().filter(|fill| !fill.keys.is_empty());
    }

    async fn load(&self) -> Result<Option<Checkpoint>, BusError> {
        let stored = self.positions.load(&self.subscriber).await?;
        let Some(stored) = stored else {
            return Ok(None);
        };
        let (log, subscriber) = (self.log(), Arc::clone(&self.subscriber));
        if stored.log != log {
            let found = stored.log;
            return Err(BusError::ForeignCheckpoint {
                subscriber,
                found,
                log,
            });
        }
        let furthest = stored.positions().iter().map(|(_, position)| *position).max();
        if let Some(position) = furthest {
            let head = self.source.log.head().await?;
            if position > head {
                return Err(BusError::BeyondHead {
                    subscriber,
                    position,
                    head,
                });
            }
        }
        Ok(Some(stored))
    }

    /// Keeps what came, or says what is wrong.
    fn receive(&mut self, received: KafkaResult<BorrowedMessage<'_>>) -> Result<(), BusError> {
        let message = match received {
            Ok(message) => message,
            Err(error) => return self.trouble(error),
        };
        let Some(record) = record::read(&self.source.kafka, &message) else {
            tracing::warn!(subscriber = %self.subscriber, "a record that is no event of ours was left out");
            return Ok(());
        };
        let log = self.log();
        if record.log.log_id == log.log_id && record.log.epoch < log.epoch {
            // From before the log was restored; the relay has brought, or will bring, what is left of it.
            return Ok(());
        }
        if record.log != log {
            self.foreign = Some(record.log);
            return Err(self.foreign_record(record.log));
        }
        self.held.push_back(record);
        Ok(())
    }

    fn trouble(&mut self, error: KafkaError) -> Result<(), BusError> {
        match error {
            KafkaError::MessageConsumptionFatal(_) => {
                // This consumer is of no use any more: the next call joins again.
                let keys: Vec<PartitionKey> = self.owned.keys().chain(&self.fresh).copied().collect();
                self.give_up(&keys);
                self.member = Member::default();
                Err(error.into())
            }
            // Deleted: it is made again, here or by the relay.
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
            ) => {
                self.topics_checked = false;
                Ok(())
            }
            // librdkafka goes on by itself.
            error => {
                tracing::warn!(%error, subscriber = %self.subscriber, "the stream is disturbed");
                Ok(())
            }
        }
    }

    /// A batch of what has come.
    fn drain(&mut self, max: usize) -> Result<Batch, BusError> {
        let consumer = self.member.consumer()?;
        let mut collected = Collected::default();
        let mut bytes = 0;
        // What was handled before it came: to be read no more.
        let mut skipped = BTreeMap::new();
        while collected.entries.len() < max && bytes < MAX_BATCH_BYTES {
            if self.held.is_empty() {
                match consumer.recv().now_or_never() {
                    None => break,
                    Some(received) => self.receive(received)?,
                }
            }
            if self.member.changed() {
                break;
            }
            let Some(record) = self.held.pop_front() else {
                continue;
            };
            let Some(place) = self.owned.get_mut(&record.partition) else {
                continue;
            };
            if place.acknowledged_offset.is_none() {
                place.acknowledged_offset = Some(record.offset);
            }
            let position = record.raw.position;
            if position > place.delivered && record.after > place.delivered {
                self.gap = Some((record.partition, record.after));
                self.held.push_front(record);
                break;
            }
            if position <= place.delivered {
                place.offset = Some(record.offset + 1);
                if position <= place.acknowledged {
                    skipped.insert(record.partition, record.offset + 1);
                }
                continue;
            }
            let entry = self.source.log.decode(&record.raw);
            if is_newer(&entry) {
                self.held.push_front(record);
                if collected.entries.is_empty() {
                    return Err(self.upgrade(&entry));
                }
                break;
            }
            place.offset = Some(record.offset + 1);
            place.delivered = position;
            bytes += record.raw.payload.len();
            collected.keys.insert(record.partition);
            collected.entries.push(entry);
        }
        if self.member.changed() {
            self.apply_changes();
            let (owned, partitioning) = (&self.owned, self.partitioning());
            collected.keys.retain(|key| owned.contains_key(key));
            collected.entries.retain(|entry| {
                let stream = match entry {
                    LogEntry::Event(event) => Some(event.stream.clone()),
                    LogEntry::Unreadable(event) => event.stream(),
                };
                stream.is_some_and(|stream| owned.contains_key(&partitioning.of(&stream)))
            });
        }
        if !skipped.is_empty() {
            self.commit(skipped)?;
        }
        let full = collected.entries.len() >= max / 2 || bytes >= MAX_BATCH_BYTES / 2;
        let mut batch = self.batch(collected);
        batch.full = full;
        Ok(batch)
    }

    fn batch(&mut self, collected: Collected) -> Batch {
        let mut checkpoint = Checkpoint::start(self.log());
        let mut offsets = Offsets::new();
        for key in collected.keys {
            if let Some(place) = self.owned.get(&key) {
                checkpoint.advance(key, place.delivered);
                if let Some(offset) = place.offset {
                    offsets.push((key, offset));
                }
            }
        }
        let mut batch = Batch::of(collected.entries, checkpoint, offsets);
        if !batch.is_empty() {
            batch.reassigned = std::mem::take(&mut self.reassigned);
        }
        batch
    }

    pub(crate) async fn ack(&mut self, batch: &Batch) -> Result<(), BusError> {
        let mut moved = Checkpoint::start(batch.checkpoint().log);
        for (key, position) in batch.checkpoint().positions() {
            let place = self.owned.get(key);
            if place.is_some_and(|place| *position > place.acknowledged) {
                moved.advance(*key, *position);
            }
        }
        if let Positions::Kept(checkpoints) = &self.positions
            && !moved.positions().is_empty()
        {
            checkpoints.save(&self.subscriber, moved.clone()).await?;
        }
        for (key, position) in moved.positions() {
            if let Some(place) = self.owned.get_mut(key) {
                place.acknowledged = *position;
            }
        }
        self.commit(batch.offsets().iter().copied())
    }

    /// Reading goes on from these offsets, should this member end.
    fn commit(&mut self, offsets: impl IntoIterator<Item = (PartitionKey, i64)>) -> Result<(), BusError> {
        let mut list = TopicPartitionList::new();
        for (key, offset) in offsets {
            let Some(place) = self.owned.get_mut(&key) else {
                continue;
            };
            if place.acknowledged_offset.is_some_and(|held| held >= offset) {
                continue;
            }
            place.acknowledged_offset = Some(offset);
            self.source.kafka.list(&mut list, key, offset)?;
        }
        if list.count() > 0
            && let Err(error) = self.member.consumer()?.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "offsets were not committed");
        }
        Ok(())
    }

    pub(crate) async fn close(&mut self) {
        self.member.close().await;
    }

    /// What has been acknowledged of the partitions that this member has.
    pub(crate) fn acknowledged(&self) -> Checkpoint {
        let mut checkpoint = Checkpoint::start(self.log());
        for (key, place) in &self.owned {
            checkpoint.advance(*key, place.acknowledged);
        }
        checkpoint
    }

    pub(crate) fn rewind(&mut self) {
        for record in &self.held {
            if let Some(place) = self.owned.get_mut(&record.partition) {
                place.acknowledged_offset.get_or_insert(record.offset);
            }
        }
        for place in self.owned.values_mut() {
            place.delivered = place.acknowledged;
            place.offset = place.acknowledged_offset;
        }
        self.held.clear();
        self.gap = None;
        self.fill = None;
        self.rewinding = true;
    }

    async fn seek_back(&mut self) -> Result<(), BusError> {
        let mut list = TopicPartitionList::new();
        for (key, place) in &self.owned {
            if let Some(offset) = place.acknowledged_offset {
                self.source.kafka.list(&mut list, *key, offset)?;
            }
        }
        if list.count() > 0 {
            let consumer = self.member.consumer()?;
            let seeking = tokio::task::spawn_blocking(move || consumer.seek_partitions(list, SEEK));
            let sought = seeking
                .await
                .map_err(|_| BusError::Kafka("seeking panicked".to_owned()))??;
            // One that cannot go back leaves a gap, which is read from the log.
            for element in sought.elements() {
                if let Err(error) = element.error() {
                    tracing::debug!(%error, topic = element.topic(), "a partition cannot go back");
                }
            }
        }
        self.rewinding = false;
        Ok(())
    }

    fn upgrade(&self, entry: &LogEntry) -> BusError {
        let (position, event_type, event_version) = match entry {
            LogEntry::Event(event) => (event.position, event.event.name().to_owned(), String::new()),
            LogEntry::Unreadable(event) => (
                event.position,
                event.event_type.clone(),
                event.event_version.clone(),
            ),
        };
        BusError::Upgrade {
            subscriber: Arc::clone(&self.subscriber),
            position,
            event_type,
            event_version,
        }
    }

    fn foreign_record(&self, found: LogIdentity) -> BusError {
        BusError::ForeignRecord {
            subscriber: Arc::clone(&self.subscriber),
            found,
            log: self.log(),
        }
    }
}

#[derive(Default)]
struct Collected {
    entries: Vec<LogEntry>,
    keys: BTreeSet<PartitionKey>,
}

fn is_newer(entry: &LogEntry) -> bool {
    matches!(entry, LogEntry::Unreadable(event) if event.reason == UnreadableReason::Newer)
}

fn before(entry: &LogEntry) -> Position {
    Position(entry.position().0.saturating_sub(1))
}
