//! Each row of the policy table.

#![allow(clippy::expect_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use aggregates::Decide;
use aggregates::cart::CartCommand;
use aggregates::inventory::InventoryCommand;
use aggregates::order::{Order, OrderCommand, totals};
use aggregates::payment::{Payment, PaymentCommand, RefundAmount};
use common::{code, customer, free_shipping, gbp, lines, order_id, sandbox_method, sku};
use event_schemas::{
    ActorKind, AggregateId, AggregateType, CancelReason, CartCheckedOut, CartEvent, CartId, CartLine,
    CommandId, CorrelationId, CountryCode, Event, InventoryEvent, LineQuantity, Metadata, OrderEvent,
    OrderId, OrderPlaced, OrderStage, PaymentEvent, PaymentId, Position, ProviderRef, RecordedEvent,
    RefundId, ReleaseReason, ReturnCondition, ReturnId, ReturnedLine, ShipmentId, StreamId, Timestamp,
    Version, derive_uuid,
};
use sagas::policies::{
    Action, Command, EffectKind, Folded, IfRefused, MissingState, PolicyConfig, Refusal, TimerKind,
    has_policy, needs_state, place_order_command, react, react_to_timer, scope,
};

fn now() -> Timestamp {
    "2024-05-01T12:00:00Z".parse().expect("a time")
}

fn deadline() -> Timestamp {
    now().checked_add(Duration::from_secs(1_800)).expect("in range")
}

fn order() -> OrderId {
    order_id("ada")
}

fn payment() -> PaymentId {
    PaymentId::for_order(order())
}

fn recorded(kind: AggregateType, id: impl Into<AggregateId>, event: impl Into<Event>) -> RecordedEvent {
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
fn placed(cart_id: Option<CartId>, price: i64) -> OrderPlaced {
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

fn fold<A: Decide + Default>(events: impl IntoIterator<Item = A::Event>) -> A {
    let mut aggregate = A::default();
    events.into_iter().for_each(|event| aggregate.evolve(&event));
    aggregate
}

/// An order as it is after `events`, with the last of them.
fn after(placed: OrderPlaced, events: Vec<OrderEvent>) -> (Order, RecordedEvent) {
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

fn of_order(placed: OrderPlaced, events: Vec<OrderEvent>) -> Vec<Action> {
    let (folded, event) = after(placed, events);
    react(&event, Folded::Order(&folded), &PolicyConfig::default()).expect("state")
}

fn of(event: &RecordedEvent) -> Vec<Action> {
    assert!(
        has_policy(&event.event) && !needs_state(&event.event),
        "{}",
        event.event.name()
    );
    react(event, Folded::Nothing, &PolicyConfig::default()).expect("no state needed")
}

/// The commands, without their ids.
fn commands(actions: &[Action]) -> Vec<Command> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Command(command) => Some(command.command.clone()),
            _ => None,
        })
        .collect()
}

fn only_command(actions: &[Action]) -> &sagas::policies::PolicyCommand {
    match actions {
        [Action::Command(command)] => command,
        other => panic!("one command expected: {other:?}"),
    }
}

fn branch(actions: &[Action]) -> (&'static [Refusal], Command) {
    match &only_command(actions).if_refused {
        IfRefused::Then { with, then } => (*with, then.command.clone()),
        other => panic!("a branch expected: {other:?}"),
    }
}

fn paid(attempt: u32) -> OrderEvent {
    OrderEvent::OrderPaid {
        payment_id: payment(),
        attempt,
        amount: gbp(700),
    }
}

fn required(amount: i64) -> OrderEvent {
    OrderEvent::PaymentRequired {
        payment_id: payment(),
        amount: gbp(amount),
        method: sandbox_method("ref"),
    }
}

fn cancelled(stage: OrderStage) -> OrderEvent {
    OrderEvent::OrderCancelled {
        reason: CancelReason::CustomerRequest,
        by: ActorKind::Customer,
        stage,
    }
}

fn inventory(event: InventoryEvent) -> RecordedEvent {
    recorded(AggregateType::Inventory, &sku("MUG"), event)
}

fn of_payment(event: PaymentEvent) -> RecordedEvent {
    recorded(AggregateType::Payment, payment(), event)
}

