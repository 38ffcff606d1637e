//! What happened, in a line for people. Without ids of secrets or anything personal.

use event_schemas::{
    Anomaly, CancelReason, Event, InventoryEvent, OrderEvent, PaymentEvent, ReturnCondition, StreamId,
};

/// The line for an event of `stream`.
pub(super) fn line(stream: &StreamId, event: &Event) -> String {
    match event {
        Event::Order(event) => order(event),
        Event::Payment(event) => payment(event),
        Event::Inventory(event) => inventory(stream.aggregate_id.as_str(), event),
        Event::Product(event) => event.name().to_owned(),
        Event::Cart(event) => event.name().to_owned(),
    }
}

fn order(event: &OrderEvent) -> String {
    match event {
        OrderEvent::OrderPlaced(placed) => {
            let units: u64 = placed.lines.iter().map(|line| u64::from(line.quantity)).sum();
            let total = placed.totals.total;
            format!(
                "placed: {}, {} for {total}",
                count(placed.lines.len() as u64, "line"),
                count(units, "unit")
            )
        }
        OrderEvent::LineReserved { sku } => format!("stock of {sku} reserved"),
        OrderEvent::OrderReserved {} => "all stock reserved".to_owned(),
        OrderEvent::PaymentRequired { amount, method, .. } => {
            format!("payment of {amount} by {} required", method.method)
        }
        OrderEvent::OrderPaid {
            amount, attempt: 0, ..
        } => format!("paid: {amount}, nothing to pay"),
        OrderEvent::OrderPaid { amount, attempt, .. } => format!("paid: {amount} by attempt {attempt}"),
        OrderEvent::OrderCancelled { reason, .. } => match reason {
            CancelReason::OutOfStock { sku, available } => {
                format!("cancelled: {sku} is out of stock, {available} left")
            }
            CancelReason::PaymentTimeout => "cancelled: not paid in time".to_owned(),
            CancelReason::CustomerRequest => "cancelled: the customer asked for it".to_owned(),
            CancelReason::Staff { code } => format!("cancelled by staff: {code}"),
        },
        OrderEvent::ShipmentDispatched { lines, carrier, .. } => {
            let units: u64 = lines.iter().map(|line| u64::from(line.quantity)).sum();
            format!("{} sent by {carrier}", count(units, "unit"))
        }
        OrderEvent::ShipmentDelivered { .. } => "a shipment delivered".to_owned(),
        OrderEvent::OrderCompleted {} => "completed".to_owned(),
        OrderEvent::ReturnRequested { lines, reason, .. } => {
            let units: u64 = lines.iter().map(|line| u64::from(line.quantity)).sum();
            format!("return of {} requested: {reason}", count(units, "unit"))
        }
        OrderEvent::ReturnApproved { .. } => "return approved".to_owned(),
        OrderEvent::ReturnRejected { reason, .. } => format!("return rejected: {reason}"),
        OrderEvent::ReturnReceived { lines, refund, .. } => {
            let units: u64 = lines.iter().map(|line| u64::from(line.quantity)).sum();
            format!(
                "return of {} received: {refund} to be paid back",
                count(units, "unit")
            )
        }
        OrderEvent::RefundRecorded { amount, .. } => format!("{amount} paid back"),
    }
}

fn payment(event: &PaymentEvent) -> String {
    match event {
        PaymentEvent::PaymentRequested {
            attempt,
            amount,
            method,
            ..
        }
        | PaymentEvent::PaymentRetried {
            attempt,
            amount,
            method,
            ..
        } => {
            format!("attempt {attempt}: {amount} by {} requested", method.method)
        }
        PaymentEvent::SessionRequested { attempt, .. } => format!("attempt {attempt}: session requested"),
        PaymentEvent::PaymentSessionCreated { attempt, .. } => format!("attempt {attempt}: session open"),
        PaymentEvent::PaymentAuthorized { attempt, amount, .. } => {
            format!("attempt {attempt}: {amount} authorized")
        }
        PaymentEvent::CaptureRequested { attempt, amount, .. } => {
            format!("attempt {attempt}: capture of {amount} requested")
        }
        PaymentEvent::PaymentCaptured { attempt, amount, .. } => {
            format!("attempt {attempt}: {amount} captured")
        }
        PaymentEvent::PaymentDeclined { attempt, code, .. } => format!("attempt {attempt}: declined, {code}"),
        PaymentEvent::PaymentCloseRequested { reason, .. } => format!("closing: {reason}"),
        PaymentEvent::VoidRequested { attempt, .. } => format!("attempt {attempt}: void requested"),
        PaymentEvent::PaymentVoided { attempt, .. } => format!("attempt {attempt}: voided"),
        PaymentEvent::PaymentExpired { attempt, .. } => format!("attempt {attempt}: expired"),
        PaymentEvent::RefundRequested { amount, reason, .. } => {
            format!("refund of {amount} requested: {reason}")
        }
        PaymentEvent::RefundSucceeded { amount, .. } => format!("{amount} refunded"),
        PaymentEvent::RefundFailed { amount, code, .. } => format!("refund of {amount} failed: {code}"),
        PaymentEvent::ProviderAnomalyRecorded { attempt, kind, .. } => {
            format!(
                "attempt {attempt}: the provider's report does not fit, {}",
                anomaly(kind)
            )
        }
    }
}

fn anomaly(kind: &Anomaly) -> String {
    match kind {
        Anomaly::AmountMismatch { expected, reported } | Anomaly::CurrencyMismatch { expected, reported } => {
            format!("{reported} instead of {expected}")
        }
        Anomaly::OrderMismatch { .. } => "it names another order".to_owned(),
        Anomaly::UnknownAttempt { .. } => "no such attempt was made".to_owned(),
        Anomaly::UnknownRefund { .. } => "no such refund was requested".to_owned(),
        Anomaly::SecondCapture { reported, .. } => format!("{reported} captured once more"),
    }
}

fn inventory(sku: &str, event: &InventoryEvent) -> String {
    match event {
        InventoryEvent::StockReserved { quantity, .. } => {
            format!("{} of {sku} reserved", count((*quantity).into(), "unit"))
        }
        InventoryEvent::ReservationRejected {
            quantity, available, ..
        } => {
            format!(
                "{} of {sku} wanted, {available} available",
                count((*quantity).into(), "unit")
            )
        }
        InventoryEvent::ReservationReleased { quantity, .. } => {
            format!("{} of {sku} released", count((*quantity).into(), "unit"))
        }
        InventoryEvent::ReservationCommitted { quantity, .. } => {
            format!("{} of {sku} left the building", count((*quantity).into(), "unit"))
        }
        InventoryEvent::StockReturned {
            quantity, condition, ..
        } => {
            let condition = match condition {
                ReturnCondition::Resaleable => "resaleable",
                ReturnCondition::Damaged => "damaged",
            };
            format!(
                "{} of {sku} came back, {condition}",
                count((*quantity).into(), "unit")
            )
        }
        InventoryEvent::SkuAssigned { .. }
        | InventoryEvent::StockReceived { .. }
        | InventoryEvent::StockAdjusted { .. }
        | InventoryEvent::BackorderLimitSet { .. } => event.name().to_owned(),
    }
}

fn count(number: u64, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}
