//! A log in a temporary directory with Kafka before it: topics of its own on the shared broker, gone at the end.

use std::time::Duration;

use event_bus::{
    BusError, Checkpoints, Kafka, KafkaOptions, Positions, Relay, RelayOptions, StreamSource, Subscription,
};
use event_schemas::{AggregateType, Position};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::message::OwnedMessage;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::Embedded;
use crate::conformance::{DEADLINE, Stream};

pub const PARTITIONS: u16 = 3;

/// Whether the cluster is to be tested; says so if it is not.
pub fn is_there() -> bool {
    let there = std::env::var_os("OMISYS_TEST_CLUSTER").is_some() || std::env::var_os("CI").is_some();
    if !there {
        eprintln!("not tested: OMISYS_TEST_CLUSTER is not set, so there is no Kafka");
    }
    there
}

/// Topics of a test's own.
pub struct Topics {
    pub kafka: Kafka,
    pub brokers: String,
    pub prefix: String,
}

impl Topics {
    pub fn new() -> Self {
        let brokers =
            std::env::var("OMISYS_TEST_KAFKA_BROKERS").expect("OMISYS_TEST_KAFKA_BROKERS names the broker");
        Self::on(brokers)
    }

    pub fn on(brokers: String) -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        let prefix = format!("omisys-test-{:016x}", RandomState::new().hash_one(0));
        Self {
            kafka: Kafka::new(KafkaOptions {
                brokers: brokers.clone(),
                topic_prefix: prefix.clone(),
                partitions: PARTITIONS,
                idle_check: Duration::from_millis(300),
                ..KafkaOptions::default()
            }),
            brokers,
            prefix,
        }
    }

    pub fn names(&self) -> Vec<String> {
        AggregateType::ALL
            .map(|kind| format!("{}.{kind}", self.prefix))
            .into()
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("a client")
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    pub async fn delete(&self) {
        let names = self.names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let deleted = self.admin().delete_topics(&names, &AdminOptions::new()).await;
        deleted.expect("deleted");
    }

    /// Cuts all records that there are, as retention does.
    pub async fn cut(&self) {
        self.try_cut().await.expect("cut");
    }

    pub async fn try_cut(&self) -> KafkaResult<TopicPartitionList> {
        let mut all = TopicPartitionList::new();
        for name in self.names() {
            for partition in 0..i32::from(PARTITIONS) {
                all.add_partition_offset(&name, partition, Offset::End)?;
            }
        }
        self.admin().delete_records(&all, &AdminOptions::new()).await
    }

    /// The records of one partition of the topic of `kind`, as any consumer sees them.
    pub fn read(&self, kind: AggregateType, partition: i32) -> Vec<OwnedMessage> {
        let mut config = self.client();
        config.set("group.id", format!("{}.reader", self.prefix));
        let reader: BaseConsumer = config.create().expect("a client");
        let topic = format!("{}.{kind}", self.prefix);
        let (low, high) = reader
            .fetch_watermarks(&topic, partition, DEADLINE)
            .expect("ends");
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&topic, partition, Offset::Offset(low))
            .expect("added");
        reader.assign(&from).expect("assigned");
        (low..high)
            .map(|_| {
                let message = reader.poll(DEADLINE).expect("in time").expect("a record");
                message.detach()
            })
            .collect()
    }

    /// How many records the topic of `kind` holds, repeats included.
    pub fn records(&self, kind: AggregateType) -> i64 {
        let reader: BaseConsumer = self.client().create().expect("a client");
        let topic = format!("{}.{kind}", self.prefix);
        let ends = (0..i32::from(PARTITIONS)).map(|partition| {
            let (low, high) = reader
                .fetch_watermarks(&topic, partition, DEADLINE)
                .expect("ends");
            high - low
        });
        ends.sum()
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        let (admin, names, prefix, client) = (self.admin(), self.names(), self.prefix.clone(), self.client());
        let cleaned = std::thread::spawn(move || {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()?;
            let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
            runtime.block_on(admin.delete_topics(&names, &options)).ok()?;
            // Best effort: a member that has not left yet keeps its group, which then expires.
            let reader: BaseConsumer = client.create().ok()?;
            let groups = reader.fetch_group_list(None, Duration::from_secs(5)).ok()?;
            let ours: Vec<&str> = groups
                .groups()
                .iter()
                .map(rdkafka::groups::GroupInfo::name)
                .filter(|name| name.starts_with(&prefix))
                .collect();
            if !ours.is_empty() {
                let _ = runtime.block_on(admin.delete_groups(&ours, &options));
            }
            Some(())
        });
        if !matches!(cleaned.join(), Ok(Some(()))) {
            eprintln!("the topics {}.* were left behind", self.prefix);
        }
    }
}

