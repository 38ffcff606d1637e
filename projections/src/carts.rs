//! `carts`: each customer's one cart.

use event_schemas::{
    AggregateType, CartEvent, CartId, CartLine, CustomerId, Event, OrderId, RecordedEvent, Sku, Timestamp,
    Version,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::document::Document;
use crate::schema::CartLineSchema;
use crate::view::{DocId, FoldError, View};

/// The view. Documents are named by cart id, which is derived from the owner ([`CartId::for_owner`]).
#[derive(Debug)]
pub struct Carts;

/// What a cart's events add up to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CartPart {
    owner: CustomerId,
    lines: Vec<CartLine>,
    /// What was merged in while checked out: added on reopening or renewal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kept: Vec<CartLine>,
    /// The order of the check-out under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order_id: Option<OrderId>,
    updated_at: Timestamp,
}

/// Whether a cart takes items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CartStatus {
    Open,
    /// Its order is under way; nothing can be changed until that is paid or has failed.
    CheckedOut,
}

/// A cart as it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Cart)]
pub struct CartView {
    #[schema(value_type = String, format = Uuid)]
    pub cart_id: CartId,
    #[schema(value_type = String, format = Uuid)]
    pub owner: CustomerId,
    #[schema(value_type = u64)]
    pub version: Version,
    pub status: CartStatus,
    /// The order of the check-out under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Uuid)]
    pub order_id: Option<OrderId>,
    /// In the order in which they were first added.
    #[schema(value_type = Vec<CartLineSchema>)]
    pub lines: Vec<CartLine>,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

impl View for Carts {
    const NAME: &'static str = "carts";
    const VERSION: u32 = 1;
    const SOURCES: &'static [AggregateType] = &[AggregateType::Cart];

    type Part = CartPart;
    type Doc = CartView;

    fn route(event: &RecordedEvent) -> Option<DocId> {
        matches!(event.event, Event::Cart(_)).then(|| event.stream.aggregate_id.clone())
    }

    fn apply(part: Option<CartPart>, recorded: &RecordedEvent) -> Result<CartPart, FoldError> {
        let event_type = recorded.event.name();
        let Event::Cart(event) = &recorded.event else {
            return Err(FoldError::Misrouted {
                event_type,
                view: Self::NAME,
            });
        };
        let Some(mut part) = part else {
            let CartEvent::CartOpened { owner } = event else {
                return Err(FoldError::NotBegun { event_type });
            };
            return Ok(CartPart {
                owner: *owner,
                lines: Vec::new(),
                kept: Vec::new(),
                order_id: None,
                updated_at: recorded.recorded_at,
            });
        };
        part.updated_at = recorded.recorded_at;
        match event {
            CartEvent::CartOpened { owner } => part.owner = *owner,
            CartEvent::ItemAdded { sku, quantity } => add(&mut part.lines, sku, *quantity, event_type)?,
            CartEvent::ItemQuantityChanged { sku, quantity } => {
                let line = part.lines.iter_mut().find(|line| line.sku == *sku);
                line.ok_or_else(|| FoldError::Unknown {
                    event_type,
                    what: sku.to_string(),
                })?
                .quantity = *quantity;
            }
            CartEvent::ItemRemoved { sku } => part.lines.retain(|line| line.sku != *sku),
            CartEvent::CartCleared {} | CartEvent::CartMergedInto { .. } => part.lines.clear(),
            CartEvent::CartMerged { lines, .. } => {
                let into = if part.order_id.is_some() {
                    &mut part.kept
                } else {
                    &mut part.lines
                };
                merge(into, lines, event_type)?;
            }
            CartEvent::CartCheckedOut(check_out) => part.order_id = Some(check_out.order_id),
            CartEvent::CartReopened { .. } => {
                part.order_id = None;
                let kept = std::mem::take(&mut part.kept);
                merge(&mut part.lines, &kept, event_type)?;
            }
            CartEvent::CartRenewed { .. } => {
                part.order_id = None;
                part.lines = std::mem::take(&mut part.kept);
            }
        }
        Ok(part)
    }

    fn combine(id: &DocId, document: &Document<CartPart>) -> Option<CartView> {
        let source = document.source(AggregateType::Cart)?;
        let part = &source.part;
        Some(CartView {
            cart_id: id.as_str().parse().ok()?,
            owner: part.owner,
            version: source.version,
            status: if part.order_id.is_some() {
                CartStatus::CheckedOut
            } else {
                CartStatus::Open
            },
            order_id: part.order_id,
            lines: part.lines.clone(),
            updated_at: part.updated_at,
        })
    }
}

fn add(
    lines: &mut Vec<CartLine>,
    sku: &Sku,
    quantity: u32,
    event_type: &'static str,
) -> Result<(), FoldError> {
    match lines.iter_mut().find(|line| line.sku == *sku) {
        Some(line) => {
            line.quantity = line
                .quantity
                .checked_add(quantity)
                .ok_or(FoldError::OutOfRange { event_type })?;
        }
        None => lines.push(CartLine {
            sku: sku.clone(),
            quantity,
        }),
    }
    Ok(())
}

fn merge(into: &mut Vec<CartLine>, lines: &[CartLine], event_type: &'static str) -> Result<(), FoldError> {
    lines
        .iter()
        .try_for_each(|line| add(into, &line.sku, line.quantity, event_type))
}
