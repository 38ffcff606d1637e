//! The audit finds nothing in a log of good sales, and each breach by name in a log that was broken on purpose.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit_log;

use std::time::Duration;

use aggregates::audit;
use event_schemas::{
    AggregateType, CartEvent, CartId, CartLine, Currency, InventoryEvent, Money, OrderEvent, OrderStage,
    PaymentEvent, PaymentId, Position, ReturnCondition, ReturnId, StreamId, Timestamp,
};

use audit_log::{
    GRACE, Log, PRICE, TO_DEADLINE, code, customer, gbp, names, order, provider_ref, refund, sku,
};

#[test]
fn good_sales_are_sound() {
    let mut log = Log::with_stock(3);
    log.sell(1);
    log.finish(1);
    log.sell(2);
    log.cart(2, CartEvent::CartRenewed { order_id: order(2) });
    log.is_sound();
}

#[test]
fn a_cancelled_order_whose_late_capture_was_refunded_is_sound() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.reserve(1);
    log.reserved(1);
    log.authorize(1, 1);
    log.request_capture(1, 1);
    log.cancel(1, OrderStage::AwaitingPayment);
    log.release(1);
    log.captured(1, 1, PRICE);
    log.request_refund(1, 1, 1, PRICE);
    log.refunded(1, 1, 1, PRICE);
    log.is_sound();
}

#[test]
fn a_refund_after_completion_is_judged_by_what_was_kept() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.finish(1);
    log.request_refund(1, 1, 1, 200);
    log.refunded(1, 1, 1, 200);
    log.record_refund(1, 1, 200);
    log.request_refund(1, 1, 2, 300);
    log.refunded(1, 1, 2, 300);
    log.record_refund(1, 2, 300);
    log.is_sound();
    log.request_refund(1, 1, 3, 1);
    log.is_unsafe(audit::REFUND_LIMIT);
}

#[test]
fn a_failed_refund_may_be_tried_again() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.finish(1);
    log.request_refund(1, 1, 1, PRICE);
    let (order_id, refund_id, amount) = (order(1), refund(1), gbp(PRICE));
    let code = code("card-closed");
    log.payment(
        1,
        PaymentEvent::RefundFailed {
            order_id,
            attempt: 1,
            refund_id,
            amount,
            code,
        },
    );
    log.request_refund(1, 1, 2, PRICE);
    log.refunded(1, 1, 2, PRICE);
    log.record_refund(1, 2, PRICE);
    log.is_sound();
}

#[test]
fn a_refund_reported_failed_may_yet_succeed() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.finish(1);
    log.request_refund(1, 1, 1, PRICE);
    let (order_id, refund_id, amount) = (order(1), refund(1), gbp(PRICE));
    let code = code("card-closed");
    log.payment(
        1,
        PaymentEvent::RefundFailed {
            order_id,
            attempt: 1,
            refund_id,
            amount,
            code,
        },
    );
    log.is_sound();
    log.refunded(1, 1, 1, PRICE);
    log.record_refund(1, 1, PRICE);
    log.is_sound();
    log.refunded(1, 1, 1, PRICE);
    log.is_unsafe(audit::REFUNDED_ONCE);
}

#[test]
fn a_gap_in_a_stream_is_found() {
    let mut log = Log::with_stock(1);
    *log.versions.values_mut().next().unwrap() += 1;
    log.reserve(1);
    log.release(1);
    log.is_unsafe(audit::SEQUENCE);
}

#[test]
fn an_event_twice_is_found() {
    let mut log = Log::with_stock(1);
    *log.versions.values_mut().next().unwrap() -= 1;
    log.reserve(1);
    log.release(1);
    log.is_unsafe(audit::SEQUENCE);
}

#[test]
fn a_missing_position_is_found() {
    let mut log = Log::with_stock(1);
    log.events.last_mut().unwrap().position = Position(7);
    log.is_unsafe(audit::POSITION);
}

#[test]
fn an_oversold_sku_is_found_at_the_prefix_where_it_happens() {
    let mut log = Log::with_stock(1);
    log.reserve(1);
    log.reserve(2);
    log.is_unsafe(audit::OVERSOLD);
    // Healing later does not unsay it.
    log.release(1);
    log.release(2);
    log.is_unsafe(audit::OVERSOLD);
}

