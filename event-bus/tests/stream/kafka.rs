//! The stream through Kafka: the relay and consumer groups.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::conformance::{DEADLINE, Stream as _, quantities, sequences, take};
use crate::support::kafka::{Cluster, Topics, caught_up, is_there};
use crate::support::{OLD_VERSION, old_reservation};
use event_bus::{
    Batch, BusError, Checkpoint, Kafka, KafkaOptions, PartitionKey, Positions, RelayState, Subscription,
};
use event_schemas::{AggregateType, Position, StreamId, Version};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

stream_conformance!(Cluster, is_there());

pub fn items(count: u64) -> Vec<String> {
    (0..count).map(|item| format!("SKU-{item}")).collect()
}

async fn append_each(stream: &Cluster, items: &[String], count: u64) {
    for item in items {
        stream.append(item, count).await;
    }
}

/// What a handler makes of the stream, if it guards by the sequence as all of ours do: a repeat changes nothing, and a
/// gap is a defect.
#[derive(Default)]
pub struct Guarded {
    pub last: HashMap<StreamId, Version>,
    pub repeats: usize,
}

impl Guarded {
    pub fn handle(&mut self, batch: &Batch) {
        for event in batch.events() {
            let last = self.last.entry(event.stream.clone()).or_default();
            if event.version <= *last {
                self.repeats += 1;
                continue;
            }
            assert_eq!(event.version, last.next(), "a gap in {}", event.stream);
            *last = event.version;
        }
    }

    fn complete(&self, items: usize, versions: u64) -> bool {
        self.last.len() == items && self.last.values().all(|last| *last == Version(versions))
    }
}

/// Handles what comes until every item has so many events.
async fn follow(subscription: &mut Subscription, guarded: &mut Guarded, items: usize, versions: u64) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !guarded.complete(items, versions) {
        assert!(
            tokio::time::Instant::now() < deadline,
            "in time: {:?}",
            guarded.last
        );
        let batch = subscription
            .next_batch(7, Duration::from_millis(100))
            .await
            .expect("a batch");
        guarded.handle(&batch);
        subscription.ack(&batch).await.expect("acknowledged");
    }
}

#[tokio::test]
async fn an_event_comes_as_the_log_has_it() {
    if !is_there() {
        return;
    }
    let stream = Cluster::empty().await;
    append_each(&stream, &items(5), 3).await;
    let mut subscription = stream.subscribe("s").await.expect("opened");
    let batches = take(&mut subscription, 15).await;
    let mut came: Vec<_> = batches.into_iter().flat_map(|batch| batch.entries).collect();
    came.sort_by_key(event_store::LogEntry::position);
    let log = stream.embedded.log.read(Position(0), 100).await.expect("read");
    assert_eq!(came, log);
}

#[tokio::test]
async fn an_older_version_is_copied_as_it_was_written_and_read_from_the_log_where_the_topic_lost_it() {
    if !is_there() {
        return;
    }
    let mut stream = Cluster::empty().await;
    stream.append("A", 3).await;
    stream.age(Position(2)).await;
    stream.relayed().await;
    let partitions = 0..i32::from(crate::support::kafka::PARTITIONS);
    let records: Vec<_> = partitions
        .flat_map(|partition| stream.topics.read(AggregateType::Inventory, partition))
        .collect();
    let header = |record: &OwnedMessage, name: &str| {
        let mut headers = record.headers().expect("headers").iter();
        let found = headers.find(|header| header.key == name).expect("a header");
        String::from_utf8(found.value.expect("a value").to_owned()).expect("text")
    };
    let versions: Vec<_> = records
        .iter()
        .map(|record| header(record, "omisys_event_version"))
        .collect();
    assert_eq!(versions, ["1.0", OLD_VERSION, "1.0"]);
    assert_eq!(records[1].payload(), Some(old_reservation().as_bytes()));

    stream.topics.cut().await;
    let mut subscription = stream.subscribe("s").await.expect("opened");
    let batches = take(&mut subscription, 3).await;
    assert_eq!(quantities(&batches), [1, 7, 1]);
}

