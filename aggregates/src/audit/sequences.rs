use std::collections::HashMap;

use event_schemas::{AggregateType, OrderId, Position, RecordedEvent, StreamId};

use super::{Findings, POSITION, SEQUENCE};

/// A stream in few bytes: there are millions.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    Uuid(AggregateType, u128),
    Text(StreamId),
}

impl Key {
    fn of(stream: &StreamId) -> Self {
        // Any id type reads a UUID.
        match stream.aggregate_id.as_str().parse::<OrderId>() {
            Ok(id) => Self::Uuid(stream.aggregate_type, id.as_uuid().as_u128()),
            Err(_) => Self::Text(stream.clone()),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Sequences {
    last_position: Position,
    versions: HashMap<Key, u64>,
}

impl Sequences {
    pub(super) fn observe(&mut self, recorded: &RecordedEvent, found: &mut Findings) {
        let (stream, position, version) = (&recorded.stream, recorded.position.0, recorded.version.0);
        let expected = self.last_position.0 + 1;
        if position != expected {
            found.add(POSITION, stream, || {
                format!("position {position} where {expected} was expected")
            });
        }
        self.last_position = recorded.position;
        let last = self.versions.entry(Key::of(stream)).or_default();
        if version != *last + 1 {
            let last = *last;
            found.add(SEQUENCE, stream, || format!("event {version} after {last}"));
        }
        *last = version;
    }
}
