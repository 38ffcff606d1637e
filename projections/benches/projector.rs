//! How fast the projector folds a log into all views: `cargo bench -p projections -- [orders]`.
//!
//! The log looks like the retailer's year: orders of 25 lines over 4,000 SKUs, 64 of them under way at a time.

#![allow(clippy::expect_used, reason = "the inputs are constants")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::time::{Duration, Instant};

use event_schemas::{
    ActorKind, AggregateType, Clock, CommandId, Event, InventoryEvent, Metadata, OrderEvent, PaymentEvent,
    PaymentId, Position, ProviderRef, Reference, StreamId, Version,
};
use event_store::{Append, Chain, Log, LogEntry, LogOptions};
use projections::{Projector, Views};
use sqlite_file::{Options, SqliteError, SqliteFile, Synchronous};
use support::{Dice, customer_id, metadata, method, order_id, placed, product_id, sku, time, uuid};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const LINES: u64 = 25;
const SKUS: u64 = 4_000;
const UNDER_WAY: u64 = 64;

/// Appends that wait for their commit at a time: of a backlog, and as a busy shop has them.
const BACKLOG: usize = 5_000;
const BUSY: usize = 200;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let orders: u64 = std::env::args()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(5_000);
    let dir = tempfile::tempdir()?;
    let log = Log::open(&open(&dir, "log.db")?, LogOptions::default()).await?;
    let meter = Meter::start()?;
    fill(&log, orders, BACKLOG).await;
    let head = log.head().await?;
    meter.print("appending a backlog", head)?;

    let views = Views::open_sqlite(&open(&dir, "views.db")?, log.identity()).await?;
    let meter = Meter::start()?;
    project(&log, &views).await?;
    meter.print("projecting it into 7 views", head)?;
    println!(
        "views.db {} MiB",
        std::fs::metadata(dir.path().join("views.db"))?.len() >> 20
    );

    let meter = Meter::start()?;
    let mut after = Position(0);
    while after < head {
        after = log
            .read(after, 2_000)
            .await?
            .last()
            .map_or(head, LogEntry::position);
    }
    meter.print("reading the log alone", head)?;

    let log = Log::open(&open(&dir, "quiet.db")?, LogOptions::default()).await?;
    let meter = Meter::start()?;
    fill(&log, orders, BUSY).await;
    meter.print("appending in small commits", head)?;
    let log = Log::open(&open(&dir, "busy.db")?, LogOptions::default()).await?;
    let views = Views::open_sqlite(&open(&dir, "live.db")?, log.identity()).await?;
    let meter = Meter::start()?;
    let projector = Projector::start(&log, &views, Clock::System, CancellationToken::new()).await?;
    fill(&log, orders, BUSY).await;
    let behind = head.0.saturating_sub(views.orders().position().0);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(3_600);
    assert!(views.reach(head, deadline).await, "{:?}", projector.state());
    projector.stop().await;
    meter.print("the same with the projector following", head)?;
    println!("{behind} events behind when the last was appended");
    println!("{}", memory()?);
    Ok(())
}

/// Until the views are where the log was when this began.
async fn project(log: &Log, views: &Views) -> Result<(), Box<dyn Error>> {
    let head = log.head().await?;
    let projector = Projector::start(log, views, Clock::System, CancellationToken::new()).await?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(3_600);
    assert!(views.reach(head, deadline).await, "{:?}", projector.state());
    projector.stop().await;
    Ok(())
}

fn open(dir: &TempDir, name: &str) -> Result<SqliteFile, SqliteError> {
    SqliteFile::open(
        dir.path().join(name),
        Options {
            synchronous: Synchronous::Normal,
            readers: 2,
        },
    )
}

struct Meter {
    started: Instant,
    cpu: Duration,
}

impl Meter {
    fn start() -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            started: Instant::now(),
            cpu: cpu_time()?,
        })
    }

    fn print(&self, what: &str, events: Position) -> Result<(), Box<dyn Error>> {
        let (wall, events) = (self.started.elapsed().as_secs_f64(), events.0 as f64);
        let cpu = cpu_time()?.saturating_sub(self.cpu).as_secs_f64();
        let (rate, year) = (events / wall, cpu / events * 1.5e6);
        println!(
            "{what}: {events} events in {wall:.1} s, {rate:.0}/s; {cpu:.1} s of CPU, {year:.0} s for 1.5 M"
        );
        Ok(())
    }
}

