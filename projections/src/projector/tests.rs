//! Batches against a real store: guards, crashes, poison.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use event_bus::Checkpoint;
use event_schemas::{
    ActorKind, AggregateType, Clock, InventoryEvent, LogIdentity, ManualClock, OrderEvent, Position,
    ProductEvent, RecordedEvent, Reference, StreamId, Version,
};
use proptest::prelude::*;
use sqlite_file::{Options, SqliteFile, Synchronous};
use tempfile::TempDir;
use uuid::Uuid;

use super::runner::Runner;
use crate::document::Document;
use crate::order_timeline::OrderTimeline;
use crate::orders::Orders;
use crate::query::KeyValue;
use crate::reader::ViewReader;
use crate::view::{DocId, View};
use crate::views::Views;
use support::{
    Dice, Story, customer_id, deliver_again, entries, metadata, money, order_id, placed, product_id, sku,
    time,
};

const LOG: LogIdentity = LogIdentity {
    log_id: Uuid::from_u128(7),
    epoch: 1,
};

struct Shop {
    _dir: TempDir,
    file: SqliteFile,
    views: Views,
}

impl Shop {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            synchronous: Synchronous::Normal,
            readers: 1,
        };
        let file = SqliteFile::open(dir.path().join("views.db"), options).unwrap();
        let views = Views::open(&file, LOG).await.unwrap();
        Self {
            _dir: dir,
            file,
            views,
        }
    }

    /// As after a restart of the process.
    async fn reopen(&mut self) {
        self.views = Views::open(&self.file, LOG).await.unwrap();
    }

    async fn runner(&self) -> Runner {
        Runner::open(&self.views, Clock::Manual(ManualClock::new(time(0))))
            .await
            .unwrap()
    }
}

fn at(position: u64) -> Checkpoint {
    Checkpoint::at(LOG, Position(position))
}

/// Everything that is stored of a view, without revisions: they count the batches.
async fn stored<V: View>(reader: &ViewReader<V>) -> BTreeMap<String, (String, Vec<KeyValue>)> {
    let page = reader
        .store
        .scan(&reader.table, String::new(), 10_000)
        .await
        .unwrap();
    page.into_iter()
        .map(|(document, keys)| (document.id.to_string(), (document.body, keys)))
        .collect()
}

fn expected<V: View>(events: &[Arc<RecordedEvent>]) -> BTreeMap<String, (String, Vec<KeyValue>)> {
    let mut documents: BTreeMap<DocId, Document<V::Part>> = BTreeMap::new();
    for event in events {
        if let Some(id) = V::route(event) {
            documents.entry(id).or_default().fold::<V>(event).unwrap();
        }
    }
    let absent = || vec![KeyValue::Absent; V::KEYS.len()];
    let stored = documents.into_iter().map(|(id, document)| {
        let keys = V::keys(&document).unwrap_or_else(absent);
        (id.to_string(), (serde_json::to_string(&document).unwrap(), keys))
    });
    stored.collect()
}

async fn assert_stored(views: &Views, log: &[Arc<RecordedEvent>]) {
    async fn check<V: View>(reader: &ViewReader<V>, log: &[Arc<RecordedEvent>]) {
        assert_eq!(stored(reader).await, expected::<V>(log), "{}", V::NAME);
    }
    check(views.products(), log).await;
    check(views.stock(), log).await;
    check(views.carts(), log).await;
    check(views.orders(), log).await;
    check(views.order_timeline(), log).await;
    check(views.payments(), log).await;
    check(views.sales(), log).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever the batches, with restarts between them and batches that come twice.
    #[test]
    fn batches_store_what_the_log_folds_to(story in any::<u64>(), split in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let log = Story::tell(story, 5).log(&mut Dice(story));
            let mut shop = Shop::open().await;
            let mut runner = shop.runner().await;
            let (mut dice, mut done) = (Dice(split), 0);
            while done < log.len() {
                let end = (done + 1 + usize::try_from(dice.roll(60)).unwrap()).min(log.len());
                runner.handle(entries(&log[done..end]), at(end as u64)).await.unwrap();
                done = end;
                if dice.chance(4) {
                    shop.reopen().await;
                    runner = shop.runner().await;
                    // The subscription goes on from a checkpoint that is behind the documents.
                    done -= usize::try_from(dice.roll(20)).unwrap().min(done);
                }
            }
            assert_stored(&shop.views, &log).await;
        });
    }
}

