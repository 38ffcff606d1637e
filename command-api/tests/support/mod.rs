//! A shop on a directory of its own, spoken to through the real router over the real log.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic, and say where"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aggregates::order::OrderCommand;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, header};
use command_api::{CommandApi, Random, Rules, Services};
use database::Database;
use database::testing::TestDatabase;
use event_bus::Healing;
use event_schemas::{
    AccountId, Actor, CartId, Clock, Code, CommandId, Currency, Event, ManualClock, OrderEvent, OrderId,
    PaymentId, Position, RecordedEvent, Timestamp, derive_uuid,
};
use event_store::{CommandRequest, ExecutorOptions, Executors, Log, LogEntry, LogOptions};
use http_body_util::BodyExt as _;
use http_conventions::ClientAddress;
use identity::verifier::Role;
use identity::{Identity, KeySource, Settings};
use sagas::SecretStore;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

pub struct Shop {
    pub dir: Arc<TempDir>,
    pub test: Arc<TestDatabase>,
    pub clock: ManualClock,
    pub database: Database,
    pub identity: Identity,
    pub log: Log,
    pub executors: Executors,
    pub secrets: SecretStore,
    pub router: Router,
    pub openapi: Value,
    ids: Arc<AtomicU32>,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    #[track_caller]
    pub fn refused(self, status: u16, slug: &str) -> Self {
        assert_eq!((self.status, self.slug()), (status, slug), "{}", self.body);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        self
    }

    pub fn slug(&self) -> &str {
        self.body["type"]
            .as_str()
            .unwrap_or("")
            .trim_start_matches("/problems/")
    }

    pub fn id(&self) -> String {
        self.body["id"]
            .as_str()
            .unwrap_or_else(|| panic!("no id in {}", self.body))
            .to_owned()
    }

    pub fn version(&self) -> u64 {
        self.body["version"]
            .as_u64()
            .unwrap_or_else(|| panic!("no version in {}", self.body))
    }

    pub fn replayed(&self) -> bool {
        self.headers
            .get("idempotent-replayed")
            .is_some_and(|value| value == "true")
    }

    /// The receipt's members.
    pub fn receipt(&self) -> Value {
        let member = |name: &str| self.body[name].clone();
        json!([
            member("type"),
            member("id"),
            member("version"),
            member("consistency_token")
        ])
    }
}

#[derive(Clone)]
pub struct User {
    pub id: AccountId,
    pub token: Option<String>,
    pub address: IpAddr,
    router: Router,
    keys: Arc<AtomicU32>,
}

/// On SQLite, or, in the test binary `postgres`, on PostgreSQL where there is one.
#[cfg_attr(
    not(feature = "cluster"),
    allow(clippy::unused_async, reason = "with the feature, it may be elsewhere")
)]
async fn test_database() -> TestDatabase {
    #[cfg(feature = "cluster")]
    if module_path!().starts_with("postgres")
        && let Some(test) = TestDatabase::postgres().await
    {
        return test;
    }
    TestDatabase::sqlite()
}