#[test]
fn stock_below_zero_is_found() {
    let mut log = Log::with_stock(1);
    log.stock(InventoryEvent::BackorderLimitSet { limit: 9 });
    log.stock(InventoryEvent::StockAdjusted {
        delta: -2,
        reason: code("count"),
    });
    log.is_unsafe(audit::OVERSOLD);
}

#[test]
fn a_second_reservation_of_an_order_is_found() {
    let mut log = Log::with_stock(9);
    log.reserve(1);
    log.reserve(1);
    log.is_unsafe(audit::HOLDING);
}

#[test]
fn giving_up_what_is_not_held_is_found() {
    for give_up in [Log::release, Log::commit] {
        let mut log = Log::with_stock(9);
        give_up(&mut log, 1);
        log.is_unsafe(audit::HOLDING);
    }
}

#[test]
fn goods_that_come_back_without_having_left_are_found() {
    let mut log = Log::with_stock(9);
    let condition = ReturnCondition::Resaleable;
    log.stock(InventoryEvent::StockReturned {
        order_id: order(1),
        quantity: 1,
        condition,
    });
    log.is_unsafe(audit::HOLDING);
}

#[test]
fn a_line_that_nobody_reserved_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.order(1, OrderEvent::LineReserved { sku: sku() });
    log.is_unsafe(audit::RESERVED_FIRST);
}

#[test]
fn an_order_paid_by_nothing_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.paid(1, PRICE);
    log.is_unsafe(audit::PAID);
}

#[test]
fn a_free_order_is_paid_by_nothing() {
    let mut log = Log::with_stock(1);
    log.place_for(1, gbp(0));
    log.paid(1, 0);
    log.is_sound();
}

#[test]
fn a_refund_that_only_the_order_knows_is_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.record_refund(1, 1, 1);
    log.is_unsafe(audit::REFUNDED);
}

#[test]
fn a_second_capture_of_an_attempt_is_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.captured(1, 1, PRICE);
    log.is_unsafe(audit::CAPTURED_ONCE);
}

#[test]
fn refunds_beyond_the_capture_are_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.request_refund(1, 1, 1, PRICE - 1);
    log.request_refund(1, 1, 2, 2);
    log.is_unsafe(audit::REFUND_LIMIT);
}

#[test]
fn a_refund_that_succeeds_twice_is_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.request_refund(1, 1, 1, 1);
    log.refunded(1, 1, 1, 1);
    log.refunded(1, 1, 1, 1);
    log.is_unsafe(audit::REFUNDED_ONCE);
}

#[test]
fn a_second_currency_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.place_for(2, Money::new(PRICE, Currency::USD).unwrap());
    log.is_unsafe(audit::CURRENCY);
}

#[test]
fn a_capture_that_never_reaches_its_order_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.reserve(1);
    log.reserved(1);
    log.capture(1, 1);
    log.is_stuck(audit::BALANCE);
}

#[test]
fn a_surplus_attempt_that_is_not_refunded_is_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.capture(1, 2);
    log.is_stuck(audit::BALANCE);
    log.request_refund(1, 2, 1, PRICE);
    log.refunded(1, 2, 1, PRICE);
    log.is_sound();
}

#[test]
fn a_payment_beyond_the_total_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.captured(1, 1, PRICE + 1);
    log.paid(1, PRICE + 1);
    assert_eq!(names(&log.breaches()), [audit::BALANCE]);
}

#[test]
fn a_refund_that_never_reaches_its_order_is_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.request_refund(1, 1, 1, 1);
    log.refunded(1, 1, 1, 1);
    log.is_stuck(audit::BALANCE);
}

#[test]
fn money_kept_of_a_cancelled_order_is_found() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    log.cancel(1, OrderStage::Paid);
    log.release(1);
    assert_eq!(names(&log.breaches()), [audit::NOTHING_KEPT]);
    log.request_refund(1, 1, 1, PRICE);
    log.refunded(1, 1, 1, PRICE);
    log.record_refund(1, 1, PRICE);
    log.is_sound();
}

#[test]
fn an_authorization_that_outlives_its_order_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.authorize(1, 1);
    log.cancel(1, OrderStage::AwaitingPayment);
    log.is_stuck(audit::NOTHING_KEPT);
    let order_id = order(1);
    log.payment(1, PaymentEvent::VoidRequested { order_id, attempt: 1 });
    log.payment(
        1,
        PaymentEvent::PaymentVoided {
            order_id,
            attempt: 1,
            provider_ref: provider_ref(),
        },
    );
    log.is_sound();
}

