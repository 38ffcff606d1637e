//! What the views of an order show, figure by figure.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/folding.rs"]
mod folding;
mod support;

use event_schemas::{
    ActorKind, CancelReason, InventoryEvent, LineQuantity, Money, OrderEvent, OrderStage, PaymentEvent,
    PaymentId, Reference, RefundId, ReturnCondition, ReturnId, ReturnedLine, ShipmentId, Version,
};
use folding::{Folding, order, payment, stock};
use projections::order_timeline::OrderTimeline;
use projections::orders::{OrderStatus, OrderView, Orders, ReturnStatus};
use projections::payments::PaymentStatus;
use projections::{FoldError, View};
use support::{code, customer_id, method, money, order_id, placed, sku, time, uuid};

fn agreed() -> OrderEvent {
    let lines = [(sku(1), 2, 450), (sku(2), 1, 100)];
    OrderEvent::OrderPlaced(Box::new(placed(order_id(1), customer_id(1), &lines, time(1))))
}

fn units(lines: &[(u32, u32)]) -> Vec<LineQuantity> {
    lines
        .iter()
        .map(|(line_no, quantity)| LineQuantity {
            line_no: *line_no,
            quantity: *quantity,
        })
        .collect()
}

fn dispatched(number: u64, lines: &[(u32, u32)]) -> OrderEvent {
    OrderEvent::ShipmentDispatched {
        shipment_id: shipment(number),
        lines: units(lines),
        carrier: code("post"),
        tracking_number: None,
    }
}

fn delivered(number: u64) -> OrderEvent {
    OrderEvent::ShipmentDelivered {
        shipment_id: shipment(number),
        delivered_at: time(77),
    }
}

fn shipment(number: u64) -> ShipmentId {
    ShipmentId::from_uuid(uuid(5, number))
}

#[test]
fn an_order_goes_its_way() {
    let mut folding = Folding::<Orders>::new(order_id(1));
    let placed = folding.then(order(), agreed());
    assert_eq!(
        (placed.status, placed.totals.total, placed.payment),
        (OrderStatus::Placed, money(1_000), None)
    );
    folding.then(order(), OrderEvent::LineReserved { sku: sku(1) });
    let payment_id = PaymentId::for_order(order_id(1));
    let required = OrderEvent::PaymentRequired {
        payment_id,
        amount: money(1_000),
        method: method(),
    };
    let waiting = folding.then(order(), required);
    assert_eq!(waiting.status, OrderStatus::AwaitingPayment);
    // The order knows of its payment before the payment's first event is seen.
    let expected = (payment_id, PaymentStatus::Requested, 0);
    assert_eq!(
        waiting
            .payment
            .map(|payment| (payment.payment_id, payment.status, payment.attempt)),
        Some(expected)
    );
    let paid = folding.then(
        order(),
        OrderEvent::OrderPaid {
            payment_id,
            attempt: 1,
            amount: money(1_000),
        },
    );
    assert_eq!(
        (paid.status, paid.paid, paid.version),
        (OrderStatus::Paid, money(1_000), Version(4))
    );

    assert_eq!(
        folding.then(order(), dispatched(1, &[(1, 1)])).status,
        OrderStatus::PartiallyShipped
    );
    // Delivered is an order that is wholly so.
    assert_eq!(
        folding.then(order(), delivered(1)).status,
        OrderStatus::PartiallyShipped
    );
    let shipped = folding.then(order(), dispatched(2, &[(1, 1), (2, 1)]));
    assert_eq!(shipped.status, OrderStatus::Shipped);
    assert_eq!(
        shipped.lines.iter().map(|line| line.shipped).collect::<Vec<_>>(),
        [2, 1]
    );
    assert_eq!(folding.then(order(), delivered(2)).status, OrderStatus::Delivered);

    let return_id = ReturnId::from_uuid(uuid(6, 1));
    let requested = OrderEvent::ReturnRequested {
        return_id,
        lines: units(&[(1, 2)]),
        reason: code("too-big"),
        note: None,
    };
    assert_eq!(
        folding.then(order(), requested).status,
        OrderStatus::ReturnRequested
    );
    folding.then(order(), OrderEvent::ReturnApproved { return_id });
    let lines = vec![ReturnedLine {
        line_no: 1,
        quantity: 1,
        condition: ReturnCondition::Resaleable,
    }];
    let received = folding.then(
        order(),
        OrderEvent::ReturnReceived {
            return_id,
            lines,
            refund: money(450),
        },
    );
    assert_eq!(
        (received.status, received.lines[0].returned),
        (OrderStatus::Returned, 1)
    );
    // What came, not what was announced.
    assert_eq!(
        (received.returns[0].status, &received.returns[0].lines),
        (ReturnStatus::Received, &units(&[(1, 1)]))
    );
    let refund_id = RefundId::from_uuid(uuid(7, 1));
    let refund = OrderEvent::RefundRecorded {
        payment_id,
        attempt: 1,
        refund_id,
        amount: money(450),
    };
    assert_eq!(folding.then(order(), refund).refunded, money(450));
}

