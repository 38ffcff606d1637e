//! What is shipped, delivered, returned and given back.

use aggregates::order::{OrderCommand as Command, OrderError as Error, OrderStatus};
use event_schemas::MoneyError;
use event_schemas::OrderEvent as Event;

use super::given::{
    TOTAL, approve, by_customer, delivered, dispatch, given, payment_id, pounds, receive, record_refund,
    refund_id, reject, request_return, return_id, shipment, status, story, to_awaiting, to_cancelled,
    to_delivered, to_paid, to_shipped, with,
};

#[test]
fn shipments_stay_within_the_order() {
    let wrong = |steps: Vec<Command>, lines: &[(u32, u32)], error| {
        given(story(&steps))
            .when(dispatch(2, lines))
            .then_expect_error(error);
    };
    wrong(
        to_awaiting(),
        &[(1, 1)],
        Error::WrongStatus {
            status: OrderStatus::AwaitingPayment,
        },
    );
    wrong(
        to_cancelled(),
        &[(1, 1)],
        Error::WrongStatus {
            status: OrderStatus::Cancelled,
        },
    );
    wrong(
        to_shipped(),
        &[(1, 1)],
        Error::WrongStatus {
            status: OrderStatus::Shipped,
        },
    );
    wrong(to_paid(), &[], Error::InvalidLine { line_no: 0 });
    wrong(to_paid(), &[(4, 1)], Error::InvalidLine { line_no: 4 });
    wrong(to_paid(), &[(0, 1)], Error::InvalidLine { line_no: 0 });
    wrong(to_paid(), &[(1, 0)], Error::InvalidLine { line_no: 1 });
    wrong(to_paid(), &[(1, 1), (1, 1)], Error::InvalidLine { line_no: 1 });
    wrong(to_paid(), &[(1, 3)], Error::TooManyUnits { line_no: 1, left: 2 });
    let partly = || with(to_paid(), &[dispatch(1, &[(1, 1)])]);
    assert_eq!(status(&partly()), OrderStatus::PartiallyShipped);
    wrong(partly(), &[(1, 2)], Error::TooManyUnits { line_no: 1, left: 1 });
    given(story(&partly()))
        .when(dispatch(1, &[(1, 1)]))
        .then_expect_error(Error::DuplicateShipment {
            shipment_id: shipment(1),
        });
    assert_eq!(
        status(&with(partly(), &[dispatch(2, &[(1, 1), (2, 1), (3, 1)])])),
        OrderStatus::Shipped
    );
}

#[test]
fn an_order_is_delivered_when_all_of_it_is() {
    let partly = with(to_paid(), &[dispatch(1, &[(1, 2)]), delivered(1)]);
    assert_eq!(status(&partly), OrderStatus::PartiallyShipped);
    given(story(&partly))
        .when(delivered(1))
        .then_expect_events(vec![]);
    given(story(&partly))
        .when(delivered(2))
        .then_expect_error(Error::UnknownShipment {
            shipment_id: shipment(2),
        });
    let shipped = with(partly, &[dispatch(2, &[(2, 1), (3, 1)])]);
    assert_eq!(status(&shipped), OrderStatus::Shipped);
    assert_eq!(status(&with(shipped, &[delivered(2)])), OrderStatus::Delivered);
}

#[test]
fn an_order_is_complete_after_delivery_and_without_an_open_return() {
    given(story(&to_delivered()))
        .when(Command::Complete)
        .then_expect_events(vec![Event::OrderCompleted {}]);
    let done = with(to_delivered(), &[Command::Complete]);
    given(story(&done))
        .when(Command::Complete)
        .then_expect_events(vec![]);
    let early = Error::WrongStatus {
        status: OrderStatus::Shipped,
    };
    given(story(&to_shipped()))
        .when(Command::Complete)
        .then_expect_error(early);
    let returning = with(to_delivered(), &[request_return(1, &[(1, 1)])]);
    given(story(&returning))
        .when(Command::Complete)
        .then_expect_error(Error::ReturnOpen);
    let rejected = with(returning, &[reject(1)]);
    given(story(&rejected))
        .when(Command::Complete)
        .then_expect_events(vec![Event::OrderCompleted {}]);
    let too_late = Error::WrongStatus {
        status: OrderStatus::Completed,
    };
    given(story(&done))
        .when(request_return(1, &[(1, 1)]))
        .then_expect_error(too_late);
}

