//! What stock, carts and payments show, figure by figure.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/folding.rs"]
mod folding;
mod support;

use event_schemas::{
    AggregateType, CartCheckedOut, CartEvent, CartId, CartLine, InventoryEvent, PaymentEvent, PaymentId,
    ProviderRef, Reference, RefundId, ReleaseReason, ReturnCondition, StreamId,
};
use folding::{Folding, payment, stock};
use projections::FoldError;
use projections::carts::{CartStatus, CartView, Carts};
use projections::payments::{PaymentStatus, PaymentView, Payments, RefundStatus};
use projections::stock::{Stock, StockView};
use support::{code, customer_id, method, money, order_id, placed, product_id, sku, time, uuid};

fn released(quantity: u32) -> InventoryEvent {
    InventoryEvent::ReservationReleased {
        order_id: order_id(1),
        quantity,
        reason: ReleaseReason::OrderCancelled,
    }
}

#[test]
fn stock_adds_up() {
    let mut folding = Folding::<Stock>::new(&sku(1));
    let order_id = order_id(1);
    let figures = |stock: &StockView| (stock.on_hand, stock.reserved, stock.available);
    let mut then = |event| figures(&folding.then(stock(), event));
    assert_eq!(
        then(InventoryEvent::SkuAssigned {
            product_id: product_id(1)
        }),
        (0, 0, 0)
    );
    let reference = Reference::new("delivery 1").unwrap();
    assert_eq!(
        then(InventoryEvent::StockReceived {
            quantity: 10,
            reference
        }),
        (10, 0, 10)
    );
    assert_eq!(
        then(InventoryEvent::StockAdjusted {
            delta: -1,
            reason: code("broken")
        }),
        (9, 0, 9)
    );
    assert_eq!(then(InventoryEvent::BackorderLimitSet { limit: 5 }), (9, 0, 14));
    assert_eq!(
        then(InventoryEvent::StockReserved {
            order_id,
            quantity: 12
        }),
        (9, 12, 2)
    );
    assert_eq!(
        then(InventoryEvent::ReservationRejected {
            order_id,
            quantity: 3,
            available: 2
        }),
        (9, 12, 2)
    );
    assert_eq!(then(released(4)), (9, 8, 6));
    assert_eq!(
        then(InventoryEvent::ReservationCommitted {
            order_id,
            quantity: 3
        }),
        (6, 5, 6)
    );
    let returned = |condition| InventoryEvent::StockReturned {
        order_id,
        quantity: 1,
        condition,
    };
    assert_eq!(then(returned(ReturnCondition::Resaleable)), (7, 5, 7));
    assert_eq!(then(returned(ReturnCondition::Damaged)), (7, 5, 7));
    assert_eq!(folding.read().unwrap().product_id, Some(product_id(1)));
}

#[test]
fn a_cart_keeps_what_is_merged_while_it_is_checked_out() {
    let owner = customer_id(1);
    let cart = || StreamId::new(AggregateType::Cart, CartId::for_owner(owner));
    let mut folding = Folding::<Carts>::new(CartId::for_owner(owner));
    let lines = |cart: &CartView| -> Vec<(String, u32)> {
        cart.lines
            .iter()
            .map(|line| (line.sku.to_string(), line.quantity))
            .collect()
    };
    let held = |sku: &str, quantity| (sku.to_owned(), quantity);
    folding.then(cart(), CartEvent::CartOpened { owner });
    folding.then(
        cart(),
        CartEvent::ItemAdded {
            sku: sku(1),
            quantity: 2,
        },
    );
    folding.then(
        cart(),
        CartEvent::ItemAdded {
            sku: sku(2),
            quantity: 1,
        },
    );
    let summed = folding.then(
        cart(),
        CartEvent::ItemAdded {
            sku: sku(1),
            quantity: 3,
        },
    );
    assert_eq!(lines(&summed), [held("MUG-1", 5), held("MUG-2", 1)]);
    folding.then(
        cart(),
        CartEvent::ItemQuantityChanged {
            sku: sku(1),
            quantity: 4,
        },
    );
    folding.then(cart(), CartEvent::ItemRemoved { sku: sku(2) });

    let checked_out = |attempt| {
        let agreed = placed(order_id(attempt), owner, &[(sku(1), 4, 450)], time(1));
        CartEvent::CartCheckedOut(Box::new(CartCheckedOut {
            order_id: order_id(attempt),
            attempt: u32::try_from(attempt).unwrap(),
            customer: owner,
            lines: agreed.lines,
            shipping: agreed.shipping,
            totals: agreed.totals,
            country: agreed.country,
            payment: agreed.payment,
            occurred_at: agreed.occurred_at,
            payment_deadline: agreed.payment_deadline,
        }))
    };
    let merged = || {
        let lines = vec![
            CartLine {
                sku: sku(1),
                quantity: 1,
            },
            CartLine {
                sku: sku(3),
                quantity: 2,
            },
        ];
        CartEvent::CartMerged {
            from: CartId::for_owner(customer_id(9)),
            lines,
        }
    };
    let waiting = folding.then(cart(), checked_out(1));
    assert_eq!(
        (waiting.status, waiting.order_id),
        (CartStatus::CheckedOut, Some(order_id(1)))
    );
    assert_eq!(lines(&folding.then(cart(), merged())), [held("MUG-1", 4)]);
    let reopened = CartEvent::CartReopened {
        order_id: order_id(1),
        reason: code("out-of-stock"),
    };
    let reopened = folding.then(cart(), reopened);
    assert_eq!(lines(&reopened), [held("MUG-1", 5), held("MUG-3", 2)]);
    assert_eq!((reopened.status, reopened.order_id), (CartStatus::Open, None));

    folding.then(cart(), checked_out(2));
    folding.then(cart(), merged());
    let renewed = folding.then(
        cart(),
        CartEvent::CartRenewed {
            order_id: order_id(2),
        },
    );
    assert_eq!(lines(&renewed), [held("MUG-1", 1), held("MUG-3", 2)]);
    assert_eq!(lines(&folding.then(cart(), CartEvent::CartCleared {})), []);
}

