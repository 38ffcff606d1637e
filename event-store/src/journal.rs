//! Appends: what is asked of the log's one writer, what it answers, and the queue between.

use std::future::Future;
use std::sync::Arc;

use database::Database;
use event_schemas::{Clock, CommandId, Event, Metadata, Position, StreamId, Version};
use tokio::sync::oneshot;

#[cfg(feature = "cluster")]
use crate::postgres::PostgresWriter;
use crate::queue::{JournalEntry, Outcome, PreparedAppend, Work};
use crate::sqlite::SqliteWriter;
use crate::store::Store;
use crate::tail::Tail;
use crate::{Chain, Fingerprint, Receipt, Unavailable};

/// The way into the log. Entries are taken in the order of the calls, whatever the returned futures do. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    writer: Writer,
    max_event_bytes: usize,
}

#[derive(Clone)]
enum Writer {
    Sqlite(SqliteWriter),
    #[cfg(feature = "cluster")]
    Postgres(PostgresWriter),
}

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

/// What became of an [`Append`]. Only `Appended` stored anything; every other outcome breaks the chain, unless it is a
/// `Duplicate` of an append without events.
#[derive(Debug, Clone, PartialEq)]
pub enum AppendOutcome {
    /// Durable.
    Appended(Receipt),
    /// The command id has a receipt on this stream already. Takes precedence over `Conflict`.
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
    /// The stream is not at that version; the chain is broken.
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

impl StoredReceipt {
    pub(crate) fn replayed(&self, stream: StreamId) -> Receipt {
        Receipt {
            stream,
            version: self.version,
            position: self.position,
            replayed: true,
        }
    }
}

impl Journal {
    /// Starts the log's writer. Needs a Tokio runtime.
    pub(crate) fn open(store: &Store, clock: Clock, tail: &Arc<Tail>, max_event_bytes: usize) -> Self {
        let tail = Arc::clone(tail);
        let writer = match store.database() {
            Database::Sqlite(file) => Writer::Sqlite(SqliteWriter::new(file.clone(), clock, tail)),
            #[cfg(feature = "cluster")]
            Database::Postgres(postgres) => {
                Writer::Postgres(PostgresWriter::new(postgres.clone(), clock, tail))
            }
        };
        Self {
            writer,
            max_event_bytes,
        }
    }

    /// See [`crate::LogOptions::max_event_bytes`].
    pub(crate) fn max_event_bytes(&self) -> usize {
        self.max_event_bytes
    }

    /// Hands in an append now; the future gives its outcome once it is durable.
    pub fn append(
        &self,
        chain: &Chain,
        append: Append,
    ) -> impl Future<Output = AppendOutcome> + Send + use<> {
        let stream = append.stream.clone();
        let prepared = PreparedAppend::new(append, self.max_event_bytes).inspect_err(|_| chain.break_off());
        let answer = prepared.map(|prepared| self.hand_in(chain, Work::Append(prepared)));
        async move {
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => return AppendOutcome::Unavailable(error),
            };
            match answer.await.unwrap_or(Outcome::Unavailable(Unavailable::Closed)) {
                Outcome::Appended { version, position } => AppendOutcome::Appended(Receipt {
                    stream,
                    version,
                    position,
                    replayed: false,
                }),
                Outcome::Duplicate(stored) => AppendOutcome::Duplicate(stored),
                Outcome::Behind { actual } => AppendOutcome::Conflict { actual },
                Outcome::ChainBroken => AppendOutcome::ChainBroken,
                Outcome::Settled => AppendOutcome::Unavailable(Unavailable::Defect("an append was settled")),
                Outcome::Unavailable(error) => AppendOutcome::Unavailable(error),
            }
        }
    }

    /// Hands in a question now.
    pub fn settle(
        &self,
        chain: &Chain,
        settle: Settle,
    ) -> impl Future<Output = SettleOutcome> + Send + use<> {
        let answer = self.hand_in(chain, Work::Settle(settle));
        async move {
            match answer.await.unwrap_or(Outcome::Unavailable(Unavailable::Closed)) {
                Outcome::Settled => SettleOutcome::Settled,
                Outcome::Duplicate(stored) => SettleOutcome::Duplicate(stored),
                Outcome::Behind { actual } => SettleOutcome::Stale { actual },
                Outcome::ChainBroken => SettleOutcome::ChainBroken,
                Outcome::Appended { .. } => {
                    SettleOutcome::Unavailable(Unavailable::Defect("a question was appended"))
                }
                Outcome::Unavailable(error) => SettleOutcome::Unavailable(error),
            }
        }
    }

    fn hand_in(&self, chain: &Chain, work: Work) -> oneshot::Receiver<Outcome> {
        let (reply, answer) = oneshot::channel();
        let done = Box::new(move |outcome| {
            // The caller may have stopped waiting.
            let _ = reply.send(outcome);
        });
        self.submit(&mut vec![JournalEntry::new(chain.clone(), work, done)]);
        answer
    }

    /// Hands in `entries`, in order, and leaves the vector empty for its next use.
    pub(crate) fn submit(&self, entries: &mut Vec<JournalEntry>) {
        match &self.writer {
            Writer::Sqlite(writer) => writer.submit(entries),
            #[cfg(feature = "cluster")]
            Writer::Postgres(writer) => writer.submit(entries),
        }
    }
}