/// Race 15: two consumers, one of orders and one of payments, fold into one timeline at once; one guard fails.
#[tokio::test]
async fn a_failed_guard_reloads_and_folds_again() {
    let log = Story::tell(3, 4).log(&mut Dice(3));
    let end = log.len() as u64;
    let orders: Vec<_> = of_types(&log, &[AggregateType::Order]);
    let rest: Vec<_> = of_types(
        &log,
        &[
            AggregateType::Payment,
            AggregateType::Inventory,
            AggregateType::Product,
            AggregateType::Cart,
        ],
    );
    let shop = Shop::open().await;
    let (mut first, mut second) = (shop.runner().await, shop.runner().await);
    // Both have loaded and folded before either writes.
    let orders = Arc::new(entries(&orders));
    let prepared = first.folded(&orders).await;
    second.handle(entries(&rest), at(end)).await.unwrap();
    first.write(&orders, prepared, at(end)).await.unwrap();
    assert_stored(&shop.views, &log).await;
}

/// Race 15 with documents that both know already, so that the guard is on a revision and not on absence.
#[tokio::test]
async fn a_failed_guard_on_a_hot_document_reloads_it() {
    let log = Story::tell(5, 3).log(&mut Dice(5));
    let (head, tail) = log.split_at(log.len() / 2);
    let (middle, end) = (head.len() as u64, log.len() as u64);
    let shop = Shop::open().await;
    let mut first = shop.runner().await;
    first.handle(entries(head), at(middle)).await.unwrap();
    let mut second = shop.runner().await;
    let orders = Arc::new(entries(&of_types(tail, &[AggregateType::Order])));
    let others = [
        AggregateType::Payment,
        AggregateType::Inventory,
        AggregateType::Product,
        AggregateType::Cart,
    ];
    let prepared = first.folded(&orders).await;
    second
        .handle(entries(&of_types(tail, &others)), at(end))
        .await
        .unwrap();
    first.write(&orders, prepared, at(end)).await.unwrap();
    assert_stored(&shop.views, &log).await;
    // What both wrote is what readers of either see.
    shop.views
        .order_timeline()
        .get(&order_id(1).into())
        .await
        .unwrap()
        .unwrap();
}

/// Dying right after a guard has failed: what was not written is not accounted for.
#[tokio::test]
async fn a_checkpoint_waits_for_the_documents_that_moved() {
    let log = Story::tell(3, 4).log(&mut Dice(3));
    let end = log.len() as u64;
    let (orders, rest): (Vec<_>, Vec<_>) = log
        .iter()
        .cloned()
        .partition(|event| event.stream.aggregate_type == AggregateType::Order);
    let mut shop = Shop::open().await;
    let (mut dying, mut other) = (shop.runner().await, shop.runner().await);
    let prepared = dying.folded(&Arc::new(entries(&orders))).await;
    other.handle(entries(&rest), at(0)).await.unwrap();
    let moved = dying.write_once(prepared, at(end)).await.unwrap();
    assert!(moved.iter().any(|moved| !moved.is_empty()));

    shop.reopen().await;
    assert_eq!(shop.views.order_timeline().position(), Position(0));
    shop.runner().await.handle(entries(&log), at(end)).await.unwrap();
    assert_stored(&shop.views, &log).await;
}

