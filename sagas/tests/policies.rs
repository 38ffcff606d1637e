//! Each row of the policy table that begins in a cart, a stock item or an order.

#![allow(clippy::expect_used, reason = "a test may fail")]

mod common;
mod table;

use aggregates::cart::CartCommand;
use aggregates::inventory::InventoryCommand;
use aggregates::order::OrderCommand;
use aggregates::payment::{PaymentCommand, RefundAmount};
use common::{code, customer, gbp, sandbox_method, sku};
use event_schemas::{
    ActorKind, AggregateType, CancelReason, CartCheckedOut, CartEvent, CartId, CartLine, InventoryEvent,
    LineQuantity, OrderEvent, OrderPlaced, OrderStage, ReleaseReason, ReturnCondition, ReturnId,
    ReturnedLine, ShipmentId, derive_uuid,
};
use sagas::policies::{
    Action, Command, IfRefused, PolicyConfig, Refusal, TimerKind, place_order_command, react_to_timer,
};

use table::*;

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
