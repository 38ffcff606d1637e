//! What must follow from what happened: pure functions of an event and its aggregate folded up to that event.
//!
//! | when | then | if refused |
//! |---|---|---|
//! | `CartCheckedOut` | `Order.Place` (the check-out's handler runs the same command) | terms that make no order → `Cart.Reopen` |
//! | `CartMergedInto` | `Cart.Merge` on the target (the handler runs it too) | — |
//! | `StockReserved` | `Order.RecordLineReserved` | cancelled → `StockItem.Release` |
//! | `ReservationRejected` | `Order.Cancel(out-of-stock)` | — |
//! | `OrderPlaced` | `StockItem.Reserve` per tracked SKU (none: `Order.RecordReserved`); timer `payment_deadline` | — |
//! | `PaymentRequired` | `Payment.Request` (nothing to pay: `Order.MarkPaid`) | cancelled → nothing |
//! | `OrderPaid` | `Cart.Renew`; the deadline is off | — |
//! | `OrderCancelled` | `StockItem.Release` per tracked SKU; `Payment.Close` if a payment was required; `Cart.Reopen` if never paid; the deadline is off | — |
//! | `ShipmentDispatched` | `StockItem.Commit` per tracked SKU | — |
//! | `ShipmentDelivered` | once all is delivered: timer `auto_complete` | — |
//! | `ReturnReceived` | `StockItem.Return` per tracked line; `Payment.RequestRefund` | — |
//! | `PaymentRequested`, `PaymentRetried` | `Payment.RequestSession` | — |
//! | `SessionRequested`, `CaptureRequested`, `VoidRequested`, `RefundRequested` | effect: the call to the provider | — |
//! | `PaymentAuthorized` | given up: `Payment.RequestVoid`; else `Payment.RequestCapture` | — |
//! | `PaymentCaptured` | `Order.MarkPaid` | cancelled, or paid by another attempt → `Payment.RequestRefund` of all of it |
//! | `RefundSucceeded` | `Order.RecordRefund` | — |
//! | timer `payment_deadline` | `Order.Cancel(payment-timeout)`, moot once paid | — |
//! | timer `auto_complete` | `Order.Complete` | return open, or no longer delivered → nothing |
//!
//! A refusal that is not in the table is no branch: it is a dead letter. Redelivery derives the same command ids and
//! so repeats nothing.

mod action;
mod cart;
mod inventory;
mod order;
mod payment;

use std::sync::Arc;
use std::time::Duration;

use aggregates::order::Order;
use aggregates::payment::Payment;
use event_schemas::{CartEvent, Event, InventoryEvent, OrderEvent, PaymentEvent, RecordedEvent};

pub use action::{
    Action, Command, EffectKind, IfRefused, PolicyCommand, Refusal, Refused, TimerKind, UnknownKind,
};
pub use cart::{merge_command, place_order_command};

/// What the policies are told beside events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyConfig {
    /// From the last delivery to `Order.Complete`.
    pub auto_complete_after: Duration,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            auto_complete_after: Duration::from_secs(14 * 24 * 3_600),
        }
    }
}

/// An aggregate folded up to, and with, the event that is looked at.
#[derive(Debug, Clone, Copy)]
pub enum Folded<'a> {
    /// For events whose policy needs none: see [`needs_state`].
    Nothing,
    Order(&'a Order),
    Payment(&'a Payment),
}

/// The policy was called without the state that [`needs_state`] asks for, or with another aggregate's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the policy of {event} was not given its aggregate's state")]
pub struct MissingState {
    pub event: &'static str,
}

/// Whether anything follows from events like this one.
pub fn has_policy(event: &Event) -> bool {
    match event {
        Event::Product(_) => false,
        Event::Inventory(event) => {
            matches!(
                event,
                InventoryEvent::StockReserved { .. } | InventoryEvent::ReservationRejected { .. }
            )
        }
        Event::Cart(event) => matches!(
            event,
            CartEvent::CartCheckedOut(_) | CartEvent::CartMergedInto { .. }
        ),
        Event::Order(event) => matches!(
            event,
            OrderEvent::OrderPlaced(_)
                | OrderEvent::PaymentRequired { .. }
                | OrderEvent::OrderPaid { .. }
                | OrderEvent::OrderCancelled { .. }
                | OrderEvent::ShipmentDispatched { .. }
                | OrderEvent::ShipmentDelivered { .. }
                | OrderEvent::ReturnReceived { .. }
        ),
        Event::Payment(event) => matches!(
            event,
            PaymentEvent::PaymentRequested { .. }
                | PaymentEvent::PaymentRetried { .. }
                | PaymentEvent::SessionRequested { .. }
                | PaymentEvent::PaymentAuthorized { .. }
                | PaymentEvent::CaptureRequested { .. }
                | PaymentEvent::VoidRequested { .. }
                | PaymentEvent::PaymentCaptured { .. }
                | PaymentEvent::RefundRequested { .. }
                | PaymentEvent::RefundSucceeded { .. }
        ),
    }
}

/// Whether the policy of this event looks at the folded aggregate: a fold costs a read, so few do.
pub fn needs_state(event: &Event) -> bool {
    match event {
        Event::Order(event) => matches!(
            event,
            OrderEvent::OrderPaid { .. }
                | OrderEvent::OrderCancelled { .. }
                | OrderEvent::ShipmentDispatched { .. }
                | OrderEvent::ShipmentDelivered { .. }
                | OrderEvent::ReturnReceived { .. }
        ),
        Event::Payment(event) => matches!(event, PaymentEvent::PaymentAuthorized { .. }),
        Event::Product(_) | Event::Inventory(_) | Event::Cart(_) => false,
    }
}

/// What follows from `recorded`; `state` is [`Folded::Nothing`] unless [`needs_state`] says otherwise.
pub fn react(
    recorded: &RecordedEvent,
    state: Folded<'_>,
    config: &PolicyConfig,
) -> Result<Vec<Action>, MissingState> {
    let missing = || MissingState {
        event: recorded.event.name(),
    };
    match &recorded.event {
        Event::Product(_) => Ok(Vec::new()),
        Event::Inventory(event) => Ok(inventory::react(recorded, event)),
        Event::Cart(event) => Ok(cart::react(recorded, event)),
        Event::Order(event) => order::react(recorded, event, state, config).ok_or_else(missing),
        Event::Payment(event) => payment::react(recorded, event, state).ok_or_else(missing),
    }
}

/// What follows when a timer that `recorded` has set falls due.
pub fn react_to_timer(recorded: &RecordedEvent, kind: TimerKind) -> Vec<Action> {
    match (kind, &recorded.event) {
        (TimerKind::PaymentDeadline, Event::Order(OrderEvent::OrderPlaced(placed))) => {
            vec![order::payment_timeout(recorded, placed)]
        }
        (TimerKind::AutoComplete, Event::Order(OrderEvent::ShipmentDelivered { .. })) => {
            order::complete(recorded).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// What is parked together when a policy fails: the stream, but on stock the order's part of it, so that one order's
/// trouble never stops a SKU.
pub fn scope(recorded: &RecordedEvent) -> Arc<str> {
    let Event::Inventory(
        InventoryEvent::StockReserved { order_id, .. } | InventoryEvent::ReservationRejected { order_id, .. },
    ) = &recorded.event
    else {
        return recorded.stream.to_string().into();
    };
    format!("{}#{order_id}", recorded.stream).into()
}
