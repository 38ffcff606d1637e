//! `order_timeline`: every event of an order, its payment and its stock lines, with actor, command, cause and what it changed.

mod change;
mod figures;

use std::sync::Arc;

use event_schemas::{
    ActorKind, AggregateType, CustomerId, Event, InventoryEvent, OrderEvent, OrderId, Position,
    RecordedEvent, StreamId, Timestamp, Version,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use figures::{Change, Figure, Value};
use figures::{Standing, StoredChange};

use crate::document::Document;
use crate::schema::ActorKindSchema;
use crate::view::{DocId, FoldError, View};

/// The view. Documents are named by order id.
#[derive(Debug)]
pub struct OrderTimeline;

/// What one aggregate contributes to an order's story.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TimelinePart {
    /// Whose order it is: known to the order's own part.
    #[serde(default, rename = "c", skip_serializing_if = "Option::is_none")]
    customer: Option<CustomerId>,
    /// How the aggregate's figures stand after the last entry.
    #[serde(default, rename = "s", skip_serializing_if = "Standing::is_empty")]
    standing: Standing,
    #[serde(rename = "e")]
    entries: Vec<StoredEntry>,
}

/// An entry as stored. Short names: there are more of these than of anything else in the read models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredEntry {
    #[serde(rename = "v")]
    version: Version,
    #[serde(rename = "p")]
    position: Position,
    #[serde(rename = "t")]
    event_type: Arc<str>,
    #[serde(rename = "at")]
    at: Timestamp,
    #[serde(rename = "k")]
    actor_kind: ActorKind,
    #[serde(rename = "a")]
    actor_id: Arc<str>,
    #[serde(rename = "c")]
    command: Arc<str>,
    #[serde(default, rename = "b", skip_serializing_if = "Option::is_none")]
    caused_by: Option<Arc<str>>,
    #[serde(rename = "w")]
    change: String,
    #[serde(default, rename = "d", skip_serializing_if = "Vec::is_empty")]
    changes: Vec<StoredChange>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TimelineEntry {
    /// `<type>/<id>/<sequence>`.
    pub event_id: String,
    /// Such as `StockReserved`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub event_type: Arc<str>,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    #[schema(value_type = ActorKindSchema)]
    pub actor_kind: ActorKind,
    /// Absent where the reader may not know who it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub actor_id: Option<Arc<str>>,
    /// Such as `Reserve`.
    #[schema(value_type = String)]
    pub command: Arc<str>,
    /// The `event_id` of what caused the command; absent for a command of a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub caused_by: Option<Arc<str>>,
    /// What happened, in a line.
    pub change: String,
    /// What it changed of the aggregate that `event_id` names, figure by figure.
    pub changes: Vec<Change>,
}

/// An order's story, in the order in which the log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Timeline)]
pub struct TimelineView {
    #[schema(value_type = String, format = Uuid)]
    pub order_id: OrderId,
    /// Whose order it is.
    #[serde(skip)]
    #[schema(ignore)]
    pub customer_id: CustomerId,
    pub entries: Vec<TimelineEntry>,
}

impl TimelineView {
    /// The story as its customer may read it: others appear by their role only.
    #[must_use]
    pub fn for_customer(&self) -> Self {
        let own = self.customer_id.to_string();
        let mut view = self.clone();
        for entry in &mut view.entries {
            let theirs = match entry.actor_kind {
                ActorKind::Guest | ActorKind::Customer => entry.actor_id.as_deref() == Some(own.as_str()),
                ActorKind::System | ActorKind::Provider => true,
                ActorKind::Staff | ActorKind::Admin => false,
            };
            if !theirs {
                entry.actor_id = None;
            }
        }
        view
    }
}

impl View for OrderTimeline {
    const NAME: &'static str = "order_timeline";
    const VERSION: u32 = 2;
    const SOURCES: &'static [AggregateType] = &[
        AggregateType::Order,
        AggregateType::Payment,
        AggregateType::Inventory,
    ];

    type Part = TimelinePart;
    type Doc = TimelineView;

    fn route(event: &RecordedEvent) -> Option<DocId> {
        match &event.event {
            Event::Order(_) => Some(event.stream.aggregate_id.clone()),
            Event::Payment(event) => Some(event.order_id().into()),
            Event::Inventory(event) => order_of(event).map(Into::into),
            Event::Product(_) | Event::Cart(_) => None,
        }
    }

    fn apply(part: Option<TimelinePart>, recorded: &RecordedEvent) -> Result<TimelinePart, FoldError> {
        let mut part = part.unwrap_or_default();
        if let Event::Order(OrderEvent::OrderPlaced(placed)) = &recorded.event {
            part.customer = Some(placed.customer);
        }
        let changes = part.standing.apply(&recorded.event);
        let metadata = &recorded.metadata;
        part.entries.push(StoredEntry {
            version: recorded.version,
            position: recorded.position,
            event_type: recorded.event.name().into(),
            at: recorded.recorded_at,
            actor_kind: metadata.actor_kind,
            actor_id: metadata.actor_id.clone(),
            command: metadata.command.clone(),
            caused_by: metadata.causation_id.clone(),
            change: change::line(&recorded.stream, &recorded.event),
            changes,
        });
        Ok(part)
    }

    fn combine(id: &DocId, document: &Document<TimelinePart>) -> Option<TimelineView> {
        let customer_id = document.source(AggregateType::Order)?.part.customer?;
        let mut entries: Vec<(&StreamId, &StoredEntry)> = document
            .sources()
            .iter()
            .flat_map(|source| source.part.entries.iter().map(|entry| (&source.stream, entry)))
            .collect();
        // For display alone: cause stands before effect. Nothing is decided by the order of two aggregates' events.
        entries.sort_by_key(|(_, entry)| entry.position);
        Some(TimelineView {
            order_id: id.as_str().parse().ok()?,
            customer_id,
            entries: entries
                .into_iter()
                .map(|(stream, entry)| entry.view(stream))
                .collect(),
        })
    }
}

impl StoredEntry {
    fn view(&self, stream: &StreamId) -> TimelineEntry {
        TimelineEntry {
            event_id: format!("{stream}/{}", self.version),
            event_type: self.event_type.clone(),
            at: self.at,
            actor_kind: self.actor_kind,
            actor_id: Some(self.actor_id.clone()),
            command: self.command.clone(),
            caused_by: self.caused_by.clone(),
            change: self.change.clone(),
            changes: self.changes.iter().map(StoredChange::view).collect(),
        }
    }
}

/// The order that a stock event is about, if any.
const fn order_of(event: &InventoryEvent) -> Option<OrderId> {
    match event {
        InventoryEvent::StockReserved { order_id, .. }
        | InventoryEvent::ReservationRejected { order_id, .. }
        | InventoryEvent::ReservationReleased { order_id, .. }
        | InventoryEvent::ReservationCommitted { order_id, .. }
        | InventoryEvent::StockReturned { order_id, .. } => Some(*order_id),
        InventoryEvent::SkuAssigned { .. }
        | InventoryEvent::StockReceived { .. }
        | InventoryEvent::StockAdjusted { .. }
        | InventoryEvent::BackorderLimitSet { .. } => None,
    }
}