#[test]
fn a_return_is_requested_decided_and_received() {
    let requested = with(to_delivered(), &[request_return(1, &[(1, 2), (2, 1)])]);
    assert_eq!(status(&requested), OrderStatus::ReturnRequested);
    let wrong_state = || Error::ReturnState {
        return_id: return_id(1),
    };
    given(story(&requested))
        .when(receive(1, &[(1, 1)], 300))
        .then_expect_error(wrong_state());
    given(story(&requested))
        .when(request_return(2, &[(3, 1)]))
        .then_expect_error(Error::ReturnOpen);
    given(story(&requested))
        .when(approve(2))
        .then_expect_error(Error::UnknownReturn {
            return_id: return_id(2),
        });

    let rejected = with(requested.clone(), &[reject(1)]);
    assert_eq!(status(&rejected), OrderStatus::Delivered);
    given(story(&rejected)).when(reject(1)).then_expect_events(vec![]);
    given(story(&rejected))
        .when(approve(1))
        .then_expect_error(wrong_state());
    let again = Error::DuplicateReturn {
        return_id: return_id(1),
    };
    given(story(&rejected))
        .when(request_return(1, &[(1, 1)]))
        .then_expect_error(again);

    let approved = with(requested, &[approve(1)]);
    given(story(&approved))
        .when(approve(1))
        .then_expect_events(vec![]);
    assert_eq!(
        status(&with(approved.clone(), &[reject(1)])),
        OrderStatus::Delivered
    );
    let wrong = |lines: &[(u32, u32)], refund, error| {
        given(story(&approved))
            .when(receive(1, lines, refund))
            .then_expect_error(error);
    };
    wrong(&[], 0, Error::InvalidLine { line_no: 0 });
    wrong(&[(3, 1)], 0, Error::InvalidLine { line_no: 3 });
    wrong(&[(1, 2), (1, 0)], 0, Error::InvalidLine { line_no: 1 });
    wrong(&[(1, 2), (1, 1)], 0, Error::TooManyUnits { line_no: 1, left: 2 });
    wrong(
        &[(1, 1)],
        TOTAL + 1,
        Error::RefundExceedsPaid { left: pounds(TOTAL) },
    );
    wrong(&[(1, 1)], -1, Error::RefundExceedsPaid { left: pounds(TOTAL) });
    // Fewer came than were announced, one of them in another condition.
    let received = with(approved, &[receive(1, &[(1, 1), (1, 1)], 600)]);
    assert_eq!(status(&received), OrderStatus::Returned);
    given(story(&received))
        .when(receive(1, &[(1, 1), (1, 1)], 600))
        .then_expect_events(vec![]);
    given(story(&received))
        .when(reject(1))
        .then_expect_error(wrong_state());
    given(story(&received))
        .when(Command::Complete)
        .then_expect_events(vec![]);
}

#[test]
fn a_return_stays_within_what_was_shipped() {
    let wrong = |lines: &[(u32, u32)], error| {
        given(story(&to_delivered()))
            .when(request_return(1, lines))
            .then_expect_error(error);
    };
    wrong(&[], Error::InvalidLine { line_no: 0 });
    wrong(&[(4, 1)], Error::InvalidLine { line_no: 4 });
    wrong(&[(1, 3)], Error::TooManyUnits { line_no: 1, left: 2 });
    let early = Error::WrongStatus {
        status: OrderStatus::Shipped,
    };
    given(story(&to_shipped()))
        .when(request_return(1, &[(1, 1)]))
        .then_expect_error(early);
}

#[test]
fn refunds_of_the_attempt_that_paid_are_recorded_once_and_within_what_was_paid() {
    let recorded = Event::RefundRecorded {
        payment_id: payment_id(),
        attempt: 1,
        refund_id: refund_id(1),
        amount: pounds(1000),
    };
    for steps in [to_paid(), to_delivered(), with(to_paid(), &[by_customer()])] {
        given(story(&steps))
            .when(record_refund(1, 1, 1000))
            .then_expect_events(vec![recorded.clone()]);
        let once = with(steps, &[record_refund(1, 1, 1000)]);
        given(story(&once))
            .when(record_refund(1, 1, 1000))
            .then_expect_events(vec![]);
        let too_much = Error::RefundExceedsPaid { left: pounds(300) };
        given(story(&once))
            .when(record_refund(2, 1, 301))
            .then_expect_error(too_much);
        let nothing = Error::Money(MoneyError::OutOfRange);
        given(story(&once))
            .when(record_refund(2, 1, 0))
            .then_expect_error(nothing);
        assert_eq!(
            story(&with(once.clone(), &[record_refund(2, 1, 300)])).len(),
            story(&once).len() + 1
        );
        // The surplus of another attempt is not this order's money.
        given(story(&once))
            .when(record_refund(3, 2, 300))
            .then_expect_events(vec![]);
    }
    for steps in [to_awaiting(), to_cancelled()] {
        given(story(&steps))
            .when(record_refund(1, 1, 1000))
            .then_expect_events(vec![]);
    }
}
