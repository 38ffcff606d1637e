//! Opening and reading the log.

use std::sync::Arc;

use event_schemas::{Clock, LogIdentity, Position, RecordedEvent, StreamId, Upcasters, Version};
use sqlite_file::SqliteFile;
use tokio::sync::watch;

use crate::{Journal, LogEntry, RawEvent, ReadError};

/// How a log is opened.
#[derive(Default)]
pub struct LogOptions {
    /// Gives `recorded_at`.
    pub clock: Clock,
    pub upcasters: Upcasters,
}

/// The log: every event there is, at contiguous positions from 1. Cheap to clone.
#[derive(Clone)]
pub struct Log {}

impl Log {
    /// Opens the log in `file`, creating its tables. Needs a Tokio runtime.
    pub async fn open(_file: &SqliteFile, _options: LogOptions) -> Result<Self, ReadError> {
        todo!()
    }

    /// Which log this is. A checkpoint or view of another log or epoch must be refused.
    pub fn identity(&self) -> LogIdentity {
        todo!()
    }

    /// Starts a new epoch: for a log that was restored or imported.
    pub async fn begin_epoch(&self) -> Result<LogIdentity, ReadError> {
        todo!()
    }

    /// The position of the last durable event.
    pub async fn head(&self) -> Result<Position, ReadError> {
        todo!()
    }

    /// The head as it moves: at once for commits of this process, within a quarter of a second for those of others.
    pub fn watch(&self) -> watch::Receiver<Position> {
        todo!()
    }

    /// Up to `max` entries after position `after`, in order and without a gap.
    pub async fn read(&self, _after: Position, _max: usize) -> Result<Vec<LogEntry>, ReadError> {
        todo!()
    }

    /// One stream's events after version `after`, up to and with `up_to`.
    pub async fn read_stream(
        &self,
        _stream: &StreamId,
        _after: Version,
        _up_to: Option<Version>,
    ) -> Result<Vec<Arc<RecordedEvent>>, ReadError> {
        todo!()
    }

    /// As [`Log::read`], the rows as they are stored.
    pub async fn read_raw(&self, _after: Position, _max: usize) -> Result<Vec<RawEvent>, ReadError> {
        todo!()
    }

    /// One stream's rows as they are stored, after version `after`, at most `max`. `aggregate_type` may be unknown here.
    pub async fn read_raw_stream(
        &self,
        _aggregate_type: &str,
        _aggregate_id: &str,
        _after: Version,
        _max: usize,
    ) -> Result<Vec<RawEvent>, ReadError> {
        todo!()
    }

    /// The way to append.
    pub fn journal(&self) -> Journal {
        todo!()
    }
}
