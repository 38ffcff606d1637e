use std::sync::Arc;

use event_schemas::{LogIdentity, Position};
use event_store::ReadError;
use sqlite_file::SqliteError;

/// Why a subscription cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The log holds an event that a newer binary wrote. Not poison: this subscriber stops until it is upgraded.
    #[error(
        "{subscriber} stops at position {position}: {event_type} {event_version} is newer than this binary: upgrade"
    )]
    Upgrade {
        subscriber: Arc<str>,
        position: Position,
        event_type: String,
        event_version: String,
    },
    /// The checkpoint was made on another log, or on this log before it was restored or imported. Going on from it
    /// would skip or repeat events silently.
    #[error(
        "the checkpoint of {subscriber} belongs to log {} epoch {}, not to log {} epoch {}",
        found.log_id, found.epoch, log.log_id, log.epoch
    )]
    ForeignCheckpoint {
        subscriber: Arc<str>,
        found: LogIdentity,
        log: LogIdentity,
    },
    /// The checkpoint is beyond the head of the log that it names: the log lost events.
    #[error("the checkpoint of {subscriber} is at {position}, beyond the log's head {head}")]
    BeyondHead {
        subscriber: Arc<str>,
        position: Position,
        head: Position,
    },
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] SqliteError),
}
