#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use aggregates::Decide;
use aggregates::payment::{
    AttemptStatus, Intent, MAX_ATTEMPTS, MAX_REFUND_TRIES, Payment, PaymentCommand as Command,
    PaymentError as Error, PaymentStatus, RefundAmount,
};
use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use event_schemas::PaymentEvent as Event;
use event_schemas::{
    Anomaly, Code, Currency, Money, OrderId, PaymentMethod, ProviderRef, RefundId, Timestamp,
};

const PRICE: i64 = 1800;

fn given(events: Vec<Event>) -> AggregateTestExecutor<Payment> {
    TestFramework::with(()).given(events)
}

/// All events so far, each list decided on the state that the lists before it leave.
fn story(steps: &[Command]) -> Vec<Event> {
    let (mut payment, mut events) = (Payment::default(), Vec::new());
    for step in steps {
        for event in payment.decide(step).unwrap() {
            payment.evolve(&event);
            events.push(event);
        }
    }
    events
}

fn after(steps: &[Command]) -> Payment {
    let mut payment = Payment::default();
    for event in story(steps) {
        payment.evolve(&event);
    }
    payment
}

fn order() -> OrderId {
    OrderId::generate(Timestamp::UNIX_EPOCH, &[1; 10])
}

fn another_order() -> OrderId {
    OrderId::generate(Timestamp::UNIX_EPOCH, &[2; 10])
}

fn refund(number: u8) -> RefundId {
    RefundId::generate(Timestamp::UNIX_EPOCH, &[number; 10])
}

