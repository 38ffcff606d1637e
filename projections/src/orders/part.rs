//! The fold of an order's own events.

use event_schemas::{
    CartId, CountryCode, CustomerId, LineQuantity, Money, OrderEvent, OrderId, OrderPlaced, PaymentId,
    ReturnId, ShippingCharge, Timestamp, Totals, Version,
};
use serde::{Deserialize, Serialize};

use super::{
    CancellationView, LineView, OrderRefundView, OrderStatus, OrderView, ReturnStatus, ReturnView,
    ShipmentView,
};
use crate::payments::{PaymentPart, PaymentStatus, PaymentSummary, in_range};
use crate::view::FoldError;

/// What one aggregate contributes to an order's document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderPart {
    Order(Box<OrderState>),
    Payment(PaymentPart),
}

/// What an order's own events add up to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderState {
    pub(super) customer: CustomerId,
    pub(super) status: OrderStatus,
    country: CountryCode,
    lines: Vec<LineView>,
    shipping: ShippingCharge,
    totals: Totals,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payment_id: Option<PaymentId>,
    paid: Money,
    refunded: Money,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cancelled: Option<CancellationView>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shipments: Vec<ShipmentView>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    returns: Vec<ReturnView>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refunds: Vec<OrderRefundView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cart_id: Option<CartId>,
    pub(super) occurred_at: Timestamp,
    placed_at: Timestamp,
    payment_deadline: Timestamp,
    updated_at: Timestamp,
}

impl OrderState {
    pub(super) fn begin(event: &OrderEvent, at: Timestamp) -> Result<Self, FoldError> {
        let OrderEvent::OrderPlaced(placed) = event else {
            return Err(FoldError::NotBegun {
                event_type: event.name(),
            });
        };
        Ok(Self::placed(placed, at))
    }

    fn placed(placed: &OrderPlaced, at: Timestamp) -> Self {
        let zero = Money::zero(placed.totals.total.currency());
        let lines = placed.lines.iter().map(|line| LineView {
            line_no: line.line_no,
            sku: line.sku.clone(),
            product_id: line.product_id,
            title: line.title.clone(),
            unit_price: line.unit_price,
            quantity: line.quantity,
            discount: line.discount,
            tax: line.tax.clone(),
            tracked: line.tracked,
            shipped: 0,
            returned: 0,
        });
        Self {
            customer: placed.customer,
            status: OrderStatus::Placed,
            country: placed.country.clone(),
            lines: lines.collect(),
            shipping: placed.shipping.clone(),
            totals: placed.totals.clone(),
            payment_id: None,
            paid: zero,
            refunded: zero,
            cancelled: None,
            shipments: Vec::new(),
            returns: Vec::new(),
            refunds: Vec::new(),
            cart_id: placed.cart_id,
            occurred_at: placed.occurred_at,
            placed_at: at,
            payment_deadline: placed.payment_deadline,
            updated_at: at,
        }
    }

