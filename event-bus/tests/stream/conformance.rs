//! What every stream has to hold, whatever carries it. An adapter's test file provides a [`Stream`] and calls
//! `stream_conformance!`.

use std::collections::BTreeMap;
use std::time::Duration;

use event_bus::{Batch, BusError, Subscription};
use event_schemas::{AggregateType, Event, InventoryEvent, Position, StreamId, Version};

/// Far beyond what any wait here needs.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// One stream under test, with the log behind it.
pub trait Stream: Send + Sync + 'static {
    /// A stream without events.
    fn empty() -> impl Future<Output = Self> + Send;
    /// Appends `count` events to the stock item `item`.
    fn append(&self, item: &str, count: u64) -> impl Future<Output = ()> + Send;
    /// Goes on as `name` from its durable checkpoint, as after a restart.
    fn subscribe(&self, name: &str) -> impl Future<Output = Result<Subscription, BusError>> + Send;
    /// Gives the log a new epoch, as restoring it does, and opens it again.
    fn begin_epoch(&mut self) -> impl Future<Output = ()> + Send;
    /// Makes the event at `position` one that fits no schema, or one of a newer binary, and opens the log again.
    fn spoil(&mut self, position: Position, newer: bool) -> impl Future<Output = ()> + Send;
    /// Makes the event at `position` one of an older version, of seven units, and opens the log again.
    fn age(&mut self, position: Position) -> impl Future<Output = ()> + Send;
}

/// Takes what comes until `count` events have been seen, acknowledging each batch.
pub async fn take(subscription: &mut Subscription, count: usize) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut seen = 0;
    while seen < count {
        let batch = subscription.next_batch(7, DEADLINE).await.expect("a batch");
        assert!(!batch.is_empty(), "{seen} of {count} events came in time");
        seen += batch.entries.len();
        subscription.ack(&batch).await.expect("acknowledged");
        batches.push(batch);
    }
    batches
}

/// Every stream's sequences, in the order of delivery.
pub fn sequences<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> BTreeMap<String, Vec<Version>> {
    let mut seen: BTreeMap<String, Vec<Version>> = BTreeMap::new();
    for recorded in batches.into_iter().flat_map(Batch::events) {
        seen.entry(recorded.stream.aggregate_id.to_string())
            .or_default()
            .push(recorded.version);
    }
    seen
}

fn all(count: u64) -> Vec<Version> {
    (1..=count).map(Version).collect()
}

pub async fn every_event_comes_in_order_per_aggregate<S: Stream>() {
    let stream = S::empty().await;
    for _ in 0..5 {
        stream.append("A", 3).await;
        stream.append("B", 2).await;
    }
    let mut subscription = stream.subscribe("s").await.expect("opened");
    let batches = take(&mut subscription, 25).await;
    assert!(
        batches.iter().all(|batch| batch.entries.len() <= 7),
        "no batch is larger than asked for"
    );
    assert_eq!(
        sequences(&batches),
        BTreeMap::from([("A".to_owned(), all(15)), ("B".to_owned(), all(10))])
    );
    let nothing = subscription.next_batch(7, Duration::ZERO).await.expect("a batch");
    assert!(nothing.is_empty());
}

pub async fn what_was_acknowledged_does_not_come_again_and_the_rest_does<S: Stream>() {
    let stream = S::empty().await;
    stream.append("A", 10).await;
    let mut first = stream.subscribe("s").await.expect("opened");
    let batch = first.next_batch(4, DEADLINE).await.expect("a batch");
    first.ack(&batch).await.expect("acknowledged");
    // Delivered, and never acknowledged: the subscriber dies.
    first.next_batch(4, DEADLINE).await.expect("a batch");
    drop(first);

    let mut second = stream.subscribe("s").await.expect("opened");
    let batches = take(&mut second, 6).await;
    assert_eq!(sequences(&batches)["A"], all(10)[4..]);
    let mut other = stream.subscribe("other").await.expect("opened");
    assert_eq!(
        sequences(&take(&mut other, 10).await)["A"],
        all(10),
        "each subscriber has its own place"
    );
}

pub async fn a_subscriber_may_go_back_to_what_it_has_not_acknowledged<S: Stream>() {
    let stream = S::empty().await;
    stream.append("A", 6).await;
    let mut subscription = stream.subscribe("s").await.expect("opened");
    let first = subscription.next_batch(2, DEADLINE).await.expect("a batch");
    let second = subscription.next_batch(2, DEADLINE).await.expect("a batch");
    subscription.ack(&first).await.expect("acknowledged");
    subscription.rewind();
    assert_eq!(
        subscription.next_batch(2, DEADLINE).await.expect("a batch"),
        second
    );
    subscription.ack(&second).await.expect("acknowledged");
    subscription
        .ack(&first)
        .await
        .expect("an older batch changes nothing");
    let partition = subscription
        .partitioning()
        .of(&StreamId::new(AggregateType::Inventory, "A"));
    assert_eq!(subscription.acknowledged().position_of(partition), Position(4));
}