#[test]
fn a_rejected_return_leaves_the_order_delivered() {
    let mut folding = Folding::<Orders>::new(order_id(1));
    folding.then(order(), agreed());
    folding.then(order(), dispatched(1, &[(1, 2), (2, 1)]));
    folding.then(order(), delivered(1));
    let return_id = ReturnId::from_uuid(uuid(6, 1));
    let lines = units(&[(1, 2)]);
    folding.then(
        order(),
        OrderEvent::ReturnRequested {
            return_id,
            lines,
            reason: code("too-big"),
            note: None,
        },
    );
    let rejected = folding.then(
        order(),
        OrderEvent::ReturnRejected {
            return_id,
            reason: code("worn"),
        },
    );
    assert_eq!(rejected.status, OrderStatus::Delivered);
    assert_eq!(rejected.returns[0].rejected, Some(code("worn")));
    assert_eq!(
        folding.then(order(), OrderEvent::OrderCompleted {}).status,
        OrderStatus::Completed
    );
}

#[test]
fn a_cancelled_order_says_why() {
    let mut folding = Folding::<Orders>::new(order_id(1));
    folding.then(order(), agreed());
    let reason = CancelReason::OutOfStock {
        sku: sku(2),
        available: 0,
    };
    let event = OrderEvent::OrderCancelled {
        reason: reason.clone(),
        by: ActorKind::System,
        stage: OrderStage::Placed,
    };
    let cancelled: OrderView = folding.then(order(), event);
    assert_eq!(cancelled.status, OrderStatus::Cancelled);
    assert_eq!(
        cancelled.cancelled.map(|cancelled| cancelled.reason),
        Some(reason)
    );
}

/// Nothing can be shown of an order of which only the payment has been seen, and nothing is lost.
#[test]
fn an_order_may_begin_with_its_payment() {
    let mut folding = Folding::<Orders>::new(order_id(1));
    let (order_id, amount) = (order_id(1), money(1_000));
    let requested = PaymentEvent::PaymentRequested {
        order_id,
        attempt: 1,
        amount,
        method: method(),
    };
    let event = folding.record(payment(), ActorKind::System, requested.into());
    folding.document.fold::<Orders>(&event).unwrap();
    assert_eq!(folding.read(), None);
    assert_eq!(Orders::keys(&folding.document), None);
    let whole = folding.then(order(), agreed());
    assert_eq!(whole.payment.unwrap().attempt, 1);
    assert!(Orders::keys(&folding.document).is_some());
}

#[test]
fn a_fold_refuses_what_cannot_have_happened() {
    let mut folding = Folding::<Orders>::new(order_id(1));
    let completed = OrderEvent::OrderCompleted {};
    assert_eq!(
        folding.refused(order(), completed),
        FoldError::NotBegun {
            event_type: "OrderCompleted"
        }
    );
    folding.then(order(), agreed());
    let what = "line 9".to_owned();
    let unknown = FoldError::Unknown {
        event_type: "ShipmentDispatched",
        what,
    };
    assert_eq!(folding.refused(order(), dispatched(1, &[(9, 1)])), unknown);
    let overflow = FoldError::OutOfRange {
        event_type: "OrderPaid",
    };
    let payment_id = PaymentId::for_order(order_id(1));
    let all = money(Money::MAX_AMOUNT);
    folding.then(
        order(),
        OrderEvent::OrderPaid {
            payment_id,
            attempt: 1,
            amount: all,
        },
    );
    let more = OrderEvent::OrderPaid {
        payment_id,
        attempt: 1,
        amount: money(1),
    };
    assert_eq!(folding.refused(order(), more), overflow);
}

#[test]
fn a_timeline_tells_who_and_why_and_hides_staff_from_customers() {
    let mut folding = Folding::<OrderTimeline>::new(order_id(1));
    folding.by(ActorKind::Customer, order(), agreed());
    folding.then(
        stock(),
        InventoryEvent::StockReserved {
            order_id: order_id(1),
            quantity: 2,
        },
    );
    let reason = CancelReason::Staff {
        code: code("mistake"),
    };
    let cancelled = OrderEvent::OrderCancelled {
        reason,
        by: ActorKind::Staff,
        stage: OrderStage::Placed,
    };
    let timeline = folding.by(ActorKind::Staff, order(), cancelled);
    let told: Vec<_> = timeline
        .entries
        .iter()
        .map(|entry| (&*entry.event_type, entry.change.as_str()))
        .collect();
    let expected = [
        ("OrderPlaced", "placed: 2 lines, 3 units for 10.00 GBP"),
        ("StockReserved", "2 units of MUG-1 reserved"),
        ("OrderCancelled", "cancelled by staff: mistake"),
    ];
    assert_eq!(told, expected);
    assert_eq!(timeline.entries[1].event_id, "inventory/MUG-1/1");
    let actors = |timeline: &projections::order_timeline::TimelineView| -> Vec<bool> {
        timeline
            .entries
            .iter()
            .map(|entry| entry.actor_id.is_some())
            .collect()
    };
    assert_eq!(actors(&timeline), [true, true, true]);
    // This customer is somebody else; the system may be named.
    assert_eq!(actors(&timeline.for_customer()), [false, true, false]);
    // Another order's reservation of the same SKU belongs elsewhere.
    let other = InventoryEvent::StockReserved {
        order_id: order_id(2),
        quantity: 1,
    };
    let other = folding.record(stock(), ActorKind::System, other.into());
    assert_eq!(OrderTimeline::route(&other), Some(order_id(2).into()));
    let received = InventoryEvent::StockReceived {
        quantity: 1,
        reference: Reference::new("x").unwrap(),
    };
    let received = folding.record(stock(), ActorKind::System, received.into());
    assert_eq!(OrderTimeline::route(&received), None);
}
