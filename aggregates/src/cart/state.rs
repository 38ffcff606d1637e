use event_schemas::{CartEvent, CartId, CartLine, CustomerId, OrderId};
use serde::{Deserialize, Serialize};

/// The most lines that adding items may lead to.
pub const MAX_LINES: usize = 200;
/// The most units of a line that adding items and changing quantities may lead to.
pub const MAX_QUANTITY: u32 = 999;

/// Where a cart is in its life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CartStatus {
    /// Nothing was ever put in.
    #[default]
    Unopened,
    Open,
    /// Waits for the order to be paid or to fail.
    CheckedOut {
        order_id: OrderId,
        /// Lines of other carts that came in meanwhile.
        kept: Vec<CartLine>,
    },
}

/// A customer's cart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cart {
    pub(super) owner: Option<CustomerId>,
    pub(super) status: CartStatus,
    /// In the order in which they were added; each SKU once.
    pub(super) lines: Vec<CartLine>,
    /// Check-outs so far.
    pub(super) attempts: u32,
}

impl Cart {
    /// Whose it is; none before it is opened.
    pub const fn owner(&self) -> Option<CustomerId> {
        self.owner
    }

    /// Where it is in its life.
    pub const fn status(&self) -> &CartStatus {
        &self.status
    }

    /// What is in it, or was when it was checked out.
    pub fn lines(&self) -> &[CartLine] {
        &self.lines
    }

    /// Check-outs so far.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The order of the check-out under way, if any.
    pub const fn checked_out_as(&self) -> Option<OrderId> {
        match self.status {
            CartStatus::CheckedOut { order_id, .. } => Some(order_id),
            CartStatus::Unopened | CartStatus::Open => None,
        }
    }

    /// The order that the next check-out of the cart of `owner` makes.
    pub fn next_order_id(&self, owner: CustomerId) -> OrderId {
        OrderId::for_checkout(CartId::for_owner(owner), self.attempts.saturating_add(1))
    }

    /// Whether merging `lines` in stays within [`MAX_LINES`] and [`MAX_QUANTITY`]. A merge that has begun never refuses or
    /// drops a line, so whoever begins one asks this first.
    pub fn has_room_for(&self, lines: &[CartLine]) -> bool {
        let _ = lines;
        todo!()
    }
}

pub(super) fn evolve(cart: &mut Cart, event: &CartEvent) {
    let _ = (cart, event);
    todo!()
}
