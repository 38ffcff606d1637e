//! The read models of a cluster: log, relay, Kafka, two projectors, MongoDB, Redis, and a reader elsewhere.
#![cfg(feature = "cluster")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/shop.rs"]
mod shop;
mod support;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use database::Database;
use event_bus::{
    Checkpoints, Healing, HealingOutcome, Kafka, KafkaOptions, Relay, RelayOptions, Remedy, Retried,
    StreamSource,
};
use event_schemas::{Clock, ManualClock, Version};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use projections::{
    CacheState, ConsistencyPoint, Mongo, MongoOptions, Projector, ProjectorState, RebuildOptions, Redis,
    RedisOptions, VIEW_NAMES, Views, ViewsCluster,
};
use shop::{
    PATIENCE, Shop, clock, log_of_the_next_version, order_paid, order_placed, order_stream, rewrite, soon,
};
use sqlite_file::SqliteError;
use support::{Dice, Story, money, order_id};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// The variable, which has to be set where a cluster is tested.
fn server(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

struct Cluster {
    shop: Shop,
    kafka: Kafka,
    relay: Relay,
    mongo: Mongo,
    redis: RedisOptions,
}

impl Cluster {
    async fn start() -> Option<Self> {
        if std::env::var_os("OMISYS_TEST_CLUSTER").is_none() && std::env::var_os("CI").is_none() {
            eprintln!("nothing is tested: OMISYS_TEST_CLUSTER is not set");
            return None;
        }
        let name = format!("test-{:016x}", RandomState::new().hash_one(0));
        let kafka = Kafka::new(KafkaOptions {
            brokers: server("OMISYS_TEST_KAFKA_BROKERS"),
            topic_prefix: name.clone(),
            partitions: 2,
            idle_check: Duration::from_millis(500),
            ..KafkaOptions::default()
        });
        let mongo = MongoOptions {
            url: server("OMISYS_TEST_MONGODB_URL"),
            database: name.clone(),
        };
        let redis = RedisOptions {
            timeout: Duration::from_secs(5),
            ..RedisOptions::new(server("OMISYS_TEST_REDIS_URL"), name)
        };
        let shop = Shop::open().await;
        let (options, cancel) = (RelayOptions::default(), CancellationToken::new());
        let relay = Relay::start(&shop.log, &shop.log_file, &kafka, options, cancel)
            .await
            .unwrap();
        Some(Self {
            shop,
            kafka,
            relay,
            mongo: Mongo::connect(&mongo).await.unwrap(),
            redis,
        })
    }

    /// Nothing reaches Kafka before [`Cluster::begin`]: what is appended meanwhile may be changed by SQL that names one row.
    async fn tell(&mut self, story: u64, sql: &'static str) {
        self.relay.stop().await;
        let events = Story::tell(story, 4).log(&mut Dice(story));
        self.shop.append_all(&events).await;
        rewrite(&mut self.shop, sql).await;
    }

    async fn begin(&mut self) {
        let (options, cancel) = (RelayOptions::default(), CancellationToken::new());
        let relay = Relay::start(&self.shop.log, &self.shop.log_file, &self.kafka, options, cancel);
        self.relay = relay.await.unwrap();
    }

    /// As another process opens them.
    async fn views(&self) -> Views {
        let cluster = ViewsCluster {
            mongo: self.mongo.clone(),
            redis: Redis::open(self.redis.clone()).unwrap(),
            database: (&self.shop.log_file).into(),
            partitioning: self.kafka.partitioning(),
        };
        Views::open_cluster(cluster, self.shop.log.identity())
            .await
            .unwrap()
    }

    async fn projector(&self) -> Projector {
        let source = StreamSource {
            kafka: self.kafka.clone(),
            log: self.shop.log.clone(),
            checkpoints: Checkpoints::open(&self.shop.log_file).await.unwrap(),
            gather: Duration::ZERO,
        };
        let views = self.views().await;
        Projector::start(source, &views, clock(), CancellationToken::new())
            .await
            .unwrap()
    }

    /// Waits until the views have the whole log, and compares them with it.
    async fn assert_verified(&self, views: &Views) {
        self.assert_verified_of(views, &VIEW_NAMES).await;
    }

    async fn assert_verified_of(&self, views: &Views, names: &[&str]) {
        let deadline = Instant::now() + 2 * PATIENCE;
        for view in names {
            loop {
                let verified = views.verify(&self.shop.log, view).await.unwrap();
                assert!(verified.equal(), "{verified:?}");
                if verified.waiting == 0 {
                    assert!(verified.documents > 0, "{verified:?}");
                    break;
                }
                assert!(Instant::now() < deadline, "{verified:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Who was in them takes a moment to leave.
    async fn delete_groups(&self, groups: &[String]) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = self.kafka.delete_groups(groups).await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn end(self) {
        self.relay.stop().await;
        self.kafka.delete_topics().await.unwrap();
        let groups = VIEW_NAMES.map(|view| format!("{view}.g1"));
        self.delete_groups(&groups).await;
        self.mongo.drop_database().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn projectors_share_the_work_and_take_over_from_each_other() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let views = cluster.views().await;
    assert_eq!(views.check().await, Ok(CacheState::Up));
    let events = Story::tell(51, 16).log(&mut Dice(51));
    let third = events.len() / 3;

    let first = cluster.projector().await;
    cluster.shop.append_all(&events[..third]).await;
    cluster.assert_verified(&views).await;
    // The second takes over some partitions while events come, then all.
    let second = cluster.projector().await;
    cluster.shop.append_all(&events[third..2 * third]).await;
    cluster.assert_verified(&views).await;
    let (_, rest) = events.split_at(2 * third);
    let (now, later) = rest.split_at(rest.len() / 2);
    cluster.shop.append_all(now).await;
    first.stop().await;
    cluster.shop.append_all(later).await;
    cluster.assert_verified(&views).await;
    assert_eq!(second.state(), ProjectorState::Running);
    assert!(second.status().iter().all(|view| !view.parked));
    second.stop().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_elsewhere_sees_what_was_written_as_fresh_as_it_asks() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let projector = cluster.projector().await;
    let views = cluster.views().await;
    let id = order_id(1).into();
    let mut watch = views.orders().watch(&id);
    for round in 0..10_u64 {
        let event = if round == 0 {
            order_placed(1)
        } else {
            order_paid(1, money(1))
        };
        let receipt = cluster.shop.append(order_stream(1), Version(round), event).await;
        let point = ConsistencyPoint {
            stream: receipt.stream.clone(),
            version: receipt.version,
            position: receipt.position,
        };
        let order = views
            .orders()
            .get_at_least(&id, &point, soon())
            .await
            .unwrap()
            .unwrap();
        assert!(order.doc.version >= receipt.version);
        views.orders().reach(&point, soon()).await.unwrap();
        views.order_timeline().reach(&point, soon()).await.unwrap();
        timeout(PATIENCE, watch.changed()).await.unwrap();
        // Whoever was told reads no less.
        assert!(views.orders().get(&id).await.unwrap().unwrap().rev >= order.rev);
    }
    let progress = views.progress().await.unwrap();
    assert_eq!(progress.len(), VIEW_NAMES.len());
    let of_orders = progress
        .iter()
        .find(|progress| progress.view == "orders")
        .unwrap();
    assert_eq!(of_orders.position, cluster.shop.log.head().await.unwrap());
    projector.stop().await;
    cluster.end().await;
}

/// The documents' volume is replaced under projectors that go on.
#[tokio::test(flavor = "multi_thread")]
async fn documents_that_were_lost_are_folded_again() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let views = cluster.views().await;
    let events = Story::tell(71, 8).log(&mut Dice(71));
    let (before, after) = events.split_at(events.len() / 2);
    let (written, idle) = (cluster.projector().await, cluster.views().await);
    cluster.shop.append_all(before).await;
    cluster.assert_verified(&views).await;

    cluster.mongo.drop_database().await.unwrap();
    cluster.shop.append_all(after).await;
    // The process ends, its supervisor starts it again; so does one that only reads.
    let deadline = Instant::now() + PATIENCE;
    while !matches!(written.state(), ProjectorState::Failed(_)) {
        assert!(Instant::now() < deadline, "{:?}", written.state());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(idle.check().await.is_err());
    let reason = timeout(PATIENCE, idle.gone()).await.unwrap();
    assert!(reason.contains("gone"), "{reason}");
    written.stop().await;

    let (views, again) = (cluster.views().await, cluster.projector().await);
    cluster.assert_verified(&views).await;
    assert!(
        again.status().iter().all(|view| !view.parked),
        "{:?}",
        again.status()
    );
    again.stop().await;
    cluster.end().await;
}

/// What a person asks for is done by the one of two projectors that the aggregate's events come to.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_payload_parks_its_aggregate_and_is_healed_where_that_is_followed() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let healing = Healing::open([Database::from(&cluster.shop.log_file)])
        .await
        .unwrap();
    cluster
        .tell(
            91,
            "UPDATE events SET payload = '{}' || payload WHERE position =
                 (SELECT min(position) FROM events WHERE event_type = 'OrderPlaced')",
        )
        .await;
    cluster.begin().await;
    let (views, one, two) = (
        cluster.views().await,
        cluster.projector().await,
        cluster.projector().await,
    );
    let parked = until(|| async {
        let parked = healing.list(None, None, 100).await.unwrap();
        (parked.len() == 3).then_some(parked)
    })
    .await;
    assert!(
        parked.iter().all(|other| other.scope == parked[0].scope),
        "{parked:?}"
    );
    // The rest goes on.
    let products = until(|| async {
        let verified = views.verify(&cluster.shop.log, "products").await.unwrap();
        (verified.waiting == 0).then_some(verified)
    });
    assert!(products.await.equal());
    let mended = cluster.shop.log_file.write(|conn| {
        let sql = "UPDATE events SET payload = substr(payload, 3) WHERE payload LIKE '{}%'";
        Ok::<_, SqliteError>(conn.execute(sql, [])?)
    });
    assert_eq!(mended.await.unwrap(), 1);
    for parked in parked {
        let asked = healing
            .ask(&parked.id(), Remedy::Retry, "test", clock().now())
            .await
            .unwrap();
        let outcome = healing.wait(asked, soon()).await.unwrap();
        assert!(
            matches!(outcome, Some(HealingOutcome::Retried(Retried::Healed { handled })) if handled > 0),
            "{outcome:?}"
        );
    }
    assert_eq!(healing.list(None, None, 100).await.unwrap(), []);
    cluster.assert_verified(&views).await;
    // Also the one that did not do it hears of it.
    for projector in [&one, &two] {
        until(|| async { projector.status().iter().all(|view| !view.parked).then_some(()) }).await;
        projector.stop().await;
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_event_stops_the_views_that_read_it_and_no_other_until_the_upgrade() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    cluster
        .tell(
            92,
            "UPDATE events SET event_version = '9.0' WHERE position =
                 (SELECT min(position) FROM events WHERE event_type = 'OrderPlaced')",
        )
        .await;
    cluster.begin().await;
    let (views, old) = (cluster.views().await, cluster.projector().await);
    until(|| async { matches!(old.state(), ProjectorState::Upgrade(_)).then_some(()) }).await;
    assert!(matches!(old.state(), ProjectorState::Upgrade(text) if text.contains("upgrade")));
    let next_version = log_of_the_next_version(&cluster.shop.log_file, "OrderPlaced").await;
    for other in ["products", "stock", "carts", "payments"] {
        let verified = until(|| async {
            let verified = views.verify(&next_version, other).await.unwrap();
            (verified.waiting == 0).then_some(verified)
        })
        .await;
        assert!(verified.equal() && verified.documents > 0, "{verified:?}");
    }
    assert!(old.status().iter().all(|view| !view.parked), "it is no poison");
    assert!(matches!(old.state(), ProjectorState::Upgrade(_)));
    old.stop().await;

    cluster.shop.log = next_version;
    let (views, new) = (cluster.views().await, cluster.projector().await);
    cluster.assert_verified(&views).await;
    assert_eq!(new.state(), ProjectorState::Running);
    new.stop().await;
    cluster.end().await;
}

async fn until<T, F: Future<Output = Option<T>>>(probe: impl Fn() -> F) -> T {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A projector that nothing comes to, because nobody brings it, says that it is behind.
#[tokio::test]
async fn who_is_brought_nothing_is_behind() {
    let gauges = Gauges::default();
    let _recording = metrics::set_default_local_recorder(&gauges);
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let events = Story::tell(81, 2).log(&mut Dice(81));
    let (before, after) = events.split_at(events.len() / 2);
    let views = cluster.views().await;
    let projector = cluster.projector().await;
    cluster.shop.append_all(before).await;
    cluster.assert_verified(&views).await;
    let orders = r#"omisys_projection_lag_positions{view="orders"}"#;
    gauges.becomes(orders, |lag| lag == 0.0).await;

    cluster.relay.stop().await;
    cluster.shop.append_all(after).await;
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let all = after.len() as f64;
    gauges.becomes(orders, |lag| lag >= all).await;
    projector.stop().await;
    cluster.end().await;
}

/// Race 18 in a cluster: writers, two projectors that share the partitions, a reader elsewhere, and a third process that
/// rebuilds what is read, from the log and not from Kafka, with memory for next to nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[expect(clippy::too_many_lines, reason = "a scene of four at once")]
async fn views_are_rebuilt_while_several_projectors_and_a_writer_run() {
    const ORDERS: u64 = 60;
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let projectors = [cluster.projector().await, cluster.projector().await];
    let views = cluster.views().await;
    let stop = CancellationToken::new();
    let (following, log, cancel) = (views.clone(), cluster.shop.log.clone(), stop.clone());
    tokio::spawn(async move { following.follow_generations(&log, cancel).await });
    let (reading, cancel) = (views.clone(), stop.clone());
    let reader = tokio::spawn(async move {
        let (mut seen, mut dice) = (vec![Version(0); ORDERS as usize + 1], Dice(1));
        let mut reads = 0;
        while !cancel.is_cancelled() {
            let number = 1 + dice.roll(ORDERS);
            let found = reading.orders().get(&order_id(number).into()).await.unwrap();
            let version = found.map_or(Version(0), |order| order.doc.version);
            let before = &mut seen[usize::try_from(number).unwrap()];
            assert!(version >= *before, "order {number}: {version} after {before}");
            *before = version;
            reads += 1;
        }
        reads
    });
    let rebuilding = {
        let (views, log) = (cluster.views().await, cluster.shop.log.clone());
        tokio::spawn(async move {
            let options = RebuildOptions {
                memory_bytes: 1,
                ..RebuildOptions::new("test")
            };
            for _ in 0..2 {
                for view in ["orders", "order_timeline"] {
                    let progress = watch::Sender::new(None);
                    let clock = Clock::System;
                    let rebuilt = views
                        .rebuild(&log, view, &options, &clock, &progress)
                        .await
                        .unwrap();
                    assert!(rebuilt.serving, "{rebuilt:?}");
                }
            }
        })
    };
    let mut number = 0;
    while number < ORDERS || !rebuilding.is_finished() {
        number += 1;
        let order = number % ORDERS + 1;
        let before = (number - 1) / ORDERS * 2;
        let placed = if before == 0 {
            order_placed(order)
        } else {
            order_paid(order, money(1))
        };
        cluster
            .shop
            .append(order_stream(order), Version(before), placed)
            .await;
        let paid = cluster
            .shop
            .append(
                order_stream(order),
                Version(before + 1),
                order_paid(order, money(900)),
            )
            .await;
        let point = ConsistencyPoint {
            stream: paid.stream.clone(),
            version: paid.version,
            position: paid.position,
        };
        let found = views
            .orders()
            .get_at_least(&order_id(order).into(), &point, soon())
            .await
            .unwrap();
        assert!(found.unwrap().doc.version >= paid.version);
    }
    rebuilding.await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while (views.orders().generation(), views.order_timeline().generation()) != (3, 3) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    assert!(reader.await.unwrap() > 0);
    // Fed by the projectors, which heard of the new generations themselves.
    cluster
        .shop
        .append(order_stream(900), Version(0), order_placed(900))
        .await;
    cluster
        .assert_verified_of(&views, &["orders", "order_timeline", "sales"])
        .await;
    for projector in &projectors {
        assert_eq!(projector.state(), ProjectorState::Running);
        projector.stop().await;
    }
    let later = ManualClock::new(Clock::System.now());
    later.advance(Duration::from_secs(61));
    for old in ["orders.g1", "orders.g2"] {
        let later = Clock::Manual(later.clone());
        views.drop_generation(old, &later).await.unwrap();
    }
    let groups = ["orders.g2", "orders.g3", "order_timeline.g2", "order_timeline.g3"];
    let groups = groups.map(str::to_owned);
    cluster.delete_groups(&groups).await;
    cluster.end().await;
}

/// What the gauges say, of one thread.
#[derive(Clone, Default)]
struct Gauges(Arc<Mutex<HashMap<String, Arc<AtomicU64>>>>);

impl Gauges {
    async fn becomes(&self, name: &str, is: impl Fn(f64) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.0.lock().unwrap().get(name).cloned();
            let value = value.map(|bits| f64::from_bits(bits.load(Ordering::SeqCst)));
            if value.is_some_and(&is) {
                return;
            }
            assert!(Instant::now() < deadline, "{name} {value:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Recorder for Gauges {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}={:?}", label.key(), label.value()))
            .collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Gauge::from_arc(Arc::clone(self.0.lock().unwrap().entry(name).or_default()))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
