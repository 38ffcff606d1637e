//! What can be given back, and how often.

use aggregates::payment::{PaymentCommand as Command, PaymentError as Error, PaymentStatus, RefundAmount};
use event_schemas::PaymentEvent as Event;
use event_schemas::{Anomaly, Currency, Money};

use super::given::{
    PRICE, after, captured, give_back, given, is_refund_of, pounds, refund, refund_failed, refunded, story,
    to_authorized, to_captured, to_second_authorized, with,
};

/// Race 11: attempt 1 times out and looks declined; attempt 2 pays; attempt 1's capture arrives.
#[test]
fn a_late_capture_of_a_superseded_attempt_is_recorded_and_can_be_refunded_whole() {
    let steps = with(
        to_second_authorized(),
        &[Command::RequestCapture { attempt: 2 }, captured(2), captured(1)],
    );
    assert!(matches!(
        story(&steps).last(),
        Some(Event::PaymentCaptured { attempt: 1, .. })
    ));
    let surplus = given(story(&steps))
        .when(give_back(1, 1, RefundAmount::Everything))
        .inspect_result()
        .unwrap();
    assert!(is_refund_of(&surplus[0], 1, PRICE));
    let settled = after(&with(
        steps,
        &[
            give_back(1, 1, RefundAmount::Everything),
            refunded(1, refund(1), PRICE),
        ],
    ));
    assert_eq!(settled.status(), PaymentStatus::Captured, "attempt 2 has paid");
}

#[test]
fn refunds_stay_within_what_was_captured() {
    let exactly = |amount| give_back(1, 1, RefundAmount::Exactly(pounds(amount)));
    given(story(&to_authorized()))
        .when(exactly(1))
        .then_expect_error(Error::NotCaptured { attempt: 1 });
    let too_much = Error::RefundExceedsCaptured { left: pounds(PRICE) };
    given(story(&to_captured()))
        .when(exactly(PRICE + 1))
        .then_expect_error(too_much);
    for amount in [0, -1] {
        given(story(&to_captured()))
            .when(exactly(amount))
            .then_expect_error(Error::InvalidAmount);
    }
    let dollars = RefundAmount::Exactly(Money::new(1, Currency::USD).unwrap());
    given(story(&to_captured()))
        .when(give_back(1, 1, dollars))
        .then_expect_error(Error::InvalidAmount);

    let partly = with(to_captured(), &[exactly(1000), refunded(1, refund(1), 1000)]);
    assert_eq!(after(&partly).status(), PaymentStatus::PartiallyRefunded);
    let rest = give_back(2, 1, RefundAmount::Everything);
    assert!(is_refund_of(
        &given(story(&partly)).when(rest.clone()).inspect_result().unwrap()[0],
        1,
        800
    ));
    let more = give_back(2, 1, RefundAmount::UpTo(pounds(1000)));
    assert!(is_refund_of(
        &given(story(&partly)).when(more.clone()).inspect_result().unwrap()[0],
        1,
        800
    ));
    let less = give_back(2, 1, RefundAmount::UpTo(pounds(300)));
    assert!(is_refund_of(
        &given(story(&partly)).when(less).inspect_result().unwrap()[0],
        1,
        300
    ));

    let wholly = with(partly, &[rest, refunded(1, refund(2), 800)]);
    assert_eq!(after(&wholly).status(), PaymentStatus::Refunded);
    let nothing_left = Error::RefundExceedsCaptured { left: pounds(0) };
    let third = |amount| given(story(&wholly)).when(give_back(3, 1, amount));
    third(RefundAmount::Everything).then_expect_events(vec![]);
    third(RefundAmount::UpTo(pounds(1))).then_expect_events(vec![]);
    third(RefundAmount::Exactly(pounds(1))).then_expect_error(nothing_left);
}

#[test]
fn one_intent_that_moves_money_is_open_at_a_time() {
    let steps = with(
        to_captured(),
        &[give_back(1, 1, RefundAmount::Exactly(pounds(500)))],
    );
    let second = give_back(2, 1, RefundAmount::Exactly(pounds(500)));
    given(story(&steps))
        .when(second.clone())
        .then_expect_error(Error::IntentOpen);
    assert!(Error::IntentOpen.retryable());
    // The same refund again is no second one.
    given(story(&steps))
        .when(give_back(1, 1, RefundAmount::Exactly(pounds(500))))
        .then_expect_events(vec![]);
    let settled = with(steps, &[refunded(1, refund(1), 500)]);
    assert!(is_refund_of(
        &given(story(&settled)).when(second).inspect_result().unwrap()[0],
        1,
        500
    ));
}

#[test]
fn a_refund_that_failed_is_free_again_until_it_turns_out_to_have_gone_through() {
    let all = RefundAmount::Everything;
    let failed = with(
        to_captured(),
        &[give_back(1, 1, all), refund_failed(1, refund(1))],
    );
    given(story(&failed))
        .when(refund_failed(1, refund(1)))
        .then_expect_events(vec![]);
    given(story(&failed))
        .when(refund_failed(1, refund(7)))
        .then_expect_error(Error::UnknownRefund { refund_id: refund(7) });

    let after_all = given(story(&failed))
        .when(refunded(1, refund(1), PRICE))
        .inspect_result()
        .unwrap();
    assert!(matches!(after_all.as_slice(), [Event::RefundSucceeded { .. }]));

    // The money is promised to another refund by now.
    let again = with(failed, &[give_back(2, 1, all)]);
    let doubled = given(story(&again))
        .when(refunded(1, refund(1), PRICE))
        .inspect_result()
        .unwrap();
    let expected = Anomaly::AmountMismatch {
        expected: pounds(0),
        reported: pounds(PRICE),
    };
    assert!(matches!(doubled.as_slice(), [Event::ProviderAnomalyRecorded { kind, .. }] if *kind == expected));
}

#[test]
fn a_refund_succeeds_once_and_with_its_amount() {
    let refunding = with(
        to_captured(),
        &[give_back(1, 1, RefundAmount::Exactly(pounds(500)))],
    );
    let wrong = given(story(&refunding))
        .when(refunded(1, refund(1), 499))
        .inspect_result()
        .unwrap();
    assert!(matches!(
        wrong.as_slice(),
        [Event::ProviderAnomalyRecorded { .. }]
    ));
    let done = with(refunding, &[refunded(1, refund(1), 500)]);
    given(story(&done))
        .when(refunded(1, refund(1), 500))
        .then_expect_events(vec![]);
    given(story(&done))
        .when(refund_failed(1, refund(1)))
        .then_expect_events(vec![]);
}
