//! `orders`: the order with its lines, its payment in short, shipments and returns; listed per customer and for staff.

mod as_of;
mod filter;
mod part;

use event_schemas::{
    ActorKind, AggregateType, CancelReason, CartId, Code, CountryCode, CustomerId, Event, LineQuantity,
    Money, OrderId, OrderStage, ProductId, RecordedEvent, Reference, RefundId, ReturnId, ShipmentId,
    ShippingCharge, Sku, Tax, Timestamp, Totals, Version,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use as_of::{HistoryError, OrderAsOf, OrderHistory, PastOrder};
pub use filter::OrderFilter;
pub use part::{OrderPart, OrderState};

use crate::document::Document;
use crate::payments::{PaymentPart, PaymentStatus, PaymentSummary};
use crate::query::{Key, KeyValue};
use crate::schema::{
    ActorKindSchema, CancelReasonSchema, LineQuantitySchema, MoneySchema, ShippingSchema, TaxSchema,
    TotalsSchema,
};
use crate::view::{DocId, FoldError, View};

/// The view. Documents are named by order id.
#[derive(Debug)]
pub struct Orders;

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OrderStatus {
    Placed,
    AwaitingPayment,
    Paid,
    PartiallyShipped,
    Shipped,
    Delivered,
    Completed,
    Cancelled,
    ReturnRequested,
    Returned,
}

impl OrderStatus {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Placed,
        Self::AwaitingPayment,
        Self::Paid,
        Self::PartiallyShipped,
        Self::Shipped,
        Self::Delivered,
        Self::Completed,
        Self::Cancelled,
        Self::ReturnRequested,
        Self::Returned,
    ];

    /// The name in filters and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::AwaitingPayment => "awaiting-payment",
            Self::Paid => "paid",
            Self::PartiallyShipped => "partially-shipped",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::ReturnRequested => "return-requested",
            Self::Returned => "returned",
        }
    }

    /// The status of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = OrderLine)]
pub struct LineView {
    /// From 1; shipments and returns name it.
    pub line_no: u32,
    #[schema(value_type = String)]
    pub sku: Sku,
    #[schema(value_type = String, format = Uuid)]
    pub product_id: ProductId,
    pub title: String,
    #[schema(value_type = MoneySchema)]
    pub unit_price: Money,
    pub quantity: u32,
    /// Taken off the whole line.
    #[schema(value_type = MoneySchema)]
    pub discount: Money,
    #[schema(value_type = TaxSchema)]
    pub tax: Tax,
    /// Whether stock is reserved for it.
    pub tracked: bool,
    /// Units sent so far.
    pub shipped: u32,
    /// Units that came back so far.
    pub returned: u32,
}

/// One parcel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Shipment)]
pub struct ShipmentView {
    #[schema(value_type = String, format = Uuid)]
    pub shipment_id: ShipmentId,
    #[schema(value_type = Vec<LineQuantitySchema>)]
    pub lines: Vec<LineQuantity>,
    #[schema(value_type = String)]
    pub carrier: Code,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tracking_number: Option<Reference>,
    #[schema(value_type = String, format = DateTime)]
    pub dispatched_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub delivered_at: Option<Timestamp>,
}

/// How far a return has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReturnStatus {
    Requested,
    Approved,
    Rejected,
    Received,
}

/// Goods on their way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Return)]
pub struct ReturnView {
    #[schema(value_type = String, format = Uuid)]
    pub return_id: ReturnId,
    pub status: ReturnStatus,
    /// What the customer wants to send back; once received, what came.
    #[schema(value_type = Vec<LineQuantitySchema>)]
    pub lines: Vec<LineQuantity>,
    #[schema(value_type = String)]
    pub reason: Code,
    /// Why it was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub rejected: Option<Code>,
    /// What the customer gets back for it, once received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MoneySchema>)]
    pub refund: Option<Money>,
    #[schema(value_type = String, format = DateTime)]
    pub requested_at: Timestamp,
}

/// Money that went back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = OrderRefund)]
pub struct OrderRefundView {
    #[schema(value_type = String, format = Uuid)]
    pub refund_id: RefundId,
    #[schema(value_type = MoneySchema)]
    pub amount: Money,
    #[schema(value_type = String, format = DateTime)]
    pub recorded_at: Timestamp,
}

