use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use event_schemas::{
    LineQuantity, Money, OrderEvent, OrderLine, OrderPlaced, PaymentId, RefundId, ReturnId, ShipmentId, Sku,
};
use serde::{Deserialize, Serialize};

use super::OrderError;

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
    /// What was asked for.
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

    /// What was paid and is not given back.
    pub(super) fn refundable(&self) -> Result<Money, OrderError> {
        let paid = self
            .paid
            .ok_or(OrderError::WrongStatus { status: self.status })?
            .amount;
        Ok(paid.checked_sub(Money::new(self.refunded(), paid.currency())?)?)
    }

    /// The line numbered `line_no`.
    pub fn line(&self, line_no: u32) -> Option<&OrderLine> {
        self.placed()?.lines.get(line_no.checked_sub(1)? as usize)
    }

    /// Units of a line that are left to ship.
    pub fn unshipped_of(&self, line_no: u32) -> Option<u32> {
        Some(
            self.line(line_no)?
                .quantity
                .saturating_sub(units(&self.shipped, line_no)),
        )
    }

    /// Units of a line that were shipped and have not come back.
    pub fn returnable_of(&self, line_no: u32) -> Option<u32> {
        self.line(line_no)?;
        Some(units(&self.shipped, line_no).saturating_sub(units(&self.returned, line_no)))
    }

    fn set_return(&mut self, return_id: ReturnId, status: ReturnStatus) {
        if let Some(of) = self.returns.get_mut(&return_id) {
            of.status = status;
        }
    }
}

fn units(by_line: &BTreeMap<u32, u32>, line_no: u32) -> u32 {
    by_line.get(&line_no).copied().unwrap_or(0)
}

fn add_units(by_line: &mut BTreeMap<u32, u32>, line_no: u32, quantity: u32) {
    let sum = by_line.entry(line_no).or_default();
    *sum = sum.saturating_add(quantity);
}

pub(super) fn evolve(order: &mut Order, event: &OrderEvent) {
    match event {
        OrderEvent::OrderPlaced(placed) => {
            let tracked = placed.lines.iter().filter(|line| line.tracked);
            order.pending = tracked.map(|line| line.sku.clone()).collect();
            order.unshipped = placed.lines.iter().map(|line| u64::from(line.quantity)).sum();
            order.placed = Some(Arc::new(OrderPlaced::clone(placed)));
            order.status = OrderStatus::Placed;
        }
        OrderEvent::LineReserved { sku } => {
            order.pending.remove(sku);
        }
        OrderEvent::OrderReserved {} => {}
        OrderEvent::PaymentRequired { .. } => order.status = OrderStatus::AwaitingPayment,
        OrderEvent::OrderPaid {
            payment_id,
            attempt,
            amount,
        } => {
            order.paid = Some(PaidBy {
                payment_id: *payment_id,
                attempt: *attempt,
                amount: *amount,
            });
            order.status = OrderStatus::Paid;
        }
        OrderEvent::OrderCancelled { .. } => order.status = OrderStatus::Cancelled,
        OrderEvent::ShipmentDispatched {
            shipment_id, lines, ..
        } => {
            for line in lines {
                add_units(&mut order.shipped, line.line_no, line.quantity);
                order.unshipped = order.unshipped.saturating_sub(u64::from(line.quantity));
            }
            order.shipments.insert(*shipment_id, false);
            order.status = if order.unshipped == 0 {
                OrderStatus::Shipped
            } else {
                OrderStatus::PartiallyShipped
            };
        }
        OrderEvent::ShipmentDelivered { shipment_id, .. } => {
            order.shipments.insert(*shipment_id, true);
            if order.status == OrderStatus::Shipped && order.shipments.values().all(|delivered| *delivered) {
                order.status = OrderStatus::Delivered;
            }
        }
        OrderEvent::OrderCompleted {} => order.status = OrderStatus::Completed,
        OrderEvent::ReturnRequested { return_id, lines, .. } => {
            order.returns.insert(
                *return_id,
                Return {
                    status: ReturnStatus::Requested,
                    lines: lines.clone(),
                },
            );
            order.status = OrderStatus::ReturnRequested;
        }
        OrderEvent::ReturnApproved { return_id } => order.set_return(*return_id, ReturnStatus::Approved),
        OrderEvent::ReturnRejected { return_id, .. } => {
            order.set_return(*return_id, ReturnStatus::Rejected);
            order.status = OrderStatus::Delivered;
        }
        OrderEvent::ReturnReceived { return_id, lines, .. } => {
            for line in lines {
                add_units(&mut order.returned, line.line_no, line.quantity);
            }
            order.set_return(*return_id, ReturnStatus::Received);
            order.status = OrderStatus::Returned;
        }
        OrderEvent::RefundRecorded {
            refund_id, amount, ..
        } => {
            order.refunds.insert(*refund_id, *amount);
        }
    }
}
