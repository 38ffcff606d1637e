//! The projector on a real log: it follows, it waits, it stops, and it never stands in the log's way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use event_bus::Retried;
use event_schemas::{
    ActorKind, AggregateType, Clock, CommandId, Event, ManualClock, Metadata, Money, OrderEvent, PaymentId,
    Position, RecordedEvent, StreamId, Version,
};
use event_store::{Append, AppendOutcome, Chain, Log, LogOptions, Receipt};
use projections::{
    ConsistencyPoint, Difference, Projector, ProjectorState, VIEW_NAMES, ViewError, Views, WaitError,
};
use sqlite_file::{Options, SqliteError, SqliteFile, Synchronous};
use support::{Dice, Story, customer_id, metadata, money, order_id, placed, sku, time, uuid};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

struct Shop {
    _dir: TempDir,
    log_file: SqliteFile,
    views_file: SqliteFile,
    log: Log,
    views: Views,
    commands: u64,
}

impl Shop {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let options = Options {
                synchronous: Synchronous::Normal,
                readers: 2,
            };
            SqliteFile::open(dir.path().join(name), options).unwrap()
        };
        let (log_file, views_file) = (open("log.db"), open("views.db"));
        let log = Log::open(
            &log_file,
            LogOptions {
                clock: clock(),
                ..LogOptions::default()
            },
        )
        .await
        .unwrap();
        let views = Views::open(&views_file, log.identity()).await.unwrap();
        Self {
            _dir: dir,
            log_file,
            views_file,
            log,
            views,
            commands: 0,
        }
    }

    async fn projector(&self) -> Projector {
        Projector::start(&self.log, &self.views, clock(), CancellationToken::new())
            .await
            .unwrap()
    }

    /// Appends one event as a command of its own; durable when the future resolves.
    fn append(
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

    async fn append_all(&mut self, events: &[Arc<RecordedEvent>]) {
        let mut appended = Vec::new();
        for event in events {
            let before = Version(event.version.0 - 1);
            appended.push(self.append(event.stream.clone(), before, event.event.clone()));
        }
        for append in appended {
            append.await;
        }
    }

    async fn caught_up(&self) {
        let head = self.log.head().await.unwrap();
        assert!(
            self.views.reach(head, soon()).await,
            "{:?} of {head}",
            self.views.progress()
        );
    }

    async fn assert_verified(&self) {
        for view in VIEW_NAMES {
            let verified = self.views.verify(&self.log, view).await.unwrap();
            assert!(verified.equal(), "{verified:?}");
            assert!(verified.documents > 0, "{verified:?}");
        }
    }

    async fn differences(&self, view: &str) -> Vec<Difference> {
        self.views.verify(&self.log, view).await.unwrap().differences
    }

    async fn tamper(&self, sql: &'static str) {
        let rows = self
            .views_file
            .write(move |conn| Ok::<_, SqliteError>(conn.execute(sql, [])?))
            .await
            .unwrap();
        assert_eq!(rows, 1);
    }
}

