//! From the placed order to its stock, its payment and its cart; `stage` and folded lines say what has to be undone.

use std::collections::BTreeMap;

use aggregates::cart::CartCommand;
use aggregates::inventory::InventoryCommand;
use aggregates::order::{Order, OrderCommand, OrderStatus};
use aggregates::payment::{PaymentCommand, RefundAmount};
use event_schemas::{
    ActorKind, CancelReason, Code, CommandId, LineQuantity, Money, OrderEvent, OrderId, OrderLine,
    OrderPlaced, OrderStage, PaymentId, PaymentMethod, RecordedEvent, RefundId, ReleaseReason, ReturnedLine,
    Sku,
};

use super::{Action, Command, Folded, PolicyCommand, PolicyConfig, Refusal, TimerKind};

const PLACED: &str = "order-placed";
const PAYMENT_REQUIRED: &str = "payment-required";
const PAID: &str = "order-paid";
const CANCELLED: &str = "order-cancelled";
const DISPATCHED: &str = "shipment-dispatched";
const RETURN_RECEIVED: &str = "return-received";
const PAYMENT_DEADLINE: &str = "payment-deadline";
const AUTO_COMPLETE: &str = "auto-complete";

/// None if the event's policy needs the folded order and `state` is not that.
pub(super) fn react(
    recorded: &RecordedEvent,
    event: &OrderEvent,
    state: Folded<'_>,
    config: &PolicyConfig,
) -> Option<Vec<Action>> {
    Some(match event {
        OrderEvent::OrderPlaced(placed) => on_placed(recorded, placed),
        OrderEvent::PaymentRequired {
            payment_id,
            amount,
            method,
        } => {
            vec![on_payment_required(recorded, *payment_id, *amount, method)?.into()]
        }
        OrderEvent::OrderPaid { .. } => on_paid(recorded, placed(state)?),
        OrderEvent::OrderCancelled { reason, stage, .. } => {
            on_cancelled(recorded, placed(state)?, reason, *stage)
        }
        OrderEvent::ShipmentDispatched { lines, .. } => on_dispatched(recorded, placed(state)?, lines),
        OrderEvent::ShipmentDelivered { .. } => on_delivered(recorded, order(state)?, config),
        OrderEvent::ReturnReceived { lines, refund, .. } => {
            on_returned(recorded, order(state)?, lines, *refund)?
        }
        OrderEvent::LineReserved { .. }
        | OrderEvent::OrderReserved {}
        | OrderEvent::OrderCompleted {}
        | OrderEvent::ReturnRequested { .. }
        | OrderEvent::ReturnApproved { .. }
        | OrderEvent::ReturnRejected { .. }
        | OrderEvent::RefundRecorded { .. } => Vec::new(),
    })
}

fn order(state: Folded<'_>) -> Option<&Order> {
    match state {
        Folded::Order(order) => Some(order),
        Folded::Nothing | Folded::Payment(_) => None,
    }
}

fn placed(state: Folded<'_>) -> Option<&OrderPlaced> {
    order(state)?.placed()
}

/// The stream's id; a stored one has that form.
fn order_id(recorded: &RecordedEvent) -> Option<OrderId> {
    recorded.stream.aggregate_id.as_str().parse().ok()
}

/// Units per tracked SKU, in the order of SKUs: one SKU may stand on several lines.
fn tracked<'a>(lines: impl IntoIterator<Item = (&'a OrderLine, u32)>) -> BTreeMap<&'a Sku, u32> {
    let mut units = BTreeMap::new();
    for (line, quantity) in lines {
        if line.tracked {
            // The order's limits keep the sum in range; a saturated one would be refused.
            let sum: &mut u32 = units.entry(&line.sku).or_default();
            *sum = sum.saturating_add(quantity);
        }
    }
    units
}

