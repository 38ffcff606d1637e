//! The global invariants, checked over a whole log. What one aggregate keeps is its own `invariants`; here stands what
//! holds between them: the sagas' promise.
//!
//! [`Audit`] is a fold of its own. It shares no code with `evolve`, so that a bug there can't hide itself.
//!
//! *Safety* holds at every prefix of the log, and a breach is found with the event that makes it. *Liveness* is promised
//! some time later: [`Audit::finish`] reports what has been owed for longer than a grace.
//!
//! | invariant | kind |
//! |---|---|
//! | [`SEQUENCE`], [`POSITION`]: nothing is missing from a stream or from the log | safety |
//! | [`OVERSOLD`], [`HOLDING`]: no SKU is promised beyond its stock; an order holds one reservation a SKU, and gives up only that | safety |
//! | [`RESERVED_FIRST`]: a line counts as reserved only while its stock is held | safety |
//! | [`PAID`], [`REFUNDED`]: an order says paid or refunded only what its payment captured or refunded | safety |
//! | [`CAPTURED_ONCE`], [`REFUND_LIMIT`], [`REFUNDED_ONCE`]: an attempt takes once and gives back at most that, each refund once | safety |
//! | [`CURRENCY`]: a shop has one currency | safety |
//! | [`MERGED_ONCE`]: a cart receives what another gave, once | safety |
//! | [`BALANCE`]: captured − refunded = order paid − order refunded ≤ the order's total | liveness |
//! | [`NOTHING_KEPT`]: a cancelled order keeps no money, and no authorization outlives the decision | liveness |
//! | [`NOTHING_HELD`]: a terminal or unknown order holds no reservation | liveness |
//! | [`DEADLINE`]: an order before Paid has a deadline that has not passed | liveness |
//! | [`CART_ANSWERED`], [`MERGE_ARRIVES`]: no checked-out cart without its order, no line lost between two carts | liveness |
//!
//! That no intent is open without an effect row is for who can see the rows: [`Audit::open_intents`].
//!
//! Memory: a few dozen bytes a stream, and a record for each order and reservation that is not settled yet.

mod attempts;
mod carts;
mod orders;
mod sequences;
mod stock;

use std::time::Duration;

use event_schemas::{
    Currency, Event, EventId, Money, OrderEvent, PaymentEvent, RecordedEvent, StreamId, Timestamp,
};

use carts::Carts;
use orders::Orders;
use sequences::Sequences;
use stock::Stock;

/// The events of a stream are numbered 1, 2, 3, …
pub const SEQUENCE: &str = "every sequence is without a gap";
/// The events of the log are numbered 1, 2, 3, …
pub const POSITION: &str = "positions are without a gap";
/// `available ≥ 0`, and nothing below zero is in the building.
pub const OVERSOLD: &str = "no SKU is oversold";
/// One reservation an order; released, committed and returned is only what was held or sent.
pub const HOLDING: &str = "an order gives up what it holds";
/// `LineReserved` stands on a reservation.
pub const RESERVED_FIRST: &str = "a line is reserved by its stock item first";
/// Order paid ≤ payment captured.
pub const PAID: &str = "an order is paid by what was captured";
/// Order refunded ≤ payment refunded, and ≤ paid.
pub const REFUNDED: &str = "an order is refunded what its payment gave back";
/// One capture an attempt.
pub const CAPTURED_ONCE: &str = "an attempt is captured once";
/// Σ refunds requested, the failed ones not counted, ≤ captured.
pub const REFUND_LIMIT: &str = "an attempt gives back at most what it took";
/// A refund succeeds or fails once, after it was requested.
pub const REFUNDED_ONCE: &str = "a refund is settled once";
/// All amounts are in the currency of the first one.
pub const CURRENCY: &str = "a shop has one currency";
/// `CartMerged` follows a `CartMergedInto`, one for one.
pub const MERGED_ONCE: &str = "merged lines come from a cart that gave them";
/// What the payment keeps is what the order says, and at most what it costs.
pub const BALANCE: &str = "payment and order agree on the money kept";
/// Cancelled: nothing captured is kept. Cancelled or paid: nothing stays authorized.
pub const NOTHING_KEPT: &str = "money that is not due is given back";
/// Of orders that are cancelled, completed, returned or unknown.
pub const NOTHING_HELD: &str = "a terminal order holds no reservation";
/// By then it is paid or cancelled.
pub const DEADLINE: &str = "an order is paid or cancelled by its deadline";
/// Placed, or the cart reopened.
pub const CART_ANSWERED: &str = "a checked-out cart has its order";
/// Every line is in exactly one cart.
pub const MERGE_ARRIVES: &str = "merged lines arrive";