#[test]
fn cart_checked_out_places_the_order_and_reopens_the_cart_if_it_makes_none() {
    let placed = placed(None, 100);
    let cart = CartId::for_owner(customer("ada"));
    let checked_out = CartCheckedOut {
        order_id: order(),
        attempt: 1,
        customer: customer("ada"),
        lines: placed.lines.clone(),
        shipping: placed.shipping.clone(),
        totals: placed.totals.clone(),
        country: placed.country.clone(),
        payment: placed.payment.clone(),
        occurred_at: now(),
        payment_deadline: deadline(),
    };
    let event = recorded(
        AggregateType::Cart,
        cart,
        CartEvent::CartCheckedOut(Box::new(checked_out.clone())),
    );
    let actions = of(&event);
    let expected = OrderPlaced {
        cart_id: Some(cart),
        ..placed
    };
    assert_eq!(
        commands(&actions),
        [Command::Order(order(), OrderCommand::Place(Box::new(expected)))]
    );
    let (command_id, _, command) = place_order_command(&event.id(), &checked_out);
    assert_eq!(
        only_command(&actions).command_id,
        command_id,
        "the handler runs the very same command"
    );
    assert_eq!(only_command(&actions).command, Command::Order(order(), command));
    let reopen = CartCommand::Reopen {
        order_id: order(),
        reason: code("order-refused"),
    };
    assert_eq!(
        branch(&actions),
        (&[Refusal::Agreement][..], Command::Cart(cart, reopen))
    );
}

#[test]
fn cart_merged_into_merges_into_the_target() {
    let (from, target) = (
        CartId::for_owner(customer("guest")),
        CartId::for_owner(customer("ada")),
    );
    let lines = vec![CartLine {
        sku: sku("MUG"),
        quantity: 2,
    }];
    let event = CartEvent::CartMergedInto {
        target,
        target_owner: customer("ada"),
        lines: lines.clone(),
    };
    let merge = CartCommand::Merge {
        owner: customer("ada"),
        from,
        lines,
    };
    assert_eq!(
        commands(&of(&recorded(AggregateType::Cart, from, event))),
        [Command::Cart(target, merge)]
    );
}

#[test]
fn stock_reserved_is_recorded_and_released_if_the_order_is_cancelled() {
    let actions = of(&inventory(InventoryEvent::StockReserved {
        order_id: order(),
        quantity: 2,
    }));
    assert_eq!(
        commands(&actions),
        [Command::Order(
            order(),
            OrderCommand::RecordLineReserved { sku: sku("MUG") }
        )]
    );
    let release = InventoryCommand::Release {
        order_id: order(),
        reason: ReleaseReason::OrderCancelled,
    };
    assert_eq!(
        branch(&actions),
        (&[Refusal::Cancelled][..], Command::Inventory(sku("MUG"), release))
    );
}

#[test]
fn reservation_rejected_cancels_the_order() {
    let event = InventoryEvent::ReservationRejected {
        order_id: order(),
        quantity: 2,
        available: 1,
    };
    let reason = CancelReason::OutOfStock {
        sku: sku("MUG"),
        available: 1,
    };
    let cancel = OrderCommand::Cancel {
        reason,
        by: ActorKind::System,
    };
    assert_eq!(
        commands(&of(&inventory(event))),
        [Command::Order(order(), cancel)]
    );
}

#[test]
fn order_placed_reserves_each_tracked_sku_once_and_sets_its_deadline() {
    let event = recorded(
        AggregateType::Order,
        order(),
        OrderEvent::OrderPlaced(Box::new(placed(None, 100))),
    );
    let actions = of(&event);
    let reserve = |item, quantity| {
        Command::Inventory(
            sku(item),
            InventoryCommand::Reserve {
                order_id: order(),
                quantity,
            },
        )
    };
    assert_eq!(
        commands(&actions),
        [reserve("MUG", 5), reserve("TEA", 1)],
        "the lines of one SKU are summed"
    );
    assert!(actions.contains(&Action::Timer {
        kind: TimerKind::PaymentDeadline,
        due_at: deadline()
    }));
}

#[test]
fn order_placed_without_tracked_lines_is_reserved_at_once() {
    let mut placed = placed(None, 100);
    placed.lines.retain(|line| !line.tracked);
    let event = recorded(
        AggregateType::Order,
        order(),
        OrderEvent::OrderPlaced(Box::new(placed)),
    );
    assert_eq!(
        commands(&of(&event)),
        [Command::Order(order(), OrderCommand::RecordReserved)]
    );
}

