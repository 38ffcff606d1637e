//! Opening and reading the log.

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use event_schemas::{Clock, LogIdentity, Position, RecordedEvent, StreamId, Upcasters, Version};
use sqlite_file::{SqliteError, SqliteFile};
use tokio::sync::watch;

use crate::sqlite::{self, SqliteWriter};
use crate::streams::Streams;
use crate::tail::Tail;
use crate::{Journal, LogEntry, RawEvent, ReadError};

/// How often the head is read, to see what other processes have committed.
const POLL: Duration = Duration::from_millis(250);

/// How a log is opened.
#[derive(Default)]
pub struct LogOptions {
    /// Gives `recorded_at`.
    pub clock: Clock,
    pub upcasters: Upcasters,
}

/// The log: every event there is, at contiguous positions from 1. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    /// One adapter so far; a second one makes this an enum.
    file: SqliteFile,
    identity: RwLock<LogIdentity>,
    tail: Arc<Tail>,
    journal: Journal,
    streams: Arc<Streams>,
    upcasters: Arc<Upcasters>,
}

impl Log {
    /// Opens the log in `file`, creating its tables. Needs a Tokio runtime. Open it once a process: each handle has its
    /// own memory of recent events, and hears of another's commits by polling only.
    pub async fn open(file: &SqliteFile, options: LogOptions) -> Result<Self, ReadError> {
        let migrating = file.clone();
        tokio::task::spawn_blocking(move || sqlite::migrate(&migrating))
            .await
            .map_err(|_| SqliteError::Panicked)??;
        let identity = file.write(sqlite::create_head).await?;
        let head = file.read(sqlite::read_head).await?;
        let path = file
            .read(|conn| Ok::<_, SqliteError>(conn.path().unwrap_or_default().to_owned()))
            .await?;
        let tail = Arc::new(Tail::new(head));
        let upcasters = Arc::new(options.upcasters);
        let inner = Arc::new(Inner {
            identity: RwLock::new(identity),
            journal: Journal::new(SqliteWriter::new(file.clone(), options.clock, Arc::clone(&tail))),
            streams: Arc::new(Streams::sqlite(file.clone(), &path, Arc::clone(&upcasters))),
            file: file.clone(),
            tail,
            upcasters,
        });
        tokio::spawn(poll_head(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }

    /// Which log this is. A checkpoint or view of another log or epoch must be refused.
    pub fn identity(&self) -> LogIdentity {
        *self.0.identity.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a new epoch: for a log that was restored or imported, before anything reads it.
    pub async fn begin_epoch(&self) -> Result<LogIdentity, ReadError> {
        let identity = self.0.file.write(sqlite::begin_epoch).await?;
        *self.0.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
        Ok(identity)
    }

    /// The position of the last durable event, read from the store.
    pub async fn head(&self) -> Result<Position, ReadError> {
        let head = self.0.file.read(sqlite::read_head).await?;
        self.0.tail.saw(head);
        Ok(head)
    }

    /// The head as it moves: at once for commits of this process, within a quarter of a second for those of others.
    pub fn watch(&self) -> watch::Receiver<Position> {
        self.0.tail.watch()
    }

    /// Up to `max` entries after position `after`, in order and without a gap; fewer only at the head or when they are
    /// large. What [`Log::watch`] does not show yet is not read yet either, so that a reader at the head costs nothing.
    pub async fn read(&self, after: Position, max: usize) -> Result<Vec<LogEntry>, ReadError> {
        if max == 0 || after >= self.0.tail.known_head() {
            return Ok(Vec::new());
        }
        if let Some(entries) = self.0.tail.read(after, max) {
            return Ok(entries);
        }
        let upcasters = Arc::clone(&self.0.upcasters);
        let page = self
            .0
            .file
            .read(move |conn| sqlite::read_page(conn, &upcasters, after, max))
            .await?;
        self.0.tail.saw(page.head);
        Ok(page.entries)
    }

    /// One stream's events after version `after`, up to and with `up_to`.
    pub async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        up_to: Option<Version>,
    ) -> Result<Vec<Arc<RecordedEvent>>, ReadError> {
        let (stream, upcasters) = (stream.clone(), Arc::clone(&self.0.upcasters));
        self.0
            .file
            .read(move |conn| sqlite::read_stream(conn, &upcasters, &stream, after, up_to))
            .await
    }

    /// As [`Log::read`], the rows as they are stored, straight from the store.
    pub async fn read_raw(&self, after: Position, max: usize) -> Result<Vec<RawEvent>, ReadError> {
        Ok(self
            .0
            .file
            .read(move |conn| sqlite::read_raw_page(conn, after, max))
            .await?)
    }

    /// One stream's rows as they are stored, after version `after`, at most `max`. `aggregate_type` may be unknown here.
    pub async fn read_raw_stream(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after: Version,
        max: usize,
    ) -> Result<Vec<RawEvent>, ReadError> {
        let (kind, id) = (aggregate_type.to_owned(), aggregate_id.to_owned());
        Ok(self
            .0
            .file
            .read(move |conn| sqlite::read_raw_stream(conn, &kind, &id, after, max))
            .await?)
    }

    /// The way to append.
    pub fn journal(&self) -> Journal {
        self.0.journal.clone()
    }

    pub(crate) fn streams(&self) -> Arc<Streams> {
        Arc::clone(&self.0.streams)
    }
}

/// Ends with the log's last handle.
async fn poll_head(log: Weak<Inner>) {
    loop {
        tokio::time::sleep(POLL).await;
        let Some(inner) = log.upgrade() else { return };
        match inner.file.read(sqlite::read_head).await {
            Ok(head) => inner.tail.saw(head),
            Err(SqliteError::Closed) => return,
            Err(error) => tracing::warn!(%error, "the head of the log cannot be read"),
        }
    }
}
