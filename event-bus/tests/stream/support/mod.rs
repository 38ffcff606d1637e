//! A log in a temporary directory.

use event_bus::{BusError, Checkpoints, Subscription};
use event_schemas::{
    Actor, AggregateType, CommandId, CorrelationId, InventoryEvent, Metadata, OrderId, Position, StreamId,
    Upcasters, Version, derive_uuid,
};
use event_store::{Append, AppendOutcome, Chain, Log, LogOptions};
use serde_json::{Value, json};
use sqlite_file::{Options, SqliteError, SqliteFile};
use tempfile::TempDir;

#[cfg(feature = "cluster")]
pub mod gauges;
#[cfg(feature = "cluster")]
pub mod kafka;

use crate::conformance::Stream;

pub struct Embedded {
    dir: TempDir,
    pub file: SqliteFile,
    pub log: Log,
}

impl Embedded {
    async fn open(dir: TempDir) -> Self {
        let file = SqliteFile::open(dir.path().join("log.db"), Options::default()).expect("opened");
        let options = LogOptions {
            upcasters: upcasters(),
            ..LogOptions::default()
        };
        let log = Log::open(&file, options).await.expect("opened");
        Self { dir, file, log }
    }

    async fn rewrite(&mut self, position: Position, version: &'static str, payload: Option<String>) {
        let sql = "UPDATE events SET event_version = ?2, payload = coalesce(?3, payload) WHERE position = ?1";
        let rewritten = self.file.write(move |conn| {
            Ok::<_, SqliteError>(conn.execute(sql, (position.0.cast_signed(), version, payload))?)
        });
        assert_eq!(rewritten.await.expect("written"), 1);
        self.reopen().await;
    }

    async fn reopen(&mut self) {
        self.file.close().await.expect("closed");
        let empty = TempDir::new().expect("a directory");
        let dir = std::mem::replace(&mut self.dir, empty);
        *self = Self::open(dir).await;
    }
}

impl Stream for Embedded {
    async fn empty() -> Self {
        Self::open(TempDir::new().expect("a directory")).await
    }

    async fn append(&self, item: &str, count: u64) {
        append_to(&self.log, item, count).await;
    }

    async fn subscribe(&self, name: &str) -> Result<Subscription, BusError> {
        Subscription::open(&self.log, &Checkpoints::open(&self.file).await?, name).await
    }

    async fn begin_epoch(&mut self) {
        self.log.begin_epoch().await.expect("begun");
        self.reopen().await;
    }

    async fn spoil(&mut self, position: Position, newer: bool) {
        if newer {
            self.rewrite(position, "99.0", None).await;
        } else {
            let unfit = r#"{"StockReserved":{}}"#.to_owned();
            self.rewrite(position, "1.0", Some(unfit)).await;
        }
    }

    async fn age(&mut self, position: Position) {
        self.rewrite(position, OLD_VERSION, Some(old_reservation())).await;
    }
}

/// A version of `StockReserved` that never was: it counted pieces.
pub const OLD_VERSION: &str = "0.9";

pub fn old_reservation() -> String {
    json!({ "StockReserved": { "order_id": order(), "pieces": 7 } }).to_string()
}

fn upcasters() -> Upcasters {
    Upcasters::shipped().with(
        "StockReserved",
        OLD_VERSION,
        "StockReserved",
        "1.0",
        |mut payload: Value| {
            payload["StockReserved"]["quantity"] = payload["StockReserved"]["pieces"].take();
            payload
        },
    )
}

/// Whose units are reserved.
pub fn order() -> OrderId {
    OrderId::from_uuid(derive_uuid("test", &[]))
}

/// Appends `count` events to the stock item `item`.
pub async fn append_to(log: &Log, item: &str, count: u64) {
    let stream = StreamId::new(AggregateType::Inventory, item);
    let version = log
        .read_stream(&stream, Version(0), None)
        .await
        .expect("read")
        .len() as u64;
    let order_id = order();
    let command_id = CommandId::from_uuid(derive_uuid("test", &[item.as_bytes(), &version.to_be_bytes()]));
    let actor = Actor::system("test");
    let append = Append {
        stream,
        expected: Version(version),
        events: vec![
            InventoryEvent::StockReserved {
                order_id,
                quantity: 1
            }
            .into();
            count as usize
        ],
        metadata: Metadata {
            actor_kind: actor.kind,
            actor_id: actor.id,
            command: "Test".into(),
            command_id,
            correlation_id: CorrelationId::for_command(command_id),
            causation_id: None,
            traceparent: None,
        },
        fingerprint: None,
    };
    let outcome = log.journal().append(&Chain::new(), append).await;
    assert!(matches!(outcome, AppendOutcome::Appended(_)), "{outcome:?}");
}
