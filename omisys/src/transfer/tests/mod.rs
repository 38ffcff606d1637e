//! Logs that move, and what their sagas make of it: with the provider's memory outside, as it is.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

#[path = "../../../../sagas/tests/common/mod.rs"]
mod common;
mod copies;
mod going_on;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aggregates::order::{OrderCommand, OrderStatus};
use common::Shop;
use database::testing::TestDatabase;
use database::{Database, DatabaseError};
use event_bus::PartitionKey;
use event_schemas::{
    Actor, ActorKind, AggregateType, CancelReason, Clock, LogIdentity, ManualClock, OrderId, Position,
};
use event_store::{
    CommandRequest, ExecutorOptions, Executors, Fingerprint, Fingerprints, Log, LogOptions, ReadError,
};
use projections::{Projector, VIEW_NAMES, Views};
use sagas::fault::{AFTER_PROVIDER, BEFORE_CHECKPOINT, BEFORE_PROVIDER, Faults};
use sagas::provider::{SandboxFault, SandboxOptions, SandboxProvider, token};
use sagas::{SagaStream, Sagas, SagasConfig, SagasDeps, SecretStore};
use sqlite_file::{Options, SqliteFile};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use file::Line;

/// A shop on `test`, whose sagas have not begun, with a provider that remembers whatever becomes of the log.
async fn shop_on(test: TestDatabase, sandbox: SandboxProvider, hand: &ManualClock) -> Shop {
    let database = test.database().clone();
    let options = LogOptions {
        clock: Clock::from(hand.clone()),
        ..LogOptions::default()
    };
    let log = Log::open(&database, options).await.unwrap();
    Shop {
        dir: TempDir::new().unwrap(),
        executors: Executors::start(&log, &ExecutorOptions::default()),
        secrets: SecretStore::open(&database).await.unwrap(),
        test,
        database,
        log,
        sandbox,
        hand: hand.clone(),
        config: SagasConfig::default(),
        sagas: None,
        // Other ids than those of the shop that was copied.
        commands: 1_000_000,
    }
}

/// A file with the shop's log as it is now.
async fn copy_of(shop: &Shop, name: &str) -> PathBuf {
    let path = shop.dir.path().join(name);
    let file = FileWriter::create(&path).unwrap();
    prepare(&shop.database).await.unwrap();
    export::export(&shop.database, &shop.log, sagas::KEPT.to_vec(), file)
        .await
        .unwrap();
    path
}

async fn bring_to(database: &Database, path: &Path) -> Result<Imported, BringError> {
    prepare(database).await.unwrap();
    let mut file = FileReader::open(path)?;
    let header = file.header()?;
    import::import(database, header, file, None).await
}

/// The copy as a shop of its own, with the same provider.
async fn restored(source: &Shop, path: &Path, test: TestDatabase) -> Shop {
    bring_to(test.database(), path).await.unwrap();
    shop_on(test, source.sandbox.clone(), &source.hand).await
}

#[cfg_attr(
    not(feature = "cluster"),
    expect(clippy::unused_async, reason = "with the feature, it may be elsewhere")
)]
async fn postgres() -> Option<TestDatabase> {
    #[cfg(feature = "cluster")]
    return TestDatabase::postgres().await;
    #[cfg(not(feature = "cluster"))]
    None
}

/// A source whose sagas die where `faults` say, with one order under way.
async fn interrupted(faults: Faults, token: &str) -> (Shop, OrderId) {
    let mut shop = Shop::open_with(SagasConfig::default(), faults).await;
    shop.stock("MUG", 10).await;
    shop.stock("TEA", 10).await;
    let order = shop
        .place("ada", &[("MUG", 2, 500), ("TEA", 1, 300)], token)
        .await;
    let ended = tokio::time::timeout(common::DEADLINE, shop.sagas().idle()).await;
    // They have come to rest, or have died.
    let _ = ended.expect("in time");
    (shop, order)
}

/// Orders of every fate, receipts of every kind, timers and secrets.
async fn busy_shop(test: TestDatabase) -> Shop {
    let hand = ManualClock::new("2024-05-01T12:00:00Z".parse().unwrap());
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("sandbox.db");
    let sandbox = SandboxProvider::open(path, hand.clone().into(), SandboxOptions::default())
        .await
        .unwrap();
    let mut shop = Shop {
        dir,
        ..shop_on(test, sandbox, &hand).await
    };
    shop.start(Faults::default()).await;
    shop.stock("MUG", 50).await;
    for number in 0..12 {
        let fate = [token::OK, token::DECLINED, token::INSUFFICIENT_FUNDS, token::SLOW][number % 4];
        shop.check_out(&format!("customer-{number}"), &[("MUG", 1, 500)], fate)
            .await;
    }
    let cancelled = shop.place("cancelled", &[("MUG", 1, 500)], token::OK).await;
    shop.settle().await;
    shop.cancel(cancelled).await;
    let request = CommandRequest {
        fingerprints: Fingerprints::new(
            Fingerprint {
                key_id: "key-1".into(),
                mac: [7; 32],
            },
            [],
        ),
        ..shop.request(OrderCommand::Cancel {
            reason: CancelReason::CustomerRequest,
            by: ActorKind::Customer,
        })
    };
    // A command that emits nothing has a receipt all the same.
    shop.executors.orders.submit(cancelled, request).await.unwrap();
    shop.settle().await;
    shop
}

/// Folds the read models of `log`, and compares each document with what `other` folds to.
async fn assert_same_views(log: &Log, other: &Log) {
    let folder = TempDir::new().unwrap();
    let file = SqliteFile::open(folder.path().join("views.db"), Options::default()).unwrap();
    let views = Views::open_sqlite(&file, log.identity()).await.unwrap();
    let stopping = CancellationToken::new();
    let projector = Projector::start(log, &views, Clock::System, stopping.clone())
        .await
        .unwrap();
    let head = log.head().await.unwrap();
    assert!(views.reach(head, Instant::now() + common::DEADLINE).await);
    for name in VIEW_NAMES {
        let compared = views.verify(other, name).await.unwrap();
        assert!(compared.equal(), "{name}: {:?}", compared.differences);
        assert_eq!((compared.waiting, compared.position), (0, head), "{name}");
        assert!(
            compared.documents > 0 || name.starts_with("product"),
            "{name} has nothing to compare"
        );
    }
    projector.stop().await;
}
