//! The real router before real read models in a directory of their own, folded from a real log.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use database::Database;
use event_bus::{DeadLetters, Healing, NewDeadLetter};
use event_schemas::{
    AccountId, Actor, ActorKind, AggregateType, CartEvent, CartId, Clock, Code, CommandId, CorrelationId,
    CountryCode, Currency, CustomerId, Event, EventId, InventoryEvent, ManualClock, Metadata, Money,
    OrderEvent, OrderId, OrderLine, OrderPlaced, PaymentEvent, PaymentId, PaymentMethod, Position,
    ProductDetails, ProductEvent, ProductId, ProviderRef, Reference, ShippingCharge, Sku, StreamId, Tax,
    Timestamp, Totals, Version,
};
use event_store::{Append, AppendOutcome, Chain, Log, LogOptions};
use http_body_util::BodyExt as _;
use http_conventions::ConsistencyToken;
use identity::verifier::Role;
use identity::{Identity, KeySource, Settings};
use projections::{Projector, Views};
use query_api::QueryApi;
use serde_json::Value;
use sqlite_file::SqliteFile;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

/// Far longer than anything here takes.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}

pub struct Shop {
    pub clock: ManualClock,
    pub views: Views,
    pub router: Router,
    pub paths: Value,
    pub log_file: SqliteFile,
    log: Log,
    database: Database,
    identity: Identity,
    projector: Option<Projector>,
    versions: std::sync::Mutex<BTreeMap<StreamId, u64>>,
    commands: AtomicU64,
    _dir: tempfile::TempDir,
}

pub async fn start() -> Shop {
    start_with(Duration::from_secs(10)).await
}

/// `wait`: how long `at_least` waits.
pub async fn start_with(wait: Duration) -> Shop {
    let dir = tempfile::tempdir().unwrap();
    let file = SqliteFile::open(dir.path().join("log.db"), sqlite_file::Options::default()).unwrap();
    let views_file = SqliteFile::open(dir.path().join("views.db"), sqlite_file::Options::default()).unwrap();
    let clock = ManualClock::new("2026-03-01T12:00:00Z".parse().unwrap());
    let log = Log::open(
        &file,
        LogOptions {
            clock: clock.clone().into(),
            ..LogOptions::default()
        },
    )
    .await
    .unwrap();
    let keys = KeySource::Directory(dir.path().to_path_buf());
    let identity = Identity::open(&file, keys, Settings::default(), clock.clone().into())
        .await
        .unwrap();
    let views = Views::open_sqlite(&views_file, log.identity()).await.unwrap();
    let cancel = CancellationToken::new();
    let projector = Projector::start(&log, &views, Clock::System, cancel)
        .await
        .unwrap();
    let api = QueryApi {
        views: views.clone(),
        healing: Healing::open([Database::from(&file), Database::from(&views_file)])
            .await
            .unwrap(),
        verifier: identity.verifier(),
        clock: clock.clone().into(),
        log: log.clone(),
        wait,
    };
    let (router, document) = query_api::router(api).split_for_parts();
    Shop {
        clock,
        views,
        router,
        paths: serde_json::to_value(&document).unwrap()["paths"].take(),
        database: (&file).into(),
        log_file: file,
        log,
        identity,
        projector: Some(projector),
        versions: std::sync::Mutex::default(),
        commands: AtomicU64::new(1),
        _dir: dir,
    }
}

impl Shop {
    /// An event of the order that a subscriber could not handle.
    pub async fn park(&self, subscriber: &str, order: &str) {
        let letters = DeadLetters::open(&self.database, subscriber).await.unwrap();
        let stream = StreamId::new(AggregateType::Order, order);
        let letter = NewDeadLetter {
            scope: stream.to_string().into(),
            position: Position(1),
            event_id: EventId {
                stream,
                version: Version(1),
            },
            event_type: "OrderPlaced".to_owned(),
            reason: Some("broken".to_owned()),
            parked_at: Clock::System.now(),
        };
        letters.park(letter).await.unwrap();
    }

