//! Opening and reading the log.

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use database::Database;
use event_schemas::{
    AggregateType, Clock, LogIdentity, Position, RecordedEvent, StreamId, Upcasters, Version,
};
use tokio::sync::watch;

use crate::row::StoredRow;
use crate::store::Store;
use crate::streams::Streams;
use crate::tail::Tail;
use crate::{Journal, LogEntry, RawEvent, ReadError, Slice};

/// How often the head is read, to see what other processes have committed.
const POLL: Duration = Duration::from_millis(250);

/// As [`POLL`], while somebody watches a log that other processes write all the time.
const POLL_WATCHED: Duration = Duration::from_millis(20);

/// How a log is opened.
pub struct LogOptions {
    /// Gives `recorded_at`.
    pub clock: Clock,
    /// Through which every read goes; the shipped ones, unless a test brings its own.
    pub upcasters: Upcasters,
    /// The most that an event may have, payload and metadata together, in bytes of JSON; a larger one is refused as
    /// [`crate::Unavailable::TooLarge`]. Every event has to fit a message of the stream, in either profile, so that a
    /// log can move from one to the other.
    pub max_event_bytes: usize,
}

impl LogOptions {
    /// What leaves room for a message's own headers below Kafka's default of 1 MiB.
    pub const MAX_EVENT_BYTES: usize = 900 << 10;
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            clock: Clock::default(),
            upcasters: Upcasters::shipped(),
            max_event_bytes: Self::MAX_EVENT_BYTES,
        }
    }
}

/// The log: every event there is, at contiguous positions from 1. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    store: Store,
    identity: RwLock<LogIdentity>,
    tail: Arc<Tail>,
    journal: Journal,
    streams: Arc<Streams>,
    upcasters: Arc<Upcasters>,
}

impl Log {
    /// Opens the log in `database`, creating its tables. Needs a Tokio runtime. Open it once a process: each handle has
    /// its own writer and memory of recent events, and hears of another's commits by polling only.
    pub async fn open(database: impl Into<Database>, options: LogOptions) -> Result<Self, ReadError> {
        let (store, identity) = Store::open(database.into()).await?;
        let tail = Arc::new(Tail::new(store.head().await?));
        let upcasters = Arc::new(options.upcasters);
        let journal = Journal::open(&store, options.clock, &tail, options.max_event_bytes);
        let inner = Arc::new(Inner {
            identity: RwLock::new(identity),
            journal,
            streams: Arc::new(Streams::open(&store, &upcasters).await?),
            store,
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

    /// Starts a new epoch, as an import does ([`crate::LogImport`]): for tests.
    #[cfg(any(test, feature = "conformance"))]
    pub async fn begin_epoch(&self) -> Result<LogIdentity, ReadError> {
        let identity = self.0.store.begin_epoch().await?;
        *self.0.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
        Ok(identity)
    }

    /// The position of the last durable event, read from the store.
    pub async fn head(&self) -> Result<Position, ReadError> {
        let head = self.0.store.head().await?;
        self.0.tail.saw(head);
        Ok(head)
    }

    /// The head as it moves: at once for commits of this process; for those of others within a quarter of a second, in
    /// the cluster within a fiftieth.
    pub fn watch(&self) -> watch::Receiver<Position> {
        self.0.tail.watch()
    }

    /// Up to `max` entries after position `after`, in order and without a gap; none only at the head. Fewer there, when they
    /// are large, and where those end that this process has in memory. What [`Log::watch`] does not show yet is not read
    /// yet either, so that a reader at the head costs nothing.
    pub async fn read(&self, after: Position, max: usize) -> Result<Vec<LogEntry>, ReadError> {
        if max == 0 || after >= self.0.tail.known_head() {
            return Ok(Vec::new());
        }
        if let Some(entries) = self.0.tail.read(after, max) {
            return Ok(entries);
        }
        let page = self.0.store.page(&self.0.upcasters, after, max).await?;
        self.0.tail.saw(page.head);
        Ok(page.entries)
    }

    /// The entries of aggregates of `types` after position `after`, up to and with `up_to` or less: [`Slice::up_to`] says how
    /// far. Straight from the store; for whoever goes through the log in ranges, several at once.
    pub async fn read_slice(
        &self,
        after: Position,
        up_to: Position,
        types: &'static [AggregateType],
    ) -> Result<Slice, ReadError> {
        Ok(self.0.store.slice(&self.0.upcasters, after, up_to, types).await?)
    }

    /// One stream's events after version `after`, up to and with `up_to`.
    pub async fn read_stream(
        &self,
        stream: &StreamId,
        after: Version,
        up_to: Option<Version>,
    ) -> Result<Vec<Arc<RecordedEvent>>, ReadError> {
        self.0.store.stream(&self.0.upcasters, stream, after, up_to).await
    }

    /// As [`Log::read`], the rows as they are stored, straight from the store.
    pub async fn read_raw(&self, after: Position, max: usize) -> Result<Vec<RawEvent>, ReadError> {
        Ok(self.0.store.raw_page(after, max).await?)
    }

    /// One stream's rows as they are stored, after version `after`, at most `max`. `aggregate_type` may be unknown here.
    pub async fn read_raw_stream(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        after: Version,
        max: usize,
    ) -> Result<Vec<RawEvent>, ReadError> {
        Ok(self
            .0
            .store
            .raw_stream(aggregate_type, aggregate_id, after, max)
            .await?)
    }

    /// The entry that `raw` is: for whoever brings rows of this log elsewhere and back.
    pub fn decode(&self, raw: &RawEvent) -> LogEntry {
        StoredRow::from(raw).entry(&self.0.upcasters)
    }

    /// The way to append.
    pub fn journal(&self) -> Journal {
        self.0.journal.clone()
    }

    pub(crate) fn database(&self) -> &Database {
        self.0.store.database()
    }

    pub(crate) fn streams(&self) -> Arc<Streams> {
        Arc::clone(&self.0.streams)
    }
}

/// Ends with the log's last handle, or with its database.
async fn poll_head(log: Weak<Inner>) {
    let mut failing = false;
    loop {
        let Some(tail) = log.upgrade().map(|inner| Arc::clone(&inner.tail)) else {
            return;
        };
        // Without the log in hand, which may end meanwhile.
        let wait = match log.upgrade() {
            Some(inner) if !failing => inner.poll_after(),
            _ => POLL,
        };
        let _ = tokio::time::timeout(wait, tail.first_watcher()).await;
        let Some(inner) = log.upgrade() else { return };
        match inner.store.head().await {
            Ok(head) => {
                tail.saw(head);
                failing = false;
            }
            Err(error) if error.is_closed() => return,
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "the head of the log cannot be read");
                }
                failing = true;
            }
        }
    }
}

impl Inner {
    fn poll_after(&self) -> Duration {
        if self.store.is_shared() && self.tail.is_watched() {
            POLL_WATCHED
        } else {
            POLL
        }
    }
}
