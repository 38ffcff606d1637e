use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use event_schemas::{
    LineQuantity, Money, OrderEvent, OrderPlaced, PaymentId, RefundId, ReturnId, ShipmentId, Sku,
};
use serde::{Deserialize, Serialize};

/// Where an order is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderStatus {
    /// Not placed yet.
    #[default]
    Absent,
    /// Waits for its reservations.
    Placed,
    AwaitingPayment,
    Paid,
    PartiallyShipped,
    Shipped,
    Delivered,
    Completed,
    /// Until it is rejected, or received.
    ReturnRequested,
    Returned,
    Cancelled,
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "absent",
            Self::Placed => "placed",
            Self::AwaitingPayment => "awaiting payment",
            Self::Paid => "paid",
            Self::PartiallyShipped => "partially shipped",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Completed => "completed",
            Self::ReturnRequested => "return requested",
            Self::Returned => "returned",
            Self::Cancelled => "cancelled",
        })
    }
}

/// What paid an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaidBy {
    pub payment_id: PaymentId,
    /// 0 for an order that cost nothing.
    pub attempt: u32,
    pub amount: Money,
}

/// How far a return has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReturnStatus {
    Requested,
    Approved,
    Rejected,
    Received,
}

/// One return of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    pub status: ReturnStatus,
    /// What was asked for, in ascending order of `line_no`.
    pub lines: Vec<LineQuantity>,
}

/// An order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub(super) status: OrderStatus,
    /// The agreement; shared, since a large order is copied around by those who follow it.
    pub(super) placed: Option<Arc<OrderPlaced>>,
    /// Tracked SKUs that are not reserved yet.
    pub(super) pending: BTreeSet<Sku>,
    pub(super) paid: Option<PaidBy>,
    /// Units by `line_no`; lines without any are left out, here and below.
    pub(super) shipped: BTreeMap<u32, u32>,
    pub(super) returned: BTreeMap<u32, u32>,
    /// Units of all lines that have not been shipped.
    pub(super) unshipped: u64,
    /// Whether each shipment was delivered.
    pub(super) shipments: BTreeMap<ShipmentId, bool>,
    pub(super) returns: BTreeMap<ReturnId, Return>,
    /// The sum of what received returns promise to give back, in minor units.
    pub(super) refunds_promised: i64,
    pub(super) refunds: BTreeMap<RefundId, Money>,
}

impl Order {
    /// Where it is in its life.
    pub const fn status(&self) -> OrderStatus {
        self.status
    }

    /// The order as it was agreed; none before it is placed.
    pub fn placed(&self) -> Option<&OrderPlaced> {
        self.placed.as_deref()
    }

    /// Tracked SKUs that are not reserved yet.
    pub const fn pending(&self) -> &BTreeSet<Sku> {
        &self.pending
    }

    /// What paid it, kept for good once paid.
    pub const fn paid(&self) -> Option<&PaidBy> {
        self.paid.as_ref()
    }

    /// Its returns.
    pub const fn returns(&self) -> &BTreeMap<ReturnId, Return> {
        &self.returns
    }

    /// What was given back, in minor units of the order's currency.
    pub fn refunded(&self) -> i64 {
        self.refunds.values().map(|amount| amount.amount()).sum()
    }
}

pub(super) fn evolve(order: &mut Order, event: &OrderEvent) {
    let _ = (order, event);
    todo!()
}
