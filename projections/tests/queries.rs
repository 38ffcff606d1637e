//! Lists, filters, cursors and reports.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use event_schemas::{
    ActorKind, AggregateType, CancelReason, Clock, CommandId, Event, ManualClock, Metadata, OrderEvent,
    OrderStage, PaymentId, ProductDetails, ProductEvent, StreamId, Version,
};
use event_store::{Append, AppendOutcome, Chain, Log, LogOptions};
use jiff::civil::date;
use projections::orders::{OrderFilter, OrderStatus};
use projections::products::{ProductFilter, ProductSort, ProductStatus};
use projections::sales::{SalesBy, SalesFilter};
use projections::{After, Projector, Query, ViewError, Views};
use sqlite_file::{Options, SqliteFile, Synchronous};
use support::{code, customer_id, metadata, money, order_id, placed, product_id, sku, time, uuid};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

struct Shop {
    _dir: TempDir,
    views: Views,
    _projector: Projector,
}

impl Shop {
    /// A shop in which this has happened; each stream's events together.
    async fn with(streams: Vec<(StreamId, Vec<Event>)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let options = Options {
                synchronous: Synchronous::Normal,
                readers: 2,
            };
            SqliteFile::open(dir.path().join(name), options).unwrap()
        };
        let clock = Clock::Manual(ManualClock::new(time(0)));
        let options = LogOptions {
            clock: clock.clone(),
            ..LogOptions::default()
        };
        let log = Log::open(&open("log.db"), options).await.unwrap();
        let views = Views::open_sqlite(&open("views.db"), log.identity())
            .await
            .unwrap();
        let projector = Projector::start(&log, &views, clock, CancellationToken::new())
            .await
            .unwrap();
        for (number, (stream, events)) in (1..).zip(streams) {
            let metadata = Metadata {
                command_id: CommandId::from_uuid(uuid(9, number)),
                ..metadata(ActorKind::Staff, "staff")
            };
            let append = Append {
                stream,
                expected: Version(0),
                events,
                metadata,
                fingerprint: None,
            };
            let outcome = log.journal().append(&Chain::new(), append).await;
            assert!(matches!(outcome, AppendOutcome::Appended(_)), "{outcome:?}");
        }
        let deadline = Instant::now() + std::time::Duration::from_secs(30);
        assert!(views.reach(log.head().await.unwrap(), deadline).await);
        Self {
            _dir: dir,
            views,
            _projector: projector,
        }
    }

    async fn product_titles(&self, filter: &ProductFilter) -> Vec<String> {
        let mut titles = Vec::new();
        let mut after: Option<After> = None;
        loop {
            // A cursor survives its way through a client.
            let page = self
                .views
                .products()
                .find(&filter.page(after.take(), 2))
                .await
                .unwrap();
            assert!(page.items.len() <= 2);
            titles.extend(page.items.iter().map(|product| product.doc.title.clone()));
            let Some(next) = page.next else { return titles };
            after = Some(serde_json::from_str(&serde_json::to_string(&next).unwrap()).unwrap());
        }
    }

    async fn orders(&self, filter: &OrderFilter) -> Vec<String> {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = self.views.orders().find(&filter.page(after, 3)).await.unwrap();
            ids.extend(page.items.iter().map(|order| order.id.to_string()));
            after = page.next;
            if after.is_none() {
                return ids;
            }
        }
    }
}

fn product(number: u64, title: &str, category: &str, price: i64) -> (StreamId, Vec<Event>) {
    let details = ProductDetails {
        title: title.to_owned(),
        category: Some(category.to_owned()),
        ..ProductDetails::default()
    };
    let variant = ProductEvent::VariantAdded {
        sku: sku(number),
        option_values: BTreeMap::new(),
        price: money(price),
        tracked: true,
    };
    let mut events: Vec<Event> = vec![ProductEvent::ProductCreated { details }.into(), variant.into()];
    if number < 100 {
        events.push(ProductEvent::ProductPublished {}.into());
    }
    (StreamId::new(AggregateType::Product, product_id(number)), events)
}

