//! Batches against a real store: guards, crashes, poison.

#[cfg(feature = "cluster")]
mod cluster;
mod in_process;
#[path = "../../../tests/support/mod.rs"]
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
use crate::payments::Payments;
use crate::query::KeyValue;
use crate::reader::ViewReader;
use crate::store::StoredDocument;
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
    views: Views,
    stores: Stores,
}

/// Where the read models are.
enum Stores {
    Sqlite(SqliteFile, #[expect(dead_code, reason = "kept")] TempDir),
    #[cfg(feature = "cluster")]
    Cluster(crate::ViewsCluster, #[expect(dead_code, reason = "kept")] TempDir),
}

impl Stores {
    async fn open(&self, log: LogIdentity) -> Views {
        match self {
            Self::Sqlite(file, _) => Views::open_sqlite(file, log).await.unwrap(),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster, _) => Views::open_cluster(cluster.clone(), log).await.unwrap(),
        }
    }
}

fn file(dir: &TempDir) -> SqliteFile {
    let options = Options {
        synchronous: Synchronous::Normal,
        readers: 1,
    };
    SqliteFile::open(dir.path().join("views.db"), options).unwrap()
}

impl Shop {
    async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::on(Stores::Sqlite(file(&dir), dir)).await
    }

    async fn on(stores: Stores) -> Self {
        Self {
            views: stores.open(LOG).await,
            stores,
        }
    }

    /// As after a restart of the process.
    async fn reopen(&mut self) {
        self.views = self.stores.open(LOG).await;
    }

    async fn runner(&self) -> Runner {
        runner(&self.views).await
    }
}

async fn runner(views: &Views) -> Runner {
    let mut rows = views.rows().await.unwrap();
    rows.retain(|row| row.reached.log == views.log());
    Runner::open(views, rows, Clock::Manual(ManualClock::new(time(0))))
        .await
        .unwrap()
}

macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::Shop::sqlite().await).await;
            })*
        }

        #[cfg(feature = "cluster")]
        mod mongo {
            $(#[tokio::test]
            async fn $case() {
                super::cluster::with_shop(super::$case).await;
            })*
        }
    };
}

conformance!(
    batches_store_what_the_log_folds_to,
    a_failed_guard_reloads_and_folds_again,
    a_failed_guard_on_a_hot_document_reloads_it,
    a_checkpoint_waits_for_the_documents_that_moved,
    a_batch_that_was_stored_without_its_checkpoint_comes_again_and_changes_nothing,
    a_product_shows_its_stock_once_both_are_seen,
    poison_parks_its_aggregate_only,
    what_another_process_moved_on_is_no_poison,
    a_view_of_another_log_begins_anew,
    another_interleaving_stores_the_same_bytes,
);

fn at(position: u64) -> Checkpoint {
    Checkpoint::at(LOG, Position(position))
}

/// Everything that is stored of a view, without revisions: they count the batches.
async fn stored<V: View>(reader: &ViewReader<V>) -> BTreeMap<String, (String, Vec<KeyValue>)> {
    let generation = reader.current();
    let page = generation
        .store
        .scan(&generation.table, String::new(), 10_000)
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

    #[test]
    fn any_batches_store_what_the_log_folds_to(story in any::<u64>(), split in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            fold_in_batches(Shop::sqlite().await, story, split).await;
        });
    }
}

async fn batches_store_what_the_log_folds_to(shop: Shop) {
    fold_in_batches(shop, 17, 4).await;
}

/// Whatever the batches, with restarts between them and batches that come twice.
async fn fold_in_batches(mut shop: Shop, story: u64, split: u64) {
    let log = Story::tell(story, 5).log(&mut Dice(story));
    let mut runner = shop.runner().await;
    let (mut dice, mut done) = (Dice(split), 0);
    while done < log.len() {
        let end = (done + 1 + usize::try_from(dice.roll(60)).unwrap()).min(log.len());
        runner
            .handle(entries(&log[done..end]), at(end as u64))
            .await
            .unwrap();
        done = end;
        if dice.chance(4) {
            shop.reopen().await;
            runner = shop.runner().await;
            // The subscription goes on from a checkpoint that is behind the documents.
            done -= usize::try_from(dice.roll(20)).unwrap().min(done);
        }
    }
    assert_stored(&shop.views, &log).await;
}