fn pounds(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

fn reference(text: &str) -> ProviderRef {
    ProviderRef::new(text).unwrap()
}

fn method() -> PaymentMethod {
    PaymentMethod {
        method: code("card"),
        provider: code("sandbox"),
        secret_ref: None,
    }
}

fn request() -> Command {
    Command::Request {
        order_id: order(),
        amount: pounds(PRICE),
        method: method(),
    }
}

fn session(attempt: u32) -> Command {
    Command::RecordSession {
        order_id: order(),
        attempt,
        provider_ref: reference(&format!("session-{attempt}")),
        checkout_ref: None,
    }
}

fn authorized(attempt: u32) -> Command {
    let provider_ref = reference(&format!("authorization-{attempt}"));
    Command::RecordAuthorized {
        order_id: order(),
        attempt,
        provider_ref,
        amount: pounds(PRICE),
    }
}

fn captured_as(attempt: u32, text: &str, amount: Money) -> Command {
    Command::RecordCaptured {
        order_id: order(),
        attempt,
        provider_ref: reference(text),
        amount,
    }
}

fn captured(attempt: u32) -> Command {
    captured_as(attempt, &format!("charge-{attempt}"), pounds(PRICE))
}

fn voided(attempt: u32) -> Command {
    Command::RecordVoided {
        order_id: order(),
        attempt,
        provider_ref: reference(&format!("void-{attempt}")),
    }
}

fn declined(attempt: u32) -> Command {
    Command::RecordDeclined {
        attempt,
        code: code("insufficient-funds"),
    }
}

fn close() -> Command {
    Command::Close {
        order_id: order(),
        reason: code("order-cancelled"),
    }
}

fn give_back(number: u8, attempt: u32, amount: RefundAmount) -> Command {
    Command::RequestRefund {
        refund_id: refund(number),
        attempt,
        amount,
        reason: code("goodwill"),
    }
}

fn refunded(attempt: u32, refund_id: RefundId, amount: i64) -> Command {
    let provider_ref = reference(&format!("refund-{refund_id}"));
    Command::RecordRefundSucceeded {
        order_id: order(),
        attempt,
        refund_id,
        provider_ref,
        amount: pounds(amount),
    }
}

fn refund_failed(attempt: u32, refund_id: RefundId) -> Command {
    Command::RecordRefundFailed {
        attempt,
        refund_id,
        code: code("account-closed"),
    }
}

const SESSION: Command = Command::RequestSession { attempt: 1 };
const CAPTURE: Command = Command::RequestCapture { attempt: 1 };

fn to_pending() -> Vec<Command> {
    vec![request(), SESSION, session(1)]
}

fn to_authorized() -> Vec<Command> {
    [to_pending(), vec![authorized(1)]].concat()
}

fn to_capturing() -> Vec<Command> {
    [to_authorized(), vec![CAPTURE]].concat()
}

fn to_captured() -> Vec<Command> {
    [to_capturing(), vec![captured(1)]].concat()
}

/// Attempt 1 looked declined; attempt 2 is authorized.
fn to_second_authorized() -> Vec<Command> {
    let second = [
        Command::Retry { method: method() },
        Command::RequestSession { attempt: 2 },
        session(2),
        authorized(2),
    ];
    [to_pending(), vec![declined(1)], second.to_vec()].concat()
}

fn with(mut steps: Vec<Command>, more: &[Command]) -> Vec<Command> {
    steps.extend_from_slice(more);
    steps
}

fn is_refund_of(event: &Event, of_attempt: u32, of_amount: i64) -> bool {
    matches!(event, Event::RefundRequested { attempt, amount, .. } if *attempt == of_attempt && *amount == pounds(of_amount))
}

fn void_requested(attempt: u32) -> Event {
    Event::VoidRequested {
        order_id: order(),
        attempt,
    }
}

fn expired(attempt: u32) -> Event {
    Event::PaymentExpired {
        order_id: order(),
        attempt,
    }
}

fn close_requested(attempt: u32) -> Event {
    Event::PaymentCloseRequested {
        order_id: order(),
        attempt,
        reason: code("order-cancelled"),
    }
}

#[test]
fn a_payment_goes_from_request_to_capture_by_an_intent_before_each_call() {
    assert_eq!(
        story(&to_captured()),
        vec![
            Event::PaymentRequested {
                order_id: order(),
                attempt: 1,
                amount: pounds(PRICE),
                method: method()
            },
            Event::SessionRequested {
                order_id: order(),
                attempt: 1
            },
            Event::PaymentSessionCreated {
                order_id: order(),
                attempt: 1,
                provider_ref: reference("session-1"),
                checkout_ref: None,
            },
            Event::PaymentAuthorized {
                order_id: order(),
                attempt: 1,
                provider_ref: reference("authorization-1"),
                amount: pounds(PRICE),
            },
            Event::CaptureRequested {
                order_id: order(),
                attempt: 1,
                amount: pounds(PRICE)
            },
            Event::PaymentCaptured {
                order_id: order(),
                attempt: 1,
                provider_ref: reference("charge-1"),
                amount: pounds(PRICE),
            },
        ]
    );
    assert_eq!(after(&to_captured()).status(), PaymentStatus::Captured);
}

#[test]
fn the_open_intents_are_the_calls_to_make() {
    let open = |steps: Vec<Command>| after(&steps).open_intents();
    assert_eq!(open(vec![request()]), vec![]);
    assert_eq!(
        open(vec![request(), SESSION]),
        vec![Intent::Session { attempt: 1 }]
    );
    assert_eq!(open(to_authorized()), vec![]);
    assert_eq!(open(to_capturing()), vec![Intent::Capture { attempt: 1 }]);
    assert_eq!(open(to_captured()), vec![]);
    assert_eq!(
        open(with(to_authorized(), &[close()])),
        vec![Intent::Void { attempt: 1 }]
    );
    let refunding = with(to_captured(), &[give_back(1, 1, RefundAmount::Everything)]);
    assert_eq!(
        open(refunding.clone()),
        vec![Intent::Refund {
            attempt: 1,
            refund_id: refund(1)
        }]
    );
    assert!(after(&refunding).is_open(Intent::Refund {
        attempt: 1,
        refund_id: refund(1)
    }));
    assert!(!after(&refunding).is_open(Intent::Refund {
        attempt: 1,
        refund_id: refund(2)
    }));
    assert!(!after(&refunding).is_open(Intent::Capture { attempt: 1 }));
}

#[test]
fn a_request_is_made_once() {
    given(story(&to_pending()))
        .when(request())
        .then_expect_events(vec![]);
    let dearer = Command::Request {
        order_id: order(),
        amount: pounds(PRICE + 1),
        method: method(),
    };
    given(story(&to_pending()))
        .when(dearer)
        .then_expect_error(Error::AlreadyRequested);
    let for_another = Command::Request {
        order_id: another_order(),
        amount: pounds(PRICE),
        method: method(),
    };
    given(story(&to_pending()))
        .when(for_another)
        .then_expect_error(Error::WrongOrder);
    for amount in [0, -1] {
        let free = Command::Request {
            order_id: order(),
            amount: pounds(amount),
            method: method(),
        };
        given(vec![]).when(free).then_expect_error(Error::InvalidAmount);
    }
}

#[test]
fn nothing_is_known_of_a_payment_that_was_not_requested() {
    for command in [
        SESSION,
        CAPTURE,
        Command::RequestVoid { attempt: 1 },
        declined(1),
        Command::Retry { method: method() },
    ] {
        given(vec![]).when(command).then_expect_error(Error::NotFound);
    }
    given(story(&[request()]))
        .when(declined(0))
        .then_expect_error(Error::UnknownAttempt { attempt: 0 });
    given(story(&[request()]))
        .when(declined(2))
        .then_expect_error(Error::UnknownAttempt { attempt: 2 });
}

#[test]
fn an_intent_that_is_met_or_moot_is_accepted_and_changes_nothing() {
    for steps in [
        vec![request(), SESSION],
        to_pending(),
        to_authorized(),
        to_captured(),
    ] {
        given(story(&steps)).when(SESSION).then_expect_events(vec![]);
    }
    for steps in [
        to_pending(),
        to_capturing(),
        to_captured(),
        with(to_authorized(), &[close()]),
    ] {
        given(story(&steps)).when(CAPTURE).then_expect_events(vec![]);
    }
    for steps in [to_pending(), with(to_authorized(), &[close()]), to_captured()] {
        given(story(&steps))
            .when(Command::RequestVoid { attempt: 1 })
            .then_expect_events(vec![]);
    }
    let wanted = Error::NotGivenUp { attempt: 1 };
    given(story(&to_authorized()))
        .when(Command::RequestVoid { attempt: 1 })
        .then_expect_error(wanted);
}

/// Race 12: webhook and worker report one capture under two command ids.
#[test]
fn a_second_report_of_a_fact_is_a_no_op() {
    for fact in [session(1), authorized(1), captured(1), voided(1), declined(1)] {
        for state in [
            vec![request()],
            to_authorized(),
            to_capturing(),
            to_captured(),
            with(to_captured(), &[close()]),
        ] {
            let steps = with(state, std::slice::from_ref(&fact));
            given(story(&steps)).when(fact.clone()).then_expect_events(vec![]);
        }
    }
}

#[test]
fn a_fact_is_recorded_in_every_state() {
    let states = [
        vec![request()],
        vec![request(), SESSION],
        to_pending(),
        to_authorized(),
        to_capturing(),
        with(to_pending(), &[declined(1)]),
        with(to_pending(), &[close()]),
        with(to_authorized(), &[close()]),
        with(to_authorized(), &[close(), voided(1)]),
        to_second_authorized(),
    ];
    for state in states {
        let payment = after(&state);
        for fact in [
            captured(1),
            Command::RecordAuthorized {
                order_id: order(),
                attempt: 1,
                provider_ref: reference("other"),
                amount: pounds(PRICE),
            },
            Command::RecordSession {
                order_id: order(),
                attempt: 1,
                provider_ref: reference("other"),
                checkout_ref: None,
            },
            Command::RecordVoided {
                order_id: order(),
                attempt: 1,
                provider_ref: reference("other"),
            },
        ] {
            let events = payment.decide(&fact).unwrap();
            let is_fact = |event: &Event| !matches!(event, Event::ProviderAnomalyRecorded { .. });
            assert!(
                events.first().is_some_and(is_fact),
                "{fact:?} in {payment:#?} gave {events:?}"
            );
        }
        let mut paid = payment.clone();
        for event in payment.decide(&captured(1)).unwrap() {
            paid.evolve(&event);
        }
        assert_eq!(
            paid.attempt(1).unwrap().captured(),
            pounds(PRICE),
            "a capture counts from {payment:#?}"
        );
    }
}

#[test]
fn what_does_not_fit_changes_nothing_and_is_kept_once() {
    let dollars = Money::new(PRICE, Currency::USD).unwrap();
    let foreign = Command::RecordCaptured {
        order_id: another_order(),
        attempt: 1,
        provider_ref: reference("charge-1"),
        amount: pounds(PRICE),
    };
    let unknown_refund = refunded(1, refund(9), 5);
    let misfits = [
        (
            captured_as(1, "charge-1", pounds(PRICE - 1)),
            Anomaly::AmountMismatch {
                expected: pounds(PRICE),
                reported: pounds(PRICE - 1),
            },
        ),
        (
            captured_as(1, "charge-1", dollars),
            Anomaly::CurrencyMismatch {
                expected: pounds(PRICE),
                reported: dollars,
            },
        ),
        (
            foreign,
            Anomaly::OrderMismatch {
                reported: another_order(),
            },
        ),
        (captured(2), Anomaly::UnknownAttempt { reported: 2 }),
        (captured(0), Anomaly::UnknownAttempt { reported: 0 }),
        (unknown_refund, Anomaly::UnknownRefund { reported: refund(9) }),
    ];
    for (misfit, expected) in misfits {
        let payment = after(&to_capturing());
        let events = payment.decide(&misfit).unwrap();
        assert!(
            matches!(events.as_slice(), [Event::ProviderAnomalyRecorded { kind, .. }] if *kind == expected),
            "{misfit:?} gave {events:?}"
        );
        let mut warned = payment.clone();
        for event in &events {
            warned.evolve(event);
        }
        assert_eq!(
            warned.attempts(),
            payment.attempts(),
            "an anomaly changes nothing"
        );
        assert_eq!(warned.open_intents(), payment.open_intents());
        assert_eq!(warned.decide(&misfit), Ok(vec![]), "an anomaly is kept once");
        // The right report of the same object is no repeat of the wrong one.
        assert_eq!(warned.decide(&captured(1)).unwrap().len(), 1);
    }
    let never_requested = Payment::default().decide(&captured(1)).unwrap();
    assert!(matches!(
        never_requested.as_slice(),
        [Event::ProviderAnomalyRecorded {
            kind: Anomaly::UnknownAttempt { reported: 1 },
            ..
        }]
    ));
}

#[test]
fn a_second_capture_of_one_attempt_is_an_anomaly_and_no_second_payment() {
    let steps = with(to_captured(), &[captured_as(1, "charge-x", pounds(PRICE))]);
    let expected = Anomaly::SecondCapture {
        recorded: reference("charge-1"),
        reported: pounds(PRICE),
    };
    assert!(matches!(
        story(&steps).last(),
        Some(Event::ProviderAnomalyRecorded { kind, .. }) if *kind == expected
    ));
    assert_eq!(after(&steps).attempt(1).unwrap().captured(), pounds(PRICE));
}

#[test]
fn only_a_decline_can_be_retried() {
    let retry = Command::Retry { method: method() };
    for steps in [vec![request()], to_pending(), to_authorized(), to_capturing()] {
        given(story(&steps))
            .when(retry.clone())
            .then_expect_error(Error::NotDeclined { attempt: 1 });
    }
    given(story(&to_captured()))
        .when(retry.clone())
        .then_expect_error(Error::AlreadyCaptured { attempt: 1 });
    let retried = vec![Event::PaymentRetried {
        order_id: order(),
        attempt: 2,
        amount: pounds(PRICE),
        method: method(),
    }];
    for steps in [
        vec![request(), SESSION, declined(1)],
        with(to_capturing(), &[declined(1)]),
    ] {
        given(story(&steps))
            .when(retry.clone())
            .then_expect_events(retried.clone());
    }
    // It looked declined, but it was not: the money is there.
    let late = with(to_pending(), &[declined(1), captured(1)]);
    given(story(&late))
        .when(retry.clone())
        .then_expect_error(Error::AlreadyCaptured { attempt: 1 });
    let closed = with(to_pending(), &[declined(1), close()]);
    given(story(&closed))
        .when(retry.clone())
        .then_expect_error(Error::Closed);

    let mut many = vec![request()];
    for attempt in 1..MAX_ATTEMPTS {
        many.extend([declined(attempt), retry.clone()]);
    }
    many.push(declined(MAX_ATTEMPTS));
    given(story(&many))
        .when(retry)
        .then_expect_error(Error::TooManyAttempts { max: MAX_ATTEMPTS });
}

#[test]
fn a_decline_of_the_capture_is_told_apart_from_the_decline_before_it() {
    // The session looked declined, was authorized after all, and then the capture failed.
    let steps = with(to_pending(), &[declined(1), authorized(1), CAPTURE, declined(1)]);
    let payment = after(&steps);
    assert_eq!(payment.attempt(1).unwrap().status(), AttemptStatus::Declined);
    assert_eq!(payment.open_intents(), vec![]);
}

#[test]
fn a_void_under_way_ends_in_a_void_or_a_capture_and_not_in_a_decline() {
    let steps = with(to_authorized(), &[close(), declined(1)]);
    assert_eq!(after(&steps).open_intents(), vec![Intent::Void { attempt: 1 }]);
    assert_eq!(after(&with(steps, &[voided(1)])).status(), PaymentStatus::Voided);
}

#[test]
fn a_late_decline_hides_no_capture() {
    let payment = after(&with(to_captured(), &[declined(1)]));
    assert_eq!(payment.status(), PaymentStatus::Captured);
}

#[test]
fn what_was_voided_is_not_authorized_again_by_an_old_report() {
    let payment = after(&[request(), voided(1), authorized(1)]);
    assert_eq!(payment.attempt(1).unwrap().status(), AttemptStatus::Voided);
    assert_eq!(payment.decide(&CAPTURE), Ok(vec![]));
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
