#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod order {
    mod agreement;
    mod fulfilment;
    pub mod given;
}

use aggregates::order::{OrderCommand as Command, OrderError as Error, OrderStatus, tracked_units};
use event_schemas::OrderEvent as Event;
use event_schemas::{ActorKind, CancelReason, CountryCode, OrderStage, PaymentId};

use order::given::{
    SEED, TOTAL, by_customer, cancel, dispatch, free_shipping, given, line, order, order_of, out_of_stock,
    paid_by, payment_id, place, place_this, pounds, reserved, sku, status, story, to_awaiting, to_cancelled,
    to_delivered, to_paid, to_shipped, with,
};

#[test]
fn the_last_reservation_requires_the_payment_in_the_same_breath() {
    given(story(&[place()]))
        .when(reserved("A"))
        .then_expect_events(vec![Event::LineReserved { sku: sku("A") }]);
    given(story(&[place(), reserved("A")]))
        .when(reserved("B"))
        .then_expect_events(vec![
            Event::LineReserved { sku: sku("B") },
            Event::OrderReserved {},
            Event::PaymentRequired {
                payment_id: payment_id(),
                amount: pounds(TOTAL),
                method: order().payment,
            },
        ]);
}

#[test]
fn a_reservation_counts_once() {
    given(story(&[place(), reserved("A")]))
        .when(reserved("A"))
        .then_expect_events(vec![]);
    given(story(&to_paid()))
        .when(reserved("A"))
        .then_expect_events(vec![]);
    let unknown = Error::UnknownSku { sku: sku("Z") };
    given(story(&[place()]))
        .when(reserved("Z"))
        .then_expect_error(unknown);
}

/// Race 7: a reservation that comes after the cancel has to be released.
#[test]
fn a_reservation_of_a_cancelled_order_is_refused_by_name() {
    given(story(&to_cancelled()))
        .when(reserved("A"))
        .then_expect_error(Error::Cancelled);
    let steps = [place(), reserved("A"), out_of_stock()];
    given(story(&steps))
        .when(reserved("B"))
        .then_expect_error(Error::Cancelled);
}

#[test]
fn untracked_lines_are_not_reserved() {
    let mut service = order();
    service.lines[1].tracked = false;
    assert_eq!(tracked_units(&service.lines), [(sku("A"), 3)].into());
    let steps = [place_this(service.clone()), reserved("A")];
    assert_eq!(status(&steps), OrderStatus::AwaitingPayment);
    let waits = Error::NotReserved { pending: 1 };
    given(story(&steps[..1]))
        .when(Command::RecordReserved)
        .then_expect_error(waits);
    given(story(&steps[..1]))
        .when(reserved("B"))
        .then_expect_error(Error::UnknownSku { sku: sku("B") });

    for line in &mut service.lines {
        line.tracked = false;
    }
    let place = place_this(service);
    assert_eq!(
        status(&[place.clone(), Command::RecordReserved]),
        OrderStatus::AwaitingPayment
    );
    let again = story(&[place.clone(), Command::RecordReserved]);
    given(again)
        .when(Command::RecordReserved)
        .then_expect_events(vec![]);
    let cancelled = story(&[place, by_customer()]);
    given(cancelled)
        .when(Command::RecordReserved)
        .then_expect_events(vec![]);
}

#[test]
fn an_order_is_placed_once() {
    given(vec![])
        .when(place())
        .then_expect_events(vec![Event::OrderPlaced(Box::new(order()))]);
    given(story(&to_paid())).when(place()).then_expect_events(vec![]);
    let mut other = order();
    other.country = CountryCode::new("FR").unwrap();
    given(story(&to_paid()))
        .when(place_this(other))
        .then_expect_error(Error::AlreadyPlaced);
    for command in [
        reserved("A"),
        Command::RecordReserved,
        paid_by(1),
        by_customer(),
        Command::Complete,
    ] {
        given(vec![]).when(command).then_expect_error(Error::NotFound);
    }
}

