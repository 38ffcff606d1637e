//! One SQLite file: one writer thread with group commit, and a few read-only connections.
//!
//! Every embedded adapter that keeps rows in the same file (the log, timers, effects, accounts) writes through the
//! same [`SqliteFile`], so they share commits instead of fighting over SQLite's one write lock. There is no timer: a
//! transaction holds whatever was queued while the previous commit was under way, up to [`MAX_JOBS_PER_COMMIT`].
//!
//! ```
//! # use sqlite_file::{Options, SqliteError, SqliteFile};
//! # let dir = tempfile::tempdir().unwrap();
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let file = SqliteFile::open(dir.path().join("log.db"), Options::default())?;
//! file.migrate("notes", &["CREATE TABLE notes (text TEXT NOT NULL) STRICT"])?;
//! file.write(|conn| {
//!     conn.prepare_cached("INSERT INTO notes VALUES (?1)")?.execute(["durable once this resolves"])?;
//!     Ok::<_, SqliteError>(())
//! })
//! .await?;
//! # file.close().await
//! # }).unwrap();
//! ```

mod error;
mod job;
mod migrate;
mod open;
mod readers;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub use rusqlite::{self, Connection};
use tokio::sync::{mpsc, oneshot};

pub use error::SqliteError;
pub use open::{Options, Synchronous};

use job::TypedJob;
use readers::Readers;
use writer::Message;

/// Jobs that may wait for the writer. Beyond it, [`SqliteFile::submit`] says so and [`SqliteFile::write`] waits.
pub const QUEUE_JOBS: usize = 8_192;

/// The most jobs one transaction takes, so that one commit's latency and its WAL frames stay bounded.
pub const MAX_JOBS_PER_COMMIT: usize = 1_000;

