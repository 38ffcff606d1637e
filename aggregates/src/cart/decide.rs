use std::collections::BTreeMap;

use event_schemas::{CartCheckedOut, CartEvent, CartId, CartLine, CustomerId, OrderId, Sku};

use super::{Cart, CartCommand, CartError, CartStatus, CheckOut, MAX_LINES, MAX_QUANTITY};
use crate::order::check_agreement;

type Decision = Result<Vec<CartEvent>, CartError>;

pub(super) fn decide(cart: &Cart, command: &CartCommand) -> Decision {
    match command {
        CartCommand::AddItem { owner, sku, quantity } => add_item(cart, *owner, sku, *quantity),
        CartCommand::ChangeQuantity { sku, quantity } => change_quantity(cart, sku, *quantity),
        CartCommand::RemoveItem { sku } => remove_item(cart, sku),
        CartCommand::Clear => clear(cart),
        CartCommand::MergeInto { target_owner } => merge_into(cart, *target_owner),
        CartCommand::Merge { owner, from, lines } => merge(cart, *owner, *from, lines),
        CartCommand::CheckOut(check_out) => self::check_out(cart, check_out),
        CartCommand::Reopen { order_id, reason } => {
            Ok(when_current(cart, *order_id, || CartEvent::CartReopened {
                order_id: *order_id,
                reason: reason.clone(),
            }))
        }
        CartCommand::Renew { order_id } => Ok(when_current(cart, *order_id, || CartEvent::CartRenewed {
            order_id: *order_id,
        })),
    }
}

/// A checked-out cart accepts nothing from its owner.
fn not_checked_out(cart: &Cart) -> Result<(), CartError> {
    match cart.status {
        CartStatus::CheckedOut { order_id, .. } => Err(CartError::CheckedOut { order_id }),
        CartStatus::Unopened | CartStatus::Open => Ok(()),
    }
}

fn check_quantity(sku: &Sku, quantity: Option<u32>) -> Result<u32, CartError> {
    quantity
        .filter(|quantity| (1..=MAX_QUANTITY).contains(quantity))
        .ok_or_else(|| CartError::QuantityOutOfRange {
            sku: sku.clone(),
            max: MAX_QUANTITY,
        })
}

/// The event that opens the cart for `owner`, if it is not open yet.
fn opened_for(cart: &Cart, owner: CustomerId) -> Result<Option<CartEvent>, CartError> {
    match cart.owner {
        None => Ok(Some(CartEvent::CartOpened { owner })),
        Some(of) if of == owner => Ok(None),
        Some(_) => Err(CartError::NotTheOwner),
    }
}

fn add_item(cart: &Cart, owner: CustomerId, sku: &Sku, quantity: u32) -> Decision {
    not_checked_out(cart)?;
    let opened = opened_for(cart, owner)?;
    check_quantity(sku, Some(quantity))?;
    match cart.quantity_of(sku) {
        Some(present) => check_quantity(sku, present.checked_add(quantity)).map(drop)?,
        None if cart.lines.len() >= MAX_LINES => return Err(CartError::TooManyLines { max: MAX_LINES }),
        None => {}
    }
    Ok(opened
        .into_iter()
        .chain([CartEvent::ItemAdded {
            sku: sku.clone(),
            quantity,
        }])
        .collect())
}

fn change_quantity(cart: &Cart, sku: &Sku, quantity: u32) -> Decision {
    not_checked_out(cart)?;
    let present = cart
        .quantity_of(sku)
        .ok_or_else(|| CartError::UnknownItem { sku: sku.clone() })?;
    if present == quantity {
        return Ok(Vec::new());
    }
    // Fewer is always better, also in a line that a merge has brought beyond the limit.
    if quantity == 0 || quantity > present {
        check_quantity(sku, Some(quantity))?;
    }
    Ok(vec![CartEvent::ItemQuantityChanged {
        sku: sku.clone(),
        quantity,
    }])
}

fn remove_item(cart: &Cart, sku: &Sku) -> Decision {
    not_checked_out(cart)?;
    if cart.quantity_of(sku).is_none() {
        return Err(CartError::UnknownItem { sku: sku.clone() });
    }
    Ok(vec![CartEvent::ItemRemoved { sku: sku.clone() }])
}

fn clear(cart: &Cart) -> Decision {
    not_checked_out(cart)?;
    Ok(if cart.lines.is_empty() {
        Vec::new()
    } else {
        vec![CartEvent::CartCleared {}]
    })
}

fn merge_into(cart: &Cart, target_owner: CustomerId) -> Decision {
    not_checked_out(cart)?;
    if cart.owner == Some(target_owner) {
        return Err(CartError::MergedIntoItself);
    }
    if cart.lines.is_empty() {
        return Ok(Vec::new());
    }
    let target = CartId::for_owner(target_owner);
    Ok(vec![CartEvent::CartMergedInto {
        target,
        target_owner,
        lines: cart.lines.clone(),
    }])
}

/// The lines have left their cart already: nothing may refuse them for want of room.
fn merge(cart: &Cart, owner: CustomerId, from: CartId, lines: &[CartLine]) -> Decision {
    let opened = opened_for(cart, owner)?;
    if let Some(line) = lines.iter().find(|line| line.quantity == 0) {
        return Err(CartError::QuantityOutOfRange {
            sku: line.sku.clone(),
            max: MAX_QUANTITY,
        });
    }
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    Ok(opened
        .into_iter()
        .chain([CartEvent::CartMerged {
            from,
            lines: lines.to_vec(),
        }])
        .collect())
}

fn check_out(cart: &Cart, check_out: &CheckOut) -> Decision {
    not_checked_out(cart)?;
    let customer = cart
        .owner
        .filter(|_| !cart.lines.is_empty())
        .ok_or(CartError::Empty)?;
    if !is_priced_as_it_is(cart, check_out) {
        return Err(CartError::PricedOtherwise);
    }
    check_agreement(&check_out.lines, &check_out.shipping, &check_out.totals)?;
    Ok(vec![CartEvent::CartCheckedOut(Box::new(CartCheckedOut {
        order_id: cart.next_order_id(customer),
        attempt: cart.attempts.saturating_add(1),
        customer,
        lines: check_out.lines.clone(),
        shipping: check_out.shipping.clone(),
        totals: check_out.totals.clone(),
        country: check_out.country.clone(),
        payment: check_out.payment.clone(),
        occurred_at: check_out.occurred_at,
        payment_deadline: check_out.payment_deadline,
    }))])
}

/// Whether the priced lines are the cart's, SKU by SKU.
fn is_priced_as_it_is(cart: &Cart, check_out: &CheckOut) -> bool {
    let mut priced: BTreeMap<&Sku, u32> = BTreeMap::new();
    for line in &check_out.lines {
        let sum = priced.entry(&line.sku).or_default();
        *sum = sum.saturating_add(line.quantity);
    }
    priced.len() == cart.lines.len()
        && cart
            .lines
            .iter()
            .all(|line| priced.get(&line.sku) == Some(&line.quantity))
}

/// `event` if the cart is checked out as `order_id`; a later word about an earlier order changes nothing.
fn when_current(cart: &Cart, order_id: OrderId, event: impl FnOnce() -> CartEvent) -> Vec<CartEvent> {
    if cart.checked_out_as() == Some(order_id) {
        vec![event()]
    } else {
        Vec::new()
    }
}
