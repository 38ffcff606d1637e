use database::DatabaseError;
use event_schemas::Version;
use sqlite_file::SqliteError;

use crate::entry::{UnreadableEvent, UnreadableReason};

/// The log cannot be used right now, or not at all. Details are for logs, never for clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The store failed. The outcome is unknown: repeat under the same command id, never under a new one.
    #[error("the log's store failed: {0}")]
    Store(String),
    /// The service is shutting down.
    #[error("the log is closed")]
    Closed,
    /// The aggregate's own stream holds an event that this binary cannot read.
    #[error(transparent)]
    Unreadable(Box<UnreadableEvent>),
    /// The stream does not hold the sequences 1, 2, 3, …, or not this aggregate's events.
    #[error("the stream is corrupt after sequence {after}")]
    Corrupt { after: Version },
    /// An event of the command is larger than the log takes; nothing was stored.
    #[error("an event of {bytes} bytes, the log takes {max}")]
    TooLarge { bytes: usize, max: usize },
    /// Deciding panicked, or its events cannot be written down: a defect of this program.
    #[error("defect: {0}")]
    Defect(&'static str),
}

impl Unavailable {
    /// Whether the same request may succeed later without anyone changing anything in the log.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Store(_) | Self::Closed => true,
            // Once this process has been replaced by a newer one: during an upgrade, soon.
            Self::Unreadable(event) => event.reason == UnreadableReason::Newer,
            Self::Corrupt { .. } | Self::TooLarge { .. } | Self::Defect(_) => false,
        }
    }
}

impl From<DatabaseError> for Unavailable {
    fn from(error: DatabaseError) -> Self {
        if error.is_closed() {
            Self::Closed
        } else {
            Self::Store(error.to_string())
        }
    }
}

impl From<SqliteError> for Unavailable {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::Closed => Self::Closed,
            other => Self::Store(other.to_string()),
        }
    }
}

/// Why a command has no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError<E> {
    /// The aggregate refuses.
    #[error(transparent)]
    Refused(E),
    /// The command id was used before, with another body.
    #[error("the command id was used with another body")]
    KeyReused,
    /// `expected_version` is not the aggregate's version.
    #[error("the aggregate is at version {actual}")]
    VersionMismatch { actual: Version },
    /// Others wrote to the aggregate every time; nothing was stored.
    #[error("other commands kept changing the aggregate")]
    Conflict,
    /// Too many commands are waiting; nothing was stored.
    #[error("too many commands are waiting")]
    Overloaded,
    #[error(transparent)]
    Unavailable(Unavailable),
}

impl<E> ExecuteError<E> {
    /// Whether the same command, under the same id, may succeed later without anyone changing it.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Refused(_) | Self::KeyReused | Self::VersionMismatch { .. } => false,
            Self::Conflict | Self::Overloaded => true,
            Self::Unavailable(error) => error.retryable(),
        }
    }
}

/// Why an aggregate's state cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Too many commands are waiting.
    #[error("too many commands are waiting")]
    Overloaded,
    /// Others wrote to the aggregate every time it was read.
    #[error("other commands kept changing the aggregate")]
    Conflict,
    #[error(transparent)]
    Unavailable(Unavailable),
}

impl<E> From<AccessError> for ExecuteError<E> {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Overloaded => Self::Overloaded,
            AccessError::Conflict => Self::Conflict,
            AccessError::Unavailable(error) => Self::Unavailable(error),
        }
    }
}

/// Why it cannot be said whether a command has a receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindReceiptError {
    /// The command id was used before, with another body.
    #[error("the command id was used with another body")]
    KeyReused,
    #[error(transparent)]
    Access(#[from] AccessError),
}

impl<E> From<FindReceiptError> for ExecuteError<E> {
    fn from(error: FindReceiptError) -> Self {
        match error {
            FindReceiptError::KeyReused => Self::KeyReused,
            FindReceiptError::Access(error) => error.into(),
        }
    }
}

/// Why the log cannot be opened or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A log is on its way into this store: it must not be served by halves.
    #[error("an import into this store was not finished")]
    Unfinished,
    #[error("the log's store failed: {0}")]
    Store(#[from] DatabaseError),
    /// A stream read met an event that this binary cannot read. Reads by position give it as an entry instead.
    #[error(transparent)]
    Unreadable(Box<UnreadableEvent>),
}

impl From<SqliteError> for ReadError {
    fn from(error: SqliteError) -> Self {
        Self::Store(error.into())
    }
}
