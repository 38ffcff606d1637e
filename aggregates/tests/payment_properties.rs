#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use aggregates::payment::invariants::{INVARIANTS, nothing_left_to_follow};
use aggregates::payment::{
    AttemptStatus, Intent, Payment, PaymentCommand as Command, PaymentStatus, RefundAmount,
};
use event_schemas::PaymentEvent as Event;
use event_schemas::{
    Anomaly, Code, Currency, Money, OrderId, PaymentMethod, ProviderRef, RefundId, Timestamp,
};
use proptest::prelude::*;

use support::Run;

const PRICE: i64 = 10;

/// What may come next: someone's command, or the provider's answer to a call that is under way.
#[derive(Debug, Clone)]
enum Step {
    Command(Command),
    /// To the `which`th open intent, counted around.
    Answer {
        which: usize,
        well: bool,
    },
}

fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

fn pounds(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

fn method() -> PaymentMethod {
    PaymentMethod {
        method: code("card"),
        provider: code("sandbox"),
        secret_ref: None,
    }
}

fn order_number(number: u8) -> OrderId {
    OrderId::generate(Timestamp::UNIX_EPOCH, &[number; 10])
}

fn order() -> OrderId {
    order_number(1)
}

fn order_id() -> impl Strategy<Value = OrderId> {
    prop_oneof![19 => Just(order()), 1 => Just(order_number(2))]
}

fn attempt() -> impl Strategy<Value = u32> {
    prop_oneof![1 => Just(0_u32), 20 => 1..4_u32]
}

fn provider_ref() -> impl Strategy<Value = ProviderRef> {
    (0..2_u8).prop_map(|number| ProviderRef::new(format!("ref-{number}")).unwrap())
}

fn refund_id() -> impl Strategy<Value = RefundId> {
    (0..6_u8).prop_map(|number| RefundId::generate(Timestamp::UNIX_EPOCH, &[number; 10]))
}

fn amount() -> impl Strategy<Value = Money> {
    prop_oneof![
        18 => Just(pounds(PRICE)),
        2 => (-1..PRICE + 2).prop_map(pounds),
        1 => Just(Money::new(PRICE, Currency::USD).unwrap()),
    ]
}

fn refund_amount() -> impl Strategy<Value = RefundAmount> {
    let some = || (-1..PRICE + 2).prop_map(pounds);
    prop_oneof![
        Just(RefundAmount::Everything),
        some().prop_map(RefundAmount::UpTo),
        some().prop_map(RefundAmount::Exactly),
    ]
}

fn report() -> impl Strategy<Value = Command> {
    let about = || (order_id(), attempt(), provider_ref());
    prop_oneof![
        2 => about().prop_map(|(order_id, attempt, provider_ref)| {
            Command::RecordSession { order_id, attempt, provider_ref, checkout_ref: None }
        }),
        4 => (about(), amount()).prop_map(|((order_id, attempt, provider_ref), amount)| {
            Command::RecordAuthorized { order_id, attempt, provider_ref, amount }
        }),
        3 => (about(), amount()).prop_map(|((order_id, attempt, provider_ref), amount)| {
            Command::RecordCaptured { order_id, attempt, provider_ref, amount }
        }),
        1 => about().prop_map(|(order_id, attempt, provider_ref)| {
            Command::RecordVoided { order_id, attempt, provider_ref }
        }),
        4 => attempt().prop_map(|attempt| Command::RecordDeclined { attempt, code: code("declined") }),
        1 => (about(), refund_id(), amount()).prop_map(|((order_id, attempt, provider_ref), refund_id, amount)| {
            Command::RecordRefundSucceeded { order_id, attempt, refund_id, provider_ref, amount }
        }),
        1 => (attempt(), refund_id()).prop_map(|(attempt, refund_id)| {
            Command::RecordRefundFailed { attempt, refund_id, code: code("failed") }
        }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        12 => report(),
        2 => (order_id(), amount()).prop_map(|(order_id, amount)| {
            Command::Request { order_id, amount, method: method() }
        }),
        3 => attempt().prop_map(|attempt| Command::RequestSession { attempt }),
        4 => attempt().prop_map(|attempt| Command::RequestCapture { attempt }),
        1 => attempt().prop_map(|attempt| Command::RequestVoid { attempt }),
        4 => Just(Command::Retry { method: method() }),
        1 => order_id().prop_map(|order_id| Command::Close { order_id, reason: code("cancelled") }),
        3 => (refund_id(), attempt(), refund_amount()).prop_map(|(refund_id, attempt, amount)| {
            Command::RequestRefund { refund_id, attempt, amount, reason: code("goodwill") }
        }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => command().prop_map(Step::Command),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, well)| Step::Answer { which, well }),
    ];
    // Most runs begin with a payment that was requested.
    (any::<bool>(), proptest::collection::vec(step, 1..60)).prop_map(|(requested, mut steps)| {
        if requested {
            let first = Command::Request {
                order_id: order(),
                amount: pounds(PRICE),
                method: method(),
            };
            steps.insert(0, Step::Command(first));
        }
        steps
    })
}

/// What the provider says to a call: done as it was asked, or not.
fn answer(payment: &Payment, intent: Intent, well: bool) -> Command {
    let order_id = payment.order_id().unwrap();
    let named = |call: &str, attempt| ProviderRef::new(format!("{call}-{attempt}")).unwrap();
    let declined = |attempt| Command::RecordDeclined {
        attempt,
        code: code("declined"),
    };
    let price = |attempt| payment.attempt(attempt).unwrap().amount();
    match intent {
        Intent::Session { attempt } if well => Command::RecordSession {
            order_id,
            attempt,
            provider_ref: named("session", attempt),
            checkout_ref: None,
        },
        Intent::Capture { attempt } if well => Command::RecordCaptured {
            order_id,
            attempt,
            provider_ref: named("charge", attempt),
            amount: price(attempt),
        },
        Intent::Session { attempt } | Intent::Capture { attempt } => declined(attempt),
        Intent::Void { attempt } if well => Command::RecordVoided {
            order_id,
            attempt,
            provider_ref: named("void", attempt),
        },
        // It was captured already.
        Intent::Void { attempt } => Command::RecordCaptured {
            order_id,
            attempt,
            provider_ref: named("charge", attempt),
            amount: price(attempt),
        },
        Intent::Refund { attempt, refund_id } if well => Command::RecordRefundSucceeded {
            order_id,
            attempt,
            refund_id,
            provider_ref: ProviderRef::new(refund_id.to_string()).unwrap(),
            amount: payment.attempt(attempt).unwrap().refunds()[&refund_id].amount,
        },
        Intent::Refund { attempt, refund_id } => Command::RecordRefundFailed {
            attempt,
            refund_id,
            code: code("failed"),
        },
    }
}

/// The payment's books, kept from its events alone.
#[derive(Default)]
struct Books {
    attempts: u32,
    declined: bool,
    closed: bool,
    expired: u32,
    captured: BTreeMap<u32, i64>,
    refunds: BTreeMap<(u32, RefundId), i64>,
    given_back: BTreeMap<u32, i64>,
    succeeded: BTreeSet<RefundId>,
    facts: BTreeSet<Identity>,
}

impl Books {
    fn enter(&mut self, event: &Event) {
        if let Some(fact) = fact(event) {
            assert!((1..=self.attempts).contains(&fact.0), "{event:?} of no attempt");
            assert!(self.facts.insert(fact), "{event:?} is recorded twice");
        }
        match event {
            Event::PaymentRequested { attempt, .. } => {
                assert_eq!((*attempt, self.attempts, self.closed), (1, 0, false));
                self.attempts = 1;
            }
            Event::PaymentRetried { attempt, .. } => {
                assert_eq!(*attempt, self.attempts + 1);
                assert!(self.declined, "a retry without a decline");
                assert!(!self.closed, "a retry after the close");
                assert!(self.captured.is_empty(), "a retry of what is paid");
                (self.attempts, self.declined) = (*attempt, false);
            }
            Event::SessionRequested { attempt, .. } | Event::CaptureRequested { attempt, .. } => {
                assert!(!self.closed, "{event:?} after the close");
                assert_eq!(
                    *attempt, self.attempts,
                    "{event:?} of an attempt that was given up"
                );
                assert!(self.captured.is_empty(), "{event:?} of what is paid");
            }
            Event::PaymentCaptured { attempt, amount, .. } => {
                assert_eq!(
                    self.captured.insert(*attempt, amount.amount()),
                    None,
                    "captured twice"
                );
            }
            Event::PaymentDeclined { attempt, .. } => self.declined |= *attempt == self.attempts,
            Event::PaymentCloseRequested { .. } => {
                assert!(!self.closed, "closed twice");
                self.closed = true;
            }
            Event::VoidRequested { attempt, .. } => {
                let paid_otherwise = self.captured.keys().any(|captured| captured != attempt);
                assert!(
                    self.closed || *attempt < self.attempts || paid_otherwise,
                    "{event:?} of what is wanted"
                );
                assert!(
                    !self.captured.contains_key(attempt),
                    "{event:?} of what was captured"
                );
            }
            Event::PaymentExpired { attempt, .. } => {
                assert!(self.closed && *attempt == self.attempts && !self.captured.contains_key(attempt));
                self.expired += 1;
                assert_eq!(self.expired, 1, "expired twice");
            }
            Event::RefundRequested {
                attempt,
                refund_id,
                amount,
                ..
            } => {
                let known = self.refunds.insert((*attempt, *refund_id), amount.amount());
                assert_eq!(known, None, "a refund is requested twice");
                assert!(amount.amount() > 0);
            }
            Event::RefundSucceeded {
                attempt,
                refund_id,
                amount,
                ..
            } => {
                assert!(self.succeeded.insert(*refund_id), "{event:?} succeeds twice");
                let asked = self.refunds.insert((*attempt, *refund_id), amount.amount());
                assert!(
                    asked.is_none_or(|asked| asked == amount.amount()),
                    "another amount came back"
                );
                *self.given_back.entry(*attempt).or_default() += amount.amount();
            }
            Event::RefundFailed {
                attempt,
                refund_id,
                amount,
                ..
            } => {
                assert_eq!(
                    self.refunds.remove(&(*attempt, *refund_id)),
                    Some(amount.amount())
                );
            }
            Event::PaymentSessionCreated { .. }
            | Event::PaymentAuthorized { .. }
            | Event::PaymentVoided { .. }
            | Event::ProviderAnomalyRecorded { .. } => {}
        }
        self.nothing_is_given_back_that_was_not_taken(event);
    }

    fn nothing_is_given_back_that_was_not_taken(&self, event: &Event) {
        for (attempt, captured) in &self.captured {
            let of_attempt = self.refunds.iter().filter(|((of, _), _)| of == attempt);
            assert!(
                of_attempt.map(|(_, amount)| amount).sum::<i64>() <= *captured,
                "{event:?} gives back too much"
            );
        }
        let paid = |(attempt, _): &(u32, RefundId)| self.captured.contains_key(attempt);
        assert!(
            self.refunds.keys().all(paid),
            "{event:?} gives back what was never taken"
        );
    }

    fn check(&self, payment: &Payment) {
        for (attempt, number) in payment.attempts().iter().zip(1..) {
            assert_eq!(
                attempt.captured().amount(),
                self.captured.get(&number).copied().unwrap_or(0)
            );
            assert_eq!(
                attempt.refunded().amount(),
                self.given_back.get(&number).copied().unwrap_or(0)
            );
        }
    }
}

/// The identity of a fact: attempt, operation, provider reference.
type Identity = (u32, &'static str, ProviderRef);

fn fact(event: &Event) -> Option<Identity> {
    let (attempt, operation, provider_ref) = match event {
        Event::PaymentSessionCreated {
            attempt,
            provider_ref,
            ..
        } => (attempt, "session", provider_ref),
        Event::PaymentAuthorized {
            attempt,
            provider_ref,
            ..
        } => (attempt, "authorization", provider_ref),
        Event::PaymentCaptured {
            attempt,
            provider_ref,
            ..
        } => (attempt, "capture", provider_ref),
        Event::PaymentVoided {
            attempt,
            provider_ref,
            ..
        } => (attempt, "void", provider_ref),
        _ => return None,
    };
    Some((*attempt, operation, provider_ref.clone()))
}

fn reported(command: &Command) -> Option<Identity> {
    let (attempt, operation, provider_ref) = match command {
        Command::RecordSession {
            attempt,
            provider_ref,
            ..
        } => (attempt, "session", provider_ref),
        Command::RecordAuthorized {
            attempt,
            provider_ref,
            ..
        } => (attempt, "authorization", provider_ref),
        Command::RecordCaptured {
            attempt,
            provider_ref,
            ..
        } => (attempt, "capture", provider_ref),
        Command::RecordVoided {
            attempt,
            provider_ref,
            ..
        } => (attempt, "void", provider_ref),
        _ => return None,
    };
    Some((*attempt, operation, provider_ref.clone()))
}

/// Whether the report is on record, as a fact or as an anomaly.
fn is_on_record(events: &[Event], report: &Identity) -> bool {
    events.iter().any(|event| match event {
        Event::ProviderAnomalyRecorded {
            attempt,
            provider_ref,
            ..
        } => (*attempt, provider_ref) == (report.0, &report.2),
        event => fact(event).as_ref() == Some(report),
    })
}

fn run(steps: &[Step]) -> (Run<Payment>, Books) {
    let mut run = Run::<Payment>::new(INVARIANTS);
    let mut books = Books::default();
    for step in steps {
        let command = match step {
            Step::Command(command) => command.clone(),
            Step::Answer { which, well } => {
                let open = run.state.open_intents();
                let Some(intent) = open.get(which % open.len().max(1)) else {
                    continue;
                };
                answer(&run.state, *intent, *well)
            }
        };
        let accepted = run.execute(&command);
        for event in accepted.iter().flatten() {
            books.enter(event);
        }
        assert!(
            nothing_left_to_follow(&run.state),
            "{command:?} leaves something undone: {:#?}",
            run.state
        );
        let on_record = reported(&command).is_none_or(|report| is_on_record(&run.events, &report));
        assert!(on_record, "{command:?} was lost");
        books.check(&run.state);
    }
    (run, books)
}

proptest! {
    #[test]
    fn money_is_conserved_whatever_is_asked_and_reported(steps in steps()) {
        let (run, _) = run(&steps);
        run.check_snapshot();
    }

    /// Whatever had happened: once closed, and once the provider has answered, nothing is held and nothing is kept.
    #[test]
    fn a_closed_payment_comes_to_rest_with_nothing_taken(steps in steps()) {
        let (mut run, mut books) = run(&steps);
        let order_id = run.state.order_id().unwrap_or(order());
        let close = Command::Close { order_id, reason: code("cancelled") };
        let mut next = Some(close);
        // Each answer settles one call, and what follows it is bounded by the attempts.
        for _ in 0..100 {
            let Some(command) = next.take() else { break };
            for event in run.execute(&command).unwrap() {
                books.enter(&event);
            }
            next = run.state.open_intents().first().map(|intent| answer(&run.state, *intent, true));
        }
        prop_assert_eq!(run.state.open_intents(), vec![]);
        for attempt in run.state.attempts() {
            // Where all tries of a refund had failed before, people have to look.
            let tries = attempt.refunds().values().filter(|refund| refund.reason == code("cancelled")).count();
            prop_assert!(attempt.refunded() == attempt.captured() || tries >= 3);
            prop_assert!(attempt.status() != AttemptStatus::Authorized);
        }
        prop_assert!(run.state.is_closed());
        prop_assert!(!matches!(
            run.state.status(),
            PaymentStatus::Requested | PaymentStatus::Pending | PaymentStatus::Authorized | PaymentStatus::Declined
        ));
        // And nothing moves any more, whoever asks.
        for attempt in 1..=run.state.current_attempt() {
            prop_assert_eq!(run.execute(&Command::RequestCapture { attempt }), Ok(vec![]));
            prop_assert_eq!(run.execute(&Command::RequestSession { attempt }), Ok(vec![]));
        }
        let retried = run.execute(&Command::Retry { method: method() });
        prop_assert!(retried.is_err());
    }

    /// An answer that comes twice, by whatever way, is one answer.
    #[test]
    fn a_repeated_report_or_intent_does_nothing(steps in steps(), repeated in command()) {
        let (mut run, _) = run(&steps);
        if run.execute(&repeated).is_ok() && !matches!(repeated, Command::Retry { .. }) {
            let state = run.state.clone();
            prop_assert_eq!(run.execute(&repeated), Ok(vec![]));
            prop_assert_eq!(&run.state, &state);
        }
    }

    /// A report that does not fit is kept beside the payment, which stays as it was.
    #[test]
    fn an_anomaly_changes_nothing(steps in steps(), report in report()) {
        let (mut run, _) = run(&steps);
        let (attempts, open) = (run.state.attempts().to_vec(), run.state.open_intents());
        if let Ok([Event::ProviderAnomalyRecorded { kind, .. }]) = run.execute(&report).as_deref() {
            let fits = matches!(kind, Anomaly::AmountMismatch { expected, reported } if expected == reported);
            prop_assert!(!fits);
            prop_assert_eq!(run.state.attempts(), attempts);
            prop_assert_eq!(run.state.open_intents(), open);
        }
    }
}
