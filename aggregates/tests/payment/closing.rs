//! What a close leads to, and what gives an attempt up.

use aggregates::payment::{
    Intent, MAX_REFUND_TRIES, PaymentCommand as Command, PaymentError as Error, PaymentStatus, RefundAmount,
};
use event_schemas::PaymentEvent as Event;

use super::given::{
    CAPTURE, PRICE, SESSION, after, another_order, authorized, captured, close, close_requested, code,
    declined, expired, give_back, given, is_refund_of, order, pounds, refund, refund_failed, refunded,
    request, session, story, to_authorized, to_captured, to_capturing, to_pending, to_second_authorized,
    void_requested, voided, with,
};

#[test]
fn a_void_under_way_ends_in_a_void_or_a_capture_and_not_in_a_decline() {
    let steps = with(to_authorized(), &[close(), declined(1)]);
    assert_eq!(after(&steps).open_intents(), vec![Intent::Void { attempt: 1 }]);
    assert_eq!(after(&with(steps, &[voided(1)])).status(), PaymentStatus::Voided);
}

#[test]
fn closing_without_an_authorization_expires() {
    given(vec![])
        .when(close())
        .then_expect_events(vec![close_requested(0), expired(0)]);
    for steps in [vec![request()], to_pending(), with(to_pending(), &[declined(1)])] {
        given(story(&steps))
            .when(close())
            .then_expect_events(vec![close_requested(1), expired(1)]);
    }
    let wrong = Command::Close {
        order_id: another_order(),
        reason: code("order-cancelled"),
    };
    given(story(&to_pending()))
        .when(wrong)
        .then_expect_error(Error::WrongOrder);
}

#[test]
fn a_payment_that_was_closed_first_is_not_requested() {
    given(story(&[close()]))
        .when(request())
        .then_expect_events(vec![]);
}

#[test]
fn closing_waits_for_a_session_that_is_being_opened() {
    let closing = story(&[request(), SESSION, close()]);
    assert_eq!(closing.last(), Some(&close_requested(1)));
    let after_session = given(closing.clone()).when(session(1)).inspect_result().unwrap();
    assert_eq!(after_session.last(), Some(&expired(1)));
    let after_decline = given(closing.clone()).when(declined(1)).inspect_result().unwrap();
    assert_eq!(after_decline.last(), Some(&expired(1)));
    let after_authorization = given(closing.clone())
        .when(authorized(1))
        .inspect_result()
        .unwrap();
    assert_eq!(after_authorization.last(), Some(&void_requested(1)));
    let after_capture = given(closing).when(captured(1)).inspect_result().unwrap();
    assert!(is_refund_of(after_capture.last().unwrap(), 1, PRICE));
}

/// Race 10: cancel while a session is open; the provider then reports it authorized.
#[test]
fn an_authorization_after_the_close_is_voided_and_not_captured() {
    let steps = with(to_pending(), &[close(), authorized(1)]);
    assert_eq!(story(&steps).last(), Some(&void_requested(1)));
    given(story(&steps)).when(CAPTURE).then_expect_events(vec![]);
    let payment = after(&with(steps, &[voided(1)]));
    assert_eq!(
        (payment.status(), payment.open_intents()),
        (PaymentStatus::Voided, vec![])
    );
}

#[test]
fn closing_an_authorized_payment_voids_it() {
    given(story(&to_authorized()))
        .when(close())
        .then_expect_events(vec![close_requested(1), void_requested(1)]);
    // It had been captured all the while.
    let steps = with(to_authorized(), &[close(), captured(1)]);
    assert!(is_refund_of(story(&steps).last().unwrap(), 1, PRICE));
}