impl Shop {
    pub async fn open() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let clock = ManualClock::new(Timestamp::from_millisecond(1_750_000_000_500).unwrap());
        let test = Arc::new(test_database().await);
        let database = test.database().clone();
        Self::on(dir, clock, test, database, Arc::default()).await
    }

    /// Another process on the same files, with cold caches.
    pub async fn restarted(&self) -> Self {
        Self::on(
            Arc::clone(&self.dir),
            self.clock.clone(),
            Arc::clone(&self.test),
            self.database.clone(),
            Arc::clone(&self.ids),
        )
        .await
    }

    /// Another process at the same time, as only PostgreSQL allows.
    pub async fn replica(&self) -> Self {
        Self::on(
            Arc::clone(&self.dir),
            self.clock.clone(),
            Arc::clone(&self.test),
            self.test.reopen().await,
            Arc::clone(&self.ids),
        )
        .await
    }

    /// Whether several processes may run on the database.
    pub fn is_shared(&self) -> bool {
        !matches!(self.database, Database::Sqlite(_))
    }

    async fn on(
        dir: Arc<TempDir>,
        clock: ManualClock,
        test: Arc<TestDatabase>,
        database: Database,
        ids: Arc<AtomicU32>,
    ) -> Self {
        let keys = KeySource::Directory(dir.path().join("keys"));
        let identity = Identity::open(&database, keys, Settings::default(), Clock::from(clock.clone()))
            .await
            .unwrap();
        let options = LogOptions {
            clock: clock.clone().into(),
            ..LogOptions::default()
        };
        let log = Log::open(&database, options).await.unwrap();
        let executors = Executors::start(&log, &ExecutorOptions::default());
        let secrets = SecretStore::open(&database).await.unwrap();
        let sandbox = Code::new("sandbox").unwrap();
        let rules = Rules {
            payment_methods: BTreeMap::from([(sandbox.clone(), sandbox)]),
            ..Rules::new(Currency::GBP)
        };
        let services = Services {
            executors: executors.clone(),
            log: log.clone(),
            secrets: secrets.clone(),
            healing: Healing::open([database.clone()]).await.unwrap(),
            verifier: identity.verifier(),
            fingerprinter: identity.fingerprinter(),
            clock: clock.clone().into(),
            random: Random::System,
        };
        let api = CommandApi::start(services, rules).await.unwrap();
        let (router, openapi) = command_api::router(api).split_for_parts();
        let router = router
            .fallback(http_conventions::not_found)
            .layer(axum::middleware::from_fn(http_conventions::finish));
        let openapi = serde_json::to_value(openapi).unwrap();
        Self {
            dir,
            test,
            clock,
            database,
            identity,
            log,
            executors,
            secrets,
            router,
            openapi,
            ids,
        }
    }

    pub async fn user(&self, role: Role) -> User {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        let id = AccountId::from_uuid(derive_uuid("test account", &[&number.to_be_bytes()]));
        self.identity.create_bare_accounts(&[(id, role)]).await.unwrap();
        let token = self.identity.mint_access_token(id).await.unwrap().token;
        let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number));
        User {
            id,
            token: Some(token),
            address,
            router: self.router.clone(),
            keys: Arc::default(),
        }
    }

    pub fn anonymous(&self) -> User {
        User {
            id: AccountId::from_uuid(derive_uuid("nobody", &[])),
            token: None,
            address: Ipv4Addr::LOCALHOST.into(),
            router: self.router.clone(),
            keys: Arc::default(),
        }
    }

    /// The same user of this process.
    pub fn here(&self, user: &User) -> User {
        User {
            router: self.router.clone(),
            ..user.clone()
        }
    }

    /// A published product with one variant at `price` pence, and its stock if it is tracked.
    pub async fn sell(&self, sku: &str, price: i64, stock: Option<u32>) -> String {
        let staff = self.user(Role::Staff).await;
        let product = staff
            .post("/v1/products", json!({ "title": sku }))
            .await
            .expect(201)
            .id();
        let variant = json!({ "sku": sku, "price": gbp(price), "tracked": stock.is_some() });
        staff
            .post(&format!("/v1/products/{product}/variants"), variant)
            .await
            .expect(201);
        staff
            .post(&format!("/v1/products/{product}/publish"), json!({}))
            .await
            .expect(200);
        if let Some(quantity) = stock {
            let receipt = json!({ "quantity": quantity, "reference": "opening stock" });
            staff
                .post(&format!("/v1/inventory/{sku}/receipts"), receipt)
                .await
                .expect(200);
        }
        product
    }

    /// What the sagas would record for an order of untracked lines, until it is paid.
    pub async fn pay(&self, order: OrderId) {
        self.reserve(order).await;
        let amount = self
            .executors
            .orders
            .load(order)
            .await
            .unwrap()
            .0
            .placed()
            .unwrap()
            .totals
            .total;
        let payment_id = PaymentId::for_order(order);
        let paid = OrderCommand::MarkPaid {
            payment_id,
            attempt: 1,
            amount,
        };
        self.order(order, "paid", paid).await;
    }

    pub async fn reserve(&self, order: OrderId) {
        self.order(order, "reserved", OrderCommand::RecordReserved).await;
    }

    pub async fn order(&self, order: OrderId, name: &str, command: OrderCommand) {
        let id = derive_uuid("test saga", &[name.as_bytes(), order.as_uuid().as_bytes()]);
        let request = CommandRequest::new(CommandId::from_uuid(id), Actor::system("test"), command);
        self.executors.orders.submit(order, request).await.unwrap();
    }

    pub async fn events(&self) -> Vec<Arc<RecordedEvent>> {
        // What another replica has just committed is read only once it is known of.
        let (head, mut read) = (self.log.head().await.unwrap(), Position(0));
        let mut events = Vec::new();
        while read < head {
            let entries = self.log.read(read, 100_000).await.unwrap();
            read = entries.last().unwrap().position();
            events.extend(entries.iter().filter_map(LogEntry::event).cloned());
        }
        events
    }

    pub async fn count(&self, event_type: &str) -> usize {
        self.events()
            .await
            .iter()
            .filter(|recorded| recorded.event.name() == event_type)
            .count()
    }

    pub async fn placed(&self, order: OrderId) -> Option<event_schemas::OrderPlaced> {
        self.events()
            .await
            .iter()
            .find_map(|recorded| match &recorded.event {
                Event::Order(OrderEvent::OrderPlaced(placed)) if placed.order_id == order => {
                    Some((**placed).clone())
                }
                _ => None,
            })
    }
}

