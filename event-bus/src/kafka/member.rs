//! The membership in a consumer group.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_schemas::AggregateType;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use tokio::sync::oneshot;

use super::Kafka;
use super::group::StreamSource;
use crate::{BusError, PartitionKey};

/// Records that a consumer fetches ahead: besides its payload, each takes some hundred bytes that no limit counts.
const FETCH_AHEAD_RECORDS: &str = "10000";

/// Bytes, as compressed, of a partition that a broker sends at once, and of all of them; one record batch at least.
const PARTITION_FETCH_BYTES: &str = "131072";
const FETCH_BYTES: usize = 2 << 20;

/// Bytes that are sent before [`StreamSource::gather`] has passed.
const GATHER_BYTES: &str = "65536";

/// What the group did, as it is told while polling.
pub(super) enum Change {
    Assigned(Vec<PartitionKey>),
    Revoked(Vec<PartitionKey>),
    RevokedAll,
}

pub(super) struct Context {
    kafka: Kafka,
    changes: Mutex<Vec<Change>>,
}

impl Context {
    fn push(&self, change: Change) {
        self.changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(change);
    }

    pub(super) fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn changed(&self) -> bool {
        !self
            .changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    fn keys(&self, list: &TopicPartitionList) -> Vec<PartitionKey> {
        let elements = list.elements();
        let keys = elements
            .iter()
            .filter_map(|element| self.kafka.key(element.topic(), element.partition()));
        keys.collect()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.push(match rebalance {
            Rebalance::Assign(list) => Change::Assigned(self.keys(list)),
            Rebalance::Revoke(list) => Change::Revoked(self.keys(list)),
            Rebalance::Error(_) => Change::RevokedAll,
        });
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            // Positions say what was handled: what is read again is dropped again.
            tracing::debug!(%error, "offsets were not committed");
        }
    }
}

/// The consumer of a member; none until it has joined.
#[derive(Default)]
pub(super) struct Member(Option<Arc<StreamConsumer<Context>>>);

/// How long leaving a group may hold up an orderly end. Without it, the group waits for the session's end.
const LEAVE: Duration = Duration::from_secs(3);

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Member {
    /// Joins the subscriber's group.
    pub(super) fn join(
        source: &StreamSource,
        subscriber: &str,
        types: &[AggregateType],
    ) -> Result<Self, BusError> {
        let consumer = join(&source.kafka, subscriber, types, source.gather)?;
        Ok(Self(Some(Arc::new(consumer))))
    }

    pub(super) fn has_joined(&self) -> bool {
        self.0.is_some()
    }

    /// Leaves the group and waits for it, for a moment.
    pub(super) async fn close(&mut self) {
        let left = self.leave();
        // Whether it was in time or not: there is nothing left to do.
        let _ = tokio::time::timeout(LEAVE, left).await;
    }

    /// Leaves on a thread of its own, which nobody has to wait for: librdkafka waits for the brokers, and they may be away.
    fn leave(&mut self) -> oneshot::Receiver<()> {
        let (done, left) = oneshot::channel();
        if let Some(consumer) = self.0.take() {
            std::thread::spawn(move || {
                drop(consumer);
                let _ = done.send(());
            });
        }
        left
    }

    pub(super) fn consumer(&self) -> Result<Arc<StreamConsumer<Context>>, BusError> {
        let gone = || BusError::Kafka("the consumer has not joined".to_owned());
        self.0.clone().ok_or_else(gone)
    }

    /// What the group did since it was last asked.
    pub(super) fn changes(&self) -> Vec<Change> {
        self.0
            .as_ref()
            .map(|consumer| consumer.context().take())
            .unwrap_or_default()
    }

    /// Whether the group did something.
    pub(super) fn changed(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|consumer| consumer.context().changed())
    }
}

/// A consumer that is a member of the subscriber's group.
fn join(
    kafka: &Kafka,
    subscriber: &str,
    types: &[AggregateType],
    gather: Duration,
) -> Result<StreamConsumer<Context>, BusError> {
    let options = kafka.options();
    let context = Context {
        kafka: kafka.clone(),
        changes: Mutex::default(),
    };
    let mut config = kafka.client();
    config
        .set("group.id", format!("{}.{subscriber}", options.topic_prefix))
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Never `latest`: what was there before us is ours, too.
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false")
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "3000")
        .set("max.poll.interval.ms", "300000")
        .set("queued.max.messages.kbytes", options.fetch_ahead_kib.to_string())
        .set("queued.min.messages", FETCH_AHEAD_RECORDS)
        // A broker answers with the first batch of a partition however large it is. Small, as each partition with a
        // backlog sends as much again, which becomes several times that when it is decompressed.
        .set("max.partition.fetch.bytes", PARTITION_FETCH_BYTES)
        .set(
            "fetch.max.bytes",
            options.max_message_bytes.max(FETCH_BYTES).to_string(),
        )
        // What is full is looked at again soon: nothing else wakes it when it has been read.
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.error.backoff.ms", "200");
    if !gather.is_zero() {
        config
            .set("fetch.min.bytes", GATHER_BYTES)
            .set("fetch.wait.max.ms", gather.as_millis().to_string());
    }
    let consumer: StreamConsumer<Context> = config.create_with_context(context)?;
    let topics: Vec<String> = types.iter().map(|kind| kafka.topic(*kind)).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics)?;
    Ok(consumer)
}
