//! Events of an order: from the moment it is placed to its completion or return. The order is its own saga log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::envelope::ActorKind;
use crate::event::event_names;
use crate::ids::{CartId, CustomerId, OrderId, PaymentId, ProductId, RefundId, ReturnId, ShipmentId};
use crate::inventory::ReturnCondition;
use crate::money::Money;
use crate::payment::PaymentMethod;
use crate::sealed::Sealed;
use crate::time::Timestamp;
use crate::values::{Code, CountryCode, Reference, Sku};

/// Tax on a line or on shipping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tax {
    /// The tax class, such as `standard`; `none` where there is none.
    pub code: Code,
    /// Millionths: 200 000 is 20 %.
    pub rate_ppm: u32,
    pub amount: Money,
    /// Whether the price already contains `amount`.
    pub included: bool,
}

/// One line as it was agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderLine {
    /// From 1; shipments and returns name it, since one SKU may stand on two lines at two prices.
    pub line_no: u32,
    pub sku: Sku,
    pub product_id: ProductId,
    pub title: String,
    pub unit_price: Money,
    pub quantity: u32,
    /// Taken off the whole line.
    pub discount: Money,
    pub tax: Tax,
    /// Whether stock is reserved for it.
    pub tracked: bool,
}

/// What shipping costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShippingCharge {
    pub price: Money,
    pub discount: Money,
    pub tax: Tax,
}

/// The sums of an order: `total = items + shipping − discount + tax_added`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Σ unit price · quantity.
    pub items: Money,
    /// Before its discount.
    pub shipping: Money,
    /// Of lines and shipping.
    pub discount: Money,
    /// Tax that prices already contain.
    pub tax_included: Money,
    /// Tax that comes on top.
    pub tax_added: Money,
    pub total: Money,
}

/// An order as it was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderPlaced {
    pub order_id: OrderId,
    pub customer: CustomerId,
    pub lines: Vec<OrderLine>,
    pub shipping: ShippingCharge,
    pub totals: Totals,
    pub country: CountryCode,
    /// The cart it came from, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cart_id: Option<CartId>,
    pub payment: PaymentMethod,
    /// When the sale took place (reports use it); usually when it was recorded.
    #[schemars(with = "crate::schemas::Time")]
    pub occurred_at: Timestamp,
    /// When it is cancelled if it has not been paid.
    #[schemars(with = "crate::schemas::Time")]
    pub payment_deadline: Timestamp,
}

/// Why an order was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CancelReason {
    OutOfStock {
        sku: Sku,
        available: u64,
    },
    PaymentTimeout,
    CustomerRequest,
    /// Staff decided, for a reason of theirs.
    Staff {
        code: Code,
    },
}

/// How far an order had come when it was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OrderStage {
    Placed,
    AwaitingPayment,
    Paid,
}

/// So many units of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LineQuantity {
    pub line_no: u32,
    pub quantity: u32,
}

/// So many units of a line that came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReturnedLine {
    pub line_no: u32,
    pub quantity: u32,
    pub condition: ReturnCondition,
}

/// What can have happened to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OrderEvent {
    OrderPlaced(Box<OrderPlaced>),
    /// All units of this SKU are reserved.
    LineReserved {
        sku: Sku,
    },
    /// Every tracked SKU is reserved.
    OrderReserved {},
    PaymentRequired {
        payment_id: PaymentId,
        amount: Money,
        method: PaymentMethod,
    },
    OrderPaid {
        payment_id: PaymentId,
        /// The payment attempt that paid; 0 for an order that cost nothing.
        attempt: u32,
        amount: Money,
    },
    OrderCancelled {
        reason: CancelReason,
        by: ActorKind,
        stage: OrderStage,
    },
    ShipmentDispatched {
        shipment_id: ShipmentId,
        lines: Vec<LineQuantity>,
        carrier: Code,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tracking_number: Option<Reference>,
    },
    ShipmentDelivered {
        shipment_id: ShipmentId,
        #[schemars(with = "crate::schemas::Time")]
        delivered_at: Timestamp,
    },
    OrderCompleted {},
    ReturnRequested {
        return_id: ReturnId,
        lines: Vec<LineQuantity>,
        reason: Code,
        /// What the customer wrote.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<Sealed>,
    },
    ReturnApproved {
        return_id: ReturnId,
    },
    ReturnRejected {
        return_id: ReturnId,
        reason: Code,
    },
    ReturnReceived {
        return_id: ReturnId,
        lines: Vec<ReturnedLine>,
        /// What the customer gets back for it.
        refund: Money,
    },
    RefundRecorded {
        payment_id: PaymentId,
        attempt: u32,
        refund_id: RefundId,
        amount: Money,
    },
}

event_names!(OrderEvent, Order;
    OrderPlaced = "1.0", LineReserved = "1.0", OrderReserved = "1.0", PaymentRequired = "1.0", OrderPaid = "1.0",
    OrderCancelled = "1.0", ShipmentDispatched = "1.0", ShipmentDelivered = "1.0", OrderCompleted = "1.0",
    ReturnRequested = "1.0", ReturnApproved = "1.0", ReturnRejected = "1.0", ReturnReceived = "1.0",
    RefundRecorded = "1.0");