#[test]
fn payment_required_requests_the_payment_unless_there_is_nothing_to_pay() {
    let actions = of(&recorded(AggregateType::Order, order(), required(700)));
    let request = PaymentCommand::Request {
        order_id: order(),
        amount: gbp(700),
        method: sandbox_method("ref"),
    };
    assert_eq!(commands(&actions), [Command::Payment(payment(), request)]);

    let actions = of(&recorded(AggregateType::Order, order(), required(0)));
    let paid = OrderCommand::MarkPaid {
        payment_id: payment(),
        attempt: 0,
        amount: gbp(0),
    };
    assert_eq!(commands(&actions), [Command::Order(order(), paid)]);
    assert_eq!(
        only_command(&actions).if_refused,
        IfRefused::Nothing {
            with: &[Refusal::Cancelled]
        }
    );
}

#[test]
fn order_paid_renews_its_cart_and_takes_off_the_deadline() {
    let cart = CartId::for_owner(customer("ada"));
    let actions = of_order(placed(Some(cart), 100), vec![paid(1)]);
    let renew = Command::Cart(cart, CartCommand::Renew { order_id: order() });
    assert_eq!(commands(&actions), [renew]);
    assert!(actions.contains(&Action::ClearTimers {
        kind: TimerKind::PaymentDeadline
    }));
    assert_eq!(commands(&of_order(placed(None, 100), vec![paid(1)])), []);
}

#[test]
fn order_cancelled_releases_closes_and_reopens_by_how_far_it_had_come() {
    let cart = CartId::for_owner(customer("ada"));
    let release = |item| {
        let command = InventoryCommand::Release {
            order_id: order(),
            reason: ReleaseReason::OrderCancelled,
        };
        Command::Inventory(sku(item), command)
    };
    let close = Command::Payment(
        payment(),
        PaymentCommand::Close {
            order_id: order(),
            reason: code("customer-request"),
        },
    );
    let reopen = Command::Cart(
        cart,
        CartCommand::Reopen {
            order_id: order(),
            reason: code("customer-request"),
        },
    );
    let both = [release("MUG"), release("TEA")];
    let of_stage = |stage, price| commands(&of_order(placed(Some(cart), price), vec![cancelled(stage)]));

    assert_eq!(
        of_stage(OrderStage::Placed, 100),
        [&both[..], std::slice::from_ref(&reopen)].concat()
    );
    assert_eq!(
        of_stage(OrderStage::AwaitingPayment, 100),
        [&both[..], &[close.clone(), reopen.clone()]].concat()
    );
    assert_eq!(of_stage(OrderStage::Paid, 100), [&both[..], &[close]].concat());
    assert_eq!(
        of_stage(OrderStage::AwaitingPayment, 0),
        [&both[..], &[reopen]].concat(),
        "nothing to close"
    );
}

#[test]
fn shipment_dispatched_commits_what_was_reserved() {
    let lines = [(1, 1), (3, 2), (4, 1)].map(|(line_no, quantity)| LineQuantity { line_no, quantity });
    let event = OrderEvent::ShipmentDispatched {
        shipment_id: ShipmentId::from_uuid(derive_uuid("test", &[])),
        lines: lines.into(),
        carrier: code("post"),
        tracking_number: None,
    };
    let commit = InventoryCommand::Commit {
        order_id: order(),
        quantity: 3,
    };
    let actions = of_order(placed(None, 100), vec![paid(1), event]);
    assert_eq!(commands(&actions), [Command::Inventory(sku("MUG"), commit)]);
}

#[test]
fn the_last_delivery_starts_the_days_until_completion() {
    let shipment_id = ShipmentId::from_uuid(derive_uuid("test", &[]));
    let all: Vec<_> = placed(None, 100)
        .lines
        .iter()
        .map(|line| LineQuantity {
            line_no: line.line_no,
            quantity: line.quantity,
        })
        .collect();
    let dispatched = |lines| OrderEvent::ShipmentDispatched {
        shipment_id,
        lines,
        carrier: code("post"),
        tracking_number: None,
    };
    let delivered = OrderEvent::ShipmentDelivered {
        shipment_id,
        delivered_at: now(),
    };
    let actions = of_order(
        placed(None, 100),
        vec![paid(1), dispatched(all.clone()), delivered.clone()],
    );
    let due_at = now()
        .checked_add(PolicyConfig::default().auto_complete_after)
        .expect("in range");
    assert_eq!(
        actions,
        [Action::Timer {
            kind: TimerKind::AutoComplete,
            due_at
        }]
    );
    let actions = of_order(
        placed(None, 100),
        vec![paid(1), dispatched(all[..1].to_vec()), delivered.clone()],
    );
    assert_eq!(actions, [], "a part of it is no delivery of the order");

    let event = recorded(AggregateType::Order, order(), delivered);
    let fired = react_to_timer(&event, TimerKind::AutoComplete);
    assert_eq!(
        commands(&fired),
        [Command::Order(order(), OrderCommand::Complete)]
    );
    let with: &[Refusal] = &[Refusal::ReturnOpen, Refusal::WrongStatus];
    assert_eq!(only_command(&fired).if_refused, IfRefused::Nothing { with });
}