    pub async fn token(&self, role: Role, account: u128) -> String {
        let id = AccountId::from_uuid(Uuid::from_u128(account));
        self.identity.create_bare_accounts(&[(id, role)]).await.unwrap();
        self.identity.mint_access_token(id).await.unwrap().token
    }

    pub async fn set_role(&self, account: u128, role: Role) {
        let id = AccountId::from_uuid(Uuid::from_u128(account));
        self.identity.set_role(id, role).await.unwrap();
    }

    /// The read models stay as they are from now on.
    pub async fn freeze(&mut self) {
        self.projector.take().unwrap().stop().await;
    }

    /// Stores events of one aggregate; the answer is what a receipt would carry.
    pub async fn append(
        &self,
        stream: StreamId,
        actor: &Actor,
        events: impl IntoIterator<Item = impl Into<Event>>,
    ) -> ConsistencyToken {
        let events: Vec<Event> = events.into_iter().map(Into::into).collect();
        let expected = {
            let mut versions = self.versions.lock().unwrap();
            let version = versions.entry(stream.clone()).or_default();
            let expected = Version(*version);
            *version += events.len() as u64;
            expected
        };
        let command_id = CommandId::from_uuid(Uuid::from_u128(
            self.commands.fetch_add(1, Ordering::Relaxed).into(),
        ));
        let metadata = Metadata {
            actor_kind: actor.kind,
            actor_id: actor.id.clone(),
            command: "Test".into(),
            command_id,
            correlation_id: CorrelationId::for_command(command_id),
            causation_id: None,
            traceparent: None,
        };
        let append = Append {
            stream,
            expected,
            events,
            metadata,
            fingerprint: None,
        };
        match self.log.journal().append(&Chain::new(), append).await {
            AppendOutcome::Appended(receipt) => ConsistencyToken {
                stream: receipt.stream,
                version: receipt.version,
                position: receipt.position,
            },
            other => panic!("not appended: {other:?}"),
        }
    }

    /// Stores events and waits until every view has them.
    pub async fn tell(
        &self,
        stream: StreamId,
        actor: &Actor,
        events: impl IntoIterator<Item = impl Into<Event>>,
    ) -> ConsistencyToken {
        let token = self.append(stream, actor, events).await;
        self.settle(token.position).await;
        token
    }