fn catalogue() -> Vec<(StreamId, Vec<Event>)> {
    vec![
        product(1, "Blue Mug", "mugs", 700),
        product(2, "red mug, large", "mugs", 500),
        product(3, "Äpfel & Birnen", "fruit", 300),
        product(4, "Green Plate", "plates", 500),
        product(5, "blue plate", "plates", 900),
        product(100, "Draft Mug", "mugs", 1),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn products_are_filtered_sorted_and_paged() {
    let shop = Shop::with(catalogue()).await;
    let published = ProductFilter {
        status: Some(ProductStatus::Published),
        ..ProductFilter::default()
    };
    let titles = shop.product_titles(&published).await;
    assert_eq!(
        titles,
        [
            "Blue Mug",
            "blue plate",
            "Green Plate",
            "red mug, large",
            "Äpfel & Birnen"
        ]
    );

    let sorted = |sort| ProductFilter {
        sort,
        ..published.clone()
    };
    let cheapest = shop.product_titles(&sorted(ProductSort::PriceAscending)).await;
    assert_eq!(cheapest[0], "Äpfel & Birnen");
    assert_eq!(cheapest[4], "blue plate");
    let mut reversed = shop.product_titles(&sorted(ProductSort::PriceDescending)).await;
    reversed.reverse();
    assert_eq!(reversed, cheapest);
    assert_eq!(shop.product_titles(&sorted(ProductSort::Newest)).await.len(), 5);

    let mugs = ProductFilter {
        category: Some("mugs".to_owned()),
        ..published.clone()
    };
    assert_eq!(shop.product_titles(&mugs).await, ["Blue Mug", "red mug, large"]);
    let all_mugs = ProductFilter {
        category: Some("mugs".to_owned()),
        ..ProductFilter::default()
    };
    assert_eq!(
        shop.product_titles(&all_mugs).await,
        ["Blue Mug", "Draft Mug", "red mug, large"]
    );

    let search = |text: &str| ProductFilter {
        text: Some(text.to_owned()),
        ..published.clone()
    };
    assert_eq!(
        shop.product_titles(&search("BLUE")).await,
        ["Blue Mug", "blue plate"]
    );
    assert_eq!(shop.product_titles(&search("mug re")).await, ["red mug, large"]);
    assert_eq!(shop.product_titles(&search("äpfel")).await, ["Äpfel & Birnen"]);
    assert_eq!(shop.product_titles(&search("' OR 1=1 --")).await, [""; 0]);
    // No word at all filters nothing.
    assert_eq!(shop.product_titles(&search("%_")).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_can_name_declared_keys_only() {
    let shop = Shop::with(catalogue()).await;
    let refused = shop
        .views
        .products()
        .find(&Query::new(1).equals("body", "x"))
        .await
        .unwrap_err();
    assert_eq!(
        refused,
        ViewError::UnknownKey {
            view: "products",
            key: "body"
        }
    );
    let by_id = shop.views.products().find(&Query::new(4)).await.unwrap();
    let rest = shop
        .views
        .products()
        .find(&Query::new(4).after(by_id.next))
        .await
        .unwrap();
    assert_eq!((by_id.items.len(), rest.items.len(), rest.next), (4, 2, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn availability_is_joined_for_a_list() {
    let shop = Shop::with(catalogue()).await;
    let page = shop
        .views
        .products()
        .find(&ProductFilter::default().page(None, 10))
        .await
        .unwrap();
    let joined = shop.views.with_availability(&page.items).await.unwrap();
    assert_eq!(joined.len(), 6);
    assert!(
        joined
            .iter()
            .all(|product| product.variants[0].available == Some(0))
    );
}

fn order(
    number: u64,
    customer: u64,
    day: u64,
    country: &str,
    then: Vec<OrderEvent>,
) -> (StreamId, Vec<Event>) {
    let lines = [(sku(1), 2, 450), (sku(2), 1, 100), (sku(1), 1, 400)];
    let mut agreed = placed(
        order_id(number),
        customer_id(customer),
        &lines,
        time(day * 86_400),
    );
    agreed.country = event_schemas::CountryCode::new(country).unwrap();
    let events = [OrderEvent::OrderPlaced(Box::new(agreed))]
        .into_iter()
        .chain(then)
        .map(Event::from)
        .collect();
    (StreamId::new(AggregateType::Order, order_id(number)), events)
}

fn paid(number: u64) -> OrderEvent {
    OrderEvent::OrderPaid {
        payment_id: PaymentId::for_order(order_id(number)),
        attempt: 1,
        amount: money(1_400),
    }
}

fn cancelled() -> OrderEvent {
    let reason = CancelReason::Staff {
        code: code("mistake"),
    };
    OrderEvent::OrderCancelled {
        reason,
        by: ActorKind::Staff,
        stage: OrderStage::Placed,
    }
}

fn some_orders() -> Vec<(StreamId, Vec<Event>)> {
    vec![
        order(1, 1, 1, "GB", vec![paid(1)]),
        order(2, 1, 3, "FR", vec![paid(2)]),
        order(3, 2, 2, "GB", vec![]),
        order(4, 1, 2, "GB", vec![cancelled()]),
        order(5, 2, 3, "GB", vec![paid(5)]),
        order(6, 2, 9, "GB", vec![paid(6), cancelled()]),
        order(7, 1, 2, "GB", vec![]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_listed_newest_first_by_customer_status_and_time() {
    let shop = Shop::with(some_orders()).await;
    let ids = |numbers: &[u64]| -> Vec<String> {
        numbers
            .iter()
            .map(|number| order_id(*number).to_string())
            .collect()
    };
    let mine = OrderFilter::of(customer_id(1));
    // Two on one day: the id decides, in the list's direction.
    assert_eq!(shop.orders(&mine).await, ids(&[2, 7, 4, 1]));
    let status = OrderFilter {
        status: Some(OrderStatus::Paid),
        ..OrderFilter::default()
    };
    assert_eq!(shop.orders(&status).await, ids(&[5, 2, 1]));
    let both = OrderFilter {
        status: Some(OrderStatus::Placed),
        ..mine
    };
    assert_eq!(shop.orders(&both).await, ids(&[7]));
    let (from, until) = (Some(time(2 * 86_400)), Some(time(3 * 86_400)));
    let day = OrderFilter {
        from,
        until,
        ..OrderFilter::default()
    };
    assert_eq!(shop.orders(&day).await, ids(&[7, 4, 3]));
    assert_eq!(shop.orders(&OrderFilter::default()).await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn sales_are_summed_by_day_sku_and_country() {
    let shop = Shop::with(some_orders()).await;
    let day = |days: u64| time(days * 86_400).to_string()[..10].to_owned();
    let filter = SalesFilter {
        from: date(2023, 11, 1),
        to: date(2023, 12, 31),
        country: None,
    };
    let by_day = shop.views.sales_report(&filter, SalesBy::Day).await.unwrap();
    let rows: Vec<_> = by_day
        .rows
        .iter()
        .map(|row| (row.key.clone(), row.orders, row.units, row.revenue))
        .collect();
    assert_eq!(rows, [(day(1), 1, 4, 1_400), (day(3), 2, 8, 2_800)]);
    // Cancelled and unpaid orders are no sales.
    assert_eq!(
        (by_day.total.orders, by_day.total.lines, by_day.total.paid),
        (3, 9, Some(4_200))
    );

    let by_sku = shop.views.sales_report(&filter, SalesBy::Sku).await.unwrap();
    let rows: Vec<_> = by_sku
        .rows
        .iter()
        .map(|row| (row.key.as_str(), row.orders, row.lines, row.units, row.revenue))
        .collect();
    assert_eq!(rows, [("MUG-1", 3, 6, 9, 3_900), ("MUG-2", 3, 3, 3, 300)]);

    let by_country = shop.views.sales_report(&filter, SalesBy::Country).await.unwrap();
    let rows: Vec<_> = by_country
        .rows
        .iter()
        .map(|row| (row.key.as_str(), row.orders, row.paid))
        .collect();
    assert_eq!(rows, [("FR", 1, Some(1_400)), ("GB", 2, Some(2_800))]);

    // Both ends belong to it.
    let third = day(3).parse().unwrap();
    let one_day = SalesFilter {
        from: third,
        to: third,
        country: Some("GB".parse().unwrap()),
    };
    assert_eq!(
        shop.views
            .sales_report(&one_day, SalesBy::Day)
            .await
            .unwrap()
            .total
            .orders,
        1
    );
}
