//! What a rule of the payment begins with: commands, and how far they lead.

use aggregates::Decide;
use aggregates::payment::{Payment, PaymentCommand as Command, RefundAmount};
use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use event_schemas::PaymentEvent as Event;
use event_schemas::{Code, Currency, Money, OrderId, PaymentMethod, ProviderRef, RefundId, Timestamp};

pub const PRICE: i64 = 1800;

pub fn given(events: Vec<Event>) -> AggregateTestExecutor<Payment> {
    TestFramework::with(()).given(events)
}

/// All events so far, each list decided on the state that the lists before it leave.
pub fn story(steps: &[Command]) -> Vec<Event> {
    let (mut payment, mut events) = (Payment::default(), Vec::new());
    for step in steps {
        for event in payment.decide(step).unwrap() {
            payment.evolve(&event);
            events.push(event);
        }
    }
    events
}

pub fn after(steps: &[Command]) -> Payment {
    let mut payment = Payment::default();
    for event in story(steps) {
        payment.evolve(&event);
    }
    payment
}

pub fn order() -> OrderId {
    OrderId::generate(Timestamp::UNIX_EPOCH, &[1; 10])
}

pub fn another_order() -> OrderId {
    OrderId::generate(Timestamp::UNIX_EPOCH, &[2; 10])
}

pub fn refund(number: u8) -> RefundId {
    RefundId::generate(Timestamp::UNIX_EPOCH, &[number; 10])
}

pub fn pounds(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

pub fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

pub fn reference(text: &str) -> ProviderRef {
    ProviderRef::new(text).unwrap()
}

pub fn method() -> PaymentMethod {
    PaymentMethod {
        method: code("card"),
        provider: code("sandbox"),
        secret_ref: None,
    }
}

pub fn request() -> Command {
    Command::Request {
        order_id: order(),
        amount: pounds(PRICE),
        method: method(),
    }
}

pub fn session(attempt: u32) -> Command {
    Command::RecordSession {
        order_id: order(),
        attempt,
        provider_ref: reference(&format!("session-{attempt}")),
        checkout_ref: None,
    }
}

pub fn authorized(attempt: u32) -> Command {
    let provider_ref = reference(&format!("authorization-{attempt}"));
    Command::RecordAuthorized {
        order_id: order(),
        attempt,
        provider_ref,
        amount: pounds(PRICE),
    }
}

pub fn captured_as(attempt: u32, text: &str, amount: Money) -> Command {
    Command::RecordCaptured {
        order_id: order(),
        attempt,
        provider_ref: reference(text),
        amount,
    }
}

pub fn captured(attempt: u32) -> Command {
    captured_as(attempt, &format!("charge-{attempt}"), pounds(PRICE))
}

pub fn voided(attempt: u32) -> Command {
    Command::RecordVoided {
        order_id: order(),
        attempt,
        provider_ref: reference(&format!("void-{attempt}")),
    }
}

pub fn declined(attempt: u32) -> Command {
    Command::RecordDeclined {
        attempt,
        code: code("insufficient-funds"),
    }
}

pub fn close() -> Command {
    Command::Close {
        order_id: order(),
        reason: code("order-cancelled"),
    }
}

pub fn give_back(number: u8, attempt: u32, amount: RefundAmount) -> Command {
    Command::RequestRefund {
        refund_id: refund(number),
        attempt,
        amount,
        reason: code("goodwill"),
    }
}

pub fn refunded(attempt: u32, refund_id: RefundId, amount: i64) -> Command {
    let provider_ref = reference(&format!("refund-{refund_id}"));
    Command::RecordRefundSucceeded {
        order_id: order(),
        attempt,
        refund_id,
        provider_ref,
        amount: pounds(amount),
    }
}

pub fn refund_failed(attempt: u32, refund_id: RefundId) -> Command {
    Command::RecordRefundFailed {
        attempt,
        refund_id,
        code: code("account-closed"),
    }
}

pub const SESSION: Command = Command::RequestSession { attempt: 1 };
pub const CAPTURE: Command = Command::RequestCapture { attempt: 1 };

pub fn to_pending() -> Vec<Command> {
    vec![request(), SESSION, session(1)]
}

pub fn to_authorized() -> Vec<Command> {
    [to_pending(), vec![authorized(1)]].concat()
}

pub fn to_capturing() -> Vec<Command> {
    [to_authorized(), vec![CAPTURE]].concat()
}

pub fn to_captured() -> Vec<Command> {
    [to_capturing(), vec![captured(1)]].concat()
}

/// Attempt 1 looked declined; attempt 2 is authorized.
pub fn to_second_authorized() -> Vec<Command> {
    let second = [
        Command::Retry { method: method() },
        Command::RequestSession { attempt: 2 },
        session(2),
        authorized(2),
    ];
    [to_pending(), vec![declined(1)], second.to_vec()].concat()
}

pub fn with(mut steps: Vec<Command>, more: &[Command]) -> Vec<Command> {
    steps.extend_from_slice(more);
    steps
}

pub fn is_refund_of(event: &Event, of_attempt: u32, of_amount: i64) -> bool {
    matches!(event, Event::RefundRequested { attempt, amount, .. } if *attempt == of_attempt && *amount == pounds(of_amount))
}

pub fn void_requested(attempt: u32) -> Event {
    Event::VoidRequested {
        order_id: order(),
        attempt,
    }
}

pub fn expired(attempt: u32) -> Event {
    Event::PaymentExpired {
        order_id: order(),
        attempt,
    }
}

pub fn close_requested(attempt: u32) -> Event {
    Event::PaymentCloseRequested {
        order_id: order(),
        attempt,
        reason: code("order-cancelled"),
    }
}
