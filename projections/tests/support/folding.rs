//! Folding one document, event by event.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use event_schemas::{ActorKind, AggregateType, Event, PaymentId, Position, RecordedEvent, StreamId, Version};
use projections::{DocId, Document, FoldError, View};

use crate::support::{metadata, order_id, sku, time};

/// A document that events are folded into one by one.
pub struct Folding<V: View> {
    pub id: DocId,
    pub document: Document<V::Part>,
    position: u64,
}

impl<V: View> Folding<V> {
    pub fn new(id: impl Into<DocId>) -> Self {
        Self {
            id: id.into(),
            document: Document::default(),
            position: 0,
        }
    }

    pub fn record(&mut self, stream: StreamId, by: ActorKind, event: Event) -> RecordedEvent {
        self.position += 1;
        let version = Version(self.document.version_of(&stream).0 + 1);
        RecordedEvent {
            position: Position(self.position),
            stream,
            version,
            event,
            metadata: metadata(by, "somebody"),
            recorded_at: time(self.position),
        }
    }

    pub fn then(&mut self, stream: StreamId, event: impl Into<Event>) -> V::Doc {
        self.by(ActorKind::System, stream, event)
    }

    pub fn by(&mut self, by: ActorKind, stream: StreamId, event: impl Into<Event>) -> V::Doc {
        let event = self.record(stream, by, event.into());
        assert_eq!(V::route(&event).as_ref(), Some(&self.id));
        assert_eq!(self.document.fold::<V>(&event), Ok(true));
        assert_eq!(self.document.fold::<V>(&event), Ok(false), "a repeat");
        self.read().unwrap()
    }

    pub fn read(&self) -> Option<V::Doc> {
        V::combine(&self.id, &self.document)
    }

    pub fn refused(&mut self, stream: StreamId, event: impl Into<Event>) -> FoldError {
        let event = self.record(stream, ActorKind::System, event.into());
        self.document.clone().fold::<V>(&event).unwrap_err()
    }
}

pub fn order() -> StreamId {
    StreamId::new(AggregateType::Order, order_id(1))
}

pub fn payment() -> StreamId {
    StreamId::new(AggregateType::Payment, PaymentId::for_order(order_id(1)))
}

pub fn stock() -> StreamId {
    StreamId::new(AggregateType::Inventory, &sku(1))
}
