//! What an event changed, figure by figure: how an aggregate stood before it, and after.
//!
//! A story is told to its end, whatever a view of figures makes of its events: nothing in here can fail.

use event_schemas::{Event, InventoryEvent, LineQuantity, Money, OrderEvent, PaymentEvent};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::orders::OrderStatus;
use crate::payments::PaymentStatus;
use crate::schema::MoneySchema;

/// What changes. It is about the aggregate whose event it is: the order, its payment, or a SKU's stock as far as the order
/// has to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Of the order, or of the payment.
    Status,
    /// What the order costs, or the latest attempt asks for.
    Total,
    Units,
    /// SKUs of the order whose stock is held.
    SkusReserved,
    /// The order's stock as a whole, or the stock that one SKU holds for the order.
    Reservation,
    UnitsHeld,
    UnitsShipped,
    UnitsReturned,
    Paid,
    Refunded,
    /// Of the shipment, return, attempt or refund that `of` names.
    Shipment,
    Return,
    Attempt,
    Refund,
    /// What the provider was last asked to do, by attempt.
    Asked,
    Authorized,
    Captured,
    /// Why nothing more is captured.
    Closing,
    /// Reports of the provider that did not fit.
    Anomalies,
}

/// How a figure stands: so many, so much money, or a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Value {
    Number(u64),
    #[schema(value_type = MoneySchema)]
    Money(Money),
    Word(String),
}

/// One figure before and after an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Change {
    pub what: Figure,
    /// The id of the shipment, return or refund, or the number of the attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// Absent where there was nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    pub after: Value,
}

/// As stored: what, of which, before, after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredChange(Figure, Option<String>, Option<Value>, Value);

impl StoredChange {
    pub(super) fn view(&self) -> Change {
        let Self(what, of, before, after) = self.clone();
        Change {
            what,
            of,
            before,
            after,
        }
    }
}

/// How every figure of one aggregate stands, in the order in which they came up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Standing(Vec<(Figure, Option<String>, Value)>);

impl Standing {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the event in; answers what it changed.
    pub(super) fn apply(&mut self, event: &Event) -> Vec<StoredChange> {
        let mut step = Step {
            standing: self,
            changes: Vec::new(),
        };
        match event {
            Event::Order(event) => step.order(event),
            Event::Payment(event) => step.payment(event),
            Event::Inventory(event) => step.inventory(event),
            Event::Product(_) | Event::Cart(_) => {}
        }
        step.changes
    }
}

/// One event being taken in.
struct Step<'s> {
    standing: &'s mut Standing,
    changes: Vec<StoredChange>,
}

