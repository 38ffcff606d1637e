//! Deliveries of a log's events.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_schemas::{RecordedEvent, StreamId};
use event_store::LogEntry;

use super::Dice;

/// Another delivery of the same events: each stream in its order, the streams interleaved anew, some events twice. Positions
/// stay what they are.
pub fn deliver_again(log: &[Arc<RecordedEvent>], dice: &mut Dice) -> Vec<Arc<RecordedEvent>> {
    let mut streams: BTreeMap<&StreamId, Vec<&Arc<RecordedEvent>>> = BTreeMap::new();
    for event in log {
        streams.entry(&event.stream).or_default().push(event);
    }
    let mut waiting: Vec<_> = streams.into_values().map(|events| (events, 0_usize)).collect();
    let mut delivered = Vec::new();
    while !waiting.is_empty() {
        let index = usize::try_from(dice.roll(waiting.len() as u64)).unwrap();
        let (events, next) = &mut waiting[index];
        if *next == events.len() {
            waiting.swap_remove(index);
            continue;
        }
        delivered.push(Arc::clone(events[*next]));
        *next += 1;
        if dice.chance(10) {
            // A redelivery goes back some events and comes forward again.
            *next -= usize::try_from(dice.roll(*next as u64 + 1)).unwrap();
        }
    }
    delivered
}

pub fn entries(events: &[Arc<RecordedEvent>]) -> Vec<LogEntry> {
    events.iter().cloned().map(LogEntry::Event).collect()
}
