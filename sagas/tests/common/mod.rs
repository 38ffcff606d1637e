//! A shop without a front door: the real log, executors, sagas and sandbox in a temporary directory.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::time::Duration;

use aggregates::cart::{Cart, CartCommand, CheckOut};
use aggregates::inventory::{InventoryCommand, StockItem};
use aggregates::order::{Order, OrderCommand, tax, totals};
use aggregates::payment::{Payment, PaymentCommand};
use database::testing::TestDatabase;
use database::{Database, DatabaseError, params};
use event_bus::{Healing, HealingOutcome, ParkedScope, Remedy};
use event_schemas::{
    Actor, ActorKind, CancelReason, CartId, Clock, Code, CommandId, CountryCode, Currency, CustomerId, Event,
    ManualClock, Money, OrderId, OrderLine, OrderPlaced, PaymentId, PaymentMethod, Position, ProductId,
    RecordedEvent, Reference, SecretRef, ShippingCharge, Sku, StreamId, Timestamp, Upcasters, derive_uuid,
};
use event_store::{CommandRequest, ExecutorOptions, Executors, Log, LogOptions};
use sagas::fault::Faults;
use sagas::provider::{Provider, SandboxOptions, SandboxProvider};
use sagas::{Backoff, SagaStream, Sagas, SagasConfig, SagasDeps, Secret, SecretStore};
use tempfile::TempDir;

/// Far beyond what any wait here needs.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub struct Shop {
    pub dir: TempDir,
    pub test: TestDatabase,
    pub database: Database,
    pub log: Log,
    pub executors: Executors,
    pub sandbox: SandboxProvider,
    pub secrets: SecretStore,
    pub hand: ManualClock,
    pub config: SagasConfig,
    pub sagas: Option<Sagas>,
    pub commands: u32,
}

/// What there is to compare at the end of a scenario: event types per stream, sorted, and the sandbox's money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub streams: BTreeMap<String, Vec<&'static str>>,
    pub charged: i64,
    pub refunded: i64,
}

pub fn customer(name: &str) -> CustomerId {
    CustomerId::from_uuid(derive_uuid("test/customer", &[name.as_bytes()]))
}

pub fn order_id(name: &str) -> OrderId {
    OrderId::from_uuid(derive_uuid("test/order", &[name.as_bytes()]))
}

pub fn sku(text: &str) -> Sku {
    Sku::new(text).expect("a SKU")
}

pub fn gbp(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).expect("in range")
}

pub fn code(text: &str) -> Code {
    Code::new(text).expect("a code")
}

pub fn sandbox_method(secret: &str) -> PaymentMethod {
    PaymentMethod {
        method: code("sandbox"),
        provider: code("sandbox"),
        secret_ref: Some(SecretRef::new(secret).expect("a reference")),
    }
}

pub fn line(line_no: u32, item: &str, quantity: u32, price: i64) -> OrderLine {
    OrderLine {
        line_no,
        sku: sku(item),
        product_id: ProductId::from_uuid(derive_uuid("test/product", &[item.as_bytes()])),
        title: item.to_owned(),
        unit_price: gbp(price),
        quantity,
        discount: gbp(0),
        tax: tax(gbp(price), code("none"), 0, true).expect("in range"),
        tracked: !item.starts_with("GIFT"),
    }
}

pub fn free_shipping() -> ShippingCharge {
    ShippingCharge {
        price: gbp(0),
        discount: gbp(0),
        tax: tax(gbp(0), code("none"), 0, true).expect("in range"),
    }
}