/// A handle on one SQLite file. Cloning is cheap and shares the writer and the readers.
///
/// Dropping the last clone drains the queue and joins the writer thread, which blocks for as long as that takes; call
/// [`SqliteFile::close`] first where that matters.
#[derive(Clone)]
pub struct SqliteFile {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` only while dropping: the writer ends when the last sender is gone.
    sender: Option<mpsc::Sender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Readers>,
}

impl SqliteFile {
    /// Opens or creates the file (mode 0600, WAL, foreign keys on) and starts its writer thread.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, SqliteError> {
        let path = path.as_ref();
        let conn = open::writer(path, options.synchronous)?;
        let readers = Arc::new(Readers::open(path, options.readers)?);
        let (sender, receiver) = mpsc::channel(QUEUE_JOBS);
        let thread = writer::spawn(conn, path, receiver)?;
        Ok(Self {
            inner: Arc::new(Inner {
                sender: Some(sender),
                thread: Mutex::new(Some(thread)),
                readers,
            }),
        })
    }

    /// Brings one component's tables up to date: runs the `steps` that this file has not seen, each once, in order,
    /// all in one transaction. Steps are only ever appended to the list. Blocks; meant for start-up.
    ///
    /// A file written by a newer version of the component is refused with [`SqliteError::Newer`].
    pub fn migrate(&self, component: &'static str, steps: &[&str]) -> Result<(), SqliteError> {
        let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        self.submit(
            move |conn| migrate::run(conn, component, &steps),
            move |outcome| {
                // The receiver waits below; it cannot be gone.
                let _ = reply.send(outcome);
            },
        )?;
        answer.recv().map_err(|_| SqliteError::Closed)?
    }

    /// Runs `job` in a savepoint of the next transaction and resolves once that transaction is durable.
    ///
    /// An `Err` from the job rolls back only what the job wrote; it too is answered after the commit, so that it never
    /// speaks of another job's write that was lost. Waits while the queue is full. Once queued, the job runs even when
    /// the returned future is dropped. Keep jobs short, and use `prepare_cached`: everyone shares this thread.
    pub async fn write<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<SqliteError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.reserve().await?.submit(job, move |outcome| {
            // The caller may have given up waiting.
            let _ = reply.send(outcome);
        });
        answer.await.unwrap_or_else(|_| Err(SqliteError::Closed.into()))
    }

    /// Queues `job` without waiting; jobs run in the order in which they were queued. `done` is called on the writer
    /// thread after the commit (or its failure): keep it to a channel send.
    ///
    /// A full queue is [`SqliteError::QueueFull`], and then neither closure runs. See [`SqliteFile::reserve`] for the
    /// variant that waits.
    pub fn submit<T, E, F, D>(&self, job: F, done: D) -> Result<(), SqliteError>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        D: FnOnce(Result<T, E>) + Send + 'static,
        T: Send + 'static,
        E: From<SqliteError> + Send + 'static,
    {
        self.try_reserve()?.submit(job, done);
        Ok(())
    }

    /// Waits for a place in the queue.
    pub async fn reserve(&self) -> Result<Slot<'_>, SqliteError> {
        self.sender()?
            .reserve()
            .await
            .map(Slot)
            .map_err(|_| SqliteError::Closed)
    }

    /// Takes a place in the queue if there is one: [`SqliteError::QueueFull`] otherwise.
    pub fn try_reserve(&self) -> Result<Slot<'_>, SqliteError> {
        use mpsc::error::TrySendError;
        self.sender()?
            .try_reserve()
            .map(Slot)
            .map_err(|error| match error {
                TrySendError::Full(()) => SqliteError::QueueFull,
                TrySendError::Closed(()) => SqliteError::Closed,
            })
    }

    /// Runs `job` on a read-only connection, in one transaction: all its queries see one snapshot of the file.
    ///
    /// A snapshot held for long keeps the WAL from being reused; page through what may be large.
    pub async fn read<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<SqliteError> + Send + 'static,
    {
        Readers::run(&self.inner.readers, job).await
    }

    /// Refuses new work, commits what is queued, folds the WAL into the file and ends the writer thread. Idempotent.
    ///
    /// Waits for outstanding [`Slot`]s.
    pub async fn close(&self) -> Result<(), SqliteError> {
        if let Ok(sender) = self.sender() {
            // Closed already: there is nothing left to say.
            let _ = sender.send(Message::Close).await;
            sender.closed().await;
        }
        let thread = self
            .inner
            .thread
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        self.inner.readers.close();
        Ok(())
    }

    fn sender(&self) -> Result<&mpsc::Sender<Message>, SqliteError> {
        self.inner.sender.as_ref().ok_or(SqliteError::Closed)
    }
}

impl std::fmt::Debug for SqliteFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteFile").finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sender = None;
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            // The last handle may have lived in a `done` closure: a thread cannot join itself.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// A place in the writer's queue, held until used or dropped.
#[must_use]
pub struct Slot<'a>(mpsc::Permit<'a, Message>);

impl Slot<'_> {
    /// As [`SqliteFile::submit`], in the place that this slot holds.
    pub fn submit<T, E, F, D>(self, job: F, done: D)
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        D: FnOnce(Result<T, E>) + Send + 'static,
        T: Send + 'static,
        E: From<SqliteError> + Send + 'static,
    {
        self.0
            .send(Message::Job(Box::new(TypedJob::new(job, done, true))));
    }

    /// As [`Slot::submit`] without the savepoint (two statements less per job), for a job that guarantees to have
    /// written nothing, or to have undone it, when it returns `Err`: whatever it leaves is committed with the rest.
    ///
    /// A panic in such a job costs the whole transaction: all its jobs get [`SqliteError::Aborted`].
    pub fn submit_raw<T, E, F, D>(self, job: F, done: D)
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        D: FnOnce(Result<T, E>) + Send + 'static,
        T: Send + 'static,
        E: From<SqliteError> + Send + 'static,
    {
        self.0
            .send(Message::Job(Box::new(TypedJob::new(job, done, false))));
    }
}
