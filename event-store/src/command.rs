//! What is asked of the executor and what it answers.

use std::sync::Arc;

use event_schemas::{Actor, CommandId, CorrelationId, EventId, Position, StreamId, Version};

/// A command with everything that the log keeps about why it was given.
#[derive(Debug, Clone)]
pub struct CommandRequest<C> {
    /// A repeat under this id gets the first outcome.
    pub command_id: CommandId,
    /// What the client sent, as MACs; empty for a command under a policy's id.
    pub fingerprints: Fingerprints,
    pub actor: Actor,
    pub correlation_id: CorrelationId,
    /// The event that caused the command; none for a command of a person.
    pub causation: Option<EventId>,
    /// W3C trace context.
    pub traceparent: Option<Arc<str>>,
    /// `If-Match`: refuse unless the aggregate is at this version. `Version(0)` means "must not exist yet", and spares
    /// the executor a read of the stream if it does not know the aggregate.
    pub expected_version: Option<Version>,
    pub command: C,
}

impl<C> CommandRequest<C> {
    /// A command that starts its own correlation, with nothing optional set.
    pub fn new(command_id: CommandId, actor: Actor, command: C) -> Self {
        Self {
            command_id,
            fingerprints: Fingerprints::none(),
            actor,
            correlation_id: CorrelationId::for_command(command_id),
            causation: None,
            traceparent: None,
            expected_version: None,
            command,
        }
    }
}

/// A MAC of the raw request body under the named server key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    pub key_id: Arc<str>,
    pub mac: [u8; 32],
}

/// One request body's fingerprints under the current key and the retired ones, so that a receipt stored under a key
/// that has been retired since can still be compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprints(Vec<Fingerprint>);

impl Fingerprints {
    /// For commands without a client's body.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// `current` is what a new receipt stores.
    pub fn new(current: Fingerprint, retired: impl IntoIterator<Item = Fingerprint>) -> Self {
        Self(std::iter::once(current).chain(retired).collect())
    }

    /// What a new receipt stores.
    pub fn current(&self) -> Option<&Fingerprint> {
        self.0.first()
    }

    /// Whether a receipt with `stored` may be given to this request. A side without a fingerprint matches anything. A
    /// stored one under a key that nobody has any more does not match: saying "another body" wrongly is an
    /// annoyance, replaying another body's outcome as this one's is a lie.
    pub fn matches(&self, stored: Option<&Fingerprint>) -> bool {
        stored.is_none_or(|stored| self.0.is_empty() || self.0.contains(stored))
    }
}

/// The durable outcome of an accepted command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub stream: StreamId,
    /// The aggregate's version after the command.
    pub version: Version,
    /// The position of the command's last event; the log's head at the time if it emitted none.
    pub position: Position,
    /// Whether this is the outcome of an earlier command under the same id.
    pub replayed: bool,
}