impl Step<'_> {
    fn order(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::OrderPlaced(placed) => {
                let total = placed.totals.total;
                let units = placed.lines.iter().map(|line| u64::from(line.quantity)).sum();
                self.status(OrderStatus::Placed);
                self.set(Figure::Total, None, Value::Money(total));
                self.set(Figure::Units, None, Value::Number(units));
                self.set(Figure::SkusReserved, None, Value::Number(0));
                self.set(Figure::UnitsShipped, None, Value::Number(0));
                self.set(Figure::UnitsReturned, None, Value::Number(0));
                self.set(Figure::Paid, None, Value::Money(Money::zero(total.currency())));
                self.set(
                    Figure::Refunded,
                    None,
                    Value::Money(Money::zero(total.currency())),
                );
            }
            OrderEvent::LineReserved { .. } => self.count(Figure::SkusReserved, 1),
            OrderEvent::OrderReserved {} => self.word(Figure::Reservation, None, "complete"),
            OrderEvent::PaymentRequired { .. } => self.status(OrderStatus::AwaitingPayment),
            OrderEvent::OrderPaid { amount, .. } => {
                self.status(OrderStatus::Paid);
                self.add(Figure::Paid, None, *amount);
            }
            OrderEvent::OrderCancelled { .. } => self.status(OrderStatus::Cancelled),
            OrderEvent::ShipmentDispatched {
                shipment_id, lines, ..
            } => {
                self.word(Figure::Shipment, Some(shipment_id.to_string()), "dispatched");
                self.count(Figure::UnitsShipped, units(lines));
                let complete = self.number(Figure::UnitsShipped) >= self.number(Figure::Units);
                self.status(if complete {
                    OrderStatus::Shipped
                } else {
                    OrderStatus::PartiallyShipped
                });
            }
            OrderEvent::ShipmentDelivered { shipment_id, .. } => {
                self.word(Figure::Shipment, Some(shipment_id.to_string()), "delivered");
                if self.is(Figure::Status, None, OrderStatus::Shipped.as_str()) && self.all_delivered() {
                    self.status(OrderStatus::Delivered);
                }
            }
            OrderEvent::OrderCompleted {} => self.status(OrderStatus::Completed),
            OrderEvent::ReturnRequested { return_id, .. } => {
                self.word(Figure::Return, Some(return_id.to_string()), "requested");
                self.status(OrderStatus::ReturnRequested);
            }
            OrderEvent::ReturnApproved { return_id } => {
                self.word(Figure::Return, Some(return_id.to_string()), "approved");
            }
            OrderEvent::ReturnRejected { return_id, .. } => {
                self.word(Figure::Return, Some(return_id.to_string()), "rejected");
                self.status(OrderStatus::Delivered);
            }
            OrderEvent::ReturnReceived { return_id, lines, .. } => {
                self.word(Figure::Return, Some(return_id.to_string()), "received");
                let units = lines.iter().map(|line| u64::from(line.quantity)).sum();
                self.count(Figure::UnitsReturned, units);
                self.status(OrderStatus::Returned);
            }
            OrderEvent::RefundRecorded { amount, .. } => self.add(Figure::Refunded, None, *amount),
        }
    }

    fn payment(&mut self, event: &PaymentEvent) {
        match event {
            PaymentEvent::PaymentRequested { attempt, amount, .. }
            | PaymentEvent::PaymentRetried { attempt, amount, .. } => {
                self.set(Figure::Total, None, Value::Money(*amount));
                self.attempt(*attempt, PaymentStatus::Requested);
            }
            PaymentEvent::SessionRequested { attempt, .. } => self.asked(*attempt, "session"),
            PaymentEvent::CaptureRequested { attempt, .. } => self.asked(*attempt, "capture"),
            PaymentEvent::VoidRequested { attempt, .. } => self.asked(*attempt, "void"),
            PaymentEvent::PaymentSessionCreated { attempt, .. } => {
                let of = attempt.to_string();
                if self.is(Figure::Attempt, Some(&of), PaymentStatus::Requested.as_str()) {
                    self.attempt(*attempt, PaymentStatus::Pending);
                }
            }
            PaymentEvent::PaymentAuthorized { attempt, amount, .. } => {
                self.set(
                    Figure::Authorized,
                    Some(attempt.to_string()),
                    Value::Money(*amount),
                );
                self.attempt(*attempt, PaymentStatus::Authorized);
            }
            PaymentEvent::PaymentCaptured { attempt, amount, .. } => {
                self.add(Figure::Captured, Some(attempt.to_string()), *amount);
                self.attempt(*attempt, PaymentStatus::Captured);
            }
            PaymentEvent::PaymentDeclined { attempt, .. } => self.attempt(*attempt, PaymentStatus::Declined),
            PaymentEvent::PaymentVoided { attempt, .. } => self.attempt(*attempt, PaymentStatus::Voided),
            PaymentEvent::PaymentExpired { attempt, .. } => self.attempt(*attempt, PaymentStatus::Expired),
            PaymentEvent::PaymentCloseRequested { reason, .. } => {
                self.word(Figure::Closing, None, reason.as_str());
            }
            PaymentEvent::RefundRequested { refund_id, .. } => {
                self.word(Figure::Refund, Some(refund_id.to_string()), "requested");
            }
            PaymentEvent::RefundSucceeded {
                attempt,
                refund_id,
                amount,
                ..
            } => {
                let of = refund_id.to_string();
                if !self.is(Figure::Refund, Some(&of), "succeeded") {
                    self.word(Figure::Refund, Some(of), "succeeded");
                    self.add(Figure::Refunded, Some(attempt.to_string()), *amount);
                    self.payment_status();
                }
            }
            PaymentEvent::RefundFailed { refund_id, .. } => {
                self.word(Figure::Refund, Some(refund_id.to_string()), "failed");
            }
            PaymentEvent::ProviderAnomalyRecorded { .. } => self.count(Figure::Anomalies, 1),
        }
    }

    fn inventory(&mut self, event: &InventoryEvent) {
        match event {
            InventoryEvent::StockReserved { quantity, .. } => {
                self.word(Figure::Reservation, None, "held");
                self.count(Figure::UnitsHeld, (*quantity).into());
            }
            InventoryEvent::ReservationRejected { .. } => self.word(Figure::Reservation, None, "rejected"),
            InventoryEvent::ReservationReleased { quantity, .. } => {
                self.word(Figure::Reservation, None, "released");
                self.no_longer_held(*quantity);
            }
            InventoryEvent::ReservationCommitted { quantity, .. } => {
                self.no_longer_held(*quantity);
                self.count(Figure::UnitsShipped, (*quantity).into());
                if self.number(Figure::UnitsHeld) == 0 {
                    self.word(Figure::Reservation, None, "shipped");
                }
            }
            InventoryEvent::StockReturned { quantity, .. } => {
                self.count(Figure::UnitsReturned, (*quantity).into());
            }
            InventoryEvent::SkuAssigned { .. }
            | InventoryEvent::StockReceived { .. }
            | InventoryEvent::StockAdjusted { .. }
            | InventoryEvent::BackorderLimitSet { .. } => {}
        }
    }

    fn status(&mut self, status: OrderStatus) {
        self.word(Figure::Status, None, status.as_str());
    }

    fn all_delivered(&self) -> bool {
        let mut shipments = self
            .standing
            .0
            .iter()
            .filter(|(figure, ..)| *figure == Figure::Shipment);
        shipments.all(|(.., value)| matches!(value, Value::Word(word) if word == "delivered"))
    }

    fn asked(&mut self, attempt: u32, what: &str) {
        self.word(Figure::Asked, Some(attempt.to_string()), what);
    }

    /// The attempt has this status now, and the payment with it. Nothing hides that money was taken.
    fn attempt(&mut self, number: u32, status: PaymentStatus) {
        let of = number.to_string();
        if self.money(Figure::Captured, &of).is_none() || status == PaymentStatus::Captured {
            self.word(Figure::Attempt, Some(of), status.as_str());
        }
        self.payment_status();
    }

    /// That of the attempt that holds money, else of the latest.
    fn payment_status(&mut self) {
        let attempts = self
            .standing
            .0
            .iter()
            .filter(|(figure, ..)| *figure == Figure::Attempt);
        let statuses: Vec<(String, bool)> = attempts
            .rev()
            .map(|(_, of, value)| {
                let of = of.as_deref().unwrap_or_default();
                let status = match value {
                    Value::Word(word) => word.clone(),
                    Value::Number(_) | Value::Money(_) => String::new(),
                };
                let Some(captured) = self.money(Figure::Captured, of) else {
                    return (status, false);
                };
                match self.money(Figure::Refunded, of).map_or(0, Money::amount) {
                    0 => (PaymentStatus::Captured.as_str().to_owned(), true),
                    refunded if refunded < captured.amount() => {
                        (PaymentStatus::PartiallyRefunded.as_str().to_owned(), true)
                    }
                    _ => (PaymentStatus::Refunded.as_str().to_owned(), false),
                }
            })
            .collect();
        let with_money = statuses.iter().find(|(_, holds_money)| *holds_money);
        if let Some((status, _)) = with_money.or(statuses.first()) {
            self.word(Figure::Status, None, &status.clone());
        }
    }

    fn no_longer_held(&mut self, quantity: u32) {
        let held = self.number(Figure::UnitsHeld).saturating_sub(quantity.into());
        self.set(Figure::UnitsHeld, None, Value::Number(held));
    }

    fn word(&mut self, figure: Figure, of: Option<String>, word: &str) {
        self.set(figure, of, Value::Word(word.to_owned()));
    }

    fn count(&mut self, figure: Figure, more: u64) {
        let sum = self.number(figure).saturating_add(more);
        self.set(figure, None, Value::Number(sum));
    }

    /// Adds an amount; one that cannot be added, which no aggregate decides, stands for itself.
    fn add(&mut self, figure: Figure, of: Option<String>, amount: Money) {
        let before = match self.value(figure, of.as_deref()) {
            Some(Value::Money(before)) => *before,
            _ => Money::zero(amount.currency()),
        };
        let sum = before.checked_add(amount).unwrap_or(amount);
        self.set(figure, of, Value::Money(sum));
    }

    /// The figure is this from now on. That nothing is there yet changes nothing.
    fn set(&mut self, what: Figure, of: Option<String>, after: Value) {
        let found = self
            .standing
            .0
            .iter_mut()
            .find(|entry| entry.0 == what && entry.1 == of);
        let before = if let Some(entry) = found {
            Some(std::mem::replace(&mut entry.2, after.clone()))
        } else {
            self.standing.0.push((what, of.clone(), after.clone()));
            None
        };
        let nothing = before.is_none() && after.is_nothing();
        if !nothing && before.as_ref() != Some(&after) {
            self.changes.push(StoredChange(what, of, before, after));
        }
    }

    fn value(&self, figure: Figure, of: Option<&str>) -> Option<&Value> {
        let mut figures = self.standing.0.iter();
        figures
            .find(|entry| entry.0 == figure && entry.1.as_deref() == of)
            .map(|(.., value)| value)
    }

    fn is(&self, figure: Figure, of: Option<&str>, word: &str) -> bool {
        matches!(self.value(figure, of), Some(Value::Word(is)) if is == word)
    }

    fn number(&self, figure: Figure) -> u64 {
        match self.value(figure, None) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        }
    }

    fn money(&self, figure: Figure, of: &str) -> Option<Money> {
        match self.value(figure, Some(of)) {
            Some(Value::Money(money)) => Some(*money),
            _ => None,
        }
    }
}

impl Value {
    const fn is_nothing(&self) -> bool {
        match self {
            Self::Number(number) => *number == 0,
            Self::Money(money) => money.is_zero(),
            Self::Word(_) => false,
        }
    }
}

fn units(lines: &[LineQuantity]) -> u64 {
    lines.iter().map(|line| u64::from(line.quantity)).sum()
}
