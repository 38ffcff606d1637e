//! Appends: what is asked of the log's one writer and what it answers.

use std::future::Future;

use event_schemas::{CommandId, Event, Metadata, Position, StreamId, Version};

use crate::{Chain, Fingerprint, Receipt, Unavailable};

/// The way into the log. Entries are taken in the order of the calls, whatever the returned futures do. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {}

/// Events to store after version `expected`, and the receipt of the command in `metadata`; the receipt alone if there
/// are no events.
#[derive(Debug, Clone)]
pub struct Append {
    pub stream: StreamId,
    /// The version that the command was decided on.
    pub expected: Version,
    pub events: Vec<Event>,
    pub metadata: Metadata,
    pub fingerprint: Option<Fingerprint>,
}

/// What became of an [`Append`]. Only `Appended` stored anything; every other outcome breaks the chain.
#[derive(Debug, Clone, PartialEq)]
pub enum AppendOutcome {
    /// Durable.
    Appended(Receipt),
    /// The command id has a receipt on this stream already.
    Duplicate(StoredReceipt),
    /// The stream is not at the expected version.
    Conflict {
        actual: Version,
    },
    /// An earlier entry of the chain failed.
    ChainBroken,
    Unavailable(Unavailable),
}

/// A question behind all that was handed in before it: is what I decided on durable, current, and new?
#[derive(Debug, Clone)]
pub struct Settle {
    pub stream: StreamId,
    /// Looked up among the receipts.
    pub command_id: Option<CommandId>,
    /// Compared with the stream's version.
    pub version: Option<Version>,
}

/// The answer to a [`Settle`], given once everything before it is durable.
#[derive(Debug, Clone, PartialEq)]
pub enum SettleOutcome {
    /// No receipt, and the version is the stream's.
    Settled,
    /// The command id has a receipt on this stream. Takes precedence over `Stale`, and leaves the chain whole.
    Duplicate(StoredReceipt),
    /// The stream has moved beyond the version; the chain is broken.
    Stale {
        actual: Version,
    },
    /// An earlier entry of the chain failed.
    ChainBroken,
    Unavailable(Unavailable),
}

/// A receipt as the log holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReceipt {
    /// The aggregate's version after the command.
    pub version: Version,
    pub position: Position,
    pub fingerprint: Option<Fingerprint>,
}

impl Journal {
    /// Hands in an append now; the future gives its outcome once it is durable.
    pub fn append(
        &self,
        _chain: &Chain,
        _append: Append,
    ) -> impl Future<Output = AppendOutcome> + Send + 'static {
        async { todo!() }
    }

    /// Hands in a question now.
    pub fn settle(
        &self,
        _chain: &Chain,
        _settle: Settle,
    ) -> impl Future<Output = SettleOutcome> + Send + 'static {
        async { todo!() }
    }
}