/// Race 16: the projector dies between its writes and its ack.
#[tokio::test]
async fn a_batch_that_was_stored_without_its_checkpoint_comes_again_and_changes_nothing() {
    let log = Story::tell(8, 4).log(&mut Dice(8));
    let end = log.len() as u64;
    let mut shop = Shop::open().await;
    let mut dying = shop.runner().await;
    let batch = Arc::new(entries(&log));
    let prepared = dying.folded(&batch).await;
    dying.write_without_checkpoint(&batch, prepared).await.unwrap();
    let before = revisions(&shop.views).await;
    assert_eq!(shop.views.orders().position(), Position(0));

    shop.reopen().await;
    let mut runner = shop.runner().await;
    runner.handle(entries(&log), at(end)).await.unwrap();
    assert_stored(&shop.views, &log).await;
    // Not even the revisions, which entity tags are made of.
    assert_eq!(revisions(&shop.views).await, before);
    assert_eq!(shop.views.orders().position(), Position(end));
}

/// Race 17: stock is seen before the variant is.
#[tokio::test]
async fn a_product_shows_its_stock_once_both_are_seen() {
    let mut story = Story::default();
    let stock = StreamId::new(AggregateType::Inventory, &sku(1));
    story.push(
        stock.clone(),
        InventoryEvent::SkuAssigned {
            product_id: product_id(1),
        },
    );
    let delivery = Reference::new("delivery 1").unwrap();
    story.push(
        stock,
        InventoryEvent::StockReceived {
            quantity: 7,
            reference: delivery,
        },
    );
    let product = StreamId::new(AggregateType::Product, product_id(1));
    let details = event_schemas::ProductDetails {
        title: "Mug".to_owned(),
        ..Default::default()
    };
    story.push(product.clone(), ProductEvent::ProductCreated { details });
    let (price, option_values) = (money(5), BTreeMap::new());
    story.push(
        product,
        ProductEvent::VariantAdded {
            sku: sku(1),
            option_values,
            price,
            tracked: true,
        },
    );
    let log = story.log(&mut Dice(0));
    let shop = Shop::open().await;
    let mut runner = shop.runner().await;

    runner
        .handle(entries(&of_types(&log, &[AggregateType::Inventory])), at(0))
        .await
        .unwrap();
    let product = || async { shop.views.product(&product_id(1).into()).await.unwrap() };
    assert!(product().await.is_none());
    assert!(shop.views.product_of_sku(&sku(1)).await.unwrap().is_none());
    runner
        .handle(entries(&of_types(&log, &[AggregateType::Product])), at(4))
        .await
        .unwrap();
    let shown = product().await.unwrap();
    assert_eq!(shown.product.variants[0].available, Some(7));
    assert!(shop.views.product_of_sku(&sku(1)).await.unwrap().is_some());

    // A change of the stock alone changes what is shown, and its entity tag.
    let sold = RecordedEvent {
        position: Position(5),
        version: Version(3),
        event: InventoryEvent::StockReserved {
            order_id: order_id(1),
            quantity: 2,
        }
        .into(),
        stream: StreamId::new(AggregateType::Inventory, &sku(1)),
        ..(*log[0]).clone()
    };
    runner.handle(entries(&[Arc::new(sold)]), at(5)).await.unwrap();
    let later = product().await.unwrap();
    assert_eq!(later.product.variants[0].available, Some(5));
    assert_ne!(later.etag(), shown.etag());
}