fn on_placed(recorded: &RecordedEvent, placed: &OrderPlaced) -> Vec<Action> {
    let OrderPlaced {
        order_id,
        payment_deadline,
        ..
    } = *placed;
    let units = tracked(placed.lines.iter().map(|line| (line, line.quantity)));
    let mut actions = Vec::with_capacity(units.len() + 1);
    actions.push(Action::Timer {
        kind: TimerKind::PaymentDeadline,
        due_at: payment_deadline,
    });
    if units.is_empty() {
        let command = Command::Order(order_id, OrderCommand::RecordReserved);
        actions.push(PolicyCommand::new(recorded, PLACED, 0, command).into());
    }
    actions.extend(units.into_iter().map(|(sku, quantity)| {
        let command = Command::Inventory(sku.clone(), InventoryCommand::Reserve { order_id, quantity });
        PolicyCommand::new(recorded, PLACED, 0, command).into()
    }));
    actions
}

fn on_payment_required(
    recorded: &RecordedEvent,
    payment_id: PaymentId,
    amount: Money,
    method: &PaymentMethod,
) -> Option<PolicyCommand> {
    let order_id = order_id(recorded)?;
    Some(if amount.is_zero() {
        let command = Command::Order(
            order_id,
            OrderCommand::MarkPaid {
                payment_id,
                attempt: 0,
                amount,
            },
        );
        PolicyCommand::new(recorded, PAYMENT_REQUIRED, 0, command).if_refused(&[Refusal::Cancelled], None)
    } else {
        let command = PaymentCommand::Request {
            order_id,
            amount,
            method: method.clone(),
        };
        let command = Command::Payment(payment_id, command);
        PolicyCommand {
            creates: true,
            ..PolicyCommand::new(recorded, PAYMENT_REQUIRED, 0, command)
        }
    })
}

fn on_paid(recorded: &RecordedEvent, placed: &OrderPlaced) -> Vec<Action> {
    let mut actions = vec![Action::ClearTimers {
        kind: TimerKind::PaymentDeadline,
    }];
    if let Some(cart_id) = placed.cart_id {
        let command = Command::Cart(
            cart_id,
            CartCommand::Renew {
                order_id: placed.order_id,
            },
        );
        actions.push(PolicyCommand::new(recorded, PAID, 0, command).into());
    }
    actions
}

fn on_cancelled(
    recorded: &RecordedEvent,
    placed: &OrderPlaced,
    reason: &CancelReason,
    stage: OrderStage,
) -> Vec<Action> {
    let order_id = placed.order_id;
    let mut actions = vec![Action::ClearTimers {
        kind: TimerKind::PaymentDeadline,
    }];
    let units = tracked(placed.lines.iter().map(|line| (line, line.quantity)));
    actions.extend(units.into_keys().map(|sku| {
        let release = InventoryCommand::Release {
            order_id,
            reason: ReleaseReason::OrderCancelled,
        };
        PolicyCommand::new(recorded, CANCELLED, 0, Command::Inventory(sku.clone(), release)).into()
    }));
    let Some(code) = code_of(reason) else {
        return actions;
    };
    let payment_required = match stage {
        OrderStage::Placed => false,
        OrderStage::AwaitingPayment | OrderStage::Paid => !placed.totals.total.is_zero(),
    };
    if payment_required {
        let close = PaymentCommand::Close {
            order_id,
            reason: code.clone(),
        };
        let close = Command::Payment(PaymentId::for_order(order_id), close);
        actions.push(PolicyCommand::new(recorded, CANCELLED, 0, close).into());
    }
    // A paid order has renewed its cart: the next one in it is none of this order's business.
    if let Some(cart_id) = placed.cart_id.filter(|_| stage != OrderStage::Paid) {
        let reopen = Command::Cart(
            cart_id,
            CartCommand::Reopen {
                order_id,
                reason: code,
            },
        );
        actions.push(PolicyCommand::new(recorded, CANCELLED, 0, reopen).into());
    }
    actions
}

/// Why, for the cart and the payment. None never happens: the texts are codes.
fn code_of(reason: &CancelReason) -> Option<Code> {
    match reason {
        CancelReason::OutOfStock { .. } => Code::new("out-of-stock").ok(),
        CancelReason::PaymentTimeout => Code::new("payment-timeout").ok(),
        CancelReason::CustomerRequest => Code::new("customer-request").ok(),
        CancelReason::Staff { code } => Some(code.clone()),
    }
}