#[test]
fn an_order_is_paid_once_and_by_its_own_payment() {
    let paid = Event::OrderPaid {
        payment_id: payment_id(),
        attempt: 2,
        amount: pounds(TOTAL),
    };
    given(story(&to_awaiting()))
        .when(paid_by(2))
        .then_expect_events(vec![paid]);
    given(story(&to_paid()))
        .when(paid_by(1))
        .then_expect_events(vec![]);
    given(story(&to_delivered()))
        .when(paid_by(1))
        .then_expect_events(vec![]);
    // Race 11: attempt 1 is captured after attempt 2 has paid.
    let by_second = story(&with(to_awaiting(), &[paid_by(2)]));
    given(by_second)
        .when(paid_by(1))
        .then_expect_error(Error::PaidByAnotherAttempt { attempt: 2 });
    given(story(&[place()]))
        .when(paid_by(1))
        .then_expect_error(Error::WrongStatus {
            status: OrderStatus::Placed,
        });

    let by = |payment_id, attempt, amount| Command::MarkPaid {
        payment_id,
        attempt,
        amount: pounds(amount),
    };
    let not_enough = by(payment_id(), 1, TOTAL - 1);
    given(story(&to_awaiting()))
        .when(not_enough)
        .then_expect_error(Error::WrongAmount {
            expected: pounds(TOTAL),
        });
    let of_another = by(PaymentId::generate(SEED, &[9; 10]), 1, TOTAL);
    given(story(&to_awaiting()))
        .when(of_another)
        .then_expect_error(Error::WrongPayment);
    let for_nothing = by(payment_id(), 0, TOTAL);
    given(story(&to_awaiting()))
        .when(for_nothing)
        .then_expect_error(Error::WrongPayment);
}

/// Race 9 and 13: the money of a cancelled order has to be given back.
#[test]
fn the_payment_of_a_cancelled_order_is_refused_by_name() {
    let unpaid = story(&with(to_awaiting(), &[cancel(CancelReason::PaymentTimeout)]));
    given(unpaid).when(paid_by(1)).then_expect_error(Error::Cancelled);
    // It had paid before the cancel, which gives it back already.
    let paid = story(&with(to_paid(), &[by_customer()]));
    given(paid.clone()).when(paid_by(1)).then_expect_events(vec![]);
    given(paid)
        .when(paid_by(2))
        .then_expect_error(Error::PaidByAnotherAttempt { attempt: 1 });
}

#[test]
fn an_order_that_costs_nothing_is_paid_by_attempt_0() {
    let gift = place_this(order_of(vec![line(1, "A", 0, 1)], free_shipping()));
    let steps = [gift, reserved("A")];
    let nothing = |attempt| Command::MarkPaid {
        payment_id: payment_id(),
        attempt,
        amount: pounds(0),
    };
    assert_eq!(status(&with(steps.to_vec(), &[nothing(0)])), OrderStatus::Paid);
    given(story(&steps))
        .when(nothing(1))
        .then_expect_error(Error::WrongPayment);
}

#[test]
fn an_order_is_cancelled_once_and_only_before_anything_ships() {
    let cancelled = |stage| {
        vec![Event::OrderCancelled {
            reason: CancelReason::CustomerRequest,
            by: ActorKind::Customer,
            stage,
        }]
    };
    given(story(&[place()]))
        .when(by_customer())
        .then_expect_events(cancelled(OrderStage::Placed));
    given(story(&to_awaiting()))
        .when(by_customer())
        .then_expect_events(cancelled(OrderStage::AwaitingPayment));
    given(story(&to_paid()))
        .when(by_customer())
        .then_expect_events(cancelled(OrderStage::Paid));
    let partly = with(to_paid(), &[dispatch(1, &[(1, 1)])]);
    for steps in [partly, to_shipped(), to_delivered()] {
        given(story(&steps))
            .when(by_customer())
            .then_expect_error(Error::AlreadyShipped);
    }
    // Race 8: two SKUs are rejected; the second cancel is a no-op.
    given(story(&[place(), out_of_stock()]))
        .when(out_of_stock())
        .then_expect_events(vec![]);
}

/// Race 13: the deadline fires after the payment.
#[test]
fn a_cancel_whose_cause_is_gone_is_a_no_op() {
    let too_late = || cancel(CancelReason::PaymentTimeout);
    assert_eq!(status(&[place(), too_late()]), OrderStatus::Cancelled);
    assert_eq!(
        status(&with(to_awaiting(), &[too_late()])),
        OrderStatus::Cancelled
    );
    for steps in [
        to_paid(),
        to_shipped(),
        to_delivered(),
        with(to_delivered(), &[Command::Complete]),
    ] {
        given(story(&steps)).when(too_late()).then_expect_events(vec![]);
        given(story(&steps))
            .when(out_of_stock())
            .then_expect_events(vec![]);
    }
    given(story(&to_awaiting()))
        .when(out_of_stock())
        .then_expect_events(vec![]);
}
