//! `CartCheckedOut` → `Order.Place`; `CartMergedInto` → `Cart.Merge`.

use aggregates::cart::CartCommand;
use aggregates::order::OrderCommand;
use event_schemas::{
    CartCheckedOut, CartEvent, CartId, CartLine, Code, CommandId, CustomerId, EventId, OrderId, OrderPlaced,
    RecordedEvent,
};

use super::{Action, Command, PolicyCommand, Refusal};

const CHECKED_OUT: &str = "cart-checked-out";
const MERGED_INTO: &str = "cart-merged-into";

/// The order that a check-out places, under the id that the policy gives the command: the check-out's handler runs it
/// at once, and after a crash in between the policy runs the very same command. `checked_out` is the event's id.
pub fn place_order_command(
    checked_out: &EventId,
    event: &CartCheckedOut,
) -> (CommandId, OrderId, OrderCommand) {
    let placed = OrderPlaced {
        order_id: event.order_id,
        customer: event.customer,
        lines: event.lines.clone(),
        shipping: event.shipping.clone(),
        totals: event.totals.clone(),
        country: event.country.clone(),
        cart_id: checked_out.stream.aggregate_id.as_str().parse().ok(),
        payment: event.payment.clone(),
        occurred_at: event.occurred_at,
        payment_deadline: event.payment_deadline,
    };
    let command = OrderCommand::Place(Box::new(placed));
    let id = CommandId::for_policy(
        checked_out,
        CHECKED_OUT,
        command.name(),
        &event.order_id.into(),
        0,
    );
    (id, event.order_id, command)
}

/// What the target of a merge has to take in, under the id that the policy gives the command; as with
/// [`place_order_command`], the handler runs it too. `merged_into` is the event's id, `from` the cart it happened to.
pub fn merge_command(
    merged_into: &EventId,
    from: CartId,
    target: CartId,
    target_owner: CustomerId,
    lines: Vec<CartLine>,
) -> (CommandId, CartCommand) {
    let command = CartCommand::Merge {
        owner: target_owner,
        from,
        lines,
    };
    let id = CommandId::for_policy(merged_into, MERGED_INTO, command.name(), &target.into(), 0);
    (id, command)
}

pub(super) fn react(recorded: &RecordedEvent, event: &CartEvent) -> Vec<Action> {
    match event {
        CartEvent::CartCheckedOut(checked_out) => vec![place(recorded, checked_out).into()],
        CartEvent::CartMergedInto {
            target,
            target_owner,
            lines,
        } => {
            let Ok(from) = recorded.stream.aggregate_id.as_str().parse() else {
                return Vec::new();
            };
            let (command_id, command) =
                merge_command(&recorded.id(), from, *target, *target_owner, lines.clone());
            let command = Command::Cart(*target, command);
            vec![
                PolicyCommand {
                    command_id,
                    ..PolicyCommand::new(recorded, MERGED_INTO, 0, command)
                }
                .into(),
            ]
        }
        CartEvent::CartOpened { .. }
        | CartEvent::ItemAdded { .. }
        | CartEvent::ItemQuantityChanged { .. }
        | CartEvent::ItemRemoved { .. }
        | CartEvent::CartCleared {}
        | CartEvent::CartMerged { .. }
        | CartEvent::CartReopened { .. }
        | CartEvent::CartRenewed { .. } => Vec::new(),
    }
}

fn place(recorded: &RecordedEvent, event: &CartCheckedOut) -> PolicyCommand {
    let (command_id, order_id, command) = place_order_command(&recorded.id(), event);
    let place = PolicyCommand {
        command_id,
        ..PolicyCommand::new(recorded, CHECKED_OUT, 0, Command::Order(order_id, command))
    };
    let cart_id: Option<CartId> = recorded.stream.aggregate_id.as_str().parse().ok();
    let reopen = cart_id
        .zip(Code::new("order-refused").ok())
        .map(|(cart_id, reason)| {
            let command = CartCommand::Reopen { order_id, reason };
            PolicyCommand::new(recorded, CHECKED_OUT, 0, Command::Cart(cart_id, command))
        });
    place.if_refused(&[Refusal::Agreement], reopen)
}
