//! The stream: who reads the log, how far they have come, and what they could not process.
//!
//! A [`Subscription`] reads the stream from one of two sources: the log itself, tailed by position and woken by commits
//! without a polling delay, or (feature `cluster`) Kafka as a member of a consumer group, filled by the relay. Delivery
//! is at least once and in order per aggregate; nothing is promised between aggregates. A gap is filled from the log,
//! never skipped. A [`Checkpoint`] has a position per [`PartitionKey`], is durable and belongs to one log and epoch: one of another log is refused, never silently continued. What a handler cannot process waits in
//! [`DeadLetters`], in order, with everything of the same scope that came behind it, while the rest goes on; [`Healing`] is how people ask for it to be tried again.

mod checkpoint;
mod dead_letters;
mod error;
mod healing;
#[cfg(feature = "cluster")]
mod kafka;
mod lag;
mod log_tail;
mod partition;
mod subscription;

pub use checkpoint::{Checkpoint, Checkpoints};
pub use dead_letters::{DeadLetter, DeadLetters, NewDeadLetter};
pub use error::BusError;
pub use healing::{
    AskError, Asked, Healing, HealingOutcome, HealingRequest, ParkedScope, ParseScopeIdError, Remedy,
    Retried, ScopeId,
};
#[cfg(feature = "cluster")]
pub use kafka::{Kafka, KafkaOptions, Positions, Relay, RelayOptions, RelayState, RelayStatus, StreamSource};
pub use lag::Lag;
pub use partition::{ParsePartitionError, PartitionKey, Partitioning};
pub use subscription::{Batch, Subscription};
