//! `stock`: one SKU's stock, for staff and for the availability of products.
//!
//! The document holds sums only: a hot SKU's document stays small however many orders reserve it, because events
//! carry the quantities.

use event_schemas::{
    AggregateType, Event, InventoryEvent, ProductId, RecordedEvent, ReturnCondition, Sku, Timestamp, Version,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::document::Document;
use crate::view::{DocId, FoldError, View};

/// The view. Documents are named by SKU.
#[derive(Debug)]
pub struct Stock;

/// What a stock item's events add up to. Units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockPart {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    product_id: Option<ProductId>,
    on_hand: i64,
    reserved: i64,
    backorder_limit: u32,
    updated_at: Timestamp,
}

/// A SKU's stock as it is read. Units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Stock)]
pub struct StockView {
    #[schema(value_type = String)]
    pub sku: Sku,
    #[schema(value_type = u64)]
    pub version: Version,
    /// Whose variant the SKU is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Uuid)]
    pub product_id: Option<ProductId>,
    pub on_hand: i64,
    /// Promised to orders, not yet shipped.
    pub reserved: i64,
    /// What can still be promised: on hand, less reserved, plus the backorder limit.
    pub available: u64,
    /// How many units may be promised beyond what is on hand.
    pub backorder_limit: u32,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

impl View for Stock {
    const NAME: &'static str = "stock";
    const VERSION: u32 = 1;
    const SOURCES: &'static [AggregateType] = &[AggregateType::Inventory];

    type Part = StockPart;
    type Doc = StockView;

    fn route(event: &RecordedEvent) -> Option<DocId> {
        matches!(event.event, Event::Inventory(_)).then(|| event.stream.aggregate_id.clone())
    }

    fn apply(part: Option<StockPart>, recorded: &RecordedEvent) -> Result<StockPart, FoldError> {
        let event_type = recorded.event.name();
        let Event::Inventory(event) = &recorded.event else {
            return Err(FoldError::Misrouted {
                event_type,
                view: Self::NAME,
            });
        };
        let mut part = part.unwrap_or(StockPart {
            product_id: None,
            on_hand: 0,
            reserved: 0,
            backorder_limit: 0,
            updated_at: recorded.recorded_at,
        });
        part.updated_at = recorded.recorded_at;
        let (on_hand, reserved): (i64, i64) = match event {
            InventoryEvent::SkuAssigned { product_id } => {
                part.product_id = Some(*product_id);
                (0, 0)
            }
            InventoryEvent::StockReceived { quantity, .. } => (i64::from(*quantity), 0),
            InventoryEvent::StockAdjusted { delta, .. } => (*delta, 0),
            InventoryEvent::StockReserved { quantity, .. } => (0, i64::from(*quantity)),
            InventoryEvent::ReservationRejected { .. } => (0, 0),
            InventoryEvent::ReservationReleased { quantity, .. } => (0, -i64::from(*quantity)),
            InventoryEvent::ReservationCommitted { quantity, .. } => {
                (-i64::from(*quantity), -i64::from(*quantity))
            }
            InventoryEvent::StockReturned {
                quantity, condition, ..
            } => match condition {
                ReturnCondition::Resaleable => (i64::from(*quantity), 0),
                ReturnCondition::Damaged => (0, 0),
            },
            InventoryEvent::BackorderLimitSet { limit } => {
                part.backorder_limit = *limit;
                (0, 0)
            }
        };
        let out_of_range = FoldError::OutOfRange { event_type };
        part.on_hand = part
            .on_hand
            .checked_add(on_hand)
            .ok_or_else(|| out_of_range.clone())?;
        part.reserved = part
            .reserved
            .checked_add(reserved)
            .ok_or_else(|| out_of_range.clone())?;
        if part.reserved < 0 {
            return Err(out_of_range);
        }
        Ok(part)
    }

    fn combine(id: &DocId, document: &Document<StockPart>) -> Option<StockView> {
        let source = document.source(AggregateType::Inventory)?;
        let part = &source.part;
        let available = part
            .on_hand
            .saturating_sub(part.reserved)
            .saturating_add(i64::from(part.backorder_limit));
        Some(StockView {
            sku: id.as_str().parse().ok()?,
            version: source.version,
            product_id: part.product_id,
            on_hand: part.on_hand,
            reserved: part.reserved,
            available: u64::try_from(available).unwrap_or(0),
            backorder_limit: part.backorder_limit,
            updated_at: part.updated_at,
        })
    }
}