#[tokio::test]
async fn two_relays_publish_the_same_page_and_subscribers_see_repeats_and_no_gap() {
    if !is_there() {
        return;
    }
    let (stream, items) = (Cluster::empty().await, items(10));
    append_each(&stream, &items, 5).await;
    let (one, two) = tokio::join!(stream.relay(), stream.relay());
    let mut subscription = stream.join("s").await.expect("opened");
    let mut guarded = Guarded::default();
    follow(&mut subscription, &mut guarded, 10, 5).await;
    append_each(&stream, &items, 5).await;
    follow(&mut subscription, &mut guarded, 10, 10).await;
    for relay in [&one, &two] {
        caught_up(relay, Position(100)).await;
        relay.stop().await;
    }
    assert_eq!(
        stream.topics.records(AggregateType::Inventory),
        200,
        "all of it twice"
    );
    assert_eq!(
        guarded.repeats, 0,
        "repeats are dropped before a handler sees them"
    );
}

#[tokio::test]
async fn a_relay_killed_between_producing_and_its_checkpoint_repeats() {
    if !is_there() {
        return;
    }
    let (stream, items) = (Cluster::empty().await, items(4));
    append_each(&stream, &items, 5).await;
    let mut subscription = stream.subscribe("s").await.expect("opened");
    let mut guarded = Guarded::default();
    follow(&mut subscription, &mut guarded, 4, 5).await;
    stream.stop_relay().await;
    // As it was before the page: produced, and never noted.
    let checkpoints = stream.checkpoints().await;
    let saved = checkpoints
        .load(&"relay".into())
        .await
        .expect("read")
        .expect("saved");
    let mut before = Checkpoint::at(saved.log, Position(8));
    for (key, position) in saved.positions() {
        if let PartitionKey::Topic { .. } = key {
            let log = stream.embedded.log.read(Position(0), 8).await.expect("read");
            let partitioning = stream.topics.kafka.partitioning();
            let mut last = log.iter().filter_map(event_store::LogEntry::event);
            let last = last.rfind(|event| partitioning.of(&event.stream) == *key);
            before.advance(
                *key,
                last.map_or(Position(0), |event| event.position).min(*position),
            );
        }
    }
    checkpoints.save(&"relay".into(), before).await.expect("saved");
    append_each(&stream, &items, 1).await;
    stream.relayed().await;
    follow(&mut subscription, &mut guarded, 4, 6).await;
    assert_eq!(guarded.repeats, 0);
    assert_eq!(stream.topics.records(AggregateType::Inventory), 20 + 12 + 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_in_the_middle_of_a_batch_gives_repeats_and_no_gap() {
    if !is_there() {
        return;
    }
    let (stream, items) = (Cluster::empty().await, items(20));
    append_each(&stream, &items, 10).await;
    let mut first = stream.subscribe("s").await.expect("opened");
    let mut guarded = Guarded::default();
    // Handled and not acknowledged, when a second member turns up and is given partitions.
    let batch = first.next_batch(50, DEADLINE).await.expect("a batch");
    assert!(batch.reassigned() && !batch.is_empty());
    guarded.handle(&batch);
    let mut second = stream.join("s").await.expect("opened");
    let guarded = Arc::new(Mutex::new(guarded));
    let shared = Arc::clone(&guarded);
    let stops = CancellationToken::new();
    let stopped = stops.clone();
    let slow = tokio::spawn(async move {
        // Handles all that it is given, acknowledges none of it, and dies in the end.
        while !stopped.is_cancelled() {
            let batch = first
                .next_batch(5, Duration::from_millis(50))
                .await
                .expect("a batch");
            shared.lock().await.handle(&batch);
        }
        first.acknowledged().positions().len()
    });
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let mut given = false;
    while !given || !guarded.lock().await.complete(20, 10) {
        assert!(tokio::time::Instant::now() < deadline, "in time");
        let batch = second
            .next_batch(5, Duration::from_millis(50))
            .await
            .expect("a batch");
        given |= !second.acknowledged().positions().is_empty();
        guarded.lock().await.handle(&batch);
        second.ack(&batch).await.expect("acknowledged");
    }
    stops.cancel();
    let left = slow.await.expect("ran");
    let had = second.acknowledged().positions().len();
    assert!(left > 0 && had > 0, "both had partitions: {left} and {had}");
    append_each(&stream, &items, 10).await;
    let mut guarded = guarded.lock().await;
    follow(&mut second, &mut guarded, 20, 20).await;
    assert!(guarded.repeats > 0, "what was not acknowledged came again");
    // What the first left behind is given to the second.
    let all = stream.topics.kafka.partitioning().all().len();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while second.acknowledged().positions().len() < all {
        assert!(tokio::time::Instant::now() < deadline, "in time");
        let batch = second
            .next_batch(5, Duration::from_millis(50))
            .await
            .expect("a batch");
        guarded.handle(&batch);
        second.ack(&batch).await.expect("acknowledged");
    }
    assert!(guarded.complete(20, 20));
}

#[tokio::test]
async fn what_retention_has_cut_comes_from_the_log() {
    if !is_there() {
        return;
    }
    let (stream, items) = (Cluster::empty().await, items(10));
    append_each(&stream, &items, 4).await;
    let mut guarded = Guarded::default();
    let mut paused = stream.subscribe("s").await.expect("opened");
    let batch = paused.next_batch(9, DEADLINE).await.expect("a batch");
    guarded.handle(&batch);
    paused.ack(&batch).await.expect("acknowledged");
    drop(paused);
    append_each(&stream, &items, 4).await;
    stream.relayed().await;
    stream.topics.cut().await;
    // Nothing is left in the topics, and nothing new comes.
    let mut resumed = stream.join("s").await.expect("opened");
    follow(&mut resumed, &mut guarded, 10, 8).await;
    drop(resumed);
    // This time something comes behind what is cut.
    append_each(&stream, &items, 2).await;
    stream.relayed().await;
    stream.topics.cut().await;
    append_each(&stream, &items, 2).await;
    stream.relayed().await;
    let mut resumed = stream.join("s").await.expect("opened");
    follow(&mut resumed, &mut guarded, 10, 12).await;
    let mut new = stream.join("new").await.expect("opened");
    follow(&mut new, &mut Guarded::default(), 10, 12).await;
}

#[tokio::test]
async fn a_deleted_topic_is_made_again_and_loses_nobody_anything() {
    if !is_there() {
        return;
    }
    let (stream, items) = (Cluster::empty().await, items(10));
    append_each(&stream, &items, 4).await;
    let mut guarded = Guarded::default();
    let mut running = stream.subscribe("s").await.expect("opened");
    follow(&mut running, &mut guarded, 10, 4).await;
    stream.topics.delete().await;
    append_each(&stream, &items, 4).await;
    stream.relayed().await;
    follow(&mut running, &mut guarded, 10, 8).await;
    let mut new = stream.join("new").await.expect("opened");
    follow(&mut new, &mut Guarded::default(), 10, 8).await;
    append_each(&stream, &items, 1).await;
    follow(&mut running, &mut guarded, 10, 9).await;
}

#[tokio::test]
async fn a_caller_may_keep_its_own_positions_and_lose_its_offsets() {
    if !is_there() {
        return;
    }
    let (stream, items) = (Cluster::empty().await, items(6));
    append_each(&stream, &items, 5).await;
    stream.relayed().await;
    let kept: Arc<std::sync::Mutex<Option<Checkpoint>>> = Arc::default();
    let load = Arc::clone(&kept);
    let positions = Positions::callers(move || {
        let kept = load.lock().unwrap().clone();
        async move { Ok::<_, std::convert::Infallible>(kept) }
    });
    let source = stream.source().await;
    let mut guarded = Guarded::default();
    let mut subscription = Subscription::kafka(&source, "view", positions.clone())
        .await
        .expect("opened");
    for _ in 0..2 {
        let batch = subscription.next_batch(6, DEADLINE).await.expect("a batch");
        guarded.handle(&batch);
        let mut kept = kept.lock().unwrap();
        match &mut *kept {
            Some(kept) => kept.merge(batch.checkpoint()),
            None => *kept = Some(batch.checkpoint().clone()),
        }
    }
    // Stored, and never acknowledged: the group's offsets know nothing of it.
    drop(subscription);
    let mut again = Subscription::kafka(&source, "view", positions)
        .await
        .expect("opened");
    follow(&mut again, &mut guarded, 6, 5).await;
    assert_eq!(guarded.repeats, 0, "the caller's positions count");
    let checkpoints = stream.checkpoints().await;
    assert_eq!(checkpoints.load(&"view".into()).await.expect("read"), None);
    // And the other way: offsets that are ahead of a caller who has lost what it stored.
    drop(again);
    *kept.lock().unwrap() = None;
    let load = Arc::clone(&kept);
    let positions = Positions::callers(move || {
        let kept = load.lock().unwrap().clone();
        async move { Ok::<_, std::convert::Infallible>(kept) }
    });
    let mut rebuilt = Subscription::kafka(&source, "view", positions)
        .await
        .expect("opened");
    follow(&mut rebuilt, &mut Guarded::default(), 6, 5).await;
}

#[tokio::test]
async fn a_record_of_another_log_is_refused() {
    if !is_there() {
        return;
    }
    let stream = Cluster::empty().await;
    stream.append("A", 3).await;
    stream.relayed().await;
    let other = crate::support::Embedded::empty().await;
    let mut source = stream.source().await;
    source.log = other.log.clone();
    source.checkpoints = event_bus::Checkpoints::open(&other.file).await.expect("opened");
    let kept = Positions::Kept(source.checkpoints.clone());
    let mut subscription = Subscription::kafka(&source, "s", kept).await.expect("opened");
    for _ in 0..2 {
        match subscription.next_batch(7, DEADLINE).await {
            Err(BusError::ForeignRecord { found, .. }) => assert_eq!(found, stream.embedded.log.identity()),
            other => panic!("refused as foreign: {other:?}"),
        }
    }
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    if !is_there() {
        return;
    }
    let topics = Topics::new();
    topics.kafka.ensure_topics().await.expect("made");
    topics.kafka.ensure_topics().await.expect("there");
    let more = Kafka::new(KafkaOptions {
        brokers: topics.brokers.clone(),
        topic_prefix: topics.prefix.clone(),
        partitions: 4,
        ..KafkaOptions::default()
    });
    match more.ensure_topics().await {
        Err(BusError::Partitions {
            found, configured, ..
        }) => assert_eq!((found, configured), (3, 4)),
        other => panic!("refused: {other:?}"),
    }
}

#[tokio::test]
async fn topics_made_again_with_more_partitions_lose_nobody_anything() {
    if !is_there() {
        return;
    }
    let (mut stream, items) = (Cluster::empty().await, items(10));
    append_each(&stream, &items, 4).await;
    let mut guarded = Guarded::default();
    let mut before = stream.subscribe("s").await.expect("opened");
    follow(&mut before, &mut guarded, 10, 4).await;
    before.close().await;
    stream.stop_relay().await;
    stream.topics.kafka.delete_topics().await.expect("deleted");
    stream.topics.kafka = Kafka::new(KafkaOptions {
        brokers: stream.topics.brokers.clone(),
        topic_prefix: stream.topics.prefix.clone(),
        partitions: 5,
        idle_check: Duration::from_millis(300),
        ..KafkaOptions::default()
    });
    stream.append("SKU-0", 1).await;
    // What was handled of three partitions says nothing about five: all of it comes again, and then once only.
    let mut after = stream.subscribe("s").await.expect("opened");
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while guarded.repeats < 40 || !guarded.last.values().any(|last| *last == Version(5)) {
        assert!(
            tokio::time::Instant::now() < deadline,
            "in time: {}",
            guarded.repeats
        );
        let batch = after
            .next_batch(7, Duration::from_millis(100))
            .await
            .expect("a batch");
        guarded.handle(&batch);
        after.ack(&batch).await.expect("acknowledged");
    }
    after.close().await;
    let mut again = stream.join("s").await.expect("opened");
    stream.append("SKU-1", 1).await;
    let batches = take(&mut again, 1).await;
    assert_eq!(
        sequences(&batches),
        BTreeMap::from([("SKU-1".to_owned(), vec![Version(5)])])
    );
    assert_eq!(guarded.repeats, 40);
}

#[tokio::test]
async fn a_restored_log_is_relayed_again_and_what_it_lost_is_not_delivered() {
    if !is_there() {
        return;
    }
    let mut stream = Cluster::empty().await;
    stream.append("A", 3).await;
    stream.relayed().await;
    stream.begin_epoch().await;
    stream.append("A", 2).await;
    let mut subscription = stream.subscribe("s").await.expect("opened");
    let batches = take(&mut subscription, 5).await;
    assert_eq!(
        sequences(&batches),
        BTreeMap::from([("A".to_owned(), (1..=5).map(Version).collect())])
    );
    assert!(
        batches
            .iter()
            .all(|batch| batch.checkpoint().log == stream.embedded.log.identity())
    );
}

#[tokio::test]
async fn a_relay_without_kafka_says_so() {
    let topics = Topics::on("127.0.0.1:9".to_owned());
    let stream = Cluster::on(topics).await;
    stream.append("A", 3).await;
    let relay = stream.relay().await;
    let retrying = async {
        while !matches!(relay.state(), RelayState::Retrying(_)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, retrying).await.expect("in time");
    assert!(!relay.state().is_ready());
    relay.stop().await;
    assert_eq!(relay.state(), RelayState::Stopped);
}
