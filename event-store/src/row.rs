//! A stored event as any adapter reads it.

use event_schemas::{
    AggregateId, AggregateType, DecodeError, Metadata, Position, RecordedEvent, StreamId, Timestamp,
    Upcasters, Version, decode,
};

use crate::{LogEntry, RawEvent, UnreadableEvent, UnreadableReason};

/// Payload bytes after which a page ends, so that one read's memory stays bounded whatever the events' size.
pub(crate) const MAX_PAGE_BYTES: usize = 8 << 20;

/// A row, not copied yet.
pub(crate) struct StoredRow<'row> {
    pub(crate) position: Position,
    pub(crate) aggregate_type: &'row str,
    pub(crate) aggregate_id: &'row str,
    pub(crate) version: Version,
    pub(crate) event_type: &'row str,
    pub(crate) event_version: &'row str,
    pub(crate) payload: &'row str,
    pub(crate) metadata: &'row str,
    pub(crate) recorded_at: Timestamp,
}

impl StoredRow<'_> {
    pub(crate) fn decode(&self, upcasters: &Upcasters) -> Result<RecordedEvent, UnreadableEvent> {
        let aggregate_type: AggregateType = self
            .aggregate_type
            .parse()
            .map_err(|_| self.unreadable(UnreadableReason::Newer))?;
        let event = decode(
            aggregate_type,
            self.event_type,
            self.event_version,
            self.payload,
            upcasters,
        )
        .map_err(|error| self.unreadable(reason(&error)))?;
        let metadata: Metadata = serde_json::from_str(self.metadata)
            .map_err(|error| self.unreadable(UnreadableReason::Poison(format!("metadata: {error}"))))?;
        Ok(RecordedEvent {
            position: self.position,
            stream: StreamId {
                aggregate_type,
                aggregate_id: AggregateId::from(self.aggregate_id),
            },
            version: self.version,
            event,
            metadata,
            recorded_at: self.recorded_at,
        })
    }

    pub(crate) fn entry(&self, upcasters: &Upcasters) -> LogEntry {
        match self.decode(upcasters) {
            Ok(event) => LogEntry::Event(event.into()),
            Err(unreadable) => LogEntry::Unreadable(unreadable.into()),
        }
    }

    fn unreadable(&self, reason: UnreadableReason) -> UnreadableEvent {
        UnreadableEvent {
            position: self.position,
            aggregate_type: self.aggregate_type.to_owned(),
            aggregate_id: AggregateId::from(self.aggregate_id),
            version: self.version,
            event_type: self.event_type.to_owned(),
            event_version: self.event_version.to_owned(),
            reason,
        }
    }

    pub(crate) fn to_raw(&self) -> RawEvent {
        RawEvent {
            position: self.position,
            aggregate_type: self.aggregate_type.to_owned(),
            aggregate_id: AggregateId::from(self.aggregate_id),
            version: self.version,
            event_type: self.event_type.to_owned(),
            event_version: self.event_version.to_owned(),
            payload: self.payload.to_owned(),
            metadata: self.metadata.to_owned(),
            recorded_at: self.recorded_at,
        }
    }
}

impl<'row> From<&'row RawEvent> for StoredRow<'row> {
    fn from(raw: &'row RawEvent) -> Self {
        Self {
            position: raw.position,
            aggregate_type: &raw.aggregate_type,
            aggregate_id: raw.aggregate_id.as_str(),
            version: raw.version,
            event_type: &raw.event_type,
            event_version: &raw.event_version,
            payload: &raw.payload,
            metadata: &raw.metadata,
            recorded_at: raw.recorded_at,
        }
    }
}

/// What a failed decode says about the event.
pub(crate) fn reason(error: &DecodeError) -> UnreadableReason {
    match error {
        DecodeError::Newer { .. } => UnreadableReason::Newer,
        DecodeError::Malformed { source, .. } => UnreadableReason::Poison(source.to_string()),
    }
}

/// Databases' integers are signed; nothing is stored beyond their range.
pub(crate) fn sql_int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