/// SKU, quantity, unit price in pence.
pub type Wanted<'a> = &'a [(&'a str, u32, i64)];

pub fn lines(wanted: Wanted<'_>) -> Vec<OrderLine> {
    (1..)
        .zip(wanted)
        .map(|(line_no, (item, quantity, price))| line(line_no, item, *quantity, *price))
        .collect()
}

impl Shop {
    pub async fn open() -> Self {
        Self::open_with(SagasConfig::default(), Faults::default()).await
    }

    pub async fn open_with(config: SagasConfig, faults: Faults) -> Self {
        let dir = TempDir::new().expect("a directory");
        let hand = ManualClock::new("2024-05-01T12:00:00Z".parse().expect("a time"));
        // Quick tries: the clock stands still, so a wait by the clock needs a test to move it.
        let config = SagasConfig {
            command_backoff: Backoff {
                first: Duration::from_millis(1),
                most: Duration::from_millis(20),
            },
            ..config
        };
        let test = test_database().await;
        let database = test.database().clone();
        let (log, executors, sandbox, secrets) = parts(&dir, &database, &hand).await;
        let mut shop = Self {
            dir,
            test,
            database,
            log,
            executors,
            sandbox,
            secrets,
            hand,
            config,
            sagas: None,
            commands: 0,
        };
        shop.start(faults).await;
        shop
    }

    pub fn clock(&self) -> Clock {
        self.hand.clone().into()
    }

    pub async fn start(&mut self, faults: Faults) {
        let deps = SagasDeps {
            log: self.log.clone(),
            commands: self.executors.clone().into(),
            stream: SagaStream::Log,
            database: self.database.clone(),
            provider: Some(Provider::Sandbox(self.sandbox.clone())),
            clock: self.clock(),
            config: self.config.clone(),
            faults,
        };
        self.sagas = Some(Sagas::start(deps).await.expect("sagas start"));
    }

    pub fn sagas(&self) -> &Sagas {
        self.sagas.as_ref().expect("running")
    }

    pub async fn stop(&mut self) {
        if let Some(sagas) = self.sagas.take() {
            sagas.stop().await;
        }
    }

    /// New sagas, new executors, new file handles: as another process would.
    pub async fn restart(&mut self) {
        self.reopen().await;
        self.start(Faults::default()).await;
    }

    /// As [`Shop::restart`], without starting the sagas: nothing of the log is in memory then.
    pub async fn reopen(&mut self) {
        self.stop().await;
        self.database.close().await.expect("closed");
        self.database = self.test.reopen().await;
        (self.log, self.executors, self.sandbox, self.secrets) =
            parts(&self.dir, &self.database, &self.hand).await;
    }

    /// What uses table `from` fails, until it is called that again.
    pub async fn rename_table(&self, from: &str, to: &str) {
        let sql = format!("ALTER TABLE {from} RENAME TO {to}");
        self.database
            .write(move |session| session.execute(&sql, &[]))
            .await
            .map_err(|error: DatabaseError| error)
            .expect("renamed");
    }

    /// Makes every order one that was placed in a version that never was, in which `occurred_at` had another name.
    pub async fn age_orders(&self) {
        let sql =
            "UPDATE events SET event_version = '0.9', payload = replace(payload, 'occurred_at', 'placed_at')
                   WHERE event_type = 'OrderPlaced'";
        let aged = self.database.write(move |session| session.execute(sql, &[]));
        let aged = aged.await.map_err(|error: DatabaseError| error);
        assert_ne!(aged.expect("rewritten"), 0);
    }

    /// Waits until the sagas try something again that the store refused. Fails if they stop instead.
    pub async fn wait_until_retrying(&self) {
        let retrying = async {
            while self.sagas().retrying().is_none() {
                assert_eq!(self.sagas().failure(), None);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(DEADLINE, retrying).await.expect("in time");
    }

    /// The sagas begin again at the first event.
    pub async fn redeliver(&mut self) {
        self.stop().await;
        self.forget_checkpoints().await;
        self.start(Faults::default()).await;
        self.settle().await;
    }

    pub async fn forget_checkpoints(&self) {
        self.database
            .write(|session| session.execute("DELETE FROM checkpoints", &[]))
            .await
            .map_err(|error: DatabaseError| error)
            .expect("deleted");
    }

    /// Waits until nothing is left to do at this time.
    pub async fn settle(&self) {
        tokio::time::timeout(DEADLINE, self.sagas().idle())
            .await
            .expect("in time")
            .expect("running");
    }

    pub async fn advance(&self, by: Duration) {
        self.hand.advance(by);
        self.settle().await;
    }

    pub fn id(&mut self) -> CommandId {
        self.commands += 1;
        CommandId::from_uuid(derive_uuid("test/command", &[&self.commands.to_be_bytes()]))
    }

    pub fn request<C>(&mut self, command: C) -> CommandRequest<C> {
        CommandRequest::new(self.id(), Actor::system("test"), command)
    }

    pub async fn stock(&mut self, item: &str, quantity: u32) {
        let product_id = line(1, item, 1, 1).product_id;
        let reference = Reference::new("test").expect("a reference");
        for command in [
            InventoryCommand::AssignSku { product_id },
            InventoryCommand::Receive { quantity, reference },
        ] {
            let request = self.request(command);
            self.executors
                .inventory
                .submit(&sku(item), request)
                .await
                .expect("accepted");
        }
    }

    pub async fn secret(&self, token: &str) -> PaymentMethod {
        let expires_at = self
            .clock()
            .now()
            .checked_add(Duration::from_secs(3_600))
            .expect("in range");
        let name = SecretRef::new(format!("ref_{token}")).expect("a reference");
        self.secrets
            .put(&name, Secret::from(token), expires_at)
            .await
            .expect("stored");
        sandbox_method(name.as_str())
    }

    pub fn deadline(&self) -> Timestamp {
        self.clock()
            .now()
            .checked_add(self.config.payment_window)
            .expect("in range")
    }

    /// Places an order without a cart.
    pub async fn place(&mut self, name: &str, wanted: Wanted<'_>, token: &str) -> OrderId {
        let (payment, shipping) = (self.secret(token).await, free_shipping());
        let lines = lines(wanted);
        let totals = totals(&lines, &shipping).expect("in range");
        let placed = OrderPlaced {
            order_id: order_id(name),
            customer: customer(name),
            lines,
            shipping,
            totals,
            country: CountryCode::new("GB").expect("a country"),
            cart_id: None,
            payment,
            occurred_at: self.clock().now(),
            payment_deadline: self.deadline(),
        };
        let request = self.request(OrderCommand::Place(Box::new(placed)));
        self.executors
            .orders
            .submit(order_id(name), request)
            .await
            .expect("placed");
        order_id(name)
    }

    /// Fills a customer's cart and checks it out; the policy places the order.
    pub async fn check_out(&mut self, name: &str, wanted: Wanted<'_>, token: &str) -> OrderId {
        let cart_id = CartId::for_owner(customer(name));
        for (item, quantity, _) in wanted {
            let command = CartCommand::AddItem {
                owner: customer(name),
                sku: sku(item),
                quantity: *quantity,
            };
            let request = self.request(command);
            self.executors
                .carts
                .submit(cart_id, request)
                .await
                .expect("added");
        }
        let order_id = self.cart(name).await.next_order_id(customer(name));
        let (payment, shipping) = (self.secret(token).await, free_shipping());
        let lines = lines(wanted);
        let totals = totals(&lines, &shipping).expect("in range");
        let check_out = CheckOut {
            lines,
            shipping,
            totals,
            country: CountryCode::new("GB").expect("a country"),
            payment,
            occurred_at: self.clock().now(),
            payment_deadline: self.deadline(),
        };
        let request = self.request(CartCommand::CheckOut(Box::new(check_out)));
        self.executors
            .carts
            .submit(cart_id, request)
            .await
            .expect("checked out");
        order_id
    }

    pub async fn cancel(&mut self, order: OrderId) {
        let command = OrderCommand::Cancel {
            reason: CancelReason::CustomerRequest,
            by: ActorKind::Customer,
        };
        let request = self.request(command);
        self.executors
            .orders
            .submit(order, request)
            .await
            .expect("cancelled");
    }

    pub async fn retry_payment(&mut self, order: OrderId, token: &str) {
        let method = self.secret(token).await;
        let request = self.request(PaymentCommand::Retry { method });
        self.executors
            .payments
            .submit(PaymentId::for_order(order), request)
            .await
            .expect("retried");
    }

    pub async fn order(&self, order: OrderId) -> Order {
        self.executors.orders.load(order).await.expect("loaded").0
    }

    pub async fn payment(&self, order: OrderId) -> Payment {
        self.executors
            .payments
            .load(PaymentId::for_order(order))
            .await
            .expect("loaded")
            .0
    }

    pub async fn item(&self, item: &str) -> StockItem {
        self.executors.inventory.load(&sku(item)).await.expect("loaded").0
    }

    pub async fn cart(&self, name: &str) -> Cart {
        self.executors
            .carts
            .load(CartId::for_owner(customer(name)))
            .await
            .expect("loaded")
            .0
    }

    pub async fn charged(&self, order: OrderId) -> i64 {
        self.sandbox
            .charged(PaymentId::for_order(order))
            .await
            .expect("read")
    }

    pub async fn refunded(&self, order: OrderId) -> i64 {
        self.sandbox
            .refunded(PaymentId::for_order(order))
            .await
            .expect("read")
    }

    pub async fn events(&self) -> Vec<std::sync::Arc<RecordedEvent>> {
        let (head, mut read) = (self.log.head().await.expect("read"), Position(0));
        let mut events = Vec::new();
        while read < head {
            let entries = self.log.read(read, 100_000).await.expect("read");
            read = entries.last().expect("not at the head").position();
            events.extend(
                entries
                    .iter()
                    .map(|entry| entry.event().expect("readable").clone()),
            );
        }
        events
    }

    /// How many events of this type there are in all.
    pub async fn count(&self, name: &str) -> usize {
        self.events()
            .await
            .iter()
            .filter(|recorded| recorded.event.name() == name)
            .count()
    }

    /// Waits until the log holds an event of this type.
    pub async fn wait_for(&self, name: &str) {
        let mut head = self.log.watch();
        let found = async {
            while self.count(name).await == 0 {
                head.changed().await.expect("open");
            }
        };
        tokio::time::timeout(DEADLINE, found).await.expect("in time");
    }

    pub async fn no_dead_letters(&self) {
        assert_eq!(self.sagas().dead_letters().await.expect("read"), Vec::new());
    }

    /// What is parked, asked from outside.
    pub async fn healing(&self) -> Healing {
        Healing::open([self.database.clone()]).await.expect("opened")
    }

    /// Asks for the remedy, as another process does, and waits for what comes of it.
    pub async fn heal(&self, parked: &ParkedScope, remedy: Remedy) -> HealingOutcome {
        let healing = self.healing().await;
        let asked = healing
            .ask(&parked.id(), remedy, "test", self.clock().now())
            .await;
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let outcome = healing.wait(asked.expect("asked"), deadline).await;
        outcome.expect("read").expect("in time")
    }

    /// Overwrites what the log has stored of one event.
    pub async fn rewrite(&self, set: &'static str, stream: &StreamId, version: u64) {
        let stream = stream.clone();
        let written = self.database.write(move |session| {
            let sql = format!(
                "UPDATE events SET {set} WHERE aggregate_type = ?1 AND aggregate_id = ?2 AND sequence = ?3"
            );
            let (kind, id) = (stream.aggregate_type.as_str(), stream.aggregate_id.as_str());
            session.execute(&sql, &params![kind, id, version])
        });
        assert_eq!(written.await, Ok::<_, DatabaseError>(1));
    }

    pub async fn summary(&self, orders: &[OrderId]) -> Summary {
        let mut streams: BTreeMap<String, Vec<&'static str>> = BTreeMap::new();
        // Whether one SKU was recorded before another one's rejection cancelled the order is nobody's business.
        let events = self
            .events()
            .await
            .into_iter()
            .filter(|recorded| recorded.event.name() != "LineReserved");
        for recorded in events {
            streams
                .entry(recorded.stream.to_string())
                .or_default()
                .push(recorded.event.name());
        }
        for names in streams.values_mut() {
            names.sort_unstable();
        }
        let (mut charged, mut refunded) = (0, 0);
        for order in orders {
            charged += self.charged(*order).await;
            refunded += self.refunded(*order).await;
        }
        Summary {
            streams,
            charged,
            refunded,
        }
    }

    /// What holds at every quiet moment, whatever happened before.
    pub async fn audit(&self, orders: &[OrderId]) {
        self.no_dead_letters().await;
        for order_id in orders {
            let (order, payment) = (self.order(*order_id).await, self.payment(*order_id).await);
            let paid = order.paid().map_or(0, |paid| paid.amount.amount());
            let kept = self.charged(*order_id).await - self.refunded(*order_id).await;
            assert_eq!(
                kept,
                paid - order.refunded(),
                "what the provider keeps is what the order paid"
            );
            assert_eq!(
                payment.open_intents(),
                Vec::new(),
                "every call to the provider has its answer"
            );
        }
        let left = self
            .database
            .read(|session| session.query_one("SELECT count(*) FROM effects", &[], |row| row.get::<i64>(0)));
        assert_eq!(left.await, Ok::<_, DatabaseError>(0), "no effect is left over");
    }

    pub async fn stream(&self, stream: &StreamId) -> Vec<Event> {
        let events = self
            .log
            .read_stream(stream, event_schemas::Version(0), None)
            .await
            .expect("read");
        events.iter().map(|recorded| recorded.event.clone()).collect()
    }
}

/// On SQLite, or, in the test binary `postgres`, on PostgreSQL where there is one.
#[cfg_attr(
    not(feature = "cluster"),
    allow(clippy::unused_async, reason = "with the feature, it may be elsewhere")
)]
pub async fn test_database() -> TestDatabase {
    #[cfg(feature = "cluster")]
    if module_path!().starts_with("postgres")
        && let Some(test) = TestDatabase::postgres().await
    {
        return test;
    }
    TestDatabase::sqlite()
}

/// In a file of its own, or beside the log in PostgreSQL.
pub async fn sandbox(dir: &TempDir, database: &Database, clock: Clock) -> SandboxProvider {
    let options = SandboxOptions::default();
    match database {
        Database::Sqlite(_) => SandboxProvider::open(dir.path().join("sandbox.db"), clock, options).await,
        #[cfg(feature = "cluster")]
        Database::Postgres(_) => SandboxProvider::open_in(database, clock, options).await,
    }
    .expect("opened")
}

/// Reads what [`Shop::age_orders`] leaves.
fn upcasters() -> Upcasters {
    Upcasters::shipped().with("OrderPlaced", "0.9", "OrderPlaced", "1.0", |mut payload| {
        payload["OrderPlaced"]["occurred_at"] = payload["OrderPlaced"]["placed_at"].take();
        payload
    })
}

async fn parts(
    dir: &TempDir,
    database: &Database,
    hand: &ManualClock,
) -> (Log, Executors, SandboxProvider, SecretStore) {
    let clock = Clock::from(hand.clone());
    let options = LogOptions {
        clock: clock.clone(),
        upcasters: upcasters(),
        ..LogOptions::default()
    };
    let log = Log::open(database, options).await.expect("opened");
    let executors = Executors::start(&log, &ExecutorOptions::default());
    let sandbox = sandbox(dir, database, clock).await;
    let secrets = SecretStore::open(database).await.expect("opened");
    (log, executors, sandbox, secrets)
}