/// Race 9: cancel while a capture is in flight; the provider captures.
#[test]
fn a_capture_in_flight_at_the_close_is_recorded_and_refunded_once_in_full() {
    given(story(&to_capturing()))
        .when(close())
        .then_expect_events(vec![close_requested(1)]);
    let steps = with(to_capturing(), &[close(), captured(1)]);
    let events = story(&steps);
    assert!(matches!(events[events.len() - 2], Event::PaymentCaptured { .. }));
    assert!(is_refund_of(events.last().unwrap(), 1, PRICE));
    // The order's policy asks for it too: the order was cancelled.
    given(events)
        .when(give_back(1, 1, RefundAmount::Everything))
        .then_expect_events(vec![]);
    // Or the capture fails, and nothing is left to do.
    let failed = story(&with(to_capturing(), &[close(), declined(1)]));
    assert_eq!(failed.last(), Some(&expired(1)));
}

#[test]
fn closing_refunds_what_is_left_after_the_refund_under_way() {
    let partly = with(
        to_captured(),
        &[give_back(1, 1, RefundAmount::Exactly(pounds(500)))],
    );
    given(story(&partly))
        .when(close())
        .then_expect_events(vec![close_requested(1)]);
    let closing = with(partly, &[close()]);
    let rest = story(&with(closing.clone(), &[refunded(1, refund(1), 500)]));
    assert!(is_refund_of(rest.last().unwrap(), 1, PRICE - 500));
    let all = story(&with(closing, &[refund_failed(1, refund(1))]));
    assert!(is_refund_of(all.last().unwrap(), 1, PRICE));
}

#[test]
fn a_closed_payment_tries_a_refund_again_but_not_for_ever() {
    let mut steps = with(to_captured(), &[close()]);
    for _ in 0..MAX_REFUND_TRIES {
        let Some(Event::RefundRequested { refund_id, .. }) = story(&steps).last().cloned() else {
            panic!("no refund is under way")
        };
        steps.push(refund_failed(1, refund_id));
    }
    assert!(matches!(story(&steps).last(), Some(Event::RefundFailed { .. })));
    // People may still ask for it.
    let by_hand = given(story(&steps))
        .when(give_back(1, 1, RefundAmount::Everything))
        .inspect_result()
        .unwrap();
    assert!(is_refund_of(&by_hand[0], 1, PRICE));
}

#[test]
fn closing_twice_closes_once() {
    for steps in [to_pending(), to_authorized(), to_capturing(), to_captured()] {
        given(story(&with(steps, &[close()])))
            .when(close())
            .then_expect_events(vec![]);
    }
}

#[test]
fn a_superseded_attempt_is_voided_when_it_turns_out_authorized() {
    let steps = with(to_second_authorized(), &[authorized(1)]);
    assert_eq!(story(&steps).last(), Some(&void_requested(1)));
    // The attempt that the customer wants is captured meanwhile.
    given(story(&steps))
        .when(Command::RequestCapture { attempt: 2 })
        .then_expect_events(vec![Event::CaptureRequested {
            order_id: order(),
            attempt: 2,
            amount: pounds(PRICE),
        }]);
}

#[test]
fn an_authorization_is_given_up_when_another_attempt_has_paid() {
    let steps = with(to_second_authorized(), &[captured(1)]);
    assert_eq!(story(&steps).last(), Some(&void_requested(2)));
    given(story(&steps))
        .when(Command::RequestCapture { attempt: 2 })
        .then_expect_events(vec![]);
}

#[test]
fn closing_gives_everything_back_one_after_the_other() {
    let both = with(
        to_second_authorized(),
        &[Command::RequestCapture { attempt: 2 }, captured(1), captured(2)],
    );
    let closing = with(both, &[close()]);
    let events = story(&closing);
    assert!(is_refund_of(events.last().unwrap(), 1, PRICE));
    assert_eq!(after(&closing).open_intents().len(), 1);
    // What the policy asks for will happen anyway.
    given(events.clone())
        .when(give_back(1, 2, RefundAmount::Everything))
        .then_expect_events(vec![]);
    let Some(Event::RefundRequested { refund_id, .. }) = events.last() else {
        panic!()
    };
    let next = story(&with(closing, &[refunded(1, *refund_id, PRICE)]));
    assert!(is_refund_of(next.last().unwrap(), 2, PRICE));
}