/// An event that does not fold parks its aggregate, in order, and the rest goes on.
#[tokio::test]
async fn poison_parks_its_aggregate_only() {
    let log = Story::tell(11, 3).log(&mut Dice(11));
    let poisoned = StreamId::new(AggregateType::Order, order_id(2));
    // The order's first event is missing: what follows has nothing to fold into.
    let broken: Vec<_> = log
        .iter()
        .filter(|event| event.stream != poisoned || event.version > Version(1))
        .cloned()
        .collect();
    let without: Vec<_> = log
        .iter()
        .filter(|event| event.stream != poisoned)
        .cloned()
        .collect();
    let (middle, end) = (broken.len() / 2, log.len() as u64);
    let mut shop = Shop::open().await;
    let mut runner = shop.runner().await;
    let split = broken[middle].position.0 - 1;
    runner
        .handle(entries(&broken[..middle]), at(split))
        .await
        .unwrap();
    // Also across a restart.
    shop.reopen().await;
    runner = shop.runner().await;
    runner.handle(entries(&broken[middle..]), at(end)).await.unwrap();

    assert_eq!(stored(shop.views.orders()).await, expected::<Orders>(&without));
    let letters = runner
        .letters()
        .into_iter()
        .find(|(view, _)| *view == "orders")
        .unwrap()
        .1;
    let parked = letters.show(&poisoned.to_string()).await.unwrap();
    let versions: Vec<_> = parked.iter().map(|letter| letter.event_id.version).collect();
    let missed: Vec<_> = broken
        .iter()
        .filter(|event| event.stream == poisoned)
        .map(|event| event.version)
        .collect();
    assert_eq!(versions, missed);
    assert!(parked[0].reason.is_some() && parked[1..].iter().all(|letter| letter.reason.is_none()));
    // A timeline takes any event: nothing of it is parked there.
    let timeline = stored(shop.views.order_timeline()).await;
    assert_eq!(timeline, expected::<OrderTimeline>(&broken));
    let letters = runner
        .letters()
        .into_iter()
        .find(|(view, _)| *view == "order_timeline")
        .unwrap()
        .1;
    assert!(letters.none_parked());

    // Once the reason is mended (here: the missing event turns up), the letters fold in order.
    let first = log.iter().find(|event| event.stream == poisoned).unwrap();
    runner.redo("orders", Arc::clone(first)).await.unwrap();
    for event in broken.iter().filter(|event| event.stream == poisoned) {
        runner.redo("orders", Arc::clone(event)).await.unwrap();
    }
    assert_eq!(stored(shop.views.orders()).await, expected::<Orders>(&log));
}

/// Another version of a view or another log: nothing of the old documents is continued.
#[tokio::test]
async fn a_view_of_another_log_begins_anew() {
    let log = Story::tell(2, 2).log(&mut Dice(2));
    let shop = Shop::open().await;
    shop.runner()
        .await
        .handle(entries(&log), at(log.len() as u64))
        .await
        .unwrap();
    let etag = shop
        .views
        .orders()
        .get(&order_id(1).into())
        .await
        .unwrap()
        .unwrap()
        .etag();
    let restored = LogIdentity { epoch: 2, ..LOG };
    let views = Views::open(&shop.file, restored).await.unwrap();
    assert_eq!(views.orders().position(), Position(0));
    assert!(views.orders().get(&order_id(1).into()).await.unwrap().is_none());
    let mut runner = Runner::open(&views, Clock::Manual(ManualClock::new(time(0))))
        .await
        .unwrap();
    let checkpoint = Checkpoint::at(restored, Position(log.len() as u64));
    runner.handle(entries(&log), checkpoint).await.unwrap();
    assert_stored(&views, &log).await;
    // Race 19: an entity tag or cache entry of the old generation can't pass for one of the new.
    assert_ne!(
        views
            .orders()
            .get(&order_id(1).into())
            .await
            .unwrap()
            .unwrap()
            .etag(),
        etag
    );
}

/// Delivered in another interleaving, the stored bytes are the same.
#[tokio::test]
async fn another_interleaving_stores_the_same_bytes() {
    let log = Story::tell(21, 6).log(&mut Dice(21));
    let shop = Shop::open().await;
    let mut runner = shop.runner().await;
    for batch in deliver_again(&log, &mut Dice(4)).chunks(17) {
        runner.handle(entries(batch), at(0)).await.unwrap();
    }
    assert_stored(&shop.views, &log).await;
}

