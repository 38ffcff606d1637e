//! A log, the read models beside it, and orders to fill them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use crate::support::{customer_id, metadata, order_id, placed, sku, time, uuid};
use event_schemas::{
    ActorKind, AggregateType, Clock, CommandId, Event, ManualClock, Metadata, Money, OrderEvent, PaymentId,
    RecordedEvent, StreamId, Upcasters, Version,
};
use event_store::{Append, AppendOutcome, Chain, Log, LogOptions, Receipt};
use projections::{Difference, Projector, VIEW_NAMES, Views};
use sqlite_file::{Options, SqliteError, SqliteFile, Synchronous};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Far beyond what anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Shop {
    _dir: TempDir,
    pub log_file: SqliteFile,
    pub views_file: SqliteFile,
    pub log: Log,
    pub views: Views,
    pub commands: u64,
}

impl Shop {
    pub async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let options = Options {
                synchronous: Synchronous::Normal,
                readers: 2,
            };
            SqliteFile::open(dir.path().join(name), options).unwrap()
        };
        let (log_file, views_file) = (open("log.db"), open("views.db"));
        let log = Log::open(&log_file, options()).await.unwrap();
        let views = Views::open_sqlite(&views_file, log.identity()).await.unwrap();
        Self {
            _dir: dir,
            log_file,
            views_file,
            log,
            views,
            commands: 0,
        }
    }

    pub async fn projector(&self) -> Projector {
        Projector::start(&self.log, &self.views, clock(), CancellationToken::new())
            .await
            .unwrap()
    }

    /// Appends one event as a command of its own; durable when the future resolves.
    pub fn append(
        &mut self,
        stream: StreamId,
        expected: Version,
        event: Event,
    ) -> impl Future<Output = Receipt> + Send + use<> {
        self.commands += 1;
        let command_id = CommandId::from_uuid(uuid(9, self.commands));
        let metadata = Metadata {
            command_id,
            ..metadata(ActorKind::Customer, "somebody")
        };
        let append = Append {
            stream,
            expected,
            events: vec![event],
            metadata,
            fingerprint: None,
        };
        let appended = self.log.journal().append(&Chain::new(), append);
        async move {
            match appended.await {
                AppendOutcome::Appended(receipt) => receipt,
                other => panic!("{other:?}"),
            }
        }
    }

    pub async fn append_all(&mut self, events: &[Arc<RecordedEvent>]) {
        let mut appended = Vec::new();
        for event in events {
            let before = Version(event.version.0 - 1);
            appended.push(self.append(event.stream.clone(), before, event.event.clone()));
        }
        for append in appended {
            append.await;
        }
    }

    pub async fn caught_up(&self) {
        let head = self.log.head().await.unwrap();
        assert!(
            self.views.reach(head, soon()).await,
            "{:?} of {head}",
            self.views.known_progress()
        );
    }

    pub async fn assert_verified(&self) {
        for view in VIEW_NAMES {
            let verified = self.views.verify(&self.log, view).await.unwrap();
            assert!(verified.equal(), "{verified:?}");
            assert!(verified.documents > 0, "{verified:?}");
        }
    }

    pub async fn differences(&self, view: &str) -> Vec<Difference> {
        self.views.verify(&self.log, view).await.unwrap().differences
    }

    pub async fn tamper(&self, sql: &'static str) {
        let rows = self
            .views_file
            .write(move |conn| Ok::<_, SqliteError>(conn.execute(sql, [])?))
            .await
            .unwrap();
        assert_eq!(rows, 1);
    }
}

/// With a step from a version of `OrderPlaced` that never was, in which `occurred_at` had another name.
fn options() -> LogOptions {
    let upcasters = Upcasters::shipped().with("OrderPlaced", "0.9", "OrderPlaced", "1.0", |mut payload| {
        payload["OrderPlaced"]["occurred_at"] = payload["OrderPlaced"]["placed_at"].take();
        payload
    });
    LogOptions {
        clock: clock(),
        upcasters,
        ..LogOptions::default()
    }
}

pub fn clock() -> Clock {
    Clock::Manual(ManualClock::new(time(0)))
}

pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

pub async fn eventually(mut condition: impl FnMut() -> bool) {
    timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap();
}

pub fn order_stream(number: u64) -> StreamId {
    StreamId::new(AggregateType::Order, order_id(number))
}

pub fn order_placed(number: u64) -> Event {
    OrderEvent::OrderPlaced(Box::new(placed(
        order_id(number),
        customer_id(1),
        &[(sku(1), 2, 450)],
        time(1),
    )))
    .into()
}

pub fn order_paid(number: u64, amount: Money) -> Event {
    OrderEvent::OrderPaid {
        payment_id: PaymentId::for_order(order_id(number)),
        attempt: 1,
        amount,
    }
    .into()
}

pub async fn rename(file: &SqliteFile, sql: &'static str) {
    file.write(move |conn| Ok::<_, SqliteError>(conn.execute_batch(sql)?))
        .await
        .unwrap();
}

/// Changes what the log has stored, and opens it anew: a log remembers what it appended itself.
pub async fn rewrite(shop: &mut Shop, sql: &'static str) {
    let rows = shop
        .log_file
        .write(move |conn| Ok::<_, SqliteError>(conn.execute(sql, [])?))
        .await
        .unwrap();
    assert_eq!(rows, 1);
    shop.log = Log::open(&shop.log_file, options()).await.unwrap();
}

/// The log as a binary reads it that knows version 9.0 of `event_type`.
pub async fn log_of_the_next_version(file: &SqliteFile, event_type: &'static str) -> Log {
    let upcasters = Upcasters::shipped().with(event_type, "9.0", event_type, "1.0", |payload| payload);
    let options = LogOptions {
        clock: clock(),
        upcasters,
        ..LogOptions::default()
    };
    Log::open(file, options).await.unwrap()
}

pub async fn rewrite_payload(shop: &Shop, payload: String) {
    let update = "UPDATE events SET payload = ?1 WHERE position = 1";
    let rows = shop
        .log_file
        .write(move |conn| Ok::<_, SqliteError>(conn.execute(update, [payload])?))
        .await
        .unwrap();
    assert_eq!(rows, 1);
}

pub fn order_payload() -> String {
    order_placed(1).to_json().unwrap()
}
