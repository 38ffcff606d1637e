use event_schemas::{
    ActorKind, CancelReason, Code, LineQuantity, Money, OrderPlaced, PaymentId, Reference, RefundId,
    ReturnId, ReturnedLine, Sealed, ShipmentId, Sku, Timestamp,
};
use serde::{Deserialize, Serialize};

/// What can be asked of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderCommand {
    /// The same order again is a no-op.
    Place(Box<OrderPlaced>),
    /// All units of this SKU are reserved. The last one makes the order reserved and requires its payment.
    /// Refused with [`Cancelled`](super::OrderError::Cancelled) once cancelled: the reservation has to be released.
    RecordLineReserved {
        sku: Sku,
    },
    /// For an order without tracked lines: there is nothing to reserve. A no-op once cancelled.
    RecordReserved,
    /// Refused with [`Cancelled`](super::OrderError::Cancelled) or
    /// [`PaidByAnotherAttempt`](super::OrderError::PaidByAnotherAttempt): the money has to be refunded.
    MarkPaid {
        payment_id: PaymentId,
        /// The payment attempt that captured; 0 for an order that costs nothing.
        attempt: u32,
        amount: Money,
    },
    /// A no-op once cancelled; also a payment timeout once paid, and a lack of stock once all of it is reserved.
    Cancel {
        reason: CancelReason,
        by: ActorKind,
    },
    Dispatch {
        shipment_id: ShipmentId,
        lines: Vec<LineQuantity>,
        carrier: Code,
        tracking_number: Option<Reference>,
    },
    RecordDelivered {
        shipment_id: ShipmentId,
        delivered_at: Timestamp,
    },
    /// Refused with [`ReturnOpen`](super::OrderError::ReturnOpen) while a return is under way.
    Complete,
    RequestReturn {
        return_id: ReturnId,
        lines: Vec<LineQuantity>,
        reason: Code,
        /// What the customer wrote.
        note: Option<Sealed>,
    },
    ApproveReturn {
        return_id: ReturnId,
    },
    RejectReturn {
        return_id: ReturnId,
        reason: Code,
    },
    ReceiveReturn {
        return_id: ReturnId,
        /// What came back: at most what was requested. One line may stand twice, in two conditions.
        lines: Vec<ReturnedLine>,
        /// What the customer gets back for it: at most what was paid and is not given back yet.
        refund: Money,
    },
    /// A refund of the attempt that paid this order went through; of any other attempt it is a no-op.
    RecordRefund {
        payment_id: PaymentId,
        attempt: u32,
        refund_id: RefundId,
        amount: Money,
    },
}

impl OrderCommand {
    /// The command's name, such as `Place`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Place(_) => "Place",
            Self::RecordLineReserved { .. } => "RecordLineReserved",
            Self::RecordReserved => "RecordReserved",
            Self::MarkPaid { .. } => "MarkPaid",
            Self::Cancel { .. } => "Cancel",
            Self::Dispatch { .. } => "Dispatch",
            Self::RecordDelivered { .. } => "RecordDelivered",
            Self::Complete => "Complete",
            Self::RequestReturn { .. } => "RequestReturn",
            Self::ApproveReturn { .. } => "ApproveReturn",
            Self::RejectReturn { .. } => "RejectReturn",
            Self::ReceiveReturn { .. } => "ReceiveReturn",
            Self::RecordRefund { .. } => "RecordRefund",
        }
    }
}
