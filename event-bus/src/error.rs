use std::sync::Arc;

use database::DatabaseError;
use event_schemas::{LogIdentity, Position};
use event_store::ReadError;

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
    /// A topic has a record of another log, or of an epoch of this one that this process does not know yet: two
    /// installations share a topic prefix, or the log was restored under a process that still runs.
    #[error(
        "{subscriber} met a record of log {} epoch {}, but reads log {} epoch {}",
        found.log_id, found.epoch, log.log_id, log.epoch
    )]
    ForeignRecord {
        subscriber: Arc<str>,
        found: LogIdentity,
        log: LogIdentity,
    },
    /// A topic was made with another number of partitions than is configured. Which partition an aggregate belongs to
    /// depends on it.
    #[error("topic {topic} has {found} partitions, but {configured} are configured")]
    Partitions {
        topic: String,
        found: usize,
        configured: u16,
    },
    /// Kafka cannot be reached, or refuses.
    #[error("Kafka: {0}")]
    Kafka(String),
    /// Where the subscriber stands cannot be read from its store.
    #[error("the stored positions cannot be read: {0}")]
    Positions(String),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] DatabaseError),
}

impl BusError {
    /// Whether the same call may succeed later without anyone changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Upgrade { .. }
            | Self::ForeignCheckpoint { .. }
            | Self::BeyondHead { .. }
            | Self::ForeignRecord { .. }
            | Self::Partitions { .. }
            | Self::Log(ReadError::Unfinished | ReadError::Unreadable(_)) => false,
            Self::Kafka(_) | Self::Positions(_) => true,
            Self::Log(ReadError::Store(error)) | Self::Store(error) => error.retryable(),
        }
    }
}