impl User {
    pub fn cart(&self) -> CartId {
        CartId::for_owner(self.id.into())
    }

    pub fn at(&self, address: [u8; 4]) -> Self {
        Self {
            address: address.into(),
            ..self.clone()
        }
    }

    pub fn with_token(&self, token: String) -> Self {
        Self {
            token: Some(token),
            ..self.clone()
        }
    }

    pub fn fresh_key(&self) -> String {
        format!("key-{}", self.keys.fetch_add(1, Ordering::Relaxed))
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        let key = self.fresh_key();
        self.post_as(path, &key, body).await
    }

    pub async fn post_as(&self, path: &str, key: &str, body: Value) -> Answer {
        self.send(path, &[("idempotency-key", key)], Some(body.to_string()))
            .await
    }

    /// A POST with these headers; a body is sent as JSON.
    pub async fn send(&self, path: &str, headers: &[(&str, &str)], body: Option<String>) -> Answer {
        let mut request = Request::post(path).extension(ClientAddress(Some(self.address)));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.unwrap_or_default())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    pub async fn add(&self, sku: &str, quantity: u32) -> Answer {
        self.post(
            "/v1/carts/mine/items",
            json!({ "sku": sku, "quantity": quantity }),
        )
        .await
    }

    pub async fn check_out(&self, key: &str) -> Answer {
        self.post_as("/v1/carts/mine/checkout", key, paying("tok_ok"))
            .await
    }

    pub async fn buy(&self, sku: &str) -> Answer {
        let key = self.fresh_key();
        self.post_as("/v1/orders", &key, buying(sku, 1)).await
    }
}

pub fn gbp(pence: i64) -> Value {
    json!({ "amount": pence, "currency": "GBP" })
}

pub fn paying(token: &str) -> Value {
    json!({ "payment": { "method": "sandbox", "token": token }, "country": "GB" })
}

pub fn buying(sku: &str, quantity: u32) -> Value {
    with(
        paying("tok_ok"),
        "lines",
        json!([{ "sku": sku, "quantity": quantity }]),
    )
}

/// `body` with one member more.
pub fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

pub fn order_id(answer: &Answer) -> OrderId {
    answer.body["order"]["id"].as_str().unwrap().parse().unwrap()
}

/// Asks `probe` until it says yes.
pub async fn until<F: Future<Output = bool>>(what: &str, mut probe: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !probe().await {
        assert!(tokio::time::Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