/// After so many breaches the rest is only counted: a broken log must not exhaust memory.
pub const MAX_BREACHES: usize = 1_000;

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// One of this module's names.
    pub invariant: &'static str,
    /// Where to look first.
    pub stream: StreamId,
    /// For people: what was found. Holds ids and amounts only.
    pub detail: String,
}

/// A call to the payment provider whose outcome the log does not know yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenIntent {
    /// The intent event; an effect row is keyed by it.
    pub event: EventId,
    /// Its type, such as `CaptureRequested`.
    pub event_type: &'static str,
    /// When it was recorded.
    pub since: Timestamp,
}

/// Checks a log from its first event on.
#[derive(Debug, Default)]
pub struct Audit {
    sequences: Sequences,
    stock: Stock,
    orders: Orders,
    carts: Carts,
    currency: Option<Currency>,
    found: Findings,
}

impl Audit {
    /// An audit that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next event, by position. Breaches of safety are remembered for [`finish`](Self::finish).
    pub fn observe(&mut self, recorded: &RecordedEvent) {
        let found = &mut self.found;
        self.sequences.observe(recorded, found);
        match &recorded.event {
            Event::Product(_) => {}
            Event::Inventory(event) => self.stock.observe(recorded, event, &mut self.orders, found),
            Event::Cart(event) => self.carts.observe(recorded, event, &self.orders, found),
            Event::Order(event) => {
                if let Some(order_id) = orders::order_of(&recorded.stream) {
                    self.carts.order_event(order_id, event);
                    if let OrderEvent::LineReserved { sku } = event
                        && !self.stock.holds(sku, order_id)
                    {
                        found.add(RESERVED_FIRST, &recorded.stream, || format!("{sku} is not held"));
                    }
                    self.orders.order_event(order_id, recorded, event, found);
                }
            }
            Event::Payment(event) => self.orders.payment_event(recorded, event, found),
        }
        if let Some(amount) = amount_of(&recorded.event) {
            let currency = *self.currency.get_or_insert(amount.currency());
            if amount.currency() != currency {
                self.found.add(CURRENCY, &recorded.stream, || {
                    format!("{amount} in a shop of {}", currency.code())
                });
            }
        }
    }

    /// All breaches of safety so far, and of liveness what has been owed for at least `grace`, as of `now`.
    pub fn finish(&self, now: Timestamp, grace: Duration) -> Vec<Breach> {
        let mut found = self.found.clone();
        let due = now.checked_sub(grace).unwrap_or(Timestamp::MIN);
        self.stock.finish(due, &self.orders, &mut found);
        self.orders.finish(due, &mut found);
        self.carts.finish(due, &mut found);
        found.breaches
    }

    /// How many breaches of safety were found beyond [`MAX_BREACHES`].
    pub const fn uncounted(&self) -> u64 {
        self.found.uncounted
    }

    /// All calls to the provider that are under way: each must have an effect row.
    pub fn open_intents(&self) -> Vec<OpenIntent> {
        self.orders.open_intents()
    }
}

/// The amounts by which a shop's currency is known.
fn amount_of(event: &Event) -> Option<Money> {
    match event {
        Event::Order(OrderEvent::OrderPlaced(placed)) => Some(placed.totals.total),
        Event::Order(OrderEvent::OrderPaid { amount, .. })
        | Event::Payment(
            PaymentEvent::PaymentRequested { amount, .. } | PaymentEvent::PaymentCaptured { amount, .. },
        ) => Some(*amount),
        _ => None,
    }
}

#[derive(Debug, Clone, Default)]
struct Findings {
    breaches: Vec<Breach>,
    uncounted: u64,
}

impl Findings {
    fn add(&mut self, invariant: &'static str, stream: &StreamId, detail: impl FnOnce() -> String) {
        if self.breaches.len() < MAX_BREACHES {
            self.breaches.push(Breach {
                invariant,
                stream: stream.clone(),
                detail: detail(),
            });
        } else {
            self.uncounted += 1;
        }
    }
}