    #[expect(clippy::too_many_lines, reason = "an arm per event")]
    pub(super) fn apply(&mut self, event: &OrderEvent, at: Timestamp) -> Result<(), FoldError> {
        let event_type = event.name();
        self.updated_at = at;
        match event {
            OrderEvent::OrderPlaced(placed) => *self = Self::placed(placed, at),
            OrderEvent::LineReserved { .. } | OrderEvent::OrderReserved {} => {}
            OrderEvent::PaymentRequired { payment_id, .. } => {
                self.payment_id = Some(*payment_id);
                self.status = OrderStatus::AwaitingPayment;
            }
            OrderEvent::OrderPaid {
                payment_id, amount, ..
            } => {
                self.payment_id = Some(*payment_id);
                self.paid = in_range(self.paid.checked_add(*amount), event_type)?;
                self.status = OrderStatus::Paid;
            }
            OrderEvent::OrderCancelled { reason, by, stage } => {
                self.cancelled = Some(CancellationView {
                    reason: reason.clone(),
                    by: *by,
                    stage: *stage,
                    at,
                });
                self.status = OrderStatus::Cancelled;
            }
            OrderEvent::ShipmentDispatched {
                shipment_id,
                lines,
                carrier,
                tracking_number,
            } => {
                for LineQuantity { line_no, quantity } in lines {
                    let line = self.line(*line_no, event_type)?;
                    line.shipped = line
                        .shipped
                        .checked_add(*quantity)
                        .ok_or(FoldError::OutOfRange { event_type })?;
                }
                self.shipments.push(ShipmentView {
                    shipment_id: *shipment_id,
                    lines: lines.clone(),
                    carrier: carrier.clone(),
                    tracking_number: tracking_number.clone(),
                    dispatched_at: at,
                    delivered_at: None,
                });
                let complete = self.lines.iter().all(|line| line.shipped >= line.quantity);
                self.status = if complete {
                    OrderStatus::Shipped
                } else {
                    OrderStatus::PartiallyShipped
                };
            }
            OrderEvent::ShipmentDelivered {
                shipment_id,
                delivered_at,
            } => {
                let shipment = self
                    .shipments
                    .iter_mut()
                    .find(|shipment| shipment.shipment_id == *shipment_id);
                shipment
                    .ok_or_else(|| unknown(event_type, "shipment", shipment_id))?
                    .delivered_at = Some(*delivered_at);
                if self.status == OrderStatus::Shipped
                    && self
                        .shipments
                        .iter()
                        .all(|shipment| shipment.delivered_at.is_some())
                {
                    self.status = OrderStatus::Delivered;
                }
            }
            OrderEvent::OrderCompleted {} => self.status = OrderStatus::Completed,
            OrderEvent::ReturnRequested {
                return_id,
                lines,
                reason,
                ..
            } => {
                self.returns.push(ReturnView {
                    return_id: *return_id,
                    status: ReturnStatus::Requested,
                    lines: lines.clone(),
                    reason: reason.clone(),
                    rejected: None,
                    refund: None,
                    requested_at: at,
                });
                self.status = OrderStatus::ReturnRequested;
            }
            OrderEvent::ReturnApproved { return_id } => {
                self.returned(*return_id, event_type)?.status = ReturnStatus::Approved;
            }
            OrderEvent::ReturnRejected { return_id, reason } => {
                let returned = self.returned(*return_id, event_type)?;
                returned.status = ReturnStatus::Rejected;
                returned.rejected = Some(reason.clone());
                self.status = OrderStatus::Delivered;
            }
            OrderEvent::ReturnReceived {
                return_id,
                lines,
                refund,
            } => {
                for received in lines {
                    let line = self.line(received.line_no, event_type)?;
                    line.returned = line
                        .returned
                        .checked_add(received.quantity)
                        .ok_or(FoldError::OutOfRange { event_type })?;
                }
                let returned = self.returned(*return_id, event_type)?;
                returned.status = ReturnStatus::Received;
                returned.refund = Some(*refund);
                returned.lines = lines
                    .iter()
                    .map(|line| LineQuantity {
                        line_no: line.line_no,
                        quantity: line.quantity,
                    })
                    .collect();
                self.status = OrderStatus::Returned;
            }
            OrderEvent::RefundRecorded {
                refund_id, amount, ..
            } => {
                self.refunded = in_range(self.refunded.checked_add(*amount), event_type)?;
                self.refunds.push(OrderRefundView {
                    refund_id: *refund_id,
                    amount: *amount,
                    recorded_at: at,
                });
            }
        }
        Ok(())
    }

    pub(super) fn view(
        &self,
        order_id: OrderId,
        version: Version,
        payment: Option<PaymentSummary>,
    ) -> OrderView {
        // The payment's first event may not have been seen yet; the order knows already that there is one.
        let required = || {
            let payment_id = self.payment_id?;
            let amount = self.totals.total;
            let status = PaymentStatus::Requested;
            // An order that cost nothing was paid without a payment.
            (!amount.is_zero()).then_some(PaymentSummary {
                payment_id,
                status,
                attempt: 0,
                amount,
                declined: None,
                checkout_ref: None,
            })
        };
        let state = self.clone();
        OrderView {
            order_id,
            version,
            status: state.status,
            customer_id: state.customer,
            country: state.country,
            lines: state.lines,
            shipping: state.shipping,
            totals: state.totals,
            payment: payment.or_else(required),
            paid: state.paid,
            refunded: state.refunded,
            cancelled: state.cancelled,
            shipments: state.shipments,
            returns: state.returns,
            refunds: state.refunds,
            cart_id: state.cart_id,
            occurred_at: state.occurred_at,
            placed_at: state.placed_at,
            payment_deadline: state.payment_deadline,
            updated_at: state.updated_at,
        }
    }

    fn line(&mut self, line_no: u32, event_type: &'static str) -> Result<&mut LineView, FoldError> {
        let line = self.lines.iter_mut().find(|line| line.line_no == line_no);
        line.ok_or_else(|| unknown(event_type, "line", &line_no))
    }

    fn returned(&mut self, id: ReturnId, event_type: &'static str) -> Result<&mut ReturnView, FoldError> {
        let found = self.returns.iter_mut().find(|returned| returned.return_id == id);
        found.ok_or_else(|| unknown(event_type, "return", &id))
    }
}

fn unknown(event_type: &'static str, kind: &str, id: &dyn std::fmt::Display) -> FoldError {
    FoldError::Unknown {
        event_type,
        what: format!("{kind} {id}"),
    }
}
