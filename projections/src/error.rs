use database::DatabaseError;
use event_schemas::AggregateType;
use event_store::ReadError;
use sqlite_file::SqliteError;

#[cfg(feature = "cluster")]
use crate::store::MongoError;

/// Why the read models cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    #[error(transparent)]
    Store(#[from] SqliteError),
    /// The documents' store in the cluster.
    #[cfg(feature = "cluster")]
    #[error(transparent)]
    Mongo(#[from] MongoError),
    /// Where the dead letters are.
    #[error(transparent)]
    DeadLetters(#[from] DatabaseError),
    /// A stored document does not have the form that this view's version writes.
    #[error("{view} {id} cannot be read: {message}")]
    Corrupt {
        view: &'static str,
        id: String,
        message: String,
    },
    /// The documents were folded by another version of the view, in a form that this one cannot read. They are folded
    /// again; soon there will be some.
    #[error("{view} is being folded again for this version")]
    Rebuilding { view: &'static str },
    /// A generation is not there any more: somebody dropped it.
    #[error("generation {generation} of {view} is gone")]
    Gone { view: &'static str, generation: u32 },
    /// The log, which says how far documents have to be.
    #[error("the log cannot be read: {0}")]
    Log(String),
    /// A query names a key that the view does not have: a defect of the caller.
    #[error("{view} has no key {key}")]
    UnknownKey { view: &'static str, key: &'static str },
}

impl ViewError {
    /// Whether the same call may succeed later without anyone changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.retryable(),
            #[cfg(feature = "cluster")]
            Self::Mongo(error) => error.retryable(),
            Self::DeadLetters(error) => error.retryable(),
            Self::Rebuilding { .. } | Self::Log(_) => true,
            Self::Corrupt { .. } | Self::Gone { .. } | Self::UnknownKey { .. } => false,
        }
    }

    /// Whether the documents were dropped under this process, which has to begin again.
    pub(crate) const fn is_gone(&self) -> bool {
        match self {
            Self::Gone { .. } => true,
            #[cfg(feature = "cluster")]
            Self::Mongo(MongoError::Gone(_)) => true,
            _ => false,
        }
    }
}

impl From<ReadError> for ViewError {
    fn from(error: ReadError) -> Self {
        Self::Log(error.to_string())
    }
}

/// Why a read that had to be fresh has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The view never reads this kind of aggregate, so it would wait in vain: the client's mistake.
    #[error("{view} does not read {aggregate_type}")]
    NotRead {
        view: &'static str,
        aggregate_type: AggregateType,
    },
    /// The view has not come that far in time. Later it will have.
    #[error("{view} has not come that far yet")]
    TimedOut { view: &'static str },
    #[error(transparent)]
    View(#[from] ViewError),
}