    pub async fn settle(&self, position: Position) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        assert!(
            self.views.reach(position, deadline).await,
            "the views do not come as far as {position}"
        );
    }

    pub async fn respond(
        &self,
        path: &str,
        token: Option<&str>,
        headers: &[(&'static str, &str)],
    ) -> Response {
        let mut request = Request::get(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        soon(path, self.router.clone().oneshot(request)).await.unwrap()
    }

    pub async fn ask(&self, path: &str, token: Option<&str>, headers: &[(&'static str, &str)]) -> Reply {
        let (parts, body) = self.respond(path, token, headers).await.into_parts();
        let body = soon("the body", body.collect())
            .await
            .unwrap()
            .to_bytes()
            .to_vec();
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    pub async fn get(&self, path: &str, token: &str) -> Reply {
        self.ask(path, Some(token), &[]).await
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn expect_problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["type"], format!("/problems/{slug}"), "{problem}");
        assert!(problem["trace_id"].is_string());
        problem
    }
}

// A small shop's events.

pub fn person(kind: ActorKind, account: u128) -> Actor {
    Actor {
        kind,
        id: Uuid::from_u128(account).to_string().into(),
    }
}

pub fn customer(account: u128) -> CustomerId {
    CustomerId::from_uuid(Uuid::from_u128(account))
}

pub fn product_id(number: u128) -> ProductId {
    ProductId::from_uuid(Uuid::from_u128(0x1000 + number))
}

pub fn order_id(number: u128) -> OrderId {
    OrderId::from_uuid(Uuid::from_u128(0x2000 + number))
}

pub fn sku(number: u128) -> Sku {
    Sku::new(format!("MUG-{number}")).unwrap()
}

fn money(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

fn method() -> PaymentMethod {
    PaymentMethod {
        method: code("sandbox"),
        provider: code("sandbox"),
        secret_ref: None,
    }
}

pub fn product(number: u128) -> StreamId {
    StreamId::new(AggregateType::Product, product_id(number))
}

pub fn stock(number: u128) -> StreamId {
    StreamId::new(AggregateType::Inventory, &sku(number))
}

pub fn order(number: u128) -> StreamId {
    StreamId::new(AggregateType::Order, order_id(number))
}

pub fn payment(number: u128) -> StreamId {
    StreamId::new(AggregateType::Payment, PaymentId::for_order(order_id(number)))
}

pub fn cart(account: u128) -> StreamId {
    StreamId::new(AggregateType::Cart, CartId::for_owner(customer(account)))
}

pub fn product_created(number: u128, title: &str, price: i64) -> Vec<ProductEvent> {
    let details = ProductDetails {
        title: title.to_owned(),
        category: Some("mugs".to_owned()),
        ..ProductDetails::default()
    };
    let variant = ProductEvent::VariantAdded {
        sku: sku(number),
        option_values: BTreeMap::new(),
        price: money(price),
        tracked: true,
    };
    vec![ProductEvent::ProductCreated { details }, variant]
}

pub fn stock_received(number: u128, quantity: u32) -> Vec<InventoryEvent> {
    let reference = Reference::new("delivery 1").unwrap();
    vec![
        InventoryEvent::SkuAssigned {
            product_id: product_id(number),
        },
        InventoryEvent::StockReceived { quantity, reference },
    ]
}

pub fn cart_opened(account: u128, quantity: u32) -> Vec<CartEvent> {
    vec![
        CartEvent::CartOpened {
            owner: customer(account),
        },
        CartEvent::ItemAdded {
            sku: sku(1),
            quantity,
        },
    ]
}

fn no_tax() -> Tax {
    Tax {
        code: code("none"),
        rate_ppm: 0,
        amount: money(0),
        included: true,
    }
}

pub fn placed(number: u128, account: u128, quantity: u32, country: &str, at: Timestamp) -> OrderEvent {
    let total = money(500 * i64::from(quantity));
    let line = OrderLine {
        line_no: 1,
        sku: sku(1),
        product_id: product_id(1),
        title: "Blue mug".to_owned(),
        unit_price: money(500),
        quantity,
        discount: money(0),
        tax: no_tax(),
        tracked: true,
    };
    let zero = money(0);
    OrderEvent::OrderPlaced(Box::new(OrderPlaced {
        order_id: order_id(number),
        customer: customer(account),
        lines: vec![line],
        shipping: ShippingCharge {
            price: zero,
            discount: zero,
            tax: no_tax(),
        },
        totals: Totals {
            items: total,
            shipping: zero,
            discount: zero,
            tax_included: zero,
            tax_added: zero,
            total,
        },
        country: CountryCode::new(country).unwrap(),
        cart_id: None,
        payment: method(),
        occurred_at: at,
        payment_deadline: at,
    }))
}

pub fn payment_required(number: u128, amount: i64) -> OrderEvent {
    OrderEvent::PaymentRequired {
        payment_id: PaymentId::for_order(order_id(number)),
        amount: money(amount),
        method: method(),
    }
}

pub fn paid(number: u128, amount: i64) -> OrderEvent {
    OrderEvent::OrderPaid {
        payment_id: PaymentId::for_order(order_id(number)),
        attempt: 1,
        amount: money(amount),
    }
}

pub fn payment_captured(number: u128, amount: i64) -> Vec<PaymentEvent> {
    let (order_id, attempt, amount) = (order_id(number), 1, money(amount));
    let provider_ref = ProviderRef::new("ch_1").unwrap();
    vec![
        PaymentEvent::PaymentRequested {
            order_id,
            attempt,
            amount,
            method: method(),
        },
        PaymentEvent::PaymentCaptured {
            order_id,
            attempt,
            provider_ref,
            amount,
        },
    ]
}
