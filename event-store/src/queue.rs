//! What waits for the log's writer, and how it is answered.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use event_schemas::{Event, Metadata, Position, RecordedEvent, StreamId, Timestamp, Version};
use tokio::sync::mpsc;

use crate::journal::{Append, Settle, StoredReceipt};
use crate::tail::{Held, Tail};
use crate::{Chain, Fingerprint, Unavailable};

/// Entries that one transaction takes, so that a commit's latency stays bounded.
pub(crate) const MAX_ENTRIES_PER_COMMIT: usize = 1_000;

/// Entries that may wait, for a transaction or for their answer. Executors stay far below it by their own bounds; it
/// stops a runaway direct caller.
const MAX_WAITING: usize = 131_072;

/// Called on the writer's thread or the caller's; must be quick.
pub(crate) type Done = Box<dyn FnOnce(Outcome) + Send>;

/// Something in the journal's queue.
pub(crate) struct JournalEntry {
    pub(crate) chain: Chain,
    pub(crate) work: Work,
    /// Never locked: it makes an entry one that tasks may look at, which a closure alone is not.
    done: Mutex<Done>,
}

impl JournalEntry {
    pub(crate) fn new(chain: Chain, work: Work, done: Done) -> Self {
        chain.enter();
        Self {
            chain,
            work,
            done: Mutex::new(done),
        }
    }

    /// Whether what was decided on this entry was decided on something that never was.
    pub(crate) fn breaks_chain(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Appended { .. } | Outcome::Settled => false,
            Outcome::Duplicate(_) => self.breaks_chain_as_repeat(),
            Outcome::Behind { .. } | Outcome::ChainBroken | Outcome::Unavailable(_) => true,
        }
    }

    /// As [`JournalEntry::breaks_chain`], of a repeat: where nothing was applied, nothing is missing.
    pub(crate) fn breaks_chain_as_repeat(&self) -> bool {
        match &self.work {
            Work::Append(append) => !append.events.is_empty(),
            Work::Settle(_) => false,
        }
    }

    /// Answers. Whatever breaks the chain has done so by the time anyone hears of it.
    pub(crate) fn finish(self, outcome: Outcome) {
        if self.breaks_chain(&outcome) {
            self.chain.break_off();
        }
        let durable = match &outcome {
            Outcome::Appended { version, .. } => Some(*version),
            _ => None,
        };
        self.chain.leave(durable);
        let done = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done(outcome);
    }
}

pub(crate) enum Work {
    Append(PreparedAppend),
    Settle(Settle),
}

/// An append whose JSON is written already, outside of the writer's thread.
pub(crate) struct PreparedAppend {
    pub(crate) stream: StreamId,
    pub(crate) expected: Version,
    pub(crate) events: Vec<PreparedEvent>,
    pub(crate) metadata: Metadata,
    pub(crate) metadata_json: String,
    pub(crate) fingerprint: Option<Fingerprint>,
}

pub(crate) struct PreparedEvent {
    pub(crate) event: Event,
    pub(crate) payload: String,
}

const JSON: Unavailable = Unavailable::Defect("an event cannot be written as JSON");

impl PreparedEvent {
    /// `max_bytes` is what payload and metadata may have together.
    pub(crate) fn new(event: Event, metadata_json: &str, max_bytes: usize) -> Result<Self, Unavailable> {
        let payload = event.to_json().map_err(|_| JSON)?;
        let bytes = payload.len() + metadata_json.len();
        if bytes > max_bytes {
            return Err(Unavailable::TooLarge {
                bytes,
                max: max_bytes,
            });
        }
        Ok(Self { event, payload })
    }
}

/// Metadata as the log keeps it.
pub(crate) fn metadata_json(metadata: &Metadata) -> Result<String, Unavailable> {
    serde_json::to_string(metadata).map_err(|_| JSON)
}

impl PreparedAppend {
    pub(crate) fn new(append: Append, max_event_bytes: usize) -> Result<Self, Unavailable> {
        let metadata_json = metadata_json(&append.metadata)?;
        let events = append
            .events
            .into_iter()
            .map(|event| PreparedEvent::new(event, &metadata_json, max_event_bytes))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            stream: append.stream,
            expected: append.expected,
            events,
            metadata_json,
            metadata: append.metadata,
            fingerprint: append.fingerprint,
        })
    }

    /// The version after the append.
    pub(crate) fn version(&self) -> Version {
        Version(self.expected.0 + self.events.len() as u64)
    }
}

/// What an adapter says about an entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// Stored.
    Appended {
        version: Version,
        position: Position,
    },
    Settled,
    Duplicate(StoredReceipt),
    Behind {
        actual: Version,
    },
    ChainBroken,
    Unavailable(Unavailable),
}

/// The entries that wait for a transaction, and whether someone is on the way to take them.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    /// Entries taken and not answered yet.
    unanswered: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<JournalEntry>,
    scheduled: bool,
    left_over: bool,
}

impl Queue {
    /// Adds `entries`; `true` if the caller has to see to it that someone takes them.
    pub(crate) fn push(&self, entries: &mut Vec<JournalEntry>) -> bool {
        let refused = {
            let mut waiting = self.lock();
            let room = MAX_WAITING
                .saturating_sub(waiting.entries.len() + self.unanswered.load(Ordering::Relaxed))
                .min(entries.len());
            waiting.entries.extend(entries.drain(..room));
            if entries.is_empty() {
                return !std::mem::replace(&mut waiting.scheduled, true);
            }
            std::mem::take(entries)
        };
        for entry in refused {
            entry.finish(Outcome::Unavailable(Unavailable::Store(
                "the journal's queue is full".into(),
            )));
        }
        false
    }