/// Race 11: attempt 1 looks declined, attempt 2 pays, attempt 1's capture arrives and is refunded.
#[test]
fn a_late_capture_shows_beside_the_one_that_paid() {
    use PaymentStatus::{Captured, Declined, PartiallyRefunded, Refunded, Requested};

    let mut folding = Folding::<Payments>::new(PaymentId::for_order(order_id(1)));
    let (order_id, amount) = (order_id(1), money(1_000));
    let provider_ref = |name: &str| ProviderRef::new(name).unwrap();
    let captured = |attempt, name| PaymentEvent::PaymentCaptured {
        order_id,
        attempt,
        provider_ref: provider_ref(name),
        amount,
    };
    let status = |payment: &PaymentView| -> Vec<PaymentStatus> {
        std::iter::once(payment.status)
            .chain(payment.attempts.iter().map(|attempt| attempt.status))
            .collect()
    };
    folding.then(
        payment(),
        PaymentEvent::PaymentRequested {
            order_id,
            attempt: 1,
            amount,
            method: method(),
        },
    );
    let declined = PaymentEvent::PaymentDeclined {
        order_id,
        attempt: 1,
        code: code("timeout"),
    };
    assert_eq!(status(&folding.then(payment(), declined)), [Declined, Declined]);
    let retried = PaymentEvent::PaymentRetried {
        order_id,
        attempt: 2,
        amount,
        method: method(),
    };
    assert_eq!(
        status(&folding.then(payment(), retried)),
        [Requested, Declined, Requested]
    );
    assert_eq!(
        status(&folding.then(payment(), captured(2, "ch_2"))),
        [Captured, Declined, Captured]
    );
    let late = folding.then(payment(), captured(1, "ch_1"));
    assert_eq!(status(&late), [Captured, Captured, Captured]);
    assert_eq!((late.captured, late.refunded), (money(2_000), money(0)));

    let refund = |refund_id, attempt, amount| {
        let reason = code("surplus");
        let requested = PaymentEvent::RefundRequested {
            order_id,
            attempt,
            refund_id,
            amount,
            reason,
        };
        let provider_ref = provider_ref("re_1");
        (
            requested,
            PaymentEvent::RefundSucceeded {
                order_id,
                attempt,
                refund_id,
                provider_ref,
                amount,
            },
        )
    };
    let (requested, succeeded) = refund(RefundId::from_uuid(uuid(7, 1)), 1, amount);
    let asked = folding.then(payment(), requested);
    // Money is back when the provider says so.
    assert_eq!(
        (asked.refunded, asked.refunds[0].status),
        (money(0), RefundStatus::Requested)
    );
    let back = folding.then(payment(), succeeded);
    assert_eq!(status(&back), [Captured, Refunded, Captured]);
    assert_eq!((back.captured, back.refunded), (money(2_000), money(1_000)));
    let (requested, succeeded) = refund(RefundId::from_uuid(uuid(7, 2)), 2, money(300));
    folding.then(payment(), requested);
    assert_eq!(
        status(&folding.then(payment(), succeeded)),
        [PartiallyRefunded, Refunded, PartiallyRefunded]
    );
    // A fact that arrives late hides no money that was taken.
    let declined = PaymentEvent::PaymentDeclined {
        order_id,
        attempt: 2,
        code: code("late"),
    };
    assert_eq!(
        status(&folding.then(payment(), declined)),
        [PartiallyRefunded, Refunded, PartiallyRefunded]
    );
}

#[test]
fn stock_that_nobody_reserved_cannot_be_released() {
    let mut folding = Folding::<Stock>::new(&sku(1));
    let released = released(1);
    assert_eq!(
        folding.refused(stock(), released),
        FoldError::OutOfRange {
            event_type: "ReservationReleased"
        }
    );
}
