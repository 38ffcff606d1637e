//! What holds after every event.

use super::{Order, OrderStatus, ReturnStatus, totals};

/// A named predicate over the state.
pub type Invariant = (&'static str, fn(&Order) -> bool);

/// All of them.
pub const INVARIANTS: &[Invariant] = &[
    ("totals add up", totals_add_up),
    ("pending only while placed", pending_only_while_placed),
    ("paid in full, and only then on", paid_in_full_and_only_then_on),
    ("shipped within ordered", shipped_within_ordered),
    ("returned within shipped", returned_within_shipped),
    ("refunded within paid", refunded_within_paid),
    ("status fits shipments", status_fits_shipments),
    ("status fits returns", status_fits_returns),
];

/// In one currency, or there would be no sum.
pub fn totals_add_up(order: &Order) -> bool {
    order
        .placed()
        .is_none_or(|placed| totals(&placed.lines, &placed.shipping).as_ref() == Ok(&placed.totals))
}

/// Nothing is awaited from stock once payment is required.
pub fn pending_only_while_placed(order: &Order) -> bool {
    match order.status {
        OrderStatus::Absent => *order == Order::default(),
        OrderStatus::Placed | OrderStatus::Cancelled => order.placed.is_some(),
        _ => order.placed.is_some() && order.pending.is_empty(),
    }
}

/// What paid it paid the total, and nothing beyond `Paid` happens without.
pub fn paid_in_full_and_only_then_on(order: &Order) -> bool {
    let total = order.placed().map(|placed| placed.totals.total);
    match (&order.paid, order.status) {
        (
            None,
            OrderStatus::Absent | OrderStatus::Placed | OrderStatus::AwaitingPayment | OrderStatus::Cancelled,
        ) => true,
        (None, _) | (Some(_), OrderStatus::Absent | OrderStatus::Placed | OrderStatus::AwaitingPayment) => {
            false
        }
        (Some(paid), _) => Some(paid.amount) == total,
    }
}

/// Per line; and the units left to ship are counted right.
pub fn shipped_within_ordered(order: &Order) -> bool {
    let ordered: u64 = order.placed().map_or(0, |placed| {
        placed.lines.iter().map(|line| u64::from(line.quantity)).sum()
    });
    let shipped: u64 = order.shipped.values().map(|units| u64::from(*units)).sum();
    let within =
        |(line_no, units): (&u32, &u32)| order.line(*line_no).is_some_and(|line| *units <= line.quantity);
    order.shipped.iter().all(within) && ordered.checked_sub(shipped) == Some(order.unshipped)
}

/// Per line.
pub fn returned_within_shipped(order: &Order) -> bool {
    order
        .returned
        .iter()
        .all(|(line_no, units)| order.shipped.get(line_no).is_some_and(|shipped| units <= shipped))
}

/// What was given back was paid.
pub fn refunded_within_paid(order: &Order) -> bool {
    order.refunded() <= order.paid.map_or(0, |paid| paid.amount.amount())
        && order.refunds.values().all(|amount| amount.amount() > 0)
}

/// Nothing ships before it is paid or after it is cancelled; shipped means all of it, delivered every shipment.
pub fn status_fits_shipments(order: &Order) -> bool {
    let shipments = order.shipments.len();
    let delivered = order.shipments.values().filter(|delivered| **delivered).count();
    match order.status {
        OrderStatus::Absent
        | OrderStatus::Placed
        | OrderStatus::AwaitingPayment
        | OrderStatus::Paid
        | OrderStatus::Cancelled => shipments == 0 && order.shipped.is_empty(),
        OrderStatus::PartiallyShipped => shipments > 0 && order.unshipped > 0,
        OrderStatus::Shipped => order.unshipped == 0 && delivered < shipments,
        OrderStatus::Delivered
        | OrderStatus::Completed
        | OrderStatus::ReturnRequested
        | OrderStatus::Returned => order.unshipped == 0 && delivered == shipments,
    }
}

/// One return is open while the order says so, and none otherwise.
pub fn status_fits_returns(order: &Order) -> bool {
    let count = |status| order.returns.values().filter(|of| of.status == status).count();
    let open = count(ReturnStatus::Requested) + count(ReturnStatus::Approved);
    open == usize::from(order.status == OrderStatus::ReturnRequested)
        && (count(ReturnStatus::Received) > 0) == (order.status == OrderStatus::Returned)
}