    /// Takes up to `max` entries. Entries that come later schedule anew, unless some are left: then it is the caller
    /// who has to, by [`Queue::left_over`], after its commit.
    pub(crate) fn take(&self, max: usize, into: &mut Vec<JournalEntry>) {
        let mut waiting = self.lock();
        let count = waiting.entries.len().min(max);
        into.extend(waiting.entries.drain(..count));
        self.unanswered.fetch_add(count, Ordering::Relaxed);
        waiting.left_over = !waiting.entries.is_empty();
        waiting.scheduled = waiting.left_over;
    }

    /// Whether the last [`Queue::take`] had to leave entries; says so once.
    pub(crate) fn left_over(&self) -> bool {
        std::mem::take(&mut self.lock().left_over)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one transaction took.
#[derive(Default)]
pub(crate) struct Batch {
    /// When its transaction began.
    pub(crate) begun: Option<Instant>,
    pub(crate) recorded_at: Timestamp,
    pub(crate) entries: Vec<JournalEntry>,
    /// One for each entry, once there are any.
    pub(crate) outcomes: Vec<Outcome>,
}

impl Batch {
    /// Shows the stored events to this process's readers, before anyone is told that they are there.
    pub(crate) fn committed(&mut self, tail: &Tail) {
        let stores = |outcome| matches!(outcome, &Outcome::Appended { .. });
        if let Some(begun) = self.begun
            && self.outcomes.iter().any(stores)
        {
            metrics::histogram!("omisys_journal_commit_seconds").record(begun.elapsed());
            metrics::histogram!("omisys_journal_batch_events").record(self.events() as f64);
        }
        let recorded_at = self.recorded_at;
        let appended = self.entries.iter_mut().zip(&self.outcomes);
        tail.publish(appended.flat_map(|(entry, outcome)| recorded(entry, outcome, recorded_at)));
    }

    /// The events that are stored.
    fn events(&self) -> usize {
        let outcomes = self.entries.iter().zip(&self.outcomes);
        outcomes
            .filter(|(_, outcome)| matches!(outcome, Outcome::Appended { .. }))
            .map(|(entry, _)| match &entry.work {
                Work::Append(append) => append.events.len(),
                Work::Settle(_) => 0,
            })
            .sum()
    }

    /// Gives every entry the same outcome, which is a failure.
    pub(crate) fn fail(&mut self, outcome: &Outcome) {
        self.outcomes.clear();
        self.outcomes.resize(self.entries.len(), outcome.clone());
    }

    /// Before anything else is taken: the next transaction must not take what was decided on what has failed here.
    pub(crate) fn break_chains(&self) {
        for (entry, outcome) in self.entries.iter().zip(&self.outcomes) {
            if entry.breaks_chain(outcome) {
                entry.chain.break_off();
            }
        }
    }

    fn answer(self) {
        for (entry, outcome) in self.entries.into_iter().zip(self.outcomes) {
            entry.finish(outcome);
        }
    }
}

/// To the task that answers, so that a commit wakes one task and not each of its callers, and so that the next commit
/// does not wait for them. In order, so that the last to hear of a broken chain finds nothing of it under way.
pub(crate) struct Answers {
    /// Bounded by what the queue lets in: a writer that had to wait here might wait for a runtime that waits for it.
    batches: mpsc::UnboundedSender<Batch>,
    unanswered: Arc<AtomicUsize>,
}

impl Answers {
    /// Starts the task, which ends with the sender. Needs a Tokio runtime.
    pub(crate) fn start(queue: &Queue) -> Self {
        let (batches, mut received) = mpsc::unbounded_channel::<Batch>();
        let unanswered = Arc::clone(&queue.unanswered);
        let answered = Arc::clone(&unanswered);
        tokio::spawn(async move {
            while let Some(batch) = received.recv().await {
                answered.fetch_sub(batch.entries.len(), Ordering::Relaxed);
                batch.answer();
            }
        });
        Self { batches, unanswered }
    }

    /// Everything in `batch` was taken from the queue.
    pub(crate) fn send(&self, batch: Batch) {
        if let Err(mpsc::error::SendError(batch)) = self.batches.send(batch) {
            // The runtime is ending.
            self.unanswered.fetch_sub(batch.entries.len(), Ordering::Relaxed);
            batch.answer();
        }
    }
}

/// The events of a stored append, as a read would give them.
fn recorded(
    entry: &mut JournalEntry,
    outcome: &Outcome,
    recorded_at: Timestamp,
) -> impl Iterator<Item = Held> + use<> {
    let stored = match (&mut entry.work, outcome) {
        (Work::Append(append), Outcome::Appended { position, .. }) => {
            let events = std::mem::take(&mut append.events);
            let first = position.0 - events.len() as u64;
            Some((
                append.stream.clone(),
                append.expected,
                append.metadata.clone(),
                events,
                first,
            ))
        }
        _ => None,
    };
    stored
        .into_iter()
        .flat_map(move |(stream, expected, metadata, events, first)| {
            events
                .into_iter()
                .zip(1_u64..)
                .map(move |(prepared, ordinal)| Held {
                    bytes: prepared.payload.len(),
                    event: Arc::new(RecordedEvent {
                        position: Position(first + ordinal),
                        stream: stream.clone(),
                        version: Version(expected.0 + ordinal),
                        event: prepared.event,
                        metadata: metadata.clone(),
                        recorded_at,
                    }),
                })
        })
}
