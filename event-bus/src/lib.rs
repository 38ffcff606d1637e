//! The stream: who reads the log, how far they have come, and what they could not process.
//!
//! A [`Subscription`] tails the log by position and is woken by commits, without a polling delay. Delivery is at least
//! once and in order per aggregate; nothing is promised between aggregates. A [`Checkpoint`] is durable and belongs to
//! one log and epoch: one of another log is refused, never silently continued. What a handler cannot process waits in
//! [`DeadLetters`], in order, with everything of the same scope that came behind it, while the rest goes on.

mod checkpoint;
mod dead_letters;
mod error;
mod partition;
mod subscription;

pub use checkpoint::{Checkpoint, Checkpoints};
pub use dead_letters::{DeadLetter, DeadLetters, NewDeadLetter, ParkedScope, Retried};
pub use error::BusError;
pub use partition::{ParsePartitionError, PartitionKey, Partitioning};
pub use subscription::{Batch, Subscription};