/// Why and when an order ended early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Cancellation)]
pub struct CancellationView {
    #[schema(value_type = CancelReasonSchema)]
    pub reason: CancelReason,
    #[schema(value_type = ActorKindSchema)]
    pub by: ActorKind,
    /// How far the order had come.
    #[schema(value_type = String)]
    pub stage: OrderStage,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// An order as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Order)]
pub struct OrderView {
    #[schema(value_type = String, format = Uuid)]
    pub order_id: OrderId,
    #[schema(value_type = u64)]
    pub version: Version,
    pub status: OrderStatus,
    #[schema(value_type = String, format = Uuid)]
    pub customer_id: CustomerId,
    #[schema(value_type = String)]
    pub country: CountryCode,
    pub lines: Vec<LineView>,
    #[schema(value_type = ShippingSchema)]
    pub shipping: ShippingCharge,
    #[schema(value_type = TotalsSchema)]
    pub totals: Totals,
    /// Once payment is required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment: Option<PaymentSummary>,
    /// What the order recorded as paid.
    #[schema(value_type = MoneySchema)]
    pub paid: Money,
    /// What the order recorded as paid back.
    #[schema(value_type = MoneySchema)]
    pub refunded: Money,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<CancellationView>,
    pub shipments: Vec<ShipmentView>,
    pub returns: Vec<ReturnView>,
    pub refunds: Vec<OrderRefundView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Uuid)]
    pub cart_id: Option<CartId>,
    /// When the sale took place.
    #[schema(value_type = String, format = DateTime)]
    pub occurred_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub placed_at: Timestamp,
    /// When it is cancelled if it has not been paid.
    #[schema(value_type = String, format = DateTime)]
    pub payment_deadline: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// An order as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct OrderSummary {
    #[schema(value_type = String, format = Uuid)]
    pub order_id: OrderId,
    #[schema(value_type = u64)]
    pub version: Version,
    pub status: OrderStatus,
    #[schema(value_type = String, format = Uuid)]
    pub customer_id: CustomerId,
    #[schema(value_type = String)]
    pub country: CountryCode,
    #[schema(value_type = MoneySchema)]
    pub total: Money,
    pub lines: usize,
    /// Over all lines.
    pub units: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_status: Option<PaymentStatus>,
    #[schema(value_type = String, format = DateTime)]
    pub occurred_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub placed_at: Timestamp,
}

impl OrderView {
    /// The order as lists show it.
    pub fn summary(&self) -> OrderSummary {
        OrderSummary {
            order_id: self.order_id,
            version: self.version,
            status: self.status,
            customer_id: self.customer_id,
            country: self.country.clone(),
            total: self.totals.total,
            lines: self.lines.len(),
            units: self.lines.iter().map(|line| u64::from(line.quantity)).sum(),
            payment_status: self.payment.as_ref().map(|payment| payment.status),
            occurred_at: self.occurred_at,
            placed_at: self.placed_at,
        }
    }
}

const CUSTOMER: &str = "customer";
const STATUS: &str = "status";
const OCCURRED_AT: &str = "occurred_at";

impl View for Orders {
    const NAME: &'static str = "orders";
    const VERSION: u32 = 1;
    const SOURCES: &'static [AggregateType] = &[AggregateType::Order, AggregateType::Payment];
    const KEYS: &'static [Key] = &[Key::text(CUSTOMER), Key::text(STATUS), Key::integer(OCCURRED_AT)];
    const INDEXES: &'static [&'static [&'static str]] =
        &[&[CUSTOMER, OCCURRED_AT], &[STATUS, OCCURRED_AT], &[OCCURRED_AT]];

    type Part = OrderPart;
    type Doc = OrderView;

    fn route(event: &RecordedEvent) -> Option<DocId> {
        match &event.event {
            Event::Order(_) => Some(event.stream.aggregate_id.clone()),
            Event::Payment(event) => Some(event.order_id().into()),
            Event::Product(_) | Event::Inventory(_) | Event::Cart(_) => None,
        }
    }

    fn apply(part: Option<OrderPart>, recorded: &RecordedEvent) -> Result<OrderPart, FoldError> {
        let event_type = recorded.event.name();
        let misrouted = FoldError::Misrouted {
            event_type,
            view: Self::NAME,
        };
        match (&recorded.event, part) {
            (Event::Order(event), None) => OrderState::begin(event, recorded.recorded_at),
            (Event::Order(event), Some(OrderPart::Order(mut state))) => {
                state.apply(event, recorded.recorded_at)?;
                return Ok(OrderPart::Order(state));
            }
            (Event::Payment(event), None) => return payment(None, event, recorded.recorded_at),
            (Event::Payment(event), Some(OrderPart::Payment(part))) => {
                return payment(Some(part), event, recorded.recorded_at);
            }
            _ => Err(misrouted),
        }
        .map(|state| OrderPart::Order(Box::new(state)))
    }

    fn combine(id: &DocId, document: &Document<OrderPart>) -> Option<OrderView> {
        let source = document.source(AggregateType::Order)?;
        let OrderPart::Order(state) = &source.part else {
            return None;
        };
        let paid_by = document
            .source(AggregateType::Payment)
            .and_then(|source| match &source.part {
                OrderPart::Payment(part) => part.summary(source.stream.aggregate_id.as_str().parse().ok()?),
                OrderPart::Order(_) => None,
            });
        Some(state.view(id.as_str().parse().ok()?, source.version, paid_by))
    }

    fn keys(document: &Document<OrderPart>) -> Option<Vec<KeyValue>> {
        let OrderPart::Order(state) = &document.source(AggregateType::Order)?.part else {
            return None;
        };
        Some(vec![
            state.customer.to_string().into(),
            state.status.as_str().into(),
            state.occurred_at.as_microsecond().into(),
        ])
    }
}

fn payment(
    part: Option<PaymentPart>,
    event: &event_schemas::PaymentEvent,
    at: Timestamp,
) -> Result<OrderPart, FoldError> {
    PaymentPart::apply(part, event, at).map(OrderPart::Payment)
}