pub async fn a_waiting_subscriber_is_woken_by_a_commit<S: Stream>() {
    let stream = std::sync::Arc::new(S::empty().await);
    let mut subscription = stream.subscribe("s").await.expect("opened");
    let writer = std::sync::Arc::clone(&stream);
    let appended = tokio::spawn(async move { writer.append("A", 1).await });
    // Waits for an hour unless it is woken.
    let waiting = subscription.next_batch(1, Duration::from_secs(3_600));
    let batch = tokio::time::timeout(DEADLINE, waiting)
        .await
        .expect("woken")
        .expect("a batch");
    assert_eq!(batch.entries.len(), 1);
    appended.await.expect("appended");
}

pub async fn waiting_can_be_given_up_without_losing_anything<S: Stream>() {
    let stream = S::empty().await;
    let mut subscription = stream.subscribe("s").await.expect("opened");
    for _ in 0..20 {
        let waiting = subscription.next_batch(10, Duration::from_secs(3_600));
        tokio::select! {
            biased;
            _ = waiting => panic!("there is nothing"),
            () = tokio::task::yield_now() => {}
        }
    }
    stream.append("A", 3).await;
    assert_eq!(sequences(&take(&mut subscription, 3).await)["A"], all(3));
}

pub async fn the_checkpoint_of_another_epoch_is_refused<S: Stream>() {
    let mut stream = S::empty().await;
    stream.append("A", 3).await;
    let mut subscription = stream.subscribe("s").await.expect("opened");
    let before = subscription.log();
    take(&mut subscription, 3).await;
    drop(subscription);
    stream.begin_epoch().await;
    match stream.subscribe("s").await {
        Err(BusError::ForeignCheckpoint {
            subscriber,
            found,
            log,
        }) => {
            assert_eq!((&*subscriber, found), ("s", before));
            assert_eq!((log.log_id, log.epoch), (before.log_id, before.epoch + 1));
        }
        other => panic!("refused as foreign: {other:?}"),
    }
    stream
        .subscribe("new")
        .await
        .expect("one without a checkpoint begins at the beginning");
}

pub async fn poison_is_delivered_in_its_place<S: Stream>() {
    let mut stream = S::empty().await;
    stream.append("A", 5).await;
    stream.spoil(Position(3), false).await;
    let mut subscription = stream.subscribe("s").await.expect("opened");
    let batches = take(&mut subscription, 5).await;
    assert_eq!(
        sequences(&batches)["A"],
        [1, 2, 4, 5].map(Version),
        "what can be read is"
    );
    let poison: Vec<_> = batches
        .iter()
        .flat_map(|batch| &batch.entries)
        .filter(|entry| entry.event().is_none())
        .map(event_store::LogEntry::position)
        .collect();
    assert_eq!(poison, [Position(3)]);
}

pub async fn what_is_newer_than_the_binary_stops_the_subscriber<S: Stream>() {
    let mut stream = S::empty().await;
    stream.append("A", 5).await;
    stream.spoil(Position(3), true).await;
    let mut subscription = stream.subscribe("s").await.expect("opened");
    assert_eq!(
        sequences(&take(&mut subscription, 2).await)["A"],
        all(2),
        "what comes before it is handled"
    );
    for _ in 0..2 {
        match subscription.next_batch(7, DEADLINE).await {
            Err(BusError::Upgrade { position, .. }) => assert_eq!(position, Position(3)),
            other => panic!("stopped for an upgrade: {other:?}"),
        }
    }
}

pub async fn an_older_version_comes_as_what_it_is_now<S: Stream>() {
    let mut stream = S::empty().await;
    stream.append("A", 5).await;
    stream.age(Position(3)).await;
    let mut subscription = stream.subscribe("s").await.expect("opened");
    let batches = take(&mut subscription, 5).await;
    assert_eq!(quantities(&batches), [1, 1, 7, 1, 1]);
}

/// How many units each event reserves.
pub fn quantities<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> Vec<u32> {
    let quantity = |event: &Event| match event {
        Event::Inventory(InventoryEvent::StockReserved { quantity, .. }) => *quantity,
        other => panic!("{other:?}"),
    };
    let events = batches.into_iter().flat_map(Batch::events);
    events.map(|recorded| quantity(&recorded.event)).collect()
}

/// One test per function above, run on `$stream` if it is there to be tested.
macro_rules! stream_conformance {
    ($stream:ty, $there:expr) => {
        stream_conformance!($stream, $there;
            every_event_comes_in_order_per_aggregate,
            what_was_acknowledged_does_not_come_again_and_the_rest_does,
            a_subscriber_may_go_back_to_what_it_has_not_acknowledged,
            a_waiting_subscriber_is_woken_by_a_commit,
            waiting_can_be_given_up_without_losing_anything,
            the_checkpoint_of_another_epoch_is_refused,
            poison_is_delivered_in_its_place,
            what_is_newer_than_the_binary_stops_the_subscriber,
            an_older_version_comes_as_what_it_is_now,
        );
    };
    ($stream:ty, $there:expr; $($name:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $name() {
            if $there {
                crate::conformance::$name::<$stream>().await;
            }
        }
    )+};
}