/// Race 15: two consumers, one of orders and one of payments, fold into one timeline at once; one guard fails.
async fn a_failed_guard_reloads_and_folds_again(shop: Shop) {
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
    let (mut first, mut second) = (shop.runner().await, shop.runner().await);
    // Both have loaded and folded before either writes.
    let orders = Arc::new(entries(&orders));
    let prepared = first.folded(&orders).await;
    second.handle(entries(&rest), at(end)).await.unwrap();
    first.write(&orders, prepared, at(end)).await.unwrap();
    assert_stored(&shop.views, &log).await;
}

/// Race 15 with documents that both know already, so that the guard is on a revision and not on absence.
async fn a_failed_guard_on_a_hot_document_reloads_it(shop: Shop) {
    let log = Story::tell(5, 3).log(&mut Dice(5));
    let (head, tail) = log.split_at(log.len() / 2);
    let (middle, end) = (head.len() as u64, log.len() as u64);
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
async fn a_checkpoint_waits_for_the_documents_that_moved(mut shop: Shop) {
    let log = Story::tell(3, 4).log(&mut Dice(3));
    let end = log.len() as u64;
    let (orders, rest): (Vec<_>, Vec<_>) = log
        .iter()
        .cloned()
        .partition(|event| event.stream.aggregate_type == AggregateType::Order);
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
async fn a_batch_that_was_stored_without_its_checkpoint_comes_again_and_changes_nothing(mut shop: Shop) {
    let log = Story::tell(8, 4).log(&mut Dice(8));
    let end = log.len() as u64;
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
async fn a_product_shows_its_stock_once_both_are_seen(shop: Shop) {
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
async fn poison_parks_its_aggregate_only(mut shop: Shop) {
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

/// A document in memory is behind what another process has stored: an event that does not fold into it folds into that.
async fn what_another_process_moved_on_is_no_poison(shop: Shop) {
    let log = Story::tell(7, 2).log(&mut Dice(7));
    let payment = log
        .iter()
        .find(|event| event.stream.aggregate_type == AggregateType::Payment);
    let stream = &payment.unwrap().stream;
    let of_payment: Vec<_> = log
        .iter()
        .filter(|event| event.stream == *stream)
        .cloned()
        .collect();
    let fails_alone = |count: &usize| {
        let mut document = Document::default();
        document.fold::<Payments>(&of_payment[0]).unwrap();
        document.fold::<Payments>(&of_payment[*count]).is_err()
    };
    // The first event that needs what came between.
    let next = (2..of_payment.len()).find(fails_alone).unwrap();
    let (mut here, mut there) = (shop.runner().await, shop.runner().await);
    here.handle(entries(&of_payment[..1]), at(0)).await.unwrap();
    there.handle(entries(&of_payment[1..next]), at(0)).await.unwrap();
    here.handle(entries(&of_payment[next..]), at(0)).await.unwrap();
    assert_eq!(
        stored(shop.views.payments()).await,
        expected::<Payments>(&of_payment)
    );
    assert!(here.letters().iter().all(|(_, letters)| letters.none_parked()));
}

/// Another version of a view or another log: nothing of the old documents is continued.
async fn a_view_of_another_log_begins_anew(shop: Shop) {
    let log = Story::tell(2, 2).log(&mut Dice(2));
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
    let views = shop.stores.open(restored).await;
    assert_eq!(views.orders().position(), Position(0));
    assert!(views.orders().get(&order_id(1).into()).await.unwrap().is_none());
    let mut runner = runner(&views).await;
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
async fn another_interleaving_stores_the_same_bytes(shop: Shop) {
    let log = Story::tell(21, 6).log(&mut Dice(21));
    let mut runner = shop.runner().await;
    for batch in deliver_again(&log, &mut Dice(4)).chunks(17) {
        runner.handle(entries(batch), at(0)).await.unwrap();
    }
    assert_stored(&shop.views, &log).await;
}

fn of_types(log: &[Arc<RecordedEvent>], types: &[AggregateType]) -> Vec<Arc<RecordedEvent>> {
    log.iter()
        .filter(|event| types.contains(&event.stream.aggregate_type))
        .cloned()
        .collect()
}

async fn revisions(views: &Views) -> Vec<(String, u64)> {
    async fn scan<V: View>(reader: &ViewReader<V>) -> Vec<(StoredDocument, Vec<KeyValue>)> {
        let generation = reader.current();
        let scan = generation.store.scan(&generation.table, String::new(), 10_000);
        scan.await.unwrap()
    }
    let page = scan(views.orders()).await;
    let more = scan(views.order_timeline()).await;
    page.into_iter()
        .chain(more)
        .map(|(document, _)| (document.id.to_string(), document.rev))
        .collect()
}
