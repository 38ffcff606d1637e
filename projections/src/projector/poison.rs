//! Which entries of a batch are new, which cannot be folded, and what they hold up.

use std::collections::HashMap;

use event_bus::{Checkpoint, DeadLetters, Partitioning};
use event_schemas::{Position, RecordedEvent, StreamId, Version};
use event_store::{LogEntry, UnreadableEvent, UnreadableReason};

use super::fold::Fold;

/// Where the streams that do not fold stop, for one view: the first bad event, and why.
pub(super) type Bad = HashMap<StreamId, (Version, String)>;

/// Whether what lies at `position` of `stream` is in documents that have come as far as `reached`.
pub(crate) fn has(
    reached: &Checkpoint,
    partitioning: Partitioning,
    stream: &StreamId,
    position: Position,
) -> bool {
    position <= reached.position_of(partitioning.of(stream))
}

/// Whether the entry is beyond what the view's documents have.
pub(super) fn is_new(fold: &dyn Fold, partitioning: Partitioning, entry: &LogEntry) -> bool {
    let stream = match entry {
        LogEntry::Event(event) => Some(event.stream.clone()),
        LogEntry::Unreadable(event) => event.stream(),
    };
    match stream {
        Some(stream) => !has(fold.reached(), partitioning, &stream, entry.position()),
        None => entry.position() > fold.reached().position(),
    }
}

/// A view parks whole aggregates.
pub(super) fn scope(stream: &StreamId) -> String {
    stream.to_string()
}

pub(super) fn withheld(letters: &DeadLetters, bad: &Bad, event: &RecordedEvent) -> bool {
    bad.get(&event.stream)
        .is_some_and(|(first, _)| event.version >= *first)
        || (!letters.none_parked() && letters.is_parked(&scope(&event.stream)))
}

/// The streams of which the batch holds an event that cannot be read.
pub(super) fn unreadable(fold: &dyn Fold, partitioning: Partitioning, entries: &[LogEntry]) -> Bad {
    let mut bad = Bad::new();
    for entry in entries.iter().filter(|entry| is_new(fold, partitioning, entry)) {
        if let LogEntry::Unreadable(event) = entry
            && let Some((stream, reason)) = poison(fold, event)
        {
            bad.entry(stream).or_insert((event.version, reason));
        }
    }
    bad
}

/// What is wrong with an event that cannot be read, if it may be one of the view's.
pub(super) fn poison(fold: &dyn Fold, event: &UnreadableEvent) -> Option<(StreamId, String)> {
    match &event.reason {
        UnreadableReason::Poison(reason) => {
            let stream = event
                .stream()
                .filter(|stream| fold.sources().contains(&stream.aggregate_type))?;
            Some((stream, reason.clone()))
        }
        // The subscription stops before it.
        UnreadableReason::Newer => None,
    }
}
