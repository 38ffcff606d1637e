//! What holds after every event.

use event_schemas::{CartId, CartLine, OrderId};

use super::{Cart, CartStatus};

/// A named predicate over the state.
pub type Invariant = (&'static str, fn(&Cart) -> bool);

/// All of them.
pub const INVARIANTS: &[Invariant] = &[
    ("each SKU once", each_sku_once),
    ("no line without units", no_line_without_units),
    ("open carts have an owner", open_carts_have_an_owner),
    (
        "the order follows from cart and attempt",
        the_order_follows_from_cart_and_attempt,
    ),
    ("a check-out has lines", a_check_out_has_lines),
];

fn kept(cart: &Cart) -> &[CartLine] {
    match &cart.status {
        CartStatus::CheckedOut { kept, .. } => kept,
        CartStatus::Unopened | CartStatus::Open => &[],
    }
}

/// No SKU stands on two lines, neither in the cart nor in what is kept for later.
pub fn each_sku_once(cart: &Cart) -> bool {
    fn distinct(lines: &[CartLine]) -> bool {
        lines
            .iter()
            .enumerate()
            .all(|(index, line)| lines[..index].iter().all(|other| other.sku != line.sku))
    }
    distinct(&cart.lines) && distinct(kept(cart))
}

/// Every line has at least one unit. The upper limits bind whoever adds, not what a merge brings.
pub fn no_line_without_units(cart: &Cart) -> bool {
    cart.lines.iter().chain(kept(cart)).all(|line| line.quantity > 0)
}

/// A cart belongs to someone from its first event on.
pub fn open_carts_have_an_owner(cart: &Cart) -> bool {
    match cart.status {
        CartStatus::Unopened => *cart == Cart::default(),
        CartStatus::Open | CartStatus::CheckedOut { .. } => cart.owner.is_some(),
    }
}

/// Whoever places the order of a check-out names the same one.
pub fn the_order_follows_from_cart_and_attempt(cart: &Cart) -> bool {
    match (cart.checked_out_as(), cart.owner) {
        (Some(order_id), Some(owner)) => {
            cart.attempts > 0 && order_id == OrderId::for_checkout(CartId::for_owner(owner), cart.attempts)
        }
        (Some(_), None) => false,
        (None, _) => true,
    }
}

/// There is something to reopen.
pub fn a_check_out_has_lines(cart: &Cart) -> bool {
    cart.checked_out_as().is_none() || !cart.lines.is_empty()
}