fn clock() -> Clock {
    Clock::Manual(ManualClock::new(time(0)))
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

async fn eventually(mut condition: impl FnMut() -> bool) {
    timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .unwrap();
}

fn order_stream(number: u64) -> StreamId {
    StreamId::new(AggregateType::Order, order_id(number))
}

fn order_placed(number: u64) -> Event {
    OrderEvent::OrderPlaced(Box::new(placed(
        order_id(number),
        customer_id(1),
        &[(sku(1), 2, 450)],
        time(1),
    )))
    .into()
}

fn order_paid(number: u64, amount: Money) -> Event {
    OrderEvent::OrderPaid {
        payment_id: PaymentId::for_order(order_id(number)),
        attempt: 1,
        amount,
    }
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_equal_a_fold_of_the_log_across_restarts() {
    let mut shop = Shop::open().await;
    let events = Story::tell(1, 8).log(&mut Dice(1));
    for part in events.chunks(events.len() / 4 + 1) {
        let projector = shop.projector().await;
        shop.append_all(part).await;
        // Stopped wherever it is.
        projector.stop().await;
    }
    let projector = shop.projector().await;
    shop.caught_up().await;
    shop.assert_verified().await;
    assert_eq!(projector.state(), ProjectorState::Running);
    let status = projector.status();
    assert!(
        status.iter().all(|view| view.lag == 0 && !view.parked),
        "{status:?}"
    );
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_holds_while_events_keep_coming() {
    let mut shop = Shop::open().await;
    let events = Story::tell(2, 12).log(&mut Dice(2));
    let _projector = shop.projector().await;
    let (first, rest) = events.split_at(events.len() / 2);
    shop.append_all(first).await;
    shop.caught_up().await;
    let (views, log) = (shop.views.clone(), shop.log.clone());
    let verifying = tokio::spawn(async move {
        for _ in 0..3 {
            for view in VIEW_NAMES {
                let verified = views.verify(&log, view).await.unwrap();
                assert!(verified.equal(), "{verified:?}");
            }
        }
    });
    for event in rest {
        shop.append_all(std::slice::from_ref(event)).await;
    }
    verifying.await.unwrap();
    shop.caught_up().await;
    shop.assert_verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_finds_what_was_tampered_with() {
    let mut shop = Shop::open().await;
    let _projector = shop.projector().await;
    for number in 1..=3 {
        shop.append(order_stream(number), Version(0), order_placed(number))
            .await;
    }
    shop.caught_up().await;
    assert_eq!(shop.differences("orders").await, []);
    let id = |number| order_id(number).into();

    shop.tamper(
        "UPDATE orders_g1 SET body = replace(body, '\"quantity\":2', '\"quantity\":3') WHERE rowid = 1",
    )
    .await;
    shop.tamper("UPDATE orders_g1 SET k_status = 'paid' WHERE rowid = 2")
        .await;
    shop.tamper("DELETE FROM orders_g1 WHERE rowid = 3").await;
    let mut found = shop.differences("orders").await;
    found.sort_by_key(ToString::to_string);
    assert_eq!(
        found,
        [
            Difference::Contents { id: id(1) },
            Difference::Keys { id: id(2) },
            Difference::Missing { id: id(3) },
        ]
    );
    shop.tamper("UPDATE orders_g1 SET id = 'nobody' WHERE rowid = 1")
        .await;
    assert!(
        shop.differences("orders")
            .await
            .contains(&Difference::Missing { id: id(1) })
    );
    shop.tamper("UPDATE orders_g1 SET body = '{}' WHERE rowid = 2")
        .await;
    assert!(
        shop.differences("orders")
            .await
            .contains(&Difference::Unreadable { id: id(2) })
    );
    // The other views are as they were.
    assert_eq!(shop.differences("order_timeline").await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_what_was_written() {
    let mut shop = Shop::open().await;
    let _projector = shop.projector().await;
    let id = order_id(1).into();
    for round in 0..20_u64 {
        let event = if round == 0 {
            order_placed(1)
        } else {
            order_paid(1, money(1))
        };
        let receipt = shop.append(order_stream(1), Version(round), event).await;
        let point = ConsistencyPoint {
            stream: receipt.stream.clone(),
            version: receipt.version,
            position: receipt.position,
        };
        let order = shop
            .views
            .orders()
            .get_at_least(&id, &point, soon())
            .await
            .unwrap()
            .unwrap();
        assert!(order.doc.version >= receipt.version);
        shop.views.orders().reach(&point, soon()).await.unwrap();
    }

    // What never comes is not waited for longer than asked, and what is never read not at all.
    let far = ConsistencyPoint {
        stream: order_stream(1),
        version: Version(99),
        position: Position(999),
    };
    let late = shop.views.orders().get_at_least(&id, &far, Instant::now()).await;
    assert_eq!(late.unwrap_err(), WaitError::TimedOut { view: "orders" });
    let late = shop.views.orders().reach(&far, Instant::now()).await;
    assert_eq!(late.unwrap_err(), WaitError::TimedOut { view: "orders" });
    let wrong = shop.views.carts().get_at_least(&id, &far, soon()).await;
    let refused = WaitError::NotRead {
        view: "carts",
        aggregate_type: AggregateType::Order,
    };
    assert_eq!(wrong.unwrap_err(), refused);
    // A point that the view has passed without such a document: there is none.
    let passed = ConsistencyPoint {
        position: Position(3),
        ..far
    };
    let nobody = order_id(7).into();
    assert!(
        shop.views
            .orders()
            .get_at_least(&nobody, &passed, soon())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_document_tells_of_its_last_change() {
    let mut shop = Shop::open().await;
    let _projector = shop.projector().await;
    let id = order_id(1).into();
    let mut watch = shop.views.orders().watch(&id);
    let mut other = shop.views.orders().watch(&order_id(2).into());
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    for round in 1..10 {
        shop.append(order_stream(1), Version(round), order_paid(1, money(1)))
            .await;
    }
    // However many changes are folded into one, the last is not missed.
    timeout(PATIENCE, async {
        loop {
            let order = shop.views.orders().get(&id).await.unwrap();
            if order.is_some_and(|order| order.doc.version == Version(10)) {
                break;
            }
            watch.changed().await;
        }
    })
    .await
    .unwrap();
    let silent = timeout(Duration::ZERO, other.changed()).await;
    assert!(silent.is_err());
}

/// The views' file is stuck; the log's goes on, and the views follow later.
#[tokio::test(flavor = "multi_thread")]
async fn views_never_block_the_log() {
    let mut shop = Shop::open().await;
    let projector = shop.projector().await;
    let (release, blocked) = mpsc::channel::<()>();
    let file = shop.views_file.clone();
    let stuck = tokio::spawn(async move {
        let wait = move |_: &_| Ok::<_, SqliteError>(blocked.recv().is_ok());
        file.write(wait).await
    });
    for number in 1..=50 {
        let append = shop.append(order_stream(number), Version(0), order_placed(number));
        timeout(PATIENCE, append)
            .await
            .expect("the log waits for the views");
    }
    assert!(shop.views.orders().position() < shop.log.head().await.unwrap());
    assert!(projector.status().iter().any(|view| view.lag > 0));
    release.send(()).unwrap();
    stuck.await.unwrap().unwrap();
    shop.caught_up().await;
    let order = shop.views.orders().get(&order_id(50).into()).await.unwrap();
    assert!(order.is_some());
}

/// An event of a newer binary is no poison: nothing is skipped, nothing is parked.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_event_stops_the_projector_with_what_came_before() {
    let mut shop = Shop::open().await;
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    shop.append(order_stream(1), Version(1), order_paid(1, money(900)))
        .await;
    rewrite(
        &mut shop,
        "UPDATE events SET event_version = '9.0' WHERE position = 2",
    )
    .await;
    shop.append(order_stream(2), Version(0), order_placed(2)).await;
    let projector = shop.projector().await;
    eventually(|| !projector.state().is_ready()).await;
    assert!(matches!(projector.state(), ProjectorState::Upgrade(text) if text.contains("upgrade")));
    assert_eq!(shop.views.orders().position(), Position(1));
    assert!(
        shop.views
            .orders()
            .get(&order_id(1).into())
            .await
            .unwrap()
            .is_some()
    );
    assert!(projector.status().iter().all(|view| !view.parked));
    projector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_heal_in_order() {
    let mut shop = Shop::open().await;
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    shop.append(order_stream(1), Version(1), order_paid(1, money(900)))
        .await;
    // A payload that fits no schema: poison for every view that reads orders.
    rewrite(
        &mut shop,
        "UPDATE events SET payload = '{\"OrderPlaced\":{}}' WHERE position = 1",
    )
    .await;
    shop.append(order_stream(2), Version(0), order_placed(2)).await;
    let projector = shop.projector().await;
    shop.caught_up().await;
    assert!(
        shop.views
            .orders()
            .get(&order_id(2).into())
            .await
            .unwrap()
            .is_some()
    );
    let scope = order_stream(1).to_string();
    let parked: Vec<_> = projector
        .status()
        .into_iter()
        .filter(|view| view.parked)
        .map(|view| view.view)
        .collect();
    assert_eq!(parked, ["orders", "order_timeline", "sales"]);
    let letters = projector
        .dead_letters("orders")
        .unwrap()
        .show(&scope)
        .await
        .unwrap();
    let versions: Vec<_> = letters
        .iter()
        .map(|letter| (letter.event_id.version.0, letter.reason.is_some()))
        .collect();
    assert_eq!(versions, [(1, true), (2, false)]);

    // Not mended: it stays, and says how often it was tried.
    let again = projector.retry("orders", &scope).await.unwrap();
    assert!(
        matches!(again, Retried::StillParked { handled: 0, .. }),
        "{again:?}"
    );
    assert_eq!(
        projector
            .dead_letters("orders")
            .unwrap()
            .show(&scope)
            .await
            .unwrap()[0]
            .attempts,
        2
    );
    // Behind what is parked, in order.
    shop.append(order_stream(1), Version(2), order_paid(1, money(1)))
        .await;
    shop.caught_up().await;
    assert_eq!(
        projector
            .dead_letters("orders")
            .unwrap()
            .show(&scope)
            .await
            .unwrap()
            .len(),
        3
    );

    let payload = order_payload();
    rewrite_payload(&shop, payload).await;
    for view in ["orders", "order_timeline", "sales"] {
        let healed = projector.retry(view, &scope).await.unwrap();
        assert_eq!(healed, Retried::Healed { handled: 3 });
    }
    let order = shop
        .views
        .orders()
        .get(&order_id(1).into())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(order.doc.version, Version(3));
    assert!(projector.status().iter().all(|view| !view.parked));
    // It goes on with the stream.
    shop.append(order_stream(1), Version(3), order_paid(1, money(1)))
        .await;
    shop.caught_up().await;
    for view in ["orders", "order_timeline", "sales"] {
        assert_eq!(shop.differences(view).await, []);
    }
}

/// A store that fails for a while is waited out, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_tried_again() {
    let mut shop = Shop::open().await;
    let projector = shop.projector().await;
    rename(&shop.views_file, "ALTER TABLE orders_g1 RENAME TO hidden").await;
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    eventually(|| matches!(projector.state(), ProjectorState::Retrying(_))).await;
    // None of the views has passed what one of them could not store.
    assert_eq!(shop.views.order_timeline().position(), Position(0));
    rename(&shop.views_file, "ALTER TABLE hidden RENAME TO orders_g1").await;
    shop.caught_up().await;
    eventually(|| projector.state() == ProjectorState::Running).await;
    assert_eq!(shop.differences("orders").await, []);
}

async fn rename(file: &SqliteFile, sql: &'static str) {
    file.write(move |conn| Ok::<_, SqliteError>(conn.execute_batch(sql)?))
        .await
        .unwrap();
}

/// Changes what the log has stored, and opens it anew: a log remembers what it appended itself.
async fn rewrite(shop: &mut Shop, sql: &'static str) {
    let rows = shop
        .log_file
        .write(move |conn| Ok::<_, SqliteError>(conn.execute(sql, [])?))
        .await
        .unwrap();
    assert_eq!(rows, 1);
    shop.log = Log::open(
        &shop.log_file,
        LogOptions {
            clock: clock(),
            ..LogOptions::default()
        },
    )
    .await
    .unwrap();
}

async fn rewrite_payload(shop: &Shop, payload: String) {
    let update = "UPDATE events SET payload = ?1 WHERE position = 1";
    let rows = shop
        .log_file
        .write(move |conn| Ok::<_, SqliteError>(conn.execute(update, [payload])?))
        .await
        .unwrap();
    assert_eq!(rows, 1);
}

fn order_payload() -> String {
    order_placed(1).to_json().unwrap()
}

/// A document that the store holds in a form that this binary can't read is an error of that document alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_document_is_an_error_not_a_panic() {
    let mut shop = Shop::open().await;
    let _projector = shop.projector().await;
    shop.append(order_stream(1), Version(0), order_placed(1)).await;
    shop.append(order_stream(2), Version(0), order_placed(2)).await;
    shop.caught_up().await;
    shop.tamper("UPDATE orders_g1 SET body = '[1]' WHERE rowid = 1")
        .await;
    let broken = shop.views.orders().get(&order_id(1).into()).await;
    assert!(matches!(broken, Err(ViewError::Corrupt { view: "orders", .. })));
    assert!(
        shop.views
            .orders()
            .get(&order_id(2).into())
            .await
            .unwrap()
            .is_some()
    );
}
