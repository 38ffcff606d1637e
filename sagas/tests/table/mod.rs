//! Events, and what follows from them.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::time::Duration;

use super::common::{customer, free_shipping, gbp, lines, order_id, sandbox_method, sku};
use aggregates::Decide;
use aggregates::order::{Order, totals};
use event_schemas::{
    ActorKind, AggregateId, AggregateType, CancelReason, CartId, CommandId, CorrelationId, CountryCode,
    Event, InventoryEvent, Metadata, OrderEvent, OrderId, OrderPlaced, OrderStage, PaymentEvent, PaymentId,
    Position, RecordedEvent, StreamId, Timestamp, Version, derive_uuid,
};
use sagas::policies::{
    Action, Command, Folded, IfRefused, PolicyConfig, Refusal, has_policy, needs_state, react,
};

pub fn now() -> Timestamp {
    "2024-05-01T12:00:00Z".parse().expect("a time")
}

pub fn deadline() -> Timestamp {
    now().checked_add(Duration::from_secs(1_800)).expect("in range")
}

pub fn order() -> OrderId {
    order_id("ada")
}

pub fn payment() -> PaymentId {
    PaymentId::for_order(order())
}

pub fn recorded(kind: AggregateType, id: impl Into<AggregateId>, event: impl Into<Event>) -> RecordedEvent {
    let command_id = CommandId::from_uuid(derive_uuid("test", &[]));
    RecordedEvent {
        position: Position(7),
        stream: StreamId::new(kind, id),
        version: Version(3),
        event: event.into(),
        metadata: Metadata {
            actor_kind: ActorKind::Customer,
            actor_id: "ada".into(),
            command: "Test".into(),
            command_id,
            correlation_id: CorrelationId::for_command(command_id),
            causation_id: None,
            traceparent: None,
        },
        recorded_at: now(),
    }
}

/// MUG stands on two lines; the gift card is not kept in stock.
pub fn placed(cart_id: Option<CartId>, price: i64) -> OrderPlaced {
    let lines = lines(&[
        ("MUG", 2, price),
        ("TEA", 1, price),
        ("MUG", 3, price),
        ("GIFT-1", 1, price),
    ]);
    let shipping = free_shipping();
    OrderPlaced {
        order_id: order(),
        customer: customer("ada"),
        totals: totals(&lines, &shipping).expect("in range"),
        lines,
        shipping,
        country: CountryCode::new("GB").expect("a country"),
        cart_id,
        payment: sandbox_method("ref"),
        occurred_at: now(),
        payment_deadline: deadline(),
    }
}

pub fn fold<A: Decide + Default>(events: impl IntoIterator<Item = A::Event>) -> A {
    let mut aggregate = A::default();
    events.into_iter().for_each(|event| aggregate.evolve(&event));
    aggregate
}

/// An order as it is after `events`, with the last of them.
pub fn after(placed: OrderPlaced, events: Vec<OrderEvent>) -> (Order, RecordedEvent) {
    let last = events
        .last()
        .cloned()
        .unwrap_or_else(|| OrderEvent::OrderPlaced(Box::new(placed.clone())));
    let folded = fold(
        [OrderEvent::OrderPlaced(Box::new(placed))]
            .into_iter()
            .chain(events),
    );
    (folded, recorded(AggregateType::Order, order(), last))
}

pub fn of_order(placed: OrderPlaced, events: Vec<OrderEvent>) -> Vec<Action> {
    let (folded, event) = after(placed, events);
    react(&event, Folded::Order(&folded), &PolicyConfig::default()).expect("state")
}

pub fn of(event: &RecordedEvent) -> Vec<Action> {
    assert!(
        has_policy(&event.event) && !needs_state(&event.event),
        "{}",
        event.event.name()
    );
    react(event, Folded::Nothing, &PolicyConfig::default()).expect("no state needed")
}

/// The commands, without their ids.
pub fn commands(actions: &[Action]) -> Vec<Command> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Command(command) => Some(command.command.clone()),
            _ => None,
        })
        .collect()
}

pub fn only_command(actions: &[Action]) -> &sagas::policies::PolicyCommand {
    match actions {
        [Action::Command(command)] => command,
        other => panic!("one command expected: {other:?}"),
    }
}

pub fn branch(actions: &[Action]) -> (&'static [Refusal], Command) {
    match &only_command(actions).if_refused {
        IfRefused::Then { with, then } => (*with, then.command.clone()),
        other => panic!("a branch expected: {other:?}"),
    }
}

pub fn paid(attempt: u32) -> OrderEvent {
    OrderEvent::OrderPaid {
        payment_id: payment(),
        attempt,
        amount: gbp(700),
    }
}

pub fn required(amount: i64) -> OrderEvent {
    OrderEvent::PaymentRequired {
        payment_id: payment(),
        amount: gbp(amount),
        method: sandbox_method("ref"),
    }
}

pub fn cancelled(stage: OrderStage) -> OrderEvent {
    OrderEvent::OrderCancelled {
        reason: CancelReason::CustomerRequest,
        by: ActorKind::Customer,
        stage,
    }
}

pub fn inventory(event: InventoryEvent) -> RecordedEvent {
    recorded(AggregateType::Inventory, &sku("MUG"), event)
}

pub fn of_payment(event: PaymentEvent) -> RecordedEvent {
    recorded(AggregateType::Payment, payment(), event)
}