async fn fill(log: &Log, orders: u64, waiting: usize) {
    let mut dice = Dice(1);
    let mut sender = Sender {
        log,
        commands: 0,
        versions: std::collections::HashMap::new(),
        pending: Vec::new(),
        waiting,
    };
    for number in 0..SKUS {
        let stream = StreamId::new(AggregateType::Inventory, &sku(number));
        let received = InventoryEvent::StockReceived {
            quantity: 1_000_000,
            reference: Reference::new("all").expect("short"),
        };
        let events = vec![
            InventoryEvent::SkuAssigned {
                product_id: product_id(number),
            }
            .into(),
            received.into(),
        ];
        sender.send(stream, events).await;
    }
    for first in (0..orders).step_by(usize::try_from(UNDER_WAY).expect("small")) {
        let window = first..(first + UNDER_WAY).min(orders);
        let lines: Vec<Vec<_>> = window
            .clone()
            .map(|_| (0..LINES).map(|_| (sku(dice.roll(SKUS)), 2, 125)).collect())
            .collect();
        for (number, lines) in window.clone().zip(&lines) {
            let agreed = placed(
                order_id(number),
                customer_id(number % 4_000),
                lines,
                time(number * 1_500),
            );
            sender
                .send(
                    order_stream(number),
                    vec![OrderEvent::OrderPlaced(Box::new(agreed)).into()],
                )
                .await;
        }
        for line in 0..usize::try_from(LINES).expect("small") {
            for (number, lines) in window.clone().zip(&lines) {
                let sku = lines[line].0.clone();
                let stock = StreamId::new(AggregateType::Inventory, &sku);
                let reserved = InventoryEvent::StockReserved {
                    order_id: order_id(number),
                    quantity: 2,
                };
                sender.send(stock, vec![reserved.into()]).await;
                sender
                    .send(
                        order_stream(number),
                        vec![OrderEvent::LineReserved { sku }.into()],
                    )
                    .await;
            }
        }
        for number in window {
            sender.pay(number).await;
        }
    }
    sender.settle().await;
}

fn order_stream(number: u64) -> StreamId {
    StreamId::new(AggregateType::Order, order_id(number))
}

struct Sender<'a> {
    log: &'a Log,
    commands: u64,
    versions: std::collections::HashMap<StreamId, u64>,
    waiting: usize,
    pending: Vec<std::pin::Pin<Box<dyn Future<Output = event_store::AppendOutcome> + Send>>>,
}

impl Sender<'_> {
    async fn send(&mut self, stream: StreamId, events: Vec<Event>) {
        self.commands += 1;
        let command_id = CommandId::from_uuid(uuid(9, self.commands));
        let metadata = Metadata {
            command_id,
            causation_id: Some(format!("order/{}/1", order_id(1)).into()),
            ..metadata(ActorKind::System, "reserve-on-order-placed")
        };
        let version = self.versions.entry(stream.clone()).or_default();
        let expected = Version(*version);
        *version += events.len() as u64;
        let append = Append {
            stream,
            expected,
            events,
            metadata,
            fingerprint: None,
        };
        self.pending
            .push(Box::pin(self.log.journal().append(&Chain::new(), append)));
        if self.pending.len() == self.waiting {
            self.settle().await;
        }
    }

    async fn settle(&mut self) {
        for appended in self.pending.drain(..) {
            let outcome = appended.await;
            assert!(
                matches!(outcome, event_store::AppendOutcome::Appended(_)),
                "{outcome:?}"
            );
        }
    }

    async fn pay(&mut self, number: u64) {
        let (order_id, attempt) = (order_id(number), 1);
        let payment_id = PaymentId::for_order(order_id);
        let amount = support::money(i64::try_from(LINES).expect("small") * 250);
        let required = OrderEvent::PaymentRequired {
            payment_id,
            amount,
            method: method(),
        };
        self.send(
            order_stream(number),
            vec![OrderEvent::OrderReserved {}.into(), required.into()],
        )
        .await;
        let payment = StreamId::new(AggregateType::Payment, payment_id);
        let provider_ref = ProviderRef::new("sandbox_1").expect("short");
        let created = provider_ref.clone();
        let authorized = provider_ref.clone();
        for event in [
            PaymentEvent::PaymentRequested {
                order_id,
                attempt,
                amount,
                method: method(),
            },
            PaymentEvent::SessionRequested { order_id, attempt },
            PaymentEvent::PaymentSessionCreated {
                order_id,
                attempt,
                provider_ref: created,
                checkout_ref: None,
            },
            PaymentEvent::PaymentAuthorized {
                order_id,
                attempt,
                provider_ref: authorized,
                amount,
            },
            PaymentEvent::CaptureRequested {
                order_id,
                attempt,
                amount,
            },
            PaymentEvent::PaymentCaptured {
                order_id,
                attempt,
                provider_ref,
                amount,
            },
        ] {
            self.send(payment.clone(), vec![event.into()]).await;
        }
        self.send(
            order_stream(number),
            vec![
                OrderEvent::OrderPaid {
                    payment_id,
                    attempt,
                    amount,
                }
                .into(),
            ],
        )
        .await;
    }
}

/// User and system time of this process so far (proc(5): fields 14 and 15 of `stat`, in hundredths of a second).
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
}

fn memory() -> Result<String, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    Ok(status
        .lines()
        .filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"))
        .collect())
}
