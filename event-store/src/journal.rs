//! Appends: what is asked of the log's one writer, what it answers, and the queue between.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Mutex, PoisonError};

use event_schemas::{CommandId, Event, Metadata, Position, StreamId, Version};
use tokio::sync::oneshot;

use crate::sqlite::SqliteWriter;
use crate::{Chain, Fingerprint, Receipt, Unavailable};

/// Entries that one transaction takes, so that a commit's latency stays bounded.
pub(crate) const MAX_ENTRIES_PER_COMMIT: usize = 1_000;

/// Entries that may wait. Executors stay far below it by their own bounds; it stops a runaway direct caller.
const MAX_WAITING: usize = 131_072;

/// The way into the log. Entries are taken in the order of the calls, whatever the returned futures do. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    /// One adapter so far; a second one makes this an enum.
    writer: SqliteWriter,
}

/// Events to store after version `expected`, and the receipt of the command in `metadata`; the receipt alone if there
/// are no events.
#[derive(Debug, Clone)]
pub struct Append {
    pub stream: StreamId,
    /// The version that the command was decided on.
    pub expected: Version,
    pub events: Vec<Event>,
    pub metadata: Metadata,
    pub fingerprint: Option<Fingerprint>,
}

/// What became of an [`Append`]. Only `Appended` stored anything; every other outcome breaks the chain, unless it is a
/// `Duplicate` of an append without events.
#[derive(Debug, Clone, PartialEq)]
pub enum AppendOutcome {
    /// Durable.
    Appended(Receipt),
    /// The command id has a receipt on this stream already. Takes precedence over `Conflict`.
    Duplicate(StoredReceipt),
    /// The stream is not at the expected version.
    Conflict {
        actual: Version,
    },
    /// An earlier entry of the chain failed.
    ChainBroken,
    Unavailable(Unavailable),
}

/// A question behind all that was handed in before it: is what I decided on durable, current, and new?
#[derive(Debug, Clone)]
pub struct Settle {
    pub stream: StreamId,
    /// Looked up among the receipts.
    pub command_id: Option<CommandId>,
    /// Compared with the stream's version.
    pub version: Option<Version>,
}

/// The answer to a [`Settle`], given once everything before it is durable.
#[derive(Debug, Clone, PartialEq)]
pub enum SettleOutcome {
    /// No receipt, and the version is the stream's.
    Settled,
    /// The command id has a receipt on this stream. Takes precedence over `Stale`, and leaves the chain whole.
    Duplicate(StoredReceipt),
    /// The stream is not at that version; the chain is broken.
    Stale {
        actual: Version,
    },
    /// An earlier entry of the chain failed.
    ChainBroken,
    Unavailable(Unavailable),
}

/// A receipt as the log holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReceipt {
    /// The aggregate's version after the command.
    pub version: Version,
    pub position: Position,
    pub fingerprint: Option<Fingerprint>,
}

impl StoredReceipt {
    pub(crate) fn replayed(&self, stream: StreamId) -> Receipt {
        Receipt {
            stream,
            version: self.version,
            position: self.position,
            replayed: true,
        }
    }
}

impl Journal {
    pub(crate) fn new(writer: SqliteWriter) -> Self {
        Self { writer }
    }

    /// Hands in an append now; the future gives its outcome once it is durable.
    pub fn append(
        &self,
        chain: &Chain,
        append: Append,
    ) -> impl Future<Output = AppendOutcome> + Send + use<> {
        let stream = append.stream.clone();
        let prepared = PreparedAppend::new(append).inspect_err(|_| chain.break_off());
        let answer = prepared.map(|prepared| self.hand_in(chain, Work::Append(prepared)));
        async move {
            let Ok(answer) = answer else {
                return AppendOutcome::Unavailable(Unavailable::Defect("an event cannot be written as JSON"));
            };
            match answer.await.unwrap_or(Outcome::Unavailable(Unavailable::Closed)) {
                Outcome::Appended { version, position } => AppendOutcome::Appended(Receipt {
                    stream,
                    version,
                    position,
                    replayed: false,
                }),
                Outcome::Duplicate(stored) => AppendOutcome::Duplicate(stored),
                Outcome::Behind { actual } => AppendOutcome::Conflict { actual },
                Outcome::ChainBroken => AppendOutcome::ChainBroken,
                Outcome::Settled => AppendOutcome::Unavailable(Unavailable::Defect("an append was settled")),
                Outcome::Unavailable(error) => AppendOutcome::Unavailable(error),
            }
        }
    }

