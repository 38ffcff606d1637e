//! Kafka: one topic per aggregate type, filled from the log by the [`Relay`](crate::Relay) and read in consumer groups.
//!
//! Topics are a copy for speed and spreading. The log stays the truth: what a topic has lost is read from there.

mod gap;
mod group;
mod leadership;
mod member;
mod positions;
mod record;
mod relay;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use event_schemas::AggregateType;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

pub(crate) use group::Group;
pub use group::StreamSource;
pub use positions::Positions;
pub use relay::{Relay, RelayOptions, RelayState, RelayStatus};

use crate::{BusError, PartitionKey, Partitioning};

/// Where Kafka is and how its topics are made.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Topics are called `<prefix>.<aggregate type>`, consumer groups `<prefix>.<subscriber>`. One installation, one prefix.
    pub topic_prefix: String,
    /// Of each topic; at least 1. Fixed once the topics are made.
    pub partitions: u16,
    /// Copies of each partition, for topics that are made; at most as many as there are brokers.
    pub replication: u16,
    /// How long records are kept. A subscriber that was away for longer reads the log.
    pub retention: Duration,
    /// The most that one record may have, in bytes; above the largest event of the log.
    pub max_message_bytes: usize,
    /// What a consumer fetches ahead, in KiB of payloads, all partitions together; an answer that is under way comes on top.
    pub fetch_ahead_kib: u32,
    /// How long nothing has to come before a subscriber compares its positions with the relay's.
    pub idle_check: Duration,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".to_owned(),
            topic_prefix: "omisys".to_owned(),
            partitions: 6,
            replication: 1,
            retention: Duration::from_secs(7 * 24 * 60 * 60),
            max_message_bytes: 1 << 20,
            fetch_ahead_kib: 4 << 10,
            idle_check: Duration::from_secs(3),
        }
    }
}

/// Kafka, as one installation uses it. Cheap to clone; connects when something is read or written.
#[derive(Debug, Clone)]
pub struct Kafka(Arc<KafkaOptions>);

impl Kafka {
    /// Nothing is asked of the brokers yet.
    pub fn new(options: KafkaOptions) -> Self {
        Self(Arc::new(KafkaOptions {
            partitions: options.partitions.max(1),
            ..options
        }))
    }

    /// How the stream is split.
    pub fn partitioning(&self) -> Partitioning {
        Partitioning::Kafka {
            partitions: self.0.partitions,
        }
    }

    pub(crate) fn options(&self) -> &KafkaOptions {
        &self.0
    }

    pub(crate) fn topic(&self, aggregate_type: AggregateType) -> String {
        format!("{}.{aggregate_type}", self.0.topic_prefix)
    }

    /// The partition of ours that Kafka names so.
    pub(crate) fn key(&self, topic: &str, index: i32) -> Option<PartitionKey> {
        let name = topic
            .strip_prefix(self.0.topic_prefix.as_str())?
            .strip_prefix('.')?;
        Some(PartitionKey::Topic {
            aggregate_type: name.parse().ok()?,
            index: u16::try_from(index).ok()?,
            of: self.0.partitions,
        })
    }

    /// Adds `offset` of a partition to `list`.
    fn list(&self, list: &mut TopicPartitionList, key: PartitionKey, offset: i64) -> Result<(), BusError> {
        if let PartitionKey::Topic {
            aggregate_type,
            index,
            ..
        } = key
        {
            let topic = self.topic(aggregate_type);
            list.add_partition_offset(&topic, i32::from(index), Offset::Offset(offset))?;
        }
        Ok(())
    }

    /// What every client of ours is configured with.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.0.brokers)
            .set("client.id", "omisys")
            .set("socket.timeout.ms", "10000")
            .set("reconnect.backoff.max.ms", "1000")
            // A topic that was deleted and made again is noticed soon.
            .set("topic.metadata.refresh.interval.ms", "10000");
        config
    }
}

/// Sends librdkafka's own log lines where ours go.
pub(crate) struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "kafka client");
    }
}

fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        // A broker that is away is told by every connection of every client; who suffers from it says so once.
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, message, "kafka client");
        }
        _ => tracing::debug!(facility, message, "kafka client"),
    }
}

impl From<KafkaError> for BusError {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error.to_string())
    }
}