/// A log with Kafka before it.
pub struct Cluster {
    pub embedded: Embedded,
    pub topics: Topics,
    relay: Mutex<Option<Relay>>,
}

impl Cluster {
    pub async fn on(topics: Topics) -> Self {
        Self {
            embedded: Embedded::empty().await,
            topics,
            relay: Mutex::default(),
        }
    }

    pub async fn relay(&self) -> Relay {
        let options = RelayOptions {
            page_events: 20,
            delivery_timeout: Duration::from_secs(2),
            ..RelayOptions::default()
        };
        let (log, file, cancel) = (&self.embedded.log, &self.embedded.file, CancellationToken::new());
        Relay::start(log, file, &self.topics.kafka, options, cancel)
            .await
            .expect("started")
    }

    /// Starts the relay if it does not run, and waits until everything is in Kafka.
    pub async fn relayed(&self) {
        let mut relay = self.relay.lock().await;
        if relay.is_none() {
            *relay = Some(self.relay().await);
        }
        caught_up(relay.as_ref().expect("started"), self.head().await).await;
    }

    pub async fn stop_relay(&self) {
        if let Some(relay) = self.relay.lock().await.take() {
            relay.stop().await;
        }
    }

    pub async fn head(&self) -> Position {
        self.embedded.log.head().await.expect("read")
    }

    pub async fn checkpoints(&self) -> Checkpoints {
        Checkpoints::open(&self.embedded.file).await.expect("opened")
    }

    pub async fn source(&self) -> StreamSource {
        StreamSource {
            kafka: self.topics.kafka.clone(),
            log: self.embedded.log.clone(),
            checkpoints: self.checkpoints().await,
            gather: Duration::ZERO,
        }
    }

    pub async fn join(&self, name: &str) -> Result<Subscription, BusError> {
        let kept = Positions::Kept(self.checkpoints().await);
        Subscription::kafka(&self.source().await, name, kept).await
    }
}

pub async fn caught_up(relay: &Relay, head: Position) {
    let mut position = relay.watch();
    let reached = position.wait_for(|position| *position >= head);
    match tokio::time::timeout(DEADLINE, reached).await {
        Ok(Ok(_)) => {}
        _ => panic!("relayed up to {head} in time: {:?}", relay.status()),
    }
}

impl Stream for Cluster {
    async fn empty() -> Self {
        Self::on(Topics::new()).await
    }

    async fn append(&self, item: &str, count: u64) {
        self.embedded.append(item, count).await;
    }

    async fn subscribe(&self, name: &str) -> Result<Subscription, BusError> {
        self.relayed().await;
        self.join(name).await
    }

    async fn begin_epoch(&mut self) {
        self.stop_relay().await;
        self.embedded.begin_epoch().await;
    }

    async fn spoil(&mut self, position: Position, newer: bool) {
        self.stop_relay().await;
        self.embedded.spoil(position, newer).await;
    }

    async fn age(&mut self, position: Position) {
        self.stop_relay().await;
        self.embedded.age(position).await;
    }
}