/// What is cached is replaced by what is written, and what is read before a write is not cached after it.
#[tokio::test]
async fn the_cache_never_shows_less_than_was_announced() {
    let log = Story::tell(9, 1).log(&mut Dice(9));
    let orders = of_types(&log, &[AggregateType::Order]);
    let shop = Shop::open().await;
    let mut runner = shop.runner().await;
    let id = order_id(1).into();
    let reader = shop.views.orders();
    runner.handle(entries(&orders[..1]), at(1)).await.unwrap();
    // A slow reader has loaded the document, and then it is written.
    let ticket = reader.cache.ticket(&id);
    let stale = reader.get(&id).await.unwrap().unwrap();
    reader.cache.forget(&id);
    runner
        .handle(entries(&orders[1..2]), at(orders[1].position.0))
        .await
        .unwrap();
    reader.cache.fill(&ticket, &stale);
    let now = reader.get(&id).await.unwrap().unwrap();
    assert_eq!(now.doc.version, Version(2));
    // Written through.
    runner
        .handle(entries(&orders[2..3]), at(orders[2].position.0))
        .await
        .unwrap();
    assert_eq!(reader.cache.get(&id).unwrap().doc.version, Version(3));
}

/// Whoever has seen the view's position move reads what it stands for, cached documents included.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_is_announced_after_its_documents() {
    let shop = Shop::open().await;
    let reader = shop.views.orders().clone();
    let first = DocId::from(order_id(1));
    let apart = |number: &u64| !reader.cache.share_a_slot(&first, &order_id(*number).into());
    let number = (2..1_000).find(apart).unwrap();
    let second = DocId::from(order_id(number));
    let event = |position, number, version, event: OrderEvent| RecordedEvent {
        position: Position(position),
        stream: StreamId::new(AggregateType::Order, order_id(number)),
        version: Version(version),
        event: event.into(),
        metadata: metadata(ActorKind::System, "test"),
        recorded_at: time(position),
    };
    let lines = [(sku(1), 1, 1)];
    let agreed = |number| placed(order_id(number), customer_id(1), &lines, time(1));
    let placed = |position, number| {
        event(
            position,
            number,
            1,
            OrderEvent::OrderPlaced(Box::new(agreed(number))),
        )
    };
    let reserved = |position, number| event(position, number, 2, OrderEvent::OrderReserved {});
    let mut runner = shop.runner().await;
    let both = [Arc::new(placed(1, 1)), Arc::new(placed(2, number))];
    runner.handle(entries(&both), at(2)).await.unwrap();
    reader.get_many(&[first.clone(), second.clone()]).await.unwrap();

    let both = entries(&[Arc::new(reserved(3, 1)), Arc::new(reserved(4, number))]);
    let version = |id: &DocId| reader.cache.get(id).unwrap().doc.version;
    let between = std::thread::scope(|scope| {
        let held = reader.cache.hold(&second);
        let runtime = tokio::runtime::Handle::current();
        let handling = scope.spawn(move || runtime.block_on(runner.handle(both, at(4))));
        // The first document is shown and the second is not: the projector stands between them.
        while version(&first) < Version(2) {
            assert!(!handling.is_finished());
            std::thread::yield_now();
        }
        let position = reader.position();
        drop(held);
        handling.join().unwrap().unwrap();
        position
    });
    assert_eq!(between, Position(2));
    assert_eq!((reader.position(), version(&second)), (Position(4), Version(2)));
}

fn of_types(log: &[Arc<RecordedEvent>], types: &[AggregateType]) -> Vec<Arc<RecordedEvent>> {
    log.iter()
        .filter(|event| types.contains(&event.stream.aggregate_type))
        .cloned()
        .collect()
}

async fn revisions(views: &Views) -> Vec<(String, u64)> {
    let page = views
        .orders()
        .store
        .scan(&views.orders().table, String::new(), 10_000)
        .await
        .unwrap();
    let timeline = views.order_timeline();
    let more = timeline
        .store
        .scan(&timeline.table, String::new(), 10_000)
        .await
        .unwrap();
    page.into_iter()
        .chain(more)
        .map(|(document, _)| (document.id.to_string(), document.rev))
        .collect()
}