#[test]
fn return_received_puts_stock_back_line_by_line_and_refunds() {
    let returned = |line_no, quantity, condition| ReturnedLine {
        line_no,
        quantity,
        condition,
    };
    let received = |refund| OrderEvent::ReturnReceived {
        return_id: ReturnId::from_uuid(derive_uuid("test", &[])),
        lines: vec![
            returned(1, 1, ReturnCondition::Resaleable),
            returned(1, 1, ReturnCondition::Damaged),
            returned(4, 1, ReturnCondition::Resaleable),
        ],
        refund: gbp(refund),
    };
    let back = |condition| {
        let command = InventoryCommand::Return {
            order_id: order(),
            quantity: 1,
            condition,
        };
        Command::Inventory(sku("MUG"), command)
    };
    let actions = of_order(placed(None, 100), vec![paid(2), received(300)]);
    let commands = commands(&actions);
    assert_eq!(
        commands[..2],
        [back(ReturnCondition::Resaleable), back(ReturnCondition::Damaged)]
    );
    assert_eq!(commands.len(), 3);
    assert!(matches!(
        &commands[2],
        Command::Payment(id, PaymentCommand::RequestRefund { attempt: 2, amount: RefundAmount::UpTo(amount), .. })
            if *id == payment() && *amount == gbp(300)
    ));
    let ids: std::collections::HashSet<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Command(command) => Some(command.command_id),
            _ => None,
        })
        .collect();
    assert_eq!(ids.len(), 3, "two returns of one SKU are two commands");
    assert_eq!(
        of_order(placed(None, 0), vec![paid(0), received(0)]).len(),
        2,
        "nothing was paid, nothing goes back"
    );
}

#[test]
fn a_requested_payment_asks_for_a_session() {
    let (order_id, amount, method) = (order(), gbp(700), sandbox_method("ref"));
    let requested = PaymentEvent::PaymentRequested {
        order_id,
        attempt: 1,
        amount,
        method: method.clone(),
    };
    let retried = PaymentEvent::PaymentRetried {
        order_id,
        attempt: 2,
        amount,
        method,
    };
    for (event, attempt) in [(requested, 1), (retried, 2)] {
        let request = PaymentCommand::RequestSession { attempt };
        assert_eq!(
            commands(&of(&of_payment(event))),
            [Command::Payment(payment(), request)]
        );
    }
}

#[test]
fn an_intent_is_a_call_to_the_provider() {
    let (order_id, attempt) = (order(), 1);
    let refund = PaymentEvent::RefundRequested {
        order_id,
        attempt,
        refund_id: RefundId::from_uuid(derive_uuid("test", &[])),
        amount: gbp(700),
        reason: code("surplus"),
    };
    for (event, kind) in [
        (
            PaymentEvent::SessionRequested { order_id, attempt },
            EffectKind::Session,
        ),
        (
            PaymentEvent::CaptureRequested {
                order_id,
                attempt,
                amount: gbp(700),
            },
            EffectKind::Capture,
        ),
        (
            PaymentEvent::VoidRequested { order_id, attempt },
            EffectKind::Void,
        ),
        (refund, EffectKind::Refund),
    ] {
        assert_eq!(of(&of_payment(event)), [Action::Effect { kind }]);
    }
}

#[test]
fn an_authorization_is_captured_unless_it_is_given_up() {
    let (order_id, amount, method) = (order(), gbp(700), sandbox_method("ref"));
    let provider_ref = ProviderRef::new("auth-1").expect("a reference");
    let requested = PaymentEvent::PaymentRequested {
        order_id,
        attempt: 1,
        amount,
        method: method.clone(),
    };
    let declined = PaymentEvent::PaymentDeclined {
        order_id,
        attempt: 1,
        code: code("no"),
    };
    let retried = PaymentEvent::PaymentRetried {
        order_id,
        attempt: 2,
        amount,
        method,
    };
    let closed = PaymentEvent::PaymentCloseRequested {
        order_id,
        attempt: 1,
        reason: code("cancelled"),
    };
    let authorized = PaymentEvent::PaymentAuthorized {
        order_id,
        attempt: 1,
        provider_ref,
        amount,
    };
    let event = of_payment(authorized.clone());
    let follows = |before: Vec<PaymentEvent>| {
        let payment: Payment = fold(before.into_iter().chain([authorized.clone()]));
        commands(&react(&event, Folded::Payment(&payment), &PolicyConfig::default()).expect("state"))
    };
    let capture = Command::Payment(payment(), PaymentCommand::RequestCapture { attempt: 1 });
    let void = Command::Payment(payment(), PaymentCommand::RequestVoid { attempt: 1 });
    assert_eq!(follows(vec![requested.clone()]), [capture]);
    assert_eq!(
        follows(vec![requested.clone(), closed]),
        std::slice::from_ref(&void)
    );
    assert_eq!(
        follows(vec![requested, declined, retried]),
        [void],
        "a later attempt has replaced it"
    );
    assert_eq!(
        react(&event, Folded::Nothing, &PolicyConfig::default()),
        Err(MissingState {
            event: "PaymentAuthorized"
        })
    );
}