    /// Hands in a question now.
    pub fn settle(
        &self,
        chain: &Chain,
        settle: Settle,
    ) -> impl Future<Output = SettleOutcome> + Send + use<> {
        let answer = self.hand_in(chain, Work::Settle(settle));
        async move {
            match answer.await.unwrap_or(Outcome::Unavailable(Unavailable::Closed)) {
                Outcome::Settled => SettleOutcome::Settled,
                Outcome::Duplicate(stored) => SettleOutcome::Duplicate(stored),
                Outcome::Behind { actual } => SettleOutcome::Stale { actual },
                Outcome::ChainBroken => SettleOutcome::ChainBroken,
                Outcome::Appended { .. } => {
                    SettleOutcome::Unavailable(Unavailable::Defect("a question was appended"))
                }
                Outcome::Unavailable(error) => SettleOutcome::Unavailable(error),
            }
        }
    }

    fn hand_in(&self, chain: &Chain, work: Work) -> oneshot::Receiver<Outcome> {
        let (reply, answer) = oneshot::channel();
        let done = Box::new(move |outcome| {
            // The caller may have stopped waiting.
            let _ = reply.send(outcome);
        });
        self.submit(&mut vec![JournalEntry::new(chain.clone(), work, done)]);
        answer
    }

    /// Hands in `entries`, in order, and leaves the vector empty for its next use.
    pub(crate) fn submit(&self, entries: &mut Vec<JournalEntry>) {
        self.writer.submit(entries);
    }
}

/// Called on the writer's thread or the caller's; must be quick.
pub(crate) type Done = Box<dyn FnOnce(Outcome) + Send>;

/// Something in the journal's queue.
pub(crate) struct JournalEntry {
    pub(crate) chain: Chain,
    pub(crate) work: Work,
    done: Done,
}

impl JournalEntry {
    pub(crate) fn new(chain: Chain, work: Work, done: Done) -> Self {
        chain.enter();
        Self { chain, work, done }
    }

    /// Whether what was decided on this entry was decided on something that never was.
    pub(crate) fn breaks_chain(&self, outcome: &Outcome) -> bool {
        match (outcome, &self.work) {
            (Outcome::Appended { .. } | Outcome::Settled, _) | (Outcome::Duplicate(_), Work::Settle(_)) => {
                false
            }
            // Nothing was applied, so nothing is missing.
            (Outcome::Duplicate(_), Work::Append(append)) => !append.events.is_empty(),
            (Outcome::Behind { .. } | Outcome::ChainBroken | Outcome::Unavailable(_), _) => true,
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
        (self.done)(outcome);
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

impl PreparedEvent {
    pub(crate) fn new(event: Event) -> serde_json::Result<Self> {
        let payload = event.to_json()?;
        Ok(Self { event, payload })
    }
}

impl PreparedAppend {
    fn new(append: Append) -> serde_json::Result<Self> {
        let events = append
            .events
            .into_iter()
            .map(PreparedEvent::new)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            stream: append.stream,
            expected: append.expected,
            events,
            metadata_json: serde_json::to_string(&append.metadata)?,
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
pub(crate) struct Queue(Mutex<Waiting>);

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
                .saturating_sub(waiting.entries.len())
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
        waiting.left_over = !waiting.entries.is_empty();
        waiting.scheduled = waiting.left_over;
    }

    /// Whether the last [`Queue::take`] had to leave entries; says so once.
    pub(crate) fn left_over(&self) -> bool {
        std::mem::take(&mut self.lock().left_over)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
