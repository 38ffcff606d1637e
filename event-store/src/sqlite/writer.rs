//! The journal's place in the file's group commit: one job per transaction takes whatever waits by then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use event_schemas::{Clock, Position, RecordedEvent, Timestamp, Version};
use sqlite_file::rusqlite::Connection;
use sqlite_file::{Slot, SqliteError, SqliteFile};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::append;
use crate::journal::{JournalEntry, MAX_ENTRIES_PER_COMMIT, Outcome, Queue, Work};
use crate::tail::{Held, Tail};

/// Appends to a SQLite log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SqliteWriter(Arc<Inner>);

struct Inner {
    file: SqliteFile,
    queue: Queue,
    clock: Clock,
    tail: Arc<Tail>,
    runtime: Handle,
    /// Entries taken by the transaction that is open now.
    in_transaction: AtomicUsize,
    /// To the task that answers, so that a commit wakes one task and not each of its callers from outside the runtime.
    answers: mpsc::UnboundedSender<Batch>,
}

/// What one job took, shared with its completion: the entries must be answered also when the commit fails.
#[derive(Default)]
struct Batch {
    recorded_at: Timestamp,
    entries: Vec<JournalEntry>,
    outcomes: Vec<Outcome>,
}

impl SqliteWriter {
    /// Needs a Tokio runtime.
    pub(crate) fn new(file: SqliteFile, clock: Clock, tail: Arc<Tail>) -> Self {
        let (answers, answered) = mpsc::unbounded_channel();
        tokio::spawn(answer_all(answered));
        Self(Arc::new(Inner {
            answers,
            file,
            queue: Queue::default(),
            clock,
            tail,
            runtime: Handle::current(),
            in_transaction: AtomicUsize::new(0),
        }))
    }

    pub(crate) fn submit(&self, entries: &mut Vec<JournalEntry>) {
        if !entries.is_empty() && self.0.queue.push(entries) {
            self.schedule();
        }
    }

    /// Puts a job into the file's queue that will take the waiting entries.
    fn schedule(&self) {
        match self.0.file.try_reserve() {
            Ok(slot) => self.submit_job(slot),
            Err(SqliteError::QueueFull) => {
                let this = self.clone();
                self.0.runtime.spawn(async move {
                    match this.0.file.reserve().await {
                        Ok(slot) => this.submit_job(slot),
                        Err(error) => this.fail_waiting(&error),
                    }
                });
            }
            Err(error) => self.fail_waiting(&error),
        }
    }

    fn submit_job(&self, slot: Slot<'_>) {
        let batch = Arc::new(Mutex::new(Batch::default()));
        let (job, job_batch) = (self.clone(), Arc::clone(&batch));
        let done = self.clone();
        // Raw, without a savepoint, which would copy every page before it changes: `append::run` leaves nothing of
        // what it refuses.
        slot.submit_raw(
            move |conn| job.run(conn, &mut lock(&job_batch)),
            move |result| done.finish(std::mem::take(&mut *lock(&batch)), result),
        );
    }

    fn run(&self, conn: &Connection, batch: &mut Batch) -> Result<(), SqliteError> {
        let taken = self.0.in_transaction.load(Ordering::Relaxed);
        self.0
            .queue
            .take(MAX_ENTRIES_PER_COMMIT.saturating_sub(taken), &mut batch.entries);
        self.0
            .in_transaction
            .fetch_add(batch.entries.len(), Ordering::Relaxed);
        batch.recorded_at = self.0.clock.now();
        batch.outcomes.reserve(batch.entries.len());
        append::run(conn, &batch.entries, batch.recorded_at, &mut batch.outcomes)
    }

    /// After the commit, on the file's writer thread.
    fn finish(&self, mut batch: Batch, result: Result<(), SqliteError>) {
        self.0.in_transaction.store(0, Ordering::Relaxed);
        match result {
            Ok(()) => self.publish(&mut batch),
            Err(error) => {
                if batch.entries.is_empty() {
                    // The transaction could not even begin, so the job never ran. Left where they are, the entries
                    // would wait for a job that nobody schedules any more.
                    self.0.queue.take(usize::MAX, &mut batch.entries);
                }
                // At once: the next transaction must not take anything that was decided on this one.
                for entry in &batch.entries {
                    entry.chain.break_off();
                }
                batch.outcomes.clear();
                batch.outcomes.resize(batch.entries.len(), append::failed(&error));
            }
        }
        // In order, so that the last to hear of a broken chain finds nothing of it under way.
        if let Err(mpsc::error::SendError(batch)) = self.0.answers.send(batch) {
            batch.answer();
        }
        if self.0.queue.left_over() {
            self.schedule();
        }
    }

    /// Shows the events to this process's readers, before anyone is told that they are there.
    fn publish(&self, batch: &mut Batch) {
        let recorded_at = batch.recorded_at;
        let appended = batch.entries.iter_mut().zip(&batch.outcomes);
        self.0
            .tail
            .publish(appended.flat_map(|(entry, outcome)| recorded(entry, outcome, recorded_at)));
    }

    fn fail_waiting(&self, error: &SqliteError) {
        let mut entries = Vec::new();
        self.0.queue.take(usize::MAX, &mut entries);
        for entry in entries {
            entry.finish(append::failed(error));
        }
    }
}

impl Batch {
    fn answer(self) {
        for (entry, outcome) in self.entries.into_iter().zip(self.outcomes) {
            entry.finish(outcome);
        }
    }
}

/// Ends with the writer.
async fn answer_all(mut batches: mpsc::UnboundedReceiver<Batch>) {
    while let Some(batch) = batches.recv().await {
        batch.answer();
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

fn lock(batch: &Mutex<Batch>) -> std::sync::MutexGuard<'_, Batch> {
    batch.lock().unwrap_or_else(PoisonError::into_inner)
}
