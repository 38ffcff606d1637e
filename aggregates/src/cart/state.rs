use event_schemas::{CartEvent, CartId, CartLine, CustomerId, OrderId, Sku};
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
        let mut merged = self.lines.clone();
        if let CartStatus::CheckedOut { kept, .. } = &self.status {
            add(&mut merged, kept);
        }
        add(&mut merged, lines);
        merged.len() <= MAX_LINES && merged.iter().all(|line| line.quantity <= MAX_QUANTITY)
    }

    pub(super) fn quantity_of(&self, sku: &Sku) -> Option<u32> {
        self.lines
            .iter()
            .find(|line| line.sku == *sku)
            .map(|line| line.quantity)
    }
}

/// Sums quantities by SKU; new SKUs come last.
fn add(lines: &mut Vec<CartLine>, more: &[CartLine]) {
    for line in more {
        match lines.iter_mut().find(|present| present.sku == line.sku) {
            Some(present) => present.quantity = present.quantity.saturating_add(line.quantity),
            None => lines.push(line.clone()),
        }
    }
}

pub(super) fn evolve(cart: &mut Cart, event: &CartEvent) {
    match event {
        CartEvent::CartOpened { owner } => {
            cart.owner = Some(*owner);
            cart.status = CartStatus::Open;
        }
        CartEvent::ItemAdded { sku, quantity } => {
            add(
                &mut cart.lines,
                &[CartLine {
                    sku: sku.clone(),
                    quantity: *quantity,
                }],
            );
        }
        CartEvent::ItemQuantityChanged { sku, quantity } => {
            if let Some(line) = cart.lines.iter_mut().find(|line| line.sku == *sku) {
                line.quantity = *quantity;
            }
        }
        CartEvent::ItemRemoved { sku } => cart.lines.retain(|line| line.sku != *sku),
        CartEvent::CartCleared {} | CartEvent::CartMergedInto { .. } => cart.lines.clear(),
        CartEvent::CartMerged { lines, .. } => match &mut cart.status {
            CartStatus::CheckedOut { kept, .. } => add(kept, lines),
            CartStatus::Unopened | CartStatus::Open => add(&mut cart.lines, lines),
        },
        CartEvent::CartCheckedOut(checked_out) => {
            cart.attempts = checked_out.attempt;
            cart.status = CartStatus::CheckedOut {
                order_id: checked_out.order_id,
                kept: Vec::new(),
            };
        }
        CartEvent::CartReopened { .. } => add_kept(cart),
        CartEvent::CartRenewed { .. } => {
            cart.lines.clear();
            add_kept(cart);
        }
    }
}

/// Opens the cart again, with what came in while it was checked out.
fn add_kept(cart: &mut Cart) {
    if let CartStatus::CheckedOut { kept, .. } = std::mem::replace(&mut cart.status, CartStatus::Open) {
        add(&mut cart.lines, &kept);
    }
}
