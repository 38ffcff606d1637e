//! Sagas that hear of events through Kafka and share them, on PostgreSQL. Run by the test binary `postgres`.

#![cfg(feature = "cluster")]
#![allow(clippy::expect_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use aggregates::order::OrderStatus;
use common::{Shop, sandbox};
use database::DatabaseError;
use event_bus::{Checkpoints, Kafka, KafkaOptions, Relay, RelayOptions, StreamSource};
use event_schemas::OrderId;
use event_store::{ExecutorOptions, Executors, Log, LogOptions};
use sagas::fault::{self, Faults};
use sagas::provider::{Provider, token};
use sagas::{SagaStream, Sagas, SagasConfig, SagasDeps};
use tokio_util::sync::CancellationToken;

/// A rebalance takes its time.
const DEADLINE: Duration = Duration::from_secs(90);

/// None where there is no PostgreSQL to share.
async fn shop() -> Option<(Shop, Kafka, Relay)> {
    let config = SagasConfig {
        exclusive: false,
        ..SagasConfig::default()
    };
    let mut shop = Shop::open_with(config, Faults::default()).await;
    if matches!(shop.database, database::Database::Sqlite(_)) {
        eprintln!("not tested: SQLite is for one process");
        return None;
    }
    shop.stop().await;
    // Events that were handled while the log was followed need not come again; there are none.
    let kafka = Kafka::new(KafkaOptions {
        brokers: std::env::var("OMISYS_TEST_KAFKA_BROKERS")
            .expect("OMISYS_TEST_KAFKA_BROKERS names the broker"),
        topic_prefix: shop
            .test
            .url()
            .rsplit('/')
            .next()
            .expect("a name")
            .replace('_', "-"),
        partitions: 3,
        idle_check: Duration::from_millis(300),
        ..KafkaOptions::default()
    });
    kafka.ensure_topics().await.expect("topics");
    let options = RelayOptions::default();
    let relay = Relay::start(
        &shop.log,
        &shop.database,
        &kafka,
        options,
        CancellationToken::new(),
    );
    let relay = relay.await.expect("started");
    Some((shop, kafka, relay))
}

/// A member of the group, with its own handles.
async fn member(shop: &Shop, kafka: &Kafka, faults: Faults) -> Sagas {
    let database = shop.test.reopen().await;
    let options = LogOptions {
        clock: shop.clock(),
        ..LogOptions::default()
    };
    let log = Log::open(&database, options).await.expect("opened");
    let provider = sandbox(&shop.dir, &database, shop.clock()).await;
    let source = StreamSource {
        kafka: kafka.clone(),
        log: log.clone(),
        checkpoints: Checkpoints::open(&database).await.expect("opened"),
        gather: Duration::ZERO,
    };
    let deps = SagasDeps {
        commands: Executors::start(&log, &ExecutorOptions::default()).into(),
        stream: SagaStream::Kafka(source),
        log,
        database,
        provider: Some(Provider::Sandbox(provider)),
        clock: shop.clock(),
        config: shop.config.clone(),
        faults,
    };
    Sagas::start(deps).await.expect("sagas start")
}

async fn effects(shop: &Shop) -> i64 {
    let count = shop
        .database
        .read(|session| session.query_one("SELECT count(*) FROM effects", &[], |row| row.get::<i64>(0)));
    count.await.map_err(|error: DatabaseError| error).expect("read")
}

/// Waits until all orders are paid and nothing is left to do, while leases of the dead run out.
async fn all_paid(shop: &Shop, orders: &[OrderId]) {
    let paid = async {
        for order in orders {
            while shop.order(*order).await.status() != OrderStatus::Paid {
                shop.hand.advance(Duration::from_millis(500));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        while effects(shop).await > 0 {
            shop.hand.advance(Duration::from_millis(500));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, paid).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_the_stream_and_take_over_from_each_other() {
    let Some((mut shop, kafka, relay)) = shop().await else {
        return;
    };
    shop.stock("MUG", 100).await;
    // It dies with commands handed in and neither timers, effects nor positions stored.
    let doomed = member(&shop, &kafka, Faults::die_at(fault::BEFORE_CHECKPOINT, 3)).await;
    let mut orders = Vec::new();
    for n in 0..6 {
        orders.push(
            shop.check_out(&format!("a{n}"), &[("MUG", 1, 500)], token::OK)
                .await,
        );
    }
    let died = tokio::time::timeout(DEADLINE, doomed.stopped()).await;
    died.expect("in time").expect("a reason");
    drop(doomed);

    let one = member(&shop, &kafka, Faults::default()).await;
    let two = member(&shop, &kafka, Faults::default()).await;
    all_paid(&shop, &orders).await;
    for n in 0..6 {
        orders.push(
            shop.check_out(&format!("b{n}"), &[("MUG", 1, 500)], token::TIMEOUT_THEN_OK)
                .await,
        );
    }
    all_paid(&shop, &orders).await;
    // Its partitions go to the other one, which has seen none of these orders before.
    one.stop().await;
    drop(one);
    let shipped = orders.pop().expect("some");
    shop.cancel(shipped).await;
    let cancelled = async {
        while shop.order(shipped).await.status() != OrderStatus::Cancelled
            || shop.item("MUG").await.reserved_total() != 11
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, cancelled).await.expect("in time");
    orders.push(shipped);
    let refunded = async {
        while effects(&shop).await > 0 || shop.count("RefundSucceeded").await == 0 {
            shop.hand.advance(Duration::from_millis(500));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, refunded).await.expect("in time");
    assert_eq!(two.dead_letters().await.expect("read"), []);
    assert_eq!(two.failure(), None);
    two.stop().await;
    relay.stop().await;
    kafka.delete_topics().await.expect("deleted");
}
