//! What a read by position gives.

use std::sync::Arc;

use event_schemas::{AggregateId, Position, RecordedEvent, StreamId, Timestamp, Version};

/// One event of the log, in its place, readable or not: what cannot be read must not hide what can.
#[derive(Debug, Clone, PartialEq)]
pub enum LogEntry {
    Event(Arc<RecordedEvent>),
    Unreadable(Arc<UnreadableEvent>),
}

impl LogEntry {
    /// Where it stands.
    pub fn position(&self) -> Position {
        match self {
            Self::Event(event) => event.position,
            Self::Unreadable(event) => event.position,
        }
    }

    /// The event, if this binary can read it.
    pub fn event(&self) -> Option<&Arc<RecordedEvent>> {
        match self {
            Self::Event(event) => Some(event),
            Self::Unreadable(_) => None,
        }
    }
}

/// Part of the log, of some types of aggregate.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    pub entries: Vec<LogEntry>,
    /// Where it ends: no further than was asked for, earlier if that was much.
    pub up_to: Position,
}

/// An event that is there and that this binary cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{aggregate_type}/{aggregate_id}/{version} ({event_type} {event_version}) at position {position} {reason}"
)]
pub struct UnreadableEvent {
    pub position: Position,
    /// As stored: this binary may not know it.
    pub aggregate_type: String,
    pub aggregate_id: AggregateId,
    /// The event's sequence in its stream.
    pub version: Version,
    pub event_type: String,
    pub event_version: String,
    pub reason: UnreadableReason,
}

impl UnreadableEvent {
    /// The stream, unless its type is newer than this binary.
    pub fn stream(&self) -> Option<StreamId> {
        let aggregate_type = self.aggregate_type.parse().ok()?;
        Some(StreamId {
            aggregate_type,
            aggregate_id: self.aggregate_id.clone(),
        })
    }
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableReason {
    /// Written by a newer binary. Not poison: whoever meets it must stop, not ready, until it is upgraded.
    #[error("is newer than this binary: upgrade")]
    Newer,
    /// Poison: it fits no schema. The text says where, for the dead letter.
    #[error("fits no schema: {0}")]
    Poison(String),
}

/// A row of the log as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvent {
    pub position: Position,
    pub aggregate_type: String,
    pub aggregate_id: AggregateId,
    /// The event's sequence in its stream.
    pub version: Version,
    pub event_type: String,
    pub event_version: String,
    /// JSON text, `{"<event type>": {…}}`.
    pub payload: String,
    /// JSON text, flat.
    pub metadata: String,
    pub recorded_at: Timestamp,
}
