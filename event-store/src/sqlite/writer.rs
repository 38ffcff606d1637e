//! The journal's place in the file's group commit: one job per transaction takes whatever waits by then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use event_schemas::Clock;
use sqlite_file::rusqlite::Connection;
use sqlite_file::{Slot, SqliteError, SqliteFile};
use tokio::runtime::Handle;

use super::append;
use crate::queue::{Answers, Batch, JournalEntry, MAX_ENTRIES_PER_COMMIT, Queue};
use crate::tail::Tail;

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
    answers: Answers,
}

impl SqliteWriter {
    /// Needs a Tokio runtime.
    pub(crate) fn new(file: SqliteFile, clock: Clock, tail: Arc<Tail>) -> Self {
        let queue = Queue::default();
        Self(Arc::new(Inner {
            answers: Answers::start(&queue),
            file,
            queue,
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
        // Shared with its completion: the entries must be answered also when the commit fails.
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
        batch.begun = Some(Instant::now());
        batch.recorded_at = self.0.clock.now();
        batch.outcomes.reserve(batch.entries.len());
        append::run(conn, &batch.entries, batch.recorded_at, &mut batch.outcomes)
    }

    /// After the commit, on the file's writer thread.
    fn finish(&self, mut batch: Batch, result: Result<(), SqliteError>) {
        self.0.in_transaction.store(0, Ordering::Relaxed);
        match result {
            Ok(()) => batch.committed(&self.0.tail),
            Err(error) => {
                if batch.entries.is_empty() {
                    // The transaction could not even begin, so the job never ran. Left where they are, the entries
                    // would wait for a job that nobody schedules any more.
                    self.0.queue.take(usize::MAX, &mut batch.entries);
                }
                batch.fail(&append::failed(&error));
                batch.break_chains();
            }
        }
        self.0.answers.send(batch);
        if self.0.queue.left_over() {
            self.schedule();
        }
    }

    fn fail_waiting(&self, error: &SqliteError) {
        let mut batch = Batch::default();
        self.0.queue.take(usize::MAX, &mut batch.entries);
        batch.fail(&append::failed(error));
        batch.break_chains();
        self.0.answers.send(batch);
    }
}

fn lock(batch: &Mutex<Batch>) -> std::sync::MutexGuard<'_, Batch> {
    batch.lock().unwrap_or_else(PoisonError::into_inner)
}