#[test]
fn a_lost_release_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.reserve(1);
    log.cancel(1, OrderStage::Placed);
    log.is_stuck(audit::NOTHING_HELD);
    log.release(1);
    log.is_sound();
}

#[test]
fn a_reservation_of_an_order_that_was_settled_before_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    log.cancel(1, OrderStage::Placed);
    log.reserve(1);
    log.is_stuck(audit::NOTHING_HELD);
}

#[test]
fn a_returned_order_holds_nothing() {
    let mut log = Log::with_stock(1);
    log.sell(1);
    let (return_id, refund) = (ReturnId::generate(Timestamp::UNIX_EPOCH, &[1; 10]), gbp(0));
    log.order(
        1,
        OrderEvent::ReturnReceived {
            return_id,
            lines: vec![],
            refund,
        },
    );
    log.is_stuck(audit::NOTHING_HELD);
}

#[test]
fn an_order_that_sleeps_past_its_deadline_is_found() {
    let mut log = Log::with_stock(1);
    log.place(1);
    let placed_at = log.now - Duration::from_secs(1);
    let at = |seconds| {
        log.audit()
            .finish(placed_at + TO_DEADLINE + Duration::from_secs(seconds), GRACE)
    };
    assert_eq!(names(&at(59)), [""; 0]);
    assert_eq!(names(&at(60)), [audit::DEADLINE]);
}

#[test]
fn a_check_out_without_an_order_is_found() {
    let mut log = Log::with_stock(1);
    log.check_out(1);
    log.is_stuck(audit::CART_ANSWERED);
    let mut reopened = Log::with_stock(1);
    reopened.check_out(1);
    reopened.cart(
        1,
        CartEvent::CartReopened {
            order_id: order(1),
            reason: code("refused"),
        },
    );
    reopened.is_sound();
}

#[test]
fn lines_lost_between_two_carts_are_found() {
    let lines = || {
        vec![CartLine {
            sku: sku(),
            quantity: 1,
        }]
    };
    let cart = |owner| CartId::for_owner(customer(owner));
    let given = || CartEvent::CartMergedInto {
        target: cart(2),
        target_owner: customer(2),
        lines: lines(),
    };
    let mut log = Log::with_stock(1);
    log.cart(1, given());
    log.is_stuck(audit::MERGE_ARRIVES);
    log.cart(1, given());
    log.cart(
        2,
        CartEvent::CartMerged {
            from: cart(1),
            lines: lines(),
        },
    );
    assert_eq!(names(&log.breaches()), [audit::MERGE_ARRIVES]);
    log.cart(
        2,
        CartEvent::CartMerged {
            from: cart(1),
            lines: lines(),
        },
    );
    log.is_sound();
    log.cart(
        2,
        CartEvent::CartMerged {
            from: cart(1),
            lines: lines(),
        },
    );
    log.is_unsafe(audit::MERGED_ONCE);
}

#[test]
fn open_intents_are_listed_until_they_are_answered() {
    let open = |log: &Log| -> Vec<String> {
        log.audit()
            .open_intents()
            .iter()
            .map(|intent| format!("{} {}", intent.event_type, intent.event))
            .collect()
    };
    let payment = StreamId::new(AggregateType::Payment, PaymentId::for_order(order(1)));
    let mut log = Log::with_stock(1);
    log.place(1);
    log.authorize(1, 1);
    assert!(open(&log).is_empty());
    log.request_capture(1, 1);
    assert_eq!(open(&log), [format!("CaptureRequested {payment}/4")]);
    log.captured(1, 1, PRICE);
    assert!(open(&log).is_empty());
    log.request_refund(1, 1, 1, 1);
    assert_eq!(open(&log), [format!("RefundRequested {payment}/6")]);
    log.refunded(1, 1, 1, 1);
    assert!(open(&log).is_empty());
}

#[test]
fn a_broken_log_does_not_exhaust_memory() {
    let mut log = Log::with_stock(1);
    for _ in 0..=audit::MAX_BREACHES + 1 {
        log.release(1);
    }
    let audit = log.audit();
    assert_eq!(audit.finish(log.now, GRACE).len(), audit::MAX_BREACHES);
    assert_eq!(audit.uncounted(), 2);
}