#[test]
fn a_capture_pays_the_order_or_is_refunded_in_full() {
    let provider_ref = ProviderRef::new("charge-1").expect("a reference");
    let event = PaymentEvent::PaymentCaptured {
        order_id: order(),
        attempt: 2,
        provider_ref,
        amount: gbp(700),
    };
    let actions = of(&of_payment(event));
    let paid = OrderCommand::MarkPaid {
        payment_id: payment(),
        attempt: 2,
        amount: gbp(700),
    };
    assert_eq!(commands(&actions), [Command::Order(order(), paid)]);
    let (with, refund) = branch(&actions);
    assert_eq!(with, [Refusal::Cancelled, Refusal::PaidByAnotherAttempt]);
    assert!(matches!(
        refund,
        Command::Payment(id, PaymentCommand::RequestRefund { attempt: 2, amount: RefundAmount::Everything, .. })
            if id == payment()
    ));
}

#[test]
fn a_refund_that_succeeded_is_recorded_on_the_order() {
    let refund_id = RefundId::from_uuid(derive_uuid("test", &[]));
    let event = PaymentEvent::RefundSucceeded {
        order_id: order(),
        attempt: 1,
        refund_id,
        provider_ref: ProviderRef::new("refund-1").expect("a reference"),
        amount: gbp(300),
    };
    let record = OrderCommand::RecordRefund {
        payment_id: payment(),
        attempt: 1,
        refund_id,
        amount: gbp(300),
    };
    assert_eq!(
        commands(&of(&of_payment(event))),
        [Command::Order(order(), record)]
    );
}

#[test]
fn the_deadline_cancels() {
    let event = recorded(
        AggregateType::Order,
        order(),
        OrderEvent::OrderPlaced(Box::new(placed(None, 100))),
    );
    let cancel = OrderCommand::Cancel {
        reason: CancelReason::PaymentTimeout,
        by: ActorKind::System,
    };
    let fired = react_to_timer(&event, TimerKind::PaymentDeadline);
    assert_eq!(commands(&fired), [Command::Order(order(), cancel)]);
}

#[test]
fn policies_depend_on_nothing_but_their_arguments() {
    let event = inventory(InventoryEvent::StockReserved {
        order_id: order(),
        quantity: 2,
    });
    assert_eq!(of(&event), of(&event.clone()));
    let later = RecordedEvent {
        version: Version(4),
        ..event.clone()
    };
    assert_ne!(
        only_command(&of(&event)).command_id,
        only_command(&of(&later)).command_id
    );
}

#[test]
fn what_fails_on_stock_parks_one_order_of_it() {
    let event = inventory(InventoryEvent::StockReserved {
        order_id: order(),
        quantity: 2,
    });
    assert_eq!(&*scope(&event), format!("inventory/MUG#{}", order()));
    let event = of_payment(PaymentEvent::VoidRequested {
        order_id: order(),
        attempt: 1,
    });
    assert_eq!(&*scope(&event), format!("payment/{}", payment()));
}

#[test]
fn events_without_a_row_ask_for_nothing() {
    for event in [
        recorded(
            AggregateType::Order,
            order(),
            OrderEvent::LineReserved { sku: sku("MUG") },
        ),
        recorded(AggregateType::Order, order(), OrderEvent::OrderReserved {}),
        inventory(InventoryEvent::BackorderLimitSet { limit: 1 }),
        recorded(
            AggregateType::Cart,
            CartId::for_owner(customer("ada")),
            CartEvent::CartCleared {},
        ),
    ] {
        assert!(!has_policy(&event.event) && !needs_state(&event.event));
        assert_eq!(
            react(&event, Folded::Nothing, &PolicyConfig::default()),
            Ok(Vec::new())
        );
    }
}