fn on_dispatched(recorded: &RecordedEvent, placed: &OrderPlaced, lines: &[LineQuantity]) -> Vec<Action> {
    let order_id = placed.order_id;
    let sent = lines
        .iter()
        .filter_map(|sent| Some((line(placed, sent.line_no)?, sent.quantity)));
    let commit = |(sku, quantity): (&Sku, u32)| {
        let command = Command::Inventory(sku.clone(), InventoryCommand::Commit { order_id, quantity });
        PolicyCommand::new(recorded, DISPATCHED, 0, command).into()
    };
    tracked(sent).into_iter().map(commit).collect()
}

fn on_delivered(recorded: &RecordedEvent, order: &Order, config: &PolicyConfig) -> Vec<Action> {
    if order.status() != OrderStatus::Delivered {
        return Vec::new();
    }
    // Beyond the calendar's end it is never due.
    let due_at = recorded.recorded_at.checked_add(config.auto_complete_after);
    due_at
        .map(|due_at| Action::Timer {
            kind: TimerKind::AutoComplete,
            due_at,
        })
        .into_iter()
        .collect()
}

fn on_returned(
    recorded: &RecordedEvent,
    order: &Order,
    lines: &[ReturnedLine],
    refund: Money,
) -> Option<Vec<Action>> {
    let placed = order.placed()?;
    let order_id = placed.order_id;
    let mut actions: Vec<Action> = Vec::new();
    // One line may stand twice, in two conditions: the ordinal tells the commands apart.
    for (ordinal, returned) in (0..).zip(lines) {
        let Some(line) = line(placed, returned.line_no).filter(|line| line.tracked) else {
            continue;
        };
        let ReturnedLine {
            quantity, condition, ..
        } = *returned;
        let command = InventoryCommand::Return {
            order_id,
            quantity,
            condition,
        };
        let command = Command::Inventory(line.sku.clone(), command);
        actions.push(PolicyCommand::new(recorded, RETURN_RECEIVED, ordinal, command).into());
    }
    if let (Some(paid), false) = (order.paid().filter(|paid| paid.attempt > 0), refund.is_zero()) {
        let reason = Code::new("return").ok()?;
        let command = request_refund(recorded, RETURN_RECEIVED, paid.payment_id, |refund_id| {
            PaymentCommand::RequestRefund {
                refund_id,
                attempt: paid.attempt,
                amount: RefundAmount::UpTo(refund),
                reason,
            }
        });
        actions.push(command.into());
    }
    Some(actions)
}

/// A refund's id follows from the command's, and the command's id from its name and target only.
pub(super) fn request_refund(
    recorded: &RecordedEvent,
    policy: &'static str,
    payment_id: PaymentId,
    command: impl FnOnce(RefundId) -> PaymentCommand,
) -> PolicyCommand {
    let command_id = CommandId::for_policy(&recorded.id(), policy, "RequestRefund", &payment_id.into(), 0);
    let command = Command::Payment(payment_id, command(RefundId::for_command(command_id)));
    PolicyCommand {
        command_id,
        ..PolicyCommand::new(recorded, policy, 0, command)
    }
}

fn line(placed: &OrderPlaced, line_no: u32) -> Option<&OrderLine> {
    placed.lines.iter().find(|line| line.line_no == line_no)
}

/// The deadline has passed. A no-op once the order is cancelled or paid.
pub(super) fn payment_timeout(recorded: &RecordedEvent, placed: &OrderPlaced) -> Action {
    let cancel = OrderCommand::Cancel {
        reason: CancelReason::PaymentTimeout,
        by: ActorKind::System,
    };
    PolicyCommand::new(
        recorded,
        PAYMENT_DEADLINE,
        0,
        Command::Order(placed.order_id, cancel),
    )
    .into()
}

pub(super) fn complete(recorded: &RecordedEvent) -> Option<Action> {
    let command = Command::Order(order_id(recorded)?, OrderCommand::Complete);
    let complete = PolicyCommand::new(recorded, AUTO_COMPLETE, 0, command);
    Some(
        complete
            .if_refused(&[Refusal::ReturnOpen, Refusal::WrongStatus], None)
            .into(),
    )
}
