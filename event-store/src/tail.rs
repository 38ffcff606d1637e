//! The newest events, kept in memory so that subscribers in this process need not read them back, and the head.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use event_schemas::{Position, RecordedEvent};
use tokio::sync::{Notify, watch};

use crate::LogEntry;

const MAX_EVENTS: usize = 16_384;

/// Payload bytes as JSON; decoded they take a small multiple of it.
const MAX_BYTES: usize = 16 << 20;

pub(crate) struct Tail {
    ring: Mutex<Ring>,
    head: watch::Sender<Position>,
    first_watcher: Notify,
}

/// Always a contiguous run of positions.
#[derive(Default)]
struct Ring {
    events: VecDeque<Held>,
    bytes: usize,
}

pub(crate) struct Held {
    pub(crate) event: Arc<RecordedEvent>,
    pub(crate) bytes: usize,
}

impl Tail {
    pub(crate) fn new(head: Position) -> Self {
        Self {
            ring: Mutex::default(),
            head: watch::Sender::new(head),
            first_watcher: Notify::new(),
        }
    }

    /// Takes one commit's events, in the order of their positions, and tells the watchers.
    pub(crate) fn publish(&self, events: impl Iterator<Item = Held>) {
        let mut last = None;
        {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            for held in events {
                last = Some(held.event.position);
                ring.push(held);
            }
        }
        if let Some(last) = last {
            self.saw(last);
        }
    }

    /// The log is known to reach `position`.
    pub(crate) fn saw(&self, position: Position) {
        self.head.send_if_modified(|head| {
            let moved = position > *head;
            if moved {
                *head = position;
            }
            moved
        });
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Position> {
        if !self.is_watched() {
            self.first_watcher.notify_one();
        }
        self.head.subscribe()
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.head.receiver_count() > 0
    }

    /// Resolves when somebody begins to watch and nobody did.
    pub(crate) async fn first_watcher(&self) {
        self.first_watcher.notified().await;
    }

    pub(crate) fn known_head(&self) -> Position {
        *self.head.borrow()
    }

    /// The entries from `after` on, if memory holds the one that follows it.
    pub(crate) fn read(&self, after: Position, max: usize) -> Option<Vec<LogEntry>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ring.events.front()?.event.position.0;
        let skip = usize::try_from((after.0 + 1).checked_sub(first)?).ok()?;
        if skip >= ring.events.len() {
            return None;
        }
        let range = ring
            .events
            .range(skip..ring.events.len().min(skip.saturating_add(max)));
        Some(
            range
                .map(|held| LogEntry::Event(Arc::clone(&held.event)))
                .collect(),
        )
    }
}

impl Ring {
    fn push(&mut self, held: Held) {
        let follows = self
            .events
            .back()
            .is_none_or(|last| last.event.position.0 + 1 == held.event.position.0);
        if !follows {
            // Another process wrote in between: what it wrote is in the database only.
            self.events.clear();
            self.bytes = 0;
        }
        self.bytes += held.bytes;
        self.events.push_back(held);
        while self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes;
        }
    }
}
