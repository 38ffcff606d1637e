//! Several sagas at once on one log: each hears of every event, and one of them does what is to be done.

#![allow(clippy::expect_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use aggregates::order::OrderStatus;
use common::{DEADLINE, Shop, sandbox};
#[cfg(feature = "cluster")]
use event_store::{ExecutorOptions, Executors, Log, LogOptions};
use sagas::fault::Faults;
use sagas::provider::{Provider, token};
use sagas::{SagaStream, Sagas, SagasConfig, SagasDeps};

fn shared() -> SagasConfig {
    SagasConfig {
        exclusive: false,
        ..SagasConfig::default()
    }
}

/// Sagas beside those of the shop: of another process, or, as SQLite has only one, of the same.
async fn replica(shop: &Shop, faults: Faults) -> Sagas {
    let (database, log, executors) = match &shop.database {
        database::Database::Sqlite(_) => (shop.database.clone(), shop.log.clone(), shop.executors.clone()),
        #[cfg(feature = "cluster")]
        database::Database::Postgres(_) => {
            let database = shop.test.reopen().await;
            let options = LogOptions {
                clock: shop.clock(),
                ..LogOptions::default()
            };
            let log = Log::open(&database, options).await.expect("opened");
            let executors = Executors::start(&log, &ExecutorOptions::default());
            (database, log, executors)
        }
    };
    let provider = sandbox(&shop.dir, &database, shop.clock()).await;
    let deps = SagasDeps {
        log,
        commands: executors.into(),
        stream: SagaStream::Log,
        database,
        provider: Some(Provider::Sandbox(provider)),
        clock: shop.clock(),
        config: shop.config.clone(),
        faults,
    };
    Sagas::start(deps).await.expect("sagas start")
}

async fn settle(all: &[&Sagas]) {
    for sagas in all {
        tokio::time::timeout(DEADLINE, sagas.idle())
            .await
            .expect("in time")
            .expect("running");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_sagas_do_what_one_does() {
    let mut shop = Shop::open_with(shared(), Faults::default()).await;
    let (one, two) = (
        replica(&shop, Faults::default()).await,
        replica(&shop, Faults::default()).await,
    );
    shop.stock("MUG", 100).await;
    let mut orders = Vec::new();
    for n in 0..10 {
        let (name, token) = match n % 5 {
            0 => (format!("declined-{n}"), token::DECLINED),
            1 => (format!("late-{n}"), token::CAPTURED_LATE),
            2 => (format!("lost-{n}"), token::TIMEOUT_THEN_OK),
            _ => (format!("ok-{n}"), token::OK),
        };
        orders.push(shop.check_out(&name, &[("MUG", 2, 500)], token).await);
    }
    shop.cancel(orders[3]).await;
    settle(&[shop.sagas(), &one, &two]).await;
    // Reports come, timers of what was tried again fire.
    for _ in 0..10 {
        shop.hand.advance(Duration::from_secs(30));
        settle(&[shop.sagas(), &one, &two]).await;
    }
    for (n, order) in orders.iter().enumerate() {
        let status = shop.order(*order).await.status();
        match n {
            3 => assert_eq!(status, OrderStatus::Cancelled),
            _ if n % 5 == 0 => assert_ne!(status, OrderStatus::Paid, "{n}"),
            _ => assert_eq!(status, OrderStatus::Paid, "{n}"),
        }
    }
    shop.audit(&orders).await;
    for sagas in [shop.sagas(), &one, &two] {
        assert_eq!(sagas.dead_letters().await.expect("read"), []);
        assert_eq!(sagas.failure(), None);
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_had_leased_is_done_by_another() {
    let mut shop = Shop::open_with(shared(), Faults::default()).await;
    shop.stock("MUG", 5).await;
    shop.stop().await;
    let order = shop.place("ada", &[("MUG", 1, 500)], token::OK).await;
    let doomed = replica(&shop, Faults::die_at(sagas::fault::BEFORE_PROVIDER, 1)).await;
    tokio::time::timeout(DEADLINE, doomed.stopped())
        .await
        .expect("in time")
        .expect("died");
    shop.start(Faults::default()).await;
    let handled = async {
        while shop.order(order).await.status() != OrderStatus::Paid {
            // Its lease runs out at some time.
            shop.hand.advance(Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, handled).await.expect("in time");
    shop.settle().await;
    shop.audit(&[order]).await;
}
