#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod payment {
    mod closing;
    pub mod given;
    mod refunds;
}

use aggregates::Decide;
use aggregates::payment::{
    AttemptStatus, Intent, MAX_ATTEMPTS, Payment, PaymentCommand as Command, PaymentError as Error,
    PaymentStatus, RefundAmount,
};
use event_schemas::PaymentEvent as Event;
use event_schemas::{Anomaly, Currency, Money};

use payment::given::{
    CAPTURE, PRICE, SESSION, after, another_order, authorized, captured, captured_as, close, declined,
    give_back, given, method, order, pounds, reference, refund, refunded, request, session, story,
    to_authorized, to_captured, to_capturing, to_pending, to_second_authorized, voided, with,
};

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
