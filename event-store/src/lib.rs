//! The log, which is OMISYS's only source of truth, and the executor, the only way for commands to write to it.
//!
//! * [`Log`] opens the log and reads it: by stream, by position, and as it grows.
//! * [`Journal`] appends: all of an append or nothing of it, with its receipt, under the version it was decided on.
//! * [`Executor`] runs commands on aggregates in memory and hands the events to the journal without waiting.
//!
//! What makes speculation safe is the [`Chain`]: commands are decided on the state that earlier, not yet durable
//! appends will leave. When one of those fails, the journal refuses every later append of its chain, until the
//! executor has reloaded and begun a new chain. A stale cache may cost time, never an answer.

mod as_of;
mod chain;
mod command;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod cqrs;
mod entry;
mod error;
mod executor;
mod executors;
mod journal;
mod log;
#[cfg(feature = "cluster")]
mod postgres;
mod queue;
mod row;
mod sqlite;
mod store;
mod streams;
mod tail;
mod trace;
mod transfer;

pub use as_of::{AsOf, ParseAsOfError};
pub use chain::Chain;
pub use command::{CommandRequest, Fingerprint, Fingerprints, Receipt};
pub use cqrs::{CqrsStore, LoadedAggregate};
pub use entry::{LogEntry, RawEvent, Slice, UnreadableEvent, UnreadableReason};
pub use error::{AccessError, ExecuteError, FindReceiptError, ReadError, Unavailable};
pub use executor::{Executor, ExecutorOptions, PendingReceipt};
pub use executors::Executors;
pub use journal::{Append, AppendOutcome, Journal, Settle, SettleOutcome, StoredReceipt};
pub use log::{Log, LogOptions};
pub use trace::traced;
pub use transfer::{ImportError, LogImport, RawReceipt};
